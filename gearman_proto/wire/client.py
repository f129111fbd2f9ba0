"""The client's end of a connection, which is also the worker's.

A server answers the requests of one connection in order, so one queue of unanswered requests is
enough. Each answer (JOB_CREATED, STATUS_RES, OPTION_RES and so on) must match the head of the queue
and removes it. Other packets (WORK_*, NOOP) leave the queue alone. An ERROR names no request.
Servers send it in place of an answer, or, with a special code, in response to a WORK_* packet,
which has no other answer.

Some servers drop some requests silently. If the head is such a request and a reply does not match
it, the server will never answer it. The end then returns the request as `Unanswered`, and compares
the reply with the next request.

If a reply repeats a part of its request (a handle, a unique, an option, the echo), both must be
equal. A reply that matches no request means that the two streams are out of step. The connection
can't recover from that, so it treats the reply as garbage.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gearman_proto import constants
from gearman_proto.errors import LocalProtocolError, RemoteProtocolError, UnknownCommandError

from .packets import MAGIC_REQUEST, MAGIC_RESPONSE, WORK_ERRORS, Error, Role, Unanswered
from .rows import has_too_many_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .packets import InvalidRequest, PacketType
    from .rows import Row

# The ERROR codes that gearmand sends only for submits (recordings 27_queue_full and
# 28_pipelined_submits_with_error).
_SUBMIT_ERRORS: Final = frozenset({b"QUEUE_ERROR", b"ARGUMENT_TOO_LARGE"})
_ERROR: Final = Error.packet.number


class ClientEnd:
    """The pairing of requests and answers, and the rules of text, for a client or a worker.

    Args:
        role: ``Role.CLIENT``, ``Role.WORKER`` or both.
    """

    __slots__ = ("asked", "role", "tokens")

    magic: ClassVar[bytes] = MAGIC_REQUEST
    peer_magic: ClassVar[bytes] = MAGIC_RESPONSE
    #: Maximum size of a received line in bytes. A line of ``workers`` has all of its functions.
    max_line: ClassVar[int] = 1024 * 1024
    #: A server sends text only as a reply to a command.
    takes_text: ClassVar[bool] = False

    def __init__(self, role: Role) -> None:
        self.role: Role = role
        #: The unanswered requests: the row, and the argument that the answer repeats, or None.
        self.asked: deque[tuple[Row, bytes | None]] = deque()
        #: Their tokens.
        self.tokens: deque[Any] = deque()

    @property
    def unanswered(self) -> int:
        """The number of unanswered requests."""
        return len(self.asked)

    def unanswered_tokens(self) -> Iterator[Any]:
        """Yield the tokens of the unanswered requests, oldest first."""
        yield from self.tokens

    def pair_sent(self, row: Row, event: Any, args: Sequence[bytes], token: Any) -> None:
        """Queue a request. Raise LocalProtocolError if servers would not accept its values."""
        if row.check is not None:
            row.check(row.packet, event)
        if row.accepts:
            self.asked.append(row.alone or (row, args[0]))
            self.tokens.append(event if token is None else token)

    def pair_received(self, answer: Row, args: list[Any]) -> Unanswered | None:
        """Remove the request that an answer belongs to, and append its token to `args`.

        If the server will never answer the oldest request, remove that and return it. The answer
        then belongs to a later request.

        Args:
            answer: The row of the answer.
            args: The arguments of the answer.

        Raises:
            RemoteProtocolError: The answer belongs to no request.
        """
        asked = self.asked
        if asked:
            request, repeated = asked[0]
            if answer.number in request.accepts and (repeated is None or args[0] == repeated):
                asked.popleft()
                args.append(self.tokens.popleft())
                return None
        return self._pair_odd(answer, args)

    def _pair_odd(self, answer: Row, args: list[Any]) -> Unanswered | None:
        """Handle an answer that the head of the queue does not expect, such as an ERROR."""
        asked, first = self.asked, args[0] if args else b""
        if answer.number == _ERROR and (
            not asked or (first in WORK_ERRORS and Role.WORKER in self.role)
        ):
            args.append(None)  # It refuses a WORK_* packet, so it answers no request.
            return None
        if not asked:
            raise RemoteProtocolError(f"{answer.packet.name} answers nothing")
        request, repeated = asked[0]
        # An ERROR names no request, but some codes identify its kind.
        fits = answer.number == _ERROR and first not in _SUBMIT_ERRORS
        if not fits and request.ignorable:
            asked.popleft()
            return Unanswered(request.packet, self.tokens.popleft())
        if answer.number == _ERROR:
            asked.popleft()
            args.append(self.tokens.popleft())
            return None
        if answer.number not in request.accepts:
            raise RemoteProtocolError(f"{answer.packet.name} can't answer {request.packet.name}")
        raise RemoteProtocolError(
            f"{answer.packet.name} is about {first[:80]!r}, but {repeated!r:.100} was asked"
        )

    def refusal(
        self, _magic: bytes, number: int, packet: PacketType | None
    ) -> InvalidRequest | None:
        """Return None if the packet is for this role, although its magic is a request's.

        Python gear's server sends such a packet.

        Raises:
            RemoteProtocolError: The packet is unknown, or is not for this role.
        """
        if packet is None:
            raise UnknownCommandError(f"there is no packet of type {number}")
        if not packet.receiver & self.role:
            raise RemoteProtocolError(f"{packet.name} is not for {self.role!r} to receive")
        return None

    def check_sent_line(self, line: bytes, size: int) -> None:
        """Raise LocalProtocolError if servers would refuse a command.

        Args:
            line: The command.
            size: The size of the line in bytes, with its ending.
        """
        if size > constants.MAX_COMMAND_SIZE:
            raise LocalProtocolError(f"a command of {len(line)} bytes is too long")
        if has_too_many_words(line):
            raise LocalProtocolError(
                f"{line[:80]!r} has more than {constants.MAX_COMMAND_WORDS} words: servers "
                "close the connection on that"
            )

    def check_received_line(self, line: bytes) -> None:
        """Accept any reply."""
