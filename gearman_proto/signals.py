"""Signal handlers for the duration of a call, and the end of a process.

The core does not use the module `os`, so adapters pass `os._exit`, and register `restore_in_child`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: A shell adds this to the number of the signal that ended a program.
SIGNALLED: Final = 128


# The handlers that calls of `handled` restore at their end, oldest call first.
_replaced: Final[list[dict[int, Any]]] = []


@contextlib.contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of each of these signals.

    Restore the old handlers at the end, and in a forked child (see `restore_in_child`). A signal
    that is ignored, as under nohup, stays ignored. A handler that was not set in Python stays as
    well, because Python could not restore it.
    """
    found = {number: signal.getsignal(number) for number in numbers}
    before = {
        number: its_handler
        for number, its_handler in found.items()
        if its_handler not in (signal.SIG_IGN, None)
    }
    _replaced.append(before)
    for number in before:
        signal.signal(number, lambda number, _frame: handler(number))
    try:
        yield
    finally:
        _restore(before)
        _replaced[:] = [other for other in _replaced if other is not before]


def restore_in_child() -> None:
    """Restore the handlers from before all calls of `handled`, in the child of a fork.

    Adapters register this function, because a handler of the parent must not act in its child. The
    handlers can't do this themselves: in the child of a thread, Python 3.13.0 can leave a signal
    pending.
    """
    while _replaced:
        before = _replaced.pop()
        _restore(before)
        before.clear()  # The child might leave the call.


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def draining(stop: Callable[[], object], end: Callable[[int], object]) -> Iterator[None]:
    """Call `stop` at the first SIGTERM or SIGINT, and `end` with the number of each later one.

    Both are called in the signal handler, so `end` is called even if the main thread is blocked.
    See `handled`.
    """
    is_stopping = False

    def on_signal(number: int) -> None:
        nonlocal is_stopping
        if is_stopping:
            end(number)
        else:
            is_stopping = True
            stop()

    with handled((signal.SIGTERM, signal.SIGINT), on_signal):
        yield


def end_process(leave: Callable[[int], object], status: int) -> None:
    """End this process at once, without cleanup.

    Args:
        leave: Ends this process immediately, with an exit status.
        status: The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    leave(status)
