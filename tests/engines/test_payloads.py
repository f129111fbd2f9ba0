"""How often a large payload is there while it goes through an engine."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

from gearman_proto.wire.packets import JobAssignUniq, WorkComplete

from .harness import World
from .test_worker_engine import holding

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 4_000_000
CHUNK = 65536


def peak(call: Callable[[], object]) -> float:
    """The bytes that `call` has had at once, over those of the payload."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] / SIZE
    finally:
        tracemalloc.stop()


def test_what_a_client_sends_is_not_copied() -> None:
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


def test_what_a_worker_sends_is_not_copied() -> None:
    world, _, server, job = holding()
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


def test_what_a_worker_receives_is_there_once() -> None:
    world, _, server, job = holding()
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
