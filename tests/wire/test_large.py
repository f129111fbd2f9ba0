"""Tests of large payloads, which Connection does not copy."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_proto import constants
from gearman_proto.errors import LocalProtocolError, RemoteProtocolError
from gearman_proto.testing import pack
from gearman_proto.testing.strategies import hostile_streams, streams
from gearman_proto.wire import connection
from gearman_proto.wire.buffer import ReceiveBuffer
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import (
    HEADER,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    EchoReq,
    GrabJobUniq,
    JobAssignUniq,
    Role,
    SubmitJob,
    SubmitJobEpoch,
    SubmitReduceJob,
    TextLine,
    Unanswered,
    WorkComplete,
    WorkData,
)
from tests.profiles import examples

from .feeding import receive, runs

MB = 1024 * 1024
LARGE = b"x" * 100_000


# Receiving.


def assign(payload: bytes) -> bytes:
    return pack(JobAssignUniq.packet, (b"H:1", b"f", b"u", payload), MAGIC_RESPONSE)


def test_large_answer_after_ignored_request_finds_its_request() -> None:
    worker = Connection(Role.WORKER)
    echo = EchoReq(b"x")
    worker.send(echo)
    worker.send(GrabJobUniq(), "grab")
    found, *rest = receive(worker, assign(LARGE) + b"\0RES", 65536, closed=False)
    assert [type(event) for event, _ in found] == [Unanswered, JobAssignUniq]
    assert [answers for _, answers in found] == [echo, "grab"]
    assert rest == [None, [], 4]


def test_large_packet_without_nuls_is_refused() -> None:
    stream = HEADER.pack(MAGIC_REQUEST, WorkData.packet.number, 70_000) + b"x" * 70_000
    found, error, _, _ = receive(Connection(Role.SERVER), stream, 10_000)
    assert found == []
    assert error == "WORK_DATA has 0 NULs in its body of 70000 bytes, 1 expected"


def peak(call: Any, *args: Any) -> int:
    tracemalloc.start()
    try:
        call(*args)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_receiving_large_payload_copies_nothing() -> None:
    client = Connection(Role.CLIENT)
    chunk = b"x" * 65536
    kept: list[Any] = []

    def run() -> None:
        front = HEADER.pack(MAGIC_RESPONSE, WorkComplete.packet.number, 4 * MB + 4) + b"H:1\0"
        client.receive_data(front)
        for _ in range(4 * MB // len(chunk)):
            client.receive_data(chunk)
            kept.append(client.next_event())

    assert peak(run) < 4 * MB * 1.3
    assert kept[-1] == WorkComplete(b"H:1", b"x" * 4 * MB)


@pytest.mark.parametrize("begun", [0, 5, 20], ids=["nothing", "a header", "a payload"])
def test_received_packet_is_released_at_the_next_call(begun: int) -> None:
    """The buffer keeps only the part of the next packet that has arrived."""
    server = Connection(Role.SERVER)
    packet = pack(EchoReq.packet, (b"x" * 50_000,), MAGIC_REQUEST)
    server.receive_data(packet + packet[:begun])
    assert server.next_event() == EchoReq(b"x" * 50_000)
    assert server.next_event() is connection.NEED_DATA
    assert len(server._buffer.data) == server.buffered == begun


def test_claimed_size_allocates_no_memory() -> None:
    server = Connection(Role.SERVER, max_packet_size=2**31)

    def run() -> None:
        server.receive_data(HEADER.pack(MAGIC_REQUEST, SubmitJob.packet.number, 2**31))
        server.receive_data(b"f\0u\0" + LARGE)
        assert server.next_event() is connection.NEED_DATA

    assert peak(run) < 4 * len(LARGE)


@pytest.mark.parametrize("role", [Role.CLIENT, Role.WORKER, Role.SERVER, Role.CLIENT | Role.WORKER])
@examples(4)
@given(st.data())
def test_any_stream_does_not_depend_on_limit_of_large(role: Role, data: st.DataObject) -> None:
    """With lower limits, the same packets use the path of large ones."""
    stream = data.draw(streams(role) | hostile_streams(role))
    size = data.draw(st.integers(1, len(stream.data) + 1))
    closed = data.draw(st.booleans())
    outcomes: list[Any] = []
    for large, front in ((connection._LARGE, connection._FRONT), (8, 4), (0, 1), (20, 12)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection, "_LARGE", large)
            patch.setattr(connection, "_FRONT", front)
            end = Connection(role)
            for event in stream.asked:
                end.send(event)
            outcomes.append(
                receive(end, stream.data, size, runs if large == 0 else None, closed=closed)
            )
    assert outcomes == outcomes[:1] * len(outcomes)


# Sending.


@pytest.mark.parametrize(
    "event",
    [
        SubmitJob(b"f", b"u", LARGE),
        SubmitJobEpoch(b"f", b"u", b"17", LARGE),
        SubmitReduceJob(b"f", b"u", b"r", b"", LARGE),
    ],
)
def test_passthrough_large_payload_is_same_object(event: Any) -> None:
    client, other = Connection(Role.CLIENT), Connection(Role.CLIENT)
    front, payload = client.send_with_data_passthrough(event)
    assert payload is event.data
    assert (
        front + payload
        == other.send(event)
        == pack(event.packet, event.arguments(event), MAGIC_REQUEST)
    )
    assert list(client.unanswered_tokens()) == list(other.unanswered_tokens()) == [event]
    client.send_with_data_passthrough(event, "token")
    assert list(client.unanswered_tokens()) == [event, "token"]


@pytest.mark.parametrize(
    "event",
    [SubmitJob(b"f", b"u", LARGE[:65536]), EchoReq(LARGE), EchoReq(b""), TextLine(b"status")],
)
def test_passthrough_other_event_is_one_piece(event: Any) -> None:
    assert Connection(Role.CLIENT).send_with_data_passthrough(event) == [
        Connection(Role.CLIENT).send(event)
    ]


@pytest.mark.parametrize(
    "event",
    [
        SubmitJob(b"f", b"a\0b", LARGE),
        SubmitJob(b"f" * (constants.MAX_FUNCTION_SIZE + 1), b"u", LARGE),
        SubmitJobEpoch(b"f", b"u", b"x", LARGE),
        WorkComplete(b"H:1", LARGE),
    ],
)
@pytest.mark.parametrize("name", ["send", "send_with_data_passthrough"])
def test_send_bad_event_with_large_payload_is_refused(event: Any, name: str) -> None:
    client = Connection(Role.CLIENT)
    small = type(event)(*event.arguments(event)[:-1], b"")
    with pytest.raises(LocalProtocolError) as refused:
        Connection(Role.CLIENT).send(small)
    with pytest.raises(LocalProtocolError) as error:
        getattr(client, name)(event)
    assert str(error.value) == str(refused.value)
    assert client.unanswered == 0


def test_send_payload_too_large_for_header_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_MAX_BODY_SIZE", 100_004)
    client = Connection(Role.CLIENT)
    client.send(SubmitJob(b"f", b"u", LARGE))
    for send in (client.send, client.send_with_data_passthrough):
        with pytest.raises(LocalProtocolError, match="100005 bytes do not fit a packet"):
            send(SubmitJob(b"f", b"uu", LARGE))
    client.send(EchoReq(LARGE + b"1234"))
    with pytest.raises(LocalProtocolError, match="100005 bytes"):
        client.send(EchoReq(LARGE + b"12345"))
    assert client.unanswered == 2


def test_sending_large_payload_copies_at_most_once() -> None:
    payload = b"x" * 4 * MB
    event = SubmitJob(b"f", b"u", payload)
    assert peak(Connection(Role.CLIENT).send, event) < 4 * MB * 1.1
    assert peak(Connection(Role.CLIENT).send_with_data_passthrough, event) < 10_000


@pytest.mark.parametrize("name", ["send", "send_with_data_passthrough"])
def test_send_mutable_payload_is_copied(name: str) -> None:
    client = Connection(Role.CLIENT)
    payload: Any = bytearray(LARGE)
    sent = getattr(client, name)(SubmitJob(b"f", b"u", payload))
    payload[0] = 0
    assert b"".join([sent] if name == "send" else sent).endswith(LARGE)
    with pytest.raises(TypeError):
        getattr(client, name)(SubmitJob(b"f", b"u", [b""] * 100_000))  # type: ignore[arg-type]
    assert client.unanswered == 1


@pytest.mark.parametrize("place", ["feed", "has"])
def test_memory_error_in_buffer_fails_connection(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Bytes might be lost, so the connection can't continue."""
    connection = Connection(Role.CLIENT)

    def no_memory(self: ReceiveBuffer, argument: object) -> None:
        raise MemoryError

    with monkeypatch.context() as context:
        context.setattr(ReceiveBuffer, place, no_memory)
        connection.receive_data(b"\0RES")
        with pytest.raises(RemoteProtocolError, match="no memory"):
            connection.next_event()
    connection.receive_data(b"more")
    assert connection.buffered == 0
    with pytest.raises(RemoteProtocolError, match="no memory"):
        connection.next_event()
