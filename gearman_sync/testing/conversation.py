"""A scripted end of a connection over a real socket: the server's end, and the client's."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from gearman_proto import Connection, Role, testing
from gearman_proto.testing.peer import Disconnected
from gearman_proto.wire.packets import EchoReq, EchoRes, Event, OptionReq, OptionRes

from .sockets import check_buffer, check_timeout, host_and_port, linger_not, socket_for

if TYPE_CHECKING:
    import ssl

    from gearman_proto.address import HostSpec

__all__ = ["Conversation", "Disconnected", "Peer", "ScriptedClient"]


class Conversation(testing.Peer):
    """A `gearman_proto.testing.Peer` over a real socket.

    Args:
        sock: A connected socket.
        role: The role of this end.
    """

    sock: socket.socket

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
    """

    def __init__(self, sock: socket.socket, number: int) -> None:
        super().__init__(sock, Role.SERVER)
        self.number: int = number

    def receive(self) -> Event:
        """Receive the next packet or line of text. Grant OPTION_REQ without returning it.

        Raises:
            Disconnected: The peer has closed the connection.
            gearman_proto.errors.RemoteProtocolError: The data is not Gearman.
            OSError: The connection was reset, or the server was stopped.
        """
        while isinstance(event := self.take(), OptionReq):
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


class ScriptedClient(Conversation):
    """A connection to a job server, controlled packet by packet.

    The client can also send CAN_DO and other packets of workers, because a connection can be a
    client and a worker.

    Args:
        address: The address of the server, in any form that GearmanClient takes.
        role: The role, which determines the events that the client can send and receive. By
            default, the connection is a client and a worker.
        timeout: Seconds after which receiving an event raises TimeoutError.
        receive_buffer: Size of the kernel's receive buffer in bytes; 0 leaves it to the system.
        context: An `ssl.SSLContext` for a server that uses TLS and has a certificate for
            ``localhost``; None means no TLS.

    Raises:
        TypeError, ValueError: An argument has a wrong type or value.
        OSError: The client can't connect to the address.
    """

    def __init__(
        self,
        address: HostSpec,
        *,
        role: Role = Role.CLIENT | Role.WORKER,
        timeout: float = 20.0,
        receive_buffer: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        place = host_and_port(address)
        check_timeout(timeout)
        check_buffer("receive_buffer", receive_buffer)
        Connection(role)  # Check the role before creating a socket.
        sock = socket_for(place[0])
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        try:
            sock.connect(place)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname="localhost")
        except OSError:
            sock.close()
            raise
        super().__init__(sock, role)

    def echo(self, data: bytes = b"ping") -> None:
        """Send ECHO_REQ, and receive the answer.

        Afterwards, the server has processed all earlier packets of this connection, and has sent
        nothing else on it.

        Raises:
            AssertionError: Another event was received.
        """
        self.send(EchoReq(data))
        self.expect(EchoRes, data=data)
