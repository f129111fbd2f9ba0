"""The replay of a recording's server for clients, workers and admins under test.

Theory of operation
    Each recorded connection is a list of steps: events of the peer, and packets of the server. A
    new connection is assigned to the first free recorded one that begins with the same event. A
    connection's thread only receives events. After each event, all connections advance as far as
    they can, under one lock. A step of the peer is done when its event has been received. A step of
    the server is done once all events that precede it in the recording, on any connection, were
    received. So threads only block to receive bytes.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.checks import check_type
from gearman_proto.errors import RemoteProtocolError
from gearman_proto.testing.matching import shortened
from gearman_proto.testing.units import Cutter
from gearman_proto.wire.packets import (
    ConnectionClosed,
    EchoReq,
    EchoRes,
    Event,
    OptionReq,
    OptionRes,
    SetClientId,
)

from .recording import Recording
from .replaying import Difference
from .scripted import ScriptedServer
from .varying import learn, rewritten

if TYPE_CHECKING:
    from .conversation import Peer

# Packets that a client or worker can send in addition to the recorded ones, depending on time or on
# its settings.
_ADDITIONAL: Final = (EchoReq, OptionReq, SetClientId)
# Uniques that are not replaced: the empty one, and "-", which stands for the data.
_NO_UNIQUES: Final = (b"", b"-")

#: The index of an element, and the peer's event or the server's bytes (empty to close).
_Step: TypeAlias = tuple[int, Event | bytes]


class _Wire:
    """A recorded connection, and the state of its replay."""

    def __init__(self, name: str, steps: list[_Step]) -> None:
        self.name = name
        #: The remaining steps.
        self.steps = deque(steps)
        #: Received events that have not been compared yet.
        self.received: deque[Event] = deque()
        #: The connection that replays this one, if any.
        self.peer: Peer | None = None
        #: True once a difference was recorded.
        self.failed = False

    @property
    def awaited(self) -> Event | None:
        """The next event that the peer has to send."""
        return next((step for _, step in self.steps if isinstance(step, Event)), None)


class ReplayServer(ScriptedServer):
    """A server that answers as a recorded one did.

    A client, worker or admin that connects to its `address` has to send the recorded packets.
    Uniques, times of scheduled jobs and client ids can differ, and the peer can send additional
    OPTION_REQ and ECHO_REQ packets. The end of the ``with`` block calls `check`, which waits for
    the remaining events.

    Args:
        recording: The recording to play.
        timeout: Seconds that `check` waits.

    Raises:
        TypeError, ValueError: An argument has a wrong type or value.

    Attributes:
        differences: The differences between the peers' packets and the recording. After a
            difference, the server closes the connection, so that its peer does not wait for an
            answer.
    """

    def __init__(self, recording: Recording, *, timeout: float = 5.0) -> None:
        check_type("recording", recording, Recording, "a Recording")
        super().__init__(self._play, timeout=timeout)
        self.differences: list[Difference] = []
        self._recording = recording
        self._wires = [_Wire(name, _steps(recording, name)) for name in recording.connections]
        #: The elements that the peers have not sent yet.
        self._unreceived = {
            number for wire in self._wires for number, step in wire.steps if isinstance(step, Event)
        }
        self._uniques: dict[bytes, bytes] = {}

    def check(self) -> None:
        """Wait until the whole recording has been played.

        Raises:
            AssertionError: An event differed from the recording, or was not received. The message
                describes it.
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
            if not lines and self._unreceived:
                number = min(self._unreceived)
                element = self._recording.exchange[number]
                what = element.decoded or "the end of the connection"
                lines = [f"element {number}, {element.conn}: {what} did not come"]
        return "\n".join(["the exchange is not the recorded one:", *lines]) if lines else ""

    # Methods that run in the server's threads.

    def _play(self, peer: Peer) -> None:
        wire: _Wire | None = None
        while True:
            event = self._next(peer)
            with self._changed:
                if wire is None:
                    wire = self._wire_for(peer, event)
                awaited = None if wire is None else wire.awaited
                if isinstance(event, _ADDITIONAL) and type(event) is not type(awaited):
                    self._answer(peer, event)
                    continue
                if isinstance(event, ConnectionClosed) and awaited is None:
                    return
                if wire is None:
                    self._differ_at_end("what a recorded connection begins with", event)
                    return
                wire.received.append(event)
                self._advance()
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
        """Return the free recorded connection that begins with `event`, and assign it."""
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

    def _advance(self) -> None:
        """Advance all connections as far as possible."""
        while any(self._step(wire) for wire in self._wires):
            pass
        self._changed.notify_all()

    def _step(self, wire: _Wire) -> bool:
        """Do the next step of a connection if it is due. Return True if it was done."""
        if wire.peer is None or wire.failed:
            return False
        if not wire.steps:
            if wire.received and not isinstance(wire.received[0], ConnectionClosed):
                self._differ_at_end("nothing more", wire.received[0])
                self._close(wire, wire.peer)
            return False
        number, step = wire.steps[0]
        if isinstance(step, Event):
            if not wire.received:
                return False
            event = wire.received.popleft()
            if not self._same(step, event):
                self._differ(Difference(number, wire.name, shortened(step), shortened(event)))
                self._close(wire, wire.peer)
                return False
        elif min(self._unreceived, default=number) < number:
            return False
        elif step:
            # If the peer has disconnected, its own thread detects it.
            with contextlib.suppress(OSError):
                wire.peer.send_raw(self._with_uniques(step))
        else:
            self._close(wire, wire.peer)
        wire.steps.popleft()
        if not wire.steps or wire.steps[0][0] != number:
            self._unreceived.discard(number)
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
        """Record a difference that is not at an element."""
        at = len(self._recording.exchange)
        self._differ(Difference(at, "no connection", expected, shortened(got)))

    # Methods that allow differences.

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
        """Return the server's bytes with the uniques of this replay."""

        def change(field: str, value: bytes) -> bytes:
            return self._uniques.get(value, value) if field == "unique" else value

        cutter = Cutter()
        return b"".join([rewritten(unit, change) for unit in cutter.cut(data)]) + cutter.rest


def _steps(recording: Recording, name: str) -> list[_Step]:
    """Return the steps of a connection."""
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
