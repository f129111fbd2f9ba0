"""The basic case on asyncio: a client submits jobs, workers do them, and the results return.

    python examples/quickstart_asyncio.py [--server HOST:PORT] [--workers N] [FILE ...]

The client and each worker are tasks. The callback is the plain function of quickstart.py. It runs
in a thread, so it can compute or block without delaying the event loop. The command line and the
output are those of quickstart.py.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from typing import TYPE_CHECKING, Any

try:
    import anyio
except ModuleNotFoundError:
    raise SystemExit("this example needs anyio: pip install anyio") from None

from quickstart import (
    ERRORS,
    TASK,
    Gate,
    count_words,
    fail,
    parse_arguments,
    read_jobs,
    say,
    summary,
)

import gearman_anyio as gearman

if TYPE_CHECKING:
    import argparse


async def main(arguments: argparse.Namespace) -> int:
    jobs = read_jobs(arguments.files)
    if arguments.server is not None:
        return await run(arguments.server, jobs, arguments)
    async with gearman.JobServer() as server:
        say(f"server: listening at {server.address}, for this program only")
        return await run(str(server.address), jobs, arguments)


async def run(server: str, jobs: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    async with gearman.GearmanClient([server]) as client:
        requests = await client.submit_multiple_jobs(
            list(jobs.values()), wait_until_complete=False, poll_timeout=arguments.timeout
        )
        names = dict(zip(requests, jobs))
        for request, name in names.items():
            say(f"client: submitted {name} as {request.handle or 'nothing yet'}")
        gate = Gate(min(arguments.workers, len(jobs)))
        # asyncio.TaskGroup can't cancel its tasks. An anyio task group can.
        async with anyio.create_task_group() as tasks:
            for number in range(arguments.workers):
                tasks.start_soon(work, f"worker {number + 1}", server, gate)
            async for request in client.as_completed(requests, poll_timeout=arguments.timeout):
                if request.state == gearman.JOB_COMPLETE:
                    say(f"client: {names[request]} has {request.result.decode().strip()} words")
            tasks.cancel_scope.cancel()
        return summary(names, started, arguments.server)


async def work(name: str, server: str, gate: Gate) -> None:
    async with gearman.GearmanWorker([server]) as worker:
        worker.set_client_id(name)
        worker.register_task(TASK, functools.partial(count_words, gate))
        try:
            await worker.work()
        except gearman.errors.ServerUnavailable as error:
            say(f"{name}: {error}")


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(parse_arguments())))
    except ERRORS as error:
        sys.exit(fail(error))
