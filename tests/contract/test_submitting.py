"""Jobs of every kind, from submission to result."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.jobs.batch import SLICE
from gearman_proto.jobs.job import GearmanJob
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.wire.packets import JobCreated, SubmitJobBg

from .kit import Kit, Server, echo, reverse

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
@pytest.mark.parametrize("background", [False, True])
async def test_more_jobs_than_one_slice(
    kit: Kit, server: Server, task: str, background: bool
) -> None:
    client = await kit.client_and_worker(server.address, tasks={task: echo})
    jobs = [{"task": task, "data": b"%d" % number} for number in range(SLICE + 1)]
    requests = await client.submit_multiple_jobs(jobs, background=background)
    assert type(requests) is kit.gearman.Batch
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
