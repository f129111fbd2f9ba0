"""Timeouts that leave the job running, repeated waits, and streams of results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.jobs.updates import JobData, JobEnded, JobProgress

from .kit import Gate, Kit, Launch, Server, collect
from .test_submitting import new_request

if TYPE_CHECKING:
    from gearman_proto import WorkerJob


async def test_accepted_sends_new_requests_and_completed_does_not(
    kit: Kit, server: Server, task: str
) -> None:
    client = await kit.client(server.address)
    requests = [new_request(task), new_request(task)]
    assert await client.wait_until_jobs_completed(requests) is requests
    assert [request.state for request in requests] == ["UNKNOWN"] * 2
    assert await server.counts(task) == (0, 0, 0)
    assert await client.wait_until_jobs_accepted(requests) is requests
    assert [request.state for request in requests] == ["CREATED"] * 2
    assert await server.counts(task) == (2, 0, 0)
    assert not any(request.timed_out for request in requests)


@pytest.mark.parametrize("how", ["submit_multiple_requests", "wait_until_jobs_completed"])
async def test_wait_after_a_timeout_continues(
    kit: Kit, server: Server, task: str, how: str
) -> None:
    client, request, gate, *_ = await kit.running_job(server.address, task)
    assert (request.state, request.timed_out, request.complete) == ("CREATED", False, False)
    wait = getattr(client, how)
    for timeout in (0, 0.01):
        await wait([request], poll_timeout=timeout)
        assert (request.state, request.timed_out, request.complete) == ("CREATED", True, False)
    gate.open.set()
    await wait([request], poll_timeout=20)
    assert (request.state, request.timed_out, request.result) == ("COMPLETE", False, b"data")
    assert gate.order == [b"data"]
    assert request.connection_attempts == 1


async def test_shutdown_ends_waiting_calls(kit: Kit, server: Server, task: str) -> None:
    client, request, *_ = await kit.running_job(server.address, task)
    call = await kit.spawn(client.wait_until_jobs_completed, [request])
    await kit.eventually(lambda: request._gm_waits, "the call")
    await client.shutdown()
    await call.result()
    assert (request.state, request.complete, request.timed_out) == ("UNKNOWN", False, False)
    assert str(request.error) == "the client was shut down"


# Updates.


async def test_updates_left_early_keep_the_rest(kit: Kit, server: Server, task: str) -> None:
    gate = kit.gate()

    def function(worker: Any, job: WorkerJob) -> Any:
        for part in (b"1", b"2"):
            worker.send_job_data(job, part)
        return gate(worker, job)

    client, request = await kit.submit(server.address, task, b"end")
    await kit.start_worker(server.address, tasks={task: function})
    # The update arrives before the job ends.
    async for update in client.updates(request):
        assert (update, request.state) == (JobData(b"1"), "CREATED")
        break
    assert not gate.open.is_set()
    gate.open.set()
    await client.wait_until_jobs_completed([request])
    assert list(request.data_updates) == [b"2"]
    assert await collect(client.updates(request)) == [JobData(b"2"), JobEnded("COMPLETE", b"end")]


async def test_updates_end_at_the_timeout(kit: Kit, server: Server, task: str) -> None:
    client, request, gate, *_ = await kit.running_job(server.address, task)
    for timeout in (0.02, 0):
        assert await collect(client.updates(request, timeout)) == []
        assert (request.state, request.timed_out) == ("CREATED", True)
    gate.open.set()
    assert await collect(client.updates(request)) == [JobEnded("COMPLETE", b"data")]
    assert not request.timed_out


@pytest.mark.both_servers
async def test_updates_of_many_jobs(kit: Kit, launch: Launch, task: str) -> None:
    gate = kit.gate()

    def function(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_data(job, job.data)
        worker.send_job_status(job, 1, 2)
        return gate(worker, job) if job.data == b"slow" else job.data

    server = await launch()
    client = await kit.client(server.address)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(20)]
    jobs.append({"task": task, "data": b"slow"})
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    *quick, slow = requests
    worker = await kit.make_worker(server.address, tasks={task: function}, max_jobs=2)
    await kit.work(worker)
    seen: dict[Any, list[Any]] = {request: [] for request in requests}
    async for request, update in client.updates(requests):
        seen[request].append(update)
        if sum(map(len, seen.values())) == 3 * len(quick) + 2:
            break
    for request in quick:
        data = request.job.data
        assert seen[request] == [JobData(data), JobProgress(1, 2), JobEnded("COMPLETE", data)]
    assert seen[slow] == [JobData(b"slow"), JobProgress(1, 2)]
    # Another call yields only the rest. The ends of the others are known.
    await server.kill()
    rest = await collect(client.updates(requests))
    assert {update.state for _, update in rest} == {"COMPLETE", "UNKNOWN"}
    assert [request for request, update in rest if update.state == "UNKNOWN"] == [slow]
    assert len(rest) == len(requests)


# Completed requests.


async def submit_three(kit: Kit, server: Server, task: str) -> tuple[Any, list[Any], list[Gate]]:
    """Return a client, its requests, and the gate that each request waits for."""
    gates = {name: kit.gate() for name in (b"a", b"b", b"c")}
    client = await kit.client(server.address)
    tasks = {task: lambda worker, job: gates[job.data](worker, job)}
    await kit.start_worker(server.address, tasks=tasks, max_jobs=3)
    jobs = [{"task": task, "data": data} for data in gates]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    return client, requests, list(gates.values())


async def test_as_completed(kit: Kit, server: Server, task: str) -> None:
    client, requests, gates = await submit_three(kit, server, task)
    ended = client.as_completed(requests)
    order = []
    for number in (2, 0, 1):
        gates[number].open.set()
        order.append((await ended.__anext__()).result)
    assert order == [b"c", b"a", b"b"]
    assert await collect(ended) == []
    # Finished requests are returned at once.
    results = [request.result async for request in client.as_completed(tuple(requests), 0)]
    assert sorted(results) == [b"a", b"b", b"c"]


async def test_as_completed_ends_at_the_timeout(kit: Kit, server: Server, task: str) -> None:
    client, requests, gates = await submit_three(kit, server, task)
    gates[1].open.set()
    await client.wait_until_jobs_completed([requests[1]])
    assert await collect(client.as_completed(requests, 0.02)) == [requests[1]]
    assert [request.timed_out for request in requests] == [True, False, True]
    for gate in gates:
        gate.open.set()
    assert set(await collect(client.as_completed(requests, poll_timeout=20))) == set(requests)
    assert [request.timed_out for request in requests] == [False] * 3
