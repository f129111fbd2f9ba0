"""What a driver waits for: a selector, the sockets in it, and what wakes who sleeps in it.

It knows sockets and what they are registered for, and nothing of engines. The driver's lock guards
it, but for `select`, in which the leader sleeps without the lock, and `waker`. Registering while
another thread polls is allowed on Linux and BSD, and elsewhere the wake-up makes it count.

Nothing is opened before it is used: programs make clients and workers, and then become daemons,
which close all descriptors. A program that does so later closes descriptors that are in use, and
their numbers become those of its own files. System calls then fail. Before the poller closes a
descriptor, and after an error, `check` compares the waker's inodes. They stand for all other
descriptors. If they have changed, `abandon` drops everything without closing it.
"""

from __future__ import annotations

import errno
import logging
import math
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.engines.driving import LISTEN_AGAIN
from gearman_proto.errors import ConnectionError
from gearman_proto.records import record

from ._selector import READ, Selector
from ._transport import end
from ._waker import CLOSED, ClosedWaker, Waker

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator

    from ._selector import EpollSelector, PlainSelector
    from ._transport import Transport

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
        selector: Its `select` sleeps until a socket is ready, or `waker` has woken it, whose owner
            in it is None. There is one between `open` and `close`, `renew` or `abandon`.
        is_open: False once `close` was called.
    """

    def __init__(self) -> None:
        self.transports: dict[Any, Transport] = {}
        self.connecting: set[Any] = set()
        self.touched: set[Any] = set()
        self.selector: EpollSelector | PlainSelector | None = None
        self.waker: Waker | ClosedWaker = CLOSED
        self.is_open = True
        # File descriptor -> the events it is registered for.
        self._interests: dict[int, int] = {}
        self._listeners: list[Listener] = []
        # When to listen again, after there were too many open files; else infinity.
        self._listen_at = math.inf

    def open(self) -> None:
        """Open the selector and the waker, unless they are open or `close` was called.

        Raises:
            ConnectionError: The system refuses. Nothing has changed then.
        """
        if self.selector is not None or not self.is_open:
            return
        try:
            waker = Waker() if isinstance(self.waker, ClosedWaker) else self.waker
            selector = Selector()
            selector.register(waker.fileno(), READ, None)
            if self._listen_at == math.inf:
                for listener in self._listeners:
                    selector.register(listener.sock.fileno(), READ, listener)
        except OSError as error:
            raise ConnectionError(f"no descriptors to wait for servers with: {error}") from error
        self.selector, self.waker = selector, waker

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
        if self.selector is None:
            return False  # It is done after `open`.
        changed = False
        for link in self.touched:
            transport = self.transports.get(link)
            if transport is not None:
                changed |= self._set_interest(link, transport, transport.interest)
        self.touched.clear()
        return changed

    def suspend(self, link: Any) -> None:
        """Wait for nothing of `link` until `refresh`: sockets of it may be closed before."""
        self.check()
        self._set_interest(link, self.transports[link], 0)
        self.touched.add(link)

    def _set_interest(self, link: Any, transport: Transport, interest: int) -> bool:
        """Wait for these events, or none. Returns whether that is new."""
        changed = False
        for sock in transport.sockets:
            fd = sock.fileno()
            before = self._interests.get(fd, 0)
            if interest == before:
                continue
            assert self.selector is not None
            if not interest:
                self.selector.unregister(fd)
            elif before:
                self.selector.modify(fd, interest)
            else:
                self.selector.register(fd, interest, link)
            self._interests[fd] = interest
            changed = True
        return changed

    def forget(self, link: Any) -> None:
        """Close the transport of `link`, if it has one."""
        transport = self.transports.get(link)
        if transport is not None:
            self.check()
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
        if self.selector is not None:
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
        assert self.selector is not None
        for listener in self._listeners:
            self.selector.unregister(listener.sock.fileno())

    def resume_listening(self, now: float) -> None:
        """Listen again if it is time to."""
        if self._listen_at <= now:
            self._listen_at = math.inf
            if self.selector is not None:
                for listener in self._listeners:
                    self.selector.register(listener.sock.fileno(), READ, listener)

    def stop_listening(self) -> None:
        """Take no more connections."""
        self.check()
        for listener in self._listeners:
            if self.selector is not None and self._listen_at == math.inf:
                self.selector.unregister(listener.sock.fileno())
            end(listener.sock)
        self._listeners.clear()
        self._listen_at = math.inf

    # The end.

    def check(self) -> None:
        """Ensure that the descriptors are still this poller's.

        Raises:
            ConnectionError: They are not. The handler has to call `renew` or `close`.
        """
        if not self.waker.is_intact:
            raise ConnectionError(
                "the program has closed the descriptors of this client, worker or server "
                "(os.closerange in a daemon?): make or use it after that"
            )

    def renew(self, *, asleep: bool) -> None:
        """Close all connections and the selector, whose contents are uncertain.

        The exception of a signal handler may have left the selector, the system and this object
        with different ideas of what is registered. If it hits this method, the driver calls it
        again.

        Args:
            asleep: Whether a thread sleeps in the selector. The caller wakes that thread, which
                closes the selector (`drop`).
        """
        if not self.waker.is_intact:
            self.abandon()
            return
        for transport in self.transports.values():
            transport.close()
        self._clear()
        old, self.selector = self.selector, None
        if old is not None and not asleep:
            old.close()

    def drop(self, selector: EpollSelector | PlainSelector) -> None:
        """Close a selector that `renew` could not close because a thread slept in it."""
        if self.waker.is_intact:
            selector.close()
        else:
            selector.abandon()

    def abandon(self) -> None:
        """Forget all descriptors without closing them: their numbers are those of other files."""
        for transport in self.transports.values():
            transport.abandon()
        for listener in self._listeners:
            listener.sock.detach()
        if self.selector is not None:
            self.selector.abandon()
        self.waker.close()  # It looks for itself.
        self._listeners.clear()
        self._clear()
        self.selector, self.waker = None, CLOSED

    def close(self, *, in_child: bool = False) -> None:
        """Close everything that has a file descriptor.

        Args:
            in_child: Whether this is the child of a fork. Then the connections are the parent's,
                too, and no other thread can be waking.
        """
        self.is_open = False
        if not self.waker.is_intact:
            self.abandon()
            return
        for transport in self.transports.values():
            transport.close(in_child=in_child)
        for listener in self._listeners:
            if in_child:
                listener.sock.close()
            else:
                end(listener.sock)
        if self.selector is not None:
            self.selector.close()
        if in_child:
            self.waker.close()
        self._listeners.clear()
        self._clear()
        self.selector, self.waker = None, CLOSED

    def _clear(self) -> None:
        self.transports.clear()
        self.connecting.clear()
        self.touched.clear()
        self._interests.clear()
