"""The other end of one connection of a client, a worker or a server."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.wire.packets import EchoReq, EchoRes, Event
from tests.support import PATIENCE

if TYPE_CHECKING:
    from anyio.abc import ByteStream


class Peer:
    """A peer that the test controls. It sends and receives packets.

    Args:
        stream: The stream to the object under test.
        role: What the peer is.
    """

    def __init__(self, stream: ByteStream, role: Role = Role.CLIENT | Role.WORKER) -> None:
        self.stream = stream
        self.connection = Connection(role)

    async def send(self, *events: Event) -> None:
        await self.stream.send(b"".join([self.connection.send(event) for event in events]))

    async def receive(self) -> Event:
        """Return the next packet."""
        with anyio.fail_after(PATIENCE):
            while (event := self.connection.next_event()) is NEED_DATA:
                self.connection.receive_data(await self.stream.receive())
        assert isinstance(event, Event)
        return event

    async def echo(self) -> None:
        """Send ECHO_REQ and check the reply."""
        await self.send(EchoReq(b"ping"))
        assert await self.receive() == EchoRes(b"ping")

    async def rest(self) -> bytes:
        """Return all data received until the other end closes the connection."""
        data = bytearray()
        with anyio.fail_after(PATIENCE):
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    data += await self.stream.receive()
        return bytes(data)
