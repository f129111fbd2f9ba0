"""The common base of all kits."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from gearman_proto.testing.peer import ByteStream

if TYPE_CHECKING:
    from typing import Self


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
