"""A scripted end of a connection over a real socket, and the server's end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.testing.packing import pack_event
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    ConnectionClosed,
    Event,
    OptionReq,
    OptionRes,
    PacketEvent,
    TextLine,
)

from .matching import matcher
from .sockets import linger_not

if TYPE_CHECKING:
    import socket
    from typing import Self

E = TypeVar("E", bound=Event)

# Bytes to read at a time.
_PIECE = 1 << 18


class Disconnected(ConnectionError):
    """Raised when the peer has closed the connection."""


class Conversation:
    """One end of a connection, which sends and receives events of `gearman_proto.events`.

    A `gearman_proto.Connection` checks the order of the events. It raises an error if the test or
    the peer sends an event that is not allowed. Use `send_anyway` and `send_raw` to send wrong
    packets on purpose.

    Args:
        sock: A connected socket.
        role: The role of this end.

    Attributes:
        sock: The socket as given.
        connection: The parser and the protocol state of this end.
        events: The received events, oldest first.
    """

    def __init__(self, sock: socket.socket, role: Role) -> None:
        self.sock: socket.socket = sock
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
            AssertionError: The received event is another one.
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

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def reset(self) -> None:
        """Close the connection with a RST, as if the process had crashed."""
        linger_not(self.sock)
        self.sock.close()


class Peer(Conversation):
    """The server's end of one connection, for scripts of a ScriptedServer.

    Args:
        sock: A connected socket.
        number: The number of the connection, from 0.

    Attributes:
        number: The number as given.
        grants_options: True if `receive` grants OPTION_REQ, False if it ignores it, as some servers
            do. `receive` never returns OPTION_REQ.
    """

    def __init__(self, sock: socket.socket, number: int) -> None:
        super().__init__(sock, Role.SERVER)
        self.number: int = number
        self.grants_options: bool = True

    def receive(self) -> Event:
        """Receive the next packet or line of text. Handle OPTION_REQ without returning it.

        Raises:
            Disconnected: The peer has closed the connection.
            gearman_proto.errors.RemoteProtocolError: The data is not Gearman.
            OSError: The connection was reset, or the server was stopped.
        """
        while isinstance(event := self.take(), OptionReq):
            if self.grants_options:
                self.send(OptionRes(event.option))
        return event

    def take(self) -> Event:
        """Receive the next packet or line of text, including OPTION_REQ."""
        return super().receive()

    def hold(self) -> None:
        """Receive and ignore events until the peer closes the connection.

        Raises:
            Disconnected: The peer has closed the connection.
        """
        while True:
            self.receive()
