"""Cancelled jobs, and calls that cancel their jobs when they are abandoned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import InvalidClientState, ServerUnavailable

from .kit import Gate, Kit, Launch, Server, collect, echo, settled
from .test_submitting import new_request

if TYPE_CHECKING:
    from gearman_proto import GearmanJobRequest, WorkerJob


async def run_the_queue(kit: Kit, server: Server, task: str) -> list[Any]:
    """Run all jobs of the queue, and return the data of those that reach a worker."""
    gate: Gate = kit.gate(opened=True)
    client = await kit.client_and_worker(server.address, tasks={task: gate})
    await client.submit_job(task, b"last", priority="LOW")
    # gearmand keeps cancelled jobs until a worker asks.
    await server.wait_for_counts(task, 0, 0)
    *order, last = gate.order
    assert last == b"last"
    return order


@pytest.mark.both_servers
async def test_queued_job_is_cancelled(kit: Kit, server: Server, task: str) -> None:
    client, request = await kit.submit(server.address, task, b"foreground")
    background = await client.submit_job(task, b"background", background=True)
    waiting = await kit.spawn(client.wait_until_jobs_completed, [request])
    assert await client.cancel_job(request) == "queued"
    await waiting.result()
    assert (request.state, request.timed_out) == ("FAILED", False)
    assert "cancelled by this client" in request.reason
    own = await client.submit_job(task, b"own", background=True)
    assert await client.cancel_job(own) == "queued"
    assert (own.state, own.complete) == ("CREATED", True)
    stored = kit.gearman.GearmanJobRequest.from_handle(background.handle, server.address)
    other = await kit.client(server.address)
    assert await other.cancel_job(stored) == "queued"
    assert await run_the_queue(kit, server, task) == []
    assert await client.cancel_job(request) == "unknown"


@pytest.mark.both_servers
async def test_running_job_goes_on(kit: Kit, server: Server, task: str) -> None:
    client, request, gate, *_ = await kit.running_job(server.address, task)
    assert await client.cancel_job(request) == "running"
    assert request.state == "FAILED"
    gate.open.set()
    # The worker and the client stay usable.
    assert (await client.submit_job(task, b"next")).result == b"next"
    assert (request.state, request.result) == ("FAILED", None)


async def test_wrong_cancellations_raise(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    with pytest.raises(InvalidClientState, match="no handle"):
        await client.cancel_job(new_request(task))
    with pytest.raises(TypeError):
        await client.cancel_job("H:1")
    with pytest.raises(ValueError, match="poll_timeout"):
        await client.cancel_job(new_request(task), -float("inf") * 0)


@pytest.mark.both_servers
async def test_server_that_is_killed_between_cancellations(
    kit: Kit, launch: Launch, task: str
) -> None:
    server = await launch()
    client, request = await kit.submit(server.address, task, b"1")
    assert await client.cancel_job(request) == "queued"
    request = await client.submit_job(task, b"2", background=True)
    await server.kill()
    with pytest.raises(ServerUnavailable):
        await client.cancel_job(request)
    await server.start()
    assert await client.cancel_job(request) == "unknown"
    request = await client.submit_job(task, b"3", wait_until_complete=False)
    assert await client.cancel_job(request) == "queued"


# Abandoned calls.


async def timed_out(client: Any, task: str, **options: Any) -> GearmanJobRequest:
    """Return the request of a call that times out after the server has received its job."""
    request: GearmanJobRequest = await client.submit_job(
        task, b"abandoned", poll_timeout=0.05, cancel_if_abandoned=True, **options
    )
    return request


@pytest.mark.both_servers
async def test_timed_out_job_is_cancelled(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    await client.wait_for_servers()
    request = await timed_out(client, task)
    assert request.state == "FAILED"
    assert "cancelled" in str(request.reason)
    kept = await timed_out(client, task, unique="mine")
    assert kept.timed_out
    await client.wait_until_jobs_accepted([kept])
    jobs = [{"task": task, "data": b"abandoned"}] * 3
    many = await client.submit_multiple_jobs(jobs, poll_timeout=0.05, cancel_if_abandoned=True)
    assert {request.state for request in many} == {"FAILED"}
    assert await run_the_queue(kit, server, task) == [b"abandoned"]
    await client.wait_until_jobs_completed([kept])
    assert (kept.state, kept.result) == ("COMPLETE", b"abandoned")


async def test_job_of_a_call_that_returns_is_not_cancelled(
    kit: Kit, server: Server, task: str
) -> None:
    client = await kit.client(server.address)
    for background in (True, False):
        request = await client.submit_job(
            task,
            b"in",
            background=background,
            wait_until_complete=False,
            cancel_if_abandoned=True,
        )
        assert request.state == "CREATED"
    assert await run_the_queue(kit, server, task) == [b"in", b"in"]
    await kit.start_worker(server.address, tasks={task: echo})
    request = await client.submit_job(task, b"done", cancel_if_abandoned=True, poll_timeout=60)
    assert request.result == b"done"


@pytest.mark.both_servers
async def test_closed_results_are_cancelled(kit: Kit, server: Server, task: str) -> None:
    gate = kit.gate()

    def function(worker: Any, job: WorkerJob) -> Any:
        return job.data if job.data == b"1" else gate(worker, job)

    client = await kit.client_and_worker(server.address, tasks={task: function})
    jobs = [{"task": task, "data": b"%d" % number} for number in range(1, 9)]
    results = client.results(jobs, window=4, cancel_if_abandoned=True)
    assert (await results.__anext__()).result == b"1"
    await kit.wait_for(gate.begun)
    await settled(results.aclose() if hasattr(results, "aclose") else results.close())
    assert await collect(results) == []
    gate.open.set()
    await client.submit_job(task, b"last")
    await server.wait_for_counts(task, 0, 0)
    # The second job was running, and the other two are gone.
    assert gate.order == [b"2", b"last"]


@pytest.mark.slow
async def test_storm_of_abandoned_calls_leaves_no_job(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)

    async def abandon_some() -> None:
        for number in range(100):
            await client.submit_job(
                task, b"x", poll_timeout=0.0005 * number, cancel_if_abandoned=True
            )

    calls = [await kit.spawn(abandon_some) for _ in range(10)]
    for call in calls:
        await call.result()
    engine = client._gm_driver.engine

    async def is_idle() -> bool:
        """Return whether all cancellations have ended. Those of slow calls continue after these."""
        await client.wait_for_servers()  # The blocking client does nothing without a call.
        submits = [item for link in engine.pool.links() for item in link.items()]
        questions = [each for admin in engine._admins.values() for each in admin._waits]
        return not submits and not questions

    await kit.eventually(is_idle, "the end of all cancellations")
    assert await run_the_queue(kit, server, task) == []
