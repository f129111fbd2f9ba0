"""Jobs and requests as applications see them, before and after they are at a server.

All bad input is refused by the call that gets it, before anything is sent. What comes back is
decoded where it is read, once.
"""

from __future__ import annotations

import gc
import weakref
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from gearman_proto import constants, events
from gearman_proto.address import ServerAddress
from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
)
from gearman_proto.errors import InvalidClientState
from gearman_proto.jobs.encoder import DataEncoder, NoopEncoder
from gearman_proto.jobs.job import GearmanJob
from gearman_proto.jobs.request import GearmanJobRequest, ended, next_update
from gearman_proto.jobs.submitting import check_requests, make_requests, prepare, submit_event
from gearman_proto.jobs.updates import JobData, JobEnded, JobProgress, JobWarning, UpdateQueue
from tests.engines.harness import World


class Counting(DataEncoder):
    """Decodes to a str, but for ``b"bad"``; counts."""

    def __init__(self) -> None:
        self.decoded: list[bytes] = []

    def encode(self, encodable_object: Any) -> Any:  # type: ignore[override]
        if encodable_object == "bad":
            raise ZeroDivisionError
        return encodable_object

    def decode(self, decodable_string: bytes) -> Any:  # type: ignore[override]
        self.decoded.append(decodable_string)
        if decodable_string == b"bad":
            raise ZeroDivisionError
        return decodable_string.decode()


def one(encoder: Any = NoopEncoder, *, background: bool = False, **job: Any) -> GearmanJobRequest:
    """A prepared request."""
    requests = make_requests([{"task": "t", "data": b"d", **job}], background=background)
    prepare(requests, encoder)
    return requests[0]


# make_requests.


def test_defaults() -> None:
    (request,) = make_requests([{"task": "t", "data": b"d"}])
    assert (request.job.task, request.job.data) == ("t", b"d")
    assert request.unique is None
    assert request.priority is PRIORITY_NONE
    assert request.background is False
    assert request.max_connection_attempts == 1
    assert (request.run_at, request.reducer) == (None, None)
    assert request.state == JOB_UNKNOWN
    assert not request.complete
    assert not request.timed_out
    assert (request.result, request.exception, request.error) == (None, None, None)
    assert request.gearman_job is request.job
    assert request.job.connection is None


def test_all_keys() -> None:
    jobs = (
        {"task": b"t", "data": 1, "unique": b"u", "priority": PRIORITY_LOW},
        {"task": "e", "data": 2, "unique": None, "priority": None, "run_at": 7.5},
        {"task": "r", "data": 3, "reducer": "add"},
    )
    first, second, third = make_requests(jobs, background=True, max_retries=2)
    assert (first.job.task, first.unique, first.priority) == ("t", "u", PRIORITY_LOW)
    assert (second.run_at, third.reducer) == (7.5, "add")
    assert all(r.background and r.max_connection_attempts == 3 for r in (first, second, third))


def test_what_is_no_bool_is_made_one() -> None:
    background: Any = 1
    (request,) = make_requests([{"task": "t", "data": b""}], background=background)
    assert request.background is True


@pytest.mark.parametrize(
    "jobs",
    [
        {"task": "t", "data": b""},
        "jobs",
        None,
        7,
        iter([]),
        ["job"],
        [("t", b"")],
        [None],
        [{"task": None, "data": b""}],
        [{"task": 7, "data": b""}],
        [{"task": "t", "data": b"", "unique": 7}],
    ],
)
def test_jobs_of_impossible_types(jobs: Any) -> None:
    with pytest.raises(TypeError):
        make_requests(jobs)


