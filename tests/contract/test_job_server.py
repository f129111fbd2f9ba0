"""The adapter's own job server: start, shutdown, misbehaving peers, and limits."""

from __future__ import annotations

import collections
import contextlib
import itertools
import socket
import struct
from typing import Any

import pytest

from gearman_proto import Connection, Role
from gearman_proto.errors import ServerUnavailable
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    EchoReq,
    SubmitJob,
    SubmitJobBg,
)
from gearman_sync.testing import ScriptedClient
from tests.support import PATIENCE
from tests.sync.support import limited

from .kit import Connect, Kit, Server, reverse

MB = 1_000_000


def refuses(server: Any) -> bool:
    """Return True if the server no longer listens."""
    with contextlib.suppress(ConnectionRefusedError):
        ScriptedClient(tuple(server.address)).close()
        return False
    return True


def at(kit: Kit, server: Any) -> Server:
    """Return the server as a `Server`, for admin commands."""
    return Server(kit, tuple(server.address))


async def links(kit: Kit, server: Any) -> int:
    """Return the number of other connections."""
    return len(await at(kit, server).client_ids()) - 1


# Start.


async def test_address_of_a_started_server(kit: Kit) -> None:
    server = kit.job_server()
    assert repr(server) == "<JobServer not started>"
    with pytest.raises(RuntimeError, match="not started"):
        server.address  # noqa: B018 - reading it is what raises
    await kit.begin(server)
    host, port = server.address
    assert (host, str(server.address)) == ("127.0.0.1", f"127.0.0.1:{port}")
    assert type(server.address) is kit.gearman.HostAndPort
    assert repr(server) == f"<JobServer 127.0.0.1:{port}>"
    client = await kit.client(server.address)
    assert (await client.submit_job("task", b"", background=True)).state == "CREATED"


async def test_server_started_twice_raises(kit: Kit) -> None:
    server = await kit.start_job_server()
    with pytest.raises(RuntimeError, match="this server was started before"):
        await kit.begin(server)
    # The server is still running.
    assert (await at(kit, server).admin("version")).startswith("OK gearman-sansio-")
    await server.stop()
    await server.wait()
    with pytest.raises(RuntimeError, match="this server was started before"):
        await kit.begin(server)


