"""Signal handlers for the duration of a call."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def not_ignored(numbers: Iterable[int]) -> list[int]:
    """Return the signals that are not ignored.

    A signal that is ignored, as under nohup, stays ignored.
    """
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of each of these signals.

    Restore the old handlers at the end, and in a forked child at its first signal.
    """
    pid = os.getpid()

    def handle(number: int, _frame: object) -> None:
        if os.getpid() == pid:
            handler(number)
        else:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, its_handler in before.items():
            signal.signal(number, its_handler)


@contextlib.contextmanager
def draining(stop: Callable[[], object], end: Callable[[int], object]) -> Iterator[None]:
    """Call `stop` at the first SIGTERM or SIGINT, and `end` with the number of each later one."""
    is_stopping = False

    def on_signal(number: int) -> None:
        nonlocal is_stopping
        if is_stopping:
            end(number)
        else:
            is_stopping = True
            stop()

    with handled(not_ignored((signal.SIGTERM, signal.SIGINT)), on_signal):
        yield
