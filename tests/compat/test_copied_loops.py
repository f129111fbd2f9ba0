"""Workers with copies of python-gearman's `work`, which consists of three methods."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from gearman_sync.testing import Gate, echo
from tests.support import (
    PATIENCE,
    EmbeddedServer,
    Gearmand,
    black_hole,
    eventually,
    free_port,
    spawn,
    wait_for,
)

from .support import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .support import Running

    Load = Callable[[str], Any]
    Work = Callable[..., Any]
    Server = Gearmand | EmbeddedServer


def submit(gearman: Any, host: str, task: str, count: int) -> None:
    """Submit `count` background jobs."""
    client = gearman.GearmanClient([host])
    jobs = [{"task": task, "data": str(number), "unique": str(number)} for number in range(count)]
    client.submit_multiple_jobs(jobs, background=True, poll_timeout=PATIENCE)
    client.shutdown()


def give_back(worker: Any, job: Any) -> Any:
    return job.data


# Loops that end.


def test_counter_ends_the_loop(
    load: Load, gearman: Any, server: Server, host: str, task: str
) -> None:
    """The worker does exactly the counted number of jobs."""
    module = load("counting_worker")
    submit(gearman, host, task, 5)
    for left in (3, 1):
        worker = module.CountingWorker([host], max_jobs=2)
        worker.register_task(task, give_back)
        worker.work()
        assert not worker.connection_list[0].connected
        assert server.counts(task) == (left, 0, 0)


def test_worker_works_again_after_the_loop(
    load: Load, gearman: Any, server: Server, host: str, task: str
) -> None:
    """The same worker works again after the loop has closed each of its connections."""
    module = load("counting_worker")
    submit(gearman, host, task, 6)
    worker = module.CountingWorker([host], max_jobs=2)
    worker.register_task(task, give_back)
    for left in (4, 2, 0):
        worker.counter, worker.cont = 1, True
        worker.work()
        assert server.counts(task) == (left, 0, 0)


def test_several_servers_with_a_dead_one_are_served(
    load: Load, gearman: Any, launch: Callable[[], Server], task: str, work: Work
) -> None:
    """One server is dead. The worker does all jobs of the others."""
    module = load("counting_worker")
    hosts = ["{}:{}".format(*launch().address) for _ in range(2)]
    for host in hosts:
        submit(gearman, host, task, 3)
    worker = module.CountingWorker([*hosts, f"127.0.0.1:{free_port()}"], max_jobs=6)
    worker.register_task(task, give_back)
    work(worker).result(PATIENCE)
    assert [connection.connected for connection in worker.connection_list] == [False] * 3
    for host in hosts:
        assert status_of(gearman, host, task)["queued"] == 0


def status_of(gearman: Any, host: str, task: str) -> dict[str, Any]:
    (row,) = [row for row in gearman.GearmanAdminClient([host]).get_status() if row["task"] == task]
    return dict(row)


@pytest.mark.slow
def test_several_processes_poll_pickled_workers(
    start: Callable[..., Running], gearman: Any, server: Server, host: str, task: str
) -> None:
    """Each process receives a pickled worker, and polls it with functions outside of its class."""
    submit(gearman, host, task, 2)
    out, errors, status = start(PROGRAMS / "counting_worker.py", host, task).end()
    assert (out, status) == ("left [0, 0]\n", 0), errors
    assert server.counts(task)[0] == 0


# The callback's argument.


def test_when_the_callback_is_called(gearman: Any, host: str, task: str) -> None:
    """The callback is called first with False, then after a received job, then after it is done."""
    submit(gearman, host, task, 2)
    worker = gearman.GearmanWorker([host])
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
    for connection in connections:
        connection.close()


def test_poll_returns_true_after_its_timeout(gearman: Any, host: str, task: str) -> None:
    worker = gearman.GearmanWorker([host])
    worker.register_task(task, give_back)
    connections = worker.establish_worker_connections()
    for timeout in (0, 0.05):
        begun = time.monotonic()
        assert worker.poll_connections_until_stopped(connections, lambda _: True, timeout) is True
        assert timeout <= time.monotonic() - begun < PATIENCE
    assert connections[0].connected
    connections[0].close()
    assert not connections[0].connected


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
    gearman: Any, launch: Callable[[], Server], task: str
) -> None:
    hosts = ["{}:{}".format(*launch().address) for _ in range(2)]
    worker = gearman.GearmanWorker(hosts)
    worker.register_task(task, give_back)
    first, second = worker.connection_list
    assert worker.establish_connection(first) is first
    assert first.connected
    assert second.connected
    first.close()
    assert (first.connected, second.connected) == (False, True)
    second.close()
    assert (first.connected, second.connected) == (False, False)


# Servers that die.


@pytest.fixture
def counting(load: Load, gearman: Any, launch: Callable[[], Server], task: str) -> Iterator[Any]:
    """A server that can be killed, a worker with a copy of `work`, and a list of the jobs done."""

    class Counting:
        server = launch()
        host = "{}:{}".format(*server.address)
        done: ClassVar[list[bytes]] = []
        worker = load("counting_worker").CountingWorker([host], max_jobs=1000)

    def callback(worker: Any, job: Any) -> Any:
        Counting.done.append(job.data)
        return job.data

    Counting.worker.register_task(task, callback)
    yield Counting
    Counting.worker.shutdown()


def test_killed_server_ends_the_loop(counting: Any, task: str) -> None:
    call = spawn(counting.worker.work)
    eventually(lambda: counting.server.counts(task)[2] == 1)
    counting.server.kill()
    with pytest.raises(Exception, match="found no valid connections in list") as caught:
        call.result(PATIENCE)
    assert type(caught.value).__name__ == "ServerUnavailable"


def test_retry_loop_survives_restarts(counting: Any, gearman: Any, task: str) -> None:
    """The worker continues after each restart of the server, and does each job once."""
    call = spawn(counting.worker.work_and_retry)
    for count in range(1, 4):
        submit(gearman, counting.host, task, 4)
        eventually(lambda count=count: len(counting.done) == 4 * count)  # type: ignore[misc]
        counting.server.kill()
        counting.server.start()
    submit(gearman, counting.host, task, 4)
    eventually(lambda: len(counting.done) == 16)
    eventually(lambda: counting.server.counts(task)[:2] == (0, 0))
    counting.worker.cont = False
    submit(gearman, counting.host, task, 1)
    # The worker might not notice some of the three restarts.
    assert call.result(PATIENCE) >= 1
    assert sorted(counting.done[:16]) == sorted([b"0", b"1", b"2", b"3"] * 4)


def test_server_that_dies_during_a_job_gets_it_again(
    counting: Any, gearman: Any, task: str, start_worker: Any
) -> None:
    """The client submits the job again. The worker's result of the first run is discarded."""
    begun, opened = threading.Event(), threading.Event()

    def slow(worker: Any, job: Any) -> Any:
        begun.set()
        wait_for(opened)
        counting.done.append(job.data)
        return job.data

    counting.worker.register_task(task, slow)
    call = spawn(counting.worker.work_and_retry)
    client = gearman.GearmanClient([counting.host])
    request = client.submit_job(task, b"job", wait_until_complete=False)
    wait_for(begun)
    counting.server.kill()
    client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert request.state == gearman.JOB_UNKNOWN
    counting.server.start()
    opened.set()
    client.submit_multiple_requests([request], poll_timeout=PATIENCE)
    assert request.result == b"job"
    assert counting.done == [b"job", b"job"]
    counting.worker.cont = False
    client.submit_job(task, b"last", background=True)
    call.result(PATIENCE)
    client.shutdown()


