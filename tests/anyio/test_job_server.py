"""JobServer in the event loop: its life, real peers, all kinds of streams, and of misbehaviour."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute

import gearman_anyio as gearman
import gearman_sync
from gearman_anyio import GearmanClient, JobServer, WorkerJob, serve
from gearman_anyio._streams import pipe
from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.engines.server import _FUNCTION_SIZE
from gearman_proto.errors import ServerError, ServerUnavailable
from gearman_proto.wire.events import (
    CanDo,
    EchoReq,
    EchoRes,
    Event,
    GetStatus,
    GrabJobAll,
    GrabJobUniq,
    JobAssignUniq,
    JobCreated,
    PreSleep,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
)
from gearman_proto.wire.packets import MAGIC_REQUEST, MAGIC_RESPONSE
from tests.support import PATIENCE, Program, require

from .support import Held, admin, counted, counts, make_worker, reverse, until, working

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
    assert not server._driver.engine.links
    assert not server._driver._wires


class Link:
    """A connection of a peer that does as the test says."""

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
        """There and back again."""
        await self.send(EchoReq(data))
        event = await self.receive()
        assert isinstance(event, EchoRes)
        assert event.data == data

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        data = bytearray()
        with anyio.fail_after(PATIENCE):
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    data += await self.stream.receive()
        return bytes(data)

    def reset(self) -> None:
        """Let closing send a RST."""
        linger = struct.pack("ii", 1, 0)
        raw = self.stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@contextlib.asynccontextmanager
async def linked(server: JobServer) -> AsyncIterator[Link]:
    """A connection by TCP."""
    async with await anyio.connect_tcp(*server.address) as stream:
        yield Link(stream)


async def refuses(address: Any) -> bool:
    """Whether nobody listens there."""
    try:
        stream = await anyio.connect_tcp(*address)
    except OSError:
        return True
    await stream.aclose()
    return False


def links(server: JobServer) -> int:
    return len(server._driver.engine.links)


def memory(server: JobServer) -> int:
    """Bytes that the server counts, but for the functions that it remembers."""
    engine = server._driver.engine
    return engine.memory - sum(len(name) + _FUNCTION_SIZE for name in engine.functions)


def open_files() -> int:
    """How many file descriptors this process has."""
    if not os.path.isdir("/dev/fd"):
        pytest.skip("the system does not tell what files are open")
    return len(os.listdir("/dev/fd"))


def header(size: int, packet: int = SubmitJobBg.packet.number) -> bytes:
    """The header of a packet of `size` bytes."""
    return MAGIC_REQUEST + struct.pack(">II", packet, size)


async def submits(server: JobServer) -> None:
    """It takes jobs."""
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job("submits", b"", background=True, poll_timeout=PATIENCE)
        assert request.state == gearman.JOB_CREATED


# Its life.


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


async def test_address_and_repr() -> None:
    async with JobServer() as server:
        host, port = server.address
        assert host == "127.0.0.1"
        assert port > 0
        assert str(server.address) == f"127.0.0.1:{port}"
        assert repr(server) == f"<JobServer 127.0.0.1:{port}>"
        async with GearmanClient([str(server.address)]) as client:
            assert await client.submit_job("task", b"", background=True)
    # It is known afterwards, too.
    assert server.address == (host, port)
    assert await refuses(server.address)


async def test_enter_twice(server: JobServer) -> None:
    with pytest.raises(RuntimeError, match="started before"):
        await server.__aenter__()
    await submits(server)
    over = JobServer()
    async with over:
        pass
    with pytest.raises(RuntimeError, match="started before"):
        await over.__aenter__()
    assert await refuses(over.address)


@pytest.mark.parametrize("port", [-1, 65536])
async def test_ports_that_can_not_be(port: int) -> None:
    with pytest.raises(ValueError, match=f"port {port}"):
        JobServer(port=port)


@pytest.mark.parametrize(
    "options",
    [{"max_memory": 0}, {"max_unread": 0}, {"max_packet_size": 0}, {"job_retries": -1}],
    ids=str,
)
async def test_arguments_that_can_not_be(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        JobServer(**options)
    with pytest.raises(ValueError, match=name):
        await serve(**options)


async def test_port(server: JobServer) -> None:
    """It is taken, and free again as soon as the server has ended."""
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
        await anyio.sleep(0.01)
        for _ in range(3):
            # Although there were connections, whose ends the system remembers.
            async with second:
                assert second.address == ("127.0.0.1", port)
                await submits(second)
            second = JobServer(port=port)


async def test_hosts_that_can_not_be() -> None:
    files = open_files()
    with pytest.raises(OSError, match="assign"):
        await JobServer("192.0.2.1").__aenter__()
    with pytest.raises(socket.gaierror):
        await JobServer("host.invalid").__aenter__()
    assert open_files() == files


async def test_ipv6() -> None:
    server = JobServer("::1")
    try:
        await server.__aenter__()
    except OSError as error:
        pytest.skip(f"the system has no IPv6: {error}")
    try:
        assert server.address.host == "::1"
        assert str(server.address) == f"[::1]:{server.address.port}"
        for address in (server.address, str(server.address)):
            async with GearmanClient([address]) as client:
                request = await client.submit_job("task", b"", background=True)
                assert request.state == gearman.JOB_CREATED
        assert " ::1 - :" in await admin(server, "workers")
    finally:
        await server.__aexit__(None, None, None)


async def test_host_name() -> None:
    async with JobServer("localhost") as server:
        assert server.address.host in ("127.0.0.1", "::1")
        async with GearmanClient([("localhost", server.address.port)]) as client:
            request = await client.submit_job("task", b"", background=True)
            assert request.state == gearman.JOB_CREATED


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
    """Before its tasks have done anything."""
    files = open_files()
    for _ in range(20):
        async with JobServer():
            pass
    for _ in range(20):
        with anyio.CancelScope() as scope:
            async with JobServer():
                scope.cancel()
    assert open_files() == files


async def test_exception_in_the_body() -> None:
    """It comes out as it is, and the server has ended."""
    error = ZeroDivisionError("mine")
    server = JobServer()

    async def body(error: BaseException) -> None:
        async with server, linked(server) as link:
            await link.echo()
            raise error

    with pytest.raises(ZeroDivisionError) as caught:
        await body(error)
    assert caught.value is error
    assert await refuses(server.address)
    server = JobServer()
    with pytest.raises(KeyboardInterrupt):
        await body(KeyboardInterrupt())
    assert await refuses(server.address)


async def test_cancelled_body() -> None:
    with anyio.move_on_after(0.02) as scope:
        async with JobServer() as server, linked(server) as link:
            await link.echo()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert await refuses(server.address)


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


async def test_shutdown_command(server: JobServer, task: str) -> None:
    held = Held("async")
    states: list[str] = []

    async def submit(number: int) -> None:
        states.append((await client.submit_job(task, b"%d" % number)).state)

    worker = make_worker(server.address, tasks={task: held.callback})
    async with working(worker), GearmanClient([server.address]) as client:
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(submit, number)
            await held.wait()
            await counted(server, task, (3, 1, 1))
            assert await admin(server, "shutdown") == "OK\r\n"
            # The worker still runs its job, and nobody waits for that.
            with anyio.fail_after(PATIENCE):
                await server.wait()
        assert states == [gearman.JOB_UNKNOWN] * 3
        assert await refuses(server.address)


async def test_shutdown_graceful_command(server: JobServer, task: str) -> None:
    held = Held("async")
    results: list[Any] = []

    async def submit(number: int) -> None:
        results.append((await client.submit_job(task, b"%d" % number)).result)

    worker = make_worker(server.address, tasks={task: held.callback})
    async with working(worker), GearmanClient([server.address]) as client, linked(server) as idle:
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(submit, number)
            await client.submit_job(task, b"background", background=True)
            await held.wait()
            await counted(server, task, (4, 1, 1))
            assert await admin(server, "shutdown graceful") == "OK\r\n"
            await until(lambda: server._driver._listening)
            assert await refuses(server.address)
            async with GearmanClient([server.address]) as other:
                with pytest.raises(ServerUnavailable):
                    await other.submit_job(task, b"", background=True)
            async with await server.connect() as stream:
                assert await Link(stream).rest() == b""
            await idle.echo()
            # Who is connected still has its say.
            late = await client.submit_job(task, b"late", background=True)
            assert late.state == gearman.JOB_CREATED
            with anyio.move_on_after(0.02) as scope:
                await server.wait()
            assert scope.cancelled_caught
            held.let_go()
            with anyio.fail_after(PATIENCE):
                await server.wait()
        assert set(results) == {b"0", b"1", b"2"}
        assert set(held.done) == {b"0", b"1", b"2", b"background", b"late"}
        assert await idle.rest() == b""


async def test_shutdown_command_and_what_is_unread(server: JobServer) -> None:
    """It is still sent to those who read it."""
    async with linked(server) as link:
        await link.send(EchoReq(bytes(20 * MB)))
        assert await link.stream.receive(1) == b"\0"
        assert await admin(server, "shutdown") == "OK\r\n"
        with anyio.move_on_after(0.02) as scope:
            await server.wait()
        assert scope.cancelled_caught
        assert len(await link.rest()) == 20 * MB + 11
        with anyio.fail_after(PATIENCE):
            await server.wait()


async def test_shutdown_command_and_a_peer_that_never_reads(
    server: JobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for for long."""
    monkeypatch.setattr("gearman_proto.engines.server._LAST_WORDS", 0.1)
    async with linked(server) as link:
        await link.send(EchoReq(bytes(20 * MB)))
        assert await link.stream.receive(1) == b"\0"
        assert await admin(server, "shutdown") == "OK\r\n"
        with anyio.fail_after(PATIENCE):
            await server.wait()
        assert len(await link.rest()) < 20 * MB


