"""Our own streams: when they are used, immediate writes, and errors outside of tasks."""

from __future__ import annotations

import asyncio
import functools
import threading
import types
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

import gearman_anyio as gearman
from gearman_anyio._driver import Driver
from gearman_anyio._opened import make_opener
from gearman_anyio._plain import Plain, PlainOnAsyncio
from gearman_proto import ClientEngine, ServerAddress
from gearman_proto.errors import ConnectionError
from gearman_proto.jobs.submitting import make_requests
from gearman_proto.wire.packets import JobCreated, SubmitJob, SubmitJobBg
from tests.support import PATIENCE, server_context

from .stepping import attempts, echo, nothing_left, working
from .support import until
from .test_streams import tcp

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Self

    from gearman_sync.testing import Peer, ScriptedServer

    StartServer = Callable[..., ScriptedServer]

pytestmark = pytest.mark.anyio


class Reader:
    """A reader that uses a stream as the driver does."""

    def __init__(self, stream: Plain) -> None:
        self.data = b""
        self.has_ended = False
        self._stream = stream

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        if isinstance(self._stream, PlainOnAsyncio):
            self._stream.watch(self._readable)
        else:
            self._tasks.start_soon(self._read)
        return self

    async def __aexit__(self, *args: object) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        await self._stream.aclose()

    async def expect(self, data: bytes) -> None:
        """Wait until exactly this data has been received."""
        await until(lambda: self.data == data, f"{data!r}")

    def _readable(self) -> None:
        assert isinstance(self._stream, PlainOnAsyncio)
        data = self._stream.receive_now(100_000)
        self.data += data
        if not data:
            self.has_ended = True
            self._stream.unwatch()

    async def _read(self) -> None:
        try:
            while True:
                self.data += await self._stream.receive(100_000)
        except anyio.EndOfStream:
            self.has_ended = True


async def opened(server: Any) -> Plain:
    """Connect to `server` with a stream of our own."""
    link: Any = types.SimpleNamespace(address=ServerAddress(*server.address))
    stream = await make_opener([link.address], None)(link, PATIENCE)
    assert isinstance(stream, Plain)
    return stream


# Choice of the stream.


def plains(client: gearman.GearmanClient) -> list[bool]:
    """Return for each connection whether its stream is our own."""
    return [wire.plain is not None for wire in client._gm_driver._wires.values()]


