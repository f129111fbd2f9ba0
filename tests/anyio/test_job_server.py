"""JobServer in the event loop: start and stop, all kinds of streams, and misbehaving peers."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import random
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

import gearman_anyio as gearman
from gearman_anyio import GearmanClient, JobServer, _sockets, serve
from gearman_anyio._streams import pipe
from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.engines.server.jobqueue import FUNCTION_SIZE
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    CanDo,
    EchoReq,
    EchoRes,
    Event,
    GrabJobUniq,
    JobAssignUniq,
    SubmitJobBg,
)
from gearman_sync.testing.sockets import linger_not
from tests.support import PATIENCE

from .support import admin, counted, make_worker, reverse, until, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from anyio.abc import ByteStream

pytestmark = pytest.mark.anyio

MB = 1_000_000


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[JobServer]:
    async with JobServer() as server:
        yield server
    assert not server._gm_driver.engine.links
    assert not server._gm_driver._wires


class Link:
    """A peer's connection, controlled by the test."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.connection = Connection(Role.CLIENT | Role.WORKER)

    async def send(self, *events: Event) -> None:
        await self.stream.send(b"".join([self.connection.send(event) for event in events]))

    async def receive(self) -> Event:
        with anyio.fail_after(PATIENCE):
            while (event := self.connection.next_event()) is NEED_DATA:
                self.connection.receive_data(await self.stream.receive())
        assert isinstance(event, Event)
        return event

    async def echo(self, data: bytes = b"ping") -> None:
        """Send ECHO_REQ and check the reply."""
        await self.send(EchoReq(data))
        event = await self.receive()
        assert isinstance(event, EchoRes)
        assert event.data == data

    async def rest(self) -> bytes:
        """Return all data received until the server closes the connection."""
        data = bytearray()
        with anyio.fail_after(PATIENCE):
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    data += await self.stream.receive()
        return bytes(data)


@contextlib.asynccontextmanager
async def linked(server: JobServer) -> AsyncIterator[Link]:
    """Connect by TCP."""
    async with await anyio.connect_tcp(*server.address) as stream:
        yield Link(stream)


async def refuses(address: Any) -> bool:
    """Return whether a connection to the address is refused."""
    try:
        stream = await anyio.connect_tcp(*address)
    except OSError:
        return True
    await stream.aclose()
    return False


def links(server: JobServer) -> int:
    return len(server._gm_driver.engine.links)


def memory(server: JobServer) -> int:
    """Return the server's memory count, without the functions that it remembers."""
    engine = server._gm_driver.engine
    return engine.queue.memory - sum(len(name) + FUNCTION_SIZE for name in engine.queue.functions)


def open_files() -> int:
    """Return the number of open file descriptors of this process."""
    if not os.path.isdir("/dev/fd"):
        pytest.skip("the system does not tell what files are open")
    return len(os.listdir("/dev/fd"))


def header(size: int, packet: int = SubmitJobBg.packet.number) -> bytes:
    """Return the header of a packet of `size` bytes."""
    return MAGIC_REQUEST + struct.pack(">II", packet, size)


async def submits(server: JobServer) -> None:
    """Check that the server accepts jobs."""
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job("submits", b"", background=True, poll_timeout=PATIENCE)
        assert request.state == gearman.JOB_CREATED


# Start and stop.


async def test_before_it_is_started() -> None:
    server = JobServer()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.address
    assert repr(server) == "<JobServer not started>"
    with pytest.raises(RuntimeError, match="not started"):
        await server.wait()
    with pytest.raises(ConnectionRefusedError):
        await server.connect()
    await server.stop()
    with pytest.raises(RuntimeError, match="or stopped"):
        await server.__aenter__()


async def test_port(server: JobServer) -> None:
    """The port is in use while the server runs, and free as soon as it has ended."""
    port = server.address.port
    files = open_files()
    second = JobServer(port=port)
    with pytest.raises(OSError, match="in use"):
        await second.__aenter__()
    with pytest.raises(OSError, match="in use"):
        await serve(port=port)
    errors: list[OSError] = []
    async with anyio.create_task_group() as tasks:
        try:
            await tasks.start(functools.partial(serve, port=port))
        except OSError as error:
            errors.append(error)
    assert [error.errno for error in errors] == [errno.EADDRINUSE]
    assert open_files() == files
    assert repr(second) == "<JobServer not started>"
    with pytest.raises(RuntimeError, match="not started"):
        _ = second.address
    async with linked(server) as link:
        await link.echo()
        await server.stop()
        await until(lambda: not links(server))
        for _ in range(3):
            # The port can be reused although the kernel keeps closed connections in TIME_WAIT.
            async with second:
                assert second.address == ("127.0.0.1", port)
                await submits(second)
            second = JobServer(port=port)


async def test_invalid_hosts_raise_and_leak_no_file() -> None:
    files = open_files()
    with pytest.raises(OSError, match="assign"):
        await JobServer("192.0.2.1").__aenter__()
    with pytest.raises(socket.gaierror):
        await JobServer("host.invalid").__aenter__()
    assert open_files() == files


