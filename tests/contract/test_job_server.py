"""The adapter's own job server: shutdown, misbehaving peers, and limits."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import Connection, Role
from gearman_proto.errors import GearmanError, ServerError, ServerUnavailable
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    CanDo,
    EchoReq,
    EchoRes,
    GetStatus,
    GrabJobAll,
    GrabJobUniq,
    JobAssignUniq,
    JobCreated,
    PreSleep,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
)
from gearman_sync.testing import ScriptedClient
from tests.support import PATIENCE, Program, require

from .kit import Kit, Server, echo, reverse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from gearman_proto import WorkerJob
    from gearman_proto.wire.packets import Event

    Connect = Callable[..., ScriptedClient]

MB = 1_000_000


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A function that connects to a server. The fixture closes the connections."""
    with contextlib.ExitStack() as stack:

        def connect(server: Any, **options: Any) -> ScriptedClient:
            link = ScriptedClient(tuple(server.address), **options)
            stack.callback(link.close)
            return link

        yield connect


async def started(kit: Kit, **options: Any) -> Any:
    """Run a JobServer until the scenario ends."""
    server = kit.job_server(**options)
    await kit.begin(server)
    return server


async def refuses(kit: Kit, server: Any) -> bool:
    """Return True if the server no longer listens."""

    def is_refused() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            ScriptedClient(tuple(server.address)).close()
            return False
        return True

    return await kit.blocking(is_refused)


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

    client = await kit.client(server.address)
    await kit.start_worker(server.address, tasks={task: reverse})
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


# Shutdown.


async def test_server_with_a_host_name_listens_on_its_address(kit: Kit) -> None:
    server = await started(kit, host="localhost")
    assert server.address.host in ("127.0.0.1", "::1")
    client = await kit.client(("localhost", server.address.port))
    assert (await client.submit_job("task", b"", background=True)).state == "CREATED"


@pytest.mark.parametrize("way", ["stop", "command"])
async def test_shutdown_ends_waiting_calls(kit: Kit, task: str, way: str) -> None:
    server = await started(kit)
    gate = kit.gate()
    await kit.start_worker(server.address, tasks={task: gate}, max_outage=None)
    client = await kit.client(server.address)
    calls = [await kit.spawn(client.submit_job, task, b"%d" % number) for number in range(5)]
    await kit.wait_for(gate.begun)
    await at(kit, server).wait_for_counts(task, 5, 1, 1)
    if way == "stop":
        await server.stop()
    else:
        assert await at(kit, server).admin("shutdown") == "OK\r\n"
        # The worker still runs its job, but shutdown does not wait for it.
        await (await kit.spawn(server.wait)).result()
    assert await refuses(kit, server)
    requests = [await call.result() for call in calls]
    assert [(r.state, r.timed_out) for r in requests] == [("UNKNOWN", False)] * 5
    with pytest.raises(ServerUnavailable):
        await client.submit_job(task, b"")


async def test_graceful_shutdown(kit: Kit, task: str, connect: Connect) -> None:
    server = await started(kit)
    gate = kit.gate()
    await kit.start_worker(server.address, tasks={task: gate}, max_outage=None)
    client = await kit.client(server.address)
    idle = await kit.blocking(connect, server)
    calls = [await kit.spawn(client.submit_job, task, b"%d" % number) for number in range(3)]
    await client.submit_job(task, b"background", background=True)
    await kit.wait_for(gate.begun)
    await at(kit, server).wait_for_counts(task, 4, 1, 1)
    assert await at(kit, server).admin("shutdown graceful") == "OK\r\n"

    async def no_more() -> bool:
        return await refuses(kit, server)

    await kit.eventually(no_more, "the end of listening")
    other = await kit.client(server.address)
    with pytest.raises(ServerUnavailable):
        await other.submit_job(task, b"", background=True)
    await kit.blocking(idle.echo)
    # Existing connections can still submit jobs.
    late = await client.submit_job(task, b"late", background=True)
    assert late.state == "CREATED"
    waiting = await kit.spawn(server.wait)
    assert not waiting.done
    gate.open.set()
    assert {(await call.result()).result for call in calls} == {b"0", b"1", b"2"}
    await waiting.result()
    assert set(gate.order) == {b"0", b"1", b"2", b"background", b"late"}
    assert await kit.blocking(idle.rest) == b""


