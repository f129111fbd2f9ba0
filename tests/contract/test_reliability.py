"""The fate of a job when something fails, as described in docs/explanation/reliability.md.

A proxy injects faults of the connection itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.wire.packets import (
    CanDo,
    GrabJobUniq,
    JobAssignUniq,
    Noop,
    PreSleep,
    WorkComplete,
    WorkData,
)
from gearman_sync.testing import ScriptedClient
from gearman_sync.testing.proxy import FaultyProxy
from gearman_sync.testing.toxics import Direction, LimitData, Stall, Timeout
from tests.support import PATIENCE

from .kit import Kit, Launch, Server, echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support import Gearmand

    Through = Callable[[Server], FaultyProxy]

UP, DOWN = Direction.UP, Direction.DOWN
# Time in seconds to wait for a message that must not arrive.
_A_WHILE = 0.2


@pytest.fixture
def through() -> Iterator[Through]:
    """A function that starts a proxy in front of a server. The proxy injects no faults at first."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(FaultyProxy(server.address))


async def request_job(kit: Kit, address: tuple[str, int], task: str) -> ScriptedClient:
    """Return the connection of a worker that has requested a job.

    If a test closes it, the server sees the same as when the worker is killed.
    """
    worker = await kit.blocking(ScriptedClient, address)
    worker.send(CanDo(task.encode()), GrabJobUniq())
    return worker


async def take(
    kit: Kit, address: tuple[str, int], task: str
) -> tuple[ScriptedClient, JobAssignUniq]:
    """Return the connection of a worker, and the job that it has received."""
    worker = await request_job(kit, address, task)
    job = await kit.blocking(worker.receive)
    assert isinstance(job, JobAssignUniq)
    return worker, job


async def is_still(client: Any, request: Any, state: str) -> None:
    """Check that nothing is received about a request in flight for a while."""
    await client.wait_until_jobs_completed([request], poll_timeout=_A_WHILE)
    assert (request.state, request.timed_out) == (state, True)


# Lost workers.


@pytest.mark.both_servers
async def test_worker_is_killed_before_it_begins(kit: Kit, server: Server, task: str) -> None:
    client, request = await kit.submit(server.address, task, b"data")
    worker, job = await take(kit, server.address, task)
    worker.close()
    other, again = await take(kit, server.address, task)
    assert (again.handle, again.unique, again.data) == (job.handle, job.unique, b"data")
    other.send(WorkComplete(again.handle, b"done"))
    await client.wait_until_jobs_completed([request])
    assert (request.result, list(request.warning_updates)) == (b"done", [])
    other.close()


@pytest.mark.both_servers
async def test_worker_is_killed_during_its_job(kit: Kit, server: Server, task: str) -> None:
    """Send updates again when the next worker repeats the job."""
    client, request = await kit.submit(server.address, task, b"")
    for parts in ([b"one"], [b"one", b"two"]):
        worker, job = await take(kit, server.address, task)
        worker.send(*[WorkData(job.handle, part) for part in parts])
        if len(parts) == 2:
            worker.send(WorkComplete(job.handle, b"done"))
        worker.close()
    await client.wait_until_jobs_completed([request])
    assert (request.result, list(request.data_updates)) == (b"done", [b"one", b"one", b"two"])


@pytest.mark.both_servers
async def test_worker_is_killed_after_its_result(kit: Kit, server: Server, task: str) -> None:
    client, request = await kit.submit(server.address, task, b"")
    worker, job = await take(kit, server.address, task)
    worker.send(WorkComplete(job.handle, b"done"))
    worker.close()
    await client.wait_until_jobs_completed([request])
    assert request.result == b"done"
    await server.wait_for_counts(task, 0, 0, 0)


