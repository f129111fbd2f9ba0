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


def test_parser_receives_empty_data_at_the_end_of_the_stream() -> None:
    received = []

    class Noting:
        def receive(self, data: bytes) -> list[object]:
            received.append(data)
            return []

    parse(Noting, [b"a", b"b"])
    parse(Noting, [])
    assert received == [b"a", b"b", b"", b""]


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


def test_connection_parser_with_a_size_limit_rejects_larger_packets() -> None:
    def make() -> ConnectionParser:
        return ConnectionParser(Role.SERVER, max_packet_size=4)

    assert parse(make, [pack_event(EchoReq(b"1234"), MAGIC_REQUEST)]).failure is None
    assert parse(make, [pack_event(EchoReq(b"12345"), MAGIC_REQUEST)]).failure


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


@pytest.mark.parametrize("data", [b"", b"a", b"\n", b"a\n\nb\nc"])
def test_chunks_make_no_difference(data: bytes) -> None:
    check_chunking(Lines, data)
    check_chunking(Lines, data, [data] if data else [])


def test_check_chunking_of_a_torn_parser_fails() -> None:
    failure = failure_of(check_chunking, Torn, b"a\nbc\n", [b"a\nb", b"c\n"])
    assert str(failure) == (
        "what comes out depends on how the bytes are cut\n"
        "sent: 5 bytes, b'a\\nbc\\n'\n"
        "in chunks of: 3, 2\n"
        "at once: 2 events: [b'a', b'bc']; no exception\n"
        "in chunks: 2 events: [b'a', b'c']; no exception\n"
        "the first difference: event 2"
    )
    assert "in chunks of: 1, 1" in str(failure_of(check_chunking, Torn, b"a\n"))
    check_chunking(Torn, b"a\nbc\n", [b"a\n", b"bc\n"])


def test_check_chunking_with_different_exceptions_fails() -> None:
    failure = failure_of(check_chunking, Picky, b"a\n\nb\n", [b"a\n\n", b"b\n"])
    assert str(failure).endswith(
        "at once: 1 events: [b'a']; IndexError: an empty line\n"
        "in chunks: 1 events: [b'a']; EOFError: the last line\n"
        "the first difference: the exception"
    )
    assert isinstance(failure.__cause__, EOFError)


def test_check_chunking_with_a_missing_event_fails() -> None:
    failure = failure_of(check_chunking, Torn, b"a\n", [b"a", b"\n"])
    assert str(failure).endswith("the first difference: event 1")
    failure = failure_of(check_chunking, Torn, b"a\nb\nc", [b"a\nb", b"\nc"])
    assert "the first difference: event 2" in str(failure)
    # The extra event may be None.
    none_at_end = failure_of(check_meaning, Lines, b"a\n", [b"a", None])
    assert str(none_at_end).endswith("the first difference: event 2")


@pytest.mark.parametrize(
    "check",
    [
        lambda chunks: check_chunking(Lines, b"ab", chunks),
        lambda chunks: check_exceptions(Lines, b"ab", (), chunks),
        lambda chunks: check_meaning(Lines, b"ab", [], chunks),
        lambda chunks: check_round_trip(Lines, b"ab", bytes, chunks),
    ],
)
def test_check_with_chunks_of_other_data_raises(check: Callable[[list[bytes]], None]) -> None:
    with pytest.raises(ValueError, match="not those of the data"):
        check([b"a"])


# Exceptions.


def test_check_exceptions_with_an_allowed_exception_passes() -> None:
    check_exceptions(Picky, b"a\n\nb\n", (IndexError, EOFError))
    check_exceptions(Picky, b"a\n\nb\n", IndexError, [b"a\n\nb\n"])
    check_exceptions(Picky, b"a\n\nb\n", (LookupError, OSError, EOFError))
    check_exceptions(Lines, b"a\n\nb\n", ())


def test_check_exceptions_with_another_exception_fails() -> None:
    failure = failure_of(check_exceptions, Picky, b"a\n\nb\n", EOFError)
    assert str(failure) == (
        "an exception that is not allowed: IndexError: an empty line\n"
        "sent: 5 bytes, b'a\\n\\nb\\n'\n"
        "before it: 1 events: [b'a']"
    )
    assert isinstance(failure.__cause__, IndexError)


def test_check_exceptions_with_an_exception_for_single_bytes_fails() -> None:
    failure = failure_of(check_exceptions, Picky, b"\nb\n", IndexError)
    assert str(failure) == (
        "an exception that is not allowed: EOFError: the last line\n"
        "sent: 3 bytes, b'\\nb\\n'\n"
        "in chunks of: 1, 1, 1\n"
        "before it: no events"
    )


# Meaning.


def test_check_meaning_with_the_same_events_passes() -> None:
    check_meaning(Lines, b"a\nb\n", iter([b"a", b"b"]))
    check_meaning(Lines, b"a\nb\n", [b"a", b"b"], [b"a", b"\nb\n"])
    check_meaning(Lines, b"", [])


def test_check_meaning_with_other_events_fails() -> None:
    failure = failure_of(check_meaning, Lines, b"a\nb\n", [b"a", b"c"])
    assert str(failure) == (
        "the bytes mean something else\n"
        "sent: 4 bytes, b'a\\nb\\n'\n"
        "expected: 2 events: [b'a', b'c']; no exception\n"
        "came out: 2 events: [b'a', b'b']; no exception\n"
        "the first difference: event 2"
    )
    failure_of(check_meaning, Torn, b"a\n", [b"a"], [b"a", b"\n"])
    raised = failure_of(check_meaning, Picky, b"a\n\n", [b"a"])
    assert str(raised).endswith("the first difference: the exception")
    assert isinstance(raised.__cause__, EOFError)


# Round trips.


def with_line_feed(line: bytes) -> bytes:
    return line + b"\n"


def test_check_round_trip_of_equal_bytes_passes() -> None:
    check_round_trip(Lines, b"a\nb\n", with_line_feed)
    check_round_trip(Lines, b"a\nb\n", with_line_feed, [b"a", b"\nb\n"])
    check_round_trip(Lines, b"", with_line_feed)


@pytest.mark.parametrize(
    ("data", "pack_line", "packed", "place"),
    [
        (b"a\nb\n", bytes.upper, "2 bytes, b'AB'", 0),
        (b"a\nb\n", lambda line: line + b"\r\n", r"6 bytes, b'a\r\nb\r\n'", 1),
        (b"a\nb", with_line_feed, r"2 bytes, b'a\n'", 2),
        (b"a\n", lambda line: line + b"\n\n", r"3 bytes, b'a\n\n'", 2),
    ],
)
def test_check_round_trip_of_different_bytes_fails(
    data: bytes, pack_line: Callable[[bytes], bytes], packed: str, place: int
) -> None:
    lines = str(failure_of(check_round_trip, Lines, data, pack_line)).splitlines()
    assert lines[0] == "the bytes do not come back"
    assert lines[-2:] == [f"packed: {packed}", f"the first difference: byte {place}"]


def test_check_round_trip_of_a_parser_that_raises_fails() -> None:
    failure = failure_of(check_round_trip, Picky, b"a\n\n", with_line_feed)
    assert "came out: 1 events: [b'a']; EOFError: the last line\n" in str(failure)
    assert isinstance(failure.__cause__, EOFError)


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
