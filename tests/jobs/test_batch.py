"""Batches: requests that are kept in columns, and have a list's operations."""

from __future__ import annotations

import copy
import operator
import pickle
from collections import OrderedDict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import JOB_CREATED, JOB_PENDING, PRIORITY_HIGH
from gearman_proto.errors import LocalProtocolError
from gearman_proto.jobs import batch, submitting
from gearman_proto.jobs.batch import Batch, untouched
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import (
    finish,
    make_batch,
    make_requests,
    making_batch,
    prepare,
    preparing,
)
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.jobs.request import GearmanJobRequest

SLICE = 3
TASKS = ["t0", "t1", "t2"]
JOBS: list[Any] = [{"task": TASKS[number // 4], "data": b"%d" % number} for number in range(10)]
BAD = "\ud800"  # A surrogate that no bytes decode to.


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "MANY", SLICE)
    monkeypatch.setattr(submitting, "SLICE", SLICE)
    monkeypatch.setattr(batch, "SLICE", SLICE)


def batch_of(jobs: Any = JOBS, **options: Any) -> Batch:
    made = make_batch(jobs, **options)
    assert isinstance(made, Batch)
    assert len(made) == len(jobs)
    return made


class Pickle:
    encode = staticmethod(pickle.dumps)


class Text(str):
    __slots__ = ()


FACTS = operator.attrgetter(
    *("task", "data", "unique", "priority", "background", "max_connection_attempts", "state"),
    *("_gm_payload", "_gm_encoder", "_gm_generated_unique"),
)


def facts(requests: Any) -> list[Any]:
    return [*map(FACTS, requests)]


# Making them.


@pytest.mark.parametrize(
    ("jobs", "encoder"),
    [
        (JOBS, NoopEncoder),
        (tuple(JOBS), NoopEncoder),
        (JOBS, Pickle),
        ([*JOBS, {"task": "t", "data": b"", "unique": "u"}], NoopEncoder),
        ([{**job, "unique": f"\xe9{job['data']}"} for job in JOBS], NoopEncoder),
        ([{**job, "unique": b"u\xff"} for job in JOBS], NoopEncoder),
        ([{**job, "priority": PRIORITY_HIGH, "unique": None} for job in JOBS], Pickle),
        (
            [*JOBS, *({"task": "t1", "data": b"", "priority": "HIGH"} for _ in range(4))],
            NoopEncoder,
        ),
        ([*JOBS, {"task": b"t", "data": bytearray(b"x")}], NoopEncoder),
        ([{**job, "data": f"text\udcff{job['data']}"} for job in JOBS], NoopEncoder),
        ([*JOBS, {"task": Text("t2"), "data": "text\udcff"}], NoopEncoder),
    ],
    ids=lambda value: "",
)
@pytest.mark.parametrize("background", [True, False])
def test_batch_has_the_same_requests_as_a_list(jobs: Any, encoder: Any, background: bool) -> None:
    options: dict[str, Any] = {"background": background, "max_retries": 2}
    made, expected = make_batch(jobs, **options), make_requests(jobs, **options)
    assert facts(made) == facts(expected)
    prepare(expected, encoder)
    for again in make_batch(jobs, **options), made:
        prepare(again, encoder)
        assert facts(again) == facts(expected)


@pytest.mark.parametrize(
    "jobs",
    [
        JOBS[:SLICE],
        frozenset(),
        [*JOBS, OrderedDict(task="t", data=b"")],
        [*JOBS, {"task": "t", "data": b"", "run_at": 5}],
        [*JOBS, {"task": "t", "data": b"", "priority": Text("LOW")}],
    ],
    ids=["few", "set", "mapping", "run_at", "priority"],
)
def test_rare_jobs_are_made_at_once(jobs: Any) -> None:
    assert type(make_batch(jobs, background=True)) is list


@pytest.mark.parametrize(
    ("job", "options", "error"),
    [
        ({"task": "t"}, {}, ValueError),
        ({"task": "t", "data": b"", "uniqe": ""}, {}, ValueError),
        ({"task": 5, "data": b""}, {}, TypeError),
        ({"task": "t", "data": b"", "unique": 5}, {"background": True}, TypeError),
        (None, {}, TypeError),
        (JOBS[0], {"max_retries": -1}, LocalProtocolError),
    ],
)
def test_invalid_jobs_are_refused(job: Any, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make_batch([*JOBS, job], **options)


@pytest.mark.parametrize(
    ("job", "error"),
    [
        ({"task": "t\0", "data": b""}, "has a NUL"),
        ({"task": "t", "data": b"", "unique": "u\0"}, "has a NUL"),
        ({"task": "t", "data": b"", "unique": "u" * 65}, "more than the"),
        ({"task": "t", "data": b"", "unique": "\xe9" * 40}, "more than the"),
        ({"task": BAD, "data": b""}, "can't be sent as UTF-8"),
        ({"task": "t", "data": b"", "priority": "x"}, "a priority is"),
        ({"task": "t", "data": 5}, "must be bytes or str, not int"),
        ({"task": "t", "data": BAD}, "surrogates not allowed"),
        ({"task": "t", "data": bytes(871)}, "has 871 bytes: with a max_packet_size of 1000"),
        ({"task": "t", "data": "x" * 871}, "has 871 bytes: with a max_packet_size of 1000"),
    ],
    ids=lambda value: "",
)
def test_batch_is_refused_like_a_list_and_encodes_as_often(job: Any, error: str) -> None:
    jobs = [*JOBS[:4], job, *JOBS[4:]]
    outcomes = []
    for make in make_batch, make_requests:
        encoded: list[Any] = []

        class Encoder:
            encode: Callable[[Any], Any] = staticmethod(
                lambda data, seen=encoded: (seen.append(data), data)[1]
            )

        for encoder in NoopEncoder, Encoder:
            with pytest.raises((TypeError, ValueError), match=error) as caught:
                prepare(make(jobs, background=True), encoder, 1000)
            outcomes.append((make, str(caught.value), [*encoded]))
    assert [outcome[1:] for outcome in outcomes[:2]] == [outcome[1:] for outcome in outcomes[2:]]


def test_batch_is_made_and_prepared_in_a_step_for_each_slice() -> None:
    assert sum(1 for _ in making_batch(JOBS)) == len(JOBS) // SLICE
    assert sum(1 for _ in preparing(batch_of(), NoopEncoder, 1000)) == 2 * (len(JOBS) // SLICE)


@pytest.mark.parametrize("steps", range(1, 2 * (len(JOBS) // SLICE)))
def test_batch_that_is_read_between_steps_is_prepared_like_a_list(steps: int) -> None:
    made, expected = batch_of(), make_requests(JOBS)
    preparation = preparing(made, Pickle, 1000)
    for _ in range(steps):
        next(preparation)
    made[5].data = expected[5].data = b"changed"
    finish(preparation)
    prepare(expected, Pickle)
    assert facts(made) == facts(expected)


def test_text_that_is_not_unicode_is_refused() -> None:
    made = batch_of([{"task": "t", "data": text} for text in ("a", BAD, "b", "c")])
    with pytest.raises(UnicodeEncodeError):
        prepare(made, NoopEncoder)


def test_reading_requests_makes_their_slices_and_keeps_them() -> None:
    made = batch_of()
    columns = untouched(made)
    assert columns is not None
    request = made[4]
    assert request.data == b"4"
    assert made[4] is made[-6] is made[3:5][1] is request
    assert [*columns.slices] == [1]
    assert untouched(made) is None
    assert [each.data for each in made[8:0:-3]] == [b"8", b"5", b"2"]
    requests = [*made]
    assert requests[4] is request
    assert [each.data for each in requests] == [job["data"] for job in JOBS]
    assert made._gm_columns is None  # The list has replaced them.
    for index in 10, -11:
        with pytest.raises(IndexError):
            batch_of()[index]
        with pytest.raises(IndexError):
            made[index]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_iterator_sees_changes_like_a_list_iterator(when: str) -> None:
    for requests in batch_of(), [*batch_of()]:
        if when == "before":
            requests.reverse()
        seen = []
        for request in requests:
            seen.append(request.data)
            if request.data == b"4" and when == "meanwhile":
                del requests[:2]
            if len(seen) == 6:
                requests.append(request)
        expected = "9876543210" if when == "before" else "0123478945"
        if when == "meanwhile":
            assert seen == [b"0", b"1", b"2", b"3", b"4", b"7", b"8", b"9", b"7"]
        else:
            assert seen == [b"%c" % each for each in expected.encode()] + [b"4"]


# A list's operations.

READS: list[Callable[[Any, Any], Any]] = [
    lambda it, _: len(it),
    lambda it, _: bool(it),
    lambda it, _: it[2:5],
    lambda it, _: [*reversed(it)],
    lambda it, _: it.index(it[3]),
    lambda it, _: it.count(it[3]),
    lambda it, _: it[3] in it,
    lambda it, _: 5 in it,
    lambda it, _: it.copy(),
    lambda it, _: operator.add(it, [5]),
    lambda it, _: operator.add([5], it),
    lambda it, _: it + it,
    lambda it, _: it * 2,
    lambda it, _: 2 * it,
    lambda it, same: (it == same, same == it, it != same, it == same[:5], it == tuple(same)),
    lambda it, same: (it <= same, it < same, it > same, it >= [*same, 5], same < it),
    lambda it, same: it < [*same, 5],
    lambda it, _: repr(it),
]
CHANGES: list[Callable[[Any, Any], Any]] = [
    lambda it, new: it.append(new),
    lambda it, new: it.extend([new, new]),
    lambda it, new: it.insert(2, new),
    lambda it, _: it.pop(),
    lambda it, _: it.pop(3),
    lambda it, _: it.remove(it[4]),
    lambda it, _: it.reverse(),
    lambda it, _: it.sort(key=lambda request: -int(request.data)),
    lambda it, _: it.sort(key=lambda request: request.data[-1:], reverse=True),
    lambda it, _: it.clear(),
    lambda it, new: operator.setitem(it, 0, new),
    lambda it, new: operator.setitem(it, slice(2, 5), [new]),
    lambda it, _: operator.delitem(it, slice(2, 5)),
    lambda it, new: it.__iadd__([new]) is it,
    lambda it, _: it.__imul__(2) is it,
]
WRONG: list[Callable[[Any], Any]] = [
    lambda it: operator.add(it, (1,)),
    lambda it: operator.add((1,), it),
    lambda it: it * "x",
    lambda it: it["x"],
    lambda it: it[100],
    lambda it: it < 5,
    lambda it: it.remove(5),
    hash,
]


@pytest.mark.parametrize("operation", [*READS, *CHANGES])
def test_batch_behaves_like_a_list(operation: Callable[[Any, Any], Any]) -> None:
    made = batch_of()
    again = [made[index] for index in range(len(made))]
    (new,) = make_requests([{"task": "new", "data": b"0"}])
    same = [*again]
    result, expected = operation(made, same), operation(again, same)
    assert result == expected
    assert type(result) is type(expected)
    assert len(made) == len(again)
    assert [*made] == again
    assert operation(made, new) == operation(again, new) if operation in CHANGES else True


@pytest.mark.parametrize("operation", WRONG)
@pytest.mark.parametrize("kind", [list, lambda it: it])
def test_batch_refuses_what_a_list_refuses(
    operation: Callable[[Any], Any], kind: Callable[[Any], Any]
) -> None:
    with pytest.raises((TypeError, IndexError, ValueError)):
        operation(kind(batch_of()))


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
)
def test_copies_are_lists(copied: Callable[[Any], Any]) -> None:
    made = batch_of()
    for original in made, Batch([*made]):
        result = copied(original)
        assert type(result) is list
        assert facts(result) == facts(original)


# In flight: threads can look at requests at any time.


class Link:
    address = SimpleNamespace()
    engine = SimpleNamespace(is_abandoned=False)


def in_flight(jobs: Any = JOBS, *, sent: int, accepted: int) -> Batch:
    made = batch_of(jobs, background=True)
    prepare(made, NoopEncoder)
    columns = untouched(made)
    assert columns is not None
    assert columns.split(1) == [columns]
    columns.begin(Link, lambda size: bytes(range(size)), 4)
    connection = Connection(Role.CLIENT)
    while columns.sent < sent:
        columns.send(connection, sent - columns.sent, 65536)
    assert connection.unanswered == sent
    if accepted:
        columns.accept([b"H:%d" % number for number in range(accepted)])
    return made


def look(request: GearmanJobRequest) -> tuple[Any, ...]:
    return request.state, request.handle, request.connection_attempts, bool(request.unique)


@pytest.mark.parametrize("uniques", [False, True])
def test_several_servers_get_the_jobs_in_turn(uniques: bool) -> None:
    jobs = [{**job, "unique": f"u{at}"} for at, job in enumerate(JOBS)] if uniques else JOBS
    made = batch_of(jobs, background=True)
    prepare(made, NoopEncoder)
    columns = untouched(made)
    assert columns is not None
    for server, part in enumerate(columns.split(3)):
        part.begin(Link, lambda size: bytes(range(size)), 4)
        connection = Connection(Role.CLIENT)
        while part.sent < part.size:
            part.send(connection, 2, 65536)
        part.accept([b"H:%d:%d" % (server, number) for number in range(part.size)])
    assert untouched(made) is None
    assert [*batch.made(made)] == []
    request = made[4]
    assert (request.data, request.handle) == (b"4", "H:1:1")
    assert request in batch.made(made)
    requests = [*made]
    assert requests[4] is request
    assert [(each.data, each.handle) for each in requests] == [
        (job["data"], f"H:{at % 3}:{at // 3}") for at, job in enumerate(JOBS)
    ]
    if uniques:
        assert [each.unique for each in requests] == [job["unique"] for job in jobs]


def test_only_requests_that_were_read_exist() -> None:
    made = in_flight(sent=5, accepted=2)
    assert [*batch.made(made)] == []
    request = made[0]
    assert request in batch.made(made)
    requests = [*made]
    assert [*batch.made(made)] == requests
    made.append(request)
    assert [*batch.made(made)] == [*requests, request]


def test_requests_in_flight_have_the_state_of_their_jobs() -> None:
    made = in_flight(sent=5, accepted=2)
    assert [look(request) for request in made] == [
        *((JOB_CREATED, f"H:{number}", 1, True) for number in range(2)),
        *[(JOB_PENDING, None, 1, True)] * 3,
        *[(JOB_PENDING, None, 0, False)] * 5,
    ]
    assert untouched(made) is None
    done = in_flight(sent=10, accepted=10)
    assert {look(request)[:1] for request in done} == {(JOB_CREATED,)}
    assert {request._gm_link for request in done} == {None}
    assert all(request.connection is Link.address for request in [*made, *done])


def test_unpacked_requests_have_the_state_of_their_jobs() -> None:
    jobs = [{**job, "unique": "u" if job["data"] > b"3" else None} for job in JOBS]
    made = in_flight(jobs, sent=5, accepted=2)
    seen, columns = [made[0], made[4]], made._gm_columns
    assert columns is not None
    requests = columns.unpack()
    assert [requests[0], requests[4]] == seen
    assert [look(request) for request in requests] == [
        *((JOB_CREATED, f"H:{number}", 1, True) for number in range(2)),
        *[(JOB_PENDING, None, 1, True)] * 3,
        *[(JOB_PENDING, None, 0, True)] * 5,
    ]
    given = [request.unique for request in requests if request._gm_generated_unique is None]
    assert given == ["u"] * 6


def test_requests_in_flight_have_the_given_uniques() -> None:
    jobs = [{**job, "unique": f"\xe9{number}"} for number, job in enumerate(JOBS)]
    made = in_flight(jobs, sent=10, accepted=10)
    assert [request.unique for request in made] == [job["unique"] for job in jobs]
    assert {request._gm_generated_unique for request in made} == {None}


def test_foreground_requests_are_taken_in_slices() -> None:
    made = batch_of()
    prepare(made, NoopEncoder)
    columns = untouched(made)
    assert columns is not None
    columns.begin(Link, lambda size: bytes(range(size)), 4)
    first = [*columns.take()]
    assert [request.unique for request in first] == ["00010203", "04050607", "08090a0b"]
    assert columns.sent == columns.accepted == SLICE
    while columns.sent < columns.size:
        first += columns.take()
    assert first == made


def test_foreground_requests_are_unpacked_after_a_slice() -> None:
    made = batch_of()
    prepare(made, NoopEncoder)
    columns = untouched(made)
    assert columns is not None
    columns.begin(Link, lambda size: bytes(range(size)), 4)
    columns.take()
    assert [look(request) for request in columns.unpack()] == [(JOB_PENDING, None, 0, True)] * 10


def raced(columns: Any, step: Callable[[], object]) -> None:
    """Let the engine do `step` after another thread has made a slice, right before it adds it."""
    steps = [step]

    class Slices(dict[Any, Any]):
        def setdefault(self, key: Any, value: Any) -> Any:  # type: ignore[override]
            if steps:
                steps.pop()()
            return super().setdefault(key, value)

    columns.slices = Slices()


def test_handle_that_arrives_while_a_request_is_made_is_not_lost() -> None:
    made = in_flight(sent=6, accepted=3)
    columns: Any = made._gm_columns
    raced(columns, lambda: columns.accept([b"H:late"]))
    request = made[3]
    assert look(request) == (JOB_PENDING, None, 1, True)
    columns.unpack()  # The engine does this at the next answer.
    assert look(request) == (JOB_CREATED, "H:late", 1, True)
    assert look(made[4]) == (JOB_PENDING, None, 1, True)


def test_last_handle_that_arrives_while_a_request_is_made_is_not_lost() -> None:
    made = in_flight(sent=10, accepted=9)
    columns: Any = made._gm_columns
    early = made[0]
    raced(columns, lambda: columns.accept([b"H:late"]))
    request = made[9]
    assert look(request) == (JOB_CREATED, "H:late", 1, True)
    assert made[9] is made[-1] is request
    assert (early.handle, request._gm_link) == ("H:0", None)


def test_request_read_before_the_last_handle_gets_it() -> None:
    made = in_flight(sent=10, accepted=8)
    columns: Any = made._gm_columns
    request, seen = made[9], made[4]
    columns.accept([b"H:8", b"H:9"])
    assert look(request) == (JOB_CREATED, "H:9", 1, True)
    assert [made[4], made[9]] == [seen, request]
    assert [each.handle for each in made] == [f"H:{number}" for number in range(10)]


def test_handles_that_arrived_together_stay_apart() -> None:
    made = in_flight(sent=10, accepted=0)
    columns: Any = made._gm_columns

    class Packed(list[bytes]):
        def append(self, each: bytes) -> None:
            super().append(each)
            seen.append([request.handle for request in made[:2]])

    seen: list[Any] = []
    columns.accept([b"H:0", b"H:1"])
    columns._packed = Packed(columns._packed)
    columns.accept([b"H:2"])
    assert seen == [["H:0", "H:1"]]


@pytest.mark.parametrize("is_added", [True, False])
def test_request_read_while_the_batch_is_submitted_is_in_flight(is_added: bool) -> None:
    made = batch_of(background=True)
    prepare(made, NoopEncoder)
    columns: Any = untouched(made)
    if not is_added:
        raced(columns, lambda: columns.begin(Link, lambda size: bytes(range(size)), 4))
    request: Any = made[0]
    if is_added:
        columns.begin(Link, lambda size: bytes(range(size)), 4)
        assert (request.state, request._gm_link) == (JOB_PENDING, Link)
    columns.send(Connection(Role.CLIENT), 3, 65536)
    columns.accept([b"H:0"])
    columns.unpack()
    assert look(request) == (JOB_CREATED, "H:0", 1, True)
    assert request.connection is Link.address


def test_large_data_is_sent_alone_and_uncopied() -> None:
    data = bytes(100_000)
    made = batch_of([{"task": "t", "data": d} for d in (b"1", b"2", data, b"3")], background=True)
    prepare(made, NoopEncoder)
    columns = untouched(made)
    assert columns is not None
    columns.begin(Link, bytes, 4)
    connection = Connection(Role.CLIENT)
    while columns.sent < 4:
        before = columns.sent
        pieces = columns.send(connection, 10, 65536)
        assert (pieces[-1] is data) == (before == 2)
    columns.accept([b"H:1"])
    assert columns.unanswered_size() == 1 + len(data) + 1
