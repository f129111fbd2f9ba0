"""Recorded exchanges with gearmand: every byte of them goes through two connected ends.

One end plays the server and receives what the clients, workers and admins sent; it then has to
send what gearmand answered. The other end has to send the requests, and receives the answers.
What comes out is packed again and compared with the record.
"""

from __future__ import annotations

import re

import pytest

from gearman_proto.errors import LocalProtocolError, RemoteProtocolError, UnknownCommandError
from gearman_proto.testing import pack_event
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    AllYours,
    Error,
    Event,
    GrabJob,
    InvalidRequest,
    JobCreated,
    PacketEvent,
    PreSleep,
    ResetAbilities,
    Role,
    SetClientId,
    SubmitJob,
    SubmitJobBg,
    TextLine,
    WorkFail,
)
from tests.recordings import VECTORS

# The connections on which the recorded peer sent what ends them, and the error. Nothing sound came
# before.
REFUSED: dict[str, dict[str, type[RemoteProtocolError]]] = {
    "30_bad_magic": {"client": RemoteProtocolError},
    "31_unknown_type": {"client": UnknownCommandError, "client2": UnknownCommandError},
    "33_missing_nul": {"client": RemoteProtocolError},
    "43_text_six_words": {"admin": RemoteProtocolError},
}
# Requests that were sent to see what the server does, and that `send` does not let through; with
# what is sent in their place, so that the server's answer finds its request.
UNSENDABLE: dict[str, list[tuple[Event, Event | None]]] = {
    "28_pipelined_submits_with_error": [
        (SubmitJob(b"f", b"u" * 65, b"2"), SubmitJob(b"f", b"u" * 63, b"2")),
    ],
    "29_unique_63_and_64": [
        (SubmitJobBg(b"f", b"b" * 64, b"d"), SubmitJobBg(b"f", b"b" * 63, b"d")),
        (SubmitJobBg(b"f", b"b" * 64, b"d"), SubmitJobBg(b"f", b"b" * 63, b"d")),
    ],
    "32_response_magic_and_unexpected": [
        (InvalidRequest(b"INVALID_MAGIC", b"Request magic expected"), None),
        (AllYours(), None),
        (InvalidRequest(b"INVALID_COMMAND", b"Command not expected"), None),
        (InvalidRequest(b"INVALID_COMMAND", b"Command not expected"), None),
    ],
    "45_worker_ids": [(SetClientId(b"i" * 130), None)],
}
# Packets that come out different from how they went in, and how.
CHANGED: dict[str, dict[bytes, bytes]] = {
    "34_extra_payload_ignored": {
        b"\0REQ\0\0\0\x09\0\0\0\x04junk": b"\0REQ\0\0\0\x09\0\0\0\0",
        b"\0REQ\0\0\0\x04\0\0\0\x05junk\0": b"\0REQ\0\0\0\x04\0\0\0\0",
        b"\0REQ\0\0\0\x03\0\0\0\x04junk": b"\0REQ\0\0\0\x03\0\0\0\0",
    },
    # What a server makes of a packet that it does not take holds nothing of that packet.
    "32_response_magic_and_unexpected": {
        b"\0RES\0\0\0\x10\0\0\0\x01x": b"",
        b"\0REQ\0\0\0\x06\0\0\0\0": b"",
        b"\0REQ\0\0\0\x05\0\0\0\0": b"",
    },
}


class Wire:
    """The two ends of one recorded connection, and what went through each so far."""

    def __init__(self) -> None:
        self.near = Connection(Role.CLIENT | Role.WORKER)
        self.server = Connection(Role.SERVER)
        self.requests: list[Event] = []
        self.replies: list[Event] = []
        self.recorded_requests = b""
        self.recorded_replies = b""
        self.sent_requests = b""
        self.sent_replies = b""
        self.unsendable: list[tuple[Event, Event | None]] = []
        self.error: RemoteProtocolError | None = None

    def request(self, data: bytes, step: int, unsendable: list[tuple[Event, Event | None]]) -> None:
        self.recorded_requests += data
        for event in self._receive(self.server, data, step):
            self.requests.append(event)
            known = next((pair for pair in unsendable if pair[0] == event), None)
            if known is None:
                self.sent_requests += self.near.send(event)
                continue
            with pytest.raises(LocalProtocolError):
                self.near.send(event)
            self.unsendable.append(known)
            self.sent_requests += pack_event(event, MAGIC_REQUEST)
            if known[1] is not None:
                self.near.send(known[1])

    def reply(self, data: bytes, step: int) -> None:
        self.recorded_replies += data
        for event in self._receive(self.near, data, step):
            self.replies.append(event)
            self.sent_replies += self.server.send(event)

    def _receive(self, end: Connection, data: bytes, step: int) -> list[Event]:
        events: list[Event] = []
        for at in range(0, len(data), step):
            end.receive_data(data[at : at + step])
            while True:
                try:
                    event = end.next_event()
                except RemoteProtocolError as error:
                    self.error = error
                    return events
                if event is NEED_DATA:
                    break
                assert isinstance(event, Event)
                events.append(event)
        return events


def replay(name: str, step: int) -> dict[str, Wire]:
    wires: dict[str, Wire] = {}
    for element in VECTORS[name].exchange:
        wire = wires.setdefault(element.conn, Wire())
        if element.of_server:
            wire.reply(element.data, step)
        else:
            wire.request(element.data, step, UNSENDABLE.get(name, []))
    return wires


