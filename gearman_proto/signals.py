"""Signal handlers for the duration of a call, and the end of a process.

The core does not use the module `os`, so callers pass `os.getpid` and `os._exit`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: A shell adds this to the number of the signal that ended a program.
SIGNALLED: Final = 128


@contextlib.contextmanager
def handled(
    numbers: Iterable[int], handler: Callable[[int], None], getpid: Callable[[], int]
) -> Iterator[None]:
    """Call `handler` with the number of each of these signals.

    Restore the old handlers at the end, and in a forked child at its first signal. A signal that is
    ignored, as under nohup, stays ignored. A handler that was not set in Python stays as well,
    because Python could not restore it.

    Args:
        numbers: The signals.
        handler: The handler.
        getpid: Returns the ID of this process.
    """
    pid = getpid()

    def handle(number: int, _frame: object) -> None:
        if getpid() == pid:
            handler(number)
        else:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    found = {number: signal.getsignal(number) for number in numbers}
    before = {
        number: its_handler
        for number, its_handler in found.items()
        if its_handler not in (signal.SIG_IGN, None)
    }
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, its_handler in before.items():
            signal.signal(number, its_handler)


@contextlib.contextmanager
def draining(
    stop: Callable[[], object], end: Callable[[int], object], getpid: Callable[[], int]
) -> Iterator[None]:
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

    with handled((signal.SIGTERM, signal.SIGINT), on_signal, getpid):
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
