"""What is done to sockets in more than one place here."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Final

from gearman_proto.address import parse_address
from gearman_proto.arguments import FOR_EVER, check_count, check_seconds, check_type

if TYPE_CHECKING:
    from gearman_proto.address import HostSpec

#: The shortest timeout, in seconds.
_SHORTEST: Final = 0.001
# Bytes; no system has larger buffers.
_LARGEST_BUFFER: Final = 1 << 30

_NOT_AT_ALL: Final = struct.pack("ii", 1, 0)


def host_and_port(spec: HostSpec) -> tuple[str, int]:
    """Return the address that `spec` means, for a socket.

    Raises:
        TypeError: It is none of the forms of an address.
        ValueError: It can't be the address of a server.
    """
    address = parse_address(spec)
    return address.host, address.port


def check_timeout(timeout: float, name: str = "timeout") -> float:
    """Return `timeout`, a number of seconds that threads and sockets can wait.

    Raises:
        TypeError, ValueError: It is none.
    """
    return check_seconds(name, timeout, _SHORTEST, FOR_EVER)


def check_buffer(name: str, size: int) -> int:
    """Return the `size` of a kernel's buffer in bytes; 0 leaves it to the system.

    Raises:
        TypeError, ValueError: It is none.
    """
    return check_count(name, size, 0, _LARGEST_BUFFER)


def listening_socket(host: str) -> socket.socket:
    """Return a socket for a server at `host`, an IPv4 or IPv6 address; it is not bound yet.

    Raises:
        TypeError: It is no str.
    """
    return socket_for(check_type("host", host, str, "the address to listen on"))


def socket_for(host: str) -> socket.socket:
    """Return a TCP socket for an address, of IPv4 or IPv6."""
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def set_buffers(sock: socket.socket, size: int) -> None:
    """Limit the kernel's buffers of a socket that is not connected yet to `size` bytes each.

    0 leaves them to the system.
    """
    if size:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            # Linux doubles the value, for its own bookkeeping.
            sock.setsockopt(socket.SOL_SOCKET, option, size)


def linger_not(sock: socket.socket) -> None:
    """Make `close` send a reset (RST), as after the crash of a process."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOT_AT_ALL)
