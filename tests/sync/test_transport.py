"""What a Transport writes, and how often it asks for more."""

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
def test_more_is_asked_for_if_there_is_any(has_more: bool) -> None:
    near, far = socket.socketpair()
    with closing(Transport(ServerAddress("peer"), 0.0, {}).accept(near)) as transport, far:
        link = Link(Connection(Role.SERVER), OPEN)
        link.has_more = has_more
        chunks = [b"c", b"b", b"a"]
        transport.write(lambda: chunks.pop() if chunks else b"", link)
        assert not transport.is_blocked
        assert far.recv(9) == (b"abc" if has_more else b"a")


def test_what_was_kept_back_is_not_the_last() -> None:
    """What has been queued meanwhile is not said again."""
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
