"""The common base of the engines that open connections: client, worker and admin client.

A link passes through these states of LinkState: WAITING, CONNECTING, OPEN, GONE. The engine calls
`_lost` for every link that ends: refused, reset, timed out, closed by either side, or broken
by a protocol error.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from gearman_proto import constants
from gearman_proto.checks import check_seconds
from gearman_proto.errors import ConnectionError, RemoteProtocolError, ServerError
from gearman_proto.names import to_text
from gearman_proto.tls import connect_timeout
from gearman_proto.wire.connection import Connection

from .base import BaseEngine, Close, Connect, Link, LinkState
from .delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gearman_proto.address import ServerAddress
    from gearman_proto.wire.packets import Error, Role

    from .servers import Server

# If a connection has lasted this many seconds, its loss starts a new count of failures.
_LASTING: Final = 5.0


class OutgoingLink(Link):
    """One connection to a server, or the attempt to make one.

    Args:
        server: The server.
        role: The role of this end.
        max_packet_size: Size limit of a packet in bytes; see Connection.
    """

    __slots__ = ("connect_by", "delivery", "opened_at", "server")

    def __init__(self, server: Server, role: Role, max_packet_size: int) -> None:
        super().__init__(Connection(role, max_packet_size=max_packet_size), LinkState.WAITING)
        self.server: Server = server
        #: When the connect timeout expires, in the engine's time.
        self.connect_by: float = math.inf
        #: When the connection opened, in the engine's time.
        self.opened_at: float = math.inf
        #: Progress of the sent bytes.
        self.delivery: Delivery = Delivery()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self.address}, {self.state.name.lower()}>"

    @property
    def address(self) -> ServerAddress:
        """The address of the server."""
        return self.server.address

    def has_lasted(self, now: float) -> bool:
        """Return True if the server has answered and kept the connection for some seconds."""
        return self.server.error is None and now - self.opened_at >= _LASTING


L = TypeVar("L", bound=OutgoingLink)


def server_error(event: Error) -> ServerError:
    """Return the exception for an ERROR packet. Some servers append a NUL to its text."""
    return ServerError(to_text(event.code), to_text(event.text.rstrip(b"\0")))


class ConnectingEngine(BaseEngine, Generic[L]):
    """The base of engines that open connections.

    Args:
        connect_timeout: Seconds to wait for a connection.

    Raises:
        TypeError: `connect_timeout` is not a number.
        ValueError: `connect_timeout` is less than a millisecond.
    """

    def __init__(self, connect_timeout: float) -> None:
        super().__init__()
        self._connect_timeout = check_seconds(
            "connect_timeout", connect_timeout, constants.MIN_CONNECT_TIMEOUT
        )

    def connected(self, link: L, now: float) -> None:
        """Note that the connection of `link` is open."""
        if link.state is LinkState.CONNECTING:
            self._timers.cancel(link)
            link.transition(LinkState.OPEN)
            link.opened_at = now
            self._opened(link, now)

    def connecting(self, link: L, now: float) -> None:
        """Note that connecting `link` has moved on to another address or the TLS handshake.

        If the connect timeout has already passed, the driver was not running: a blocking client
        runs only during its calls. The timeout then restarts. A link tries each address once, so it
        gets a limited number of restarts.
        """
        if link.state is LinkState.CONNECTING and now >= link.connect_by:
            self._set_connect_timer(link, now)

    def connect_failed(self, link: L, error: Exception, now: float) -> None:
        """End `link`, which could not be opened."""
        if link.alive:
            self._lost(link, error, now)

    def receive_eof(self, link: L, now: float) -> None:
        """End `link`, whose server has closed its side of the connection."""
        if not link.alive:
            return
        error = ConnectionError("the server closed the connection")
        link.connection.receive_eof()
        try:
            link.connection.next_event()
        except RemoteProtocolError as torn:
            error = ConnectionError(f"the server closed the connection: {torn}")
        self._close(link, error, now)

    def connection_lost(self, link: L, error: Exception, now: float) -> None:
        """End `link`, whose connection was lost because of `error`."""
        if link.alive:
            self._lost(link, error, now)

    def links_to_measure(self, now: float) -> Iterable[L]:
        """Return the open links whose server is late, for `measured`."""
        return [link for link in self._links() if link.is_up and self._is_due(link, now)]

    def measured(self, link: L, unacknowledged: int) -> None:
        """Report the number of handed-over bytes that the peer's system has not acknowledged."""
        link.delivery.measured(unacknowledged)

    def disconnect(self, now: float, server: Server) -> None:
        """Close the connection to `server`, if any, with the effects of a lost connection."""
        if server.link is not None:
            self._close(server.link, ConnectionError("it was closed by the application"), now)

    def _connect(self, link: L, now: float, *, at: float = 0.0) -> None:
        """Start to open `link`, which is new, at the time `at`, or now if `at` has passed."""
        link.server.link = link
        if at > now:
            self._timers.set(link, at, self._begin)
        else:
            self._begin(link, now)

    def _begin(self, link: L, now: float) -> None:
        """Ask the transport to connect `link`, which is WAITING."""
        link.transition(LinkState.CONNECTING)
        self._actions.append(Connect(link, self._connect_timeout))
        self._set_connect_timer(link, now)

    def _set_connect_timer(self, link: L, now: float) -> None:
        link.connect_by = now + self._connect_timeout
        self._timers.set(link, link.connect_by, self._on_connect_timeout)

    def _on_connect_timeout(self, link: L, now: float) -> None:
        self._actions.append(Close(link))
        self._lost(link, connect_timeout(link.address, self._connect_timeout), now)

    def _close(self, link: L, error: Exception, now: float) -> None:
        """Close `link` from this side."""
        if link.alive:
            self._tell_close(link)
            self._lost(link, error, now)

    def _tell_close(self, link: L) -> None:
        """Ask the transport to close `link`, which is alive, unless it is still WAITING."""
        if link.state is not LinkState.WAITING:
            self._actions.append(Close(link))

    def _drop(self, link: L) -> None:
        """Detach `link`, which has ended, from its server, and cancel its timer."""
        link.transition(LinkState.GONE)
        link.server.link = None
        self._timers.cancel(link)

    @abstractmethod
    def _opened(self, link: L, now: float) -> None:
        """Handle the change of `link` to OPEN."""

    @abstractmethod
    def _lost(self, link: L, error: Exception, now: float) -> None:
        """Handle the end of `link`, caused by `error`. The transport needs no further action."""
