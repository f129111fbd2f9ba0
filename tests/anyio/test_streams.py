"""Streams: those of the application (`connect=`), TCP with name resolution, and failures."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import ByteStream

import gearman_anyio as gearman
from gearman_anyio import _sockets
from gearman_proto.errors import ConnectionError, ExceededConnectionAttempts, ServerUnavailable
from gearman_proto.jobs.submitting import make_requests
from gearman_proto.wire.packets import JobCreated, SubmitJob, WorkComplete, WorkData
from tests.support import PATIENCE, black_hole, free_port, has_address, resolve_to, wait_for

from .conftest import open_sockets
from .support import no_more_threads, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gearman_proto import ServerAddress
    from gearman_sync.testing import Peer, ScriptedServer

    Connect = Callable[[Any], Awaitable[ByteStream]]

pytestmark = pytest.mark.anyio


async def reverse(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    """Return the job's data reversed."""
    data: bytes = job.data
    return data[::-1]


@contextlib.asynccontextmanager
async def working(
    *hosts: Any, task: str = "reverse", callback: Any = reverse, **kwargs: Any
) -> AsyncIterator[gearman.GearmanWorker]:
    """Run a worker in a task during the block."""
    worker = gearman.GearmanWorker(list(hosts), **kwargs)
    worker.register_task(task, callback)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.work)
        yield worker
        worker.stop()


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


