"""TLS: stunnel in front of gearmand, and servers in this loop; who is refused, and what breaks."""

from __future__ import annotations

import contextlib
import functools
import ssl
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from anyio.streams.tls import TLSAttribute, TLSStream

import gearman_anyio as gearman
from gearman_anyio._streams import _Shared, open_stream, pipe
from gearman_proto import ServerAddress
from gearman_proto.errors import ConnectionError, ExceededConnectionAttempts, ServerUnavailable
from tests.support import (
    PATIENCE,
    FakeServer,
    Gate,
    Gearmand,
    Peer,
    Stunnel,
    Worker,
    reverse,
)
from tests.sync.test_tls import make_certificates

from .support import happened, until
from .test_streams import Tunnel, Tunnels, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from anyio.abc import ByteStream

    StartWorker = Callable[..., Worker]

pytestmark = pytest.mark.anyio

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tunnel(certificates: Path, gearmand: Gearmand) -> Iterator[Stunnel]:
    program = Stunnel(certificates, gearmand)
    yield program
    program.kill()


@pytest.fixture
def host(certificates: Path, tunnel: Stunnel) -> dict[str, Any]:
    """The dict that works."""
    return {
        "host": "localhost",
        "port": tunnel.port,
        "keyfile": str(certificates / "client.key"),
        "certfile": str(certificates / "client.pem"),
        "ca_certs": str(certificates / "ca.pem"),
    }


@pytest.fixture
def context(certificates: Path) -> ssl.SSLContext:
    """The context that works."""
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    return context


