"""Tests of Connection: roles, the pairing of answers and requests, and invalid data.

Unless a test needs bytes, it connects two ends in memory and sends events through both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_proto.errors import LocalProtocolError, RemoteProtocolError, UnknownCommandError
from gearman_proto.records import replaced
from gearman_proto.testing import (
    ConnectionParser,
    check_chunking,
    check_exceptions,
    check_meaning,
    pack,
    parse,
)
from gearman_proto.testing.strategies import (
    HostileStream,
    Session,
    Stream,
    chunked,
    hostile_streams,
    sessions,
    streams,
)
from gearman_proto.wire import packets
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import (
    BY_NAME,
    EVENT_CLASSES,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    PACKETS,
    AllYours,
    CanDo,
    CanDoTimeout,
    ConnectionClosed,
    EchoReq,
    EchoRes,
    Error,
    Event,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    InvalidRequest,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PacketEvent,
    PreSleep,
    Role,
    SetClientId,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobEpoch,
    SubmitReduceJob,
    TextLine,
    Unanswered,
    WorkComplete,
    WorkFail,
    WorkStatus,
)
from tests.profiles import examples

if TYPE_CHECKING:
    from collections.abc import Callable

BOTH = Role.CLIENT | Role.WORKER
ROLES = [Role.CLIENT, Role.WORKER, BOTH, Role.SERVER]


def drain(end: Connection) -> list[Event]:
    events = []
    while isinstance(event := end.next_event(), Event):
        events.append(event)
        if isinstance(event, ConnectionClosed):
            break
    return events


class Pair:
    """A client's or worker's end, connected to a server's end."""

    def __init__(self, role: Role) -> None:
        self.near = Connection(role)
        self.server = Connection(Role.SERVER)

    def request(self, event: Event, token: Any = None) -> Event:
        """Send a request from the near end, and return the event at the server."""
        self.server.receive_data(self.near.send(event, token))
        (received,) = drain(self.server)
        return received

    def reply(self, event: Event) -> list[Event]:
        """Send a packet from the server, and return the events at the near end."""
        self.near.receive_data(self.server.send(event))
        return drain(self.near)

    def answer(self, event: Event) -> Any:
        """Send an answer from the server, check it at the near end, and return its token."""
        (received,) = self.reply(event)
        assert received == event
        return received.answers  # type: ignore[attr-defined]


@pytest.fixture
def client() -> Pair:
    return Pair(Role.CLIENT)


@pytest.fixture
def worker() -> Pair:
    return Pair(Role.WORKER)


@pytest.fixture
def both() -> Pair:
    return Pair(BOTH)


@pytest.fixture
def server() -> Connection:
    return Connection(Role.SERVER)


def raw(name: str, *args: bytes, magic: bytes = MAGIC_RESPONSE) -> bytes:
    return pack(BY_NAME[name], args, magic)


def header(number: int, size: int, magic: bytes = MAGIC_RESPONSE) -> bytes:
    return packets.HEADER.pack(magic, number, size)


def sample(event_class: type[PacketEvent]) -> PacketEvent:
    """Return an event of this class that `send` accepts."""
    args = event_class.packet.args
    if event_class.packet.optional:
        args = args[:-1]
    return event_class(*(b"1" for _ in args))


# Construction.


@pytest.mark.parametrize("role", [None, 1, "client", Role(0)])
def test_connection_bad_role_is_refused(role: Any) -> None:
    with pytest.raises(TypeError):
        Connection(role)


@pytest.mark.parametrize("other", [Role.CLIENT, Role.WORKER, BOTH])
def test_connection_server_with_other_role_is_refused(other: Role) -> None:
    with pytest.raises(ValueError, match="server"):
        Connection(Role.SERVER | other)


def test_connection_repr_shows_role_and_unanswered(client: Pair) -> None:
    client.near.send(EchoReq(b""))
    assert "CLIENT" in repr(client.near)
    assert "1 unanswered" in repr(client.near)
    assert repr(NEED_DATA) == "NEED_DATA"


# Sending.


