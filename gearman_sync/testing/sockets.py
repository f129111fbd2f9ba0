"""Functions for sockets that several modules share."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Final

from gearman_proto.address import parse_address
from gearman_proto.checks import FOR_EVER, check_count, check_seconds, check_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_proto.address import HostSpec

#: Minimum timeout in seconds.
_MIN_TIMEOUT: Final = 0.001
# Maximum buffer size in bytes. No system has larger buffers.
_MAX_BUFFER: Final = 1 << 30

# Maximum number of connections that a system queues, even with a backlog of 0.
_MAX_BACKLOG = 64
# Seconds after which the backlog is considered full.
_FULL_AFTER = 0.1
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


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[str, int]]:
    """Yield an address where connecting hangs because the listener's backlog is full.

    A host that is switched off or protected by a firewall behaves like this.

    Args:
        host: An address of this machine.
        port: The port to use; 0 means any free port.

    Raises:
        OSError: The backlog can't be filled on this system.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        address: tuple[str, int] = listener.getsockname()
        for _ in range(_MAX_BACKLOG):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(_FULL_AFTER)
            try:
                sock.connect(address)
            except TimeoutError:
                break
        else:
            raise OSError("this system's backlogs can't be filled")
        yield address