@pytest.fixture
def server_context(certificates: Path) -> ssl.SSLContext:
    """For a server in this loop."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    return context


@pytest.fixture
def worker(gearmand: Gearmand, task: str, start_worker: StartWorker) -> Worker:
    return start_worker(gearmand.address, {task: reverse})


def received_since(tunnel: Tunnel, count: int) -> bool:
    return tunnel.received > count


# Who is let in, and who is not.


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_keys_of_the_dict(host: dict[str, Any], task: str, worker: Worker, name: str) -> None:
    async with gearman.GearmanClient([{**host, "host": name}]) as client:
        assert (await client.submit_job(task, b"data")).result == b"atad"
        request = await client.submit_job(task, b"data", background=True)
        await client.get_job_status(request)
        assert request.status["handle"] == request.handle


async def test_context_of_the_dict(
    tunnel: Stunnel, context: ssl.SSLContext, task: str, worker: Worker
) -> None:
    hosts = [{"host": "localhost", "port": tunnel.port, "ssl_context": context}]
    async with gearman.GearmanClient(hosts) as client:
        assert (await client.submit_job(task, b"data")).result == b"atad"


async def test_context_of_the_client(
    tunnel: Stunnel, context: ssl.SSLContext, task: str, worker: Worker
) -> None:
    hosts = [("localhost", tunnel.port)]
    async with gearman.GearmanClient(hosts, ssl_context=context) as client:
        assert (await client.submit_job(task, b"data")).result == b"atad"


async def test_wrong_ca(host: dict[str, Any], tmp_path: Path) -> None:
    other = make_certificates(tmp_path)
    async with gearman.GearmanClient([{**host, "ca_certs": str(other / "ca.pem")}]) as client:
        with pytest.raises(ServerUnavailable, match="certificate verify failed") as caught:
            await client.submit_job("task", b"data")
        assert len(list(caught.value.job_requests)) == 1


async def test_unknown_ca(host: dict[str, Any]) -> None:
    del host["ca_certs"]
    async with gearman.GearmanClient([host]) as client:
        with pytest.raises(ServerUnavailable, match="certificate verify failed"):
            await client.submit_job("task", b"data")


async def test_wrong_host_name(host: dict[str, Any], tunnel: Stunnel) -> None:
    """The same server, by a name that is not in its certificate."""

    async def connect(address: ServerAddress) -> ByteStream:
        assert address.host == "gearman.test"
        return await anyio.connect_tcp("127.0.0.1", tunnel.port)

    tunnels = Tunnels(connect)
    hosts = [{**host, "host": "gearman.test"}]
    async with gearman.GearmanClient(hosts, connect=tunnels) as client:
        with pytest.raises(ServerUnavailable, match=r"not valid for 'gearman\.test'"):
            await client.submit_job("task", b"data")
    tunnels.check(1)


@pytest.mark.parametrize("version", VERSIONS)
async def test_missing_client_certificate(
    tunnel: Stunnel, certificates: Path, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.minimum_version = context.maximum_version = version
    async with gearman.GearmanClient([("localhost", tunnel.port)], ssl_context=context) as client:
        # With TLS 1.3 the client's side of the handshake is over before the server says no.
        with pytest.raises((ServerUnavailable, ExceededConnectionAttempts)) as caught:
            await client.submit_job("task", b"data")
        assert len(list(caught.value.job_requests)) == 1
        assert str(tunnel.port) in str(caught.value)


@pytest.mark.parametrize("how", ["gearmand", "JobServer", "closing", "garbage"])
async def test_server_without_tls(
    gearmand: Gearmand,
    host: dict[str, Any],
    how: str,
    start_server: Callable[..., FakeServer],
) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(5000)
        if how == "garbage":
            peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
            peer.hold()

    async with gearman.JobServer() as server:
        if how == "gearmand":
            port = gearmand.port
        elif how == "JobServer":
            port = server.address.port
        else:
            port = start_server(script).address[1]
        hosts = [{**host, "port": port}]
        async with gearman.GearmanClient(hosts, connect_timeout=2) as client:
            with pytest.raises(ServerUnavailable) as caught:
                await client.submit_job("task", b"")
            message = str(caught.value)
            assert any(
                text in message
                for text in ("no connection within 2 s", "was closed", "SSL", "reset")
            ), message
            assert client.connection_list[0].error is not None


async def test_client_without_tls(tunnel: Stunnel) -> None:
    async with gearman.GearmanClient([("localhost", tunnel.port)]) as client:
        with pytest.raises((ServerUnavailable, ExceededConnectionAttempts)) as caught:
            await client.submit_job("task", b"data", poll_timeout=PATIENCE)
        assert str(tunnel.port) in str(caught.value)


async def test_silent_handshake_costs_the_connect_timeout(
    start_server: Callable[..., FakeServer], host: dict[str, Any]
) -> None:
    def script(peer: Peer) -> None:
        while peer.sock.recv(1000):
            pass

    port = start_server(script).address[1]
    async with gearman.GearmanClient([{**host, "port": port}], connect_timeout=0.1) as client:
        with pytest.raises(ServerUnavailable, match=r"within 0\.1 seconds"):
            await client.submit_job("task", b"data")


async def test_silent_handshake_delays_nobody(
    start_server: Callable[..., FakeServer], host: dict[str, Any], task: str, worker: Worker
) -> None:
    begun = threading.Event()

    def script(peer: Peer) -> None:
        while peer.sock.recv(1000):
            begun.set()

    errors: list[Exception] = []

    async def establish() -> None:
        try:
            await client.establish_connection(bad)
        except ConnectionError as error:
            errors.append(error)

    silent = {**host, "port": start_server(script).address[1]}
    async with (
        anyio.create_task_group() as tasks,
        gearman.GearmanClient([host, silent], connect_timeout=PATIENCE) as client,
    ):
        good, bad = client.connection_list
        await client.establish_connection(good)
        tasks.start_soon(establish)
        await happened(begun, "a handshake")
        jobs = [{"task": task, "data": b"x"}] * 2
        requests = await client.submit_multiple_jobs(jobs, poll_timeout=0)
        assert (await client.as_completed(requests).__anext__()).result == b"x"
        assert not errors
        await client.shutdown()
    (error,) = errors
    assert "shut down" in str(error)


# Much data, and broken connections.


@pytest.mark.parametrize("version", VERSIONS)
async def test_much_both_ways(
    tunnel: Stunnel,
    context: ssl.SSLContext,
    task: str,
    worker: Worker,
    version: ssl.TLSVersion,
) -> None:
    """Results come while jobs are still being sent."""
    context.minimum_version = context.maximum_version = version
    async with gearman.GearmanClient([("localhost", tunnel.port)], ssl_context=context) as client:
        many = [bytes([number]) * 50_000 + b"\0\1" * 500_000 for number in range(12)]
        requests = await client.submit_multiple_jobs(
            [{"task": task, "data": data} for data in many], poll_timeout=PATIENCE
        )
        assert [request.result for request in requests] == [data[::-1] for data in many]
        # Many small ones lie in one record.
        small = [b"%d" % number for number in range(500)]
        requests = await client.submit_multiple_jobs([{"task": task, "data": s} for s in small])
        assert [request.result for request in requests] == [data[::-1] for data in small]


async def test_worker(host: dict[str, Any], gearmand: Gearmand, task: str) -> None:
    many = [bytes([number]) * 50_000 + b"\0\1" * 500_000 for number in range(6)]
    async with (
        working(host, task=task, max_jobs=4),
        gearman.GearmanClient([gearmand.address]) as client,
    ):
        requests = await client.submit_multiple_jobs(
            [{"task": task, "data": data} for data in many], poll_timeout=PATIENCE
        )
        assert [request.result for request in requests] == [data[::-1] for data in many]


async def test_tunnel_dies(
    certificates: Path,
    gearmand: Gearmand,
    context: ssl.SSLContext,
    task: str,
    start_worker: StartWorker,
) -> None:
    tunnel = Stunnel(certificates, gearmand)
    try:
        gate = Gate()
        start_worker(gearmand.address, {task: gate})
        hosts = [("localhost", tunnel.port)]
        async with gearman.GearmanClient(hosts, ssl_context=context) as client:
            request = await client.submit_job(task, b"data", wait_until_complete=False)
            await happened(gate.begun)
            tunnel.kill()
            await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
            assert request.state == gearman.JOB_UNKNOWN
            assert not request.timed_out
            gate.open.set()
            await anyio.to_thread.run_sync(tunnel.start)
            request = await client.submit_job(task, b"data", poll_timeout=PATIENCE)
            assert request.result == b"data"
            # Between two calls, this time, and nobody has looked since.
            tunnel.kill()
            tunnel.start()
            request = await client.submit_job(task, b"data", poll_timeout=PATIENCE)
            assert request.result == b"data"
            assert request.connection_attempts == 1
    finally:
        gate.open.set()
        tunnel.kill()


# A job server behind TLS in this loop, over streams that do as they are told.


class SlowTunnel(Tunnel):
    """A stream that is shut at times. Two at once it refuses, as a socket's stream does."""

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(stream)
        self.sending = anyio.ResourceGuard("sending to")
        self.receiving = anyio.ResourceGuard("receiving from")
        self.is_open = anyio.Event()
        self.is_open.set()
        self.is_blocked = anyio.Event()

    def shut(self) -> None:
        """Let the next `send` wait for `is_open`, and say so."""
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
    """A job server behind TLS. It is connected to over a SlowTunnel in memory."""

    def __init__(self, server: gearman.JobServer, tasks: Any, context: ssl.SSLContext) -> None:
        self.tunnels = Tunnels(self._connect, SlowTunnel)
        #: The server's ends.
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
            # Its reader has something to send as well, and so has a test.
            stream = await TLSStream.wrap(
                _Shared(far),
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
        async with working("worker", connect=server.connect):
            yield SecureServer(server, tasks, context)
        await server.stop()


async def test_over_the_application_s_streams(
    context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with secure_server(server_context) as server:
        async with gearman.GearmanClient(
            ["localhost"], ssl_context=context, connect=server.tunnels
        ) as client:
            data = bytes(range(256)) * 4096
            assert (await client.submit_job("reverse", data)).result == data[::-1]
        async with gearman.GearmanClient(
            ["gearman.test"], ssl_context=context, connect=server.tunnels
        ) as client:
            with pytest.raises(ServerUnavailable, match=r"not valid for 'gearman\.test'"):
                await client.submit_job("reverse", b"")
        server.tunnels.check(2)


@pytest.mark.parametrize("how", ["at once", "with a goodbye", "in a record"])
async def test_abrupt_end(
    context: ssl.SSLContext, server_context: ssl.SSLContext, how: str
) -> None:
    async with (
        secure_server(server_context) as server,
        gearman.GearmanClient(["localhost"], ssl_context=context, connect=server.tunnels) as client,
    ):
        request = await client.submit_job("nobody", b"", wait_until_complete=False)
        (stream,) = server.streams
        if how == "with a goodbye":
            with pytest.raises(ssl.SSLWantReadError):
                stream.extra(TLSAttribute.ssl_object).unwrap()
            await stream.transport_stream.send(stream._write_bio.read())
        elif how == "in a record":
            stream.extra(TLSAttribute.ssl_object).write(b"\0RES" + bytes(100))
            await stream.transport_stream.send(stream._write_bio.read()[:50])
        await stream.transport_stream.aclose()
        await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert request.state == gearman.JOB_UNKNOWN
        assert "closed" in str(client.connection_list[0].error)
        assert (await client.submit_job("reverse", b"again")).result == b"niaga"
    server.tunnels.check(2)


async def test_garbage_in_place_of_a_record(
    context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    async with (
        secure_server(server_context) as server,
        gearman.GearmanClient(["localhost"], ssl_context=context, connect=server.tunnels) as client,
    ):
        request = await client.submit_job("nobody", b"", wait_until_complete=False)
        await server.streams[0].transport_stream.send(b"\x17\x03\x03\0\x20" + bytes(32))
        await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert request.state == gearman.JOB_UNKNOWN
        assert "SSL" in str(client.connection_list[0].error)


async def test_the_reader_has_something_to_send(
    context: ssl.SSLContext, server_context: ssl.SSLContext
) -> None:
    """The server asks for a certificate while the client's writer is blocked.

    As with new keys, TLS answers where it reads. Streams do not let two tasks send at once.
    """
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.post_handshake_auth = True
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.post_handshake_auth = True
    async with (
        secure_server(server_context) as server,
        gearman.GearmanClient(["localhost"], ssl_context=context, connect=server.tunnels) as client,
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
            # Now the reader has the question, and its answer has to wait.
            await until(asked, "the question")
            await anyio.wait_all_tasks_blocked()
            tunnel.is_open.set()
            await client.wait_until_jobs_completed(requests, poll_timeout=PATIENCE)
            assert [request.result for request in requests] == [data[::-1]] * 5
        assert secure.getpeercert()["subject"]
    server.tunnels.check(1)


async def test_two_tasks_send() -> None:
    """What is sent first goes first, and all of it."""
    near, far = pipe()
    tunnel = SlowTunnel(near)
    async with _Shared(tunnel) as shared, far, anyio.create_task_group() as tasks:
        tunnel.shut()
        for number in range(20):
            tasks.start_soon(shared.send, b"%03d" % number * 100)
            await anyio.wait_all_tasks_blocked()
        tunnel.is_open.set()
        for number in range(20):
            assert await far.receive() == b"%03d" % number * 100


@pytest.mark.parametrize("first", [0, 1])
async def test_two_tasks_receive(first: int) -> None:
    """One of them gets what comes, and the other looks again what there is to do."""

    async def receive(number: int) -> None:
        try:
            got.append((number, await shared.receive()))
        except anyio.EndOfStream:
            got.append((number, None))

    got: list[tuple[int, bytes | None]] = []
    near, far = pipe()
    async with _Shared(SlowTunnel(near)) as shared, far:
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


async def test_one_of_two_who_receive_is_cancelled() -> None:
    """The other one is not left waiting for it."""
    near, far = pipe()
    async with _Shared(SlowTunnel(near)) as shared, far:
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


async def test_a_failed_handshake_closes_the_stream(context: ssl.SSLContext) -> None:
    class Broken(Tunnel):
        async def send(self, item: bytes) -> None:
            raise OSError("nothing goes")

    async def connect(address: ServerAddress) -> ByteStream:
        return near

    near, far = pipe()
    async with far:
        tunnels = Tunnels(connect, Broken)
        with pytest.raises(anyio.BrokenResourceError):
            await open_stream(ServerAddress("localhost", 1), context, tunnels)
        tunnels.check(1)
    near, far = pipe()
    async with far:
        tunnels = Tunnels(connect)
        with anyio.move_on_after(0.02) as scope:
            await open_stream(ServerAddress("localhost", 1), context, tunnels)
        assert scope.cancelled_caught
        tunnels.check(1)
