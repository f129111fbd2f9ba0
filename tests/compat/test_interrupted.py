"""Early ends of a worker's loop: exceptions of callbacks, signals, and `shutdown`."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import echo
from tests.support import PATIENCE, EmbeddedServer, eventually, spawn
from tests.support.injecting import every_place
from tests.sync.support import interrupt, signalled

if TYPE_CHECKING:
    from tests.support import Gearmand


def poll(worker: Any) -> None:
    """Poll until an exception is raised."""
    connections = worker.establish_worker_connections()
    worker.poll_connections_until_stopped(connections, lambda _: True)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_exception_that_ends_the_loop_propagates(
    gearman: Any,
    client: Any,
    start_worker: Any,
    server: Gearmand,
    host: str,
    task: str,
    kind: type[BaseException],
) -> None:
    """The connections are closed, and another worker does the job. Other exceptions fail a job."""
    worker = gearman.GearmanWorker([host])

    def callback(worker: Any, job: Any) -> Any:
        if job.data == b"bad":
            raise ValueError("the callback is wrong")
        raise kind(3)

    worker.register_task(task, callback)
    for _ in range(2):
        call = spawn(poll, worker)
        request = client.submit_job(task, b"bad", poll_timeout=PATIENCE)
        assert request.reason == "ValueError: the callback is wrong"
        request = client.submit_job(task, b"data", wait_until_complete=False)
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


def test_exception_of_the_poll_function_leaves_the_connections(
    gearman: Any, server: Gearmand, host: str, task: str
) -> None:
    def wrong(any_activity: bool) -> bool:
        raise ZeroDivisionError

    worker = gearman.GearmanWorker([host])
    worker.register_task(task, lambda worker, job: job.data)
    (connection,) = worker.establish_worker_connections()
    with pytest.raises(ZeroDivisionError):
        worker.poll_connections_until_stopped([connection], wrong)
    assert connection.connected
    connection.close()
    eventually(lambda: server.counts(task)[2] == 0)


@pytest.mark.parametrize("end", ["shutdown", "close"])
def test_end_by_a_callback_requeues_its_job(
    gearman: Any, client: Any, server: Gearmand, host: str, task: str, end: str
) -> None:
    client.submit_job(task, b"", background=True)
    worker = gearman.GearmanWorker([host])
    ends = {"shutdown": worker.shutdown, "close": worker.connection_list[0].close}
    worker.register_task(task, lambda worker, job: ends[end]())
    with pytest.raises(gearman.errors.ServerUnavailable):
        poll(worker)
    eventually(lambda: server.counts(task) == (1, 0, 0))
    if end == "shutdown":
        worker = gearman.GearmanWorker([host])
    worker.register_task(task, lambda worker, job: worker.stop())
    worker.work()
    assert server.counts(task)[0] == 0


# Signals.


@pytest.mark.parametrize("busy", [False, True])
def test_shutdown_in_a_signal_handler_ends_the_loop_and_requeues_the_job(
    gearman: Any, client: Any, server: Gearmand, host: str, task: str, busy: bool
) -> None:
    begun, over = threading.Event(), threading.Event()

    def callback(worker: Any, job: Any) -> None:
        begun.set()
        eventually(over.is_set)

    def shut_down() -> None:
        over.set()
        worker.shutdown()

    def is_waiting() -> bool:
        return begun.is_set() if busy else server.counts(task)[2] == 1

    worker = gearman.GearmanWorker([host])
    worker.register_task(task, callback)
    if busy:
        client.submit_job(task, b"", background=True)
    with (
        pytest.raises(gearman.errors.ServerUnavailable, match="no valid connections in list"),
        signalled(shut_down, lambda: eventually(is_waiting)),
    ):
        poll(worker)
    eventually(lambda: server.counts(task) == (busy, 0, 0))


def test_exception_of_a_signal_handler_ends_the_poll_and_leaves_the_connections(
    gearman: Any, server: Gearmand, host: str, task: str
) -> None:
    worker = gearman.GearmanWorker([host])
    worker.register_task(task, lambda worker, job: job.data)
    (connection,) = worker.establish_worker_connections()
    idle = signalled(interrupt, lambda: eventually(lambda: server.counts(task)[2] == 1))
    with pytest.raises(KeyboardInterrupt), idle:
        worker.poll_connections_until_stopped([connection], lambda _: True)
    connection.close()
    eventually(lambda: server.counts(task) == (0, 0, 0))


# An exception of a signal handler at each place where CPython checks for signals.


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
