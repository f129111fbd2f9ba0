"""The admin client engine (tier 2): questions to one job server, without I/O.

The engine has one persistent connection and one question in flight. Further questions wait in a
queue. Therefore, an error on the connection affects only the question in flight. After an error,
the next question uses a new connection:

    ===================================  =====================================================
    event                                effect on the question in flight
    ===================================  =====================================================
    its reply or an ERR line             answered or ServerError; the connection stays open
    any other data                       RemoteProtocolError; the engine closes the connection
    the connection is lost               ServerUnavailable; exception: if the question was not
                                         sent yet and the connection has answered an earlier
                                         one, the engine asks it on a new connection
    its deadline passes                  InvalidAdminClientState; the engine closes the
                                         connection, because a late reply would be mistaken for
                                         the reply to the next question
    its caller gives up                  in flight until its reply or deadline; as soon as
                                         another question is queued, the engine closes the
                                         connection and asks that one on a new connection
    ===================================  =====================================================

If connecting fails, all queued questions fail with ServerUnavailable.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

from gearman_proto import constants
from gearman_proto.checks import check_count, deadline_of
from gearman_proto.errors import (
    InvalidAdminClientState,
    RemoteProtocolError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.wire.connection import NEED_DATA
from gearman_proto.wire.packets import EchoReq, EchoRes, Error, Role, TextLine
from gearman_proto.wire.text import DEFAULT_MAX_REPLY_SIZE, Command, Reply

from .base import Close
from .connecting import ConnectingEngine, OutgoingLink, server_error
from .servers import Server, unreachable
from .waits import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from gearman_proto.address import ServerAddress
    from gearman_proto.wire.packets import Event

T = TypeVar("T")

_ECHO: Final = b"gearman-sansio ping"


class Question(Wait, Generic[T]):
    """An admin command and its answer."""

    __slots__ = ("_value", "command", "reply", "sent_at")

    def __init__(
        self,
        command: Command[T] | None,
        max_reply_size: int,
        deadline: float | None,
        wake: Callable[[], Any],
    ) -> None:
        super().__init__(deadline, wake)
        #: The command, or None for an ECHO_REQ.
        self.command: Command[T] | None = command
        self.reply: Reply[T] | None = Reply(command, max_reply_size) if command else None
        #: Time when the question was assigned to a connection.
        self.sent_at: float = 0.0
        self._value: T | None = None

    #: False to close the connection after the answer, unless another question is queued, or one
    #: with a true value was answered on it.
    keeps_open: bool = True

    def __repr__(self) -> str:
        return f"<Question {self.name}>"

    @property
    def name(self) -> str:
        """The command's name in error messages."""
        return repr(self.command.line.decode("utf-8", "replace")) if self.command else "ECHO_REQ"

    @property
    def events(self) -> Sequence[Event]:
        """The events to send."""
        return (self.command.event if self.command else EchoReq(_ECHO),)

    @property
    def value(self) -> T:
        """The answer.

        Raises:
            ServerError: The server refused the command.
            ServerUnavailable: The server could not be reached, or closed the connection.
            RemoteProtocolError: The server sent an unexpected answer.
            InvalidAdminClientState: The server did not answer in time, or the client was shut down.
        """
        self.raise_error()
        assert self.done
        return self._value  # type: ignore[return-value] # None only if T is None

    def answer(self, value: T) -> None:
        """Store the server's answer, and finish the wait."""
        self._value = value
        self.finish()

    def receive(self, event: Event, address: ServerAddress, now: float) -> bool:
        """Process an event from the server at `address`. Return True if it completes the answer.

        Raises:
            ServerError: The server refused the command.
            RemoteProtocolError: The event does not fit the question.
        """
        reply = self.reply
        if isinstance(event, TextLine) and reply is not None:
            if not reply.receive_line(event):
                return False
            self.answer(reply.value())
        elif isinstance(event, EchoRes) and reply is None:
            # Only `ping` makes a question without a command, and its answer is a number.
            self.answer(now - self.sent_at)  # type: ignore[arg-type]
        elif isinstance(event, Error) and reply is None:
            raise server_error(event)
        else:
            raise RemoteProtocolError(f"{address} answered {self.name} with {event!r:.200}")
        return True