@pytest.mark.parametrize(
    ("job", "match"),
    [
        ({}, "no 'task'"),
        ({"task": "t"}, "no 'data'"),
        ({"data": b""}, "no 'task'"),
        ({7: 7, "data": b""}, "no 'task'"),
        ({"task": "t", "data": b"", "uniqe": "u"}, "no key 'uniqe'"),
        ({"task": "t", "data": b"", 7: 7}, "no key 7"),
    ],
)
def test_jobs_of_impossible_keys(job: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make_requests([job])


def test_impossible_retries() -> None:
    for bad in (None, "1", 1.5):
        with pytest.raises(TypeError, match="max_retries"):
            make_requests([], max_retries=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_retries is -1: it must be at least 0"):
        make_requests([], max_retries=-1)


# prepare.


@pytest.mark.parametrize(
    ("job", "match"),
    [
        ({"task": "a\0b"}, "NUL"),
        ({"task": b"a\0b"}, "NUL"),
        ({"task": "t" * (constants.MAX_FUNCTION_SIZE + 1)}, "task.*more than"),
        ({"task": "\ud800"}, "UTF-8"),
        ({"unique": "u\0"}, "NUL"),
        ({"unique": "u" * 64}, "unique.*64 bytes, more than the 63"),
        ({"unique": "ü" * 32}, "unique.*64 bytes, more than the 63"),
        ({"priority": "URGENT"}, "URGENT"),
        ({"priority": "low"}, "low"),
        ({"priority": 0}, "priority"),
        ({"run_at": 1, "reducer": "r"}, "not both"),
        ({"run_at": 1, "priority": PRIORITY_LOW}, "no priority"),
        ({"reducer": "r", "priority": PRIORITY_LOW}, "no priority"),
        ({"run_at": -1}, "before 1970"),
        ({"run_at": 2.0**63}, "too late"),
        ({"run_at": float("nan")}, "run_at"),
        ({"run_at": datetime(1960, 1, 1, tzinfo=UTC)}, "before 1970"),
        ({"reducer": "r" * 65}, "reducer.*65 bytes"),
        ({"reducer": "r\0"}, "NUL"),
    ],
)
def test_values_that_servers_do_not_take(job: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        one(background=True, **job)


@pytest.mark.parametrize(
    "job",
    [
        {"data": None},
        {"data": 7},
        {"data": ["x"]},
        {"data": {"a": 1}},
        {"run_at": "tomorrow"},
        {"run_at": True},
        {"reducer": 7},
    ],
)
def test_values_of_impossible_types(job: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        one(background=True, **job)


def test_run_at_is_for_background_jobs() -> None:
    with pytest.raises(ValueError, match="background"):
        one(run_at=1)


def test_sizes_that_just_fit() -> None:
    one(task="t" * constants.MAX_FUNCTION_SIZE, unique="u" * 63, reducer="r" * 64)


@pytest.mark.parametrize("requests", [[b"no request"], b"", {}, None, iter([])])
def test_no_requests(requests: Any) -> None:
    with pytest.raises(TypeError):
        prepare(requests, NoopEncoder)
    with pytest.raises(TypeError):
        check_requests(requests)


def test_one_request_in_place_of_a_list() -> None:
    with pytest.raises(TypeError, match="list"):
        check_requests(one())  # type: ignore[arg-type]


def test_jobs_of_several_functions() -> None:
    too_long = "x" * (constants.MAX_FUNCTION_SIZE + 1)
    requests = make_requests([{"task": task, "data": b""} for task in ("t", "t", "u", too_long)])
    with pytest.raises(ValueError, match="more than"):
        prepare(requests, NoopEncoder)
    assert [submit_event(request) for request in requests[:3]] == [
        events.SubmitJob(task, b"", b"") for task in (b"t", b"t", b"u")
    ]


def test_an_encoder_that_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        one(Counting(), data="bad")


def test_only_what_is_going_to_be_sent_is_encoded() -> None:
    request = make_requests([{"task": "t", "data": "bad"}])[0]
    request.state = JOB_CREATED
    prepare([request], Counting())
    request.state = JOB_UNKNOWN
    with pytest.raises(ZeroDivisionError):
        prepare([request], Counting())


# The packets.


@pytest.mark.parametrize(
    ("background", "job", "event"),
    [
        (False, {}, events.SubmitJob(b"t", b"u", b"d")),
        (False, {"priority": PRIORITY_LOW}, events.SubmitJobLow(b"t", b"u", b"d")),
        (False, {"priority": PRIORITY_HIGH}, events.SubmitJobHigh(b"t", b"u", b"d")),
        (True, {}, events.SubmitJobBg(b"t", b"u", b"d")),
        (True, {"priority": PRIORITY_LOW}, events.SubmitJobLowBg(b"t", b"u", b"d")),
        (True, {"priority": PRIORITY_HIGH}, events.SubmitJobHighBg(b"t", b"u", b"d")),
        (True, {"run_at": 7}, events.SubmitJobEpoch(b"t", b"u", b"7", b"d")),
        (True, {"run_at": 7.01}, events.SubmitJobEpoch(b"t", b"u", b"8", b"d")),
        (False, {"reducer": "r"}, events.SubmitReduceJob(b"t", b"u", b"r", b"", b"d")),
        (True, {"reducer": b"r"}, events.SubmitReduceJobBackground(b"t", b"u", b"r", b"", b"d")),
        (False, {"task": "ü", "unique": b"\xff"}, events.SubmitJob(b"\xc3\xbc", b"\xff", b"d")),
        (False, {"data": "ü"}, events.SubmitJob(b"t", b"u", b"\xc3\xbc")),
    ],
)
def test_packets(background: bool, job: dict[str, Any], event: events.PacketEvent) -> None:
    assert submit_event(one(background=background, **{"unique": "u", **job})) == event


def test_run_at_as_datetime() -> None:
    run_at = datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))) + timedelta(seconds=9.5)
    event = submit_event(one(background=True, unique="u", run_at=run_at))
    assert event == events.SubmitJobEpoch(b"t", b"u", b"10", b"d")


def test_repr() -> None:
    request = one(unique="u")
    assert repr(request) == "<GearmanJobRequest UNKNOWN task='t' unique='u' handle=None>"
    assert repr(request.job) == "<GearmanJob task='t' unique='u' handle=None>"
    request.timed_out = True
    assert "UNKNOWN, timed out" in repr(request)


# States.


@pytest.mark.parametrize(
    ("background", "complete"),
    [(False, {JOB_FAILED, JOB_COMPLETE}), (True, {JOB_CREATED, JOB_FAILED, JOB_COMPLETE})],
)
def test_complete(background: bool, complete: set[str]) -> None:
    request = one(background=background)
    for state in (JOB_UNKNOWN, JOB_PENDING, JOB_CREATED, JOB_FAILED, JOB_COMPLETE):
        request.state = state
        assert request.complete == (state in complete)


def test_applications_may_hang_things_on_requests() -> None:
    request: Any = one()
    request.mine = 1
    assert request.mine == 1
    job: Any = GearmanJob(None, None, "t", "u", b"")
    job.mine = 2
    request = GearmanJobRequest(job)
    assert request.job is job
    assert request.job.mine == 2


def test_a_job_is_a_view_of_its_request() -> None:
    request = one(unique="u")
    job = request.job
    assert request.job is job is request.gearman_job
    job.unique, job.handle, job.data = "v", "H:1", b"other"
    assert (request.unique, request.handle, request.data) == ("v", "H:1", b"other")
    request.handle = "H:2"
    assert job.handle == "H:2"


def test_requests_of_a_class_of_ones_own() -> None:
    class Job(GearmanJob):
        pass

    class Request(GearmanJobRequest):
        _job_class = Job

    jobs = [{"task": "t", "data": b"", "unique": "u"}, {"task": "v", "data": b""}]
    first, second = make_requests(jobs, kind=Request)
    assert (type(first), type(first.job), first.job.unique) == (Request, Job, "u")
    assert (type(second), second.job.task) == (Request, "v")


def test_a_job_that_a_request_was_made_of_follows_it() -> None:
    job = GearmanJob(None, None, "t", "u", b"data")
    request = GearmanJobRequest(job)
    request.handle = "H:1"
    assert job.handle == "H:1"


def test_requests_are_freed_without_the_cycle_collector() -> None:
    request = one()
    assert request.job.task == "t"
    gone = weakref.ref(request)
    gc.disable()
    try:
        del request
        assert gone() is None
    finally:
        gc.enable()


def test_requests_from_what_was_stored() -> None:
    request = GearmanJobRequest.from_handle(b"H:1", "h:7")
    assert (request.job.handle, request.job.connection) == ("H:1", ServerAddress("h", 7))
    assert request.state == JOB_CREATED
    assert request.complete
    request = GearmanJobRequest.from_unique("u")
    assert (request.job.handle, request.unique, request.job.connection) == (None, "u", None)
    with pytest.raises(ValueError):
        GearmanJobRequest.from_handle("H:1", "h:x")
    with pytest.raises(TypeError):
        GearmanJobRequest.from_unique(None)  # type: ignore[arg-type]


def test_a_hand_made_request() -> None:
    request = GearmanJobRequest(GearmanJob(None, None, b"t", b"u", b"d"), PRIORITY_HIGH, True, 3)
    prepare({request}, NoopEncoder)
    assert submit_event(request) == events.SubmitJobHighBg(b"t", b"u", b"d")
    assert request.max_connection_attempts == 3


def test_reset() -> None:
    world = World()
    request = world.request(unique="u")
    world.submit(request)
    server = world.serve()
    with pytest.raises(InvalidClientState):
        request.reset()
    server.take()
    server.send(
        events.JobCreated(b"H:1"),
        events.WorkData(b"H:1", b"part"),
        events.WorkStatus(b"H:1", b"1", b"2"),
    )
    with pytest.raises(InvalidClientState):
        request.reset()
    server.send(events.WorkComplete(b"H:1", b"out"))
    assert (request.result, len(request.data_updates)) == (b"out", 1)
    request.reset()
    assert request.state == JOB_UNKNOWN
    assert (request.result, request.status, request.connection_attempts) == (None, {}, 0)
    assert not request.data_updates
    assert not request.status_updates
    assert (request.job.handle, request.job.connection, request.job.unique) == (None, None, "u")


@pytest.mark.parametrize("background", [False, True])
def test_reset_of_what_had_a_unique_made_for_it(background: bool) -> None:
    world = World()
    request = world.request(background=background)
    world.submit(request)
    server = world.serve()
    server.take()
    server.send(events.JobCreated(b"H:1"))
    server.lose()
    unique = request.unique
    assert unique
    request.reset()
    # What a lost server still has of it is doomed, if anybody waited for it.
    assert request.unique == (unique if background else None)


# Decoding.


def test_a_result_is_decoded_once_and_where_it_is_read() -> None:
    world = World()
    encoder = Counting()
    request = world.request(encoder=encoder)
    world.submit(request)
    server = world.serve()
    server.take()
    server.send(events.JobCreated(b"H:1"), events.WorkComplete(b"H:1", b"out"))
    assert encoder.decoded == []
    assert ended(request) == JobEnded(JOB_COMPLETE, "out", None)
    assert request.result == "out"
    assert encoder.decoded == [b"out"]


def test_an_exception_is_decoded_once_and_where_it_is_read() -> None:
    world = World()
    encoder = Counting()
    request = world.request(encoder=encoder)
    world.submit(request)
    server = world.serve()
    server.take()
    server.send(events.JobCreated(b"H:1"), events.WorkException(b"H:1", b"why"))
    assert encoder.decoded == []
    assert ended(request) == JobEnded(JOB_FAILED, None, "why")
    assert request.exception == "why"
    assert encoder.decoded == [b"why"]


def test_what_cannot_be_decoded_disturbs_nobody_else() -> None:
    world = World()
    encoder = Counting()
    requests = [world.request(encoder=encoder) for _ in range(3)]
    wait = world.submit(*requests)
    server = world.serve()
    server.take()
    server.send(*(events.JobCreated(b"H:%d" % n) for n in range(3)))
    server.send(
        events.WorkComplete(b"H:0", b"bad"),
        events.WorkException(b"H:1", b"bad"),
        events.WorkComplete(b"H:2", b"good"),
    )
    assert wait.done
    wait.raise_error()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            _ = requests[0].result
        with pytest.raises(ZeroDivisionError):
            _ = requests[1].exception
    assert requests[2].result == "good"
    assert [request.state for request in requests] == [JOB_COMPLETE, JOB_FAILED, JOB_COMPLETE]


# Updates.


def queue_of(*values: bytes, encoder: Any = NoopEncoder) -> UpdateQueue:
    queue = UpdateQueue(encoder)
    for number, value in enumerate(values, 1):
        queue.add(number, value, len(value), is_raw=True)
    return queue


def test_a_queue() -> None:
    encoder = Counting()
    queue = queue_of(b"a", b"bb", b"ccc", encoder=encoder)
    assert repr(queue) == "<UpdateQueue of 3>"
    assert (len(queue), queue.unread, queue.first) == (3, 6, 1)
    assert encoder.decoded == []
    assert (queue[0], queue[-1], queue[0]) == ("a", "ccc", "a")
    assert encoder.decoded == [b"a", b"ccc"]
    assert queue[1:] == ["bb", "ccc"]
    assert list(queue) == ["a", "bb", "ccc"]
    assert [queue.popleft() for _ in range(3)] == ["a", "bb", "ccc"]
    assert encoder.decoded == [b"a", b"ccc", b"bb"]
    assert (len(queue), queue.unread) == (0, 0)
    assert not queue
    with pytest.raises(IndexError):
        queue.popleft()
    with pytest.raises(IndexError):
        _ = queue[0]


def test_an_update_that_cannot_be_decoded_is_taken_all_the_same() -> None:
    queue = queue_of(b"bad", b"good", encoder=Counting())
    with pytest.raises(ZeroDivisionError):
        _ = queue[0]
    with pytest.raises(ZeroDivisionError):
        queue.popleft()
    assert queue.popleft() == "good"


def test_updates_in_the_order_they_came() -> None:
    world = World()
    request = world.request(encoder=Counting())
    assert next_update(request) is None
    world.submit(request)
    server = world.serve()
    server.take()
    server.send(
        events.JobCreated(b"H:1"),
        events.WorkStatus(b"H:1", b"1", b"3"),
        events.WorkData(b"H:1", b"a"),
        events.WorkWarning(b"H:1", b"w"),
        events.WorkData(b"H:1", b"bad"),
        events.WorkStatus(b"H:1", b"2", b"3"),
        events.WorkData(b"H:1", b"b"),
    )
    assert list(request.status_updates) == [(1, 3), (2, 3)]
    assert list(request.warning_updates) == ["w"]
    assert len(request.data_updates) == 3
    assert [next_update(request) for _ in range(3)] == [
        JobProgress(1, 3),
        JobData("a"),
        JobWarning("w"),
    ]
    with pytest.raises(ZeroDivisionError):
        next_update(request)
    assert [next_update(request) for _ in range(3)] == [JobProgress(2, 3), JobData("b"), None]
    server.send(events.WorkComplete(b"H:1", b""))
    assert next_update(request) is None


def test_queues_read_before_anything_came_are_the_ones_that_fill() -> None:
    world = World()
    request = world.request()
    queue = request.data_updates
    assert not queue
    world.submit(request)
    server = world.serve()
    server.take()
    server.send(events.JobCreated(b"H:1"), events.WorkData(b"H:1", b"a"))
    assert request.data_updates is queue
    assert list(queue) == [b"a"]


def test_status_updates_are_cut_to_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gearman_proto.jobs.updates.MAX_UNREAD_PROGRESS", 3)
    world = World()
    request = world.request()
    world.submit(request)
    server = world.serve()
    server.take()
    server.send(events.JobCreated(b"H:1"))
    for n in range(5):
        server.send(events.WorkStatus(b"H:1", b"%d" % n, b"9"))
    assert list(request.status_updates) == [(2, 9), (3, 9), (4, 9)]
    assert request.state == JOB_CREATED


@pytest.mark.parametrize("reducer", [None, "ünique"])
def test_prepare_refuses_data_that_makes_the_packet_for_workers_too_large(
    reducer: str | None,
) -> None:
    function, unique = b"t" * 100, b"u" * 63
    packet: Any = events.JobAssignUniq(b"h" * 63, function, unique, b"")
    if reducer is not None:
        packet = events.JobAssignAll(b"h" * 63, function, unique, reducer.encode(), b"")
    room = 1000 - len(b"\0".join(packet.arguments(packet)))
    job = {"task": function, "unique": unique, "reducer": reducer}
    requests = make_requests([{**job, "data": bytes(room)}, {**job, "data": bytes(room + 1)}])
    prepare(requests[:1], NoopEncoder, 1000)
    with pytest.raises(ValueError, match=rf"has {room + 1} bytes: .* of 1000, it can have {room};"):
        prepare(requests[1:], NoopEncoder, 1000)
    assert requests[1].payload is None
