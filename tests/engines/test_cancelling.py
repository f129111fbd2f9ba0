"""Cancelled jobs, in every place of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.engines.admin import AdminLink
from gearman_proto.errors import (
    InvalidClientState,
    LocalProtocolError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import prepare
from gearman_proto.wire.packets import (
    Error,
    Event,
    GetStatus,
    JobCreated,
    StatusRes,
    SubmitJob,
    TextLine,
    WorkComplete,
    WorkData,
    WorkFail,
)

from .harness import Peer, World, wakes

if TYPE_CHECKING:
    from gearman_proto.engines.client.cancelling import CancelWait


def status(handle: bytes = b"H:1", *, running: bool = False) -> StatusRes:
    return StatusRes(handle, b"1", b"%d" % running, b"0", b"0")


OK = TextLine(b"OK")
NO_JOB = TextLine(b"ERR UNKNOWN_JOB")


def questions(handle: bytes = b"H:1") -> list[Event]:
    return [GetStatus(handle), TextLine(b"cancel job " + handle)]


def queued(**options: Any) -> tuple[World, Peer, GearmanJobRequest]:
    """Return a request whose job waits at the server."""
    world = World(**options)
    request = world.request()
    world.release(world.submit(request))
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    return world, server, request


def asked(world: World, handle: bytes = b"H:1") -> Peer:
    """Return the server of the admin connection after it has received the questions."""
    admin = world.admin()
    assert admin.take() == questions(handle)
    return admin


def value(wait: CancelWait) -> str | None:
    assert wait.done
    assert wakes(wait) == 1
    wait.raise_error()
    return wait.value


@pytest.mark.parametrize("running", [False, True])
def test_acknowledged_job_is_cancelled_on_one_admin_connection(running: bool) -> None:
    world, server, request = queued()
    wait = world.cancel(request)
    admin = asked(world)
    admin.send(status(running=running))
    assert not wait.done
    admin.send(OK)
    assert value(wait) == ("running" if running else "queued")
    assert request.state == JOB_FAILED
    assert request.reason is not None
    assert "cancelled by this client" in request.reason
    assert ("worker continues" in request.reason) == running
    # What the server and the worker send later changes nothing.
    server.send(WorkFail(b"H:1"), WorkData(b"H:1", b"x"), WorkComplete(b"H:1", b"late"))
    assert (request.state, request.result) == (JOB_FAILED, None)
    # The connection is used again.
    second = world.job(server, b"H:2")
    again = world.cancel(second)
    assert asked(world, b"H:2") is admin
    admin.send(status(b"H:2"), OK)
    assert value(again) == "queued"
    assert len(world.peers) == 2


def test_fail_packet_before_the_answer_gets_its_reason_later() -> None:
    world, server, request = queued()
    wait = world.cancel(request)
    admin = asked(world)
    server.send(WorkFail(b"H:1"))
    assert (request.state, request.error) == (JOB_FAILED, None)
    admin.send(status(), OK)
    assert value(wait) == "queued"
    assert "cancelled" in str(request.error)


@pytest.mark.parametrize("fails", [False, True])
def test_late_answer_does_not_end_the_next_job_of_the_request(fails: bool) -> None:
    """Handles of two servers can be equal."""
    world = World(2)
    request = world.request()
    world.release(world.submit(request))
    first = world.serve()
    first.take()
    first.send(JobCreated(b"H:1"))
    wait = world.cancel(request)
    admin = asked(world)
    first.lose()
    prepare([request], NoopEncoder)
    world.release(world.submit(request))
    (second,) = (peer for peer in world.alive() if not isinstance(peer.link, AdminLink))
    second.up().take()
    assert second.host != first.host
    second.send(JobCreated(b"H:1"))
    if fails:
        second.send(WorkFail(b"H:1"))
    admin.send(status(), OK)
    assert value(wait) == "queued"
    assert (request.state, request.error) == (JOB_FAILED if fails else JOB_CREATED, None)


def test_job_in_flight_in_another_client_ends_there() -> None:
    _, server, request = queued()
    other = World()
    wait = other.cancel(request)
    asked(other).send(status(), OK)
    assert value(wait) == "queued"
    states = [request.state]
    server.send(WorkFail(b"H:1"))
    assert [*states, request.state] == [JOB_CREATED, JOB_FAILED]


def test_all_requests_of_the_job_end() -> None:
    world = World()
    requests = [world.request(unique="u") for _ in range(2)]
    call = world.submit(*requests)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    world.cancel(requests[0])
    asked(world).send(status(), OK)
    assert call.done
    assert {request.state for request in requests} == {JOB_FAILED}


def test_job_that_the_server_does_not_know_is_unknown() -> None:
    world, server, request = queued()
    wait = world.cancel(request)
    asked(world).send(StatusRes(b"H:1", b"0", b"0", b"0", b"0"), NO_JOB)
    assert value(wait) == "unknown"
    assert not request.complete
    server.send(WorkComplete(b"H:1", b"out"))
    assert request.state == JOB_COMPLETE


def test_request_that_has_ended_without_a_handle_is_unknown() -> None:
    world = World()
    request = world.request()
    world.submit(request)
    server = world.serve()
    server.take()
    server.send(Error(b"QUEUE_ERROR", b"full"))
    assert value(world.cancel(request)) == "unknown"
    assert value(world.cancel()) is None


def test_unsent_requests_are_removed() -> None:
    world = World()
    chosen, alike, other = (world.request(unique=unique) for unique in ("u", "u", "v"))
    plain, kept = world.request(), world.request()
    call = world.submit(chosen, alike, other, plain, kept)
    assert value(world.cancel(chosen, other, plain, plain)) == "queued"
    for request in (chosen, other, plain):
        assert request.state == JOB_FAILED
        assert "before it was sent" in str(request.error)
    server = world.serve()
    sent = [event for event in server.take() if isinstance(event, SubmitJob)]
    assert [event.unique.decode() for event in sent] == [alike.unique, kept.unique]
    assert not call.done
    server.send(JobCreated(b"H:1"), WorkFail(b"H:1"), JobCreated(b"H:2"), WorkFail(b"H:2"))
    assert call.done


@pytest.mark.parametrize("background", [False, True])
def test_sent_request_is_cancelled_once_it_is_acknowledged(background: bool) -> None:
    world = World()
    request = world.request(background=background)
    world.release(world.submit(request))
    server = world.serve()
    server.take()
    wait = world.cancel(request, timeout=5.0)
    assert (request.state, wait.done) == (JOB_PENDING, False)
    # The call gives up, and the engine goes on.
    world.sleep(5.0)
    assert wait.timed_out
    assert wait.value is None
    world.release(wait)
    server.send(JobCreated(b"H:1"))
    asked(world).send(status(), OK)
    assert request.state == (JOB_CREATED if background else JOB_FAILED)
    assert request._gm_waits == ()


def test_sent_request_that_ends_before_its_acknowledgment() -> None:
    world = World()
    request = world.request()
    call = world.submit(request)
    server = world.serve()
    server.take()
    wait = world.cancel(request)
    server.send(Error(b"QUEUE_ERROR", b"full"))
    assert call.done
    assert value(wait) == "unknown"
    lost = world.request()
    world.submit(lost)
    server.take()
    wait = world.cancel(lost)
    server.lose()
    assert value(wait) == "unknown"
    assert len(world.peers) == 1


def test_updates_do_not_disturb_a_cancellation() -> None:
    world, server, _ = queued()
    pending = world.request(unique="u")
    world.submit(pending)
    server.take()
    wait = world.cancel(pending)
    server.send(JobCreated(b"H:2"), WorkData(b"H:2", b"d"), WorkComplete(b"H:2", b"out"))
    assert (pending.state, list(pending.data_updates)) == (JOB_COMPLETE, [b"d"])
    asked(world, b"H:2").send(StatusRes(b"H:2", b"0", b"0", b"0", b"0"), NO_JOB)
    assert value(wait) == "unknown"


def test_stored_handle_is_cancelled_at_its_server() -> None:
    world = World(2)
    request = GearmanJobRequest.from_handle("H:7", "s1")
    wait = world.cancel(request)
    admin = asked(world, b"H:7")
    assert admin.host == "s1"
    admin.send(status(b"H:7"), OK)
    assert value(wait) == "queued"
    # Handles of two servers can be equal.
    with pytest.raises(InvalidClientState, match="which of the servers"):
        world.cancel(GearmanJobRequest.from_handle("H:7"))
    alone = World()
    alone.cancel(GearmanJobRequest.from_handle("H:7"))
    assert asked(alone, b"H:7").host == "s0"


def test_requests_that_cannot_be_cancelled_raise_and_change_nothing() -> None:
    world, _, request = queued()
    wrong: list[tuple[type[Exception], Any]] = [
        (InvalidClientState, world.request()),
        (InvalidClientState, GearmanJobRequest.from_handle("H:1", "elsewhere")),
        (ValueError, GearmanJobRequest.from_handle("H:1 2")),
        (TypeError, "H:1"),
    ]
    for error, each in wrong:
        with pytest.raises(error):
            world.cancel(request, each)
    assert len(world.peers) == 1
    world.close()
    with pytest.raises(InvalidClientState, match="shut down"):
        world.cancel(request)


def test_request_that_was_changed_meanwhile_fails_alone() -> None:
    world = World()
    requests = [world.request() for _ in range(2)]
    world.submit(*requests)
    server = world.serve()
    server.take()
    wait = world.cancel(*requests)
    requests[0].connection = "nonsense:x"  # type: ignore[assignment]
    server.send(JobCreated(b"H:1"), JobCreated(b"H:2"))
    asked(world, b"H:2").send(status(b"H:2"), OK)
    with pytest.raises(LocalProtocolError, match="changed"):
        wait.raise_error()
    assert requests[1].state == JOB_FAILED
    again = world.request()
    world.submit(again)
    server.take()
    wait = world.cancel(again)
    again.handle = "H:3"
    server.send(Error(b"X", b""))
    assert value(wait) == "unknown"


def test_request_that_loses_its_handle_meanwhile_is_unknown() -> None:
    world = World()
    request = world.request(background=True)
    world.submit(request)
    server = world.serve()
    server.take()
    wait = world.cancel(request)

    class Forgetful(GearmanJobRequest):
        handle = property(lambda self: None, lambda self, value: None)

    request.__class__ = Forgetful
    server.send(JobCreated(b"H:1"))
    assert value(wait) == "unknown"


# Failures.


def test_server_that_does_not_know_the_command() -> None:
    world, _, request = queued()
    wait = world.cancel(request)
    asked(world).send(status(), TextLine(b"ERR unknown_command"))
    with pytest.raises(ServerError, match="unknown_command"):
        wait.raise_error()
    assert request.state == JOB_CREATED


def test_server_that_does_not_tell_the_status() -> None:
    world, _, request = queued()
    wait = world.cancel(request)
    asked(world).send(Error(b"X", b""), OK)
    assert value(wait) == "queued"


def test_lost_admin_connection_fails_the_call_alone() -> None:
    world, server, request = queued()
    wait = world.cancel(request)
    asked(world).lose()
    with pytest.raises(ServerUnavailable):
        wait.raise_error()
    assert (server.link.alive, request.state) == (True, JOB_CREATED)
    refused = world.cancel(request)
    (admin,) = world.alive()[1:]
    admin.refuse()
    with pytest.raises(ServerUnavailable, match="refused"):
        refused.raise_error()
    # The next call opens another connection.
    last = world.cancel(request)
    asked(world).send(status(), OK)
    assert value(last) == "queued"


def test_silent_admin_connection_is_closed_after_ten_seconds() -> None:
    world, server, request = queued(heartbeat=None)
    other = world.job(server, b"H:2")
    wait = world.cancel(request)
    silent = asked(world)
    world.sleep(6.0)
    second = world.cancel(other)
    world.sleep(4.0)
    with pytest.raises(ServerUnavailable, match="did not answer"):
        wait.raise_error()
    assert silent.closed
    asked(world, b"H:2").send(status(b"H:2"), OK)
    assert value(second) == "queued"


def test_slow_admin_connection_is_given_up() -> None:
    world, _, request = queued(connect_timeout=3.0, heartbeat=None)
    wait = world.cancel(request)
    (admin,) = world.alive()[1:]
    world.engine.connecting(admin.link, world.now)
    world.sleep(3.0)
    assert admin.closed
    with pytest.raises(ServerUnavailable, match="within 3 seconds"):
        wait.raise_error()


def test_close_ends_cancellations() -> None:
    world, server, request = queued()
    pending = world.request()
    world.submit(pending)
    server.take()
    waits = [world.cancel(request), world.cancel(pending)]
    admin = asked(world)
    world.close()
    assert admin.closed
    assert all(wait.done for wait in waits)
    assert pending.state == JOB_UNKNOWN
    assert world.engine.next_deadline() is None


def test_crash_closes_the_admin_connection() -> None:
    world, _, request = queued()
    wait = world.cancel(request)
    admin = asked(world)
    world.engine.abandon(ConnectionError("a bug"))
    assert wait.done
    assert not admin.link.alive


# Abandoned calls.


def test_only_abandoned_requests_are_cancelled() -> None:
    world = World()
    plain, chosen, followed, ended = (
        world.request(),
        world.request(unique="mine"),
        world.request(),
        world.request(),
    )
    call = world.submit(plain, chosen, followed, ended, timeout=5.0)
    server = world.serve()
    server.take()
    server.send(*[JobCreated(b"H:%d" % number) for number in range(4)], WorkComplete(b"H:3", b""))
    world.wait_completed(followed)
    # The call has returned, and nothing has timed out.
    world.release(call)
    requests = (plain, chosen, followed, ended)
    assert value(world.cancel_abandoned(*requests, has_returned=True)) is None
    wait = world.cancel_abandoned(*requests)
    asked(world, b"H:0").send(status(b"H:0"), OK)
    assert value(wait) == "queued"
    assert [request.state for request in requests] == [
        JOB_FAILED,
        JOB_CREATED,
        JOB_CREATED,
        JOB_COMPLETE,
    ]


def test_requests_that_have_timed_out_are_cancelled() -> None:
    world = World()
    first, second = world.request(), world.request()
    call = world.submit(first, second, timeout=5.0)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"), JobCreated(b"H:2"), WorkComplete(b"H:1", b""))
    world.sleep(5.0)
    world.release(call)
    world.cancel_abandoned(first, second, has_returned=True)
    asked(world, b"H:2").send(status(b"H:2"), OK)
    assert [first.state, second.state] == [JOB_COMPLETE, JOB_FAILED]


@pytest.mark.parametrize("handle", [b"H:a b", b"H:\n1", b"", b"x" * 100])
def test_job_whose_handle_is_no_word_stays_uncancelled(handle: bytes) -> None:
    world = World()
    odd, plain = world.request(), world.request()
    world.release(world.submit(odd, plain))
    server = world.serve()
    server.take()
    server.send(JobCreated(handle), JobCreated(b"H:1"))
    wait = world.cancel_abandoned(odd, plain)
    asked(world).send(status(), OK)
    assert [odd.state, plain.state] == [JOB_CREATED, JOB_FAILED]
    assert wait.done


def test_cancelled_requests_count_as_abandoned_bytes() -> None:
    """A server that acknowledges nothing must not make the client keep the payloads."""
    world = World(max_abandoned=0, heartbeat=None)
    request = world.request(data=bytes(10_000))
    call = world.submit(request)
    server = world.serve()
    server.take()
    world.release(call)
    world.cancel_abandoned(request)
    with pytest.raises(ServerUnavailable, match="no call waits for"):
        world.submit(world.request()).raise_error()


def test_admin_links_are_no_links_of_the_pool() -> None:
    world, server, request = queued()
    world.cancel(request)
    admin = world.admin()
    assert isinstance(admin.link, AdminLink)
    assert world.engine.pool.links() == [server.link]
    assert [server.connected for server in world.engine.pool.servers] == [True]
    # A server that sends garbage there loses only that connection.
    admin.send_raw(b"\0XYZ" + bytes(8))
    assert (admin.closed, server.link.alive) == (True, True)
