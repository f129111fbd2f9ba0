"""The faults of a simulated network: drawn at random, or parsed from text.

A `Fault` is one random decision, and can be written as a line of text. The faults of a run depend
only on its seed and on the names of its nodes. Leaving out some of them therefore does not change
the others, so `shrink` can remove them one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.checks import FOR_EVER, check_count, check_number, check_seconds, check_type
from gearman_proto.errors import ArgumentValueError
from gearman_proto.records import record

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Sequence

#: The faults of a connection, by the names of its ends: ``client1>server1``.
WIRE_KINDS: Final = ("reset", "hang-up", "half-open", "stall", "partition", "throttle")
#: The faults of a node: ``server1``.
NODE_KINDS: Final = ("freeze", "crash", "vanish", "flaky", "clock")
#: All kinds of faults.
KINDS: Final = WIRE_KINDS + NODE_KINDS

# Faults per second. At a higher rate, nothing but faults would happen.
_MOST_FAULTS: Final = 1e6
# Bytes per second. A faster link is no limit.
_MOST_BYTES: Final = 1e15
# The shortest and the longest duration of each kind of fault, in seconds.
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
    """A single fault.

    ``str(fault)`` is a line of text. `parse` turns it back into a fault.

    Faults of a connection:

    * ``reset``: both ends see a reset, and some of the bytes in flight are lost.
    * ``hang-up``: both ends see the end of the stream, perhaps in the middle of a packet.
    * ``half-open``: nothing arrives, and neither end is notified until keepalive times out.
    * ``stall``: nothing arrives for a while, then all of it.
    * ``partition``: like ``stall``, and the two nodes can't connect to each other meanwhile.
    * ``throttle``: the connection carries 20 kB a second each way, for a while.

    Faults of a node:

    * ``freeze``: the node does nothing for a while, as after SIGSTOP.
    * ``crash``: the process dies and is restarted later.
    * ``vanish``: the host loses power, so no peer is notified. It is restarted later.
    * ``flaky`` (servers only): the node closes all connections. For a while, it accepts new ones
      and closes them at once.
    * ``clock``: the wall clock jumps.

    Attributes:
        at: Time of the fault, in seconds of virtual time.
        kind: One of the kinds above.
        target: The node, or the two ends of the connection with a ``>`` between them.
        seconds: Duration; for ``clock``, the size of the jump.

    Raises:
        TypeError, ValueError: An attribute has an invalid type or value.
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
        """Parse the text of a fault.

        Args:
            line: The result of ``str(fault)``.

        Raises:
            ValueError: `line` does not describe a fault.
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


def _check_range(
    name: str, pair: tuple[float, float], least: float, most: float, what: str
) -> None:
    """Check that `pair` is two numbers from `least` to `most`, the lower one first."""
    if len(check_type(name, pair, (tuple, list), what)) != 2:
        raise ArgumentValueError(f"{name} is {pair!r}: it must be {what}")
    check_number(f"the lowest {name}", pair[0], least, most)
    check_number(f"the highest {name}", pair[1], pair[0], most)


@record(frozen=True)
class Faults:
    """The quality of a network. By default, the network is fast and has no faults.

    Attributes:
        rate: Faults per second of virtual time.
        kinds: The kinds of faults to draw from. A kind that is listed twice is drawn twice as
            often.
        latency: Minimum and maximum latency in seconds. Connections are independent of each other,
            so bytes sent on two connections can arrive in any order.
        cut: Probability that written bytes arrive in several pieces, 0.0 to 1.0.
        capacity: Size of the writer's send buffer, which holds bytes until the peer's system has
            acknowledged them. A write that exceeds it is a partial write.
        keepalive: Seconds after which the system detects a dead connection.
        bandwidth: Minimum and maximum bandwidth in bytes per second, or None for no limit. Each
            direction of a connection has its own.
        receive_buffer: Size of the reader's receive buffer. Its system acknowledges the bytes in it
            before the node reads them. With 0, bytes are acknowledged when they are read.
        tunnel: Bytes that a tunnel on the writer's host (stunnel, ssh) buffers in addition. Its
            system acknowledges them at once, so no driver measures anything.

    Raises:
        TypeError, ValueError: An attribute has an invalid type or value.
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
        _check_range("latency", self.latency, 0, FOR_EVER, "two numbers of seconds")
        check_number("cut", self.cut, 0, 1)
        check_count("capacity", self.capacity, 1)
        check_seconds("keepalive", self.keepalive, 0, FOR_EVER)
        if self.bandwidth is not None:
            what = "two numbers of bytes per second, or None for no limit"
            _check_range("bandwidth", self.bandwidth, 1, _MOST_BYTES, what)
        check_count("receive_buffer", self.receive_buffer, 0)
        check_count("tunnel", self.tunnel, 0)


def draw(
    faults: Faults, rng: random.Random, nodes: Sequence[str], wires: Sequence[str]
) -> Iterator[Fault]:
    """Draw random faults, in order of time, without end.

    Args:
        faults: The quality of the network.
        rng: The source of randomness.
        nodes: The names of the nodes.
        wires: The pairs of nodes that can be connected.
    """
    now = 0.0
    targets = {**dict.fromkeys(WIRE_KINDS, wires), **dict.fromkeys(NODE_KINDS, nodes)}
    while True:
        now += rng.expovariate(faults.rate)
        kind = rng.choice(faults.kinds)
        target = rng.choice(targets[kind])
        low, high = _SECONDS.get(kind, (0.0, 0.0))
        # Short faults are more frequent.
        yield Fault(round(now, 6), kind, target, round(low + (high - low) * rng.random() ** 3, 6))
