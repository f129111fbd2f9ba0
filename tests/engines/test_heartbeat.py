"""Tests of the heartbeat in simulated time: probes of silent servers, and missing answers."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_PENDING,
    JOB_UNKNOWN,
)
from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    GearmanError,
    ServerUnavailable,
)
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import prepare
from gearman_proto.wire.packets import (
    EchoReq,
    EchoRes,
    Error,
    Event,
    GetStatus,
    GetStatusUnique,
    JobCreated,
    OptionReq,
    OptionRes,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    WorkComplete,
    WorkData,
)

from .harness import Peer, World, raw

ECHO = EchoReq(b"heartbeat")


def known(handle: bytes, *, running: bool = True) -> StatusRes:
    return StatusRes(handle, b"1", b"%d" % running, b"0", b"0")


def unknown(handle: bytes) -> StatusRes:
    return StatusRes(handle, b"0", b"0", b"0", b"0")


def make_jobs(count: int, **options: Any) -> tuple[World, Peer, list[GearmanJobRequest]]:
    """Return a World, a server and awaited requests that it acknowledged at time 0."""
    world = World(**options)
    requests = [world.request() for _ in range(count)]
    world.submit(*requests)
    server = world.serve()
    server.take()
    server.send(*[JobCreated(b"H:%d" % n) for n in range(count)])
    return world, server, requests


# Probes.


def test_link_has_more_after_a_probe_until_all_is_written() -> None:
    """The engine has to see that a probe was written. Nobody needs to know that of a job."""
    world, server, _ = make_jobs(1)
    world.submit(world.request())
    assert b"task" in world.engine.data_to_send(server.link, world.now)
    assert not server.link.has_more
    world.sleep(30)
    assert b"H:0" in world.engine.data_to_send(server.link, world.now)
    assert server.link.has_more


def test_silent_server_is_asked_about_all_jobs_oldest_first() -> None:
    world, server, requests = make_jobs(67)
    world.sleep(29.9)
    assert server.take() == []
    world.sleep(0.1)
    asked = [GetStatus(b"H:%d" % n) for n in range(67)]
    assert server.take() == asked[:64]
    # Each answer allows another question, even a refusal. Ended jobs are skipped.
    server.send(WorkComplete(b"H:64", b""), Error(b"ACL", b"not for you"))
    assert server.take() == [asked[65]]
    for n in range(1, 66):
        if n != 64:
            server.send(known(b"H:%d" % n))
    assert server.take() == [asked[66]]
    server.send(known(b"H:66"))
    world.sleep(29.9)
    assert server.take() == []
    world.sleep(0.2)
    assert server.take() == asked[:64]
    assert {request.state for request in requests} == {JOB_CREATED, JOB_COMPLETE}


def test_link_without_jobs_sends_an_echo() -> None:
    world = World()
    request = world.request(background=True)
    wait = world.submit(request)
    server = world.serve()
    server.take()
    world.sleep(30.0)
    assert server.take() == [ECHO]
    world.sleep(29.0)
    # Any received byte counts as a sign of life, even a part of a packet.
    server.send_raw(b"\0")
    world.sleep(29.9)
    assert server.take() == []
    server.send_raw(raw(JobCreated(b"H:1"), EchoRes(b"heartbeat"))[1:])
    assert wait.done
    assert request.state == JOB_CREATED


def test_idle_link_sends_no_probe() -> None:
    world, server, _ = make_jobs(1)
    server.send(WorkComplete(b"H:0", b"out"))
    world.sleep(30.0)
    assert world.engine.next_deadline() is None
    world.sleep(3600.0)
    assert server.take() == []
    # The silence of the idle link does not count.
    world.submit(world.request())
    assert [type(event) for event in server.take()] == [SubmitJob]
    assert world.engine.next_deadline() == world.now + 30.0


def test_unreferenced_jobs_are_not_queried() -> None:
    world, server, requests = make_jobs(1)
    for wait in list(world.waits):
        world.release(wait)
    del wait, requests
    gc.collect()
    world.sleep(30.0)
    assert server.take() == []


def test_unanswered_option_sends_no_probe() -> None:
    """Python gear's server drops OPTION_REQ."""
    world = World()
    world.engine.connect(world.now, lambda: None, world.engine.pool.servers[0])
    world.act()
    server = world.peer()
    server.grants_options = False
    server.up()
    assert server.take() == [OptionReq(b"exceptions")]
    world.sleep(30.0)
    world.sleep(30.0)
    assert server.take() == []
    assert server.link.is_up


