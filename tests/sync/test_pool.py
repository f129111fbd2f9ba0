"""The threads of a worker with several slots."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import GearmanClient, GearmanWorker, JobServer
from gearman_sync._threads import Pool
from tests.support import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from .support import Script

    StartScript = Callable[..., Script]


def end(pool: Pool) -> None:
    pool.is_over = True
    pool.jobs.put(None)


def test_pool_starts_at_most_its_number_of_threads() -> None:
    all_busy, go_on = threading.Barrier(4), threading.Event()
    names: list[str] = []

    def work(job: int) -> None:
        names.append(threading.current_thread().name)
        if job < 3:
            all_busy.wait(PATIENCE)
            go_on.wait(PATIENCE)

    pool = Pool(3, work)
    for job in range(4):
        pool.do(job)
    all_busy.wait(PATIENCE)
    assert len(names) == 3
    assert len(set(names)) == 3
    assert all(name.startswith("gearman-job_") for name in names)
    go_on.set()
    eventually(lambda: len(names) == 4, "the fourth job")
    end(pool)


def test_jobs_not_started_are_dropped() -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def work(job: int) -> None:
        begun.set()
        go_on.wait(PATIENCE)
        done.append(job)

    pool = Pool(1, work)
    pool.do(1)
    pool.do(2)
    assert begun.wait(PATIENCE)
    end(pool)
    go_on.set()
    eventually(
        lambda: not any(thread.name.startswith("gearman-job_") for thread in threading.enumerate()),
        "the end of the thread",
    )
    assert done == [1]


def test_job_runs_in_the_caller_if_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that could not start another one runs the job itself."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    done = threading.Event()
    pool = Pool(1, lambda job: done.set())
    pool.do(1)
    assert done.wait(PATIENCE)
    end(pool)


_PROGRAM = """
import sys, threading
import gearman_sync as gearman

begun, done = threading.Semaphore(0), threading.Semaphore(0)

def function(worker, job):
    begun.release()
    sys.stdin.readline()
    print("done", flush=True)
    done.release()

host, awaited = sys.argv[1:]
worker = gearman.GearmanWorker([host], max_jobs=3)
worker.register_task("task", function)
threading.Thread(target=worker.work, daemon=True).start()
for _ in range(2):
    {"begun": begun, "done": done}[awaited].acquire()
print("end", flush=True)
"""


@pytest.mark.parametrize("awaited", ["begun", "done"])
def test_end_of_the_program(start_script: StartScript, awaited: str) -> None:
    """The program's end waits for running jobs, but not for idle threads."""
    with JobServer() as server, GearmanClient([server.address]) as client:
        script = start_script(_PROGRAM, "{}:{}".format(*server.address), awaited)
        jobs: list[dict[str, Any]] = [{"task": "task", "data": b""}] * 2
        client.submit_multiple_jobs(jobs, background=True)
        if awaited == "begun":
            assert script.line() == "end"
        assert [script.ask(), script.ask()] == ["done", "done"]
        if awaited == "done":
            assert script.line() == "end"
        assert script.end() == ("", "", 0)


def test_a_worker_with_slots_does_all_jobs_at_once() -> None:
    together = threading.Barrier(3)

    def function(worker: GearmanWorker, job: Any) -> Any:
        together.wait(PATIENCE)
        return job.data

    with JobServer() as server, GearmanClient([server.address]) as client:
        worker = GearmanWorker([server.address], max_jobs=3)
        worker.register_task("task", function)
        working = threading.Thread(target=worker.work)
        working.start()
        jobs = [{"task": "task", "data": b"%d" % number} for number in range(3)]
        requests = client.submit_multiple_jobs(jobs, poll_timeout=PATIENCE)
        assert [request.result for request in requests] == [b"0", b"1", b"2"]
        worker.stop()
        working.join()
