"""TLS over streams of the application: a job server in this loop, and failures."""

from __future__ import annotations

import contextlib
import functools
import ssl
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from anyio.streams.tls import TLSAttribute, TLSStream

import gearman_anyio as gearman
from gearman_anyio._streams import _LockedStream, open_stream, pipe
from gearman_proto import ServerAddress
from gearman_proto.errors import ServerUnavailable
from tests.support import PATIENCE
from tests.support import server_context as make_server_context

from .stepping import Attempt
from .support import reverse, until, working
from .test_streams import Tunnel, Tunnels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import ByteStream

pytestmark = pytest.mark.anyio


@pytest.fixture
def server_context(tls_certificates: Path) -> ssl.SSLContext:
    """The TLS context of a server in this loop."""
    return make_server_context(tls_certificates)


def received_since(tunnel: Tunnel, count: int) -> bool:
    return tunnel.received > count


# A job server with TLS in this loop, over streams controlled by the test.


class SlowTunnel(Tunnel):
    """A tunnel that can be blocked. Like a socket stream, it refuses concurrent operations."""

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self.sending = anyio.ResourceGuard("sending to")
        self.receiving = anyio.ResourceGuard("receiving from")
        self.is_open = anyio.Event()
        self.is_open.set()
        self.is_blocked = anyio.Event()

    def shut(self) -> None:
        """Make the next `send` set `is_blocked` and wait for `is_open`."""
        self.is_open = anyio.Event()
        self.is_blocked = anyio.Event()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        with self.receiving:
            return await super().receive(max_bytes)

    async def send(self, item: bytes) -> None:
        with self.sending:
            if not self.is_open.is_set():
                self.is_blocked.set()
                await self.is_open.wait()
            await super().send(item)


class SecureServer:
    """A job server with TLS. Clients connect over an in-memory SlowTunnel."""

    def __init__(self, server: gearman.JobServer, tasks: Any, context: ssl.SSLContext) -> None:
        self.tunnels = Tunnels(self._connect, SlowTunnel)
        #: The server's ends of the connections.
        self.streams: list[TLSStream] = []
        self._server = server
        self._tasks = tasks
        self._context = context

    async def _connect(self, address: object) -> ByteStream:
        near, far = pipe()
        self._tasks.start_soon(self._serve, far)
        return near

    async def _serve(self, far: ByteStream) -> None:
        try:
            # The server's reader and a test may both send, so they share the stream.
            stream = await TLSStream.wrap(
                _LockedStream(far),
                server_side=True,
                ssl_context=self._context,
                standard_compatible=False,
            )
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            await far.aclose()
        else:
            self.streams.append(stream)
            await self._server.handle(stream)


@contextlib.asynccontextmanager
async def secure_server(context: ssl.SSLContext) -> AsyncIterator[SecureServer]:
    async with gearman.JobServer() as server, anyio.create_task_group() as tasks:
        async with working("any", tasks={"reverse": reverse}, connect=server.connect):
            yield SecureServer(server, tasks, context)
        await server.stop()


