"""The types of `gearman_sync`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, assert_type

import gearman_sync as gearman
from gearman_proto.constants import State
from gearman_sync.testing import JobDouble, JobRun, WorkerUnderTest

if TYPE_CHECKING:
    from collections.abc import Callable


def shout(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    assert_type(job.task, str)
    assert_type(job.data, Any)
    assert_type(job.unique, str | None)
    assert_type(job.handle, str | None)
    assert_type(worker.send_job_status(job, 1, 2), None)
    assert_type(worker.send_job_data(job, b"part"), None)
    assert_type(worker.send_job_warning(job, b"careful"), None)
    return bytes(job.data).upper()


def length(job: gearman.WorkerJob) -> str:
    return str(len(job.data))


class Worker(gearman.GearmanWorker):
    """What a worker's hooks are given and give."""

    def on_job_execute(self, current_job: gearman.WorkerJob) -> bool:
        return assert_type(super().on_job_execute(current_job), bool)

    def on_job_complete(self, current_job: gearman.WorkerJob, job_result: Any) -> bool:
        return assert_type(super().on_job_complete(current_job, job_result), bool)

    def after_job(self) -> bool:
        return assert_type(super().after_job(), bool)


def test_client_and_worker() -> None:
    with gearman.JobServer() as server:
        assert_type(server, gearman.JobServer)
        assert_type(server.address, gearman.HostAndPort)
        assert_type(server.address.host, str)
        assert_type(server.address.port, int)
        worker = Worker([server.address], max_jobs=2)
        assert_type(worker.register_task("shout", shout), str)
        tasks = gearman.Tasks(around=[contextlib.nullcontext])
        assert tasks.task("louder")(shout) is shout
        assert tasks.task("length", timeout=5)(length) is length
        assert_type(worker.register(tasks), None)
        assert_type(worker.register({"length": length}), None)
        assert_type(gearman.current_job(), gearman.WorkerJob | None)
        assert_type(worker.set_client_id("typed"), str)
        thread = threading.Thread(target=worker.work)
        thread.start()
        with gearman.GearmanClient([server.address]) as client:
            check_client(client)
        assert_type(worker.stop(), None)
        thread.join()
        assert_type(worker.unregister_task("shout"), str)
        assert_type(worker.shutdown(), None)
        assert_type(server.wait(0), bool)
        assert_type(server.stop(), None)


def check_client(client: gearman.GearmanClient) -> None:
    assert_type(client, gearman.GearmanClient)
    request = client.submit_job("shout", b"one", poll_timeout=10.0)
    check_request(request)
    jobs = [{"task": "shout", "data": b"two"}]
    requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
    assert_type(requests, gearman.Batch)
    assert_type(client.wait_until_jobs_accepted(requests), gearman.Batch)
    ended = client.as_completed(requests)
    assert_type(ended, Iterator[gearman.GearmanJobRequest])
    assert [each.result for each in ended] == [b"TWO"]
    assert_type(client.wait_until_jobs_completed(requests), gearman.Batch)
    assert_type(client.submit_multiple_requests(requests), gearman.Batch)
    [request] = client.submit_multiple_jobs(jobs, wait_until_complete=False)
    updates = client.updates(request)
    assert_type(updates, Iterator[gearman.JobUpdate])
    assert_type(client.results(iter(jobs)), Generator[gearman.GearmanJobRequest, None, None])
    many = client.updates([request])
    assert_type(many, Iterator[tuple[gearman.GearmanJobRequest, gearman.JobUpdate]])
    for update in updates:
        check_update(update)
    assert_type(client.get_job_status(request), gearman.GearmanJobRequest)
    assert_type(client.get_job_statuses([request]), list[gearman.GearmanJobRequest])
    assert_type(client.shutdown(), None)


def check_request(request: gearman.GearmanJobRequest) -> None:
    assert_type(request.state, State)
    assert_type(request.result, Any)
    assert_type(request.exception, Any)
    assert_type(request.complete, bool)
    assert_type(request.timed_out, bool)
    assert_type(request.error, Exception | None)
    assert_type(request.reason, str | None)
    assert_type(request.unique, str | None)
    assert_type(request.handle, str | None)
    assert_type(request.status, gearman.JobStatus)
    assert_type(request.job, gearman.GearmanJob)


def check_update(update: gearman.JobUpdate) -> None:
    if isinstance(update, gearman.JobProgress):
        assert_type(update.numerator, int)
    elif isinstance(update, gearman.JobEnded):
        assert_type(update.state, State)
    else:
        assert_type(update, gearman.JobData | gearman.JobWarning)
        assert_type(update.data, Any)


def test_admin_client() -> None:
    with (
        gearman.JobServer() as server,
        gearman.GearmanAdminClient([server.address]) as admin,
    ):
        assert_type(admin, gearman.GearmanAdminClient)
        assert_type(admin.create_function("shout"), str)
        [function] = admin.get_status()
        assert_type(function, gearman.FunctionStatus)
        assert_type((function.task, function.queued), tuple[str, int])
        assert_type(admin.get_priority_status(), tuple[gearman.PriorityStatus, ...])
        assert_type(admin.get_workers(), tuple[gearman.WorkerStatus, ...])
        assert_type(admin.get_jobs(), tuple[gearman.JobRecord, ...])
        assert_type(admin.get_unique_jobs(), tuple[str, ...])
        assert_type(admin.get_version(), str)
        assert_type(admin.get_pid(), int)
        assert_type(admin.ping_server(), float)
        assert_type(admin.send_maxqueue("shout", 3), str)
        assert_type(admin.drop_function("shout"), str)
        assert_type(admin.send_shutdown(), str)


def test_job_double() -> None:
    job = JobDouble("shout", b"data")
    assert_type(job.call(lambda worker, job: job.data), Any)


def test_fixtures(
    gearman_server: gearman.HostAndPort, gearman_worker: Callable[..., WorkerUnderTest]
) -> None:
    with gearman.GearmanClient([gearman_server]) as client:
        client.submit_job("shout", b"hi", background=True)
    worker = gearman_worker({"shout": shout})
    runs = worker.drain()
    assert_type(runs, list[JobRun])
    [run] = runs
    assert_type(run.result, Any)
