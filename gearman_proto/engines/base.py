"""What every engine has in common: its transport side (`Engine`), its links, its actions."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from gearman_proto.errors import ArgumentValueError, ConnectionError, LocalProtocolError
from gearman_proto.records import record

from .states import State, StateTable, turn
from .timers import Timers

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableSequence
    from types import TracebackType

    from gearman_proto.wire.connection import Connection

    from .waits import Wait

L = TypeVar("L")

# Bytes to write at a time.
_CHUNK_SIZE: Final = 256 * 1024
# Packets to write at a time, so that those that are to follow are not looked at again and again.
_CHUNK_PACKETS: Final = 8192

#: What a call of the caller's side raises that has changed nothing: it looks at what it was given
#: before it does anything.
REFUSALS: Final = (LocalProtocolError, ConnectionError)


class checking:  # noqa: N801 - used as a function is
    """In here, a call of the caller's side looks at what it was given; nothing has changed yet.

    Raises:
        ArgumentValueError: Something else than one of REFUSALS was raised: by a property of a
            request, say, which may be of a class of the application's.
    """

    # Not a generator: `BaseDriver` tells a refusal by all frames being those of engines.
    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, REFUSALS):
            raise ArgumentValueError(f"it can't be looked at: {type(error).__name__}") from error


@record(frozen=True)
class Connect:
    """Open a connection to `link.address`, then call `connected` or `connect_failed`.

    A link is one attempt to connect, and the connection it becomes; there is a new one each time.
    """

    #: The link, which has an `address`.
    link: Any
    #: Seconds after which the engine gives up.
    timeout: float


@record(frozen=True)
class Close:
    """Close the connection, or stop connecting. The engine knows already."""

    #: The link, as in its `Connect`.
    link: Any


@record(frozen=True)
class StopListening:
    """Take no more connections. Only a server's engine asks for that."""


#: What `next_action` returns.
Action: TypeAlias = "Connect | Close | StopListening"


class LinkState(State):
    """How far a link is. What is GONE stays so; the engine then ignores input for it."""

    WAITING = "the transport was not told to connect yet: the server is to cool down before"
    CONNECTING = "the transport is to connect, or to shake hands, and has not answered"
    OPEN = "bytes go both ways"
    ENDING = "nothing is taken from the peer any more; what is left for it is written"
    GONE = "closed, or lost"


# Looking members up in the class takes long before Python 3.12.
WAITING: Final = LinkState.WAITING
CONNECTING: Final = LinkState.CONNECTING
OPEN: Final = LinkState.OPEN
GONE: Final = LinkState.GONE

#: Only a server's links are ever ENDING, and they are CONNECTING only where they use TLS.
LINK_STATES: Final[StateTable[LinkState]] = {
    LinkState.WAITING: {
        LinkState.CONNECTING: "at once, or time",
        LinkState.GONE: "close",
    },
    LinkState.CONNECTING: {
        LinkState.OPEN: "connected",
        LinkState.GONE: "connect_failed, connect_timeout, close",
    },
    LinkState.OPEN: {
        LinkState.ENDING: "the peer's end of stream, or garbage; the server ends",
        LinkState.GONE: "connection_lost, receive_eof, garbage, close",
    },
    LinkState.ENDING: {LinkState.GONE: "all is written, or nothing has moved for five seconds"},
    LinkState.GONE: {LinkState.GONE: "crash, where a signal has hit its end"},
}


class Link:
    """One connection of an engine, or the attempt to make one.

    Attributes:
        connection: What its bytes mean.
        state: How far it is.
        behind: Whether bytes were received that the engine has not looked at yet.
        has_more: Whether `data_to_send` has to be called again once all is written.
    """

    __slots__ = ("behind", "connection", "has_more", "state")

    def __init__(self, connection: Connection, state: LinkState) -> None:
        self.connection: Connection = connection
        self.state: LinkState = state
        self.behind: bool = False
        self.has_more: bool = True

    def turn(self, state: LinkState) -> None:
        """Be in `state` from now on."""
        self.state = turn(LINK_STATES, self.state, state)

    @property
    def alive(self) -> bool:
        """Whether there still is a connection, or an attempt to make one."""
        return self.state is not GONE

    @property
    def is_up(self) -> bool:
        """Whether bytes go both ways."""
        return self.state is OPEN


def take_chunk(unsent: list[bytes | memoryview]) -> bytes:
    """Remove and return up to 256 KiB from the front of `unsent`, which is not empty.

    A larger packet goes in pieces, so that a slow peer can be told from one that does not read.
    """
    if len(unsent[0]) > _CHUNK_SIZE:
        # The rest is a view: a payload of a hundred megabytes is not copied for each piece.
        view = memoryview(unsent[0])
        unsent[0] = view[_CHUNK_SIZE:]
        return bytes(view[:_CHUNK_SIZE])
    if len(unsent) == 1:
        return bytes(unsent.pop())
    if len(unsent) <= _CHUNK_PACKETS and sum(map(len, unsent)) <= _CHUNK_SIZE:
        chunk = b"".join(unsent)
        unsent.clear()
        return chunk
    sizes = list(accumulate(map(len, unsent[:_CHUNK_PACKETS])))
    count = max(bisect_right(sizes, _CHUNK_SIZE), 1)
    chunk = b"".join(unsent[:count])
    del unsent[:count]
    return chunk


