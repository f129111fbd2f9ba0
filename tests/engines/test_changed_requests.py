"""Requests that an application has changed while they were under way, and what signals leave."""

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


def test_attempts_that_can_not_be_compared() -> None:
    """It costs the request that was changed, and no other."""
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
def test_many_of_which_some_were_changed(name: str, value: Any, where: slice) -> None:
    """Those are sent as they are now, or fail; the others are sent as they were."""
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


def test_an_exception_that_comes_behind_many_packets(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_exception_that_comes_behind_a_packet_is_no_fault_of_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal handler's: the packet has been made, so the streams would be out of step."""
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


def test_a_question_that_can_not_be_sent_is_a_bug() -> None:
    world = World()
    world.statuses(GearmanJobRequest.from_handle("H:1"))
    server = world.serve()
    query: Any = server.link.outbox[-1]
    query.event = object()
    with pytest.raises(LocalProtocolError):
        world.engine.data_to_send(server.link, world.now)


def test_ended_request_that_an_interrupted_engine_did_not_let_go_keeps_its_result() -> None:
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


def test_a_question_of_the_heartbeat_that_is_refused() -> None:
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
