"""Properties of every correct parser of a byte stream, as functions that test any parser.

The functions know nothing about Gearman, so they also test parsers of other protocols.

Each function gets a factory of parsers, and bytes. It raises PropertyFailed if the property does
not hold for these bytes. The functions don't depend on Hypothesis: the bytes can be drawn by
`strategies`, or be recordings or the input of a fuzzer.

A parser receives the bytes of one connection and returns events. It can choose any representation:
event objects, tuples, the reactions of an engine. The properties only compare events for equality.
"""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from gearman_proto.checks import check_callable, check_count, check_number, check_type
from gearman_proto.errors import ArgumentTypeError, ArgumentValueError
from gearman_proto.records import hidden, record
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import ConnectionClosed, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from gearman_proto.wire.packets import Role

# Maximum size of data that is cut at every position, in bytes. The time for that is quadratic.
_CUT_EVERYWHERE: Final = 256
# Longer data is cut only within this many bytes of either end.
_CUT_AT_ENDS: Final = 32
# A placeholder for a missing event, for comparisons. It does not equal any event.
_NOTHING: Final = object()
# The number of bytes that a message shows of the beginning and of the end of long data.
_SHOWN: Final = (400, 80)


class Parser(Protocol):
    """A parser of the bytes of one connection."""

    def receive(self, data: bytes, /) -> Iterable[Any]:
        """Receive bytes, and return the events that they complete.

        Args:
            data: The received bytes. Empty bytes mean the end of the stream, and are passed once,
                at the end. A parser that does not handle the end of the stream returns no events
                then.

        Returns:
            The events, in order. If a generator raises, the events that it has yielded before
            count.
        """
        ...


#: A function that makes a new parser, which has received no bytes.
MakeParser: TypeAlias = "Callable[[], Parser]"


@record(frozen=True)
class Outcome:
    """The outcome of parsing.

    Attributes:
        events: The parsed events.
        failure: The type of the exception that followed them, or None.
        error: That exception. It is ignored in comparisons.
    """

    events: tuple[Any, ...]
    failure: type[Exception] | None = None
    error: Exception | None = hidden(default=None, compare=False)


def parse(make: MakeParser, chunks: Iterable[bytes]) -> Outcome:
    """Pass bytes, and then the end of the stream, to a new parser.

    Args:
        make: Makes the parser.
        chunks: The bytes, in chunks that are not empty.

    Returns:
        The events and the exception. Nothing is passed to the parser after an exception.

    Raises:
        TypeError: `make` has not returned a parser, or a chunk is not bytes.
        ValueError: A chunk is empty.
    """
    check_callable("make", make, "that makes a parser")
    pieces = list(chunks)
    for chunk in pieces:
        check_bytes("a chunk", chunk)
        if not chunk:
            raise ArgumentValueError("a chunk is empty, which means the end of the stream")
    parser = make()
    if not hasattr(parser, "receive"):
        raise ArgumentTypeError(f"make has made {parser!r}, which has no method receive")
    events: list[Any] = []
    try:
        for chunk in (*pieces, b""):
            for event in parser.receive(chunk):
                events.append(event)  # noqa: PERF402 - keep the events before an exception
    except Exception as error:  # noqa: BLE001
        return Outcome(tuple(events), type(error), error)
    return Outcome(tuple(events))


def check_bytes(name: str, data: bytes) -> bytes:
    """Return `data`, after a check that it is bytes.

    Raises:
        TypeError: `data` is not bytes.
    """
    return check_type(name, data, bytes, "bytes")


class ConnectionParser:
    """A `Connection` as a parser.

    Args:
        role: The role of this end.
        asked: Events that this end sends first. The received bytes reply to them.

    Raises:
        TypeError: `role` is not a Role.

    Attributes:
        connection: The Connection.
    """

    def __init__(self, role: Role, asked: Iterable[Event] = ()) -> None:
        self.connection: Connection = Connection(role)
        for event in asked:
            self.connection.send(event)

    def receive(self, data: bytes, /) -> Iterator[Event]:
        """Receive bytes, or the end of the stream if they are empty; yield the events.

        Raises:
            RemoteProtocolError: The bytes violate the protocol.
        """
        if data:
            self.connection.receive_data(data)
        else:
            self.connection.receive_eof()
        while isinstance(event := self.connection.next_event(), Event):
            yield event
            if isinstance(event, ConnectionClosed):
                return


class PropertyFailed(AssertionError):
    """Raised when a property does not hold.

    The message contains the bytes, the sizes of the chunks, and the difference. If the parser has
    raised an exception, it is the cause of this one.
    """


def chunkings(data: bytes) -> Iterator[list[bytes]]:
    """Yield the ways to cut `data` that are most likely to reveal a bug.

    These are single bytes, and two parts. Data of up to 256 bytes is cut at every position, longer
    data near its ends. `strategies.chunked` draws arbitrary cuts.

    Raises:
        TypeError: `data` is not bytes.
    """
    return _chunkings(check_bytes("data", data))


