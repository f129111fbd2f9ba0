"""The sockets of a driver, the selector that polls them, and the waker that ends its sleep.

The poller knows sockets and their registered events, but not engines. The driver's lock guards it,
with two exceptions: the leader sleeps in `select` without the lock, and any thread can use `waker`.
Linux and BSD allow registering sockets while another thread polls. On other systems, a registration
takes effect after the wake-up.

Nothing is opened before it is used: programs create clients and workers, and then become daemons,
which close all descriptors. A program that does so later closes descriptors in use, and its own
files get their numbers. System calls then fail. Before the poller closes a descriptor, and after
an error, `check` compares the waker's inodes as a sample of all descriptors. If they have changed,
`abandon` drops everything without closing it.
"""

from __future__ import annotations

import errno
import logging
import math
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.engines.driver import LISTEN_AGAIN
from gearman_proto.errors import ConnectionError
from gearman_proto.handlers import reraise_from_handler
from gearman_proto.records import record

from ._selector import READ, Selector
from ._transport import end
from ._waker import CLOSED, ClosedWaker, Waker

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator

    from ._selector import EpollSelector, SystemSelector
    from ._transport import Transport

logger: Final = logging.getLogger("gearman")

# Connections to accept at a time.
_ACCEPTS: Final = 64
_NO_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@record(eq=False)
class Listener:
    """A listening socket, the function that creates a connection's link, and the TLS context."""

    sock: socket.socket
    accept: Callable[[Any, str, int, float], Any]
    context: ssl.SSLContext | None


class Poller:
    """The sockets of a driver.

    Attributes:
        transports: The connections, by link.
        connecting: The links whose transports are being connected.
        touched: The links whose transports may need other events than before.
        selector: The selector between `open` and `close`, `renew` or `abandon`; otherwise None.
            `waker` is registered in it with the owner None, and ends its sleep.
        is_open: False once `close` was called.
    """

    def __init__(self) -> None:
        self.transports: dict[Any, Transport] = {}
        self.connecting: set[Any] = set()
        self.touched: set[Any] = set()
        self.selector: EpollSelector | SystemSelector | None = None
        self.waker: Waker | ClosedWaker = CLOSED
        self.is_open = True
        # File descriptor -> the events it is registered for.
        self._interests: dict[int, int] = {}
        self._listeners: list[Listener] = []
        # When to listen again after the system ran out of descriptors; otherwise infinity.
        self._listen_at = math.inf

    def open(self) -> None:
        """Open the selector and the waker, unless they are open or `close` was called.

        Raises:
            ConnectionError: The system has no descriptors left. Nothing was changed.
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
            reraise_from_handler(error)
            raise ConnectionError(f"no descriptors to wait for servers with: {error}") from error
        self.selector, self.waker = selector, waker

    def next_deadline(self) -> float:
        """Return the earliest deadline of the connecting transports and of `resume_listening`."""
        first = self._listen_at
        for link in self.connecting:
            deadline = self.transports[link].deadline
            if deadline is not None and deadline < first:
                first = deadline
        return first

    # Connections.

    def add(self, link: Any, transport: Transport) -> None:
        """Add the transport of a new link."""
        self.transports[link] = transport
        self.touched.add(link)

    def refresh(self) -> bool:
        """Register the events that the transports need. Return True if any have changed."""
        if self.selector is None:
            return False  # The sockets are registered after `open`.
        changed = False
        for link in self.touched:
            transport = self.transports.get(link)
            if transport is not None:
                changed |= self._set_interest(link, transport, transport.interest)
        self.touched.clear()
        return changed

    def suspend(self, link: Any) -> None:
        """Unregister the sockets of `link` until `refresh`, because some may be closed before."""
        self.check()
        self._set_interest(link, self.transports[link], 0)
        self.touched.add(link)

    def _set_interest(self, link: Any, transport: Transport, interest: int) -> bool:
        """Register the sockets of `transport` for `interest`. Return True if that is a change."""
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
            # First unregister the sockets: once they are closed, other files can get their numbers.
            self._set_interest(link, transport, 0)
            transport.close()
            # Last: `renew` has to find a transport that a signal handler's exception left open.
            del self.transports[link]
            self.connecting.discard(link)

    # Listening.

    def listen(self, listener: Listener) -> None:
        """Accept connections from `listener` from now on."""
        self._listeners.append(listener)
        if self.selector is not None:
            self.selector.register(listener.sock.fileno(), READ, listener)

    def accept(self, listener: Listener, now: float) -> Iterator[tuple[socket.socket, Any]]:
        """Accept some pending connections, and yield each socket with its peer's address."""
        if listener.sock.fileno() < 0:
            return  # It was closed after the selector returned.
        for _ in range(_ACCEPTS):
            try:
                accepted = listener.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                reraise_from_handler(error)
                if error.errno in _NO_RESOURCES:
                    # The connection stays in the backlog, so the selector would not sleep.
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
        """Resume listening if the pause has ended."""
        if self._listen_at <= now:
            self._listen_at = math.inf
            if self.selector is not None:
                for listener in self._listeners:
                    self.selector.register(listener.sock.fileno(), READ, listener)

    def stop_listening(self) -> None:
        """Stop accepting connections."""
        self.check()
        for listener in self._listeners:
            if self.selector is not None and self._listen_at == math.inf:
                self.selector.unregister(listener.sock.fileno())
            end(listener.sock)
        self._listeners.clear()
        self._listen_at = math.inf

    # Closing.

    def check(self) -> None:
        """Check that the descriptors still belong to this poller.

        Raises:
            ConnectionError: They don't. The handler has to call `renew` or `close`.
        """
        if not self.waker.is_intact:
            raise ConnectionError(
                "the program has closed the descriptors of this client, worker or server "
                "(os.closerange in a daemon?): make or use it after that"
            )

    def reset(self, *, asleep: bool) -> None:
        """Close all connections and the selector, whose contents are uncertain.

        A signal handler's exception may have left the selector, the system and this object in
        disagreement about the registered sockets. If the exception interrupts this method, the
        driver calls it again.

        Args:
            asleep: True if a thread sleeps in the selector. The caller wakes that thread, which
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

    def drop(self, selector: EpollSelector | SystemSelector) -> None:
        """Close a selector that `renew` could not close because a thread slept in it."""
        if self.waker.is_intact:
            selector.close()
        else:
            selector.abandon()

    def abandon(self) -> None:
        """Drop all descriptors without closing them: their numbers belong to other files."""
        for transport in self.transports.values():
            transport.abandon()
        for listener in self._listeners:
            listener.sock.detach()
        if self.selector is not None:
            self.selector.abandon()
        self.waker.close()  # It checks its own descriptors.
        self._listeners.clear()
        self._clear()
        self.selector, self.waker = None, CLOSED

    def close(self, *, in_child: bool = False) -> None:
        """Close everything that has a file descriptor.

        Args:
            in_child: True in the child of a fork. The parent still uses the connections, and no
                other thread can be using the waker.
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
