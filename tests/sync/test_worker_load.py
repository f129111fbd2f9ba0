"""Many jobs at once, big ones, and none: slots are kept to, memory is bounded, idling is free."""

from __future__ import annotations

import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.wire.events import (
    CanDo,
    GrabJobUniq,
    JobAssignUniq,
    NoJob,
    Noop,
    PreSleep,
    WorkComplete,
    WorkData,
)
from tests.support import PATIENCE, Gearmand, eventually, spawn, wait_for

from .support import Script, Working, wait_for_leader

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync import GearmanClient, GearmanWorker, WorkerJob
    from gearman_sync.testing import Peer, ScriptedServer
    from tests.support import Administered

    MakeClient = Callable[..., GearmanClient]
    MakeWorker = Callable[..., GearmanWorker]
    StartServer = Callable[..., ScriptedServer]
    StartScript = Callable[..., Script]
    Server = Administered
    Work = Callable[..., Working]

MB = 1_000_000


def reverse(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data[::-1]


# Slots.


def test_one_slot_is_the_thread_that_works(
    server: Server, make_client: MakeClient, make_worker: MakeWorker, task: str
) -> None:
    threads: list[threading.Thread] = []

    def function(worker: GearmanWorker, job: WorkerJob) -> None:
        threads.append(threading.current_thread())
        worker.send_job_status(job, 1, 1)
        if len(threads) == 3:
            worker.stop()

    worker = make_worker(server.address, tasks={task: function})
    make_client(server.address).submit_multiple_jobs(
        [{"task": task, "data": b""}] * 3, background=True
    )
    worker.work()
    assert threads == [threading.current_thread()] * 3


@pytest.mark.slow
def test_updates_from_the_pool_stay_apart(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    """Those of one job in order, those of others nowhere else."""
    barrier = threading.Barrier(5)

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        barrier.wait(PATIENCE)
        for number in range(200):
            worker.send_job_data(job, b"%s %d " % (job.data, number) + bytes(number * 20))
        return job.data

    client = make_client(server.address)
    work(server.address, tasks={task: function}, max_jobs=5)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(10)]
    for request in client.submit_multiple_jobs(jobs):
        data = request.job.data
        assert request.result == data
        assert list(request.data_updates) == [
            b"%s %d " % (data, number) + bytes(number * 20) for number in range(200)
        ]


@pytest.mark.slow
@pytest.mark.parametrize("max_jobs", [1, 4])
def test_twenty_clients(
    server: Server, make_client: MakeClient, work: Work, task: str, max_jobs: int
) -> None:
    work(server.address, tasks={task: reverse}, max_jobs=max_jobs)

    def run(thread: int) -> None:
        client = make_client(server.address)
        for number in range(20):
            data = b"%d-%d" % (thread, number)
            assert client.submit_job(task, data).result == data[::-1]

    for call in [spawn(run, thread) for thread in range(20)]:
        call.result(30)


# Big jobs.


@pytest.mark.slow
@pytest.mark.parametrize("max_jobs", [1, 2])
def test_stream_to_a_server_that_reads_slowly(
    start_server: StartServer, work: Work, max_jobs: int
) -> None:
    """The callback is held back, instead of 200 MB being kept; and nothing of them is lost."""
    blocked, measured = threading.Event(), threading.Event()
    received = 0
    sent: list[int] = []

    def script(peer: Peer) -> None:
        nonlocal received
        peer.expect(CanDo)
        peer.expect(GrabJobUniq)
        peer.send(JobAssignUniq(b"H:1", b"task", b"u", b""))
        wait_for(measured)
        while not isinstance(event := peer.receive(), WorkComplete):
            peer.events.clear()
            if isinstance(event, WorkData):
                received += len(event.data)
            elif isinstance(event, GrabJobUniq):
                peer.send(NoJob())
        peer.send_raw(b"")

    payload = bytes(100_000)

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        for number in range(2000):
            sent.append(number)
            worker.send_job_data(job, payload)
        return b"end"

    server = start_server(script, receive_buffer=65536)
    tracemalloc.start()
    try:
        work(server.address, tasks={"task": function}, max_jobs=max_jobs)
        eventually(lambda: sent)
        settled = -1
        while settled != len(sent):  # It stands still.
            settled = len(sent)
            blocked.wait(0.2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        measured.set()
    # What the system's buffers hold is in it too.
    assert len(sent) < 200
    assert peak < 8 * MB
    eventually(lambda: received == 200 * MB)


def test_poll_timeout_of_what_is_sent(start_server: StartServer, work: Work) -> None:
    """It bounds how long a callback is held back; the packet is sent all the same."""
    waited: list[float] = []
    measured = threading.Event()

    def script(peer: Peer) -> None:
        peer.expect(CanDo)
        peer.expect(GrabJobUniq)
        peer.send(JobAssignUniq(b"H:1", b"task", b"u", b""))
        wait_for(measured)
        peer.hold()

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        for _ in range(2):
            before = time.monotonic()
            worker.send_job_data(job, bytes(20 * MB), poll_timeout=0.1)
            waited.append(time.monotonic() - before)
        measured.set()
        return b"end"

    server = start_server(script, receive_buffer=65536)
    work(server.address, tasks={"task": function})
    wait_for(measured)
    assert waited[1] >= 0.1
    eventually(lambda: WorkComplete(b"H:1", b"end") in server.events)
    sizes = [len(event.data) for event in server.events if isinstance(event, WorkData)]
    assert sizes == [20 * MB] * 2


# Doing nothing.


_IDLE = """
import sys, threading, time
import gearman_sync as gearman

host, task = sys.argv[1:]
for number in range(20):
    worker = gearman.GearmanWorker([host], max_jobs=1 + number % 2)
    worker.register_task(task, lambda worker, job: job.data)
    threading.Thread(target=worker.work, daemon=True).start()
for line in sys.stdin:
    print(time.process_time(), flush=True)
"""


@pytest.mark.slow
def test_idle_workers_use_no_cpu(
    server: Server, make_client: MakeClient, start_script: StartScript, task: str
) -> None:
    script = start_script(_IDLE, "{}:{}".format(*server.address), task)
    eventually(lambda: server.counts(task)[2] == 20)
    assert make_client(server.address).submit_job(task, b"ab").result == b"ab"
    before = float(script.ask())
    time.sleep(1)
    assert float(script.ask()) - before < 0.1


@pytest.mark.slow
def test_low_job_behind_one_for_later(
    start_server: StartServer, make_client: MakeClient, gearmand: Gearmand, work: Work, task: str
) -> None:
    """gearmand 1.1 wakes, and has nothing to give, for ever: the worker does not spin."""
    client = make_client(gearmand.address)
    client.submit_job(task, b"later", background=True, run_at=time.time() + 1000)
    client.submit_job(task, b"low", background=True, priority="LOW")
    before = time.process_time()
    working = work(gearmand.address, tasks={task: reverse, f"{task}-other": reverse})
    wait_for_leader(working.worker)
    time.sleep(0.5)
    used = time.process_time() - before
    assert used < 0.2
    # What can be done is done, and the low job at last.
    assert client.submit_job(f"{task}-other", b"ab").result == b"ba"
    assert client.submit_job(task, b"cd").result == b"dc"
    # That of gearmand 1.1 waits behind the other; 2.0 has run it.
    assert gearmand.counts(task)[0] in (1, 2)


@pytest.mark.slow
def test_woken_for_nothing(start_server: StartServer, work: Work) -> None:
    """What it sends where a server wakes it at once, and never has a job, does not pile up."""

    def script(peer: Peer) -> None:
        peer.expect(CanDo)
        while True:
            event = peer.receive()
            if isinstance(event, GrabJobUniq):
                peer.send(NoJob())
            elif isinstance(event, PreSleep):
                peer.send_anyway(Noop())

    server = start_server(script)
    work(server.address, tasks={"task": reverse})

    def grabs() -> int:
        return sum(isinstance(event, GrabJobUniq) for event in server.events)

    eventually(lambda: grabs() > 3)
    before = grabs()
    time.sleep(0.5)
    assert grabs() - before < 20
