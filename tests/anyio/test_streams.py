"""Streams: those of the application (`connect=`), TCP with name resolution, and failures."""

from __future__ import annotations

import asyncio
import math
import random
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import ByteStream

import gearman_anyio as gearman
from gearman_anyio._streams import pipe
from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    ServerUnavailable,
)
from gearman_proto.wire.packets import JobCreated, SubmitJobBg
from tests.support import PATIENCE, black_hole, free_port, has_address, resolve_to, wait_for

from .stepping import open_sockets
from .support import no_more_threads, reverse, until, working

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gearman_proto import ServerAddress
    from gearman_sync.testing import Peer, ScriptedServer

    Connect = Callable[[Any], Awaitable[ByteStream]]
    StartServer = Callable[..., ScriptedServer]

pytestmark = pytest.mark.anyio


# Streams of the application.


class Tunnel(ByteStream):
    """A stream that wraps another one and counts operations. It has no socket."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.address: ServerAddress | None = None
        self.sent = self.received = self.closings = 0

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = await self.stream.receive(max_bytes)
        self.received += len(data)
        return data

    async def send(self, item: bytes) -> None:
        self.sent += len(item)
        await self.stream.send(item)

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def aclose(self) -> None:
        self.closings += 1
        await self.stream.aclose()


class RandomTunnel(Tunnel):
    """A tunnel that randomly splits and merges the data in both directions."""

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self._random = random.Random(1)
        self._held = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self._held or self._random.random() < 0.3:
            with anyio.move_on_after(0 if self._held else math.inf):
                self._held += await super().receive(max_bytes)
        size = self._random.choice((1, 3, 11, 12, 13, 100, 70_000))
        data, self._held = self._held[:size], self._held[size:]
        return data

    async def send(self, item: bytes) -> None:
        while item:
            size = self._random.choice((1, 3, 11, 12, 13, 100, 70_000))
            await super().send(item[:size])
            item = item[size:]


class Tunnels:
    """A connector that keeps a list of its streams."""

    def __init__(self, connect: Connect, kind: Callable[[ByteStream], Tunnel] = Tunnel) -> None:
        self.made: list[Tunnel] = []
        self.addresses: list[ServerAddress] = []
        self._connect = connect
        self._kind = kind

    async def __call__(self, address: ServerAddress) -> ByteStream:
        self.addresses.append(address)
        stream = self._kind(await self._connect(address))
        stream.address = address
        self.made.append(stream)
        return stream

    def check(self, count: int) -> None:
        """Check that `count` streams were opened and each was closed once."""
        assert [stream.closings for stream in self.made] == [1] * count


async def tcp(address: ServerAddress) -> ByteStream:
    return await anyio.connect_tcp(address.host, address.port)


async def test_streams_of_the_application_carry_jobs_and_results(server: Any) -> None:
    tunnels = Tunnels(tcp, RandomTunnel)
    async with (
        working(server.address, tasks={"reverse": reverse}, connect=tunnels),
        gearman.GearmanClient([server.address], connect=tunnels) as client,
    ):
        data = [random.Random(number).randbytes(100_000) for number in range(5)]
        jobs = [{"task": "reverse", "data": some} for some in data]
        requests = await client.submit_multiple_jobs(jobs)
        assert [request.result for request in requests] == [some[::-1] for some in data]
    tunnels.check(2)
    assert [str(address) for address in tunnels.addresses] == [str(server.address)] * 2
    assert all(min(tunnel.sent, tunnel.received) > 500_000 for tunnel in tunnels.made)


async def test_connect_returns_a_stream_although_it_was_cancelled() -> None:
    """The client closes a stream that it gets after the cancellation."""

    async def late(address: ServerAddress) -> ByteStream:
        made = []
        with anyio.CancelScope(shield=True):
            await too_late.wait()
            made.append(await server.connect())
        return made[0]

    too_late = anyio.Event()
    async with gearman.JobServer() as server:
        tunnels = Tunnels(late)
        async with gearman.GearmanClient(["bad"], connect=tunnels, connect_timeout=0.02) as client:
            with pytest.raises(ServerUnavailable, match="within"):
                await client.submit_job("reverse", b"hello")
            too_late.set()
        tunnels.check(1)


@pytest.mark.parametrize("how", ["left", "shutdown", "cancelled", "lost"])
async def test_each_stream_is_closed_once(how: str) -> None:
    async with gearman.JobServer() as server:
        tunnels = Tunnels(server.connect)
        with anyio.CancelScope() as scope:
            async with gearman.GearmanClient(["a", "b"], connect=tunnels) as client:
                for each in client.connection_list:
                    await client.establish_connection(each)
                request = await client.submit_job("t", b"", wait_until_complete=False)
                if how == "shutdown":
                    await client.shutdown()
                elif how == "lost":
                    await server.stop()
                    await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
                elif how == "cancelled":
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
        # Closing the client leaves the request's state unchanged.
        expected = gearman.JOB_UNKNOWN if how == "lost" else gearman.JOB_CREATED
        assert request.state == expected
        tunnels.check(2)


async def test_server_closes_each_handled_stream_once() -> None:
    class Seen(gearman.JobServer):
        async def handle(self, stream: ByteStream) -> None:
            seen.append(Tunnel(stream))
            await super().handle(seen[-1])

    seen: list[Tunnel] = []
    async with Seen() as server:
        for connect in (None, server.connect):
            async with gearman.GearmanClient([server.address], connect=connect) as client:
                assert (await client.submit_job("t", b"", background=True)).complete
        await until(lambda: all(tunnel.closings for tunnel in seen), "the end of connections")
        async with gearman.GearmanClient(connect=server.connect) as client:
            assert (await client.submit_job("t", b"", background=True)).complete
            await server.stop()
            await server.wait()
    assert [tunnel.closings for tunnel in seen] == [1, 1, 1]


# Failing streams.


class Odd(Exception):
    """An exception of an unknown class, without a message."""


FAILURES: list[tuple[Callable[[], BaseException], str]] = [
    (lambda: OSError("no tunnel"), "no tunnel"),
    (lambda: ValueError("strange"), "strange"),
    (Odd, "Odd"),
    (anyio.BrokenResourceError, "BrokenResourceError"),
    (anyio.ClosedResourceError, "ClosedResourceError"),
    (anyio.EndOfStream, "closed"),
    (lambda: because(anyio.BrokenResourceError(), OSError(5, "bad wire")), "bad wire"),
    (lambda: ExceptionGroup("several", [OSError("one"), OSError("two")]), "several"),
    (lambda: because(Odd(), ExceptionGroup("many", [OSError("one"), Odd()])), "one; Odd"),
    # On asyncio, a stream may await a future that is cancelled.
    (asyncio.CancelledError, "the stream was cancelled"),
]


def because(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class FailingTunnel(Tunnel):
    """A stream that raises a given exception on request."""

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self.scope = anyio.CancelScope()
        self.receive_error: BaseException | None = None
        self.send_error: BaseException | None = None
        self.close_error: Exception | None = None

    def fail(self, error: BaseException) -> None:
        """Make `receive` fail."""
        self.receive_error = error
        self.scope.cancel()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = b""
        if self.receive_error is None:
            with anyio.CancelScope() as self.scope:
                data = await super().receive(max_bytes)
        if self.receive_error is not None:
            raise self.receive_error
        return data

    async def send(self, item: bytes) -> None:
        if self.send_error is not None:
            raise self.send_error
        await super().send(item)

    async def aclose(self) -> None:
        await super().aclose()
        if self.close_error is not None:
            raise self.close_error


@pytest.mark.parametrize("where", ["connect", "receive", "send", "both", "receive later"])
@pytest.mark.parametrize("failure", FAILURES, ids=[text for _, text in FAILURES])
async def test_stream_that_fails_is_closed_and_its_error_is_shown(
    where: str, failure: tuple[Callable[[], BaseException], str], anyio_backend: str
) -> None:
    """The next call gets another stream."""
    make, text = failure
    if anyio_backend == "trio" and isinstance(make(), asyncio.CancelledError):
        pytest.skip("this is asyncio's")

    async def connect(address: ServerAddress) -> ByteStream:
        if where == "connect" and is_bad:
            if len(tunnels.addresses) % 2:
                await anyio.lowlevel.checkpoint()
            raise make()
        return await server.connect()

    def failing(stream: ByteStream) -> Tunnel:
        tunnel = FailingTunnel(stream)
        if where in ("receive", "both") and is_bad:
            tunnel.fail(make())
        if where in ("send", "both") and is_bad:
            tunnel.send_error = make()
        return tunnel

    is_bad = True
    async with gearman.JobServer() as server:
        tunnels = Tunnels(connect, failing)
        async with gearman.GearmanClient(["bad"], connect=tunnels) as client:
            (it,) = client.connection_list
            if where == "receive later":
                request = await client.submit_job("reverse", b"", wait_until_complete=False)
                tunnels.made[0].fail(make())  # type: ignore[attr-defined]
                await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
                assert (request.state, request.timed_out) == (gearman.JOB_UNKNOWN, False)
                assert text in str(it.error)
            else:
                error = ServerUnavailable if where == "connect" else ExceededConnectionAttempts
                for _ in range(2):
                    with pytest.raises(error, match=rf"bad:4730 \(.*{text}"):
                        await client.submit_job("reverse", b"hello")
                if where == "connect":
                    with pytest.raises(ConnectionError, match=rf"bad:4730: .*{text}"):
                        await client.establish_connection(it)
            is_bad = False
            assert (await client.submit_job("reverse", b"", background=True)).complete
    tunnels.check(1 if where == "connect" else 2 if where == "receive later" else 3)


async def test_refusal_of_a_connection_is_named_in_the_error() -> None:
    """asyncio's own message has no reason."""
    address = ("127.0.0.1", free_port())
    async with gearman.GearmanClient([address], connect=tcp) as client:
        with pytest.raises(ServerUnavailable, match="refused"):
            await client.submit_job("reverse", b"hello")


