"""Network faults of a connection, as values, with the names that toxiproxy uses.

A toxic affects one direction of one connection, and begins when a number of bytes have passed in
that direction. Only a toxic that ends the connection affects both directions. Toxics are immutable
and comparable, so a test can write down a plan of toxics, generate it from a seed, or compare it.

Seven toxics are those of toxiproxy:

============  ====================================================================================
`Latency`     Delays all bytes by some seconds, with jitter.
`Bandwidth`   Limits the bytes per second.
`Slicer`      Splits the bytes into small pieces, with a pause before each.
`Timeout`     Discards all bytes, and closes the connection after some seconds or never.
`ResetPeer`   Resets the connection (RST) for both sides, at once or after some seconds.
`LimitData`   Ends the stream for both sides after a number of bytes.
`SlowClose`   Delays the end of the stream by some seconds.
============  ====================================================================================

Toxiproxy does not have the other three:

============  ====================================================================================
`Stall`       Holds all bytes back for some seconds. A network that recovers from an outage looks
              like this, because TCP retransmits lost bytes.
`HalfOpen`    Ends the stream for the receiver. The sender is not notified, and all that it sends
              is lost. A host that was switched off and on again, with a firewall that drops
              packets silently, looks like this.
`Corrupt`     Changes one byte.
============  ====================================================================================

Faults that do not belong to one connection are methods of the proxy: `FaultyProxy.down`,
`FaultyProxy.refuse`, and `FaultyProxy.ignore`, which never accepts connections.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.checks import FOR_EVER, check_count, check_number, check_seconds, check_type

if TYPE_CHECKING:
    from collections.abc import Callable


class Direction(enum.Enum):
    """The direction of bytes through a proxy."""

    #: From the peer that has connected, a client or a worker, to the server.
    UP = "upstream"
    #: From the server to that peer.
    DOWN = "downstream"

    @property
    def other(self) -> Direction:
        """The opposite direction."""
        return Direction.DOWN if self is Direction.UP else Direction.UP


# The checks of all attributes, by name.
_CHECKS: Final[dict[str, Callable[[str, Any], object]]] = {
    "direction": lambda name, value: check_type(name, value, Direction, "a Direction"),
    "toxicity": lambda name, value: check_number(name, value, 0, 1),
    # Bytes per second. A rate below one is useless, and infinity is no limit.
    "rate": lambda name, value: check_number(name, value, 1, 1e15),
    "average_size": lambda name, value: check_count(name, value, 1),
    "mask": lambda name, value: check_count(name, value, 1, 255),
    **dict.fromkeys(
        ("after", "size_variation", "length", "bytes"),
        lambda name, value: check_count(name, value, 0),
    ),
    **dict.fromkeys(
        ("latency", "jitter", "delay", "timeout", "seconds"),
        lambda name, value: check_seconds(name, value, 0, FOR_EVER),
    ),
}


@dataclass(frozen=True)
class Toxic:
    """A network fault of a connection. All kinds accept these attributes as keyword arguments.

    Raises:
        TypeError, ValueError: An attribute has a wrong type or value.

    Attributes:
        direction: The direction whose bytes are counted and affected; by default those of the
            server.
        after: The number of bytes that pass in this direction before the toxic takes effect. 0
            means before the first byte.
        toxicity: The probability, from 0 to 1, that the toxic affects a connection. The outcome for
            each connection depends on the proxy's seed.
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
        """The number of bytes that pass before the toxic takes effect."""
        return self.after


@dataclass(frozen=True)
class Latency(Toxic):
    """A delay of all bytes by `latency` seconds.

    Attributes:
        latency: The delay in seconds.
        jitter: The maximum deviation of a piece from `latency`, in seconds. The deviations depend
            on the proxy's seed.
    """

    latency: float = 0.1
    jitter: float = 0.0


@dataclass(frozen=True)
class Bandwidth(Toxic):
    """A limit of the bytes per second.

    Bytes that have not passed yet wait in the buffers of the two systems and of the proxy. If the
    sender has to notice that the link is slow, as in a real network, give the proxy a small
    `buffer`.

    Attributes:
        rate: Bytes per second, at least 1. After a pause, the first bytes, worth 0.05 seconds, pass
            at once.
    """

    rate: float = 100_000.0


@dataclass(frozen=True)
class Slicer(Toxic):
    """A split of the bytes into small pieces.

    Attributes:
        average_size: The average size of a piece, in bytes.
        size_variation: The maximum deviation of a piece from `average_size`, in bytes. The
            deviations depend on the proxy's seed.
        delay: Seconds before each piece.
        length: The number of bytes to split; 0 means all.
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
    """The loss of all bytes and of the end of the stream.

    Neither side is notified. A cut cable looks like this, and so does a firewall that has forgotten
    the connection. When this toxic is removed from a proxy, the connections that it has affected
    are closed, because they have lost bytes.

    Attributes:
        timeout: Seconds after which the connection is closed; 0 means never.
    """

    timeout: float = 0.0


@dataclass(frozen=True)
class ResetPeer(Toxic):
    """A reset of the connection for both sides, as if a process with unread data had crashed.

    Attributes:
        timeout: Seconds before the reset. All bytes pass meanwhile.
    """

    timeout: float = 0.0


@dataclass(frozen=True)
class LimitData(Toxic):
    """The end of the stream for both sides after a number of bytes.

    Attributes:
        bytes: The number of bytes that pass; 0 ends the stream at once.
    """

    bytes: int = 0

    @property
    def begins(self) -> int:
        """The number of bytes that pass before the stream ends."""
        return self.after + self.bytes


@dataclass(frozen=True)
class SlowClose(Toxic):
    """A delay of the end of the stream.

    Attributes:
        delay: The delay in seconds.
    """

    delay: float = 1.0


@dataclass(frozen=True)
class Stall(Toxic):
    """A pause without any bytes.

    Attributes:
        seconds: The duration in seconds.
    """

    seconds: float = 1.0


@dataclass(frozen=True)
class HalfOpen(Toxic):
    """The end of the stream for the receiver only. The sender's bytes are discarded."""


@dataclass(frozen=True)
class Corrupt(Toxic):
    """A change of the next byte.

    Attributes:
        mask: The mask of the exclusive or, from 1 to 255. The default turns ASCII into non-ASCII
            bytes, so that a changed name or number can't be mistaken for another valid one.
    """

    mask: int = 0x80


#: The kinds of toxics that a proxy knows.
KINDS: Final = (
    *(Bandwidth, Corrupt, HalfOpen, Latency, LimitData),
    *(ResetPeer, Slicer, SlowClose, Stall, Timeout),
)
