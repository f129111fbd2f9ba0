"""Addresses: IPv6, names with several addresses, socket options, descriptors beyond 1024."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import ServerUnavailable
from gearman_sync import GearmanClient
from gearman_sync.testing import ScriptedWorker, echo
from tests.support import Gearmand, black_hole, free_port, resolve_to, spawn, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., ScriptedWorker]
    MakeClient = Callable[..., GearmanClient]


def test_localhost(
    gearmand: Gearmand, make_client: MakeClient, task: str, start_worker: StartWorker
) -> None:
    """Where it has IPv6, localhost is ::1 first; gearmand listens at 127.0.0.1 only."""
    start_worker(gearmand.address, {task: echo})
    client = make_client(f"localhost:{gearmand.port}")
    assert client.submit_job(task, b"data").result == b"data"


def test_first_address_refuses(
    gearmand: Gearmand, make_client: MakeClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = ("127.0.0.1", free_port())
    name = resolve_to(monkeypatch, "gearman.test", refusing, refusing, gearmand.address)
    client = make_client(("gearman.test", 4730))
    assert client.submit_job(task, b"", background=True).state == gearman.JOB_CREATED
    # Resolving blocks, so it is not done by a thread that others may wait for.
    (thread,) = name.threads
    assert thread is not threading.current_thread()


def test_first_address_is_a_black_hole(
    gearmand: Gearmand, make_client: MakeClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with black_hole() as address:
        resolve_to(monkeypatch, "gearman.test", address, gearmand.address)
        client = make_client(("gearman.test", 4730), connect_timeout=4.0)
        assert client.submit_job(task, b"", background=True).state == gearman.JOB_CREATED


def test_shutdown_while_a_name_is_resolved(
    gearmand: Gearmand, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = resolve_to(monkeypatch, "gearman.test", gearmand.address)
    name.known.clear()
    client = make_client("gearman.test")
    call = spawn(client.submit_job, "task", b"")
    wait_for(name.asked)
    client.shutdown()
    with pytest.raises(ServerUnavailable, match="shut down"):
        call.result(20)
    name.known.set()


def test_sockets_do_not_block_and_are_not_inherited(
    gearmand: Gearmand, make_client: MakeClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = socket.socket.connect_ex

    def connect_ex(sock: socket.socket, address: Any) -> int:
        made.append(sock)
        return real(sock, address)

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)
    make_client(gearmand.address).submit_job(task, b"", background=True)
    (sock,) = made
    assert not sock.getblocking()
    assert not sock.get_inheritable()


@pytest.mark.slow
def test_more_than_1024_descriptors(
    gearmand: Gearmand, make_client: MakeClient, task: str, start_worker: StartWorker
) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 1300
    if limits[0] < enough:
        if 0 <= limits[1] < enough:
            pytest.skip(f"this process may have {limits[1]} descriptors only")
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, limits[1]))
    start_worker(gearmand.address, {task: echo})
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while taken[-1] < 1100:
            taken.append(os.dup(taken[0]))
        client = make_client(gearmand.address)
        assert client.submit_job(task, b"data").result == b"data"
        jobs = [{"task": task, "data": bytes(100_000)}] * 20
        assert all(request.complete for request in client.submit_multiple_jobs(jobs))
        client.shutdown()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_address_that_fails_at_once(
    gearmand: Gearmand, make_client: MakeClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that there is no route to: the next one is tried."""
    answering = socket.getaddrinfo
    nowhere = (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/nowhere/at/all")

    def getaddrinfo(name: Any, *args: Any, **kwargs: Any) -> Any:
        return [nowhere, *answering(name, *args, **kwargs)] if name == "127.0.0.1" else [nowhere]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    client = make_client(gearmand.address)
    assert client.submit_job(task, b"", background=True).complete
    with pytest.raises(ServerUnavailable, match="No such file"):
        make_client(("127.0.0.2", 1)).submit_job(task, b"")