async def test_wait_and_stop(server: JobServer) -> None:
    returned: list[int] = []

    async def wait(number: int) -> None:
        await server.wait()
        returned.append(number)

    async with linked(server) as link, anyio.create_task_group() as tasks:
        await link.echo()
        for number in range(3):
            tasks.start_soon(wait, number)
        with anyio.move_on_after(0.02) as scope:
            await server.wait()
        assert scope.cancelled_caught
        assert not returned
        await server.stop()
        assert await link.rest() == b""
        await server.stop()
    assert sorted(returned) == [0, 1, 2]
    await server.wait()
    assert await refuses(server.address)
    with pytest.raises(ConnectionRefusedError):
        await server.connect()


async def test_stop_at_once() -> None:
    """The server stops before its tasks have run a step."""
    files = open_files()
    for _ in range(20):
        async with JobServer():
            pass
    for _ in range(20):
        with anyio.CancelScope() as scope:
            async with JobServer():
                scope.cancel()
    assert open_files() == files


async def test_serve() -> None:
    async with anyio.create_task_group() as tasks:
        server = await tasks.start(functools.partial(serve, port=0, max_queue_size=1))
        assert isinstance(server, JobServer)
        await submits(server)
        async with GearmanClient([server.address]) as client:
            request = await client.submit_job("submits", b"", background=True)
            assert request.state == gearman.JOB_FAILED
        assert not await refuses(server.address)
        tasks.cancel_scope.cancel()
    assert await refuses(server.address)


@pytest.mark.parametrize("way", ["command", "stop"])
async def test_serve_until_it_ends(way: str) -> None:
    ended = False

    async def run(*, task_status: Any) -> None:
        nonlocal ended
        await serve(port=0, task_status=task_status)
        ended = True

    async with anyio.create_task_group() as tasks:
        server = await tasks.start(run)
        async with linked(server) as idle:
            await idle.echo()
            assert not ended
            if way == "command":
                assert await admin(server, "shutdown") == "OK\r\n"
            else:
                await server.stop()
            assert await idle.rest() == b""
            with anyio.fail_after(PATIENCE):
                await until(lambda: ended)
    assert await refuses(server.address)


# Streams of other kinds.


async def test_unix_socket(server: JobServer, task: str, tmp_path: Path) -> None:
    path = tmp_path / "gearman"

    async def connect(address: Any) -> ByteStream:
        return await anyio.connect_unix(path)

    async with (
        await anyio.create_unix_listener(path) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, server.handle)
        async with working(make_worker("any:1", tasks={task: reverse}, connect=connect)):
            async with GearmanClient(connect=connect) as client:
                assert (await client.submit_job(task, b"ab")).result == b"ba"
            # TCP clients see the same jobs.
            async with GearmanClient([server.address]) as client:
                assert (await client.submit_job(task, b"cd")).result == b"dc"
            lines = (await admin(server, "workers")).splitlines()
            (line,) = [line for line in lines if line.endswith(f" : {task}")]
            assert line.split()[1] == "unix"
            assert int(line.split()[0]) > 0
        await until(lambda: not links(server))
        tasks.cancel_scope.cancel()
    await submits(server)


async def test_handle_that_is_cancelled(server: JobServer, task: str, tmp_path: Path) -> None:
    """Cancelling `handle` closes the connection, and its jobs are requeued."""
    path = tmp_path / "gearman"
    serving = anyio.CancelScope()

    async def listen() -> None:
        with serving:
            await listener.serve(server.handle)

    async with (
        await anyio.create_unix_listener(path) as listener,
        GearmanClient([server.address]) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listen)
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        async with await anyio.connect_unix(path) as stream:
            link = Link(stream)
            await link.send(CanDo(task.encode()), GrabJobUniq())
            assert isinstance(await link.receive(), JobAssignUniq)
            await counted(server, task, (1, 1, 1))
            serving.cancel()
            assert await link.rest() == b""
            await counted(server, task, (1, 0, 0))
            await until(lambda: links(server) == 1)
        async with working(make_worker(server.address, tasks={task: reverse})):
            await client.wait_until_jobs_completed([request])
            assert request.result == b"ba"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_handle_of_a_server_that_does_not_run(when: str) -> None:
    """The connection is closed, and `handle` raises."""
    server = JobServer()
    if when == "after":
        async with server:
            pass
    near, far = pipe()
    with pytest.raises(RuntimeError, match="not running"):
        await server.handle(far)
    async with near:
        assert await Link(near).rest() == b""
    if when == "before":
        async with server:
            await submits(server)


@pytest.mark.parametrize("when", ["stopped", "retiring"])
async def test_handle_of_a_stopping_server_closes_the_connection(when: str) -> None:
    """`handle` closes the connection and returns without waiting."""
    async with JobServer() as server, linked(server) as held:
        await held.send(SubmitJobBg(b"task", b"", b""))
        await held.receive()
        if when == "stopped":
            await server.stop()
        else:
            assert await admin(server, "shutdown graceful") == "OK\r\n"
        near, far = pipe()
        async with near:
            await near.send(b"version\n")
            with anyio.fail_after(PATIENCE):
                await server.handle(far)
            assert await Link(near).rest() == b""


