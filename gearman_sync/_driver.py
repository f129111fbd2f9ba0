"""Runs an engine over blocking calls: one lock, one selector, and whoever waits does the work.

There is no thread behind this. A thread that is blocked in a call sleeps, or polls the sockets for
all of them (see `_turns`). A thread that only submits writes to the sockets itself, and wakes the
one that polls if what that waits for has changed.

The lock guards the engine, the sockets (`_poller`, `_transport`) and all state here. It is held
whenever these are touched, and never while anybody sleeps: not in the selector, not for a Bell. So
a thread that connects delays nobody, and wake-ups (`Wait.wake`), which come out of the engine, have
the lock.

Where a thread may be
    ==========  ===================================  ============================================
    place       it has                               a call on top of it, and its exception
    ==========  ===================================  ============================================
    outside     nothing                              is a call like any other; ends nothing
    inside      the lock                             is refused, or posted; gives up connections
    leading     no lock; it sleeps in the selector   leads (`_turns`); ends this call
    following   no lock; it waits for its Bell       follows, or leads; ends this call
    ==========  ===================================  ============================================

    A call on top is one of a signal handler or a finalizer. Inside, the engine may be in the middle
    of something, and nobody can wait for that to end: what has to wait is refused, and what only
    tells the engine something (`tell`, `post`, `close`) is posted, to be done before the lock is
    left or by whoever polls next. In the other places any call is sound: the outer one goes on
    behind it, with its own deadline. What the selector had found by then may be out of date, and is
    dropped (`_rounds`); it is found again.

Where a signal's exception may come
    Anywhere (see `_turns`), but only in one thread, the main one. Three rules make it harmless:

    * `_busy` is true from before the engine or the sockets are touched until they are whole again.
      An exception out of that gives up all connections, the selector too, of which nobody knows any
      more what is in it, and ends all calls (`_interrupted`). As `_busy` stays true until that is
      done, the next one who has the lock does it where it was interrupted itself.
    * A Wait is known to its Call before the lock is left, that is, while `_busy` is true; and what
      is behind a Call, whatever ends it, is a `finally` that begins with the one step of C that
      hands the Wait to `_released`. So there is no moment at which the engine has a Wait that
      nobody is going to release. For a worker that is what ends its work.
    * What has to be done behind that takes the lock, and where it is interrupted it is done again.

After a fork, the child owns nothing: sockets, selector and lock are shared with the parent or in
an unknown state. It drops them all without touching the connections, and gets a new engine; what
was under way over the old one is lost to the child.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import random
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Generic

from gearman_proto import Close, Connect, ConnectionError, LocalProtocolError, ServerAddress
from gearman_proto.engines.driving import E_, W_, BaseDriver

from ._poller import Listener, Poller
from ._selector import READ, WRITE
from ._transport import OPEN, Transport
from ._turns import Bell, Lock, Turns, is_from_handler, sleep_until

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from gearman_proto import Wait
    from gearman_proto.engines.driving import T_, Begin
    from gearman_proto.engines.racing import LastGood

logger: Final = logging.getLogger("gearman")

# Errors that end one connection only.
_BROKEN: Final = (OSError, MemoryError)
# Who has connected.
_PEER: Final = ServerAddress("peer")

#: The only clock.
clock: Final = time.monotonic
#: Where all chance comes from. It keeps nothing that two processes would share after a fork.
chance: Final = random.SystemRandom()


def _with_text(error: Exception) -> Exception:
    """Return `error`, or an error that names its type if it has no text (a MemoryError)."""
    return error if str(error) else OSError(type(error).__name__)


class Driver(BaseDriver[E_]):
    """An engine, its sockets, and the threads that wait for it.

    Args:
        make_engine: Makes the engine, now and after a fork.
        contexts: The TLS contexts of the servers that use TLS.
        refusal: What a call raises that can't be made where this thread is.
    """

    def __init__(
        self,
        make_engine: Callable[[], E_],
        contexts: dict[ServerAddress, ssl.SSLContext] | None = None,
        refusal: type[LocalProtocolError] = LocalProtocolError,
    ) -> None:
        self._make_engine = make_engine
        self._contexts = contexts or {}
        self._refusal = refusal
        self._setup()
        _drivers.add(self)

    def _setup(self) -> None:
        super().__init__(self._make_engine(), logger.exception)
        self._lock = Lock()
        # Whether the engine or the sockets are in the middle of something.
        self._busy = False
        # How often what has come was taken in.
        self._rounds = 0
        self._poller = Poller()
        self._turns = Turns(self._lock)
        # The address of each server that worked last.
        self._last_good: LastGood = {}
        # Links whose sockets take more again.
        self._writable: set[Any] = set()
        #: To be called with the Wait of a Call that is over, if it has one; `tidy` comes next.
        self.over = self._released.append

    # The way in.

    def run(self, begin: Begin[E_, Wait]) -> None:
        """Begin a call, wait for its end, and raise what it has to raise."""
        self.finish(begin).raise_error()

    def finish(self, begin: Begin[E_, W_]) -> W_:
        """Begin a call, wait for its end, and return its Wait."""
        call: Call[W_] = Call(self)
        self._settled(self._inside, self._finish, call, begin)
        return call.wait

    def during(self, begin: Begin[E_, W_], body: Callable[[Call[W_]], T_]) -> T_:
        """Begin a call, and return or raise what `body` does with it; behind that, it is over."""
        value: T_ = self._settled(self._during, begin, body)
        return value

    def _during(self, begin: Begin[E_, W_], body: Callable[[Call[W_]], T_]) -> T_:
        call: Call[W_] = Call(self)
        try:
            call.begin(begin)
            value = body(call)
        finally:
            self.over(call.wait)
        self.tidy()
        return value

    def _settled(self, function: Callable[..., T_], *args: Any) -> T_:
        """Call `function`, which makes a call. If it raises, see to it that nothing is left."""
        try:
            try:
                return function(*args)
            except BaseException:
                # A signal's, perhaps. That nobody waits any more may be news to the engine.
                self._settle()
                raise
        except BaseException:
            self._settle()  # The one above may have been hit itself.
            raise

    def call(self, function: Callable[[E_, float], T_], *, look: bool = True) -> T_:
        """Call the engine, do what comes of it, and return what `function` returns.

        Args:
            function: Gets the engine and the time.
            look: Whether to look first for what has come meanwhile.

        Raises:
            LocalProtocolError: This is on top of a call of the same thread (`refusal`).
        """
        value: T_ = self._inside(self._call, function, look)
        return value

    def tell(self, function: Callable[[E_, float], object]) -> None:
        """Call the engine, or post it: this may be done on top of a call of this thread."""
        if self._lock.is_mine():
            self.post(function)
        else:
            self.call(function)

    def post(self, function: Callable[[E_, float], object]) -> None:
        """Call the engine soon. This never blocks: it may be called in a signal handler."""
        self._posted.append(function)
        self._poller.waker.wake()

    def open(self) -> None:
        """Open the selector and the waker if they are not open. The caller has the lock.

        Raises:
            ConnectionError: The system has no descriptors left. Nothing has changed then.
        """
        if self._poller.selector is None:
            self._poller.open()

    def block(self, wait: Wait, bell: Bell) -> None:
        """Return when `wait`, which rings `bell`, is ready."""
        self._inside(self._block, wait, bell)

    def tidy(self) -> None:
        """Tell the engine of calls that are over, unless somebody has the lock, who does then.

        This never blocks: a generator that was not used up ends where the garbage collector comes
        upon it, and that may be in a thread that has the lock, of this driver or of another.
        """
        self._lock.if_free(self._guarded, self._tidy)

    def close(self) -> None:
        """Close the engine and all sockets; everybody who waits returns."""
        try:
            self.tell(lambda engine, now: engine.close(now))
        except ConnectionError:
            # The program has closed the descriptors. All connections are given up now, so the
            # second call only closes the engine.
            self.tell(lambda engine, now: engine.close(now))
        if not self._lock.is_mine():
            with self._lock:
                self._close_poller()

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

        Raises:
            ConnectionError: The system has no descriptors left.
        """
        sock.setblocking(False)
        with self._lock:
            self._poller.open()
            self._poller.listen(Listener(sock, accept, context))

    def _inside(self, function: Callable[..., T_], *args: Any) -> T_:
        """Call `function` with the lock."""
        if self._lock.is_mine():
            raise self._refusal(
                "this is in the middle of another call of the same thread, as signal handlers and "
                "finalizers may be: nothing that waits can be called here"
            )
        with self._lock:
            return self._guarded(function, *args)

    def _settle(self) -> None:
        """A call has been left by an exception: see to it that nothing is left of it."""
        if not self._lock.is_mine():
            self.call(lambda _engine, _now: None, look=False)

    # From here on, everything has the lock.

    def _guarded(self, function: Callable[..., T_], *args: Any) -> T_:
        """Call `function`, which uses the engine or the sockets, or sleeps."""
        try:
            return function(*args)
        except BaseException as error:
            if isinstance(error, OSError):
                self._check_descriptors(error)
            self._interrupted(error)
            raise

    def _check_descriptors(self, error: OSError) -> None:
        """Give up all connections if `error` came because the program closed the descriptors.

        Raises:
            ConnectionError: The program has closed them.
        """
        try:
            self._poller.check()
        except ConnectionError as taken:
            self.engine.crash(taken)
            self._busy = True
            self._interrupted(taken)
            raise taken from error

    def _finish(self, call: Call[Any], begin: Begin[E_, Any]) -> None:
        try:
            self._call(functools.partial(call.start, begin), look=True)
            if not call.wait.ready:
                self._block(call.wait, call.bell)
        finally:
            self.over(call.wait)
        self._tidy()

    def _call(self, function: Callable[[E_, float], T_], look: bool) -> T_:
        self._enter()
        selector = self._poller.selector
        if look and selector is not None and self._turns.leader is None and self._poller.transports:
            # Nobody has looked for a while. What matters most is a connection that has
            # ended: what is sent on it would be lost.
            ready = selector.select(0)
            if ready:
                self._handle(ready, -math.inf)
        try:
            value = function(self.engine, clock())
        except Exception as error:
            if self._is_refusal(error):
                self._leave()
            raise
        self._leave()
        return value

    def _block(self, wait: Wait, bell: Bell) -> None:
        on_top = self._turns.block(wait, bell, self._poll)
        self._turns.hand_over()
        if on_top:
            # When the leader's sleep, beneath this, is over may have changed.
            self._poller.waker.wake()

    def _enter(self) -> float:
        """Begin to use the engine, and return the time."""
        self._mend()
        self._busy = True
        now = clock()
        self._release_all(now)
        if self._posted:
            self._do_posted(now)
        return now

    def _leave(self) -> None:
        self._pump()
        self._busy = False
        self._turns.hand_over()

    def _tidy(self) -> None:
        if self._act(self._enter()):
            self._pump()
        self._busy = False
        self._turns.hand_over()
        self._close_poller()

    def _mend(self) -> None:
        """Do what `_interrupted` should have done, in another thread, if that was interrupted."""
        if self._busy:
            self._interrupted(InterruptedError("twice"))

    def _interrupted(self, error: BaseException) -> None:
        """An exception has come out of the middle of something, perhaps of the engine."""
        if self._busy:
            super()._interrupted(error)
            self._rounds += 1
            self._poller.renew(asleep=self._turns.is_asleep)
            self._pump()
            # All calls are over now. The engine may have been hit where it was about to ring for
            # one; each hands over to the next, the leader first.
            self._poller.waker.wake()
            self._busy = False
        self._turns.hand_over()
        self._close_poller()

    def _close_poller(self) -> None:
        """Close all sockets, if the engine has ended. Who sleeps in the selector does it then."""
        if self.engine.closed:
            if self._turns.leader is None:
                self._poller.close()
            else:
                self._poller.waker.wake()

    # Polling.

    def _poll(self) -> None:
        """Sleep until something comes or is due, and take it in."""
        self._mend()
        rounds, selector = self._rounds, self._poller.selector
        if selector is None:
            self._poller.open()
            # Calls posted before the waker was open have not woken this thread.
            self._enter()
            self._leave()
            return
        deadline = self._next_deadline()
        timeout = sleep_until(deadline)
        try:
            ready = self._turns.sleep(deadline, selector.select, timeout)
        finally:
            # The one beneath, if this is on top of one, sleeps in it as well.
            if self._turns.depth == 1:
                if self.engine.closed:
                    self._poller.close()
                if selector is not self._poller.selector:
                    self._poller.drop(selector)
        # What was found is out of date if somebody has looked meanwhile, on top of this.
        if rounds == self._rounds and not self._busy:
            self._handle(ready, deadline)

    def _handle(self, ready: list[tuple[Any, int]], deadline: float) -> None:
        """Take in what the selector has found, and go on from there.

        Args:
            ready: What it has found.
            deadline: From when on the time that has passed matters. What comes of `ready` may
                make that earlier; it is looked at before the next sleep.
        """
        was_busy, self._busy = self._busy, True
        self._rounds += 1
        now = clock()
        if self._released:
            self._release_all(now)
        transports = self._poller.transports
        for owner, events in ready:
            transport = transports.get(owner)
            if transport is not None:
                self._on_ready(owner, transport, events, now)
            elif owner is None:
                self._poller.waker.drain()
            elif isinstance(owner, Listener):
                self._accept(owner, now)
            # Else it was closed since the selector returned.
        # Input that has come counts before the time that has passed.
        if now >= deadline:
            self._start_addresses(now)
            self._poller.resume_listening(now)
            self._tell(self._expire, now)
        self._pump()
        self._busy = was_busy

    def _unacknowledged(self, link: Any) -> int | None:
        transport = self._poller.transports.get(link)
        return None if transport is None else transport.unacknowledged()

    def _start_addresses(self, now: float) -> None:
        for link in list(self._poller.connecting):
            transport = self._poller.transports[link]
            if transport.deadline is not None and transport.deadline <= now:
                self._attempt(link, transport.start_due, now)

    def _next_deadline(self) -> float:
        first, deadline = self._poller.next_deadline(), self.engine.next_deadline()
        return first if deadline is None or first < deadline else deadline

    def _accept(self, listener: Listener, now: float) -> None:
        for sock, address in self._poller.accept(listener, now):
            link = listener.accept(self.engine, str(address[0]), sock.fileno(), now)
            self._poller.add(link, self._transport(_PEER, 0.0, listener.context).accept(sock))

    def _on_ready(self, link: Any, transport: Transport, events: int, now: float) -> None:
        if transport.stage is not OPEN:
            if self._attempt(link, transport.advance, now):
                self._tell(self.engine.connected, link, now)
            return
        if events != READ:
            self._writable.add(link)
        if events == WRITE or link.behind:
            return
        while True:
            try:
                data = transport.read()
            except _BROKEN as error:
                self._lost(link, self.engine.connection_lost, _with_text(error), now)
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
        self._poller.suspend(link)  # The step may close sockets.
        try:
            done = bool(step(now))
        except Exception as error:
            # Of any kind: the system may have no memory or no thread left, and `ssl` raises
            # ValueError for some host names.
            if is_from_handler(error):
                raise
            self._lost(link, self.engine.connect_failed, _with_text(error), now)
            return False
        if done:
            self._poller.connecting.discard(link)
        else:
            self._tell(self.engine.connecting, link, now)
        return done

    def _lost(self, link: Any, tell: Callable[..., None], error: Exception, now: float) -> None:
        self._poller.forget(link)
        self._tell(tell, link, error, now)

    # Doing what the engine wants.

    def _pump(self) -> None:
        """Carry out what the engine wants, write what it has to write, and tell the leader."""
        now = clock()
        changed = self._act(now)
        while links := [*self.engine.links_to_write(), *self._writable]:
            lost = self._write(links, now)
            if not self._act(now) and not lost:
                break
            changed = True
        if self._poller.touched:
            changed |= self._poller.refresh()
        until = self._turns.sleeping_until
        if until is not None and (changed or self._turns.is_done or self._next_deadline() < until):
            self._poller.waker.wake()

    def _act(self, now: float) -> bool:
        """Do what was posted, and what the engine wants. Returns whether there was anything."""
        acted = bool(self._posted) and self._do_posted(now)
        while (action := self.engine.next_action()) is not None:
            acted = True
            if isinstance(action, Connect):
                self._connect(action, now)
            elif isinstance(action, Close):
                self._poller.forget(action.link)
            else:
                self._poller.stop_listening()
        return acted

    def _write(self, links: list[Any], now: float) -> bool:
        """Write what there is for `links`. Returns whether a connection was lost by that."""
        lost = False
        for link in links:
            transport = self._poller.transports.get(link)
            if transport is None or transport.stage is not OPEN:
                continue
            was_blocked = transport.is_blocked
            if was_blocked and link not in self._writable:
                continue
            more = functools.partial(self._tell, self.engine.data_to_send, link, now)
            try:
                transport.write(more, link)
            except _BROKEN as error:
                self._lost(link, self.engine.connection_lost, _with_text(error), now)
                lost = True
            if transport.is_blocked is not was_blocked:
                self._poller.touched.add(link)
        self._writable.clear()
        return lost

    def _connect(self, action: Connect, now: float) -> None:
        link = action.link
        context = self._contexts.get(link.address)
        transport = self._transport(link.address, action.timeout, context)
        self._poller.add(link, transport)
        self._poller.connecting.add(link)

        def resolved(found: list[Any] | Exception) -> None:
            # In the resolver's thread. If nobody leads, the next one who does will look.
            self.post(lambda _engine, now: self._on_resolved(link, found, now))

        self._attempt(link, functools.partial(transport.start, resolved), now)

    def _on_resolved(self, link: Any, found: list[Any] | Exception, now: float) -> None:
        transport = self._poller.transports.get(link)
        if transport is None:
            return  # The engine has given it up.
        if isinstance(found, Exception):
            self._lost(link, self.engine.connect_failed, found, now)
        else:
            self._attempt(link, functools.partial(transport.connect, found), now)

    def _transport(
        self, address: ServerAddress, timeout: float, context: ssl.SSLContext | None
    ) -> Transport:
        if context is None:
            return Transport(address, timeout, self._last_good)
        from ._tls import SecureTransport  # noqa: PLC0415 - `ssl` takes long to load

        return SecureTransport(address, timeout, self._last_good, context)

    # The end.

    def __del__(self) -> None:
        # Nobody waits: who did would hold this. The application has ended it, as by `close`.
        if hasattr(self, "_poller") and self._poller.is_open:
            with self._lock:
                self.engine.close(clock())
            self._poller.close()

    def after_fork(self) -> None:
        """In the child: forget the parent's sockets, lock and engine.

        Another thread may have been in the middle of them, so that they can't be relied on; and
        there are other drivers, which are to forget theirs all the same.
        """
        was_closed = self.engine.closed
        with contextlib.suppress(Exception):
            self.engine.abandon(ConnectionError("the process was forked"))
        with contextlib.suppress(Exception):
            self._poller.close(in_child=True)
        if not was_closed:
            self._setup()


class Call(Generic[W_]):
    """A call that waits for something.

    It is there before its Wait, so that no exception can come between the two.
    """

    def __init__(self, driver: Driver[Any]) -> None:
        self._driver = driver
        #: Its own object: a Wait keeps what wakes it, and would be in a circle with its Call.
        self.bell = Bell()
        #: What it waits for; none before it has begun.
        self.wait: W_ = None  # type: ignore[assignment]

    def begin(self, begin: Begin[Any, W_]) -> None:
        """Have the engine begin it."""
        self._driver.call(functools.partial(self.start, begin))

    def start(self, begin: Begin[Any, W_], engine: Any, now: float) -> None:
        """Begin it; this has the lock."""
        self._driver.open()
        self.wait = begin(engine, now, self.bell.ring)

    def block(self) -> W_:
        """Return the Wait when it is ready."""
        if not self.wait.ready:
            self._driver.block(self.wait, self.bell)
        return self.wait


_drivers: Final[weakref.WeakSet[Driver[Any]]] = weakref.WeakSet()


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