def test_reconnected_server_is_closed_with_the_others(
    load: Load, gearman: Any, launch: Callable[[], Server], task: str, work: Work
) -> None:
    """The program does not know that connection, which still has to end with the others."""
    first, second = launch(), launch()
    second.kill()
    hosts = ["{}:{}".format(*server.address) for server in (first, second)]
    worker = load("counting_worker").CountingWorker(hosts, max_jobs=1)
    worker.register_task(task, give_back)
    call = work(worker)
    eventually(lambda: first.counts(task)[2] == 1)
    second.start()
    eventually(lambda: second.counts(task)[2] == 1)
    submit(gearman, hosts[0], task, 1)
    call.result(PATIENCE)
    assert [connection.connected for connection in worker.connection_list] == [False, False]
    eventually(lambda: second.counts(task)[2] == 0)


def test_job_does_not_wait_for_a_silent_server(
    load: Load, gearman: Any, server: Server, host: str, task: str
) -> None:
    """The job does not wait until the attempt to connect times out."""
    submit(gearman, host, task, 2)
    with black_hole() as hole:
        worker = load("counting_worker").CountingWorker([host, hole], max_jobs=2)
        worker.register_task(task, give_back)
        begun = time.monotonic()
        worker.work()
        assert time.monotonic() - begun < 5
    assert server.counts(task)[0] == 0


