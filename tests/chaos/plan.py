"""The faults of a run, generated from a seed.

The same seed gives the same plan: the same faults for the nth connection of a proxy, and the same
ends, stops and outages of servers at the same times. The number of connections, and the bytes in
transit at a given time, depend on the run.
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

#: The servers. The dirty one has changed bytes. The slow one is healthy, but all its links have a
#: limited bandwidth. The others have all other faults.
SERVERS: Final = ("gearmand", "blocking", "awaited", "dirty", "slow")
#: The servers that are killed, stopped or cut off.
_UNSAFE: Final = ("gearmand", "blocking", "awaited", "dirty")
#: The peers at the other end of a server's proxy.
SIDES: Final = ("clients", "workers")

# Average seconds between two faults of servers.
_PAUSE: Final = 0.7
# Maximum number of bytes before a fault.
_FAR: Final = 30_000
# The fraction of connections that have a fault, and the same for changed bytes.
_FAULTY: Final = 0.6
_CHANGED: Final = 0.5
# The fraction of connections with a limited bandwidth, and the range of bytes per second in each
# direction.
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
    """Return a toxic of any kind."""
    return replace(rng.choice(_MAKERS)(rng), direction=direction, after=after)


def _limits(rng: random.Random) -> tuple[Toxic, ...]:
    """Return a bandwidth for both directions. Each order of magnitude has the same probability."""
    rate = round(math.exp(rng.uniform(*map(math.log, _RATES))))
    return tuple(Bandwidth(rate, direction=direction) for direction in Direction)


@dataclass(frozen=True, order=True)
class Step:
    """A fault of a server, or of all its connections."""

    #: Seconds after the beginning.
    at: float
    server: str
    #: "kill" (with a restart after `seconds`), "stop" (SIGSTOP), or, for the proxy of a `side`,
    #: "refuse", "ignore" or "inject".
    what: str
    #: Seconds until the fault ends.
    seconds: float = 0.0
    side: str = ""
    #: The toxic to inject into all current connections.
    fault: Toxic | None = None


@dataclass(frozen=True)
class Plan:
    """All faults of a run."""

    seed: int
    #: The duration in seconds.
    seconds: float

    @property
    def dirty_is_gearmand(self) -> bool:
        """True if the server with changed bytes is a gearmand."""
        return self.seed % 2 == 0

    @property
    def slow_is_gearmand(self) -> bool:
        """True if the server with slow links is a gearmand."""
        return self.seed // 4 % 2 == 0

    @property
    def awaited_on(self) -> str:
        """The event loop of the awaited server."""
        return ("asyncio", "trio")[self.seed // 2 % 2]

    def faults(self, server: str, side: str, number: int) -> tuple[Toxic, ...]:
        """Return the faults of a connection."""
        rng = random.Random(f"{self.seed} {server} {side} {number}")
        # Each order of magnitude has the same probability.
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
        """Return the faults of servers, in order."""
        rng = random.Random(f"{self.seed} steps")
        steps = []
        # A server has one fault at a time.
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
