"""The common parts of all engines: the transport side (`Engine`), links and actions."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar

from gearman_proto.records import record

from .states import State, StateTable, transition
from .timers import Timers

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableSequence

    from gearman_proto.wire.connection import Connection

    from .waits import Wait

L = TypeVar("L")

# Maximum number of bytes per write.
_CHUNK_SIZE: Final = 256 * 1024
_NO_NOTICES: Final = deque[str](maxlen=0)
# Maximum number of packets per write. Without it, each write would scan the whole backlog.
_CHUNK_PACKETS: Final = 8192


@record(frozen=True)
class Connect:
    """Open a connection to `link.address`, then call `connected` or `connect_failed`.

    A link is one attempt to connect and the resulting connection. Each attempt has a new link.
    """

    #: The link, which has an `address`.
    link: Any
    #: Connect timeout of the engine in seconds.
    timeout: float


@record(frozen=True)
class Close:
    """Close the connection of `link`, or stop connecting. The engine has already ended the link."""

    #: The link, from a `Connect` or a server's `accept`.
    link: Any


@record(frozen=True)
class StopListening:
    """Stop accepting connections. Only a server's engine returns this."""


#: An action that `next_action` can return.
Action: TypeAlias = "Connect | Close | StopListening"


class LinkState(State):
    """The state of a link. GONE is final: the engine ignores further input for the link."""

    WAITING = "waits for the end of the server's retry delay before it connects"
    CONNECTING = "the transport connects, or does the TLS handshake"
    OPEN = "bytes can flow both ways"
    ENDING = "input is ignored, and the remaining output is written"
    GONE = "closed or lost"


# Enum attribute lookup is slow before Python 3.12.
WAITING: Final = LinkState.WAITING
CONNECTING: Final = LinkState.CONNECTING
OPEN: Final = LinkState.OPEN
GONE: Final = LinkState.GONE

#: The ENDING state exists only for a server's links, which are CONNECTING only if they use TLS.
LINK_STATES: Final[StateTable[LinkState]] = {
    LinkState.WAITING: {
        LinkState.CONNECTING: "immediately, or at the end of the delay",
        LinkState.GONE: "close",
    },
    LinkState.CONNECTING: {
        LinkState.OPEN: "connected",
        LinkState.GONE: "connect_failed, connect_timeout, close",
    },
    LinkState.OPEN: {
        LinkState.ENDING: "end of the peer's stream, garbage, end of the server",
        LinkState.GONE: "connection_lost, receive_eof, garbage, close",
    },
    LinkState.ENDING: {
        LinkState.GONE: "all output is written, or no byte was accepted for five seconds"
    },
    LinkState.GONE: {},
}


class Link:
    """One connection of an engine, or the attempt to make one.

    Attributes:
        connection: The protocol state of the connection.
        state: The state of the link.
        has_backlog: True if the link has received bytes that the engine has not processed.
        has_more: False if the driver can skip `data_to_send` after it has written all bytes.
    """

    __slots__ = ("connection", "has_backlog", "has_more", "state")

    def __init__(self, connection: Connection, state: LinkState) -> None:
        self.connection: Connection = connection
        self.state: LinkState = state
        self.has_backlog: bool = False
        self.has_more: bool = True

    def transition(self, state: LinkState) -> None:
        """Change to `state`. LINK_STATES must allow the transition."""
        self.state = transition(LINK_STATES, self.state, state)

    @property
    def alive(self) -> bool:
        """True unless the connection, or the attempt to make one, has ended."""
        return self.state is not GONE

    @property
    def is_up(self) -> bool:
        """True if the connection is open in both directions."""
        return self.state is OPEN


