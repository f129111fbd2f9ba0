"""How a request leaves an engine, and comes again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import ServerError
from gearman_proto.jobs.request import leave_together
from gearman_proto.jobs.submitting import make_requests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gearman_proto.jobs.request import GearmanJobRequest


class Told:
    """Whom a request tells what becomes of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def request_accepted(self) -> None: ...

    def request_failed(self, error: Exception) -> None: ...

    def request_updated(self) -> None: ...

    def request_ended(self, request: GearmanJobRequest) -> None:
        self.calls.append(f"ended {request.state}")

    def requests_over(self, requests: Sequence[GearmanJobRequest]) -> None:
        self.calls += [f"over {request.state}" for request in requests]


@pytest.mark.parametrize(
    ("state", "following", "told"),
    [
        (JOB_PENDING, JOB_CREATED, "over CREATED"),
        (JOB_PENDING, JOB_FAILED, "over FAILED"),
        (JOB_CREATED, JOB_COMPLETE, "ended COMPLETE"),
        (JOB_CREATED, JOB_UNKNOWN, "ended UNKNOWN"),
    ],
)
def test_who_waits_is_told_once(state: str, following: str, told: str) -> None:
    request = make_requests([{"task": "t", "data": b""}])[0]
    waits = Told(), Told()
    request.state, request.waits, request.link, request.payload = state, waits, object(), b"x"
    request.timed_out, request.tried = True, (object(),)
    request.leave(following)
    request.leave(following)
    assert [wait.calls for wait in waits] == [[told], [told]]
    left = [request.waits, request.link, request.payload, request.tried]
    assert left == [(), None, None, ()]
    assert [request.timed_out, request.error] == [False, None]


def test_lose_keeps_the_state_of_an_ended_request_and_notifies_no_wait() -> None:
    ended, created = make_requests([{"task": "t", "data": b""}] * 2)
    waits = Told()
    for request, state in ((ended, JOB_COMPLETE), (created, JOB_CREATED)):
        request.state, request.waits, request.link = state, (waits,), object()
        request.lose(ServerError("code", "text"))
        assert [request.waits, request.link] == [(), None]
    assert [ended.state, ended.error] == [JOB_COMPLETE, None]
    assert [created.state, str(created.error)] == [JOB_UNKNOWN, "code: text"]
    assert waits.calls == []


def test_why_is_kept() -> None:
    request = make_requests([{"task": "t", "data": b""}])[0]
    error = ServerError("QUEUE_ERROR")
    request.leave(JOB_FAILED, error)
    request.leave(JOB_FAILED)
    assert request.error is error


@pytest.mark.parametrize("background", [True, False])
def test_as_good_as_new_but_for_what_is_to_be_sent(background: bool) -> None:
    request = make_requests([{"task": "t", "data": b""}], background=background)[0]
    request.unique = request.generated_unique = "made here"
    request.handle, request.payload, request.raw_result = "H:1", b"x", b"out"
    request.connection_attempts = 2
    request.leave(JOB_FAILED, ServerError("QUEUE_ERROR"))
    request.payload = b"x"
    request.renew()
    left = [request.state, request.error, request.handle, request.result]
    assert left == [JOB_UNKNOWN, None, None, None]
    assert (request.payload, request.connection_attempts) == (b"x", 0)
    # A background job that is sent again is not run twice where its unique is the same.
    assert request.unique == ("made here" if background else None)


def test_leaving_together() -> None:
    one, two = Told(), Told()
    groups: list[tuple[Any, ...]] = [(), (one,), (one,), (one, two), ()]
    requests = make_requests([{"task": "t", "data": b""}] * 7, background=True)
    for request, waits in zip(requests, [groups[1], groups[1], *groups, *groups]):
        request.state, request.waits, request.link = JOB_PENDING, waits, object()
        request.payload, request.timed_out, request.tried = b"x", True, (object(),)
    leave_together(requests)
    assert (len(one.calls), len(two.calls)) == (5, 1)
    assert {*one.calls, *two.calls} == {"over CREATED"}
    for request in requests:
        left = [request.state, request.waits, request.link, request.payload, request.tried]
        assert left == [JOB_CREATED, (), None, None, ()]
        assert not request.timed_out
    leave_together([])
    last = make_requests([{"task": "t", "data": b""}], background=True)
    last[0].state, last[0].waits = JOB_PENDING, (two,)
    leave_together(last)
    assert two.calls == ["over CREATED"] * 2


@pytest.mark.parametrize("timed_out", [False, True])
@pytest.mark.parametrize("tried", [(), (object(),)])
def test_nothing_is_left_of_the_way_there(timed_out: bool, tried: tuple[object, ...]) -> None:
    (request,) = make_requests([{"task": "t", "data": b""}])
    request.timed_out, request.tried = timed_out, tried
    request.let_go(JOB_CREATED)
    assert (request.state, request.timed_out, request.tried) == (JOB_CREATED, False, ())