class OneByteTunnel(Tunnel):
    """A tunnel that transfers one byte at a time in both directions."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await super().receive(1)

    async def send(self, item: bytes) -> None:
        for byte in item:
            await super().send(bytes([byte]))


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


@pytest.mark.parametrize(
    ("kind", "inner"), [(Tunnel, "TCP"), (OneByteTunnel, "memory"), (RandomTunnel, "TCP")]
)
async def test_tunnel(kind: type[Tunnel], inner: str) -> None:
    async with gearman.JobServer() as server:
        tunnels = Tunnels(server.connect if inner == "memory" else tcp, kind)
        async with (
            working(server.address, connect=tunnels),
            gearman.GearmanClient([server.address], connect=tunnels) as client,
        ):
            size = 300 if kind is OneByteTunnel else 100_000
            data = [random.Random(number).randbytes(size) for number in range(5)]
            requests = await client.submit_multiple_jobs(
                [{"task": "reverse", "data": some} for some in data]
            )
            assert [request.result for request in requests] == [some[::-1] for some in data]
        tunnels.check(2)
        for tunnel in tunnels.made:
            assert tunnel.sent > 5 * size
            assert tunnel.received > 5 * size


async def test_connect_gets_the_address_each_time() -> None:
    async with gearman.JobServer() as first, gearman.JobServer() as second:
        tunnels = Tunnels(tcp)
        hosts = [first.address, second.address]
        async with gearman.GearmanClient(hosts, connect=tunnels) as client:
            for server in client.connection_list:
                await client.establish_connection(server)
            assert [str(address) for address in tunnels.addresses] == [str(h) for h in hosts]
            await first.stop()
            again = client.connection_list[0]
            await until(lambda: not again.connected, "the loss of a connection")
            with pytest.raises(ConnectionError, match="refused"):
                await client.establish_connection(again)
            assert [a.port for a in tunnels.addresses] == [*[h.port for h in hosts], hosts[0].port]
        tunnels.check(2)


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
# An OSError, the end of the stream, an error with a cause, and a cancelled asyncio future.
some_failures = pytest.mark.parametrize("failure", [0, 5, 6, 9], indirect=True)


def because(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.fixture(params=range(len(FAILURES)), ids=[text for _, text in FAILURES])
def failure(
    request: pytest.FixtureRequest, anyio_backend: str
) -> tuple[Callable[[], BaseException], str]:
    """An exception raised by a stream, and the expected error message."""
    make, text = FAILURES[request.param]
    if anyio_backend == "trio" and isinstance(make(), asyncio.CancelledError):
        pytest.skip("this is asyncio's")
    return make, text


async def test_connect_raises(failure: tuple[Callable[[], BaseException], str]) -> None:
    make, text = failure
    calls = 0

    async def connect(address: ServerAddress) -> ByteStream:
        nonlocal calls
        if address.host == "good":
            return await server.connect()
        calls += 1
        if calls % 2:
            await anyio.lowlevel.checkpoint()
        raise make()

    async with gearman.JobServer() as server:
        async with gearman.GearmanClient(["bad"], connect=connect) as client:
            for _ in range(4):
                with pytest.raises(ServerUnavailable, match=rf"bad:4730 \(.*{text}") as caught:
                    await client.submit_job("reverse", b"hello")
                (request,) = caught.value.job_requests
                assert request.state == gearman.JOB_UNKNOWN
            with pytest.raises(ConnectionError, match=rf"bad:4730: .*{text}"):
                await client.establish_connection(client.connection_list[0])
        assert calls == 5
        async with gearman.GearmanClient(["bad", "good"], connect=connect) as client:
            requests = await client.submit_multiple_jobs(
                [{"task": "reverse", "data": b"hello"}] * 10, background=True
            )
            assert all(request.state == gearman.JOB_CREATED for request in requests)
            assert [server.connected for server in client.connection_list] == [False, True]


async def test_connect_returns_no_stream() -> None:
    async def connect(address: ServerAddress) -> Any:
        return None

    async with gearman.GearmanClient(["bad"], connect=connect) as client:
        with pytest.raises(ServerUnavailable, match="NoneType"):
            await client.submit_job("reverse", b"hello")


class Endless:
    """A connector that never returns. It has events for its call and its cancellation."""

    def __init__(self, connect: Connect | None = None) -> None:
        self.called = anyio.Event()
        self.open = anyio.Event()
        self.cancelled = 0
        self._connect = connect

    async def __call__(self, address: ServerAddress) -> ByteStream:
        self.called.set()
        try:
            await self.open.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        assert self._connect is not None
        return await self._connect(address)


async def test_connect_never_returns() -> None:
    connect = Endless()
    async with gearman.GearmanClient(["bad"], connect=connect, connect_timeout=0.05) as client:
        before = anyio.current_time()
        with pytest.raises(ServerUnavailable, match=r"no connection within 0\.05 seconds"):
            await client.submit_job("reverse", b"hello")
        assert anyio.current_time() - before >= 0.05
        await until(lambda: connect.cancelled == 1, "the end of connecting")


async def test_connect_takes_long() -> None:
    async with gearman.JobServer() as server, working(server.address):
        connect = Endless(server.connect)
        async with gearman.GearmanClient(["slow"], connect=connect) as client:
            request = await client.submit_job("reverse", b"hello", poll_timeout=0.01)
            assert request.timed_out
            assert request.state == gearman.JOB_PENDING
            with anyio.move_on_after(0.01) as scope:
                await client.wait_until_jobs_completed([request])
            assert scope.cancelled_caught
            connect.open.set()
            await client.wait_until_jobs_completed([request])
            assert request.result == b"olleh"
        assert connect.cancelled == 0


@pytest.mark.parametrize("how", ["left", "shutdown", "cancelled"])
async def test_end_while_connecting(how: str) -> None:
    connect = Endless()
    requests = make_requests([{"task": "reverse", "data": b""}], background=False, max_retries=0)
    errors: list[Exception] = []

    async def submit(client: gearman.GearmanClient) -> None:
        try:
            await client.submit_multiple_requests(requests)
        except ServerUnavailable as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with gearman.GearmanClient(["bad"], connect=connect) as client:
                tasks.start_soon(submit, client)
                await connect.called.wait()
                if how == "shutdown":
                    await client.shutdown()
                elif how == "cancelled":
                    scope.cancel()
                    await anyio.lowlevel.checkpoint()
        assert connect.cancelled == 1
    assert requests[0].state == gearman.JOB_UNKNOWN
    assert [str(error) for error in errors] == ["the client was shut down"]


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


# Failing streams.


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


@some_failures
@pytest.mark.parametrize("where", ["receive", "send"])
async def test_stream_fails(failure: tuple[Callable[[], BaseException], str], where: str) -> None:
    """Only requests at the failed stream's server are lost."""
    make, text = failure
    async with gearman.JobServer() as one, gearman.JobServer() as two:
        tunnels = Tunnels(tcp, FailingTunnel)
        hosts = [one.address, two.address]
        async with gearman.GearmanClient(hosts, connect=tunnels) as client:
            jobs = [{"task": "reverse", "data": b"%d" % number} for number in range(20)]
            requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
            bad = client.connection_list[0]
            (tunnel,) = [made for made in tunnels.made if made.address == bad.address]
            at_bad = [request for request in requests if request.connection == bad.address]
            at_good = [request for request in requests if request.connection != bad.address]
            assert len(at_bad) == len(at_good) == 10
            assert isinstance(tunnel, FailingTunnel)
            if where == "receive":
                tunnel.fail(make())
            else:
                tunnel.send_error = make()
                # The next call notices the failure and repeats its own request.
                assert (await client.get_job_status(at_bad[0], poll_timeout=PATIENCE)).status
            await client.wait_until_jobs_completed(at_bad, poll_timeout=PATIENCE)
            assert {request.state for request in at_bad} == {gearman.JOB_UNKNOWN}
            assert not any(request.timed_out for request in at_bad)
            assert {request.state for request in at_good} == {gearman.JOB_CREATED}
            assert bad.connected == (where == "send")
            assert where == "send" or text in str(bad.error)
            async with working(two.address):
                await client.wait_until_jobs_completed(at_good, poll_timeout=PATIENCE)
            assert [r.result for r in at_good] == [r.job.data[::-1] for r in at_good]
    assert all(stream.closings == 1 for stream in tunnels.made)


