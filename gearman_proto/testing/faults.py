"""What goes wrong in a simulated network: drawn by chance, written down, and read again.

A `Fault` is one decision, and a line of text. The faults of a run are drawn from its seed and from
the names of its nodes and from nothing else, so that to leave some out changes nothing about the
others: that is what lets `shrink` take them away one by one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gearman_proto.arguments import (
    FOR_EVER,
    check_count,
    check_number,
    check_seconds,
    check_type,
)
from gearman_proto.errors import ArgumentValueError
from gearman_proto.records import record

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

#: The faults of a connection, by the names of its ends: ``client1>server1``.
WIRE_KINDS: Final = (
    "reset",
    "hang-up",
    "half-open",
    "stall",
    "partition",
    "throttle",
)
#: The faults of a node: ``server1``.
NODE_KINDS: Final = ("freeze", "crash", "vanish", "flaky", "clock")
#: All of them.
KINDS: Final = WIRE_KINDS + NODE_KINDS

# Faults per second; with more of them, nothing else would happen.
_MOST_FAULTS: Final = 1e6
# Seconds that a fault of each kind lasts: the shortest and the longest.
_SECONDS: Final = {
    "stall": (0.01, 45.0),
    "partition": (0.1, 45.0),
    "throttle": (1.0, 120.0),
    "freeze": (0.001, 45.0),
    "crash": (0.0, 20.0),
    "vanish": (1.0, 60.0),
    "flaky": (0.1, 20.0),
    "clock": (-100_000.0, 100_000.0),
}


@record(frozen=True)
class Fault:
    """One thing that goes wrong.

    ``str(fault)`` is a line of text, from which `parse` makes it again.

    Of a connection:

    * ``reset``: both ends see a reset; some of what is under way is lost.
    * ``hang-up``: both ends see the end of the stream, perhaps in the middle of a packet.
    * ``half-open``: nothing arrives any more, and nobody is told; the systems notice in time.
    * ``stall``: nothing arrives for a while, then all of it.
    * ``partition``: the same, and the two nodes can make no connection meanwhile.
    * ``throttle``: it carries 20 kB a second each way, for a while.

    Of a node:

    * ``freeze``: it does nothing for a while, as after SIGSTOP.
    * ``crash``: the process dies, and is started again.
    * ``vanish``: its host loses its power: nobody is told; it is started again.
    * ``flaky``, of a server: it ends all connections, takes new ones, and closes them at once, for
      a while.
    * ``clock``: its wall clock jumps.

    Attributes:
        at: When, in seconds of virtual time.
        kind: One of these, which are KINDS.
        target: The node, or the two ends of the connection with a ``>`` between them.
        seconds: How long it lasts; by how much a clock jumps.

    Raises:
        TypeError, ValueError: One of these has a type or a value that can't be.
    """

    at: float
    kind: str
    target: str
    seconds: float = 0.0

    def __post_init__(self) -> None:
        check_seconds("at", self.at, 0, FOR_EVER)
        _check_kind(self.kind)
        check_type("target", self.target, str, "the name of a node, or of two with a > between")
        if (self.target.count(">") == 1) != (self.kind in WIRE_KINDS):
            wanted = "client1>server1" if self.kind in WIRE_KINDS else "server1"
            raise ArgumentValueError(
                f"target is {self.target!r}: for {self.kind!r} it must be like {wanted!r}"
            )
        least = -FOR_EVER if self.kind == "clock" else 0
        check_seconds("seconds", self.seconds, least, FOR_EVER)

    def __str__(self) -> str:
        return f"{self.at!r} {self.kind} {self.target} {self.seconds!r}"

    @staticmethod
    def parse(line: str) -> Fault:
        """Make a fault of the text that it was.

        Args:
            line: What ``str(fault)`` has returned.

        Raises:
            ValueError: That is none.
        """
        try:
            at, kind, target, seconds = line.split()
            numbers = float(at), float(seconds)
        except ValueError:
            raise ArgumentValueError(
                f"{line!r} is no fault: it must be like '2.5 reset client1>server1 0.0'"
            ) from None
        return Fault(numbers[0], kind, target, numbers[1])


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ArgumentValueError(f"there is no fault {kind!r}; there are {', '.join(KINDS)}")


def _check_bandwidth(bandwidth: object) -> None:
    match bandwidth:
        case None:
            return
        case (int() | float() as low, int() | float() as high) if 0 < low <= high < math.inf:
            return
    raise ArgumentValueError(
        f"bandwidth is {bandwidth!r}: it must be two numbers of bytes per second, the least and "
        "the most, or None for no limit"
    )


@record(frozen=True)
class Faults:
    """How bad a network is. The defaults are a good one: it is quick, and nothing breaks.

    Attributes:
        rate: Faults in each second of virtual time.
        kinds: Which ones, of KINDS; one that stands there twice comes twice as often.
        latency: Seconds that bytes are on their way, at least and at most. Connections do not wait
            for each other, so what goes over two of them arrives in any order.
        cut: How often what is written arrives in pieces, 0.0 to 1.0.
        capacity: Bytes that the writer's system takes before the peer's has acknowledged them; a
            write beyond them is a part.
        keepalive: Seconds after which the system notices a connection that goes nowhere.
        bandwidth: Bytes per second that a connection carries each way, at least and at most; each
            way has a rate of its own. None is no limit.
        receive_buffer: Bytes that the reader's system keeps, and acknowledges, before the node
            reads them. With 0, bytes are acknowledged when they are read.
        tunnel: Bytes that a tunnel on the writer's host (stunnel, ssh) takes as well. Its system
            acknowledges them at once, so that no driver measures anything.

    Raises:
        TypeError, ValueError: One of these has a type or a value that can't be.
    """

    rate: float = 0.0
    kinds: tuple[str, ...] = KINDS
    latency: tuple[float, float] = (0.0001, 0.002)
    cut: float = 0.05
    capacity: int = 1_000_000
    keepalive: float = 60.0
    bandwidth: tuple[float, float] | None = None
    receive_buffer: int = 0
    tunnel: int = 0

    def __post_init__(self) -> None:
        check_number("rate", self.rate, 0, _MOST_FAULTS)
        check_type("kinds", self.kinds, (tuple, list), "a tuple of kinds of faults")
        for kind in self.kinds:
            _check_kind(kind)
        if self.rate and not self.kinds:
            raise ArgumentValueError("kinds is empty: with a rate, there must be a kind")
        pair = check_type("latency", self.latency, (tuple, list), "two numbers of seconds")
        if len(pair) != 2:
            raise ArgumentValueError(f"latency is {pair!r}: it must be two numbers of seconds")
        check_seconds("latency", pair[0], 0, FOR_EVER)
        check_seconds("the longest latency", pair[1], pair[0], FOR_EVER)
        check_number("cut", self.cut, 0, 1)
        check_count("capacity", self.capacity, 1)
        check_seconds("keepalive", self.keepalive, 0, FOR_EVER)
        _check_bandwidth(self.bandwidth)
        check_count("receive_buffer", self.receive_buffer, 0)
        check_count("tunnel", self.tunnel, 0)


def draw(
    faults: Faults, rng: random.Random, nodes: Sequence[str], wires: Sequence[str]
) -> Iterator[Fault]:
    """Draw what goes wrong, without end, in the order of time.

    Args:
        faults: How bad it is.
        rng: Where chance comes from.
        nodes: The names of the nodes.
        wires: The pairs of nodes that may be connected.
    """
    now = 0.0
    targets = {**dict.fromkeys(WIRE_KINDS, wires), **dict.fromkeys(NODE_KINDS, nodes)}
    while True:
        now += rng.expovariate(faults.rate)
        kind = rng.choice(faults.kinds)
        target = rng.choice(targets[kind])
        low, high = _SECONDS.get(kind, (0.0, 0.0))
        # Short ones are more frequent.
        yield Fault(round(now, 6), kind, target, round(low + (high - low) * rng.random() ** 3, 6))
