"""Conversations between a client's engine and scripted servers.

The tests cover the states of a request for every event of a job, server, connection or caller. The
conformance suite (`test_conformance`) has the conversations of one call with one server.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

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
from gearman_proto.wire.packets import (
    Error,
    Event,
    GetStatus,
    JobCreated,
    OptionReq,
    OptionRes,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from .harness import EPOCH, Bell, Peer, World, raw, wakes, wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gearman_proto.engines.waits import RequestsWait


def sent(world: World, *requests: GearmanJobRequest, **options: Any) -> tuple[RequestsWait, Peer]:
    """Submit `requests`, and let the only server receive them."""
    wait = world.submit(*requests, **options)
    server = world.serve()
    server.take()
    return wait, server


def status(handle: bytes = b"H:1", known: bytes = b"1") -> StatusRes:
    return StatusRes(handle, known, b"0", b"0", b"0")


def all_updates(request: GearmanJobRequest) -> list[Any]:
    updates = []
    while (update := next_update(request)) is not None:
        updates.append(update)
    return updates


def states(requests: Sequence[GearmanJobRequest]) -> list[str]:
    return [request.state for request in requests]


def data_of(sent_events: list[Event]) -> list[bytes]:
    return [event.data for event in sent_events if isinstance(event, (SubmitJob, SubmitJobBg))]


# Submitting.


def test_accepted_only_call_times_out_without_some_acknowledgments() -> None:
    world = World()
    requests = [world.request() for _ in range(2)]
    wait, server = sent(world, *requests, accepted_only=True, timeout=1.0)
    server.send(JobCreated(b"H:1"))
    assert not wait.done
    world.sleep(1.0)
    assert wait.timed_out
    assert [request.timed_out for request in requests] == [False, True]
    world.release(wait)
    again = world.wait_completed(*requests)
    assert not requests[1].timed_out
    server.send(JobCreated(b"H:2"), WorkComplete(b"H:2", b"out"), WorkFail(b"H:1"))
    assert again.done
    assert states(requests) == [JOB_FAILED, JOB_COMPLETE]


@pytest.mark.parametrize("count", [0, 1, 1024, 1025])
def test_missing_uniques_are_generated(count: int) -> None:
    world = World(unique_bytes=4)
    chosen = world.request(unique="mine")
    generated = [world.request() for _ in range(count)] + [world.request(unique="")]
    world.submit(chosen, *generated)
    assert chosen.unique == "mine"
    uniques = {wire(request) for request in generated}
    assert len(uniques) == count + 1
    assert {len(unique) for unique in uniques} == {8}
    assert set(b"".join(uniques)) <= set(b"0123456789abcdef")


def test_submits_are_built_only_when_the_socket_accepts_them() -> None:
    world = World(max_packet_size=100)
    requests = [world.request(data=bytes(30_000)) for _ in range(20)]
    world.submit(*requests)
    server = world.peer()
    assert server.pull() == b""
    server.up()
    received: list[Any] = []
    while data := server.pull():
        assert len(data) < 65536 + 31_000
        received += server.read(data)
        assert sum(r.connection_attempts for r in requests) == len(received)
        # The client reads answers while it still has requests to send.
        server.send(JobCreated(b"H:%d" % len(received)))
    assert [event.unique for event in received] == [wire(request) for request in requests]


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


@pytest.mark.parametrize(
    ("option", "bad", "good"),
    [
        ("unique_bytes", [0, 32, -1, "16", True], [1, 31]),
        ("connect_timeout", [0, 1e-9, -1.0, float("nan"), True, None], [1e-3, 1e9]),
        ("heartbeat", [0, -1, 0.05, float("nan"), True, "30"], [None, 0.1]),
        ("max_abandoned", [-1, True, None, 1e6], [0]),
        ("max_packet_size", [63, 0, -1, 2**32, "1000", 1e6, True], [64]),
    ],
)
def test_option_out_of_range_is_named(option: str, bad: list[Any], good: list[Any]) -> None:
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=f"{option} is "):
            World(**{option: value})
    for value in good:
        World(**{option: value})


@pytest.mark.parametrize("call", ["wait_completed", "as_completed", "updates"])
def test_waiting_for_other_types_raises(call: str) -> None:
    world = World()
    impossible: list[Any] = [{}, "H:1", ["H:1"], None]
    for bad in impossible:
        with pytest.raises(TypeError):
            getattr(world.engine, call)(0.0, Bell(), bad)
    assert world.act() == []


# How jobs end.


# Updates.


def test_update_stream_yields_each_update_and_the_end() -> None:
    world = World()
    request = world.request()
    world.release(world.submit(request))
    stream = world.updates(request)
    server = world.serve()
    server.take()
    world.sleep(3.0)
    server.send(JobCreated(b"H:1"))
    assert not stream.ready
    updates = [
        (WorkData(b"H:1", b"a"), JobData(b"a")),
        (WorkStatus(b"H:1", b"1", b"10"), JobProgress(1, 10)),
        (WorkData(b"H:1", b"a"), JobData(b"a")),
        (WorkWarning(b"H:1", b"w"), JobWarning(b"w")),
        (WorkStatus(b"H:1", b"", b"5 s"), JobProgress(0, 5)),
    ]
    for count, (event, update) in enumerate(updates, 1):
        server.send(event)
        assert stream.ready
        assert wakes(stream) == count
        assert [stream.take(), stream.take()] == [update, None]
        assert not stream.ready
    assert request.status == {
        "handle": "H:1",
        "known": True,
        "running": True,
        "numerator": 0,
        "denominator": 5,
        "time_received": EPOCH + 3,
    }
    server.send(WorkData(b"H:1", b"b"), WorkComplete(b"H:1", b"out"))
    assert stream.done
    ended = JobEnded(JOB_COMPLETE, b"out", None)
    assert [stream.take() for _ in range(3)] == [JobData(b"b"), ended, None]


def test_request_with_too_many_unread_updates_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_proto.jobs.updates.MAX_UNREAD_UPDATES", 1000)
    world = World()
    read, unread = (world.request(unique="u") for _ in range(2))
    wait, server = sent(world, read, unread)
    server.send(JobCreated(b"H:1"))
    alone = world.job(server, b"H:2")
    for n in range(4):
        for handle in (b"H:1", b"H:2"):
            server.send(WorkData(handle, b"%d" % n * 100), WorkWarning(handle, b"%d" % n * 100))
        all_updates(read)
    for request in (unread, alone):
        assert request.state == JOB_FAILED
        assert "unread updates" in str(request.error)
        assert len(request.data_updates) + len(request.warning_updates) == 4
    assert read.state == JOB_CREATED
    assert not wait.done
    server.send(WorkComplete(b"H:1", b"out"), WorkComplete(b"H:2", b"late"))
    assert wait.done
    assert [request.result for request in (read, unread, alone)] == [b"out", None, None]


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


@pytest.mark.parametrize("first", [{"unique": "v"}, {"task": "other"}, {"background": True}, {}])
def test_different_jobs_are_not_coalesced(first: dict[str, Any]) -> None:
    world = World()
    server = world.idle_server()
    world.job(server, **{"unique": "u", "task": "task", **first})
    second = world.request(unique="u" if first else None)
    world.submit(second)
    assert len(server.take()) == 1
    assert second.state == JOB_PENDING


@pytest.mark.parametrize(("data", "count"), [(b"", 3), (b"d", 1)])
def test_unique_dash_stands_for_the_data(data: bytes, count: int) -> None:
    """gearmand does not coalesce requests without data (recording 13_unique_dash)."""
    world = World()
    world.submit(*[world.request(unique="-", data=data) for _ in range(3)])
    assert len(world.serve().take()) == count
    world.submit(world.request(unique="-", data=b"other"))
    assert len(world.serve().take()) == 1


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


# Timeouts and abandoned waits.


def test_calls_without_servers_fail() -> None:
    world = World(0)
    request = world.request()
    for wait in (world.submit(request, request), world.statuses(request)):
        assert wait.done
        with pytest.raises(ServerUnavailable, match="no servers"):
            wait.raise_error()
    assert request.state == JOB_UNKNOWN


def test_as_completed_yields_each_request_as_it_ends() -> None:
    world = World()
    server = world.idle_server()
    ended = world.job(server)
    server.send(WorkComplete(b"H:1", b"1"))
    requests = [ended] + [world.job(server, b"H:%d" % n) for n in (2, 3, 4)]
    stream = world.as_completed(*requests)
    assert stream.ready
    assert not stream.done
    assert [stream.take(), stream.take()] == [ended, None]
    assert not stream.ready
    server.send(WorkFail(b"H:3"), WorkComplete(b"H:2", b"2"))
    assert wakes(stream) == 1
    assert [stream.take() for _ in range(3)] == [requests[2], requests[1], None]
    server.lose()
    assert stream.done
    assert stream.take() is requests[3]
    assert requests[3].state == JOB_UNKNOWN
    stream.raise_error()


# Unreferenced requests.


@pytest.mark.parametrize("count", [1, 2])
def test_starting_a_call_forgets_unreferenced_requests(count: int) -> None:
    world = World()
    server = world.idle_server()
    requests = [world.job(server) for _ in range(count)]  # They share a handle.
    kept = world.job(server, b"H:2")
    assert states([*requests, kept]) == [JOB_CREATED] * (count + 1)
    requests.clear()
    gc.collect()
    world.submit(world.request())
    assert list(server.link.jobs) == ["H:2"]


def test_forgetting_ended_requests_keeps_a_new_request_with_their_handle() -> None:
    world = World()
    server = world.idle_server()
    ended = [world.job(server) for _ in range(2)]
    server.send(WorkComplete(b"H:1", b"out"))
    kept = world.job(server)
    ended.clear()
    gc.collect()
    server.send(WorkComplete(b"H:1", b"other"))
    assert kept.result == b"other"


def test_packets_and_losses_of_unreferenced_requests_change_nothing() -> None:
    world = World()
    server = world.idle_server()
    for handle in (b"H:1", b"H:2", b"H:3"):
        world.job(server, handle, unique=handle)
    world.job(server, b"H:5")
    gc.collect()
    kept = world.job(server, b"H:4")
    server.send(WorkComplete(b"H:1", b"out"), WorkStatus(b"H:2", b"1", b"2"))
    server.send(WorkComplete(b"H:4", b"out"))
    assert kept.result == b"out"
    assert set(server.link.jobs) == {"H:2", "H:3"}
    world.job(server, b"H:6")
    gc.collect()
    server.lose()
    assert world.engine.next_action() is None
    assert world.engine.dropped
    world.submit(world.request())
    assert not world.engine.dropped


def test_forgotten_request_with_a_chosen_unique_is_still_joined() -> None:
    world = World()
    server = world.idle_server()
    world.job(server, unique="u")
    gc.collect()
    request = world.request(unique="u")
    world.submit(request)
    assert server.take() == []
    server.send(WorkData(b"H:1", b"a"), WorkComplete(b"H:1", b"out"))
    assert all_updates(request) == [JobData(b"a")]
    assert request.result == b"out"


@pytest.mark.unmeasured
def test_forgotten_requests_of_one_unique_take_linear_time() -> None:
    def seconds(count: int) -> float:
        world = World()
        server, requests = coalesced(world, count)
        world.release(world.waits[0])
        requests.clear()
        before = time.process_time()
        server.send(WorkData(b"H:1", b"a"))
        return time.process_time() - before

    # An earlier version took quadratic time: 1.8 seconds for 20,000 requests.
    assert seconds(10_000) < 40 * max(seconds(1_000), 0.001)


# Statuses.


KNOWN, UNKNOWN, REFUSED = status(), status(known=b"0"), Error(b"ERR", b"no")


@pytest.mark.parametrize(
    ("answers", "done_after", "known"),
    [
        ([UNKNOWN, UNKNOWN, UNKNOWN], 3, False),
        ([UNKNOWN, KNOWN, UNKNOWN], 2, True),
        ([REFUSED, KNOWN, UNKNOWN], 2, True),
        ([KNOWN, REFUSED, UNKNOWN], 1, True),
        ([UNKNOWN, REFUSED, UNKNOWN], 3, None),
        ([REFUSED, UNKNOWN, UNKNOWN], 3, None),
    ],
)
def test_job_of_an_unknown_server_has_the_status_of_the_server_that_knows_it(
    answers: list[Event], done_after: int, known: bool | None
) -> None:
    world = World(["a", "b", "c"])
    request = GearmanJobRequest.from_handle("H:1")
    wait = world.statuses(request)
    peers = [world.serve(host) for host in "abc"]
    for peer in peers:
        assert peer.take() == [GetStatus(b"H:1")]
    for count, (peer, answer) in enumerate(zip(peers, answers), 1):
        peer.send(answer)
        assert wait.done == (count >= done_after)
    if known is None:
        with pytest.raises(ServerError, match="ERR: no"):
            wait.raise_error()
        assert request.status == {}
    else:
        wait.raise_error()
        assert request.status["known"] is known


def test_status_times_out() -> None:
    world = World()
    server = world.idle_server()
    requests = [world.job(server, b"H:%d" % n, background=True) for n in range(2)]
    wait = world.statuses(*requests, timeout=1.0)
    server.take()
    server.send(status(b"H:0"))
    world.sleep(1.0)
    assert wait.timed_out
    assert [request.timed_out for request in requests] == [False, True]
    world.release(wait)
    server.send(status(b"H:1"))
    assert requests[1].status["known"]
    assert wakes(wait) == 1


def test_status_of_a_request_without_handle_and_unique_raises() -> None:
    with pytest.raises(InvalidClientState, match="neither"):
        World().statuses(GearmanJobRequest.from_handle(""))


def test_unanswered_status_by_unique_raises() -> None:
    world = World()
    server = world.idle_server()
    wait = world.statuses(world.job(server, background=True), by_unique=True)
    server.take()
    assert not wait.done
    world.submit(world.request())
    server.take()
    server.send_raw(raw(JobCreated(b"H:2")))
    assert wait.done
    with pytest.raises(ServerError, match=r"UNANSWERED.*GET_STATUS_UNIQUE"):
        wait.raise_error()


@pytest.mark.parametrize("is_sent", [True, False])
def test_lost_query_is_sent_once_more(is_sent: bool) -> None:
    world = World()
    server = world.idle_server()
    request = world.job(server, background=True)
    wait = world.statuses(request)
    for _ in range(2):
        assert not wait.done
        server = world.serve()
        if is_sent:
            assert server.take() == [GetStatus(b"H:1")]
        server.lose(OSError("went away"))
    assert wait.done
    assert world.act() == []
    with pytest.raises(ServerUnavailable, match="went away") as info:
        wait.raise_error()
    assert list(info.value.job_requests) == [request]


# Losses.


@pytest.mark.parametrize(
    ("job", "keeps_unique"),
    [
        ({}, False),
        ({"background": True}, True),
        ({"unique": "mine"}, True),
        ({"background": True, "unique": "mine"}, True),
    ],
)
def test_lost_submit_is_sent_to_another_server(job: dict[str, Any], keeps_unique: bool) -> None:
    world = World(2)
    request = world.request(retries=1, **job)
    wait = world.submit(request)
    first = world.serve()
    received = first.take()
    first.lose()
    assert request.state == JOB_PENDING
    second = world.serve()
    second.grants_options = False
    assert second.host != first.host
    option, again = second.take()
    assert option == OptionReq(b"exceptions")
    assert ([again] == received) == keeps_unique
    assert request.connection_attempts == 2
    second.send(OptionRes(b"exceptions"), JobCreated(b"H:1"), WorkComplete(b"H:1", b"out"))
    assert wait.done
    wait.raise_error()
    assert request.result == (None if request.background else b"out")


def test_call_fails_if_all_servers_refuse_connections() -> None:
    world = World(3)
    requests = [world.request(retries=retries) for retries in range(7)]
    wait = world.submit(*requests)
    query = world.statuses(GearmanJobRequest.from_handle("H:1"))
    refused = Counter[str]()
    while alive := world.alive():
        refused[alive[0].host] += 1
        alive[0].refuse(OSError("no route"))
    assert wait.done
    with pytest.raises(ServerUnavailable, match=r"s0:4730 \(no route\).*s1.*s2") as info:
        wait.raise_error()
    assert info.value.job_requests is wait.requests
    assert states(requests) == [JOB_UNKNOWN] * 7
    assert all(isinstance(request.error, ServerUnavailable) for request in requests)
    assert {request.connection_attempts for request in requests} == {0}
    with pytest.raises(ServerUnavailable, match=r"s\d:4730 did not answer: no route"):
        query.raise_error()
    assert set(refused) == {"s0", "s1", "s2"}
    assert sum(refused.values()) <= 6

    # All servers are cooling down, so the client tries them anyway. One of them is up again.
    prepare(requests, NoopEncoder)
    world.submit(*requests)
    for peer in world.alive()[1:]:
        peer.refuse()
    assert len(world.serve().take()) == 7


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


def test_connection_that_does_not_open_in_time_fails_its_requests() -> None:
    world = World(connect_timeout=3.0)
    wait = world.submit(world.request())
    peer = world.peer()
    assert peer.timeout == 3.0
    world.sleep(2.9)
    # The driver continues to connect. It has not been late, so the timeout is the same.
    world.call(world.engine.connecting, peer.link, world.now)
    assert world.engine.next_deadline() == 3.0
    world.sleep(0.1)
    assert peer.closed
    assert wait.done
    with pytest.raises(ServerUnavailable, match="no connection within 3 seconds"):
        wait.raise_error()
    world.call(world.engine.connecting, peer.link, world.now)
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


# Bytes.


# Closing.


def test_close_ends_all_calls() -> None:
    world = World(["a", "b", "c"])
    requests = [world.request(retries=5) for _ in range(6)]
    submit = world.submit(*requests)
    query = world.statuses(GearmanJobRequest.from_handle("H:1"))
    watch = world.engine.watch(world.now, Bell())
    created, _ = world.peers[0].up(), world.peers[1].up().take()
    count = len(data_of(created.take()))
    created.send_raw(raw(*[JobCreated(b"H:1")] * count))
    world.close()
    assert len(world.peers) == 3
    assert all(peer.closed for peer in world.peers)
    assert [wait.done for wait in (submit, query, watch)] == [True] * 3
    assert set(states(requests)) == {JOB_UNKNOWN}
    assert {str(request.error) for request in requests} == {"the client was shut down"}
    for wait in (submit, query):
        with pytest.raises(ServerUnavailable, match="shut down") as info:
            wait.raise_error()
        assert info.value.job_requests is wait.requests
    assert world.engine.next_deadline() is None


def test_calls_on_a_closed_engine_raise() -> None:
    world = World()
    ended = world.job(world.idle_server(), background=True)
    request = world.request()
    world.close()
    assert world.engine.closed
    for call in (
        lambda: world.submit(request),
        lambda: world.statuses(ended),
        world.connect,
        lambda: world.engine.watch(0.0, Bell()).raise_error(),
    ):
        with pytest.raises(InvalidClientState, match="shut down"):
            call()
    assert world.wait_completed(ended).done
    world.close()
    assert request.state == JOB_UNKNOWN
    assert world.act() == []


def test_abandoned_requests_can_be_submitted_to_a_new_engine() -> None:
    world = World(["a", "b"])
    requests = [world.request() for _ in range(4)]
    wait = world.submit(*requests)
    query = world.statuses(GearmanJobRequest.from_handle("H:1", "a"))
    stream = world.as_completed(*requests)
    watch = world.engine.watch(0.0, Bell())
    requests.append(world.request())
    world.release(world.submit(requests[-1]))
    up, connecting = world.peers[0].up(), world.peers[1]
    connects = world.engine.connect(0.0, Bell(), connecting.link.server)
    up.take()
    up.send(JobCreated(b"H:1"))
    other = World(["a"])
    foreign = other.request()
    other.submit(foreign)
    asked = world.statuses(foreign)
    bug = ZeroDivisionError("a bug")
    waits = world.engine.abandon(bug)
    assert set(waits) == {wait, query, stream, watch, connects, asked}
    assert set(waits) == set(world.engine.abandon(bug))
    for each in waits:
        assert each.done
        with pytest.raises(GearmanError, match=r"internal error.*a bug"):
            each.raise_error()
    assert [request.error for request in requests] == [bug] * 5
    assert foreign.state == JOB_PENDING
    assert (world.engine.next_action(), world.engine.next_deadline()) == (None, None)
    for peer in (up, connecting):
        world.engine.connected(peer.link, world.now)
        world.engine.receive_data(peer.link, raw(JobCreated(b"H:2")), world.now)
    assert states(requests) == [JOB_UNKNOWN] * 5
    prepare(requests, NoopEncoder)
    other.submit(*requests)
    assert len(other.serve("a").take()) == 6


def test_requests_of_a_closed_engine_are_reusable() -> None:
    world, other = World(), World()
    server = world.idle_server()
    requests = [world.job(server, b"H:%d" % n, data=b"%d" % n) for n in range(2)]
    requests.append(world.request(data=b"2"))
    world.release(world.submit(requests[2]))
    world.close()
    # Closing keeps the states, because programs look at them after a timeout.
    assert states(requests) == [JOB_CREATED, JOB_CREATED, JOB_PENDING]
    wait = other.wait_completed(requests[0])
    assert wait.done
    assert requests[0].state == JOB_UNKNOWN
    assert "client was closed" in str(requests[0].error)
    # The request was JOB_CREATED before, so `prepare` has not reset it.
    assert other.submit(requests[1]).done
    assert requests[1].state == JOB_UNKNOWN
    assert other.peers == []
    prepare(requests, NoopEncoder)
    other.submit(*requests)
    assert data_of(other.serve().take()) == [b"0", b"1", b"2"]


def test_request_lost_between_prepare_and_submit_is_returned_as_lost() -> None:
    world = World()
    server = world.idle_server()
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
    assert data_of(world.serve().take()) == [b"data", b"pending"]


# Routing.


def test_requests_of_one_unique_have_one_server() -> None:
    world = World(5, routing="unique")
    requests = [world.request(unique=f"u{n % 30}", data=b"%d" % n) for n in range(90)]
    requests += [world.request(unique="-", data=b"%d" % (n % 30)) for n in range(90)]
    requests += [world.request() for _ in range(30)]
    world.submit(*requests)
    hosts: dict[Any, set[Any]] = {}
    for request in requests:
        key = request._gm_payload if request.unique == "-" else request.unique
        hosts.setdefault(key, set()).add(request.connection)
    assert len(hosts) == 90
    groups = list(hosts.values())
    assert all(len(group) == 1 for group in groups)
    for each in range(3):
        assert len(set.union(*groups[30 * each :][:30])) == 5


# Connecting and watching.


def test_connect_waits_for_the_connection() -> None:
    world = World()
    waits = [world.connect(), world.connect()]
    peer = world.peer()
    assert not waits[0].done
    peer.up()
    assert [wait.done for wait in waits] == [True, True]
    waits[0].raise_error()
    assert world.connect().done
    assert len(world.peers) == 1
    peer.grants_options = False
    assert peer.take() == [OptionReq(b"exceptions")]
    assert repr(peer.link) == "<ClientLink to s0:4730, open>"


def test_connect_raises_if_the_connection_fails() -> None:
    world = World(connect_timeout=5.0)
    refused = world.connect()
    world.peer().refuse(OSError("no route"))
    with pytest.raises(ConnectionError, match="no connection to s0:4730: no route"):
        refused.raise_error()
    impatient, patient = world.connect(timeout=1.0), world.connect()
    world.sleep(1.0)
    assert impatient.timed_out
    impatient.raise_error()
    world.release(impatient)
    world.sleep(4.0)
    with pytest.raises(ConnectionError, match="within 5 seconds"):
        patient.raise_error()


def test_watch_reports_data_and_ends_of_connections() -> None:
    world = World()
    watch = world.engine.watch(world.now, Bell(), timeout=9.0)
    counts = []

    def look() -> None:
        counts.append(wakes(watch))
        watch.news = False

    world.submit(world.request())
    look()
    server = world.serve()
    look()
    server.take()
    look()
    server.send(JobCreated(b"H:1"))
    look()
    server.lose()
    look()
    assert counts == [0, 1, 2, 3, 4]
    assert not watch.done
    world.sleep(9.0)
    assert (watch.done, watch.timed_out) == (True, True)
    world.engine.release(watch, world.now)
    look()
    world.idle_server()
    look()
    assert counts[-2:] == [5, 5]
