"""Tests of the quick paths: their results equal those of `send` and `next_event`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_proto import constants
from gearman_proto.errors import LocalProtocolError, RemoteProtocolError
from gearman_proto.testing import pack, pack_event
from gearman_proto.testing.strategies import hostile_streams, packets
from gearman_proto.wire import batches
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    SUBMITS,
    AllYours,
    CanDo,
    EchoReq,
    EchoRes,
    Error,
    Event,
    GetStatus,
    GrabJob,
    JobAssign,
    JobCreated,
    NoJob,
    Noop,
    PacketEvent,
    PlainSubmit,
    Role,
    StatusRes,
    SubmitJob,
    SubmitJobBg,
    TextLine,
    WorkComplete,
    WorkFail,
)
from tests.profiles import examples

from .feeding import receive, requests, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = sorted(SUBMITS.values(), key=lambda kind: kind.packet.number)
names = st.binary(max_size=70)


def by_one(
    kind: type[PlainSubmit], function: bytes, jobs: Sequence[tuple[bytes, bytes]]
) -> tuple[bytes, list[Any]]:
    client = Connection(Role.CLIENT)
    packets = [client.send(kind(function, *job), job) for job in jobs]
    return b"".join(packets), list(client.unanswered_tokens())


def at_once(
    kind: type[PlainSubmit], function: bytes, jobs: Sequence[tuple[bytes, bytes]]
) -> tuple[bytes, list[Any]]:
    client = Connection(Role.CLIENT)
    uniques, payloads = zip(*jobs)
    data = client.send_submits(kind, function, uniques, payloads, jobs)
    return data, list(client.unanswered_tokens())


# Sending.


@examples(10)
@given(st.sampled_from(KINDS), names, st.lists(st.tuples(names, st.binary())))
def test_send_submits_any_jobs_match_send(
    kind: type[PlainSubmit], function: bytes, jobs: list[tuple[bytes, bytes]]
) -> None:
    outcomes: list[Any] = []
    for send in (by_one, at_once):
        try:
            outcomes.append(send(kind, function, jobs or [(b"", b"")]))
        except LocalProtocolError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("function", "unique"),
    [
        (b"a\0b", b""),
        (b"f" * (constants.MAX_FUNCTION_SIZE + 1), b""),
        (b"f", b"a\0b"),
        (b"f", b"u" * 64),
    ],
)
def test_send_submits_bad_name_sends_nothing(function: bytes, unique: bytes) -> None:
    client = Connection(Role.CLIENT)
    with pytest.raises(LocalProtocolError, match=r"SUBMIT_JOB: "):
        client.send_submits(SubmitJob, function, [b"good", b"good", unique], [b""] * 3, [1, 2, 3])
    assert client.unanswered == 0


def test_send_submits_too_large_for_header_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_MAX_BODY_SIZE", 100)
    client = Connection(Role.CLIENT)
    assert client.send_submits(SubmitJob, b"f", [b"u"], [b"x" * 96], [1])
    with pytest.raises(LocalProtocolError, match="101 bytes do not fit a packet"):
        client.send_submits(SubmitJob, b"f", [b"u"], [b"x" * 97], [1])
    assert client.unanswered == 1


def test_send_submits_without_jobs_sends_nothing() -> None:
    client = Connection(Role.CLIENT)
    assert client.send_submits(SubmitJob, b"f", [], [], []) == b""
    assert client.unanswered == 0


@examples(10)
@given(st.lists(st.tuples(st.sampled_from(KINDS), names, names, st.binary()), min_size=1))
def test_send_mixed_submits_any_jobs_match_send(jobs: list[Any]) -> None:
    one, many = Connection(Role.CLIENT), Connection(Role.CLIENT)
    kinds, functions, uniques, payloads = zip(*jobs)

    def by_one() -> bytes:
        for kind, function, _, _ in jobs:  # The functions are checked first.
            Connection(Role.CLIENT).send(kind(function, b"", b""))
        return b"".join([one.send(kind(*job), job) for kind, *job in jobs])

    def mixed() -> bytes:
        submits = [*zip(kinds, functions)]
        return many.send_mixed_submits(submits, uniques, payloads, [[*job] for _, *job in jobs])

    outcomes: list[Any] = []
    for send in by_one, mixed:
        try:
            outcomes.append(send())
        except LocalProtocolError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]
    if outcomes[0] is not None:
        assert list(one.unanswered_tokens()) == list(many.unanswered_tokens())


def test_send_mixed_submits_are_answered_in_a_run() -> None:
    client = Connection(Role.CLIENT)
    kinds = [(SubmitJob, b"f"), (SubmitJobBg, b"g"), (SubmitJob, b"f")]
    data = client.send_mixed_submits(kinds, [b"u"] * 3, [b"x"] * 3, range(3))
    each = [kind(function, b"u", b"x") for kind, function in kinds]
    assert data == b"".join(map(Connection(Role.CLIENT).send, each))
    client.receive_data(created(b"H:1", b"H:2", b"H:3"))
    assert client.next_created() == ([b"H:1", b"H:2", b"H:3"], [0, 1, 2])


def test_replace_token_replaces_each_occurrence_in_order() -> None:
    client = Connection(Role.CLIENT)
    old, other = object(), object()
    tokens = [old, other, old, old]
    client.send_submits(SubmitJob, b"f", [b"u"] * 4, [b""] * 4, tokens)
    client.replace_token(old, iter("abc"))
    assert list(client.unanswered_tokens()) == ["a", other, "b", "c"]
    client.receive_data(created(b"H:1", b"H:2"))
    assert client.next_created() == ([b"H:1", b"H:2"], ["a", other])


@pytest.mark.parametrize("role", [Role.WORKER, Role.SERVER])
def test_send_submits_by_other_role_is_refused(role: Role) -> None:
    with pytest.raises(LocalProtocolError, match="is not for"):
        Connection(role).send_submits(SubmitJob, b"f", [b"u"], [b""], [1])


# Receiving.


def answer(kind: type[PacketEvent], *args: bytes) -> bytes:
    return pack(kind.packet, args, MAGIC_RESPONSE)


def created(*handles: bytes) -> bytes:
    return b"".join(answer(JobCreated, handle) for handle in handles)


def asking(*events: Event) -> Connection:
    client = Connection(Role.CLIENT)
    for number, event in enumerate(events):
        client.send(event, number)
    return client


def submits(count: int) -> list[Event]:
    return [SubmitJobBg(b"f", b"u", b"")] * count


def test_next_created_ends_at_other_packets() -> None:
    client = asking(*submits(2), GetStatus(b"H:9"), *submits(3), EchoReq(b"x"), *submits(2))
    status = answer(StatusRes, b"H:9", b"1", b"0", b"0", b"0")
    client.receive_data(created(b"H:1", b"H:2") + status + created(b"H:3", b"H:4", b"H:5")[:-1])
    assert client.next_created() == ([b"H:1", b"H:2"], [0, 1])
    assert client.next_created() == ([], [])
    assert client.next_event() == StatusRes(b"H:9", b"1", b"0", b"0", b"0")
    assert client.next_created() == ([b"H:3", b"H:4"], [3, 4])
    client.receive_data(b"5" + answer(EchoRes, b"x") + created(b"H:6", b"H:7"))
    assert client.next_created() == ([], [])  # One packet is not enough.
    assert client.next_event() == JobCreated(b"H:5")
    assert client.next_event() == EchoRes(b"x")
    assert client.next_created() == ([b"H:6", b"H:7"], [7, 8])


def test_next_created_ends_at_packet_of_same_size() -> None:
    client = asking(*submits(4))
    handles = [b"H:a.long.name:%d" % number for number in range(3)]
    client.receive_data(created(*handles) + answer(WorkFail, handles[0]))
    assert client.next_created() == (handles, [0, 1, 2])
    assert client.next_event() == WorkFail(handles[0])


def test_next_created_takes_the_largest_handles_and_leaves_larger_ones() -> None:
    client = asking(*submits(4))
    largest, too_large = b"H" * 65536, b"H" * 65537
    client.receive_data(created(largest, largest))
    assert client.next_created() == ([largest] * 2, [0, 1])
    client.receive_data(created(too_large, too_large))
    assert client.next_created() == ([], [])
    with pytest.raises(RemoteProtocolError, match="claims 65537 bytes"):
        client.next_event()


@examples(10)
@given(st.data())
def test_next_created_any_stream_matches_next_event(data: st.DataObject) -> None:
    pieces = st.sampled_from(
        [
            created(b"H:1"),
            created(b"H:2"),
            created(b"H:10"),
            created(b"H\0x"),
            answer(Error, b"QUEUE_ERROR", b"full"),
            answer(WorkComplete, b"H:1", b"out"),
            answer(EchoRes, b"x"),
        ]
    )
    stream = b"".join(data.draw(st.lists(pieces, max_size=12)))
    asked = data.draw(st.lists(st.sampled_from([*submits(1), EchoReq(b"x")]), max_size=12))
    size = data.draw(st.integers(1, len(stream) + 1))
    one, many = (receive(asking(*asked), stream, size, quickly) for quickly in (None, runs))
    assert one == many


# The requests and answers of a server, without events.


def request(kind: type[PacketEvent], *args: bytes) -> bytes:
    return pack(kind.packet, args, MAGIC_REQUEST)


def serving(data: bytes) -> Connection:
    server = Connection(Role.SERVER)
    server.receive_data(data)
    return server


@pytest.mark.parametrize(
    "odd",
    [
        b"status\n",
        request(SubmitJob, b"f", b"u", b"x" * 5000),
        request(WorkFail, b"H:1"),
        answer(GrabJob),
        request(SubmitJob, b"f", b"u", b"data").replace(b"u\0", b"uu"),
        request(SubmitJob, b"f", b"u", b"data")[:-1],
        request(GrabJob)[:9],
    ],
)
def test_requests_yield_ordinary_packets_and_end_at_odd_one(odd: bytes) -> None:
    """`requests` leaves the odd packet in the buffer."""
    server = serving(request(CanDo, b"f\0x") + request(GrabJob) * 3 + odd)
    assert list(server.requests()) == [(CanDo, [b"f\0x"]), *[(GrabJob, [])] * 3]
    assert server.buffered == len(odd)
    assert list(server.unanswered_tokens()) == [None] * 3
    for _ in range(3):
        server.send_args(NoJob, ())
    assert server.unanswered == 0


def test_requests_abandoned_keeps_the_rest() -> None:
    server = serving(request(GrabJob) * 3)
    for _ in server.requests():
        assert (server.unanswered, server.buffered) == (1, 24)
        break
    assert server.next_event() == GrabJob()
    assert list(server.requests()) == [(GrabJob, [])]


def test_is_drained_follows_buffer() -> None:
    server = serving(b"")
    assert server.is_drained()
    server.receive_data(request(GrabJob) + request(CanDo, b"f"))
    for _ in server.requests():
        assert not server.is_drained()
        break
    assert list(server.requests()) == [(CanDo, [b"f"])]
    assert server.is_drained()
    server.receive_data(b"stat")
    assert server.next_event() is NEED_DATA
    server.receive_data(b"us\n")
    assert not server.is_drained()
    assert server.next_event() == TextLine(b"status", b"\n")
    assert server.is_drained()
    server.receive_data(request(SubmitJob, b"f", b"u", b"x" * 100_000)[:-1])
    assert server.next_event() is NEED_DATA
    assert not server.is_drained()
    server.receive_data(b"x")
    assert isinstance(server.next_event(), SubmitJob)
    assert server.is_drained()
    server.receive_eof()
    assert not server.is_drained()


def test_quick_paths_of_the_other_role_are_empty() -> None:
    client, server = Connection(Role.CLIENT | Role.WORKER), serving(created(b"H:1", b"H:2"))
    client.receive_data(request(GrabJob))
    assert list(client.requests()) == []
    assert client.buffered == 12
    assert server.next_created() == ([], [])


@examples(4)
@given(st.data())
def test_requests_any_stream_matches_next_event(data: st.DataObject) -> None:
    usual = st.sampled_from(
        [request(SubmitJob, b"f", b"u", b"x"), request(GrabJob), request(WorkComplete, b"H:1", b"")]
    )
    anything = hostile_streams(Role.SERVER).map(lambda stream: stream.data)
    pieces = st.one_of(
        usual,
        usual,
        packets(Role.SERVER).map(lambda event: pack_event(event, MAGIC_REQUEST)),
        anything,
    )
    stream = b"".join(data.draw(st.lists(pieces, max_size=12)))
    size = data.draw(st.integers(1, len(stream) + 1))
    one, many = (
        receive(Connection(Role.SERVER), stream, size, quickly) for quickly in (None, requests)
    )
    assert one == many


ARGUMENTS = [
    (JobCreated, b"H:1"),
    (JobCreated, b"H\0x"),
    (JobCreated,),
    (JobCreated, b"H:1", b"more", b"more"),
    (NoJob,),
    (Noop,),
    (JobAssign, b"H:1", b"f", b"da\0ta"),
    (JobAssign, b"H:1", b"f", b"x" * 5000),
    (JobAssign, b"H:1", b"f\0", b"data"),
    (WorkComplete, b"H:1", b""),
    (WorkComplete, b"H:1\0x"),
    (WorkFail, b"H:1"),
    (WorkFail, b"H:1", b"why"),
    (Error, b"QUEUE_ERROR", b"full"),
    (Error, b"JOB_NOT_FOUND", b""),
    (StatusRes, b"H:1", b"1", b"1", b"0", b"0"),
    (SubmitJob, b"f", b"u", b"data"),
    (EchoReq, b"x"),
]
ASKED = {
    "nothing": b"",
    "a submit": request(SubmitJob, b"f", b"", b""),
    "a grab and a submit": request(GrabJob) + request(SubmitJob, b"f", b"", b""),
    "three": request(GrabJob) * 2 + request(AllYours),
    "an invalid request": request(Noop),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(("kind", "args"), [(kind, args) for kind, *args in ARGUMENTS])
def test_send_args_matches_send(asked: str, kind: type[PacketEvent], args: list[bytes]) -> None:
    outcomes: list[Any] = []
    for quickly in (False, True):
        server = serving(ASKED[asked])
        while isinstance(server.next_event(), Event):
            pass
        try:
            sent = server.send_args(kind, args) if quickly else server.send(kind(*args))
            outcomes.append((sent, server.unanswered))
        except (TypeError, LocalProtocolError) as error:
            outcomes.append((repr(error), server.unanswered))
    assert outcomes[0] == outcomes[1]


def test_send_args_of_client_makes_event() -> None:
    client = Connection(Role.CLIENT)
    assert client.send_args(EchoReq, [b"x"]) == request(EchoReq, b"x")
    assert list(client.unanswered_tokens()) == [EchoReq(b"x")]


def test_quick_paths_after_error_are_empty_or_refused() -> None:
    client, server = Connection(Role.CLIENT), serving(b"\0garbage 12 bytes")
    client.receive_data(b"garbage that is no packet")
    for end in (client, server):
        with pytest.raises(RemoteProtocolError):
            end.next_event()
    assert client.next_created() == ([], [])
    with pytest.raises(LocalProtocolError, match="has failed"):
        client.send_submits(SubmitJob, b"f", [b"u"], [b""], [1])
    assert list(server.requests()) == []
    assert not server.is_drained()
    with pytest.raises(LocalProtocolError, match="has failed"):
        server.send_args(Noop, ())
