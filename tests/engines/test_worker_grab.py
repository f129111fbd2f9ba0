"""Conversations of a worker that grabs jobs for calls of `grab`, without `work`."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ConnectionError, InvalidWorkerState, ServerUnavailable
from gearman_proto.wire.packets import (
    CanDo,
    EchoReq,
    EchoRes,
    JobAssignUniq,
    NoJob,
    Noop,
    PreSleep,
    WorkComplete,
    WorkFail,
)

from .harness import wakes
from .worker_harness import GRAB, Peer, World, data, result

if TYPE_CHECKING:
    from gearman_proto.engines.worker.engine import GrabWait
    from gearman_proto.jobs.job import WorkerJob

ECHO = EchoReq(b"")


def job(number: int = 1) -> JobAssignUniq:
    return JobAssignUniq(b"H:%d" % number, b"f", b"", b"in")


def pulling(**options: Any) -> tuple[World, Peer, GrabWait]:
    """Return a World with a waiting call, whose only server has read a grab."""
    world = World(**options)
    wait = world.grab()
    server = world.serve()
    assert server.take() == [CanDo(b"f"), GRAB]
    return world, server, wait


def holding(**options: Any) -> tuple[World, Peer, WorkerJob]:
    """Return a World whose call of `grab` has returned a job."""
    world, server, wait = pulling(**options)
    server.send(job())
    held = world.grabbed(wait)
    assert held is not None
    return world, server, held


def test_calls_ask_for_one_job_each() -> None:
    world = World()
    waits = [world.grab() for _ in range(2)]
    assert world.engine.is_pulling
    assert not world.engine.is_idle
    server = world.serve()
    assert server.take() == [CanDo(b"f"), GRAB]
    assert server.says(job(1)) == [GRAB]
    assert [wait.done for wait in waits] == [True, False]
    assert wakes(waits[0]) == 1
    one = world.grabbed(waits[0])
    assert server.says(NoJob()) == [PreSleep()]
    assert server.says(Noop()) == [GRAB]
    server.send(job(2))
    two = world.grabbed(waits[1])
    assert one is not None
    assert two is not None
    # Nothing is asked while no call waits, not even after a NOOP.
    world.complete(two)
    world.sleep(1000.0)
    assert server.take() == [result(2)]
    again = world.grab(timeout=5.0)
    assert server.take() == [GRAB]
    assert server.says(NoJob()) == [PreSleep()]
    assert not again.done
    world.sleep(5.1)
    assert world.grabbed(again) is None
    assert server.says(Noop()) == []
    world.complete(one)
    assert server.take() == [result(1)]
    assert not world.engine.has_jobs()
    with pytest.raises(InvalidWorkerState, match="has ended"):
        world.complete(one)


def test_call_at_its_deadline_waits_for_the_answer() -> None:
    world, server, held = holding()
    world.complete(held)
    for answer in (job(2), NoJob()):
        wait = world.grab(timeout=0.0)
        assert server.take()[-1:] == [GRAB]
        world.sleep(0.5)
        assert not wait.done
        server.send(answer)
        assert (world.grabbed(wait) is None) is isinstance(answer, NoJob)
    # The server has no job, so the call has nothing to wait for.
    wait = world.grab(timeout=0.0)
    world.sleep(0.0)
    assert world.grabbed(wait) is None
    assert server.take() == [PreSleep()]


def test_call_at_its_deadline_does_not_wait_for_the_grabs_of_other_calls() -> None:
    world = World(2)
    wait, other = world.grab(timeout=1.0), world.grab()
    one, two = world.serve_all()
    world.sleep(0.9)
    assert one.says(NoJob()) == [PreSleep()]
    world.sleep(0.05)
    assert one.says(Noop()) == [GRAB]
    world.sleep(0.9)
    assert two.says(NoJob()) == [PreSleep()]
    assert two.says(Noop()) == [GRAB]
    assert not wait.done
    world.sleep(0.2)
    assert world.grabbed(wait) is None
    assert not other.done


def test_job_of_a_late_answer_goes_to_the_next_call() -> None:
    world, server, held = holding()
    wait = world.grab(timeout=0.0)
    world.sleep(1.1)
    assert world.grabbed(wait) is None
    server.send(job(2))
    server.take()
    later = world.grabbed(world.grab())
    assert later is not None
    assert later is not held
    assert server.take() == []


def test_cancelled_call_passes_its_job_on() -> None:
    world, server, wait = pulling()
    server.send(job())
    assert wait.done
    world.release(wait)
    later = world.grab()
    assert later.done
    assert world.grabbed(later) is not None
    assert server.take() == []
    # A job whose connection was lost meanwhile belongs to its server.
    again = world.grab()
    assert server.take() == [GRAB]
    server.send(job(2))
    server.lose()
    world.release(again)
    assert not world.grab().done


def test_call_that_outlasts_its_connections_gives_nothing_to_work() -> None:
    world, server, wait = pulling()
    server.send(job())
    world.stop(timeout=1.0)
    world.sleep(1.1)
    assert not world.engine.is_pulling
    world.work()
    assert world.is_over()
    world.end_work()
    world.work()
    world.release(wait)
    assert world.next_job() is None
    assert not world.engine.has_jobs()


def test_lost_link_loses_the_jobs() -> None:
    world, server, held = holding()
    waiting = world.grab()
    server.lose()
    assert not world.engine.has_jobs()
    with pytest.raises(ConnectionError, match="was lost"):
        world.complete(held)
    world.sleep(1.0)
    server = world.serve()
    assert server.take() == [CanDo(b"f"), GRAB]
    server.send(job())
    assert waiting.done


@pytest.mark.parametrize("servers", [0, 2])
def test_calls_fail_without_a_server(servers: int) -> None:
    world = World(servers)
    wait = world.engine.grab(world.now, lambda: None)
    world.act()
    for peer in world.alive():
        peer.refuse()
    with pytest.raises(ServerUnavailable):
        wait.raise_error()
    assert not world.engine.is_pulling
    if servers:
        # The next call tries again.
        world.grab()
        world.serve("s0")


def test_calls_fail_after_an_outage() -> None:
    world, server, wait = pulling(max_outage=5.0)
    server.send(NoJob())
    server.lose()
    for _ in range(10):
        world.sleep(1.0)
        for peer in world.alive():
            peer.refuse()
    with pytest.raises(ServerUnavailable):
        world.grabbed(wait)


def test_refused_calls() -> None:
    world = World()
    world.work()
    with pytest.raises(InvalidWorkerState, match=r"work\(\) is running"):
        world.grab()
    world.end_work()
    wait = world.grab()
    with pytest.raises(InvalidWorkerState, match=r"before work\(\)"):
        world.work()
    world.close()
    assert world.grabbed(wait) is None
    with pytest.raises(InvalidWorkerState, match="shut down"):
        world.grab()


def test_stop_before_a_call() -> None:
    world = World()
    world.stop()
    for _ in range(2):
        assert world.grabbed(world.grab()) is None
    world.work()
    assert world.is_over()


def test_stop_ends_calls_when_results_are_confirmed() -> None:
    world, server, held = holding()
    waiting = world.grab()
    assert server.take() == [GRAB]
    world.stop()
    assert not waiting.done  # The answer could be a job.
    server.send(NoJob())
    assert world.grabbed(waiting) is None
    assert world.grabbed(world.grab()) is None
    world.complete(held)
    assert server.take() == [result(), ECHO]
    last = world.grab()
    assert not last.done
    server.send(EchoRes(b""))
    assert world.grabbed(last) is None
    assert world.engine.is_idle
    assert not world.engine.pool.links()
    assert world.engine.next_deadline() is None


def test_call_of_a_stopping_worker_ends_at_its_deadline() -> None:
    """The server never confirms the result, which takes the worker half a minute to notice."""
    world, server, held = holding()
    world.stop()
    world.complete(held)
    assert server.take() == [result(), ECHO]
    wait = world.grab(timeout=5.0)
    world.sleep(4.0)
    assert not wait.done
    world.sleep(1.1)
    assert world.grabbed(wait) is None
    assert not server.closed


@pytest.mark.parametrize("waits", [False, True])
def test_job_that_arrives_after_stop(waits: bool) -> None:
    """Give it to a waiting call, or back to the server."""
    world, server, wait = pulling()
    if not waits:
        world.release(wait)
    world.stop()
    server.send(job())
    if not waits:
        assert server.closed
        assert not world.engine.is_pulling
        return
    held = world.grabbed(wait)
    assert held is not None
    assert not server.closed
    world.complete(held)
    assert server.take() == [result(), ECHO]


def test_stop_gives_back_a_job_that_was_not_taken() -> None:
    world, server, wait = pulling()
    server.send(job())
    world.stop(timeout=5.0)
    assert not server.closed
    world.release(wait)
    assert server.closed
    assert server.take() == []
    world.stop()
    assert world.grabbed(world.grab()) is None


def test_stop_with_a_timeout_gives_jobs_back() -> None:
    world, server, held = holding()
    world.stop(timeout=5.0)
    world.sleep(4.0)
    assert not server.closed
    world.sleep(1.1)
    assert server.closed
    assert held.is_lost
    assert not world.engine.has_jobs()


def test_grabbed_job_fails_if_its_handle_is_garbage_collected() -> None:
    world, server, held = holding()
    deferred = held.defer()
    world.send(held, data(1))
    world.sleep(2.0)
    assert server.take() == [data(1)]
    del deferred
    gc.collect()
    world.sleep(1.1)
    assert server.take() == [WorkFail(b"H:1")]
    assert not world.engine.has_jobs()


def test_call_of_a_stopping_worker_gets_a_job_after_a_handle_was_garbage_collected() -> None:
    world, server, held = holding()
    deferred = held.defer()
    wait = world.grab()
    server.take()
    world.stop()
    del deferred
    gc.collect()
    assert server.says(job(2)) == []
    second = world.grabbed(wait)
    assert second is not None
    world.sleep(1.1)
    assert server.take() == [WorkFail(b"H:1")]
    world.complete(second)
    assert server.take() == [result(2), ECHO]


def test_paused_worker_grabs_nothing() -> None:
    world = World()
    world.pause()
    wait = world.grab(timeout=10.0)
    server = world.serve()
    assert server.take() == [CanDo(b"f")]
    world.resume()
    assert server.says(job()) == [GRAB]
    held = world.grabbed(wait)
    assert held is not None
    world.send(held, WorkComplete(b"H:1", b""))
