"""Servers that refuse, die, hang or send garbage. Every call ends with a clear error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    InvalidClientState,
    ServerUnavailable,
)
from gearman_proto.jobs.updates import JobEnded
from gearman_proto.wire.packets import (
    JobCreated,
    SubmitJob,
    WorkComplete,
)
from tests.support import black_hole, free_port

from .kit import Kit, Launch, Server, StartServer, collect, echo
from .test_submitting import new_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync.testing import Peer


# Unreachable servers.


async def test_submit_without_a_reachable_server_raises(kit: Kit) -> None:
    ports = [free_port(), free_port()]
    client = await kit.client(*[("127.0.0.1", port) for port in ports])
    requests = [new_request("task"), new_request("task", background=True)]
    with pytest.raises(ServerUnavailable) as caught:
        await client.submit_multiple_requests(requests)
    assert type(caught.value) is ServerUnavailable
    for port in ports:
        assert re.search(rf"127\.0\.0\.1:{port} \(.*refused", str(caught.value))
    assert caught.value.job_requests is requests
    assert [(r.state, r.timed_out) for r in requests] == [("UNKNOWN", False)] * 2
    cure = rf"; start one with `gearmanctl serve --port ({ports[0]}|{ports[1]})`$"
    assert re.search(cure, str(caught.value))
    # An unreachable server uses up no retries and does not delay the call.
    with pytest.raises(ServerUnavailable):
        await client.submit_job("task", b"data", max_retries=5)


async def test_server_that_does_not_take_the_connection(kit: Kit) -> None:
    with black_hole() as address:
        client = await kit.client(address, connect_timeout=0.05)
        with pytest.raises(ServerUnavailable, match=r"within 0\.05 seconds"):
            await client.submit_job("task", b"", background=True)
        patient = await kit.client(address)
        (connection,) = patient.connection_list
        assert await patient.establish_connection(connection, poll_timeout=0.02) is connection
        assert not connection.connected
        request = await patient.submit_job("task", b"", poll_timeout=0.02)
        await patient.shutdown()
        assert (request.state, request.timed_out) == ("PENDING", True)


async def test_one_of_two_is_down(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client(("127.0.0.1", free_port()), server.address)
    await kit.start_worker(server.address, tasks={task: echo})
    jobs = [{"task": task, "data": b"%d" % number} for number in range(20)]
    requests = await client.submit_multiple_jobs(jobs)
    assert [request.result for request in requests] == [job["data"] for job in jobs]
    assert [connection.connected for connection in client.connection_list] == [False, True]


@pytest.mark.both_servers
async def test_wait_for_servers_returns_when_one_of_them_is_there(
    kit: Kit, launch: Launch, task: str
) -> None:
    server = await launch()
    client = await kit.client(("127.0.0.1", free_port()), server.address)
    assert await client.wait_for_servers() is True
    await server.kill()
    assert await client.wait_for_servers(0.02) is False
    waiting = await kit.spawn(client.wait_for_servers, 60)
    await server.start()
    assert await waiting.result() is True
    request = await client.submit_job(task, b"", background=True)
    assert request.state == "CREATED"


async def test_wait_for_servers_ends_with_the_client(kit: Kit) -> None:
    client = await kit.client(("127.0.0.1", free_port()))
    waiting = await kit.spawn(client.wait_for_servers)
    await kit.eventually(lambda: client._gm_driver.engine._waits, "the call")
    await client.shutdown()
    with pytest.raises(ServerUnavailable, match="shut down"):
        await waiting.result()
    with pytest.raises(InvalidClientState):
        await client.wait_for_servers()


# Servers that die.


@pytest.mark.both_servers
async def test_killed_in_the_middle(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    client = await kit.client(server.address)
    requests = [new_request(task, b"%d" % number) for number in range(5)]
    requests.append(new_request(task, b"5", unique="mine"))
    call = await kit.spawn(client.submit_multiple_requests, requests)
    await server.wait_for_counts(task, 6, 0, 0)
    await server.kill()
    assert await call.result() is requests
    for request in requests:
        assert (request.state, request.timed_out) == ("UNKNOWN", False)
        assert isinstance(request.error, ConnectionError)
        assert "after it had accepted the job; the job may still run" in str(request.error)
    uniques = [request.unique for request in requests]
    # The client resubmits nothing on its own.
    assert await client.wait_until_jobs_completed(requests) is requests
    assert {request.state for request in requests} == {"UNKNOWN"}
    await server.start()
    await kit.start_worker(server.address, tasks={task: echo})
    await client.submit_multiple_requests(requests)
    assert [request.result for request in requests] == [b"%d" % number for number in range(6)]
    # Only generated unique ids are replaced.
    assert set(uniques) & {request.unique for request in requests} == {"mine"}


@pytest.mark.both_servers
async def test_the_other_server_takes_over(
    kit: Kit, launch: Launch, server: Server, task: str
) -> None:
    mortal = await launch()
    servers = {mortal.address[1]: mortal, server.address[1]: server}
    gate = kit.gate()
    client = await kit.client(*[each.address for each in servers.values()])
    for each in servers.values():  # A server that is slow to connect gets no job.
        await client.establish_connection(each.address)
    requests = [new_request(task, b"%d" % number) for number in range(4)]
    await client.submit_multiple_requests(requests, wait_until_complete=False)
    at = [request.connection.port for request in requests if request.connection]
    assert sorted(at) == sorted([*servers, *servers])
    await kit.start_worker(server.address, tasks={task: gate}, max_jobs=4)
    call = await kit.spawn(client.wait_until_jobs_completed, requests)
    await mortal.kill()
    lost = [request for request, port in zip(requests, at) if port == mortal.address[1]]
    await kit.eventually(lambda: all(request.state == "UNKNOWN" for request in lost))
    assert not call.done
    gate.open.set()
    await call.result()
    assert sorted(request.state for request in requests) == ["COMPLETE"] * 2 + ["UNKNOWN"] * 2
    await client.submit_multiple_requests(requests)
    assert [request.result for request in requests] == [b"0", b"1", b"2", b"3"]
    assert {r.connection.port for r in requests if r.connection} == {server.address[1]}


@pytest.mark.both_servers
async def test_a_restart_between_two_calls(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    client = await kit.client(server.address)
    stored = await client.submit_job(task, b"", background=True)
    waiting = await client.submit_job(task, b"", wait_until_complete=False)
    await server.kill()
    await server.start()
    # The idle connection was lost, so the next call reconnects.
    request = await client.submit_job(task, b"", background=True)
    assert (request.state, request.connection_attempts) == ("CREATED", 1)
    assert waiting.state == "UNKNOWN"
    assert await server.counts(task) == (1, 0, 0)
    await server.kill()
    await server.start()
    await client.get_job_status(stored)
    assert stored.status["known"] is False


# Servers that misbehave.


async def test_submit_that_is_lost_again_and_again(kit: Kit, start_server: StartServer) -> None:
    """The error says that the connections ended in the middle of a packet."""

    def tear(peer: Peer) -> None:
        peer.expect(SubmitJob)
        peer.send_raw(peer.connection.send(JobCreated(b"H:torn"))[:-1])

    server = start_server(tear)
    client = await kit.client(server.address)
    with pytest.raises(ExceededConnectionAttempts, match=r"2 times.*middle of a packet") as caught:
        await client.submit_job("task", b"data", max_retries=1)
    (request,) = caught.value.job_requests
    assert (request.state, request.timed_out) == ("UNKNOWN", False)
    assert request.connection_attempts == 2
    submits = [event for event in server.events if isinstance(event, SubmitJob)]
    assert len({submit.unique for submit in submits}) == len(submits) == 2


async def test_retry_that_works(kit: Kit, start_server: StartServer) -> None:
    def script(peer: Peer) -> None:
        peer.expect(SubmitJob)
        if len(server.peers) > 1:
            peer.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"done"))
            peer.hold()

    server = start_server(script)
    client = await kit.client(server.address)
    request = await client.submit_job("task", b"data", unique="u", max_retries=1)
    assert (request.result, request.connection_attempts) == (b"done", 2)
    assert server.events == [SubmitJob(b"task", b"u", b"data")] * 2


# Connections on request.


async def test_poll_connections_until_stopped(kit: Kit, server: Server, task: str) -> None:
    client, request, gate, *_ = await kit.running_job(server.address, task)
    activity: list[bool] = []

    def go_on(any_activity: bool) -> bool:
        activity.append(any_activity)
        gate.open.set()
        return not request.complete

    poll = client.poll_connections_until_stopped
    assert await poll(client.connection_list, go_on, timeout=20) is False
    assert (request.result, activity[0], activity[-1]) == (b"data", False, True)
    assert await poll([], lambda any_activity: True, 0.02) is True
    with pytest.raises(ZeroDivisionError):
        await poll([], lambda any_activity: 1 / 0)


# Routing and shutdown.


async def test_calls_after_shutdown_raise(kit: Kit, server: Server, task: str) -> None:
    client, request = await kit.submit(server.address, task, b"")
    (connection,) = client.connection_list
    await client.shutdown()
    await client.shutdown()
    assert not connection.connected
    calls: list[Callable[[], Any]] = [
        lambda: client.submit_job(task, b""),
        lambda: client.submit_multiple_jobs([{"task": task, "data": b""}]),
        lambda: client.submit_multiple_requests([request]),
        lambda: client.wait_until_jobs_accepted([request]),
        lambda: client.get_job_status(request),
        lambda: client.get_job_statuses([request]),
        lambda: client.establish_connection(connection),
        lambda: client.poll_connections_until_stopped([], lambda any_activity: False),
    ]
    for call in calls:
        with pytest.raises(InvalidClientState, match="this client has been shut down"):
            await call()
    # Calls that send nothing report the state of the request.
    assert await client.wait_until_jobs_completed([request]) == [request]
    assert await collect(client.as_completed([request])) == [request]
    assert "client was closed" in str(request.error)
    assert await collect(client.updates(request)) == [JobEnded("UNKNOWN")]


@pytest.mark.parametrize("timed_out", [False, True])
async def test_unawaited_request_keeps_its_state_after_shutdown(
    kit: Kit, server: Server, task: str, timed_out: bool
) -> None:
    """Leave the state unchanged, so programs can tell a timeout from a failure after `shutdown`."""
    first = await kit.client(server.address)
    request = await first.submit_job(task, b"data", wait_until_complete=False)
    if timed_out:
        await first.wait_until_jobs_completed([request], poll_timeout=0.02)
    await first.shutdown()
    assert (request.state, request.timed_out, request.error) == ("CREATED", timed_out, None)

    # Another client treats the request's connection as lost.
    second = await kit.client(server.address)
    await second.get_job_status(request)
    assert request.state == "CREATED"
    await second.wait_until_jobs_completed([request])
    assert (request.state, request.timed_out) == ("UNKNOWN", False)
    assert "client was closed" in str(request.error)
    await kit.start_worker(server.address, tasks={task: echo})
    await second.submit_multiple_requests([request])
    assert (request.state, request.result, request.error) == ("COMPLETE", b"data", None)
