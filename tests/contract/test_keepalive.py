"""The options of sockets by which the system notices that a peer has vanished.

They are read from the sockets of this process, however an adapter has made them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import Any, Final

import pytest

from tests.support import PATIENCE, Gearmand

from .kit import Kit, echo

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="this system does not list a process's sockets"
)

#: By the names of keys, what each side has when nothing is said.
DEFAULTS: Final = {
    "TCP_NODELAY": 1,
    "SO_KEEPALIVE": 1,
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}


def connections(port: int, *, accepted: bool = False) -> list[dict[str, int]]:
    """The options of this process's connections to `port`, or of those accepted there."""
    found = []
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # It is closed by now, is no socket, has no peer.
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as sock:
                    peer, own = sock.getpeername(), sock.getsockname()
                    if (own if accepted else peer)[1:2] == (port,):
                        found.append({name: option(sock, name) for name in DEFAULTS})
    return found


def option(sock: socket.socket, name: str) -> int:
    level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
    return sock.getsockopt(level, getattr(socket, name))


async def use(kit: Kit, kind: str, host: Any, port: int, task: str) -> None:
    """Have one connection to `host`."""
    if kind == "client":
        client = await kit.client(host)
        await client.submit_job(task, b"", background=True, poll_timeout=PATIENCE)
    elif kind == "admin":
        assert await (await kit.admin_client(host)).ping_server() < PATIENCE
    else:
        await kit.start_worker(host, tasks={task: echo})
        await kit.eventually(lambda: any(c["SO_KEEPALIVE"] for c in connections(port)))


@pytest.mark.parametrize("kind", ["client", "worker", "admin"])
async def test_defaults(kit: Kit, gearmand: Gearmand, kind: str, task: str) -> None:
    await use(kit, kind, gearmand.address, gearmand.port, task)
    assert connections(gearmand.port) == [DEFAULTS]


async def test_accepted_connections(kit: Kit, task: str) -> None:
    """But for TCP_USER_TIMEOUT: a client may leave unread for long what it has asked for."""
    server = kit.job_server()
    await kit.begin(server)
    port = server.address.port
    for kind in ("client", "admin", "worker"):
        await use(kit, kind, server.address, port, task)
    expected = [{**DEFAULTS, "TCP_USER_TIMEOUT": 0}] * 3
    # A connection is there before it is accepted.
    await kit.eventually(lambda: connections(port, accepted=True) == expected)


async def test_times_of_a_server(kit: Kit, gearmand: Gearmand, task: str) -> None:
    host = {"host": gearmand.host, "port": gearmand.port}
    times = {"keepidle": 5, "keepintvl": 2, "keepcnt": 4}
    await use(kit, "client", {**host, **times, "keepalive": None}, gearmand.port, task)
    assert connections(gearmand.port) == [
        {
            **DEFAULTS,
            "TCP_KEEPIDLE": 5,
            "TCP_KEEPINTVL": 2,
            "TCP_KEEPCNT": 4,
            "TCP_USER_TIMEOUT": 13_000,
        }
    ]


async def test_turned_off(kit: Kit, gearmand: Gearmand, task: str) -> None:
    host = {"host": gearmand.host, "port": gearmand.port, "keepalive": False}
    await use(kit, "client", host, gearmand.port, task)
    (options,) = connections(gearmand.port)
    assert (options["SO_KEEPALIVE"], options["TCP_USER_TIMEOUT"]) == (0, 0)


async def test_with_tls(kit: Kit, tls_host: dict[str, Any], task: str) -> None:
    await use(kit, "client", tls_host, tls_host["port"], task)
    assert connections(tls_host["port"]) == [DEFAULTS]


@pytest.mark.parametrize("error", [OSError("not supported"), PermissionError("not allowed")])
async def test_a_system_that_refuses(
    kit: Kit,
    gearmand: Gearmand,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
) -> None:
    """Each option is set for itself, and none of them is needed."""
    real = socket.socket.setsockopt

    def setsockopt(sock: socket.socket, level: int, name: int, *value: Any) -> None:
        if (level, name) == (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE):
            raise error
        real(sock, level, name, *value)

    monkeypatch.setattr(socket.socket, "setsockopt", setsockopt)
    await use(kit, "client", gearmand.address, gearmand.port, task)
    (options,) = connections(gearmand.port)
    assert options.pop("TCP_KEEPIDLE") not in (0, 30)
    assert options.items() <= DEFAULTS.items()
