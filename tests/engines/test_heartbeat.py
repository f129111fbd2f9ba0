"""Tests of the heartbeat in simulated time: probes of silent servers, and missing answers."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
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
    Event,
    GetStatus,
    GetStatusUnique,
    JobCreated,
    OptionReq,
    OptionRes,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkStatus,
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


def test_silent_server_receives_status_queries_oldest_job_first() -> None:
    world, server, requests = make_jobs(3)
    world.sleep(29.9)
    assert server.take() == []
    world.sleep(0.1)
    assert server.take() == [GetStatus(b"H:0"), GetStatus(b"H:1"), GetStatus(b"H:2")]
    server.send(*[known(b"H:%d" % n) for n in range(3)])
    world.sleep(29.9)
    assert server.take() == []
    world.sleep(0.2)
    assert len(server.take()) == 3
    assert {request.state for request in requests} == {JOB_CREATED}


@pytest.mark.unmeasured
def test_number_of_pending_status_queries_is_limited() -> None:
    world, server, _ = make_jobs(200)
    world.sleep(30.0)
    asked = server.take()
    assert asked == [GetStatus(b"H:%d" % n) for n in range(64)]
    for n in range(200):
        server.send(known(b"H:%d" % n))
        asked += server.take()
    assert asked == [GetStatus(b"H:%d" % n) for n in range(200)]
    world.sleep(31.0)
    assert len(server.take()) == 64


def test_ended_jobs_are_not_queried() -> None:
    world, server, _ = make_jobs(66)
    world.sleep(30.0)
    server.take()
    server.send(WorkComplete(b"H:64", b""), known(b"H:0"))
    assert server.take() == [GetStatus(b"H:65")]


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


def test_responsive_server_receives_no_probe() -> None:
    world = World()
    for _ in range(100):
        request = world.request(background=True)
        world.submit(request)
        server = world.serve()
        assert [type(event) for event in server.take()] == [SubmitJobBg]
        world.sleep(10.0)
        server.send(JobCreated(b"H:1"))


def test_idle_link_sends_no_probe() -> None:
    world, server, (request,) = make_jobs(1)
    server.send(WorkComplete(b"H:0", b"out"))
    world.sleep(30.0)
    assert world.engine.next_deadline() is None
    world.sleep(3600.0)
    assert server.take() == []
    # The silence of the idle link does not count.
    world.submit(world.request())
    assert [type(event) for event in server.take()] == [SubmitJob]
    assert world.engine.next_deadline() == world.now + 30.0
    assert request.state == JOB_COMPLETE


def test_unreferenced_jobs_are_not_queried() -> None:
    world = World()
    world.submit(request := world.request())
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:0"))
    for wait in list(world.waits):
        world.release(wait)
    del wait, request
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
    server = world_with_handle(world, b"H:" + bytes(70).replace(b"\0", b"x"))
    world.sleep(30.0)
    assert server.take() == [ECHO]


def world_with_handle(world: World, handle: bytes) -> Peer:
    world.submit(world.request())
    server = world.serve()
    server.take()
    server.send(JobCreated(handle))
    return server


def test_heartbeat_none_disables_probes() -> None:
    world, server, _ = make_jobs(1, heartbeat=None)
    assert world.engine.next_deadline() is None
    world.sleep(10000.0)
    assert server.take() == []


@pytest.mark.parametrize("heartbeat", [0, -1, 0.01, float("nan")])
def test_invalid_heartbeat_raises(heartbeat: float) -> None:
    with pytest.raises(ValueError, match="heartbeat"):
        World(heartbeat=heartbeat)


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
    requests = [world.request() for _ in range(4)]
    world.submit(*requests)
    stopped, other = (peer.up() for peer in list(world.peers))
    stopped.take()
    answer(other)
    world.sleep(3.0)
    world.sleep(3.01)
    assert stopped.closed
    # For ten minutes, the server accepts connections but sends nothing.
    taken: list[Event] = []
    while world.now < 600 or not world.peers[-1].link.alive:
        request = world.request()
        wait = world.submit(request)
        for peer in world.peers:
            if peer.host == stopped.host and peer.link.alive:
                peer.grants_options = False
                taken += peer.up().take()
        answer(other)
        assert request.state == JOB_COMPLETE
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
    """See recordings 36 and 37, and 62 and 63 of gearmand 2.0. Proxies hide a server's restart."""
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


def test_result_before_an_unknown_status_completes_the_job() -> None:
    world, server, (request,) = make_jobs(1)
    world.sleep(30.0)
    server.take()
    server.send(WorkComplete(b"H:0", b"out"), unknown(b"H:0"))
    assert (request.state, request.result, request.error) == (JOB_COMPLETE, b"out", None)


