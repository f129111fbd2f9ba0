"""Tests with recorded exchanges between gearmand and its peers.

Two connected ends replay each exchange. The server's end receives the recorded requests and sends
the recorded answers. The other end sends the requests and receives the answers. Both must send the
recorded bytes.
"""

from __future__ import annotations

import pytest

from gearman_proto.errors import LocalProtocolError, RemoteProtocolError, UnknownCommandError
from gearman_proto.testing import pack_event
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    AllYours,
    Event,
    InvalidRequest,
    Role,
    SetClientId,
    SubmitJob,
    SubmitJobBg,
)
from tests.recordings import VECTORS

# Recorded connections whose first packet is invalid, and the error.
REFUSED: dict[str, dict[str, type[RemoteProtocolError]]] = {
    "30_bad_magic": {"client": RemoteProtocolError},
    "31_unknown_type": {"client": UnknownCommandError, "client2": UnknownCommandError},
    "33_missing_nul": {"client": RemoteProtocolError},
    "43_text_six_words": {"admin": RemoteProtocolError},
}
# Recorded requests that `send` refuses. The replay sends the second event in their place, so that
# the answer finds its request.
UNSENDABLE: dict[str, list[tuple[Event, Event | None]]] = {
    "28_pipelined_submits_with_error": [
        (SubmitJob(b"f", b"u" * 65, b"2"), SubmitJob(b"f", b"u" * 63, b"2"))
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
# Recorded packets that leave in another form, and that form.
CHANGED: dict[str, dict[bytes, bytes]] = {
    "34_extra_payload_ignored": {
        b"\0REQ\0\0\0\x09\0\0\0\x04junk": b"\0REQ\0\0\0\x09\0\0\0\0",
        b"\0REQ\0\0\0\x04\0\0\0\x05junk\0": b"\0REQ\0\0\0\x04\0\0\0\0",
        b"\0REQ\0\0\0\x03\0\0\0\x04junk": b"\0REQ\0\0\0\x03\0\0\0\0",
    },
    # An InvalidRequest does not have the bytes of its packet.
    "32_response_magic_and_unexpected": {
        b"\0RES\0\0\0\x10\0\0\0\x01x": b"",
        b"\0REQ\0\0\0\x06\0\0\0\0": b"",
        b"\0REQ\0\0\0\x05\0\0\0\0": b"",
    },
}


class Wire:
    """The two ends of one recorded connection, with their events and bytes so far."""

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
def test_recording_replayed_gives_same_bytes(name: str, step: int) -> None:
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
