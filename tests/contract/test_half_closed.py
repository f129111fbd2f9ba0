"""Half-closed peers receive all their replies, and truncated packets are reported."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from gearman_proto.errors import ExceededConnectionAttempts
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import CanDo, JobCreated, Role, SubmitJob
from tests.support import PATIENCE

from .kit import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync.testing import Peer, ScriptedServer

    from .kit import Kit

# The resulting status reply exceeds the socket buffers of every system.
FUNCTIONS, LENGTH = 10_000, 800


def read_all(sock: socket.socket) -> bytes:
    """Receive until the end of the stream."""
    chunks = []
    while chunk := sock.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


@pytest.mark.slow
async def test_half_closed_peer_receives_the_whole_reply(kit: Kit, task: str) -> None:
    """Send the full reply to a slow reader that half-closes, like ``echo status | nc``."""
    server = EmbeddedServer(kit)
    await server.start()
    names = [b"%0*d" % (LENGTH, number) for number in range(FUNCTIONS)]
    connection = Connection(Role.WORKER)
    with socket.socket() as worker, socket.socket() as peer:
        for sock in (worker, peer):
            sock.settimeout(PATIENCE)
        # The kernel honours the buffer size only if it is set before the connection is made.
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await kit.blocking(worker.connect, server.address)
        abilities = b"".join([connection.send(CanDo(name)) for name in names])
        await kit.blocking(worker.sendall, abilities)
        await server.wait_for_counts(names[-1].decode(), 0, 0, 1)
        await kit.blocking(peer.connect, server.address)
        peer.sendall(connection.send(CanDo(task.encode())))
        await server.wait_for_counts(task, 0, 0, 1)
        peer.sendall(b"status\n")
        peer.shutdown(socket.SHUT_WR)
        # Once the server has seen the end of the stream, it no longer counts this peer as a worker.
        await server.wait_for_counts(task, 0, 0, 0)
        *lines, end = (await kit.blocking(read_all, peer)).splitlines()
    assert [line.split(b"\t")[0] for line in lines] == [*names, task.encode()]
    assert end == b"."


async def test_truncated_packet_is_named_in_the_error(
    kit: Kit, start_server: Callable[..., ScriptedServer], task: str
) -> None:
    """Report a server that closes in the middle of a packet."""

    def tear(peer: Peer) -> None:
        peer.expect(SubmitJob)
        peer.send_raw(peer.connection.send(JobCreated(b"H:torn"))[:-1])

    client = await kit.client(start_server(tear).address)
    with pytest.raises(ExceededConnectionAttempts, match="in the middle of a packet"):
        await client.submit_job(task, b"")
