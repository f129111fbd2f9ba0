"""Jobs of every kind, from the submit to the result, against gearmand."""

from __future__ import annotations

import json
import pickle
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import ServerError
from gearman_sync import GearmanClient, JobData, JobEnded, JobProgress, JobWarning
from tests.support import (
    Failed,
    Gate,
    Gearmand,
    Job,
    Program,
    Raised,
    Worker,
    echo,
    eventually,
    require,
    reverse,
    spawn,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., Worker]
    MakeClient = Callable[..., GearmanClient]


def test_foreground(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: reverse})
    request = client.submit_job(task, b"in")
    assert request.state == gearman.JOB_COMPLETE
    assert request.complete
    assert not request.timed_out
    assert request.result == b"ni"
    assert request.exception is None
    assert request.error is None
    assert request.job.handle is not None
    assert request.unique is not None
    assert len(request.unique) == 32


def test_background(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    request = client.submit_job(task, b"in", background=True)
    assert request.state == gearman.JOB_CREATED
    assert request.complete
    assert request.result is None
    worker = start_worker(gearmand.address, {task: echo})
    eventually(lambda: worker.order == [b"in"])


@pytest.mark.parametrize("background", [False, True])
def test_priorities(
    gearmand: Gearmand,
    client: GearmanClient,
    task: str,
    start_worker: StartWorker,
    background: bool,
) -> None:
    jobs: list[dict[str, Any]] = [
        {"task": task, "data": b"low", "priority": gearman.PRIORITY_LOW},
        {"task": task, "data": b"none 1", "priority": gearman.PRIORITY_NONE},
        {"task": task, "data": b"none 2"},
        {"task": task, "data": b"high", "priority": gearman.PRIORITY_HIGH},
    ]
    requests = client.submit_multiple_jobs(jobs, background=background, wait_until_complete=False)
    worker = start_worker(gearmand.address, {task: echo})
    if not background:
        client.wait_until_jobs_completed(requests)
        assert [request.result for request in requests] == [job["data"] for job in jobs]
    eventually(lambda: worker.order == [b"high", b"none 1", b"none 2", b"low"])


def chatty(job: Job) -> bytes:
    """A worker's function with updates of every kind."""
    job.send_data(b"one")
    job.send_warning(b"careful")
    job.send_status(1, 2)
    job.send_data(b"two")
    job.send_status(2, 2)
    return b"done"


def test_queues_of_updates(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: chatty})
    before = time.time()
    request = client.submit_job(task, b"")
    assert request.result == b"done"
    assert list(request.data_updates) == [b"one", b"two"]
    assert list(request.warning_updates) == [b"careful"]
    assert list(request.status_updates) == [(1, 2), (2, 2)]
    assert before <= request.status.pop("time_received") <= time.time()
    assert request.status == {
        "handle": request.job.handle,
        "known": True,
        "running": True,
        "numerator": 2,
        "denominator": 2,
    }


