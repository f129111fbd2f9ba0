"""Jobs that a worker's callbacks leave open: who ends them, and when their slots are released."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ConnectionError
from gearman_proto.wire.packets import CantDo, EchoReq, EchoRes, WorkFail

from .worker_harness import GRAB, Peer, World, data, holding, result

if TYPE_CHECKING:
    from gearman_proto.jobs.job import DeferredJob, WorkerJob


def left(**options: Any) -> tuple[World, Peer, WorkerJob, DeferredJob]:
    """Return a World whose only job was left open by its callback."""
    world, server, job = holding(**options)
    deferred = job.defer()
    assert world.leave(job)
    return world, server, job, deferred


def finish_left(world: World, job: WorkerJob) -> None:
    """Do the caller's part for the end of a job that was left."""
    assert world.stream.ready
    assert world.job() is job
    world.job_done(job)


def test_left_job_keeps_its_slot_until_its_end_is_processed() -> None:
    world, server, job, _ = left()
    world.sleep(1000.0)
    world.send(job, data(1))
    assert server.take() == [data(1)]
    assert not world.stream.ready
    assert world.engine.has_jobs()
    world.complete(job)
    assert server.take() == [result()]
    finish_left(world, job)
    assert server.take() == [GRAB]
    assert not world.engine.has_jobs()


def test_job_that_has_ended_or_is_not_deferred_is_not_left() -> None:
    world, server, job = holding()
    assert not world.leave(job)
    deferred = job.defer()
    world.complete(job)
    assert not world.leave(job)
    world.job_done(job)
    assert server.take() == [result(), GRAB]
    lost = server.assign(2)
    handles = [deferred, lost.defer()]
    server.lose()
    assert not world.leave(lost)
    world.job_done(lost)
    assert len(handles) == 2


@pytest.mark.parametrize("when", ["before leave", "after leave"])
def test_job_fails_with_a_warning_if_its_handle_is_garbage_collected(when: str) -> None:
    world, server, job = holding()
    deferred = job.defer()
    if when == "before leave":
        del deferred
        gc.collect()
        assert world.leave(job)
    else:
        assert world.leave(job)
        world.sleep(0.5)
        del deferred
        gc.collect()
        assert server.take() == []
        world.sleep(0.6)
    assert server.take() == [WorkFail(b"H:1")]
    assert list(world.engine.notices) == [f"{job!r} fails: its DeferredJob was garbage-collected"]
    finish_left(world, job)
    assert server.take() == [GRAB]


def test_handle_that_is_garbage_collected_after_the_end_is_ignored() -> None:
    world, server, job, deferred = left(max_jobs=2)
    other = server.assign(2)
    handles = [other.defer()]
    assert world.leave(other)
    server.take()
    world.complete(job)
    finish_left(world, job)
    del deferred
    gc.collect()
    world.sleep(5.0)
    assert [event for event in server.take() if isinstance(event, WorkFail)] == []
    assert not world.engine.notices
    assert len(handles) == 1


def test_handles_of_ended_jobs_do_not_pile_up() -> None:
    world, server, job = holding()
    for number in range(2, 10):
        handles = [job.defer()]
        world.complete(job)
        handles.clear()
        gc.collect()
        assert not world.leave(job)
        world.job_done(job)
        job = server.assign(number)
    assert len(world.engine.dropped) == 1


def test_lost_link_finishes_the_jobs_that_were_left() -> None:
    world, server, job, _ = left()
    server.lose()
    assert world.engine.has_jobs()
    finish_left(world, job)
    assert (job.is_lost, world.engine.has_jobs()) == (True, False)
    with pytest.raises(ConnectionError, match="was lost"):
        world.complete(job)


def test_job_done_fails_a_job_that_was_left() -> None:
    world, server, job, _ = left()
    world.job_done(job)
    assert server.take() == [WorkFail(b"H:1"), GRAB]
    assert world.next_job() is None


def test_stop_waits_for_jobs_that_were_left() -> None:
    world, server, job, _ = left()
    world.stop()
    world.sleep(1000.0)
    assert not world.stream.done
    world.complete(job)
    finish_left(world, job)
    assert server.take() == [result(), EchoReq(b"")]
    server.send(EchoRes(b""))
    assert world.is_over()


@pytest.mark.parametrize("is_lost", [False, True])
def test_stop_ends_without_jobs_that_were_left(is_lost: bool) -> None:
    """Jobs end at the timeout of `stop`, or with their link. The caller runs their hooks."""
    world, server, job, _ = left(max_jobs=2)
    other = server.assign(2)
    world.stop(timeout=5.0)
    if is_lost:
        server.lose()
        world.job_done(other)
    else:
        world.sleep(5.1)
    assert not world.stream.done
    finish_left(world, job)
    assert world.is_over()
    assert job.is_lost
    if not is_lost:
        # The callback of the other job returns after the end.
        assert not world.leave(other)
        world.job_done(other)
    world.end_work()


def test_end_of_work_forgets_jobs_that_were_left() -> None:
    world, _, job, _ = left()
    world.release(world.stream)
    assert job.is_lost
    world.work()
    assert world.next_job() is None


def test_job_that_was_left_delays_cant_do() -> None:
    world, server, job, _ = left()
    world.pause(b"f")
    world.sleep(100.0)
    assert server.take() == []
    world.complete(job)
    assert server.take() == [result(), CantDo(b"f")]
    finish_left(world, job)
    assert server.take() == []
