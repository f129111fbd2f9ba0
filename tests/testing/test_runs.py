"""The record of the jobs that a worker with async hooks has done, in virtual time.

Tests of workers with blocking hooks are in test_running.py, of the others in tests/anyio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from gearman_anyio import GearmanClient, GearmanWorker, JobServer
from gearman_anyio.testing import WorkerUnderTest, virtual_clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gearman_proto import WorkerJob
    from gearman_proto.testing.runs import JobRun


async def work(worker: Any, job: WorkerJob) -> Any:
    """Do what the job's data says."""
    if job.data == b"sleep":
        await anyio.sleep_forever()
    if job.data == b"raise":
        raise LookupError("callback")
    return {1} if job.data == b"set" else job.data


class Worker(GearmanWorker):
    """A worker whose hooks are async, as far as they can be."""

    async def on_job_execute(self, current_job: WorkerJob) -> bool:
        if current_job.data == b"hook":
            raise LookupError("hook")
        return await super().on_job_execute(current_job)

    async def after_poll(self, any_activity: bool) -> bool:
        return True


def after_jobs(
    *data: str, then: Callable[[WorkerUnderTest], Awaitable[Any]], **options: Any
) -> tuple[WorkerUnderTest, Any]:
    """Submit jobs, and return the worker under test and what `then` returns."""

    async def main() -> tuple[WorkerUnderTest, Any]:
        async with JobServer() as server, GearmanClient(connect=server.connect) as client:
            worker = Worker()
            worker.register_task("task", work)
            for each in data:
                await client.submit_job("task", each, background=True)
            under_test = WorkerUnderTest(worker, server, **options)
            return under_test, await then(under_test)

    name, clock = virtual_clock("asyncio")
    return anyio.run(main, backend=name, backend_options=clock)


def outcomes(runs: list[JobRun]) -> list[tuple[bytes, Any, str]]:
    return [(run.job.data, run.result, type(run.error).__name__) for run in runs]


def test_recorder_records_results_and_errors_of_async_hooks() -> None:
    under_test, drained = after_jobs(
        "in", "raise", "set", then=WorkerUnderTest.drain, raise_errors=False
    )
    assert drained == under_test.runs
    assert outcomes(drained) == [
        (b"in", b"in", "NoneType"),
        (b"raise", None, "LookupError"),
        (b"set", None, "TypeError"),
    ]
    with pytest.raises(LookupError, match="hook"):
        after_jobs("hook", then=WorkerUnderTest.drain)


def test_cancelled_job_is_named_and_not_recorded() -> None:
    async def drain(under_test: WorkerUnderTest) -> str:
        with pytest.raises(TimeoutError) as caught:
            await under_test.drain()
        return str(caught.value)

    under_test, message = after_jobs("in", "sleep", then=drain, timeout=2.5)
    assert message.startswith("after 2.5 seconds this was still being done: <GearmanJob ")
    assert message.endswith("; 1 were done before")
    assert outcomes(under_test.runs) == [(b"in", b"in", "NoneType")]


def test_rounds_that_are_late_raise() -> None:
    worker = Worker()
    worker.register_task("task", work)
    rounds = WorkerUnderTest(worker, "localhost", timeout=2.5)._rounds(lambda: True)
    with pytest.raises(TimeoutError, match=r"after 2.5 seconds there were still jobs; 0 were done"):
        next(rounds)
