"""Tests of requests that the application changes while they are pending, and of signals."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.constants import JOB_CREATED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import LocalProtocolError
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.wire.packets import (
    JobCreated,
    SubmitJob,
    SubmitJobBg,
)

from .harness import World, wire


@pytest.mark.parametrize(
    ("name", "value"),
    [("task", b"task"), ("task", "a\0b"), ("priority", "none"), ("priority", ["LOW"])],
)
def test_changed_request_in_a_batch_fails_alone(name: str, value: Any) -> None:
    world = World()
    changed, *others = requests = [world.request(background=True) for _ in range(3)]
    wait = world.submit(*requests)
    setattr(changed, name, value)
    server = world.serve()
    assert server.take() == [SubmitJobBg(b"task", wire(each), b"data") for each in others]
    server.send(JobCreated(b"H:1"), JobCreated(b"H:2"))
    assert wait.done
    assert [each.state for each in requests] == [JOB_UNKNOWN, JOB_CREATED, JOB_CREATED]
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