class Engine(Protocol[L]):
    """The transport side of an engine whose links are of type `L`: what its driver calls.

    A driver runs any engine with these calls and nothing else:

    * in: `connecting`, `connected`, `connect_failed`, `receive_data`, `receive_eof`,
      `connection_lost`, `handle_timeout`. None of them raises, whatever bytes arrive. Calls for a
      link that is no more are ignored.
    * out: after every call, of the caller's side too, `next_action` until it returns None and
      `data_to_send` for each of `links_to_write`, until it returns nothing or the socket takes no
      more; in the latter case again when it does; and `next_deadline` before it sleeps.
      `data_to_send` is a call like any other: there may be actions after it. A link whose socket
      has taken all of what it has returned need not be asked again while `link.has_more` is false.
    * for whoever waits: `release` in every case, when a call is over; `close` at the end.
    * optional: before `handle_timeout`, `measured` for each of `links_to_measure`. Without it, an
      engine can't see bytes leave the system's send queue, so it waits longer before it gives up
      a server to which it has just sent much (see `delivery`).

    A `link` is the one of a `Connect`, or the one that a server's `accept` has returned. While
    `link.behind` is true, the engine has something from that link that it has not looked at yet.
    Its driver reads no more from it until then, so that nothing piles up; `next_deadline` is in the
    past, so that `handle_timeout` is called as soon as all others have had their turn.

    Every call after which something may be different gets the time as `now`, in seconds of any
    clock that only goes forward. The engine keeps none.

    A call of an engine's caller's side that raises LocalProtocolError or ConnectionError has
    changed nothing. Any other exception out of an engine is a bug: the driver gives it to `crash`,
    so that nobody hangs.
    """

    @property
    def closed(self) -> bool:
        """Whether it has ended, by `close`, `abandon`, or of itself."""

    def connected(self, link: L, now: float) -> None:
        """The connection of `link` is open, its TLS handshake included."""

    def connecting(self, link: L, now: float) -> None:
        """Connecting `link` goes on: with another address, or with the TLS handshake.

        A driver that is not driven all the time has to call this; others need not.
        """

    def connect_failed(self, link: L, error: Exception, now: float) -> None:
        """The connection of `link` could not be opened, because of `error`."""

    def receive_data(self, link: L, data: bytes, now: float) -> None:
        """The bytes `data` have come on `link`."""

    def receive_eof(self, link: L, now: float) -> None:
        """The peer of `link` sends no more. It may still read: the engine says when to close."""

    def connection_lost(self, link: L, error: Exception, now: float) -> None:
        """The connection of `link` has ended, because of `error`."""

    def handle_timeout(self, now: float) -> None:
        """The time is `now`: do what is due."""

    def links_to_measure(self, now: float) -> Iterable[L]:
        """Return the open links whose peer is late, for `measured`."""

    def measured(self, link: L, unacknowledged: int) -> None:
        """Report how many bytes of `data_to_send` the peer's system has not acknowledged.

        They are those that the driver still holds, and those in the system's send queue. Leave the
        call out where the system can't tell, and where the other end of the socket is on this host:
        that may be a tunnel (stunnel, ssh), which acknowledges bytes that the peer does not have.
        """

    def next_action(self) -> Action | None:
        """The next thing to do with a connection, or None."""

    def links_to_write(self) -> Iterable[L]:
        """The links that may have something new to send since the last time."""

    def data_to_send(self, link: L, now: float) -> bytes:
        """Bytes to write on `link`, whose socket takes some now, or none."""

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is to be called next, or None."""

    def release(self, wait: Wait, now: float) -> None:
        """The caller of `wait`, which a call has returned, is not blocked any longer."""

    def close(self, now: float) -> None:
        """Close all connections, for good. Everybody who waits is woken."""

    def crash(self, error: Exception) -> None:
        """One of these calls raised, which is a bug: fail everybody who waits, with `error`."""

    def abandon(self, error: Exception) -> None:
        """Nobody will run this engine any more, as in the child of a fork; nobody is woken."""


class BaseEngine:
    """The actions and the deadlines of an engine, and their way out; what all engines share."""

    def __init__(self) -> None:
        # No deque, here and in links, where there are few: an empty one takes 760 bytes, not 56.
        self._actions: MutableSequence[Action] = []
        self._timers: Timers = Timers()

    def connecting(self, link: Any, now: float) -> None:
        """Connecting `link` goes on. Only engines that open connections have to know."""

    def next_action(self) -> Action | None:
        """The next thing to do with a connection, or None."""
        if not self._actions:
            return None
        action = self._actions[0]
        del self._actions[0]
        return action

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is to be called next, or None."""
        return self._timers.next_deadline()

    def handle_timeout(self, now: float) -> None:
        """It is `now`: whatever is due happens."""
        self._timers.expire(now)

    def _is_due(self, link: Link, now: float) -> bool:
        """Whether the timer of `link`, which is open, expires at `now`."""
        deadline = self._timers.deadline(link)
        return deadline is not None and deadline <= now