@pytest.mark.parametrize("role", ROLES)
def test_send_packet_of_other_role_is_refused(role: Role) -> None:
    end = Connection(role)
    others = [kind for kind in EVENT_CLASSES.values() if not kind.packet.sender & role]
    assert others
    for kind in others:
        with pytest.raises(LocalProtocolError, match=f"{kind.packet.name} is not for"):
            end.send(sample(kind))
    with pytest.raises(LocalProtocolError, match="ALL_YOURS"):
        end.send(AllYours())
    assert end.unanswered == 0


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "event",
    [ConnectionClosed(), Unanswered(BY_NAME["ECHO_REQ"]), InvalidRequest(b"a", b"b"), Event()],
)
def test_send_unsendable_event_is_refused(role: Role, event: Event) -> None:
    with pytest.raises(LocalProtocolError, match="can't be sent"):
        Connection(role).send(event)


NUL_CASES = [
    pytest.param(event_class, name, id=f"{event_class.packet.name}-{name}")
    for event_class in EVENT_CLASSES.values()
    for name in event_class.packet.args[: len(event_class.packet.args) - event_class.packet.opaque]
]


@pytest.mark.parametrize(("event_class", "name"), NUL_CASES)
def test_send_nul_in_plain_argument_is_refused(event_class: type[PacketEvent], name: str) -> None:
    packet = event_class.packet
    end = Connection(Role.SERVER if Role.SERVER in packet.sender else BOTH)
    event = replaced(sample(event_class), **{name: b"a\0b"})
    with pytest.raises(LocalProtocolError, match=f"{packet.name}: a NUL in the {name} "):
        end.send(event)
    assert end.unanswered == 0


@pytest.mark.parametrize(
    ("kind", "name", "limit"),
    [
        (SubmitJob, "function", 7986),
        (CanDo, "function", 7986),
        (SubmitJob, "unique", 63),
        (SubmitReduceJob, "unique", 63),
        (SubmitReduceJob, "reducer", 64),
        (GetStatus, "handle", 63),
        (GetStatusUnique, "unique", 63),
        (OptionReq, "option", 63),
        (SetClientId, "client_id", 127),
        (WorkStatus, "numerator", 11),
        (WorkStatus, "denominator", 11),
        (WorkFail, "handle", 65536),
    ],
)
def test_send_longest_argument_arrives_longer_is_refused(
    kind: type[PacketEvent], name: str, limit: int, both: Pair
) -> None:
    largest = replaced(sample(kind), **{name: b"1" * limit})
    assert both.request(largest) == largest
    before = both.near.unanswered
    with pytest.raises(LocalProtocolError, match=f"the {name} has {limit + 1} bytes, more than"):
        both.near.send(replaced(largest, **{name: b"1" * (limit + 1)}))
    assert both.near.unanswered == before


def test_send_server_sends_long_names(worker: Pair) -> None:
    """A server has no limits for names. Its errors are about NULs, whatever the size."""
    worker.request(GrabJobUniq())
    with pytest.raises(LocalProtocolError, match="a NUL in the function"):
        worker.server.send(JobAssignUniq(b"h" * 70000, b"\0", b"", b""))
    assert worker.server.unanswered == 1
    long = JobAssignUniq(b"h" * 100, b"f" * 9000, b"u" * 200, b"")
    assert worker.answer(long) == GrabJobUniq()


@pytest.mark.parametrize(
    ("kind", "name", "largest"),
    [(CanDoTimeout, "timeout", 2**31 - 1), (SubmitJobEpoch, "epoch", 2**63 - 1)],
)
def test_send_bad_number_is_refused(
    kind: type[PacketEvent], name: str, largest: int, both: Pair
) -> None:
    bad = [b"", b"-1", b"+1", b" 1", b"1 ", b"1.0", b"abc", b"\xb2", b"0" * 20, b"5" * 20]
    for value in (*bad, b"%d" % (largest + 1)):
        with pytest.raises(LocalProtocolError, match=f"not a number from 0 to {largest}"):
            both.near.send(replaced(sample(kind), **{name: value}))
    assert both.near.unanswered == 0
    for value in (b"0", b"0001", b"%d" % largest):
        event = replaced(sample(kind), **{name: value})
        assert both.request(event) == event


