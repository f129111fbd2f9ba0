"""Exceptions of signal handlers."""

from __future__ import annotations

import functools
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.handlers import has_hit_the_library, is_from_handler, reraise_from_handler
from tests.support import PATIENCE, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def fail(number: int, frame: object) -> None:
    raise TimeoutError("limit")


class Failing:
    def method(self, number: int, frame: object) -> None:
        fail(number, frame)

    def __call__(self, number: int, frame: object) -> None:
        fail(number, frame)


HANDLERS: dict[str, Callable[[int, Any], object]] = {
    "function": fail,
    "method": Failing().method,
    "object": Failing(),
    "partial": functools.partial(fail),
}


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def error_of(function: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


def from_signal() -> Exception:
    return error_of(lambda: signal.raise_signal(signal.SIGUSR1))


@pytest.mark.parametrize("kind", HANDLERS)
def test_exception_of_any_kind_of_handler_is_recognised(kind: str) -> None:
    signal.signal(signal.SIGUSR1, HANDLERS[kind])
    error = from_signal()
    assert is_from_handler(error)
    with pytest.raises(TimeoutError) as caught:
        reraise_from_handler(error)
    assert caught.value is error


@pytest.mark.parametrize(
    "function",
    [lambda: int("x"), [].pop, lambda: open("/nowhere")],  # noqa: SIM115
)
def test_other_exceptions_are_not_from_a_handler(function: Callable[[], object]) -> None:
    signal.signal(signal.SIGUSR1, fail)
    error = error_of(function)
    assert not is_from_handler(error)
    reraise_from_handler(error)
    assert not is_from_handler(error.with_traceback(None))


def test_exception_in_another_thread_is_not_from_a_handler() -> None:
    signal.signal(signal.SIGUSR1, fail)
    answer = spawn(lambda: is_from_handler(error_of(lambda: fail(0, None))))
    assert answer.result(PATIENCE) is False


@pytest.mark.parametrize(("module", "expected"), [("signal", False), ("threading", True)])
def test_is_from_handler_in_a_program_without_a_module(
    monkeypatch: pytest.MonkeyPatch, module: str, expected: bool
) -> None:
    signal.signal(signal.SIGUSR1, fail)
    error = from_signal()
    monkeypatch.delitem(sys.modules, module)
    assert is_from_handler(error) is expected


def test_hit_in_a_callback_is_not_a_hit_in_the_library() -> None:
    signal.signal(signal.SIGUSR1, fail)
    assert not has_hit_the_library(from_signal())
    library: dict[str, Any] = {"__name__": "gearman_sync.worker", "signal": signal}
    exec("def work(): signal.raise_signal(signal.SIGUSR1)", library)
    error = None
    try:
        library["work"]()
    except TimeoutError as caught:
        error = caught.with_traceback(caught.__traceback__.tb_next)  # type: ignore[union-attr]
    assert error is not None
    assert has_hit_the_library(error)
