"""TLS clients and workers, with stunnel in front of gearmand and certificates on both sides."""

from __future__ import annotations

import re
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ConnectionError, ExceededConnectionAttempts, ServerUnavailable
from tests.support import (
    PATIENCE,
    Gearmand,
    Stunnel,
    make_certificates,
    resolve_to,
    server_context,
)

from .kit import Kit, StartServer, reverse

if TYPE_CHECKING:
    from pathlib import Path

    from gearman_sync.testing import Peer


# Authentication.


async def test_all_forms_of_tls_settings_work(
    kit: Kit,
    gearmand: Gearmand,
    tls_host: dict[str, Any],
    tls_context: ssl.SSLContext,
    tls_tunnel: Stunnel,
    task: str,
) -> None:
    await kit.start_worker(gearmand.address, tasks={task: reverse})
    plain = ("localhost", tls_tunnel.port)
    clients = [
        await kit.client({**tls_host, "host": "127.0.0.1"}),
        await kit.client({"host": plain[0], "port": plain[1], "ssl_context": tls_context}),
        await kit.client(plain, ssl_context=tls_context),
    ]
    for client in clients:
        assert (await client.submit_job(task, b"data")).result == b"atad"


async def test_server_certificate_of_another_name_is_refused(
    kit: Kit, tls_host: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "gearman.test", "127.0.0.1")
    client = await kit.client({**tls_host, "host": "gearman.test"})
    with pytest.raises(ServerUnavailable, match=r"not valid for 'gearman\.test'"):
        await client.submit_job("task", b"data")


@pytest.mark.parametrize("trusts", ["another CA", "no CA"])
async def test_server_certificate_of_another_ca_is_refused(
    kit: Kit, tls_host: dict[str, Any], trusts: str, tmp_path: Path
) -> None:
    del tls_host["ca_certs"]
    if trusts == "another CA":
        tls_host["ca_certs"] = str(make_certificates(tmp_path) / "ca.pem")
    client = await kit.client(tls_host)
    with pytest.raises(ServerUnavailable, match="certificate verify failed") as caught:
        await client.submit_job("task", b"data")
    assert "speak TLS?" not in str(caught.value)


@pytest.mark.parametrize(
    "how", ["gearmand", "JobServer", "closing at once", "resetting", "garbage", "silent"]
)
async def test_server_without_tls(
    kit: Kit, gearmand: Gearmand, tls_host: dict[str, Any], how: str, start_server: StartServer
) -> None:
    """Ask in the error whether the server speaks TLS, however it reacts to a handshake."""

    def script(peer: Peer) -> None:
        if how != "closing at once":
            peer.sock.recv(5000)
        if how == "resetting":
            peer.reset()
        if how == "garbage":
            peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
        if how in ("garbage", "silent"):
            peer.hold()

    if how == "gearmand":
        port = gearmand.port
    elif how == "JobServer":
        server = await kit.start_job_server()
        port = server.address.port
    else:
        port = start_server(script).address[1]
    patience = 0.1 if how == "silent" else PATIENCE
    client = await kit.client({**tls_host, "port": port}, connect_timeout=patience)
    with pytest.raises(ServerUnavailable) as caught:
        await client.submit_job("task", b"")
    message = str(caught.value)
    assert re.search(r"the TLS handshake; does this server speak TLS\?\)$", message), message
    if how == "silent":
        assert "no connection within 0.1 seconds, including the TLS handshake" in message
    assert ("the connection was closed during" in message) or how != "gearmand"
    assert client.connection_list[0].error is not None


def alert(peer: Peer) -> None:
    """Reply to a ClientHello, or to a packet, with the TLS alert protocol_version."""
    peer.sock.recv(5000)
    peer.send_raw(b"\x15\3\3\0\2\2\x46")
    peer.sock.recv(5000)


async def test_tls_alert_of_the_server_is_shown(
    kit: Kit, tls_host: dict[str, Any], start_server: StartServer
) -> None:
    """Show the server's alert, without asking whether it speaks TLS."""
    host = {**tls_host, "port": start_server(alert).address[1]}
    client = await kit.client(host, connect_timeout=PATIENCE)
    with pytest.raises(ServerUnavailable, match=r"(?i)protocol.version") as caught:
        await client.submit_job("task", b"")
    assert "speak TLS?" not in str(caught.value)


