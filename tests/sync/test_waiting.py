"""Timeouts that leave the job running, waits that go on later, and results as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import gearman_sync as gearman
from gearman_sync import GearmanClient, GearmanJobRequest
from tests.support import Gate, Gearmand, Worker, echo, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., Worker]
    MakeClient = Callable[..., GearmanClient]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def worker(gearmand: Gearmand, task: str, gate: Gate, start_worker: StartWorker) -> Worker:
    return start_worker(gearmand.address, {task: gate})


@pytest.mark.parametrize("how", ["submit_multiple_requests", "wait_until_jobs_completed"])
def test_timeout_and_later_wait(
    client: GearmanClient, task: str, gate: Gate, worker: Worker, how: str
) -> None:
    request = client.submit_job(task, b"data", poll_timeout=0.05)
    assert request.timed_out
    assert not request.complete
    assert request.state == gearman.JOB_CREATED
    wait_for(gate.begun)
    again = getattr(client, how)([request], poll_timeout=0)
    assert again == [request]
    assert request.timed_out
    gate.open.set()
    getattr(client, how)([request])
    assert request.result == b"data"
    assert request.complete
    assert not request.timed_out
    assert len(worker.jobs) == 1, "it was sent again"


def test_result_that_came_in_between(
    client: GearmanClient, task: str, gate: Gate, worker: Worker
) -> None:
    request = client.submit_job(task, b"data", wait_until_complete=False)
    gate.open.set()
    # Another call's replies come behind those that are here already.
    client.submit_job(task, b"other")
    assert request.state == gearman.JOB_COMPLETE
    assert client.wait_until_jobs_completed([request], poll_timeout=0)[0].result == b"data"
    assert not request.timed_out


@pytest.mark.parametrize("timeout", [0, 0.0, -1, 1e-9])
def test_no_time_at_all(client: GearmanClient, task: str, timeout: float) -> None:
    request = client.submit_job(task, b"data", poll_timeout=timeout)
    assert request.timed_out
    assert request.state in (gearman.JOB_PENDING, gearman.JOB_CREATED)
    # Whatever was not sent by then is sent as soon as anybody waits.
    client.wait_until_jobs_accepted([request])
    assert request.state == gearman.JOB_CREATED
    assert not request.timed_out


def test_infinite_timeout(client: GearmanClient, task: str, gate: Gate, worker: Worker) -> None:
    gate.open.set()
    for timeout in (float("inf"), 10**400, 1e300, 1e8):
        assert client.submit_job(task, b"data", poll_timeout=timeout).result == b"data"


def test_accepted_is_enough(client: GearmanClient, task: str) -> None:
    request = client.submit_job(task, b"data", wait_until_complete=False, poll_timeout=20)
    assert request.state == gearman.JOB_CREATED
    assert not request.timed_out
    assert not request.complete


def test_timeout_is_for_those_only_that_have_not_ended(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: echo})
    requests = client.submit_multiple_jobs(
        [{"task": task, "data": b"x"}, {"task": f"{task}-nobody", "data": b"x"}],
        wait_until_complete=False,
    )
    client.wait_until_jobs_completed(requests[:1])
    client.wait_until_jobs_completed(requests, poll_timeout=0.02)
    assert [request.timed_out for request in requests] == [False, True]
    assert requests[0].result == b"x"


def test_wait_until_jobs_completed_sends_nothing(client: GearmanClient, task: str) -> None:
    request = GearmanJobRequest(gearman.GearmanJob(None, None, task, None, b"data"))
    assert client.wait_until_jobs_completed([request]) == [request]
    assert request.state == gearman.JOB_UNKNOWN
    client.wait_until_jobs_accepted([request])
    assert request.state == gearman.JOB_CREATED


# as_completed.


@pytest.fixture
def gates(
    gearmand: Gearmand, task: str, start_worker: StartWorker
) -> tuple[dict[bytes, Gate], list[Worker]]:
    gates = {name: Gate() for name in (b"a", b"b", b"c")}
    workers = [
        start_worker(gearmand.address, {task: lambda job: gates[job.data](job)}) for _ in gates
    ]
    return gates, workers


Gates = tuple[dict[bytes, Gate], list[Worker]]


def submit_all(client: GearmanClient, task: str) -> list[GearmanJobRequest]:
    jobs = [{"task": task, "data": data} for data in (b"a", b"b", b"c")]
    return client.submit_multiple_jobs(jobs, wait_until_complete=False)


def test_as_completed(client: GearmanClient, task: str, gates: Gates) -> None:
    requests = submit_all(client, task)
    ended = client.as_completed(requests)
    order = []
    for name in (b"c", b"a", b"b"):
        gates[0][name].open.set()
        order.append(next(ended).result)
    assert order == [b"c", b"a", b"b"]
    assert next(ended, None) is None
    # Those that have ended before come at once.
    assert {request.result for request in client.as_completed(requests)} == {b"a", b"b", b"c"}


def test_as_completed_timeout(client: GearmanClient, task: str, gates: Gates) -> None:
    requests = submit_all(client, task)
    gates[0][b"b"].open.set()
    client.wait_until_jobs_completed([requests[1]])
    assert [request.result for request in client.as_completed(requests, 0.02)] == [b"b"]
    assert [request.timed_out for request in requests] == [True, False, True]
    for gate in gates[0].values():
        gate.open.set()
    assert len(list(client.as_completed(requests))) == 3
    assert not any(request.timed_out for request in requests)


def test_as_completed_early_break(client: GearmanClient, task: str, gates: Gates) -> None:
    requests = submit_all(client, task)
    gates[0][b"a"].open.set()
    for request in client.as_completed(requests):
        assert request.result == b"a"
        break
    for gate in gates[0].values():
        gate.open.set()
    client.wait_until_jobs_completed(requests)
    assert [request.result for request in requests] == [b"a", b"b", b"c"]
    assert client.submit_job(task, b"a").result == b"a"


def test_as_completed_of_what_was_never_sent(client: GearmanClient, task: str) -> None:
    request = GearmanJobRequest(gearman.GearmanJob(None, None, task, None, b"data"))
    assert list(client.as_completed([request])) == [request]
    assert request.state == gearman.JOB_UNKNOWN


def test_two_streams_over_the_same_requests(client: GearmanClient, task: str, gates: Gates) -> None:
    requests = submit_all(client, task)
    first, second = client.as_completed(requests), client.as_completed(requests)
    gates[0][b"a"].open.set()
    assert next(first).result == b"a"
    assert next(second).result == b"a"
    gates[0][b"c"].open.set()
    gates[0][b"b"].open.set()
    assert {request.result for request in first} == {b"b", b"c"}
    assert {request.result for request in second} == {b"b", b"c"}
