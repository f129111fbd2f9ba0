"""Record the connections of a case."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gearman_proto.testing.units import Cutter
from gearman_sync.testing.recording import SERVER, Element, Pauses, Recording

if TYPE_CHECKING:
    from gearman_proto.testing.conformance.kit import ResettableStream


class Tap:
    """A socket that records its data, with the methods that a `Peer` needs.

    Args:
        sock: The socket.
        exchange: The recording.
        conn: The name of the connection in the recording.
        sender: The side that writes to the socket: "client", "worker", "admin" or "server".
    """

    def __init__(self, sock: ResettableStream, exchange: Exchange, conn: str, sender: str) -> None:
        self._sock = sock
        self._exchange = exchange
        self._conn = conn
        self._is_server = sender == SERVER
        self._side = conn.rstrip("0123456789") if self._is_server else sender
        self._came = Cutter()
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: bytes) -> None:
        """Send data, and record it."""
        self._write(data, of_server=self._is_server)
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        """Receive data, and record its packets."""
        begun = time.monotonic()
        data = self._sock.recv(size)
        self._exchange.longest_wait = max(self._exchange.longest_wait, time.monotonic() - begun)
        for unit in self._came.take(data):
            self._write(unit, of_server=not self._is_server)
        if not data:
            self._write(b"", of_server=not self._is_server)
        return data

    def close(self) -> None:
        """Close the connection."""
        self._note_close()
        self._sock.close()

    def reset(self) -> None:
        """Close the connection with a RST."""
        self._note_close()
        self._sock.reset()

    def _note_close(self) -> None:
        if not self._closed:
            self._closed = True
            self._write(b"", of_server=self._is_server)

    def _write(self, data: bytes, *, of_server: bool) -> None:
        self._exchange.write(SERVER if of_server else self._side, self._conn, data)


class Exchange:
    """The recording of one case.

    Attributes:
        longest_wait: The longest time, in seconds, that the other side has taken to send data.
    """

    def __init__(self) -> None:
        self.longest_wait: float = 0.0
        self._elements: list[Element] = []
        self._pauses = Pauses()
        self._names: dict[str, int] = {}

    def name(self, side: str) -> str:
        """Return a unique name for a connection: "client", "client2" and so on."""
        count = self._names[side] = self._names.get(side, 0) + 1
        return side if count == 1 else f"{side}{count}"

    def write(self, sender: str, conn: str, data: bytes) -> None:
        """Record data of a connection. Empty data records its end."""
        pause = self._pauses.next()
        self._elements.append(Element(sender, conn, data, closes=not data, pause=pause))

    def recording(self, name: str, description: str) -> Recording:
        """Return the recording, with the name and the description of the case."""
        return Recording(list(self._elements), name, description)
