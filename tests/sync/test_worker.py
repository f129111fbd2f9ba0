"""The threads, processes and CPU time of workers."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import PATIENCE

from .test_fork import Child

if TYPE_CHECKING:
    from gearman_sync import GearmanClient, GearmanWorker, WorkerJob
    from tests.support import Gearmand

    from .support import MakeWorker, StartScript, Work


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


IDLE = """
import sys, threading, time
import gearman_sync as gearman

with gearman.JobServer() as server, gearman.GearmanClient([server.address]) as client:
    client.submit_job("later", b"", background=True, run_at=time.time() + 1000)
    for number in range(20):
        worker = gearman.GearmanWorker([server.address], max_jobs=1 + number % 2)
        worker.register_task("task", lambda worker, job: job.data)
        threading.Thread(target=worker.work, daemon=True).start()
    for _ in range(20):
        assert client.submit_job("task", b"ab").result == b"ab"
    with gearman.GearmanAdminClient([server.address]) as admin:
        while max(status.workers for status in admin.get_status()) < 20:
            time.sleep(0.01)
    for line in sys.stdin:
        print(time.process_time(), flush=True)
"""


@pytest.mark.slow
def test_idle_workers_and_idle_server_use_no_cpu(start_script: StartScript) -> None:
    script = start_script(IDLE)
    before = float(script.ask())
    time.sleep(1)
    assert float(script.ask()) - before < 0.2