async def test_stop_while_clients_wait(server: JobServer, task: str) -> None:
    held = Held("async")
    states: list[str] = []

    async def submit(number: int) -> None:
        request = await client.submit_job(task, b"%d" % number)
        assert not request.timed_out
        states.append(request.state)

    worker = make_worker(server.address, tasks={task: held.callback}, max_outage=None)
    async with working(worker), GearmanClient([server.address]) as client:
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(submit, number)
            await held.wait()
            await counted(server, task, (5, 1, 1))
            await server.stop()
        assert states == [gearman.JOB_UNKNOWN] * 5
        with pytest.raises(ServerUnavailable):
            await client.submit_job(task, b"")


async def test_stop_while_peers_flood_it() -> None:
    request = Connection(Role.CLIENT).send(EchoReq(bytes(1000))) * 100
    floods = 0

    async def flood(link: Link) -> None:
        nonlocal floods
        with contextlib.suppress(anyio.BrokenResourceError):
            while True:
                await link.stream.send(request)
                floods += 1

    async with contextlib.AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        async with JobServer() as server:
            for _ in range(3):
                tasks.start_soon(flood, await stack.enter_async_context(linked(server)))
            await until(lambda: floods > 20)
        # Now the floods end.
        await until(lambda: not server._driver._wires)


