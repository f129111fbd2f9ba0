"""A scripted end of a connection over a real socket, and the server's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto import Role, testing
from gearman_proto.testing.peer import Disconnected
from gearman_proto.wire.packets import Event, OptionReq, OptionRes

from .sockets import linger_not

if TYPE_CHECKING:
    import socket

__all__ = ["Conversation", "Disconnected", "Peer"]


class Conversation(testing.Peer):
    """A `gearman_proto.testing.Peer` over a real socket.

    Args:
        sock: A connected socket.
        role: The role of this end.
    """

    sock: socket.socket

    def __init__(self, sock: socket.socket, role: Role) -> None:
        super().__init__(sock, role)

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
