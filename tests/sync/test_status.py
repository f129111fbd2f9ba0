"""The status of jobs that are queued, run, or have ended: by request, handle and unique."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidClientState, ServerUnavailable
from gearman_proto.wire.events import GetStatus, StatusRes, WorkComplete
from gearman_sync import GearmanClient, GearmanJobRequest
from tests.support import (
    FakeServer,
    Gate,
    Gearmand,
    Job,
    Peer,
    Worker,
    eventually,
    free_port,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., Worker]
    MakeClient = Callable[..., GearmanClient]


def test_life_of_a_job(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()

    def function(job: Job) -> bytes:
        job.send_status(3, 10)
        return gate(job)

    request = client.submit_job(task, b"data", background=True)
    before = time.time()
    assert client.get_job_status(request) is request
    assert before <= request.status.pop("time_received") <= time.time()
    assert request.status == {
        "handle": request.job.handle,
        "known": True,
        "running": False,
        "numerator": 0,
        "denominator": 0,
    }
    start_worker(gearmand.address, {task: function})
    wait_for(gate.begun)
    # The worker's status and this query travel on different connections.
    eventually(lambda: client.get_job_status(request).status["denominator"] == 10)
    assert request.status["running"]
    assert request.status["numerator"] == 3
    gate.open.set()
    eventually(lambda: not client.get_job_status(request).status["known"])
    assert not request.status["running"]
    assert request.state == gearman.JOB_CREATED


@pytest.mark.parametrize("with_server", [True, False])
def test_by_stored_handle(
    gearmand: Gearmand,
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
    with_server: bool,
) -> None:
    # Handles differ, so that only one of the two can know this one.
    other = start_gearmand("--job-handle-prefix", "other")
    client = make_client(gearmand.address, other.address)
    submitted = [client.submit_job(task, b"", background=True) for _ in range(2)]
    for request in submitted:
        handle, server = request.job.handle, request.job.connection
        assert handle is not None
        stored = GearmanJobRequest.from_handle(handle, str(server) if with_server else None)
        client.get_job_status(stored)
        assert stored.status["known"]
        assert stored.status["handle"] == handle
    nothing = GearmanJobRequest.from_handle("H:nowhere:1")
    assert client.get_job_status(nothing).status["known"] is False


def test_by_hand_made_request(client: GearmanClient, task: str) -> None:
    """What python-gearman's users did with a stored handle."""
    submitted = client.submit_job(task, b"", background=True)
    job = gearman.GearmanJob(
        submitted.job.connection, submitted.job.handle, task, submitted.unique, b""
    )
    request = GearmanJobRequest(job, background=True)
    assert client.get_job_status(request).status["known"]


def test_by_unique(
    gearmand: Gearmand, client: GearmanClient, make_client: MakeClient, task: str
) -> None:
    unique = f"unique-{task}"
    clients = [make_client(gearmand.address) for _ in range(2)]
    for other in clients:
        other.submit_job(task, b"", unique=unique, wait_until_complete=False)
    request = client.get_job_status(GearmanJobRequest.from_unique(unique))
    assert request.status["known"]
    assert request.status["client_count"] == 2
    assert request.status["handle"] is None
    clients[1].shutdown()
    eventually(lambda: client.get_job_status(request).status["client_count"] == 1)


def test_by_unique_although_there_is_a_handle(client: GearmanClient, task: str) -> None:
    request = client.submit_job(task, b"", wait_until_complete=False)
    assert "client_count" not in client.get_job_status(request).status
    client.get_job_status(request, by_unique=True)
    assert request.status["client_count"] == 1
    assert request.status["handle"] == request.job.handle


def test_many_at_once(client: GearmanClient, task: str) -> None:
    jobs = [{"task": task, "data": b""}] * 500
    requests = tuple(client.submit_multiple_jobs(jobs, background=True))
    assert client.get_job_statuses(requests) is requests
    assert all(request.status["known"] for request in requests)
    assert [request.status["handle"] for request in requests] == [
        request.job.handle for request in requests
    ]


def test_status_behind_the_result_changes_nothing(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(gearmand.address, {task: gate})
    request = client.submit_job(task, b"data", wait_until_complete=False)
    gate.open.set()
    eventually(lambda: not client.get_job_status(request).status["known"])
    assert request.state == gearman.JOB_COMPLETE
    assert request.result == b"data"


def test_timeout(start_server: Callable[..., FakeServer], make_client: MakeClient) -> None:
    answers: list[Peer] = []

    def script(peer: Peer) -> None:
        first = peer.expect(GetStatus)
        second = peer.expect(GetStatus)
        answers.append(peer)
        for event in (first, second):
            peer.send(StatusRes(event.handle, b"1", b"1", b"", b""))
        peer.hold()

    client = make_client(start_server(script).address)
    request = GearmanJobRequest.from_handle("H:x:1")
    assert client.get_job_status(request, poll_timeout=0.02) is request
    assert request.timed_out
    assert request.status == {}
    # The answer to the first question is not taken for the answer to the second.
    client.get_job_status(request)
    assert not request.timed_out
    assert answers
    # Numbers may be left empty.
    assert (request.status["numerator"], request.status["denominator"]) == (0, 0)


def test_terminal_packet_of_a_job_that_is_none_of_ours(
    start_server: Callable[..., FakeServer], make_client: MakeClient
) -> None:
    def script(peer: Peer) -> None:
        event = peer.expect(GetStatus)
        peer.send(WorkComplete(b"H:x:1", b"data"))
        peer.send(StatusRes(event.handle, b"1", b"1", b"7", b"9"))
        peer.hold()

    client = make_client(start_server(script).address)
    request = client.get_job_status(GearmanJobRequest.from_handle("H:x:1"))
    assert request.status["numerator"] == 7
    assert request.result is None


def test_what_cannot_be_asked(gearmand: Gearmand, client: GearmanClient, task: str) -> None:
    with pytest.raises(InvalidClientState, match="neither a handle nor a unique"):
        client.get_job_status(GearmanJobRequest(gearman.GearmanJob(None, None, task, None, b"")))
    with pytest.raises(InvalidClientState, match="not one of this client's"):
        client.get_job_status(GearmanJobRequest.from_handle("H:x:1", "192.0.2.1:4730"))
    with pytest.raises(ValueError, match="64 bytes"):
        client.get_job_status(GearmanJobRequest.from_handle("h" * 64))


def test_server_is_down(make_client: MakeClient) -> None:
    client = make_client(("127.0.0.1", free_port()))
    with pytest.raises(ServerUnavailable) as caught:
        client.get_job_status(GearmanJobRequest.from_handle("H:x:1"))
    assert len(list(caught.value.job_requests)) == 1
