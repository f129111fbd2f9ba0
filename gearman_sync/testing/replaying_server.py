"""The replay of a recording's server for clients, workers and admins under test.

Theory of operation
    A new connection is assigned to the first free recorded one that begins with the same packet.
    Its thread receives packets and lines, and compares each with the next recorded one. An element
    of the server is due once everything that precedes it in the recording, on any connection, was
    received. The thread that receives the last of it sends the element. So threads only block to
    receive bytes.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gearman_proto.checks import check_type
from gearman_proto.testing.packing import pack
from gearman_proto.testing.units import Cutter, decode, packet_of
from gearman_proto.wire.packets import BY_NAME, HEADER_SIZE, MAGIC_RESPONSE

from .recording import Recording
from .replaying import END, Difference
from .scripted import ScriptedServer
from .varying import Varying

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conversation import Peer

# Packets that a client or worker can send in addition to the recorded ones, depending on time or on
# its settings, and the answers. An answer has the same arguments.
_ADDITIONAL: Final = {
    BY_NAME["ECHO_REQ"]: BY_NAME["ECHO_RES"],
    BY_NAME["OPTION_REQ"]: BY_NAME["OPTION_RES"],
    BY_NAME["SET_CLIENT_ID"]: None,
}


@dataclass(eq=False)
class _Wire:
    """A recorded connection, and the state of its replay."""

    name: str
    #: The packets and lines that the peer has to send, each with the index of its element. Empty
    #: bytes are the end of the connection.
    awaited: deque[tuple[int, bytes]]
    #: The connection that replays this one, if any.
    peer: Peer | None = None


class ReplayServer(ScriptedServer):
    """A server that answers as a recorded one did.

    A client, worker or admin that connects to its `address` has to send the recorded packets.
    Uniques, times of scheduled jobs and client ids can differ, and the peer can send additional
    OPTION_REQ and ECHO_REQ packets. The end of the ``with`` block calls `check`, which waits for
    the remaining packets.

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
            name: _Wire(name, deque(_awaited(recording, name))) for name in recording.connections
        }
        #: The elements that the peers have not sent yet, and those that the server has not sent.
        self._unreceived = {number for wire in self._wires.values() for number, _ in wire.awaited}
        self._unsent = deque(
            (number, element)
            for number, element in enumerate(recording.exchange)
            if element.of_server
        )
        self._varying = Varying("unique")

    def check(self) -> None:
        """Wait until the whole recording has been played.

        Raises:
            AssertionError: A packet differed from the recording, or was not received. The message
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
                lines = [f"element {number}, {element.conn}: {element.decoded or END} did not come"]
        return "\n".join(["the exchange is not the recorded one:", *lines]) if lines else ""

    # Methods that run in the server's threads.

    def _play(self, peer: Peer) -> None:
        wire: _Wire | None = None
        for unit in _units(peer):
            with self._changed:
                wire = wire or self._wire_for(peer, unit)
                if not self._take(peer, wire, unit):
                    self._changed.notify_all()
                    return

    def _wire_for(self, peer: Peer, unit: bytes) -> _Wire | None:
        """Return the free recorded connection that begins with `unit`, and assign it."""
        for wire in self._wires.values():
            if wire.peer is None and wire.awaited and self._is_same(wire.awaited[0][1], unit):
                wire.peer = peer
                return wire
        return None

    def _is_same(self, recorded: bytes, unit: bytes) -> bool:
        names = dict(self._varying.names)
        is_same = self._varying.expected(recorded, unit) == unit
        if not is_same:
            self._varying.names = names
        return is_same

    def _take(self, peer: Peer, wire: _Wire | None, unit: bytes) -> bool:
        """Process a packet or line, or the end of a connection. Return False if it is wrong."""
        at, conn, expected = len(self._recording.exchange), "no connection", "nothing more"
        awaited = None
        if wire is None:
            expected = "what a recorded connection begins with"
        elif wire.awaited:
            conn = wire.name
            at, awaited = wire.awaited[0]
            expected = decode(awaited) or END
        packet = packet_of(unit)
        if packet in _ADDITIONAL and (awaited is None or packet is not packet_of(awaited)):
            if answer := _ADDITIONAL[packet]:
                peer.send_raw(pack(answer, [unit[HEADER_SIZE:]], MAGIC_RESPONSE))
            return True
        if wire is not None and awaited is not None and self._is_same(awaited, unit):
            wire.awaited.popleft()
            if not wire.awaited or wire.awaited[0][0] != at:
                self._unreceived.discard(at)
            self._send_due()
            return True
        if unit or awaited is not None:
            self.differences.append(Difference(at, conn, expected, decode(unit) or END))
        return False

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
                    peer.send_raw(self._varying.to_send(element.data))
        self._changed.notify_all()


def _units(peer: Peer) -> Iterator[bytes]:
    """Yield the received packets and lines, and finally empty bytes for the end."""
    cutter = Cutter()
    data = None
    while data != b"":
        data = b""
        with contextlib.suppress(ConnectionError):
            data = peer.sock.recv(1 << 18)
        yield from cutter.take(data)
    yield b""


def _awaited(recording: Recording, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield the packets and lines that the peer sends on a connection, and its end.

    Each is preceded by the index of the element that completes it.
    """
    cutter = Cutter()
    for number, element in enumerate(recording.exchange):
        if element.conn == name and not element.of_server:
            units = cutter.take(element.data)
            yield from ((number, unit) for unit in (*units, *([b""] * element.closes)))
