"""Runs an engine over blocking calls: one lock, one selector, and whoever waits does the work.

There is no thread behind this. Of the threads that are blocked in a call, one, the leader, polls
the sockets for all of them, and the others sleep on conditions of their own. The leader stays the
leader until its own call is done and then hands over to one other (handing over more often would
wake sleepers for nothing). A thread that only submits writes to the sockets itself, and wakes the
leader if what that waits for has changed.

The lock guards the engine, the transports and all state here. It is held whenever these are
touched, and never while anybody sleeps: not in the selector, not in a condition. So a thread that
connects delays nobody, and wake-ups (`Wait.wake`), which come out of the engine, have the lock.

The selector is used outside the lock by the leader alone, and only to poll; registering while
another thread polls is allowed on Linux and BSD, and elsewhere the wake-up makes it count.

A signal's exception (KeyboardInterrupt) may come anywhere. Most hit a sleeper, and end its call and
nothing else. `_busy` tells those that hit the engine; see `_interrupted`.

After a fork, the child owns nothing: sockets, selector and lock are shared with the parent or in
an unknown state. It drops them all without touching the connections, and gets a new engine; what
was under way over the old one is lost to the child.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from gearman_proto import Close, Connect, ConnectionError, Engine, GearmanError

from ._transport import Stage, Transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from gearman_proto import ServerAddress, Wait

logger: Final = logging.getLogger("gearman")

# Seconds. Selectors refuse to sleep for weeks.
_LONGEST_SLEEP: Final = 3600.0

# Connections to accept at a time, and seconds after which to try again when there was no room.
_ACCEPTS: Final = 64
_LISTEN_AGAIN: Final = 0.5
_NO_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: The only clock.
clock: Final = time.monotonic


class _DrivenEngine(Engine[Any], Protocol):
    """What the driver needs of an engine, beside the transport side."""

    closed: bool

    def abandon(self, error: Exception) -> None: ...
    def release(self, wait: Wait) -> None: ...
    def close(self, now: float) -> None: ...


@dataclass(eq=False)
class _Listener:
    sock: socket.socket
    accept: Callable[[Any, str, int, float], Any]


T_ = TypeVar("T_")
E_ = TypeVar("E_", bound=_DrivenEngine)
W_ = TypeVar("W_", bound="Wait")


class Driver(Generic[E_]):
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
        self.engine = self._make_engine()
        # Re-entrant not to be entered again, but as it knows its owner.
        self._lock: Any = threading.RLock()
        # Whether the engine is in the middle of something.
        self._busy = False
        self._selector = selectors.DefaultSelector()
        self._transports: dict[Any, Transport] = {}
        # File descriptor -> the events it is registered for.
        self._interests: dict[int, int] = {}
        # The transports that are being connected.
        self._connecting: set[Any] = set()
        # Links whose transport may wait for something else than before.
        self._touched: set[Any] = set()
        # Links whose sockets take more again.
        self._writable: set[Any] = set()
        self._listeners: list[_Listener] = []
        # When to listen again, after there were too many open files.
        self._listen_at: float | None = None
        # What is to be done by whoever next has the lock.
        self._posted: deque[Callable[[float], object]] = deque()
        # Waits of calls that are over.
        self._released: deque[Wait] = deque()
        self._has_leader = False
        # What the leader waits for.
        self._leading: Wait | None = None
        # Those who sleep while somebody else leads.
        self._followers: dict[threading.Condition, None] = {}
        # Until when the leader sleeps in the selector; None if it does not.
        self._sleeping_until: float | None = None
        self._wakeup, self._waker = socket.socketpair()
        self._wakeup.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, None)

    # The way in.

    def run(self, begin: Callable[[E_, float, Callable[[], Any]], Wait]) -> None:
        """Begin a call, wait for its end, and raise what it has to raise."""
        self.finish(begin).raise_error()

    def finish(self, begin: Callable[[E_, float, Callable[[], Any]], W_]) -> W_:
        """Begin a call, wait for its end, and return its Wait."""
        try:
            with self.start(begin) as call:
                call.block()
        except BaseException:
            # A signal's, perhaps. That nobody waits any more may be news to the engine.
            self.call(lambda _engine, _now: None)
            raise
        return call.wait

    def start(self, begin: Callable[[E_, float, Callable[[], Any]], W_]) -> Call[W_]:
        """Begin a call: `begin` gets the engine, the time and a `wake`, and returns its Wait.

        The Call has to be used as a context manager.
        """
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
                self._release()
                self._do_posted(clock())
                if look and not self._has_leader and self._transports:
                    # Nobody has looked for a while. What matters most is a connection that has
                    # ended: what is sent on it would be lost.
                    self._handle(self._selector.select(0))
                try:
                    value = function(self.engine, clock())
                except (GearmanError, TypeError, ValueError):
                    self._busy = False  # It was refused; nothing has changed.
                    raise
                self._pump()
                self._busy = False
            except BaseException as error:
                self._interrupted(error)
                raise
            return value

    def post(self, function: Callable[[E_, float], object]) -> None:
        """Call the engine soon. This never blocks: it may be called in a signal handler."""
        self._post(lambda now: function(self.engine, now))

    def _post(self, call: Callable[[float], object]) -> None:
        self._posted.append(call)
        self._wake_leader()

    def block(self, wait: Wait, condition: threading.Condition) -> None:
        """Return when `wait` is ready."""
        with self._lock:
            try:
                while not wait.ready:
                    if self._has_leader:
                        self._followers[condition] = None
                        condition.wait()
                        self._followers.pop(condition, None)
                    else:
                        self._lead(wait)
            except BaseException as error:
                self._interrupted(error)
                raise
            finally:
                self._followers.pop(condition, None)
                if not self._has_leader and self._followers:
                    next(iter(self._followers)).notify()

    def _interrupted(self, error: BaseException) -> None:
        """An exception has come out of the middle of something: a signal's, most likely.

        Where it hit the engine, a packet may have been taken and not applied, or made and not
        written; to go on would give requests each other's answers. So all connections are lost.
        """
        if self._busy:
            self._busy = False
            self.engine.crash(ConnectionError(f"interrupted by {error!r}"))
            self._pump()

    def release(self, wait: Wait) -> None:
        """The call of `wait` is over.

        This never blocks: a generator that was not used up ends where the garbage collector comes
        upon it, and that may be in a thread that has the lock.
        """
        self._released.append(wait)
        if not self._lock._is_owned() and self._lock.acquire(blocking=False):  # noqa: SLF001
            try:
                self._release()
            finally:
                self._lock.release()

    def _release(self) -> None:
        while self._released:
            self.engine.release(self._released.popleft())

    def close(self) -> None:
        """Close the engine and all sockets; everybody who waits returns.

        In a signal handler that has hit the middle of something, the engine is closed behind that.
        """
        if self._lock._is_owned():  # noqa: SLF001
            self.post(lambda engine, now: engine.close(now))
            return
        with self._lock:
            self.engine.close(clock())
            self._pump()
            if self._sleeping_until is None:
                self._drop()
            else:
                # Closing the selector would not end the leader's sleep in it. It drops all.
                self._wake_leader()

    # Leading. All of this has the lock.

    def _lead(self, wait: Wait) -> None:
        self._has_leader = True
        self._leading = wait
        try:
            while not wait.ready:
                self._poll()
        finally:
            self._has_leader = False
            self._leading = None

    def _poll(self) -> None:
        deadline = self._next_deadline()
        timeout = None if deadline is None else min(max(deadline - clock(), 0.0), _LONGEST_SLEEP)
        self._sleeping_until = float("inf") if deadline is None else deadline
        once = (1, threading.get_ident())
        try:
            self._lock.release()
            ready = self._selector.select(timeout)
        finally:
            # Unlike `acquire`, this can't be interrupted before it has the lock: it is what
            # Condition.wait uses.
            self._lock._acquire_restore(once)  # noqa: SLF001
            self._sleeping_until = None
            if self.engine.closed:
                self._drop()
        self._handle(ready)

    def _handle(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        """Take in what the selector has found, and go on from there."""
        was_busy, self._busy = self._busy, True
        self._release()
        now = clock()
        for key, events in ready:
            if key.data is None:
                self._drain_wakeup()
            elif isinstance(key.data, _Listener):
                self._accept(key.data, now)
            else:
                self._on_ready(key.data, events, now)
        # Input that has come counts before the time that has passed.
        self._handle_timeouts(now)
        self._pump()
        self._busy = was_busy

    def _next_deadline(self) -> float | None:
        deadlines = [self.engine.next_deadline(), self._listen_at]
        deadlines += [self._transports[link].deadline for link in self._connecting]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _handle_timeouts(self, now: float) -> None:
        for link in list(self._connecting):
            transport = self._transports[link]
            if transport.deadline is not None and transport.deadline <= now:
                self._attempt(link, transport.give_up_address, now)
        if self._listen_at is not None and self._listen_at <= now:
            self._resume_listening()
        self._guard(self.engine.handle_timeout, now)

    def _on_ready(self, link: Any, events: int, now: float) -> None:
        transport = self._transports.get(link)
        if transport is None:
            return  # Closed since the selector returned.
        if transport.stage is not Stage.OPEN:
            if self._attempt(link, transport.advance, now):
                self._guard(self.engine.connected, link, now)
            return
        if events & selectors.EVENT_WRITE:
            self._writable.add(link)
        if events & selectors.EVENT_READ:
            self._read(link, transport, now)

    def _read(self, link: Any, transport: Transport, now: float) -> None:
        while True:
            try:
                data = transport.read()
            except OSError as error:
                self._lost(link, error, now)
                return
            if data is None:
                return
            if not data:
                self._lost(link, None, now)
                return
            self._guard(self.engine.receive_data, link, data, now)
            if not transport.has_pending:
                return

    def _attempt(self, link: Any, step: Callable[[float], Any], now: float) -> bool:
        """Take a step of connecting. Returns whether it was the last."""
        transport = self._transports[link]
        self._unregister(transport)  # The step may close the socket.
        self._touched.add(link)
        try:
            done = bool(step(now))
        except (OSError, ValueError) as error:  # ssl takes some host names for a ValueError.
            self._forget(link)
            self._guard(self.engine.connect_failed, link, error, now)
            return False
        if done:
            self._connecting.discard(link)
        return done

    def _lost(self, link: Any, error: OSError | None, now: float) -> None:
        self._forget(link)
        self._guard(self.engine.connection_lost, link, error, now)

    def _guard(self, call: Callable[..., object], *args: Any) -> None:
        """Run a call of the engine. If it raises, which is a bug, nobody hangs."""
        try:
            call(*args)
        except Exception as error:
            logger.exception("internal error in %s", getattr(call, "__qualname__", call))
            self.engine.crash(error)

    # Doing what the engine wants. All of this has the lock.

    def _pump(self) -> None:
        """Carry out what the engine wants, write what it has to write, and tell the leader."""
        now = clock()
        changed = self._act(now)
        while self._write_all(now) | self._act(now):
            changed = True
        for link in self._touched:
            transport = self._transports.get(link)
            if transport is not None:
                changed |= self._register(link, transport)
        self._touched.clear()
        if self._sleeping_until is not None:
            # Its own wake-up would not reach it there.
            changed |= self._leading is not None and self._leading.ready
            deadline = self._next_deadline()
            if changed or (deadline is not None and deadline < self._sleeping_until):
                self._wake_leader()

    def _act(self, now: float) -> bool:
        """Do what was posted, and what the engine wants. Returns whether there was anything."""
        acted = self._do_posted(now)
        while (action := self.engine.next_action()) is not None:
            acted = True
            if isinstance(action, Connect):
                self._connect(action, now)
            elif isinstance(action, Close):
                self._forget(action.link)
            else:
                self._close_listeners()
        return acted

    def _do_posted(self, now: float) -> bool:
        """Do what was posted. Returns whether there was anything."""
        acted = False
        while self._posted:
            acted = True
            self._guard(self._posted.popleft(), now)
        return acted

    def _write_all(self, now: float) -> bool:
        """Write what there is. Returns whether a connection was lost by that."""
        lost = False
        for link in [*self.engine.links_to_write(), *self._writable]:
            transport = self._transports.get(link)
            if transport is None or transport.stage is not Stage.OPEN:
                continue
            if link in self._writable or not transport.is_blocked:
                self._writable.discard(link)
                lost |= self._write(link, transport, now)
        self._writable.clear()
        return lost

    def _connect(self, action: Connect, now: float) -> None:
        link = action.link
        context = self._contexts.get(link.address)
        transport = Transport(link.address, context, action.timeout)
        self._transports[link] = transport
        self._connecting.add(link)

        def resolved(found: list[Any] | OSError) -> None:
            # In the resolver's thread. If nobody leads, the next one who does will look.
            self._post(functools.partial(self._on_resolved, link, found))

        self._attempt(link, functools.partial(transport.start, resolved), now)

    def _on_resolved(self, link: Any, found: list[Any] | OSError, now: float) -> None:
        transport = self._transports.get(link)
        if transport is None:
            return  # The engine has given it up.
        if isinstance(found, OSError):
            self._forget(link)
            self._guard(self.engine.connect_failed, link, found, now)
        else:
            self._attempt(link, functools.partial(transport.connect, found), now)

    def _write(self, link: Any, transport: Transport, now: float) -> bool:
        """Write what there is. Returns whether the connection was lost by that."""
        self._touched.add(link)
        try:
            transport.write(functools.partial(self.engine.data_to_send, link))
        except OSError as error:
            self._lost(link, error, now)
        except Exception as error:
            logger.exception("internal error in data_to_send")
            self.engine.crash(error)
        else:
            return False
        return True

    # Sockets and the selector.

    def _register(self, link: Any, transport: Transport) -> bool:
        """Wait for what `transport` waits for. Returns whether that is new."""
        if transport.sock is None:
            return False
        fd = transport.sock.fileno()
        if self._interests.get(fd) == transport.interest:
            return False
        if fd in self._interests:
            self._selector.modify(fd, transport.interest, link)
        else:
            self._selector.register(fd, transport.interest, link)
        self._interests[fd] = transport.interest
        return True

    def _unregister(self, transport: Transport) -> None:
        """Stop waiting for `transport`. It has to happen before its socket is closed."""
        if transport.sock is not None:
            fd = transport.sock.fileno()
            if self._interests.pop(fd, None) is not None:
                self._selector.unregister(fd)

    def _forget(self, link: Any) -> None:
        transport = self._transports.pop(link, None)
        self._connecting.discard(link)
        if transport is not None:
            self._unregister(transport)
            transport.close()

    # Listening.

    def listen(self, sock: socket.socket, accept: Callable[[E_, str, int, float], Any]) -> None:
        """Take connections from `sock`, which listens; the driver owns it from now on.

        Args:
            sock: The socket.
            accept: Gets the engine, the address of the other end, the new socket's number and the
                time, and returns the link.
        """
        sock.setblocking(False)
        listener = _Listener(sock, accept)
        with self._lock:
            self._listeners.append(listener)
            self._selector.register(sock, selectors.EVENT_READ, listener)

    def _accept(self, listener: _Listener, now: float) -> None:
        if listener.sock.fileno() < 0:
            return  # Closed since the selector returned.
        for _ in range(_ACCEPTS):
            try:
                sock, address = listener.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_RESOURCES:
                    # The connection stays in the queue, and the selector would not sleep.
                    logger.warning("no connection can be accepted: %s", error)
                    self._pause_listening(now)
                return
            link = listener.accept(self.engine, str(address[0]), sock.fileno(), now)
            self._transports[link] = Transport.accepted(sock)
            self._touched.add(link)

    def _pause_listening(self, now: float) -> None:
        self._listen_at = now + _LISTEN_AGAIN
        for listener in self._listeners:
            self._selector.unregister(listener.sock)

    def _resume_listening(self) -> None:
        self._listen_at = None
        for listener in self._listeners:
            self._selector.register(listener.sock, selectors.EVENT_READ, listener)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            if self._listen_at is None:
                self._selector.unregister(listener.sock)
            listener.sock.close()
        self._listeners.clear()
        self._listen_at = None

    def _wake_leader(self) -> None:
        # A full pipe, or one that is closed, has nobody to wake.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _drain_wakeup(self) -> None:
        with contextlib.suppress(OSError):
            self._wakeup.recv(4096)

    def _drop(self) -> None:
        """Close everything that has a file descriptor."""
        for transport in self._transports.values():
            transport.close()
        for listener in self._listeners:
            listener.sock.close()
        self._transports.clear()
        self._connecting.clear()
        self._listeners.clear()
        self._interests.clear()
        self._selector.close()
        self._wakeup.close()
        self._waker.close()

    def __del__(self) -> None:
        if hasattr(self, "_waker") and self._waker.fileno() >= 0:
            self.engine.abandon(ConnectionError("the client is no more"))
            self._drop()

    def after_fork(self) -> None:
        """In the child: forget the parent's sockets, lock and engine."""
        was_closed = self.engine.closed
        self.engine.abandon(ConnectionError("the process was forked"))
        self._drop()
        if not was_closed:
            self._setup()


class Call(Generic[W_]):
    """A call that waits for something."""

    def __init__(self, driver: Driver[Any], wait: W_, condition: threading.Condition) -> None:
        self.wait = wait
        self._driver = driver
        self._condition = condition

    def __enter__(self) -> Call[W_]:
        return self

    def __exit__(self, *args: object) -> None:
        self._driver.release(self.wait)

    def block(self) -> None:
        """Return when the Wait is ready."""
        self._driver.block(self.wait, self._condition)


_drivers: Final[weakref.WeakSet[Driver[Any]]] = weakref.WeakSet()


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
