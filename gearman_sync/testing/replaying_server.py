"""The replay of a recording's server for clients, workers and admins under test.

Theory of operation
    A new connection is assigned to the first free recorded one that begins with the same event. Its
    thread receives events, and compares each with the next recorded one. An element of the server
    is due once all events that precede it in the recording, on any connection, were received. The
    thread that receives the last of these events sends it. So threads only block to receive bytes.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import Connection, Role
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
    from collections.abc import Iterator

    from .conversation import Peer

# Packets that a client or worker can send in addition to the recorded ones, depending on time or on
# its settings.
_ADDITIONAL: Final = (EchoReq, OptionReq, SetClientId)
# Uniques that are not replaced: the empty one, and "-", which stands for the data.
_NO_UNIQUES: Final = (b"", b"-")


@dataclass(eq=False)
class _Wire:
    """A recorded connection, and the state of its replay."""

    name: str
    #: The events that the peer has to send, each with the index of its element.
    awaited: deque[tuple[int, Event]]
    #: The connection that replays this one, if any.
    peer: Peer | None = None


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
        self._wires = {
            name: _Wire(name, deque(_events(recording, name))) for name in recording.connections
        }
        #: The elements that the peers have not sent yet, and those that the server has not sent.
        self._unreceived = {number for wire in self._wires.values() for number, _ in wire.awaited}
        self._unsent = deque(
            (number, element)
            for number, element in enumerate(recording.exchange)
            if element.of_server
        )
        self._uniques: dict[bytes, bytes] = {}

    def check(self) -> None:
        """Wait until the whole recording has been played.

        Raises:
            AssertionError: An event differed from the recording, or was not received. The message
                describes it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self.differences or not (self._unreceived or self._unsent), self._timeout
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
        event: Event | None = None
        while not isinstance(event, ConnectionClosed):
            event = self._next(peer)
            with self._changed:
                wire = wire or self._wire_for(peer, event)
                number, awaited = wire.awaited[0] if wire and wire.awaited else (-1, None)
                if isinstance(event, _ADDITIONAL) and type(event) is not type(awaited):
                    self._answer(peer, event)
                elif awaited is None and isinstance(event, ConnectionClosed):
                    return
                elif wire is None:
                    self._differ_at_end("what a recorded connection begins with", event)
                    return
                elif awaited is None:
                    self._differ_at_end("nothing more", event)
                    return
                elif not self._same(awaited, event):
                    self._differ(
                        Difference(number, wire.name, shortened(awaited), shortened(event))
                    )
                    return
                else:
                    wire.awaited.popleft()
                    if not wire.awaited or wire.awaited[0][0] != number:
                        self._unreceived.discard(number)
                    self._send_due()

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
        for wire in self._wires.values():
            if wire.peer is None and wire.awaited and self._same(wire.awaited[0][1], event):
                wire.peer = peer
                return wire
        return None

    @staticmethod
    def _answer(peer: Peer, event: Event) -> None:
        if isinstance(event, EchoReq):
            peer.send_anyway(EchoRes(event.data))
        elif isinstance(event, OptionReq):
            peer.send_anyway(OptionRes(event.option))

    def _send_due(self) -> None:
        """Send the elements that are due, on all connections."""
        due = min(self._unreceived, default=len(self._recording.exchange))
        while self._unsent and self._unsent[0][0] < due:
            _, element = self._unsent.popleft()
            peer = self._wires[element.conn].peer
            # If the peer has disconnected, its own thread detects it.
            with contextlib.suppress(OSError):
                if peer is not None and element.closes:
                    peer.sock.shutdown(socket.SHUT_RDWR)
                elif peer is not None:
                    peer.send_raw(self._with_uniques(element.data))
        self._changed.notify_all()

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


def _events(recording: Recording, name: str) -> Iterator[tuple[int, Event]]:
    """Yield the events that the peer of a connection sends, with the indices of their elements."""
    end = Connection(Role.SERVER)
    for number, element in enumerate(recording.exchange):
        if element.conn != name or element.of_server:
            continue
        if element.closes:
            yield number, ConnectionClosed()
            continue
        end.receive_data(element.data)
        while isinstance(event := end.next_event(), Event):
            yield number, event
