"""TLS, with stunnel in front of gearmand and certificates on both sides; who is refused."""

from __future__ import annotations

import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import ExceededConnectionAttempts, ServerUnavailable
from gearman_sync import GearmanClient, GearmanWorker
from tests.support import (
    PATIENCE,
    FakeServer,
    Gate,
    Gearmand,
    Stunnel,
    Worker,
    require,
    reverse,
    spawn,
    wait_for,
)

from .support import resolve_to, wait_for_leader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    StartWorker = Callable[..., Worker]
    MakeClient = Callable[..., GearmanClient]


def make_certificates(directory: Path) -> Path:
    """Make a CA, and a server's and a client's key and certificate."""
    openssl = require("openssl")

    def run(*args: str) -> None:
        subprocess.run([openssl, *args], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run(
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"),
        *("-subj", "/CN=gearman CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    (directory / "ext").write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
        "basicConstraints=CA:FALSE\n"
        "subjectKeyIdentifier=hash\n"
        "authorityKeyIdentifier=keyid\n"
    )
    for name in ("server", "client"):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", f"{name}.pem"),
        )
    return directory


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
def worker(gearmand: Gearmand, task: str, start_worker: StartWorker) -> Worker:
    return start_worker(gearmand.address, {task: reverse})


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_keys_of_the_dict(
    make_client: MakeClient, host: dict[str, Any], task: str, worker: Worker, name: str
) -> None:
    client = make_client({**host, "host": name})
    assert client.submit_job(task, b"data").result == b"atad"
    request = client.submit_job(task, b"data", background=True)
    client.get_job_status(request)
    assert request.status["handle"] == request.job.handle


def test_context_of_the_dict(
    make_client: MakeClient, tunnel: Stunnel, context: ssl.SSLContext, task: str, worker: Worker
) -> None:
    client = make_client({"host": "localhost", "port": tunnel.port, "ssl_context": context})
    assert client.submit_job(task, b"data").result == b"atad"


def test_context_of_the_client(
    make_client: MakeClient, tunnel: Stunnel, context: ssl.SSLContext, task: str, worker: Worker
) -> None:
    client = make_client(("localhost", tunnel.port), ssl_context=context)
    assert client.submit_job(task, b"data").result == b"atad"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_large_payload(
    make_client: MakeClient,
    tunnel: Stunnel,
    context: ssl.SSLContext,
    task: str,
    worker: Worker,
    version: ssl.TLSVersion,
) -> None:
    context.minimum_version = context.maximum_version = version
    client = make_client(("localhost", tunnel.port), ssl_context=context)
    data = b"a\0" * 250_000 + b"b\0" * 250_000
    assert client.submit_job(task, data).result == data[::-1]
    # Many small ones lie in one record, which the selector does not see.
    many = [b"%d" % number for number in range(500)]
    requests = client.submit_multiple_jobs([{"task": task, "data": some} for some in many])
    assert [request.result for request in requests] == [some[::-1] for some in many]


def test_wrong_ca(make_client: MakeClient, host: dict[str, Any], tmp_path: Path) -> None:
    other = make_certificates(tmp_path)
    client = make_client({**host, "ca_certs": str(other / "ca.pem")})
    with pytest.raises(ServerUnavailable, match="certificate verify failed") as caught:
        client.submit_job("task", b"data")
    assert len(list(caught.value.job_requests)) == 1


def test_unknown_ca(make_client: MakeClient, host: dict[str, Any]) -> None:
    del host["ca_certs"]
    with pytest.raises(ServerUnavailable, match="certificate verify failed"):
        make_client(host).submit_job("task", b"data")


def test_wrong_host_name(
    make_client: MakeClient,
    tunnel: Stunnel,
    host: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The same server, by a name that is not in its certificate.
    resolve_to(monkeypatch, "gearman.test", ("127.0.0.1", tunnel.port))
    with pytest.raises(ServerUnavailable, match=r"not valid for 'gearman\.test'"):
        make_client({**host, "host": "gearman.test"}).submit_job("task", b"data")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_missing_client_certificate(
    make_client: MakeClient, tunnel: Stunnel, certificates: Path, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.minimum_version = context.maximum_version = version
    client = make_client(("localhost", tunnel.port), ssl_context=context)
    # With TLS 1.3 the client's side of the handshake is over before the server says no.
    with pytest.raises((ServerUnavailable, ExceededConnectionAttempts)) as caught:
        client.submit_job("task", b"data")
    assert len(list(caught.value.job_requests)) == 1
    assert str(tunnel.port) in str(caught.value)


def test_server_without_tls(
    gearmand: Gearmand, make_client: MakeClient, host: dict[str, Any]
) -> None:
    with pytest.raises(ServerUnavailable):
        make_client({**host, "port": gearmand.port}, connect_timeout=2).submit_job("t", b"")


def test_client_without_tls(make_client: MakeClient, tunnel: Stunnel) -> None:
    with pytest.raises((ServerUnavailable, ExceededConnectionAttempts)):
        make_client(("localhost", tunnel.port)).submit_job("task", b"data")


def test_silent_handshake_costs_the_connect_timeout(
    start_server: Callable[..., FakeServer], make_client: MakeClient, host: dict[str, Any]
) -> None:
    def script(peer: Any) -> None:
        while peer.sock.recv(1000):
            pass

    server = start_server(script)
    client = make_client({**host, "port": server.address[1]}, connect_timeout=0.1)
    with pytest.raises(ServerUnavailable, match=r"within 0\.1 seconds"):
        client.submit_job("task", b"data")


def test_silent_handshake_delays_nobody(
    start_server: Callable[..., FakeServer],
    make_client: MakeClient,
    host: dict[str, Any],
    task: str,
    worker: Worker,
) -> None:
    begun = threading.Event()

    def script(peer: Any) -> None:
        while peer.sock.recv(1000):
            begun.set()

    silent = {**host, "port": start_server(script).address[1]}
    client = make_client(host, silent, connect_timeout=20)
    good, bad = client.connection_list
    client.establish_connection(good)
    connecting = spawn(client.establish_connection, bad)
    wait_for(begun, "a handshake")
    requests = client.submit_multiple_jobs([{"task": task, "data": b"x"}] * 2, poll_timeout=0)
    assert next(client.as_completed(requests)).result == b"x"
    assert not connecting.done()
    client.shutdown()
    with pytest.raises(gearman.errors.ConnectionError):
        connecting.result(20)


def test_tunnel_dies(
    certificates: Path,
    gearmand: Gearmand,
    make_client: MakeClient,
    context: ssl.SSLContext,
    task: str,
    start_worker: StartWorker,
) -> None:
    tunnel = Stunnel(certificates, gearmand)
    try:
        gate = Gate()
        start_worker(gearmand.address, {task: gate})
        client = make_client(("localhost", tunnel.port), ssl_context=context)
        request = client.submit_job(task, b"data", wait_until_complete=False)
        wait_for(gate.begun)
        call = spawn(client.wait_until_jobs_completed, [request])
        wait_for_leader(client)
        tunnel.kill()
        gate.open.set()
        assert call.result(20)[0].state == gearman.JOB_UNKNOWN
        tunnel.start()
        assert client.submit_job(task, b"data").result == b"data"
    finally:
        tunnel.kill()


def test_worker(
    make_client: MakeClient, gearmand: Gearmand, host: dict[str, Any], task: str
) -> None:
    client = make_client(gearmand.address)
    data = b"a\0" * 250_000 + b"b\0" * 250_000
    with GearmanWorker([host]) as gearman_worker:
        gearman_worker.register_task(task, lambda _worker, job: job.data[::-1])
        working = spawn(gearman_worker.work)
        assert client.submit_job(task, data, poll_timeout=PATIENCE).result == data[::-1]
        gearman_worker.stop()
        working.result(PATIENCE)
