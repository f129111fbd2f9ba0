"""The threads of a worker with several slots."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from gearman_sync._threads import Pool
from tests.support import PATIENCE, Gearmand, eventually

if TYPE_CHECKING:
    from gearman_sync import GearmanClient

    from .support import StartScript


def end(pool: Pool) -> None:
    pool.is_finished = True
    pool.jobs.put(None)


def test_pool_starts_at_most_its_number_of_threads_and_drops_jobs_at_its_end() -> None:
    all_busy, go_on = threading.Barrier(4), threading.Event()
    names: list[str] = []

    def work(job: int) -> None:
        names.append(threading.current_thread().name)
        all_busy.wait(PATIENCE)
        go_on.wait(PATIENCE)

    pool = Pool(3, work)
    for job in range(4):
        pool.do(job)
    all_busy.wait(PATIENCE)
    assert sorted(names) == ["gearman-job_1", "gearman-job_2", "gearman-job_3"]
    end(pool)
    go_on.set()
    eventually(
        lambda: not any(thread.name in names for thread in threading.enumerate()),
        "the end of the threads",
    )
    assert len(names) == 3


PROGRAM = """
import sys, threading
import gearman_sync as gearman

begun, done = threading.Semaphore(0), threading.Semaphore(0)

def function(worker, job):
    begun.release()
    sys.stdin.readline()
    print("done", flush=True)
    done.release()

host, task, awaited = sys.argv[1:]
worker = gearman.GearmanWorker([host], max_jobs=3)
worker.register_task(task, function)
threading.Thread(target=worker.work, daemon=True).start()
for _ in range(2):
    {"begun": begun, "done": done}[awaited].acquire()
print("end", flush=True)
"""


@pytest.mark.parametrize("awaited", ["begun", "done"])
def test_end_of_the_program_waits_for_jobs_but_not_for_idle_threads(
    gearmand: Gearmand, client: GearmanClient, start_script: StartScript, task: str, awaited: str
) -> None:
    script = start_script(PROGRAM, "{}:{}".format(*gearmand.address), task, awaited)
    client.submit_multiple_jobs([{"task": task, "data": b""}] * 2, background=True)
    if awaited == "begun":
        assert script.line() == "end"
    assert [script.ask(), script.ask()] == ["done", "done"]
    if awaited == "done":
        assert script.line() == "end"
    assert script.end() == ("", "", 0)
