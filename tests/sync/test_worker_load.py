"""Load: job slots, bounded memory for large jobs, and no CPU use of idle workers."""

from __future__ import annotations

import threading
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.wire.packets import (
    CanDo,
    GrabJobUniq,
    JobAssignUniq,
    NoJob,
    WorkComplete,
    WorkData,
)
from tests.support import PATIENCE, eventually, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync import GearmanClient, GearmanWorker, WorkerJob
    from gearman_sync.testing import Peer, ScriptedServer
    from tests.support import Administered

    from .support import Script, Working

    MakeClient = Callable[..., GearmanClient]
    MakeWorker = Callable[..., GearmanWorker]
    StartServer = Callable[..., ScriptedServer]
    StartScript = Callable[..., Script]
    Server = Administered
    Work = Callable[..., Working]

MB = 1_000_000


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
    """The updates of a job arrive in order and reach no other job."""
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


# Large jobs.


@pytest.mark.slow
@pytest.mark.parametrize("max_jobs", [1, 2])
def test_stream_to_a_server_that_reads_slowly(
    start_server: StartServer, work: Work, max_jobs: int
) -> None:
    """Back-pressure blocks the callback instead of buffering 200 MB. No data is lost."""
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
        while settled != len(sent):  # Wait until sending has stalled.
            settled = len(sent)
            blocked.wait(0.2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        measured.set()
    # The count includes data in the kernel's buffers.
    assert len(sent) < 200
    assert peak < 8 * MB
    eventually(lambda: received == 200 * MB)


# Idle workers.


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
