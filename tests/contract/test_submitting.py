"""Jobs of every kind, from submission to result."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.jobs.job import GearmanJob
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import SLICE
from gearman_proto.wire.packets import JobCreated, SubmitJobBg

from .encoders import JsonEncoder, WordEncoder
from .kit import Kit, Server, StartServer, echo, reverse

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import WorkerJob
    from gearman_sync.testing import Peer


def new_request(
    task: str, data: Any = b"data", *, unique: str | None = None, background: bool = False
) -> GearmanJobRequest:
    return GearmanJobRequest(GearmanJob(None, None, task, unique, data), background=background)


def chatty(worker: Any, job: WorkerJob) -> Any:
    """Send updates of every kind, as a callback."""
    worker.send_job_data(job, b"one")
    worker.send_job_warning(job, b"careful")
    worker.send_job_status(job, 1, 2)
    worker.send_job_data(job, b"t\0wo")
    worker.send_job_status(job, 2, 2)
    return b"done"


def acknowledge_all(peer: Peer) -> None:
    """Acknowledge background jobs, as the script of a server."""
    while True:
        peer.expect(SubmitJobBg)
        peer.send(JobCreated(b"H:1"))


# Foreground and background.


@pytest.mark.both_servers
async def test_foreground(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client_and_worker(server.address, tasks={task: reverse})
    request = await client.submit_job(task, "hello")
    assert (request.state, request.complete, request.timed_out) == ("COMPLETE", True, False)
    assert (request.result, request.exception, request.error) == (b"olleh", None, None)
    assert (request.task, request.data, request.status) == (task, "hello", {})
    assert (request.connection.host, request.connection.port) == server.address
    assert request.handle.startswith("H:")


@pytest.mark.slow
@pytest.mark.both_servers
@pytest.mark.parametrize("background", [False, True])
async def test_more_jobs_than_one_slice(
    kit: Kit, server: Server, task: str, background: bool
) -> None:
    client = await kit.client_and_worker(server.address, tasks={task: echo})
    jobs = [{"task": task, "data": b"%d" % number} for number in range(SLICE + 1)]
    requests = await client.submit_multiple_jobs(jobs, background=background)
    assert type(requests) is list
    data = [request.data if background else request.result for request in requests]
    assert data == [job["data"] for job in jobs]
    assert all(request.complete for request in requests)


@pytest.mark.both_servers
async def test_background(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"in", background=True)
    assert (request.state, request.complete, request.timed_out) == ("CREATED", True, False)
    assert (request.result, request.exception, request.error) == (None, None, None)
    gate = kit.gate()
    await kit.start_worker(server.address, tasks={task: gate})
    await kit.wait_for(gate.begun)
    assert gate.order == [b"in"]


@pytest.mark.both_servers
@pytest.mark.parametrize("background", [False, True])
async def test_priorities(kit: Kit, server: Server, task: str, background: bool) -> None:
    client = await kit.client(server.address)
    jobs: list[dict[str, Any]] = [
        {"task": task, "data": b"low", "priority": kit.gearman.PRIORITY_LOW},
        {"task": task, "data": b"none 1", "priority": kit.gearman.PRIORITY_NONE},
        {"task": task, "data": b"none 2"},
        {"task": task, "data": b"high", "priority": kit.gearman.PRIORITY_HIGH},
    ]
    requests = await client.submit_multiple_jobs(jobs, background, False)
    gate = kit.gate(opened=True)
    await kit.start_worker(server.address, tasks={task: gate})
    if not background:
        await client.wait_until_jobs_completed(requests)
        assert [r.result for r in requests] == [b"low", b"none 1", b"none 2", b"high"]
    await kit.eventually(lambda: len(gate.order) == 4)
    assert gate.order == [b"high", b"none 1", b"none 2", b"low"]


@pytest.mark.both_servers
async def test_unique_given_and_generated(kit: Kit, server: Server, task: str) -> None:
    uniques: list[str | None] = []

    def function(worker: Any, job: WorkerJob) -> None:
        uniques.append(job.unique)

    client = await kit.client(server.address)
    short = await kit.client(server.address, random_unique_bytes=3)
    await kit.start_worker(server.address, tasks={task: function})
    requests = [
        await client.submit_job(task, b"", unique="mine ü"),
        await client.submit_job(task, b"", unique=b"\xff bytes"),
        await client.submit_job(task, b""),
        await client.submit_job(task, b""),
        await short.submit_job(task, b""),
    ]
    assert uniques == [request.unique for request in requests]
    assert uniques[:2] == ["mine ü", "\udcff bytes"]
    assert [len(bytes.fromhex(unique or "")) for unique in uniques[2:]] == [16, 16, 3]
    assert uniques[2] != uniques[3]


# Data.


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        pytest.param("tëxt", "tëxt".encode(), id="str"),
        pytest.param(bytes(range(256)), bytes(range(256)), id="bytes"),
        pytest.param(memoryview(b"\0"), b"\0", id="memoryview"),
        pytest.param("", b"", id="empty"),
        pytest.param(b"01234567" * 500_000, b"01234567" * 500_000, id="4MB"),
    ],
)
async def test_data_of_any_type_reaches_the_worker(
    kit: Kit, server: Server, task: str, data: Any, wire: bytes
) -> None:
    def function(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_data(job, job.data)
        worker.send_job_warning(job, job.data)
        return job.data

    client = await kit.client_and_worker(server.address, tasks={task: function})
    request = await client.submit_job(task, data)
    assert (request.result, type(request.result)) == (wire, bytes)
    assert list(request.data_updates) == list(request.warning_updates) == [wire]


@pytest.mark.both_servers
async def test_names_of_any_bytes(kit: Kit, server: Server, task: str) -> None:
    name = f"{task} ü"
    client = await kit.client_and_worker(server.address, tasks={name: lambda worker, job: job.task})
    for given in (name, name.encode()):
        request = await client.submit_job(given, b"")
        assert (request.result.decode(), request.task) == (name, name)


# Encoders.


async def test_encode_that_raises_sends_nothing(kit: Kit, start_server: StartServer) -> None:
    server = start_server(acknowledge_all)
    client = await kit.client(server.address)
    client.data_encoder = WordEncoder
    jobs = [{"task": "t", "data": data} for data in ("good", 5, "ü")]
    with pytest.raises(LookupError, match="no word: 5"):
        await client.submit_multiple_jobs(jobs, background=True)
    assert server.peers == []
    # The good job is the first one that the server receives.
    await client.submit_job("t", "word", unique="u", background=True)
    assert server.events == [SubmitJobBg(b"t", b"u", b"word")]


async def test_decode_error_is_raised_on_read(kit: Kit, server: Server, task: str) -> None:
    def function(worker: Any, job: WorkerJob) -> Any:
        if job.data == b"1":
            worker.send_job_data(job, b"[")
            return b"{"
        return job.data

    client = await kit.client(server.address)
    client.data_encoder = JsonEncoder
    await kit.start_worker(server.address, tasks={task: function})
    requests = await client.submit_multiple_jobs([{"task": task, "data": n} for n in range(3)])
    assert [request.state for request in requests] == ["COMPLETE"] * 3
    assert [requests[0].result, requests[2].result] == [0, 2]
    for _ in range(2):
        with pytest.raises(json.JSONDecodeError):
            requests[1].result  # noqa: B018 - reading it is what raises
    # Reading consumes the update even if it can't be decoded.
    updates = client.updates(requests[1])
    with pytest.raises(json.JSONDecodeError):
        await updates.__anext__()
    assert len(requests[1].data_updates) == 0


# Lists of jobs and requests.


async def test_many_jobs_keep_their_order_and_their_keys(
    kit: Kit, server: Server, task: str
) -> None:
    client = await kit.client_and_worker(
        server.address, tasks={task: reverse, f"{task}-b": echo}, max_jobs=3
    )
    jobs = (
        {"task": task, "data": "ab"},
        {"task": f"{task}-b", "data": b"cd", "unique": "u", "priority": "HIGH"},
        {"task": task.encode(), "data": b"ef", "unique": None, "priority": None},
        {"task": task, "data": b"gh", "reducer": "sum"},
        *[{"task": task, "data": f"{number:03}"} for number in range(100)],
    )
    requests = await client.submit_multiple_jobs(jobs)
    results = [request.result.decode() for request in requests]
    assert results == ["ba", "cd", "fe", "hg", *[f"{n:03}"[::-1] for n in range(100)]]
    assert (requests[1].unique, requests[1].priority) == ("u", "HIGH")
    assert len({request.unique for request in requests}) == len(requests)


@pytest.mark.parametrize("container", [tuple, set])
async def test_requests_are_returned_in_the_same_container(
    kit: Kit, server: Server, task: str, container: Any
) -> None:
    client = await kit.client_and_worker(server.address, tasks={task: echo})
    requests = container(new_request(task, b"%d" % number) for number in range(3))
    assert await client.submit_multiple_requests(requests, wait_until_complete=False) is requests
    assert await client.wait_until_jobs_accepted(requests) is requests
    assert await client.wait_until_jobs_completed(requests) is requests
    assert await client.get_job_statuses(requests) is requests
    assert {request.result for request in requests} == {b"0", b"1", b"2"}
    empty = container()
    assert await client.submit_multiple_requests(empty) is empty
    assert await client.submit_multiple_jobs(empty) == []


async def test_finished_requests_are_not_submitted_again(
    kit: Kit, server: Server, task: str
) -> None:
    gate = kit.gate(opened=True)
    client = await kit.client_and_worker(server.address, tasks={task: gate})
    requests = await client.submit_multiple_jobs([{"task": task, "data": b"old"}])
    requests.append(new_request(task, b"new"))
    await client.submit_multiple_requests(requests)
    assert [request.result for request in requests] == [b"old", b"new"]
    assert gate.order == [b"old", b"new"]
    unique = requests[0].unique
    requests[0].reset()
    await client.submit_multiple_requests(requests)
    assert (requests[0].result, gate.order) == (b"old", [b"old", b"new", b"old"])
    assert requests[0].unique not in (None, unique)


# Scheduled jobs and reducers.


@pytest.mark.both_servers
@pytest.mark.parametrize("form", [float, datetime.fromtimestamp], ids=["seconds", "datetime"])
async def test_run_at(kit: Kit, server: Server, task: str, form: Callable[[float], Any]) -> None:
    gate = kit.gate(opened=True)
    client = await kit.client(server.address)
    now = time.time()
    # Other tests cover the delay itself: the wire format has whole seconds only.
    for name, moment in (("past", now - 100), ("future", now + 100_000)):
        request = await client.submit_job(task, name, background=True, run_at=form(moment))
        assert (request.state, request.complete) == ("CREATED", True)
    # gearmand does not wake workers when a scheduled job becomes due.
    await kit.start_worker(server.address, tasks={task: gate}, poll_interval=0.02)
    await kit.wait_for(gate.begun)
    await server.wait_for_counts(task, 1, 0, 1)
    assert gate.order == [b"past"]


@pytest.mark.both_servers
@pytest.mark.parametrize("background", [False, True])
async def test_reducer(kit: Kit, server: Server, task: str, background: bool) -> None:
    gate = kit.gate(opened=True)
    client = await kit.client_and_worker(server.address, tasks={task: gate})
    request = await client.submit_job(task, b"da\0ta", background=background, reducer="sum")
    assert request.state == ("CREATED" if background else "COMPLETE")
    assert request.result == (None if background else b"da\0ta")
    await kit.wait_for(gate.begun)
    assert gate.order == [b"da\0ta"]


# Shared unique ids.


@pytest.mark.both_servers
async def test_jobs_with_the_same_unique_run_once(kit: Kit, server: Server, task: str) -> None:
    runs: list[bytes] = []

    def function(worker: Any, job: WorkerJob) -> Any:
        runs.append(job.data)
        return chatty(worker, job)

    client = await kit.client(server.address)
    jobs = [{"task": task, "data": data, "unique": "same"} for data in (b"first", b"second")]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    assert requests[0].handle == requests[1].handle
    await kit.start_worker(server.address, tasks={task: function})
    await client.wait_until_jobs_completed(requests)
    assert runs == [b"first"]
    for request in requests:
        assert request.result == b"done"
        # gearmand sends every update twice, but the client reports it once.
        assert list(request.data_updates) == [b"one", b"t\0wo"]
        assert list(request.status_updates) == [(1, 2), (2, 2)]


# Outcomes of a job.


@pytest.mark.both_servers
async def test_updates_are_queued_on_the_request(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client_and_worker(server.address, tasks={task: chatty})
    request = await client.submit_job(task, b"")
    assert request.result == b"done"
    assert list(request.data_updates) == [b"one", b"t\0wo"]
    assert list(request.warning_updates) == [b"careful"]
    assert list(request.status_updates) == [(1, 2), (2, 2)]
    status = request.status
    assert (status["known"], status["running"]) == (True, True)
    assert (status["numerator"], status["denominator"]) == (2, 2)


@pytest.mark.both_servers
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "not-asked"])
async def test_exception(kit: Kit, server: Server, task: str, asked: bool) -> None:
    def function(worker: Any, job: WorkerJob) -> None:
        worker.send_job_exception(job, b"no\0luck")

    client = await kit.client(server.address, exceptions=asked)
    await kit.start_worker(server.address, tasks={task: function})
    request = await client.submit_job(task, b"")
    assert (request.state, request.complete, request.result) == ("FAILED", True, None)
    assert request.exception == (b"no\0luck" if asked else None)
    assert (request.timed_out, request.error) == (False, None)