@final  # So that code can compare its type, which is faster than `isinstance`.
class AdminLink(OutgoingLink):
    """One connection to the server, or the attempt to make one.

    Attributes:
        engine: The engine of the link.
        asked: The question in flight, or None.
        sent: The question in flight if it was sent, or None.
        answered: Number of answered questions.
        keeps_open: True if one of the answered questions keeps the connection open.
    """

    __slots__ = ("answered", "asked", "engine", "keeps_open", "sent")

    def __init__(self, engine: AdminEngine, server: Server, max_packet_size: int) -> None:
        super().__init__(server, Role.CLIENT, max_packet_size)
        self.engine: AdminEngine = engine
        self.asked: Question[Any] | None = None
        self.sent: Question[Any] | None = None
        self.answered: int = 0
        self.keeps_open: bool = False

    @property
    def unsent(self) -> bool:
        """True if the question in flight was not sent yet."""
        return self.alive and self.asked is not self.sent


class AdminEngine(ConnectingEngine[AdminLink]):
    """The engine of an admin client.

    See `Engine` for the transport side. On the caller's side, `ask` and `ping` return a Question,
    which is a Wait. The caller blocks until the Question is `ready`, always calls `release` (even
    if it gives up early), and then reads `value`.

    Args:
        addresses: The address of the server, as a collection with one item.
        connect_timeout: Seconds to wait for a connection.
        max_reply_size: Maximum size of a reply in bytes. If a server sends a larger one, the
            engine closes the connection.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There is not exactly one server, or an argument has an invalid value.
    """

    def __init__(
        self,
        addresses: Collection[ServerAddress],
        *,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_reply_size: int = DEFAULT_MAX_REPLY_SIZE,
    ) -> None:
        super().__init__(connect_timeout)
        if len(addresses) != 1:
            raise ValueError(f"an admin client has one server, not {len(addresses)}")
        self.server: Server = Server(*addresses)
        #: True once `close` or `abandon` was called.
        self.closed: bool = False
        self._max_reply_size = check_count("max_reply_size", max_reply_size, 1)
        # Queued questions. The engine skips those of callers that have given up.
        self._queue: deque[Question[Any]] = deque()

    # The caller's side.

    def ask(
        self,
        now: float,
        wake: Callable[[], Any],
        command: Command[T],
        *,
        timeout: float | None = constants.DEFAULT_ADMIN_TIMEOUT,
    ) -> Question[T]:
        """Send a command.

        Args:
            now: The time.
            wake: Called once, when the question is done.
            command: A command of `wire.text`.
            timeout: Maximum seconds to wait, or None for no limit.

        Returns:
            The question. If the engine is closed, it is done and raises an error.

        Raises:
            TypeError, ValueError: `timeout` is not a valid number.
        """
        deadline = deadline_of(now, timeout)
        return self.put(Question(command, self._max_reply_size, deadline, wake), now)

    def ping(
        self,
        now: float,
        wake: Callable[[], Any],
        *,
        timeout: float | None = constants.DEFAULT_ADMIN_TIMEOUT,
    ) -> Question[float]:
        """Send ECHO_REQ, like `ask`. The answer is the number of seconds until ECHO_RES."""
        return self.put(Question(None, 0, deadline_of(now, timeout), wake), now)

    def put(self, question: Question[T], now: float) -> Question[T]:
        """Queue `question`, and return it. See `ask` for a closed engine."""
        if self.closed:
            return question.refuse(InvalidAdminClientState("this admin client has been shut down"))
        link = self._link
        if link is not None and link.asked is not None and link.asked not in self._waits:
            self._interrupt(link)
        self._waits.add(question)
        self._queue.append(question)
        if question.deadline is not None:
            self._timers.set(question, question.deadline, self._expire)
        self.send_next(now)
        return question

    def release(self, wait: Wait, now: float) -> None:
        """Release `wait` after its caller has stopped waiting, even if it is not done."""
        assert isinstance(wait, Question)
        self._waits.discard(wait)
        link = self._link
        if link is None or link.asked is not wait:
            self._timers.cancel(wait)
        elif self._is_wanted():
            self._interrupt(link)
            self.send_next(now)

    def close(self, now: float) -> None:
        """Close the connection, and refuse further questions."""
        self.closed = True
        if self._link is not None:
            self._interrupt(self._link)
        self._queue.clear()
        for question in list(self._waits):
            self._fail(question, InvalidAdminClientState("this admin client has been shut down"))

    # The transport side: input.

    def receive_data(self, link: AdminLink, data: bytes, now: float) -> None:
        """Process `data`, received from the server."""
        if not link.alive:
            return
        link.connection.receive_data(data)
        try:
            while (event := link.connection.next_event()) is not NEED_DATA:
                self._on_event(link, event, now)
            if link.connection.buffered and (link.asked is None or link.unsent):
                # The excess bytes would be mistaken for the beginning of the next answer.
                raise RemoteProtocolError(f"{link.address} sent more than it was asked for")
        except RemoteProtocolError as error:
            self._close(link, error, now)

    def handle_timeout(self, now: float) -> None:
        """Process the deadlines that have passed at `now`, and ask the next question."""
        self._timers.expire(now)
        self.send_next(now)

    # The transport side: output.

    def _links(self) -> list[AdminLink]:
        return [] if self._link is None else [self._link]

    def links_to_write(self) -> Iterable[AdminLink]:
        """Return the link if it has a question to send."""
        return [link for link in self._links() if link.unsent]

    def data_to_send(self, link: AdminLink, now: float) -> bytes:
        """Return the bytes to write on `link` now, or b""."""
        if not link.unsent or link.asked is None:
            return b""
        link.sent = link.asked
        return b"".join(map(link.connection.send, link.asked.events))

    # Questions.

    def _ask_next(self, now: float) -> None:
        """Ask the oldest queued question if the link is open and no question is in flight."""
        link = self._link
        if link is not None and link.is_up and link.asked is None and self._is_wanted():
            link.asked = self._queue.popleft()
            link.asked.sent_at = now

    def _is_wanted(self) -> bool:
        """Remove abandoned questions from the head of the queue. Return True if any are left."""
        while self._queue and self._queue[0] not in self._waits:
            self._queue.popleft()
        return bool(self._queue)

    def _fail(self, question: Question[Any], error: Exception) -> None:
        question.fail(error)
        self._forget(question)

    def _forget(self, question: Question[Any]) -> None:
        # Called after the question is done, because `abandon` ends the waits that are left.
        self._timers.cancel(question)
        self._waits.discard(question)

    def _expire(self, question: Question[Any], now: float) -> None:
        link = self._link
        question.timed_out = True
        if link is not None and not link.is_up:
            self._fail(question, self._unavailable("there was no connection in time"))
            return
        message = f"{self.server.address} did not answer {question.name} in time"
        self._fail(question, InvalidAdminClientState(message))
        if link is not None and link.asked is question:
            self._interrupt(link)

    # The link.

    @property
    def _link(self) -> AdminLink | None:
        link: AdminLink | None = self.server.link
        return link

    def send_next(self, now: float) -> None:
        """Ask the oldest queued question. Open a connection first if the engine has none."""
        if self._link is not None:
            self._ask_next(now)
        elif self._is_wanted():
            self._connect(AdminLink(self, self.server, self._max_reply_size), now)

    def _opened(self, link: AdminLink, now: float) -> None:
        self._ask_next(now)

    def _interrupt(self, link: AdminLink) -> None:
        """Close `link`, whose question in flight, if any, has no waiting caller."""
        self._actions.append(Close(link))
        self._timers.cancel(link.asked)
        self._drop(link)

    def _drop(self, link: AdminLink) -> None:
        super()._drop(link)
        link.asked = link.sent = None

    def _lost(self, link: AdminLink, error: Exception, now: float) -> None:
        was_up = link.is_up
        is_of_another = link.unsent and link.answered
        asked = link.asked
        self._drop(link)
        if not was_up:
            # The server can't be reached, so all queued questions fail.
            while self._is_wanted():
                self._fail(self._queue.popleft(), self._unavailable(error))
            return
        if not isinstance(error, RemoteProtocolError):
            error = ServerUnavailable(f"{link.address} did not answer: {error}")
        if is_of_another and asked is not None and asked in self._waits:
            self._queue.appendleft(asked)
        elif asked is not None:
            self._fail(asked, error)
        self.send_next(now)

    def _unavailable(self, reason: object) -> ServerUnavailable:
        return unreachable({self.server.address: reason})

    # Events.

    def _on_event(self, link: AdminLink, event: Event, now: float) -> None:
        question = link.asked
        if question is None or link.unsent:
            raise RemoteProtocolError(f"{link.address} sent {event!r:.200} without a request")
        try:
            if not question.receive(event, link.address, now):
                return
        except ServerError as error:
            question.fail(error)
        self._forget(question)
        link.asked = link.sent = None
        link.answered += 1
        link.keeps_open |= question.keeps_open
        self._ask_next(now)
        if link.asked is None and not link.keeps_open:
            self._interrupt(link)
