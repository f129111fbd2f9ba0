"""A peer of a job server that does as the test says, over a plain socket."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.wire.events import EchoReq, EchoRes, Event

from .waiting import PATIENCE

if TYPE_CHECKING:
    import ssl


class Link:
    """A connection of a peer that does as the test says."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        receive_buffer: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.connection = Connection(Role.CLIENT | Role.WORKER)
        self.sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.connect(address)
            if context is not None:
                self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        except OSError:
            self.sock.close()
            raise

    def send(self, *events: Event) -> None:
        self.sock.sendall(b"".join([self.connection.send(event) for event in events]))

    def receive(self) -> Event:
        while (event := self.connection.next_event()) is NEED_DATA:
            data = self.sock.recv(1 << 18)
            assert data, "the server has closed"
            self.connection.receive_data(data)
        assert isinstance(event, Event)
        return event

    def echo(self, data: bytes = b"ping") -> None:
        """There and back again."""
        self.send(EchoReq(data))
        event = self.receive()
        assert isinstance(event, EchoRes)
        assert event.data == data

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        data = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := self.sock.recv(1 << 18):
                data += piece
        return bytes(data)

    def reset(self) -> None:
        """Close with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()
