"""The server's end of a connection.

It queues the requests that it has received and not yet answered, and refuses to send answers out of
order. A server answers most requests before it receives the next one, so the head of the queue is
stored separately, and most connections need no deque.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gearman_proto import constants
from gearman_proto.errors import LocalProtocolError, RemoteProtocolError, UnknownCommandError

from .packets import (
    HEADER_SIZE,
    LAST_NUMBER,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    WORK_ERRORS,
    Error,
    InvalidRequest,
)
from .rows import has_too_many_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .buffer import ReceiveBuffer
    from .packets import PacketEvent, PacketType
    from .rows import Row

_ERROR: Final = Error.packet.number
# The debt for an invalid request, which only an ERROR can answer.
_ERROR_ONLY: Final[tuple[frozenset[int], str]] = (frozenset(), "an invalid request")
# Replaces an empty queue, because an empty deque takes 760 bytes.
_NOTHING: Final[deque[Any]] = deque(maxlen=0)


class ServerEnd:
    """The pairing of requests and answers, and the rules of text, for a server.

    Args:
        rows: The packets that a server receives, by their first bytes (magic and number).
    """

    __slots__ = ("_owed", "_owed_next", "_rows")

    magic: ClassVar[bytes] = MAGIC_RESPONSE
    peer_magic: ClassVar[bytes] = MAGIC_REQUEST
    #: Maximum size of a received line in bytes.
    max_line: ClassVar[int] = constants.MAX_COMMAND_SIZE
    #: Peers can send commands at any time.
    takes_text: ClassVar[bool] = True

    def __init__(self, rows: dict[bytes, Row]) -> None:
        self._rows = rows
        # The head of the queue, or None if it is empty.
        self._owed: tuple[frozenset[int], str] | None = None
        self._owed_next: deque[tuple[frozenset[int], str]] = _NOTHING

    @property
    def unanswered(self) -> int:
        """The number of unanswered requests."""
        return len(self._owed_next) + (self._owed is not None)

    def unanswered_tokens(self) -> Iterator[Any]:
        """Yield None for each unanswered request."""
        yield from [None] * self.unanswered

    def pair_sent(self, answer: Row, _event: object, args: Sequence[bytes], _token: object) -> None:
        """Remove the request that an answer belongs to.

        Raises:
            LocalProtocolError: The answer does not fit the oldest unanswered request.
        """
        owed = self._owed
        if owed is None or answer.number not in owed[0]:
            if answer.number != _ERROR:
                fault = "answers nothing" if owed is None else f"can't answer {owed[1]}"
                raise LocalProtocolError(f"{answer.packet.name} {fault}")
            if owed is None or args[0] in WORK_ERRORS:
                return  # It refuses a WORK_* packet.
        self._owed = self._owed_next.popleft() if self._owed_next else None

    def pair_received(self, row: Row, _args: object) -> None:
        """Queue a request that needs an answer."""
        assert row.owes is not None
        self._owe(row.owes)

    def _owe(self, entry: tuple[frozenset[int], str]) -> None:
        if self._owed is None:
            self._owed = entry
        elif self._owed_next:
            self._owed_next.append(entry)
        else:
            self._owed_next = deque((entry,))

    def requests(self, buffer: ReceiveBuffer) -> Iterator[tuple[type[PacketEvent], list[bytes]]]:
        """Remove ordinary requests from `buffer`; see `Connection.requests`."""
        rows, header_size = self._rows, HEADER_SIZE
        known: bytes | None = None
        data, start = buffer.data, buffer.start
        while True:
            head = data[start : start + header_size]
            if head != known:
                # An incomplete header matches no row.
                row = rows.get(head[:-4])
                if row is None:
                    return
                size = int.from_bytes(head[-4:])
                if size > row.quick_size:
                    return
                known, kind, owes, count, nuls = (
                    head,
                    row.event_class,
                    row.owes,
                    row.count,
                    row.nuls,
                )
            begin = start + header_size
            end = begin + size
            if end > len(data):
                return
            args = data[begin:end].split(b"\0", nuls) if count else []
            if len(args) != count:
                return
            start = buffer.start = end
            if owes is not None:
                if self._owed is None:
                    self._owed = owes
                else:
                    self._owe(owes)
            yield kind, args

    def refusal(self, magic: bytes, number: int, _packet: PacketType | None) -> InvalidRequest:
        """Return the event for a packet that servers refuse.

        Raises:
            UnknownCommandError: The type number is outside the protocol's range.
        """
        if not 0 < number <= LAST_NUMBER:
            raise UnknownCommandError(f"there is no packet of type {number}")
        if magic == MAGIC_RESPONSE:
            return InvalidRequest(b"INVALID_MAGIC", b"Request magic expected")
        return InvalidRequest(b"INVALID_COMMAND", b"Command not expected")

    def pair_refused(self) -> None:
        """Queue an invalid request, which only an ERROR can answer."""
        self._owe(_ERROR_ONLY)

    def check_sent_line(self, line: bytes, size: int) -> None:
        """Accept any reply."""

    def check_received_line(self, line: bytes) -> None:
        """Raise RemoteProtocolError if a command has too many words."""
        if has_too_many_words(line):
            raise RemoteProtocolError(
                f"a command of more than {constants.MAX_COMMAND_WORDS} words: {line[:80]!r}"
            )
