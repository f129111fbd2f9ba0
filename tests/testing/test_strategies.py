"""Strategies draw the documented values and shrink to the simplest case."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from gearman_proto import constants, events, text
from gearman_proto.errors import RemoteProtocolError, ServerError
from gearman_proto.testing import (
    ConnectionParser,
    check_exceptions,
    check_meaning,
    pack_event,
    parse,
    strategies,
)
from gearman_proto.testing.strategies import (
    AdminReply,
    HostileStream,
    Session,
    Stream,
    Turn,
    admin,
    dialogues,
    values,
)
from gearman_proto.wire import packets as wire
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import MAGIC_REQUEST, MAGIC_RESPONSE, Role, TextLine
from gearman_proto.wire.text import FunctionStatus, JobRecord, WorkerStatus
from tests.wire.replies import Replies

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

    from gearman_proto.wire.text import Command

T = TypeVar("T")
BOTH = Role.CLIENT | Role.WORKER
ROLES = [Role.CLIENT, Role.WORKER, BOTH, Role.SERVER]
each_role = pytest.mark.parametrize("role", ROLES)
#: Reproducible, with only the phases that these tests need.
QUICK = settings(
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=2000,
    phases=[Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)
COMMANDS: list[Command[Any]] = [
    *(text.status(), text.prioritystatus(), text.workers(), text.show_jobs()),
    *(text.show_unique_jobs(), text.version(), text.getpid(), text.verbose()),
    *(text.cancel_job("H:h:1"), text.create_function("f")),
]


@pytest.fixture(autouse=True)
def _nothing_made_before() -> None:
    """Empty caches, which an unmeasured test could have filled, so that coverage is complete."""
    for made in (
        admin.admin_commands,
        admin._admin_replies,
        dialogues._requests,
        values._events_of,
    ):
        made.cache_clear()


def plainest(strategy: SearchStrategy[T], condition: Callable[[T], bool] = lambda _: True) -> T:
    """Return the simplest value of `strategy` that meets `condition`."""
    return find(strategy, condition, settings=QUICK)


def drawn(strategy: SearchStrategy[T], count: int = 50) -> list[T]:
    """Return values drawn from `strategy`, always the same ones."""
    found: list[T] = []

    @settings(QUICK, max_examples=count, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(value: T) -> None:
        found.append(value)

    draw()
    return found


def has(kind: type[events.Event]) -> Callable[[Stream], bool]:
    return lambda stream: any(isinstance(event, kind) for event in stream.events)


def is_one(reply: AdminReply[Any]) -> bool:
    return isinstance(reply.value, tuple) and len(reply.value) == 1


PAIR = pack_event(events.EchoReq(b"abc"), MAGIC_REQUEST) * 2
SIMPLEST: list[tuple[SearchStrategy[Any], Callable[[Any], bool] | None, Any]] = [
    (strategies.function_names(), None, b"f"),
    (strategies.uniques(), None, b""),
    (strategies.handles(), None, b"H:h:1"),
    (strategies.payloads(), None, b""),
    (strategies.payloads(), lambda payload: len(payload) > 2, b"\0\0\0"),
    (strategies.packets(Role.SERVER), None, events.ResetAbilities()),
    (strategies.chunked(b""), None, []),
    (strategies.chunked(PAIR), None, [PAIR]),
    (strategies.admin_commands(), None, text.status()),
    (strategies.admin_lines(), None, TextLine(b"status")),
    *((strategies.admin_replies(each), None, AdminReply(b".\n", ())) for each in COMMANDS[:5]),
    (strategies.admin_replies(text.version()), None, AdminReply(b"OK 1.1.21\r\n", "OK 1.1.21")),
    (strategies.admin_replies(text.getpid()), None, AdminReply(b"OK 1\r\n", 1)),
    (strategies.admin_replies(text.create_function("f")), None, AdminReply(b"OK\r\n", "OK")),
    *(
        (strategies.admin_replies(command), is_one, AdminReply(data, (value,)))
        for command, data, value in (
            (text.status(), b"f\t0\t0\t0\n.\n", FunctionStatus("f", 0, 0, 0)),
            (text.workers(), b"3 127.0.0.1 - :\n.\n", WorkerStatus(3, "127.0.0.1", "-", ())),
            (text.show_jobs(), b"H:h:1\t0\t0\t0\n.\n", JobRecord("H:h:1", 0, False, False)),
            (text.show_unique_jobs(), b"\n.\n", ""),
        )
    ),
    (strategies.sessions(), None, Session(BOTH, ())),
    (
        strategies.sessions(),
        lambda session: bool(session.turns),
        Session(BOTH, (Turn(BOTH, events.PreSleep()),)),
    ),
    *((strategies.streams(role), None, Stream(b"", ())) for role in ROLES),
    (
        strategies.streams(Role.SERVER),
        has(TextLine),
        Stream(b"status\r\n", (TextLine(b"status"),)),
    ),
    (
        strategies.streams(Role.CLIENT),
        has(events.EchoRes),
        Stream(b"\0RES\0\0\0\x11\0\0\0\0", (events.EchoRes(b""),), (events.EchoReq(b""),)),
    ),
    (strategies.hostile_replies(), None, b""),
]


@pytest.mark.unmeasured
@pytest.mark.parametrize(("strategy", "condition", "value"), SIMPLEST)
def test_strategy_shrinks_to_the_simplest_value(
    strategy: SearchStrategy[Any], condition: Callable[[Any], bool] | None, value: Any
) -> None:
    assert plainest(strategy, condition or (lambda _: True)) == value


# Names and payloads.


@pytest.mark.parametrize(
    ("strategy", "limit"),
    [
        (strategies.function_names(), constants.MAX_FUNCTION_SIZE),
        (strategies.uniques(), constants.MAX_UNIQUE_SIZE),
        (strategies.handles(), constants.MAX_HANDLE_SIZE),
    ],
)
def test_names_are_valid(strategy: SearchStrategy[bytes], limit: int) -> None:
    found = drawn(strategy)
    assert not any(b"\0" in name for name in found)
    assert max(map(len, found)) == limit
    if limit == constants.MAX_FUNCTION_SIZE:
        assert {len(name) for name in found} >= {0, 1}
        assert any(b" " in name for name in found)
        assert any(not name.isascii() for name in found)


@pytest.mark.parametrize("max_size", [0, 9, 10**6])
def test_payloads(max_size: int) -> None:
    found = drawn(strategies.payloads(max_size))
    assert max(map(len, found)) <= max_size
    if max_size >= 1000:
        assert max(map(len, found)) > max_size / 2
        assert any(b"\0RES" in payload for payload in found)


# Packets.


@each_role
def test_packets_belong_to_the_role(role: Role) -> None:
    found = {type(event) for event in drawn(strategies.packets(role))}
    assert found <= {kind for kind in wire.EVENT_CLASSES.values() if kind.packet.receiver & role}
    assert len(found) > 5


PLAIN = {"function": b"f", "handle": b"H:h:1", "code": b"UNKNOWN_ERROR", "option": b"exceptions"}
EMPTY = ("unique", "data", "text", "reducer", "aggregate")


@pytest.mark.unmeasured
@pytest.mark.parametrize("kind", wire.EVENT_CLASSES.values(), ids=lambda kind: kind.packet.name)
def test_packets_are_valid(kind: type[wire.PacketEvent]) -> None:
    role = Role.SERVER if Role.SERVER in kind.packet.receiver else BOTH
    for event in drawn(strategies.packets(role, [kind]), 3):
        assert type(event) is kind
        data = pack_event(event, MAGIC_RESPONSE)
        assert wire.parse(kind.packet, data, wire.HEADER_SIZE, len(data)) == list(
            kind.arguments(event)
        )
    expected = [PLAIN.get(name, b"" if name in EMPTY else b"0") for name in kind.packet.args]
    if kind is events.SetClientId:
        expected = [b"-"]
    if kind is events.WorkFail:
        expected = [b"H:h:1"]
    assert list(kind.arguments(plainest(strategies.packets(role, [kind])))) == expected


def test_work_fail_to_a_client_may_have_gearmands_nul() -> None:
    """Draw the WORK_FAIL that gearmand makes of an exception, with a NUL after the handle."""
    client: list[Any] = drawn(strategies.packets(Role.CLIENT, [events.WorkFail]))
    server: list[Any] = drawn(strategies.packets(Role.SERVER, [events.WorkFail]))
    assert {event.reason for event in client} == {None, b""}
    assert {event.reason for event in server} == {None}


@pytest.mark.parametrize(("role", "kinds"), [(Role.CLIENT, [events.GrabJob]), (Role.SERVER, [])])
def test_packets_that_the_role_never_receives_raise(
    role: Role, kinds: list[type[wire.PacketEvent]]
) -> None:
    with pytest.raises(ValueError, match="receives none of these packets"):
        strategies.packets(role, kinds)


# Chunks.


def test_chunks_cover_even_and_uneven_cuts() -> None:
    found = drawn(strategies.chunked(PAIR), 150)
    assert all(b"".join(chunks) == PAIR and all(chunks) for chunks in found)
    sizes = {tuple(map(len, chunks)) for chunks in found}
    assert {(30,), (1,) * 30, (15, 15), (7, 7, 7, 7, 2)} <= sizes
    # The cut is within the second header only.
    assert any(15 < size < 27 for size, *rest in sizes if len(rest) == 1)


@pytest.mark.parametrize("data", [b"ab", b"no header", b"\0REQ", b"x" * 20 + MAGIC_REQUEST])
def test_chunks_of_invalid_packets_keep_all_bytes(data: bytes) -> None:
    found = drawn(strategies.chunked(data))
    assert all(b"".join(chunks) == data and all(chunks) for chunks in found)
    assert [data] in found
    assert len(found) > 1


# The admin protocol.


def test_admin_commands_cover_all_commands() -> None:
    found = {command.line.split()[0] for command in drawn(strategies.admin_commands(), 120)}
    assert found == {
        *(b"status", b"prioritystatus", b"workers", b"show", b"version", b"getpid", b"verbose"),
        *(b"maxqueue", b"cancel", b"create", b"drop"),
    }


def test_admin_lines_parse_at_both_ends() -> None:
    found = drawn(strategies.admin_lines())
    near = Connection(Role.CLIENT)
    for line in found:
        check_meaning(
            lambda: ConnectionParser(Role.SERVER),
            near.send(line),
            [line, events.ConnectionClosed()],
        )
        assert not line.line.lower().startswith(b"shutdown")
    assert {line.ending for line in found} == {b"\r\n", b"\n"}
    assert any(not line.line for line in found)


def check_reply(command: Command[Any], reply: AdminReply[Any]) -> None:
    if not isinstance(reply.value, ServerError):
        check_meaning(lambda: Replies(command), reply.data, [reply.value])
        return
    error = parse(lambda: Replies(command), [reply.data]).error
    assert isinstance(error, ServerError)
    assert (error.code, error.text) == (reply.value.code, reply.value.text)


@pytest.mark.parametrize("command", COMMANDS, ids=repr)
def test_replies(command: Command[Any]) -> None:
    found = drawn(strategies.admin_replies(command))
    for reply in found:
        check_reply(command, reply)
    assert any(isinstance(reply.value, ServerError) for reply in found)
    assert any(not isinstance(reply.value, ServerError) for reply in found)


# Dialogues.


def check_session(session: Session) -> None:
    """Check that both ends can send and parse the session, with no data left over."""
    ends = {session.role: Connection(session.role), Role.SERVER: Connection(Role.SERVER)}
    for turn in session.turns:
        (receiver,) = (end for role, end in ends.items() if role is not turn.sender)
        assert ends[turn.sender].send(turn.event) == turn.data
        receiver.receive_data(turn.data)
        assert receiver.next_event() == turn.event
    for end in ends.values():
        assert end.unanswered == end.buffered == 0


@pytest.mark.parametrize("role", ROLES[:3])
def test_sessions_are_valid(role: Role) -> None:
    found = drawn(strategies.sessions(role), 50)
    for session in found:
        assert session.role is role
        check_session(session)
        assert {turn.sender for turn in session.turns} <= {role, Role.SERVER}
    kinds = {type(turn.event) for session in found for turn in session.turns}
    assert len(kinds) > 10
    assert events.AllYours not in kinds


WORK = [kind for kind in wire.EVENT_CLASSES.values() if kind.packet.name.startswith("WORK_")]


def says(*kinds: type[events.Event]) -> Callable[[Session], bool]:
    """Return a condition: the session contains these events in this order."""

    def condition(session: Session) -> bool:
        said = iter([type(turn.event) for turn in session.turns])
        return all(kind in said for kind in kinds)

    return condition


def events_of(session: Session) -> list[events.Event]:
    return [turn.event for turn in session.turns]


@pytest.mark.unmeasured
def test_sessions_shrink_to_the_simplest() -> None:
    assert events_of(plainest(strategies.sessions(Role.WORKER), says(events.JobAssign))) == [
        events.GrabJob(),
        events.JobAssign(b"H:h:1", b"f", b""),
    ]
    assert events_of(plainest(strategies.sessions(Role.WORKER), says(events.Noop))) == [
        events.PreSleep(),
        events.Noop(),
    ]


FOREGROUND = {"SUBMIT_JOB", "SUBMIT_JOB_HIGH", "SUBMIT_JOB_LOW", "SUBMIT_REDUCE_JOB"}
ENDS = (events.WorkComplete, events.WorkFail, events.WorkException)


def test_session_follows_the_protocol() -> None:
    """Send updates of a job between JOB_CREATED and its end, from the worker that runs it."""
    news = 0
    for session in drawn(strategies.sessions(), 100):
        near = Connection(session.role)
        submitted: set[bytes] = set()
        assigned: set[bytes] = set()
        sleeps = exceptions = False
        for turn in session.turns:
            event: Any = turn.event
            known = assigned
            if turn.sender is Role.SERVER:
                known = submitted
                near.receive_data(turn.data)
                event = near.next_event()
                exceptions = exceptions or event == events.OptionRes(b"exceptions")
                if isinstance(event, events.JobCreated) and event.answers.packet.name in FOREGROUND:
                    submitted.add(event.handle)
                elif isinstance(
                    event, (events.JobAssign, events.JobAssignUniq, events.JobAssignAll)
                ):
                    assigned.add(event.handle)
                elif isinstance(event, events.Noop):
                    assert sleeps
                    sleeps = False
                assert exceptions or not isinstance(event, events.WorkException)
            else:
                near.send(event)
                sleeps = sleeps or isinstance(event, events.PreSleep)
            if type(event) in WORK:
                news += 1
                assert event.handle in known
            if isinstance(event, ENDS):
                known.remove(event.handle)
    assert news > 10


def test_session_of_a_server_raises() -> None:
    with pytest.raises(ValueError, match="no server"):
        strategies.sessions(Role.SERVER)


# Streams.


def parser_of(role: Role, stream: Stream | HostileStream) -> Callable[[], ConnectionParser]:
    return lambda: ConnectionParser(role, stream.asked)


@pytest.mark.unmeasured
@each_role
def test_streams(role: Role) -> None:
    found = drawn(strategies.streams(role))
    for stream in found:
        make = parser_of(role, stream)
        check_meaning(make, stream.data, [*stream.events, events.ConnectionClosed()])
    assert sum(len(stream.events) for stream in found) > 50
    assert any(stream.asked for stream in found) == (role is not Role.SERVER)
    # A line is rare. Find one, without the time to shrink it.
    find(strategies.streams(role), has(TextLine), settings=settings(QUICK, phases=[Phase.generate]))


@each_role
def test_streams_without_text_have_only_packets(role: Role) -> None:
    found = drawn(strategies.streams(role, text=False))
    lines = [each for stream in found for each in (*stream.events, *stream.asked)]
    assert len(lines) > 50
    assert not any(isinstance(each, TextLine) for each in lines)


# Hostile streams.


@each_role
def test_hostile_streams_raise_only_protocol_errors(role: Role) -> None:
    found = drawn(strategies.hostile_streams(role), 40)
    refused = 0
    for stream in found:
        make = parser_of(role, stream)
        check_exceptions(make, stream.data, RemoteProtocolError)
        refused += parse(make, [stream.data]).failure is not None
        assert 1 <= len(stream.faults) <= 2
    assert refused > len(found) / 2
    assert len({fault for stream in found for fault in stream.faults}) > 5
    assert any(stream.asked for stream in found) == (role is not Role.SERVER)


FAULTS = {
    "a packet without its end": b"\0",
    "a magic that is none, or the other side's": b"\0REX\0\0\0\3\0\0\0\0",
    "a size that is wrong by one": b"\0REQ\0\0\0\3\0\0\0\1",
    "a NUL, or more, too few": b"\0REQ\0\0\0\3\0\0\0\0",
    "a NUL too many, or a body where none belongs": b"\0REQ\0\0\0\3\0\0\0\1\0",
    "a type that is not known": b"\0REQ\0\0\0\0\0\0\0\0",
    "another type": b"\0REQ\0\0\0\1\0\0\0\0",
    "text between packets": b"\n\0REQ\0\0\0\3\0\0\0\0",
}


@pytest.mark.unmeasured
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_shrink_to_the_simplest(fault: str) -> None:
    stream = plainest(
        strategies.hostile_streams(Role.SERVER), lambda stream: fault in stream.faults
    )
    assert stream == HostileStream(FAULTS[fault], (fault,))


def test_hostile_replies_raise_only_known_errors() -> None:
    found = drawn(strategies.hostile_replies())
    for data in found:
        for command in (text.status(), text.getpid()):
            make = functools.partial(Replies, command)
            check_exceptions(make, data, (RemoteProtocolError, ServerError))
    assert any(b"\t" in data for data in found)
