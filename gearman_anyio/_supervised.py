"""The work of a process of ``gearmanctl run`` whose callbacks are async."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import anyio

from gearman_proto.surface.tasks import enter

from ._tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from .worker import GearmanWorker


def work(
    worker: GearmanWorker, ready: Callable[[], None], lifespan: Callable[[], Any], backend: str
) -> None:
    """Run a worker until SIGTERM or SIGINT. SIGUSR1 pauses and SIGUSR2 resumes it.

    Args:
        worker: The worker.
        ready: Called when signals are handled, and `lifespan` is entered.
        lifespan: Makes the context manager of this process, plain or async.
        backend: ``asyncio`` or ``trio``.
    """
    signals: Any = None

    async def obey() -> None:
        async for number in signals:
            if number == signal.SIGUSR1:
                worker.pause()
            elif number == signal.SIGUSR2:
                worker.resume()
            else:
                worker.stop()

    async def main() -> None:
        nonlocal signals
        stack = contextlib.AsyncExitStack()
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
        with anyio.open_signal_receiver(*numbers) as signals:
            async with stack, Tasks() as tasks:
                await enter(stack, lifespan())
                tasks.start_soon(obey)
                ready()
                await worker.work()

    anyio.run(main, backend=backend)
