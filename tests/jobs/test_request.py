"""Requests as applications see them: attributes, results, reasons and `reset`."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from gearman_proto import events
from gearman_proto.address import ServerAddress
from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    State,
)
from gearman_proto.errors import ConnectionError, InvalidClientState, ServerError
from gearman_proto.jobs import tracking
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.job import GearmanJob
from gearman_proto.jobs.request import GearmanJobRequest, ended
from gearman_proto.jobs.submitting import prepare, submit_event
from gearman_proto.jobs.updates import MAX_REASON, JobEnded
from tests.engines.harness import World
from tests.jobs.played import Counting, make, played, submit

CREATED = events.JobCreated(b"H:1")


def test_constructor_takes_all_options() -> None:
    job = GearmanJob(None, None, b"t", b"u", b"d")
    request = GearmanJobRequest(job, PRIORITY_HIGH, True, 3)
    prepare({request}, NoopEncoder)
    assert submit_event(request) == events.SubmitJobHighBg(b"t", b"u", b"d")
    assert request.max_connection_attempts == 3
    request = GearmanJobRequest(job, run_at=7.5, reducer="add")
    assert (request.run_at, request.reducer) == (7.5, "add")
    with pytest.raises(TypeError, match="a request is made of a GearmanJob, not None"):
        GearmanJobRequest(None)  # type: ignore[arg-type]


def test_requests_from_stored_names_are_submitted_background_requests() -> None:
    request = GearmanJobRequest.from_handle(b"H:1", "h:7")
    assert (request.job.handle, request.job.connection) == ("H:1", ServerAddress("h", 7))
    assert request.state == JOB_CREATED
    assert request.complete
    request = GearmanJobRequest.from_unique("u")
    assert (request.job.handle, request.unique, request.job.connection) == (None, "u", None)
    with pytest.raises(ValueError):
        GearmanJobRequest.from_handle("H:1", "h:x")
    with pytest.raises(TypeError):
        GearmanJobRequest.from_unique(None)  # type: ignore[arg-type]


def test_repr_shows_state_and_names() -> None:
    request = make(unique="u")
    assert repr(request) == "<GearmanJobRequest UNKNOWN task='t' unique='u' handle=None>"
    assert repr(request.job) == "<GearmanJob task='t' unique='u' handle=None>"
    request.timed_out = True
    assert "UNKNOWN, timed out" in repr(request)


@pytest.mark.parametrize(
    ("background", "complete"),
    [(False, {JOB_FAILED, JOB_COMPLETE}), (True, {JOB_CREATED, JOB_FAILED, JOB_COMPLETE})],
)
def test_complete_depends_on_state_and_background(background: bool, complete: set[str]) -> None:
    request = make(background=background)
    for state in (JOB_UNKNOWN, JOB_PENDING, JOB_CREATED, JOB_FAILED, JOB_COMPLETE):
        request.state = state
        assert request.complete == (state in complete)


def test_job_of_request_is_a_view_of_it() -> None:
    request = make(unique="u")
    job = request.job
    assert request.job is job is request.gearman_job
    job.unique, job.handle, job.data = "v", "H:1", b"other"
    assert (request.unique, request.handle, request.data) == ("v", "H:1", b"other")
    request.handle = "H:2"
    assert job.handle == "H:2"


def test_request_with_job_is_freed_without_the_cycle_collector() -> None:
    request = make()
    assert request.job.task == "t"
    gone = weakref.ref(request)
    gc.disable()
    try:
        del request
        assert gone() is None
    finally:
        gc.enable()


def test_reset_of_request_in_flight_is_refused_and_later_discards_results() -> None:
    request = World().request(unique="u")
    server = submit(request)
    with pytest.raises(InvalidClientState):
        request.reset()
    part, progress = events.WorkData(b"H:1", b"part"), events.WorkStatus(b"H:1", b"1", b"2")
    server.send(CREATED, part, progress)
    with pytest.raises(InvalidClientState):
        request.reset()
    server.send(events.WorkComplete(b"H:1", b"out"))
    assert (request.result, len(request.data_updates)) == (b"out", 1)
    request.reset()
    assert request.state == JOB_UNKNOWN
    assert (request.result, request.status, request.connection_attempts) == (None, {}, 0)
    assert not request.data_updates
    assert not request.status_updates
    assert (request.job.handle, request.job.connection, request.job.unique) == (None, None, "u")


# Results and exceptions.


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (events.WorkComplete(b"H:1", b"out"), JobEnded(JOB_COMPLETE, "out", None)),
        (events.WorkException(b"H:1", b"out"), JobEnded(JOB_FAILED, None, "out")),
    ],
)
def test_result_or_exception_is_decoded_once_when_read(end: Any, expected: JobEnded) -> None:
    encoder = Counting()
    request = played(CREATED, end, encoder=encoder)
    assert encoder.decoded == []
    assert ended(request) == expected
    assert (request.result, request.exception) == (expected.result, expected.exception)
    assert encoder.decoded == [b"out"]
    # Keeping the raw bytes as well would double the memory of results.
    assert (request._gm_raw_result, request._gm_raw_exception) == (None, None)


def test_undecodable_result_raises_only_when_it_is_read() -> None:
    for end, name in (
        (events.WorkComplete(b"H:1", b"bad"), "result"),
        (events.WorkException(b"H:1", b"bad"), "exception"),
    ):
        request = played(CREATED, end, encoder=Counting())
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                getattr(request, name)


# The reason.


def failed(exception: bytes | None = None, *warnings: bytes) -> GearmanJobRequest:
    request = make()
    for warning in warnings:
        tracking.updates_of(request).add_warning(warning)
    request._gm_raw_exception = exception
    tracking.finish(request, JOB_FAILED)
    return request


@pytest.mark.parametrize("state", [JOB_PENDING, JOB_COMPLETE, JOB_FAILED])
def test_reason_of_request_that_did_not_fail_or_gave_none_is_none(state: State) -> None:
    request = failed() if state == JOB_FAILED else failed(None, b"careful")
    request.state = state
    assert request.reason is None
    assert "reason" not in repr(request)


@pytest.mark.parametrize(
    ("state", "error", "reason"),
    [
        (JOB_FAILED, ServerError("QUEUE_ERROR", "full"), "QUEUE_ERROR: full"),
        (JOB_UNKNOWN, ConnectionError("lost"), "lost"),
    ],
)
def test_reason_is_the_text_of_the_error(state: State, error: Exception, reason: str) -> None:
    request = make()
    tracking.finish(request, state, error)
    assert request.reason == reason
    assert f"reason={reason!r}" in repr(request)


def test_reason_is_the_last_warning_even_after_it_was_read() -> None:
    request = failed(None, b"no title", b"ValueError: not today")
    for _ in range(2):
        assert request.reason == "ValueError: not today"
        request.warning_updates.popleft()
    assert request.reason == "ValueError: not today"


def test_reason_is_the_exception_as_text_rather_than_a_warning() -> None:
    class Encoder:
        @staticmethod
        def decode(data: bytes) -> object:
            return {"why": data.decode()}

    request = failed(b"so", b"careful")
    request._gm_encoder = Encoder
    assert request.reason == "so"
    assert request.exception == {"why": "so"}
    assert request.reason == "{'why': 'so'}"


def test_long_binary_reason_is_truncated_and_escaped_in_repr() -> None:
    request = failed(b"\xff\x1b[2J" + b"x" * (2 * MAX_REASON))
    assert request.reason is not None
    assert request.reason.startswith("\ufffd\x1b[2Jxxx")
    assert len(request.reason) == MAX_REASON
    assert len(repr(request)) < 400
    assert "\x1b" not in repr(request)