def test_updates_come_in_order(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    request = client.submit_job(task, b"", wait_until_complete=False)
    start_worker(gearmand.address, {task: chatty})
    assert list(client.updates(request)) == [
        JobData(b"one"),
        JobWarning(b"careful"),
        JobProgress(1, 2),
        JobData(b"two"),
        JobProgress(2, 2),
        JobEnded(gearman.JOB_COMPLETE, b"done"),
    ]
    assert not request.data_updates
    assert list(client.updates(request)) == [JobEnded(gearman.JOB_COMPLETE, b"done")]


def test_updates_come_as_they_are_sent(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()

    def function(job: Job) -> bytes:
        job.send_data(b"early")
        return gate(job)

    start_worker(gearmand.address, {task: function})
    request = client.submit_job(task, b"late", wait_until_complete=False)
    updates = client.updates(request)
    assert next(updates) == JobData(b"early")
    assert request.state == gearman.JOB_CREATED
    assert list(client.updates(request, poll_timeout=0.01)) == []
    assert request.timed_out
    gate.open.set()
    assert list(updates) == [JobEnded(gearman.JOB_COMPLETE, b"late")]
    assert not request.timed_out


def test_failure(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    def fail(job: Job) -> bytes:
        raise Failed

    start_worker(gearmand.address, {task: fail})
    request = client.submit_job(task, b"")
    assert request.state == gearman.JOB_FAILED
    assert request.complete
    assert request.result is None
    assert request.exception is None
    assert request.error is None


@pytest.mark.parametrize("exceptions", [True, False])
def test_exception(
    gearmand: Gearmand,
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
    exceptions: bool,
) -> None:
    def fail(job: Job) -> bytes:
        raise Raised(b"no\0luck")

    start_worker(gearmand.address, {task: fail})
    client = make_client(gearmand.address, exceptions=exceptions)
    request = client.submit_job(task, b"")
    assert request.state == gearman.JOB_FAILED
    assert request.complete
    assert request.exception == (b"no\0luck" if exceptions else None)
    # The connection is in step.
    assert client.submit_job(task, b"", background=True).complete


@pytest.mark.parametrize("data", [b"", b"\0", b"a\0b\0\0c\0", bytes(range(256))])
def test_any_bytes(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker, data: bytes
) -> None:
    def function(job: Job) -> bytes:
        job.send_data(data)
        job.send_warning(data)
        return job.data

    start_worker(gearmand.address, {task: function})
    request = client.submit_job(task, data)
    assert request.result == data
    assert list(request.data_updates) == [data]
    assert list(request.warning_updates) == [data]


def test_large_payload(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: reverse})
    data = b"a" * 10_000_000 + b"b" * 10_000_000
    request = client.submit_job(task, data)
    assert request.result == data[::-1]


def test_a_thousand_jobs(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: reverse})
    data = [b"%06d" % number for number in range(1000)]
    requests = client.submit_multiple_jobs([{"task": task, "data": some} for some in data])
    assert [request.result for request in requests] == [some[::-1] for some in data]
    assert len({request.unique for request in requests}) == 1000


# Encoders.


class PickleEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        return pickle.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return pickle.loads(decodable_string)


class JsonEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> str:
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return json.loads(decodable_string)


@pytest.mark.parametrize("encoder", [PickleEncoder, JsonEncoder])
@pytest.mark.parametrize("place", ["class", "instance", "an encoder's instance"])
def test_encoder(
    gearmand: Gearmand, task: str, start_worker: StartWorker, encoder: Any, place: str
) -> None:
    def function(job: Job) -> bytes:
        job.send_data(job.data)
        job.send_warning(job.data)
        return job.data

    start_worker(gearmand.address, {task: function})
    thing = {"hello": ["there", None, 1.5], "ümlaut": "ß"}

    class Client(GearmanClient):
        if place == "class":
            data_encoder = encoder

    with Client([gearmand.address]) as client:
        if place != "class":
            client.data_encoder = encoder if place == "instance" else encoder()
        request = client.submit_job(task, thing)
    assert request.result == thing
    assert request.data_updates.popleft() == thing
    assert request.warning_updates.popleft() == thing
    assert GearmanClient.data_encoder is not encoder


def test_exception_is_decoded(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    def fail(job: Job) -> bytes:
        raise Raised(job.data)

    start_worker(gearmand.address, {task: fail})
    client.data_encoder = JsonEncoder
    assert client.submit_job(task, ["x"]).exception == ["x"]


def test_undecodable_result_disturbs_nobody_else(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: lambda job: b"{" if job.data == b"1" else job.data})
    client.data_encoder = JsonEncoder
    requests = client.submit_multiple_jobs([{"task": task, "data": data} for data in range(3)])
    assert [request.state for request in requests] == [gearman.JOB_COMPLETE] * 3
    assert requests[0].result == 0
    with pytest.raises(json.JSONDecodeError):
        requests[1].result  # noqa: B018 - reading it is what raises
    assert requests[2].result == 2


# Coalescing.


def test_one_unique_within_a_client(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    requests = client.submit_multiple_jobs(
        [{"task": task, "data": data, "unique": "same"} for data in (b"first", b"second")],
        wait_until_complete=False,
    )
    assert requests[0].job.handle == requests[1].job.handle
    worker = start_worker(gearmand.address, {task: chatty})
    client.wait_until_jobs_completed(requests)
    assert worker.order == [b"first"]
    for request in requests:
        assert request.result == b"done"
        # gearmand sends everything twice; it counts once.
        assert list(request.data_updates) == [b"one", b"two"]


def test_one_unique_in_two_clients(
    gearmand: Gearmand, make_client: MakeClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate(reverse)
    worker = start_worker(gearmand.address, {task: gate})
    clients = [make_client(gearmand.address) for _ in range(2)]
    requests = [
        client.submit_job(task, b"data", unique="same", wait_until_complete=False)
        for client in clients
    ]
    wait_for(gate.begun)
    status = clients[0].get_job_status(requests[0], by_unique=True).status
    assert status["client_count"] == 2
    gate.open.set()
    for client, request in zip(clients, requests):
        client.wait_until_jobs_completed([request])
        assert request.result == b"atad"
    assert len(worker.jobs) == 1


def test_routing_by_unique_coalesces(
    gearmand: Gearmand,
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    servers = [gearmand, start_gearmand()]
    hosts = [server.address for server in servers]
    jobs = [{"task": task, "data": b"%d" % n, "unique": f"u{n}"} for n in range(20)]
    clients = [
        make_client(*hosts, routing="unique"),
        make_client(*reversed(hosts), routing="unique"),
    ]
    requests = [client.submit_multiple_jobs(jobs, wait_until_complete=False) for client in clients]
    counts = [server.counts(task)[0] for server in servers]
    assert sum(counts) == 20
    assert all(counts)
    workers = [start_worker(host, {task: echo}) for host in hosts]
    for client, submitted in zip(clients, requests):
        client.wait_until_jobs_completed(submitted)
        assert [request.result for request in submitted] == [job["data"] for job in jobs]
    assert sum(len(worker.jobs) for worker in workers) == 20


# What python-gearman did not have.


@pytest.mark.parametrize("form", ["datetime", "aware", "seconds"])
def test_run_at(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker, form: str
) -> None:
    times: list[float] = []

    def function(job: Job) -> bytes:
        times.append(time.time())
        return b""

    # gearmand does not wake workers when the time has come.
    worker = start_worker(gearmand.address, {task: function}, look_again=0.02)
    when = time.time() + 0.3
    run_at: Any = {
        "datetime": datetime.fromtimestamp(when),  # noqa: DTZ006 - naive is local time
        "aware": datetime.fromtimestamp(when, timezone(timedelta(hours=5))),
        "seconds": when,
    }[form]
    later = client.submit_job(task, b"later", background=True, run_at=run_at)
    assert later.state == gearman.JOB_CREATED
    client.submit_job(task, b"now", background=True)
    eventually(lambda: len(times) == 2)
    assert worker.order == [b"now", b"later"]
    assert times[1] >= when


@pytest.mark.parametrize("background", [False, True])
def test_reducer(
    gearmand: Gearmand,
    client: GearmanClient,
    task: str,
    start_worker: StartWorker,
    background: bool,
) -> None:
    worker = start_worker(gearmand.address, {task: echo})
    request = client.submit_job(task, b"da\0ta", background=background, reducer="sum")
    eventually(lambda: worker.jobs)
    assert worker.jobs[0].reducer == b"sum"
    assert worker.jobs[0].data == b"da\0ta"
    assert request.result == (None if background else b"da\0ta")


def test_full_queue_fails_one_request_only(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gearmand.admin(f"create function {task}")
    assert gearmand.admin(f"maxqueue {task} 1") == "OK\r\n"
    requests = client.submit_multiple_jobs(
        [
            {"task": task, "data": b"taken"},
            {"task": task, "data": b"refused"},
            {"task": f"{task}-other", "data": b"other"},
        ],
        wait_until_complete=False,
    )
    taken, refused, other = requests
    assert refused.state == gearman.JOB_FAILED
    assert refused.complete
    assert isinstance(refused.error, ServerError)
    assert refused.error.code == "QUEUE_ERROR"
    assert refused.error.text == "Job queue is full"
    start_worker(gearmand.address, {task: echo, f"{task}-other": echo})
    assert client.wait_until_jobs_completed(requests) is requests
    assert (taken.result, refused.result, other.result) == (b"taken", None, b"other")
    assert refused.error.code == "QUEUE_ERROR"
    # Once there is room, the same request does.
    refused.reset()
    assert client.submit_multiple_requests([refused])[0].result == b"refused"


def test_libgearmans_worker(gearmand: Gearmand, client: GearmanClient, task: str) -> None:
    program = Program(
        *(require("gearman"), "-h", "127.0.0.1", "-p", str(gearmand.port)),
        *("-w", "-f", task, require("rev")),
    )
    program.spawn()
    try:
        request = client.submit_job(task, b"hello", poll_timeout=20)
        assert request.result.strip() == b"olleh"
        requests = client.submit_multiple_jobs([{"task": task, "data": b"ab"}] * 3)
        assert [request.result.strip() for request in requests] == [b"ba"] * 3
    finally:
        program.kill()


def test_names_of_any_bytes(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    name = f"{task} ü"
    worker = start_worker(gearmand.address, {name: echo})
    request = client.submit_job(name.encode(), "tëxt", unique=b"\xff unique")
    assert request.result == "tëxt".encode()
    assert request.job.task == name
    assert request.unique == "\udcff unique"
    assert worker.jobs[0].unique == b"\xff unique"


def test_worker_lost_while_it_has_the_job(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    def die(job: Job) -> bytes:
        raise OSError

    future = spawn(client.submit_job, task, b"data")
    gearmand.wait_for_jobs(task, 1)
    first = start_worker(gearmand.address, {task: die})
    eventually(lambda: first.jobs)
    first.stop()
    start_worker(gearmand.address, {task: echo})
    assert future.result(20).result == b"data"


def test_job_retries_used_up(
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    def die(job: Job) -> bytes:
        raise OSError

    server = start_gearmand("--job-retries", "1")
    future = spawn(make_client(server.address).submit_job, task, b"data")
    server.wait_for_jobs(task, 1)
    worker = start_worker(server.address, {task: die})
    eventually(lambda: worker.jobs)
    worker.stop()
    request = future.result(20)
    assert request.state == gearman.JOB_FAILED
    assert request.exception is None
