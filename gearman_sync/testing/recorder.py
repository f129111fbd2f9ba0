"""A proxy before a job server that writes down what passes, as a `Recording`."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

from gearman_proto.wire.packets import BY_NUMBER, HEADER, Role

from .proxy import FaultyProxy
from .recording import SERVER, Cutter, Element, Recording, is_whole_reply
from .toxics import Direction

if TYPE_CHECKING:
    from collections.abc import Iterable

# Seconds that the end waits for connections that have ended, which are to be written down, too.
_PATIENCE: Final = 0.5
# Seconds between two elements that are a pause, which a replay has to make as well.
_PAUSE: Final = 0.25


class _Recorded:
    """One connection, as far as it is written down."""

    def __init__(self) -> None:
        self.cutters = {direction: Cutter() for direction in Direction}
        #: What its client has sent.
        self.units: list[bytes] = []
        #: The commands that are not answered yet.
        self.commands: deque[bytes] = deque()
        #: The lines of an answer that is not whole.
        self.reply = b""
        self.closed = False

    @property
    def side(self) -> str:
        """What is at the other end, as far as that can be told from what it has sent."""
        packets = [BY_NUMBER.get(HEADER.unpack_from(unit)[1]) for unit in self.units if not unit[0]]
        if any(packet is not None and packet.sender == Role.WORKER for packet in packets):
            return "worker"
        return "client" if packets or not self.units else "admin"


class Recorder(FaultyProxy):
    """A proxy before a job server that writes down what passes.

    It is used like any `FaultyProxy`, in a ``with``, and may have toxics: what is written down is
    what has passed. Clients, workers and admins connect to its `address`. What a client sent is
    cut into packets and lines; how it was split on its way is not written down.

    Args:
        upstream: The host and port of the server.
        name: What the recording is called.
        description: What it shows.
        server: The server, and its version.
        host: The address to listen on. The port is a free one.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        *,
        name: str = "",
        description: str = "",
        server: str = "",
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(upstream, tap=self._pass, host=host)
        self._patience = _PATIENCE
        self._described = name, description, server
        #: What passed: the connection, whose it was, the bytes (empty: it has closed), the pause.
        self._passed: list[tuple[int, Direction, bytes, float]] = []
        self._recorded: dict[int, _Recorded] = {}
        self._latest = time.monotonic()
        self._epoch_base: int | None = None

    @property
    def recording(self) -> Recording:
        """What has passed until now; what is not complete is not part of it.

        Whether a connection is that of a client, a worker or an admin is told from what it has
        sent, and they are numbered in the order in which they have connected.
        """
        counts: dict[str, int] = {}
        names: dict[int, tuple[str, str]] = {}
        for number, recorded in sorted(self._recorded.items()):
            side = recorded.side
            counts[side] = counts.get(side, 0) + 1
            names[number] = side, side if counts[side] == 1 else f"{side}{counts[side]}"
        exchange = []
        for number, direction, data, pause in list(self._passed):
            side, conn = names[number]
            sender = side if direction is Direction.UP else SERVER
            exchange.append(Element(sender, conn, data, closes=not data, pause=pause))
        name, description, server = self._described
        return Recording(exchange, name, description, server, epoch_base=self._epoch_base)

    # In the proxy's thread.

    def _pass(self, number: int, direction: Direction, data: bytes) -> None:
        recorded = self._recorded.setdefault(number, _Recorded())
        if recorded.closed:
            return
        cutter = recorded.cutters[direction]
        units: Iterable[bytes] = cutter.cut(data)
        if cutter.rest and (cutter.lost or not data):
            units, cutter.rest = [*units, cutter.rest], b""
        for unit in units:
            if direction is Direction.UP:
                self._note_request(recorded, unit)
                self._write(number, direction, unit)
            elif unit[0] and recorded.commands:
                recorded.reply += unit
                if is_whole_reply(recorded.commands[0], recorded.reply):
                    self._write(number, direction, recorded.reply)
                    recorded.commands.popleft()
                    recorded.reply = b""
            else:
                self._write(number, direction, unit)
        if not data:
            recorded.closed = True
            self._write(number, direction, b"")

    def _note_request(self, recorded: _Recorded, unit: bytes) -> None:
        if unit[0]:
            recorded.commands.append(unit)
        elif len(unit) < HEADER.size:
            return
        elif self._epoch_base is None and HEADER.unpack_from(unit)[1] == _EPOCH:
            self._epoch_base = int(time.time())
        recorded.units.append(unit)

    def _write(self, number: int, direction: Direction, data: bytes) -> None:
        now = time.monotonic()
        pause = round(now - self._latest, 2) if self._passed else 0.0
        self._latest = now
        self._passed.append((number, direction, data, pause if pause >= _PAUSE else 0.0))


_EPOCH: Final = next(number for number, p in BY_NUMBER.items() if p.name == "SUBMIT_JOB_EPOCH")
