"""What a network does to a connection, as values.

A fault is in one direction of one connection and begins when so many bytes have passed there. It
has no effect on the other direction, unless it ends the connection. All are immutable and
comparable, so that a plan of faults can be written down, made from a seed, and compared.

===========  =====================================================================================
`Cut`        Both sides see the end of the stream, as after a `close`.
`Reset`      Both sides see a reset (RST), as after the crash of a process with unread data.
`Stall`      Nothing passes for some seconds; then everything does. A network that comes back
             looks so, since TCP sends again what was lost.
`Delay`      What passes does so later, by some seconds for each piece.
`Drip`       The next bytes pass a few at a time, with a pause after each few.
`BlackHole`  What is sent is taken and goes nowhere, for as long as the connection lasts, and so
             does the sender's end. Nobody is told: a cable that was cut, a firewall that has
             forgotten the connection.
`HalfOpen`   The receiver sees the end of the stream; the sender is not told and may send on, which
             goes nowhere: a host that was switched off and on again behind a silent firewall.
`Corrupt`    One byte is changed.
===========  =====================================================================================

There are two more that are not of a connection: `FaultProxy.refuse`, and connections that are never
taken (`FaultProxy.ignore`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Direction(enum.Enum):
    """Whose bytes they are."""

    #: From the side that has connected, a client, to the other, a server.
    UP = "up"
    #: From the server to the client.
    DOWN = "down"

    @property
    def other(self) -> Direction:
        """The opposite direction."""
        return Direction.DOWN if self is Direction.UP else Direction.UP


@dataclass(frozen=True)
class Fault:
    """Something that happens to a connection.

    Attributes:
        direction: Whose bytes are counted, and are affected.
        after: How many bytes pass there before. 0 is at once, before any has.
    """

    direction: Direction = Direction.DOWN
    after: int = 0


@dataclass(frozen=True)
class Cut(Fault):
    """The end of the stream, for both sides."""


@dataclass(frozen=True)
class Reset(Fault):
    """A reset, for both sides."""


@dataclass(frozen=True)
class Stall(Fault):
    """Nothing passes for some `seconds`."""

    seconds: float = 1.0


@dataclass(frozen=True)
class Delay(Fault):
    """Each piece that is read from the sender passes `seconds` later, from now on."""

    seconds: float = 0.01


@dataclass(frozen=True)
class Drip(Fault):
    """The next `length` bytes pass `size` at a time, each time with a pause of `seconds`."""

    length: int = 64
    size: int = 1
    seconds: float = 0.005


@dataclass(frozen=True)
class BlackHole(Fault):
    """What is sent goes nowhere, from now on."""


@dataclass(frozen=True)
class HalfOpen(Fault):
    """The receiver sees the end, the sender does not, and what it sends goes nowhere."""


@dataclass(frozen=True)
class Corrupt(Fault):
    """The next byte is changed: it is combined with `mask` by an exclusive or.

    The default makes what was ASCII not ASCII, so that a name or a number never becomes another
    name or number that somebody has given out: a changed name is recognised as such.
    """

    mask: int = 0x80

    def __post_init__(self) -> None:
        if not 0 < self.mask < 256:
            raise ValueError(f"a mask that changes a byte is between 1 and 255, not {self.mask}")
