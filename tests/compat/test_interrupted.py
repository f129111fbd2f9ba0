"""Early ends of a worker's loop: exceptions of callbacks, signals, and `shutdown`."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import echo
from tests.support import PATIENCE, EmbeddedServer, Gearmand, eventually, spawn
from tests.support.injecting import every_place

from .support import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .support import Running

    Work = Callable[..., Any]
    Server = Gearmand | EmbeddedServer


def poll(worker: Any) -> None:
    """Poll until an exception is raised."""
    connections = worker.establish_worker_connections()
    worker.poll_connections_until_stopped(connections, lambda _: True)


LOOPS = pytest.mark.parametrize("loop", [poll, lambda worker: worker.work()], ids=["poll", "work"])


@LOOPS
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exception_that_ends_the_loop_propagates(
    gearman: Any,
    start_worker: Any,
    server: Server,
    host: str,
    task: str,
    loop: Callable[[Any], None],
    kind: type[BaseException],
) -> None:
    """The exception propagates, the connections are closed, and another worker does the job."""
    client = gearman.GearmanClient([host])
    worker = gearman.GearmanWorker([host])

    def callback(worker: Any, job: Any) -> Any:
        raise kind(3)

    worker.register_task(task, callback)
    for _ in range(2):
        request = client.submit_job(task, b"data", wait_until_complete=False)
        call = spawn(loop, worker)
        with pytest.raises(kind) as caught:
            call.result(PATIENCE)
        assert caught.value.args == (3,)
        assert not worker.connection_list[0].connected
        assert not worker.has_job_lock()
        eventually(lambda: server.counts(task) == (1, 0, 0))
        other = start_worker(server.address, {task: echo})
        client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert request.result == b"data"
        other.stop()
        eventually(lambda: server.counts(task)[2] == 0)
    client.shutdown()


@LOOPS
def test_exception_of_a_callback_fails_the_job(
    gearman: Any, host: str, task: str, loop: Callable[[Any], None]
) -> None:
    """The job fails with the exception as a warning, and the loop continues."""
    client = gearman.GearmanClient([host])
    worker = gearman.GearmanWorker([host])

    def callback(worker: Any, job: Any) -> Any:
        if job.data == b"leave":
            raise SystemExit
        raise ValueError("the callback is wrong")

    worker.register_task(task, callback)
    call = spawn(loop, worker)
    for _ in range(3):
        request = client.submit_job(task, b"", poll_timeout=PATIENCE)
        assert (request.state, request.result) == (gearman.JOB_FAILED, None)
        assert request.reason == "ValueError: the callback is wrong"
    client.submit_job(task, b"leave", background=True)
    with pytest.raises(SystemExit):
        call.result(PATIENCE)
    client.shutdown()


@LOOPS
def test_exception_of_the_poll_function_propagates(
    gearman: Any, start_worker: Any, server: Server, host: str, task: str, loop: Any
) -> None:
    """`after_poll` can raise too. Then the worker can continue or be closed."""

    class Wrong(gearman.GearmanWorker):  # type: ignore[misc]
        def after_poll(self, any_activity: bool) -> bool:
            raise ZeroDivisionError

    worker = Wrong([host])
    worker.register_task(task, lambda worker, job: job.data)
    if loop is poll:
        connections = worker.establish_worker_connections()
        with pytest.raises(ZeroDivisionError):
            worker.poll_connections_until_stopped(connections, worker.after_poll)
        assert connections[0].connected
        for connection in connections:
            connection.close()
    else:
        with pytest.raises(ZeroDivisionError):
            worker.work()
    assert not worker.connection_list[0].connected
    eventually(lambda: server.counts(task)[2] == 0)


def test_shutdown_by_a_callback_ends_the_loop(
    gearman: Any, server: Server, host: str, task: str
) -> None:
    """The result of the callback's own job is lost, so another worker does it. Nothing hangs."""
    for loop in (poll, lambda worker: worker.work()):
        client = gearman.GearmanClient([host])
        request = client.submit_job(task, b"", wait_until_complete=False)
        worker = gearman.GearmanWorker([host])
        worker.register_task(task, lambda worker, job: worker.shutdown())
        call = spawn(loop, worker)
        if loop is poll:
            with pytest.raises(gearman.errors.ServerUnavailable):
                call.result(PATIENCE)
        else:
            call.result(PATIENCE)
        eventually(lambda: server.counts(task) == (1, 0, 0))
        worker = gearman.GearmanWorker([host])
        worker.register_task(task, lambda worker, job: worker.stop())
        worker.work()
        client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert request.complete
        client.shutdown()


def test_close_by_a_callback_ends_the_loop(
    gearman: Any, server: Server, host: str, task: str
) -> None:
    """The effect is that of shutdown, except that the worker can be used again."""
    client = gearman.GearmanClient([host])
    client.submit_job(task, b"", background=True)
    worker = gearman.GearmanWorker([host])
    worker.register_task(task, lambda worker, job: worker.connection_list[0].close())
    with pytest.raises(gearman.errors.ServerUnavailable):
        spawn(poll, worker).result(PATIENCE)
    eventually(lambda: server.counts(task) == (1, 0, 0))
    worker.register_task(task, lambda worker, job: worker.stop())
    worker.work()
    eventually(lambda: server.counts(task) == (0, 0, 0))
    client.shutdown()


