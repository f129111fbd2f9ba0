"""Signals that a command takes care of while it runs."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType


def heeded(numbers: Iterable[int]) -> list[int]:
    """Those that are not ignored: what is ignored, as with nohup, is to stay so."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def handled(
    numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Let `handler` have these signals. At the end they are handled as before."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, its_handler in before.items():
            signal.signal(number, its_handler)
