"""The longest time that other tasks of the event loop have to wait for a call.

A task in the same loop sleeps for a millisecond, again and again. "gap" is the longest time between
two of its turns. "CPU" is the longest CPU time of the loop's thread between two turns, and
"collector" the garbage collector's part of it. A busy machine changes only "gap". "idle" is the gap
without a call.
"""

from __future__ import annotations

import contextlib
import gc
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from . import bulk, processes, raw
from .child import answer, jobs_for, orders
from .peers import loops
from .rounds import median
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .rounds import Figures, Results, Settings

_TICK = 0.001


class _Call(NamedTuple):
    """A call to measure.

    Attributes:
        share: Divisor of the number of jobs.
        target: Longest acceptable gap in seconds, or None.
        task: The function of the jobs. No worker does those of `_NOBODY`.
    """

    share: int
    target: float | None
    task: str


_NOBODY = "nobody does this"
_IDLE = "idle"
_BACKGROUND = "background jobs"
_UNIQUES = "background jobs with uniques"
_PAYLOAD = "one job with 1 KB for each"
_FOREGROUND = "foreground jobs"
_AS_COMPLETED = "as_completed"
_TASKS = "tasks with a job each"
_SERVER = "JobServer, background jobs"
_CALLS = {
    _IDLE: _Call(1, None, _NOBODY),
    _BACKGROUND: _Call(1, 0.01, _NOBODY),
    _UNIQUES: _Call(1, 0.01, _NOBODY),
    _PAYLOAD: _Call(1, 0.01, _NOBODY),
    _FOREGROUND: _Call(2, None, raw.TASK),
    _AS_COMPLETED: _Call(1, 0.04, raw.TASK),
    # The target of each task is 25 microseconds.
    _TASKS: _Call(10, 0.25, _NOBODY),
    _SERVER: _Call(1, 0.01, raw.TASK),
}


def run(settings: Settings) -> Iterator[Table]:
    found: Results = {f"{name}, {loop}": [] for loop in loops() for name in _CALLS}
    for _ in range(settings.rounds):
        for loop in loops():
            for name, figures in _measure(loop, settings):
                found[f"{name}, {loop}"].append(figures)
    table = Table(
        "longest gap of another task in the event loop",
        [("jobs", "n"), ("gap", "ms"), ("target", "ms"), ("CPU", "ms"), ("collector", "ms")],
    )
    for name, each in found.items():
        target = _CALLS[name.rpartition(", ")[0]].target
        gap, busy, collector = (median(each, what) for what in ("gap", "busy", "collector"))
        table.add(name, median(each, "jobs"), gap, target, busy, collector)
    yield table


def _measure(loop: str, settings: Settings) -> Iterator[tuple[str, Figures]]:
    first, others = processes.processors()
    with (
        processes.serving(processors=others) as server,
        processes.python(processes.work, port=server.port),
    ):
        with processes.on(first):
            child = processes.python(call, port=server.port, loop=loop)
        with child:
            child.tell(settings.jobs)
            for name in _CALLS:
                if name != _SERVER:
                    yield name, child.answer()
    with processes.on(first):
        child = processes.python(serve, loop=loop)
    with child:
        port = int(child.answer()["port"])
        with processes.on(others):
            client = processes.python(bulk.raw_socket, port=port, background=True)
        with client:
            child.tell(settings.jobs)
            client.ask(settings.jobs)
            child.tell(0)
            yield _SERVER, child.answer()


# Code for the child processes.


class Gaps:
    """The longest gap between two turns of a task, in seconds.

    Attributes:
        longest: The longest gap.
        busy: The longest CPU time of this thread between two turns.
        collector: The collector's part of `busy`.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.busy = 0.0
        self.collector = 0.0
        self._collected = 0.0
        self._began = 0.0

    def _note(self, phase: str, _info: object) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self._collected += time.thread_time() - self._began

    async def tick(self) -> None:
        """Run until cancelled."""
        import anyio  # noqa: PLC0415

        gc.callbacks.append(self._note)
        try:
            last, used = time.perf_counter(), time.thread_time()
            while True:
                self._collected = 0.0
                await anyio.sleep(_TICK)
                now, cpu = time.perf_counter(), time.thread_time()
                self.longest = max(self.longest, now - last)
                if cpu - used > self.busy:
                    self.busy, self.collector = cpu - used, self._collected
                last, used = now, cpu
        finally:
            gc.callbacks.remove(self._note)

    def figures(self, jobs: int) -> Figures:
        return {
            "jobs": jobs,
            "gap": self.longest,
            "busy": self.busy,
            "collector": self.collector,
        }


@contextlib.asynccontextmanager
async def ticking() -> AsyncIterator[Gaps]:
    """Measure the gaps inside the context."""
    import anyio  # noqa: PLC0415

    gaps = Gaps()
    gc.collect()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gaps.tick)
        await anyio.sleep(20 * _TICK)
        gaps.longest = gaps.busy = 0.0
        yield gaps
        await anyio.sleep(20 * _TICK)
        tasks.cancel_scope.cancel()


async def call(port: int) -> None:
    import gearman_anyio  # noqa: PLC0415

    async with gearman_anyio.GearmanClient([f"127.0.0.1:{port}"]) as client:
        await client.submit_job(raw.TASK, raw.DATA)
        for most in orders():
            for name, (share, _, task) in _CALLS.items():
                if name != _SERVER:
                    count = max(most // share, 2)
                    jobs: list[dict[str, Any]] = [{**job, "task": task} for job in jobs_for(count)]
                    payload = bytes(1000 * count)
                    if name == _UNIQUES:
                        for number, job in enumerate(jobs):
                            job["unique"] = f"unique {number}"
                    async with ticking() as gaps:
                        await _call(client, name, jobs, payload)
                    answer(gaps.figures(count))


async def _call(client: Any, name: str, jobs: list[dict[str, Any]], payload: bytes) -> None:
    import anyio  # noqa: PLC0415

    if name == _IDLE:
        await anyio.sleep(200 * _TICK)
    elif name == _PAYLOAD:
        await client.submit_job(_NOBODY, payload, background=True)
    elif name == _FOREGROUND:
        await client.submit_multiple_jobs(jobs)
    elif name == _AS_COMPLETED:
        requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
        async for _ in client.as_completed(requests):
            pass
    elif name == _TASKS:
        async with anyio.create_task_group() as tasks:
            for job in jobs:
                tasks.start_soon(_submit, client, job)
    else:
        await client.submit_multiple_jobs(jobs, background=True)


async def _submit(client: Any, job: dict[str, Any]) -> None:
    await client.submit_job(**job, background=True)


async def serve() -> None:
    import anyio  # noqa: PLC0415

    import gearman_anyio  # noqa: PLC0415

    port = processes.free_port()
    async with gearman_anyio.JobServer(host="127.0.0.1", port=port):
        answer({"port": port})
        numbers = orders()
        for count in numbers:
            async with ticking() as gaps:
                await anyio.to_thread.run_sync(next, numbers)
            answer(gaps.figures(count))
