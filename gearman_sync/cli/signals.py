"""Signal handlers for the duration of a command."""

from __future__ import annotations

import contextlib
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

    Restore the old handlers at the end.
    """
    before = {
        number: signal.signal(number, lambda number, _frame: handler(number)) for number in numbers
    }
    try:
        yield
    finally:
        for number, its_handler in before.items():
            signal.signal(number, its_handler)
