"""Jobs of applications and of workers."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from gearman_proto.address import ServerAddress
from gearman_proto.errors import InvalidWorkerState
from gearman_proto.jobs import tracking
from gearman_proto.jobs.job import GearmanJob, WorkerJob
from gearman_proto.jobs.request import GearmanJobRequest
from tests.jobs.played import Counting


def worker_job() -> WorkerJob:
    link = SimpleNamespace(address=ServerAddress("h"), alive=True, dropped=[])
    return WorkerJob(link, b"H:1", "ü".encode(), None, b"in")


def test_job_keeps_attributes_of_the_application() -> None:
    job: Any = GearmanJob(None, None, "t", "u", b"")
    job.mine = 2
    request: Any = GearmanJobRequest(job)
    request.mine = 1
    assert request.job is job
    assert (request.mine, request.job.mine) == (1, 2)


def test_worker_job_data_is_decoded_once_when_read() -> None:
    job, encoder = worker_job(), Counting()
    tracking.attach(job, SimpleNamespace(data_encoder=encoder))
    assert encoder.decoded == []
    assert (job.data, job.data, encoder.decoded) == ("in", "in", [b"in"])


def test_worker_job_sends_updates_by_its_worker() -> None:
    job, worker = worker_job(), mock.Mock()
    tracking.attach(job, worker)
    returned = [job.send_status(1, 2), job.send_data(b"x", 5), job.send_warning(b"y")]
    assert worker.mock_calls == [
        mock.call.send_job_status(job, 1, 2, None),
        mock.call.send_job_data(job, b"x", 5),
        mock.call.send_job_warning(job, b"y", None),
    ]
    assert returned[1] is worker.send_job_data.return_value


def test_deferred_job_ends_its_job_by_its_worker() -> None:
    job, worker = worker_job(), mock.Mock()
    tracking.attach(job, worker)
    assert not tracking.is_deferred(job)
    deferred = job.defer()
    assert deferred.job is job
    assert tracking.is_deferred(job)
    assert repr(job) in repr(deferred)
    deferred.send_status(1, 2)
    deferred.complete(b"x", 5)
    deferred.fail()
    assert worker.mock_calls == [
        mock.call.send_job_status(job, 1, 2, None),
        mock.call.send_job_complete(job, b"x", 5),
        mock.call.send_job_failure(job, None),
    ]
    with pytest.raises(InvalidWorkerState, match="deferred already"):
        job.defer()
    job.ended = True
    with pytest.raises(InvalidWorkerState, match="has ended"):
        job.defer()
    assert not job._gm_link.dropped
    del deferred
    gc.collect()
    assert job._gm_link.dropped == [job._gm_deferred]


def test_worker_job_is_lost_with_its_connection_unless_it_has_ended() -> None:
    job = worker_job()
    assert not job.is_lost
    assert not tracking.is_finished(job)
    assert not tracking.is_left(job)
    job._gm_link.alive = False
    assert job.is_lost
    job.ended = True
    assert not job.is_lost
