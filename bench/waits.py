"""A job on a client while few or many other calls wait, each in a task and with a timeout.

The measured calls are background jobs, one at a time, on the same client.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from . import processes
from .child import Clock, answer, orders
from .peers import loops
from .raw import DATA, TASK
from .rounds import at_levels
from .tables import growing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .processes import Child
    from .rounds import Settings
    from .tables import Table

_LEVELS = [1, 100, 10_000]


def run(settings: Settings) -> Iterator[Table]:
    levels = [level for level in _LEVELS if level <= settings.jobs]
    results = at_levels(_start, loops(), levels, settings.share(100), settings.rounds)
    yield growing(
        "one job, by waits under way on its gearman_anyio.GearmanClient", "waits", results
    )


@contextlib.contextmanager
def _start(loop: str, waits: int) -> Iterator[Child]:
    first, others = processes.processors()
    with processes.serving(processors=others) as server:
        with processes.on(first):
            child = processes.python(wait, port=server.port, waits=waits, loop=loop)
        with child:
            yield child


# Code for the child processes.


async def wait(port: int, waits: int) -> None:
    import anyio  # noqa: PLC0415

    import gearman_anyio  # noqa: PLC0415

    async with (
        gearman_anyio.GearmanClient([f"127.0.0.1:{port}"]) as client,
        anyio.create_task_group() as tasks,
    ):
        under_way: list[Any] = []
        all_wait = anyio.Event()

        async def wait_for_nobody() -> None:
            requests = await client.submit_multiple_jobs(
                [{"task": "nobody does this", "data": DATA}], wait_until_complete=False
            )
            under_way.extend(requests)
            if len(under_way) == waits:
                all_wait.set()
            await client.wait_until_jobs_completed(requests, poll_timeout=3600)

        for _ in range(waits):
            tasks.start_soon(wait_for_nobody)
        await all_wait.wait()
        for count in orders():
            with Clock() as clock:
                for _ in range(count):
                    await client.submit_job(TASK, DATA, background=True)
            answer(clock.result(count))
        tasks.cancel_scope.cancel()
