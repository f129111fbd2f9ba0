"""JobDouble: the job that a test passes to a callback, and the updates that the callback sends.

The double of gearman_sync shows what both adapters share. tests/contract and tests/anyio have the
rest.
"""

from __future__ import annotations

import gc
import json
import os
from pathlib import Path
from typing import Any

import pytest

from gearman_proto.errors import ConnectionError, InvalidWorkerState, LocalProtocolError
from gearman_sync import (
    DataEncoder,
    DeferredJob,
    GearmanWorker,
    JobData,
    JobEnded,
    JobProgress,
    JobWarning,
    WorkerJob,
)
from gearman_sync.testing import JobDouble


class Json(DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return json.loads(decodable_string)


class Worker(GearmanWorker):
    data_encoder = Json

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []


def json_double(data: Any = None, **options: Any) -> JobDouble:
    return JobDouble("task", data, worker=Worker(), **options)


def convert(worker: Any, job: WorkerJob) -> bytes:
    worker.send_job_status(job, 1, 2)
    worker.send_job_data(job, b"page 1")
    worker.send_job_warning(job, "no title")
    worker.send_job_status(job, "2", b"2")
    return job.data.upper()  # type: ignore[no-any-return]


UPDATES = [JobProgress(1, 2), JobData(b"page 1"), JobWarning(b"no title"), JobProgress(2, 2)]


def test_job_double_has_the_attributes_of_a_job() -> None:
    job = json_double({"a": 1}, unique="mine")
    assert isinstance(job, WorkerJob)
    assert (job.task, job.unique, job.data) == ("task", "mine", {"a": 1})
    assert job.handle
    assert str(job.connection) == "localhost:4730"
    assert not job.is_lost
    assert JobDouble(b"t\xff", "").task == "t\udcff"


def test_job_double_records_the_updates_of_a_direct_call() -> None:
    job = JobDouble("convert", "book")
    assert convert(job.worker, job) == b"BOOK"
    assert job.updates == UPDATES
    assert not job.ended


def test_job_double_records_the_updates_of_a_callback_of_the_job_alone() -> None:
    def convert(job: WorkerJob) -> Any:
        job.send_status(1, 2)
        job.send_data(b"page 1")
        job.send_warning("no title")
        return job.data

    job = JobDouble("task", b"data")
    assert job.call(convert) == b"data"
    assert job.updates == [*UPDATES[:3], JobEnded("COMPLETE", b"data")]


def test_job_double_that_is_deferred_stays_open() -> None:
    handles: list[DeferredJob] = []
    job = JobDouble("task", b"data")
    assert job.call(lambda job: handles.append(job.defer())) is None
    assert job.updates == []
    handles[0].complete(b"out")
    assert job.updates == [JobEnded("COMPLETE", b"out")]


def test_job_double_that_is_called_ends_with_the_decoded_result() -> None:
    job = JobDouble("convert", "book")
    assert job.call(convert) == b"BOOK"
    assert job.updates == [*UPDATES, JobEnded("COMPLETE", b"BOOK")]
    with pytest.raises(InvalidWorkerState, match="has ended: make another one"):
        job.call(convert)
    assert json_double().call(lambda worker, job: (1, 2)) == [1, 2]


@pytest.mark.parametrize(
    ("method", "arguments", "end"),
    [
        ("send_job_complete", ([1],), JobEnded("COMPLETE", [1])),
        ("send_job_failure", (), JobEnded("FAILED")),
        ("send_job_exception", ("no",), JobEnded("FAILED", None, "no")),
    ],
)
def test_job_double_ended_by_its_callback_refuses_updates(
    method: str, arguments: tuple[Any, ...], end: JobEnded
) -> None:
    def callback(worker: Any, job: WorkerJob) -> str:
        getattr(worker, method)(job, *arguments)
        return "ignored"

    job = json_double()
    assert job.call(callback) == end.result
    assert job.updates == [end]
    with pytest.raises(InvalidWorkerState):
        job.worker.send_job_status(job, 1, 2)


def test_job_double_with_invalid_calls_raises() -> None:
    job = json_double()
    with pytest.raises(ZeroDivisionError):
        job.call(lambda worker, job: 1 // 0)
    with pytest.raises(TypeError, match="set"):
        job.call(lambda worker, job: {1})
    with pytest.raises(TypeError, match="must be bytes or str, not int"):
        JobDouble("task", "").call(lambda worker, job: 1)
    with pytest.raises(LocalProtocolError):
        job.worker.send_job_status(job, "1\0", 2)
    job.lose()
    assert job.is_lost
    with pytest.raises(ConnectionError, match="was lost"):
        convert(job.worker, job)
    assert job.updates == []


def test_job_double_copies_the_worker() -> None:
    def callback(worker: Any, job: WorkerJob) -> str:
        worker.seen.append(job.data)
        worker.unregister_task("other")
        worker.stop()
        return "end"

    worker = Worker()
    worker.register_task("other", callback)
    job = JobDouble("task", "ab", worker=worker)
    assert isinstance(job.worker, Worker)
    assert job.call(callback) == "end"
    assert worker.seen == ["ab"]
    assert worker.worker_abilities.keys() == {"other"}
    assert not job.worker.has_job_lock()


async def later(worker: Any, job: Any) -> None:
    """An async callback."""


@pytest.mark.parametrize(
    ("arguments", "callback", "error", "message"),
    [
        ({"task": None}, None, TypeError, "task"),
        ({"task": "a\0b"}, None, ValueError, "task"),
        ({"unique": "x" * 65}, None, ValueError, "unique"),
        ({"data": {1}}, None, TypeError, "set"),
        ({"worker": 5}, None, TypeError, "worker is a gearman_sync.worker.GearmanWorker, or None"),
        ({}, 5, TypeError, "callback is a function of a worker and a job, not 5"),
        ({}, later, TypeError, "is async, and can be called by gearman_anyio.testing.JobDouble"),
    ],
)
def test_job_double_with_a_wrong_argument_raises(
    arguments: dict[str, Any], callback: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        JobDouble(**{"task": "task", "data": "", **arguments}).call(callback)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at /proc")
def test_job_doubles_leave_no_open_files() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        JobDouble("convert", "book").call(convert)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
