"""Signal handlers for the duration of a call."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import anyio

from ._tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@contextlib.asynccontextmanager
async def draining(stop: Callable[[], object], end: Callable[[int], object]) -> AsyncIterator[None]:
    """Call `stop` at the first SIGTERM or SIGINT, and `end` with the number of each later one.

    Signals that are ignored stay ignored. Restore the old handlers at the end: asyncio itself would
    set the system's.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    numbers = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    if not numbers:
        yield
        return

    async def obey() -> None:
        act: Callable[[int], object] = lambda _: stop()  # noqa: E731
        async for number in signals:
            act(number)
            act = end

    try:
        with anyio.open_signal_receiver(*numbers) as signals:
            async with Tasks() as tasks:
                tasks.start_soon(obey)
                yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])
