"""Threads that share a client, and workers in threads of one process."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import echo
from tests.support import PATIENCE, EmbeddedServer, Gearmand, eventually, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Load = Callable[[str], Any]
    Server = Gearmand | EmbeddedServer

THREADS = 20


@pytest.fixture
def switching() -> Iterator[None]:
    """Make threads switch after almost every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(function: Callable[[int], None]) -> None:
    """Call `function` in several threads at once, and raise the exception of any of them."""
    barrier = threading.Barrier(THREADS)

    def call(number: int) -> None:
        barrier.wait(PATIENCE)
        function(number)

    for future in [spawn(call, number) for number in range(THREADS)]:
        future.result(PATIENCE)


def test_threads_share_a_client(
    gearman: Any, start_worker: Any, server: Server, host: str, task: str
) -> None:
    """Use everything that programs use of a client."""
    start_worker(server.address, {task: echo})
    client = gearman.GearmanClient([host])

    def use(number: int) -> None:
        for turn in range(5):
            data = f"{number}-{turn}".encode()
            assert client.submit_job(task, data, poll_timeout=PATIENCE).result == data
            requests = client.submit_multiple_jobs(
                [{"task": task, "data": data, "unique": None}] * 3, wait_until_complete=False
            )
            while not all(request.complete for request in requests):
                open_ones = [request for request in requests if not request.complete]
                client.wait_until_any_job_completed(open_ones, poll_timeout=PATIENCE)
            assert [request.result for request in requests] == [data] * 3
            client.poll_connections_until_stopped(client.connection_list, lambda _: False)

    in_threads(use)
    assert len(client.connection_list) == 1
    client.shutdown()


def test_simultaneous_first_calls_share_a_connection(
    gearman: Any, switching: None, start_worker: Any, server: Server, host: str, task: str
) -> None:
    """The calls share one connection, so that no request is lost with a second one."""
    start_worker(server.address, {task: echo})
    for _ in range(5):
        client = gearman.GearmanClient([host])
        drivers: set[int] = set()

        def use(number: int, client: Any = client, drivers: set[int] = drivers) -> None:
            request = client.submit_job(task, b"x", wait_until_complete=False)
            drivers.add(id(client._gm_driver))
            client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
            assert request.result == b"x", request

        in_threads(use)
        assert len(drivers) == 1
        client.shutdown()


def test_shutdown_ends_waiting_threads(gearman: Any, host: str, task: str) -> None:
    client = gearman.GearmanClient([host])
    requests: list[Any] = []
    waiting = threading.Barrier(THREADS + 1)

    def wait(number: int) -> None:
        request = client.submit_job(task, b"", wait_until_complete=False)
        requests.append(request)
        waiting.wait(PATIENCE)
        client.wait_until_any_job_completed([request])

    calls = [spawn(wait, number) for number in range(THREADS)]
    waiting.wait(PATIENCE)
    client.shutdown()
    for call in calls:
        # A thread that was too late to wait gets an exception.
        assert isinstance(call.exception(PATIENCE), (gearman.errors.InvalidClientState, type(None)))
    assert {request.state for request in requests} <= {"UNKNOWN", "CREATED"}


def test_workers_in_threads_do_each_job_once(
    load: Load, server: Server, host: str, task: str
) -> None:
    """Each thread has its own worker, as in programs without processes.

    Together they do each job once.
    """
    module = load("counting_worker")
    done: list[bytes] = []
    workers = [module.CountingWorker([host], max_jobs=5) for _ in range(4)]
    for worker in workers:
        worker.register_task(task, lambda worker, job: done.append(job.data))
    calls = [spawn(worker.work) for worker in workers]
    eventually(lambda: server.counts(task)[2] == 4)
    client = module.gearman.GearmanClient([host])
    jobs = [{"task": task, "data": str(number)} for number in range(20)]
    client.submit_multiple_jobs(jobs, background=True)
    for call in calls:
        call.result(PATIENCE)
    assert sorted(done, key=int) == [str(number).encode() for number in range(20)]
    assert server.counts(task) == (0, 0, 0)
    client.shutdown()