async def test_server_on_a_port_in_use_raises(kit: Kit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = kit.job_server(port=port)
        with pytest.raises(OSError, match="in use"):
            await kit.begin(server)
        assert repr(server) == "<JobServer not started>"
    await kit.begin(server)
    assert server.address == ("127.0.0.1", port)


async def test_server_with_a_host_name_listens_on_its_address(kit: Kit) -> None:
    server = await kit.start_job_server(host="localhost")
    assert server.address.host in ("127.0.0.1", "::1")
    client = await kit.client(("localhost", server.address.port))
    assert (await client.submit_job("task", b"", background=True)).state == "CREATED"


# Shutdown.


@pytest.mark.parametrize("way", ["stop", "command"])
async def test_shutdown_ends_waiting_calls(kit: Kit, task: str, way: str) -> None:
    server = await kit.start_job_server()
    gate = kit.gate()
    client = await kit.client_and_worker(server.address, tasks={task: gate}, max_outage=None)
    requests = await client.submit_multiple_jobs([{"task": task, "data": b""}] * 5, False, False)
    await kit.wait_for(gate.begun)
    call = await kit.spawn(client.wait_until_jobs_completed, requests)
    waiting = await kit.spawn(server.wait)
    if way == "stop":
        await server.stop()
        await server.stop()
    else:
        # The worker still runs its job, but shutdown does not wait for it.
        assert await at(kit, server).admin("shutdown") == "OK\r\n"
    await call.result()
    await waiting.result()
    await server.wait()
    assert [(r.state, r.timed_out) for r in requests] == [("UNKNOWN", False)] * 5
    with pytest.raises(ServerUnavailable, match="refused"):
        await client.submit_job(task, b"")


async def test_graceful_shutdown(kit: Kit, task: str, connect: Connect) -> None:
    server = await kit.start_job_server()
    gate = kit.gate()
    client = await kit.client_and_worker(server.address, tasks={task: gate}, max_outage=None)
    idle = connect(server)
    running = await client.submit_job(task, b"running", wait_until_complete=False)
    await client.submit_job(task, b"queued", background=True)
    await kit.wait_for(gate.begun)
    assert await at(kit, server).admin("shutdown graceful") == "OK\r\n"

    async def no_more() -> bool:
        return await kit.blocking(refuses, server)

    await kit.eventually(no_more, "the end of listening")
    await kit.blocking(idle.echo)
    # Existing connections can still submit jobs.
    late = await client.submit_job(task, b"late", background=True)
    assert late.state == "CREATED"
    waiting = await kit.spawn(server.wait)
    assert not waiting.done
    gate.open.set()
    await client.wait_until_jobs_completed([running])
    assert running.result == b"running"
    await waiting.result()
    assert set(gate.order) == {b"running", b"queued", b"late"}
    assert await kit.blocking(idle.rest) == b""


async def test_stop_while_peers_flood_the_server(kit: Kit, connect: Connect) -> None:
    request = Connection(Role.CLIENT).send(EchoReq(bytes(1000))) * 100
    floods = [0]

    def flood(link: ScriptedClient) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                link.sock.sendall(request)
                floods[0] += 1

    async def in_thread(link: ScriptedClient) -> None:
        await kit.blocking(flood, link)

    server = await kit.start_job_server()
    calls = [await kit.spawn(in_thread, connect(server)) for _ in range(3)]
    await kit.eventually(lambda: floods[0] > 20)
    await server.stop()
    for call in calls:
        await call.result()


# Misbehaving peers.

#: Data from peers that then reset the connection or are disconnected.
WORDS = {
    "too large": MAGIC_REQUEST + struct.pack(">II", SubmitJobBg.packet.number, 2**31),
    "endless line": b"x" * 10_000,
    "zeros": bytes(100_000),
    "half a job": Connection(Role.CLIENT).send(SubmitJob(b"task", b"unique", b"data"))[:-1],
    "job": Connection(Role.CLIENT).send(SubmitJob(b"task", b"unique", b"data")),
}


async def test_garbage_and_resets_affect_no_other_peer(
    kit: Kit, task: str, connect: Connect
) -> None:
    server = await kit.start_job_server()
    client = await kit.client_and_worker(server.address, tasks={task: reverse})
    for name, words in WORDS.items():
        peer = connect(server)
        with contextlib.suppress(ConnectionError):
            await kit.blocking(peer.sock.sendall, words)
        if "job" in name:
            peer.reset()
        else:
            assert await kit.blocking(peer.rest) == b"", name
        assert (await client.submit_job(task, b"data", poll_timeout=PATIENCE)).result == b"atad"

    async def others_are_gone() -> bool:
        return await links(kit, server) == 2

    await kit.eventually(others_are_gone, "the end of the other connections")
    await at(kit, server).wait_for_counts("task", 0, 0, 0)


# Descriptors.


async def test_server_out_of_descriptors_accepts_again_later(
    kit: Kit, connect: Connect, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits before it tries again. Old connections are not affected."""
    for module in ("gearman_anyio._driver", "gearman_sync._poller"):
        monkeypatch.setattr(f"{module}.LISTEN_AGAIN", 0.2)
    server = await kit.start_job_server()
    old = connect(server)
    await kit.blocking(old.echo)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.socket()) for _ in range(20)]
        with limited():
            for sock in waiting:
                sock.connect(tuple(server.address))
            await kit.eventually(lambda: caplog.text.count("can be accepted: [Errno 24]") >= 2)
            await kit.blocking(old.echo)
        await kit.eventually(lambda: len(server._gm_driver.engine.links) == 21)
    times = [each.created for each in caplog.records if "can be" in each.getMessage()]
    assert all(after - before > 0.1 for before, after in itertools.pairwise(times))


# Slow readers.


@pytest.mark.slow
async def test_slow_reader_delays_no_others_and_gets_all_its_data(
    kit: Kit, task: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flush the data after the end of the peer's stream, and before the end of the server."""
    server = await kit.start_job_server()
    engine, ends = server._gm_driver.engine, collections.Counter[Any]()
    receive_eof = engine.receive_eof

    def counted(link: Any, now: float) -> None:
        ends[link] += 1
        receive_eof(link, now)

    monkeypatch.setattr(engine, "receive_eof", counted)
    client = await kit.client_and_worker(server.address, tasks={task: reverse})
    slow = connect(server, receive_buffer=4096)
    await kit.blocking(slow.send, EchoReq(bytes(20 * MB)))
    slow.sock.shutdown(socket.SHUT_WR)
    assert await kit.blocking(slow.sock.recv, 1) == b"\0"
    for _ in range(10):
        assert (await client.submit_job(task, b"data", poll_timeout=PATIENCE)).result == b"atad"
    assert await at(kit, server).admin("shutdown") == "OK\r\n"
    waiting = await kit.spawn(server.wait)
    assert not waiting.done
    assert len(await kit.blocking(slow.rest)) == 20 * MB + 11
    await waiting.result()
    # The server does not read the end again and again while it flushes.
    assert set(ends.values()) == {1}


async def test_end_of_stream_after_a_command(kit: Kit, connect: Connect) -> None:
    """Reply after the end of the stream, as ``echo version | nc`` needs."""
    server = await kit.start_job_server()
    for _ in range(5):
        link = connect(server)
        link.sock.sendall(b"version\n")
        link.sock.shutdown(socket.SHUT_WR)
        assert (await kit.blocking(link.rest)).startswith(b"OK gearman-sansio-")
