"""The programs of an archive, and the objects that programs' own tests create by hand."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tests.support import PATIENCE, Gearmand

if TYPE_CHECKING:
    from collections.abc import Callable

    Load = Callable[[str], Any]
    Work = Callable[..., Any]


def test_jobs_give_results(
    load: Load, work: Work, server: Gearmand, host: str, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    archive = load("archive")
    stop = threading.Event()
    worker = archive.ArchiveWorker([host], [task], shutdown_event=stop)
    call = work(worker, poll_timeout=0.05)
    client = archive.ArchiveClient([host])
    requests = [client.submit(task, arguments) for arguments in ("file 1", "crash", "file 2")]
    assert set(client.collect(requests)) == set(requests)
    assert [request.state for request in requests] == ["COMPLETE", "FAILED", "COMPLETE"]
    assert [request.result for request in requests[::2]] == [
        {"stdout": "FILE 1"},
        {"stdout": "FILE 2"},
    ]
    assert "an exception in a job" in caplog.messages
    assert worker.uniques == [request.unique for request in requests]
    assert worker.client_id in server.client_ids()
    stop.set()
    call.result(PATIENCE)
    assert not any(connection.connected for connection in worker.connection_list)
    client.shutdown()


def test_wait_ends_when_the_server_dies(
    gearman: Any, load: Load, launch: Callable[[], Gearmand], task: str
) -> None:
    server = launch()
    client = load("archive").ArchiveClient(["{}:{}".format(*server.address)])
    request = client.submit(task, "file")
    client.wait_until_jobs_accepted([request])
    server.kill()
    with pytest.raises(gearman.errors.ServerUnavailable, match="found no valid connections"):
        client.wait_until_any_job_completed([request], poll_timeout=PATIENCE)
    assert request.state == gearman.JOB_UNKNOWN
    client.shutdown()


def test_wait_until_any_job_completed_returns_the_requests(
    gearman: Any, client: Any, start_worker: Callable[..., Any], server: Gearmand, task: str
) -> None:
    start_worker(server.address, {task: lambda job: job.data})
    never = client.submit_job(f"{task}-never", b"", wait_until_complete=False)
    soon = client.submit_job(task, b"soon", wait_until_complete=False)
    requests = [never, soon]
    assert client.wait_until_any_job_completed(requests) is requests
    assert (never.state, soon.state) == (gearman.JOB_CREATED, gearman.JOB_COMPLETE)
    assert client.wait_until_any_job_completed([never], poll_timeout=0.01) == [never]
    assert client.wait_until_any_job_completed([]) == []


def test_requests_can_be_created_by_hand(gearman: Any) -> None:
    stand_in = mock.Mock()
    request = gearman.job.GearmanJobRequest(stand_in, background=True, max_attempts=0)
    assert request.job is request.gearman_job is stand_in
    assert (request.state, request.max_connection_attempts) == (gearman.JOB_UNKNOWN, 0)
    assert not request.complete
    request.state = gearman.JOB_COMPLETE
    request.result = {"task_results": {}}
    assert request.complete
    assert request.result == {"task_results": {}}
    request.state = gearman.JOB_FAILED
    request.exception = ValueError("Error!")
    assert str(request.exception) == "Error!"
    request.status = {"known": True}
    assert request.status == {"known": True}
    assert "FAILED" in repr(request)


def test_jobs_can_be_created_by_hand(load: Load, gearman: Any) -> None:
    """Tests of callbacks create such jobs."""
    worker = load("archive").ArchiveWorker(["localhost"], ["a"])
    data = {"arguments": "x"}
    job = gearman.job.GearmanJob(None, None, "a", "unique", data)
    assert worker.worker_abilities["a"](worker, job) == {"stdout": "X"}
    empty = gearman.job.GearmanJob(None, None, None, None, data)
    assert (empty.connection, empty.handle, empty.task, empty.unique) == (None,) * 4
    assert empty.to_dict() == {"task": None, "job_handle": None, "unique": None, "data": data}
