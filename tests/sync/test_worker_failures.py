"""Callbacks, servers and worker processes that fail: each job ends once, and the work goes on."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ServerUnavailable
from gearman_sync.testing import Peer, ScriptedServer
from tests.support import PATIENCE, Gearmand, eventually, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync import GearmanClient, GearmanWorker, WorkerJob
    from tests.support import Administered, EmbeddedServer

    from .support import Script, Working

    MakeClient = Callable[..., GearmanClient]
    MakeWorker = Callable[..., GearmanWorker]
    StartServer = Callable[..., ScriptedServer]
    StartScript = Callable[..., Script]
    Server = Administered
    Launch = Callable[[], EmbeddedServer]
    Work = Callable[..., Working]


def reverse(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data[::-1]


# Callbacks that fail.


@pytest.mark.slow
def test_job_that_takes_too_long(
    server: Server, make_client: MakeClient, make_worker: MakeWorker, work: Work, task: str
) -> None:
    """The server gives it to another, whose result counts; the late one does not."""
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
    # It goes on.
    assert client.submit_job(task, b"").result == b"late"
    assert not working.call.done()


# Workers that die.


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


# Servers that die.


_TEN_WORKERS = """
import sys, threading, time
import gearman_sync as gearman

host, task = sys.argv[1:]
barrier = threading.Barrier(10)
for number in range(10):
    worker = gearman.GearmanWorker([host])
    worker.register_task(task, lambda worker, job: barrier.wait(20) and b"" or b"")
    threading.Thread(target=worker.work, daemon=True).start()
for line in sys.stdin:
    print(time.process_time(), flush=True)
"""


@pytest.mark.slow
def test_restart_under_ten_workers(
    launch: Launch, make_client: MakeClient, start_script: StartScript, task: str
) -> None:
    """All are back within their backoff, and none spins meanwhile."""
    server = launch()
    script = start_script(_TEN_WORKERS, "{}:{}".format(*server.address), task)
    eventually(lambda: server.counts(task)[2] == 10)
    server.kill()
    before = float(script.ask())
    time.sleep(0.7)
    used = float(script.ask()) - before
    server.start()
    # Ten at once: each has to be there.
    jobs = [{"task": task, "data": b""}] * 10
    requests = make_client(server.address).submit_multiple_jobs(jobs, poll_timeout=PATIENCE)
    assert all(request.complete for request in requests)
    assert used < 0.3


def test_server_that_only_accepts(start_server: StartServer, make_worker: MakeWorker) -> None:
    server = start_server(lambda peer: None)
    with pytest.raises(ServerUnavailable):
        make_worker(server.address, tasks={"task": reverse}).work()


@pytest.mark.slow
def test_server_that_does_not_answer(
    start_server: StartServer, make_client: MakeClient, gearmand: Gearmand, work: Work, task: str
) -> None:
    """It does not keep the slot, and does not hold up stopping for long."""
    silent = start_server(Peer.hold)
    working = work(silent.address, gearmand.address, tasks={task: reverse})
    client = make_client(gearmand.address)
    for _ in range(3):
        assert client.submit_job(task, b"ab", poll_timeout=PATIENCE).result == b"ba"
    working.worker.stop()
    working.end()
