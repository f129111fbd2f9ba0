"""A scripted client of a job server for tests, with a plain socket."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from gearman_proto import Connection, Role
from gearman_proto.wire.packets import EchoReq, EchoRes

from .conversation import Conversation
from .sockets import check_buffer, check_timeout, host_and_port, socket_for

if TYPE_CHECKING:
    import ssl

    from gearman_proto.address import HostSpec


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