async def test_plain_client_of_a_tls_server_names_the_protocol(
    kit: Kit, start_server: StartServer
) -> None:
    client = await kit.client(start_server(alert).address)
    with pytest.raises(ExceededConnectionAttempts, match="does not speak Gearman, but TLS"):
        await client.submit_job("task", b"", poll_timeout=PATIENCE)


# Slow handshakes.


async def test_silent_handshake_does_not_delay_other_calls(
    kit: Kit, gearmand: Gearmand, start_server: StartServer, tls_host: dict[str, Any], task: str
) -> None:
    begun = threading.Event()

    def script(peer: Peer) -> None:
        while peer.sock.recv(1000):
            begun.set()

    await kit.start_worker(gearmand.address, tasks={task: reverse})
    silent = {**tls_host, "port": start_server(script).address[1]}
    client = await kit.client(tls_host, silent, connect_timeout=PATIENCE)
    good, bad = client.connection_list
    await client.establish_connection(good)
    connecting = await kit.spawn(client.establish_connection, bad)
    await kit.wait_for(begun, "a handshake")
    jobs = [{"task": task, "data": b"x"}] * 2
    requests = await client.submit_multiple_jobs(jobs, poll_timeout=0)
    assert (await client.as_completed(requests).__anext__()).result == b"x"
    assert not connecting.done
    await client.shutdown()
    with pytest.raises(ConnectionError, match="shut down"):
        await connecting.result()


# Large transfers, and a tunnel that dies.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "version"),
    [("stunnel", ssl.TLSVersion.TLSv1_2), ("JobServer", ssl.TLSVersion.TLSv1_3)],
)
async def test_much_both_ways(
    kit: Kit,
    tls_tunnel: Stunnel,
    tls_certificates: Path,
    tls_context: ssl.SSLContext,
    task: str,
    version: ssl.TLSVersion,
    kind: str,
) -> None:
    """Receive results while jobs are still being sent."""
    tls_context.minimum_version = tls_context.maximum_version = version
    host = ("localhost", tls_tunnel.port)
    if kind == "JobServer":
        server = await kit.start_job_server(ssl_context=server_context(tls_certificates))
        host = ("localhost", server.address.port)
    await kit.start_worker(host, tasks={task: reverse}, max_jobs=2, ssl_context=tls_context)
    client = await kit.client(host, ssl_context=tls_context)
    many = [bytes([number]) * 500_000 + b"\0\1" for number in range(8)]
    # One TLS record holds many small results, and a selector cannot see buffered ones.
    many += [b"%d" % number for number in range(500)]
    jobs = [{"task": task, "data": data} for data in many]
    requests = await client.submit_multiple_jobs(jobs, poll_timeout=PATIENCE)
    assert [request.result for request in requests] == [data[::-1] for data in many]


async def test_client_reconnects_after_its_tunnel_died(
    kit: Kit,
    gearmand: Gearmand,
    tls_certificates: Path,
    tls_context: ssl.SSLContext,
    task: str,
) -> None:
    tunnel = await kit.blocking(Stunnel, tls_certificates, gearmand)
    try:
        gate = kit.gate()
        await kit.start_worker(gearmand.address, tasks={task: gate}, max_jobs=2)
        client = await kit.client(("localhost", tunnel.port), ssl_context=tls_context)
        request = await client.submit_job(task, b"data", wait_until_complete=False)
        await kit.wait_for(gate.begun)
        call = await kit.spawn(client.wait_until_jobs_completed, [request])
        tunnel.kill()
        await call.result()
        assert (request.state, request.timed_out) == ("UNKNOWN", False)
        gate.open.set()
        await kit.blocking(tunnel.start)
        request = await client.submit_job(task, b"data", poll_timeout=PATIENCE)
        assert request.result == b"data"
    finally:
        tunnel.kill()
