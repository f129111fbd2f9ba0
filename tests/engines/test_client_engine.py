"""Conversations between a client's engine and scripted servers.

The tests cover the states of a request for every event of a job, server, connection or caller.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import events
from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
)
from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    GearmanError,
    InvalidClientState,
    LocalProtocolError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import GearmanJobRequest, next_update
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.jobs.updates import JobData, JobEnded, JobProgress, JobWarning
from gearman_proto.testing import pack
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
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
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from .harness import EPOCH, Bell, Peer, World, raw, wakes, wire

if TYPE_CHECKING:
    from collections.abc import Sequence


def all_updates(request: GearmanJobRequest) -> list[Any]:
    updates = []
    while (update := next_update(request)) is not None:
        updates.append(update)
    return updates


def states(requests: Sequence[GearmanJobRequest]) -> list[str]:
    return [request.state for request in requests]


def other_host(world: World, peer: Peer) -> str:
    (host,) = {server.address.host for server in world.engine.pool.servers} - {peer.host}
    return host


# Submitting.


@pytest.mark.parametrize("chunk", [0, 1, 7])
def test_foreground(chunk: int) -> None:
    world = World(chunk=chunk)
    request = world.request(data=b"in")
    wait = world.submit(request)
    assert request.state == JOB_PENDING
    server = world.serve()
    assert server.take() == [SubmitJob(b"task", wire(request), b"in")]
    assert request.connection_attempts == 1
    assert request.job.connection == server.link.address
    server.send(JobCreated(b"H:1"))
    assert (request.state, request.job.handle) == (JOB_CREATED, "H:1")
    assert not wait.done
    server.send(WorkComplete(b"H:1", b"out\0"))
    assert wait.done
    wait.raise_error()
    assert (request.state, request.result) == (JOB_COMPLETE, b"out\0")
    assert request.complete
    assert not wait.timed_out
    assert not request.timed_out
    assert request._gm_link is None


def test_background() -> None:
    world = World()
    request = world.request(background=True)
    wait = world.submit(request)
    server = world.serve()
    assert server.take() == [SubmitJobBg(b"task", wire(request), b"data")]
    assert not wait.done
    server.send(JobCreated(b"H:1"))
    assert wait.done
    assert (request.state, request.job.handle) == (JOB_CREATED, "H:1")
    server.send(WorkComplete(b"H:1", b"a foreground submit's"))
    server.lose()
    assert request.state == JOB_CREATED
    assert request.result is None


def test_accepted_only() -> None:
    world = World()
    requests = [world.request() for _ in range(2)]
    wait = world.submit(*requests, accepted_only=True)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    assert not wait.done
    server.send(JobCreated(b"H:2"))
    assert wait.done
    world.release(wait)
    server.send(WorkComplete(b"H:2", b"out"), WorkFail(b"H:1"))
    assert states(requests) == [JOB_FAILED, JOB_COMPLETE]


def test_all_kinds_in_one_batch() -> None:
    world = World()
    requests = [
        world.request(unique="1"),
        world.request(unique="2", priority=PRIORITY_LOW),
        world.request(unique="3", priority=PRIORITY_HIGH),
        world.request(unique="4", background=True, priority=PRIORITY_HIGH),
        world.request(unique="5", background=True, run_at=7),
        world.request(unique="6", reducer="add"),
    ]
    wait = world.submit(*requests)
    server = world.serve()
    assert server.take() == [
        SubmitJob(b"task", b"1", b"data"),
        events.SubmitJobLow(b"task", b"2", b"data"),
        events.SubmitJobHigh(b"task", b"3", b"data"),
        events.SubmitJobHighBg(b"task", b"4", b"data"),
        events.SubmitJobEpoch(b"task", b"5", b"7", b"data"),
        events.SubmitReduceJob(b"task", b"6", b"add", b"", b"data"),
    ]
    server.send(*(JobCreated(b"H:%d" % n) for n in range(6)))
    server.send(*(WorkComplete(b"H:%d" % n, b"%d" % n) for n in (5, 0, 2)))
    assert not wait.done
    server.send(WorkComplete(b"H:1", b"1"))
    assert wait.done
    assert [request.result for request in requests] == [b"0", b"1", b"2", None, None, b"5"]


def test_missing_uniques_are_generated() -> None:
    world = World(unique_bytes=4)
    requests = [world.request() for _ in range(1500)]
    requests.append(world.request(unique="mine"))
    requests.append(world.request(unique=""))
    world.submit(*requests)
    uniques = [wire(request) for request in requests]
    assert uniques.pop(1500) == b"mine"
    assert len(set(uniques)) == 1501
    assert {len(unique) for unique in uniques} == {8}
    assert all(set(unique) <= set(b"0123456789abcdef") for unique in uniques)


def test_make_uniques_returns_the_requested_number() -> None:
    engine = World(unique_bytes=31).engine
    for count in (0, 1, 1024, 1025, 3000):
        uniques = set(engine._make_uniques(count))
        assert len(uniques) == count
        assert {len(unique) for unique in uniques} <= {62}


def test_uniques_depend_on_the_seed() -> None:
    def unique(seed: int) -> bytes:
        world = World(seed=seed)
        request = world.request()
        world.submit(request)
        return wire(request)

    assert unique(1) == unique(1) != unique(2)


def test_submits_are_built_only_when_the_socket_accepts_them() -> None:
    world = World(max_packet_size=100)
    requests = [world.request(data=bytes(30_000)) for _ in range(20)]
    world.submit(*requests)
    server = world.peer()
    assert server.pull() == b""
    server.up()
    received: list[Event] = []
    while data := server.pull():
        assert len(data) < 65536 + 31_000
        received += server.read(data)
        assert sum(r.connection_attempts for r in requests) == len(received)
        # The client reads answers while it still has requests to send.
        server.send(JobCreated(b"H:%d" % len(received)))
    assert [event.unique for event in received if isinstance(event, SubmitJob)] == [
        wire(request) for request in requests
    ]


def test_submits_share_one_connection() -> None:
    world = World()
    world.submit(world.request())
    world.submit(world.request())
    server = world.serve()
    assert len(server.take()) == 2
    world.submit(world.request())
    assert len(server.take()) == 1
    assert len(world.peers) == 1


def test_calls_without_pending_requests_are_done_at_once() -> None:
    world = World()
    assert world.submit().done
    assert world.wait_completed(world.request()).done
    assert world.statuses().done
    assert world.peers == []


@pytest.mark.parametrize("unique_bytes", [0, 32, -1])
def test_invalid_size_of_uniques_raises(unique_bytes: int) -> None:
    with pytest.raises(ValueError, match="random_unique_bytes"):
        World(unique_bytes=unique_bytes)


def test_invalid_options_raise() -> None:
    with pytest.raises(TypeError, match="random_unique_bytes"):
        World(unique_bytes="16")
    for timeout in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="connect_timeout"):
            World(connect_timeout=timeout)


@pytest.mark.parametrize("call", ["wait_completed", "as_completed", "statuses"])
def test_waiting_for_other_types_raises(call: str) -> None:
    world = World()
    impossible: list[Any] = [{}, "H:1", ["H:1"], None]
    for bad in impossible:
        with pytest.raises(TypeError):
            getattr(world.engine, call)(bad, 0.0, Bell())
    assert world.act() == []


# How jobs end.


def test_failure() -> None:
    world = World()
    request = world.request()
    wait = world.submit(request)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"), WorkFail(b"H:1"))
    assert wait.done
    wait.raise_error()
    assert (request.state, request.result, request.exception) == (JOB_FAILED, None, None)
    assert request.error is None


def test_exceptions_option_is_requested_first() -> None:
    world = World()
    request = world.request()
    wait = world.submit(request)
    server = world.serve()
    server.grants_options = False
    assert server.take() == [OptionReq(b"exceptions"), SubmitJob(b"task", wire(request), b"data")]
    server.send(OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkException(b"H:1", b"why"))
    assert wait.done
    assert (request.state, request.exception, request.result) == (JOB_FAILED, b"why", None)


def test_exceptions_option_can_be_disabled() -> None:
    world = World(exceptions=False)
    request = world.request()
    wait = world.submit(request)
    server = world.serve()
    server.grants_options = False
    assert server.take() == [SubmitJob(b"task", wire(request), b"data")]
    server.send(JobCreated(b"H:1"), WorkFail(b"H:1", b""))
    assert wait.done
    assert (request.state, request.exception) == (JOB_FAILED, None)


def test_refused_option_is_no_error() -> None:
    world = World()
    request = world.request()
    wait = world.submit(request)
    server = world.serve()
    server.grants_options = False
    server.take()
    server.send(Error(b"UNKNOWN_OPTION", b""), JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    wait.raise_error()
    assert request.result == b"out"
    assert request.error is None


def test_unanswered_option_does_not_block_requests() -> None:
    world = World()
    requests = [world.request() for _ in range(2)]
    wait = world.submit(*requests)
    server = world.serve()
    server.grants_options = False
    server.take()
    server.send_raw(raw(JobCreated(b"H:1"), Error(b"0", b"denied\0")))
    # Python gear's server reports a lost worker in a packet with the magic of a request.
    server.send_raw(pack(WorkFail.packet, (b"H:1",), MAGIC_REQUEST))
    assert wait.done
    wait.raise_error()
    assert states(requests) == [JOB_FAILED, JOB_FAILED]
    assert [str(request.error) for request in requests] == ["None", "0: denied"]
    assert not server.closed


def test_packets_for_ended_jobs_are_dropped() -> None:
    world = World()
    request = world.request()
    world.submit(request)
    server = world.serve()
    server.take()
    # gearmand sends this sequence after `cancel job` on a running job.
    server.send(JobCreated(b"H:1"), WorkFail(b"H:1"), WorkComplete(b"H:1", b"late"))
    assert (request.state, request.result) == (JOB_FAILED, None)
    server.send(WorkData(b"H:1", b"later"), WorkStatus(b"H:9", b"1", b"2"), WorkFail(b"H:8"))
    assert all_updates(request) == []
    assert not server.closed


def test_refused_submit_fails_alone() -> None:
    world = World()
    requests = [world.request() for _ in range(4)]
    wait = world.submit(*requests)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"), Error(b"QUEUE_ERROR", b"Job queue is full"))
    server.send(JobCreated(b"H:2"), JobCreated(b"H:3"))
    assert [request.job.handle for request in requests] == ["H:1", None, "H:2", "H:3"]
    assert states(requests) == [JOB_CREATED, JOB_FAILED, JOB_CREATED, JOB_CREATED]
    error = requests[1].error
    assert isinstance(error, ServerError)
    assert (error.code, error.text) == ("QUEUE_ERROR", "Job queue is full")
    assert str(error) == "QUEUE_ERROR: Job queue is full"
    assert not wait.done
    server.send(*(WorkComplete(b"H:%d" % n, b"%d" % n) for n in (3, 2, 1)))
    assert wait.done
    wait.raise_error()
    assert [request.result for request in requests] == [b"1", None, b"2", b"3"]


def test_refused_background_submit_fails() -> None:
    world = World()
    request = world.request(background=True)
    wait = world.submit(request, accepted_only=True)
    server = world.serve()
    server.take()
    server.send(Error(b"QUEUE_ERROR", b""))
    assert wait.done
    wait.raise_error()
    assert request.complete
    assert request.state == JOB_FAILED


def test_error_that_answers_nothing_is_dropped() -> None:
    world = World()
    server = world_server(world)
    request = world.job(server)
    server.send_raw(raw(Error(b"JOB_NOT_FOUND", b"")))
    assert not server.closed
    server.send(WorkComplete(b"H:1", b"out"))
    assert request.result == b"out"


def world_server(world: World) -> Peer:
    """Return a server with an unused connection."""
    world.engine.connect(world.now, Bell(), world.engine.pool.servers[0])
    return world.serve()


# Updates.


def test_updates() -> None:
    world = World()
    request = world.request()
    wait = world.submit(request)
    server = world.serve()
    server.take()
    world.sleep(3.0)
    server.send(
        JobCreated(b"H:1"),
        WorkData(b"H:1", b"a"),
        WorkStatus(b"H:1", b"1", b"10"),
        WorkData(b"H:1", b"a"),
        WorkWarning(b"H:1", b"w"),
        WorkStatus(b"H:1", b"", b"5 s"),
    )
    assert not wait.done
    assert request.status == {
        "handle": "H:1",
        "known": True,
        "running": True,
        "numerator": 0,
        "denominator": 5,
        "time_received": EPOCH + 3,
    }
    assert all_updates(request) == [
        JobData(b"a"),
        JobProgress(1, 10),
        JobData(b"a"),
        JobWarning(b"w"),
        JobProgress(0, 5),
    ]


def test_update_stream() -> None:
    world = World()
    request = world.request()
    world.release(world.submit(request))
    stream = world.updates(request)
    assert not stream.ready
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    assert not stream.ready
    updates: list[Event] = [
        WorkData(b"H:1", b"a"),
        WorkWarning(b"H:1", b"w"),
        WorkStatus(b"H:1", b"1", b"2"),
    ]
    for count, update in enumerate(updates, 1):
        server.send(update)
        assert stream.ready
        assert wakes(stream) == count
        assert stream.take() is not None
        assert not stream.ready
        assert stream.take() is None
    server.send(WorkData(b"H:1", b"b"), WorkComplete(b"H:1", b"out"))
    assert stream.done
    # The stream returns the end once, after all updates.
    assert [stream.take() for _ in range(4)] == [
        JobData(b"b"),
        JobEnded(JOB_COMPLETE, b"out", None),
        None,
        None,
    ]


def test_update_stream_times_out() -> None:
    world = World()
    server = world_server(world)
    request = world.job(server)
    stream = world.updates(request, timeout=2.0)
    server.send(WorkData(b"H:1", b"a"))
    world.sleep(2.0)
    assert stream.done
    assert stream.timed_out
    assert request.timed_out
    assert not stream.finished
    # The update from before the timeout is available, without an end.
    assert [stream.take() for _ in range(2)] == [JobData(b"a"), None]
    world.release(stream)
    server.send(WorkComplete(b"H:1", b"out"))
    assert not request.timed_out
    assert (request.state, wakes(stream)) == (JOB_COMPLETE, 2)


def test_request_with_too_many_unread_updates_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_proto.jobs.updates.MAX_UNREAD_UPDATES", 1000)
    world = World()
    read, unread = (world.request(unique="u") for _ in range(2))
    wait = world.submit(read, unread)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    for n in range(4):
        server.send(WorkData(b"H:1", b"%d" % n * 100), WorkWarning(b"H:1", b"%d" % n * 100))
        all_updates(read)
    assert unread.state == JOB_FAILED
    assert isinstance(unread.error, GearmanError)
    assert "nobody read" in str(unread.error)
    assert len(unread.data_updates) + len(unread.warning_updates) == 4
    assert read.state == JOB_CREATED
    assert not wait.done
    server.send(WorkComplete(b"H:1", b"out"))
    assert wait.done
    assert (read.result, unread.result) == (b"out", None)


def test_unread_warnings_count_as_unread_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_proto.jobs.updates.MAX_UNREAD_UPDATES", 1000)
    world = World()
    server = world_server(world)
    request = world.job(server)
    server.send(WorkWarning(b"H:1", bytes(400)))
    assert request.state == JOB_CREATED
    server.send(WorkWarning(b"H:1", bytes(400)))
    assert request.state == JOB_FAILED
    server.send(WorkComplete(b"H:1", b"late"))
    assert (request.state, request.result) == (JOB_FAILED, None)


# Coalesced requests.


def coalesced(world: World, count: int = 2) -> tuple[Peer, list[GearmanJobRequest]]:
    """Return a server and requests with one unique. One submit was sent and acknowledged."""
    requests = [world.request(unique="u") for _ in range(count)]
    world.submit(*requests)
    server = world.serve()
    assert server.take() == [SubmitJob(b"task", b"u", b"data")]
    server.send(JobCreated(b"H:1"))
    assert states(requests) == [JOB_CREATED] * count
    return server, requests


def test_several_requests_can_share_a_handle() -> None:
    server, requests = coalesced(World(), 3)
    server.send(WorkComplete(b"H:1", b"out"))
    assert [request.result for request in requests] == [b"out"] * 3
    server.send(WorkComplete(b"H:1", b"out"), WorkComplete(b"H:1", b"out"))
    assert states(requests) == [JOB_COMPLETE] * 3


def test_coalesced_requests_receive_each_update_once() -> None:
    """Servers attach a connection either once per submit or once for all submits."""
    world = World()
    server, requests = coalesced(world)
    values = [b"a", b"b", b"b", b"b", b"c"]
    server.send(*(WorkData(b"H:1", value) for value in values))
    server.send(WorkStatus(b"H:1", b"1", b"2"), WorkStatus(b"H:1", b"1", b"2"))
    server.send(WorkWarning(b"H:1", b"a"), WorkException(b"H:1", b"x"))
    for request in requests:
        assert all_updates(request) == [
            *map(JobData, values),
            JobProgress(1, 2),
            JobProgress(1, 2),
            JobWarning(b"a"),
        ]
        assert (request.state, request.exception) == (JOB_FAILED, b"x")


def test_joining_request_receives_the_remaining_updates() -> None:
    world = World()
    server = world_server(world)
    first = world.job(server, unique="u")
    server.send(WorkData(b"H:1", b"a"), WorkData(b"H:1", b"a"))
    second = world.request(unique="u")
    wait = world.submit(second, accepted_only=True)
    assert wait.done
    assert (second.state, second.handle) == (JOB_CREATED, "H:1")
    assert server.take() == []
    server.send(WorkData(b"H:1", b"a"), WorkFail(b"H:1"))
    assert all_updates(first) == [JobData(b"a")] * 3
    assert all_updates(second) == [JobData(b"a")]
    assert states([first, second]) == [JOB_FAILED, JOB_FAILED]


def test_unique_of_an_ended_job_is_submitted_again() -> None:
    world = World()
    server, _ = coalesced(world)
    server.send(WorkComplete(b"H:1", b"out"))
    again = world.request(unique="u")
    world.submit(again)
    assert server.take() == [SubmitJob(b"task", b"u", b"data")]


@pytest.mark.parametrize("first", [{"unique": "v"}, {"task": "other"}, {"background": True}, {}])
def test_different_jobs_are_not_coalesced(first: dict[str, Any]) -> None:
    world = World()
    server = world_server(world)
    world.job(server, **{"unique": "u", "task": "task", **first})
    second = world.request(unique="u" if first else None)
    world.submit(second)
    assert len(server.take()) == 1
    assert second.state == JOB_PENDING


@pytest.mark.parametrize(("data", "sent"), [(b"", 3), (b"d", 1)])
def test_the_unique_that_stands_for_the_data(data: bytes, sent: int) -> None:
    """gearmand does not coalesce requests without data (recording 13_unique_dash)."""
    world = World()
    world.submit(*[world.request(unique="-", data=data) for _ in range(3)])
    assert len(world.serve().take()) == sent
    world.submit(world.request(unique="-", data=b"other"))
    assert len(world.serve().take()) == 1


@pytest.mark.parametrize("joined_when_sent", [False, True])
def test_coalesced_requests_fail_with_a_refused_submit(joined_when_sent: bool) -> None:
    world = World()
    first, second = (world.request(unique="u") for _ in range(2))
    server = world_server(world)
    world.submit(first)
    sent = server.take() if joined_when_sent else []
    wait = world.submit(second)
    sent += server.take()
    assert len(sent) == 1
    server.send(Error(b"QUEUE_ERROR", b"full"))
    assert states([first, second]) == [JOB_FAILED] * 2
    assert isinstance(second.error, ServerError)
    assert wait.done

    # The requests are no longer coalesced.
    world.submit(second)
    assert server.take() == []
    second.reset()
    world.submit(world.request(unique="u"))
    assert len(server.take()) == 1


@pytest.mark.parametrize("joined_when_sent", [False, True])
def test_coalesced_requests_count_attempts_separately(
    joined_when_sent: bool,
) -> None:
    world = World()
    first, second = world.request(unique="u"), world.request(unique="u", retries=1)
    server = world_server(world)
    world.submit(first)
    if joined_when_sent:
        server.take()
    world.submit(second)
    server.take()
    server.lose()
    assert states([first, second]) == [JOB_UNKNOWN, JOB_PENDING]
    assert isinstance(first.error, ExceededConnectionAttempts)
    server = world.serve()
    assert server.take() == [SubmitJob(b"task", b"u", b"data")]
    server.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert second.result == b"out"


def test_changed_submit_is_sent_for_its_coalesced_requests() -> None:
    world = World()
    first, second = (world.request(unique="u") for _ in range(2))
    world.submit(first, second)
    first.task = "no\0task"
    server = world.serve()
    assert server.take() == [SubmitJob(b"task", b"u", b"data")]
    assert isinstance(first.error, LocalProtocolError)
    server.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert second.result == b"out"
    alone = world.request(unique="u")
    world.submit(alone)
    alone.task = "no\0task"
    assert server.take() == []
    world.submit(world.request(unique="u"))
    assert len(server.take()) == 1


def test_background_submit_receives_no_updates() -> None:
    world = World()
    server = world_server(world)
    first = world.job(server, unique="u")
    background = world.job(server, unique="u", background=True)
    server.send(WorkData(b"H:1", b"a"), WorkData(b"H:1", b"a"), WorkComplete(b"H:1", b"out"))
    assert all_updates(first) == [JobData(b"a")] * 2
    assert (background.state, background.result) == (JOB_CREATED, None)
    assert all_updates(background) == []


# Timeouts and abandoned waits.


def test_timeout_leaves_the_job_running() -> None:
    world = World()
    requests = [world.request() for _ in range(2)]
    wait = world.submit(*requests, timeout=2.0)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"), JobCreated(b"H:2"), WorkComplete(b"H:1", b"1"))
    assert world.engine.next_deadline() == 2.0
    world.sleep(1.9)
    assert not wait.done
    world.sleep(0.1)
    assert wait.done
    assert wait.timed_out
    wait.raise_error()
    world.release(wait)
    assert [request.timed_out for request in requests] == [False, True]
    assert states(requests) == [JOB_COMPLETE, JOB_CREATED]
    assert world.engine.next_deadline() == 30.0  # The heartbeat's.

    again = world.submit(*requests, timeout=2.0)
    assert server.take() == []
    assert not requests[1].timed_out
    assert not again.done
    server.send(WorkComplete(b"H:2", b"2"))
    assert again.done
    assert not again.timed_out
    assert [request.result for request in requests] == [b"1", b"2"]
    assert wakes(wait) == 1


def test_result_after_a_timeout_is_kept_for_the_next_wait() -> None:
    world = World()
    request = world.request()
    wait = world.submit(request, timeout=0.0)
    world.sleep(0.0)
    assert wait.timed_out
    assert (request.timed_out, request.state) == (True, JOB_PENDING)
    world.release(wait)
    server = world.serve()
    assert len(server.take()) == 1
    server.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert not request.timed_out
    later = world.wait_completed(request)
    assert later.done
    assert request.result == b"out"


def test_negative_timeout_means_no_timeout() -> None:
    world = World()
    world.now = 100.0
    wait = world.submit(world.request(), timeout=-50.0)
    assert wait.deadline == 100.0


def test_accepted_only_timeout_marks_unaccepted_requests() -> None:
    world = World()
    requests = [world.request() for _ in range(2)]
    wait = world.submit(*requests, accepted_only=True, timeout=1.0)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    world.sleep(1.0)
    assert wait.timed_out
    assert [request.timed_out for request in requests] == [False, True]
    world.release(wait)
    server.send(JobCreated(b"H:2"))
    assert states(requests) == [JOB_CREATED, JOB_CREATED]


def test_released_wait_does_not_affect_its_requests() -> None:
    world = World()
    requests = [world.request() for _ in range(3)]
    wait = world.submit(*requests, timeout=1.0)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    world.release(wait)
    assert world.engine.next_deadline() == 30.0  # The heartbeat's.
    server.send(Error(b"QUEUE_ERROR", b""), JobCreated(b"H:3"))
    server.send(WorkComplete(b"H:3", b"3"), WorkComplete(b"H:1", b"1"))
    assert [request.result for request in requests] == [b"1", None, b"3"]
    assert states(requests) == [JOB_COMPLETE, JOB_FAILED, JOB_COMPLETE]
    assert wakes(wait) == 0
    assert not wait.done


def test_two_waits_for_one_request() -> None:
    world = World()
    request = world.request()
    waits = [
        world.submit(request),
        world.submit(request, timeout=1.0),
        world.wait_completed(request),
    ]
    stream = world.as_completed(request)
    server = world.serve()
    assert len(server.take()) == 1
    world.sleep(1.0)
    assert [wait.done for wait in waits] == [False, True, False]
    world.release(waits[1])
    assert request._gm_waits == (waits[0], waits[2], stream)
    server.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert [wait.done for wait in (*waits, stream)] == [True] * 4
    assert [wakes(wait) for wait in waits] == [1, 1, 1]
    assert not request.timed_out


def test_one_request_twice_in_a_list() -> None:
    world = World()
    request = world.request()
    wait = world.submit(request, request)
    stream = world.as_completed(request, request)
    server = world.serve()
    assert len(server.take()) == 1
    server.send(JobCreated(b"H:1"))
    assert not wait.done
    server.send(WorkComplete(b"H:1", b"out"))
    assert wait.done
    assert stream.done
    assert list(stream.finished) == [request]
    assert list(world.as_completed(request, request).finished) == [request]


def test_one_request_twice_in_a_list_that_is_submitted_again() -> None:
    world = World()
    request = world.request()
    world.submit(request)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    again = world.submit(request, request)
    assert server.take() == []
    server.send(WorkComplete(b"H:1", b"out"))
    assert again.done
    assert wakes(again) == 1


def test_one_request_twice_in_a_list_without_servers() -> None:
    world = World(0)
    request = world.request()
    wait = world.submit(request, request)
    assert wait.done
    assert request.state == JOB_UNKNOWN
    with pytest.raises(ServerUnavailable):
        wait.raise_error()


def test_as_completed() -> None:
    world = World()
    server = world_server(world)
    ended = world.job(server)
    server.send(WorkComplete(b"H:1", b"1"))
    requests = [ended] + [world.job(server, b"H:%d" % n) for n in (2, 3, 4)]
    stream = world.as_completed(*requests)
    assert stream.ready
    assert not stream.done
    assert stream.finished.popleft() is ended
    stream.news = False
    assert not stream.ready
    server.send(WorkFail(b"H:3"), WorkComplete(b"H:2", b"2"))
    assert wakes(stream) == 1
    assert [stream.finished.popleft() for _ in range(2)] == [requests[2], requests[1]]
    stream.news = False
    server.lose()
    assert stream.done
    assert list(stream.finished) == [requests[3]]
    assert requests[3].state == JOB_UNKNOWN
    stream.raise_error()


def test_as_completed_times_out() -> None:
    world = World()
    server = world_server(world)
    requests = [world.job(server, b"H:%d" % n) for n in range(3)]
    stream = world.as_completed(*requests, timeout=1.0)
    server.send(WorkComplete(b"H:1", b"1"))
    world.sleep(1.0)
    assert stream.done
    assert stream.timed_out
    assert list(stream.finished) == [requests[1]]
    assert [request.timed_out for request in requests] == [True, False, True]
    world.release(stream)
    server.send(WorkComplete(b"H:0", b"0"))
    assert len(stream.finished) == 1


def test_as_completed_of_unaccepted_requests_does_not_raise() -> None:
    world = World()
    request = world.request()
    wait = world.submit(request)
    stream = world.as_completed(request)
    world.peer().refuse()
    assert stream.done
    stream.raise_error()
    assert list(stream.finished) == [request]
    assert isinstance(request.error, ServerUnavailable)
    with pytest.raises(ServerUnavailable):
        wait.raise_error()


# Unreferenced requests.


def test_unreferenced_request_is_forgotten_once_accepted() -> None:
    world = World()
    wait = world.submit(world.request(), timeout=1.0)
    reference = weakref.ref(next(iter(wait.requests)))
    world.sleep(1.0)
    world.release(wait)
    del wait
    gc.collect()
    assert reference() is not None
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    gc.collect()
    assert reference() is None
    server.send(WorkData(b"H:1", b"a"), WorkComplete(b"H:1", b"out"))
    assert not server.closed
    assert server.link.jobs == {}


def test_starting_a_call_forgets_unreferenced_requests() -> None:
    world = World()
    server = world_server(world)
    world.job(server)
    gc.collect()
    kept = world.job(server, b"H:2")
    assert list(server.link.jobs) == ["H:2"]
    assert kept.state == JOB_CREATED


def test_two_unreferenced_requests_with_one_handle_are_forgotten() -> None:
    world = World()
    server = world_server(world)
    for _ in range(2):
        world.job(server)
    gc.collect()
    kept = world.job(server)
    assert list(server.link.jobs) == ["H:1"]
    server.send(WorkComplete(b"H:1", b"out"))
    assert kept.result == b"out"
    requests = [world.job(server, b"H:2") for _ in range(2)]
    assert states(requests) == [JOB_CREATED] * 2
    requests.clear()
    gc.collect()
    world.submit(world.request())
    assert server.link.jobs == {}


def test_forgetting_ended_requests_keeps_a_new_request_with_their_handle() -> None:
    world = World()
    server = world_server(world)
    ended = [world.job(server) for _ in range(2)]
    server.send(WorkComplete(b"H:1", b"out"))
    kept = world.job(server)
    ended.clear()
    gc.collect()
    server.send(WorkComplete(b"H:1", b"other"))
    assert kept.result == b"other"


def test_lost_unreferenced_job_is_forgotten_by_the_next_submit() -> None:
    world = World()
    server = world_server(world)
    world.job(server)
    gc.collect()
    server.lose()
    assert world.engine.dropped
    kept = world.request()
    wait = world.submit(kept)
    assert not world.engine.dropped
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert (wait.done, kept.result) == (True, b"out")


def test_terminal_packets_and_losses_of_unreferenced_requests() -> None:
    world = World()
    server = world_server(world)
    for handle in (b"H:1", b"H:2", b"H:3"):
        world.job(server, handle, unique=handle)
    gc.collect()
    kept = world.job(server, b"H:4")
    server.send(WorkComplete(b"H:1", b"out"), WorkStatus(b"H:2", b"1", b"2"))
    server.send(WorkComplete(b"H:4", b"out"))
    assert kept.result == b"out"
    assert set(server.link.jobs) == {"H:2", "H:3"}
    server.lose()
    assert world.engine.next_action() is None


def test_one_of_two_coalesced_requests_is_forgotten() -> None:
    world = World()
    server, requests = coalesced(world)
    world.release(world.waits[0])
    requests.pop()
    gc.collect()
    server.send(WorkData(b"H:1", b"a"), WorkComplete(b"H:1", b"out"))
    (request,) = requests
    assert all_updates(request) == [JobData(b"a")]
    assert request.result == b"out"


def test_forgotten_request_with_a_chosen_unique_is_still_joined() -> None:
    world = World()
    server = world_server(world)
    world.job(server, unique="u")
    gc.collect()
    request = world.request(unique="u")
    world.submit(request)
    assert server.take() == []
    for event in (WorkData(b"H:1", b"a"), WorkData(b"H:1", b"b"), WorkComplete(b"H:1", b"out")):
        server.send(event)
    assert all_updates(request) == [JobData(b"a"), JobData(b"b")]
    assert request.result == b"out"


def test_one_of_three_coalesced_requests_is_forgotten() -> None:
    world = World()
    server, requests = coalesced(world, 3)
    world.release(world.waits[0])
    requests.pop()
    gc.collect()
    server.send(WorkData(b"H:1", b"a"))
    requests.pop()
    gc.collect()
    server.send(WorkComplete(b"H:1", b"out"))
    assert requests[0].result == b"out"


@pytest.mark.unmeasured
def test_forgotten_requests_of_one_unique_take_linear_time() -> None:
    def seconds(count: int) -> float:
        world = World()
        requests = [world.request(unique="u") for _ in range(count)]
        wait = world.engine.submit(0.0, Bell(), requests)
        world.act()
        server = world.serve()
        server.take()
        server.send(JobCreated(b"H:1"))
        world.engine.release(wait, 0.0)
        del wait
        requests.clear()
        before = time.process_time()
        server.send(WorkData(b"H:1", b"a"))
        return time.process_time() - before

    # An earlier version took quadratic time: 1.8 seconds for 20,000 requests.
    assert seconds(20_000) < 40 * max(seconds(2_000), 0.001)


# Statuses.


def test_status_by_handle() -> None:
    world = World()
    server = world_server(world)
    request = world.job(server, background=True)
    wait = world.statuses(request)
    assert server.take() == [GetStatus(b"H:1")]
    world.sleep(5.0)
    server.send(StatusRes(b"H:1", b"1", b"1", b"3", b"4"))
    assert wait.done
    wait.raise_error()
    assert request.status == {
        "handle": "H:1",
        "known": True,
        "running": True,
        "numerator": 3,
        "denominator": 4,
        "time_received": EPOCH + 5,
    }
    wait = world.statuses(request)
    server.take()
    server.send(StatusRes(b"H:1", b"0", b"0", b"", b""))
    assert wait.done
    assert (request.status["known"], request.status["numerator"]) == (False, 0)


def test_status_by_unique() -> None:
    world = World()
    server = world_server(world)
    request = world.job(server, background=True, unique="u")
    wait = world.statuses(request, by_unique=True)
    assert server.take() == [GetStatusUnique(b"u")]
    server.send(StatusResUnique(b"u", b"1", b"0", b"0", b"0", b"2"))
    assert wait.done
    assert request.status["client_count"] == 2
    assert request.status["handle"] == "H:1"
    assert (request.status["known"], request.status["running"]) == (True, False)


def test_status_of_a_pending_request() -> None:
    world = World()
    request = world.request(unique="u")
    submit = world.submit(request)
    wait = world.statuses(request)
    server = world.serve()
    assert server.take() == [SubmitJob(b"task", b"u", b"data"), GetStatusUnique(b"u")]
    server.send(JobCreated(b"H:1"), StatusResUnique(b"u", b"1", b"0", b"0", b"0", b"1"))
    assert wait.done
    assert not submit.done
    assert request.status["known"]


def test_statuses_of_stored_handles_and_uniques() -> None:
    world = World(["a", "b"])
    by_handle = GearmanJobRequest.from_handle("H:1", "a")
    by_unique = GearmanJobRequest.from_unique("u", "b")
    wait = world.statuses(by_handle, by_unique)
    a, b = world.serve("a"), world.serve("b")
    assert (a.take(), b.take()) == ([GetStatus(b"H:1")], [GetStatusUnique(b"u")])
    a.send(StatusRes(b"H:1", b"0", b"0", b"0", b"0"))
    assert not wait.done
    b.send(StatusResUnique(b"u", b"1", b"1", b"1", b"2", b"0"))
    assert wait.done
    assert [r.status["known"] for r in (by_handle, by_unique)] == [False, True]


@pytest.mark.parametrize("known", [b"0", b"1"])
def test_status_of_an_unknown_server_is_requested_from_all(known: bytes) -> None:
    world = World(["a", "b", "c"])
    request = GearmanJobRequest.from_handle("H:1")
    wait = world.statuses(request)
    peers = [world.serve(host) for host in "abc"]
    for peer in peers:
        assert peer.take() == [GetStatus(b"H:1")]
    peers[0].send(StatusRes(b"H:1", b"0", b"0", b"0", b"0"))
    assert not wait.done
    peers[1].send(StatusRes(b"H:1", known, b"0", b"0", b"0"))
    assert wait.done == (known == b"1")
    peers[2].send(StatusRes(b"H:1", b"0", b"0", b"0", b"0"))
    assert wait.done
    assert request.status["known"] == (known == b"1")


def test_status_after_the_end_changes_no_result() -> None:
    world = World()
    server = world_server(world)
    request = world.job(server)
    wait = world.statuses(request)
    server.take()
    server.send(WorkComplete(b"H:1", b"out"), StatusRes(b"H:1", b"0", b"0", b"0", b"0"))
    assert wait.done
    assert (request.state, request.result) == (JOB_COMPLETE, b"out")
    assert request.status["known"] is False


def test_status_times_out() -> None:
    world = World()
    server = world_server(world)
    requests = [world.job(server, b"H:%d" % n, background=True) for n in range(2)]
    wait = world.statuses(*requests, timeout=1.0)
    server.take()
    server.send(StatusRes(b"H:0", b"1", b"0", b"0", b"0"))
    world.sleep(1.0)
    assert wait.timed_out
    assert [request.timed_out for request in requests] == [False, True]
    world.release(wait)
    server.send(StatusRes(b"H:1", b"1", b"1", b"0", b"0"))
    assert requests[1].status["running"]
    assert wakes(wait) == 1


def test_status_without_handle_or_unique() -> None:
    world = World()
    with pytest.raises(InvalidClientState, match="neither"):
        world.statuses(world.request())
    with pytest.raises(InvalidClientState, match="elsewhere"):
        world.statuses(GearmanJobRequest.from_handle("H:1", "elsewhere"))
    with pytest.raises(ValueError, match="NUL"):
        world.statuses(GearmanJobRequest.from_handle("H:\0"))
    with pytest.raises(ValueError, match="more than"):
        world.statuses(GearmanJobRequest.from_handle("H" * 64))
    with pytest.raises(ValueError, match="more than"):
        world.statuses(
            GearmanJobRequest.from_handle("H:1"), GearmanJobRequest.from_unique("u" * 64)
        )
    assert world.peers == []


def test_status_without_servers() -> None:
    world = World(0)
    wait = world.statuses(GearmanJobRequest.from_handle("H:1"))
    assert wait.done
    with pytest.raises(ServerUnavailable, match="no servers"):
        wait.raise_error()


def test_refused_status_raises() -> None:
    world = World()
    server = world_server(world)
    requests = [world.job(server, b"H:%d" % n, background=True) for n in range(2)]
    wait = world.statuses(*requests)
    server.take()
    server.send(Error(b"INVALID_COMMAND", b"no"), StatusRes(b"H:1", b"1", b"0", b"0", b"0"))
    assert wait.done
    with pytest.raises(ServerError, match="INVALID_COMMAND: no"):
        wait.raise_error()
    assert requests[0].status == {}
    assert requests[1].status["known"]


def test_unanswered_status_by_unique() -> None:
    world = World()
    server = world_server(world)
    request = world.job(server, background=True)
    wait = world.statuses(request, by_unique=True)
    server.take()
    assert not wait.done
    world.submit(world.request())
    server.take()
    server.send_raw(raw(JobCreated(b"H:2")))
    assert wait.done
    with pytest.raises(ServerError, match=r"UNANSWERED.*GET_STATUS_UNIQUE"):
        wait.raise_error()


def test_query_with_an_answer_ignores_a_later_error() -> None:
    world = World(["a", "b"])
    known, unknown = (GearmanJobRequest.from_unique(unique) for unique in ("u", "v"))
    wait = world.statuses(known, unknown)
    a, b = world.serve("a"), world.serve("b")
    a.take()
    b.take()
    a.send(StatusResUnique(b"u", b"1", b"0", b"0", b"0", b"0"))
    b.send(Error(b"no", b""))
    for peer in (a, b):
        peer.send(StatusResUnique(b"v", b"0", b"0", b"0", b"0", b"0"))
    assert wait.done
    wait.raise_error()
    assert [r.status["known"] for r in (known, unknown)] == [True, False]


def test_lost_query_is_sent_once_more() -> None:
    world = World()
    server = world_server(world)
    request = world.job(server, background=True)
    wait = world.statuses(request)
    server.take()
    server.lose()
    assert not wait.done
    server = world.serve()
    assert server.take() == [GetStatus(b"H:1")]
    server.lose()
    assert wait.done
    assert world.act() == []
    with pytest.raises(ServerUnavailable) as info:
        wait.raise_error()
    assert list(info.value.job_requests) == [request]


def test_unsent_query_is_sent_once_more_after_a_loss() -> None:
    world = World()
    server = world_server(world)
    wait = world.statuses(GearmanJobRequest.from_handle("H:1"))
    server.lose()
    assert not wait.done
    world.peer().refuse()
    assert wait.done
    with pytest.raises(ServerUnavailable, match="refused"):
        wait.raise_error()


def test_answered_query_is_not_sent_again_after_a_loss() -> None:
    world = World(["a", "b"])
    wait = world.statuses(GearmanJobRequest.from_handle("H:1"))
    a, b = world.serve("a"), world.serve("b")
    a.take()
    b.take()
    a.send(StatusRes(b"H:1", b"1", b"0", b"0", b"0"))
    assert wait.done
    b.lose()
    assert len(world.peers) == 2
    wait.raise_error()


# Losses.


def test_loss_after_job_created() -> None:
    world = World()
    request = world.request(retries=3)
    wait = world.submit(request)
    server = world.serve()
    server.take()
    server.send(JobCreated(b"H:1"))
    server.lose(OSError("reset"))
    assert wait.done
    wait.raise_error()
    assert request.state == JOB_UNKNOWN
    assert not request.timed_out
    assert not request.complete
    assert len(world.peers) == 1
    assert not server.closed


def test_loss_before_any_answer() -> None:
    world = World()
    requests = [world.request(retries=1) for _ in range(2)]
    world.submit(*requests)
    server = world.serve()
    server.grants_options = False
    assert len(server.take()) == 3
    server.lose()
    again = world.serve()
    again.grants_options = False
    received = again.take()
    assert received[0] == OptionReq(b"exceptions")
    assert received[1:] == [SubmitJob(b"task", wire(r), b"data") for r in requests]


def test_resubmitted_after_a_loss() -> None:
    world = World()
    requests = [
        world.request(),
        world.request(unique="mine"),
        world.request(),
        world.request(background=True),
    ]
    wait = world.submit(*requests)
    server = world.serve()
    first = server.take()
    server.send(*(JobCreated(b"H:%d" % n) for n in range(4)))
    server.send(WorkData(b"H:0", b"a"), WorkComplete(b"H:2", b"2"))
    server.lose()
    assert wait.done
    assert states(requests) == [JOB_UNKNOWN, JOB_UNKNOWN, JOB_COMPLETE, JOB_CREATED]
    world.release(wait)

    prepare(requests, NoopEncoder)
    wait = world.submit(*requests)
    assert requests[0].job.handle is None
    assert all_updates(requests[0]) == []
    server = world.serve()
    again = server.take()
    assert len(again) == 2
    assert again[1] == first[1]
    assert again[0] == SubmitJob(b"task", wire(requests[0]), b"data") != first[0]
    assert requests[0].connection_attempts == 1
    server.send(JobCreated(b"H:8"), JobCreated(b"H:9"))
    server.send(WorkComplete(b"H:9", b"9"), WorkComplete(b"H:8", b"8"))
    assert wait.done
    assert [request.result for request in requests] == [b"8", b"9", b"2", None]


def test_lost_submit_is_sent_again() -> None:
    world = World(2)
    request = world.request(retries=1)
    wait = world.submit(request)
    first = world.serve()
    (sent,) = first.take()
    first.lose()
    assert request.state == JOB_PENDING
    second = world.serve()
    assert second.host != first.host
    (again,) = second.take()
    assert again == SubmitJob(b"task", wire(request), b"data") != sent
    assert request.connection_attempts == 2
    second.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert wait.done
    wait.raise_error()
    assert request.result == b"out"


@pytest.mark.parametrize(
    "job", [{"background": True}, {"unique": "mine"}, {"background": True, "unique": "mine"}]
)
def test_retried_request_keeps_its_unique(job: dict[str, Any]) -> None:
    world = World()
    request = world.request(retries=1, **job)
    world.submit(request)
    server = world.serve()
    sent = server.take()
    server.lose()
    assert world.serve().take() == sent
    assert request.connection_attempts == 2


def test_retries_limit_the_number_of_attempts() -> None:
    world = World()
    requests = [world.request(retries=retries) for retries in (2, 0, 5)]
    wait = world.submit(*requests)
    for sent in (3, 2, 2):
        assert not wait.done
        server = world.serve_again()
        assert len(server.take()) == sent
        server.lose(OSError("went away"))
    assert requests[2].state == JOB_PENDING
    # Two requests have failed, and the call waits only for the third to be accepted.
    assert not wait.done
    server = world.serve_again()
    server.take()
    server.send(JobCreated(b"H:1"))
    assert wait.done
    with pytest.raises(ExceededConnectionAttempts, match=r"1 time and.*went away") as info:
        wait.raise_error()
    assert info.value.job_requests is wait.requests
    assert states(requests) == [JOB_UNKNOWN, JOB_UNKNOWN, JOB_CREATED]
    assert [request.connection_attempts for request in requests] == [3, 1, 4]
    assert "3 times" in str(requests[0].error)


def test_unsent_submits_move_without_counting_an_attempt() -> None:
    world = World(2)
    request = world.request()
    wait = world.submit(request)
    first = world.serve()
    unique = wire(request)
    first.lose()
    assert request.connection_attempts == 0
    second = world.serve()
    assert second.host != first.host
    assert second.take() == [SubmitJob(b"task", unique, b"data")]
    assert request.connection_attempts == 1
    second.send(JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    wait.raise_error()
    assert request.result == b"out"


def test_unsent_submits_stop_after_their_retries() -> None:
    world = World()
    request = world.request(retries=2)
    wait = world.submit(request)
    for attempt in range(3):
        assert request.connection_attempts == attempt
        world.serve_again().lose()
    assert wait.done
    assert request.connection_attempts == 3
    with pytest.raises(ExceededConnectionAttempts):
        wait.raise_error()
    assert world.act() == []


def test_refused() -> None:
    world = World()
    requests = [world.request(retries=5), world.request(background=True)]
    wait = world.submit(*requests)
    world.peer().refuse(OSError("no route"))
    assert wait.done
    assert states(requests) == [JOB_UNKNOWN, JOB_UNKNOWN]
    with pytest.raises(ServerUnavailable, match=r"s0:4730.*no route") as info:
        wait.raise_error()
    assert info.value.job_requests is wait.requests
    assert all(isinstance(request.error, ServerUnavailable) for request in requests)
    assert [request.connection_attempts for request in requests] == [0, 0]


def test_all_servers_down() -> None:
    world = World(3)
    requests = [world.request(retries=retries) for retries in range(7)]
    wait = world.submit(*requests)
    refused = Counter[str]()
    while (peer := next((p for p in world.peers if p.link.alive), None)) is not None:
        refused[peer.host] += 1
        peer.refuse()
    assert wait.done
    with pytest.raises(ServerUnavailable, match=r"s0.*s1.*s2") as info:
        wait.raise_error()
    assert info.value.job_requests is wait.requests
    assert states(requests) == [JOB_UNKNOWN] * 7
    assert set(refused) == {"s0", "s1", "s2"}
    assert sum(refused.values()) <= 6

    # All servers are cooling down, so the client tries them anyway. One of them is up again.
    prepare(requests, NoopEncoder)
    wait = world.submit(*requests)
    for peer in [peer for peer in world.peers if peer.link.alive][1:]:
        peer.refuse()
    server = world.serve()
    assert len(server.take()) == 7


def test_one_of_two_servers_down() -> None:
    world = World(2)
    requests = [world.request() for _ in range(6)]
    wait = world.submit(*requests)
    down, up = world.peers
    down.refuse()
    up.up()
    received = up.take()
    assert Counter(type(event) for event in received) == {SubmitJob: 6}
    uniques = [event.unique for event in received if isinstance(event, SubmitJob)]
    up.send(*(JobCreated(unique) for unique in uniques))
    assert [request.job.handle for request in requests] == [r.job.unique for r in requests]
    up.send(*(WorkComplete(unique, unique) for unique in uniques))
    assert wait.done
    wait.raise_error()
    assert [request.connection_attempts for request in requests] == [1] * 6

    # The failed server returns to the rotation after its cool-down.
    world.submit(*[world.request() for _ in range(4)])
    assert len(world.peers) == 2
    world.sleep(1.0)
    world.submit(*[world.request() for _ in range(4)])
    assert [peer.host for peer in world.peers] == [down.host, up.host, down.host]


def test_answer_resets_the_failures_of_a_server() -> None:
    world = World()
    (server,) = world.engine.pool.servers
    world.submit(world.request())
    world.peer().refuse()
    world.submit(world.request())
    peer = world.serve()
    assert server.failures == 1
    peer.take()
    peer.send(JobCreated(b"H:1"))
    assert (server.failures, server.cool_until) == (0, 0.0)


def test_connect_timeout() -> None:
    world = World(connect_timeout=3.0)
    request = world.request()
    wait = world.submit(request)
    peer = world.peer()
    assert peer.timeout == 3.0
    assert world.engine.next_deadline() == 3.0
    world.sleep(3.0)
    assert peer.closed
    assert wait.done
    with pytest.raises(ServerUnavailable, match="no connection within 3 seconds"):
        wait.raise_error()
    assert world.engine.next_deadline() is None


def test_connect_timeout_restarts_after_a_pause_between_calls() -> None:
    """A blocking client runs only in its calls, so the timeout can pass between two attempts."""
    world = World(connect_timeout=3.0)
    wait = world.submit(world.request())
    peer = world.peer()
    for _ in range(2):
        world.now += 60.0
        world.call(world.engine.connecting, peer.link, world.now)
        world.sleep(2.9)
        assert not peer.closed
    world.sleep(0.1)
    assert peer.closed
    assert wait.done


def test_connect_timeout_is_not_extended_before_it_passes() -> None:
    world = World(connect_timeout=3.0)
    world.submit(world.request())
    peer = world.peer()
    world.sleep(2.9)
    world.call(world.engine.connecting, peer.link, world.now)
    world.sleep(0.1)
    assert peer.closed
    # The call does not set the timeout again.
    world.call(world.engine.connecting, peer.link, world.now)
    assert world.engine.next_deadline() is None


def test_connect_timeout_ends_when_the_connection_is_open() -> None:
    world = World(connect_timeout=3.0)
    world.submit(world.request())
    peer = world.serve()
    assert world.engine.next_deadline() is None
    world.sleep(30.0)
    assert not peer.closed


def test_events_of_a_dead_link_are_ignored() -> None:
    world = World(1, connect_timeout=1.0)
    request = world.request(retries=1)
    wait = world.submit(request)
    server = world.serve()
    server.take()
    server.lose()
    new = world.peer()
    server.send_raw(raw(JobCreated(b"H:1")))
    server.up()
    server.lose()
    server.refuse()
    assert server.pull() == b""
    assert not server.link.is_up
    assert new.link.alive
    assert request.state == JOB_PENDING
    assert not wait.done
    assert len(world.peers) == 2


# Bytes.


GARBAGE = {
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "magic": b"\0BAD" + bytes(8),
    "no such packet": b"\0RES" + (5).to_bytes(4, "big") + bytes(4),
    "a worker's packet": raw(events.Noop()),
    "a packet without its NUL": b"\0RES\0\0\0\x0d\0\0\0\x03H:1",
    "oversized data": b"\0RES\0\0\0\x0d\x7f\xff\xff\xff",
    "oversized handle": b"\0RES\0\0\0\x08\0\x01\0\x01",
    "a handle with a NUL": b"\0RES\0\0\0\x08\0\0\0\x03H\0001",
    "an answer to nothing": raw(JobCreated(b"H:2")),
    "an answer to something else": raw(StatusRes(b"H:1", b"0", b"0", b"0", b"0")),
}


@pytest.mark.parametrize("chunk", [0, 1])
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=list(GARBAGE))
def test_garbage(garbage: bytes, chunk: int) -> None:
    world = World(chunk=chunk)
    done, created = world.request(), world.request()
    wait = world.submit(done, created)
    server = world.serve()
    server.take()
    # The client processes packets that arrive before the garbage.
    good = raw(JobCreated(b"H:1"), JobCreated(b"H:3"), WorkComplete(b"H:1", b"out"))
    server.send_raw(good + garbage)
    assert server.closed
    assert not server.link.alive
    assert wait.done
    wait.raise_error()
    assert states([done, created]) == [JOB_COMPLETE, JOB_UNKNOWN]
    assert done.result == b"out"
    assert world.engine.pool.servers[0].failures == 1


def test_garbage_before_job_created() -> None:
    world = World()
    request = world.request(retries=1)
    wait = world.submit(request)
    server = world.serve()
    server.take()
    server.send_raw(b"garbage")
    assert server.closed
    server = world.serve()
    server.take()
    server.send_raw(b"\0RES\0\0\0\x63\0\0\0\0")
    assert wait.done
    with pytest.raises(ExceededConnectionAttempts, match="type 99"):
        wait.raise_error()


def test_client_chooses_the_largest_packet() -> None:
    world = World(max_packet_size=100)
    server = world_server(world)
    fits, too_large = world.job(server, b"H:1"), world.job(server, b"H:2")
    server.send(WorkComplete(b"H:1", bytes(96)))
    assert fits.result == bytes(96)
    server.send(WorkComplete(b"H:2", bytes(97)))
    assert server.closed
    assert too_large.state == JOB_UNKNOWN


def test_split_at_every_byte() -> None:
    packets = raw(
        OptionRes(b"exceptions"),
        JobCreated(b"H:1"),
        Error(b"QUEUE_ERROR", b"full"),
        WorkData(b"H:1", b"a\0b"),
        JobCreated(b"H:2"),
        WorkStatus(b"H:2", b"1", b"2"),
        WorkComplete(b"H:2", b"two"),
        WorkException(b"H:1", b"why"),
    )
    for at in range(len(packets) + 1):
        world = World()
        requests = [world.request() for _ in range(3)]
        wait = world.submit(*requests)
        server = world.serve()
        server.grants_options = False
        server.take()
        server.send_raw(packets[:at])
        assert wait.done == (at == len(packets))
        server.send_raw(packets[at:])
        assert wait.done
        assert states(requests) == [JOB_FAILED, JOB_FAILED, JOB_COMPLETE]
        assert [request.job.handle for request in requests] == ["H:1", None, "H:2"]
        assert (requests[0].exception, requests[2].result) == (b"why", b"two")
        assert all_updates(requests[0]) == [JobData(b"a\0b")]
        assert all_updates(requests[2]) == [JobProgress(1, 2)]


def test_terminal_packet_before_job_created_is_dropped() -> None:
    world = World()
    request = world.request()
    wait = world.submit(request)
    server = world.serve()
    server.take()
    server.send(WorkComplete(b"H:1", b"early"), JobCreated(b"H:1"))
    assert request.state == JOB_CREATED
    assert not wait.done
    assert not server.closed


# Closing.


def test_close() -> None:
    world = World(["a", "b", "c"])
    requests = [world.request(retries=5) for _ in range(6)]
    submit = world.submit(*requests)
    status = world.statuses(GearmanJobRequest.from_handle("H:1"))
    watch = world.engine.watch(world.now, Bell())
    links = [peer.link for peer in world.peers]
    created, sent = world.peers[0].up(), world.peers[1].up()
    first = created.take()
    created.send_raw(raw(*[JobCreated(b"H:1")] * sum(isinstance(e, SubmitJob) for e in first)))
    sent.take()
    world.close()
    assert all(peer.closed for peer in world.peers)
    assert len(world.peers) == len(links) == 3
    assert submit.done
    assert status.done
    assert watch.done
    assert set(states(requests)) == {JOB_UNKNOWN}
    with pytest.raises(ServerUnavailable, match="shut down") as info:
        submit.raise_error()
    assert info.value.job_requests is submit.requests
    with pytest.raises(ServerUnavailable, match="shut down"):
        status.raise_error()
    assert [str(request.error) for request in requests] == ["the client was shut down"] * 6
    assert world.engine.next_deadline() is None


def test_calls_on_a_closed_engine_raise() -> None:
    world = World()
    ended = world.job(world_server(world), background=True)
    request = world.request()
    world.close()
    assert world.engine.closed
    with pytest.raises(InvalidClientState, match="shut down"):
        world.submit(request)
    with pytest.raises(InvalidClientState, match="shut down"):
        world.statuses(ended)
    with pytest.raises(InvalidClientState, match="shut down"):
        world.engine.connect(0.0, Bell(), world.engine.pool.servers[0]).raise_error()
    with pytest.raises(InvalidClientState, match="shut down"):
        world.engine.watch(0.0, Bell()).raise_error()
    assert world.wait_completed(ended).done
    world.close()
    assert request.state == JOB_UNKNOWN


def test_closed_without_connections() -> None:
    world = World()
    world.close()
    assert world.act() == []


def test_abandoned_requests_can_be_submitted_to_a_new_engine() -> None:
    world = World(["a", "b"])
    requests = [world.request() for _ in range(4)]
    wait = world.submit(*requests)
    status = world.statuses(GearmanJobRequest.from_handle("H:1", "a"))
    stream = world.as_completed(*requests)
    watch = world.engine.watch(0.0, Bell())
    abandoned = world.request()
    world.release(world.submit(abandoned))
    up, connecting = world.peers[0].up(), world.peers[1]
    connect = world.engine.connect(0.0, Bell(), connecting.link.server)
    up.take()
    up.send(JobCreated(b"H:1"))
    bug = ZeroDivisionError("a bug")
    waits = world.engine.abandon(bug)
    assert set(waits) == {wait, status, stream, watch, connect} == set(world.engine.abandon(bug))
    for each in waits:
        assert each.done
        with pytest.raises(GearmanError, match=r"internal error.*a bug"):
            each.raise_error()
    requests.append(abandoned)
    assert states(requests) == [JOB_UNKNOWN] * 5
    assert [request.error for request in requests] == [bug] * 5
    assert world.engine.next_action() is None
    assert world.engine.next_deadline() is None
    for peer in (up, connecting):
        world.engine.connected(peer.link, world.now)
        world.engine.receive_data(peer.link, raw(JobCreated(b"H:2")), world.now)
    assert states(requests) == [JOB_UNKNOWN] * 5
    prepare(requests, NoopEncoder)
    other = World(["a"])
    other.submit(*requests)
    assert len(other.serve("a").take()) == 5


def test_abandon_leaves_requests_of_other_engines_alone() -> None:
    world, other = World(["a"]), World(["a"])
    request = other.request()
    other.submit(request)
    asked = world.statuses(request)
    world.engine.abandon(ConnectionError("interrupted"))
    assert asked.done
    assert request.state == JOB_PENDING


def test_requests_of_another_engine() -> None:
    world, other = World(), World()
    server = world_server(world)
    created, pending = world.job(server), world.request()
    world.submit(pending)
    for request in (created, pending):
        for call in (other.submit, other.wait_completed, other.as_completed):
            with pytest.raises(InvalidClientState, match="another client"):
                call(request)
    assert other.peers == []
    assert states([created, pending]) == [JOB_CREATED, JOB_PENDING]

    world.close()
    prepare([created, pending], NoopEncoder)
    other.submit(created, pending)
    assert len(other.serve().take()) == 2


def test_requests_of_a_closed_engine_are_reusable() -> None:
    world, other = World(), World()
    server = world_server(world)
    requests = [world.job(server, b"H:%d" % n, data=b"%d" % n) for n in range(2)]
    world.release(world.submit(*requests))
    for wait in list(world.waits):
        world.release(wait)
    world.close()
    # Closing keeps the states, because programs look at them after a timeout.
    assert states(requests) == [JOB_CREATED] * 2
    wait = other.wait_completed(requests[0])
    assert wait.done
    assert requests[0].state == JOB_UNKNOWN
    assert "client was closed" in str(requests[0].error)
    # The request was JOB_CREATED before, so `prepare` has not reset it.
    assert other.submit(*requests[1:]).done
    assert requests[1].state == JOB_UNKNOWN
    assert other.peers == []
    prepare(requests, NoopEncoder)
    other.submit(*requests)
    received = other.serve().take()
    assert [event.data for event in received if isinstance(event, SubmitJob)] == [b"0", b"1"]


def test_lost_between_prepare_and_submit() -> None:
    world = World()
    server = world_server(world)
    created, pending = world.job(server), world.request(data=b"pending")
    world.submit(pending)
    server.take()
    prepare([created, pending], NoopEncoder)
    server.lose()
    # The call ends like one whose connection is lost later. It never sends a job without data.
    wait = world.submit(created, pending)
    assert wait.done
    assert states([created, pending]) == [JOB_UNKNOWN, JOB_UNKNOWN]
    wait.raise_error()
    prepare([created, pending], NoopEncoder)
    world.submit(created, pending)
    received = world.serve().take()
    assert [event.data for event in received if isinstance(event, SubmitJob)] == [
        b"data",
        b"pending",
    ]


# Requests changed after their check.


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        ("job", "task", "t\0"),
        ("job", "task", None),
        ("job", "unique", "u" * 64),
        ("request", "run_at", "tomorrow"),
        ("request", "run_at", -1),
        ("request", "priority", "URGENT"),
    ],
)
def test_request_with_invalid_changes_after_submit_fails_alone(
    where: str, name: str, value: Any
) -> None:
    world = World()
    requests = [world.request(background=True) for _ in range(3)]
    wait = world.submit(*requests)
    setattr(requests[1].job if where == "job" else requests[1], name, value)
    server = world.serve()
    assert len(server.take()) == 2
    server.send(JobCreated(b"H:1"), JobCreated(b"H:2"))
    assert states(requests) == [JOB_CREATED, JOB_UNKNOWN, JOB_CREATED]
    assert [request.job.handle for request in requests] == ["H:1", None, "H:2"]
    assert wait.done
    with pytest.raises(LocalProtocolError, match="changed since"):
        wait.raise_error()
    assert isinstance(requests[1].error, LocalProtocolError)
    assert not server.closed


# Routing.


def test_routing_by_unique() -> None:
    world = World(5, routing="unique")
    requests = [world.request(unique=f"u{n}") for n in range(30)] * 2
    requests += [world.request(unique=f"u{n}", data=b"other") for n in range(30)]
    world.submit(*requests)
    hosts: dict[str | None, set[Any]] = {}
    for request in requests:
        hosts.setdefault(request.unique, set()).add(request.job.connection)
    assert len(hosts) == 30
    assert all(len(group) == 1 for group in hosts.values())
    assert len(set.union(*hosts.values())) == 5


def test_routing_by_data_with_dash_unique() -> None:
    world = World(5, routing="unique")
    requests = [world.request(unique="-", data=b"%d" % n) for n in range(30)]
    again = [world.request(unique="-", data=b"%d" % n) for n in range(30)]
    world.submit(*requests, *again)
    assert [r.job.connection for r in requests] == [r.job.connection for r in again]
    assert len({r.job.connection for r in requests}) == 5


def test_routing_with_generated_uniques() -> None:
    world = World(5, routing="unique")
    requests = [world.request() for _ in range(50)]
    world.submit(*requests)
    assert len({r.job.connection for r in requests}) == 5


def test_routing_by_unique_when_a_server_is_down() -> None:
    world = World(3, routing="unique")
    requests = [world.request(unique=f"u{n}") for n in range(30)]
    world.submit(*requests)
    before = [request.job.connection for request in requests]
    down = world.peer("s1")
    down.refuse()
    after = [request.job.connection for request in requests]
    assert down.link.address in before
    assert down.link.address not in after
    for old, new in zip(before, after):
        assert old in (new, down.link.address)


# Connecting and watching.


def connect(world: World, **options: Any) -> Any:
    wait = world.engine.connect(world.now, Bell(), world.engine.pool.servers[0], **options)
    world.waits.append(wait)
    world.act()
    return wait


def test_connect() -> None:
    world = World()
    waits = [connect(world), connect(world)]
    peer = world.peer()
    assert not waits[0].done
    peer.up()
    assert [wait.done for wait in waits] == [True, True]
    waits[0].raise_error()
    assert connect(world).done
    assert len(world.peers) == 1
    peer.grants_options = False
    assert peer.take() == [OptionReq(b"exceptions")]


def test_connect_fails() -> None:
    world = World()
    wait = connect(world)
    world.peer().refuse(OSError("no route"))
    assert wait.done
    with pytest.raises(ConnectionError, match="no connection to s0:4730: no route"):
        wait.raise_error()


def test_connect_times_out() -> None:
    world = World(connect_timeout=5.0)
    impatient, patient = connect(world, timeout=1.0), connect(world)
    world.sleep(1.0)
    assert impatient.timed_out
    impatient.raise_error()
    world.release(impatient)
    world.sleep(4.0)
    assert patient.done
    with pytest.raises(ConnectionError, match="within 5 seconds"):
        patient.raise_error()


def test_watch() -> None:
    world = World()
    watch = world.engine.watch(world.now, Bell(), timeout=9.0)
    count = 0

    def news() -> int:
        nonlocal count
        count += watch.news
        watch.news = False
        return count

    world.submit(world.request())
    assert news() == 0
    server = world.serve()
    assert news() == 1
    server.take()
    assert news() == 2
    server.send(JobCreated(b"H:1"))
    assert news() == 3
    server.lose()
    assert news() == 4
    assert wakes(watch) == 4
    assert not watch.done
    world.sleep(9.0)
    assert watch.done
    assert watch.timed_out
    world.engine.release(watch, world.now)
    server = world_server(world)
    assert news() == 4


# The surface of the transport side.


def test_repr_and_address() -> None:
    world = World(["h:7"])
    server = world_server(world)
    assert repr(server.link) == "<ClientLink to h:7, open>"
    assert str(server.link.address) == "h:7"


def test_answers_of_two_servers_are_matched_separately() -> None:
    world = World(2)
    requests = [world.request(data=b"%d" % n) for n in range(6)]
    wait = world.submit(*requests)
    peers = [peer.up() for peer in world.peers]
    for peer in peers:
        mine = [event.data for event in peer.take() if isinstance(event, SubmitJob)]
        assert len(mine) == 3
        assert mine == sorted(mine)
        # Handles are local to a server, so both servers send the same ones.
        peer.send(*(JobCreated(b"H:%d" % n) for n in range(3)))
        peer.send(*(WorkComplete(b"H:%d" % n, b"out " + mine[n]) for n in (2, 0, 1)))
    assert wait.done
    assert [request.result for request in requests] == [b"out %d" % n for n in range(6)]


def test_number_of_unanswered_submits_is_limited() -> None:
    world = World()
    requests = make_requests([{"task": "t", "data": b""}] * 4200, background=True)
    prepare(requests, NoopEncoder)
    world.submit(*requests)
    server = world.serve()
    assert len(server.take()) == 4096
    assert server.pull() == b""
    assert list(world.engine.links_to_write()) == []
    server.send(*[JobCreated(b"H:%d" % number) for number in range(3)])
    assert list(world.engine.links_to_write()) == [server.link]
    assert len(server.take()) == 3
    assert server.link.connection.unanswered == 4096


@pytest.mark.unmeasured
def test_many_jobs() -> None:
    world = World(chunk=1000)
    requests = make_requests([{"task": "t", "data": b"%d" % n} for n in range(3000)])
    prepare(requests, NoopEncoder)
    wait = world.engine.submit(0.0, Bell(), requests)
    server = world.serve()
    while server.pull():
        pass
    packets = [JobCreated(b"H:%d" % n) for n in range(3000)]
    ends = [WorkComplete(b"H:%d" % n, b"%d" % n) for n in reversed(range(3000))]
    server.send_raw(raw(OptionRes(b"exceptions"), *packets, *ends))
    assert wait.done
    assert wakes(wait) == 1
    assert [request.result for request in requests] == [b"%d" % n for n in range(3000)]


@pytest.mark.parametrize("failing_first", [False, True])
@pytest.mark.parametrize("known", [b"0", b"1"])
def test_status_error_yields_only_to_a_server_that_knows_the_job(
    known: bytes, failing_first: bool
) -> None:
    """Only a "known" from another server replaces the error, in either order of arrival."""
    world = World(["a", "b"])
    request = GearmanJobRequest.from_handle("H:1")
    wait = world.statuses(request)
    failing, answering = world.serve("a"), world.serve("b")
    assert failing.take() == answering.take() == [GetStatus(b"H:1")]

    def fail() -> None:
        failing.send(Error(b"ERR", b"no"))

    def answer() -> None:
        answering.send(StatusRes(b"H:1", known, b"0", b"0", b"0"))

    for step in (fail, answer) if failing_first else (answer, fail):
        step()
    assert wait.done
    if known == b"1":
        wait.raise_error()
        assert request.status["known"]
    else:
        with pytest.raises(ServerError):
            wait.raise_error()
        assert request.status == {}


def test_request_can_be_reset_after_its_client_is_closed() -> None:
    world = World(["a"])
    request = world.request()
    world.submit(request)
    with pytest.raises(InvalidClientState):
        request.reset()
    world.release(world.waits[0])
    world.close()
    assert request.state == JOB_PENDING
    request.reset()
    assert request.state == JOB_UNKNOWN


def test_reset_forgets_a_generated_unique() -> None:
    """The server might still hold the abandoned foreground job with the old unique."""
    world = World(["a"])
    server = world.serve
    foreground, background = world.request(), world.request(background=True)
    chosen = world.request(unique="mine")
    requests = (foreground, background, chosen)
    world.submit(*requests)
    server("a").lose()
    before = [request.unique for request in requests]
    for request in requests:
        assert request.state == JOB_UNKNOWN
        request.reset()
    world.submit(*requests)
    after = [request.unique for request in requests]
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_interrupted_submit_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A KeyboardInterrupt stops the call between two of its requests."""
    world = World(["a"])
    requests = [world.request() for _ in range(3)]
    assign = world.engine._assign

    def torn(request: GearmanJobRequest, now: float) -> None:
        if request is requests[1]:
            raise KeyboardInterrupt
        assign(request, now)

    with monkeypatch.context() as patch:
        patch.setattr(world.engine, "_assign", torn)
        patch.setattr(world.engine, "_only_link", lambda now: None)
        with pytest.raises(KeyboardInterrupt):
            world.engine.submit(0.0, lambda: None, requests)
    world.engine.abandon(ConnectionError("interrupted"))
    assert {request.state for request in requests} == {JOB_UNKNOWN}
    prepare(requests, NoopEncoder)
    other = World(["a"])
    other.submit(*requests)
    assert len(other.serve("a").take()) == 3


def test_request_lost_by_an_interrupted_engine_can_be_submitted_again() -> None:
    world = World(["a"])
    request = world.request()
    world.release(world.submit(request))
    world.peers[0].link.outbox.clear()  # The engine was interrupted while it moved the request.
    world.engine.abandon(ConnectionError("interrupted"))
    prepare([request], NoopEncoder)
    other = World(["a"])
    other.submit(request)
    assert len(other.serve("a").take()) == 1
