"""The adapter's own job server: start, shutdown, misbehaving peers, and limits."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import Connection, Role
from gearman_proto.errors import ServerUnavailable
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    CanDo,
    EchoReq,
    GetStatus,
    GrabJobAll,
    GrabJobUniq,
    PreSleep,
    SubmitJob,
    SubmitJobBg,
)
from gearman_sync.testing import ScriptedClient
from tests.support import PATIENCE

from .kit import Connect, Kit, Server, reverse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gearman_proto.wire.packets import Event


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


def memory(server: Any) -> int:
    """Return the number of bytes that the server counts as used."""
    count: int = server._gm_driver.engine.queue.memory
    return count


def header(size: int, packet: int = SubmitJobBg.packet.number) -> bytes:
    """Return the header of a packet of `size` bytes."""
    return MAGIC_REQUEST + struct.pack(">II", packet, size)


@contextlib.asynccontextmanager
async def healthy(kit: Kit, server: Any, task: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Check that the server works, and at the end that it has released other connections."""

    async def check() -> None:
        request = await client.submit_job(task, b"data", poll_timeout=PATIENCE)
        assert request.result == b"atad"

    async def others_are_gone() -> bool:
        return await links(kit, server) == 2

    client = await kit.client_and_worker(server.address, tasks={task: reverse})
    await check()
    # Data that another thread is processing also counts, so take the lowest of several samples.
    looks = []
    for _ in range(10):
        looks.append(memory(server))
        await kit.sleep(0.001)
    yield check
    await check()
    # Only the worker and the client are still connected.
    await kit.eventually(others_are_gone, "the end of all connections")
    await kit.eventually(lambda: memory(server) <= min(looks), "the release of all memory")


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


GARBAGE = {
    "too large": header(2**32 - 1),
    "endless line": b"x" * 10_000,
    "HTTP": b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "zeros": bytes(100_000),
    "random": b"\0" + random.Random(2).randbytes(100_000),
}


async def test_garbage(kit: Kit, task: str, connect: Connect) -> None:
    server = await kit.start_job_server()
    async with healthy(kit, server, task) as check:
        for name, garbage in GARBAGE.items():
            peer = connect(server)
            with contextlib.suppress(ConnectionError):
                await kit.blocking(peer.sock.sendall, garbage)
                # The server reads HTTP as unknown commands and disconnects all other peers.
                if name == "HTTP":
                    peer.sock.shutdown(socket.SHUT_WR)
            rest = await kit.blocking(peer.rest)
            assert (b"UNKNOWN_COMMAND" in rest) == (name == "HTTP"), name
            await check()


async def test_reset_after_any_number_of_bytes(kit: Kit, task: str) -> None:
    """Survive a connection reset after each number of bytes of the peer's input."""
    server = await kit.start_job_server()
    name = task.encode()
    connection = Connection(Role.CLIENT | Role.WORKER)
    events: list[Event] = [
        CanDo(name),
        PreSleep(),
        SubmitJob(name, b"unique", b"data"),
        SubmitJob(name, b"", b"data"),
        GrabJobAll(),
        GrabJobUniq(),
        EchoReq(bytes(100)),
        GetStatus(b"H:1"),
    ]
    script = b"".join([connection.send(event) for event in events]) + b"workers\nstatus\n"
    # The server remembers names. Register them before the memory check begins.
    assert await at(kit, server).admin(f"create function {task}") == "OK\r\n"
    async with healthy(kit, server, f"{task}-healthy") as check:
        for size in range(0, len(script) + 1, 2):
            peer = ScriptedClient(tuple(server.address))
            await kit.blocking(peer.sock.sendall, script[:size])
            if size % 4:
                # By now, the server has most likely read the data.
                await check()
            peer.reset()
        await check()
        await at(kit, server).wait_for_counts(task, 0, 0, 0)


# Slow readers.


@pytest.mark.slow
async def test_slow_reader_delays_no_others_and_gets_all_its_data(
    kit: Kit, task: str, connect: Connect
) -> None:
    """Serve others meanwhile, and flush the data before the end of the server."""
    server = await kit.start_job_server()
    client = await kit.client_and_worker(server.address, tasks={task: reverse})
    slow = connect(server, receive_buffer=4096)
    await kit.blocking(slow.send, EchoReq(bytes(20 * MB)))
    assert await kit.blocking(slow.sock.recv, 1) == b"\0"
    for _ in range(10):
        assert (await client.submit_job(task, b"data", poll_timeout=PATIENCE)).result == b"atad"
    assert await at(kit, server).admin("shutdown") == "OK\r\n"
    waiting = await kit.spawn(server.wait)
    assert not waiting.done
    assert len(await kit.blocking(slow.rest)) == 20 * MB + 11
    await waiting.result()


async def test_end_of_stream_after_a_command(kit: Kit, connect: Connect) -> None:
    """Reply after the end of the stream, as ``echo version | nc`` needs."""
    server = await kit.start_job_server()
    for _ in range(5):
        link = connect(server)
        link.sock.sendall(b"version\n")
        link.sock.shutdown(socket.SHUT_WR)
        assert (await kit.blocking(link.rest)).startswith(b"OK gearman-sansio-")


@pytest.mark.slow
async def test_end_of_stream_of_a_slow_reader(kit: Kit, task: str, connect: Connect) -> None:
    """Reply to a slow ``echo status | nc`` with more than the socket buffers hold."""
    server = await kit.start_job_server()
    names = [b"%0800d" % number for number in range(10_000)]
    worker, slow = connect(server), connect(server, receive_buffer=4096)
    await kit.blocking(worker.send, *map(CanDo, names))
    await at(kit, server).wait_for_counts(names[-1].decode(), 0, 0, 1)
    slow.send(CanDo(task.encode()))
    await at(kit, server).wait_for_counts(task, 0, 0, 1)
    slow.sock.sendall(b"status\n")
    slow.sock.shutdown(socket.SHUT_WR)
    # Once the server has seen the end of the stream, it no longer counts this peer as a worker.
    await at(kit, server).wait_for_counts(task, 0, 0, 0)
    *lines, end = (await kit.blocking(slow.rest)).splitlines()
    assert [line.split(b"\t")[0] for line in lines] == [*names, task.encode()]
    assert end == b"."
