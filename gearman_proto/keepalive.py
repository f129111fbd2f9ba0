"""Socket options for connections, mainly to detect vanished peers.

A host that loses power or its network sends nothing, and by default the system does not send a
keepalive probe before two hours have passed. Connections therefore get these options:

* Keepalive, with times: After `keepidle` seconds of silence, the system sends a probe. If `keepcnt`
  probes, `keepintvl` seconds apart, are unanswered, the connection has failed. The system probes
  only while no sent bytes are unacknowledged.
* TCP_USER_TIMEOUT: The same total time for unacknowledged bytes, which the system would otherwise
  retransmit for some 15 minutes. On Linux, this timeout also overrides `keepcnt` (RFC 5482,
  tcp(7)).
* TCP_NODELAY: The system sends small packets without delay.
* TCP_NOTSENT_LOWAT: The system stops accepting bytes while 128 KiB are unsent. Otherwise megabytes
  could stay in the send queue of a slow link, where an engine can't see whether they move (tcp(7)).

TCP_USER_TIMEOUT has a second effect. It also ends the connection of a live peer that does not
*read*, once the buffers of both systems have been full for that time (tcp(7); tested on Linux
6.18). That is right for a server. A client, however, might do other work for minutes before it
reads its results, so a job server does not set this option on accepted connections. Instead,
`max_unread` limits their unread bytes.

This library's core does not import `socket`. The adapter passes that module, sets the returned
options, and ignores those that the system refuses. Options that the module does not define are left
out.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from .address import ServerAddress

if TYPE_CHECKING:
    from types import ModuleType

# Stands for the peer of an accepted connection. Only its default times are used.
_PEER: Final = ServerAddress("peer")
# The largest value of the option.
_LONGEST: Final = 2**31 - 1
# Bytes. A smaller value would slow down fast links, such as those within one host.
_MAX_NOT_SENT: Final = 128 * 1024


def unacknowledged(sock: Any, fcntl: ModuleType, termios: ModuleType) -> int | None:
    """Return the number of bytes written to `sock` that the peer's system has not acknowledged.

    This is the size of the system's send queue (SIOCOUTQ, tcp(7)).

    Args:
        sock: A connected socket.
        fcntl: The module.
        termios: The module.

    Returns:
        The number of bytes. None if the other end is on this host, where a tunnel might acknowledge
        bytes that the server does not have.

    Raises:
        OSError: The system can't tell.
    """
    here, there = sock.getsockname(), sock.getpeername()
    if not isinstance(there, tuple) or here[0] == there[0] or there[0].startswith("127."):
        return None
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def socket_options(address: ServerAddress | None, socket: ModuleType) -> list[tuple[int, int, int]]:
    """Return the options for a connection's socket, each as level, option and value.

    Args:
        address: The address of the server; None for an accepted connection.
        socket: The module.
    """
    peer = address or _PEER
    options = {"TCP_NODELAY": 1, "TCP_NOTSENT_LOWAT": _MAX_NOT_SENT}
    if peer.keepalive:
        options["SO_KEEPALIVE"] = 1
        # It has one name or the other.
        options["TCP_KEEPIDLE"] = options["TCP_KEEPALIVE"] = peer.keepidle
        options["TCP_KEEPINTVL"] = peer.keepintvl
        options["TCP_KEEPCNT"] = peer.keepcnt
        if address is not None:
            seconds = peer.keepidle + peer.keepintvl * peer.keepcnt
            options["TCP_USER_TIMEOUT"] = min(1000 * seconds, _LONGEST)
    return [
        (
            socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP,
            getattr(socket, name),
            value,
        )
        for name, value in options.items()
        if hasattr(socket, name)
    ]
