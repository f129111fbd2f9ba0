"""The common base of all kits."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, Protocol

from gearman_proto.testing.peer import ByteStream

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self


def noise(seed: object, size: int) -> bytes:
    """Return `size` bytes that depend on `seed` and on their position, and can't be compressed."""
    return hashlib.shake_128(repr(seed).encode()).digest(size)


def around_powers(exponents: Iterable[int]) -> list[int]:
    """Return 2^k - 1, 2^k and 2^k + 1 for each exponent k."""
    return [(1 << exponent) + more for exponent in exponents for more in (-1, 0, 1)]


class ResettableStream(ByteStream, Protocol):
    """A stream that can also be reset."""

    def reset(self) -> None:
        """Close the connection with a reset, as if the process had crashed."""


class Place(Protocol):
    """The environment of the other side: in memory, or reached through sockets."""

    @property
    def now(self) -> float:
        """The monotonic time in seconds, real or virtual."""

    def wall(self) -> float:
        """Return the time in seconds since 1970."""


class Kit:
    """The argument of a case, used as a context manager.

    Args:
        place: The environment of the other side.
        name: A function name that no other case uses.
        timeout: Seconds to wait for an answer.

    Attributes:
        place: As given.
        function: The name as bytes.
        timeout: As given.
    """

    def __init__(self, place: Any, name: str, timeout: float) -> None:
        self.place: Any = place
        self.function: bytes = name.encode()
        self.timeout: float = timeout
        # Closes the connections on exit.
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def now(self) -> float:
        """The monotonic time in seconds, real or virtual."""
        now: float = self.place.now
        return now

    def wall(self) -> float:
        """Return the time in seconds since 1970."""
        seconds: float = self.place.wall()
        return seconds

    @property
    def errors(self) -> bytes:
        """The program's standard error output."""
        return b""
