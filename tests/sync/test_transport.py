"""Writes of a Transport, and its requests for more data."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from gearman_proto import ServerAddress
from gearman_proto.engines.base import OPEN, Link
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import Role
from gearman_sync._transport import Transport


@pytest.mark.parametrize("has_more", [False, True])
def test_write_requests_more_data_if_the_link_has_more(has_more: bool) -> None:
    near, far = socket.socketpair()
    with closing(Transport(ServerAddress("peer"), 0.0, {}).accept(near)) as transport, far:
        link = Link(Connection(Role.SERVER), OPEN)
        link.has_more = has_more
        chunks = [b"c", b"b", b"a"]
        transport.write(lambda: chunks.pop() if chunks else b"", link)
        assert not transport.is_blocked
        assert far.recv(9) == (b"abc" if has_more else b"a")


def test_data_queued_after_a_partial_write_is_sent() -> None:
    """`has_more` stays False although more data was queued after the partial write."""
    near, far = socket.socketpair()
    with closing(Transport(ServerAddress("peer"), 0.0, {}).accept(near)) as transport, far:
        link = Link(Connection(Role.SERVER), OPEN)
        link.has_more = False
        size = 4 * 1024 * 1024
        chunks = [b"end", bytes(size)]
        transport.write(lambda: chunks.pop() if chunks else b"", link)
        assert transport.is_blocked
        assert chunks == [b"end"]
        received = b""
        while transport.is_blocked or not received.endswith(b"end"):
            received += far.recv(size)
            if transport.is_blocked:
                transport.write(lambda: chunks.pop() if chunks else b"", link)
        assert len(received) == size + 3
