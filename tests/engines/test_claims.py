"""Tests of one request in two engines at once, like that of two threads with a client each.

Threads can switch at any call. The tests therefore call one engine from a callback of the other:
from its source of randomness, or from an attribute of a request.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import InvalidClientState
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.wire.packets import JobCreated, WorkComplete

from .harness import World

if TYPE_CHECKING:
    from collections.abc import Callable


class Interrupting(random.Random):
    """A source of randomness with a callback for the first generated unique."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(1)
        self.call: Callable[[], object] | None = call

    def randbytes(self, n: int) -> bytes:
        call, self.call = self.call, None
        if call is not None:
            call()
        return super().randbytes(n)


class Watched(GearmanJobRequest):
    """A request that calls `on_free` when it leaves its link."""

    on_free: Callable[[], object] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_gm_link" and value is None and self.on_free is not None:
            call, self.on_free = self.on_free, None
            call()


def state_of(request: GearmanJobRequest) -> dict[str, Any]:
    state: Any = object.__getstate__(request)
    return {**state[1], **request.__dict__}


@pytest.mark.parametrize("call", ["submit", "wait_completed", "as_completed", "updates"])
def test_call_with_a_request_claimed_by_another_engine_raises_and_changes_nothing(
    call: str,
) -> None:
    winner, loser = World(), World()
    request, other = winner.request(), winner.request()

    def check_refused() -> None:
        before = state_of(request)
        arguments = (request,) if call == "updates" else (other, request)
        with pytest.raises(InvalidClientState, match="is under way in another client"):
            getattr(loser, call)(*arguments)
        assert state_of(request) == before
        assert (other.state, other._gm_link, other._gm_waits) == (JOB_UNKNOWN, None, ())

    winner.engine._rng = Interrupting(check_refused)
    wait = winner.submit(request)
    check_refused()
    server = winner.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    check_refused()
    server.send(WorkComplete(b"H:1", b"result"))
    assert wait.done
    assert (request.state, request.result) == (JOB_COMPLETE, b"result")
    assert loser.peers == []
    loser.submit(other)
    assert other.state == JOB_PENDING


def test_lost_request_can_be_submitted_by_another_engine_at_once() -> None:
    """The first engine does not change the request after it has freed it."""
    first, second = World(), World()
    (request,) = make_requests([{"task": "task", "data": b"data"}], kind=Watched)
    assert isinstance(request, Watched)
    prepare([request], NoopEncoder)
    wait = first.submit(request)
    server = first.serve()
    server.take()
    server.send(JobCreated(b"H:1"))

    def submit_again() -> None:
        prepare([request], NoopEncoder)
        second.submit(request)

    request.on_free = submit_again
    server.lose()
    assert wait.done
    assert (request.state, request.error) == (JOB_PENDING, None)
    other = second.serve()
    other.take()
    other.send(JobCreated(b"H:2"), WorkComplete(b"H:2", b"again"))
    assert second.waits[0].done
    assert request.result == b"again"
