"""Names of functions, jobs and uniques, which some programs use as str and others as bytes."""

from __future__ import annotations

import json
import pickle
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import Gate
from tests.support import PATIENCE, spawn, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[..., Any]


@pytest.fixture
def job(gearman: Any, work: Work, host: str, task: str) -> Any:
    """A finished job from the submitter's view; its `seen` is the same from the worker's view."""
    seen: list[Any] = []
    worker = gearman.GearmanWorker([host])
    worker.register_task(task.encode(), lambda worker, job: seen.append(job))
    work(worker)
    client = gearman.GearmanClient([host])
    request = client.submit_job(task.encode(), b"", unique=b"unique", poll_timeout=PATIENCE)
    client.shutdown()
    job = request.job
    job.seen = seen[0]
    return job


def test_names_work_as_str_and_bytes(job: Any, task: str) -> None:
    names: list[tuple[Any, str]] = [(job.task, task), (job.unique, "unique")]
    wire: Any
    for name, text in (*names, (job.handle, str(job.handle))):
        wire = text.encode()
        assert name == text
        assert text == name
        assert name == wire
        assert wire == name
        assert (name != text, name != wire) == (False, False)
        assert name != wire + b"x"
        assert wire + b"x" != name
        assert name.decode() == name.decode("utf-8") == name.decode("ascii", "replace") == text
        assert type(name.decode()) is str
        assert isinstance(name, str)
        assert f"{name}|{name:>1}|%s" % name == f"{text}|{text}|{text}"
        assert name in ("", text)
        assert name in (b"", wire)
        assert name not in (b"", "")
    assert job.handle.decode().startswith("H:")


def test_both_sides_have_the_same(job: Any, task: str) -> None:
    seen = job.seen
    assert (seen.task, seen.unique, seen.handle) == (job.task, job.unique, job.handle)
    assert seen.unique.decode() == "unique"
    assert seen.handle.decode() == job.handle.decode()
    assert {seen.task: 1}[job.task] == 1
    assert seen.to_dict() == {
        "task": task,
        "job_handle": job.handle,
        "unique": "unique",
        "data": b"",
    }


def test_names_work_as_keys(job: Any, task: str) -> None:
    """Any type of key can be looked up with any type."""
    assert {task: 1}[job.task] == 1
    assert {task.encode(): 1}[job.task] == 1
    assert {job.task: 1}[task] == 1
    assert {job.task: 1}[task.encode()] == 1
    assert {job.task, task} == {task}
    assert job.task in {task.encode(), b""}


def test_names_work_as_text(job: Any, task: str, tmp_path: Any) -> None:
    """Names work wherever text does."""
    assert json.dumps({job.task: [job.unique]}) == json.dumps({task: ["unique"]})
    again = pickle.loads(pickle.dumps(job.task))
    assert again == task
    assert again.decode() == task
    with sqlite3.connect(":memory:") as database:
        ((text,),) = database.execute("select ?", (job.task,))
    database.close()
    assert text == task
    (tmp_path / job.unique).write_text(job.task)
    assert (tmp_path / "unique").read_text() == task
    assert ",".join(sorted([job.task, job.unique])) == f"{task},unique"
    assert sorted([job.unique, "a", "z"]) == ["a", "unique", "z"]
    assert job.task.partition("-")[0] == "task"


def test_names_that_are_not_ascii(gearman: Any, work: Work, host: str, task: str) -> None:
    name = f"{task}-grün"
    worker = gearman.GearmanWorker([host])
    worker.register_task(name, lambda worker, job: job.task.encode())
    work(worker)
    client = gearman.GearmanClient([host])
    request = client.submit_job(name.encode(), b"", unique=b"\xff\xfe", poll_timeout=PATIENCE)
    assert request.result == name.encode()
    assert request.job.task == name.encode()
    assert request.job.task.decode() == name
    assert request.job.unique == b"\xff\xfe"
    assert request.job.unique.decode("latin-1") == "ÿþ"
    with pytest.raises(UnicodeDecodeError):
        request.job.unique.decode()
    client.shutdown()


def test_generated_uniques_are_names(gearman: Any, host: str, task: str) -> None:
    client = gearman.GearmanClient([host])
    requests = client.submit_multiple_jobs(
        [{"task": task, "data": b""}, {"task": task, "data": b"", "unique": False}],
        background=True,
    )
    requests.append(client.submit_job(task, b"", unique=False, background=True))
    requests.append(client.submit_job(task, b"", unique="", background=True))
    requests.append(client.submit_job(task, b"", None, None, True, False))
    uniques = {request.job.unique for request in requests}
    assert len(uniques) == len(requests)
    for unique in uniques:
        assert len(bytes.fromhex(unique.decode())) == gearman.client.RANDOM_UNIQUE_BYTES
    assert {request.unique for request in requests} == uniques
    client.shutdown()


def test_unknown_keys_are_ignored(gearman: Any, host: str, task: str) -> None:
    """python-gearman ignores unknown keys, so programs attach arbitrary data to their jobs."""
    client = gearman.GearmanClient([host])
    job = {"task": task, "data": b"", "priority": gearman.PRIORITY_LOW, "mine": object()}
    (request,) = client.submit_multiple_jobs([job], background=True)
    assert request.priority == gearman.PRIORITY_LOW
    with pytest.raises(TypeError):
        client.submit_multiple_jobs(["no job"])
    with pytest.raises((TypeError, ValueError, KeyError)):
        client.submit_multiple_jobs([{"data": b""}])
    client.shutdown()


def test_status_of_a_foreign_job_is_found_by_its_handle(
    gearman: Any, start_worker: Any, host: str, task: str
) -> None:
    """The program has kept only the handle."""
    address = host.split(":")
    gate = Gate()
    start_worker((address[0], int(address[1])), {task: gate})
    client = gearman.GearmanClient([host])
    submitted = client.submit_job(task, b"", background=True)
    wait_for(gate.begun)
    kept = json.dumps(str(submitted.job.handle))
    connection = client.establish_connection(client.connection_list[0])
    assert connection is client.connection_list[0]
    job = gearman.job.GearmanJob(connection, json.loads(kept), None, None, None)
    request = gearman.job.GearmanJobRequest(job)
    request.state = gearman.JOB_CREATED
    status = client.get_job_status(request, poll_timeout=PATIENCE).status
    assert (status["known"], status["running"]) == (True, True)
    assert status["handle"] == submitted.job.handle
    assert (status["numerator"], status["denominator"]) == (0, 0)
    assert status["time_received"] > 0
    assert request.job.connection == connection
    request.job.connection = client.connection_list[0]
    assert client.get_job_status(request).status["known"]
    gate.open.set()
    client.shutdown()


def test_callback_dispatches_by_name(gearman: Any, host: str, task: str, work: Work) -> None:
    """One callback dispatches by name."""
    table = {f"{task}-{number}".encode(): number for number in range(5)}
    worker = gearman.GearmanWorker([host])
    for name in table:
        worker.register_task(name, lambda worker, job: str(table[job.task]))
    call = spawn(worker.work)
    client = gearman.GearmanClient([host])
    requests = client.submit_multiple_jobs(
        [{"task": name, "data": b""} for name in table], poll_timeout=PATIENCE
    )
    assert [request.result for request in requests] == [b"0", b"1", b"2", b"3", b"4"]
    assert {request.job.task: int(request.result) for request in requests} == table
    assert worker.unregister_task(b"".join(list(table)[:1])) == f"{task}-0"
    worker.shutdown()
    call.result(PATIENCE)
    client.shutdown()
