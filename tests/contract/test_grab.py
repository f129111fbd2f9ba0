"""Jobs that the application grabs in a loop of its own, without `work`."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ConnectionError, InvalidWorkerState, ServerUnavailable

from .kit import Kit, Launch, Server, reverse, settled

if TYPE_CHECKING:
    from gearman_proto import WorkerJob


async def grabbing(kit: Kit, server: Server, task: str, **options: Any) -> tuple[Any, Any]:
    """Return a client, and a worker for `grab`."""
    tasks = {task: reverse}
    worker = await kit.make_worker(server.address, tasks=tasks, poll_interval=1000, **options)
    return await kit.client(server.address), worker


async def grab(worker: Any, timeout: float | None = None) -> WorkerJob:
    """Return a job."""
    job: WorkerJob | None = await worker.grab(timeout)
    assert job is not None
    return job


@pytest.mark.both_servers
async def test_each_call_fetches_one_job(kit: Kit, server: Server, task: str) -> None:
    client, worker = await grabbing(kit, server, task)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(3)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    first = await grab(worker)
    assert (first.task, first.data) == (task, b"0")
    # Nothing is fetched while no call waits.
    await server.wait_for_counts(task, 3, 1, 1)
    await settled(first.send_status(1, 2))
    await worker.send_job_complete(first, b"out")
    await client.wait_until_jobs_completed(requests[:1])
    assert (requests[0].result, requests[0].status["numerator"]) == (b"out", 1)
    assert await server.counts(task) == (2, 0, 1)
    # The worker can hold more jobs than it has slots.
    held = [await grab(worker), await grab(worker, 60)]
    assert worker.has_job_lock()
    deferred = held[1].defer()
    await settled(deferred.fail())
    await worker.send_job_exception(held[0], b"no")
    await client.wait_until_jobs_completed(requests)
    assert [request.state for request in requests] == ["COMPLETE", "FAILED", "FAILED"]
    assert not worker.has_job_lock()
    assert await worker.grab(timeout=0) is None
    assert await worker.grab(timeout=0.01) is None


@pytest.mark.both_servers
async def test_waiting_calls_are_woken_by_jobs(kit: Kit, server: Server, task: str) -> None:
    client, worker = await grabbing(kit, server, task)
    calls = [await kit.spawn(worker.grab) for _ in range(2)]
    await server.wait_for_counts(task, 0, 0, 1)
    requests = [await client.submit_job(task, data, wait_until_complete=False) for data in "ab"]
    held = [await call.result() for call in calls]
    assert {job.data for job in held} == {b"a", b"b"}
    for job in held:
        await worker.send_job_complete(job, job.data)
    await client.wait_until_jobs_completed(requests)
    assert [request.result for request in requests] == [b"a", b"b"]


@pytest.mark.both_servers
async def test_stop_ends_all_calls(kit: Kit, server: Server, task: str) -> None:
    client, worker = await grabbing(kit, server, task)
    request = await client.submit_job(task, b"ab", wait_until_complete=False)
    job = await grab(worker)
    call = await kit.spawn(worker.grab)
    await kit.eventually(lambda: len(worker._gm_driver.engine._pulls) == 1)
    worker.stop()
    assert await call.result() is None
    assert await worker.grab() is None
    with pytest.raises(InvalidWorkerState, match="before work"):
        await worker.work()
    await worker.send_job_complete(job, b"out")
    # This call waits until the server has confirmed the result.
    assert await worker.grab() is None
    await server.wait_for_counts(task, 0, 0, 0)
    await client.wait_until_jobs_completed([request])
    assert request.result == b"out"
    await worker.work()  # Returns at once, because of the earlier stop().
    await kit.work(worker)
    assert (await client.submit_job(task, b"ab")).result == b"ba"


@pytest.mark.both_servers
async def test_grab_after_its_server_was_lost(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    client, worker = await grabbing(kit, server, task)
    await client.submit_job(task, b"lost", background=True)
    job = await grab(worker)
    call = await kit.spawn(worker.grab)
    await kit.eventually(lambda: len(worker._gm_driver.engine._pulls) == 1)
    await server.kill()
    await kit.eventually(lambda: job.is_lost)
    with pytest.raises(ConnectionError, match="was lost"):
        await worker.send_job_complete(job, b"out")
    await server.start()
    await client.submit_job(task, b"next", background=True)
    again = await call.result()
    assert again.data == b"next"
    await worker.send_job_complete(again, b"")
    await server.wait_for_counts(task, 0, 0, 1)


@pytest.mark.both_servers
async def test_grab_without_a_server(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    await server.kill()
    worker = await kit.make_worker(server.address, tasks={task: reverse})
    for _ in range(2):
        with pytest.raises(ServerUnavailable, match="refused"):
            await worker.grab()
    await server.start()
    client = await kit.client(server.address)
    await client.submit_job(task, b"ab", background=True)
    await worker.send_job_complete(await grab(worker), b"")


@pytest.mark.both_servers
async def test_grabbed_job_with_a_garbage_collected_handle_fails(
    kit: Kit, server: Server, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    client, worker = await grabbing(kit, server, task)
    request = await client.submit_job(task, b"ab", wait_until_complete=False)
    (await grab(worker)).defer()
    gc.collect()
    assert await worker.grab(timeout=0) is None
    await client.wait_until_jobs_completed([request])
    assert request.state == "FAILED"
    assert "its DeferredJob was garbage-collected" in caplog.text


async def test_grab_during_work_is_refused(kit: Kit, server: Server, task: str) -> None:
    worker = await kit.start_worker(server.address, tasks={task: reverse})
    await server.wait_for_counts(task, 0, 0, 1)
    with pytest.raises(InvalidWorkerState, match=r"work\(\) is running"):
        await worker.grab(timeout=0)
    await worker.shutdown()
    with pytest.raises(InvalidWorkerState, match="shut down"):
        await worker.grab()


async def test_awaited_worker_grabs_inside_async_with_only(kit: Kit, adapter: str) -> None:
    if adapter != "sync":
        with pytest.raises(RuntimeError, match="async with"):
            await kit.gearman.GearmanWorker(["localhost:1"]).grab()
