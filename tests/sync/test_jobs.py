"""Jobs that gearmand gives to others than ours: what their workers see, and that they are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import gearman_sync as gearman
from gearman_sync import GearmanClient
from gearman_sync.testing import Gate, ScriptedJob, ScriptedWorker, echo, reverse
from tests.support import Gearmand, Program, eventually, require, spawn, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., ScriptedWorker]
    MakeClient = Callable[..., GearmanClient]


@pytest.mark.slow
def test_large_payload(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: reverse})
    data = b"a" * 10_000_000 + b"b" * 10_000_000
    request = client.submit_job(task, data)
    assert request.result == data[::-1]


def test_one_unique_in_two_clients(
    gearmand: Gearmand, make_client: MakeClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate(reverse)
    worker = start_worker(gearmand.address, {task: gate})
    clients = [make_client(gearmand.address) for _ in range(2)]
    requests = [
        client.submit_job(task, b"data", unique="same", wait_until_complete=False)
        for client in clients
    ]
    wait_for(gate.begun)
    status = clients[0].get_job_status(requests[0], by_unique=True).status
    assert status["client_count"] == 2
    gate.open.set()
    for client, request in zip(clients, requests):
        client.wait_until_jobs_completed([request])
        assert request.result == b"atad"
    assert len(worker.jobs) == 1


def test_routing_by_unique_coalesces(
    gearmand: Gearmand,
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    servers = [gearmand, start_gearmand()]
    hosts = [server.address for server in servers]
    jobs = [{"task": task, "data": b"%d" % n, "unique": f"u{n}"} for n in range(20)]
    clients = [
        make_client(*hosts, routing="unique"),
        make_client(*reversed(hosts), routing="unique"),
    ]
    requests = [client.submit_multiple_jobs(jobs, wait_until_complete=False) for client in clients]
    counts = [server.counts(task)[0] for server in servers]
    assert sum(counts) == 20
    assert all(counts)
    workers = [start_worker(host, {task: echo}) for host in hosts]
    for client, submitted in zip(clients, requests):
        client.wait_until_jobs_completed(submitted)
        assert [request.result for request in submitted] == [job["data"] for job in jobs]
    assert sum(len(worker.jobs) for worker in workers) == 20


@pytest.mark.parametrize("background", [False, True])
def test_reducer(
    gearmand: Gearmand,
    client: GearmanClient,
    task: str,
    start_worker: StartWorker,
    background: bool,
) -> None:
    worker = start_worker(gearmand.address, {task: echo})
    request = client.submit_job(task, b"da\0ta", background=background, reducer="sum")
    eventually(lambda: worker.jobs)
    assert worker.jobs[0].reducer == b"sum"
    assert worker.jobs[0].data == b"da\0ta"
    assert request.result == (None if background else b"da\0ta")


def test_libgearmans_worker(gearmand: Gearmand, client: GearmanClient, task: str) -> None:
    program = Program(
        *(require("gearman"), "-h", "127.0.0.1", "-p", str(gearmand.port)),
        *("-w", "-f", task, require("rev")),
    )
    program.spawn()
    try:
        request = client.submit_job(task, b"hello", poll_timeout=20)
        assert request.result.strip() == b"olleh"
        requests = client.submit_multiple_jobs([{"task": task, "data": b"ab"}] * 3)
        assert [request.result.strip() for request in requests] == [b"ba"] * 3
    finally:
        program.kill()


def test_worker_lost_while_it_has_the_job(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    def die(job: ScriptedJob) -> bytes:
        raise OSError

    future = spawn(client.submit_job, task, b"data")
    gearmand.wait_for_jobs(task, 1)
    first = start_worker(gearmand.address, {task: die})
    eventually(lambda: first.jobs)
    first.stop()
    start_worker(gearmand.address, {task: echo})
    assert future.result(20).result == b"data"


def test_job_retries_used_up(
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    def die(job: ScriptedJob) -> bytes:
        raise OSError

    server = start_gearmand("--job-retries", "1")
    future = spawn(make_client(server.address).submit_job, task, b"data")
    server.wait_for_jobs(task, 1)
    worker = start_worker(server.address, {task: die})
    eventually(lambda: worker.jobs)
    worker.stop()
    request = future.result(20)
    assert request.state == gearman.JOB_FAILED
    assert request.exception is None
