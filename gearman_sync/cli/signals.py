"""Signals that a command takes care of while it runs."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def heeded(numbers: Iterable[int]) -> list[int]:
    """Those that are not ignored: what is ignored, as with nohup, is to stay so."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def handled(numbers: Iterable[int], handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of each of these that comes. At the end all is as before."""
    before = {
        number: signal.signal(number, lambda number, _frame: handler(number)) for number in numbers
    }
    try:
        yield
    finally:
        for number, its_handler in before.items():
            signal.signal(number, its_handler)