def _chunkings(data: bytes) -> Iterator[list[bytes]]:
    size = len(data)
    if size > 1:
        yield [data[at : at + 1] for at in range(size)]
    places: Iterable[int] = range(1, size)
    if size > _CUT_EVERYWHERE:
        places = chain(range(1, _CUT_AT_ENDS), range(size - _CUT_AT_ENDS, size))
    for at in places:
        yield [data[:at], data[at:]]


def check_chunking(make: MakeParser, data: bytes, chunks: Sequence[bytes] | None = None) -> None:
    """Check that the events and the exception do not depend on the sizes of the chunks.

    Args:
        make: Makes a parser.
        data: The bytes to parse, in one chunk.
        chunks: The same bytes in chunks; None for each of `chunkings`.

    Raises:
        PropertyFailed: The outcomes differ. Exceptions are compared by type.
        TypeError, ValueError: `chunks` are not the bytes of `data`, or an argument has a wrong
            type.
    """
    whole = parse(make, _whole(data))
    for cut in chunkings(data) if chunks is None else [_checked(chunks, data)]:
        outcome = parse(make, cut)
        if outcome != whole:
            raise _failed(
                "what comes out depends on how the bytes are cut",
                data,
                cut,
                *_difference("at once", whole, "in chunks", outcome),
            ) from (outcome.error or whole.error)


def check_exceptions(
    make: MakeParser,
    data: bytes,
    allowed: type[Exception] | tuple[type[Exception], ...],
    chunks: Sequence[bytes] | None = None,
) -> None:
    """Check that the parser raises only exceptions that are allowed.

    Args:
        make: Makes a parser.
        data: The bytes to parse.
        allowed: The allowed exceptions, as for `isinstance`.
        chunks: The same bytes in chunks; None for one chunk, and then for single bytes.

    Raises:
        PropertyFailed: The parser has raised another exception.
        TypeError, ValueError: `chunks` are not the bytes of `data`, or an argument has a wrong
            type.
    """
    isinstance(None, allowed)  # Raise TypeError if `allowed` is invalid.
    check_bytes("data", data)
    ways = [_whole(data), [data[at : at + 1] for at in range(len(data))]]
    for cut in ways if chunks is None else [_checked(chunks, data)]:
        outcome = parse(make, cut)
        if outcome.error is not None and not isinstance(outcome.error, allowed):
            raise _failed(
                f"an exception that is not allowed: {_error(outcome)}",
                data,
                cut,
                f"before it: {_listed(outcome.events)}",
            ) from outcome.error


def check_meaning(
    make: MakeParser, data: bytes, events: Iterable[Any], chunks: Sequence[bytes] | None = None
) -> None:
    """Check that bytes are parsed into the expected events, without an exception.

    Args:
        make: Makes a parser.
        data: The bytes to parse.
        events: The expected events.
        chunks: The same bytes in chunks; None for one chunk.

    Raises:
        PropertyFailed: The parser has returned other events, or raised an exception.
        TypeError, ValueError: `chunks` are not the bytes of `data`, or an argument has a wrong
            type.
    """
    cut = _whole(data) if chunks is None else _checked(chunks, data)
    expected, outcome = Outcome(tuple(events)), parse(make, cut)
    if outcome != expected:
        raise _failed(
            "the bytes mean something else",
            data,
            cut,
            *_difference("expected", expected, "came out", outcome),
        ) from outcome.error


def check_round_trip(
    make: MakeParser,
    data: bytes,
    pack: Callable[[Any], bytes],
    chunks: Sequence[bytes] | None = None,
) -> None:
    """Check that the parsed events, packed again, are the original bytes.

    Args:
        make: Makes a parser.
        data: The bytes to parse.
        pack: Returns the bytes of one event; empty bytes for an event that stands for none.
        chunks: The same bytes in chunks; None for one chunk.

    Raises:
        PropertyFailed: The packed bytes differ, or the parser has raised an exception.
        TypeError, ValueError: `chunks` are not the bytes of `data`, or an argument has a wrong
            type.
    """
    check_callable("pack", pack, "of an event that returns bytes")
    cut = _whole(data) if chunks is None else _checked(chunks, data)
    outcome = parse(make, cut)
    packed = b"".join(map(pack, outcome.events))
    if outcome.error is not None or packed != data:
        pairs = zip_longest(packed, data)
        at = next((at for at, (a, b) in enumerate(pairs) if a != b), len(data))
        raise _failed(
            "the bytes do not come back",
            data,
            cut,
            f"came out: {_listed(outcome.events)}; {_error(outcome)}",
            f"packed: {_shown(packed)}",
            f"the first difference: byte {at}",
        ) from outcome.error


