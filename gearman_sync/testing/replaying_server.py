"""Plays the server of a recording for a client, worker or admin of one's own.

Theory of operation
    Each recorded connection is a list of steps: events of the peer, and packets of the server. A
    connection that is made takes the first recorded one that nobody has and that begins with what
    it has sent first. Its thread does nothing but to take what comes. After each event, all
    connections go on as far as they can, under one lock: a step of the peer is done when its event
    has come, and a step of the server is done once all that peers have sent before it in the
    recording has come, over whatever connection. So nobody waits for anything but bytes.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.arguments import check_type
from gearman_proto.errors import RemoteProtocolError
from gearman_proto.wire.events import (
    ConnectionClosed,
    EchoReq,
    EchoRes,
    Event,
    OptionReq,
    OptionRes,
    SetClientId,
)

from .matching import shortened
from .recording import Cutter, Recording
from .replaying import Difference
from .scripted import ScriptedServer
from .varying import learn, rewritten

if TYPE_CHECKING:
    from .conversation import Peer

# What a client or worker may send beside what was recorded, since it does so by the clock, or by
# its own settings.
_BESIDE: Final = (EchoReq, OptionReq, SetClientId)
# Uniques that are not replaced: none, and the one that means the data.
_NO_UNIQUES: Final = (b"", b"-")

#: The number of an element, and what the peer sends, or the server's bytes (empty: it closes).
_Step: TypeAlias = tuple[int, Event | bytes]


class _Wire:
    """A recorded connection, and what has become of it."""

    def __init__(self, name: str, steps: list[_Step]) -> None:
        self.name = name
        #: What is still to happen.
        self.steps = deque(steps)
        #: What has come, and is still to be looked at.
        self.came: deque[Event] = deque()
        #: Who plays the peer. None: nobody yet.
        self.peer: Peer | None = None
        #: Something else has come, and was noted.
        self.failed = False

    @property
    def awaited(self) -> Event | None:
        """What the peer is to send next."""
        return next((step for _, step in self.steps if isinstance(step, Event)), None)


class ReplayServer(ScriptedServer):
    """A server that answers as a recorded one did.

    The client, worker or admin that connects to its `address` is to do what the recorded one did.
    Its uniques, the times of jobs for later and its client id may be others; and it may ask for
    options and echoes. The end of its ``with`` calls `check`, which waits for what is still to
    come.

    Args:
        recording: What is to happen.
        timeout: Seconds that `check` waits.

    Raises:
        TypeError, ValueError: An argument has a type or a value that can't be.

    Attributes:
        differences: Where the peers have not sent what is recorded. The connection of one is
            closed, so that nobody waits for what will not come.
    """

    def __init__(self, recording: Recording, *, timeout: float = 5.0) -> None:
        check_type("recording", recording, Recording, "a Recording")
        super().__init__(self._play, timeout=timeout)
        self.differences: list[Difference] = []
        self._recording = recording
        self._wires = [_Wire(name, _steps(recording, name)) for name in recording.connections]
        #: The elements that the peers have not sent yet.
        self._to_come = {
            number for wire in self._wires for number, step in wire.steps if isinstance(step, Event)
        }
        self._uniques: dict[bytes, bytes] = {}

    def check(self) -> None:
        """Wait until all has happened that is recorded.

        Raises:
            AssertionError: Something was different, or did not happen. It says what.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self.differences or not any(wire.steps for wire in self._wires),
                self._timeout,
            )
        super().check()

    def _report(self) -> str:
        with self._changed:
            lines = [str(difference) for difference in self.differences]
            if not lines and self._to_come:
                number = min(self._to_come)
                element = self._recording.exchange[number]
                what = element.decoded or "the end of the connection"
                lines = [f"element {number}, {element.conn}: {what} did not come"]
        return "\n".join(["the exchange is not the recorded one:", *lines]) if lines else ""

    # In its threads.

    def _play(self, peer: Peer) -> None:
        wire: _Wire | None = None
        while True:
            event = self._next(peer)
            with self._changed:
                if wire is None:
                    wire = self._wire_for(peer, event)
                awaited = None if wire is None else wire.awaited
                if isinstance(event, _BESIDE) and type(event) is not type(awaited):
                    self._answer(peer, event)
                    continue
                if isinstance(event, ConnectionClosed) and awaited is None:
                    return
                if wire is None:
                    self._differ_at_end("what a recorded connection begins with", event)
                    return
                wire.came.append(event)
                self._go_on()
                if wire.failed or isinstance(event, ConnectionClosed):
                    return

    def _next(self, peer: Peer) -> Event:
        try:
            return peer.take()
        except ConnectionError:
            return ConnectionClosed()
        except RemoteProtocolError as error:
            self._differ_at_end("Gearman", error)
            return ConnectionClosed()

    def _wire_for(self, peer: Peer, event: Event) -> _Wire | None:
        """The recorded connection that begins so, and that nobody has."""
        for wire in self._wires:
            first = wire.awaited
            if wire.peer is None and first is not None and self._same(first, event):
                wire.peer = peer
                return wire
        return None

    @staticmethod
    def _answer(peer: Peer, event: Event) -> None:
        if isinstance(event, EchoReq):
            peer.send_anyway(EchoRes(event.data))
        elif isinstance(event, OptionReq):
            peer.send_anyway(OptionRes(event.option))

    def _go_on(self) -> None:
        """Let all happen that can."""
        while any(self._step(wire) for wire in self._wires):
            pass
        self._changed.notify_all()

    def _step(self, wire: _Wire) -> bool:
        """Do the next step of a connection, if it is time for it."""
        if wire.peer is None or wire.failed:
            return False
        if not wire.steps:
            if wire.came and not isinstance(wire.came[0], ConnectionClosed):
                self._differ_at_end("nothing more", wire.came[0])
                self._close(wire, wire.peer)
            return False
        number, step = wire.steps[0]
        if isinstance(step, Event):
            if not wire.came:
                return False
            event = wire.came.popleft()
            if not self._same(step, event):
                self._differ(Difference(number, wire.name, shortened(step), shortened(event)))
                self._close(wire, wire.peer)
                return False
        elif min(self._to_come, default=number) < number:
            return False
        elif step:
            # Who has gone says so to its own thread.
            with contextlib.suppress(OSError):
                wire.peer.send_raw(self._with_uniques(step))
        else:
            self._close(wire, wire.peer)
        wire.steps.popleft()
        if not wire.steps or wire.steps[0][0] != number:
            self._to_come.discard(number)
        return True

    @staticmethod
    def _close(wire: _Wire, peer: Peer) -> None:
        wire.failed = True
        with contextlib.suppress(OSError):
            peer.sock.shutdown(socket.SHUT_RDWR)

    def _differ(self, difference: Difference) -> None:
        with self._changed:
            self.differences.append(difference)
            self._changed.notify_all()

    def _differ_at_end(self, expected: str, got: object) -> None:
        """The same for what is no element."""
        at = len(self._recording.exchange)
        self._differ(Difference(at, "no connection", expected, shortened(got)))

    # What may be different.

    def _same(self, recorded: Event, event: Event) -> bool:
        if type(recorded) is not type(event):
            return False
        uniques = dict(self._uniques)
        for field in getattr(type(event), "__match_args__", ()):
            mine: Any = getattr(recorded, field)
            value: Any = getattr(event, field)
            if field == "unique" and mine not in _NO_UNIQUES and value not in _NO_UNIQUES:
                if not learn(uniques, mine, value):
                    return False
            elif field not in ("epoch", "client_id", "answers") and mine != value:
                return False
        self._uniques = uniques
        return True

    def _with_uniques(self, data: bytes) -> bytes:
        """What the server sends, with the uniques of this time."""

        def change(field: str, value: bytes) -> bytes:
            return self._uniques.get(value, value) if field == "unique" else value

        cutter = Cutter()
        return b"".join([rewritten(unit, change) for unit in cutter.cut(data)]) + cutter.rest


def _steps(recording: Recording, name: str) -> list[_Step]:
    """What happens over a connection."""
    end = Connection(Role.SERVER)
    steps: list[_Step] = []
    for number, element in enumerate(recording.exchange):
        if element.conn != name:
            continue
        if element.of_server:
            steps.append((number, element.data))
        elif element.closes:
            steps.append((number, ConnectionClosed()))
        else:
            end.receive_data(element.data)
            while (event := end.next_event()) is not NEED_DATA:
                assert isinstance(event, Event)
                steps.append((number, event))
    return steps