def test_old_job_on_an_active_link_is_queried() -> None:
    """The server might have lost this job only."""
    world, server, requests = make_jobs(2)
    asked: list[Event] = []
    for _ in range(70):
        world.sleep(1.0)
        server.send(WorkData(b"H:1", b"more"))
        for question in server.take():
            assert isinstance(question, GetStatus)
            asked.append(question)
            if len(asked) < 3:
                server.send(known(question.handle))
    assert asked == [GetStatus(b"H:0"), GetStatus(b"H:1")] * 2
    server.send(unknown(b"H:0"))
    assert requests[0].state == JOB_UNKNOWN
    assert requests[1].state == JOB_CREATED


def test_oversized_handles_are_not_queried() -> None:
    """gearmand never answers a GET_STATUS for a handle of more than 63 bytes."""
    world = World()
    world.submit(world.request())
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:" + b"x" * 70))
    world.sleep(30.0)
    assert server.take() == [ECHO]


# Missing answers.


def test_a_server_that_does_not_answer_is_lost_with_a_reason() -> None:
    world, server, (request,) = make_jobs(1)
    sent = world.request(background=True)
    wait = world.submit(sent)
    server.take()
    world.sleep(30.0)
    world.sleep(29.9)
    assert not server.closed
    world.sleep(0.11)
    assert server.closed
    assert request.state == JOB_UNKNOWN
    assert isinstance(request.error, ConnectionError)
    assert "has been silent for 60 seconds, and did not answer when asked" in str(request.error)
    with pytest.raises(ExceededConnectionAttempts, match="silent"):
        wait.raise_error()


def test_what_was_not_acknowledged_goes_to_another_server() -> None:
    world = World(["a", "b"], heartbeat=3.0)
    request = world.request(retries=1)
    world.submit(request)
    (stopped,) = world.peers
    stopped.up().take()
    world.sleep(3.0)
    world.sleep(3.01)
    assert stopped.closed
    (other,) = (peer for peer in world.peers if peer is not stopped)
    other.up().take()
    other.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert request.result == b"out"


@pytest.mark.unmeasured
def test_stopped_server_receives_no_jobs_until_it_answers() -> None:
    """In an earlier version, a stopped server of two received every second submit."""
    world = World(["a", "b"], heartbeat=3.0)
    world.submit(*[world.request() for _ in range(4)])
    stopped, other = (peer.up() for peer in list(world.peers))
    stopped.take()
    answer(other)
    world.sleep(3.0)
    world.sleep(3.01)
    assert stopped.closed
    # For ten minutes, the server accepts connections but sends nothing.
    taken: list[Event] = []
    while world.now < 600 or not world.peers[-1].link.alive:
        wait = world.submit(world.request())
        for peer in world.alive():
            if peer.host == stopped.host:
                peer.grants_options = False
                taken += peer.up().take()
        answer(other)
        assert wait.done
        world.release(wait)
        world.sleep(1.0)
    assert {type(event) for event in taken} == {OptionReq, GetStatus, EchoReq}
    assert len(world.peers) < 40
    # The server answers, and receives jobs again.
    back = world.peers[-1]
    back.send_raw(raw(OptionRes(b"exceptions"), unknown(b"H:trial:0")))
    for _ in range(2):
        world.submit(world.request())
    assert any(isinstance(event, SubmitJob) for event in back.take())


def answer(server: Peer) -> None:
    """Complete all jobs submitted to `server`."""
    for number, event in enumerate(server.take()):
        assert isinstance(event, SubmitJob)
        handle = b"H:%d:%d" % (server.world.now, number)
        server.send(JobCreated(handle), WorkComplete(handle, b"out"))


@pytest.mark.parametrize("late", [5.0, 4000.0])
def test_late_timeout_waits_for_buffered_data(late: float) -> None:
    """The process was stopped, or does not run the engine between calls."""
    world, server, _ = make_jobs(1)
    world.sleep(30.0)
    server.take()
    world.sleep(30.0 + late)
    assert not server.closed
    server.send(known(b"H:0"))
    world.sleep(30.0)
    assert not server.closed
    server.take()
    # The engine grants this delay only once.
    world.sleep(30.0 + late)
    assert not server.closed
    world.sleep(1.0 + late)
    assert server.closed