@pytest.mark.both_servers
async def test_result_is_lost_on_its_way(
    kit: Kit, server: Server, through: Through, task: str
) -> None:
    """Repeat a finished job whose result did not reach the server."""
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"data", background=True)
    proxy = through(server)
    worker, job = await take(kit, proxy.address, task)
    proxy.inject(Timeout(direction=UP))
    worker.send(WorkComplete(job.handle, b"done"))
    worker.close()
    gate = kit.gate()
    await kit.start_worker(server.address, tasks={task: gate})
    proxy.inject(LimitData(direction=UP))
    await kit.wait_for(gate.begun)
    assert gate.order == [b"data"]
    assert request.state == "CREATED"


@pytest.mark.both_servers
async def test_worker_hangs(kit: Kit, server: Server, task: str) -> None:
    """Leave the job with the hung worker, since the server considers it running."""
    client, request, gate, *_ = await kit.running_job(server.address, task)
    await kit.start_worker(server.address, tasks={task: lambda worker, job: b"other"})
    await is_still(client, request, "CREATED")
    await client.get_job_status(request)
    assert request.status["running"]
    gate.open.set()
    await client.wait_until_jobs_completed([request])
    assert request.result == b"data"


@pytest.mark.slow
@pytest.mark.both_servers
async def test_job_exceeds_its_time_limit(kit: Kit, server: Server, task: str) -> None:
    """The next worker's result counts. The late one is dropped, and its worker continues."""
    gate = kit.gate()
    late = await kit.make_worker(server.address)
    late.register_task(task, gate, timeout=1.0)
    working = await kit.work(late)
    client, request = await kit.submit(server.address, task, b"data")
    await kit.wait_for(gate.begun)
    other = await kit.start_worker(server.address, tasks={task: lambda worker, job: b"in time"})
    await client.wait_until_jobs_completed([request])
    await other.shutdown()
    gate.open.set()
    assert (await client.submit_job(task, b"late")).result == b"late"
    assert request.result == b"in time"
    assert not working.done


# Lost servers.


@pytest.mark.both_servers
async def test_server_is_killed_while_the_job_runs(kit: Kit, launch: Launch, task: str) -> None:
    """Run the job twice if its client submits it again."""
    server = await launch()
    client, request, gate, *_ = await kit.running_job(server.address, task, max_jobs=2)
    await server.kill()
    await client.wait_until_jobs_completed([request])
    assert request.state == "UNKNOWN"
    await server.start()
    await client.submit_multiple_requests([request], wait_until_complete=False)
    await kit.eventually(lambda: gate.order == [b"data"] * 2)
    gate.open.set()
    await client.wait_until_jobs_completed([request])
    assert request.result == b"data"


async def test_gearmand_is_stopped(
    kit: Kit, start_gearmand: Callable[..., Gearmand], task: str
) -> None:
    """End calls at their timeouts, and resume when gearmand resumes."""
    program = await kit.blocking(start_gearmand)
    client, running, gate, *_ = await kit.running_job(program.address, task)
    assert program.process is not None
    program.process.send_signal(signal.SIGSTOP)
    # Wait, because the signal stops the process asynchronously.
    await kit.blocking(os.waitid, os.P_PID, program.process.pid, os.WSTOPPED)
    try:
        sent = await client.submit_job(task, b"sent", poll_timeout=_A_WHILE)
        await client.wait_until_jobs_completed([running], poll_timeout=_A_WHILE)
        assert [running.state, sent.state] == ["CREATED", "PENDING"]
        assert running.timed_out
        assert sent.timed_out
    finally:
        program.process.send_signal(signal.SIGCONT)
    gate.open.set()
    await client.wait_until_jobs_completed([running, sent])
    assert [running.result, sent.result] == gate.order == [b"data", b"sent"]


@pytest.mark.slow
@pytest.mark.both_servers
async def test_server_is_silent_for_a_while(
    kit: Kit, server: Server, through: Through, task: str
) -> None:
    proxy = through(server)
    await kit.start_worker(server.address, tasks={task: echo})
    client = await kit.client(proxy.address)
    assert (await client.submit_job(task, b"before")).result == b"before"
    proxy.inject(Stall(1.0))
    request = await client.submit_job(task, b"data", poll_timeout=_A_WHILE)
    assert (request.state, request.timed_out) == ("PENDING", True)
    await client.wait_until_jobs_completed([request])
    assert request.result == b"data"