async def test_nothing_is_left(task: str) -> None:
    """Started and stopped again and again: no task, no file."""
    files = open_files()
    for _ in range(20):
        async with JobServer() as server, GearmanClient([server.address]) as client:
            await client.submit_job(task, b"", background=True)
            async with linked(server) as link:
                await link.echo()
                await server.stop()
        assert not server._driver._wires
        assert not server._driver.is_running
    assert open_files() == files


async def test_two_servers(task: str) -> None:
    async with JobServer() as one, JobServer() as two:
        assert one.address != two.address
        workers = [make_worker(s.address, tasks={task: reverse}) for s in (one, two)]
        async with (
            working(workers[0]),
            working(workers[1]),
            GearmanClient([one.address, two.address]) as client,
        ):
            requests = await client.submit_multiple_jobs([{"task": task, "data": b"ab"}] * 50)
            assert {request.result for request in requests} == {b"ba"}
            handles = {(request.job.connection, request.job.handle) for request in requests}
            assert len(handles) == 50
            await one.stop()
            request = await client.submit_job(task, b"on", max_retries=1)
            assert request.result == b"no"
            assert (await counts(two, task))[2] == 1


async def test_a_bug_ends_it(
    server: JobServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and nobody waits for a server that does nothing."""

    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    waited: list[str] = []

    async def wait() -> None:
        with pytest.raises(gearman.errors.GearmanError, match="a bug"):
            await server.wait()
        waited.append("it raised")

    async with linked(server) as link, anyio.create_task_group() as tasks:
        await link.echo()
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        monkeypatch.setattr(server._driver.engine, "receive_data", broken)
        await link.send(EchoReq(b""))
        assert await link.rest() == b""
    assert waited == ["it raised"]
    assert await refuses(server.address)
    assert "ZeroDivisionError: a bug" in caplog.text


# Real peers.


def run(*command: str, data: bytes = b"") -> bytes:
    return subprocess.run(
        command, input=data, capture_output=True, timeout=PATIENCE, check=True
    ).stdout


async def test_libgearman(server: JobServer, task: str) -> None:
    host, port = server.address
    command = (require("gearman"), "-h", host, "-p", str(port), "-f", task)
    program = Program(*command, "-w", require("rev"))
    program.spawn()
    try:
        async with GearmanClient([server.address]) as client:
            request = await client.submit_job(task, b"hello", poll_timeout=PATIENCE)
            assert request.result.strip() == b"olleh"
            requests = await client.submit_multiple_jobs([{"task": task, "data": b"ab"}] * 20)
            assert {request.result.strip() for request in requests} == {b"ba"}
        out = await anyio.to_thread.run_sync(functools.partial(run, *command, data=b"world"))
        assert out.strip() == b"dlrow"
        await anyio.to_thread.run_sync(functools.partial(run, *command, "-b", "later"))
        await counted(server, task, (0, 0, 1))
    finally:
        program.kill()
    await counted(server, task, (0, 0, 0))


async def test_gearadmin(server: JobServer, task: str) -> None:
    host, port = server.address
    command = (require("gearadmin"), "-h", host, "-p", str(port))

    async def ask(option: str) -> str:
        out = await anyio.to_thread.run_sync(functools.partial(run, *command, option))
        return out.decode()

    worker = make_worker(server.address, tasks={task: reverse})
    worker.set_client_id("me")
    async with working(worker):
        await counted(server, task, (0, 0, 1))
        assert f"{task}\t0\t0\t1\n" in await ask("--status")
        assert f" 127.0.0.1 me : {task}\n" in await ask("--workers")
        assert "gearman-sansio-" in await ask("--server-version")
        assert str(os.getpid()) in await ask("--getpid")


async def test_blocking_client_and_worker(server: JobServer, task: str) -> None:
    """gearman_sync's, in threads, with this one's."""

    def function(worker: gearman_sync.GearmanWorker, job: WorkerJob) -> Any:
        worker.send_job_status(job, 1, 2)
        return job.data[::-1]

    def submit() -> list[Any]:
        with gearman_sync.GearmanClient([server.address]) as client:
            requests = client.submit_multiple_jobs(
                [
                    {"task": name, "data": b"%d-" % number}
                    for number in range(20)
                    for name in (task, f"{task}-async")
                ],
                poll_timeout=PATIENCE,
            )
            return [request.result for request in requests]

    blocking = gearman_sync.GearmanWorker([server.address], max_jobs=3)
    blocking.register_task(task, function)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(functools.partial(anyio.to_thread.run_sync, blocking.work))
        async with working(make_worker(server.address, tasks={f"{task}-async": reverse})):
            results = await anyio.to_thread.run_sync(submit)
            expected = [(b"%d-" % number)[::-1] for number in range(20) for _ in range(2)]
            assert results == expected
            async with GearmanClient([server.address]) as client:
                request = await client.submit_job(task, b"ab")
                assert request.result == b"ba"
                assert list(request.status_updates) == [(1, 2)]
            blocking.stop()
    blocking.shutdown()


async def test_many_clients(server: JobServer, task: str) -> None:
    done = 0

    async def use(number: int) -> None:
        nonlocal done
        async with GearmanClient([server.address]) as client:
            for job in range(5):
                data = b"%d-%d" % (number, job)
                assert (await client.submit_job(task, data)).result == data[::-1]
            done += 1

    workers = [make_worker(server.address, tasks={task: reverse}, max_jobs=5) for _ in range(3)]
    async with working(workers[0]), working(workers[1]), working(workers[2]):
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(use, number)
        await until(lambda: links(server) == 3)
    assert done == 50
    await until(lambda: links(server) == 0)
    assert memory(server) == 0


async def test_thousands_in_flight(server: JobServer, task: str) -> None:
    jobs = [{"task": task, "data": b"%d" % number} for number in range(3000)]
    async with GearmanClient([server.address]) as client:
        requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
        async with working(make_worker(server.address, tasks={task: reverse}, max_jobs=20)):
            with anyio.fail_after(PATIENCE):
                await client.wait_until_jobs_completed(requests)
    assert [request.result for request in requests] == [
        (b"%d" % number)[::-1] for number in range(3000)
    ]
    await until(lambda: memory(server) == 0)


async def test_worker_is_lost(server: JobServer, task: str) -> None:
    async with GearmanClient([server.address]) as client, linked(server) as lost:
        request = await client.submit_job(task, b"data", wait_until_complete=False)
        await lost.send(CanDo(task.encode()), GrabJobUniq())
        taken = await lost.receive()
        assert isinstance(taken, JobAssignUniq)
        await counted(server, task, (1, 1, 1))
        await lost.stream.aclose()
        async with working(make_worker(server.address, tasks={task: reverse})):
            await client.wait_until_jobs_completed([request])
            assert request.result == b"atad"


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
            # The same jobs.
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
    """As with the end of a connection: jobs of it are others'."""
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
    """The connection is closed, and whoever has made it is told."""
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
async def test_handle_of_a_server_that_takes_no_more(when: str) -> None:
    """The connection is closed, and nobody waits for an answer."""
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
    """There is no connection by a socket at all."""
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
            lines = server._driver.engine.links
            assert {link.peer for link in lines} == {"-"}
            payload = random.Random(1).randbytes(5 * MB)
            request = await clients[0].submit_job(task, payload)
            assert request.result == payload[::-1]
            # The tables of the admin protocol, too.
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


# Peers that misbehave.


@contextlib.asynccontextmanager
async def healthy(server: JobServer, task: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Makes sure that the server works; in the end also that it has forgotten everybody else."""

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


PARTS = {
    "no header": b"\0",
    "half a magic": MAGIC_REQUEST[:3],
    "half a header": header(100)[:7],
    "header": header(100),
    "half a body": header(100) + bytes(50),
    "half a line": b"stat",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(500),
}


async def test_half_a_packet(server: JobServer, task: str) -> None:
    async with healthy(server, task) as check, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(linked(server)) for _ in PARTS]
        for peer, part in zip(peers, PARTS.values()):
            await peer.stream.send(part)
        await check()
        assert links(server) == len(PARTS) + 2
        # They were not cut off: the rest still counts.
        await peers[0].stream.send(MAGIC_REQUEST[1:] + struct.pack(">II", EchoReq.packet.number, 0))
        echo = MAGIC_RESPONSE + struct.pack(">II", EchoRes.packet.number, 0)
        assert await peers[0].stream.receive() == echo


async def test_byte_by_byte(server: JobServer, task: str) -> None:
    async with linked(server) as link:
        request = link.connection.send(EchoReq(b"slowly")) + b"version\n"
        for number in range(len(request)):
            await link.stream.send(request[number : number + 1])
        event = await link.receive()
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


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage(name: str, server: JobServer, task: str) -> None:
    async with healthy(server, task) as check, linked(server) as peer:
        with contextlib.suppress(anyio.BrokenResourceError):
            await peer.stream.send(GARBAGE[name])
            # HTTP is so many unknown commands; all others are cut off.
            if name == "HTTP":
                await peer.stream.send_eof()
        assert (b"UNKNOWN_COMMAND" in await peer.rest()) == (name == "HTTP")
        await check()


async def test_text_flood(server: JobServer, task: str) -> None:
    """Lists that nobody reads cut off who has asked for them; others go on."""
    async with (
        JobServer(max_unread=MB) as limited,
        healthy(limited, task) as check,
        linked(limited) as peer,
    ):
        sent = 0
        with contextlib.suppress(anyio.BrokenResourceError):
            while sent < 10_000_000:
                await peer.stream.send(b"workers\nstatus\nversion\n" * 1000)
                sent += 3000
                if sent % 30_000 == 0:
                    await check()
        assert sent < 10_000_000
    async with healthy(server, task) as check, linked(server) as peer:
        # Who reads is served, however much it asks.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.stream.send, b"version\n" * 20_000 + b"shutdown wrongly\n")
            data = b""
            while b"INVALID_ARGUMENTS" not in data:
                data += await peer.stream.receive()
        assert data.count(b"OK gearman-sansio-") == 20_000


async def test_announces_more_than_is_taken() -> None:
    async with JobServer(max_packet_size=10 * MB) as server:
        async with linked(server) as peer, linked(server) as other:
            await peer.stream.send(header(200 * MB))
            assert await peer.rest() == b""
            await other.stream.send(header(10 * MB + 1))
            assert await other.rest() == b""
        assert links(server) == 0
        assert memory(server) == 0


async def test_endless_packet() -> None:
    """What it is allowed to announce may still be more than there is room for."""
    async with JobServer(max_memory=4 * MB) as server, linked(server) as small:
        await small.stream.send(header(200 * MB) + bytes(100_000))
        await until(lambda: memory(server) >= 100_000)
        async with linked(server) as peer, GearmanClient([server.address]) as client:
            await peer.stream.send(header(200 * MB))
            sent = 0
            with contextlib.suppress(anyio.BrokenResourceError):
                while sent < 100 * MB:
                    await peer.stream.send(bytes(65536))
                    sent += 65536
            assert sent < 100 * MB
            request = await client.submit_job("task", bytes(MB // 2), background=True)
            assert request.state == gearman.JOB_CREATED
            # Who held less was spared.
            assert links(server) == 2
            assert MB // 2 < memory(server) < MB


async def test_peers_that_do_not_read() -> None:
    """They are cut off at `max_unread`, and nobody else waits for them."""
    async with JobServer(max_unread=5 * MB) as server, linked(server) as other:
        request = Connection(Role.CLIENT).send(EchoReq(bytes(10_000))) * 10
        sent: list[int] = []

        async def push() -> None:
            total = 0
            async with linked(server) as peer:
                with contextlib.suppress(anyio.BrokenResourceError):
                    while total < 1000 * MB:
                        await peer.stream.send(request)
                        total += len(request)
            sent.append(total)

        rounds = 0
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(push)
            while len(sent) < 3:
                await other.echo(b"%d" % rounds)
                rounds += 1
        assert all(5 * MB <= total < 100 * MB for total in sent)
        assert rounds > 3
        assert links(server) == 1
        await until(lambda: not memory(server))


async def test_does_not_read_what_workers_send(task: str) -> None:
    """The worker is not to blame: its job ends as it should."""

    async def function(worker: Any, job: WorkerJob) -> Any:
        for _ in range(200):
            await worker.send_job_data(job, bytes(100_000))
        done.set()
        return b""

    done = anyio.Event()
    async with (
        JobServer(max_unread=2 * MB) as server,
        linked(server) as peer,
        working(make_worker(server.address, tasks={task: function})),
    ):
        await peer.send(SubmitJob(task.encode(), b"", b""))
        with anyio.fail_after(PATIENCE):
            await done.wait()
        await counted(server, task, (0, 0, 1))
        await until(lambda: links(server) == 1)
        assert memory(server) < MB
        assert len(await peer.rest()) < 20 * MB


async def test_slow_reader(server: JobServer, task: str) -> None:
    payload = random.Random(3).randbytes(8 * MB)

    async def function(worker: Any, job: WorkerJob) -> bytes:
        return payload

    huge = f"{task}-huge"
    async with (
        healthy(server, task) as check,
        linked(server) as slow,
        working(make_worker(server.address, tasks={huge: function})),
    ):
        await slow.send(SubmitJob(huge.encode(), b"", b""))
        assert isinstance(await slow.receive(), JobCreated)
        await counted(server, huge, (0, 0, 1))
        for _ in range(10):
            await check()
        event = await slow.receive()
        assert isinstance(event, WorkComplete)
        assert event.data == payload


async def test_silent_connections(server: JobServer, task: str) -> None:
    async with healthy(server, task) as check, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(linked(server)) for _ in range(200)]
        await check()
        assert links(server) == 202
        await peers[-1].echo()


async def test_storm_of_connections(server: JobServer, task: str) -> None:
    """Connections that come and go, politely and not."""
    over = 0

    async def storm() -> None:
        nonlocal over
        for number in range(40):
            async with linked(server) as peer:
                if number % 3 == 1:
                    await peer.stream.send(b"status\n")
                elif number % 3 == 2:
                    await peer.echo()
                if number % 2:
                    peer.reset()
        over += 1

    async with healthy(server, task) as check, anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(storm)
        while over < 8:
            await check()


async def test_reset_at_any_moment(server: JobServer, task: str) -> None:
    """A peer that is all at once is lost after any number of bytes, of all that it was to send."""
    name = f"{task}-reset".encode()
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
    async with healthy(server, task) as check:
        for size in range(0, len(script) + 1, 2):
            async with linked(server) as peer:
                await peer.stream.send(script[:size])
                if size % 4:
                    # By now it has been read, most likely.
                    await check()
                peer.reset()
        await check()
        await counted(server, name.decode(), (0, 0, 0))


async def test_gone_before_they_are_accepted(
    server: JobServer, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop of the server does not run while these come and go."""
    async with healthy(server, task) as check:
        for number in range(100):
            with socket.create_connection(server.address) as sock:
                if number % 3:
                    sock.sendall(b"version\n")
                if number % 2:
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await check()
        await until(lambda: links(server) == 2)
    assert not [record for record in caplog.records if record.exc_info]


async def test_end_of_stream_after_a_command(server: JobServer) -> None:
    """As ``echo version | nc`` does."""
    for _ in range(20):
        async with linked(server) as link:
            await link.stream.send(b"version\n")
            await link.stream.send_eof()
            assert (await link.rest()).startswith(b"OK gearman-sansio-")
    # All of it had come before the server looked.
    for _ in range(20):
        sock = socket.create_connection(server.address)
        sock.sendall(b"version\n")
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(PATIENCE)
        with sock:
            data = await anyio.to_thread.run_sync(sock.recv, 1000)
        assert data.startswith(b"OK gearman-sansio-")


async def test_out_of_file_descriptors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It logs that, waits, and goes on; those who are connected do not notice."""
    monkeypatch.setattr("gearman_anyio._driver._LISTEN_AGAIN", 0.05)
    real_listen = gearman.server._listen
    failures: list[float] = []
    failing = False

    async def listen(*args: Any) -> Any:
        listener = await real_listen(*args)
        accept = listener.accept

        async def sometimes() -> Any:
            stream = await accept()
            if failing and len(failures) < 4:
                failures.append(time.monotonic())
                await stream.aclose()
                raise OSError(errno.EMFILE, "Too many open files")
            return stream

        monkeypatch.setattr(listener, "accept", sometimes)
        return listener

    monkeypatch.setattr("gearman_anyio.server._listen", listen)
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
            # The other two had to wait, and are served.
            await until(lambda: links(server) == 3)
        finally:
            for sock in turned_away:
                sock.close()
    assert all(after - before >= 0.049 for before, after in itertools.pairwise(failures))
    warnings = [r.getMessage() for r in caplog.records if "can be accepted" in r.getMessage()]
    assert len(warnings) == 4
    assert all("Too many open files" in text for text in warnings)


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no setrlimit")
async def test_really_out_of_file_descriptors(
    server: JobServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr("gearman_anyio._driver._LISTEN_AGAIN", 0.05)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    socks: list[socket.socket] = []
    try:
        async with linked(server) as old:
            await old.echo()
            socks += [socket.socket() for _ in range(20)]
            for sock in socks:
                sock.connect(server.address)
            # No number is left for the other ends.
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


async def test_memory_is_full(task: str) -> None:
    async with JobServer(max_memory=MB) as server, GearmanClient([server.address]) as client:
        requests = [
            await client.submit_job(task, b"%d" % number + bytes(100_000), background=True)
            for number in range(20)
        ]
        taken = [request for request in requests if request.state == gearman.JOB_CREATED]
        refused = [request for request in requests if request.state == gearman.JOB_FAILED]
        assert len(taken) + len(refused) == 20
        assert 5 <= len(taken) < 10
        assert requests[: len(taken)] == taken
        for request in refused:
            assert isinstance(request.error, ServerError)
            assert request.error.code == "QUEUE_ERROR"
        async with working(make_worker(server.address, tasks={task: reverse})):
            await counted(server, task, (0, 0, 1))
            for request in refused[:5]:
                request.reset()
            again = await client.submit_multiple_requests(refused[:5])
            assert [request.state for request in again] == [gearman.JOB_CREATED] * 5
            await counted(server, task, (0, 0, 1))
        await client.shutdown()
        await until(lambda: not memory(server))


async def test_queue_is_full(task: str) -> None:
    async with JobServer(max_queue_size=2) as server, GearmanClient([server.address]) as client:
        requests = [await client.submit_job(task, b"%d" % n, background=True) for n in range(3)]
        assert [request.state for request in requests] == ["CREATED", "CREATED", "FAILED"]
        other = await client.submit_job(f"{task}-other", b"", background=True)
        assert other.state == "CREATED"


@pytest.mark.parametrize("exceptions", [False, True])
async def test_exceptions_for_all(task: str, exceptions: bool) -> None:
    async def function(worker: Any, job: WorkerJob) -> Any:
        raise ZeroDivisionError("why")

    async with JobServer(exceptions=exceptions) as server, linked(server) as link:
        worker = make_worker(server.address, tasks={task: function}, exceptions=True)
        async with working(worker):
            await link.send(SubmitJob(task.encode(), b"", b""))
            assert isinstance(await link.receive(), JobCreated)
            last = await link.receive()
            assert type(last).__name__ == ("WorkException" if exceptions else "WorkFail")


@pytest.mark.parametrize("retries", [0, 2])
async def test_job_retries(task: str, retries: int) -> None:
    runs = 0

    async def function(worker: Any, job: WorkerJob) -> Any:
        nonlocal runs
        runs += 1
        worker.stop(0)

        await anyio.sleep_forever()

    async with JobServer(job_retries=retries) as server, GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"", wait_until_complete=False)
        worker = make_worker(server.address, tasks={task: function})
        for number in range(retries + 1):
            assert request.state == gearman.JOB_CREATED
            await worker.work()
            assert runs == number + 1
        await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert request.state == gearman.JOB_FAILED


async def test_idle_server_does_nothing(
    server: JobServer, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fifty peers, some of them asleep, and a job for later."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(50):
            peer = await stack.enter_async_context(linked(server))
            await peer.send(CanDo(b"task-%d" % number), PreSleep())
            await peer.echo()
        async with GearmanClient([server.address]) as client:
            await client.submit_job(task, b"", background=True, run_at=time.time() + 1000)
        await until(lambda: links(server) == 50)
        calls: list[str] = []
        engine = server._driver.engine
        real = engine.next_deadline

        def next_deadline() -> Any:
            calls.append("asked")
            return real()

        monkeypatch.setattr(engine, "next_deadline", next_deadline)
        await anyio.sleep(0.2)
        # An alarm that was set for something else may still ring, once.
        assert len(calls) < 5
        await peer.echo()
        assert calls


async def test_other_threads_are_told(server: JobServer) -> None:
    """It belongs to its loop."""
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
