"""Nothing spins: how often hostile servers are connected to in an hour, in simulated time."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.engines.base import LinkState
from gearman_proto.engines.servers import FIRST_COOL_DOWN, LONGEST_COOL_DOWN
from gearman_proto.errors import ExceededConnectionAttempts, ServerUnavailable
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import (
    Error,
    GrabJob,
    GrabJobUniq,
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

HOUR: Final = 3600.0
#: The longest pause with the least jitter is half of it; before it, the pauses grow eight times.
BOUND: Final = 8 + HOUR / (LONGEST_COOL_DOWN / 2)


def spend(
    world: Any, seconds: float, behave: Callable[[Any], None], *, most: float = 10 * BOUND
) -> list[float]:
    """Let time pass with servers that `behave`, until they were connected to `most` times.

    Returns:
        When they were.
    """
    end, times = world.now + seconds, []
    while True:
        for peer in [peer for peer in world.peers if peer.link.state is LinkState.CONNECTING]:
            times.append(world.now)
            behave(peer)
        world.peers = [peer for peer in world.peers if peer.link.alive]
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


def refuse(peer: Any) -> None:
    peer.refuse()


def close_at_accept(peer: Any) -> None:
    peer.up().lose()


def reset_at_accept(peer: Any) -> None:
    peer.up().lose(ConnectionResetError("reset"))


def send_garbage(peer: Any) -> None:
    peer.up().send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def give_a_job(peer: worker_harness.Peer) -> None:
    peer.up()
    plain = isinstance(peer.questions[0], GrabJob)
    peer.send(JobAssign(b"H:1", b"f", b"") if plain else JobAssignUniq(b"H:1", b"f", b"u", b""))
    peer.world.finish(peer.world.job())


def refuse_grabs(peer: worker_harness.Peer) -> None:
    """Also the one without the unique, for old servers."""
    peer.up()
    while peer.questions and peer.link.is_up:
        peer.send(Error(b"ERR", b"no"))


def have_no_job_and_close(peer: worker_harness.Peer) -> None:
    peer.up().send(NoJob())
    peer.lose()


def wake_and_close(peer: worker_harness.Peer) -> None:
    peer.up().send(NoJob(), Noop())
    assert isinstance(peer.questions[-1], GrabJobUniq)
    peer.lose()


def assign_unasked(peer: worker_harness.Peer) -> None:
    peer.up().send(NoJob())
    peer.send_raw(harness.raw(JobAssign(b"H:1", b"f", b"")))


def assign_what_was_not_registered(peer: worker_harness.Peer) -> None:
    job = peer.up().assign(function=b"something else")
    peer.lose()
    peer.world.job_done(job)


def be_silent(peer: worker_harness.Peer) -> None:
    """As one that is stopped: the grab is never answered."""
    peer.up()


HOSTILE: Final = {
    "refuses": refuse,
    "closes at accept": close_at_accept,
    "resets at accept": reset_at_accept,
    "garbage": send_garbage,
    "ERROR to each grab": refuse_grabs,
    "NO_JOB and close": have_no_job_and_close,
    "NOOP and close": wake_and_close,
    "unasked assignment": assign_unasked,
    "assignment of another function": assign_what_was_not_registered,
    "silent": be_silent,
}


def worker_world(**options: Any) -> worker_harness.World:
    """A worker that was at work when its server went mad."""
    world = worker_harness.World(max_outage=None, **options)
    world.work()
    world.serve().send(NoJob())
    world.peer().lose()
    return world


@pytest.mark.parametrize("behave", HOSTILE.values(), ids=list(HOSTILE))
def test_a_worker_of_a_hostile_server(behave: Callable[[Any], None]) -> None:
    world = worker_world()
    times = spend(world, HOUR, behave)
    assert 40 < len(times) <= BOUND
    # A link that is silent is given up after so long; that it was there proves nothing.
    silence = 30.0 if behave is be_silent else 0.0
    assert min(pauses_between(times)[10:]) >= LONGEST_COOL_DOWN / 2 + silence

    # It is well again: its worker is back soon, and does its work.
    ended = world.now
    (back,) = spend(world, HOUR, give_a_job, most=1)
    assert back - ended <= LONGEST_COOL_DOWN + silence

    # What happens then is the first failure in a row.
    world.peer().lose()
    assert len(spend(world, FIRST_COOL_DOWN, lambda peer: peer.up())) == 1


@pytest.mark.unmeasured
def test_a_worker_of_a_server_that_keeps_connections_for_some_seconds() -> None:
    """As something in between that closes what is idle: it is not hostile."""
    world = worker_world(look_again=1000.0)

    def idle(peer: worker_harness.Peer) -> None:
        peer.up().send(NoJob())
        world.sleep(6.0)
        peer.lose()

    pauses = pauses_between(spend(world, HOUR, idle))
    assert max(pauses[1:]) <= 6.0 + FIRST_COOL_DOWN
    assert len(pauses) < HOUR / 6.0


def test_a_hostile_server_does_not_hold_up_a_good_one() -> None:
    world = worker_harness.World(2, max_outage=None, look_again=2 * HOUR)
    world.work()
    good = world.peer("s1").up()
    good.send(NoJob())

    def behave(peer: worker_harness.Peer) -> None:
        refuse_grabs(peer)
        good.send(Noop())
        world.finish(good.assign())
        good.send(NoJob())

    assert 40 < len(spend(world, HOUR, behave)) <= BOUND
    assert good.link.is_up


# The client.


def close_after_submit(peer: harness.Peer) -> None:
    peer.up().take()
    peer.lose()


def close_after_greeting(peer: harness.Peer) -> None:
    """Its answers are sound, but it takes no submit."""
    peer.read(peer.up().pull()[: len(GREETING)])
    assert peer.link.server.error is None
    peer.lose()


GREETING: Final = Connection(Role.CLIENT).send(OptionReq(b"exceptions"))
MAD: Final = {
    "closes at accept": close_at_accept,
    "resets at accept": reset_at_accept,
    "garbage": send_garbage,
    "closes after the greeting": close_after_greeting,
    "closes after a submit": close_after_submit,
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize("behave", MAD.values(), ids=list(MAD))
def test_a_client_of_a_mad_server(behave: Callable[[Any], None], servers: int) -> None:
    world = harness.World(servers)
    request = world.request(retries=1000)
    world.submit(request)
    times = spend(world, HOUR, behave)
    assert 40 < len(times) <= servers * BOUND
    assert request.state == JOB_PENDING
    # No second has more than a few.
    assert max(Counter(int(time) for time in times).values()) <= 4 * servers
    # The first retry does not wait: most likely the server was restarted.
    assert times[1] == 0.0

    # It is well again: the request gets there soon.
    ended = world.now
    (back,) = spend(world, HOUR, lambda peer: peer.up(), most=1)
    assert back - ended <= LONGEST_COOL_DOWN
    peer = world.peer()
    assert [type(event) for event in peer.take()] == [SubmitJob]
    peer.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert request.state == JOB_COMPLETE


@pytest.mark.parametrize("retries", [0, 1, 2, 3, 5, 8])
def test_how_long_it_takes_until_the_retries_are_spent(retries: int) -> None:
    """The table in docs/reference/client.md."""
    world = harness.World()
    wait = world.submit(world.request(retries=retries))
    assert len(spend(world, HOUR, close_after_submit)) == 1 + retries
    longest = sum(min(FIRST_COOL_DOWN * 2**failures, 30.0) for failures in range(1, retries))
    assert {0: 0, 1: 0, 2: 1, 3: 3, 5: 15, 8: 91}[retries] == longest
    assert longest / 2 <= world.now <= longest
    with pytest.raises(ExceededConnectionAttempts, match=f"tried {1 + retries} time"):
        wait.raise_error()


def test_a_server_that_was_restarted_has_its_request_at_once_again_and_again() -> None:
    world = harness.World()
    for number in range(10):
        request = world.request(retries=1)
        wait = world.submit(request)
        assert len(spend(world, 0.0, close_after_submit, most=1)) == (number == 0)
        if number:
            close_after_submit(world.peer())
        (at,) = spend(world, 0.0, lambda peer: peer.up(), most=1)
        assert at == world.now == 0.0
        world.peer().take()
        world.peer().send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
        assert wait.done
        assert request.state == JOB_COMPLETE


def test_a_connection_that_has_lasted_was_a_good_one() -> None:
    """Although no submit was acknowledged on it."""
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


def test_another_server_has_what_was_lost_at_once() -> None:
    world = harness.World(2)
    first = world.request(retries=5)
    world.submit(first)
    (mad,) = world.peers
    for _ in range(5):
        mad.link.server.failed(OSError(), world.now, world.engine._rng)
    close_after_submit(mad)
    good = world.serve()
    assert good.host != mad.host
    assert len(good.take()) == 1


def waiting() -> tuple[harness.World, GearmanJobRequest, RequestsWait]:
    """A World whose only server cools down before a retry."""
    world = harness.World()
    request = world.request(retries=9)
    wait = world.submit(request, timeout=100.0)
    assert len(spend(world, 0.0, close_after_submit)) == 2
    (link,) = world.engine.pool.links()
    assert link.state is LinkState.WAITING
    assert request._gm_link is link
    return world, request, wait


def test_a_deadline_comes_while_a_retry_waits() -> None:
    world = harness.World()
    request = world.request(retries=1000)
    wait = world.submit(request, timeout=3.0)
    times = spend(world, 3.0, close_after_submit)
    assert len(times) <= 5
    assert (wait.done, wait.timed_out, world.now) == (True, True, 3.0)
    assert (request.state, request.timed_out) == (JOB_PENDING, True)


def test_a_new_request_does_not_wait_and_takes_the_others_with_it() -> None:
    world, first, wait = waiting()
    second = world.request()
    world.submit(second)
    peer = world.serve()
    assert world.now == 0.0
    assert len(peer.take()) == 2
    peer.send(JobCreated(b"H:1"), JobCreated(b"H:2"))
    assert (first.state, second.state) == (JOB_CREATED, JOB_CREATED)
    assert not wait.done


def test_a_question_does_not_wait() -> None:
    world, first, _ = waiting()
    (server,) = world.engine.pool.servers
    world.engine.connect(world.now, harness.Bell(), server)
    assert len(world.act()) == 1
    assert len(world.serve().take()) == 1
    assert first.state == JOB_PENDING


def test_to_be_shut_down_while_a_retry_waits() -> None:
    world, request, wait = waiting()
    world.close()  # It checks that nothing is closed that was not opened.
    assert wait.done
    assert request.state == JOB_UNKNOWN
    assert world.engine.next_deadline() is None or world.engine.next_deadline() == 100.0
    world.release(wait)
    assert world.engine.next_deadline() is None


def test_a_bug_while_a_retry_waits() -> None:
    world, request, wait = waiting()
    assert world.engine.abandon(KeyError("a bug")) == [wait]
    assert wait.done
    assert request.state == JOB_UNKNOWN
    assert world.engine.next_deadline() is None


def test_refused_when_its_time_has_come() -> None:
    world, request, wait = waiting()
    spend(world, LONGEST_COOL_DOWN, refuse, most=1)
    assert request.state == JOB_UNKNOWN
    with pytest.raises(ServerUnavailable):
        wait.raise_error()
