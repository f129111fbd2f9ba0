"""Resident memory and descriptors per request, client and connection.

A foreground request is in flight: the server has acknowledged it, and no worker does it. A client
is connected and idle. The benchmark creates thousands of each, and divides the growth of the
process by their number.
"""

from __future__ import annotations

import contextlib
import gc
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from . import processes, raw
from .child import answer, jobs_for, orders, resident
from .peers import has, loops
from .raw import DATA, TASK
from .rounds import Figures, interleaved, median
from .servers import kinds
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rounds import Settings

_CLIENTS = 1000


def run(settings: Settings) -> Iterator[Table]:
    clients = min(_CLIENTS, settings.jobs)
    results = interleaved(_subjects(settings.jobs, clients), settings.rounds)
    table = Table("memory", [("bytes", "B"), ("descriptors", "")])
    for name, found in results.items():
        descriptors = median(found, "descriptors") if "descriptors" in found[0] else None
        table.add(name, median(found, "memory"), descriptors)
    yield table


def _subjects(jobs: int, clients: int) -> dict[str, Any]:
    # JobServer will do too, because the subject is the client.
    server = "gearmand" if has("gearmand") else "JobServer"
    subjects = {
        "a foreground request, gearman_sync": partial(_measure, server, requests, jobs),
        "an idle client, gearman_sync": partial(_measure, server, blocking, clients),
    }
    for loop in loops():
        name = f"an idle client, gearman_anyio, {loop}"
        subjects[name] = partial(_measure, server, waiting, clients, loop=loop)
    for kind in kinds():
        subjects[f"an idle connection of {kind}"] = partial(_connections, kind, clients)
    return subjects


def _measure(server: str, function: Any, count: int, **options: Any) -> Figures:
    with (
        processes.serving(server) as serving,
        processes.python(function, port=serving.port, **options) as child,
    ):
        return child.ask(count)


def _connections(kind: str, count: int) -> Figures:
    processes.raise_descriptors()
    with processes.serving(kind) as server, contextlib.ExitStack() as stack:
        echo = raw.packet(raw.Packet.ECHO_REQ, b"echo")

        def connect(count: int) -> int:
            for _ in range(count):
                raw.exchange(stack.enter_context(raw.connect(server.port)), echo, 1)
            return resident(server.pid)

        before = connect(10)
        return {"memory": (connect(count) - before) / count}


# Code for the child processes.


class _Growth:
    """The growth of this process in memory and descriptors."""

    def __init__(self) -> None:
        gc.collect()
        self._memory = resident()
        self._descriptors = len(os.listdir("/proc/self/fd"))

    def answer(self, count: int) -> None:
        gc.collect()
        memory = resident() - self._memory
        descriptors = len(os.listdir("/proc/self/fd")) - self._descriptors
        answer({"memory": memory / count, "descriptors": descriptors / count})


def requests(port: int) -> None:
    import gearman_sync  # noqa: PLC0415

    with gearman_sync.GearmanClient([f"127.0.0.1:{port}"]) as client:
        for count in orders():
            client.submit_job(TASK, DATA, wait_until_complete=False)
            jobs = jobs_for(count)
            growth = _Growth()
            under_way = client.submit_multiple_jobs(jobs, wait_until_complete=False)
            growth.answer(count)
            del under_way


def blocking(port: int) -> None:
    import gearman_sync  # noqa: PLC0415

    processes.raise_descriptors()
    with contextlib.ExitStack() as stack:

        def connect() -> None:
            client = stack.enter_context(gearman_sync.GearmanClient([f"127.0.0.1:{port}"]))
            client.submit_job(TASK, DATA, background=True)

        for count in orders():
            connect()
            growth = _Growth()
            for _ in range(count):
                connect()
            growth.answer(count)


async def waiting(port: int) -> None:
    import gearman_anyio  # noqa: PLC0415

    processes.raise_descriptors()
    async with contextlib.AsyncExitStack() as stack:

        async def connect() -> None:
            client = gearman_anyio.GearmanClient([f"127.0.0.1:{port}"])
            await (await stack.enter_async_context(client)).submit_job(TASK, DATA, background=True)

        for count in orders():
            await connect()
            growth = _Growth()
            for _ in range(count):
                await connect()
            growth.answer(count)
