"""Streams of jobs with a limit for the jobs in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_UNKNOWN
from gearman_proto.errors import (
    GearmanError,
    InvalidClientState,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.wire.packets import Error, JobCreated, WorkComplete

from .harness import Bell, World
from .links import raise_refusal

if TYPE_CHECKING:
    from gearman_proto.engines.client.results import ResultsWait
    from gearman_proto.jobs.request import GearmanJobRequest

    from .harness import Peer


class Stream:
    """A call of `results`, and its consumer."""

    def __init__(self, window: int = 2, *, servers: int = 1, **options: Any) -> None:
        self.world = World(servers)
        engine = self.world.engine
        self.wait: ResultsWait = engine.results(0.0, Bell(), window, **options)
        self.world.waits.append(self.wait)
        #: The requests, in the order of their jobs.
        self.pulled: list[GearmanJobRequest] = []

    def pull(self, **job: Any) -> GearmanJobRequest:
        """Submit one job."""
        request = self.world.request(**job)
        self.pulled.append(request)
        world = self.world
        world.call(world.engine.add, world.now, Bell(), self.wait, request)
        return request

    def fill(self) -> None:
        """Submit jobs while a slot is free."""
        while self.wait.wants_job:
            self.pull()

    def end(self, error: Exception | None = None) -> None:
        """End the stream of jobs."""
        self.world.call(self.world.engine.end_of_jobs, self.world.now, Bell(), self.wait, error)

    def created(self) -> Peer:
        """Return the server after it has acknowledged all jobs as H:0, H:1 and so on."""
        server = self.world.serve()
        server.take()
        server.send(*[JobCreated(b"H:%d" % number) for number in range(len(self.pulled))])
        return server

    def taken(self) -> list[GearmanJobRequest]:
        items = []
        while (item := self.wait.take()) is not None:
            items.append(item)
        return items


def done(number: int) -> WorkComplete:
    return WorkComplete(b"H:%d" % number, b"out")


def test_request_keeps_its_slot_until_the_consumer_takes_it() -> None:
    stream = Stream(window=2)
    stream.fill()
    first, second = stream.pulled
    server = stream.created()
    assert not stream.wait.ready
    server.send(done(1))
    assert stream.wait.ready
    assert not stream.wait.wants_job
    assert stream.taken() == [second]
    stream.fill()
    assert len(stream.pulled) == 3
    server.take()
    server.send(JobCreated(b"H:2"), done(0), done(2))
    assert not stream.wait.done
    assert stream.taken() == [first, stream.pulled[2]]
    stream.end()
    assert stream.wait.done
    stream.wait.raise_error()


def test_call_ends_with_the_last_request_after_the_stream() -> None:
    stream = Stream(window=3)
    request = stream.pull()
    server = stream.created()
    stream.end()
    assert not stream.wait.wants_job
    assert not stream.wait.done
    server.send(done(0))
    assert stream.wait.done
    assert stream.taken() == [request]


@pytest.mark.parametrize("is_lost", [False, True])
def test_error_of_the_stream_is_raised_unchanged_after_the_requests(is_lost: bool) -> None:
    stream = Stream()
    request = stream.pull()
    stream.created() if not is_lost else stream.world.peer().refuse()
    error = ZeroDivisionError()
    stream.end(error)
    if not is_lost:
        assert not stream.wait.done
        stream.world.peer().send(done(0))
    assert stream.wait.done
    assert stream.taken() == [request]
    with pytest.raises(ZeroDivisionError) as caught:
        stream.wait.raise_error()
    assert caught.value is error


def test_background_request_ends_with_its_acknowledgment() -> None:
    stream = Stream()
    request = stream.pull(background=True)
    stream.created()
    assert stream.taken() == [request]
    assert request.state == JOB_CREATED


def test_refused_job_does_not_stop_the_stream() -> None:
    stream = Stream()
    request = stream.pull()
    server = stream.world.serve()
    server.take()
    server.send(Error(b"QUEUE_ERROR", b"full"))
    assert stream.taken() == [request]
    assert isinstance(request.error, ServerError)
    assert stream.wait.wants_job


def test_unreachable_server_stops_the_stream_and_is_raised_at_the_end() -> None:
    stream = Stream(window=3)
    first = stream.pull()
    server = stream.created()
    server.lose()
    assert stream.taken() == [first]
    second, third = stream.pull(), stream.pull()
    stream.world.peer().refuse()
    assert not stream.wait.wants_job
    assert stream.wait.done
    assert stream.taken() == [second, third]
    with pytest.raises(ServerUnavailable) as caught:
        stream.wait.raise_error()
    assert list(caught.value.job_requests) == [second, third]


def test_job_for_a_client_without_servers_is_delivered() -> None:
    stream = Stream(servers=0)
    request = stream.pull()
    assert stream.taken() == [request]
    assert request.state == JOB_UNKNOWN
    with pytest.raises(ServerUnavailable):
        stream.wait.raise_error()


def test_timeout_ends_the_call() -> None:
    stream = Stream(window=2, timeout=5.0)
    first, second = stream.pull(), stream.pull()
    server = stream.created()
    server.send(done(0))
    stream.world.sleep(5.0)
    assert stream.wait.done
    assert stream.taken() == [first]
    assert not stream.wait.wants_job
    late = stream.pull()
    assert [first.timed_out, second.timed_out, late.timed_out] == [False, True, True]
    assert stream.taken() == [late]
    stream.wait.raise_error()
    stream.world.release(stream.wait)
    assert second._gm_waits == ()


def test_close_ends_the_call_with_an_error() -> None:
    stream = Stream()
    request = stream.pull()
    stream.created()
    stream.world.close()
    assert stream.taken() == [request]
    with pytest.raises(InvalidClientState, match="before the last job"):
        stream.wait.raise_error()
    # A job that the stream yields afterwards is not submitted.
    late = stream.pull()
    assert stream.taken() == [late]
    assert isinstance(late.error, InvalidClientState)
    with pytest.raises(InvalidClientState):
        raise_refusal(stream.world.engine.results(0.0, Bell(), 1))


def test_close_after_the_last_job_ends_the_call_without_an_error() -> None:
    stream = Stream()
    request = stream.pull()
    stream.created()
    stream.end()
    stream.world.close()
    assert stream.taken() == [request]
    assert stream.wait.done
    stream.wait.raise_error()


def test_no_job_is_submitted_for_a_released_call() -> None:
    stream = Stream()
    running = stream.pull()
    server = stream.created()
    stream.world.release(stream.wait)
    # Another task might have waited for the next request. For it, the results just end.
    assert stream.wait.done
    stream.wait.raise_error()
    assert not stream.wait.wants_job
    late = stream.pull()
    assert late.state == JOB_UNKNOWN
    assert server.take() == []
    server.send(done(0))
    assert running.state == JOB_COMPLETE


def test_crash_of_the_engine_ends_the_call() -> None:
    stream = Stream()
    stream.fill()
    stream.world.engine.abandon(GearmanError("a bug"))
    assert {request.state for request in stream.pulled} == {JOB_UNKNOWN}
    with pytest.raises(GearmanError, match="a bug"):
        stream.wait.raise_error()
