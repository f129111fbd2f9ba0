"""Functions for sockets that several modules share."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Final

from gearman_proto.address import parse_address
from gearman_proto.checks import FOR_EVER, check_count, check_seconds, check_type

if TYPE_CHECKING:
    from gearman_proto.address import HostSpec

#: Minimum timeout in seconds.
_MIN_TIMEOUT: Final = 0.001
# Maximum buffer size in bytes. No system has larger buffers.
_MAX_BUFFER: Final = 1 << 30

_NO_LINGER: Final = struct.pack("ii", 1, 0)


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
        TypeError, ValueError: `timeout` has a wrong type or value.
    """
    return check_seconds(name, timeout, _MIN_TIMEOUT, FOR_EVER)


def check_buffer(name: str, size: int) -> int:
    """Return `size` if it is a valid size of a kernel buffer in bytes, or 0 for the default.

    Raises:
        TypeError, ValueError: `size` has a wrong type or value.
    """
    return check_count(name, size, 0, _MAX_BUFFER)


def listening_socket(host: str) -> socket.socket:
    """Return an unbound socket for a server at `host`, an IPv4 or IPv6 address.

    Raises:
        TypeError: `host` is not a str.
    """
    return socket_for(check_type("host", host, str, "the address to listen on"))


def socket_for(host: str) -> socket.socket:
    """Return a TCP socket for an IPv4 or IPv6 address."""
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def set_buffers(sock: socket.socket, size: int) -> None:
    """Limit the kernel's buffers of an unconnected socket to `size` bytes each.

    A size of 0 leaves the buffers to the system.
    """
    if size:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            # Linux doubles the value for its own bookkeeping.
            sock.setsockopt(socket.SOL_SOCKET, option, size)


def linger_not(sock: socket.socket) -> None:
    """Make `close` send a reset (RST), as if the process had crashed."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
