"""The interface of the parsers that the properties test, and the outcome of parsing.

A parser receives the bytes of one connection and returns events. It can choose any representation:
event objects, tuples, the reactions of an engine. The properties only compare events for equality.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from gearman_proto.checks import check_callable, check_count, check_type
from gearman_proto.constants import DEFAULT_MAX_PACKET_SIZE, MAX_BODY_SIZE
from gearman_proto.errors import ArgumentTypeError, ArgumentValueError
from gearman_proto.records import hidden, record
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import ConnectionClosed, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gearman_proto.wire.packets import Role


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
        max_packet_size: Maximum size of the body of a received packet, in bytes. A larger packet is
            an error.

    Raises:
        TypeError, ValueError: An argument has an invalid type or value.

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
