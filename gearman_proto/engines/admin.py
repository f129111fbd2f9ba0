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
from gearman_proto.deadlines import deadline_of
from gearman_proto.errors import (
    ConnectionError,
    InvalidAdminClientState,
    RemoteProtocolError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.names import to_text
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.events import EchoReq, EchoRes, Error, TextLine
from gearman_proto.wire.packets import Role
from gearman_proto.wire.text import DEFAULT_MAX_REPLY_SIZE, Command, Reply

from .base import Action, Close, Connect
from .pool import Server
from .timers import Timers
from .waits import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from gearman_proto.address import ServerAddress
    from gearman_proto.wire.events import Event

T = TypeVar("T")

#: Seconds to wait for an answer unless told otherwise (python-gearman).
DEFAULT_POLL_TIMEOUT: Final = 10.0

_ECHO: Final = b"gearman-sansio ping"

# A time that has come, whatever the clock shows.
_AT_ONCE: Final = float("-inf")


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
        super().__init__((), deadline, wake)
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

    def fail(self, error: Exception) -> None:
        """There will be no answer."""
        self.request_failed(error)
        self.finish()


class AdminLink:
    """One connection to the server, or the attempt to make one."""

    __slots__ = ("alive", "asked", "connection", "is_up", "server", "unsent", "used")

    def __init__(self, server: Server, max_packet_size: int) -> None:
        self.server: Server = server
        self.connection: Connection = Connection(Role.CLIENT, max_packet_size=max_packet_size)
        #: Whether the engine still wants to hear of it.
        self.alive: bool = True
        #: Whether it is open.
        self.is_up: bool = False
        #: The question under way, and whether it is still to be sent.
        self.asked: Question[Any] | None = None
        self.unsent: bool = False
        #: Whether a question was answered.
        self.used: bool = False

    def __repr__(self) -> str:
        return f"<AdminLink to {self.address}>"

    @property
    def address(self) -> ServerAddress:
        """Where it goes to."""
        return self.server.address


class AdminEngine:
    """Everything that an admin client decides.

    See `engine` for the transport side. The caller's side: `ask` and `ping` return a Question, a
    Wait. The caller blocks until it is `ready`, calls `release` in every case (also when it gives
    up early), and then reads its `value`.

    Args:
        addresses: The server.
        connect_timeout: Seconds to wait for a connection.
        max_reply_size: Bytes. A server that sends a larger reply is disconnected.

    Raises:
        ValueError: There is not exactly one server, or `connect_timeout` is not more than 0.
    """

    def __init__(
        self,
        addresses: Collection[ServerAddress],
        *,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_reply_size: int = DEFAULT_MAX_REPLY_SIZE,
    ) -> None:
        if not connect_timeout > 0:
            raise ValueError(f"connect_timeout is {connect_timeout}: it must be more than 0")
        if len(addresses) != 1:
            raise ValueError(f"an admin client has one server, not {len(addresses)}")
        self.server: Server = Server(*addresses)
        #: Whether `close` was called.
        self.closed: bool = False
        self._connect_timeout = connect_timeout
        self._max_reply_size = max_reply_size
        self._link: AdminLink | None = None
        # What was not asked yet. Those that nobody waits for any more are passed over.
        self._queue: deque[Question[Any]] = deque()
        # The questions that somebody waits for.
        self._held: set[Question[Any]] = set()
        self._timers = Timers()
        self._actions: deque[Action] = deque()

    # The caller's side.

    def ask(
        self,
        command: Command[T],
        now: float,
        wake: Callable[[], Any],
        *,
        timeout: float | None = DEFAULT_POLL_TIMEOUT,
    ) -> Question[T]:
        """Send a command.

        Args:
            command: One of those in `admin`.
            now: The time.
            wake: Called once, when the question is done.
            timeout: Seconds to wait at most, or None; see `waits.to_seconds`.

        Raises:
            InvalidAdminClientState: The engine is closed.
            TypeError, ValueError: `timeout` is no number.
        """
        deadline = deadline_of(now, timeout)
        return self._ask(Question(command, self._max_reply_size, deadline, wake), now)

    def ping(
        self,
        now: float,
        wake: Callable[[], Any],
        *,
        timeout: float | None = DEFAULT_POLL_TIMEOUT,
    ) -> Question[float]:
        """Send ECHO_REQ. The answer is the seconds until ECHO_RES. Arguments as for `ask`."""
        return self._ask(Question(None, 0, deadline_of(now, timeout), wake), now)

    def release(self, question: Wait) -> None:
        """Nobody waits for `question` any more, for whatever reason.

        If it was under way, call `handle_timeout` when `next_deadline` says so: at once, if others
        wait behind it.
        """
        assert isinstance(question, Question)
        self._held.discard(question)
        if self._link is None or self._link.asked is not question:
            self._timers.cancel(question)
        elif self._is_wanted():
            self._timers.set(question, _AT_ONCE)

    def close(self, now: float) -> None:
        """Close the connection. Nothing can be asked afterwards."""
        self.closed = True
        self._give_up(InvalidAdminClientState("this admin client has been shut down"))

    def crash(self, error: Exception) -> None:
        """One of the calls raised, which is a bug: fail everybody who waits, with `error`."""
        self._give_up(error)

    def abandon(self, error: Exception) -> None:
        """Nobody will run this engine any more, as in the child of a fork; nobody is woken."""
        self.closed = True
        for question in self._held:
            question.done = True
        self._give_up(error)
        self._actions.clear()

    # The transport side, in.

    def connected(self, link: AdminLink, now: float) -> None:
        """`link` is open."""
        if not link.alive:
            return
        self._timers.cancel(link)
        link.is_up = True
        self._ask_next(now)

    def connect_failed(self, link: AdminLink, error: Exception, now: float) -> None:
        """`link` could not be opened."""
        if link.alive:
            self._unreachable(link, error, close=False)

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
            self._lost(link, error, now, close=True)

    def connection_lost(self, link: AdminLink, error: Exception | None, now: float) -> None:
        """`link` has ended: by an error, or by the server if that is None."""
        if not link.alive:
            return
        reason = error or ConnectionError("the server closed the connection")
        unanswered = ServerUnavailable(f"{link.address} did not answer: {reason}")
        self._lost(link, unanswered, now, close=False)

    def handle_timeout(self, now: float) -> None:
        """It is `now`."""
        while (expired := self._timers.pop_expired(now)) is not None:
            if isinstance(expired, AdminLink):
                reason = TimeoutError(f"no connection within {self._connect_timeout:g} seconds")
                self._unreachable(expired, reason, close=True)
            else:
                self._expire(expired)
        if self._link is None:
            self._go_on(now)

    # The transport side, out.

    def next_action(self) -> Action | None:
        """The next thing to do with a connection, or None."""
        return self._actions.popleft() if self._actions else None

    def links_to_write(self) -> Iterable[AdminLink]:
        """The open link, if there is something to send."""
        return [self._link] if self._link is not None and self._link.unsent else []

    def data_to_send(self, link: AdminLink) -> bytes:
        """Bytes to write on `link` now, or none."""
        if not link.unsent or link.asked is None:
            return b""
        link.unsent = False
        return link.connection.send(link.asked.event)

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is to be called next, or None."""
        return self._timers.next_deadline()

    # Questions.

    def _ask(self, question: Question[T], now: float) -> Question[T]:
        if self.closed:
            raise InvalidAdminClientState("this admin client has been shut down")
        link = self._link
        if link is not None and link.asked is not None and link.asked not in self._held:
            # Whoever asked that did not wait for its reply, and nobody else has to.
            asked = self._drop(link, close=True)
            self._timers.cancel(asked)
        self._held.add(question)
        self._queue.append(question)
        if question.deadline is not None:
            self._timers.set(question, question.deadline)
        if self._link is None:
            self._connect(now)
        else:
            self._ask_next(now)
        return question

    def _ask_next(self, now: float) -> None:
        """Ask what has waited longest, if nothing is under way."""
        link = self._link
        if link is not None and link.is_up and link.asked is None and self._is_wanted():
            link.asked = self._queue.popleft()
            link.asked.sent_at = now
            link.unsent = True

    def _is_wanted(self) -> bool:
        """Whether there is something to ask; it is the first in the queue then."""
        while self._queue and self._queue[0] not in self._held:
            self._queue.popleft()
        return bool(self._queue)

    def _answer(self, question: Question[T], value: T) -> None:
        self._forget(question)
        question.answer(value)

    def _fail(self, question: Question[Any], error: Exception) -> None:
        self._forget(question)
        question.fail(error)

    def _forget(self, question: Question[Any]) -> None:
        self._timers.cancel(question)
        self._held.discard(question)

    def _expire(self, question: Question[Any]) -> None:
        link = self._link
        question.timed_out = True
        if link is not None and not link.is_up:
            self._fail(question, self._unavailable("there was no connection in time"))
            return
        message = f"{self.server.address} did not answer {question.name} in time"
        self._fail(question, InvalidAdminClientState(message))
        if link is not None and link.asked is question:
            self._drop(link, close=True)

    # The link.

    def _connect(self, now: float) -> None:
        link = AdminLink(self.server, self._max_reply_size)
        self._link = self.server.link = link
        self._actions.append(Connect(link, self._connect_timeout))
        self._timers.set(link, now + self._connect_timeout)

    def _go_on(self, now: float) -> None:
        """Without a link: connect again, if there is something to ask."""
        if self._is_wanted():
            self._connect(now)

    def _drop(self, link: AdminLink, *, close: bool) -> Question[Any] | None:
        """Forget `link`. Returns the question that was under way."""
        if close:
            self._actions.append(Close(link))
        self._timers.cancel(link)
        self._link = self.server.link = None
        link.alive = link.is_up = link.unsent = False
        asked, link.asked = link.asked, None
        return asked

    def _lost(self, link: AdminLink, error: Exception, now: float, *, close: bool) -> None:
        """`link` is no more, because of `error`."""
        is_of_another = link.unsent and link.used
        asked = self._drop(link, close=close)
        if is_of_another and asked in self._held:
            self._queue.appendleft(asked)
        elif asked is not None:
            self._fail(asked, error)
        self._go_on(now)

    def _unreachable(self, link: AdminLink, error: Exception, *, close: bool) -> None:
        """There is no connection to be had: all who want one get to know."""
        self._drop(link, close=close)
        while self._is_wanted():
            self._fail(self._queue.popleft(), self._unavailable(error))

    def _unavailable(self, reason: object) -> ServerUnavailable:
        return ServerUnavailable(f"no server could be reached: {self.server.address} ({reason})")

    def _give_up(self, error: Exception) -> None:
        if self._link is not None:
            asked = self._drop(self._link, close=True)
            self._timers.cancel(asked)
        self._queue.clear()
        for question in list(self._held):
            self._fail(question, error)

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
                raise ServerError(to_text(event.code), to_text(event.text))
            else:
                raise RemoteProtocolError(
                    f"{link.address} answered {question.name} with {event!r:.200}"
                )
        except ServerError as error:
            self._fail(question, error)
        link.asked = None
        link.used = True
        self._ask_next(now)
