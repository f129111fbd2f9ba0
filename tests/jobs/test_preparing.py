"""Requests that were changed by hand before they are submitted: each is checked."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from gearman_proto.constants import JOB_CREATED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import make_requests, prepare


def make(**job: Any) -> GearmanJobRequest:
    (request,) = make_requests([{"task": "t", "data": b"x", **job}], background="run_at" in job)
    return request


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("connection_attempts", "1", TypeError),
        ("max_connection_attempts", 1.0, TypeError),
        ("priority", [], ValueError),
        ("priority", "URGENT", ValueError),
        ("background", [], TypeError),
        ("background", 2, TypeError),
        ("task", 5, TypeError),
        ("unique", 5, TypeError),
        ("reducer", [], TypeError),
        ("run_at", datetime.min, ValueError),  # noqa: DTZ901 - a naive one
        ("run_at", -1, ValueError),
    ],
)
def test_what_can_not_be(name: str, value: Any, error: type[Exception]) -> None:
    request = make(run_at=0.0) if name == "run_at" else make()
    setattr(request, name, value)
    with pytest.raises(error):
        prepare([request], NoopEncoder)
    assert request.payload is None


def test_names_may_be_bytes() -> None:
    request = make()
    attributes: Any = request
    attributes.task, attributes.unique = b"task", b"unique"
    prepare([request], NoopEncoder)
    assert (request.task, request.unique) == ("task", "unique")


def test_what_is_under_way_is_left_alone_and_what_is_stranded_is_made_ready() -> None:
    request = make()
    request.state = JOB_CREATED
    prepare([request], NoopEncoder)
    request.settle()
    assert request.state == JOB_CREATED
    request.strand()
    prepare([request], NoopEncoder)
    assert request.payload == b"x"
    request.settle()
    assert request.payload == b"x"
    assert request.state == JOB_UNKNOWN
    assert request.error is not None


def test_what_a_request_is_made_of() -> None:
    job: Any = None
    with pytest.raises(TypeError, match="a request is made of a GearmanJob, not None"):
        GearmanJobRequest(job)


def test_request_that_another_client_submits_while_it_is_encoded_keeps_its_payload() -> None:
    (request,) = make_requests([{"task": "t", "data": "x"}])

    class Encoder(NoopEncoder):
        @classmethod
        def encode(cls, encodable_object: Any) -> bytes:
            request.state, request.payload = JOB_PENDING, b"of the other client"
            return b"late"

    prepare([request], Encoder)
    assert request.payload == b"of the other client"
