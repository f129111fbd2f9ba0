"""What every engine has in common: its transport side.

An adapter's driver runs any engine with these calls and nothing else:

* in: `connected`, `connect_failed`, `receive_data`, `connection_lost`, `handle_timeout`. None of
  them raises, whatever bytes arrive. Calls for a link that is no more are ignored.
* out: after every call, of the caller's side too, `next_action` until it returns None and
  `data_to_send` for each of `links_to_write`, until it returns nothing or the socket takes no more;
  in the latter case again when it does; and `next_deadline` before it sleeps. `data_to_send` is a
  call like any other: there may be actions after it.

Times are seconds of any clock that only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

L = TypeVar("L")


@dataclass(frozen=True)
class Connect:
    """Open a connection to `link.address`, then call `connected` or `connect_failed`.

    A link is one attempt to connect, and the connection it becomes; there is a new one each time.
    """

    link: Any
    #: Seconds after which the engine gives up.
    timeout: float


@dataclass(frozen=True)
class Close:
    """Close the connection, or stop connecting. The engine knows already."""

    link: Any


@dataclass(frozen=True)
class StopListening:
    """Take no more connections. Only a server's engine asks for that."""


Action: TypeAlias = "Connect | Close | StopListening"


class Engine(Protocol[L]):
    """The transport side of an engine whose links are of type `L`."""

    def connected(self, link: L, now: float) -> None:
        """The connection is open."""

    def connect_failed(self, link: L, error: Exception, now: float) -> None:
        """It could not be opened."""

    def receive_data(self, link: L, data: bytes, now: float) -> None:
        """Bytes have come."""

    def connection_lost(self, link: L, error: Exception | None, now: float) -> None:
        """The connection has ended: by the peer (`error` is None), or by an error."""

    def handle_timeout(self, now: float) -> None:
        """Time has passed."""

    def next_action(self) -> Action | None:
        """The next thing to do with a connection, or None."""

    def links_to_write(self) -> Iterable[L]:
        """The open links that may have something new to send since the last time."""

    def data_to_send(self, link: L) -> bytes:
        """Bytes to write now that the socket takes them, or none."""

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is to be called next, or None."""

    def crash(self, error: Exception) -> None:
        """One of these calls raised, which is a bug: fail everybody who waits, with `error`."""
