"""Signals that end `work` of a program. Jobs are finished or requeued."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import InvalidWorkerState
from gearman_sync import GearmanClient, GearmanWorker, WorkerJob
from tests.support import PATIENCE, eventually, wait_for

if TYPE_CHECKING:
    from tests.support import Gearmand

    from .support import Script, StartScript, Work

PROGRAM = """
import os, signal, sys
import gearman_sync as gearman

def function(worker, job):
    print("begun", flush=True)
    sys.stdin.readline()
    return job.data[::-1]

def stop(number, frame):
    worker.stop() if number == signal.SIGTERM else worker.shutdown()
    os.write(1, b"stopping\\n")  # The signal may have interrupted a print.

host, task, max_jobs = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGHUP, stop)
worker = gearman.GearmanWorker([host], max_jobs=int(max_jobs))
worker.register_task(task, function)
try:
    worker.work()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.readline()
else:
    print("ended", flush=True)
"""


@pytest.fixture(params=[1, 2])
def max_jobs(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def program(gearmand: Gearmand, start_script: StartScript, task: str, max_jobs: int) -> Script:
    """A program that stops at SIGTERM, shuts down at SIGHUP, and is interrupted by SIGINT."""
    program = start_script(PROGRAM, "{}:{}".format(*gearmand.address), task, max_jobs)
    eventually(lambda: gearmand.counts(task)[2] == 1)
    return program


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (signal.SIGTERM, "stopping\nended\n"),
        (signal.SIGHUP, "stopping\nended\n"),
        (signal.SIGINT, "interrupted\n"),
    ],
)
def test_signal_ends_an_idle_worker(program: Script, number: int, printed: str) -> None:
    program.signal(number)
    assert program.end() == (printed, "", 0)


def test_stop_in_a_signal_handler_lets_the_job_finish(
    client: GearmanClient, program: Script, task: str, max_jobs: int
) -> None:
    request = client.submit_job(task, b"ab", wait_until_complete=False)
    assert program.line() == "begun"
    program.signal(signal.SIGTERM)
    if max_jobs > 1:
        assert program.line() == "stopping"
        assert program.ask() == "ended"
    else:
        # The signal handler runs during the callback or right after it.
        assert {program.ask(), program.line()} == {"stopping", "ended"}
    assert program.end() == ("", "", 0)
    client.wait_until_jobs_completed([request])
    assert request.result == b"ba"


def test_keyboard_interrupt_in_the_middle_of_a_job_requeues_it(
    client: GearmanClient, program: Script, work: Work, gearmand: Gearmand, task: str, max_jobs: int
) -> None:
    request = client.submit_job(task, b"job", wait_until_complete=False)
    assert program.line() == "begun"
    program.signal(signal.SIGINT)
    assert program.line() == "interrupted"
    work(gearmand.address, tasks={task: lambda worker, job: b"another"})
    # The program still runs.
    client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert request.result == b"another"
    out, errors, status = program.end()
    assert (out, status) == ("", 0)
    # With several slots, the callback continues in its thread, and its result is dropped.
    assert ("was lost" in errors) == (max_jobs > 1)


def test_error_of_one_work_is_not_the_next_ones(
    gearmand: Gearmand, client: GearmanClient, work: Work, task: str
) -> None:
    """The error may arrive late, from an abandoned job."""
    begun, go_on, quiet, late = (threading.Event() for _ in range(4))

    def held(worker: GearmanWorker, job: WorkerJob) -> None:
        begun.set()
        wait_for(go_on)

    class Worker(GearmanWorker):
        def after_job(self) -> bool:
            if go_on.is_set():
                late.set()
                raise ZeroDivisionError
            quiet.set()
            return True

    tasks: dict[str, Any] = {task: held, f"{task}-other": lambda worker, job: job.data}
    client.submit_job(task, b"", background=True)
    working = work(gearmand.address, kind=Worker, tasks=tasks, max_jobs=2)
    wait_for(begun)
    working.worker.stop(timeout=0)
    working.end()
    working.worker.unregister_task(task)
    again = work(working.worker)
    assert client.submit_job(f"{task}-other", b"ab").result == b"ab"
    with pytest.raises(InvalidWorkerState):
        working.worker.work()
    # A pending hook of this `work` would count the other one's job as done.
    wait_for(quiet)
    go_on.set()
    wait_for(late)
    working.worker.stop()
    again.end()
