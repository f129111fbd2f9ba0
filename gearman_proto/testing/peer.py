"""A scripted end of a connection, over a socket or in memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    ConnectionClosed,
    Event,
    PacketEvent,
    Role,
    TextLine,
)

from .matching import matcher
from .packing import pack_event

if TYPE_CHECKING:
    from typing import Self

E = TypeVar("E", bound=Event)

# Bytes to read at a time.
_PIECE: Final = 1 << 18
# The value of `socket.SHUT_WR`, which is the same on all systems.
_SHUT_WR: Final = 1


class ByteStream(Protocol):
    """The methods of a connected socket that a `Peer` uses.

    `recv` either blocks on a socket, or advances a world in memory. See the documentation of
    `socket.socket` for each method.
    """

    def recv(self, size: int, /) -> bytes:
        """Receive up to `size` bytes; none means the end of the stream."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of `data`."""

    def send(self, data: bytes, /) -> int:
        """Send as much of `data` as fits into the buffers, and return the number of bytes."""

    def settimeout(self, seconds: float | None, /) -> None:
        """Set the seconds after which `recv` raises TimeoutError."""

    def gettimeout(self) -> float | None:
        """Return these seconds."""

    def shutdown(self, how: int, /) -> None:
        """Half-close the connection."""

    def close(self) -> None:
        """Close the connection."""


class Disconnected(ConnectionError):
    """Raised when the peer has closed the connection."""


class Peer:
    """One end of a connection.

    It sends and receives events of `gearman_proto.events`. Its `gearman_proto.Connection` checks
    their order, and raises an error if the test or the other end sends an event that is not
    allowed. Use `send_anyway` and `send_raw` to send wrong packets on purpose.

    Args:
        sock: A connected socket, or a stream in memory.
        role: The role of this end.

    Attributes:
        sock: The socket or stream as given.
        connection: The parser and the protocol state of this end.
        events: The received events, oldest first.
    """

    def __init__(self, sock: ByteStream, role: Role) -> None:
        self.sock: Any = sock
        self.connection: Connection = Connection(role)
        self.events: list[Event] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(self) -> Event:
        """Receive the next packet or line of text.

        Raises:
            Disconnected: The peer has closed the connection.
            gearman_proto.errors.RemoteProtocolError: The data is not Gearman, or out of order.
            OSError: The connection was reset, or no data arrived in time.
        """
        while True:
            event = self.connection.next_event()
            if event is NEED_DATA:
                data = self.sock.recv(_PIECE)
                if data:
                    self.connection.receive_data(data)
                else:
                    self.connection.receive_eof()
                continue
            assert isinstance(event, Event)
            if isinstance(event, ConnectionClosed):
                raise Disconnected("the other side has closed the connection")
            self.events.append(event)
            return event

    def expect(self, kind: type[E], **fields: object) -> E:
        """Receive the next packet or line, and check that it is an event of `kind`.

        Args:
            kind: The class of the event.
            fields: Expected values of some fields of the event.

        Raises:
            AssertionError: It is another event.
            Disconnected: The peer has closed the connection.
        """
        matches, wanted = matcher(kind, fields)
        event: Any = self.receive()
        if not matches(event):
            raise AssertionError(f"expected {wanted}, and not {event!r}")
        return event  # type: ignore[no-any-return]

    def send(self, *events: Event) -> None:
        """Send events.

        Raises:
            gearman_proto.errors.LocalProtocolError: This role must not send an event, or not now.
        """
        self.send_raw(b"".join([self.connection.send(event) for event in events]))

    def send_anyway(self, *events: Event) -> None:
        """Send packets and lines, even if their order is wrong or this role must not send them.

        Raises:
            TypeError: An event is neither a packet nor a line.
        """
        server = self.connection.role is Role.SERVER
        magic = MAGIC_RESPONSE if server else MAGIC_REQUEST
        for event in events:
            if not isinstance(event, (PacketEvent, TextLine)):
                raise TypeError(f"{event!r} can't be sent")
            self.send_raw(pack_event(event, magic))

    def send_raw(self, data: bytes) -> None:
        """Send any bytes."""
        self.sock.sendall(data)

    def rest(self) -> bytes:
        """Receive raw bytes until the peer closes, and return them."""
        data = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := self.sock.recv(_PIECE):
                data += piece
        return bytes(data)

    def half_close(self) -> None:
        """Close the sending direction. The peer can still send."""
        self.sock.shutdown(_SHUT_WR)

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()
