"""Which options the sockets of connections get, so that a peer that has vanished is noticed.

A host that loses its power or its network says nothing, and a system that waits for it does not
ask by itself before two hours have passed. Three things are told to the system:

* Keepalive, with times: after `keepidle` seconds of silence it asks, and when `keepcnt` questions,
  `keepintvl` seconds apart, are unanswered, the connection has failed. Only a silent connection is
  asked, one on which nothing is under way to the peer.
* TCP_USER_TIMEOUT, the same time in all, for bytes that are under way: else the system sends them
  again for some 15 minutes. (Linux: RFC 5482, tcp(7). It then rules over `keepcnt`, too.)
* TCP_NODELAY: what is to be sent is sent.
* TCP_NOTSENT_LOWAT: the system takes no more while 128 KiB have not been sent yet. So megabytes do
  not hide in the send queue of a slow link, where an engine can't see whether they move. (tcp(7))

TCP_USER_TIMEOUT has a second meaning: a peer that is there and does not *read* is given up as well,
when the buffers of both systems have been full for so long (tcp(7); tried on Linux 6.18). Of a
server nothing else can be expected. But a client may do something else for minutes before it reads
its results, so a job server's accepted connections do not get this option; what they may leave
unread is bounded in bytes (`max_unread`).

This library's core does not import `socket`: an adapter passes that module, and sets what is
returned, passing over what the system refuses. What a system has no name for is left out.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from .address import ServerAddress

if TYPE_CHECKING:
    from types import ModuleType

# The address of an accepted connection's peer is of no account here; its times are the defaults.
_PEER: Final = ServerAddress("peer")
# What fits into the option.
_LONGEST: Final = 2**31 - 1
# Bytes; a fast link on one host needs some, to be kept busy.
_MAX_NOT_SENT: Final = 128 * 1024


def unacknowledged(sock: Any, fcntl: ModuleType, termios: ModuleType) -> int | None:
    """Return how many bytes written to `sock` the peer's system has not acknowledged.

    They are those in the system's send queue (SIOCOUTQ, tcp(7)).

    Args:
        sock: A connected socket.
        fcntl: The module.
        termios: The module.

    Returns:
        The number of bytes; None if the system can't tell, or if the other end is on this host: a
        tunnel there acknowledges bytes that the server does not have.
    """
    try:
        here, there = sock.getsockname(), sock.getpeername()
        if not isinstance(there, tuple) or here[0] == there[0] or there[0].startswith("127."):
            return None
        return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return None


def socket_options(address: ServerAddress | None, socket: ModuleType) -> list[tuple[int, int, int]]:
    """Return the level, the option and the value of each option of a connection's socket.

    Args:
        address: The server that it is connected to; None for a connection that was accepted.
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