async def test_in_memory(task: str) -> None:
    """Client and worker use no socket."""
    files = open_files()
    async with JobServer() as server:
        with_listener = open_files()
        worker = make_worker("any:1", tasks={task: reverse}, connect=server.connect, max_jobs=3)
        clients = [GearmanClient(connect=server.connect) for _ in range(3)]
        async with working(worker), clients[0], clients[1], clients[2]:
            for client in clients:
                requests = await client.submit_multiple_jobs([{"task": task, "data": b"ab"}] * 20)
                assert {request.result for request in requests} == {b"ba"}
            assert links(server) == 4
            assert open_files() == with_listener
            lines = server._gm_driver.engine.links
            assert {link.peer for link in lines} == {"-"}
            payload = random.Random(1).randbytes(5 * MB)
            request = await clients[0].submit_job(task, payload)
            assert request.result == payload[::-1]
            # The admin protocol works in memory, too.
            stream = await server.connect()
            await stream.send(b"status\n")
            assert await stream.receive() == b"%b\t0\t0\t1\n.\n" % task.encode()
            await stream.aclose()
        await until(lambda: not links(server))
        assert memory(server) == 0
    assert open_files() == files


async def test_in_memory_peer_that_never_reads(task: str) -> None:
    async with JobServer(max_unread=MB) as server:
        stream = await server.connect()
        request = Connection(Role.CLIENT).send(EchoReq(bytes(10_000)))
        sent = 0
        with contextlib.suppress(anyio.BrokenResourceError):
            while sent < 500:
                await stream.send(request)
                sent += 1
        assert sent < 500
        await stream.aclose()
        await until(lambda: not links(server))
        assert memory(server) == 0


# Misbehaving peers.


@contextlib.asynccontextmanager
async def healthy(server: JobServer, task: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Check that the server works, and at the end that all connections and memory are released."""

    async def check() -> None:
        request = await client.submit_job(task, b"data", poll_timeout=PATIENCE)
        assert request.result == b"atad"

    worker = make_worker(server.address, tasks={task: reverse})
    async with working(worker), GearmanClient([server.address]) as client:
        await check()
        yield check
        await check()
    await until(lambda: not links(server), "the end of all connections")
    await until(lambda: not memory(server), "the release of all memory")


async def test_gone_before_they_are_accepted(
    server: JobServer, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The peers connect and disconnect while the server's loop is blocked."""
    async with healthy(server, task) as check:
        for number in range(100):
            with socket.create_connection(server.address) as sock:
                if number % 3:
                    sock.sendall(b"version\n")
                if number % 2:
                    linger_not(sock)
        await check()
        await until(lambda: links(server) == 2)
    assert not [record for record in caplog.records if record.exc_info]


async def test_out_of_file_descriptors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server logs the error, waits, and accepts again. Old connections are not affected."""
    monkeypatch.setattr("gearman_anyio._driver.LISTEN_AGAIN", 0.05)
    real_accept = _sockets.accept
    failures: list[float] = []
    failing = False

    async def accept(listener: socket.socket) -> socket.socket:
        sock = await real_accept(listener)
        if failing and len(failures) < 4:
            failures.append(time.monotonic())
            sock.close()
            raise OSError(errno.EMFILE, "Too many open files")
        return sock

    monkeypatch.setattr(_sockets, "accept", accept)
    async with JobServer() as server, linked(server) as old:
        await old.echo()
        failing = True
        turned_away = [socket.create_connection(server.address) for _ in range(6)]
        try:
            while len(failures) < 4:
                await old.echo()
                await anyio.sleep(0.005)
            async with linked(server) as new:
                await new.echo()
            # Two connections stayed in the backlog, and are accepted now.
            await until(lambda: links(server) == 3)
        finally:
            for sock in turned_away:
                sock.close()
    assert all(after - before >= 0.049 for before, after in itertools.pairwise(failures))
    warnings = [r.getMessage() for r in caplog.records if "can be accepted" in r.getMessage()]
    assert len(warnings) == 4
    assert all("Too many open files" in text for text in warnings)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the system has no setrlimit")
async def test_really_out_of_file_descriptors(
    server: JobServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr("gearman_anyio._driver.LISTEN_AGAIN", 0.05)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    socks: list[socket.socket] = []
    try:
        async with linked(server) as old:
            await old.echo()
            socks += [socket.socket() for _ in range(20)]
            for sock in socks:
                sock.connect(server.address)
            # The server can't allocate descriptors for accepted connections.
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            await until(lambda: "can be accepted" in caplog.text)
            await old.echo()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await until(lambda: links(server) == 21)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in socks:
            sock.close()


# Options.


async def test_stop_in_another_thread_raises(server: JobServer) -> None:
    """A server can be used only in the thread of its event loop."""
    refused: list[str] = []

    def stop() -> None:
        stopping = server.stop()
        try:
            stopping.send(None)
        except RuntimeError as error:
            refused.append(str(error))
        finally:
            stopping.close()

    thread = threading.Thread(target=stop)
    thread.start()
    thread.join()
    assert len(refused) == 1
    assert "another thread" in refused[0]
    await submits(server)
