"""`register`: the callbacks of a registry, in the context of their jobs."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import JobLogFilter, current_job
from gearman_proto.surface.tasks import Tasks

from .kit import Kit, plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gearman_proto import WorkerJob


@pytest.mark.parametrize("max_jobs", [1, 2])
async def test_job_runs_in_its_context(kit: Kit, max_jobs: int) -> None:
    seen: list[Any] = []

    @contextlib.contextmanager
    def outer(job: WorkerJob) -> Iterator[None]:
        seen.append(("enter", job.data, current_job() is job))
        try:
            yield
        finally:
            seen.append("exit")

    @contextlib.asynccontextmanager
    async def awaited(job: WorkerJob) -> AsyncIterator[None]:
        with outer(job):
            yield

    async def function(worker: Any, job: WorkerJob) -> Any:
        record = logging.makeLogRecord({})
        JobLogFilter().filter(record)
        assert current_job() is job
        worker.resume()  # The worker is passed as to callbacks of `register_task`.
        return f"{record.gearman_function} {record.gearman_unique}"  # type: ignore[attr-defined]

    can_await = kit.gearman.__name__ == "gearman_anyio"
    tasks = Tasks(around=[outer, awaited] if can_await else [outer, outer])
    for name, callback in kit.both_forms("task", function).items():
        tasks.task(name)(callback)
    server = await kit.start_job_server()
    worker = await kit.make_worker(server.address, max_jobs=max_jobs)
    worker.register(tasks)
    await kit.work(worker)
    client = await kit.client(server.address)
    for name in ("task-plain", "task-awaiting"):
        seen.clear()
        request = await client.submit_job(name, b"ab", unique="own")
        assert request.result == f"{name} own".encode()
        assert seen == [("enter", b"ab", True)] * 2 + ["exit"] * 2


async def test_context_manager_fails_or_completes_the_job(kit: Kit) -> None:
    @contextlib.contextmanager
    def around(job: WorkerJob) -> Iterator[None]:
        if job.data == b"refused":
            raise LookupError("no database")
        with contextlib.suppress(ZeroDivisionError):
            yield

    async def function(worker: Any, job: WorkerJob) -> Any:
        raise ZeroDivisionError

    tasks = Tasks(around=[around])
    for name, callback in kit.both_forms("task", function).items():
        tasks.task(name)(callback)
    server = await kit.start_job_server()
    worker = await kit.make_worker(server.address)
    worker.register(tasks)
    await kit.work(worker)
    client = await kit.client(server.address)
    for name in ("task-plain", "task-awaiting"):
        refused = await client.submit_job(name, b"refused")
        assert (refused.state, "no database" in str(refused.reason)) == ("FAILED", True)
        assert (await client.submit_job(name, b"suppressed")).state == "COMPLETE"


async def test_context_ends_with_its_job(kit: Kit) -> None:
    def see(worker: Any, job: WorkerJob) -> Any:
        return b"none" if current_job() is None else b"some"

    server = await kit.start_job_server()
    worker = await kit.make_worker(server.address, tasks={"outside": see})
    worker.register({"inside": plain(_inside)})
    await kit.work(worker)
    client = await kit.client(server.address)
    results = [(await client.submit_job(name, b"")).result for name in ("inside", "outside")]
    assert results == [b"some", b"none"]


async def _inside(worker: Any, job: WorkerJob) -> Any:
    return b"none" if current_job() is None else b"some"
