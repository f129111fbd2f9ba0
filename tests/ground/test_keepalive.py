"""What is asked of the system for the sockets of connections, with stand-ins for `socket`."""

from __future__ import annotations

import socket
from types import ModuleType
from typing import Any, Final

import pytest

from gearman_proto.address import ServerAddress, parse_address
from gearman_proto.keepalive import socket_options

LINUX: Final = {
    "SO_KEEPALIVE": 9,
    "TCP_NODELAY": 1,
    "TCP_KEEPIDLE": 4,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 6,
    "TCP_USER_TIMEOUT": 18,
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
    """The options that are set on such a system, by name."""
    module: Any = ModuleType("socket")
    vars(module).update(system, SOL_SOCKET=-1, IPPROTO_TCP=-2)
    names = {(-1 if name.startswith("SO_") else -2, system[name]): name for name in system}
    return {names[level, option]: value for level, option, value in socket_options(address, module)}


def test_defaults() -> None:
    """A silent peer is asked after 30 s; 60 s after its last byte it is given up."""
    assert asked(ServerAddress("h"), LINUX) == {
        "TCP_NODELAY": 1,
        "SO_KEEPALIVE": 1,
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPINTVL": 10,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 60_000,
    }


def test_an_accepted_connection_may_be_left_unread() -> None:
    """So it has no TCP_USER_TIMEOUT, which would end it."""
    expected = asked(ServerAddress("h"), LINUX)
    del expected["TCP_USER_TIMEOUT"]
    assert asked(None, LINUX) == expected


def test_times_of_its_own() -> None:
    address = parse_address({"host": "h", "keepidle": 5, "keepintvl": 2, "keepcnt": 4})
    options = asked(address, LINUX)
    assert (options["TCP_KEEPIDLE"], options["TCP_KEEPINTVL"], options["TCP_KEEPCNT"]) == (5, 2, 4)
    assert options["TCP_USER_TIMEOUT"] == 13_000


def test_the_longest_times_fit() -> None:
    address = ServerAddress("h", keepidle=32767, keepintvl=32767, keepcnt=127)
    assert asked(address, LINUX)["TCP_USER_TIMEOUT"] == 2**31 - 1


def test_turned_off() -> None:
    address = parse_address({"host": "h", "keepalive": False, "keepidle": 5})
    assert asked(address, LINUX) == {"TCP_NODELAY": 1}


@pytest.mark.parametrize("system", [MACOS, ODD])
def test_what_a_system_does_not_have_is_left_out(system: dict[str, int]) -> None:
    assert asked(ServerAddress("h"), system).keys() == system.keys()
    if system is MACOS:
        assert asked(ServerAddress("h"), system)["TCP_KEEPALIVE"] == 30


def test_this_system_takes_the_extremes() -> None:
    """Each end of each range of `ServerAddress`."""
    with socket.socket() as sock:
        for count, most in ((1, 1), (127, 32767)):
            address = ServerAddress("h", keepidle=most, keepintvl=most, keepcnt=count)
            for level, option, value in socket_options(address, socket):
                sock.setsockopt(level, option, value)
                assert bool(sock.getsockopt(level, option)) == bool(value)
