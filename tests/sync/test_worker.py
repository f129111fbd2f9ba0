"""The threads, processes, memory and CPU time of workers."""

from __future__ import annotations

import os
import signal
import sys
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
from gearman_sync import GearmanClient, GearmanWorker, WorkerJob
from tests.support import PATIENCE, Gearmand, eventually, wait_for

from .test_fork import Child

if TYPE_CHECKING:
    from gearman_sync.testing import Peer

    from .support import MakeWorker, StartScript, StartServer, Work

MB = 1_000_000


def test_one_slot_is_the_thread_that_works(
    gearmand: Gearmand, client: GearmanClient, make_worker: MakeWorker, task: str
) -> None:
    threads: list[threading.Thread] = []

    def function(worker: GearmanWorker, job: WorkerJob) -> None:
        threads.append(threading.current_thread())
        worker.send_job_status(job, 1, 1)
        if len(threads) == 3:
            worker.stop()

    worker = make_worker(gearmand.address, tasks={task: function})
    client.submit_multiple_jobs([{"task": task, "data": b""}] * 3, background=True)
    worker.work()
    assert threads == [threading.current_thread()] * 3


@pytest.mark.slow
def test_updates_from_the_pool_stay_apart(
    gearmand: Gearmand, client: GearmanClient, work: Work, task: str
) -> None:
    """The updates of a job arrive in order and reach no other job."""
    barrier = threading.Barrier(5)

    def updates(data: bytes) -> list[bytes]:
        return [b"%s %d " % (data, number) + bytes(number * 20) for number in range(200)]

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        barrier.wait(PATIENCE)
        for update in updates(job.data):
            worker.send_job_data(job, update)
        return job.data

    work(gearmand.address, tasks={task: function}, max_jobs=5)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(10)]
    for request in client.submit_multiple_jobs(jobs):
        assert request.result == request.job.data
        assert list(request.data_updates) == updates(request.job.data)


# Forks.


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    ("place", "how", "status"),
    [("work", "returns", 1), ("pool", "raises", 1), ("hook", "exits", 7)],
)
def test_forked_child_ends_where_its_callback_does(
    gearmand: Gearmand,
    client: GearmanClient,
    work: Work,
    task: str,
    place: str,
    how: str,
    status: int,
) -> None:
    children: list[int] = []

    def fork() -> bool:
        """Fork, and return whether this process is the child."""
        if (child := os.fork()) != 0:
            children.append(child)
            return False
        # If it goes on, it is not for ever.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        if how == "raises":
            raise ZeroDivisionError("in the child")
        if how == "exits":
            sys.exit(7)
        return True

    class Hooked(GearmanWorker):
        def on_job_execute(self, current_job: WorkerJob) -> bool:
            if place == "hook" and fork():
                return True
            return super().on_job_execute(current_job)

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        if place != "hook" and fork():
            return b"of the child"
        worker.send_job_status(job, 1, 1)
        return job.data

    max_jobs = 2 if place == "pool" else 1
    work(gearmand.address, tasks={task: function}, kind=Hooked, max_jobs=max_jobs)
    for number in range(2):
        assert client.submit_job(task, b"%d" % number).result == b"%d" % number
    for child in children:
        _, ended = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(ended) == status
    assert len(children) == 2


def test_work_in_a_fork(
    gearmand: Gearmand, client: GearmanClient, make_worker: MakeWorker, task: str
) -> None:
    """The child inherits the registered tasks and the client id."""
    jobs = [{"task": task, "data": b""}] * 2
    requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
    worker = make_worker(gearmand.address)

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        worker.stop()
        return f"{worker.worker_client_id} {os.getpid()}".encode()

    worker.register_task(task, function, timeout=20)
    worker.set_client_id(task)

    def in_child() -> int:
        worker.work()
        worker.shutdown()
        return os.getpid()

    child = Child(in_child).result()
    worker.work()
    client.wait_until_jobs_completed(requests)
    results = [request.result.decode() for request in requests]
    assert results == [f"{task} {child}", f"{task} {os.getpid()}"]


# Memory and CPU time.


@pytest.mark.slow
@pytest.mark.parametrize("max_jobs", [1, 2])
def test_stream_to_a_server_that_reads_slowly_blocks_the_callback(
    start_server: StartServer, work: Work, max_jobs: int
) -> None:
    """Back-pressure blocks the callback instead of buffering 200 MB. No data is lost."""
    measured = threading.Event()
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

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        for number in range(2000):
            sent.append(number)
            worker.send_job_data(job, bytes(100_000))
        return b"end"

    server = start_server(script, receive_buffer=65536)
    tracemalloc.start()
    try:
        work(server.address, tasks={"task": function}, max_jobs=max_jobs)
        eventually(lambda: sent)
        settled = -1
        while settled != len(sent):  # Wait until sending has stalled.
            settled = len(sent)
            time.sleep(0.2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        measured.set()
    # The count includes data in the kernel's buffers.
    assert len(sent) < 200
    assert peak < 8 * MB
    eventually(lambda: received == 200 * MB)


IDLE = """
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
    gearmand: Gearmand, client: GearmanClient, start_script: StartScript, task: str
) -> None:
    script = start_script(IDLE, "{}:{}".format(*gearmand.address), task)
    eventually(lambda: gearmand.counts(task)[2] == 20)
    assert client.submit_job(task, b"ab").result == b"ab"
    before = float(script.ask())
    time.sleep(1)
    assert float(script.ask()) - before < 0.1
