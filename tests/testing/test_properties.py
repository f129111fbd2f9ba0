"""Properties pass for a correct parser; each one fails for its own kind of fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import LocalProtocolError, RemoteProtocolError
from gearman_proto.testing import (
    ConnectionParser,
    Outcome,
    PropertyFailed,
    check_chunking,
    check_exceptions,
    check_meaning,
    check_round_trip,
    check_time,
    chunkings,
    pack,
    pack_event,
    parse,
)
from gearman_proto.wire.packets import (
    BY_NAME,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    CanDo,
    ConnectionClosed,
    EchoReq,
    EchoRes,
    GrabJob,
    NoJob,
    Role,
    TextLine,
    Unanswered,
    WorkFail,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Lines:
    """A correct parser of lines."""

    def __init__(self) -> None:
        self.held = b""

    def receive(self, data: bytes) -> Iterator[bytes]:
        self.held += data
        while b"\n" in self.held:
            line, _, self.held = self.held.partition(b"\n")
            yield line


class Torn(Lines):
    """A parser that discards an incomplete line at the end of each chunk."""

    def receive(self, data: bytes) -> Iterator[bytes]:
        yield from super().receive(data)
        self.held = b""


class Picky(Lines):
    """A parser that rejects empty lines with one of two exceptions."""

    def receive(self, data: bytes) -> Iterator[bytes]:
        for line in super().receive(data):
            if not line:
                raise IndexError("an empty line") if self.held else EOFError("the last line")
            yield line


def failure_of(call: Callable[..., None], *args: Any, **options: Any) -> PropertyFailed:
    with pytest.raises(PropertyFailed) as caught:
        call(*args, **options)
    return caught.value


# Outcomes of a parser.


def test_outcomes() -> None:
    assert parse(Lines, [b"a\nb", b"\nc"]) == Outcome((b"a", b"b"))
    outcome = parse(Picky, [b"a\n\nb\n"])
    assert outcome == Outcome((b"a",), IndexError)
    assert str(outcome.error) == "an empty line"
    assert outcome != Outcome((b"a",), KeyError, outcome.error)

    class Noting:
        def receive(self, data: bytes) -> list[bytes]:
            return [data]

    # The end of the stream is empty data.
    assert parse(Noting, [b"a", b"b"]) == Outcome((b"a", b"b", b""))
    assert parse(Noting, []) == Outcome((b"",))


def test_keyboard_interrupt_in_a_parser_propagates() -> None:
    class Interrupted:
        def receive(self, data: bytes) -> list[object]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_exceptions(Interrupted, b"a", Exception)


# A Connection as a parser.


def test_connection_parser_returns_events_and_errors() -> None:
    data = b"\0REQ\0\0\0\x10\0\0\0\x01xstatus\n"
    events = (EchoReq(b"x"), TextLine(b"status", b"\n"), ConnectionClosed())
    assert parse(lambda: ConnectionParser(Role.SERVER), [data]) == Outcome(events)
    assert parse(lambda: ConnectionParser(Role.SERVER), [data[:9]]) == Outcome(
        (), RemoteProtocolError
    )


def test_connection_parser_with_requests_accepts_their_replies() -> None:
    asked = [EchoReq(b"x"), GrabJob()]
    parser = ConnectionParser(Role.WORKER, asked)
    assert list(parser.connection.unanswered_tokens()) == asked
    (event,) = parser.receive(b"\0RES\0\0\0\x11\0\0\0\x01x")
    assert event == EchoRes(b"x")
    assert parser.connection.unanswered == 1
    with pytest.raises(LocalProtocolError):
        ConnectionParser(Role.WORKER, [NoJob()])


# Bytes.


def test_pack_returns_the_bytes_of_a_packet() -> None:
    assert pack(BY_NAME["CAN_DO"], [b"f", b"", b"x"], b"\0ABC") == b"\0ABC\0\0\0\1\0\0\0\4f\0\0x"
    assert pack(BY_NAME["CAN_DO"], [], MAGIC_REQUEST) == b"\0REQ\0\0\0\1\0\0\0\0"
    assert pack_event(CanDo(b"f"), MAGIC_REQUEST) == b"\0REQ\0\0\0\1\0\0\0\1f"
    assert pack_event(WorkFail(b"H"), MAGIC_RESPONSE) == b"\0RES\0\0\0\x0e\0\0\0\1H"
    assert pack_event(WorkFail(b"H", b""), MAGIC_RESPONSE) == b"\0RES\0\0\0\x0e\0\0\0\2H\0"
    assert pack_event(TextLine(b"status"), MAGIC_REQUEST) == b"status\r\n"
    assert pack_event(ConnectionClosed(), MAGIC_REQUEST) == b""
    assert pack_event(Unanswered(BY_NAME["ECHO_REQ"]), MAGIC_RESPONSE) == b""


# Chunks.


def test_chunkings_of_short_data_cut_everywhere() -> None:
    assert list(chunkings(b"")) == list(chunkings(b"a")) == []
    assert list(chunkings(b"abc")) == [[b"a", b"b", b"c"], [b"a", b"bc"], [b"ab", b"c"]]


@pytest.mark.parametrize(("size", "count"), [(256, 256), (257, 1 + 31 + 32)])
def test_chunkings_of_long_data_are_limited(size: int, count: int) -> None:
    data = bytes(index % 251 for index in range(size))
    found = list(chunkings(data))
    assert len(found) == count
    assert all(b"".join(chunks) == data and all(chunks) for chunks in found)
    assert {len(chunks[0]) for chunks in found} >= {1, 2, 31, size - 32, size - 1}


# Properties that hold, and that do not.


def with_line_feed(line: bytes) -> bytes:
    return line + b"\n"


@pytest.mark.parametrize("data", [b"", b"a", b"\n", b"a\n\nb\nc"])
def test_correct_parser_passes(data: bytes) -> None:
    whole = [data] if data else []
    lines = data.split(b"\n")[:-1]
    for chunks in (None, whole, [data[at : at + 1] for at in range(len(data))]):
        check_chunking(Lines, data, chunks)
        check_meaning(Lines, data, iter(lines), chunks)
        check_exceptions(Lines, data, (), chunks)
        if not data or data.endswith(b"\n"):
            check_round_trip(Lines, data, with_line_feed, chunks)


def test_other_chunks_and_allowed_exceptions_pass() -> None:
    check_chunking(Torn, b"a\nbc\n", [b"a\n", b"bc\n"])
    check_exceptions(Picky, b"a\n\nb\n", (IndexError, EOFError))
    check_exceptions(Picky, b"a\n\nb\n", IndexError, [b"a\n\nb\n"])
    check_exceptions(Picky, b"a\n\nb\n", (LookupError, OSError, EOFError))


TORN = """\
what comes out depends on how the bytes are cut
sent: 5 bytes, b'a\\nbc\\n'
in chunks of: 3, 2
at once: 2 events: [b'a', b'bc']; no exception
in chunks: 2 events: [b'a', b'c']; no exception
the first difference: event 2"""
PICKY = """\
an exception that is not allowed: EOFError: the last line
sent: 3 bytes, b'\\nb\\n'
in chunks of: 1, 1, 1
before it: no events"""


@pytest.mark.parametrize(
    ("check", "args", "message"),
    [
        (check_chunking, (Torn, b"a\nbc\n", [b"a\nb", b"c\n"]), TORN),
        (check_chunking, (Torn, b"a\n"), "in chunks of: 1, 1"),
        (check_chunking, (Torn, b"a\n", [b"a", b"\n"]), "the first difference: event 1"),
        (check_chunking, (Picky, b"a\n\nb\n", [b"a\n\n", b"b\n"]), "difference: the exception"),
        # The extra event may be None.
        (check_meaning, (Lines, b"a\n", [b"a", None]), "the first difference: event 2"),
        (check_meaning, (Lines, b"a\nb\n", [b"a", b"c"]), "the first difference: event 2"),
        (check_meaning, (Torn, b"a\n", [b"a"], [b"a", b"\n"]), "the first difference: event 1"),
        (check_meaning, (Picky, b"a\n\n", [b"a"]), "the first difference: the exception"),
        (check_exceptions, (Picky, b"a\n\nb\n", EOFError), "before it: 1 events: [b'a']"),
        (check_exceptions, (Picky, b"\nb\n", IndexError), PICKY),
        (check_round_trip, (Lines, b"a\nb\n", bytes.upper), "b'AB'\nthe first difference: byte 0"),
        (check_round_trip, (Lines, b"a\nb", with_line_feed), "the first difference: byte 2"),
        (check_round_trip, (Picky, b"a\n\n", with_line_feed), "[b'a']; EOFError: the last line\n"),
    ],
)
def test_property_that_does_not_hold_fails(
    check: Callable[..., None], args: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(PropertyFailed) as failed:
        check(*args)
    assert message in str(failed.value)
    assert (failed.value.__cause__ is not None) == (args[0] is Picky)


@pytest.mark.parametrize(
    ("check", "args"),
    [
        (check_chunking, ()),
        (check_exceptions, ((),)),
        (check_meaning, ([],)),
        (check_round_trip, (bytes,)),
    ],
)
def test_check_with_chunks_of_other_data_raises(
    check: Callable[..., None], args: tuple[Any, ...]
) -> None:
    with pytest.raises(ValueError, match="not those of the data"):
        check(Lines, b"ab", *args, [b"a"])


# Time.


class Clock:
    """A clock that advances only when a parser sets it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def costing(clock: Clock, cost: Callable[[int, int], float]) -> type[Lines]:
    """Return a parser whose time per chunk depends on the chunk's size and the buffered size."""

    class Costing(Lines):
        def receive(self, data: bytes) -> Iterator[bytes]:
            clock.now += cost(len(data), len(self.held))
            return super().receive(data)

    return Costing


