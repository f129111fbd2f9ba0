"""Signal handlers for the duration of a call."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from gearman_proto.signals import draining, end_process, handled, restore_in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDLER = "a handler of the application"


@pytest.fixture(autouse=True)
def seen() -> Iterator[list[object]]:
    """What the application's handlers of SIGTERM and SIGINT get. It is restored at the end."""
    seen: list[object] = []
    numbers = signal.SIGTERM, signal.SIGINT
    before = [
        signal.signal(number, lambda number, _frame: seen.append((HANDLER, number)))
        for number in numbers
    ]
    yield seen
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_handlers_are_restored(seen: list[object]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError), handled([signal.SIGTERM], seen.append):
        signal.raise_signal(signal.SIGTERM)
        raise ValueError
    assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


def test_default_action_is_restored() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with handled([signal.SIGTERM], print):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ignored_signal_stays_ignored(seen: list[object]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with handled([signal.SIGTERM], seen.append):
        signal.raise_signal(signal.SIGTERM)
    assert seen == []


def test_handler_that_python_does_not_know_stays(
    monkeypatch: pytest.MonkeyPatch, seen: list[object]
) -> None:
    """Such as one of C code. `signal.signal` can't restore it."""
    monkeypatch.setattr(signal, "getsignal", lambda _number: None)
    with handled([signal.SIGTERM], print):
        signal.raise_signal(signal.SIGTERM)
    assert seen == [(HANDLER, signal.SIGTERM)]


def test_forked_child_has_the_old_handlers(seen: list[object]) -> None:
    with handled([signal.SIGTERM], print):
        with handled([signal.SIGTERM, signal.SIGINT], print):
            restore_in_child()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.raise_signal(number)
        with handled([signal.SIGTERM], seen.append):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # It is the child's by now.
            signal.raise_signal(signal.SIGTERM)
    assert seen == [(HANDLER, signal.SIGTERM), (HANDLER, signal.SIGINT), signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_first_signal_stops_and_later_ones_end(seen: list[object]) -> None:
    with draining(lambda: seen.append("stop"), seen.append):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
    assert seen == ["stop", signal.SIGTERM, signal.SIGINT]


def test_ignored_signal_does_not_count(seen: list[object]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with draining(lambda: seen.append("stop"), seen.append):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
    assert seen == ["stop", signal.SIGTERM]


def test_end_of_the_process_flushes_its_output(
    monkeypatch: pytest.MonkeyPatch, seen: list[object]
) -> None:
    raw = io.BytesIO()
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw))
    sys.stderr.write("last words")
    end_process(seen.append, 130)
    assert (raw.getvalue(), seen) == (b"last words", [130])
