"""Socket options that let the kernel detect vanished peers.

The tests read the options from this process's sockets, so they work with every adapter.
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

#: Default socket options of each connection, by name.
DEFAULTS: Final = {
    "TCP_NODELAY": 1,
    "SO_KEEPALIVE": 1,
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}


def connections(port: int, *, accepted: bool = False) -> list[dict[str, int]]:
    """Return the options of this process's connections to `port`, or of those accepted there."""
    found = []
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # Not an open, connected socket.
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
    """Open one connection to `host`."""
    if kind == "client":
        client = await kit.client(host)
        await client.submit_job(task, b"", background=True, poll_timeout=PATIENCE)
    elif kind == "admin":
        await (await kit.admin_client(host)).ping_server()
    else:
        await kit.start_worker(host, tasks={task: echo})
        # The worker's thread might still be setting the options.
        await kit.eventually(lambda: DEFAULTS in connections(port), "a worker's connection")


@pytest.mark.parametrize("kind", ["client", "worker", "admin"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_defaults(
    kit: Kit, gearmand: Gearmand, tls_host: dict[str, Any], kind: str, secure: bool, task: str
) -> None:
    port = tls_host["port"] if secure else gearmand.port
    await use(kit, kind, tls_host if secure else gearmand.address, port, task)
    assert connections(port) == [DEFAULTS]


async def test_accepted_connections_have_no_user_timeout(kit: Kit, task: str) -> None:
    """Leave TCP_USER_TIMEOUT unset, since a client might read its replies late."""
    server = await kit.start_job_server()
    port = server.address.port
    for kind in ("client", "admin", "worker"):
        await use(kit, kind, server.address, port, task)
    expected = [{**DEFAULTS, "TCP_USER_TIMEOUT": 0}] * 3
    # The kernel establishes a connection before the server accepts it.
    await kit.eventually(lambda: connections(port, accepted=True) == expected)


async def test_refused_socket_option_is_ignored(
    kit: Kit, gearmand: Gearmand, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set each option independently, and ignore those that the kernel refuses."""
    real = socket.socket.setsockopt

    def setsockopt(sock: socket.socket, level: int, name: int, *value: Any) -> None:
        if (level, name) == (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE):
            raise PermissionError("not allowed")
        real(sock, level, name, *value)

    monkeypatch.setattr(socket.socket, "setsockopt", setsockopt)
    await use(kit, "client", gearmand.address, gearmand.port, task)
    (options,) = connections(gearmand.port)
    assert options.pop("TCP_KEEPIDLE") not in (0, 30)
    assert options.items() <= DEFAULTS.items()
