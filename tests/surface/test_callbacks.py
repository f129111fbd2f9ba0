"""The checks of a callback when it is registered."""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import pytest

from gearman_proto.surface.callbacks import check_callback, is_async


def two(worker: Any, job: Any) -> Any:
    return job


def one(job: Any) -> Any:
    return job


async def waits(worker: Any, job: Any) -> bytes:
    return b""


def wrapper_of(function: Any) -> Any:
    """Return a decorated callback: `functools.wraps` shows one parameter, but it takes two."""

    @functools.wraps(function)
    def wrapper(worker: Any, job: Any) -> Any:
        return function(job)

    return wrapper


class Methods:
    def two(self, worker: Any, job: Any) -> bytes:
        return b""

    def one(self, job: Any) -> Any:
        return job

    @classmethod
    def of_class(cls, worker: Any, job: Any) -> bytes:
        return b""

    @staticmethod
    def static(worker: Any, job: Any) -> bytes:
        return b""

    async def __call__(self, worker: Any, job: Any) -> bytes:
        return b""


class Bare:
    """A class that takes no arguments and whose instances can't be called."""


class Unclear:
    """A callable class with an invalid `__signature__`, whose constructor is a valid callback."""

    __signature__ = "nothing"

    def __init__(self, *args: Any) -> None:
        pass

    def __call__(self, *args: Any) -> bytes:
        return b""


PLAIN = [
    two,
    lambda *args: b"",
    lambda worker, job, extra=5, *, option=False: b"",
    lambda worker, job, **options: b"",
    functools.partial(lambda worker, job, extra: b"", 5),
    functools.partial(lambda worker, job, *, option: b"", option=5),
    Methods().two,
    Methods.of_class,
    Methods.static,
    functools.partial(Methods.two, Methods()),
    wrapper_of(one),
    # These have no signature or a wrong one.
    Unclear,
    Unclear(),
    mock.Mock(),
    mock.create_autospec(one),
    max,
    dict.get,
    type,
]

ASYNC = [
    waits,
    functools.partial(waits),
    Methods(),
]

OF_THE_JOB = [
    one,
    lambda job, *, option=False: job,
    functools.partial(two, "worker"),
    Methods().one,
    wrapper_of(one).__wrapped__,
]

WRONG = [
    lambda worker, job, extra: b"",
    lambda worker, *, job: b"",
    lambda worker, job, *, option: b"",
    Methods.two,
    Bare,
    lambda: b"",
]


@pytest.mark.parametrize("callback", PLAIN)
@pytest.mark.parametrize("is_awaited", [False, True])
def test_plain_callback_is_accepted(callback: Any, is_awaited: bool) -> None:
    assert check_callback("t", callback, is_awaited=is_awaited) is callback
    assert not is_async(callback)


@pytest.mark.parametrize("callback", OF_THE_JOB)
def test_callback_of_one_parameter_gets_the_job(callback: Any) -> None:
    called = check_callback("t", callback, is_awaited=False)
    assert called("worker", "job") == callback("job")


@pytest.mark.parametrize("callback", ASYNC)
def test_async_callback_is_accepted_by_gearman_anyio_only(callback: Any) -> None:
    assert is_async(callback)
    check_callback("t", callback, is_awaited=True)
    with pytest.raises(TypeError, match=r"'t' is async, .*: gearman_anyio\.GearmanWorker does"):
        check_callback("t", callback, is_awaited=False)


@pytest.mark.parametrize("callback", WRONG)
def test_callback_with_wrong_parameters_is_refused(callback: Any) -> None:
    with pytest.raises(TypeError, match=r"'t' is called with .*, or with the job alone, which"):
        check_callback("t", callback, is_awaited=True)


@pytest.mark.parametrize("callback", [None, 5, b"reverse", Bare(), []])
def test_callback_that_is_not_callable_is_refused(callback: Any) -> None:
    with pytest.raises(TypeError, match="the callback of 't' can't be called: "):
        check_callback("t", callback, is_awaited=True)
