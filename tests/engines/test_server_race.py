"""Connection attempts that run in parallel if a server does not respond, in simulated time."""

from __future__ import annotations

import random

import pytest

from gearman_proto.constants import JOB_COMPLETE
from gearman_proto.wire.packets import JobCreated, SubmitJob, WorkComplete

from .harness import World

TIMEOUT = 5.0


def let_connect(world: World, holes: set[str]) -> None:
    """Open all links except those to `holes`, and complete the jobs that arrive."""
    for peer in world.alive():
        if peer.host not in holes:
            if not peer.link.is_up:
                peer.up()
            for event in peer.take():
                if isinstance(event, SubmitJob):
                    handle = b"H:" + event.unique
                    peer.send(JobCreated(handle), WorkComplete(handle, b""))


def pass_time(world: World, holes: set[str], limit: float) -> None:
    """Advance the clock until all calls have returned, or to `limit`."""
    let_connect(world, holes)
    while not all(wait.done for wait in world.waits) and world.now < limit:
        deadline = world.engine.next_deadline()
        assert deadline is not None
        world.sleep(max(deadline - world.now, 0.0))
        let_connect(world, holes)


@pytest.mark.parametrize("routing", ["random", "unique"])
@pytest.mark.parametrize("seed", range(10))
def test_black_holes_delay_no_call_beyond_connect_timeout(routing: str, seed: int) -> None:
    world = World(50, seed=seed, routing=routing, heartbeat=None, connect_timeout=TIMEOUT)
    rng = random.Random(seed)
    holes = {f"s{number}" for number in rng.sample(range(50), 40)}
    for number in range(5):
        started = world.now
        request = world.request(unique=f"u{number}")
        wait = world.submit(request)
        pass_time(world, holes, started + 100.0)
        assert request.state == JOB_COMPLETE
        assert world.now - started <= TIMEOUT + 0.01
        world.release(wait)


def test_slow_server_starts_attempt_at_second_server() -> None:
    world = World(2)
    request = world.request()
    world.submit(request)
    (first,) = world.peers
    world.sleep(0.24)
    assert len(world.peers) == 1
    world.sleep(0.02)
    (_, second) = world.peers
    # The first link that opens gets the request, and both links stay open.
    first.up()
    assert [type(event) for event in first.take()] == [SubmitJob]
    second.up()
    assert second.take() == []
    assert first.link.alive


def test_requests_go_to_server_that_connects_first() -> None:
    world = World(2)
    shared = [world.request(unique="mine") for _ in range(2)]
    world.submit(*shared, world.request())
    _, second = world.peers
    world.sleep(0.3)
    second.up()
    # The two requests with the same unique are coalesced into one submit.
    assert [type(event) for event in second.take()] == [SubmitJob] * 2
    assert {request.connection.host for request in shared if request.connection} == {second.host}


def test_unique_waits_for_its_slow_server() -> None:
    world = World(3, routing="unique")
    request = world.request(unique="mine")
    world.submit(request)
    for _ in range(3):
        world.sleep(0.3)
    first, *others = world.peers
    # The client also connects to the other servers, but sends them nothing.
    assert len(others) == 2
    for other in others:
        assert other.up().take() == []
    first.up()
    assert [type(event) for event in first.take()] == [SubmitJob]
