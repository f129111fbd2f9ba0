"""The admin client: queries, changes, and servers that fail."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import (
    InvalidAdminClientState,
    RemoteProtocolError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.wire.packets import EchoReq, EchoRes, TextLine
from gearman_proto.wire.text import FunctionStatus, JobRecord, PriorityStatus, WorkerStatus
from gearman_sync.testing import Peer, ScriptedServer
from tests.support import PATIENCE, Gearmand, black_hole, free_port, wait_for

from .kit import Kit, Server, echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Launch = Callable[[], Awaitable[Server]]
    StartServer = Callable[..., ScriptedServer]

pytestmark = pytest.mark.both_servers


def answer(peer: Peer) -> None:
    """Reply to every line with a version."""
    while True:
        event = peer.receive()
        if isinstance(event, EchoReq):
            peer.send(EchoRes(event.data))
        else:
            assert isinstance(event, TextLine)
            peer.send(TextLine(b"OK 1", b"\n"))


def first(script: Callable[[Peer], object]) -> Callable[[Peer], object]:
    """Run `script` for the first connection and `answer` for the others."""
    scripts = [script]

    def run(peer: Peer) -> None:
        (scripts.pop() if scripts else answer)(peer)

    return run


# Queries.


async def test_queries_of_a_busy_server(kit: Kit, launch: Launch) -> None:
    server = await launch()
    admin = await kit.admin_client(server.address)
    gate = kit.gate()
    worker = await kit.make_worker(server.address, tasks={"held": gate, "free": echo})
    worker.set_client_id("worker-1")
    await kit.work(worker)
    client = await kit.client(server.address)
    running = await client.submit_job("held", b"", unique="running", background=True)
    await kit.wait_for(gate.begun)
    queued = await client.submit_job(
        "held", b"", unique="queued", wait_until_complete=False, priority="HIGH"
    )
    low = await client.submit_job("idle", b"", unique="low", background=True, priority="LOW")

    status = await admin.get_status()
    assert type(status) is tuple
    assert {type(record) for record in status} == {FunctionStatus}
    assert {record.task: record for record in status} == {
        "held": FunctionStatus("held", queued=2, running=1, workers=1),
        "free": {"task": "free", "queued": 0, "running": 0, "workers": 1},
        "idle": FunctionStatus("idle", queued=1, running=0, workers=0),
    }
    priorities = await admin.get_priority_status()
    assert {type(record) for record in priorities} == {PriorityStatus}
    assert {record.task: record for record in priorities} == {
        "held": PriorityStatus("held", high=1, normal=0, low=0, workers=1),
        "free": PriorityStatus("free", high=0, normal=0, low=0, workers=1),
        "idle": PriorityStatus("idle", high=0, normal=0, low=1, workers=0),
    }
    jobs = await admin.get_jobs()
    assert {record.handle: record for record in jobs} == {
        running.handle: JobRecord(running.handle, retries=0, ignored=False, queued=True),
        queued.handle: JobRecord(queued.handle, retries=0, ignored=False, queued=False),
        low.handle: JobRecord(low.handle, retries=0, ignored=False, queued=True),
    }
    assert sorted(await admin.get_unique_jobs()) == ["low", "queued", "running"]

    workers = await admin.get_workers()
    assert {type(record) for record in workers} == {WorkerStatus}
    (mine,) = (record for record in workers if record.client_id == "worker-1")
    assert (mine.ip, sorted(mine["tasks"])) == ("127.0.0.1", ["free", "held"])
    # The server also counts the connections of the client and of this admin client.
    others = [record for record in workers if record is not mine]
    assert [(record.ip, record.client_id, record.tasks) for record in others] == [
        ("127.0.0.1", "-", ())
    ] * 2
    assert len({record.file_descriptor for record in workers}) == 3


async def test_queries_of_an_empty_server(kit: Kit, launch: Launch) -> None:
    server = await launch()
    admin = await kit.admin_client(server.address)
    for ask in (
        admin.get_status,
        admin.get_priority_status,
        admin.get_jobs,
        admin.get_unique_jobs,
    ):
        assert await ask() == ()
    (me,) = await admin.get_workers()
    assert (me.client_id, me.tasks) == ("-", ())


async def test_queries_about_the_server_itself(kit: Kit, server: Server, server_kind: str) -> None:
    admin = await kit.admin_client(server.address)
    version = await admin.get_version()
    assert f"{version}\n" == await server.admin("version")
    assert version.startswith("OK ")
    pid = await admin.get_pid()
    assert f"OK {pid}\n" == await server.admin("getpid")
    assert (pid == os.getpid()) == (server_kind == "JobServer")
    assert await admin.get_verbosity() == "ERROR"
    seconds = await admin.ping_server()
    assert type(seconds) is float
    assert 0 <= seconds < PATIENCE


async def test_many_calls_use_one_connection(kit: Kit, server: Server) -> None:
    admin = await kit.admin_client(server.address)
    (connection,) = admin.connection_list
    assert not connection.connected
    pid = await admin.get_pid()
    assert connection.connected
    assert (connection.gearman_host, connection.gearman_port) == server.address
    calls = [await kit.spawn(admin.get_pid) for _ in range(5)]
    calls.append(await kit.spawn(admin.get_version))
    calls.append(await kit.spawn(admin.ping_server))
    *pids, version, seconds = [await call.result() for call in calls]
    assert pids == [pid] * 5
    assert version.startswith("OK ")
    assert type(seconds) is float
    assert admin.connection_list == [connection]
    assert repr(admin) == f"<GearmanAdminClient 127.0.0.1:{server.address[1]}>"


async def test_client_connects_at_the_first_call(kit: Kit, start_server: StartServer) -> None:
    server = start_server(answer)
    admin = await kit.admin_client(server.address)
    assert await admin.get_version() == "OK 1"
    assert await admin.get_version() == "OK 1"
    assert len(server.peers) == 1


# Changes.


async def test_functions_are_created_and_dropped(kit: Kit, server: Server, task: str) -> None:
    admin = await kit.admin_client(server.address)
    for name in (task, f"{task}-naïve", f"{task}\ttab".encode()):
        text = name.decode() if isinstance(name, bytes) else name
        assert await admin.create_function(name) == "OK"
        shown = {record.task for record in await admin.get_status()}
        # JobServer does not print tabs in names.
        assert shown & {text, text.replace("\t", "?")}
        assert await admin.drop_function(name) == "OK"
        shown = {record.task for record in await admin.get_status()}
        assert not shown & {text, text.replace("\t", "?")}
    with pytest.raises(ServerError) as caught:
        await admin.drop_function(task)
    assert (caught.value.code, caught.value.text) == ("ERR", "function not found")
    await kit.start_worker(server.address, tasks={task: echo})
    await server.wait_for_counts(task, 0, 0, 1)
    with pytest.raises(ServerError, match="still connected workers"):
        await admin.drop_function(task)
    assert (await admin.get_version()).startswith("OK ")


@pytest.mark.parametrize(
    ("limit", "priority"), [(1, None), ([9, 1, 9], None), ((1, None, 0), "HIGH")]
)
async def test_maxqueue(
    kit: Kit, server: Server, task: str, limit: Any, priority: str | None
) -> None:
    admin, client = await kit.admin_client(server.address), await kit.client(server.address)

    async def submit() -> Any:
        request = await client.submit_job(task, b"", background=True, priority=priority)
        return request.state, request.error and request.error.code

    assert await admin.create_function(task) == "OK"
    assert await admin.send_maxqueue(task, limit) == "OK"
    assert await submit() == ("CREATED", None)
    assert await submit() == ("FAILED", "QUEUE_ERROR")
    assert await admin.send_maxqueue(task.encode(), None) == "OK"
    assert await submit() == ("CREATED", None)
    assert await server.counts(task) == (2, 0, 0)


async def test_maxqueue_of_an_unknown_function(kit: Kit, server: Server, task: str) -> None:
    admin = await kit.admin_client(server.address)
    assert await admin.send_maxqueue(task, 1) == "OK"
    assert task not in {record.task for record in await admin.get_status()}


@pytest.mark.parametrize("kind", [str, bytes])
async def test_cancel(kit: Kit, server: Server, task: str, kind: type) -> None:
    admin, client = await kit.admin_client(server.address), await kit.client(server.address)
    request = await client.submit_job(task, b"", wait_until_complete=False)
    handle = request.handle if kind is str else request.handle.encode()
    assert await admin.cancel_job(handle) == "OK"
    await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert (request.state, request.timed_out) == ("FAILED", False)
    with pytest.raises(ServerError) as caught:
        await admin.cancel_job("H:nowhere:1")
    assert (caught.value.code, caught.value.text) == ("UNKNOWN_JOB", "")


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("create_function", ["two words"], ValueError),
        ("drop_function", [""], ValueError),
        ("cancel_job", ["h" * 64], ValueError),
        ("send_maxqueue", ["f", -1], ValueError),
        ("send_maxqueue", ["f", [1, 2]], ValueError),
        ("send_maxqueue", ["a\0b", 1], ValueError),
        ("create_function", [1], TypeError),
        ("cancel_job", [None], TypeError),
        ("send_maxqueue", ["f", "5"], TypeError),
        ("send_maxqueue", ["f", True], TypeError),
    ],
)
async def test_what_cannot_be_asked(
    kit: Kit, server: Server, name: str, arguments: list[Any], error: type[Exception]
) -> None:
    admin = await kit.admin_client(server.address)
    with pytest.raises(error):
        await getattr(admin, name)(*arguments)
    # The client has not even connected.
    (connection,) = admin.connection_list
    assert not connection.connected


# Shutdown.


@pytest.mark.parametrize("options", [{"graceful": False}, {"graceful": True}, {}])
async def test_shutdown_of_a_server(kit: Kit, options: dict[str, bool]) -> None:
    server = kit.job_server()
    await kit.begin(server)
    admin = await kit.admin_client(server.address)
    assert await admin.send_shutdown(**options) == "OK"
    await server.wait()
    for _ in range(2):
        with pytest.raises(ServerUnavailable):
            await admin.get_version()


async def test_graceful_shutdown_lets_jobs_finish(kit: Kit, task: str) -> None:
    server = kit.job_server()
    await kit.begin(server)
    gate = kit.gate()
    await kit.start_worker(server.address, tasks={task: gate})
    client, admin = await kit.client(server.address), await kit.admin_client(server.address)
    call = await kit.spawn(client.submit_job, task, b"data")
    await kit.wait_for(gate.begun)
    assert await admin.send_shutdown() == "OK"
    waiting = await kit.spawn(server.wait)
    assert not waiting.done
    gate.open.set()
    assert (await call.result()).result == b"data"
    await waiting.result()


@pytest.mark.parametrize("graceful", [False, True])
async def test_gearmand_has_no_shutdown(kit: Kit, gearmand: Gearmand, graceful: bool) -> None:
    admin = await kit.admin_client(gearmand.address)
    with pytest.raises(ServerError, match=r"gearmand 1.1 has no such command.*SIGTERM") as caught:
        await admin.send_shutdown(graceful)
    assert caught.value.code == "UNKNOWN_COMMAND"
    assert (await admin.get_version()).startswith("OK ")


# Servers that fail.


async def test_server_that_is_down(kit: Kit) -> None:
    port = free_port()
    admin = await kit.admin_client(("127.0.0.1", port))
    for ask in (admin.get_status, admin.ping_server):
        with pytest.raises(
            ServerUnavailable,
            match=rf"^no server could be reached: 127\.0\.0\.1:{port} \(.*refused",
        ):
            await ask()


async def test_server_that_does_not_take_the_connection(kit: Kit) -> None:
    with black_hole() as address:
        admin = await kit.admin_client(address, connect_timeout=0.05)
        with pytest.raises(ServerUnavailable, match=r"within 0\.05 seconds"):
            await admin.get_version()
        hurried = await kit.admin_client(address, poll_timeout=0.05)
        with pytest.raises(ServerUnavailable, match="no connection in time"):
            await hurried.get_version()


@pytest.mark.parametrize("asked_while_down", [False, True])
async def test_server_that_is_killed_between_calls(
    kit: Kit, launch: Launch, asked_while_down: bool
) -> None:
    server = await launch()
    admin = await kit.admin_client(server.address)
    (connection,) = admin.connection_list
    await admin.get_version()
    await server.kill()
    if asked_while_down:
        for _ in range(2):
            with pytest.raises(ServerUnavailable):
                await admin.get_version()
        assert not connection.connected
    await server.start()
    assert (await admin.get_version()).startswith("OK ")
    assert connection.connected


@pytest.mark.parametrize("name", ["get_version", "get_status", "ping_server", "send_shutdown"])
async def test_server_that_does_not_answer(kit: Kit, start_server: StartServer, name: str) -> None:
    """Raise the same exception as python-gearman."""

    def script(peer: Peer) -> None:
        peer.expect(TextLine)
        peer.send(TextLine(b"OK 0", b"\n"))
        peer.hold()

    server = start_server(first(script))
    admin = await kit.admin_client(server.address)
    # The connection is open, so the timeout covers only the reply.
    assert await admin.get_version() == "OK 0"
    admin.poll_timeout = 0.05
    with pytest.raises(InvalidAdminClientState, match=r"did not answer .* in time"):
        await getattr(admin, name)()
    admin.poll_timeout = PATIENCE
    assert await admin.get_version() == "OK 1"
    assert len(server.peers) == 2


async def test_late_reply_is_discarded(kit: Kit, start_server: StartServer) -> None:
    """Discard a late reply instead of using it for the next command."""

    asked_again, answered = threading.Event(), threading.Event()

    def late(peer: Peer) -> None:
        try:
            peer.expect(TextLine)
            peer.send(TextLine(b"OK 0", b"\n"))
            peer.expect(TextLine)
            wait_for(asked_again)
            peer.send_raw(b"OK late\n")
        finally:
            answered.set()

    def script(peer: Peer) -> None:
        peer.expect(TextLine)
        asked_again.set()
        wait_for(answered)
        peer.send(TextLine(b"OK 1", b"\n"))
        peer.hold()

    scripts = [script, late]
    server = start_server(lambda peer: scripts.pop()(peer))  # noqa: PLW0108 - one per connection
    admin = await kit.admin_client(server.address)
    assert await admin.get_version() == "OK 0"
    admin.poll_timeout = 0.05
    with pytest.raises(InvalidAdminClientState):
        await admin.get_version()
    admin.poll_timeout = None
    assert await admin.get_version() == "OK 1"


async def test_time_that_is_no_time(kit: Kit, server: Server) -> None:
    for timeout in ("5", True):
        with pytest.raises(TypeError, match="poll_timeout is a number"):
            await kit.admin_client(server.address, poll_timeout=timeout)
    with pytest.raises(ValueError, match="poll_timeout is not a number"):
        await kit.admin_client(server.address, poll_timeout=float("nan"))


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e12])
async def test_all_the_time_there_is(kit: Kit, server: Server, timeout: float | None) -> None:
    admin = await kit.admin_client(server.address, poll_timeout=timeout)
    assert admin.poll_timeout == timeout
    assert (await admin.get_version()).startswith("OK ")


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0garbage that no peer sends",
        b"f\t1\t2\n.\n",
        b"\0RES\0\0\0\x08\0\0\0\x03H:1",
    ],
)
async def test_server_that_sends_garbage(
    kit: Kit, start_server: StartServer, garbage: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.expect(TextLine)
        peer.send_raw(garbage + b".\n")
        peer.hold()

    server = start_server(first(script))
    admin = await kit.admin_client(server.address)
    with pytest.raises(RemoteProtocolError):
        await admin.get_status()
    assert await admin.get_version() == "OK 1"


async def test_oversized_reply(kit: Kit, start_server: StartServer) -> None:
    def script(peer: Peer) -> None:
        peer.expect(TextLine)
        while True:
            peer.send_raw(b"f\t1\t2\t3\n" * 100)

    server = start_server(first(script))
    admin = await kit.admin_client(server.address, max_reply_size=100_000)
    with pytest.raises(RemoteProtocolError, match="too long"):
        await admin.get_status()
    assert await admin.get_version() == "OK 1"


@pytest.mark.parametrize("received", [b"", b"f\t1\t2\t3\n", b"f\t1"])
async def test_server_that_closes_in_the_middle(
    kit: Kit, start_server: StartServer, received: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.expect(TextLine)
        peer.send_raw(received)

    server = start_server(first(script))
    admin = await kit.admin_client(server.address)
    with pytest.raises(ServerUnavailable, match="did not answer: "):
        await admin.get_status()
    assert await admin.get_version() == "OK 1"


async def test_server_that_closes_after_each_answer(kit: Kit, start_server: StartServer) -> None:
    closed: list[threading.Event] = []

    def script(peer: Peer) -> None:
        peer.expect(TextLine)
        peer.send(TextLine(b"OK 1", b"\n"))
        peer.sock.shutdown(socket.SHUT_WR)
        closed[-1].set()
        peer.hold()

    server = start_server(script)
    admin = await kit.admin_client(server.address)
    for number in range(1, 4):
        closed.append(threading.Event())
        assert await admin.get_version() == "OK 1"
        await kit.wait_for(closed[-1])
        assert len(server.peers) == number


# Constructor and shutdown.


@pytest.mark.parametrize("count", [0, 2, 3])
async def test_several_servers_are_refused(kit: Kit, count: int) -> None:
    with pytest.raises(ValueError, match=f"an admin client has one server, not {count}"):
        await kit.admin_client(*[f"host-{number}" for number in range(count)])


async def test_default_server_is_the_local_host(kit: Kit) -> None:
    admin = kit.gearman.GearmanAdminClient()
    assert repr(admin) == "<GearmanAdminClient localhost:4730>"
    assert admin.poll_timeout == 10.0
    mine = type("Mine", (kit.gearman.GearmanAdminClient,), {})(["host"], 5.0)
    assert (repr(mine), mine.poll_timeout) == ("<Mine host:4730>", 5.0)


@pytest.mark.parametrize("timeout", [0, -1])
async def test_connect_timeout_that_cannot_be(kit: Kit, timeout: float) -> None:
    with pytest.raises(ValueError, match="connect_timeout"):
        await kit.admin_client("any", connect_timeout=timeout)


async def test_shutdown(kit: Kit, server: Server) -> None:
    admin = await kit.admin_client(server.address)
    await admin.get_version()
    await admin.shutdown()
    (connection,) = admin.connection_list
    assert not connection.connected
    for ask in (admin.get_version, admin.get_status, admin.ping_server, admin.send_shutdown):
        with pytest.raises(InvalidAdminClientState, match="has been shut down"):
            await ask()
    await admin.shutdown()


async def test_shutdown_before_the_first_command(kit: Kit, server: Server) -> None:
    admin = await kit.admin_client(server.address)
    await admin.shutdown()
    with pytest.raises(InvalidAdminClientState):
        await admin.get_version()


async def test_shutdown_while_other_calls_wait(kit: Kit, start_server: StartServer) -> None:
    server = start_server(Peer.hold)
    admin = await kit.admin_client(server.address)
    calls = [await kit.spawn(admin.get_version) for _ in range(3)]
    await kit.eventually(lambda: server.events, "the first question")
    await admin.shutdown()
    for call in calls:
        with pytest.raises(InvalidAdminClientState, match="has been shut down"):
            await call.result()


async def test_jobserver_on_ipv6(kit: Kit) -> None:
    server = kit.job_server(host="::1")
    await kit.begin(server)
    port = server.address.port
    for spec in (("::1", port), f"[::1]:{port}", {"host": "::1", "port": port}):
        admin = await kit.admin_client(spec)
        assert await admin.get_pid() == os.getpid()
        workers = await admin.get_workers()
        assert {record.ip for record in workers} == {"::1"}
        await admin.shutdown()


async def test_gearmand_on_ipv6(kit: Kit, start_gearmand: Callable[..., Gearmand]) -> None:
    server = await kit.blocking(lambda: start_gearmand(host="::1"))
    admin = await kit.admin_client(("::1", server.port))
    worker = await kit.make_worker(("::1", server.port), tasks={"f": echo})
    worker.set_client_id("worker 6")
    await kit.work(worker)

    async def is_there() -> bool:
        return "f" in {record.task for record in await admin.get_status()}

    await kit.eventually(is_there)
    workers = await admin.get_workers()
    (mine,) = (record for record in workers if record.tasks)
    assert (mine.client_id, mine.tasks) == ("worker 6", ("f",))
    # gearmand prints only part of an IPv6 address, so this text is not a valid one.
    assert all(record.ip.startswith("::") and "%" in record.ip for record in workers)