def check_time(
    make: MakeParser,
    grow: Callable[[int], Sequence[bytes]],
    clock: Callable[[], float],
    *,
    size: int = 65536,
    factor: int = 8,
    slack: float = 3.0,
    tries: int = 3,
) -> None:
    """Check that parsing time grows linearly with the size of the input.

    The function times an input and another one that is `factor` times as large. A linear parser
    takes about `factor` times as long. A quadratic parser, which rescans its whole buffer for each
    chunk or packet, takes about ``factor ** 2`` times as long. Each time is the shortest of three
    runs. The comparison is repeated before it counts as a failure, since other processes can
    disturb it.

    Args:
        make: Makes a parser.
        grow: Returns the chunks of an input of about the given size in bytes. Inputs of all sizes
            must be of the same kind.
        clock: Returns the time in seconds, such as `time.process_time`.
        size: Size of the first input in bytes. Parsing it must take much longer than a clock tick.
        factor: Size of the second input, relative to the first.
        slack: Maximum time per byte of the second input, relative to the first.
        tries: Maximum number of comparisons.

    Raises:
        PropertyFailed: In each comparison, the time per byte exceeded `slack`; or the parser has
            raised an exception.
        ValueError: The first input took no measurable time.
        TypeError, ValueError: An argument has an invalid type or value.
    """
    check_callable("grow", grow, "of a number of bytes that returns chunks")
    check_callable("clock", clock, "that returns seconds")
    check_count("size", size, 1)
    check_count("factor", factor, 2)
    check_number("slack", slack, 1, 1e6)
    check_count("tries", tries, 1)
    message = ""
    for _ in range(tries):
        short, begin = _measured(make, grow(size), clock)
        long, end = _measured(make, grow(size * factor), clock)
        if begin <= 0:
            raise ValueError(f"{short} bytes take no time by this clock: try more")
        if end / long <= slack * begin / short:
            return
        message = (
            "time grows faster than the input\n"
            f"sent: {short:,} bytes took {begin:.6f} seconds, {1e9 * begin / short:.0f} ns a byte\n"
            f"sent: {long:,} bytes took {end:.6f} seconds, {1e9 * end / long:.0f} ns a byte\n"
            f"that is {end / begin:.1f} times as long for {long / short:.1f} times the bytes"
        )
    raise PropertyFailed(message)


def _measured(
    make: MakeParser, chunks: Sequence[bytes], clock: Callable[[], float]
) -> tuple[int, float]:
    """Return the number of bytes, and the shortest time of three runs."""
    times = []
    for _ in range(3):
        begin = clock()
        outcome = parse(make, chunks)
        times.append(clock() - begin)
        if outcome.error is not None:
            raise PropertyFailed(
                f"there is no time to measure: {_error(outcome)}"
            ) from outcome.error
    return sum(map(len, chunks)), min(times)


def _whole(data: bytes) -> list[bytes]:
    return [data] if check_bytes("data", data) else []


def _checked(chunks: Sequence[bytes], data: bytes) -> Sequence[bytes]:
    if b"".join([check_bytes("a chunk", chunk) for chunk in chunks]) != data:
        raise ValueError("the chunks are not those of the data")
    return chunks


# Messages.


def _shown(data: bytes) -> str:
    begin, end = _SHOWN
    if len(data) <= begin + end:
        return f"{len(data)} bytes, {data!r}"
    left = len(data) - begin - end
    return f"{len(data)} bytes, {data[:begin]!r} and {left} more and {data[-end:]!r}"


def _failed(problem: str, data: bytes, chunks: Sequence[bytes], *lines: str) -> PropertyFailed:
    return PropertyFailed("\n".join([problem, *_sent(data, chunks), *lines]))


def _sent(data: bytes, chunks: Sequence[bytes]) -> Iterator[str]:
    yield f"sent: {_shown(data)}"
    sizes = [str(len(chunk)) for chunk in chunks]
    if len(sizes) > 1:
        more = f" and {len(sizes) - 40} more" if len(sizes) > 40 else ""
        yield f"in chunks of: {', '.join(sizes[:40])}{more}"


def _listed(events: tuple[Any, ...]) -> str:
    return f"{len(events)} events: {list(events)!r}" if events else "no events"


def _error(outcome: Outcome) -> str:
    if outcome.error is None:
        return "no exception"
    return f"{type(outcome.error).__name__}: {outcome.error}"


def _difference(name: str, one: Outcome, other_name: str, other: Outcome) -> Iterator[str]:
    for each, outcome in ((name, one), (other_name, other)):
        yield f"{each}: {_listed(outcome.events)}; {_error(outcome)}"
    pairs = zip_longest(one.events, other.events, fillvalue=_NOTHING)
    number = next((number for number, (a, b) in enumerate(pairs, 1) if a != b), None)
    yield f"the first difference: {f'event {number}' if number else 'the exception'}"
