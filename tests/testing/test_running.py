"""WorkerUnderTest with blocking hooks, in the test's thread and in a thread of its own."""

# ruff: noqa: PT012 - it is the end of a `with` that raises

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import GearmanClient, GearmanWorker
from gearman_sync.errors import ServerUnavailable
from gearman_sync.testing import JobRun, WorkerUnderTest
from tests.support import PATIENCE, eventually, spawn, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_proto import WorkerJob
    from tests.support import EmbeddedServer

pytestmark = pytest.mark.usefixtures("no_leak")


def reverse(worker: Any, job: WorkerJob) -> Any:
    return job.data[::-1]


def fail(worker: Any, job: WorkerJob) -> None:
    raise ZeroDivisionError(job.data)


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[GearmanClient]:
    with GearmanClient([server.address]) as client:
        yield client


@pytest.fixture
def queue(client: GearmanClient, task: str) -> Callable[..., Any]:
    """A function that submits a background job."""

    def submit(data: str = "", **options: Any) -> Any:
        return client.submit_job(task, data, background=True, **options)

    return submit


def data_of(runs: list[JobRun]) -> list[Any]:
    return [run.job.data for run in runs]


# In the test's thread.


def test_drain(server: EmbeddedServer, task: str, queue: Callable[..., Any]) -> None:
    """Run the jobs queued so far, in this thread, on a server that other workers use, too."""
    threads: list[threading.Thread] = []

    def callback(worker: Any, job: WorkerJob) -> Any:
        threads.append(threading.current_thread())
        return job.data[::-1]

    under_test = WorkerUnderTest({task: callback}, server.address)
    assert under_test.drain() == []
    handles = [queue(data).job.handle for data in ("ab", "cd")]
    runs = under_test.drain()
    assert [(run.job.data, run.result, run.error) for run in runs] == [
        (b"ab", b"ba", None),
        (b"cd", b"dc", None),
    ]
    assert [run.job.handle for run in runs] == handles
    assert [run.job.task for run in runs] == [task] * 2
    assert threads == [threading.main_thread()] * 2
    assert server.counts(task)[:2] == (0, 0)
    assert under_test.drain() == []
    queue("ef")
    assert data_of(under_test.drain()) == [b"ef"]
    assert data_of(under_test.runs) == [b"ab", b"cd", b"ef"]


@pytest.mark.parametrize("max_jobs", [1, 3])
def test_drain_runs_jobs_submitted_by_jobs(
    server: EmbeddedServer, task: str, queue: Callable[..., Any], max_jobs: int
) -> None:
    def countdown(worker: Any, job: WorkerJob) -> None:
        if number := int(job.data):
            queue(str(number - 1))

    worker = GearmanWorker([server.address], max_jobs=max_jobs)
    worker.register_task(task, countdown)
    for _ in range(2):
        queue("5")
    assert sorted(data_of(WorkerUnderTest(worker, server.address).drain())) == sorted(
        [b"5", b"4", b"3", b"2", b"1", b"0"] * 2
    )


@pytest.mark.parametrize("later", [-10, 3600])
def test_drain_skips_delayed_jobs(
    server: EmbeddedServer, task: str, queue: Callable[..., Any], client: GearmanClient, later: int
) -> None:
    """Skip delayed jobs that are not due."""
    request = queue("later", run_at=time.time() + later)
    queue("now")
    done = data_of(WorkerUnderTest({task: reverse}, server.address).drain())
    assert sorted(done) == ([b"now"] if later > 0 else [b"later", b"now"])
    assert client.get_job_status(request).status["known"] == (later > 0)


def test_failures_of_all_kinds_are_raised_once(
    server: EmbeddedServer, task: str, queue: Callable[..., Any]
) -> None:
    """Raise the callback's exception with its own traceback, after all jobs have run."""

    def callback(worker: Any, job: WorkerJob) -> Any:
        return {"a": 1} if job.data == b"no bytes" else fail(worker, job)

    under_test = WorkerUnderTest({task: callback}, server.address)
    for data in ("first", "second", "no bytes", *"0123456789"):
        queue(data)
    with pytest.raises(ZeroDivisionError, match="first") as caught:
        under_test.drain()
    assert caught.traceback[-1].name == "fail"
    first, second, *_, last = caught.value.__notes__
    assert first == f"It was raised for {under_test.runs[0].job!r}."
    assert second == f"{under_test.runs[1].job!r} has failed, too: {under_test.runs[1].error!r}"
    assert last == "So have 2 others."
    errors = [type(run.error) for run in under_test.runs[:3]]
    assert errors == [ZeroDivisionError, ZeroDivisionError, TypeError]
    assert under_test.drain() == []


