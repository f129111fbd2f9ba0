"""The types of `gearman_anyio`: those of `gearman_sync`, awaited."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, assert_type

import anyio
import pytest

import gearman_anyio as gearman
from gearman_anyio.testing import JobDouble, JobRun, WorkerUnderTest

from .test_sync import check_request, check_update

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """One is enough."""
    return "asyncio"


async def shout(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    assert_type(job.data, Any)
    assert_type(await worker.send_job_status(job, 1, 2), None)
    assert_type(await worker.send_job_data(job, b"part"), None)
    return bytes(job.data).upper()


def plain(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    return bytes(job.data)


@contextlib.asynccontextmanager
async def entered(job: gearman.WorkerJob) -> AsyncIterator[None]:
    yield


class Worker(gearman.GearmanWorker):
    """Hooks may be async, and plain."""

    async def on_job_execute(self, current_job: gearman.WorkerJob) -> bool:
        return assert_type(await super().on_job_execute(current_job), bool)

    async def after_poll(self, any_activity: bool) -> bool:
        return True

    def after_job(self) -> bool:
        return True


async def test_client_and_worker() -> None:
    async with gearman.JobServer() as server, anyio.create_task_group() as tasks:
        assert_type(server, gearman.JobServer)
        assert_type(server.address, gearman.HostAndPort)
        worker = Worker([server.address], max_jobs=2)
        assert_type(worker.register_task("shout", shout), str)
        assert_type(worker.register_task("plain", plain), str)
        registry = gearman.Tasks(around=[entered])
        assert registry.task("more")(shout) is shout
        assert registry.task("less")(plain) is plain
        assert_type(worker.register(registry), None)
        tasks.start_soon(worker.work)
        async with gearman.GearmanClient([server.address]) as client:
            await check_client(client)
        assert_type(worker.stop(), None)


async def check_client(client: gearman.GearmanClient) -> None:
    assert_type(client, gearman.GearmanClient)
    check_request(await client.submit_job("shout", b"one", poll_timeout=10.0))
    jobs = [{"task": "shout", "data": b"two"}]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    assert_type(requests, gearman.Batch)
    ended = client.as_completed(requests)
    assert_type(ended, AsyncIterator[gearman.GearmanJobRequest])
    assert [each.result async for each in ended] == [b"TWO"]
    requests = await client.wait_until_jobs_completed(requests)
    assert_type(requests, gearman.Batch)
    [request] = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    updates = client.updates(request)
    assert_type(updates, AsyncIterator[gearman.JobUpdate])
    assert_type(client.results(iter(jobs)), AsyncGenerator[gearman.GearmanJobRequest, None])
    many = client.updates([request])
    assert_type(many, AsyncIterator[tuple[gearman.GearmanJobRequest, gearman.JobUpdate]])
    async for update in updates:
        check_update(update)
    assert_type(await client.get_job_status(request), gearman.GearmanJobRequest)


async def test_admin_client() -> None:
    async with (
        gearman.JobServer() as server,
        gearman.GearmanAdminClient([server.address]) as admin,
    ):
        assert_type(await admin.create_function("shout"), str)
        assert_type(await admin.get_status(), tuple[gearman.FunctionStatus, ...])
        assert_type(await admin.get_workers(), tuple[gearman.WorkerStatus, ...])
        assert_type(await admin.get_jobs(), tuple[gearman.JobRecord, ...])
        assert_type(await admin.get_pid(), int)
        assert_type(await admin.ping_server(), float)


async def test_testing_kit() -> None:
    assert_type(await JobDouble("shout", b"data").call(shout), Any)
    async with gearman.JobServer() as server:
        async with gearman.GearmanClient([server.address]) as client:
            await client.submit_job("shout", b"hi", background=True)
        async with WorkerUnderTest({"shout": shout}, server=server.address) as worker:
            runs = await worker.drain()
            assert_type(runs, list[JobRun])
            assert [run.result for run in runs] == [b"HI"]
