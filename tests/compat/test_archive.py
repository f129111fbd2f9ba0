"""The programs of an archive: batches of tasks, remote procedure calls, and reconnecting."""

from __future__ import annotations

import logging
import threading
import uuid
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tests.support import PATIENCE, Gearmand, eventually, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    Load = Callable[[str], Any]
    Work = Callable[..., Any]


def test_batches_give_results(
    load: Load, work: Work, server: Gearmand, host: str, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    worker = load("archive_worker").ArchiveWorker([host], [task], shutdown_event=stop)
    call = work(worker, poll_timeout=0.05)
    backend = load("archive_backend").Backend(host)
    tasks = {"bad": "crash", "with it": "file", "task-1": "file 1", "task-2": "file 2"}
    for name, arguments in {**tasks, "task-3": "file 3"}.items():
        backend.submit_task(task, name, arguments)
    assert dict(backend.wait_for_results(task)) == {
        "bad": "failed",
        "with it": "failed",
        **{f"task-{n}": {"exitCode": 0, "stdout": f"FILE {n}"} for n in (1, 2, 3)},
    }
    assert "an exception in a job" in caplog.messages
    assert worker.uniques == [str(batch.uuid) for batch in backend.batches]
    assert worker.client_id in server.client_ids()
    stop.set()
    call.result(PATIENCE)
    assert not any(connection.connected for connection in worker.connection_list)
    backend.client.shutdown()


def test_wait_for_a_batch_ends_when_its_server_dies(
    gearman: Any, load: Load, launch: Callable[[], Gearmand], task: str
) -> None:
    server = launch()
    backend = load("archive_backend").Backend("{}:{}".format(*server.address))
    backend.submit_task(task, "task", "file")
    backend.flush(task)
    request = backend.batches[0].pending
    backend.client.wait_until_jobs_accepted([request])
    server.kill()
    with pytest.raises(gearman.errors.ServerUnavailable, match="found no valid connections"):
        backend.client.wait_until_any_job_completed([request], poll_timeout=PATIENCE)
    assert request.state == gearman.JOB_UNKNOWN
    backend.client.shutdown()


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


# Reconnecting.


@pytest.mark.slow
def test_reconnected_worker_registers_again(
    load: Load, work: Work, launch: Callable[[], Gearmand], task: str, caplog: Any
) -> None:
    """All registrations are repeated, and both kinds of calls do jobs."""
    caplog.set_level(logging.INFO)
    server = launch()
    module = load("reconnecting")
    stop, away = threading.Event(), threading.Event()
    # The default is one minute.
    worker = module.GearmanWorker(["{}:{}".format(*server.address)], max_outage=1.0)
    worker.set_client_id(b"worker-1")
    for name in (task, f"{task}-2"):
        worker.register_task(name.encode(), lambda worker, job: job.data)
    call = work(
        worker,
        *(stop, logging.getLogger("test")),
        method="work_with_reconnect",
        on_connection_unavailable=away.set,
    )
    client = module.GearmanClient(["{}:{}".format(*server.address)])
    assert client.submit_job(task, b"before", poll_timeout=PATIENCE).result == b"before"
    server.kill()
    wait_for(away)
    server.start()
    request = client.submit_job(f"{task}-2", b"after", max_retries=9, poll_timeout=PATIENCE)
    assert request.result == b"after"
    assert "worker-1" in server.client_ids()
    eventually(lambda: "reconnected" in caplog.messages)
    assert sum(message.startswith("unavailable: ") for message in caplog.messages) == 1
    stop.set()
    worker.shutdown()
    call.result(PATIENCE)
    client.shutdown()


def test_worker_without_its_constructor_works(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    """Some tests of programs skip the constructor of the worker's class."""
    module: Any = load("reconnecting")
    connections = iter([[], [object()], [object()]])
    outcomes = iter([module.gearman.errors.ServerUnavailable("connection lost"), None])

    class FakeReconnectingWorker(module.GearmanWorker):  # type: ignore[misc]
        def __init__(self) -> None:
            self.connection_list = ["gearman.service:4730"]

        def establish_worker_connections(self) -> Any:
            return next(connections)

        def work(self, poll_timeout: float = 60.0) -> None:
            if (outcome := next(outcomes)) is not None:
                raise outcome

    stop = mock.Mock()
    stop.is_set.return_value = stop.wait.return_value = False
    FakeReconnectingWorker().work_with_reconnect(stop, logging.getLogger("test"))
    assert stop.wait.call_count == 2
    assert "gearman.service:4730" in caplog.text


# Programs' own tests, with mocks.


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


def test_client_can_be_mocked(load: Load, gearman: Any) -> None:
    """A program's own test, whose requests were never submitted."""
    module = load("archive_backend")
    request = gearman.job.GearmanJobRequest(mock.Mock(), background=True, max_attempts=0)

    def complete(*args: Any) -> list[Any]:
        request.state = gearman.JOB_COMPLETE
        request.result = {"task_results": {"task": "done"}}
        return [request]

    with mock.patch.object(module, "BackendClient") as kind:
        kind.return_value.submit_job.return_value = request
        kind.return_value.wait_until_any_job_completed.side_effect = complete
        backend = module.Backend("host")
        backend.submit_task("name", "task", "file")
        assert dict(backend.wait_for_results("name")) == {"task": "done"}
    submitted = kind.return_value.submit_job.call_args[1]
    assert uuid.UUID(submitted["unique"].decode())
    assert submitted["task"] == b"name"


def test_jobs_can_be_created_by_hand(load: Load, gearman: Any) -> None:
    """Tests of callbacks create such jobs."""
    worker = load("archive_worker").ArchiveWorker(["localhost"], ["a"])
    data = {"tasks": {"1": {"arguments": "x"}}}
    job = gearman.job.GearmanJob(None, None, "a", "unique", data)
    assert worker.worker_abilities["a"](worker, job) == {
        "task_results": {"1": {"exitCode": 0, "stdout": "X"}}
    }
    empty = gearman.job.GearmanJob(None, None, None, None, data)
    assert (empty.connection, empty.handle, empty.task, empty.unique) == (None,) * 4
    assert empty.to_dict() == {"task": None, "job_handle": None, "unique": None, "data": data}
    sent = mock.Mock(unique=b"bytes", data=data)
    assert worker.handle_job("a", worker, sent)["task_results"]["1"]["stdout"] == "X"