@pytest.mark.both_servers
async def test_stored_handle_after_a_restart(
    kit: Kit, launch: Launch, server_kind: str, task: str
) -> None:
    """Query by unique id, since a restarted gearmand reuses handles."""
    server = await launch()
    client = await kit.client(server.address)
    before = await client.submit_job(task, b"", unique=f"{task}-1", background=True)
    await server.kill()
    await server.start()
    after = await client.submit_job(task, b"", unique=f"{task}-2", background=True)
    assert (before.handle == after.handle) == (server_kind == "gearmand")
    # A unique id never refers to another job.
    for request, known in ((before, False), (after, True)):
        await client.get_job_status(request, by_unique=True)
        assert request.status["known"] is known


# Black holes.


@pytest.mark.both_servers
async def test_nothing_reaches_the_server(
    kit: Kit, server: Server, through: Through, task: str
) -> None:
    proxy = through(server)
    client = await kit.client(proxy.address)
    await client.submit_job(f"{task}-before", b"", background=True)
    proxy.inject(Timeout(direction=UP))
    request = await client.submit_job(task, b"data", poll_timeout=_A_WHILE)
    assert (request.state, request.timed_out) == ("PENDING", True)
    assert await server.counts(task) == (0, 0, 0)


@pytest.mark.both_servers
async def test_nothing_comes_from_the_server(
    kit: Kit, server: Server, through: Through, task: str
) -> None:
    """Run the job even if no reply reaches the client."""
    proxy = through(server)
    gate = kit.gate(opened=True)
    await kit.start_worker(server.address, tasks={task: gate})
    client = await kit.client(proxy.address)
    await client.submit_job(f"{task}-before", b"", background=True)
    proxy.inject(Timeout(direction=DOWN))
    request = await client.submit_job(task, b"data", poll_timeout=_A_WHILE)
    assert (request.state, request.timed_out) == ("PENDING", True)
    await kit.wait_for(gate.begun)
    assert gate.order == [b"data"]


@pytest.mark.both_servers
async def test_nothing_of_a_worker_reaches_the_server(
    kit: Kit, server: Server, through: Through, task: str
) -> None:
    """Keep the job assigned until the connection ends, then run it again."""
    proxy = through(server)
    gate = kit.gate()
    await kit.start_worker(proxy.address, tasks={task: gate})
    client, request = await kit.submit(server.address, task, b"data")
    await kit.wait_for(gate.begun)
    proxy.inject(Timeout(direction=UP))
    gate.open.set()
    await is_still(client, request, "CREATED")
    assert await server.counts(task) == (1, 1, 1)
    proxy.inject(LimitData(direction=UP))
    await client.wait_until_jobs_completed([request])
    assert request.result == b"data"
    assert gate.order == [b"data"] * 2


@pytest.mark.both_servers
async def test_nothing_of_the_server_reaches_a_worker(
    kit: Kit, server: Server, through: Through, task: str
) -> None:
    """Keep the job assigned although the assignment did not reach the worker."""
    client, request = await kit.submit(server.address, task, b"data")
    proxy = through(server)
    proxy.plan = lambda number: [Timeout(direction=DOWN)]
    worker = await request_job(kit, proxy.address, task)
    await server.wait_for_counts(task, 1, 1, 1)
    await kit.start_worker(server.address, tasks={task: echo})
    await is_still(client, request, "CREATED")
    worker.close()
    proxy.inject(LimitData(direction=UP))
    await client.wait_until_jobs_completed([request])
    assert request.result == b"data"


# Disconnecting clients.


async def leave(kit: Kit, server: Server, client: Any, request: Any, *, others: int = 0) -> None:
    """Disconnect the client of a job, and wait until the server has noticed."""
    await client.shutdown()
    asking = await kit.client(server.address)
    status = kit.gearman.GearmanJobRequest.from_unique(request.unique)

    async def has_left() -> bool:
        await asking.get_job_status(status)
        return not status.status["known"] or status.status["client_count"] == others

    await kit.eventually(has_left, "the end of a client")


