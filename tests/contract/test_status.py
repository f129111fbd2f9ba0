"""The status of queued, running and finished jobs: by request, handle and unique id."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import InvalidClientState, ServerUnavailable
from gearman_proto.jobs.job import GearmanJob
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.wire.packets import GetStatus, StatusRes
from tests.support import PATIENCE, free_port

from .test_submitting import new_request

if TYPE_CHECKING:
    from gearman_proto import WorkerJob
    from gearman_sync.testing import Peer

    from .kit import Kit, Launch, Server, StartServer

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


async def test_status_by_unique_of_a_request_with_a_handle(
    kit: Kit, server: Server, task: str
) -> None:
    client, request = await kit.submit(server.address, task, b"")
    assert "client_count" not in (await client.get_job_status(request)).status
    await client.get_job_status(request, by_unique=True)
    assert request.status["client_count"] == 1
    assert request.status["handle"] == request.handle


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


async def test_status_of_an_unknown_job(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    for request in (
        GearmanJobRequest.from_handle("H:nowhere:1"),
        GearmanJobRequest.from_handle(b"H:nowhere:1", server.address),
        GearmanJobRequest.from_unique(f"nobody's {task}"),
    ):
        await client.get_job_status(request)
        assert (request.status["known"], request.status["running"]) == (False, False)


async def test_what_cannot_be_asked(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    with pytest.raises(InvalidClientState, match="neither a handle nor a unique"):
        await client.get_job_status(new_request(task))
    with pytest.raises(InvalidClientState, match="not one of this client's"):
        await client.get_job_status(GearmanJobRequest.from_handle("H:x:1", "192.0.2.1:4730"))
    (connection,) = client.connection_list
    assert not connection.connected


async def test_status_of_a_request_built_by_hand(kit: Kit, server: Server, task: str) -> None:
    """Accept a request built from a stored handle, as users of python-gearman did."""
    client = await kit.client(server.address)
    submitted = await client.submit_job(task, b"", background=True)
    job = GearmanJob(submitted.connection, submitted.handle, task, submitted.unique, b"")
    request = GearmanJobRequest(job, background=True)
    assert (await client.get_job_status(request)).status["known"]


async def test_no_answer_in_time(kit: Kit, start_server: StartServer) -> None:
    def script(peer: Peer) -> None:
        first, second = peer.expect(GetStatus), peer.expect(GetStatus)
        peer.send(StatusRes(first.handle, b"0", b"0", b"", b""))
        peer.send(StatusRes(second.handle, b"1", b"1", b"7", b"9"))
        peer.hold()

    client = await kit.client(start_server(script).address)
    await client.establish_connection(client.connection_list[0])
    request = GearmanJobRequest.from_handle("H:x:1")
    assert await client.get_job_status(request, poll_timeout=0.02) is request
    assert (request.timed_out, request.status) == (True, {})
    # The client does not use the late reply for the second query.
    await client.get_job_status(request)
    assert (request.timed_out, request.status["numerator"]) == (False, 7)


async def test_server_that_is_down(kit: Kit) -> None:
    port = free_port()
    client = await kit.client(("127.0.0.1", port))
    requests = [GearmanJobRequest.from_handle("H:x:1")]
    with pytest.raises(ServerUnavailable, match=f"127.0.0.1:{port} .*refused") as caught:
        await client.get_job_statuses(requests)
    assert caught.value.job_requests is requests
