"""Runs an engine over blocking calls: one lock, one selector, and whoever waits does the work.

There is no thread behind this. A thread that is blocked in a call sleeps, or polls the sockets for
all of them (see `_turns`). A thread that only submits writes to the sockets itself, and wakes the
one that polls if what that waits for has changed.

The lock guards the engine, the sockets (`_poller`, `_transport`) and all state here. It is held
whenever these are touched, and never while anybody sleeps: not in the selector, not in a condition.
So a thread that connects delays nobody, and wake-ups (`Wait.wake`), which come out of the engine,
have the lock.

A signal's exception (KeyboardInterrupt) may come anywhere. Most hit a sleeper, and end its call and
nothing else. `_busy` tells those that hit the engine; see `_interrupted`.

After a fork, the child owns nothing: sockets, selector and lock are shared with the parent or in
an unknown state. It drops them all without touching the connections, and gets a new engine; what
was under way over the old one is lost to the child.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import selectors
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import Close, Connect, ConnectionError
from gearman_proto.engines.base import REFUSALS
from gearman_proto.engines.driving import E_, W_, BaseCall, BaseDriver

from ._poller import Listener, Poller
from ._transport import Stage, Transport
from ._turns import Lock, Turns

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from gearman_proto import ServerAddress, Wait
    from gearman_proto.engines.driving import T_, Begin

logger: Final = logging.getLogger("gearman")

# Seconds. Selectors refuse to sleep for weeks.
_LONGEST_SLEEP: Final = 3600.0

#: The only clock.
clock: Final = time.monotonic


class Driver(BaseDriver[E_]):
    """An engine, its sockets, and the threads that wait for it.

    Args:
        make_engine: Makes the engine, now and after a fork.
        contexts: The TLS contexts of the servers that use TLS.
    """

    def __init__(
        self,
        make_engine: Callable[[], E_],
        contexts: dict[ServerAddress, ssl.SSLContext] | None = None,
    ) -> None:
        self._make_engine = make_engine
        self._contexts = contexts or {}
        self._setup()
        _drivers.add(self)

    def _setup(self) -> None:
        super().__init__(self._make_engine(), logger.exception)
        self._lock = Lock()
        # Whether the engine is in the middle of something.
        self._busy = False
        self._poller = Poller()
        self._turns = Turns(self._lock)
        # Links whose sockets take more again.
        self._writable: set[Any] = set()
        # What is to be done by whoever next has the lock.
        self._posted: deque[Callable[[E_, float], object]] = deque()

    # The way in.

    def run(self, begin: Begin[E_, Wait]) -> None:
        """Begin a call, wait for its end, and raise what it has to raise."""
        self.finish(begin).raise_error()

    def finish(self, begin: Begin[E_, W_]) -> W_:
        """Begin a call, wait for its end, and return its Wait."""
        try:
            with self.start(begin) as call:
                call.block()
        except BaseException:
            # A signal's, perhaps. That nobody waits any more may be news to the engine.
            self.call(lambda _engine, _now: None)
            raise
        return call.wait

    def start(self, begin: Begin[E_, W_]) -> Call[W_]:
        """Begin a call. It has to be used as a context manager."""
        condition = threading.Condition(self._lock)
        wait = self.call(lambda engine, now: begin(engine, now, condition.notify))
        return Call(self, wait, condition)

    def call(self, function: Callable[[E_, float], T_], *, look: bool = True) -> T_:
        """Call the engine, do what comes of it, and return what `function` returns.

        Args:
            function: Gets the engine and the time.
            look: Whether to look first for what has come meanwhile.
        """
        with self._lock:
            try:
                self._busy = True
                now = clock()
                self._release_all(now)
                self._do_posted(now)
                if look and not self._turns.has_leader and self._poller.transports:
                    # Nobody has looked for a while. What matters most is a connection that has
                    # ended: what is sent on it would be lost.
                    self._handle(self._poller.select(0))
                try:
                    value = function(self.engine, clock())
                except REFUSALS:
                    self._busy = False  # Nothing has changed.
                    raise
                self._pump()
                self._busy = False
            except BaseException as error:
                self._interrupted(error)
                raise
            return value

    def post(self, function: Callable[[E_, float], object]) -> None:
        """Call the engine soon. This never blocks: it may be called in a signal handler."""
        self._posted.append(function)
        self._poller.wake()

    def block(self, wait: Wait, condition: threading.Condition) -> None:
        """Return when `wait` is ready."""
        with self._lock:
            try:
                self._turns.block(wait, condition, self._poll)
            except BaseException as error:
                self._interrupted(error)
                raise

    def _interrupted(self, error: BaseException) -> None:
        """An exception has come out of the middle of something, perhaps of the engine."""
        if self._busy:
            self._busy = False
            super()._interrupted(error)
            self._pump()

    def release(self, wait: Wait) -> None:
        """The call of `wait` is over.

        This never blocks: a generator that was not used up ends where the garbage collector comes
        upon it, and that may be in a thread that has the lock.
        """
        self._released.append(wait)
        self._lock.if_free(lambda: self._release_all(clock()))

    def close(self) -> None:
        """Close the engine and all sockets; everybody who waits returns.

        In a signal handler that has hit the middle of something, the engine is closed behind that.
        """
        if self._lock.is_mine:
            self.post(lambda engine, now: engine.close(now))
            return
        with self._lock:
            self.engine.close(clock())
            self._pump()
            if self._turns.sleeping_until is None:
                self._poller.close()
            else:
                # Closing the selector would not end the leader's sleep in it. It closes all.
                self._poller.wake()

    def listen(
        self,
        sock: socket.socket,
        accept: Callable[[E_, str, int, float], Any],
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Take connections from `sock`, which listens; the driver owns it from now on.

        Args:
            sock: The socket.
            accept: Gets the engine, the address of the other end, the new socket's number and the
                time, and returns the link.
            context: For TLS. Then the engine is told when the link's handshake is over.
        """
        sock.setblocking(False)
        with self._lock:
            self._poller.listen(Listener(sock, accept, context))

    # Polling. From here on, everything has the lock.

    def _poll(self) -> None:
        """Sleep until something comes or is due, and take it in."""
        deadline = self._next_deadline()
        timeout = None
        if deadline != math.inf:
            timeout = min(max(deadline - clock(), 0.0), _LONGEST_SLEEP)
        try:
            ready = self._turns.sleep(deadline, self._poller.select, timeout)
        finally:
            if self.engine.closed:
                self._poller.close()
        self._handle(ready)

    def _handle(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        """Take in what the selector has found, and go on from there."""
        was_busy, self._busy = self._busy, True
        now = clock()
        self._release_all(now)
        for key, events in ready:
            if key.data is None:
                self._poller.drain_wakeup()
            elif isinstance(key.data, Listener):
                self._accept(key.data, now)
            else:
                self._on_ready(key.data, events, now)
        # Input that has come counts before the time that has passed.
        for link in list(self._poller.connecting):
            transport = self._poller.transports[link]
            if transport.deadline is not None and transport.deadline <= now:
                self._attempt(link, transport.give_up_address, now)
        self._poller.resume_listening(now)
        self._tell(self.engine.handle_timeout, now)
        self._pump()
        self._busy = was_busy

    def _next_deadline(self) -> float:
        first, deadline = self._poller.next_deadline(), self.engine.next_deadline()
        return first if deadline is None or first < deadline else deadline

    def _accept(self, listener: Listener, now: float) -> None:
        for sock, address in self._poller.accept(listener, now):
            link = listener.accept(self.engine, str(address[0]), sock.fileno(), now)
            self._poller.add(link, Transport.accepted(sock, listener.context))

    def _on_ready(self, link: Any, events: int, now: float) -> None:
        transport = self._poller.transports.get(link)
        if transport is None:
            return  # Closed since the selector returned.
        if transport.stage is not Stage.OPEN:
            if self._attempt(link, transport.advance, now):
                self._tell(self.engine.connected, link, now)
            return
        if events & selectors.EVENT_WRITE:
            self._writable.add(link)
        if events & selectors.EVENT_READ and not link.behind:
            self._read(link, transport, now)

    def _read(self, link: Any, transport: Transport, now: float) -> None:
        while True:
            try:
                data = transport.read()
            except OSError as error:
                self._lost(link, self.engine.connection_lost, error, now)
                return
            if data:
                self._tell(self.engine.receive_data, link, data, now)
            elif data is not None:
                # The engine says when to close it. There may be something left to write.
                self._poller.touched.add(link)
                self._tell(self.engine.receive_eof, link, now)
            if not data or not transport.has_pending:
                return

    def _attempt(self, link: Any, step: Callable[[float], Any], now: float) -> bool:
        """Take a step of connecting. Returns whether it was the last."""
        self._poller.suspend(link)  # The step may close the socket.
        try:
            done = bool(step(now))
        except (OSError, ValueError) as error:  # ssl takes some host names for a ValueError.
            self._lost(link, self.engine.connect_failed, error, now)
            return False
        if done:
            self._poller.connecting.discard(link)
        return done

    def _lost(self, link: Any, tell: Callable[..., None], error: Exception, now: float) -> None:
        self._poller.forget(link)
        self._tell(tell, link, error, now)

    # Doing what the engine wants.

    def _pump(self) -> None:
        """Carry out what the engine wants, write what it has to write, and tell the leader."""
        now = clock()
        changed = self._act(now)
        while self._write_all(now) | self._act(now):
            changed = True
        if self._poller.touched:
            changed |= self._poller.refresh()
        until = self._turns.sleeping_until
        if until is not None and (changed or self._turns.is_done or self._next_deadline() < until):
            self._poller.wake()

    def _act(self, now: float) -> bool:
        """Do what was posted, and what the engine wants. Returns whether there was anything."""
        acted = self._do_posted(now)
        while (action := self.engine.next_action()) is not None:
            acted = True
            if isinstance(action, Connect):
                self._connect(action, now)
            elif isinstance(action, Close):
                self._poller.forget(action.link)
            else:
                self._poller.stop_listening()
        return acted

    def _do_posted(self, now: float) -> bool:
        """Do what was posted. Returns whether there was anything."""
        acted = False
        while self._posted:
            acted = True
            self._tell(self._posted.popleft(), self.engine, now)
        return acted

    def _write_all(self, now: float) -> bool:
        """Write what there is. Returns whether a connection was lost by that."""
        lost = False
        for link in [*self.engine.links_to_write(), *self._writable]:
            transport = self._poller.transports.get(link)
            if transport is None or transport.stage is not Stage.OPEN:
                continue
            if transport.is_blocked and link not in self._writable:
                continue
            self._writable.discard(link)
            self._poller.touched.add(link)
            more = functools.partial(self._tell, self.engine.data_to_send, link, now)
            try:
                transport.write(more)
            except OSError as error:
                self._lost(link, self.engine.connection_lost, error, now)
                lost = True
        self._writable.clear()
        return lost

    def _connect(self, action: Connect, now: float) -> None:
        link = action.link
        transport = Transport(link.address, self._contexts.get(link.address), action.timeout)
        self._poller.add(link, transport)
        self._poller.connecting.add(link)

        def resolved(found: list[Any] | OSError) -> None:
            # In the resolver's thread. If nobody leads, the next one who does will look.
            self.post(lambda _engine, now: self._on_resolved(link, found, now))

        self._attempt(link, functools.partial(transport.start, resolved), now)

    def _on_resolved(self, link: Any, found: list[Any] | OSError, now: float) -> None:
        transport = self._poller.transports.get(link)
        if transport is None:
            return  # The engine has given it up.
        if isinstance(found, OSError):
            self._lost(link, self.engine.connect_failed, found, now)
        else:
            self._attempt(link, functools.partial(transport.connect, found), now)

    # The end.

    def __del__(self) -> None:
        if hasattr(self, "_poller") and self._poller.is_open:
            self.engine.abandon(ConnectionError("the client is no more"))
            self._poller.close()

    def after_fork(self) -> None:
        """In the child: forget the parent's sockets, lock and engine."""
        was_closed = self.engine.closed
        self.engine.abandon(ConnectionError("the process was forked"))
        self._poller.close()
        if not was_closed:
            self._setup()


class Call(BaseCall[W_]):
    """A call that waits for something."""

    def __init__(self, driver: Driver[Any], wait: W_, condition: threading.Condition) -> None:
        super().__init__(wait, driver.release)
        #: Returns when the Wait is ready.
        self.block = functools.partial(driver.block, wait, condition)


_drivers: Final[weakref.WeakSet[Driver[Any]]] = weakref.WeakSet()


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