def one_line(size: int) -> list[bytes]:
    return [b"x" * 100] * (size // 100) + [b"\n"]


def test_check_time_with_linear_time_passes() -> None:
    clock = Clock()
    check_time(costing(clock, lambda new, held: 1e-9 * new + 1e-6), one_line, clock, size=5000)
    # A one-time cost slows down the short run, not the long one.
    check_time(costing(clock, lambda new, held: 0.0 if held else 1.0), one_line, clock, size=5000)


def test_check_time_with_quadratic_time_fails() -> None:
    clock = Clock()
    quadratic = costing(clock, lambda new, held: 1e-9 * held)
    failure = failure_of(check_time, quadratic, one_line, clock, size=10_000)
    assert str(failure) == (
        "time grows faster than the input\n"
        "sent: 10,001 bytes took 0.000505 seconds, 50 ns a byte\n"
        "sent: 80,001 bytes took 0.032040 seconds, 400 ns a byte\n"
        "that is 63.4 times as long for 8.0 times the bytes"
    )
    # With twice the input, each byte takes twice as long.
    check_time(quadratic, one_line, clock, size=10_000, factor=2)
    failure_of(check_time, quadratic, one_line, clock, size=10_000, factor=2, slack=1.9)


def test_check_time_uses_the_shortest_run() -> None:
    """Use the shortest of three runs, and pass after one good try."""
    clock = Clock()
    sizes: list[int] = []

    def grow(size: int) -> list[bytes]:
        sizes.append(size)
        return one_line(size)

    runs = iter([1, 1, 1, 999, 99, 9, 1, 1, 1, 999, 99, 9, 1, 1, 1, 99, 2, 9])

    class Costing(Lines):
        def __init__(self) -> None:
            super().__init__()
            clock.now += next(runs)

    check_time(Costing, grow, clock, size=1000, factor=2, slack=1.5)
    assert sizes == [1000, 2000] * 3
    runs = iter([1, 1, 1, 9, 9, 9] * 2)
    failure_of(check_time, Costing, grow, clock, size=1000, factor=2, slack=1.5, tries=2)
    assert next(runs, None) is None


def test_check_time_without_a_measurable_time_raises() -> None:
    with pytest.raises(ValueError, match="65536 bytes take no time"):
        check_time(Lines, lambda size: [b"x" * size], Clock())
    failure = failure_of(check_time, Picky, lambda size: [b"\n" * size], Clock())
    assert str(failure) == "there is no time to measure: IndexError: an empty line"


# Long data is abbreviated.


def test_message_with_long_data_abbreviates_it() -> None:
    data = b"a" * 400 + b"b" * 20 + b"c" * 80
    message = str(failure_of(check_meaning, Lines, data, [1], [data[:1], data[1:]]))
    assert f"sent: 500 bytes, {b'a' * 400!r} and 20 more and {b'c' * 80!r}\n" in message
    data = b"a" * 480
    message = str(failure_of(check_meaning, Lines, data, [1], [b"a"] * 480))
    assert f"sent: 480 bytes, {data!r}\n" in message
    assert f"in chunks of: {', '.join('1' * 40)} and 440 more\n" in message
