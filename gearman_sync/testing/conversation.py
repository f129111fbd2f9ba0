"""One end of one connection over a real socket, that does as it is told; and a server's."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.testing.packing import pack_event
from gearman_proto.wire.events import (
    ConnectionClosed,
    Event,
    OptionReq,
    OptionRes,
    PacketEvent,
    TextLine,
)
from gearman_proto.wire.packets import MAGIC_REQUEST, MAGIC_RESPONSE

from .matching import matcher
from .sockets import linger_not

if TYPE_CHECKING:
    import socket
    from typing import Self

E = TypeVar("E", bound=Event)

# Bytes that are read at once.
_PIECE = 1 << 18


class Disconnected(ConnectionError):
    """The other side has closed the connection."""


class Conversation:
    """One end of a connection.

    What it sends and receives are events, of `gearman_proto.events`. Its `gearman_proto.Connection`
    knows which of them may follow which, so that a mistake of the test's is an error, and so is
    something that the other side must not send; `send_anyway` and `send_raw` are for what is wrong
    on purpose.

    Args:
        sock: A connected socket.
        role: What this end is.

    Attributes:
        sock: As given.
        connection: What the bytes mean.
        events: All that came and was taken, oldest first.
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
        """Return the next packet or line of text, when it has come.

        Raises:
            Disconnected: The other side has closed the connection.
            gearman_proto.errors.RemoteProtocolError: What came is not Gearman, or not in order.
            OSError: The connection was reset, or nothing came in time.
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
        """Return the next packet or line, which has to be of a kind.

        Args:
            kind: The class of its event.
            fields: What some of the event's fields are.

        Raises:
            AssertionError: It is something else.
            Disconnected: The other side has closed the connection.
        """
        matches, wanted = matcher(kind, fields)
        event: Any = self.receive()
        if not matches(event):
            raise AssertionError(f"expected {wanted}, and not {event!r}")
        return event  # type: ignore[no-any-return]

    def send(self, *events: Event) -> None:
        """Send events.

        Raises:
            gearman_proto.errors.LocalProtocolError: One is not for this role to send, or not now.
        """
        self.send_raw(b"".join([self.connection.send(event) for event in events]))

    def send_anyway(self, *events: Event) -> None:
        """Send packets and lines whether or not they are in order, or for this role to send.

        Raises:
            TypeError: An event is neither.
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
        """Return all bytes that come until the other side closes, whatever they mean."""
        data = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := self.sock.recv(_PIECE):
                data += piece
        return bytes(data)

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def reset(self) -> None:
        """Close the connection with a RST, as after the crash of a process."""
        linger_not(self.sock)
        self.sock.close()


class Peer(Conversation):
    """A scripted server's end of one connection: what a script gets.

    Args:
        sock: A connected socket.
        number: The number of the connection, from 0.

    Attributes:
        number: As given.
        grants_options: Whether `receive` grants an OPTION_REQ, or ignores it, as some servers do;
            it is never what `receive` returns.
    """

    def __init__(self, sock: socket.socket, number: int) -> None:
        super().__init__(sock, Role.SERVER)
        self.number: int = number
        self.grants_options: bool = True

    def receive(self) -> Event:
        """Return the next packet or line of text, but for OPTION_REQ, which is answered here.

        Raises:
            Disconnected: The other side has closed the connection.
            gearman_proto.errors.RemoteProtocolError: What came is not Gearman.
            OSError: The connection was reset, or the server is stopped.
        """
        while isinstance(event := self.take(), OptionReq):
            if self.grants_options:
                self.send(OptionRes(event.option))
        return event

    def take(self) -> Event:
        """Do what `receive` does, and return OPTION_REQ like any other packet."""
        return super().receive()

    def hold(self) -> None:
        """Take what comes and say nothing, until the other side closes; that is `Disconnected`."""
        while True:
            self.receive()
