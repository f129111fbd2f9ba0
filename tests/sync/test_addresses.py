"""Addresses: names that are resolved, and races of several addresses."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ServerUnavailable
from tests.support import PATIENCE, black_hole, eventually, free_port, resolve_to, spawn, wait_for

if TYPE_CHECKING:
    from tests.support import Gearmand

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
    client._gm_driver.apply(lambda engine, now: engine.disconnect(now, server))
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
