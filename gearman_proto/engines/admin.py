"""Tier 2, the admin client: questions to one job server, decided without I/O.

One question is under way at a time, over one connection that is kept; the others wait in a queue.
So whatever goes wrong with a connection is the trouble of the one question that it was asked on,
and the next one has a new connection:

    ===================================  =====================================================
    what happens                         what becomes of the question under way
    ===================================  =====================================================
    its reply, or an ERR line            answered, or ServerError; the connection is kept
    anything else is received            RemoteProtocolError; the connection is closed
    the connection ends                  ServerUnavailable; one that was not sent yet, behind the
                                         answer to another, is asked on a new connection
    its deadline comes                   InvalidAdminClientState; the connection is closed, as the
                                         reply that may still come would pass for the next one's
    nobody waits for it any more         it stays until its reply or its deadline comes; or the
                                         connection is closed, if another question waits or comes:
                                         that gets a new one
    ===================================  =====================================================

If no connection can be made, all questions that wait fail: ServerUnavailable.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

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
from .servers import Server
from .waits import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from gearman_proto.address import ServerAddress
    from gearman_proto.wire.packets import Event

T = TypeVar("T")

_ECHO: Final = b"gearman-sansio ping"


class Question(Wait, Generic[T]):
    """A command that was asked, and its answer when it is done."""

    __slots__ = ("_value", "command", "reply", "sent_at")

    def __init__(
        self,
        command: Command[T] | None,
        max_reply_size: int,
        deadline: float | None,
        wake: Callable[[], Any],
    ) -> None:
        super().__init__(deadline, wake)
        #: None is an ECHO_REQ.
        self.command: Command[T] | None = command
        self.reply: Reply[T] | None = Reply(command, max_reply_size) if command else None
        #: When it was put on its way.
        self.sent_at: float = 0.0
        self._value: T | None = None

    def __repr__(self) -> str:
        return f"<Question {self.name}>"

    @property
    def name(self) -> str:
        """What is asked."""
        return repr(self.command.line.decode("utf-8", "replace")) if self.command else "ECHO_REQ"

    @property
    def event(self) -> Event:
        """What to send."""
        return self.command.event if self.command else EchoReq(_ECHO)

    @property
    def value(self) -> T:
        """The answer.

        Raises:
            ServerError: The server refused the command.
            ServerUnavailable: It could not be reached, or closed the connection.
            RemoteProtocolError: It answered something else.
            InvalidAdminClientState: It did not answer in time, or the client was shut down.
        """
        self.raise_error()
        assert self.done
        return self._value  # type: ignore[return-value] # it is None where T is

    def answer(self, value: T) -> None:
        """The server has answered."""
        self._value = value
        self.finish()


class AdminLink(OutgoingLink):
    """One connection to the server, or the attempt to make one.

    Attributes:
        asked: The question under way, or None.
        sent: The same, as soon as it was sent.
        answered: How many questions were answered.
    """

    __slots__ = ("answered", "asked", "sent")

    def __init__(self, server: Server, max_packet_size: int) -> None:
        super().__init__(server, Role.CLIENT, max_packet_size)
        self.asked: Question[Any] | None = None
        self.sent: Question[Any] | None = None
        self.answered: int = 0

    @property
    def unsent(self) -> bool:
        """True if there is a question to send."""
        return self.alive and self.asked is not self.sent


class AdminEngine(ConnectingEngine[AdminLink]):
    """Everything that an admin client decides.

    See `Engine` for the transport side. The caller's side: `ask` and `ping` return a Question, a
    Wait. The caller blocks until it is `ready`, calls `release` in every case (also when it gives
    up early), and then reads its `value`.

    Args:
        addresses: The server.
        connect_timeout: Seconds to wait for a connection.
        max_reply_size: Bytes. A server that sends a larger reply is disconnected.

    Raises:
        TypeError: An argument is not of the type it must be.
        ValueError: There is not exactly one server, or an argument has a value that can't be.
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
        # What was not asked yet. Those that nobody waits for any more are passed over.
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
            command: One of those in `wire.text`.
            timeout: Seconds to wait at most, or None; see `arguments.to_seconds`.

        Returns:
            The question. It is refused if the engine is closed.

        Raises:
            TypeError, ValueError: `timeout` is no number.
        """
        deadline = deadline_of(now, timeout)
        return self._ask(Question(command, self._max_reply_size, deadline, wake), now)

    def ping(
        self,
        now: float,
        wake: Callable[[], Any],
        *,
        timeout: float | None = constants.DEFAULT_ADMIN_TIMEOUT,
    ) -> Question[float]:
        """Send ECHO_REQ. The answer is the seconds until ECHO_RES. Else like `ask`."""
        return self._ask(Question(None, 0, deadline_of(now, timeout), wake), now)

    def release(self, wait: Wait, now: float) -> None:
        """Nobody waits for `wait`, a question, any more, for whatever reason."""
        assert isinstance(wait, Question)
        self._waits.discard(wait)
        link = self._link
        if link is None or link.asked is not wait:
            self._timers.cancel(wait)
        elif self._is_wanted():
            self._interrupt(link)
            self._go_on(now)

    def close(self, now: float) -> None:
        """Close the connection. Nothing can be asked afterwards."""
        self.closed = True
        if self._link is not None:
            self._interrupt(self._link)
        self._queue.clear()
        for question in list(self._waits):
            self._fail(question, InvalidAdminClientState("this admin client has been shut down"))

    # The transport side, in.

    def receive_data(self, link: AdminLink, data: bytes, now: float) -> None:
        """The server has sent `data`."""
        if not link.alive:
            return
        link.connection.receive_data(data)
        try:
            while (event := link.connection.next_event()) is not NEED_DATA:
                self._on_event(link, event, now)
            if link.connection.buffered and (link.asked is None or link.unsent):
                # The rest of it would pass for the beginning of the next answer.
                raise RemoteProtocolError(f"{link.address} sent more than it was asked for")
        except RemoteProtocolError as error:
            self._close(link, error, now)

    def handle_timeout(self, now: float) -> None:
        """It is `now`: whatever is due happens, and what is left is asked anew."""
        self._timers.expire(now)
        self._go_on(now)

    # The transport side, out.

    def _links(self) -> list[AdminLink]:
        return [] if self._link is None else [self._link]

    def links_to_write(self) -> Iterable[AdminLink]:
        """The open link, if there is something to send."""
        return [link for link in self._links() if link.unsent]

    def data_to_send(self, link: AdminLink, now: float) -> bytes:
        """Return the bytes to write on `link` now, or none."""
        if not link.unsent or link.asked is None:
            return b""
        link.sent = link.asked
        return link.connection.send(link.asked.event)

    # Questions.

    def _ask(self, question: Question[T], now: float) -> Question[T]:
        if self.closed:
            return question.refuse(InvalidAdminClientState("this admin client has been shut down"))
        link = self._link
        if link is not None and link.asked is not None and link.asked not in self._waits:
            self._interrupt(link)
        self._waits.add(question)
        self._queue.append(question)
        if question.deadline is not None:
            self._timers.set(question, question.deadline, self._expire)
        self._go_on(now)
        return question

    def _ask_next(self, now: float) -> None:
        """Ask what has waited longest, if nothing is under way."""
        link = self._link
        if link is not None and link.is_up and link.asked is None and self._is_wanted():
            link.asked = self._queue.popleft()
            link.asked.sent_at = now

    def _is_wanted(self) -> bool:
        """Whether there is something to ask; it is the first in the queue then."""
        while self._queue and self._queue[0] not in self._waits:
            self._queue.popleft()
        return bool(self._queue)

    def _answer(self, question: Question[T], value: T) -> None:
        question.answer(value)
        self._forget(question)

    def _fail(self, question: Question[Any], error: Exception) -> None:
        question.fail(error)
        self._forget(question)

    def _forget(self, question: Question[Any]) -> None:
        # After its end, since `abandon` ends the others.
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

    def _go_on(self, now: float) -> None:
        """Ask what has waited longest, over a new connection if there is none."""
        if self._link is not None:
            self._ask_next(now)
        elif self._is_wanted():
            self._connect(AdminLink(self.server, self._max_reply_size), now)

    def _opened(self, link: AdminLink, now: float) -> None:
        self._ask_next(now)

    def _interrupt(self, link: AdminLink) -> None:
        """Close `link`: what is under way on it is not waited for any more."""
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
            # There is no connection to be had: all who want one get to know.
            while self._is_wanted():
                self._fail(self._queue.popleft(), self._unavailable(error))
            return
        if not isinstance(error, RemoteProtocolError):
            error = ServerUnavailable(f"{link.address} did not answer: {error}")
        if is_of_another and asked is not None and asked in self._waits:
            self._queue.appendleft(asked)
        elif asked is not None:
            self._fail(asked, error)
        self._go_on(now)

    def _unavailable(self, reason: object) -> ServerUnavailable:
        return ServerUnavailable(f"no server could be reached: {self.server.address} ({reason})")

    # Events.

    def _on_event(self, link: AdminLink, event: Event, now: float) -> None:
        question = link.asked
        if question is None or link.unsent:
            raise RemoteProtocolError(f"{link.address} sent {event!r:.200}, which nobody asked for")
        reply = question.reply
        try:
            if isinstance(event, TextLine) and reply is not None:
                if not reply.receive_line(event):
                    return
                self._answer(question, reply.value())
            elif isinstance(event, EchoRes) and reply is None:
                self._answer(question, now - question.sent_at)
            elif isinstance(event, Error) and reply is None:
                raise server_error(event)
            else:
                raise RemoteProtocolError(
                    f"{link.address} answered {question.name} with {event!r:.200}"
                )
        except ServerError as error:
            self._fail(question, error)
        link.asked = link.sent = None
        link.answered += 1
        self._ask_next(now)
