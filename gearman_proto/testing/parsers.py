"""What the properties ask of a parser, and what comes out of one.

A parser is anything that takes the bytes of one connection and gives what they mean. What it gives
is up to it: events, tuples, what an engine does because of them. It is only ever compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from gearman_proto.arguments import check_callable, check_count, check_type
from gearman_proto.constants import DEFAULT_MAX_PACKET_SIZE, MAX_BODY_SIZE
from gearman_proto.errors import ArgumentTypeError, ArgumentValueError
from gearman_proto.records import hidden, record
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.events import ConnectionClosed, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gearman_proto.wire.packets import Role


class Parser(Protocol):
    """A parser of the bytes of one connection."""

    def receive(self, data: bytes, /) -> Iterable[Any]:
        """Take bytes, and give what they complete.

        Args:
            data: What has come. Once, at the end, it is empty: the peer sends no more. A parser
                that has no use for that gives nothing then.

        Returns:
            What the bytes mean, in order. Where it is a generator that raises, what it gave before
            counts.
        """
        ...


#: What makes a new parser, which has received nothing.
MakeParser: TypeAlias = "Callable[[], Parser]"


@record(frozen=True)
class Outcome:
    """What came out of a parser.

    Attributes:
        events: What it gave.
        failure: The type of the exception that came after that, or None.
        error: That exception. It takes no part in comparisons.
    """

    events: tuple[Any, ...]
    failure: type[Exception] | None = None
    error: Exception | None = hidden(default=None, compare=False)


def parse(make: MakeParser, chunks: Iterable[bytes]) -> Outcome:
    """Put bytes through a new parser, and the end of the stream behind them.

    Args:
        make: Makes the parser.
        chunks: The bytes as they come, none of them empty.

    Returns:
        What it gave, and what it raised. It gets nothing more after an exception.

    Raises:
        TypeError: `make` makes no parser, or a chunk is not bytes.
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
                events.append(event)  # noqa: PERF402 - what came before an exception is to stay
    except Exception as error:  # noqa: BLE001
        return Outcome(tuple(events), type(error), error)
    return Outcome(tuple(events))


def check_bytes(name: str, data: bytes) -> bytes:
    """Return `data`, which is bytes.

    Raises:
        TypeError: It is not.
    """
    return check_type(name, data, bytes, "bytes")


class ConnectionParser:
    """A `Connection` as a parser.

    Args:
        role: What this end is.
        asked: What it has sent before anything comes: what is received is to answer that.
        max_packet_size: In bytes. A received packet whose body is larger is an error.

    Raises:
        TypeError, ValueError: An argument has a type or a value that can't be.

    Attributes:
        connection: The Connection.
    """

    def __init__(
        self,
        role: Role,
        asked: Iterable[Event] = (),
        *,
        max_packet_size: int = DEFAULT_MAX_PACKET_SIZE,
    ) -> None:
        check_count("max_packet_size", max_packet_size, 1, MAX_BODY_SIZE)
        self.connection: Connection = Connection(role, max_packet_size=max_packet_size)
        for event in asked:
            self.connection.send(event)

    def receive(self, data: bytes, /) -> Iterator[Event]:
        """Take bytes, or the end of the stream if they are empty; yield the events.

        Raises:
            RemoteProtocolError: The bytes are not sound.
        """
        if data:
            self.connection.receive_data(data)
        else:
            self.connection.receive_eof()
        while isinstance(event := self.connection.next_event(), Event):
            yield event
            if isinstance(event, ConnectionClosed):
                return
