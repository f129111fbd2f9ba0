"""How engines end, reset and orphan requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    State,
)
from gearman_proto.errors import ServerError
from gearman_proto.jobs import tracking
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import make_requests, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gearman_proto.jobs.request import GearmanJobRequest


class Waiter:
    """A call that records its notifications."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def request_ended(self, request: GearmanJobRequest) -> None:
        self.calls.append(f"ended {request.state}")

    def requests_ended(self, requests: Sequence[GearmanJobRequest]) -> None:
        self.calls.append(f"over {[request.state for request in requests]}")


class Link:
    """The link of an engine that runs: in `tracking`, an engine only says if it was abandoned."""

    is_abandoned = False

    @property
    def engine(self) -> Link:
        return self


def in_flight(state: State, *waits: Any, background: bool = False) -> GearmanJobRequest:
    (request,) = make_requests([{"task": "t", "data": b""}], background=background)
    request.state, request.timed_out = state, True
    request._gm_waits, request._gm_link = waits, Link()
    request._gm_payload, request._gm_tried = b"x", (object(),)
    return request


def engine_notes(request: GearmanJobRequest) -> list[Any]:
    return [request._gm_waits, request._gm_link, request._gm_payload, request._gm_tried]


@pytest.mark.parametrize(
    ("state", "final", "call"),
    [
        (JOB_PENDING, JOB_CREATED, "over ['CREATED']"),
        (JOB_PENDING, JOB_FAILED, "over ['FAILED']"),
        (JOB_CREATED, JOB_COMPLETE, "ended COMPLETE"),
        (JOB_CREATED, JOB_UNKNOWN, "ended UNKNOWN"),
    ],
)
def test_finish_notifies_each_waiting_call_once(state: State, final: State, call: str) -> None:
    waits = Waiter(), Waiter()
    request = in_flight(state, *waits)
    tracking.finish(request, final)
    tracking.finish(request, final)
    assert [wait.calls for wait in waits] == [[call], [call]]
    assert engine_notes(request) == [(), None, None, ()]
    assert [request.timed_out, request.error] == [False, None]


@pytest.mark.parametrize(("timed_out", "tried"), [(True, ()), (False, (object(),))])
def test_detach_clears_timed_out_and_tried_servers(timed_out: bool, tried: tuple[Any, ...]) -> None:
    request = in_flight(JOB_PENDING)
    request.timed_out, request._gm_tried = timed_out, tried
    tracking.detach(request, JOB_CREATED)
    assert (request.state, request.timed_out, request._gm_tried) == (JOB_CREATED, False, ())


def test_finish_background_notifies_each_run_of_equal_waits_once() -> None:
    one, two = Waiter(), Waiter()
    groups: list[tuple[Any, ...]] = [(one,), (one, two), ()]
    waits = [groups[number] for number in (0, 0, 2, 1, 0, 2)]
    requests = [in_flight(JOB_PENDING, background=True) for _ in waits]
    for request, each in zip(requests, waits):
        request._gm_waits = each
    tracking.finish_background(requests)
    pair, single = "over ['CREATED', 'CREATED']", "over ['CREATED']"
    assert (one.calls, two.calls) == ([pair, single, single], [single])
    for request in requests:
        assert (request.state, request.timed_out) == (JOB_CREATED, False)
        assert engine_notes(request) == [(), None, None, ()]
    tracking.finish_background([])
    tracking.finish_background([in_flight(JOB_PENDING, two, background=True)])
    assert two.calls == [single] * 2


@pytest.mark.parametrize("background", [True, False])
def test_reset_discards_results_but_keeps_encoded_data(background: bool) -> None:
    request = in_flight(JOB_PENDING, background=background)
    request.unique = request._gm_generated_unique = "generated"
    request.handle, request._gm_raw_result = "H:1", b"out"
    request.connection_attempts = 2
    error = ServerError("QUEUE_ERROR")
    tracking.finish(request, JOB_FAILED, error)
    tracking.finish(request, JOB_FAILED)
    assert request.error is error
    request._gm_payload = b"x"
    tracking.reset(request)
    left = [request.state, request.error, request.handle, request.result]
    assert left == [JOB_UNKNOWN, None, None, None]
    assert (request._gm_payload, request.connection_attempts) == (b"x", 0)
    # The same unique keeps a server from running the background job twice.
    assert request.unique == ("generated" if background else None)


def test_orphaned_request_is_prepared_and_then_marked_lost() -> None:
    request = in_flight(JOB_CREATED)
    tracking.mark_lost(request)
    assert request.state == JOB_CREATED
    tracking.orphan(request)
    assert engine_notes(request) == [(), tracking.Orphaned, None, ()]
    prepare([request], NoopEncoder)
    tracking.mark_lost(request)
    assert (request.state, request._gm_payload) == (JOB_UNKNOWN, b"")
    assert "client was closed" in str(request.error)


@pytest.mark.parametrize(
    ("state", "background", "is_lost"),
    [
        (JOB_PENDING, False, True),
        (JOB_CREATED, False, True),
        (JOB_PENDING, True, True),
        (JOB_CREATED, True, False),
        (JOB_COMPLETE, False, False),
        (JOB_FAILED, False, False),
    ],
)
def test_lose_keeps_the_state_of_an_ended_request_and_notifies_no_call(
    state: State, background: bool, is_lost: bool
) -> None:
    wait = Waiter()
    request = in_flight(state, wait, background=background)
    tracking.lose(request, ServerError("code", "text"))
    assert engine_notes(request) == [(), None, None, ()]
    assert request.state == (JOB_UNKNOWN if is_lost else state)
    assert (request.error is not None) == is_lost
    assert wait.calls == []
