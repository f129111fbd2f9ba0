"""What passes in a case, written down in the format of recordings."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from gearman_sync.testing import Element, Recording
from gearman_sync.testing.recording import SERVER, Cutter, Pauses

if TYPE_CHECKING:
    import socket


class Tap:
    """A socket of which all is written down that passes.

    It has what a `Conversation` uses of one.

    Args:
        sock: The socket.
        exchange: Where it is written down.
        conn: The name of the connection there.
        sender: Whose end it is that writes to the socket: "client", "worker", "admin", "server".
    """

    def __init__(self, sock: socket.socket, exchange: Exchange, conn: str, sender: str) -> None:
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
        """Send, and write it down."""
        self._write(data, of_server=self._is_server)
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        """Receive, and write it down, by the packet."""
        data = self._sock.recv(size)
        for unit in self._came.take(data):
            self._write(unit, of_server=not self._is_server)
        if not data:
            self._write(b"", of_server=not self._is_server)
        return data

    def close(self) -> None:
        """Close it."""
        if not self._closed:
            self._closed = True
            self._write(b"", of_server=self._is_server)
        self._sock.close()

    def _write(self, data: bytes, *, of_server: bool) -> None:
        self._exchange.write(SERVER if of_server else self._side, self._conn, data)


class Exchange:
    """All that passes in one case."""

    def __init__(self) -> None:
        self._elements: list[Element] = []
        self._lock = threading.Lock()
        self._pauses = Pauses()
        self._names: dict[str, int] = {}

    def name(self, side: str) -> str:
        """Return a name for a connection: "client", "client2" and so on."""
        count = self._names[side] = self._names.get(side, 0) + 1
        return side if count == 1 else f"{side}{count}"

    def write(self, sender: str, conn: str, data: bytes) -> None:
        """Write down some bytes; none are the end of the connection."""
        with self._lock:
            pause = self._pauses.next()
            self._elements.append(Element(sender, conn, data, closes=not data, pause=pause))

    def recording(self, name: str, description: str) -> Recording:
        """Return it as a file keeps it."""
        with self._lock:
            return Recording(list(self._elements), name, description)
