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
# In bytes. No system has larger buffers.
_LARGEST_BUFFER: Final = 1 << 30

_NOT_AT_ALL: Final = struct.pack("ii", 1, 0)


def host_and_port(spec: HostSpec) -> tuple[str, int]:
    """Return the host and port of the address `spec`.

    Raises:
        TypeError: `spec` has none of the forms of an address.
        ValueError: `spec` is not a valid address of a server.
    """
    address = parse_address(spec)
    return address.host, address.port


def check_timeout(timeout: float, name: str = "timeout") -> float:
    """Return `timeout` if it is a number of seconds that threads and sockets can wait.

    Raises:
        TypeError, ValueError: It is not.
    """
    return check_seconds(name, timeout, _SHORTEST, FOR_EVER)


def check_buffer(name: str, size: int) -> int:
    """Return `size` if it is a valid size of a kernel buffer in bytes, or 0 for the default.

    Raises:
        TypeError, ValueError: It is not.
    """
    return check_count(name, size, 0, _LARGEST_BUFFER)


def listening_socket(host: str) -> socket.socket:
    """Return an unbound socket for a server at `host`, an IPv4 or IPv6 address.

    Raises:
        TypeError: `host` is not a str.
    """
    return socket_for(check_type("host", host, str, "the address to listen on"))


def socket_for(host: str) -> socket.socket:
    """Return a TCP socket for an address, of IPv4 or IPv6."""
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def set_buffers(sock: socket.socket, size: int) -> None:
    """Limit the kernel's buffers of an unconnected socket to `size` bytes each.

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