@pytest.mark.parametrize("reason", [b"", b"why"])
def test_work_fail_reason_is_received_but_not_sent_by_worker(reason: bytes, both: Pair) -> None:
    with pytest.raises(LocalProtocolError, match="WORK_FAIL"):
        both.near.send(WorkFail(b"h", reason))
    assert both.reply(WorkFail(b"h", reason)) == [WorkFail(b"h", reason)]
    both.server.receive_data(raw("WORK_FAIL", b"h", reason, magic=MAGIC_REQUEST))
    assert drain(both.server) == [WorkFail(b"h", reason)]


def test_request_nul_in_last_argument_is_kept(server: Connection) -> None:
    server.receive_data(raw("CAN_DO", b"f\0x", magic=MAGIC_REQUEST))
    server.receive_data(raw("CAN_DO_TIMEOUT", b"f", b"1\0x", magic=MAGIC_REQUEST))
    assert drain(server) == [CanDo(b"f\0x"), CanDoTimeout(b"f", b"1\0x")]


@pytest.mark.parametrize(
    ("name", "args"), [("JOB_CREATED", [b"h\0x"]), ("STATUS_RES", [b"h", b"1", b"1", b"1", b"1\0"])]
)
def test_reply_nul_in_last_argument_is_refused(name: str, args: list[bytes], client: Pair) -> None:
    client.request(SubmitJob(b"f", b"", b"") if name == "JOB_CREATED" else GetStatus(b"h"))
    client.near.receive_data(raw(name, *args))
    with pytest.raises(RemoteProtocolError, match=f"{name}: a NUL in"):
        client.near.next_event()


# Pairing.

ANSWERS: list[tuple[PacketEvent, PacketEvent]] = [
    (SubmitJob(b"f", b"", b""), JobCreated(b"h")),
    (GetStatus(b"h"), StatusRes(b"h", b"1", b"0", b"0", b"0")),
    (GetStatusUnique(b"u"), StatusResUnique(b"u", b"1", b"0", b"0", b"0", b"1")),
    (OptionReq(b"exceptions"), OptionRes(b"exceptions")),
    (EchoReq(b"\0x"), EchoRes(b"\0x")),
    (GrabJob(), NoJob()),
    (GrabJob(), JobAssign(b"h", b"f", b"d")),
    (GrabJobUniq(), NoJob()),
    (GrabJobUniq(), JobAssignUniq(b"h", b"f", b"u", b"d")),
    (GrabJobAll(), NoJob()),
    (GrabJobAll(), JobAssignUniq(b"h", b"f", b"u", b"d")),
    (GrabJobAll(), JobAssignAll(b"h", b"f", b"u", b"r", b"d")),
]


@pytest.mark.parametrize("code", [b"JOB_NOT_FOUND", b"not_worker"])
@pytest.mark.parametrize("role", [Role.WORKER, BOTH])
def test_work_error_at_worker_answers_no_request(code: bytes, role: Role) -> None:
    pair = Pair(role)
    pair.request(WorkComplete(b"h", b""))
    pair.request(GrabJob(), "grab")
    assert pair.answer(Error(code, b"")) is None
    assert pair.near.unanswered == pair.server.unanswered == 1
    assert pair.answer(NoJob()) == "grab"


@pytest.mark.parametrize("code", [b"JOB_NOT_FOUND", b"not_worker"])
def test_work_error_at_client_answers_request(code: bytes, client: Pair) -> None:
    """A client sends no WORK_* packets."""
    client.request(GetStatus(b"h"), "status")
    client.near.receive_data(raw("ERROR", code, b""))
    (error,) = drain(client.near)
    assert isinstance(error, Error)
    assert error.answers == "status"


# Requests that gear's server drops silently.

IGNORED = [OptionReq(b"exceptions"), EchoReq(b"x"), GetStatusUnique(b"u")]


def test_ignored_requests_are_reported_as_unanswered(client: Pair) -> None:
    for event in (*IGNORED, GetStatus(b"h")):
        client.near.send(event)
    client.near.receive_data(raw("STATUS_RES", b"h", b"0", b"0", b"0", b"0"))
    events = drain(client.near)
    assert [type(event) for event in events] == [Unanswered] * 3 + [StatusRes]
    assert [event.answers for event in events] == [  # type: ignore[attr-defined]
        *IGNORED,
        GetStatus(b"h"),
    ]


