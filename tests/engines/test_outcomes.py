"""What becomes of results and exceptions, and of what an application gives a worker."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from gearman_proto.address import ServerAddress
from gearman_proto.engines.outcomes import (
    check_client_id,
    check_task,
    check_timeout,
    failure_events,
    result_event,
    status_event,
)
from gearman_proto.engines.phases import WorkerLink
from gearman_proto.engines.pool import Server
from gearman_proto.jobs.assigned import WorkerJob
from gearman_proto.jobs.encoder import DataEncoder, NoopEncoder
from gearman_proto.wire.events import WorkComplete, WorkException, WorkFail, WorkStatus, WorkWarning


class Pickle(DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        return pickle.dumps(encodable_object)


class Broken(DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        raise ZeroDivisionError


@pytest.fixture
def job() -> WorkerJob:
    link = WorkerLink(Server(ServerAddress("h")), 1000)
    return WorkerJob(link, b"H:1", b"f", None, b"in")


def test_results(job: WorkerJob) -> None:
    assert result_event(job, NoopEncoder, "out") == WorkComplete(b"H:1", b"out")
    assert result_event(job, Pickle, [1]) == WorkComplete(b"H:1", pickle.dumps([1]))
    with pytest.raises(TypeError):
        result_event(job, NoopEncoder, object())


def test_no_result(job: WorkerJob) -> None:
    assert result_event(job, NoopEncoder, None) == WorkComplete(b"H:1", b"")
    assert result_event(job, Broken, None) == WorkComplete(b"H:1", b"")
    assert result_event(job, Pickle, None) == WorkComplete(b"H:1", pickle.dumps(None))


def test_failures(job: WorkerJob) -> None:
    text = b"ValueError: caf\xc3\xa9"
    error = ValueError("café")
    assert failure_events(job, NoopEncoder, error, exceptions=False) == [
        WorkWarning(b"H:1", text),
        WorkFail(b"H:1"),
    ]
    assert failure_events(job, NoopEncoder, error, exceptions=True) == [WorkException(b"H:1", text)]


def test_failures_that_are_not_to_be_encoded(job: WorkerJob) -> None:
    (event,) = failure_events(job, Broken, ValueError("\udc80"), exceptions=True)
    assert event == WorkException(b"H:1", b"ValueError: ?")


def test_progress(job: WorkerJob) -> None:
    assert status_event(job, 1, "2") == WorkStatus(b"H:1", b"1", b"2")
    assert status_event(job, b"x", 0.5) == WorkStatus(b"H:1", b"x", b"0.5")  # type: ignore[arg-type]


def test_names() -> None:
    assert check_task("é") == b"\xc3\xa9"
    assert check_client_id("x" * 127) == b"x" * 127
    for check, name in ((check_task, "x\0"), (check_client_id, "x" * 128)):
        with pytest.raises(ValueError, match=r"the (task|client id) 'x"):
            check(name)


def test_time_limits() -> None:
    assert check_timeout(None) is None
    assert check_timeout(1.5) == 1.5
    for timeout in (True, "1"):
        with pytest.raises(TypeError, match="timeout is a number of seconds"):
            check_timeout(timeout)  # type: ignore[arg-type]