@some_failures
@pytest.mark.parametrize("where", ["receive", "send"])
async def test_stream_fails_at_once(
    failure: tuple[Callable[[], BaseException], str], where: str
) -> None:
    make, text = failure

    def failing(stream: ByteStream) -> Tunnel:
        tunnel = FailingTunnel(stream)
        if where == "receive":
            tunnel.fail(make())
        else:
            tunnel.send_error = make()
        return tunnel

    async with gearman.JobServer() as server:
        tunnels = Tunnels(server.connect, failing)
        async with gearman.GearmanClient(["bad"], connect=tunnels) as client:
            with pytest.raises(ExceededConnectionAttempts, match=f"tried 2 times.*{text}"):
                # A second retry would wait for the end of the server's cooldown.
                await client.submit_job("reverse", b"hello", max_retries=1)
            with pytest.raises(ServerUnavailable, match=f"bad:4730 did not answer: .*{text}"):
                await client.get_job_status(gearman.GearmanJobRequest.from_handle("H:1"))
        tunnels.check(4)


@pytest.mark.parametrize("how", ["left", "lost", "failed"])
async def test_closing_raises(how: str, caplog: pytest.LogCaptureFixture) -> None:
    def failing(stream: ByteStream) -> Tunnel:
        tunnel = FailingTunnel(stream)
        tunnel.close_error = ValueError("it does not close")
        return tunnel

    async with gearman.JobServer() as server, working(server.address):
        tunnels = Tunnels(server.connect, failing)
        async with gearman.GearmanClient(["odd"], connect=tunnels) as client:
            assert (await client.submit_job("reverse", b"hello")).complete
            if how != "left":
                (tunnel,) = tunnels.made
                assert isinstance(tunnel, FailingTunnel)
                if how == "lost":
                    await tunnel.stream.aclose()
                    tunnel.fail(anyio.EndOfStream())
                else:
                    tunnel.fail(OSError("no more"))
                assert (await client.submit_job("reverse", b"again")).result == b"niaga"
        tunnels.check(1 if how == "left" else 2)
    messages = [record.getMessage() for record in caplog.records if record.name == "gearman"]
    assert len(messages) == len(tunnels.made)
    assert all("it does not close" in message for message in messages)


async def test_closing_takes_for_ever() -> None:
    class Sticky(Tunnel):
        async def aclose(self) -> None:
            await super().aclose()
            await anyio.sleep_forever()

    async with gearman.JobServer() as server, working(server.address):
        tunnels = Tunnels(server.connect, Sticky)
        async with gearman.GearmanClient(["odd"], connect=tunnels) as client:
            assert (await client.submit_job("reverse", b"hello")).complete
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
            tunnel = Tunnel(stream)
            seen.append(tunnel)
            await super().handle(tunnel)

    seen: list[Tunnel] = []
    async with Seen() as server:
        for connect in (None, server.connect):
            async with gearman.GearmanClient([server.address], connect=connect) as client:
                assert (await client.submit_job("t", b"", background=True)).complete
        await until(lambda: all(tunnel.closings for tunnel in seen), "the end of connections")
        stream = await server.connect()
        await stream.send(b"version\n")
        assert (await stream.receive()).startswith(b"OK ")
    assert [tunnel.closings for tunnel in seen] == [1, 1, 1]
    await stream.aclose()


# TCP: host names and their addresses.


needs_loopbacks = pytest.mark.skipif(
    not has_address("127.0.0.2"), reason="there is only one loopback"
)


