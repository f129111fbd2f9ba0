"""What goes wrong, and when, from a seed.

The same seed makes the same plan: the same faults for the connection of the same number at the same
proxy, and the same ends, stops and outages of servers at the same times. How many connections there
will be, and which bytes are on their way at that time, is for the real world to say.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gearman_sync.testing.toxics import (
    Bandwidth,
    Corrupt,
    Direction,
    HalfOpen,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Stall,
    Timeout,
    Toxic,
)

if TYPE_CHECKING:
    from collections.abc import Callable

#: The servers. Bytes of the dirty one are changed. The slow one is healthy, and all its links have
#: a limited bandwidth. The others have all other faults.
SERVERS: Final = ("gearmand", "blocking", "awaited", "dirty", "slow")
#: Those that are killed, stopped or cut off.
_UNSAFE: Final = ("gearmand", "blocking", "awaited", "dirty")
#: Who is at the other end of a server's proxy.
SIDES: Final = ("clients", "workers")

# Seconds between two things that happen to servers, on an average.
_PAUSE: Final = 0.7
# Bytes after which a fault happens at the latest.
_FAR: Final = 30_000
# A connection in so many has a fault, but for those that are changed.
_FAULTY: Final = 0.6
_CHANGED: Final = 0.5
# Another one in so many has a limited bandwidth: so many bytes per second, in both directions.
_LIMITED: Final = 0.3
_RATES: Final = (20_000, 2_000_000)

_MAKERS: Final[list[Callable[[random.Random], Toxic]]] = [
    lambda rng: LimitData(),
    lambda rng: ResetPeer(),
    lambda rng: Stall(round(rng.uniform(0.1, 3.0), 3)),
    lambda rng: Latency(round(rng.uniform(0.001, 0.05), 4)),
    lambda rng: Slicer(rng.randint(1, 5), delay=0.005, length=rng.randint(20, 400)),
    lambda rng: Timeout(),
    lambda rng: SlowClose(round(rng.uniform(0.1, 3.0), 3)),
    lambda rng: HalfOpen(),
]


def _toxic(rng: random.Random, direction: Direction, after: int) -> Toxic:
    """A toxic of any kind."""
    return replace(rng.choice(_MAKERS)(rng), direction=direction, after=after)


def _limits(rng: random.Random) -> tuple[Toxic, ...]:
    """Return a bandwidth for both directions; slow ones are as frequent as fast ones."""
    rate = round(math.exp(rng.uniform(*map(math.log, _RATES))))
    return tuple(Bandwidth(rate, direction=direction) for direction in Direction)


@dataclass(frozen=True, order=True)
class Step:
    """Something that happens to a server, or to all connections to it."""

    #: Seconds after the beginning.
    at: float
    server: str
    #: "kill" (it is started again after `seconds`), "stop" (SIGSTOP), and for the proxy of a
    #: `side` "refuse", "ignore" or "inject".
    what: str
    #: Seconds until it is over.
    seconds: float = 0.0
    side: str = ""
    #: What is injected into all connections that there are.
    fault: Toxic | None = None


@dataclass(frozen=True)
class Plan:
    """All that goes wrong."""

    seed: int
    #: How long, in seconds.
    seconds: float

    @property
    def dirty_is_gearmand(self) -> bool:
        """Which server it is whose bytes are changed."""
        return self.seed % 2 == 0

    @property
    def slow_is_gearmand(self) -> bool:
        """Which server it is whose links are slow."""
        return self.seed // 4 % 2 == 0

    @property
    def awaited_on(self) -> str:
        """The event loop of the awaited server."""
        return ("asyncio", "trio")[self.seed // 2 % 2]

    def faults(self, server: str, side: str, number: int) -> tuple[Toxic, ...]:
        """The faults of a connection."""
        rng = random.Random(f"{self.seed} {server} {side} {number}")
        # As many in the first ten bytes as in the next hundred, and so on.
        after = int(math.exp(rng.uniform(0, math.log(_FAR)))) - 1
        direction = rng.choice(list(Direction))
        if server == "dirty":
            return (Corrupt(direction=direction, after=after),) if rng.random() < _CHANGED else ()
        if server == "slow":
            return _limits(rng)
        limits = _limits(rng) if rng.random() < _LIMITED else ()
        if rng.random() >= _FAULTY:
            return limits
        return (*limits, _toxic(rng, direction, after))

    def steps(self) -> list[Step]:
        """What happens to servers, in order."""
        rng = random.Random(f"{self.seed} steps")
        steps = []
        # A server has one thing at a time.
        free = dict.fromkeys(_UNSAFE, 1.0)
        at = 1.0
        while (at := at + rng.expovariate(1 / _PAUSE)) < self.seconds:
            server = rng.choice(_UNSAFE)
            what = rng.choice(("kill", "stop", "stop", "refuse", "ignore", "inject", "inject"))
            seconds = round(rng.uniform(0.2, 3.0), 3)
            side = rng.choice(SIDES)
            fault = _toxic(rng, rng.choice(list(Direction)), rng.randrange(300))
            if at < free[server] or (server == "dirty" and what == "inject"):
                continue
            if what == "inject":
                steps.append(Step(round(at, 3), server, what, 0.0, side, fault))
                continue
            free[server] = at + seconds
            one_side = side if what in ("refuse", "ignore") else ""
            steps.append(Step(round(at, 3), server, what, seconds, one_side))
        return sorted(steps, key=lambda step: step.at)
