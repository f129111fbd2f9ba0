"""One client in many threads: results are not mixed up, and no thread spins or blocks others."""

from __future__ import annotations

import contextlib
import gc
import random
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidClientState, ServerUnavailable
from gearman_proto.jobs.submitting import make_requests
from gearman_sync import GearmanClient
from gearman_sync._leader import Bell, Lock
from gearman_sync.testing import Gate, ScriptedJob, ScriptedWorker, echo, reverse
from tests.support import Gearmand, black_hole, eventually, spawn, wait_for

from .support import wait_for_followers, wait_for_leader

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., ScriptedWorker]
    MakeClient = Callable[..., GearmanClient]


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
        call.result(30)


@pytest.mark.slow
def test_idle_threads_do_not_wake_up(
    gearmand: Gearmand,
    client: GearmanClient,
    task: str,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = [spawn(client.submit_job, task, b"%d" % number) for number in range(3)]
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
    start_worker(gearmand.address, {task: echo})
    assert {call.result(20).result for call in calls} == {b"0", b"1", b"2"}


def test_request_that_another_thread_submits_with_another_client_is_refused(
    make_client: MakeClient, gearmand: Gearmand, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: reverse})
    first, second = make_client(gearmand.address), make_client(gearmand.address)
    (request,) = make_requests([{"task": task, "data": b"data"}])
    refused: list[BaseException | None] = []

    class Chance(random.SystemRandom):
        """A hook that lets the second thread run during the first thread's submit."""

        def randbytes(self, n: int) -> bytes:
            if not refused:
                call = spawn(second.submit_multiple_requests, [request], poll_timeout=10)
                refused.append(call.exception(20))
            return super().randbytes(n)

    first._gm_driver.engine._rng = Chance()
    first.submit_multiple_requests([request])
    assert isinstance(refused[0], InvalidClientState)
    assert request.result == b"atad"