# Workers of the application.


class Counting(GearmanWorker):
    """A worker with its own hooks and state."""

    done = 0
    polls = 0

    def after_poll(self, any_activity: bool) -> bool:
        self.polls += 1
        return True

    def after_job(self) -> bool:
        self.done += 1
        return self.done % 2 != 0

    def on_job_exception(self, current_job: WorkerJob, exc_info: Any) -> bool:
        self.send_job_data(current_job, b"my own")
        return super().on_job_exception(current_job, exc_info)


def test_own_worker(server: EmbeddedServer, task: str, queue: Callable[..., Any]) -> None:
    """Continue if the worker ends by itself; restore its state and servers afterwards."""
    worker = Counting(["nowhere.invalid:1"])
    worker.register_task(task, reverse)
    before = vars(worker).keys()
    for data in "abcde":
        queue(data)
    under_test = WorkerUnderTest(worker, server.address)
    assert under_test.worker is worker
    assert data_of(under_test.drain()) == [b"a", b"b", b"c", b"d", b"e"]
    assert worker.done == 5
    assert worker.polls > 5
    assert [str(each.address) for each in worker.connection_list] == ["nowhere.invalid:1"]
    assert vars(worker).keys() == before | {"done", "polls"}
    with pytest.raises(ServerUnavailable, match=r"nowhere\.invalid"):
        worker.work()


def test_connected_worker_is_refused(server: EmbeddedServer, task: str) -> None:
    worker = GearmanWorker([server.address])
    worker.register_task(task, reverse)
    with WorkerUnderTest(worker, server.address):
        pass
    thread = spawn(worker.work)
    worker.shutdown()
    thread.result(PATIENCE)
    with pytest.raises(RuntimeError, match="is connected, or was shut down"):
        WorkerUnderTest(worker, server.address).drain()


def test_ctrl_c_in_a_callback_is_raised(
    server: EmbeddedServer, task: str, queue: Callable[..., Any]
) -> None:
    """Raise out of the test; the job stays in the queue."""

    def callback(worker: Any, job: WorkerJob) -> None:
        raise KeyboardInterrupt

    queue("ab")
    under_test = WorkerUnderTest({task: callback}, server.address)
    with pytest.raises(KeyboardInterrupt):
        under_test.drain()
    assert under_test.runs == []
    assert data_of(WorkerUnderTest({task: reverse}, server.address).drain()) == [b"ab"]


# In a thread of its own.


def test_worker_in_a_thread_runs_jobs(
    server: EmbeddedServer, task: str, queue: Callable[..., Any], client: GearmanClient
) -> None:
    threads: set[threading.Thread] = set()

    def callback(worker: Any, job: WorkerJob) -> Any:
        threads.add(threading.current_thread())
        return job.data[::-1]

    queue("before")
    with WorkerUnderTest({task: callback}, server.address) as under_test:
        assert client.submit_job(task, "ab", poll_timeout=PATIENCE).result == b"ba"
        queue("cd")
        assert sorted(data_of(under_test.drain())) == [b"ab", b"before", b"cd"]
        assert client.submit_job(task, "ef", poll_timeout=PATIENCE).result == b"fe"
        queue("last")
    assert data_of(under_test.runs)[3:] == [b"ef", b"last"]
    assert threading.main_thread() not in threads
    # The thread can be started again.
    with under_test:
        assert client.submit_job(task, "gh", poll_timeout=PATIENCE).result == b"hg"


def test_failure_in_a_thread_is_raised_once(
    server: EmbeddedServer, task: str, queue: Callable[..., Any], client: GearmanClient
) -> None:
    under_test = WorkerUnderTest({task: fail}, server.address)
    with under_test:
        queue("first")
        with pytest.raises(ZeroDivisionError, match="first"):
            under_test.drain()
        # The failure is raised once. The worker continues and does not raise it again.
    with pytest.raises(ZeroDivisionError, match="second"), under_test:
        request = client.submit_job(task, "second", poll_timeout=PATIENCE)
        assert "ZeroDivisionError" in (request.reason or "")
    with pytest.raises(LookupError, match="the test"), under_test:
        queue()
        raise LookupError("the test")


# Time limits and missing servers.


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_time_limit(server: EmbeddedServer, task: str, queue: Callable[..., Any]) -> None:
    """Leave a callback that never returns; the error names its job."""
    never = threading.Event()
    left = threading.Event()

    def callback(worker: Any, job: WorkerJob) -> None:
        try:
            never.wait()
        except Exception:  # noqa: BLE001 - as applications do
            never.wait()
        finally:
            left.set()

    request = queue("ab")
    before = signal.getsignal(signal.SIGALRM)
    under_test = WorkerUnderTest({task: callback}, server.address, timeout=2.0)
    with pytest.raises(TimeoutError, match=rf"after 2\.?0? .*{request.job.handle}.*; 0 were done"):
        under_test.drain()
    assert left.is_set()
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    # The job is in the queue again.
    (run,) = WorkerUnderTest({task: reverse}, server.address).drain()
    assert run.job.handle == request.job.handle


