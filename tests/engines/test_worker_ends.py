"""The ends of a worker's call of `work`: `stop`, `release`, `close`, `abandon`, in each phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gearman_proto.errors import ConnectionError, GearmanError, InvalidWorkerState
from gearman_proto.wire.packets import (
    CanDo,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    NoJob,
    Noop,
    PreSleep,
    WorkFail,
)

from .harness import raw, wakes
from .worker_harness import (
    GRAB,
    PHASES,
    World,
    grabbing,
    holding,
    in_phase,
    result,
    working,
)

if TYPE_CHECKING:
    from gearman_proto.jobs.job import WorkerJob

ECHO = EchoReq(b"")
ECHOED = EchoRes(b"")

# Stopping.


@pytest.mark.parametrize(
    ("phase", "answer"),
    [
        *((phase, b"") for phase in ("connecting", "cooling", "resting", "asleep", "backoff")),
        ("queued", raw(NoJob())),
        ("grabbing", raw(Noop(), NoJob())),
        ("grabbing", raw(Error(b"server_error", b""))),
        ("late", raw(NoJob())),
        ("leaving", raw(ECHOED)),
        ("leaving", raw(ECHOED) + b"garbage"),
        # These servers do not know ECHO_REQ, and refuse or ignore it.
        ("leaving", raw(Error(b"server_error", b""))),
        ("leaving", raw(NoJob())),
    ],
)
def test_stop_closes_each_link_after_its_last_answer(phase: str, answer: bytes) -> None:
    world, _ = in_phase(phase)
    for peer in world.peers:
        peer.take()
    world.stop()
    if answer:
        assert not world.is_over()
        (server,) = world.alive()
        server.send_raw(answer)
    assert world.alive() == []
    assert world.is_over()
    assert world.engine.next_deadline() is None
    assert [packet for peer in world.peers for packet in peer.take()] == []


@pytest.mark.parametrize(
    ("phase", "seconds"), [("grabbing", 1.0), ("late", 1.0), ("leaving", 30.0)]
)
def test_stop_closes_a_link_without_an_answer(phase: str, seconds: float) -> None:
    world, _ = in_phase(phase)
    (server,) = world.alive()
    world.stop()
    world.sleep(seconds - 0.01)
    assert not server.closed
    world.sleep(0.02)
    assert server.closed
    assert world.is_over()


def test_stop_lets_jobs_end_and_confirms_their_results_with_an_echo() -> None:
    world = working(2, max_jobs=3)
    first, second = world.serve_all()
    one, two, three = first.assign(1), second.assign(2), first.assign(3)
    first.take()
    second.take()
    world.complete(three)
    world.finish(one, go_on=False)
    assert first.take() == [result(3), result(1), ECHO]
    world.register(b"g")  # Only the second link still needs it.
    assert first.says(ECHOED) == []
    world.sleep(1000.0)
    assert (first.closed, second.closed) == (True, False)
    world.job_done(two, go_on=False)
    assert second.take() == [CanDo(b"g"), WorkFail(b"H:2"), ECHO]
    second.send(ECHOED)
    assert second.closed
    assert not world.is_over()
    world.job_done(three)
    assert world.is_over()


def test_stop_by_a_failing_job_sends_no_grab() -> None:
    world, server, job = holding(functions=[b"f", b"g"])
    world.unregister(b"f")  # The job delays CANT_DO.
    world.job_done(job, go_on=False)
    assert server.take() == [WorkFail(b"H:1"), CantDo(b"f"), ECHO]


@pytest.mark.parametrize("confirmed", [False, True])
def test_stop_sends_no_echo_if_a_later_grab_was_answered(confirmed: bool) -> None:
    world, server = grabbing(max_jobs=2)
    job = server.assign()
    server.take()
    world.finish(job)
    assert server.says(NoJob()) == [result(), PreSleep()]
    if confirmed:
        assert server.says(Noop()) == [GRAB]
        assert server.says(NoJob()) == [PreSleep()]
    world.stop()
    assert server.take() == ([] if confirmed else [ECHO])
    assert server.closed is confirmed


def test_stop_waits_for_the_answers_of_several_grabs() -> None:
    world, server = grabbing(max_jobs=4)
    running = server.assign(1)
    assert server.take()[-2:] == [GRAB, GRAB]
    world.stop()
    late = server.assign(2)
    world.finish(running)
    assert server.take() == [result(1)]
    assert server.says(NoJob()) == []
    world.sleep(100.0)
    world.finish(late)
    assert server.take() == [result(2), ECHO]
    server.send(ECHOED)
    assert world.is_over()


def test_stop_timeout_can_be_added_and_returns_the_jobs() -> None:
    world, server, job = holding()
    world.stop()
    world.stop()
    world.sleep(100.0)
    world.stop(timeout=10.0)
    world.sleep(9.9)
    assert not server.closed
    world.sleep(0.2)
    assert server.closed
    assert world.is_over()
    assert job.is_lost
    world.job_done(job)


def test_stop_before_work_ends_the_next_work_only() -> None:
    world = World()
    world.stop()
    stream = world.work()
    assert world.is_over()
    assert wakes(stream) == 1
    assert world.peers == []
    world.end_work()
    world.work()
    world.serve().send(NoJob())
    world.stop()
    world.stop()
    assert world.is_over()
    world.end_work()
    world.work()
    assert not world.is_over()


# All ends, in each phase.


def check_that_it_works_again(world: World, job: WorkerJob | None) -> None:
    """Check that a new `work` starts afresh after the old one."""
    world.register(b"f")
    world.work()
    with pytest.raises(InvalidWorkerState, match="works already"):
        world.work()
    for peer in world.alive():
        peer.up()
    if job is not None:
        # Finishing a job of the old call does not disturb or stop the new one.
        with pytest.raises(GearmanError):
            world.complete(job)
        world.job_done(job, go_on=False)
    for number in range(4):
        (server,) = (peer for peer in world.alive() if peer.grabbing)
        world.finish(server.assign(number))
    world.stop()
    for peer in world.alive():
        peer.send(NoJob() if peer.grabbing else ECHOED)
        if peer.link.alive:
            peer.send(ECHOED)
    assert world.is_over()


@pytest.mark.parametrize("phase", PHASES)
def test_released_work_closes_all_links_and_forgets_its_jobs(phase: str) -> None:
    world, job = in_phase(phase)
    stream, up = world.stream, world.alive()
    world.release(stream)
    assert all(peer.closed for peer in up)
    assert not world.engine.has_jobs()
    assert world.engine.next_deadline() is None
    assert world.next_job() is None
    assert all(wait.done for wait in world.waits)
    world.end_work()
    check_that_it_works_again(world, job)
    world.release(stream)
    world.end_work()


def test_close_ends_the_work_for_good() -> None:
    world, server, job = holding()
    other = World()
    other.stop()
    for each in (world, other):
        each.close()
        each.close()
        each.stop()
        each.end_work()
        with pytest.raises(InvalidWorkerState, match="shut down"):
            each.work()
        assert each.engine.next_deadline() is None
    assert server.closed
    assert world.is_over()
    with pytest.raises(ConnectionError):
        world.complete(job)
    world.job_done(job, go_on=False)


def test_abandon_ends_all_calls_and_loses_the_jobs() -> None:
    world, job = in_phase("stalled")
    (server,), calls = world.alive(), [world.stream, *world.waits]
    assert {*calls} == {*world.engine.abandon(ConnectionError("forked"))}
    for wait in calls:
        assert (wait.done, wakes(wait)) == (True, wait is world.stream)
        with pytest.raises(ConnectionError, match="forked"):
            wait.raise_error()
    assert (world.engine.closed, server.closed) == (False, False)
    assert world.engine.next_action() is None
    world.engine.receive_data(server.link, raw(Noop()), world.now)
    assert world.engine.data_to_send(server.link, world.now) == b""
    assert job is not None
    assert job.is_lost
    with pytest.raises(ConnectionError, match=r"> was lost with .*: forked"):
        world.engine.send(world.now, lambda: None, job, result()).raise_error()
    world.engine.job_done(world.now, job)
