"""JobDouble: the job that a callback receives, and the updates that it sends.

Tests of the adapters' job doubles are in tests/doubles and tests/anyio.
"""

from __future__ import annotations

import json
import types
from typing import Any

import pytest

from gearman_proto import (
    DataEncoder,
    JobData,
    JobEnded,
    JobProgress,
    JobWarning,
    WorkerEngine,
    WorkerJob,
)
from gearman_proto.errors import ConnectionError, InvalidWorkerState, LocalProtocolError
from gearman_proto.testing import jobs
from gearman_proto.wire.packets import (
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)


class Json(DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return json.loads(decodable_string)


class Worker:
    """The parts of a worker that a JobDouble needs."""

    data_encoder: Any = DataEncoder

    def __init__(self, encoder: Any = Json) -> None:
        self.data_encoder = encoder
        self._gm_driver = types.SimpleNamespace(run=None)

    def send(self, job: Any, event: Any) -> None:
        """Send an update as the surface's methods do."""
        self._gm_driver.run(WorkerEngine.send, job, event, timeout=None)


class JobDouble(jobs.JobDouble):
    __slots__ = ()
    _worker_class = Worker

    @staticmethod
    def _run(_: object, job: Any, event: Any, **__: Any) -> None:
        job.take_down(event)

    def call(self, result: Any) -> Any:
        return self._returned(result)


def test_job_double_has_the_attributes_of_a_job() -> None:
    job = JobDouble("task", {"a": 1}, unique="mine")
    assert isinstance(job, WorkerJob)
    assert (job.task, job.unique, job.data) == ("task", "mine", {"a": 1})
    assert job.handle
    assert str(job.connection) == "localhost:4730"
    assert not job.is_lost
    assert JobDouble(b"t\xff", None).task == "t\udcff"


def test_job_double_records_its_updates() -> None:
    job = JobDouble("task", None)
    handle = job.wire_handle
    for event in (
        WorkStatus(handle, b"1", b"2"),
        WorkData(handle, b'"part"'),
        WorkWarning(handle, b'"look out"'),
        WorkStatus(handle, b"", b"x"),
    ):
        job.worker.send(job, event)
        assert not job.ended
    assert job.updates == [
        JobProgress(1, 2),
        JobData("part"),
        JobWarning("look out"),
        JobProgress(0, 0),
    ]


@pytest.mark.parametrize(
    ("event", "end"),
    [
        (WorkComplete(b"H", b"[1]"), JobEnded("COMPLETE", [1])),
        (WorkFail(b"H"), JobEnded("FAILED")),
        (WorkException(b"H", b'"no"'), JobEnded("FAILED", None, "no")),
    ],
)
def test_job_double_ended_by_its_callback_ignores_the_result(event: Any, end: JobEnded) -> None:
    job = JobDouble("task", None)
    job.worker.send(job, event)
    assert job.updates == [end]
    assert job.ended
    with pytest.raises(InvalidWorkerState, match="has ended"):
        job.worker.send(job, WorkStatus(b"H", b"1", b"2"))
    # The callback's return value is ignored after that.
    assert job.call("anything") == end.result
    assert job.updates == [end]


def test_result() -> None:
    """Return the result as the client decodes it."""
    job = JobDouble("task", None)
    assert job.call((1, 2)) == [1, 2]
    assert job.updates == [JobEnded("COMPLETE", [1, 2])]
    with pytest.raises(TypeError, match="set"):
        JobDouble("task", None).call({1, 2})


def test_lost_job_double_raises_on_send() -> None:
    job = JobDouble("task", None)
    job.lose()
    assert job.is_lost
    with pytest.raises(ConnectionError, match="was lost"):
        job.worker.send(job, WorkStatus(b"H", b"1", b"2"))
    assert job.updates == []


def test_what_servers_do_not_take() -> None:
    job = JobDouble("task", None)
    with pytest.raises(LocalProtocolError):
        job.worker.send(job, WorkStatus(b"H", b"1\0", b"2"))
    with pytest.raises(ValueError, match="Expecting value"):
        job.worker.send(job, WorkData(b"H", b"no json"))
    assert job.updates == []


def test_own_worker() -> None:
    """Copy the worker, and leave the original unchanged."""
    worker = Worker(Json())
    worker.database = {"a": 1}  # type: ignore[attr-defined]
    worker._gm_driver.run = "its own"
    made = worker._gm_driver

    def copied(self: Worker) -> Worker:
        copy = Worker(self.data_encoder)
        copy.__dict__["database"] = vars(self)["database"]
        return copy

    Worker.__copy__ = copied  # type: ignore[attr-defined]
    try:
        job = JobDouble("task", [1], worker=worker)
    finally:
        del Worker.__copy__  # type: ignore[attr-defined]
    assert job.worker is not worker
    assert job.worker.database is vars(worker)["database"]
    assert worker._gm_driver is made
    assert made.run == "its own"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"task": None}, TypeError),
        ({"task": "a\0b"}, ValueError),
        ({"unique": "x" * 65}, ValueError),
        ({"data": {1}}, TypeError),
    ],
)
def test_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        JobDouble(**{"task": "task", "data": None, **arguments})


@pytest.mark.parametrize("worker", [5, object()])
def test_worker_of_another_kind_is_refused(worker: Any) -> None:
    with pytest.raises(TypeError, match=r"worker is a tests.*Worker, or None, not"):
        JobDouble("task", "data", worker=worker)


def test_call_of_a_finished_job_is_refused() -> None:
    job = JobDouble("task", "data")
    with pytest.raises(TypeError, match="callback is a function of a worker and a job, not 5"):
        job._check_call(5)
    job._check_call(print)
    job.take_down(WorkFail(job.wire_handle))
    with pytest.raises(InvalidWorkerState, match="has ended: make another one"):
        job._check_call(print)
