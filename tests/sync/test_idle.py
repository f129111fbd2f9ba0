"""Idle clients and idle connections to a job server use few resources."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import tracemalloc
from typing import TYPE_CHECKING, Final

import pytest

from gearman_sync import GearmanAdminClient, GearmanClient, JobServer
from tests.support import eventually

from .support import open_files

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT: Final = 100
#: Bytes, about a fifth more than on CPython 3.11 and 3.13 for x86-64.
CLIENT: Final = 15_000
CONNECTION: Final = 2_400


def cost(make: Callable[[], object], settle: Callable[[], object] = gc.collect) -> float:
    """Return the bytes of memory per object."""
    first = make()  # The first object also allocates shared data.
    settle()
    tracemalloc.start()
    try:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        many = [make() for _ in range(COUNT)]
        settle()
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / len(many)
    finally:
        tracemalloc.stop()
        del first


@pytest.fixture
def strict_engines() -> None:
    """Measure the memory of plain engines."""


def test_idle_client_uses_little_memory() -> None:
    with (
        # The kernel completes the connections, so this process has no object for the other ends.
        socket.create_server(("127.0.0.1", 0), backlog=2 * COUNT) as listener,
        contextlib.ExitStack() as clients,
    ):

        def make() -> GearmanClient:
            client = clients.enter_context(GearmanClient([listener.getsockname()[:2]]))
            assert client.establish_connection(client.connection_list[0]).connected
            return client

        assert CLIENT / 2 < cost(make) < CLIENT


@pytest.mark.skipif(sys.platform != "linux", reason="not every selector has a descriptor")
def test_idle_client_has_four_descriptors_and_unused_one_has_none() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        GearmanClient([listener.getsockname()[:2]]) as client,
    ):
        before = open_files()
        client.establish_connection(client.connection_list[0])
        assert len(open_files() - before) == 4
        client.shutdown()
        assert open_files() == before


def test_idle_connection_uses_little_memory_in_a_server() -> None:
    with (
        JobServer() as server,
        GearmanAdminClient([server.address]) as admin,
        contextlib.ExitStack() as sockets,
    ):
        peers: list[socket.socket] = []

        def make() -> socket.socket:
            peers.append(sockets.enter_context(socket.create_connection(server.address)))
            return peers[-1]

        def settle() -> None:
            eventually(lambda: len(admin.get_workers()) == len(peers) + 1)

        assert CONNECTION / 2 < cost(make, settle) < CONNECTION
