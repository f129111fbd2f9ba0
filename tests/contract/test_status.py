"""The status of queued, running and finished jobs: by request, handle and unique id."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.jobs.request import GearmanJobRequest
from tests.support import PATIENCE

if TYPE_CHECKING:
    from gearman_proto import WorkerJob

    from .kit import Kit, Launch, Server

pytestmark = pytest.mark.both_servers


async def test_status_from_submit_to_completion(kit: Kit, server: Server, task: str) -> None:
    gate = kit.gate()

    def function(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_status(job, 3, 10)
        return gate(worker, job)

    client = await kit.client(server.address)
    request = await client.submit_job(task, b"data", background=True)
    assert await client.get_job_status(request) is request
    assert 0 <= time.time() - request.status.pop("time_received") < PATIENCE
    assert request.status == {
        "handle": request.handle,
        "known": True,
        "running": False,
        "numerator": 0,
        "denominator": 0,
    }
    await kit.start_worker(server.address, tasks={task: function})
    await kit.wait_for(gate.begun)

    async def has_progress() -> bool:
        status = (await client.get_job_status(request)).status
        return (status["numerator"], status["denominator"]) == (3, 10)

    # The worker's report and this query use different connections, so the query might be first.
    await kit.eventually(has_progress)
    assert (request.status["known"], request.status["running"]) == (True, True)
    gate.open.set()

    async def is_forgotten() -> bool:
        return not (await client.get_job_status(request)).status["known"]

    await kit.eventually(is_forgotten)
    assert (request.status["running"], request.state) == (False, "CREATED")


async def test_by_unique(kit: Kit, server: Server, task: str) -> None:
    unique = f"unique-{task}"
    first, second = await kit.client(server.address), await kit.client(server.address)
    for client in (first, second):
        await client.submit_job(task, b"", unique=unique, wait_until_complete=False)
    request = GearmanJobRequest.from_unique(unique.encode(), server.address)
    await first.get_job_status(request)
    del request.status["time_received"]
    assert request.status == {
        "handle": None,
        "known": True,
        "running": False,
        "numerator": 0,
        "denominator": 0,
        "client_count": 2,
    }
    await second.shutdown()

    async def one_is_left() -> bool:
        return bool((await first.get_job_status(request)).status["client_count"] == 1)

    await kit.eventually(one_is_left)


@pytest.mark.parametrize("with_server", [True, False])
async def test_status_by_stored_handle(
    kit: Kit,
    server: Server,
    launch: Launch,
    task: str,
    with_server: bool,
) -> None:
    other = await launch()
    client = await kit.client(server.address, other.address)
    submitted = [await client.submit_job(task, b"", background=True) for _ in range(2)]
    assert {r.connection.port for r in submitted} == {server.address[1], other.address[1]}
    for request in submitted:
        stored = GearmanJobRequest.from_handle(
            request.handle, str(request.connection) if with_server else None
        )
        await client.get_job_status(stored)
        assert (stored.status["known"], stored.status["handle"]) == (True, request.handle)
