"""Addresses: names that are resolved, and races of several addresses."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import ServerUnavailable
from gearman_sync import _driver, _leader
from tests.support import PATIENCE, black_hole, eventually, free_port, resolve_to, spawn, wait_for

if TYPE_CHECKING:
    from tests.support import Gearmand, Stunnel

    from .support import MakeClient


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[socket.socket, Any]]:
    """The sockets that clients connect, and the addresses."""
    tried: list[tuple[socket.socket, Any]] = []
    real = socket.socket.connect_ex

    def connect_ex(sock: socket.socket, address: Any) -> int:
        tried.append((sock, address))
        return real(sock, address)

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    return tried


def test_addresses_that_refuse_are_skipped_until_one_accepts(
    gearmand: Gearmand,
    make_client: MakeClient,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
    tried: list[tuple[socket.socket, Any]],
) -> None:
    """The address that worked last is tried first."""
    refusing = ("127.0.0.1", free_port())
    name = resolve_to(monkeypatch, "gearman.test", refusing, gearmand.address)
    client = make_client("gearman.test")
    (server,) = client.connection_list
    assert client.submit_job(task, b"", background=True).complete
    # Name resolution blocks, so a separate thread does it.
    assert name.threads != [threading.current_thread()]
    client._gm_driver.call(lambda engine, now: engine.disconnect(now, server))
    assert client.submit_job(task, b"", background=True).complete
    assert [address for _, address in tried] == [refusing, gearmand.address, gearmand.address]
    sock, _ = tried[-1]
    assert not sock.getblocking()
    assert not sock.get_inheritable()


def test_sockets_that_lose_the_race_are_closed(
    gearmand: Gearmand,
    make_client: MakeClient,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
    tried: list[tuple[socket.socket, Any]],
) -> None:
    with black_hole() as one, black_hole() as two:
        resolve_to(monkeypatch, "gearman.test", one, two, gearmand.address)
        client = make_client("gearman.test")
        assert client.submit_job(task, b"", background=True).complete
        assert [sock.fileno() >= 0 for sock, _ in tried] == [False, False, True]
        client.shutdown()
        assert tried[2][0].fileno() < 0


def test_shutdown_closes_all_sockets_that_race(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with black_hole() as one, black_hole() as two:
        resolve_to(monkeypatch, "gearman.test", one, two)
        client = make_client("gearman.test")
        transports = client._gm_driver._poller.transports
        call = spawn(client.submit_job, "task", b"")
        eventually(lambda: [len(each.sockets) for each in transports.values()] == [2])
        ((_, transport),) = transports.items()
        sockets = list(transport.sockets)
        client.shutdown()
        with pytest.raises(ServerUnavailable, match="shut down"):
            call.result(PATIENCE)
        assert [sock.fileno() for sock in sockets] == [-1, -1]


def test_shutdown_while_a_name_is_resolved_ends_the_call(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = resolve_to(monkeypatch, "gearman.test", "127.0.0.1")
    name.known.clear()
    client = make_client("gearman.test")
    call = spawn(client.submit_job, "task", b"")
    wait_for(name.asked)
    client.shutdown()
    with pytest.raises(ServerUnavailable, match="shut down"):
        call.result(PATIENCE)
    name.known.set()
    eventually(lambda: client._gm_driver._posted)
    client.shutdown()  # It processes the late result.


class TimePasses:
    """A clock that a test can advance between two calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.more = 0.0
        real = _driver.clock
        for module, name in ((_driver, "clock"), (_leader, "_clock")):
            monkeypatch.setattr(module, name, lambda: real() + self.more)


def test_connection_that_no_call_drives_is_not_given_up_before_all_addresses_had_their_turn(
    gearmand: Gearmand,
    make_client: MakeClient,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each call is short, and the connect timeout passes before the next one."""
    passes = TimePasses(monkeypatch)
    with contextlib.ExitStack() as stack:
        dead = [stack.enter_context(black_hole()) for _ in range(3)]
        resolve_to(monkeypatch, "gearman.test", *dead, gearmand.address)
        client = make_client("gearman.test", connect_timeout=60.0)
        driver = client._gm_driver
        request = gearman.GearmanJobRequest(gearman.GearmanJob(None, None, task, None, b""))
        request.background = True
        client.submit_multiple_requests([request], poll_timeout=0)
        # Another thread resolves the name and posts the result. The next call processes it.
        eventually(lambda: driver._posted)
        # One call per address, and one that finds the connection open.
        for _ in range(5):
            passes.more += 3600.0
            client.submit_multiple_requests([request], poll_timeout=0)
        # The connection is open, and only the server's answer is missing.
        client.submit_multiple_requests([request], poll_timeout=PATIENCE)
        assert (request.state, request.error) == (gearman.JOB_CREATED, None)
        assert request.connection_attempts <= 1


def test_an_address_that_fails_at_once(
    gearmand: Gearmand, make_client: MakeClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an address has no route, the client tries the next one."""
    answering = socket.getaddrinfo
    nowhere = (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/nowhere/at/all")

    def getaddrinfo(name: Any, *args: Any, **kwargs: Any) -> Any:
        return [nowhere, *answering(name, *args, **kwargs)] if name == b"127.0.0.1" else [nowhere]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    client = make_client(gearmand.address)
    assert client.submit_job(task, b"", background=True).complete
    with pytest.raises(ServerUnavailable, match="No such file"):
        make_client(("127.0.0.2", 1)).submit_job(task, b"")


def test_wrong_host_name_in_a_certificate_is_refused(
    make_client: MakeClient,
    tls_tunnel: Stunnel,
    tls_host: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "gearman.test", ("127.0.0.1", tls_tunnel.port))
    with pytest.raises(ServerUnavailable, match=r"not valid for 'gearman\.test'"):
        make_client({**tls_host, "host": "gearman.test"}).submit_job("task", b"data")