def test_callback_can_poll_a_client(gearman: Any, host: str, task: str) -> None:
    """A client polls in a callback of a polled worker. Neither disturbs the other."""
    client = gearman.GearmanClient([host])
    worker = gearman.GearmanWorker([host])

    def callback(worker: Any, job: Any) -> Any:
        inner = gearman.GearmanClient([host])
        request = inner.submit_job(f"{task}-2", job.data, wait_until_complete=False)
        helper = gearman.GearmanWorker([host])
        done: list[Any] = []
        helper.register_task(f"{task}-2", lambda worker, job: done.append(job))
        connections = helper.establish_worker_connections()
        helper.poll_connections_until_stopped(connections, lambda _: not done)
        helper.connection_list[0].close()
        inner.wait_until_jobs_completed([request])
        inner.shutdown()
        return request.state

    worker.register_task(task, callback)
    request = client.submit_job(task, b"x", wait_until_complete=False)
    finished = threading.Event()

    def loop() -> None:
        connections = worker.establish_worker_connections()
        worker.poll_connections_until_stopped(connections, lambda _: not finished.is_set(), 0.5)
        connections[0].close()

    call = spawn(loop)
    client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    finished.set()
    call.result(PATIENCE)
    assert request.result == b"COMPLETE"
    client.shutdown()


# Signals, in separate processes.

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="it has other signals")


def test_exit_by_a_callback_ends_the_process(
    start: Callable[..., Running], gearman: Any, gearmand: Gearmand, task: str
) -> None:
    host = "{}:{}".format(*gearmand.address)
    program = start(PROGRAMS / "loop.py", "poll", host, task)
    assert program.line() == "connected 1"
    client = gearman.GearmanClient([host])
    client.submit_job(task, b"exit", background=True)
    out, errors, status = program.end()
    assert (out, errors, status) == ("job exit\n", "", 4)
    eventually(lambda: gearmand.counts(task) == (1, 0, 0))
    client.shutdown()


QUICK = (("raise", True), ("shutdown", False), ("work", True), ("interrupt", False))


@pytest.mark.parametrize(
    ("how", "busy"),
    [
        pytest.param(how, busy, marks=() if (how, busy) in QUICK else pytest.mark.slow)
        for how, _ in QUICK
        for busy in (False, True)
    ],
)
def test_signal_ends_the_loop(
    start: Callable[..., Running], gearman: Any, gearmand: Gearmand, task: str, how: str, busy: bool
) -> None:
    """Send the signal while the worker waits, or in the middle of a job.

    Another worker then does that job.
    """
    host = "{}:{}".format(*gearmand.address)
    program = start(PROGRAMS / "loop.py", how, host, task)
    if how != "work":
        assert program.line() == "connected 1"
    eventually(lambda: gearmand.counts(task)[2] == 1)
    client = gearman.GearmanClient([host])
    if busy:
        client.submit_job(task, b"hang", background=True)
        assert program.line() == "job hang"
    program.process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGTERM)
    if busy and how == "raise":
        # The handler's exception counts as the callback's: the job fails and the worker continues.
        eventually(lambda: gearmand.counts(task) == (0, 0, 1))
        program.process.send_signal(signal.SIGTERM)
    out, errors, status = program.end()
    if how == "raise":
        assert (out, status) == ("stopped\nclosed\n", 0), errors
    elif how == "work":
        assert (out, status) == ("returned\n", 0), errors
    elif how == "shutdown":
        assert status == 1
        assert "ServerUnavailable: found no valid connections in list" in errors
    else:
        assert status in (-signal.SIGINT, 1)
        assert errors.rstrip().endswith("KeyboardInterrupt")
    expected = 1 if busy and how != "raise" else 0
    eventually(lambda: gearmand.counts(task) == (expected, 0, 0))
    client.shutdown()


# An exception of a signal handler at each place where CPython checks for signals.


def interrupt() -> None:
    raise KeyboardInterrupt


def one_round(worker: Any, timeout: float) -> None:
    """Do the same as a copy of `work`, until a job is done."""
    done = len(worker.done)
    connections = worker.establish_worker_connections()
    worker.poll_connections_until_stopped(connections, lambda _: len(worker.done) == done, timeout)
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 41])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupt_at_any_place_loses_no_job(gearman: Any, task: str, step: int) -> None:
    """The worker can be closed and used again, and no job is lost or held forever."""
    server = EmbeddedServer()
    worker = gearman.GearmanWorker([server.address])
    worker.done = []
    worker.register_task(task, lambda worker, job: worker.done.append(job.data))
    client = gearman.GearmanClient([server.address])
    for at in every_place(interrupt, step):
        client.submit_job(task, b"", background=True)
        with contextlib.suppress(KeyboardInterrupt), at:
            one_round(worker, PATIENCE)
        for connection in worker.connection_list:
            connection.close()
        while server.counts(task)[0]:
            with contextlib.suppress(gearman.errors.ServerUnavailable):
                one_round(worker, 0.05)
        assert not worker.has_job_lock(), at.where
    client.shutdown()
    server.kill()