def remember_attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a growing list of the addresses tried."""
    attempts: list[str] = []
    connect = _sockets.connect

    async def remember(address: Any) -> Any:
        attempts.append(address[4][0])
        return await connect(address)

    monkeypatch.setattr(_sockets, "connect", remember)
    return attempts


@needs_loopbacks
@pytest.mark.both_streams
async def test_address_that_worked_last_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole() as (dead, port):
        resolve_to(monkeypatch, "gearman.test", dead, "127.0.0.2")
        attempts = remember_attempts(monkeypatch)
        async with gearman.GearmanClient(
            [("gearman.test", port)], connect_timeout=PATIENCE
        ) as client:
            for _ in range(2):
                async with gearman.JobServer("127.0.0.2", port):
                    await client.submit_job("queue", b"", background=True)
                (it,) = client.connection_list
                await until(lambda: not it.connected, "the loss of the connection")  # noqa: B023
        assert attempts == [dead, "127.0.0.2", "127.0.0.2"]


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


@needs_loopbacks
async def test_error_tells_the_reasons_of_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    resolve_to(monkeypatch, "gearman.test", "127.0.0.1", "127.0.0.2")
    connect = _sockets.connect

    async def refuse(address: Any) -> Any:
        if address[4][0] == "127.0.0.2":
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        return await connect(address)

    monkeypatch.setattr(_sockets, "connect", refuse)
    async with gearman.GearmanClient([("gearman.test", port)]) as client:
        with pytest.raises(ServerUnavailable) as caught:
            await client.submit_job("queue", b"")
    assert f"127.0.0.1:{port}: [Errno 111] Connection refused" in str(caught.value)
    assert f"127.0.0.2:{port}: [Errno 101] Network is unreachable" in str(caught.value)


async def test_resolver_without_a_thread_fails_its_connection_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        gearman.JobServer() as server,
        working(server.address),
        gearman.GearmanClient(["gearman.test", server.address]) as client,
    ):
        slow, good = client.connection_list
        await client.establish_connection(good)
        with no_more_threads(monkeypatch):
            with pytest.raises(ConnectionError, match="can't start new thread"):
                await client.establish_connection(slow)
            assert (await client.submit_job("reverse", "hello")).result == b"olleh"


@pytest.mark.both_streams
async def test_connect_timeout_without_an_answer() -> None:
    with black_hole() as address:
        async with gearman.GearmanClient([address], connect_timeout=0.1) as client:
            before = anyio.current_time()
            with pytest.raises(ServerUnavailable, match=r"within 0\.1 seconds"):
                await client.submit_job("reverse", "hello")
            assert 0.1 <= anyio.current_time() - before < PATIENCE
            with pytest.raises(ConnectionError, match=r"within 0\.1 seconds"):
                await client.establish_connection(client.connection_list[0])
        async with gearman.GearmanClient([address], connect_timeout=PATIENCE) as client:
            request = await client.submit_job("reverse", "hello", poll_timeout=0.02)
            assert request.timed_out
            assert request.state == gearman.JOB_PENDING
        assert (request.state, request.timed_out) == (gearman.JOB_PENDING, True)


@pytest.mark.both_streams
async def test_reading_goes_on_while_writing_is_blocked(
    start_server: Callable[..., ScriptedServer],
) -> None:
    """The server does not read, but sends more than any buffer can hold."""
    chunks = 64

    def script(peer: Peer) -> None:
        peer.expect(SubmitJob)
        peer.send(JobCreated(b"H:1"))
        peer.expect(SubmitJob)
        peer.send(JobCreated(b"H:2"))
        for number in range(chunks):
            peer.send(WorkData(b"H:1", b"%03d" % number + bytes(500_000)))
        peer.send(WorkComplete(b"H:1", b"done"))
        wait_for(seen, "the result")

    seen = threading.Event()
    server = start_server(script, receive_buffer=65536)
    requests = make_requests(
        [{"task": "t", "data": bytes(1_000_000)}] * 60, background=False, max_retries=0
    )
    async with gearman.GearmanClient([server.address]) as client:
        await client.submit_multiple_requests(requests, poll_timeout=0)
        (ended,) = [r async for r in client.as_completed(requests[:1], poll_timeout=PATIENCE)]
        assert ended.result == b"done"
        assert [int(bytes(data[:3])) for data in ended.data_updates] == list(range(chunks))
        assert requests[1].state == gearman.JOB_CREATED
        # Packets that can't be sent yet are not serialized either.
        assert sum(request.connection_attempts for request in requests) < 30
        assert {request.state for request in requests[2:]} == {gearman.JOB_PENDING}
        seen.set()
