"""Callbacks that time out, and killed workers: another worker runs the job."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync import GearmanClient, GearmanWorker, WorkerJob
    from tests.support import Administered

    from .support import Script, Working

    MakeClient = Callable[..., GearmanClient]
    MakeWorker = Callable[..., GearmanWorker]
    StartScript = Callable[..., Script]
    Server = Administered
    Work = Callable[..., Working]


def reverse(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data[::-1]


@pytest.mark.slow
def test_job_that_takes_too_long(
    server: Server, make_client: MakeClient, make_worker: MakeWorker, work: Work, task: str
) -> None:
    """The server reassigns the job. The second worker's result counts, the late one is dropped."""
    slow, over = threading.Event(), threading.Event()

    def late(worker: GearmanWorker, job: WorkerJob) -> Any:
        slow.set()
        wait_for(over)
        return b"late"

    client = make_client(server.address)
    first = make_worker(server.address)
    first.register_task(task, late, timeout=1.0)
    request = client.submit_job(task, b"", wait_until_complete=False)
    working = work(first)
    wait_for(slow)
    second = work(server.address, tasks={task: lambda worker, job: b"in time"})
    client.wait_until_jobs_completed([request])
    assert request.result == b"in time"
    second.worker.stop()
    second.end()
    over.set()
    # The slow worker continues to work.
    assert client.submit_job(task, b"").result == b"late"
    assert not working.call.done()


# Killed workers.


_WORKER = """
import sys, time
import gearman_sync as gearman

def function(worker, job):
    print("begun", flush=True)
    time.sleep(60)

host, task = sys.argv[1:]
worker = gearman.GearmanWorker([host])
worker.register_task(task, function)
worker.work()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no SIGKILL")
def test_killed_in_the_middle_of_a_job(
    server: Server, make_client: MakeClient, work: Work, start_script: StartScript, task: str
) -> None:
    client = make_client(server.address)
    request = client.submit_job(task, b"ab", wait_until_complete=False)
    script = start_script(_WORKER, "{}:{}".format(*server.address), task)
    assert script.line() == "begun"
    script.kill()
    work(server.address, tasks={task: reverse})
    client.wait_until_jobs_completed([request])
    assert request.result == b"ba"
