"""A client of a job server that does as the test says, over a plain socket."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from gearman_proto import Connection, Role
from gearman_proto.wire.events import EchoReq, EchoRes

from .conversation import Conversation
from .sockets import check_buffer, check_timeout, host_and_port, socket_for

if TYPE_CHECKING:
    import ssl

    from gearman_proto.address import HostSpec


class ScriptedClient(Conversation):
    """A connection to a job server, for a test that says each packet of it.

    It may be a worker as well, as servers allow: with CAN_DO, or whatever else a worker sends.

    Args:
        address: The address of the server, in any form that GearmanClient takes.
        role: What it may send and receive: by default what clients do and what workers do.
        timeout: Seconds after which something that did not come is a TimeoutError.
        receive_buffer: Bytes that the system is to keep of what was not read; 0: as it likes.
        context: An `ssl.SSLContext` for a server that speaks TLS, and has a certificate for
            ``localhost``; None is no TLS.

    Raises:
        TypeError, ValueError: An argument has a type or a value that can't be.
        OSError: There is no connection to that address.
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
        Connection(role)  # Raises for a bad role, before a socket is open.
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
        """Send an ECHO_REQ, and receive its answer.

        So the server has taken all that was sent before, and there is nothing else that it has
        sent over this connection.

        Raises:
            AssertionError: Something else has come.
        """
        self.send(EchoReq(data))
        self.expect(EchoRes, data=data)
