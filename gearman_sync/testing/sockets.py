"""What is done to sockets in more than one place here."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Final

_NOT_AT_ALL: Final = struct.pack("ii", 1, 0)


def socket_for(host: str) -> socket.socket:
    """Return a TCP socket for an address, of IPv4 or IPv6."""
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def linger_not(sock: socket.socket) -> None:
    """Make `close` send a reset (RST), as after the crash of a process."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOT_AT_ALL)
