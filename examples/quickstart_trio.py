"""The basic case on trio: a client submits jobs, workers do them, and the results return.

    python examples/quickstart_trio.py [--server HOST:PORT] [--workers N] [FILE ...]

The client, each worker and each job are tasks, and the callback is an async function. The command
line and the output are those of quickstart.py.
"""

from __future__ import annotations

import functools
import sys
import time
from typing import TYPE_CHECKING, Any

try:
    import trio
except ModuleNotFoundError:
    raise SystemExit("this example needs trio: pip install 'anyio[trio]'") from None

from quickstart import ERRORS, PATIENCE, TASK, fail, parse_arguments, read_jobs, say, summary

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
        async with trio.open_nursery() as nursery:
            for number in range(arguments.workers):
                nursery.start_soon(work, f"worker {number + 1}", server, gate)
            async for request in client.as_completed(requests, poll_timeout=arguments.timeout):
                if request.state == gearman.JOB_COMPLETE:
                    say(f"client: {names[request]} has {request.result.decode().strip()} words")
            nursery.cancel_scope.cancel()
        return summary(names, started, arguments.server)


async def work(name: str, server: str, gate: Gate) -> None:
    async with gearman.GearmanWorker([server]) as worker:
        worker.set_client_id(name)
        worker.register_task(TASK, functools.partial(count_words, gate))
        try:
            await worker.work()
        except gearman.errors.ServerUnavailable as error:
            say(f"{name}: {error}")


async def count_words(gate: Gate, worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> str:
    await gate.wait(worker.worker_client_id)
    words = len(job.data.split())
    say(f"{worker.worker_client_id}: counted {words} words in {job.handle}")
    return str(words)


class Gate:
    """Holds the first jobs until each worker has one.

    Otherwise the first worker might do all jobs.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.with_a_job: set[str | None] = set()
        self.open = trio.Event()

    async def wait(self, worker: str | None) -> None:
        self.with_a_job.add(worker)
        if len(self.with_a_job) < self.workers:
            # Use a timeout: other workers might have taken the other jobs.
            with trio.move_on_after(PATIENCE):
                await self.open.wait()
        self.open.set()


if __name__ == "__main__":
    try:
        sys.exit(trio.run(main, parse_arguments()))
    except ERRORS as error:
        sys.exit(fail(error))