async def test_connector_that_returns_no_stream_is_an_error() -> None:
    async def connect(address: ServerAddress) -> Any:
        return None

    async with gearman.GearmanClient(["bad"], connect=connect) as client:
        with pytest.raises(ServerUnavailable, match="NoneType"):
            await client.submit_job("reverse", b"hello")


async def test_error_of_closing_a_stream_is_logged(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The first stream is lost, and the second one is closed by the client."""

    def failing(stream: ByteStream) -> Tunnel:
        tunnel = FailingTunnel(stream)
        tunnel.close_error = ValueError("it does not close")
        return tunnel

    tunnels = Tunnels(server.connect, failing)
    async with gearman.GearmanClient(["odd"], connect=tunnels) as client:
        await client.submit_job("reverse", b"hello", background=True)
        tunnels.made[0].fail(OSError("no more"))  # type: ignore[attr-defined]
        await client.submit_job("reverse", b"again", background=True)
    tunnels.check(2)
    messages = [record.getMessage() for record in caplog.records if record.name == "gearman"]
    assert ["it does not close" in message for message in messages] == [True, True]


async def test_stream_that_does_not_finish_closing_does_not_delay_the_exit(server: Any) -> None:
    class Sticky(Tunnel):
        async def aclose(self) -> None:
            await super().aclose()
            await anyio.sleep_forever()

    tunnels = Tunnels(server.connect, Sticky)
    async with gearman.GearmanClient(["odd"], connect=tunnels) as client:
        await client.submit_job("reverse", b"hello", background=True)
    tunnels.check(1)


# Connections that end between two calls.


@pytest.mark.both_streams
@pytest.mark.parametrize("how", ["closed", "reset", "half closed"])
async def test_job_after_the_end_of_a_connection_is_sent_on_the_next(
    start_server: StartServer, how: str
) -> None:
    """The loop has not run since the end."""
    go, ended = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.expect(SubmitJobBg)
        peer.send(JobCreated(b"H:1"))
        wait_for(go)
        go.clear()
        if how == "reset":
            peer.reset()
        elif how == "half closed":
            peer.sock.shutdown(socket.SHUT_WR)
        else:
            peer.sock.close()
        ended.set()
        if how == "half closed":
            peer.sock.recv(1)  # Keep the socket open until the client has closed it.

    server = start_server(script)
    async with gearman.GearmanClient([server.address]) as client:
        for number in range(10):
            request = await client.submit_job("task", b"%d" % number, background=True)
            assert request.connection_attempts == 1
            (wire,) = client._gm_driver._wires.values()
            go.set()
            wait_for(ended)
            ended.clear()
            # The kernel may deliver the end later.
            assert select.select([wire.sock], [], [], PATIENCE)[0], "the end did not come"
    data = [event.data for event in server.events if isinstance(event, SubmitJobBg)]
    assert data == [b"%d" % number for number in range(10)]


async def test_job_after_the_end_of_a_connection_in_memory_is_sent_on_the_next(server: Any) -> None:
    async def connect(address: Any) -> ByteStream:
        near, far = pipe()
        fars.append(far)
        tasks.start_soon(server.handle, far)
        return near

    fars: list[Any] = []
    async with anyio.create_task_group() as tasks:
        tunnels = Tunnels(connect)
        async with gearman.GearmanClient(["memory"], connect=tunnels) as client:
            for _ in range(10):
                request = await client.submit_job("t", b"", background=True)
                assert request.complete
                assert request.connection_attempts == 1
                # The event loop does not run between this and the next call.
                fars[-1]._chunks.send_stream.close()
        tunnels.check(10)


# TCP: host names and their addresses.


needs_loopbacks = pytest.mark.skipif(
    not has_address("127.0.0.2"), reason="there is only one loopback"
)


@needs_loopbacks
@pytest.mark.both_streams
async def test_attempts_that_lose_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole() as (dead, port):
        before = open_sockets()
        resolve_to(monkeypatch, "gearman.test", dead, dead, "127.0.0.2", "127.0.0.3")
        async with (
            gearman.JobServer("127.0.0.2", port),
            gearman.GearmanClient([("gearman.test", port)], connect_timeout=PATIENCE) as client,
        ):
            await client.submit_job("queue", b"", background=True)
            # Two sockets of the server and one of the client.
            await until(lambda: len(open_sockets() - before) == 3, "the end of the attempts")


async def test_resolver_without_a_thread_fails_its_connection_only(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gearman.GearmanClient(["gearman.test", server.address]) as client:
        slow, good = client.connection_list
        await client.establish_connection(good)
        with no_more_threads(monkeypatch):
            with pytest.raises(ConnectionError, match="can't start new thread"):
                await client.establish_connection(slow)
            assert (await client.submit_job("queue", b"", background=True)).complete
