"""What is true of every sound parser of Gearman, as functions that anyone's can be put through.

Each takes what makes a parser, and bytes, and raises PropertyFailed if the property does not hold
for them. None of them knows Hypothesis: bytes from `strategies`, recordings or a fuzzer all do.
"""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.arguments import check_callable, check_count, check_number

from .parsers import MakeParser, Outcome, check_bytes, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# Bytes. Data that is no longer is cut everywhere, as that takes time by its square.
_CUT_EVERYWHERE: Final = 256
# Bytes at both ends of longer data within which it is cut.
_CUT_AT_ENDS: Final = 32
# In place of an event that one of two outcomes does not have: it equals none.
_NOTHING: Final = object()
# Bytes that a message shows of longer data, at its begin and at its end.
_SHOWN: Final = (400, 80)


class PropertyFailed(AssertionError):
    """A property does not hold. The message says what was sent, in which chunks, and what differs.

    If the parser raised, that exception is the cause of this one.
    """


def chunkings(data: bytes) -> Iterator[list[bytes]]:
    """Yield the ways to cut `data` that are worth a try without luck.

    That is into single bytes, and in two: everywhere, if it has no more than 256 bytes, and near
    its ends otherwise. `strategies.chunked` draws any others.

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
    """Check that it makes no difference how bytes are cut: the same events, the same exception.

    Args:
        make: Makes a parser.
        data: What it receives, at once.
        chunks: The same in pieces; None is every one of `chunkings`.

    Raises:
        PropertyFailed: It makes a difference. Exceptions are compared by their types.
        TypeError, ValueError: `chunks` are other bytes; or an argument has another type.
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
    """Check that no exception comes out but those that are allowed.

    Args:
        make: Makes a parser.
        data: What it receives.
        allowed: The exceptions that it may raise, as `isinstance` takes them.
        chunks: The same in pieces; None is at once, and then byte by byte.

    Raises:
        PropertyFailed: Another one came out.
        TypeError, ValueError: `chunks` are other bytes; or an argument has another type.
    """
    isinstance(None, allowed)  # Raises for what is no exception.
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
    """Check that bytes mean what they are to mean, and nothing is raised.

    Args:
        make: Makes a parser.
        data: What it receives.
        events: What it is to give.
        chunks: The same bytes in pieces; None is at once.

    Raises:
        PropertyFailed: It gives something else, or raises.
        TypeError, ValueError: `chunks` are other bytes; or an argument has another type.
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
    """Check that what comes out, packed again, is what went in.

    Args:
        make: Makes a parser.
        data: What it receives.
        pack: Returns the bytes of what the parser gave, one by one. What stands for no bytes gives
            none.
        chunks: The same bytes in pieces; None is at once.

    Raises:
        PropertyFailed: It is not, or the parser raised.
        TypeError, ValueError: `chunks` are other bytes; or an argument has another type.
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
    """Check that time grows no faster than the input.

    An input is parsed, and one that is `factor` times as long. That takes about `factor` times as
    long if the time is linear, and the square of it if each chunk, or each packet, makes the parser
    look at everything that it holds. What is measured is the shortest of three runs, and it is
    measured again before it counts as a failure, since machines have other things to do.

    Args:
        make: Makes a parser.
        grow: Returns the chunks of an input of about so many bytes, of one kind for all sizes.
        clock: The time in seconds, `time.process_time` say.
        size: Bytes of the first input. It has to take much longer than a tick of the clock.
        factor: How many times as long the second one is.
        slack: How many times as long a byte of the second one may take.
        tries: How often it is tried.

    Raises:
        PropertyFailed: A byte of the longer input took more than `slack` times as long, each time;
            or the parser raised.
        ValueError: The first input took no time.
        TypeError, ValueError: An argument has a type or a value that can't be.
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
    """The number of bytes, and the shortest time that they took in three runs."""
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
