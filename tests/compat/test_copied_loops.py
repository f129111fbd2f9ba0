"""Workers with copies of python-gearman's `work`, which consists of three methods."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import echo
from tests.support import PATIENCE, Gearmand, black_hole, eventually, free_port, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    Load = Callable[[str], Any]


def submit(gearman: Any, host: str, task: str, count: int) -> None:
    """Submit `count` background jobs."""
    client = gearman.GearmanClient([host])
    jobs = [{"task": task, "data": str(number), "unique": str(number)} for number in range(count)]
    client.submit_multiple_jobs(jobs, background=True, poll_timeout=PATIENCE)
    client.shutdown()


def give_back(worker: Any, job: Any) -> Any:
    return job.data


def address_of(server: Gearmand) -> str:
    return "{}:{}".format(*server.address)


@pytest.fixture
def worker(gearman: Any, host: str, task: str) -> Any:
    """A worker whose program calls the three methods."""
    worker = gearman.GearmanWorker([host])
    worker.register_task(task, give_back)
    yield worker
    worker.shutdown()


@pytest.fixture
def counting(load: Load, task: str) -> Any:
    """A function that makes a worker with a copy of `work` that ends after `jobs` jobs."""
    made: list[Any] = []

    def make(*hosts: Any, jobs: int) -> Any:
        worker = load("counting_worker").CountingWorker(list(hosts), max_jobs=jobs)
        worker.register_task(task, give_back)
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.shutdown()


# Loops that end.


def test_counter_ends_the_loop_and_the_worker_works_again(
    counting: Any, gearman: Any, server: Gearmand, host: str, task: str
) -> None:
    """The worker does exactly the counted number of jobs, and closes its connection."""
    submit(gearman, host, task, 6)
    worker = counting(host, jobs=2)
    for left in (4, 2, 0):
        worker.counter, worker.cont = 1, True
        worker.work()
        assert not worker.connection_list[0].connected
        assert server.counts(task) == (left, 0, 0)


def test_several_servers_with_a_dead_one_are_served(
    counting: Any, gearman: Any, launch: Callable[[], Gearmand], task: str
) -> None:
    servers = [launch(), launch()]
    hosts = [address_of(server) for server in servers]
    for host in hosts:
        submit(gearman, host, task, 3)
    worker = counting(*hosts, f"127.0.0.1:{free_port()}", jobs=6)
    worker.work()
    assert [connection.connected for connection in worker.connection_list] == [False] * 3
    assert [server.counts(task)[0] for server in servers] == [0, 0]


def test_reconnected_server_is_closed_with_the_others(
    counting: Any, gearman: Any, launch: Callable[[], Gearmand], task: str
) -> None:
    """The program does not know that connection, which still has to end with the others."""
    first, second = launch(), launch()
    second.kill()
    worker = counting(address_of(first), address_of(second), jobs=1)
    call = spawn(worker.work)
    eventually(lambda: first.counts(task)[2] == 1)
    second.start()
    eventually(lambda: second.counts(task)[2] == 1)
    submit(gearman, address_of(first), task, 1)
    call.result(PATIENCE)
    assert [connection.connected for connection in worker.connection_list] == [False, False]
    eventually(lambda: second.counts(task)[2] == 0)


def test_job_does_not_wait_for_a_silent_server(
    counting: Any, gearman: Any, server: Gearmand, host: str, task: str
) -> None:
    """The job does not wait until the attempt to connect times out."""
    submit(gearman, host, task, 2)
    with black_hole() as hole:
        begun = time.monotonic()
        counting(host, hole, jobs=2).work()
        assert time.monotonic() - begun < 5
    assert server.counts(task)[0] == 0


# The three methods.


def test_when_the_callback_is_called(gearman: Any, worker: Any, host: str, task: str) -> None:
    """The callback is called first with False, then after a received job, then after it is done."""
    submit(gearman, host, task, 2)
    seen: list[Any] = []

    def callback(worker: Any, job: Any) -> Any:
        seen.append(job.data)
        return job.data

    def go_on(any_activity: bool) -> bool:
        seen.append((any_activity, worker.has_job_lock()))
        return seen.count(b"1") == 0

    worker.register_task(task, callback)
    connections = worker.establish_worker_connections()
    assert worker.poll_connections_until_stopped(connections, go_on, timeout=PATIENCE) is False
    told = [entry for entry in seen if isinstance(entry, tuple)]
    assert not told[0][0] or told[0][1]
    assert all(active for active, _ in told[1:])
    for data in (b"0", b"1"):
        before, after = seen[seen.index(data) - 1], seen[seen.index(data) + 1]
        assert before[1] is True
        assert after == (True, False)


def test_poll_returns_true_after_its_timeout(worker: Any) -> None:
    connections = worker.establish_worker_connections()
    for timeout in (0, 0.05):
        begun = time.monotonic()
        assert worker.poll_connections_until_stopped(connections, lambda _: True, timeout) is True
        assert timeout <= time.monotonic() - begun < PATIENCE
    assert connections[0].connected


def test_poll_without_connections_raises(gearman: Any, task: str) -> None:
    worker = gearman.GearmanWorker([f"127.0.0.1:{free_port()}"])
    worker.register_task(task, give_back)
    for _ in range(3):
        assert worker.establish_worker_connections() == []
        with pytest.raises(gearman.errors.ServerUnavailable, match="no valid connections in list"):
            worker.poll_connections_until_stopped([], lambda _: True)
    with pytest.raises(gearman.errors.ConnectionError):
        worker.establish_connection(worker.connection_list[0])


def test_establish_connection_connects_all_servers(
    gearman: Any, launch: Callable[[], Gearmand], task: str
) -> None:
    worker = gearman.GearmanWorker([address_of(launch()) for _ in range(2)])
    worker.register_task(task, give_back)
    first, second = worker.connection_list
    assert worker.establish_connection(first) is first
    assert (first.connected, second.connected) == (True, True)
    first.close()
    assert (first.connected, second.connected) == (False, True)
    second.close()
    assert (first.connected, second.connected) == (False, False)


def test_many_polls_with_timeouts_lose_no_job(client: Any, worker: Any, task: str) -> None:
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            connections = worker.establish_worker_connections()
            worker.poll_connections_until_stopped(connections, lambda _: not stop.is_set(), 0.001)

    call = spawn(loop)
    try:
        for number in range(100):
            data = str(number).encode()
            assert client.submit_job(task, data, poll_timeout=PATIENCE).result == data
    finally:
        stop.set()
        call.result(PATIENCE)


# A server that dies.


def test_retry_loop_survives_restarts(
    gearman: Any, counting: Any, launch: Callable[[], Gearmand], task: str
) -> None:
    """The worker continues after each restart of the server, and does each job once."""
    server = launch()
    host = address_of(server)
    worker = counting(host, jobs=1000)
    done: list[Any] = []
    worker.register_task(task, lambda worker, job: done.append(job.data))
    call = spawn(worker.work_and_retry)
    for count in range(1, 4):
        submit(gearman, host, task, 4)
        eventually(lambda count=count: len(done) == 4 * count)  # type: ignore[misc]
        server.kill()
        server.start()
    worker.cont = False
    submit(gearman, host, task, 1)
    # The worker might not notice some of the three restarts.
    assert call.result(PATIENCE) >= 1
    assert sorted(done[:12]) == sorted([b"0", b"1", b"2", b"3"] * 3)


# Jobs that are held or just done when the program leaves the loop.


@pytest.mark.parametrize("how", ["close", "poll", "work"])
def test_held_job_is_done_once(
    gearman: Any, worker: Any, start_worker: Any, server: Gearmand, host: str, task: str, how: str
) -> None:
    """Another worker does it after a close. Otherwise, the next poll or `work` does it.

    Some programs call `establish_worker_connections` to check for a server.
    """
    submit(gearman, host, task, 1)
    done = []

    def callback(worker: Any, job: Any) -> None:
        done.append(job.data)
        worker.stop()

    worker.register_task(task, callback)
    connections = worker.establish_worker_connections()
    poll = worker.poll_connections_until_stopped
    poll(connections, lambda _: not worker.has_job_lock(), PATIENCE)
    assert worker.has_job_lock()
    assert not done
    if how == "close":
        connections[0].close()
        assert not worker.has_job_lock()
        done = start_worker(server.address, {task: echo}).order
    elif how == "poll":
        poll(connections, lambda _: not done, PATIENCE)
        connections[0].close()
    else:
        worker.work()
    eventually(lambda: server.counts(task)[0] == 0)
    assert done == [b"0"]


def test_job_that_arrives_during_close_is_left_to_other_workers(
    gearman: Any, worker: Any, server: Gearmand, host: str, task: str
) -> None:
    submit(gearman, host, task, 1)
    for _ in range(100):
        for connection in worker.establish_worker_connections():
            connection.close()
    eventually(lambda: server.counts(task) == (1, 0, 0))


def test_result_right_before_close_arrives(client: Any, worker: Any, task: str) -> None:
    """The result arrives, and the job is not done twice."""
    done: list[Any] = []

    def callback(worker: Any, job: Any) -> Any:
        done.append(job)
        return b"x" * 100_000

    worker.register_task(task, callback)
    for _ in range(20):
        done.clear()
        request = client.submit_job(task, b"", wait_until_complete=False)
        connections = worker.establish_worker_connections()
        worker.poll_connections_until_stopped(connections, lambda _: not done, PATIENCE)
        connections[0].close()
        client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert (request.state, len(request.result or b"")) == ("COMPLETE", 100_000)


def test_dropped_worker_closes_its_connections(
    gearman: Any, start_worker: Any, server: Gearmand, host: str, task: str
) -> None:
    """The connections are closed, and another worker does the held job."""
    submit(gearman, host, task, 1)
    worker = gearman.GearmanWorker([host])
    worker.register_task(task, give_back)
    worker.establish_worker_connections()
    del worker
    other = start_worker(server.address, {task: echo})
    eventually(lambda: other.order == [b"0"])
    eventually(lambda: server.counts(task) == (0, 0, 1))


def test_shutdown_by_another_thread_ends_the_poll(gearman: Any, host: str, task: str) -> None:
    """The poll ends at once, as after the loss of the server."""
    for _ in range(20):
        worker = gearman.GearmanWorker([host])
        worker.register_task(task, give_back)
        connections = worker.establish_worker_connections()
        call = spawn(worker.poll_connections_until_stopped, connections, lambda _: True)
        worker.shutdown()
        with pytest.raises(gearman.errors.ServerUnavailable):
            call.result(PATIENCE)
    with pytest.raises(gearman.errors.InvalidWorkerState, match="shut down"):
        worker.work()