@pytest.mark.slow
def test_drain_with_endless_jobs_raises(
    server: EmbeddedServer, task: str, queue: Callable[..., Any]
) -> None:
    """Stop in another thread as well, and if the test has set its own alarm."""

    def again(worker: Any, job: WorkerJob) -> None:
        queue()

    queue()
    under_test = WorkerUnderTest({task: again}, server.address, timeout=1.0)
    with pytest.raises(TimeoutError, match=r"there were still jobs; [0-9]+ were done"):
        spawn(under_test.drain).result(PATIENCE)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        with pytest.raises(TimeoutError, match="there were still jobs"):
            under_test.drain()
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert len(WorkerUnderTest({task: reverse}, server.address).drain()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["drain", "end", "failure"])
def test_worker_in_a_thread_after_the_time_limit_raises(
    server: EmbeddedServer, task: str, queue: Callable[..., Any], quiet: None, how: str
) -> None:
    """Raise without waiting for the thread, which continues to run."""
    begun, go_on = threading.Event(), threading.Event()

    def callback(worker: Any, job: WorkerJob) -> None:
        begun.set()
        wait_for(go_on)

    request = queue()
    under_test = WorkerUnderTest({task: callback}, server.address, timeout=1.0)
    expected: tuple[type[Exception], str] = (TimeoutError, f"still being done: .*{request.handle}")
    if how == "failure":
        expected = LookupError, "the test"
    with pytest.raises(expected[0], match=expected[1]), under_test:
        wait_for(begun)
        if how == "drain":
            under_test.drain()
        elif how == "failure":
            raise LookupError("the test")
    assert len(WorkerUnderTest({task: reverse}, server.address).drain()) == 1
    go_on.set()


@pytest.mark.parametrize("how", ["drain", "with"])
def test_no_server(task: str, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that would wait for a server waits for none here."""
    worker = GearmanWorker(max_outage=None)
    worker.register_task(task, reverse)
    under_test = WorkerUnderTest(worker, ("127.0.0.1", 1))
    with pytest.raises(ServerUnavailable):
        if how == "drain":
            under_test.drain()
        else:
            with under_test:
                eventually(lambda: "has ended" in caplog.text, "the log")
    # The error is logged at once, not only at the end: a test may wait for a result meanwhile.
    assert ("the worker under test has ended" in caplog.text) == (how == "with")


# Misuse.


async def later(worker: Any, job: Any) -> None:
    """An async callback."""


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"worker": 5}, TypeError, "a worker is callbacks by task"),
        ({"worker": GearmanWorker()}, ValueError, "has no callbacks"),
        ({"worker": {"f": 5}}, TypeError, "f"),
        ({"worker": {"f": later}}, TypeError, "async"),
        ({"server": 5}, TypeError, "a server's address is"),
    ],
)
def test_worker_under_test_with_a_bad_argument_raises_at_once(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        WorkerUnderTest(**{"worker": {"f": print}, "server": "localhost", **options})


def test_worker_under_test_that_is_nested_is_refused(
    server: EmbeddedServer, client: GearmanClient
) -> None:
    worker = GearmanWorker()
    worker.register_task("f", lambda worker, job: job.data)
    outer = WorkerUnderTest(worker, server.address)
    for inner in (outer, WorkerUnderTest(worker, server.address)):
        with outer, pytest.raises(RuntimeError, match="is under test already: end its"), inner:
            raise AssertionError("it was entered")
    with outer:
        assert client.submit_job("f", "data", poll_timeout=PATIENCE).result == b"data"


@pytest.mark.parametrize("max_jobs", [1, 2])
@pytest.mark.parametrize("inside", [False, True])
def test_drain_in_a_callback_is_refused(
    server: EmbeddedServer, queue: Callable[..., Any], task: str, max_jobs: int, inside: bool
) -> None:
    worker = GearmanWorker(max_jobs=max_jobs)
    worker.register_task(task, lambda worker, job: str(under_test.drain()))
    under_test: WorkerUnderTest = WorkerUnderTest(worker, server.address, timeout=PATIENCE)
    queue()
    with pytest.raises(RuntimeError, match="can't drain it, as that waits for the callback's own"):
        if inside:
            with under_test:
                pass
        else:
            under_test.drain()
