"""Hostile servers, and outages, in simulated time: when an engine connects again or gives up."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_proto.constants import JOB_CREATED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.engines.base import LinkState
from gearman_proto.engines.servers import FIRST_COOL_DOWN, LONGEST_COOL_DOWN
from gearman_proto.errors import ExceededConnectionAttempts, ServerUnavailable
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import (
    Error,
    GrabJob,
    JobAssign,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    Role,
    SubmitJob,
    WorkComplete,
)

from . import harness, worker_harness

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.engines.waits import RequestsWait
    from gearman_proto.jobs.request import GearmanJobRequest
    from gearman_proto.wire.packets import Event

HOUR: Final = 3600.0
#: The jitter shortens the longest pause to half at most. The pauses before it grow eight times.
BOUND: Final = 8 + HOUR / (LONGEST_COOL_DOWN / 2)


def spend(
    world: Any, seconds: float, behave: Callable[[Any], None], *, most: float = 10 * BOUND
) -> list[float]:
    """Run for `seconds`, or until `most` connections, with `behave` for each connection.

    Returns:
    The times of the connections.
    """
    end, times = world.now + seconds, []
    while True:
        for peer in [peer for peer in world.peers if peer.link.state is LinkState.CONNECTING]:
            times.append(world.now)
            behave(peer)
        world.peers = world.alive()
        if len(times) >= most:
            return times
        if all(peer.link.state is not LinkState.CONNECTING for peer in world.peers):
            deadline = world.engine.next_deadline()
            if deadline is None or deadline > end:
                return times
            world.sleep(deadline - world.now)


def pauses_between(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


# The worker.


def refuse_grabs(peer: worker_harness.Peer) -> None:
    """Answer each GRAB_JOB_UNIQ with an error, and each GRAB_JOB for old servers too."""
    peer.up()
    while peer.questions and peer.link.is_up:
        peer.send(Error(b"ERR", b"no"))


def close(peer: worker_harness.Peer, *answers: Event) -> None:
    """Send `answers` to the grab, then close."""
    peer.up().send(*answers)
    peer.lose()


def assign(peer: worker_harness.Peer) -> None:
    """Assign a job, which the worker finishes."""
    is_old = isinstance(peer.up().questions[0], GrabJob)
    peer.send(JobAssign(b"H:1", b"f", b"") if is_old else JobAssignUniq(b"H:1", b"f", b"u", b""))
    peer.world.finish(peer.world.job())


def assign_unasked(peer: worker_harness.Peer) -> None:
    peer.up().send(NoJob())
    peer.send_raw(harness.raw(JobAssign(b"H:1", b"f", b"")))


def assign_what_was_not_registered(peer: worker_harness.Peer) -> None:
    job = peer.up().assign(function=b"something else")
    peer.lose()
    peer.world.job_done(job)


def be_silent(peer: Any) -> None:
    """Act like a stopped server: accept the connection, but never answer."""
    peer.up()


#: Behaviours that no engine likes.
BAD: Final[dict[str, Callable[[Any], Any]]] = {
    "closes at accept": lambda peer: peer.up().lose(),
    "resets at accept": lambda peer: peer.up().lose(ConnectionResetError("reset")),
    "garbage": lambda peer: peer.up().send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
}
HOSTILE: Final = BAD | {
    "refuses": lambda peer: peer.refuse(),
    "ERROR to each grab": refuse_grabs,
    "NO_JOB and close": lambda peer: close(peer, NoJob()),
    "NOOP and close": lambda peer: close(peer, NoJob(), Noop()),
    "unasked assignment": assign_unasked,
    "assignment of another function": assign_what_was_not_registered,
    "silent": be_silent,
}


def worker_world(max_outage: float | None = None, **options: Any) -> worker_harness.World:
    """Return a World of a running worker that has just lost its server."""
    world, server = worker_harness.asleep(max_outage=max_outage, **options)
    server.lose()
    return world


@pytest.mark.parametrize("behave", HOSTILE.values(), ids=list(HOSTILE))
def test_worker_backs_off_from_a_hostile_server(behave: Callable[[Any], None]) -> None:
    world = worker_world()
    times = spend(world, HOUR, behave)
    assert 40 < len(times) <= BOUND
    # A silent link times out only after this time. Its duration does not count as success.
    silence = 30.0 if behave is be_silent else 0.0
    assert min(pauses_between(times)[10:]) >= LONGEST_COOL_DOWN / 2 + silence

    # The server recovers: the worker reconnects soon and runs a job.
    ended = world.now
    (back,) = spend(world, HOUR, assign, most=1)
    assert back - ended <= LONGEST_COOL_DOWN + silence

    # The next failure counts as the first in a row.
    world.peer().lose()
    assert len(spend(world, FIRST_COOL_DOWN, be_silent)) == 1


@pytest.mark.unmeasured
def test_worker_reconnects_soon_after_an_idle_timeout_of_a_proxy() -> None:
    """A proxy that closes idle connections is not hostile."""
    world = worker_world(poll_interval=1000.0)

    def idle(peer: worker_harness.Peer) -> None:
        peer.up().send(NoJob())
        world.sleep(6.0)
        peer.lose()

    pauses = pauses_between(spend(world, HOUR, idle))
    assert max(pauses[1:]) <= 6.0 + FIRST_COOL_DOWN
    assert len(pauses) < HOUR / 6.0


@pytest.mark.parametrize(
    ("max_outage", "behave", "seconds"),
    [
        (60.0, "refuses", 60.0),
        (0.0, "refuses", 0.0),
        (20.0, "silent", 20.0),
        (None, "refuses", None),
        # An answer ends the outage. The next one begins when the server closes.
        (40.0, "NO_JOB and close", None),
    ],
)
def test_worker_gives_up_after_an_outage_of_all_servers(
    max_outage: float | None, behave: str, seconds: float | None
) -> None:
    world = worker_world(max_outage)
    spend(world, HOUR if seconds is None else seconds - 0.01, HOSTILE[behave])
    assert not world.stream.done
    if seconds is not None:
        world.sleep(seconds + 0.01 - world.now)
        with pytest.raises(ServerUnavailable):
            world.stream.raise_error()


@pytest.mark.parametrize("stops", [False, True])
def test_outage_ends_while_a_large_job_arrives(stops: bool) -> None:
    world = worker_world(max_outage=5.0)
    world.sleep(1.0)
    back = world.serve()
    packet = back.connection.send(JobAssignUniq(b"H:1", b"f", b"", bytes(200_000)))
    for at in range(0, 20_000 if stops else len(packet), 20_000):
        back.send_raw(packet[at : at + 20_000])
        world.sleep(1.0)
    world.sleep(28.0)
    assert not world.stream.done
    world.sleep(6.0)
    assert world.stream.done is stops


# The client.


def close_after_submit(peer: harness.Peer) -> None:
    peer.up().take()
    peer.lose()


def close_after_greeting(peer: harness.Peer) -> None:
    """Send valid answers, but close before the first submit."""
    peer.read(peer.up().pull()[: len(GREETING)])
    assert peer.link.server.error is None
    peer.lose()


GREETING: Final = Connection(Role.CLIENT).send(OptionReq(b"exceptions"))
MAD: Final = BAD | {
    "closes after the greeting": close_after_greeting,
    "closes after a submit": close_after_submit,
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize("behave", MAD.values(), ids=list(MAD))
def test_client_backs_off_from_a_hostile_server(
    behave: Callable[[Any], None], servers: int
) -> None:
    world = harness.World(servers)
    request = world.request(retries=1000)
    world.submit(request)
    times = spend(world, HOUR, behave)
    assert 40 < len(times) <= servers * BOUND
    assert request.state == JOB_PENDING
    # The client makes only a few attempts in any second.
    assert max(Counter(int(time) for time in times).values()) <= 4 * servers
    # The first retry has no pause because a restart is the most likely cause.
    assert times[1] == 0.0

    # The server recovers: the request arrives soon.
    ended = world.now
    (back,) = spend(world, HOUR, be_silent, most=1)
    assert back - ended <= LONGEST_COOL_DOWN
    peer = world.peer()
    assert [type(event) for event in peer.take()] == [SubmitJob]
    peer.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert request.result == b"out"


@pytest.mark.parametrize("retries", [0, 1, 2, 3, 5, 8])
def test_time_until_the_last_retry(retries: int) -> None:
    """Check the table in docs/reference/client.md."""
    world = harness.World()
    wait = world.submit(world.request(retries=retries))
    assert len(spend(world, HOUR, close_after_submit)) == 1 + retries
    longest = sum(min(FIRST_COOL_DOWN * 2**failures, 30.0) for failures in range(1, retries))
    assert {0: 0, 1: 0, 2: 1, 3: 3, 5: 15, 8: 91}[retries] == longest
    assert longest / 2 <= world.now <= longest
    with pytest.raises(ExceededConnectionAttempts, match=f"tried {1 + retries} time"):
        wait.raise_error()


def test_long_connection_resets_the_failures() -> None:
    """The server has acknowledged no submit on the connection."""
    world = harness.World()
    (server,) = world.engine.pool.servers
    for _ in range(3):
        request = world.request(retries=1)
        world.submit(request)
        peer = world.serve()
        peer.take()
        peer.send(Error(b"QUEUE_FULL", b""))
        world.sleep(5.0)
        peer.lose()
        assert server.failures == 1


def waiting() -> tuple[harness.World, GearmanJobRequest, RequestsWait]:
    """Return a World whose only server cools down before a retry."""
    world = harness.World()
    request = world.request(retries=9)
    wait = world.submit(request, timeout=100.0)
    assert len(spend(world, 0.0, close_after_submit)) == 2
    (link,) = world.engine.pool.links()
    assert link.state is LinkState.WAITING
    assert request._gm_link is link
    return world, request, wait


def test_new_request_ends_the_pause_of_a_retry() -> None:
    world, first, wait = waiting()
    second = world.request()
    world.submit(second)
    peer = world.serve()
    assert world.now == 0.0
    assert len(peer.take()) == 2
    peer.send(JobCreated(b"H:1"), JobCreated(b"H:2"))
    assert (first.state, second.state) == (JOB_CREATED, JOB_CREATED)
    assert not wait.done


def test_query_connects_during_the_pause_of_a_retry() -> None:
    world, first, _ = waiting()
    (server,) = world.engine.pool.servers
    world.engine.connect(world.now, harness.Bell(), server)
    assert len(world.act()) == 1
    assert len(world.serve().take()) == 1
    assert first.state == JOB_PENDING


def test_close_during_the_pause_of_a_retry_fails_its_request() -> None:
    world, request, wait = waiting()
    world.close()  # The World checks that the engine closes only opened connections.
    assert wait.done
    assert request.state == JOB_UNKNOWN
    world.release(wait)
    assert world.engine.next_deadline() is None