async def order_of(kit: Kit, server: Server, task: str) -> list[Any]:
    """Run the queued jobs and one more. Return their data in order."""
    gate = kit.gate(opened=True)
    client = await kit.client(server.address)
    last = await client.submit_job(task, b"last", priority="LOW", wait_until_complete=False)
    await kit.start_worker(server.address, tasks={task: gate})
    await client.wait_until_jobs_completed([last])
    return gate.order


@pytest.mark.both_servers
async def test_client_leaves_its_queued_job(kit: Kit, server: Server, task: str) -> None:
    client, request = await kit.submit(server.address, task, b"left")
    await leave(kit, server, client, request)
    assert await order_of(kit, server, task) == [b"last"]


@pytest.mark.both_servers
async def test_client_leaves_its_running_job(kit: Kit, server: Server, task: str) -> None:
    """Run the job to its end without notifying its worker, and discard the result."""
    lost: list[bool] = []

    def after_leaving(worker: Any, job: Any) -> Any:
        lost.append(job.is_lost)
        return job.data

    client, request, gate, *_ = await kit.running_job(server.address, task, after_leaving)
    await leave(kit, server, client, request)
    gate.open.set()
    await server.wait_for_counts(task, 0, 0)
    other = await kit.client(server.address)
    assert (await other.submit_job(task, b"next")).result == b"next"
    assert (gate.order, lost) == ([b"data", b"next"], [False, False])


