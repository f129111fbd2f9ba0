"""From dicts to requests to packets. Invalid arguments raise before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from gearman_proto import constants, events
from gearman_proto.constants import (
    JOB_CREATED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
)
from gearman_proto.errors import ArgumentTypeError, ArgumentValueError
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.job import GearmanJob
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import check_followed, make_requests, prepare, submit_event
from tests.jobs.played import Counting, make


def prepared(encoder: Any = NoopEncoder, **job: Any) -> GearmanJobRequest:
    request = make(**job)
    prepare([request], encoder)
    return request


# make_requests.


def test_make_requests_takes_all_keys() -> None:
    jobs = (
        {"task": b"t", "data": 1, "unique": b"u", "priority": PRIORITY_LOW},
        {"task": "e", "data": 2, "unique": None, "priority": None, "run_at": 7.5},
        {"task": "r", "data": 3, "reducer": "add"},
    )
    background: Any = 1
    first, second, third = make_requests(jobs, background=background, max_retries=2)
    assert (first.job.task, first.unique, first.priority) == ("t", "u", PRIORITY_LOW)
    assert (second.run_at, third.reducer) == (7.5, "add")
    for request in (first, second, third):
        assert request.background is True
        assert request.max_connection_attempts == 3


def test_make_requests_of_a_subclass_makes_its_jobs() -> None:
    class Job(GearmanJob):
        pass

    class Request(GearmanJobRequest):
        _gm_job_class = Job

    (request,) = make_requests([{"task": "t", "data": b"", "unique": "u"}], kind=Request)
    assert (type(request), type(request.job), request.job.unique) == (Request, Job, "u")


@pytest.mark.parametrize(
    "jobs",
    [
        *({"task": "t", "data": b""}, "jobs", None, 7, iter([])),
        *(["job"], [("t", b"")], [None]),
        [{"task": None, "data": b""}],
        [{"task": 7, "data": b""}],
        [{"task": "t", "data": b"", "unique": 7}],
    ],
)
def test_make_requests_of_wrong_types_is_refused(jobs: Any) -> None:
    with pytest.raises(TypeError):
        make_requests(jobs)


@pytest.mark.parametrize(
    ("job", "match"),
    [
        ({}, "no 'task'"),
        ({"task": "t"}, "no 'data'"),
        ({"data": b""}, "no 'task'"),
        ({7: 7, "data": b""}, "no 'task'"),
        ({"task": "t", "data": b"", "uniqe": "u"}, "no key 'uniqe'"),
        ({"task": "t", "data": b"", 7: 7}, "no key 7"),
    ],
)
def test_make_requests_with_wrong_keys_is_refused(job: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make_requests([job])


def test_make_requests_with_invalid_retries_is_refused() -> None:
    for bad in (None, "1", 1.5):
        with pytest.raises(TypeError, match="max_retries"):
            make_requests([], max_retries=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_retries is -1: it must be at least 0"):
        make_requests([], max_retries=-1)


# prepare.


@pytest.mark.parametrize(
    ("job", "match"),
    [
        ({"task": b"a\0b"}, "NUL"),
        ({"task": "t" * (constants.MAX_FUNCTION_SIZE + 1)}, "task.*more than"),
        ({"task": "\ud800"}, "UTF-8"),
        ({"unique": "u\0"}, "NUL"),
        ({"unique": "ü" * 32}, "unique.*64 bytes, more than the 63"),
        ({"priority": "low"}, "low"),
        ({"priority": 0}, "priority"),
        ({"priority": []}, "priority"),
        ({"run_at": 1, "background": False}, "background"),
        ({"run_at": 1, "reducer": "r"}, "not both"),
        ({"run_at": 1, "priority": PRIORITY_LOW}, "no priority"),
        ({"reducer": "r", "priority": PRIORITY_LOW}, "no priority"),
        ({"run_at": -1}, "before 1970"),
        ({"run_at": 2.0**63}, "too late"),
        ({"run_at": float("nan")}, "run_at"),
        ({"run_at": datetime(1960, 1, 1, tzinfo=UTC)}, "before 1970"),
        ({"run_at": datetime.min}, "before 1970"),  # noqa: DTZ901 - a naive one
        ({"reducer": "r" * 65}, "reducer.*65 bytes"),
        ({"reducer": "r\0"}, "NUL"),
    ],
)
def test_prepare_refuses_values_that_servers_reject(job: dict[str, Any], match: str) -> None:
    request = make(**{"background": True, **job})
    with pytest.raises(ValueError, match=match):
        prepare([request], NoopEncoder)
    assert request._gm_payload is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("data", None), ("data", 7), ("task", 5), ("unique", 5), ("reducer", 7)),
        *(("run_at", "tomorrow"), ("run_at", True), ("background", []), ("background", 2)),
        *(("connection_attempts", "1"), ("max_connection_attempts", 1.0)),
    ],
)
def test_prepare_refuses_attributes_of_wrong_types(name: str, value: Any) -> None:
    request = make(background=True)
    setattr(request, name, value)
    with pytest.raises(TypeError):
        prepare([request], NoopEncoder)
    assert request._gm_payload is None


def test_prepare_accepts_names_of_the_maximum_size_and_in_bytes() -> None:
    request: Any = make(reducer="r" * 64)
    request.task, request.unique = b"t" * constants.MAX_FUNCTION_SIZE, b"u" * 63
    prepare([request], NoopEncoder)
    assert (request.task, request.unique) == ("t" * constants.MAX_FUNCTION_SIZE, "u" * 63)


@pytest.mark.parametrize("requests", [make(), [b"no request"], b"", {}, None, iter([])])
def test_prepare_refuses_other_types_than_lists_of_requests(requests: Any) -> None:
    with pytest.raises(TypeError, match=r"list|request"):
        prepare(requests, NoopEncoder)


def test_prepare_stops_at_the_first_faulty_request() -> None:
    too_long = "x" * (constants.MAX_FUNCTION_SIZE + 1)
    requests = make_requests([{"task": task, "data": b""} for task in ("t", "t", "u", too_long)])
    with pytest.raises(ValueError, match="more than"):
        prepare(requests, NoopEncoder)
    assert [submit_event(request) for request in requests[:3]] == [
        events.SubmitJob(task, b"", b"") for task in (b"t", b"t", b"u")
    ]


@pytest.mark.parametrize("reducer", [None, "ünique"])
def test_prepare_refuses_data_too_large_for_the_packet_to_workers(reducer: str | None) -> None:
    function, unique = b"t" * 100, b"u" * 63
    packet: Any = events.JobAssignUniq(b"h" * 63, function, unique, b"")
    if reducer is not None:
        packet = events.JobAssignAll(b"h" * 63, function, unique, reducer.encode(), b"")
    room = 1000 - len(b"\0".join(packet.arguments(packet)))
    job = {"task": function, "unique": unique, "reducer": reducer}
    requests = make_requests([{**job, "data": bytes(room)}, {**job, "data": bytes(room + 1)}])
    prepare(requests[:1], NoopEncoder, 1000)
    with pytest.raises(ValueError, match=rf"has {room + 1} bytes: .* of 1000, it can have {room};"):
        prepare(requests[1:], NoopEncoder, 1000)
    assert requests[1]._gm_payload is None


def test_prepare_encodes_only_unsent_requests() -> None:
    request = make(data="bad")
    request.state = JOB_CREATED
    prepare([request], Counting())
    request.state = JOB_UNKNOWN
    with pytest.raises(ZeroDivisionError):
        prepare([request], Counting())


def test_prepare_keeps_payload_of_request_that_another_client_submits_meanwhile() -> None:
    request = make(data="x")

    class Encoder(NoopEncoder):
        @classmethod
        def encode(cls, encodable_object: Any) -> bytes:
            request.state, request._gm_payload = JOB_PENDING, b"of the other client"
            return b"late"

    prepare([request], Encoder)
    assert request._gm_payload == b"of the other client"


# The packets.


@pytest.mark.parametrize(
    ("background", "job", "event"),
    [
        (False, {}, events.SubmitJob(b"t", b"u", b"d")),
        (False, {"priority": PRIORITY_LOW}, events.SubmitJobLow(b"t", b"u", b"d")),
        (False, {"priority": PRIORITY_HIGH}, events.SubmitJobHigh(b"t", b"u", b"d")),
        (True, {}, events.SubmitJobBg(b"t", b"u", b"d")),
        (True, {"priority": PRIORITY_LOW}, events.SubmitJobLowBg(b"t", b"u", b"d")),
        (True, {"priority": PRIORITY_HIGH}, events.SubmitJobHighBg(b"t", b"u", b"d")),
        (True, {"run_at": 7}, events.SubmitJobEpoch(b"t", b"u", b"7", b"d")),
        (True, {"run_at": 7.01}, events.SubmitJobEpoch(b"t", b"u", b"8", b"d")),
        (False, {"reducer": "r"}, events.SubmitReduceJob(b"t", b"u", b"r", b"", b"d")),
        (True, {"reducer": b"r"}, events.SubmitReduceJobBackground(b"t", b"u", b"r", b"", b"d")),
        (False, {"task": "ü", "unique": b"\xff"}, events.SubmitJob(b"\xc3\xbc", b"\xff", b"d")),
        (False, {"data": "ü"}, events.SubmitJob(b"t", b"u", b"\xc3\xbc")),
    ],
)
def test_submit_event_has_the_packet_of_the_job(
    background: bool, job: dict[str, Any], event: events.PacketEvent
) -> None:
    assert submit_event(prepared(background=background, **{"unique": "u", **job})) == event


def test_submit_event_converts_run_at_from_datetime() -> None:
    run_at = datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))) + timedelta(seconds=9.5)
    event = submit_event(prepared(background=True, unique="u", run_at=run_at))
    assert event == events.SubmitJobEpoch(b"t", b"u", b"10", b"d")


def test_only_foreground_requests_are_followed() -> None:
    check_followed(make_requests([{"task": "t", "data": b""}]))
    with pytest.raises(ArgumentValueError, match="is a background request"):
        check_followed(make_requests([{"task": "t", "data": b""}], background=True))
    with pytest.raises(ArgumentTypeError):
        check_followed([None])  # type: ignore[list-item]
