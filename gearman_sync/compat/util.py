"""What programs use of `gearman.util`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from gearman_proto.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gearman_proto import HostSpec

T = TypeVar("T")


class Stopwatch:
    """Keeps track of the time that is left (python-gearman: `Stopwatch`).

    Args:
        time_remaining: Seconds that are left, or None for any number.
    """

    def __init__(self, time_remaining: float | None) -> None:
        self._end = None if time_remaining is None else time.monotonic() + time_remaining

    def get_time_remaining(self) -> float | None:
        """Return the seconds that are left, 0.0 at least; None if there is no end."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def has_time_remaining(self) -> bool:
        """Return whether any are left."""
        return self.get_time_remaining() != 0.0


def disambiguate_server_parameter(hostport_tuple: HostSpec) -> tuple[str, int]:
    """Return the host and the port of a server's address in any form that a host list takes.

    Raises:
        TypeError, ValueError: It is none.
    """
    address = parse_address(hostport_tuple)
    return address.host, address.port


def unlist(given_list: Sequence[T]) -> T | None:
    """Return what is in a list of one; None if it is empty.

    Raises:
        ValueError: There is more.
    """
    if len(given_list) > 1:
        raise ValueError(len(given_list))
    return given_list[0] if given_list else None
