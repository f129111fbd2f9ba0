"""What a driver waits for: a selector, the sockets in it, and what wakes who sleeps in it.

It knows sockets and what they are registered for, and nothing of engines. The driver's lock guards
it, but for `select`, in which the leader sleeps without the lock, and `waker`. Registering while
another thread polls is allowed on Linux and BSD, and elsewhere the wake-up makes it count.
"""

from __future__ import annotations

import errno
import logging
import math
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.engines.driving import LISTEN_AGAIN
from gearman_proto.records import record

from ._selector import READ, Selector
from ._waker import CLOSED, Waker

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator

    from ._transport import Transport
    from ._waker import ClosedWaker, EventWaker, PairWaker

logger: Final = logging.getLogger("gearman")

# Connections to accept at a time.
_ACCEPTS: Final = 64
_NO_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@record(eq=False)
class Listener:
    """A socket that listens, what makes a link of a connection that has come, and for TLS."""

    sock: socket.socket
    accept: Callable[[Any, str, int, float], Any]
    context: ssl.SSLContext | None


class Poller:
    """The sockets of a driver.

    Attributes:
        transports: The connections, by link.
        connecting: The links whose transports are being connected.
        touched: The links whose transports may wait for something else than before.
        selector: Its `select` sleeps until a socket is ready, or `waker` has woken it, whose `data`
            in it is None.
    """

    def __init__(self) -> None:
        self.transports: dict[Any, Transport] = {}
        self.connecting: set[Any] = set()
        self.touched: set[Any] = set()
        self.selector = Selector()
        # File descriptor -> the events it is registered for.
        self._interests: dict[int, int] = {}
        self._listeners: list[Listener] = []
        # When to listen again, after there were too many open files; else infinity.
        self._listen_at = math.inf
        waker = Waker()
        self.waker: EventWaker | PairWaker | ClosedWaker = waker
        self._waker_fd = waker.fileno()
        self.selector.register(self._waker_fd, READ, None)

    def next_deadline(self) -> float:
        """When a transport is to give up an address, or `resume_listening` is due."""
        first = self._listen_at
        for link in self.connecting:
            deadline = self.transports[link].deadline
            if deadline is not None and deadline < first:
                first = deadline
        return first

    # Connections.

    def add(self, link: Any, transport: Transport) -> None:
        """Have the transport of a new link."""
        self.transports[link] = transport
        self.touched.add(link)

    def refresh(self) -> bool:
        """Wait for what the transports wait for. Returns whether any of that is new."""
        changed = False
        for link in self.touched:
            transport = self.transports.get(link)
            if transport is not None:
                changed |= self._set_interest(link, transport, transport.interest)
        self.touched.clear()
        return changed

    def suspend(self, link: Any) -> None:
        """Wait for nothing of `link` until `refresh`: its socket may be closed before."""
        self._set_interest(link, self.transports[link], 0)
        self.touched.add(link)

    def _set_interest(self, link: Any, transport: Transport, interest: int) -> bool:
        """Wait for these events, or none. Returns whether that is new."""
        if transport.sock is None:
            return False
        fd = transport.sock.fileno()
        before = self._interests.get(fd, 0)
        if interest == before:
            return False
        if not interest:
            self.selector.unregister(fd)
        elif before:
            self.selector.modify(fd, interest)
        else:
            self.selector.register(fd, interest, link)
        self._interests[fd] = interest
        return True

    def forget(self, link: Any) -> None:
        """Close the transport of `link`, if it has one."""
        transport = self.transports.get(link)
        if transport is not None:
            # Before the socket is closed: its number may then be another's.
            self._set_interest(link, transport, 0)
            transport.close()
            # At last: `renew` has to find one that a signal's exception has left open.
            del self.transports[link]
            self.connecting.discard(link)

    # Listening.

    def listen(self, listener: Listener) -> None:
        """Take connections from `listener`."""
        self._listeners.append(listener)
        self.selector.register(listener.sock.fileno(), READ, listener)

    def accept(self, listener: Listener, now: float) -> Iterator[tuple[socket.socket, Any]]:
        """The connections that have come, some at a time, and the addresses of their other ends."""
        if listener.sock.fileno() < 0:
            return  # Closed since the selector returned.
        for _ in range(_ACCEPTS):
            try:
                accepted = listener.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_RESOURCES:
                    # The connection stays in the queue, and the selector would not sleep.
                    logger.warning("no connection can be accepted: %s", error)
                    self._pause_listening(now)
                return
            yield accepted

    def _pause_listening(self, now: float) -> None:
        self._listen_at = now + LISTEN_AGAIN
        for listener in self._listeners:
            self.selector.unregister(listener.sock.fileno())

    def resume_listening(self, now: float) -> None:
        """Listen again if it is time to."""
        if self._listen_at <= now:
            self._listen_at = math.inf
            for listener in self._listeners:
                self.selector.register(listener.sock.fileno(), READ, listener)

    def stop_listening(self) -> None:
        """Take no more connections."""
        for listener in self._listeners:
            if self._listen_at == math.inf:
                self.selector.unregister(listener.sock.fileno())
            listener.sock.close()
        self._listeners.clear()
        self._listen_at = math.inf

    # The end.

    def renew(self, *, asleep: bool) -> None:
        """Close all connections, and take a new selector: nobody knows what is in the old one.

        A signal's exception may have come between what the selector knows and what the system
        does, or this. It may also come within this, which is then done again.

        Args:
            asleep: Whether somebody sleeps in the old one, who has to be woken, and closes it.
        """
        for transport in self.transports.values():
            transport.close()
        self.transports.clear()
        self.connecting.clear()
        self.touched.clear()
        self._interests.clear()
        if not self.is_open:
            return
        old, self.selector = self.selector, Selector()
        if not asleep:
            old.close()
        self.selector.register(self._waker_fd, READ, None)
        for listener in self._listeners:
            if self._listen_at == math.inf:
                self.selector.register(listener.sock.fileno(), READ, listener)

    @property
    def is_open(self) -> bool:
        """Whether `close` was not called yet."""
        return not self.waker.closed

    def close(self) -> None:
        """Close everything that has a file descriptor."""
        opened: list[Any] = [*self.transports.values(), *(each.sock for each in self._listeners)]
        for each in (*opened, self.selector):
            each.close()
        self.waker = CLOSED
        self.transports.clear()
        self.connecting.clear()
        self._listeners.clear()
        self._interests.clear()