def test_result_after_an_unknown_status_is_ignored() -> None:
    world, server, (request,) = make_jobs(1)
    world.sleep(30.0)
    server.take()
    server.send(unknown(b"H:0"), WorkComplete(b"H:0", b"out"))
    assert (request.state, request.result) == (JOB_UNKNOWN, None)


def test_unknown_status_by_unique_does_not_lose_the_job() -> None:
    """Servers do not find every unique: for example, "-" stands for the data."""
    world, server, (request,) = make_jobs(1)
    world.statuses(request, by_unique=True)
    (question,) = server.take()
    assert isinstance(question, GetStatusUnique)
    server.send(StatusResUnique(question.unique, b"0", b"0", b"0", b"0", b"0"))
    assert request.state == JOB_CREATED
    assert not request.status["known"]


# Large packets.


def test_each_written_piece_of_a_large_packet_is_progress() -> None:
    world = World(heartbeat=3.0)
    data = bytes(3_000_000)
    request = world.request(data=data)
    world.submit(request)
    server = world.serve()
    received: list[Event] = []
    pieces = 0
    # The upload takes much longer than the heartbeat's timeout.
    while piece := server.pull():
        assert len(piece) <= 256 * 1024
        received += server.read(piece)
        pieces += 1
        world.sleep(2.5)
        assert not server.closed
    assert pieces > 10
    assert received[0] == SubmitJob(b"task", wire_of(request), data)
    assert received[1:] == [ECHO]


def test_unread_large_packet_times_out() -> None:
    world = World(heartbeat=3.0)
    world.submit(world.request(data=bytes(3_000_000)))
    server = world.serve()
    taken = len(server.pull())
    world.sleep(3.0)
    # A tunnel might hold the data and need this long to deliver it.
    world.sleep(3.0 + taken / 20_000 - 0.1)
    assert not server.closed
    world.sleep(0.2)
    assert server.closed


def wire_of(request: GearmanJobRequest) -> bytes:
    assert request.unique is not None
    return request.unique.encode()


# Data kept for a silent server.


def give_up(world: World, count: int, size: int, **options: Any) -> list[GearmanJobRequest]:
    """Submit jobs of `size` bytes one by one, each in a call that times out."""
    requests = []
    for _ in range(count):
        request = world.request(data=bytes(size))
        wait = world.submit(request, timeout=1.0, **options)
        requests.append(request)
        if not wait.done:
            world.sleep(1.0)
        world.release(wait)
    return requests


@pytest.mark.parametrize("reads", [False, True])
def test_abandoned_data_for_a_silent_server_is_limited(reads: bool) -> None:
    world = World(heartbeat=None, max_abandoned=1_000_000)
    world.submit(world.request(data=bytes(100_000)))
    server = world.serve()
    requests = give_up(world, 30, 100_000)
    if reads:
        server.take()
    kept = [request for request in requests if request._gm_payload is not None]
    assert 9 <= len(kept) <= 11
    assert {request.state for request in kept} == {JOB_PENDING}
    refused = requests[-1]
    assert refused.state == JOB_UNKNOWN
    assert isinstance(refused.error, ServerUnavailable)
    assert "does not answer" in str(refused.error)
    assert "bytes are kept for it that no call waits for" in str(refused.error)

    # Answered requests free their share of the limit.
    server.take()
    server.send(*[JobCreated(b"H:%d" % n) for n in range(len(kept) + 1)])
    again = world.request()
    world.submit(again)
    assert again.state == JOB_PENDING


def test_jobs_beyond_the_limit_go_to_another_server() -> None:
    world = World(["a", "b"], heartbeat=None, max_abandoned=1_000_000)
    world.submit(*[world.request() for _ in range(2)])
    stopped, other = (peer.up() for peer in list(world.peers))
    for _ in range(60):
        request = world.request(data=bytes(100_000))
        wait = world.submit(request, timeout=1.0)
        answer(other)
        world.sleep(1.0)
        world.release(wait)
    assert stopped.link.abandoned() < 1_200_000
    before = len(stopped.link.outbox)
    for _ in range(10):
        request = world.request()
        world.submit(request)
        answer(other)
        assert request.state == JOB_COMPLETE
    assert len(stopped.link.outbox) == before


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


# Signs of life.


def test_progress_updates_keep_the_link_alive() -> None:
    world, server, (request,) = make_jobs(1, heartbeat=3.0)
    for n in range(10):
        world.sleep(2.9)
        server.send(WorkStatus(b"H:0", b"%d" % n, b"10"))
    server.send_raw(raw(WorkComplete(b"H:0", b"out")))
    assert request.state == JOB_COMPLETE
    assert request.state != JOB_FAILED