async def test_certificate_is_checked_on_streams_of_the_application(
    tls_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with (
        secure_server(server_context) as server,
        gearman.GearmanClient(
            ["gearman.test"], ssl_context=tls_context, connect=server.tunnels
        ) as client,
    ):
        with pytest.raises(ServerUnavailable, match=r"not valid for 'gearman\.test'"):
            await client.submit_job("reverse", b"")
        server.tunnels.check(1)


@pytest.mark.parametrize("how", ["at once", "with a goodbye", "in a record", "after garbage"])
async def test_client_reconnects_after_an_abrupt_end(
    tls_context: ssl.SSLContext, server_context: ssl.SSLContext, how: str
) -> None:
    async with (
        secure_server(server_context) as server,
        gearman.GearmanClient(
            ["localhost"], ssl_context=tls_context, connect=server.tunnels
        ) as client,
    ):
        request = await client.submit_job("nobody", b"", wait_until_complete=False)
        (stream,) = server.streams
        below = stream.transport_stream
        if how == "with a goodbye":
            with pytest.raises(ssl.SSLWantReadError):
                stream.extra(TLSAttribute.ssl_object).unwrap()
            await below.send(stream._write_bio.read())
        elif how == "in a record":
            stream.extra(TLSAttribute.ssl_object).write(b"\0RES" + bytes(100))
            await below.send(stream._write_bio.read()[:50])
        elif how == "after garbage":
            await below.send(b"\x17\x03\x03\0\x20" + bytes(32))
        if how != "after garbage":
            await below.aclose()
        await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert request.state == gearman.JOB_UNKNOWN
        reason = "SSL" if how == "after garbage" else "closed"
        assert reason in str(client.connection_list[0].error)
        assert (await client.submit_job("reverse", b"again")).result == b"niaga"
    server.tunnels.check(2)


async def test_reader_can_send_while_the_writer_is_blocked(
    tls_context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    """The server asks for a certificate while the client's writer is blocked.

    TLS replies while it reads, as for a key update. Streams do not allow two tasks to send at once.
    """
    tls_context.minimum_version = ssl.TLSVersion.TLSv1_3
    tls_context.post_handshake_auth = True
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.post_handshake_auth = True
    async with (
        secure_server(server_context) as server,
        gearman.GearmanClient(
            ["localhost"], ssl_context=tls_context, connect=server.tunnels
        ) as client,
    ):
        assert (await client.submit_job("reverse", b"hello")).complete
        (stream,), (tunnel,) = server.streams, server.tunnels.made
        assert isinstance(tunnel, SlowTunnel)
        secure: Any = stream.extra(TLSAttribute.ssl_object)
        assert not secure.getpeercert()
        data = bytes(range(256)) * 4096
        for _ in range(3):
            tunnel.shut()
            requests = await client.submit_multiple_jobs(
                [{"task": "reverse", "data": data}] * 5, poll_timeout=0
            )
            await tunnel.is_blocked.wait()
            asked = functools.partial(received_since, tunnel, tunnel.received)
            secure._sslobj.verify_client_post_handshake()
            secure.do_handshake()
            await stream.transport_stream.send(stream._write_bio.read())
            # Now the reader has the server's request, and its reply has to wait.
            await until(asked, "the question")
            await anyio.wait_all_tasks_blocked()
            tunnel.is_open.set()
            await client.wait_until_jobs_completed(requests, poll_timeout=PATIENCE)
            assert [request.result for request in requests] == [data[::-1]] * 5
        assert secure.getpeercert()["subject"]
    server.tunnels.check(1)


async def test_data_of_concurrent_senders_is_whole_and_in_order() -> None:
    near, far = pipe()
    tunnel = SlowTunnel(near)
    async with _LockedStream(tunnel) as shared, far, anyio.create_task_group() as tasks:
        tunnel.shut()
        for number in range(20):
            tasks.start_soon(shared.send, b"%03d" % number * 100)
            await anyio.wait_all_tasks_blocked()
        tunnel.is_open.set()
        for number in range(20):
            assert await far.receive() == b"%03d" % number * 100


@pytest.mark.parametrize("first", [0, 1])
async def test_one_of_two_receivers_gets_the_data(first: int) -> None:
    """One task gets the data. The other returns no bytes, so that TLS checks its state again."""

    async def receive(number: int) -> None:
        try:
            got.append((number, await shared.receive()))
        except anyio.EndOfStream:
            got.append((number, None))

    got: list[tuple[int, bytes | None]] = []
    near, far = pipe()
    async with _LockedStream(SlowTunnel(near)) as shared, far:
        for data in (b"first", b"again", None):
            got.clear()
            async with anyio.create_task_group() as tasks:
                for number in (first, 1 - first):
                    tasks.start_soon(receive, number)
                    await anyio.wait_all_tasks_blocked()
                assert not got
                if data is None:
                    await far.aclose()
                else:
                    await far.send(data)
            assert sorted(got) == sorted([(first, data), (1 - first, b"")])


async def test_cancelled_receive_lets_the_other_task_return() -> None:
    """The other task does not wait for the cancelled one."""
    near, far = pipe()
    async with _LockedStream(SlowTunnel(near)) as shared, far:
        scope = anyio.CancelScope()

        async def receive() -> None:
            with scope:
                await shared.receive()

        async def cancel() -> None:
            await anyio.wait_all_tasks_blocked()
            scope.cancel()

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(cancel)
                assert await shared.receive() == b""
        await far.send(b"more")
        assert await shared.receive() == b"more"


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_handshake_that_ends_closes_the_stream(tls_context: ssl.SSLContext, how: str) -> None:
    class Broken(Tunnel):
        async def send(self, item: bytes) -> None:
            raise OSError("nothing goes")

    async def connect(address: ServerAddress) -> ByteStream:
        return near

    address = ServerAddress("localhost", 1)
    near, far = pipe()
    async with far:
        tunnels = Tunnels(connect, Broken if how == "failed" else Tunnel)
        opening = open_stream(address, tls_context, tunnels(address))
        if how == "failed":
            with pytest.raises(ConnectionError, match=r"^nothing goes during the TLS handshake; "):
                await opening
        else:
            await Attempt(2)(opening)
        tunnels.check(1)


async def test_in_memory_connection_to_a_tls_server_is_plain(
    server_context: ssl.SSLContext, task: str
) -> None:
    """A server uses TLS only on connections that it accepts itself."""
    async with (
        gearman.JobServer(ssl_context=server_context) as server,
        gearman.GearmanClient(connect=server.connect) as client,
    ):
        request = await client.submit_job(task, b"data", background=True)
        assert request.state == gearman.JOB_CREATED
