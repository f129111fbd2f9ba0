"""Tests of requests that the application changes while they are pending, and of signals."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import ConnectionError, LocalProtocolError
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.wire.packets import (
    Error,
    GetStatus,
    JobCreated,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
)

from .harness import World


def test_invalid_number_of_attempts_fails_only_its_request() -> None:
    """The other request of the lost link is sent again."""
    world = World()
    changed: Any = world.request(retries=1)
    other = world.request(retries=1)
    world.submit(changed, other)
    server = world.serve()
    server.take()
    changed.max_connection_attempts = "often"
    server.lose()
    changed.max_connection_attempts = 2
    assert changed.state == JOB_UNKNOWN
    assert isinstance(changed.error, LocalProtocolError)
    (submit,) = world.serve().take()
    assert isinstance(submit, SubmitJob)
    assert other.state == JOB_PENDING


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "another"),
        ("task", "a\0b"),
        ("task", "\ud800"),
        ("task", "t" * 1000),
        ("task", b"task"),
        ("priority", "LOW"),
        ("priority", ["LOW"]),
        ("priority", "none"),
        ("unique", "a\0b"),
        ("unique", None),
        ("background", 1),
        ("run_at", 5),
        ("reducer", "r"),
        ("payload", None),
        ("payload", "text"),
        ("connection_attempts", False),
    ],
)
@pytest.mark.parametrize("where", [slice(0, 1), slice(2, 3), slice(0, 5)])
def test_changed_requests_in_a_batch_do_not_affect_the_others(
    name: str, value: Any, where: slice
) -> None:
    """A changed request is sent with its new values or fails. The others are sent unchanged."""
    world = World()
    requests: list[Any] = [world.request(background=True) for _ in range(5)]
    wait = world.submit(*requests)
    for request in requests[where]:
        setattr(request, name, value)
    server = world.serve()
    sent = server.take()
    failed = [request for request in requests if request.error is not None]
    assert len(sent) + len(failed) == 5
    assert set(failed) <= set(requests[where])
    server.send(*(JobCreated(b"H:%d" % number) for number in range(len(sent))))
    assert wait.done
    for request in requests:
        assert request.state == (JOB_UNKNOWN if request in failed else JOB_CREATED)
        if request not in requests[where]:
            unique = request.unique.encode()
            assert SubmitJobBg(b"task", unique, b"data") in sent


def test_signal_after_encoding_a_batch_propagates(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.submit(*(world.request() for _ in range(3)))
    server = world.peers[-1]
    connection = server.link.connection
    real = connection.send_submits

    def send_submits(*args: Any) -> bytes:
        real(*args)
        raise LocalProtocolError("out of a handler")

    monkeypatch.setattr(connection, "send_submits", send_submits)
    world.engine.connected(server.link, world.now)
    with pytest.raises(LocalProtocolError, match="out of a handler"):
        world.engine.data_to_send(server.link, world.now)


def test_signal_after_encoding_a_packet_propagates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The packet is already encoded, so a failure of its request would desynchronize the stream."""
    world = World()
    world.submit(world.request())
    server = world.serve()
    server.take()
    world.submit(world.request())
    connection = server.link.connection
    real = connection.send

    def send(event: Any, token: Any = None) -> bytes:
        real(event, token)
        raise ValueError("out of a handler")

    monkeypatch.setattr(connection, "send", send)
    with pytest.raises(ValueError, match="out of a handler"):
        world.engine.data_to_send(server.link, world.now)


def test_invalid_query_raises_an_error() -> None:
    world = World()
    world.statuses(GearmanJobRequest.from_handle("H:1"))
    server = world.serve()
    query: Any = server.link.outbox[-1]
    query.event = object()
    with pytest.raises(LocalProtocolError):
        world.engine.data_to_send(server.link, world.now)


def test_ended_request_attached_to_an_interrupted_engine_keeps_its_result() -> None:
    world = World()
    request = world.request()
    world.release(world.submit(request))
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    request._gm_link = server.link
    world.engine.abandon(ConnectionError("interrupted"))
    assert World().wait_completed(request).done
    assert (request.state, request.result, request.error) == (JOB_COMPLETE, b"out", None)
    assert request._gm_link is None


def test_refused_heartbeat_query_does_not_stop_the_others() -> None:
    world = World()
    requests = [world.request() for _ in range(70)]
    world.submit(*requests)
    server = world.serve()
    server.take()
    server.send(*[JobCreated(b"H:%d" % n) for n in range(70)])
    world.sleep(30.0)
    assert len(server.take()) == 64
    server.send(Error(b"ACL", b"not for you"))
    assert server.take() == [GetStatus(b"H:64")]
    assert {request.state for request in requests} == {JOB_CREATED}
