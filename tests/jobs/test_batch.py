"""Requests for large batches of plain jobs, made on demand."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import pytest

from gearman_proto.errors import LocalProtocolError
from gearman_proto.jobs import submitting
from gearman_proto.jobs.batch import Batch
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import make_batch, prepare

SLICE = 3
TASKS = ["t0", "t1", "t2"]
JOBS = [{"task": TASKS[number // 4], "data": b"%d" % number} for number in range(10)]


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "SLICE", SLICE)


def supplied(**options: Any) -> Batch:
    made = make_batch(JOBS, **options)
    assert isinstance(made, Batch)
    return made


def test_take_makes_requests_in_slices() -> None:
    made = supplied(background=1, max_retries=2)
    assert len(made) == len(JOBS)
    assert made.requests == []
    seen = []
    while some := made.take(SLICE):
        assert len(some) <= SLICE
        seen += some
        assert made.requests == seen
    assert [(r.task, r.data, r._gm_payload) for r in seen] == [
        (job["task"], job["data"], job["data"]) for job in JOBS
    ]
    assert all(r.background is True and r.max_connection_attempts == 3 for r in seen)


@pytest.mark.parametrize(
    "look", [list, lambda it: it[:], lambda it: [*it[:5], it[5], *it[6:]], Batch.all]
)
def test_reading_any_request_makes_all(look: Any) -> None:
    made = supplied()
    first = made.take(SLICE)
    seen = look(made)
    assert seen[: len(first)] == first
    assert [request.data for request in seen] == [job["data"] for job in JOBS]
    assert made.requests == seen
    prepare(made, NoopEncoder)


class Pickle:
    encode = staticmethod(pickle.dumps)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("jobs", "options"),
    [
        (JOBS[:SLICE], {}),
        (tuple(JOBS), {}),
        (JOBS, {"encoder": Pickle}),
        ([*JOBS, {"task": "t", "data": b"", "unique": "u"}], {}),
        ([*JOBS, OrderedDict(task="t", data=b"")], {}),
        ([*JOBS, {"task": b"t", "data": b""}], {}),
        ([*JOBS, {"task": Text("t"), "data": b""}], {}),
        ([*JOBS, {"task": "t", "data": "text"}], {}),
        ([*JOBS, {"task": "t\0", "data": b""}], {}),
        ([*JOBS, {"task": "t", "data": bytes(871)}], {"max_packet_size": 1000}),
    ],
    ids=lambda value: "",
)
def test_jobs_that_are_not_plain_are_made_at_once(jobs: Any, options: dict[str, Any]) -> None:
    made = make_batch(jobs, **options)
    assert type(made) is list
    assert [request.data for request in made] == [job["data"] for job in jobs]


@pytest.mark.parametrize(
    ("jobs", "options", "error"),
    [
        ([*JOBS, {"task": "t"}], {}, ValueError),
        ([*JOBS, {"task": 5, "data": b""}], {}, TypeError),
        ([*JOBS, None], {}, TypeError),
        (JOBS, {"max_retries": -1}, LocalProtocolError),
    ],
)
def test_invalid_jobs_are_refused(
    jobs: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        make_batch(jobs, **options)