async def test_own_streams_are_used_for_plain_tcp_only(
    server: Any, tls_certificates: Any, tls_context: ssl.SSLContext
) -> None:
    """Streams of the application and streams with TLS are anyio's."""
    async with gearman.GearmanClient([server.address]) as client:
        await client.submit_job("t", b"", background=True)
        assert plains(client) == [True]
    async with gearman.GearmanClient([server.address], connect=tcp) as client:
        await client.submit_job("t", b"", background=True)
        assert plains(client) == [False]
    async with gearman.JobServer(ssl_context=server_context(tls_certificates)) as secure:
        hosts = [("localhost", secure.address.port)]
        async with gearman.GearmanClient(hosts, ssl_context=tls_context) as client:
            await client.submit_job("t", b"", background=True)
            assert plains(client) == [False]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_own_streams_are_not_used_with_other_asyncio_loops(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loops other than asyncio's selector loop use anyio's streams."""
    monkeypatch.setattr(asyncio, "SelectorEventLoop", type("Selector", (), {}))
    async with gearman.GearmanClient([server.address]) as client:
        await client.submit_job("t", b"", background=True)
        assert plains(client) == [False]


# The streams.


async def test_connecting_is_cancelled(server: Any) -> None:
    async def connect() -> None:
        await (await opened(server)).aclose()

    for attempt in attempts(2):
        async with nothing_left():
            await attempt(connect())


async def test_connecting_is_cancelled_natively(server: Any, anyio_backend: str) -> None:
    if anyio_backend != "asyncio":
        pytest.skip("there is none")

    async def connect() -> None:
        await (await opened(server)).aclose()

    for attempt in attempts(2):
        async with nothing_left():
            await attempt.native(connect())


async def test_data_sent_by_the_server_first_is_received(start_server: StartServer) -> None:
    """No data is lost when our stream takes the socket over."""

    def script(peer: Peer) -> None:
        peer.send_raw(b"welcome")
        peer.hold()

    server = start_server(script)
    for _ in range(50):
        async with Reader(await opened(server)) as reader:
            await reader.expect(b"welcome")


async def test_rest_of_a_partial_write_is_sent_once(start_server: StartServer) -> None:
    """`send_now` returns the unsent rest. No data is lost or sent twice."""
    received = bytearray()
    begun, ended = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        begun.wait(PATIENCE)
        while data := peer.sock.recv(1_000_000):
            received.extend(data)
        ended.set()

    server = start_server(script, receive_buffer=4096)
    data = bytes(range(256)) * 40_000
    stream: Any = await opened(server)
    rest = stream.send_now(data)
    assert 0 < len(rest) < len(data)
    begun.set()
    with anyio.fail_after(PATIENCE):
        await stream.send(rest)
    await stream.aclose()
    await until(ended.is_set, "the end")
    assert received == data


async def test_lost_connection_is_reported_by_send_and_receive(start_server: StartServer) -> None:
    """`send_now` does not report the loss. Sending the rest and receiving do."""
    server = start_server(lambda peer: peer.sock.recv(1))
    stream = await opened(server)
    assert stream.send_now(b"x") == b""
    async with Reader(stream) as reader:
        await until(lambda: reader.has_ended, "the end")
        await until(lambda: stream.send_now(b"more") == b"more", "a failure")
        with pytest.raises(OSError, match=r"[Pp]ipe|reset"):
            await stream.send(b"more")
    # A second close has no effect.
    await stream.aclose()


# Immediate writes.


class Counted:
    """Counters of the immediate and the deferred writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at_once = self.later = 0
        send_now = Plain.send_now

        def count_now(stream: Plain, data: bytes) -> Any:
            self.at_once += 1
            return send_now(stream, data)

        monkeypatch.setattr(Plain, "send_now", count_now)
        for kind in Plain.__subclasses__():
            monkeypatch.setattr(kind, "send", self._counting(kind.send))

    def _counting(self, send: Callable[..., Any]) -> Callable[..., Any]:
        async def count(stream: Plain, data: bytes) -> None:
            self.later += 1
            await send(stream, data)

        return count

    def take(self) -> tuple[int, int]:
        """Return and reset both counts."""
        counts = self.at_once, self.later
        self.at_once = self.later = 0
        return counts


async def test_sequential_submits_are_written_immediately(
    server: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each submit is written in the task of its call."""
    async with gearman.GearmanClient([server.address]) as client:
        await client.submit_job(task, b"first", background=True)
        counted = Counted(monkeypatch)
        for number in range(10):
            await client.submit_job(task, b"%d" % number, background=True)
        assert counted.take() == (10, 0)


async def test_concurrent_submits_share_one_write(
    server: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first submit is written immediately, and all others in one write."""
    async with gearman.GearmanClient([server.address]) as client:
        await client.submit_job(task, b"first", background=True)
        counted = Counted(monkeypatch)
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                call = functools.partial(client.submit_job, task, b"%d" % number, background=True)
                tasks.start_soon(call)
        assert counted.take() == (1, 1)


async def test_rest_of_a_large_packet_is_sent_before_the_next(server: Any, task: str) -> None:
    """The packet's unsent rest goes out before any other packet."""
    async with (
        working(server, {task: echo}),
        gearman.GearmanClient([server.address]) as client,
    ):
        await client.submit_job(task, b"first")
        for size in (1_000, 300_000, 5_000_000):
            data = bytes(range(250)) * (size // 250)
            jobs = [{"task": task, "data": data}, {"task": task, "data": b"small"}]
            requests = await client.submit_multiple_jobs(jobs, poll_timeout=PATIENCE)
            assert [request.result for request in requests] == [data, b"small"]


async def test_rest_of_a_small_partial_write_is_sent_before_the_next(
    server: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No packet is sent before the rest, even if data was received meanwhile."""
    send_now = Plain.send_now

    def send_some(stream: Plain, data: bytes) -> bytes:
        assert send_now(stream, data[:7]) == b""
        (wire,) = client._gm_driver._wires.values()
        wire.is_answered = True
        return data[7:]

    async with (
        working(server, {task: echo}),
        gearman.GearmanClient([server.address]) as client,
    ):
        await client.submit_job(task, b"first")
        monkeypatch.setattr(Plain, "send_now", send_some)
        words = [b"%d" % number for number in range(20)]
        requests = [
            make_requests([{"task": task, "data": word}], background=False, max_retries=0)
            for word in words
        ]
        with anyio.fail_after(PATIENCE):
            for one in requests[:5]:
                await client.submit_multiple_requests(one)
            async with anyio.create_task_group() as tasks:
                for one in requests[5:]:
                    tasks.start_soon(client.submit_multiple_requests, one)
        assert [request.result for (request,) in requests] == words
        monkeypatch.undo()


# Errors outside of tasks, and interrupted operations.


def test_lost_connection_is_reopened_in_a_loop_not_run_by_anyio(
    start_server: StartServer, anyio_backend: str, kind_of_stream: str
) -> None:
    """The client reconnects at once, although anyio has not started the event loop."""

    def script(peer: Peer) -> None:
        peer.expect(SubmitJobBg)
        if len(server.peers) > 1:
            peer.send(JobCreated(b"H:1"))
            peer.hold()

    async def main() -> None:
        with anyio.fail_after(PATIENCE):
            async with gearman.GearmanClient([server.address]) as client:
                request = await client.submit_job("t", b"", background=True, max_retries=2)
                assert request.state == gearman.JOB_CREATED
                assert request.connection_attempts == 2

    server = start_server(script)
    if anyio_backend == "trio":
        trio.run(main)
    else:
        asyncio.run(main())


@pytest.mark.parametrize("where", ["taken", "half written"])
async def test_signal_during_a_write_raises_in_the_caller(
    where: str, server: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal's exception reaches the caller. Calls that wait for lost requests end."""
    send_now = Plain.send_now

    def interrupted(stream: Plain, data: bytes) -> Any:
        monkeypatch.setattr(Plain, "send_now", send_now)
        if where == "half written":
            send_now(stream, data[: len(data) // 2])
        raise KeyboardInterrupt

    async def wait_for(client: gearman.GearmanClient) -> None:
        with pytest.raises(ConnectionError, match="interrupted by"):
            await client.submit_multiple_requests(requests)

    requests = make_requests([{"task": task, "data": b""}], background=False, max_retries=0)
    with anyio.fail_after(PATIENCE):
        async with gearman.GearmanClient([server.address]) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait_for, client)
                await until(lambda: requests[0].state == gearman.JOB_CREATED, "the first")
                monkeypatch.setattr(Plain, "send_now", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    await client.submit_job(task, b"second", background=True)
            assert (await client.submit_job(task, b"third", background=True)).complete


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_signal_during_a_read_ends_waiting_calls(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's exception handler gets the exception. Calls that wait for lost data end."""

    def script(peer: Peer) -> None:
        peer.expect(SubmitJob)
        peer.send(JobCreated(b"H:1"))
        peer.hold()

    def interrupted(driver: Any, *args: Any) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    server = start_server(script)
    with anyio.fail_after(PATIENCE):
        async with gearman.GearmanClient([server.address]) as client:
            monkeypatch.setattr(Driver, "_received", interrupted)
            with pytest.raises(ConnectionError, match="interrupted by ZeroDivisionError"):
                await client.submit_job("t", b"")
            request = await client.submit_job("t", b"", wait_until_complete=False)
            assert request.state == gearman.JOB_CREATED
    (context,) = told
    assert isinstance(context["exception"], ZeroDivisionError)
    asyncio.get_running_loop().set_exception_handler(None)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_end_of_connection_is_reported_once(start_server: StartServer) -> None:
    """The engine keeps the connection open after the end."""

    def script(peer: Peer) -> None:
        peer.expect(SubmitJobBg)
        peer.send(JobCreated(b"H:1"))

    ends: list[Any] = []
    server = start_server(script)
    async with gearman.GearmanClient([server.address]) as client:
        client._gm_driver.engine.receive_eof = lambda link, now: ends.append(link)
        await client.submit_job("t", b"", background=True)
        await until(lambda: ends, "the end")
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(ends) == 1
        (wire,) = client._gm_driver._wires.values()
        assert wire.plain is not None


async def test_driver_closed_in_the_step_that_connects_opens_nothing(server: Any) -> None:
    """The connection is requested and cancelled in the same step."""
    async with nothing_left(), gearman.GearmanClient([server.address]) as client:
        driver = client._gm_driver
        (it,) = client.connection_list
        async with nothing_left():
            with driver.start(ClientEngine.connect, it):
                driver.close()
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert not driver._wires


async def test_own_stream_survives_an_anyio_that_shuts_sockets_down(
    start_server: StartServer, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our stream works even if anyio's `aclose` shuts the socket down, as old versions did."""
    if anyio_backend != "asyncio":
        pytest.skip("trio's streams close their socket, and no more")
    from anyio._backends._asyncio import SocketStream

    real = SocketStream.aclose

    async def aclose(self: SocketStream) -> None:
        if not self._transport.is_closing():
            self._transport.write_eof()
        await real(self)

    monkeypatch.setattr(SocketStream, "aclose", aclose)
    server = start_server(lambda peer: peer.send_raw(peer.sock.recv(100)))
    stream = await opened(server)
    async with Reader(stream) as reader:
        await stream.send(b"hello")
        await reader.expect(b"hello")
