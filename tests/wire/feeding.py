"""Feed a Connection with a stream in pieces, and compare the ways to take its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from gearman_proto.errors import RemoteProtocolError
from gearman_proto.wire.packets import ConnectionClosed, Event, JobCreated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gearman_proto.wire.connection import Connection

# An event and its token, or None.
Found: TypeAlias = "tuple[Event, Any]"


def runs(end: Connection) -> Iterable[Found]:
    """Take a run of JOB_CREATED packets."""
    return ((JobCreated(handle), token) for handle, token in zip(*end.next_created()))


def requests(end: Connection) -> Iterable[Found]:
    """Take ordinary requests."""
    return ((kind(*args), None) for kind, args in end.requests())


def receive(
    end: Connection,
    stream: bytes,
    size: int,
    quickly: Callable[[Connection], Iterable[Found]] | None = None,
    *,
    closed: bool = True,
) -> tuple[list[Found], str | None, list[Any], int]:
    """Feed `stream` to `end` in pieces of `size`.

    Return the events with their tokens, the error, and the state of the end.
    """
    found: list[Found] = []
    error = None
    try:
        for at in range(0, len(stream) + size, size):
            if at < len(stream):
                end.receive_data(stream[at : at + size])
            elif closed:
                end.receive_eof()
            while True:
                found += quickly(end) if quickly is not None else ()
                if not isinstance(event := end.next_event(), Event):
                    break
                found.append((event, getattr(event, "answers", None)))
                if isinstance(event, ConnectionClosed):
                    break
    except RemoteProtocolError as failure:
        error = str(failure)
    return found, error, list(end.unanswered_tokens()), end.buffered
