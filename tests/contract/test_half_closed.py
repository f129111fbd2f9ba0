"""Peers that send no more: they get all that they have asked for, and what they tore is told."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from gearman_proto.errors import ExceededConnectionAttempts
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import CanDo, JobCreated, Role, SubmitJob
from gearman_sync.testing import Peer, ScriptedServer
from tests.support import PATIENCE

from .kit import EmbeddedServer

if TYPE_CHECKING:
    from .kit import Kit

# So many, and of such a size, that no system takes a list of them all at once.
FUNCTIONS, LENGTH = 10_000, 800


def read_all(sock: socket.socket) -> bytes:
    """What comes until the end."""
    chunks = []
    while chunk := sock.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


@pytest.mark.slow
async def test_peer_gets_all_that_it_has_asked_for(kit: Kit, task: str) -> None:
    """As ``echo status | nc``, when the reader is slow."""
    server = EmbeddedServer(kit)
    await server.start()
    names = [b"%0*d" % (LENGTH, number) for number in range(FUNCTIONS)]
    connection = Connection(Role.WORKER)
    with socket.socket() as worker, socket.socket() as peer:
        for sock in (worker, peer):
            sock.settimeout(PATIENCE)
        # Set before it connects, it is what the system goes by.
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
        # From when the server knows that nothing more will come, this is no worker.
        await server.wait_for_counts(task, 0, 0, 0)
        *lines, end = (await kit.blocking(read_all, peer)).splitlines()
    assert [line.split(b"\t")[0] for line in lines] == [*names, task.encode()]
    assert end == b"."


async def test_torn_packet(kit: Kit, task: str) -> None:
    """A server that ends in the middle of a packet, and what its client says of it."""

    def tear(peer: Peer) -> None:
        peer.expect(SubmitJob)
        peer.send_raw(peer.connection.send(JobCreated(b"H:torn"))[:-1])

    server = ScriptedServer(tear)
    server.start()
    try:
        client = await kit.client(server.address)
        with pytest.raises(ExceededConnectionAttempts, match="in the middle of a packet"):
            await client.submit_job(task, b"")
    finally:
        await kit.blocking(server.stop)