@pytest.mark.both_servers
async def test_client_leaves_its_background_job(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(server.address)
    await client.submit_job(task, b"left", background=True)
    await client.shutdown()
    assert await order_of(kit, server, task) == [b"left", b"last"]


@pytest.mark.both_servers
@pytest.mark.parametrize("running", [False, True], ids=["queued", "running"])
async def test_one_of_two_clients_leaves(
    kit: Kit, server: Server, task: str, running: bool
) -> None:
    gate = kit.gate()
    clients = [await kit.client(server.address) for _ in range(2)]
    requests = [
        await client.submit_job(task, b"data", unique=f"{task}-ours", wait_until_complete=False)
        for client in clients
    ]
    if running:
        await kit.start_worker(server.address, tasks={task: gate})
        await kit.wait_for(gate.begun)
    await leave(kit, server, clients[0], requests[0], others=1)
    gate.open.set()
    if not running:
        await kit.start_worker(server.address, tasks={task: gate})
    await clients[1].wait_until_jobs_completed(requests[1:])
    assert (requests[1].result, gate.order) == (b"data", [b"data"])


@pytest.mark.both_servers
async def test_client_that_joined_a_background_job_leaves(
    kit: Kit, server: Server, server_kind: str, task: str
) -> None:
    """Keep the job, unless gearmand drops it (37_background_lost_with_foreground)."""
    client, watcher = await kit.client(server.address), await kit.client(server.address)
    await client.submit_job(task, b"kept", unique=f"{task}-ours", background=True)
    joined = await watcher.submit_job(task, b"", unique=f"{task}-ours", wait_until_complete=False)
    await leave(kit, server, watcher, joined)
    kept = [b"kept"] if server_kind == "JobServer" else []
    assert await order_of(kit, server, task) == [*kept, b"last"]


@pytest.mark.both_servers
async def test_unique_of_a_job_whose_client_has_left(
    kit: Kit, server: Server, server_kind: str, task: str
) -> None:
    """Run the new job, unless gearmand joins it to the old one (36_abandoned_then_resubmitted)."""
    client, other = await kit.client(server.address), await kit.client(server.address)
    left = await client.submit_job(task, b"left", unique=f"{task}-mine", wait_until_complete=False)
    await leave(kit, server, client, left)
    # Without a heartbeat, the client does not detect that the job is gone.
    request = await other.submit_job(task, b"new", unique=f"{task}-mine", wait_until_complete=False)
    order = await order_of(kit, server, task)
    if server_kind == "JobServer":
        await other.wait_until_jobs_completed([request])
        assert (request.result, order) == (b"new", [b"new", b"last"])
        return
    await other.wait_until_jobs_completed([request], poll_timeout=_A_WHILE)
    assert request.handle == left.handle
    assert (request.state, request.timed_out, order) == ("CREATED", True, [b"last"])
    await other.get_job_status(request)
    assert not request.status["known"]
    # The unique id is free again.
    again = await other.submit_job(task, b"again", unique=f"{task}-mine")
    assert again.result == b"again"


@pytest.mark.both_servers
async def test_sleeping_loses_no_live_job(
    kit: Kit, server: Server, task: str, request: pytest.FixtureRequest
) -> None:
    """Keep a live job when another function of the worker has a job whose client has disconnected.

    gearmand 2.0.0 deletes the live job (62_presleep_loses_live_foreground).
    """
    if (await server.admin("version")).startswith("OK 2."):
        request.applymarker(pytest.mark.xfail(reason="gearmand 2.0.0 deletes it", strict=True))
    client, other = await kit.client(server.address), await kit.client(server.address)
    left = await client.submit_job(task, b"left", priority="LOW", wait_until_complete=False)
    await leave(kit, server, client, left)
    name = f"{task}-live"
    live = await other.submit_job(name, b"live", priority="HIGH", wait_until_complete=False)
    with await kit.blocking(ScriptedClient, server.address) as link:
        link.send(CanDo(name.encode()), CanDo(task.encode()), PreSleep())
        assert isinstance(await kit.blocking(link.receive), Noop)
        link.send(GrabJobUniq())
        job = await kit.blocking(link.receive)
        assert isinstance(job, JobAssignUniq)
        assert job.data == b"live"
        link.send(WorkComplete(job.handle, b"done"))
        await other.wait_until_jobs_completed([live])
    assert live.result == b"done"


# Canceled jobs.


@pytest.mark.both_servers
async def test_function_of_a_queued_job_is_dropped(
    kit: Kit, server: Server, server_kind: str, task: str
) -> None:
    """Keep the queued job, which gearmand never runs but still reports as known."""
    client, request = await kit.submit(server.address, task, b"")
    reply = await server.admin(f"drop function {task}")
    assert reply.startswith("OK" if server_kind == "gearmand" else "ERR")
    await client.get_job_status(request)
    assert request.status["known"]
    await kit.start_worker(server.address, tasks={task: echo})
    if server_kind == "gearmand":
        await client.wait_until_jobs_completed([request], poll_timeout=_A_WHILE)
        assert request.timed_out
    else:
        await client.wait_until_jobs_completed([request])
        assert request.state == "COMPLETE"


@pytest.mark.both_servers
async def test_a_queued_job_is_cancelled(kit: Kit, server: Server, task: str) -> None:
    admin, client = await kit.admin_client(server.address), await kit.client(server.address)
    request = await client.submit_job(task, b"cancelled", wait_until_complete=False)
    assert await admin.cancel_job(request.handle) == "OK"
    await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert request.state == "FAILED"
    assert await order_of(kit, server, task) == [b"last"]


@pytest.mark.both_servers
async def test_a_running_job_is_cancelled(kit: Kit, server: Server, task: str) -> None:
    """Notify the client. The worker is not notified and keeps running the job."""
    client, request, gate, worker, _ = await kit.running_job(server.address, task)
    admin = await kit.admin_client(server.address)
    assert await admin.cancel_job(request.handle) == "OK"
    await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert request.state == "FAILED"
    gate.open.set()
    # The server discards the result of the canceled job, and the worker stays connected.
    assert (await client.submit_job(task, b"next")).result == b"next"
    assert (request.state, request.result) == ("FAILED", None)
    assert gate.order == [b"data", b"next"]
    assert worker.connection_list[0].connected
