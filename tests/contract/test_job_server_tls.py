"""The adapter's own job server with TLS: authentication, and isolation of slow handshakes."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ExceededConnectionAttempts, ServerUnavailable
from tests.support import PATIENCE, make_certificates
from tests.support.tls import client_context, server_context

from .kit import Connect, Kit, reverse

if TYPE_CHECKING:
    from pathlib import Path

each_version = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


async def started(kit: Kit, certificates: Path) -> Any:
    """Run a JobServer with TLS until the scenario ends."""
    return await kit.start_job_server(ssl_context=server_context(certificates))


def trusting(certificates: Path) -> ssl.SSLContext:
    """Return the context of a client that trusts the server and has no certificate."""
    return ssl.create_default_context(cafile=certificates / "ca.pem")


async def works(kit: Kit, server: Any, context: ssl.SSLContext, task: str) -> None:
    """Check that a new worker runs a job of a new client, and that an admin client sees it."""
    await kit.start_worker(server.address, tasks={task: reverse}, ssl_context=context)
    client = await kit.client(server.address, connect_timeout=PATIENCE, ssl_context=context)
    assert (await client.submit_job(task, b"data", poll_timeout=PATIENCE)).result == b"atad"
    admin = await kit.admin_client(server.address, ssl_context=context)
    assert [status.task for status in await admin.get_status()] == [task]


# Authentication.


@pytest.mark.parametrize("says", [b"status\r\n", bytes(10_000)])
async def test_peer_without_tls_is_disconnected(
    kit: Kit, tls_certificates: Path, task: str, connect: Connect, says: bytes
) -> None:
    """Disconnect the peer without a reply."""
    server = await started(kit, tls_certificates)
    sock = connect(server).sock
    sock.sendall(says)

    def rest() -> bytes:
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(1000):
                data += piece
        return data

    # TLS might send an alert, but nothing longer.
    assert len(await kit.blocking(rest)) < 20
    await works(kit, server, trusting(tls_certificates), task)


@each_version
async def test_client_without_a_valid_certificate_is_refused(
    kit: Kit,
    tls_certificates: Path,
    task: str,
    tmp_path: Path,
    version: ssl.TLSVersion,
) -> None:
    required = server_context(tls_certificates)
    required.verify_mode = ssl.CERT_REQUIRED
    server = await kit.start_job_server(ssl_context=required)
    of_another_ca = trusting(tls_certificates)
    other = await kit.blocking(make_certificates, tmp_path)
    of_another_ca.load_cert_chain(other / "client.pem", other / "client.key")
    for refused in (trusting(tls_certificates), of_another_ca):
        refused.minimum_version = refused.maximum_version = version
        client = await kit.client(server.address, ssl_context=refused)
        with pytest.raises((ServerUnavailable, ExceededConnectionAttempts)):
            await client.submit_job(task, b"data", poll_timeout=PATIENCE)
    await works(kit, server, client_context(tls_certificates), task)


def test_wrong_ssl_context_is_refused(kit: Kit, tls_certificates: Path) -> None:
    with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext"):
        kit.job_server(ssl_context=True)
    with pytest.raises(ValueError, match="ssl_context is for clients"):
        kit.job_server(ssl_context=trusting(tls_certificates))


# Slow and broken handshakes.

#: The beginning of a ClientHello, whose header announces more data.
HALF_A_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(100)


@pytest.mark.slow
async def test_silent_handshakes_do_not_delay_others(
    kit: Kit,
    tls_certificates: Path,
    task: str,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await started(kit, tls_certificates)
    with monkeypatch.context() as hurry:
        hurry.setattr("gearman_proto.engines.server.engine._HANDSHAKE", 2.0)
        silent = [connect(server).sock for _ in range(20)]
        await kit.eventually(lambda: len(server._gm_driver.engine.links) == len(silent))
    for sock in silent[:10]:  # The others say nothing.
        sock.sendall(HALF_A_HELLO)
    await works(kit, server, trusting(tls_certificates), task)
    # The handshake timeout then disconnects the silent peers.
    for sock in silent:
        with contextlib.suppress(ConnectionResetError):
            assert await kit.blocking(sock.recv, 100) == b""


async def test_aborted_handshakes_are_released(
    kit: Kit, tls_certificates: Path, task: str, connect: Connect
) -> None:
    server = await started(kit, tls_certificates)
    for number in range(10):
        peer = connect(server)
        if number % 2:
            peer.sock.sendall(HALF_A_HELLO)
        if number % 3 == 1:
            peer.reset()
        peer.close()
    await works(kit, server, trusting(tls_certificates), task)
    # The worker, the client and the admin client are connected.
    links = server._gm_driver.engine.links
    await kit.eventually(lambda: len(links) == 3, "the end of the others")


@pytest.mark.parametrize("command", ["", "shutdown", "shutdown graceful"])
async def test_shutdown_during_a_handshake_disconnects_the_peer(
    kit: Kit, tls_certificates: Path, connect: Connect, command: str
) -> None:
    server = await started(kit, tls_certificates)
    silent = connect(server)
    link = await kit.blocking(lambda: connect(server, context=trusting(tls_certificates)))
    await kit.blocking(link.echo)
    if command:
        link.sock.sendall(command.encode() + b"\n")
        await (await kit.spawn(server.wait)).result()
    else:
        await server.stop()
    assert await kit.blocking(silent.sock.recv, 100) == b""


# Ends of connections.


async def test_end_of_stream_after_a_command(
    kit: Kit, tls_certificates: Path, connect: Connect
) -> None:
    """Reply after the end of the stream, as ``echo version | openssl s_client`` needs."""
    server = await started(kit, tls_certificates)
    link = await kit.blocking(lambda: connect(server, context=trusting(tls_certificates)))
    link.sock.sendall(b"version\n")
    # Half-close the TCP connection below TLS, which can still read.
    socket.socket.shutdown(link.sock, socket.SHUT_WR)
    with contextlib.suppress(ssl.SSLError):
        assert (await kit.blocking(link.rest)).startswith(b"OK gearman-sansio-")
