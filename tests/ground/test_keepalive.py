"""Socket options and the size of send queues, with stand-ins for `socket`."""

from __future__ import annotations

import socket
import sys
from types import ModuleType
from typing import Any, Final

import pytest

from gearman_proto.address import ServerAddress, parse_address
from gearman_proto.keepalive import socket_options, unacknowledged

LINUX: Final = {
    "SO_KEEPALIVE": 9,
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 4,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 6,
    "TCP_USER_TIMEOUT": 18,
    "TCP_NOTSENT_LOWAT": 25,
}
MACOS: Final = {
    "SO_KEEPALIVE": 8,
    "TCP_NODELAY": 1,
    "TCP_KEEPALIVE": 16,
    "TCP_KEEPINTVL": 257,
    "TCP_KEEPCNT": 258,
}
ODD: Final = {"SO_KEEPALIVE": 8, "TCP_NODELAY": 1}


def asked(address: ServerAddress | None, system: dict[str, int]) -> dict[str, int]:
    """Return the options that are set on a system, by name."""
    module: Any = ModuleType("socket")
    vars(module).update(system, SOL_SOCKET=-1, IPPROTO_TCP=-2)
    names = {(-1 if name.startswith("SO_") else -2, system[name]): name for name in system}
    return {names[level, option]: value for level, option, value in socket_options(address, module)}


def test_defaults() -> None:
    """Probe a silent peer after 30 s, and give it up 60 s after its last byte."""
    assert asked(ServerAddress("h"), LINUX) == {
        "TCP_NODELAY": 1,
        "TCP_NOTSENT_LOWAT": 131_072,
        "SO_KEEPALIVE": 1,
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPINTVL": 10,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 60_000,
    }
    # TCP_USER_TIMEOUT would end accepted connections whose clients read late.
    accepted = asked(ServerAddress("h"), LINUX)
    del accepted["TCP_USER_TIMEOUT"]
    assert asked(None, LINUX) == accepted


def test_keepalive_times_of_an_address_are_set() -> None:
    address = parse_address({"host": "h", "keepidle": 5, "keepintvl": 2, "keepcnt": 4})
    options = asked(address, LINUX)
    assert (options["TCP_KEEPIDLE"], options["TCP_KEEPINTVL"], options["TCP_KEEPCNT"]) == (5, 2, 4)
    assert options["TCP_USER_TIMEOUT"] == 13_000


def test_longest_times_fit_into_the_user_timeout() -> None:
    address = ServerAddress("h", keepidle=32767, keepintvl=32767, keepcnt=127)
    assert asked(address, LINUX)["TCP_USER_TIMEOUT"] == 2**31 - 1


def test_turned_off() -> None:
    address = parse_address({"host": "h", "keepalive": False, "keepidle": 5})
    assert asked(address, LINUX) == {"TCP_NODELAY": 1, "TCP_NOTSENT_LOWAT": 131_072}


@pytest.mark.parametrize("system", [MACOS, ODD])
def test_options_missing_on_a_system_are_omitted(system: dict[str, int]) -> None:
    options = asked(ServerAddress("h"), system)
    assert options.keys() == system.keys()
    assert options.get("TCP_KEEPALIVE", 30) == 30


def test_kernel_accepts_the_extreme_values() -> None:
    """Set the options to both limits of each range of `ServerAddress`."""
    with socket.socket() as sock:
        for count, most in ((1, 1), (127, 32767)):
            address = ServerAddress("h", keepidle=most, keepintvl=most, keepcnt=count)
            for level, option, value in socket_options(address, socket):
                sock.setsockopt(level, option, value)
                assert bool(sock.getsockopt(level, option)) == bool(value)


class Sock:
    """A socket with the given addresses."""

    def __init__(self, here: Any, there: Any) -> None:
        self.getsockname = lambda: here
        self.getpeername = lambda: there


def send_queue(here: Any, there: Any, error: OSError | None = None) -> int | None:
    """Call `unacknowledged` on a system whose send queue has 700 bytes, or that raises `error`."""
    fcntl: Any = ModuleType("fcntl")
    termios: Any = ModuleType("termios")
    termios.TIOCOUTQ = 0x5411

    def ioctl(_: object, request: int, buffer: bytes) -> bytes:
        if error is not None:
            raise error
        assert (request, len(buffer)) == (0x5411, 4)
        return (700).to_bytes(4, sys.byteorder)

    fcntl.ioctl = ioctl
    return unacknowledged(Sock(here, there), fcntl, termios)


@pytest.mark.parametrize(
    ("here", "there", "count"),
    [
        (("10.0.0.1", 9), ("10.0.0.2", 4730), 700),
        (("fd::1", 9, 0, 0), ("fd::2", 4730, 0, 0), 700),
        # Data sent to a tunnel on this host is acknowledged before it is on its way.
        (("127.0.0.1", 9), ("127.0.0.2", 4730), None),
        (("::1", 9, 0, 0), ("::1", 4730, 0, 0), None),
        (("10.0.0.1", 9), ("10.0.0.1", 4730), None),
        ("", "/run/tunnel", None),
    ],
)
def test_unacknowledged_bytes_are_known_of_other_hosts_only(
    here: Any, there: Any, count: int | None
) -> None:
    assert send_queue(here, there) == count


def test_unacknowledged_bytes_where_the_system_refuses_raises_its_error() -> None:
    refused = OSError(25, "Inappropriate ioctl for device")
    with pytest.raises(OSError, match="Inappropriate"):
        send_queue(("10.0.0.1", 9), ("10.0.0.2", 4730), refused)
