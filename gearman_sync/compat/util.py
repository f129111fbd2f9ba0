"""The functions of `gearman.util` that programs use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from gearman_proto.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gearman_proto import HostSpec

T = TypeVar("T")


class Stopwatch:
    """A countdown (python-gearman: `Stopwatch`).

    Args:
        time_remaining: The remaining seconds, or None for no limit.
    """

    def __init__(self, time_remaining: float | None) -> None:
        self._end = None if time_remaining is None else time.monotonic() + time_remaining

    def get_time_remaining(self) -> float | None:
        """Return the remaining seconds, at least 0.0, or None if there is no limit."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def has_time_remaining(self) -> bool:
        """Return True if any time is left."""
        return self.get_time_remaining() != 0.0


def disambiguate_server_parameter(hostport_tuple: HostSpec) -> tuple[str, int]:
    """Return the host and port of a server's address, in any form that a host list accepts.

    Raises:
        TypeError, ValueError: `hostport_tuple` is not an address.
    """
    address = parse_address(hostport_tuple)
    return address.host, address.port


def unlist(given_list: Sequence[T]) -> T | None:
    """Return the item of a list of one, or None if the list is empty.

    Raises:
        ValueError: The list has several items.
    """
    if len(given_list) > 1:
        raise ValueError(len(given_list))
    return given_list[0] if given_list else None