def test_ignored_request_before_same_kind_is_recognized_by_value(client: Pair) -> None:
    """The echo belongs to the second request."""
    client.near.send(EchoReq(b"1"), "first")
    client.near.send(EchoReq(b"2"), "second")
    client.near.receive_data(raw("ECHO_RES", b"2"))
    first, second = drain(client.near)
    assert isinstance(first, Unanswered)
    assert first.answers == "first"
    assert second == EchoRes(b"2")
    assert second.answers == "second"


@pytest.mark.parametrize("code", [b"QUEUE_ERROR", b"ARGUMENT_TOO_LARGE"])
def test_ignored_request_before_refused_submit_is_unanswered(code: bytes, client: Pair) -> None:
    client.near.send(OptionReq(b"exceptions"), "option")
    client.near.send(SubmitJob(b"f", b"", b""), "submit")
    client.near.receive_data(raw("ERROR", code, b""))
    unanswered, error = drain(client.near)
    assert isinstance(unanswered, Unanswered)
    assert unanswered.answers == "option"
    assert isinstance(error, Error)
    assert error.answers == "submit"


# Streams out of step.


@pytest.mark.parametrize("reply", [reply for _, reply in ANSWERS])
def test_answer_without_request_is_refused(reply: PacketEvent, both: Pair) -> None:
    with pytest.raises(LocalProtocolError, match="answers nothing"):
        both.server.send(reply)
    both.near.receive_data(raw(reply.packet.name, *type(reply).arguments(reply)))
    with pytest.raises(RemoteProtocolError, match="answers nothing"):
        both.near.next_event()


@pytest.mark.parametrize(("request_", "reply"), ANSWERS)
def test_answer_to_other_request_is_refused(
    request_: PacketEvent, reply: PacketEvent, both: Pair
) -> None:
    """The server refuses to send the answer, and the near end refuses to receive it."""
    asked = SubmitJob(b"f", b"", b"") if isinstance(request_, GetStatus) else GetStatus(b"h")
    answer = JobCreated(b"h") if asked != GetStatus(b"h") else StatusRes(b"h", *[b"0"] * 4)
    both.request(asked)
    with pytest.raises(LocalProtocolError, match=f"can't answer {asked.packet.name}"):
        both.server.send(reply)
    assert both.server.send(answer)
    both.near.receive_data(raw(reply.packet.name, *type(reply).arguments(reply)))
    with pytest.raises(RemoteProtocolError, match=f"can't answer {asked.packet.name}"):
        both.near.next_event()


@pytest.mark.parametrize(
    ("request_", "wrong"),
    [
        (EchoReq(b"x"), EchoRes(b"y")),
        (OptionReq(b"exceptions"), OptionRes(b"Exceptions")),
        (GetStatusUnique(b"u"), StatusResUnique(b"v", *[b"0"] * 5)),
    ],
)
def test_answer_about_other_value_makes_request_unanswered(
    request_: PacketEvent, wrong: PacketEvent, client: Pair
) -> None:
    """The server could have dropped these requests, so the error is about the next request."""
    client.request(request_)
    client.near.receive_data(raw(wrong.packet.name, *type(wrong).arguments(wrong)))
    assert client.near.next_event() == Unanswered(request_.packet)
    with pytest.raises(RemoteProtocolError, match="answers nothing"):
        client.near.next_event()


def test_answer_about_other_handle_is_refused(client: Pair) -> None:
    client.request(GetStatus(b"h:1"))
    client.near.receive_data(raw("STATUS_RES", b"h:2", b"0", b"0", b"0", b"0"))
    with pytest.raises(RemoteProtocolError, match=r"STATUS_RES is about b'h:2', but b'h:1' was"):
        client.near.next_event()


# Errors and the end of the stream.