def test_leader_ends_first_and_others_go_on(
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
    assert leader.result(20).result == b"leader"
    wait_for_followers(client, 2)
    assert not any(follower.done() for follower in followers)
    gates[b"follower"].open.set()
    for follower in followers:
        assert follower.result(20).result == b"follower"


def test_leader_times_out_and_others_go_on(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    leader = spawn(client.submit_job, task, b"1", poll_timeout=2.0)
    wait_for_leader(client)
    follower = spawn(client.submit_job, task, b"2")
    wait_for_followers(client, 1)
    assert leader.result(20).timed_out
    start_worker(gearmand.address, {task: echo})
    assert follower.result(20).result == b"2"


def test_follower_with_an_earlier_deadline(client: GearmanClient, task: str) -> None:
    request = client.submit_job(task, b"1", wait_until_complete=False)
    leader = spawn(client.wait_until_jobs_completed, [request], poll_timeout=30)
    wait_for_leader(client)
    # The follower has to wake the leader, which would sleep past this deadline.
    follower = spawn(client.submit_job, task, b"2", poll_timeout=0.05)
    assert follower.result(10).timed_out
    assert not leader.done()
    client.shutdown()
    assert leader.result(10)[0].state == gearman.JOB_UNKNOWN


def test_submitting_while_another_thread_waits(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(gearmand.address, {f"{task}-slow": gate})
    start_worker(gearmand.address, {task: echo})
    waiting = spawn(client.submit_job, f"{task}-slow", b"slow")
    wait_for(gate.begun)
    for number in range(20):
        assert client.submit_job(task, b"%d" % number).result == b"%d" % number
    assert not waiting.done()
    gate.open.set()
    assert waiting.result(20).result == b"slow"


def test_large_write_while_another_thread_waits(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: echo})
    gate = Gate()
    start_worker(gearmand.address, {f"{task}-slow": gate})
    waiting = spawn(client.submit_job, f"{task}-slow", b"slow")
    wait_for(gate.begun)
    # The leader has to write the rest of the submitting thread's packet.
    data = bytes(8_000_000)
    assert client.submit_job(task, data).result == data
    gate.open.set()
    assert waiting.result(20).result == b"slow"


def test_black_hole_delays_no_other_server(
    gearmand: Gearmand, make_client: MakeClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: echo})
    with black_hole() as address:
        client = make_client(gearmand.address, address, connect_timeout=20)
        good, bad = client.connection_list
        client.establish_connection(good)
        connecting = spawn(client.establish_connection, bad)
        wait_for_leader(client)
        # The jobs are spread over the servers, so some wait for the black hole.
        jobs = [{"task": task, "data": b"data"}] * 4
        requests = client.submit_multiple_jobs(jobs, poll_timeout=0)
        ended = client.as_completed(requests)
        assert [next(ended).result for _ in range(2)] == [b"data"] * 2
        assert not connecting.done()
        client.shutdown()
        with pytest.raises(gearman.errors.ConnectionError):
            connecting.result(20)
        assert sum(request.state == gearman.JOB_UNKNOWN for request in requests) == 2


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="the system has no pthread_kill")
@pytest.mark.usefixtures("interruptible")
def test_keyboard_interrupt_in_the_leader(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(gearmand.address, {task: gate})
    main = threading.get_ident()

    def interrupt() -> bytes | None:
        wait_for_leader(client)
        follower = spawn(client.submit_job, task, b"follower")
        wait_for_followers(client, 1)
        signal.pthread_kill(main, signal.SIGINT)
        interrupted.wait(20)
        # Another thread has taken over.
        wait_for_leader(client)
        gate.open.set()
        result: bytes | None = follower.result(20).result
        return result

    interrupted = threading.Event()
    call = spawn(interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.submit_job(task, b"leader")
    interrupted.set()
    assert call.result(20) == b"follower"
    assert client.submit_job(task, b"after").result == b"after"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="the system has no pthread_kill")
# An interrupt may hit after a socket was created and before it was stored.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_keyboard_interrupts_anywhere(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    """An interrupt inside the engine closes the connection, but never mixes up replies."""
    start_worker(gearmand.address, {task: reverse})
    main = threading.get_ident()
    stop = threading.Event()
    chance = random.Random(1)

    def submit(who: str) -> int:
        done = 0
        while not stop.is_set():
            data = f"{who} {done}".encode()
            try:
                request = client.submit_job(task, data, poll_timeout=20)
            except (gearman.errors.ConnectionError, gearman.errors.ExceededConnectionAttempts):
                continue
            assert not request.timed_out
            if request.complete:
                assert request.result == data[::-1]
                done += 1
        return done

    def interrupt() -> None:
        for _ in range(300):
            time.sleep(chance.random() * 0.004)
            signal.pthread_kill(main, signal.SIGINT)

    armed: list[bool] = []

    def handler(*args: object) -> None:
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        others = [spawn(submit, name) for name in ("one", "two")]
        storm = spawn(interrupt)
        interrupted = 0
        while not storm.done():
            data = b"main %d" % interrupted
            try:
                armed.append(True)
                request = client.submit_job(task, data, poll_timeout=20)
                armed.clear()
            except KeyboardInterrupt:
                interrupted += 1
            except (gearman.errors.ConnectionError, gearman.errors.ExceededConnectionAttempts):
                armed.clear()
            else:
                assert request.result == (data[::-1] if request.complete else None)
        assert interrupted
    finally:
        signal.signal(signal.SIGINT, before)
    stop.set()
    for call in others:
        assert call.result(30)
    assert client.submit_job(task, b"after").result == b"retfa"


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="the system has no pthread_kill")
@pytest.mark.usefixtures("interruptible")
def test_keyboard_interrupt_in_a_follower(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(gearmand.address, {task: gate})
    leader = spawn(client.submit_job, task, b"leader")
    wait_for_leader(client)
    main = threading.get_ident()

    def interrupt() -> None:
        wait_for_followers(client, 1)
        signal.pthread_kill(main, signal.SIGINT)

    call = spawn(interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.submit_job(task, b"follower")
    call.result(20)
    gate.open.set()
    assert leader.result(20).result == b"leader"
    assert client.submit_job(task, b"after").result == b"after"


def test_interrupt_where_a_follower_is_woken(
    gearmand: Gearmand,
    client: GearmanClient,
    task: str,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine considers the follower woken, so the driver has to wake it again."""
    gate = Gate()
    start_worker(gearmand.address, {task: gate})
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
        follower = spawn(client.submit_job, task, b"follower")
        wait_for_followers(client, 1)
        armed.append(True)
        gate.open.set()
        with contextlib.suppress(gearman.errors.ConnectionError):
            follower.result(10)

    call = spawn(follow)
    with pytest.raises(KeyboardInterrupt):
        client.submit_job(f"{task}-nobody", b"leader")
    call.result(20)
    assert client.submit_job(task, b"after").result == b"after"


@pytest.mark.slow
def test_shutdown_ends_waits(gearmand: Gearmand, make_client: MakeClient, task: str) -> None:
    # The race is narrow, so try several times.
    for _ in range(20):
        client = make_client(gearmand.address)
        submitted = [client.submit_job(task, b"", wait_until_complete=False) for _ in range(4)]
        calls = [spawn(client.wait_until_jobs_completed, [request]) for request in submitted]
        calls.append(spawn(list, client.as_completed(submitted)))
        wait_for_followers(client, len(calls) - 1)
        client.shutdown()
        for call in calls:
            requests = call.result(10)
            assert {request.state for request in requests} == {gearman.JOB_UNKNOWN}
            assert not any(request.timed_out for request in requests)


def test_shutdown_ends_a_wait_without_requests(gearmand: Gearmand, make_client: MakeClient) -> None:
    for _ in range(20):
        client = make_client(gearmand.address)
        call = spawn(client.poll_connections_until_stopped, [], lambda activity: True)
        wait_for_leader(client)
        client.shutdown()
        assert call.result(10) is False


def test_shutdown_while_submits_are_not_acknowledged(make_client: MakeClient) -> None:
    with black_hole() as address:
        client = make_client(address)
        calls = [spawn(client.submit_job, "task", b"") for _ in range(3)]
        wait_for_followers(client, 2)
        client.shutdown()
        for call in calls:
            with pytest.raises(ServerUnavailable, match="shut down"):
                call.result(10)


def test_shutdown_while_threads_submit(
    gearmand: Gearmand, make_client: MakeClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: echo})
    client = make_client(gearmand.address)
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
            call.result(10)


def test_updates_in_two_threads(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    barrier = threading.Barrier(2)

    def function(job: ScriptedJob) -> bytes:
        barrier.wait(20)
        for number in range(50):
            job.send_data(job.data + b"%d" % number)
        return job.data

    for _ in range(2):
        start_worker(gearmand.address, {task: function})

    def run(name: bytes) -> list[bytes]:
        request = client.submit_job(task, name, wait_until_complete=False)
        return [update.data for update in client.updates(request) if hasattr(update, "data")]

    for name, call in [(name, spawn(run, name)) for name in (b"a", b"b")]:
        assert call.result(20) == [name + b"%d" % number for number in range(50)]


def test_garbage_collector_ends_a_stream_under_the_lock(
    gearmand: Gearmand,
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def collect() -> float:
        # The engine reads the clock while it handles a reply.
        gc.collect()
        return 0.0

    monkeypatch.setattr(time, "time", collect)
    client = make_client(gearmand.address)
    jobs = [{"task": task, "data": b"data"}] * 2
    requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
    start_worker(gearmand.address, {task: echo})
    gc.disable()
    try:
        stream = client.as_completed(requests)
        assert next(stream).result == b"data"
        cycle: list[object] = [stream]
        cycle.append(cycle)
        del stream, cycle
        client.get_job_status(requests[0])
    finally:
        gc.enable()
    client.wait_until_jobs_completed(requests)
    assert client.submit_job(task, b"after").result == b"after"
