"""Why a request failed or was lost, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import ConnectionError, ServerError
from gearman_proto.jobs.submitting import make_requests
from gearman_proto.jobs.updates import MAX_REASON

if TYPE_CHECKING:
    from gearman_proto.jobs.request import GearmanJobRequest


def make() -> GearmanJobRequest:
    (request,) = make_requests([{"task": "t", "data": b"x"}])
    request.state = JOB_PENDING
    return request


def failed(exception: bytes | None = None, *warnings: bytes) -> GearmanJobRequest:
    request = make()
    for warning in warnings:
        request.all_updates().add_warning(warning)
    request.raw_exception = exception
    request.leave(JOB_FAILED)
    return request


def test_a_request_that_goes_on_or_is_complete_has_none() -> None:
    request = make()
    request.all_updates().add_warning(b"careful")
    assert request.reason is None
    assert "reason" not in repr(request)
    request.leave(JOB_COMPLETE)
    assert request.reason is None


@pytest.mark.parametrize(
    ("state", "error", "reason"),
    [
        (JOB_FAILED, ServerError("QUEUE_ERROR", "full"), "QUEUE_ERROR: full"),
        (JOB_UNKNOWN, ConnectionError("lost"), "lost"),
    ],
)
def test_an_error_is_it(state: str, error: Exception, reason: str) -> None:
    request = make()
    request.leave(state, error)
    assert request.reason == reason
    assert f"reason={reason!r}" in repr(request)


def test_nobody_says_why() -> None:
    assert failed().reason is None
    assert "reason" not in repr(failed())


def test_the_last_warning_is_it_whether_or_not_it_was_read() -> None:
    request = failed(None, b"no title", b"ValueError: not today")
    assert request.reason == "ValueError: not today"
    request.warning_updates.popleft()
    request.warning_updates.popleft()
    assert request.reason == "ValueError: not today"
    assert "reason='ValueError: not today'" in repr(request)


def test_the_exception_is_it_before_any_warning() -> None:
    request = failed(b"ZeroDivisionError", b"careful")
    assert request.reason == "ZeroDivisionError"
    # Also when it has been decoded, into whatever.
    assert request.exception == b"ZeroDivisionError"
    assert request.reason == "ZeroDivisionError"


def test_an_exception_that_is_decoded_to_an_object() -> None:
    class Encoder:
        @staticmethod
        def decode(data: bytes) -> object:
            return {"why": data.decode()}

    request = failed(b"so")
    request.encoder = Encoder
    assert request.exception == {"why": "so"}
    assert request.reason == "{'why': 'so'}"


def test_it_is_text_and_short_in_a_repr() -> None:
    request = failed(b"\xff\x1b[2J" + b"x" * (2 * MAX_REASON))
    assert request.reason is not None
    assert request.reason.startswith("\ufffd\x1b[2Jxxx")
    assert len(request.reason) == MAX_REASON
    assert len(repr(request)) < 400
    assert "\x1b" not in repr(request)