def test_next_event_after_error_raises_same_error(client: Pair) -> None:
    client.near.receive_data(b"\0XYZ" + b"x" * 1000)
    with pytest.raises(RemoteProtocolError) as first:
        client.near.next_event()
    client.near.receive_data(raw("ERROR", b"c", b""))
    client.near.receive_eof()
    with pytest.raises(RemoteProtocolError) as second:
        client.near.next_event()
    assert second.value is first.value
    assert client.near.buffered == 0
    with pytest.raises(LocalProtocolError, match="has failed"):
        client.near.send(EchoReq(b""))


@pytest.mark.parametrize("role", ROLES)
def test_eof_between_packets_is_connection_closed(role: Role) -> None:
    end = Connection(role)
    end.receive_eof()
    end.receive_eof()
    assert end.next_event() == ConnectionClosed()
    assert end.next_event() == ConnectionClosed()
    with pytest.raises(LocalProtocolError, match="after the end"):
        end.receive_data(b"x")


@pytest.mark.parametrize(
    ("begun", "size"),
    [
        *((raw("CAN_DO", b"xy", magic=MAGIC_REQUEST)[:size], size) for size in range(1, 14)),
        (header(6, 3, MAGIC_REQUEST) + b"ab", 14),
        (b"status", 6),
    ],
)
def test_eof_inside_packet_is_error(begun: bytes, size: int, server: Connection) -> None:
    server.receive_data(raw("PRE_SLEEP", magic=MAGIC_REQUEST) + begun)
    assert drain(server) == [PreSleep()]
    server.receive_eof()
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match=f"middle of a packet, after {size} bytes"):
            server.next_event()


# Headers.


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("magic", [b"\0XYZ", b"\0req", b"\0RE\0", b"\0\0\0\0", b"\0REX"])
def test_header_with_bad_magic_is_refused(role: Role, magic: bytes) -> None:
    whole = Connection(role)
    whole.receive_data(header(16, 0, magic))
    with pytest.raises(RemoteProtocolError, match="not with a magic"):
        whole.next_event()
    # A peer that sends these bytes might never send the rest of the header.
    short = Connection(role)
    short.receive_data(magic)
    with pytest.raises(RemoteProtocolError, match="not with a magic"):
        short.next_event()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("magic", [MAGIC_REQUEST, MAGIC_RESPONSE])
