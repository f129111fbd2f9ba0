"""A scripted server's end of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto import Role
from gearman_proto.wire.events import Event, OptionReq, OptionRes

from .conversation import Conversation

if TYPE_CHECKING:
    import socket


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
