"""Blocking callbacks called without a server."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import DataEncoder, GearmanWorker, JobData, JobEnded, JobProgress, JobWarning
from gearman_sync.errors import ConnectionError, InvalidWorkerState
from gearman_sync.testing import JobDouble

if TYPE_CHECKING:
    from gearman_proto import WorkerJob


def convert(worker: Any, job: WorkerJob) -> bytes:
    worker.send_job_status(job, 1, 2)
    worker.send_job_data(job, b"page 1")
    worker.send_job_warning(job, "no title")
    worker.send_job_status(job, "2", b"2")
    return job.data.upper()  # type: ignore[no-any-return]


UPDATES = [JobProgress(1, 2), JobData(b"page 1"), JobWarning(b"no title"), JobProgress(2, 2)]


def test_by_hand() -> None:
    job = JobDouble("convert", "book")
    assert convert(job.worker, job) == b"BOOK"
    assert job.updates == UPDATES
    assert not job.ended


def test_call() -> None:
    job = JobDouble("convert", "book", unique="mine")
    assert job.call(convert) == b"BOOK"
    assert job.updates == [*UPDATES, JobEnded("COMPLETE", b"BOOK")]
    assert job.unique == "mine"


@pytest.mark.parametrize(
    ("method", "arguments", "end"),
    [
        ("send_job_complete", ("done",), JobEnded("COMPLETE", b"done")),
        ("send_job_failure", (), JobEnded("FAILED")),
        ("send_job_exception", ("no",), JobEnded("FAILED", None, b"no")),
    ],
)
def test_job_double_ended_by_its_callback_refuses_updates(
    method: str, arguments: tuple[Any, ...], end: JobEnded
) -> None:
    def callback(worker: Any, job: WorkerJob) -> str:
        getattr(worker, method)(job, *arguments)
        return "not looked at"

    job = JobDouble("task", "")
    assert job.call(callback) == end.result
    assert job.updates == [end]
    with pytest.raises(InvalidWorkerState):
        job.worker.send_job_status(job, 1, 2)


def test_job_double_with_invalid_calls_raises() -> None:
    job = JobDouble("task", "")
    with pytest.raises(ZeroDivisionError):
        job.call(lambda worker, job: 1 // 0)
    with pytest.raises(TypeError, match="must be bytes or str, not int"):
        job.call(lambda worker, job: 1)
    with pytest.raises(TypeError, match="WorkerJob"):
        job.worker.send_job_status(None, 1, 2)
    job.lose()
    with pytest.raises(ConnectionError):
        convert(job.worker, job)
    assert job.updates == []


class Doubling(DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        return encodable_object * 2

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return [decodable_string]


class Worker(GearmanWorker):
    data_encoder = Doubling

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []


def test_own_worker() -> None:
    """Copy the worker with its class, attributes and encoder; the original still works."""

    def callback(worker: Any, job: WorkerJob) -> bytes:
        worker.seen.append(job.data)
        worker.send_job_data(job, b"part")
        worker.unregister_task("other")
        worker.stop()
        return b"end"

    worker = Worker()
    worker.register_task("other", callback)
    job = JobDouble("task", b"ab", worker=worker)
    assert isinstance(job.worker, Worker)
    assert job.call(callback) == [b"endend"]
    assert worker.seen == [[b"abab"]]
    assert job.updates == [JobData([b"partpart"]), JobEnded("COMPLETE", [b"endend"])]
    assert worker.worker_abilities.keys() == {"other"}
    assert not job.worker.has_job_lock()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at /proc")
def test_nothing_is_left() -> None:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        JobDouble("convert", "book").call(convert)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