@pytest.mark.unmeasured
@pytest.mark.parametrize("step", [10**6, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("name", VECTORS)
def test_replay(name: str, step: int) -> None:
    wires = replay(name, step)
    refused = REFUSED.get(name, {})
    for conn, wire in wires.items():
        if conn in refused:
            assert type(wire.error) is refused[conn]
            assert wire.requests == wire.replies == []
            continue
        assert wire.error is None
        expected = wire.recorded_requests
        for recorded, changed in CHANGED.get(name, {}).items():
            assert recorded in expected
            expected = expected.replace(recorded, changed)
        assert b"".join(pack_event(event, MAGIC_REQUEST) for event in wire.requests) == expected
        assert wire.sent_requests == expected
        assert b"".join(pack_event(event, MAGIC_RESPONSE) for event in wire.replies) == (
            wire.recorded_replies
        )
        assert wire.sent_replies == wire.recorded_replies
        assert wire.near.unanswered == wire.server.unanswered == 0
    assert refused.keys() <= wires.keys()
    met = [pair for wire in wires.values() for pair in wire.unsendable]
    assert met == UNSENDABLE.get(name, [])


@pytest.mark.parametrize("name", [name for name in VECTORS if name not in REFUSED])
def test_names(name: str) -> None:
    """What the recorder called each packet is what it comes out as."""
    expected: dict[str, list[str]] = {}
    for element in VECTORS[name].exchange:
        # A packet that came in several writes was not decoded by the recorder.
        found = re.findall(r"(?:^|; )(?:REQ|RES) ([A-Z_]+) '", element.decoded)
        expected.setdefault(element.conn, []).extend(found)
    unnamed = {"02_pipelined_and_split": ["ECHO_REQ"]}.get(name, [])
    wires = replay(name, 10**6)
    invalid = [
        event for w in wires.values() for event in w.requests if isinstance(event, InvalidRequest)
    ]
    got = sorted(
        event.packet.name
        for wire in wires.values()
        for event in wire.requests + wire.replies
        if isinstance(event, PacketEvent)
    )
    names = sorted([name for found in expected.values() for name in found] + unnamed)
    if name == "32_response_magic_and_unexpected":
        assert len(invalid) == 3
        for absent in ("ECHO_REQ", "NOOP", "UNUSED"):
            names.remove(absent)
    else:
        assert not invalid
    assert got == names


def test_answers_find_their_requests() -> None:
    """A reply that has `answers` has the very event that asked for it."""
    answered = 0
    for name in VECTORS:
        if name in REFUSED:
            continue
        for wire in replay(name, 10**6).values():
            asked = [
                event
                for event in wire.requests
                if isinstance(event, PacketEvent) and event.packet.answers
            ]
            substitutes = {id(event): other for event, other in wire.unsendable if other}
            tokens = [
                event.answers  # type: ignore[attr-defined]
                for event in wire.replies
                if getattr(event, "answers", None) is not None
            ]
            assert len(tokens) == len(asked)
            for token, event in zip(tokens, asked):
                assert token is event or token in substitutes.values()
                answered += 1
    assert answered == 271


def test_error_takes_the_place_of_the_answer() -> None:
    (wire,) = replay("28_pipelined_submits_with_error", 10**6).values()
    assert [type(event) for event in wire.replies] == [JobCreated, Error, JobCreated, JobCreated]
    refused = wire.replies[1]
    assert isinstance(refused, Error)
    assert refused.answers == SubmitJob(b"f", b"u" * 63, b"2")


def test_errors_for_work_answer_nothing() -> None:
    wires = replay("23_work_for_unknown_handle", 10**6)
    errors = [event for w in wires.values() for event in w.replies if isinstance(event, Error)]
    assert len(errors) >= 3
    assert all(event.code == b"JOB_NOT_FOUND" and event.answers is None for event in errors)


def test_suppressed_exception_keeps_its_nul() -> None:
    wires = replay("08_exception_without_option", 1)
    assert [e for e in wires["client"].replies if isinstance(e, WorkFail)] == [
        WorkFail(b"H:h:1", b"")
    ]
    assert [e for e in wires["worker"].requests if isinstance(e, WorkFail)] == [WorkFail(b"H:h:1")]


def test_body_on_packets_that_take_none_is_ignored() -> None:
    wire = replay("34_extra_payload_ignored", 1)["worker"]
    assert wire.requests[:3] == [GrabJob(), PreSleep(), ResetAbilities()]


def test_split_packet_is_one_packet() -> None:
    (wire,) = replay("02_pipelined_and_split", 1).values()
    assert len(wire.requests) == len(wire.replies) == 4
    assert wire.requests[-1].data == b"abcde"  # type: ignore[attr-defined]


TEXT_ONLY = [name for name in VECTORS if re.match("4[0-4]", name) and name != "43_text_six_words"]


@pytest.mark.parametrize("name", TEXT_ONLY)
def test_text_lines(name: str) -> None:
    """Each line of text is one event with the ending that it had."""
    wires = replay(name, 1)
    wire = wires.get("admin") or wires["client"]
    for recorded, events in (
        (wire.recorded_requests, wire.requests),
        (wire.recorded_replies, wire.replies),
    ):
        # The one exchange that mixes has no line feed inside a packet.
        text = re.sub(rb"\0RE[QS]\0\0\0.\0\0\0\x01.", b"", recorded)
        lines = text.splitlines(keepends=True)
        assert [e.line + e.ending for e in events if isinstance(e, TextLine)] == lines
        assert lines


def test_mixed_text_and_binary_keep_their_order() -> None:
    (wire,) = replay("44_text_and_binary_mixed", 1).values()
    assert [type(event).__name__ for event in wire.requests] == ["EchoReq", "TextLine", "EchoReq"]
    assert [type(event).__name__ for event in wire.replies] == ["EchoRes", "TextLine", "EchoRes"]
    assert wire.replies[1] == TextLine(b"OK 1.1.21+ds", b"\n")
