"""Addresses: IPv6, names with several addresses, socket options, descriptors beyond 1024."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import ServerUnavailable
from gearman_sync import GearmanClient
from tests.support import (
    Gearmand,
    Worker,
    black_hole,
    echo,
    free_port,
    spawn,
    wait_for,
)

from .support import resolve_to

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., Worker]
    MakeClient = Callable[..., GearmanClient]


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return True
    return False


def hold_resolver(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> tuple[threading.Event, threading.Event]:
    """Let nobody know the addresses of `host` before the second event, that of the answer, is set.

    The first is set when somebody asks.
    """
    answering = socket.getaddrinfo
    asked, answer = threading.Event(), threading.Event()

    def getaddrinfo(name: Any, *args: Any, **kwargs: Any) -> Any:
        if name == host and not kwargs.get("flags"):
            asked.set()
            wait_for(answer)
        return answering(name, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked, answer


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("form", ["[::1]:{port}", ("::1", 0), ("[::1]", 0), {"host": "::1"}])
def test_ipv6(
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
    form: Any,
) -> None:
    server = start_gearmand(host="::1")
    start_worker(server.address, {task: echo})
    if isinstance(form, str):
        host: Any = form.format(port=server.port)
    else:
        host = (form[0], server.port) if isinstance(form, tuple) else {**form, "port": server.port}
    client = make_client(host)
    assert repr(client) == f"<GearmanClient [[::1]:{server.port}]>"
    request = client.submit_job(task, b"data")
    assert request.result == b"data"
    assert str(request.job.connection) == f"[::1]:{server.port}"


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
    threads = resolve_to(monkeypatch, "gearman.test", refusing, refusing, gearmand.address)
    client = make_client(("gearman.test", 4730))
    assert client.submit_job(task, b"", background=True).state == gearman.JOB_CREATED
    # Resolving blocks, so it is not done by a thread that others may wait for.
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


def test_first_address_is_a_black_hole(
    gearmand: Gearmand, make_client: MakeClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with black_hole() as address:
        resolve_to(monkeypatch, "gearman.test", address, gearmand.address)
        client = make_client(("gearman.test", 4730), connect_timeout=0.4)
        assert client.submit_job(task, b"", background=True).state == gearman.JOB_CREATED


def test_all_addresses_refuse(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = ("127.0.0.1", free_port())
    resolve_to(monkeypatch, "gearman.test", refusing, refusing)
    with pytest.raises(ServerUnavailable, match=r"gearman\.test:4730.*refused"):
        make_client("gearman.test").submit_job("task", b"")


def test_unknown_name(
    gearmand: Gearmand, make_client: MakeClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "gearman.test")
    with pytest.raises(ServerUnavailable, match="no such name"):
        make_client("gearman.test").submit_job("task", b"")
    client = make_client("gearman.test", gearmand.address)
    jobs = [{"task": task, "data": b""}] * 4
    requests = client.submit_multiple_jobs(jobs, background=True)
    assert all(request.state == gearman.JOB_CREATED for request in requests)


def test_slow_name_server_delays_nobody(
    gearmand: Gearmand,
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_worker(gearmand.address, {task: echo})
    resolve_to(monkeypatch, "gearman.test", gearmand.address)
    asked, answer = hold_resolver(monkeypatch, "gearman.test")
    client = make_client(gearmand.address, "gearman.test")
    good, slow = client.connection_list
    client.establish_connection(good)
    connecting = spawn(client.establish_connection, slow)
    wait_for(asked)
    requests = client.submit_multiple_jobs([{"task": task, "data": b"x"}] * 2, poll_timeout=0)
    ended = client.as_completed(requests)
    assert next(ended).result == b"x"
    assert not connecting.done()
    answer.set()
    assert connecting.result(20).connected
    assert next(ended).result == b"x"


def test_shutdown_while_a_name_is_resolved(
    gearmand: Gearmand, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "gearman.test", gearmand.address)
    asked, answer = hold_resolver(monkeypatch, "gearman.test")
    client = make_client("gearman.test")
    call = spawn(client.submit_job, "task", b"")
    wait_for(asked)
    client.shutdown()
    with pytest.raises(ServerUnavailable, match="shut down"):
        call.result(20)
    answer.set()


def test_socket_options(
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
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
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