@pytest.mark.parametrize("number", [0, 43, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_header_with_unknown_type_is_refused(role: Role, magic: bytes, number: int) -> None:
    end = Connection(role)
    end.receive_data(header(number, 0, magic))
    with pytest.raises(UnknownCommandError, match=f"no packet of type {number}$"):
        end.next_event()


@pytest.mark.parametrize(
    ("role", "packet"),
    [
        pytest.param(role, packet, id=f"{packet.name}-{role.name}")
        for role in (Role.CLIENT, Role.WORKER, BOTH)
        for packet in PACKETS
        if not packet.receiver & role
    ],
)
def test_packet_for_other_role_is_refused(role: Role, packet: packets.PacketType) -> None:
    end = Connection(role)
    end.receive_data(header(packet.number, 0))
    with pytest.raises(RemoteProtocolError, match=f"{packet.name} is not for"):
        end.next_event()


def test_client_accepts_request_magic(both: Pair) -> None:
    """Python gear's server sends one packet with a request's magic."""
    both.near.send(SubmitJob(b"f", b"", b""), "token")
    both.near.receive_data(raw("NOOP", magic=MAGIC_REQUEST))
    both.near.receive_data(raw("JOB_CREATED", b"h", magic=MAGIC_REQUEST))
    noop, created = drain(both.near)
    assert noop == Noop()
    assert created == JobCreated(b"h")
    assert created.answers == "token"


# Sizes.


@pytest.mark.parametrize(
    ("role", "number", "limit"),
    [
        (Role.CLIENT, 28, 256 * 1024 * 1024),
        (Role.SERVER, 5, 256 * 1024 * 1024),
        # Packets without a payload have a lower limit.
        (Role.CLIENT, 20, 65536),
        (Role.WORKER, 6, 65536),
        (Role.SERVER, 1, 65536),
        # So have those that the server answers with ERROR.
        (Role.SERVER, 6, 65536),
    ],
)
def test_claimed_size_beyond_default_limit_is_refused(role: Role, number: int, limit: int) -> None:
    magic = MAGIC_REQUEST if role is Role.SERVER else MAGIC_RESPONSE
    end = Connection(role)
    end.receive_data(header(number, limit, magic))
    assert end.next_event() is NEED_DATA
    end = Connection(role)
    end.receive_data(header(number, limit + 1, magic))
    with pytest.raises(RemoteProtocolError, match=f"claims {limit + 1} bytes, more than the"):
        end.next_event()


@pytest.mark.parametrize("magic", [MAGIC_REQUEST, MAGIC_RESPONSE])
@pytest.mark.parametrize("role", [Role.CLIENT, Role.SERVER])
@pytest.mark.parametrize("number", [12, 13, 14, 28])
def test_max_packet_size_applies_to_any_packet_and_magic(
    number: int, role: Role, magic: bytes
) -> None:
    """The header alone is enough to refuse a packet."""
    end = Connection(role, max_packet_size=100)
    end.receive_data(header(number, 101, magic))
    with pytest.raises(RemoteProtocolError, match="more than the 100 allowed"):
        end.next_event()


# Packets that a server answers with ERROR.


INVALID = [
    *((number, MAGIC_RESPONSE, b"INVALID_MAGIC") for number in EVENT_CLASSES),
    *((p.number, MAGIC_REQUEST, b"INVALID_COMMAND") for p in PACKETS if p.sender == Role.SERVER),
    # The unused type.
    (5, MAGIC_REQUEST, b"INVALID_COMMAND"),
]


@pytest.mark.parametrize(("number", "magic", "code"), INVALID)
def test_server_answers_invalid_request_with_error(
    number: int, magic: bytes, code: bytes, server: Connection
) -> None:
    server.receive_data(header(number, 1, magic) + b"x" + raw("PRE_SLEEP", magic=MAGIC_REQUEST))
    invalid, following = drain(server)
    assert isinstance(invalid, InvalidRequest)
    assert invalid.code == code
    assert following == PreSleep()
    assert server.unanswered == 1


def test_invalid_request_is_answered_in_order(server: Connection) -> None:
    server.receive_data(raw("ECHO_REQ", b"1", magic=MAGIC_REQUEST))
    server.receive_data(raw("ECHO_REQ", b"x"))
    server.receive_data(raw("ECHO_REQ", b"2", magic=MAGIC_REQUEST))
    first, invalid, last = drain(server)
    assert isinstance(invalid, InvalidRequest)
    assert server.unanswered == 3
    server.send(EchoRes(b"1"))
    with pytest.raises(LocalProtocolError, match="can't answer an invalid request"):
        server.send(EchoRes(b"2"))
    assert server.send(Error(invalid.code, invalid.text)) == raw(
        "ERROR", b"INVALID_MAGIC", b"Request magic expected"
    )
    server.send(EchoRes(b"2"))
    assert server.unanswered == 0
    assert (first, last) == (EchoReq(b"1"), EchoReq(b"2"))


# Text.


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "event",
    [
        TextLine(b"a\nb"),
        TextLine(b"a", b""),
        TextLine(b"a", b"\r"),
        TextLine(b"a", b"\n\n"),
        TextLine(b"\0a"),
    ],
)
def test_send_bad_line_is_refused(role: Role, event: TextLine) -> None:
    with pytest.raises(LocalProtocolError):
        Connection(role).send(event)


@pytest.mark.parametrize("line", [b"maxqueue f 1 2 3 4", b"maxqueue f 1 2 3 ", b" a b c d e"])
def test_command_with_too_many_words_is_refused(server: Connection, line: bytes) -> None:
    server.receive_data(b"maxqueue  f  1  2  3\nversion\0 1 2 3 4 5\n" + line + b"\n")
    assert [server.next_event(), server.next_event()] == [
        TextLine(b"maxqueue  f  1  2  3", b"\n"),
        TextLine(b"version\0 1 2 3 4 5", b"\n"),
    ]
    with pytest.raises(RemoteProtocolError, match="more than 5 words"):
        server.next_event()


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_command_longer_than_limit_is_refused(ending: bytes, client: Pair) -> None:
    largest = TextLine(b"x" * (8192 - len(ending)), ending)
    assert client.request(largest) == largest
    too_long = TextLine(largest.line + b"x", ending)
    with pytest.raises(LocalProtocolError, match="too long"):
        client.near.send(too_long)
    client.server.receive_data(too_long.line)
    assert client.server.next_event() is NEED_DATA
    client.server.receive_data(ending)
    with pytest.raises(RemoteProtocolError, match="more than 8192 bytes"):
        client.server.next_event()


def test_reply_line_has_higher_limit(client: Pair) -> None:
    client.request(TextLine(b"workers"))
    line = TextLine(b"37 127.0.0.1 - : " + b"name " * 100_000, b"\n")
    assert client.reply(line) == [line]
    largest = TextLine(b"x" * (1024 * 1024 - 1), b"\n")
    assert client.reply(largest) == [largest]
    client.near.receive_data(b"x" * (1024 * 1024))
    assert client.near.next_event() is NEED_DATA
    client.near.receive_data(b"x")
    with pytest.raises(RemoteProtocolError, match="more than 1048576 bytes"):
        client.near.next_event()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Gearman.*HTTP/1.1"),
        (b"H", "does not speak Gearman"),
        (b"OK\n", "does not speak Gearman"),
        (b"\n", "does not speak Gearman"),
        (b"\x15\3\3\0\2\2\x46", "not speak Gearman, but TLS"),
    ],
)
def test_unexpected_text_is_refused_at_once(data: bytes, complaint: str, client: Pair) -> None:
    """The line might never end, so the connection does not wait for the line feed."""
    client.near.send(EchoReq(b""))
    with pytest.raises(LocalProtocolError, match="more than 5 words"):
        # A refused command allows no text.
        client.near.send(TextLine(b"maxqueue f 1 2 3 4"))
    client.near.receive_data(data)
    with pytest.raises(RemoteProtocolError, match=complaint):
        client.near.next_event()


