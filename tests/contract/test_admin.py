"""The admin client: queries, changes, and servers that fail."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import (
    InvalidAdminClientState,
    RemoteProtocolError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.wire.packets import TextLine
from gearman_proto.wire.text import FunctionStatus, JobRecord, PriorityStatus
from gearman_sync.testing import Peer
from tests.support import PATIENCE, Gearmand, black_hole, free_port

from .kit import Kit, Launch, Server, StartServer, echo

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.both_servers


def failing_once(reply: bytes | None) -> Callable[[Peer], object]:
    """Return a server script that replies to all commands with a version, and fails once.

    The second command of the first connection gets `reply` and the end of the stream, or nothing.
    """
    replies = [reply]

    def script(peer: Peer) -> None:
        peer.expect(TextLine)
        peer.send(TextLine(b"OK 1", b"\n"))
        peer.expect(TextLine)
        data = replies.pop()
        if data is None:
            peer.hold()
        else:
            peer.send_raw(data)

    return script


# Queries.


async def test_queries_of_a_busy_server(kit: Kit, launch: Launch) -> None:
    server = await launch()
    admin = await kit.admin_client(server.address)
    assert await admin.get_status() == await admin.get_jobs() == ()
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
    assert {record.task: record for record in status} == {
        "held": FunctionStatus("held", queued=2, running=1, workers=1),
        "free": {"task": "free", "queued": 0, "running": 0, "workers": 1},
        "idle": FunctionStatus("idle", queued=1, running=0, workers=0),
    }
    priorities = await admin.get_priority_status()
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
    (mine,) = (record for record in workers if record.client_id == "worker-1")
    assert (mine.ip, sorted(mine["tasks"])) == ("127.0.0.1", ["free", "held"])
    # The server also counts the connections of the client and of this admin client.
    others = [record for record in workers if record is not mine]
    assert [(record.ip, record.client_id, record.tasks) for record in others] == [
        ("127.0.0.1", "-", ())
    ] * 2
    assert len({record.file_descriptor for record in workers}) == 3


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


# Changes.


async def test_functions_are_created_and_dropped(kit: Kit, server: Server, task: str) -> None:
    admin = await kit.admin_client(server.address)
    name = f"{task}-naïve"
    assert await admin.create_function(name) == "OK"
    assert name in {record.task for record in await admin.get_status()}
    assert await admin.drop_function(name.encode()) == "OK"
    assert name not in {record.task for record in await admin.get_status()}
    with pytest.raises(ServerError) as caught:
        await admin.drop_function(task)
    assert (caught.value.code, caught.value.text) == ("ERR", "function not found")
    await kit.start_worker(server.address, tasks={task: echo})
    await server.wait_for_counts(task, 0, 0, 1)
    with pytest.raises(ServerError, match="still connected workers"):
        await admin.drop_function(task)
    assert (await admin.get_version()).startswith("OK ")


@pytest.mark.parametrize(("limit", "priority"), [(1, None), ((1, None, 0), "HIGH")])
async def test_maxqueue(
    kit: Kit, server: Server, task: str, limit: Any, priority: str | None
) -> None:
    admin, client = await kit.admin_client(server.address), await kit.client(server.address)
    assert await admin.create_function(task) == "OK"
    errors = []
    for maximum in (limit, None):
        assert await admin.send_maxqueue(task, maximum) == "OK"
        for _ in range(2):
            request = await client.submit_job(task, b"", background=True, priority=priority)
            errors.append(request.error and request.error.code)
    assert errors == [None, "QUEUE_ERROR", None, None]


# Shutdown of a server.


@pytest.mark.parametrize("options", [{"graceful": False}, {}])
async def test_shutdown_of_a_server(kit: Kit, options: dict[str, bool]) -> None:
    server = await kit.start_job_server()
    admin = await kit.admin_client(server.address)
    assert await admin.send_shutdown(**options) == "OK"
    await server.wait()
    for _ in range(2):
        with pytest.raises(ServerUnavailable):
            await admin.get_version()


@pytest.mark.parametrize("graceful", [False, True])
async def test_gearmand_has_no_shutdown(kit: Kit, gearmand: Gearmand, graceful: bool) -> None:
    admin = await kit.admin_client(gearmand.address)
    with pytest.raises(ServerError, match=r"gearmand has no such command.*SIGTERM") as caught:
        await admin.send_shutdown(graceful)
    assert caught.value.code == "UNKNOWN_COMMAND"
    assert (await admin.get_version()).startswith("OK ")


# Servers that fail.


async def test_server_that_is_down(kit: Kit) -> None:
    port = free_port()
    admin = await kit.admin_client(("127.0.0.1", port))
    for ask in (admin.get_status, admin.ping_server):
        with pytest.raises(ServerUnavailable, match=rf"127\.0\.0\.1:{port} \(.*refused"):
            await ask()
    with black_hole() as address:
        admin = await kit.admin_client(address, poll_timeout=0.05)
        with pytest.raises(ServerUnavailable, match="no connection in time"):
            await admin.get_version()


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (None, InvalidAdminClientState, "did not answer .* in time"),
        (b"", ServerUnavailable, "did not answer: "),
        (b"f\t1", ServerUnavailable, "did not answer: "),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n.\n", RemoteProtocolError, "HTTP"),
        (b"f\t1\t2\t3\n" * 20_000, RemoteProtocolError, "too long"),
    ],
    ids=["silence", "end of stream", "half a line", "garbage", "a long reply"],
)
async def test_call_without_a_valid_reply_raises_and_the_next_reconnects(
    kit: Kit,
    start_server: StartServer,
    reply: bytes | None,
    error: type[Exception],
    message: str,
) -> None:
    server = start_server(failing_once(reply))
    admin = await kit.admin_client(server.address, max_reply_size=100_000)
    assert await admin.get_version() == "OK 1"
    # The connection is open, so the timeout covers only the reply.
    admin.poll_timeout = PATIENCE if reply is not None else 0.05
    with pytest.raises(error, match=message):
        await admin.get_status()
    admin.poll_timeout = PATIENCE
    assert await admin.get_version() == "OK 1"
    assert len(server.peers) == 2


# Shutdown of the client.


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


async def test_shutdown_while_other_calls_wait(kit: Kit, start_server: StartServer) -> None:
    server = start_server(Peer.hold)
    admin = await kit.admin_client(server.address)
    calls = [await kit.spawn(admin.get_version) for _ in range(3)]
    await kit.eventually(lambda: server.events, "the first question")
    await admin.shutdown()
    for call in calls:
        with pytest.raises(InvalidAdminClientState, match="has been shut down"):
            await call.result()