def test_a_server_that_drops_the_echo_lives_by_its_other_answers() -> None:
    """Python gear's server drops ECHO_REQ."""
    world = World()
    first = world.request()
    world.submit(first)
    server = world.serve()
    server.take()
    world.sleep(30.0)
    assert server.take() == [ECHO]
    server.send_raw(raw(JobCreated(b"H:1")))
    second = world.request()
    world.submit(second)
    server.take()
    server.send_raw(raw(JobCreated(b"H:2"), WorkComplete(b"H:2", b""), WorkComplete(b"H:1", b"")))
    assert (first.state, second.state) == (JOB_COMPLETE, JOB_COMPLETE)
    assert not server.closed


# Jobs unknown to the server.


@pytest.mark.parametrize("asked_by", ["heartbeat", "application"])
def test_a_job_that_the_server_has_lost(asked_by: str) -> None:
    """See recordings 36 and 37, and 62 and 63 of 2.0.0. Proxies hide the restart of a server."""
    world, server, (lost, other) = make_jobs(2)
    if asked_by == "application":
        world.statuses(lost)
    else:
        world.sleep(30.0)
    assert GetStatus(b"H:0") in server.take()
    server.send(unknown(b"H:0"))
    assert lost.state == JOB_UNKNOWN  # The state is not JOB_FAILED because the job might have run.
    assert isinstance(lost.error, GearmanError)
    assert "s0:4730 has lost the job" in str(lost.error)
    assert "has lost the job" in repr(lost)
    assert other.state == JOB_CREATED
    # The application can submit the lost request again.
    prepare([lost], NoopEncoder)
    world.submit(lost)
    assert any(isinstance(event, SubmitJob) for event in server.take())


def test_unknown_status_by_unique_does_not_lose_the_job() -> None:
    """Servers do not find every unique: for example, "-" stands for the data."""
    world, server, (request,) = make_jobs(1)
    world.statuses(request, by_unique=True)
    (question,) = server.take()
    assert isinstance(question, GetStatusUnique)
    server.send(StatusResUnique(question.unique, b"0", b"0", b"0", b"0", b"0"))
    assert request.state == JOB_CREATED
    assert not request.status["known"]


# Data kept for a silent server.


@pytest.mark.parametrize("reads", [False, True])
def test_abandoned_data_for_a_silent_server_is_limited(reads: bool) -> None:
    world = World(heartbeat=None, max_abandoned=1_000_000)
    requests = [world.request(data=bytes(100_000)) for _ in range(30)]
    world.submit(requests[0])
    server = world.serve()
    for request in requests[1:]:
        wait = world.submit(request, timeout=1.0)
        world.sleep(1.0)
        world.release(wait)
    if reads:
        server.take()
    kept = [request for request in requests if request._gm_payload is not None]
    assert 10 <= len(kept) <= 12
    assert {request.state for request in kept} == {JOB_PENDING}
    refused = requests[-1]
    assert refused.state == JOB_UNKNOWN
    assert isinstance(refused.error, ServerUnavailable)
    assert "bytes are kept for it that no call waits for" in str(refused.error)
    # Answered requests free their share of the limit.
    server.take()
    server.send(*[JobCreated(b"H:%d" % n) for n in range(len(kept))])
    again = world.request()
    world.submit(again)
    assert again.state == JOB_PENDING


def test_jobs_beyond_the_limit_go_to_another_server() -> None:
    world = World(["a", "b"], heartbeat=None, max_abandoned=1_000_000)
    world.submit(*[world.request() for _ in range(2)])
    stopped, other = (peer.up() for peer in list(world.peers))
    for number in range(70):
        request = world.request(data=bytes(100_000))
        wait = world.submit(request, timeout=1.0)
        answer(other)
        # Every second job waits for the stopped server, up to the limit.
        assert number < 30 or request.state == JOB_COMPLETE
        world.sleep(1.0)
        world.release(wait)
    assert 900_000 < stopped.link.abandoned() < 1_200_000


def test_abandoned_queries_count_towards_the_limit() -> None:
    world = World(heartbeat=None, max_abandoned=10_000)
    request = GearmanJobRequest.from_handle("H:1")
    errors = 0
    for _ in range(100):
        wait = world.statuses(request, timeout=1.0)
        if world.peers and not world.peers[0].link.is_up and not errors:
            world.peers[0].up()
        world.sleep(1.0)
        errors += wait.error is not None
        world.release(wait)
    assert errors > 80
    assert len(world.peers[0].link.outbox) < 15


def test_awaited_requests_do_not_count_towards_the_limit() -> None:
    world = World(max_abandoned=1_000)
    requests = [world.request(data=bytes(100_000)) for _ in range(30)]
    for request in requests:
        world.submit(request)
    assert {request.state for request in requests} == {JOB_PENDING}