@pytest.mark.slow
@pytest.mark.parametrize("reads", [True, False])
async def test_shutdown_flushes_unread_data(
    kit: Kit, connect: Connect, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flush unread data to peers that read it. Disconnect the others after a short wait."""
    if not reads:
        monkeypatch.setattr("gearman_proto.engines.server.engine._LAST_WORDS", 0.1)
    server = await started(kit)
    link = await kit.blocking(lambda: connect(server, receive_buffer=4096))
    await kit.blocking(link.send, EchoReq(bytes(20 * MB)))
    assert await kit.blocking(link.sock.recv, 1) == b"\0"
    assert await at(kit, server).admin("shutdown") == "OK\r\n"
    waiting = await kit.spawn(server.wait)
    if reads:
        assert not waiting.done
        assert len(await kit.blocking(link.rest)) == 20 * MB + 11
    await waiting.result()
    if not reads:
        assert len(await kit.blocking(link.rest)) < 20 * MB


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

    server = await started(kit)
    calls = [await kit.spawn(in_thread, await kit.blocking(connect, server)) for _ in range(3)]
    await kit.eventually(lambda: floods[0] > 20)
    await server.stop()
    for call in calls:
        await call.result()


# Misbehaving peers.


async def test_job_of_a_lost_worker_is_reassigned(kit: Kit, task: str, connect: Connect) -> None:
    server = await started(kit)
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"data", wait_until_complete=False)
    lost = await kit.blocking(connect, server)
    await kit.blocking(lost.send, CanDo(task.encode()), GrabJobUniq())
    assert isinstance(await kit.blocking(lost.receive), JobAssignUniq)
    await at(kit, server).wait_for_counts(task, 1, 1, 1)
    lost.close()
    await kit.start_worker(server.address, tasks={task: reverse})
    await client.wait_until_jobs_completed([request])
    assert request.result == b"atad"


PARTS = {
    "no header": b"\0",
    "half a magic": MAGIC_REQUEST[:3],
    "half a header": header(100)[:7],
    "header": header(100),
    "half a body": header(100) + bytes(50),
    "half a line": b"stat",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(500),
}


async def test_truncated_packets_do_not_disturb_others(
    kit: Kit, task: str, connect: Connect
) -> None:
    server = await started(kit)
    async with healthy(kit, server, task) as check:
        peers = [await kit.blocking(connect, server) for _ in PARTS]
        for peer, part in zip(peers, PARTS.values()):
            await kit.blocking(peer.sock.sendall, part)
        await check()
        assert await links(kit, server) == len(PARTS) + 2
        # The server has not disconnected them, so it still accepts the rest.
        rest = MAGIC_REQUEST[1:] + struct.pack(">II", EchoReq.packet.number, 0)
        await kit.blocking(peers[0].sock.sendall, rest)
        answer = MAGIC_RESPONSE + struct.pack(">II", EchoRes.packet.number, 0)
        assert await kit.blocking(peers[0].sock.recv, 100) == answer
        for peer in peers:
            peer.close()


async def test_packets_received_byte_by_byte_are_parsed(kit: Kit, connect: Connect) -> None:
    server = await started(kit)
    link = await kit.blocking(connect, server)

    def talk() -> Event:
        for byte in link.connection.send(EchoReq(b"slowly")):
            link.sock.sendall(bytes([byte]))
        return link.receive()

    event = await kit.blocking(talk)
    assert isinstance(event, EchoRes)
    assert event.data == b"slowly"


GARBAGE = {
    "wrong magic": b"\0REX" + bytes(8),
    "unknown packet": header(0, 1000),
    "too large": header(2**32 - 1),
    "endless line": b"x" * 10_000,
    "too many words": b"a b c d e f g h\n",
    "HTTP": b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "zeros": bytes(100_000),
    "ones": b"\xff" * 100_000,
    "random": b"\0" + random.Random(2).randbytes(100_000),
}


async def test_garbage(kit: Kit, task: str, connect: Connect) -> None:
    server = await started(kit)
    async with healthy(kit, server, task) as check:
        for name, garbage in GARBAGE.items():
            peer = await kit.blocking(connect, server)
            with contextlib.suppress(ConnectionError):
                await kit.blocking(peer.sock.sendall, garbage)
                # The server reads HTTP as unknown commands and disconnects all other peers.
                if name == "HTTP":
                    peer.sock.shutdown(socket.SHUT_WR)
            rest = await kit.blocking(peer.rest)
            assert (b"UNKNOWN_COMMAND" in rest) == (name == "HTTP"), name
            await check()


async def test_oversized_packet_header_disconnects_the_peer(kit: Kit, connect: Connect) -> None:
    server = await started(kit, max_packet_size=10 * MB)
    before = memory(server)
    for size in (200 * MB, 10 * MB + 1):
        peer = await kit.blocking(connect, server)
        await kit.blocking(peer.sock.sendall, header(size))
        assert await kit.blocking(peer.rest) == b""
    assert await links(kit, server) == 0
    await kit.eventually(lambda: memory(server) == before)


async def test_packet_larger_than_free_memory_disconnects_the_peer(
    kit: Kit, connect: Connect
) -> None:
    """Disconnect a peer whose packet exceeds the free memory, although its size is allowed."""
    server = await started(kit, max_memory=4 * MB)
    client = await kit.client(server.address)
    small = await kit.blocking(connect, server)
    await kit.blocking(small.sock.sendall, header(200 * MB) + bytes(100_000))
    await kit.eventually(lambda: memory(server) >= 100_000)
    peer = await kit.blocking(connect, server)

    def push() -> int:
        """Send until the server disconnects. Return the number of bytes sent."""
        sent = 0
        with contextlib.suppress(ConnectionError):
            peer.sock.sendall(header(200 * MB))
            while sent < 100 * MB:
                sent += peer.sock.send(bytes(65536))
        return sent

    assert await kit.blocking(push) < 100 * MB
    request = await client.submit_job("task", bytes(MB // 2), background=True)
    assert request.state == "CREATED"
    # The server spared connections that used less memory.
    assert await links(kit, server) == 2
    assert MB // 2 < memory(server) < MB


@pytest.mark.slow
async def test_slow_reader_does_not_delay_others(kit: Kit, task: str, connect: Connect) -> None:
    server = await started(kit)
    payload = random.Random(3).randbytes(16 * MB)
    huge = f"{task}-huge"
    async with healthy(kit, server, task) as check:
        worker = await kit.start_worker(server.address, tasks={huge: lambda worker, job: payload})
        slow = await kit.blocking(lambda: connect(server, receive_buffer=4096))
        await kit.blocking(slow.send, SubmitJob(huge.encode(), b"", b""))
        assert isinstance(await kit.blocking(slow.receive), JobCreated)
        await at(kit, server).wait_for_counts(huge, 0, 0, 1)
        for _ in range(10):
            await check()
        event = await kit.blocking(slow.receive)
        assert isinstance(event, WorkComplete)
        assert event.data == payload
        slow.close()
        await worker.shutdown()
        # Only `drop function` makes the server forget the name.
        await at(kit, server).wait_for_counts(huge, 0, 0, 0)
        assert await at(kit, server).admin(f"drop function {huge}") == "OK\r\n"


async def test_silent_connections_do_not_delay_others(
    kit: Kit, task: str, connect: Connect
) -> None:
    server = await started(kit)
    async with healthy(kit, server, task) as check:
        peers = [await kit.blocking(connect, server) for _ in range(200)]
        await check()
        assert await links(kit, server) == 202
        await kit.blocking(peers[-1].echo)
        for peer in peers:
            peer.close()


@pytest.mark.slow
async def test_many_short_connections_leave_the_server_healthy(kit: Kit, task: str) -> None:
    """Survive connections that open and close, with and without a clean end."""
    server = await started(kit)
    address = tuple(server.address)

    def storm() -> None:
        for number in range(30):
            peer = ScriptedClient(address)
            if number % 3 == 1:
                peer.sock.sendall(b"status\n")
            elif number % 3 == 2:
                peer.echo()
            if number % 2:
                peer.reset()
            else:
                peer.close()

    async def in_thread() -> None:
        await kit.blocking(storm)

    async with healthy(kit, server, task) as check:
        calls = [await kit.spawn(in_thread) for _ in range(5)]
        while not all(call.done for call in calls):
            await check()
        for call in calls:
            await call.result()


async def test_reset_after_any_number_of_bytes(kit: Kit, task: str) -> None:
    """Survive a connection reset after each number of bytes of the peer's input."""
    server = await started(kit)
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
            peer = await kit.blocking(ScriptedClient, tuple(server.address))
            await kit.blocking(peer.sock.sendall, script[:size])
            if size % 4:
                # By now, the server has most likely read the data.
                await check()
            peer.reset()
        await check()
        await at(kit, server).wait_for_counts(task, 0, 0, 0)


async def test_end_of_stream_after_a_command(kit: Kit, connect: Connect) -> None:
    """Reply after the end of the stream, as ``echo version | nc`` needs."""
    server = await started(kit)
    for _ in range(5):
        link = await kit.blocking(connect, server)
        link.sock.sendall(b"version\n")
        link.sock.shutdown(socket.SHUT_WR)
        assert (await kit.blocking(link.rest)).startswith(b"OK gearman-sansio-")


# Limits.


async def test_full_memory_refuses_jobs(kit: Kit, task: str) -> None:
    server = await started(kit, max_memory=MB)
    client = await kit.client(server.address)
    requests = [
        await client.submit_job(task, b"%d" % number + bytes(100_000), background=True)
        for number in range(20)
    ]
    taken = [request for request in requests if request.state == "CREATED"]
    refused = [request for request in requests if request.state == "FAILED"]
    assert len(taken) + len(refused) == 20
    assert 5 <= len(taken) < 10
    assert requests[: len(taken)] == taken
    for request in refused:
        assert isinstance(request.error, ServerError)
        assert request.error.code == "QUEUE_ERROR"
    # A small job still fits.
    assert (await client.submit_job(task, b"small", background=True)).state == "CREATED"
    gate = kit.gate()
    gate.open.set()
    await kit.start_worker(server.address, tasks={task: gate})
    await at(kit, server).wait_for_counts(task, 0, 0, 1)
    assert len(gate.order) == len(taken) + 1
    for request in refused[:5]:
        request.reset()
    again = await client.submit_multiple_requests(refused[:5])
    assert [request.state for request in again] == ["CREATED"] * 5
    await at(kit, server).wait_for_counts(task, 0, 0, 1)
    await kit.eventually(lambda: memory(server) < 10_000)


@pytest.mark.parametrize("exceptions", [False, True])
async def test_exceptions_for_all(kit: Kit, task: str, connect: Connect, exceptions: bool) -> None:
    """Send exceptions even to clients that did not request them."""

    def function(worker: Any, job: WorkerJob) -> None:
        worker.send_job_data(job, b"before")
        worker.send_job_exception(job, b"why")

    server = await started(kit, exceptions=exceptions)
    await kit.start_worker(server.address, tasks={task: function})
    link = await kit.blocking(connect, server)
    await kit.blocking(link.send, SubmitJob(task.encode(), b"", b""))
    assert isinstance(await kit.blocking(link.receive), JobCreated)
    assert isinstance(await kit.blocking(link.receive), WorkData)
    last = type(await kit.blocking(link.receive)).__name__
    assert last == ("WorkException" if exceptions else "WorkFail")


async def test_queue_limit_applies_per_function(kit: Kit, task: str) -> None:
    server = await started(kit, max_queue_size=2)
    client = await kit.client(server.address)
    requests = [await client.submit_job(task, b"%d" % n, background=True) for n in range(3)]
    assert [request.state for request in requests] == ["CREATED", "CREATED", "FAILED"]
    assert isinstance(requests[2].error, GearmanError)
    other = await client.submit_job(f"{task}-other", b"", background=True)
    assert other.state == "CREATED"


@pytest.mark.slow
async def test_thousands_of_jobs_in_flight(kit: Kit, task: str) -> None:
    server = await started(kit)
    before = memory(server)
    client = await kit.client(server.address)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(2000)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    await at(kit, server).wait_for_counts(task, 2000, 0, 0)
    await kit.start_worker(server.address, tasks={task: reverse}, max_jobs=20)
    await client.wait_until_jobs_completed(requests, poll_timeout=PATIENCE)
    assert [request.result for request in requests] == [job["data"][::-1] for job in jobs]
    await kit.eventually(lambda: memory(server) < before + 10_000)


# Real peers.


async def test_libgearman_client_and_worker(kit: Kit, task: str) -> None:
    server = await started(kit)
    host, port = server.address
    command = (require("gearman"), "-h", host, "-p", str(port), "-f", task)

    def run(*more: str, data: bytes = b"") -> bytes:
        result = subprocess.run(
            (*command, *more), input=data, capture_output=True, timeout=PATIENCE, check=True
        )
        return result.stdout.strip()

    worker = Program(*command, "-w", require("rev"))
    worker.spawn()
    try:
        client = await kit.client(server.address)
        requests = await client.submit_multiple_jobs([{"task": task, "data": b"ab"}] * 20)
        assert {request.result.strip() for request in requests} == {b"ba"}
        assert await kit.blocking(lambda: run(data=b"world")) == b"dlrow"
        await kit.blocking(run, "-b", "later")
        await at(kit, server).wait_for_counts(task, 0, 0, 1)
    finally:
        worker.kill()
    await at(kit, server).wait_for_counts(task, 0, 0, 0)


async def test_two_servers_in_one_process(kit: Kit, task: str) -> None:
    one, two = await started(kit), await started(kit)
    assert one.address != two.address
    client = await kit.client(one.address, two.address)
    for server in (one, two):
        await kit.start_worker(server.address, tasks={task: echo}, max_outage=None)
    requests = await client.submit_multiple_jobs([{"task": task, "data": b"ab"}] * 50)
    assert {request.result for request in requests} == {b"ab"}
    assert len({(request.connection, request.handle) for request in requests}) == 50
    await one.stop()
    assert (await client.submit_job(task, b"on", max_retries=1)).result == b"on"
    await at(kit, two).wait_for_counts(task, 0, 0, 1)