# Jobs that are held or just done when the program leaves the loop.


def test_held_job_is_done_by_another_worker(
    gearman: Any, start_worker: Any, server: Server, host: str, task: str
) -> None:
    submit(gearman, host, task, 1)
    worker = gearman.GearmanWorker([host])
    worker.register_task(task, lambda worker, job: pytest.fail("it is not to be done"))
    connections = worker.establish_worker_connections()
    worker.poll_connections_until_stopped(
        connections, lambda _: not worker.has_job_lock(), PATIENCE
    )
    assert worker.has_job_lock()
    for connection in connections:
        connection.close()
    assert not worker.has_job_lock()
    other = start_worker(server.address, {task: echo})
    eventually(lambda: server.counts(task)[0] == 0)
    assert other.order == [b"0"]


def test_held_job_is_done_by_the_next_poll(
    gearman: Any, server: Server, host: str, task: str
) -> None:
    submit(gearman, host, task, 1)
    worker = gearman.GearmanWorker([host])
    done = []
    worker.register_task(task, lambda worker, job: done.append(job.data))
    connections = worker.establish_worker_connections()
    worker.poll_connections_until_stopped(
        connections, lambda _: not worker.has_job_lock(), PATIENCE
    )
    assert not done
    worker.poll_connections_until_stopped(connections, lambda _: not done, PATIENCE)
    assert done == [b"0"]
    connections[0].close()
    assert server.counts(task)[0] == 0


def test_held_job_is_done_when_work_is_called(
    gearman: Any, server: Server, host: str, task: str
) -> None:
    """Some programs call `establish_worker_connections` to check for a server."""
    submit(gearman, host, task, 1)
    worker = gearman.GearmanWorker([host])
    done = []

    def callback(worker: Any, job: Any) -> None:
        done.append(job.data)
        worker.stop()

    worker.register_task(task, callback)
    connections = worker.establish_worker_connections()
    worker.poll_connections_until_stopped(
        connections, lambda _: not worker.has_job_lock(), PATIENCE
    )
    worker.work()
    assert done == [b"0"]
    assert server.counts(task)[0] == 0


def close_after_a_job(gearman: Any, host: str, task: str) -> None:
    worker = gearman.GearmanWorker([host])
    done: list[Any] = []

    def callback(worker: Any, job: Any) -> Any:
        done.append(job)
        return b"x" * 100_000

    worker.register_task(task, callback)
    connections = worker.establish_worker_connections()
    worker.poll_connections_until_stopped(connections, lambda _: not done, PATIENCE)
    for connection in connections:
        connection.close()