# Any events, any bytes, any chunks.


@examples(1.5)
@given(sessions(), st.data())
def test_any_dialogue_is_understood(session: Session, data: st.DataObject) -> None:
    near, server = Connection(session.role), Connection(Role.SERVER)
    for turn in session.turns:
        sender, receiver = (server, near) if turn.sender is Role.SERVER else (near, server)
        assert sender.send(turn.event) == turn.data
        for chunk in data.draw(chunked(turn.data)):
            assert receiver.next_event() is NEED_DATA
            receiver.receive_data(chunk)
        assert drain(receiver) == [turn.event]
    assert near.unanswered == server.unanswered == 0


def parser_of(role: Role, stream: Stream | HostileStream) -> Callable[[], ConnectionParser]:
    return lambda: ConnectionParser(role, stream.asked)


@pytest.mark.parametrize("role", ROLES)
@examples(1)
@given(st.data())
def test_any_stream_arrives(role: Role, data: st.DataObject) -> None:
    stream = data.draw(streams(role))
    events = [*stream.events, ConnectionClosed()]
    check_meaning(parser_of(role, stream), stream.data, events, data.draw(chunked(stream.data)))


@examples(1.5)
@given(streams(BOTH))
def test_any_answers_have_tokens_of_requests(stream: Stream) -> None:
    parser = ConnectionParser(BOTH, stream.asked)
    answers = [getattr(event, "answers", None) for event in parser.receive(stream.data)]
    assert [answer for answer in answers if answer is not None] == [
        event for event in stream.asked if isinstance(event, PacketEvent) and event.packet.answers
    ]
    assert parser.connection.unanswered == 0


@pytest.mark.parametrize("role", ROLES)
@examples(1.2)
@given(st.data())
def test_hostile_stream_events_do_not_depend_on_chunks(role: Role, data: st.DataObject) -> None:
    stream = data.draw(hostile_streams(role))
    make = parser_of(role, stream)
    check_chunking(make, stream.data, data.draw(chunked(stream.data)))
    check_exceptions(make, stream.data, RemoteProtocolError)
    whole = parse(make, [stream.data])
    assert whole.failure is not None or whole.events[-1] == ConnectionClosed()
