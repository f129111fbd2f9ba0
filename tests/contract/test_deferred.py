"""Jobs that a callback leaves open with `defer`, and that other threads or tasks end later."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ConnectionError, InvalidWorkerState
from gearman_proto.jobs.updates import JobEnded, JobProgress

from .kit import Hooks, Kit, Launch, Server, collect, echo, reverse, settled

if TYPE_CHECKING:
    from gearman_proto import DeferredJob, WorkerJob


class Deferring:
    """A callback that defers each job, and keeps or drops the handle."""

    def __init__(self, *, keeps: bool = True) -> None:
        self.handles: list[DeferredJob] = []
        self._keeps = keeps

    async def __call__(self, worker: Any, job: WorkerJob) -> Any:
        deferred = job.defer()
        if self._keeps:
            self.handles.append(deferred)
        return b"ignored"


class Counting(Hooks):
    """Counts the calls of `after_job`."""

    ends = 0

    def after_job(self) -> Any:
        self.ends += 1
        return True


async def deferred_job(kit: Kit, server: Server, task: str, **options: Any) -> Any:
    """Return a client, a request, the worker, the call of `work`, and the handle of its job."""
    callback = Deferring()
    worker = await kit.make_worker(
        server.address, tasks={task: kit.callback(callback)}, kind=Counting, **options
    )
    working = await kit.work(worker)
    client, request = await kit.submit(server.address, task, b"data")
    await kit.eventually(lambda: callback.handles)
    return client, request, worker, working, callback.handles


@pytest.mark.both_servers
@pytest.mark.parametrize("max_jobs", [1, 2])
async def test_deferred_job_is_ended_later(
    kit: Kit, server: Server, task: str, max_jobs: int
) -> None:
    client, request, worker, _, handles = await deferred_job(kit, server, task, max_jobs=max_jobs)
    # A deferred job keeps its slot, and other slots are free.
    others = [await client.submit_job(task, b"x", wait_until_complete=False) for _ in range(2)]
    await server.wait_for_counts(task, 3, max_jobs, 1)
    assert worker.has_job_lock()
    assert worker.ends == 0
    await settled(handles[0].send_status(1, 2))
    await settled(handles[0].complete(b"out"))
    assert await collect(client.updates(request)) == [
        JobProgress(1, 2),
        JobEnded("COMPLETE", b"out"),
    ]
    await kit.eventually(lambda: len(handles) == max_jobs + 1)
    await kit.eventually(lambda: worker.ends == 1)
    with pytest.raises(InvalidWorkerState, match="has ended"):
        await settled(handles[0].fail())
    for _ in others:
        await settled(handles[1].fail())
        handles.pop(1)
        await kit.eventually(lambda: len(handles) > 1 or worker.ends == 3)
    await client.wait_until_jobs_completed(others)
    assert {other.state for other in others} == {"FAILED"}


async def test_deferred_job_is_ended_by_another_thread(
    kit: Kit, adapter: str, server: Server, task: str
) -> None:
    import anyio.from_thread

    client, request, *_, handles = await deferred_job(kit, server, task)

    def complete() -> None:
        if adapter == "sync":
            handles[0].complete(b"out")
        else:
            anyio.from_thread.run(handles[0].complete, b"out")

    await kit.blocking(complete)
    await client.wait_until_jobs_completed([request])
    assert request.result == b"out"


@pytest.mark.both_servers
async def test_garbage_collected_handle_fails_its_job(
    kit: Kit, server: Server, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = kit.both_forms(task, Deferring(keeps=False))
    worker = await kit.start_worker(server.address, tasks=tasks, kind=Counting)
    client = await kit.client(server.address)
    for each in tasks:
        request = await client.submit_job(each, b"data")
        gc.collect()
        assert request.state == "FAILED"
    await kit.eventually(lambda: caplog.text.count("its DeferredJob was garbage-collected") == 2)
    assert {record.levelname for record in caplog.records if record.name == "gearman"} == {
        "WARNING"
    }
    await kit.eventually(lambda: worker.ends == 2)


@pytest.mark.both_servers
async def test_callback_that_raises_fails_its_deferred_job(
    kit: Kit, server: Server, task: str
) -> None:
    handles: list[DeferredJob] = []

    async def callback(worker: Any, job: WorkerJob) -> Any:
        handles.append(job.defer())
        raise ValueError("no")

    client = await kit.client_and_worker(server.address, tasks=kit.both_forms(task, callback))
    for each in kit.both_forms(task, callback):
        assert (await client.submit_job(each, b"")).reason == "ValueError: no"
    with pytest.raises(InvalidWorkerState, match="has ended"):
        await settled(handles[-1].complete(b"out"))


@pytest.mark.both_servers
@pytest.mark.parametrize("timeout", [None, 0.05])
async def test_stop_waits_for_deferred_jobs(
    kit: Kit, server: Server, task: str, timeout: float | None
) -> None:
    client, request, worker, working, handles = await deferred_job(kit, server, task)
    worker.stop(timeout=timeout)
    if timeout is None:
        await settled(handles[0].send_status(1, 2))

        async def is_reported() -> bool:
            await client.get_job_status(request)
            return bool(request.status["numerator"] == 1)

        # The worker has kept its connection.
        await kit.eventually(is_reported)
        assert (working.done, worker.ends) == (False, 0)
        await settled(handles[0].complete(b"out"))
        await working.result()
    else:
        await working.result()
        with pytest.raises(ConnectionError, match="was lost"):
            await settled(handles[0].complete(b"out"))
        await kit.start_worker(server.address, tasks={task: reverse})
    assert worker.ends == 1
    await client.wait_until_jobs_completed([request])
    assert request.result == (b"out" if timeout is None else b"atad")


@pytest.mark.both_servers
async def test_deferred_job_whose_server_is_lost(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    _, _, worker, _, handles = await deferred_job(kit, server, task)
    await server.kill()
    # The job has ended for the worker, whose slot is free again.
    await kit.eventually(lambda: worker.ends == 1)
    with pytest.raises(ConnectionError, match="was lost"):
        await settled(handles[0].complete(b"out"))
    worker.register_task(task, echo)
    await server.start()
    client = await kit.client(server.address)
    assert (await client.submit_job(task, b"ab")).result == b"ab"