def take_chunk(unsent: list[bytes | memoryview]) -> bytes:
    """Remove and return up to 256 KiB from the front of `unsent`, which is not empty.

    Return a larger packet in pieces, so that the engine can tell a slow peer from one that does
    not read.
    """
    if len(unsent[0]) > _CHUNK_SIZE:
        # The rest is a view, so that a payload of 100 MB is not copied for each piece.
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
    """The transport side of an engine whose links are of type `L`.

    A driver runs any engine with these calls and nothing else:

    * Input: `connecting`, `connected`, `connect_failed`, `receive_data`, `receive_eof`,
      `connection_lost` and `handle_timeout`. They never raise, whatever bytes arrive. The engine
      ignores calls for a closed link. After a `Close`, the driver stops reading from the socket.
    * Output: After every call, including those of the caller's side, the driver calls
      `next_action` until it returns None. It also calls `data_to_send` for each of
      `links_to_write` until that returns nothing or the socket's buffer is full. In the latter
      case it calls `data_to_send` again when the socket is writable. `data_to_send` can cause
      actions, as any other call. If the socket has accepted all bytes and `link.has_more` is
      false, the driver can skip the next `data_to_send`. Before the driver sleeps, it calls
      `next_deadline`.
    * Waits: `release` for every wait as soon as its caller stops waiting, and `close` at the end.
    * Optional: the driver logs the messages in `notices` as warnings, and removes them. It does so
      between its calls, as log handlers are code of the application.
    * Optional: `measured` for each of `links_to_measure`, before `handle_timeout`. Without it, an
      engine can't see bytes leave the system's send queue, so after a large write it waits longer
      before it disconnects a server (see `delivery`).

    A driver gets each `link` from a `Connect`, or from a server's `accept`. The engine has
    unprocessed data from a link while `link.has_backlog` is true. Meanwhile, the driver must not
    read from the link, so that the backlog does not grow. `next_deadline` is then in the past, so
    the driver calls `handle_timeout` as soon as it has served the other links.

    Every call that can change the engine gets the time as `now`, in seconds of any monotonic
    clock. The engine has no clock of its own. The calls of the caller's side get it first, those
    of the transport side last.

    A call that waits returns a Wait. If the engine refuses the call, for example because it is
    closed, the Wait is done at once and `raise_error` raises the reason. The call has no effect.

    Any exception from an engine is a bug or a signal handler's. It leaves the engine in an unknown
    state, so the driver does not use the engine any further. It calls `abandon`, calls `wake` of
    the returned Waits, closes all connections, and makes a new engine unless the old one is
    `closed`. (A server's engine is closed then: a new one would have lost the jobs.) The driver
    does the same in the child of a fork, except that it does not call `wake`.

    `gearman_proto.testing.StrictEngine` finds a driver's violations of these rules.
    """

    @property
    def closed(self) -> bool:
        """True if the engine has ended, by `close` or on its own, so it needs no successor."""

    @property
    def notices(self) -> deque[str]:
        """Messages for the driver to log, oldest first."""

    def connected(self, link: L, now: float) -> None:
        """Report that the connection of `link` is open, including its TLS handshake."""

    def connecting(self, link: L, now: float) -> None:
        """Report that connecting `link` has moved on to another address or the TLS handshake.

        Only a driver that does not run all the time has to call this.
        """

    def connect_failed(self, link: L, error: Exception, now: float) -> None:
        """Report that connecting `link` failed with `error`."""

    def receive_data(self, link: L, data: bytes, now: float) -> None:
        """Process the bytes `data`, received on `link`."""

    def receive_eof(self, link: L, now: float) -> None:
        """Process the end of the stream that the peer of `link` sends.

        The peer might still read. The engine says when to close the connection.
        """

    def connection_lost(self, link: L, error: Exception, now: float) -> None:
        """Report that the connection of `link` was lost because of `error`."""

    def handle_timeout(self, now: float) -> None:
        """Process the deadlines that have passed at `now`."""

    def links_to_measure(self, now: float) -> Iterable[L]:
        """Return the open links whose peer is late, for `measured`."""

    def measured(self, link: L, unacknowledged: int) -> None:
        """Report the number of bytes of `data_to_send` that the peer's system has not acknowledged.

        Count the bytes that the driver still holds and those in the system's send queue. Skip the
        call if the system can't tell, or if the other end of the socket is on this host. That end
        might be a tunnel (stunnel, ssh), which acknowledges bytes that the peer does not have.
        """

    def next_action(self) -> Action | None:
        """Return the next action for the driver, or None."""

    def links_to_write(self) -> Iterable[L]:
        """Return the links that might have new data to send since the last call."""

    def data_to_send(self, link: L, now: float) -> bytes:
        """Return bytes to write on `link`, whose socket is writable, or b""."""

    def next_deadline(self) -> float | None:
        """Return the time for the next call of `handle_timeout`, or None."""

    def release(self, wait: Wait, now: float) -> None:
        """Release `wait`, whose caller no longer blocks."""

    def close(self, now: float) -> None:
        """Close all connections permanently, and wake all waiting callers."""

    def abandon(self, error: Exception) -> list[Wait]:
        """End all calls and requests, from any state, for an engine that will not run again.

        Args:
            error: The reason. The calls raise it.

        Returns:
            The Waits of all calls. They are done, but `abandon` does not wake their callers. If a
            call of `abandon` was interrupted, a second one returns all Waits again.
        """


class BaseEngine:
    """The pending actions, the deadlines, and the waiting calls that every engine has."""

    #: Messages for the driver to log, oldest first.
    notices: deque[str] = _NO_NOTICES

    def __init__(self) -> None:
        #: True if `abandon` was called. Requests of this engine are lost.
        self.is_abandoned: bool = False
        # A list, because an empty deque takes 760 bytes instead of 56, and there are few actions.
        self._actions: MutableSequence[Action] = []
        self._timers: Timers = Timers()
        # The Waits of calls that block or are about to block.
        self._waits: set[Any] = set()

    def share(self, other: BaseEngine) -> None:
        """Let `other`, whose links this engine runs, use this engine's actions and deadlines."""
        other._actions, other._timers = self._actions, self._timers

    def connecting(self, link: Any, now: float) -> None:
        """Ignore the progress of `link`. Engines that open connections override this."""

    def next_action(self) -> Action | None:
        """Return the next action for the driver, or None."""
        if not self._actions:
            return None
        action = self._actions[0]
        del self._actions[0]
        return action

    def next_deadline(self) -> float | None:
        """Return the time for the next call of `handle_timeout`, or None."""
        return self._timers.next_deadline()

    def handle_timeout(self, now: float) -> None:
        """Run the callbacks of the deadlines that have passed at `now`."""
        self._timers.expire(now)

    def abandon(self, error: Exception) -> list[Wait]:
        """End all calls, from any state. See `Engine.abandon`."""
        self.is_abandoned = True
        self._timers.clear()
        self._actions.clear()
        for link in self._links():
            link.state = GONE
        waits: list[Wait] = list(self._waits)
        for wait in waits:
            if not wait.done:
                wait.note(error)
                wait.done = True
        return waits

    @abstractmethod
    def _links(self) -> list[Any]:
        """Return all live links."""

    def _is_due(self, link: Any, now: float) -> bool:
        """Return True if the deadline of `link`, which is open, has passed at `now`."""
        deadline = self._timers.deadline(link)
        return deadline is not None and deadline <= now
