"""Tests of the number of copies of a large payload in an engine."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

from gearman_proto.wire.packets import JobAssignUniq, WorkComplete

from .harness import World
from .worker_harness import holding

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 4_000_000
CHUNK = 65536


def peak(call: Callable[[], object]) -> float:
    """Return the peak memory of `call`, as a multiple of the payload."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / SIZE
    finally:
        tracemalloc.stop()


def test_client_sends_a_payload_without_a_copy() -> None:
    world = World()
    small, large = world.request(data=b"x"), world.request(data=bytes(SIZE))
    world.submit(small, large)
    server = world.serve()
    written = []

    def pull() -> None:
        while piece := server.pull():
            written.append(len(piece))

    assert peak(pull) < 0.3
    assert sum(written) > SIZE
    assert max(written) <= 256 * 1024


def test_worker_sends_a_payload_without_a_copy() -> None:
    world, server, job = holding()
    server.reads = False
    result = WorkComplete(b"H:1", bytes(SIZE))
    written = []

    def send() -> None:
        world.send(job, result)
        while chunk := world.engine.data_to_send(server.link, world.now):
            written.append(len(chunk))

    assert peak(send) < 0.3
    assert sum(written) > SIZE
    assert max(written) <= 256 * 1024


def test_worker_receives_a_payload_with_one_copy() -> None:
    world, server, job = holding()
    world.finish(job)
    server.take()
    packet = server.connection.send(JobAssignUniq(b"H:2", b"f", b"", bytes(SIZE)))

    def receive() -> None:
        for at in range(0, len(packet), CHUNK):
            chunk = packet[at : at + CHUNK]
            world.call(world.engine.receive_data, server.link, chunk, world.now)

    assert peak(receive) < 1.3
    taken = world.engine.next_job(world.now)
    assert taken is not None
    assert len(taken.data) == SIZE
