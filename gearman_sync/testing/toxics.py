"""What a network does to a connection, as values, with the names that toxiproxy gives them.

A toxic is in one direction of one connection and begins when so many bytes have passed there. It
has no effect on the other direction, unless it ends the connection. All are immutable and
comparable, so that a plan of them can be written down, made from a seed, and compared.

As toxiproxy's:

============  ====================================================================================
`Latency`     Everything passes later, by some seconds, more or less.
`Bandwidth`   So many bytes a second pass.
`Slicer`      What passes does so in small pieces, with a pause after each.
`Timeout`     Nothing passes any more; after some seconds, or never, the connection is closed.
`ResetPeer`   A reset (RST) for both sides, at once or after some seconds.
`LimitData`   After so many bytes, both sides see the end of the stream.
`SlowClose`   The end of the stream passes later, by some seconds.
============  ====================================================================================

And three that toxiproxy does not have:

============  ====================================================================================
`Stall`       Nothing passes for some seconds; then everything does. A network that comes back
              looks so, since TCP sends again what was lost.
`HalfOpen`    The receiver sees the end of the stream; the sender is not told and may send on,
              which goes nowhere: a host that was switched off and on again behind a silent
              firewall.
`Corrupt`     One byte is changed.
============  ====================================================================================

What is not of one connection is a method of the proxy: `FaultyProxy.down` and `FaultyProxy.refuse`,
and connections that are never taken (`FaultyProxy.ignore`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.arguments import (
    FOR_EVER,
    check_count,
    check_number,
    check_seconds,
    check_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Direction(enum.Enum):
    """Whose bytes they are."""

    #: From the side that has connected, a client or a worker, to the server.
    UP = "upstream"
    #: From the server to the client.
    DOWN = "downstream"

    @property
    def other(self) -> Direction:
        """The opposite direction."""
        return Direction.DOWN if self is Direction.UP else Direction.UP


def _check_bytes(name: str, value: Any) -> object:
    return check_count(name, value, 0)


def _check_duration(name: str, value: Any) -> object:
    return check_seconds(name, value, 0, FOR_EVER)


# The checks of all attributes, by name.
_CHECKS: Final[dict[str, Callable[[str, Any], object]]] = {
    "direction": lambda name, value: check_type(name, value, Direction, "a Direction"),
    "toxicity": lambda name, value: check_number(name, value, 0, 1),
    # Bytes per second; less than one is no use, and infinity is no limit.
    "rate": lambda name, value: check_number(name, value, 1, 1e15),
    "average_size": lambda name, value: check_count(name, value, 1),
    "mask": lambda name, value: check_count(name, value, 1, 255),
    **dict.fromkeys(("after", "size_variation", "length", "bytes"), _check_bytes),
    **dict.fromkeys(("latency", "jitter", "delay", "timeout", "seconds"), _check_duration),
}


@dataclass(frozen=True)
class Toxic:
    """Something that happens to a connection. Each kind takes these as keyword arguments.

    Raises:
        TypeError, ValueError: An attribute has a type or a value that can't be.

    Attributes:
        direction: Whose bytes are counted, and are affected; the server's unless told otherwise.
        after: How many bytes pass there before. 0 is at once, before any has.
        toxicity: The probability, from 0 to 1, that a connection has it at all. The proxy's seed
            decides it for each.
    """

    direction: Direction = field(default=Direction.DOWN, kw_only=True)
    after: int = field(default=0, kw_only=True)
    toxicity: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.name in _CHECKS:
                _CHECKS[each.name](each.name, getattr(self, each.name))

    @property
    def begins(self) -> int:
        """How many bytes pass before it does something."""
        return self.after


@dataclass(frozen=True)
class Latency(Toxic):
    """Everything passes `latency` seconds after it came, from now on.

    Attributes:
        latency: In seconds.
        jitter: Each piece is later or earlier than that by up to so many seconds. The proxy's seed
            decides it.
    """

    latency: float = 0.1
    jitter: float = 0.0


@dataclass(frozen=True)
class Bandwidth(Toxic):
    """Only so many bytes a second pass, from now on.

    The bytes that are not through yet wait in the buffers of the two systems and of the proxy. Give
    the proxy a small `buffer` if the sender has to notice that the link is slow, as it does in a
    real network.

    Attributes:
        rate: Bytes per second, at least 1. After a pause, the bytes of 0.05 seconds pass at once.
    """

    rate: float = 100_000.0


@dataclass(frozen=True)
class Slicer(Toxic):
    """What passes does so in pieces.

    Attributes:
        average_size: Bytes of a piece.
        size_variation: A piece is larger or smaller than that by up to so many bytes. The proxy's
            seed decides it.
        delay: Seconds before each piece.
        length: How many bytes are cut so; 0 for all.
    """

    average_size: int = 1
    size_variation: int = 0
    delay: float = 0.0
    length: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("size_variation", self.size_variation, 0, self.average_size - 1)


@dataclass(frozen=True)
class Timeout(Toxic):
    """What is sent goes nowhere, from now on, and so does the sender's end.

    Nobody is told: a cable that was cut, a firewall that has forgotten the connection. When this
    is removed from a proxy, the connections that have lost bytes by it are closed.

    Attributes:
        timeout: Seconds after which the connection is closed; 0 for never.
    """

    timeout: float = 0.0


@dataclass(frozen=True)
class ResetPeer(Toxic):
    """A reset, for both sides, as after the crash of a process with unread data.

    Attributes:
        timeout: Seconds until then, in which everything passes.
    """

    timeout: float = 0.0


@dataclass(frozen=True)
class LimitData(Toxic):
    """The end of the stream, for both sides, when so many bytes have passed.

    Attributes:
        bytes: How many; 0 is at once.
    """

    bytes: int = 0

    @property
    def begins(self) -> int:
        """How many bytes pass before it does something."""
        return self.after + self.bytes


@dataclass(frozen=True)
class SlowClose(Toxic):
    """The end of the stream passes later.

    Attributes:
        delay: Seconds between its coming and its passing.
    """

    delay: float = 1.0


@dataclass(frozen=True)
class Stall(Toxic):
    """Nothing passes for some time.

    Attributes:
        seconds: How long.
    """

    seconds: float = 1.0


@dataclass(frozen=True)
class HalfOpen(Toxic):
    """The receiver sees the end, the sender does not, and what it sends goes nowhere."""


@dataclass(frozen=True)
class Corrupt(Toxic):
    """The next byte is changed.

    Attributes:
        mask: What it is combined with by an exclusive or, 1 to 255. The default makes what was
            ASCII not ASCII, so that a name or a number never becomes another name or number that
            somebody has given out: a changed name is recognised as such.
    """

    mask: int = 0x80
