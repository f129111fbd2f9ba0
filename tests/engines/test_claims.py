"""Tests of one request in two engines at once, like that of two threads with a client each.

Threads can switch at any call. The tests therefore call one engine from a callback of the other:
from its source of randomness, or from an attribute of a request.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import InvalidClientState
from gearman_proto.jobs.encoder import DataEncoder, NoopEncoder
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.wire.packets import JobCreated, WorkComplete

from .harness import World

if TYPE_CHECKING:
    from collections.abc import Callable


class Interrupting(random.Random):
    """A source of randomness with a callback for each generated unique."""

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

    on_free: Callable[[GearmanJobRequest], object] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_gm_link" and value is None and self.on_free is not None:
            call, self.on_free = self.on_free, None
            call(self)


def state_of(request: GearmanJobRequest) -> dict[str, Any]:
    state: Any = object.__getstate__(request)
    return {**state[1], **request.__dict__}


@pytest.mark.parametrize("call", ["submit", "wait_completed", "as_completed", "updates"])
def test_submit_of_a_request_claimed_by_another_engine_raises_and_changes_nothing(
    call: str,
) -> None:
    winner, loser = World(), World()
    request, other = winner.request(), winner.request()

    def interrupt() -> None:
        before = state_of(request)
        arguments = (request,) if call == "updates" else (other, request)
        with pytest.raises(InvalidClientState, match="is under way in another client"):
            getattr(loser, call)(*arguments)
        assert state_of(request) == before
        assert (other.state, other._gm_link, other._gm_waits) == (JOB_UNKNOWN, None, ())

    winner.engine._rng = Interrupting(interrupt)
    wait = winner.submit(request)
    assert loser.engine.pool.servers[0].link is None
    server = winner.serve()
    server.take()
    server.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"result"))
    assert wait.done
    assert (request.state, request.result) == (JOB_COMPLETE, b"result")
    loser.submit(other)
    assert other.state == JOB_PENDING


def test_submit_interrupted_by_a_submit_of_another_request_continues() -> None:
    one, two = World(), World()
    request, other = one.request(), two.request()
    one.engine._rng = Interrupting(lambda: two.submit(other))
    one.submit(request)
    assert (request.state, other.state) == (JOB_PENDING, JOB_PENDING)


def test_just_lost_request_can_be_submitted_by_another_engine() -> None:
    """The first engine does not change the request after its loss."""
    first, second = World(), World()
    (request,) = make_requests([{"task": "task", "data": b"data"}], kind=Watched)
    prepare([request], NoopEncoder)
    wait = first.submit(request)
    server = first.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    assert request.state == JOB_CREATED

    def free(request: GearmanJobRequest) -> None:
        prepare([request], NoopEncoder)
        second.submit(request)

    assert isinstance(request, Watched)
    request.on_free = free
    server.lose()
    assert wait.done
    assert (request.state, request.error) == (JOB_PENDING, None)
    assert id(request._gm_waits[0]) == id(second.waits[0])
    other = second.serve()
    other.take()
    other.send(JobCreated(b"H:2"), WorkComplete(b"H:2", b"again"))
    assert second.waits[0].done
    assert request.result == b"again"


def test_acknowledged_background_request_can_be_submitted_by_another_engine() -> None:
    first, second = World(), World()
    (request,) = make_requests([{"task": "t", "data": b""}], background=True, kind=Watched)
    prepare([request], NoopEncoder)
    first.submit(request)
    server = first.serve()
    server.take()

    def free(request: GearmanJobRequest) -> None:
        request.reset()
        prepare([request], NoopEncoder)
        second.submit(request)

    assert isinstance(request, Watched)
    request.on_free = free
    server.send(JobCreated(b"H:1"))
    assert id(request._gm_waits[0]) == id(second.waits[0])
    assert request.state == JOB_PENDING


def test_request_submitted_while_it_is_encoded_keeps_its_encoder_and_payload() -> None:
    world = World()
    request = world.request(data=b"data")

    class Submitting(DataEncoder):
        @classmethod
        def encode(cls, encodable_object: Any) -> Any:
            world.submit(request)
            return b"other data"

    prepare([request], Submitting)
    assert (request._gm_encoder, request._gm_payload) == (NoopEncoder, b"data")
    with pytest.raises(InvalidClientState):
        World().submit(request)


def test_interrupted_submit_leaves_no_claim() -> None:
    world = World()
    request = world.request()

    def interrupt() -> None:
        raise KeyboardInterrupt

    world.engine._rng = Interrupting(interrupt)
    with pytest.raises(KeyboardInterrupt):
        world.submit(request)
    world.engine.abandon(ConnectionError("interrupted"))
    other = World()
    other.submit(request)
    assert request._gm_link is other.peers[0].link
