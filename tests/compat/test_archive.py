"""The programs of an archive: batches of tasks, remote procedure calls, and reconnecting."""

from __future__ import annotations

import logging
import threading
import uuid
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tests.support import PATIENCE, EmbeddedServer, Gearmand, eventually, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    Load = Callable[[str], Any]
    Work = Callable[..., Any]
    Server = Gearmand | EmbeddedServer


def test_batches_give_results(load: Load, work: Work, server: Server, host: str, task: str) -> None:
    stop = threading.Event()
    worker = load("archive_worker").ArchiveWorker([host], [task], shutdown_event=stop)
    call = work(worker, poll_timeout=0.05)
    backend = load("archive_backend").Backend(host)
    for number in range(5):
        backend.submit_task(task, f"task-{number}", f"file {number}")
    results = dict(backend.wait_for_results(task))
    assert results == {
        f"task-{number}": {"exitCode": 0, "stdout": f"FILE {number}"} for number in range(5)
    }
    assert worker.uniques == [str(batch.uuid) for batch in backend.batches]
    assert worker.client_id in server.client_ids()
    stop.set()
    call.result(PATIENCE)
    assert not any(connection.connected for connection in worker.connection_list)
    backend.client.shutdown()


def test_crashed_batch_is_reported(
    load: Load, work: Work, host: str, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = load("archive_worker").ArchiveWorker([host], [task], max_jobs_to_process=1)
    call = work(worker)
    backend = load("archive_backend").Backend(host)
    backend.submit_task(task, "bad", "crash")
    backend.submit_task(task, "with it", "file")
    backend.submit_task(task, "good", "file")
    results = dict(backend.wait_for_results(task))
    assert results == {
        "bad": "failed",
        "with it": "failed",
        "good": {"exitCode": 0, "stdout": "FILE"},
    }
    assert "an exception in a job" in caplog.messages
    call.result(PATIENCE)  # The worker has processed one batch.
    backend.client.shutdown()


def test_wait_for_a_batch_ends_when_its_server_dies(
    gearman: Any, load: Load, launch: Callable[[], Server], task: str
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
    gearman: Any, start_worker: Callable[..., Any], server: Server, host: str, task: str
) -> None:
    start_worker(server.address, {task: lambda job: job.data})
    client = gearman.GearmanClient([host])
    never = client.submit_job(f"{task}-never", b"", wait_until_complete=False)
    soon = client.submit_job(task, b"soon", wait_until_complete=False)
    requests = [never, soon]
    assert client.wait_until_any_job_completed(requests) is requests
    assert (never.state, soon.state) == (gearman.JOB_CREATED, gearman.JOB_COMPLETE)
    assert client.wait_until_any_job_completed([never], poll_timeout=0.01) == [never]
    assert client.wait_until_any_job_completed([]) == []
    client.shutdown()


# Remote procedure calls.


@pytest.fixture
def rpc(load: Load, work: Work, host: str, task: str) -> Any:
    stop = threading.Event()
    module = load("rpc")
    call = work(module.RPCServer(host, task, stop), poll_timeout=0.05)
    yield module
    stop.set()
    call.result(PATIENCE)


def test_calls_give_results(rpc: Any, server: Server, host: str, task: str) -> None:
    assert rpc.call(host, f"{task}approve", {"jobUUID": "1-2"}) == ["approving: ", "1-2"]
    assert rpc.call(host, f"{task}list") == []
    with pytest.raises(rpc.RPCServerError, match="jobUUID"):
        rpc.call(host, f"{task}approve", {})
    with pytest.raises(rpc.RPCError, match="failed"):
        rpc.call(host, f"{task}break")
    assert f"{rpc.gethostname()}_RPCServer" in server.client_ids()


@pytest.mark.slow
def test_call_times_out(rpc: Any, host: str, task: str) -> None:
    """The request's state is CREATED, even after the shutdown of its client."""
    with pytest.raises(rpc.TimeoutError, match=r"2\.5"):
        rpc.call(host, f"{task}nobody", {}, timeout=2.5)


# Reconnecting.


@pytest.mark.slow
def test_reconnected_worker_registers_again(
    load: Load, work: Work, launch: Callable[[], Server], task: str, caplog: Any
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


class Results:
    """A worker that skips its class's constructor, as some tests do."""

    @staticmethod
    def make(module: Any, connections: list[Any], outcomes: list[Any]) -> Any:
        class FakeReconnectingWorker(module.GearmanWorker):  # type: ignore[misc]
            def __init__(self) -> None:
                self.connection_list = ["gearman.service:4730"]
                self.connections = iter(connections)
                self.outcomes = iter(outcomes)

            def establish_worker_connections(self) -> Any:
                return next(self.connections)

            def work(self, poll_timeout: float = 60.0) -> None:
                outcome = next(self.outcomes)
                if outcome is not None:
                    raise outcome

        return FakeReconnectingWorker()


def test_worker_without_its_constructor_works(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    module = load("reconnecting")
    lost = module.gearman.errors.ServerUnavailable("connection lost")
    worker = Results.make(module, [[], [object()], [object()]], [lost, None])
    stop = mock.Mock()
    stop.is_set.return_value = stop.wait.return_value = False
    worker.work_with_reconnect(stop, logging.getLogger("test"))
    assert stop.wait.call_count == 2
    assert "gearman.service:4730" in caplog.text
    broken = Results.make(module, [[object()]], [ValueError("broken job")])
    with pytest.raises(ValueError, match="broken job"):
        broken.work_with_reconnect(stop, logging.getLogger("test"))


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