def check_results(gearman: Any, host: str, task: str, count: int) -> None:
    client = gearman.GearmanClient([host])
    for _ in range(count):
        request = client.submit_job(task, b"", wait_until_complete=False)
        close_after_a_job(gearman, host, task)
        client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert (request.state, len(request.result or b"")) == ("COMPLETE", 100_000)
    client.shutdown()


def test_result_right_before_close_arrives(gearman: Any, host: str, task: str) -> None:
    """The result arrives, and the job is not done twice."""
    check_results(gearman, host, task, 20)


@pytest.mark.slow
def test_many_results_right_before_close_arrive(gearman: Any, host: str, task: str) -> None:
    check_results(gearman, host, task, 500)


def test_dropped_worker_closes_its_connections(
    gearman: Any, start_worker: Any, server: Server, host: str, task: str
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


def test_shutdown_by_another_thread_ends_the_poll(
    gearman: Any, server: Server, host: str, task: str
) -> None:
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


def test_many_polls_with_timeouts_lose_no_job(
    gearman: Any, server: Server, host: str, task: str, start_worker: Any
) -> None:
    """Polls time out repeatedly, with foreground jobs in between."""
    worker = gearman.GearmanWorker([host])
    worker.register_task(task, give_back)
    stop = threading.Event()

    def loop() -> None:
        connections: Any = []
        while not stop.is_set():
            connections = worker.establish_worker_connections()
            worker.poll_connections_until_stopped(connections, lambda _: not stop.is_set(), 0.001)
        for connection in connections:
            connection.close()

    call = spawn(loop)
    client = gearman.GearmanClient([host])
    try:
        for number in range(100):
            data = str(number).encode()
            assert client.submit_job(task, data, poll_timeout=PATIENCE).result == data
    finally:
        stop.set()
        call.result(PATIENCE)
    client.shutdown()


def test_two_workers_share_the_jobs(
    load: Load, gearman: Any, server: Server, host: str, task: str, work: Work
) -> None:
    """One of the two workers does each job, once."""
    module = load("counting_worker")
    submit(gearman, host, task, 40)
    done: list[Any] = []
    workers = [module.CountingWorker([host], max_jobs=1000) for _ in range(2)]
    for worker in workers:
        worker.register_task(task, lambda worker, job: done.append(job.data))
    calls = [work(worker, 0.05) for worker in workers]
    eventually(lambda: server.counts(task)[:2] == (0, 0))
    for worker in workers:
        worker.cont = False
        with contextlib.suppress(gearman.errors.ServerUnavailable):
            worker.shutdown()
    for call in calls:
        with contextlib.suppress(gearman.errors.ServerUnavailable):
            call.result(PATIENCE)
    assert sorted(done, key=int) == [str(number).encode() for number in range(40)]


def test_polling_does_not_wait_for_another_worker(
    gearman: Any, start_worker: Any, host: str, task: str
) -> None:
    """While one worker does a job, another one polls. Neither waits for the other."""
    gate = Gate()
    address = host.split(":")
    start_worker((address[0], int(address[1])), {f"{task}-slow": gate})
    client = gearman.GearmanClient([host])
    slow = client.submit_job(f"{task}-slow", b"slow", wait_until_complete=False)
    wait_for(gate.begun)
    quick = client.submit_job(task, b"quick", wait_until_complete=False)
    worker = gearman.GearmanWorker([host])
    connections = worker.establish_worker_connections()
    done: list[Any] = []

    def callback(worker: Any, job: Any) -> Any:
        done.append(job)
        return job.data

    worker.register_task(task, callback)
    worker.poll_connections_until_stopped(connections, lambda _: not done, timeout=PATIENCE)
    client.wait_until_jobs_completed([quick], poll_timeout=PATIENCE)
    assert (quick.result, slow.state) == (b"quick", "CREATED")
    gate.open.set()
    client.wait_until_jobs_completed([slow], poll_timeout=PATIENCE)
    connections[0].close()
    client.shutdown()
