"""One client in many threads: results are not mixed up, and no thread spins or blocks others."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidClientState, ServerUnavailable
from gearman_sync import GearmanClient
from gearman_sync._leader import Bell, Lock
from gearman_sync.testing import Gate, reverse
from tests.support import PATIENCE, Gearmand, eventually, spawn

from .support import wait_for_followers, wait_for_leader

if TYPE_CHECKING:
    from .support import MakeClient, StartWorker


@pytest.mark.slow
def test_twenty_threads(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    for _ in range(2):
        start_worker(gearmand.address, {task: reverse})

    def run(thread: int) -> None:
        # Single jobs, several jobs in one call, and jobs in order of completion.
        for number in range(100):
            data = b"%d-%d" % (thread, number)
            assert client.submit_job(task, data).result == data[::-1]
        data_list = [b"%d-%d" % (thread, number) for number in range(100, 150)]
        jobs = [{"task": task, "data": data} for data in data_list]
        requests = client.submit_multiple_jobs(jobs)
        assert [request.result for request in requests] == [data[::-1] for data in data_list]
        requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
        results = {request.result for request in client.as_completed(requests)}
        assert results == {data[::-1] for data in data_list}

    for call in [spawn(run, thread) for thread in range(20)]:
        call.result(PATIENCE)


@pytest.mark.slow
def test_idle_threads_do_not_wake_up(
    client: GearmanClient, task: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [spawn(client.submit_job, f"{task}-slow", b"%d" % number) for number in range(3)]
    wait_for_followers(client, 2)
    (link,) = client._gm_driver.engine.pool.links()
    eventually(lambda: len(link.jobs) == 3, "the last JOB_CREATED")
    wait_for_leader(client)
    sleeps: list[object] = []
    sleep = Lock.sleep

    def counted(lock: Lock, *args: object) -> object:
        if lock is client._gm_driver._lock:
            sleeps.append(args)
        return sleep(lock, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Lock, "sleep", counted)
        threading.Event().wait(2.5)
    assert not sleeps
    gate.open.set()
    assert {call.result(PATIENCE).result for call in calls} == {b"0", b"1", b"2"}


def test_leader_that_is_done_hands_over(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gates = {b"leader": Gate(), b"follower": Gate()}
    for _ in gates:
        start_worker(gearmand.address, {task: lambda job: gates[job.data](job)})
    leader = spawn(client.submit_job, task, b"leader")
    wait_for_leader(client)
    followers = [spawn(client.submit_job, task, b"follower", unique="u") for _ in range(3)]
    wait_for_followers(client, 3)
    gates[b"leader"].open.set()
    assert leader.result(PATIENCE).result == b"leader"
    wait_for_followers(client, 2)
    assert not any(follower.done() for follower in followers)
    gates[b"follower"].open.set()
    assert {each.result(PATIENCE).result for each in followers} == {b"follower"}


def test_follower_with_an_earlier_deadline_wakes_the_leader(
    gearmand: Gearmand, make_client: MakeClient, task: str
) -> None:
    client = make_client(gearmand.address, heartbeat=None)
    requests = [client.submit_job(task, b"", wait_until_complete=False) for _ in range(2)]
    leader = spawn(client.wait_until_jobs_completed, requests)
    wait_for_leader(client)
    # No data arrives, which would wake the leader too.
    follower = spawn(client.wait_until_jobs_completed, requests[:1], poll_timeout=0.05)
    assert follower.result(PATIENCE)[0].timed_out
    assert not leader.done()
    client.shutdown()
    assert leader.result(PATIENCE) == requests


def test_submits_while_another_thread_waits(client: GearmanClient, task: str, gate: Gate) -> None:
    """The leader has to write the rest of the submitting thread's large packet."""
    waiting = spawn(client.submit_job, f"{task}-slow", b"slow")
    wait_for_leader(client)
    for data in (b"small", bytes(8_000_000)):
        assert client.submit_job(task, data).result == data
    assert not waiting.done()
    gate.open.set()
    assert waiting.result(PATIENCE).result == b"slow"


# Interrupts.


def test_interrupt_where_a_follower_is_woken(
    client: GearmanClient, task: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine considers the follower woken, so the driver has to wake it again."""
    main = threading.get_ident()
    armed: list[bool] = []
    ring = Bell.ring

    def interrupted(bell: Bell) -> None:
        if armed and threading.get_ident() == main:
            armed.clear()
            raise KeyboardInterrupt
        ring(bell)

    monkeypatch.setattr(Bell, "ring", interrupted)

    def follow() -> None:
        wait_for_leader(client)
        follower = spawn(client.submit_job, f"{task}-slow", b"follower")
        wait_for_followers(client, 1)
        armed.append(True)
        gate.open.set()
        with contextlib.suppress(gearman.errors.ConnectionError):
            follower.result(PATIENCE)

    call = spawn(follow)
    with pytest.raises(KeyboardInterrupt):
        client.submit_job(f"{task}-nobody", b"leader")
    call.result(PATIENCE)
    assert client.submit_job(task, b"after").result == b"after"


# Ends.


def test_shutdown_while_threads_submit(client: GearmanClient, task: str, gate: Gate) -> None:
    count = [0] * 5

    def run(thread: int) -> None:
        while True:
            request = client.submit_job(task, b"%d" % thread)
            if request.state == gearman.JOB_COMPLETE:
                count[thread] += 1

    calls = [spawn(run, thread) for thread in range(5)]
    eventually(lambda: all(count))
    client.shutdown()
    for call in calls:
        with pytest.raises((InvalidClientState, ServerUnavailable)):
            call.result(PATIENCE)
