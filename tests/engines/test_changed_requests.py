"""Tests of requests that the application changes while they are pending, and of signals."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import ConnectionError, LocalProtocolError
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.wire.packets import (
    JobCreated,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
)

from .harness import World


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "another"),
        ("task", "a\0b"),
        ("task", "\ud800"),
        ("task", "t" * 1000),
        ("task", b"task"),
        ("task", None),
        ("priority", "LOW"),
        ("priority", ["LOW"]),
        ("priority", "none"),
        ("unique", "a\0b"),
        ("unique", None),
        ("background", 1),
        ("run_at", 5),
        ("run_at", "tomorrow"),
        ("reducer", "r"),
        ("_gm_payload", None),
        ("_gm_payload", "text"),
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
            assert SubmitJobBg(b"task", request.unique.encode(), b"data") in sent
    if failed:
        with pytest.raises(LocalProtocolError, match="changed since"):
            wait.raise_error()


@pytest.mark.parametrize(
    ("method", "count", "error"),
    [
        ("send_submits", 3, LocalProtocolError("out of a handler")),
        ("send_with_data_passthrough", 1, ValueError("out of a handler")),
    ],
)
def test_signal_after_encoding_propagates(
    monkeypatch: pytest.MonkeyPatch, method: str, count: int, error: Exception
) -> None:
    """The packet is already encoded, so a failure of its request would desynchronize the stream."""
    world = World(exceptions=False)
    world.submit(*(world.request() for _ in range(count)))
    server = world.serve()
    connection = server.link.connection
    encode = getattr(connection, method)

    def encode_and_raise(*args: Any) -> None:
        encode(*args)
        raise error

    monkeypatch.setattr(connection, method, encode_and_raise)
    with pytest.raises(type(error), match="out of a handler"):
        world.engine.data_to_send(server.link, world.now)


def test_ended_request_attached_to_an_interrupted_engine_keeps_its_result() -> None:
    world = World()
    server = world.idle_server()
    request = world.job(server)
    server.send(WorkComplete(b"H:1", b"out"))
    request._gm_link = server.link
    world.engine.abandon(ConnectionError("interrupted"))
    assert World().wait_completed(request).done
    assert (request.state, request.result, request.error) == (JOB_COMPLETE, b"out", None)
    assert request._gm_link is None


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


def test_invalid_query_raises_an_error() -> None:
    world = World()
    world.statuses(GearmanJobRequest.from_handle("H:1"))
    server = world.serve()
    query: Any = server.link.outbox[-1]
    query.event = object()
    with pytest.raises(LocalProtocolError):
        world.engine.data_to_send(server.link, world.now)
