"""A proxy for a job server that records the exchange as a `Recording`."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.units import Cutter, packet_of
from gearman_proto.wire.packets import BY_NAME, Role

from .proxy import FaultyProxy
from .recording import SERVER, Element, Pauses, Recording, Replies
from .toxics import Direction

if TYPE_CHECKING:
    from gearman_proto.address import HostSpec

# Seconds to wait at the end, in order to record the ends of connections.
_PATIENCE: Final = 0.5

_EPOCH: Final = BY_NAME["SUBMIT_JOB_EPOCH"]


class _Recorded:
    """The recorder's state for one connection."""

    def __init__(self) -> None:
        self.cutters = {direction: Cutter() for direction in Direction}
        self.replies = Replies()
        #: The packets and lines of the peer that has connected.
        self.sent: list[bytes] = []
        self.closed = False

    def side(self) -> str:
        """Guess the kind of the peer from its packets."""
        if any(packet.sender == Role.WORKER for packet in map(packet_of, self.sent) if packet):
            return "worker"
        return "client" if not self.sent or any(not unit[0] for unit in self.sent) else "admin"


class Recorder(FaultyProxy):
    """A proxy for a job server that records the exchange.

    Use it like any `FaultyProxy`, in a ``with`` block. The recorder can have toxics, and records
    the bytes that have passed. Clients, workers and admins connect to its `address`. The bytes of
    clients are recorded as packets and lines. The recording does not show how the network split the
    bytes.

    Args:
        upstream: The address of the server, in any form that GearmanClient takes.
        name: The name of the recording.
    """

    def __init__(self, upstream: HostSpec, *, name: str = "") -> None:
        super().__init__(upstream, tap=self._pass)
        self._grace = _PATIENCE
        self._name = name
        #: The recorded pieces: connection, direction, bytes (empty at the end), pause.
        self._passed: list[tuple[int, Direction, bytes, float]] = []
        self._recorded: dict[int, _Recorded] = {}
        self._pauses = Pauses()
        self._epoch_base: int | None = None

    @property
    def recording(self) -> Recording:
        """The recording of the exchange so far, without incomplete packets.

        The packets of a connection determine whether it belongs to a client, a worker or an admin.
        The connections of each kind are numbered in the order of connecting.
        """
        passed = list(self._passed)
        counts: Counter[str] = Counter()
        names: dict[int, tuple[str, str]] = {}
        for number in sorted({number for number, *_ in passed}):
            side = self._recorded[number].side()
            counts[side] += 1
            names[number] = side, side if counts[side] == 1 else f"{side}{counts[side]}"
        exchange = []
        for number, direction, data, pause in passed:
            side, conn = names[number]
            sender = side if direction is Direction.UP else SERVER
            exchange.append(Element(sender, conn, data, closes=not data, pause=pause))
        return Recording(exchange, self._name, epoch_base=self._epoch_base)

    # Methods that run in the proxy's thread.

    def _pass(self, number: int, direction: Direction, data: bytes) -> None:
        recorded = self._recorded.setdefault(number, _Recorded())
        if recorded.closed:
            return
        for unit in recorded.cutters[direction].take(data):
            whole = unit
            if direction is Direction.DOWN:
                whole = recorded.replies.put(unit)
            else:
                recorded.sent.append(unit)
                if unit[0]:
                    recorded.replies.commands.append(unit)
                elif self._epoch_base is None and packet_of(unit) is _EPOCH:
                    self._epoch_base = int(time.time())
            if whole:
                self._write(number, direction, whole)
        if not data:
            recorded.closed = True
            if direction is Direction.DOWN and (rest := recorded.replies.end()):
                self._write(number, direction, rest)
            self._write(number, direction, b"")

    def _write(self, number: int, direction: Direction, data: bytes) -> None:
        self._passed.append((number, direction, data, self._pauses.next()))
