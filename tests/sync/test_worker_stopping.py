"""Ways to end `work`: stop, signals and interrupts. Jobs are finished or requeued."""

from __future__ import annotations

import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidWorkerState
from gearman_proto.wire.packets import NoJob
from gearman_sync import GearmanClient, GearmanWorker, WorkerJob
from tests.support import PATIENCE, eventually, spawn, wait_for

from .support import Script, Working, wait_for_leader

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Administered

    MakeClient = Callable[..., GearmanClient]
    MakeWorker = Callable[..., GearmanWorker]
    StartScript = Callable[..., Script]
    Server = Administered
    Work = Callable[..., Working]

needs_signals = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="the system has no pthread_kill"
)


def reverse(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data[::-1]


class Held:
    """A callback that holds its jobs until they are released."""

    def __init__(self, jobs: int = 1) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.done: list[bytes] = []
        self._jobs = jobs

    def __call__(self, worker: GearmanWorker, job: WorkerJob) -> Any:
        self.begun.release()
        wait_for(self.go_on)
        self.done.append(job.data)
        return job.data

    def wait(self) -> None:
        """Wait until all jobs have started."""
        for _ in range(self._jobs):
            assert self.begun.acquire(timeout=PATIENCE)


# Stopping.


def test_last_hook_outlives_the_connection(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    """The end of the hook ends `work` after the connection was closed."""
    go_on = threading.Event()

    class Worker(GearmanWorker):
        def after_job(self) -> bool:
            wait_for(go_on)
            return True

    working = work(
        server.address, kind=Worker, tasks={task: reverse}, max_jobs=2, poll_timeout=None
    )
    assert make_client(server.address).submit_job(task, b"ab").result == b"ba"
    working.worker.stop()
    (connection,) = working.worker.connection_list
    eventually(lambda: not connection.connected)
    wait_for_leader(working.worker)
    assert not working.call.done()
    go_on.set()
    working.end()


# Signals, in a separate program.


_PROGRAM = """
import os, signal, sys
import gearman_sync as gearman

def function(worker, job):
    print("begun", flush=True)
    sys.stdin.readline()
    return job.data[::-1]

def stop(number, frame):
    worker.stop()
    os.write(1, b"stopping\\n")  # The signal may have interrupted a print.

host, task, max_jobs = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, stop)
worker = gearman.GearmanWorker([host], max_jobs=int(max_jobs))
worker.register_task(task, function)
print("ready", flush=True)
try:
    worker.work()
except KeyboardInterrupt:
    print("interrupted", flush=True)
except SystemExit as error:
    print("exit", error.code, flush=True)
else:
    print("ended", flush=True)
"""


@needs_signals
@pytest.mark.parametrize("max_jobs", [1, 2])
def test_stop_in_a_signal_handler(
    server: Server, make_client: MakeClient, start_script: StartScript, task: str, max_jobs: int
) -> None:
    script = start_script(_PROGRAM, "{}:{}".format(*server.address), task, max_jobs)
    client = make_client(server.address)
    request = client.submit_job(task, b"ab", wait_until_complete=False)
    assert [script.line(), script.line()] == ["ready", "begun"]
    script.signal(signal.SIGTERM)
    if max_jobs > 1:
        assert script.line() == "stopping"
        assert script.ask() == "ended"
    else:
        # The signal handler runs during the callback or right after it.
        assert {script.ask(), script.line()} == {"stopping", "ended"}
    assert script.end() == ("", "", 0)
    client.wait_until_jobs_completed([request])
    assert request.result == b"ba"


@needs_signals
@pytest.mark.parametrize("max_jobs", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_when_idle(
    server: Server, start_script: StartScript, task: str, max_jobs: int, number: int
) -> None:
    script = start_script(_PROGRAM, "{}:{}".format(*server.address), task, max_jobs)
    eventually(lambda: server.counts(task)[2] == 1)
    script.signal(number)
    out, errors, status = script.end()
    last = "stopping\nended\n" if number == signal.SIGTERM else "interrupted\n"
    assert (out, errors, status) == (f"ready\n{last}", "", 0)


@needs_signals
@pytest.mark.parametrize("max_jobs", [1, 2])
def test_keyboard_interrupt_in_the_middle_of_a_job(
    server: Server,
    make_client: MakeClient,
    start_script: StartScript,
    work: Work,
    task: str,
    max_jobs: int,
) -> None:
    """KeyboardInterrupt ends `work`, and the job is requeued. Its later packets are dropped."""
    script = start_script(_PROGRAM, "{}:{}".format(*server.address), task, max_jobs)
    client = make_client(server.address)
    request = client.submit_job(task, b"job", wait_until_complete=False)
    assert [script.line(), script.line()] == ["ready", "begun"]
    script.signal(signal.SIGINT)
    assert script.line() == "interrupted"
    work(server.address, tasks={task: lambda worker, job: b"another"})
    client.wait_until_jobs_completed([request])
    assert request.result == b"another"
    out, errors, status = script.end()
    assert (out, status) == ("", 0)
    # With several slots, the callback continues in its thread.
    assert ("was lost" in errors) == (max_jobs > 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt("in the pool"), SystemExit("in the pool")])
def test_interrupt_in_a_pool_callback(
    server: Server, make_client: MakeClient, work: Work, task: str, error: BaseException
) -> None:
    """With several slots, the interrupt fails only that job."""

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        if job.data == b"bad":
            raise error
        return job.data

    client = make_client(server.address)
    working = work(server.address, tasks={task: function}, max_jobs=2)
    for _ in range(3):
        request = client.submit_job(task, b"bad")
        assert request.state == gearman.JOB_FAILED
        text = f"{type(error).__name__}: in the pool"
        assert list(request.warning_updates) == [text.encode()]
        assert client.submit_job(task, b"good").result == b"good"
    assert not working.call.done()


@pytest.mark.slow
@needs_signals
# An interrupt may hit after a socket was created and before it was stored.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("max_jobs", [1, 2])
def test_keyboard_interrupts_anywhere(
    server: Server, make_client: MakeClient, make_worker: MakeWorker, task: str, max_jobs: int
) -> None:
    """`work` raises the interrupt at any place, and can be called again."""
    client = make_client(server.address)
    worker = make_worker(server.address, tasks={task: reverse}, max_jobs=max_jobs)
    armed: list[bool] = []
    over = threading.Event()
    main = threading.get_ident()
    chance = random.Random(1)

    def handler(*args: object) -> None:
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    begun = [time.monotonic()]

    def interrupted_work() -> None:
        begun[0] = time.monotonic()
        armed.append(True)
        worker.work()

    def interrupt() -> None:
        while not over.is_set():
            time.sleep(chance.random() * 0.004)
            if not armed and time.monotonic() - begun[0] > 2:
                # The last interrupt hit a finalizer, where Python ignores exceptions.
                armed.append(True)
            signal.pthread_kill(main, signal.SIGUSR1)

    def submit() -> int:
        jobs = 0
        while not over.is_set():
            assert client.submit_job(task, b"ab", poll_timeout=PATIENCE).result == b"ba"
            jobs += 1
        worker.stop()
        return jobs

    before = signal.signal(signal.SIGUSR1, handler)
    storm, submits = spawn(interrupt), spawn(submit)
    try:
        for _ in range(150):
            with pytest.raises(KeyboardInterrupt):
                interrupted_work()
        over.set()
        worker.work()
        assert submits.result(PATIENCE) > 0
    finally:
        armed.clear()
        over.set()
        eventually(lambda: storm.done() and submits.done())
        signal.signal(signal.SIGUSR1, before)


def test_interrupted_while_it_begins(
    server: Server,
    make_client: MakeClient,
    make_worker: MakeWorker,
    work: Work,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = make_worker(server.address, tasks={task: reverse})

    def interrupt(*args: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(worker._gm_driver, "_connect", interrupt)
    with pytest.raises(KeyboardInterrupt):
        worker.work()
    work(worker)
    assert make_client(server.address).submit_job(task, b"ab").result == b"ba"


def test_shutdown_in_the_middle_of_the_engine(
    server: Server, make_worker: MakeWorker, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The call simulates a signal handler."""
    worker = make_worker(server.address, tasks={task: reverse})
    worker._gm_driver.engine._handlers[NoJob] = lambda link, event, now: worker.shutdown()
    worker.work()
    with pytest.raises(InvalidWorkerState, match="shut down"):
        worker.work()
    assert not caplog.records


@needs_signals
def test_shutdown_in_a_signal_handler(
    server: Server, make_client: MakeClient, start_script: StartScript, task: str
) -> None:
    program = _PROGRAM.replace("worker.stop()", "worker.shutdown()")
    script = start_script(program, "{}:{}".format(*server.address), task, 1)
    eventually(lambda: server.counts(task)[2] == 1)
    script.signal(signal.SIGTERM)
    assert script.end() == ("ready\nstopping\nended\n", "", 0)


def test_error_of_one_work_is_not_the_next_ones(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    """The error may arrive late, from an abandoned job."""
    held = Held()
    quiet, late = threading.Event(), threading.Event()

    class Worker(GearmanWorker):
        def after_job(self) -> bool:
            if held.done:
                late.set()
                raise ZeroDivisionError
            quiet.set()
            return True

    client = make_client(server.address)
    client.submit_job(task, b"", background=True)
    working = work(
        server.address, kind=Worker, tasks={task: held, f"{task}-other": reverse}, max_jobs=2
    )
    held.wait()
    working.worker.stop(timeout=0)
    working.end()
    working.worker.unregister_task(task)
    again = work(working.worker)
    assert client.submit_job(f"{task}-other", b"ab").result == b"ba"
    with pytest.raises(InvalidWorkerState):
        working.worker.work()
    # A pending hook of this `work` would count the other one's job as done.
    wait_for(quiet)
    held.go_on.set()
    wait_for(late)
    working.worker.stop()
    again.end()
