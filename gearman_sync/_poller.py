"""What a driver waits for: a selector, the sockets in it, and a pair of these to wake who sleeps.

It knows sockets and what they are registered for, and nothing of engines. The driver's lock guards
it, but for `select`, in which the leader sleeps without the lock, and `wake`. Registering while
another thread polls is allowed on Linux and BSD, and elsewhere the wake-up makes it count.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._transport import Transport

logger: Final = logging.getLogger("gearman")

# Connections to accept at a time, and seconds after which to try again when there was no room.
_ACCEPTS: Final = 64
_LISTEN_AGAIN: Final = 0.5
_NO_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(eq=False)
class Listener:
    """A socket that listens, and what makes a link of a connection that has come."""

    sock: socket.socket
    accept: Callable[[Any, str, int, float], Any]


class Poller:
    """The sockets of a driver.

    Attributes:
        transports: The connections, by link.
        connecting: The links whose transports are being connected.
    """

    def __init__(self) -> None:
        self.transports: dict[Any, Transport] = {}
        self.connecting: set[Any] = set()
        self._selector = selectors.DefaultSelector()
        # File descriptor -> the events it is registered for.
        self._interests: dict[int, int] = {}
        # Links whose transport may wait for something else than before.
        self._touched: set[Any] = set()
        self._listeners: list[Listener] = []
        # When to listen again, after there were too many open files.
        self._listen_at: float | None = None
        self._wakeup, self._waker = socket.socketpair()
        self._wakeup.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, None)

    # Sleeping and waking.

    def select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        """Sleep until a socket is ready, and return which; the `data` of the pair's is None."""
        return self._selector.select(timeout)

    def wake(self) -> None:
        """End the sleep in `select`, or else the next one. This never blocks."""
        # A full pipe, or one that is closed, has nobody to wake.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def drain_wakeup(self) -> None:
        """Somebody was woken."""
        with contextlib.suppress(OSError):
            self._wakeup.recv(4096)

    def next_deadline(self) -> float | None:
        """When `overdue` or `resume_listening` is to be called next, or None."""
        deadlines = [self._listen_at]
        deadlines += [self.transports[link].deadline for link in self.connecting]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # Connections.

    def add(self, link: Any, transport: Transport) -> None:
        """Have the transport of a new link."""
        self.transports[link] = transport
        self._touched.add(link)

    def touch(self, link: Any) -> None:
        """The transport of `link` may wait for something else than before."""
        self._touched.add(link)

    def refresh(self) -> bool:
        """Wait for what the transports wait for. Returns whether any of that is new."""
        changed = False
        for link in self._touched:
            transport = self.transports.get(link)
            if transport is not None:
                changed |= self._register(link, transport)
        self._touched.clear()
        return changed

    def _register(self, link: Any, transport: Transport) -> bool:
        """Wait for what `transport` waits for. Returns whether that is new."""
        if transport.sock is None:
            return False
        fd = transport.sock.fileno()
        before, interest = self._interests.get(fd, 0), transport.interest
        if interest == before:
            return False
        if not interest:
            self.suspend(transport)
            return True
        if before:
            self._selector.modify(fd, interest, link)
        else:
            self._selector.register(fd, interest, link)
        self._interests[fd] = interest
        return True

    def suspend(self, transport: Transport) -> None:
        """Stop waiting for `transport`. It has to happen before its socket is closed."""
        if transport.sock is not None:
            fd = transport.sock.fileno()
            if self._interests.pop(fd, None) is not None:
                self._selector.unregister(fd)

    def forget(self, link: Any) -> None:
        """Close the transport of `link`, if it has one."""
        transport = self.transports.pop(link, None)
        self.connecting.discard(link)
        if transport is not None:
            self.suspend(transport)
            transport.close()

    def overdue(self, now: float) -> Iterator[tuple[Any, Transport]]:
        """The transports that have tried to connect to one address for too long."""
        for link in list(self.connecting):
            transport = self.transports[link]
            if transport.deadline is not None and transport.deadline <= now:
                yield link, transport

    # Listening.

    def listen(self, listener: Listener) -> None:
        """Take connections from `listener`."""
        self._listeners.append(listener)
        self._selector.register(listener.sock, selectors.EVENT_READ, listener)

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
        self._listen_at = now + _LISTEN_AGAIN
        for listener in self._listeners:
            self._selector.unregister(listener.sock)

    def resume_listening(self, now: float) -> None:
        """Listen again if it is time to."""
        if self._listen_at is not None and self._listen_at <= now:
            self._listen_at = None
            for listener in self._listeners:
                self._selector.register(listener.sock, selectors.EVENT_READ, listener)

    def stop_listening(self) -> None:
        """Take no more connections."""
        for listener in self._listeners:
            if self._listen_at is None:
                self._selector.unregister(listener.sock)
            listener.sock.close()
        self._listeners.clear()
        self._listen_at = None

    # The end.

    @property
    def is_open(self) -> bool:
        """Whether `close` was not called yet."""
        return self._waker.fileno() >= 0

    def close(self) -> None:
        """Close everything that has a file descriptor."""
        for transport in self.transports.values():
            transport.close()
        for listener in self._listeners:
            listener.sock.close()
        self.transports.clear()
        self.connecting.clear()
        self._listeners.clear()
        self._interests.clear()
        self._selector.close()
        self._wakeup.close()
        self._waker.close()
