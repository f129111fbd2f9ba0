"""Names of functions, jobs and uniques, which some programs use as str and others as bytes."""

from __future__ import annotations

import contextlib
import json
import pickle
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[..., Any]


@pytest.fixture
def job(gearman: Any, client: Any, work: Work, host: str, task: str) -> Any:
    """A finished job from the submitter's view; its `seen` is the same from the worker's view."""
    seen: list[Any] = []
    worker = gearman.GearmanWorker([host])
    worker.register_task(task.encode(), lambda worker, job: seen.append(job))
    work(worker)
    request = client.submit_job(task.encode(), b"", unique=b"unique", poll_timeout=PATIENCE)
    job = request.job
    job.seen = seen[0]
    return job


def test_names_work_as_str_and_bytes(job: Any, task: str) -> None:
    wire: Any
    for name, text in ((job.task, task), (job.unique, "unique"), (job.handle, str(job.handle))):
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


def test_both_sides_have_the_same(job: Any, task: str) -> None:
    seen = job.seen
    assert (seen.task, seen.unique, seen.handle) == (job.task, job.unique, job.handle)
    assert seen.unique.decode() == "unique"
    assert seen.handle.decode() == job.handle.decode()
    names = {"task": task, "job_handle": job.handle, "unique": "unique"}
    assert seen.to_dict() == {**names, "data": b""}


def test_names_work_as_keys(job: Any, task: str) -> None:
    """Any type of key can be looked up with any type."""
    assert {task: 1}[job.task] == {task.encode(): 1}[job.task] == {job.seen.task: 1}[job.task] == 1
    assert {job.task: 1}[task] == {job.task: 1}[task.encode()] == 1
    assert {job.task, task} == {task}
    assert job.task in {task.encode(), b""}


def test_names_work_as_text(job: Any, task: str) -> None:
    """Names work wherever text does."""
    assert json.dumps({job.task: [job.unique]}) == json.dumps({task: ["unique"]})
    again = pickle.loads(pickle.dumps(job.task))
    assert (again, again.decode()) == (task, task)
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        assert list(database.execute("select ?", (job.task,))) == [(task,)]
    assert ",".join(sorted([job.task, job.unique])) == f"{task},unique"
    assert job.task.partition("-")[0] == "task"


def test_names_that_are_not_ascii(
    gearman: Any, client: Any, work: Work, host: str, task: str
) -> None:
    """A callback can dispatch by name."""
    name = f"{task}-grün"
    worker = gearman.GearmanWorker([host])
    worker.register_task(name, lambda worker, job: {name.encode(): b"found"}.get(job.task.encode()))
    work(worker)
    request = client.submit_job(name.encode(), b"", unique=b"\xff\xfe", poll_timeout=PATIENCE)
    assert request.result == b"found"
    assert request.job.task == name.encode()
    assert request.job.task.decode() == name
    assert request.job.unique == b"\xff\xfe"
    assert request.job.unique.decode("latin-1") == "ÿþ"
    with pytest.raises(UnicodeDecodeError):
        request.job.unique.decode()


def test_generated_uniques_are_names(gearman: Any, client: Any, task: str) -> None:
    """As in python-gearman, a false unique is none."""
    requests = client.submit_multiple_jobs(
        [{"task": task, "data": b""}, {"task": task, "data": b"", "unique": False}],
        background=True,
    )
    requests.append(client.submit_job(task, b"", unique="", background=True))
    uniques = {request.job.unique for request in requests}
    assert {request.unique for request in requests} == uniques
    assert [len(bytes.fromhex(unique.decode())) for unique in uniques] == [
        gearman.client.RANDOM_UNIQUE_BYTES
    ] * 3


def test_unknown_keys_are_ignored(gearman: Any, client: Any, task: str) -> None:
    """python-gearman ignores unknown keys, so programs attach arbitrary data to their jobs."""
    job = {"task": task, "data": b"", "priority": gearman.PRIORITY_LOW, "mine": object()}
    (request,) = client.submit_multiple_jobs([job], background=True)
    assert request.priority == gearman.PRIORITY_LOW
    for wrong in (["no job"], [{"data": b""}], 3):
        with pytest.raises((TypeError, ValueError)):
            client.submit_multiple_jobs(wrong)


def test_status_of_a_foreign_job_is_found_by_its_handle(
    gearman: Any, client: Any, task: str
) -> None:
    """The program has kept only the handle."""
    submitted = client.submit_job(task, b"", background=True)
    kept = json.dumps(str(submitted.job.handle))
    connection = client.establish_connection(client.connection_list[0])
    assert connection is client.connection_list[0]
    job = gearman.job.GearmanJob(connection, json.loads(kept), None, None, None)
    request = gearman.job.GearmanJobRequest(job)
    request.state = gearman.JOB_CREATED
    status = client.get_job_status(request, poll_timeout=PATIENCE).status
    assert (status["known"], status["running"]) == (True, False)
    assert status["handle"] == submitted.job.handle
    assert (status["numerator"], status["denominator"]) == (0, 0)
    assert request.job.connection == connection
    request.job.connection = client.connection_list[0]
    assert client.get_job_status(request).status["known"]
