"""The blocking driver: one engine, one lock, one selector, and no background thread.

A thread that is blocked in a call either polls the sockets for all blocked threads, or sleeps (see
`_leader`). A thread that only submits a job writes to the sockets itself. If that changes the
events or the deadline of the polling thread, it wakes that thread.

The lock guards the engine, the sockets (`_poller`, `_transport`) and all state in this module. A
thread holds it while it uses any of these, and releases it before it sleeps, in the selector or on
a Bell. So a thread that waits for a connection does not delay the others. The engine calls
`Wait.wake` with the lock held.

Nested calls
    ==========  =======================================  ==========================================
    place       state of the thread                      a nested call there; an exception there
    ==========  =======================================  ==========================================
    outside     holds nothing                            is an ordinary call; ends nothing
    inside      holds the lock                           is refused or posted; ends all calls
    leading     sleeps in the selector without the lock  leads (`_leader`); ends this call
    following   waits for its Bell without the lock      follows or leads; ends this call
    ==========  =======================================  ==========================================

    Signal handlers and finalizers make nested calls. Inside, the nested call may have interrupted
    the engine, which can't finish before the nested call returns. Calls that have to wait are
    therefore refused. Calls that only notify the engine (`tell`, `post`, `close`) are posted: they
    run before the lock is released, or in the thread that polls next. In the other places, any
    call is safe. The outer call continues after the nested one, with its own deadline. By then,
    the selector's results may be stale, so they are discarded (`_rounds`); the next poll reports
    the sockets again.

Exceptions of signal handlers
    A signal handler can raise an exception anywhere (see `_leader`), but only in the main thread.
    Four rules make it harmless:

    * `_busy` is true from before the engine or the sockets are used until they are consistent
      again. After an exception in between, their state is unknown, so `_interrupted` replaces the
      engine, closes all connections and the selector, and ends all calls. `_busy` stays true until
      that is done. If `_interrupted` is interrupted itself, the next thread that takes the lock
      does it again.
    * A Wait is stored in its Call before the lock is released, that is, while `_busy` is true.
      Every Call ends with a `finally` whose first step is a single C call that adds the Wait to
      `_released`. So every Wait of the engine is released in the end. Releasing a worker's Wait is
      what ends its work.
    * All later cleanup takes the lock, and is repeated if it is interrupted.
    * The call raises the same object. So each ``except`` of a broad class (OSError, for example)
      first calls `reraise_from_handler`, and the finalizer of a socket is a C function, because
      exceptions that hit a finalizer in Python are lost.

After a fork, the child can use nothing of this: sockets, selector and lock are shared with the
parent or in an unknown state. The child drops them all without touching the connections, and
creates a new engine. Calls in flight on the old engine are lost to the child.
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
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic

from gearman_proto import Close, Connect, ConnectionError, LocalProtocolError, ServerAddress
from gearman_proto.engines.driver import E_, W_, BaseDriver
from gearman_proto.handlers import is_from_handler, reraise_from_handler
from gearman_proto.signals import restore_in_child

from ._leader import Bell, Leadership, Lock, sleep_until
from ._poller import Listener, Poller
from ._selector import READ, WRITE
from ._transport import OPEN, Transport

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from gearman_proto import Wait
    from gearman_proto.engines.driver import P_, T_, Method
    from gearman_proto.engines.racing import LastGood

logger: Final = logging.getLogger("gearman")

# Errors that end one connection only.
_BROKEN: Final = (OSError, MemoryError)
# The address of every accepted connection.
_PEER: Final = ServerAddress("peer")

#: The only clock.
clock: Final = time.monotonic
#: The source of all randomness. It has no state that two processes could share after a fork.
rng: Final = random.SystemRandom()


def _with_text(error: Exception) -> Exception:
    """Return `error`, or an error that names its type if it has no text (a MemoryError)."""
    return error if str(error) else OSError(type(error).__name__)


class Driver(BaseDriver[E_]):
    """An engine, its sockets, and the threads that wait for it.

    Args:
        make_engine: Makes the engine, now and after a fork.
        contexts: The TLS contexts of the servers that use TLS.
        refusal: The error that a call raises if its thread is inside another call.
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
        super().__init__(self._make_engine, logger)
        self._lock = Lock()
        # True while the engine and the sockets may be inconsistent.
        self._busy = False
        # Counts how many times the selector's results were processed.
        self._rounds = 0
        self._poller = Poller()
        self._leadership = Leadership(self._lock)
        # The last working address of each server.
        self._last_good: LastGood = {}
        # Links whose sockets accept data again.
        self._writable: set[Any] = set()
        #: Called with the Wait of a finished Call, or None. Call `flush` afterwards.
        self.over = self._released.append

    # The driver is a context manager around a call. It cleans up if an exception ends the call. A
    # signal handler may have raised that; then the engine still has the Wait. The cleanup may be
    # interrupted itself, so calls enter the driver twice.

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.clean_up()

    # The driver's interface.

    def run(self, method: Method[E_, P_, W_], *args: P_.args, **options: P_.kwargs) -> W_:
        """Make a call that waits, and raise its error if it failed.

        Args:
            method: The method of the engine that begins the call.
            args: Its arguments, without the time and `wake`.
            options: Its keyword arguments.

        Returns:
            The Wait of the call, which is done.
        """
        call: Call[W_] = Call(self)
        with self, self:
            try:
                self.begin(call, method, *args, **options)
                call.block()
            finally:
                self.over(call.wait)
            self.flush()
        call.wait.raise_error()
        return call.wait

    def during(
        self,
        body: Callable[[Call[W_]], T_],
        method: Method[E_, P_, W_],
        *args: P_.args,
        **options: P_.kwargs,
    ) -> T_:
        """Begin a call as `run` does, return the result of `body`, and end the call.

        Args:
            body: Gets the call.
            method: As in `run`.
            args: As in `run`.
            options: As in `run`.
        """
        call: Call[W_] = Call(self)
        with self, self:
            try:
                call.begin(method, *args, **options)
                value = body(call)
            finally:
                self.over(call.wait)
            self.flush()
        return value

    def begin(
        self, call: Call[W_], method: Method[E_, P_, W_], *args: P_.args, **options: P_.kwargs
    ) -> None:
        """Begin `call`; see `run` for the other arguments.

        Raises:
            ConnectionError: The system has no descriptors left. Nothing was changed.
            LocalProtocolError: This thread is inside another call (`refusal`).
        """
        self._check_nesting()
        with self._lock:
            try:
                if self._poller.selector is None:
                    self._poller.open()
                self._check_sockets()
                begin = getattr(self.engine, method.__name__)
                call.wait = begin(clock(), call.bell.ring, *args, **options)
                self._leave()
            except BaseException as error:
                self._recover(error)
                raise

    def call(
        self,
        method: Callable[Concatenate[E_, float, P_], T_],
        *args: P_.args,
        **options: P_.kwargs,
    ) -> T_:
        """Call the engine, carry out its actions, and return the result.

        Args:
            method: The method of the engine.
            args: Its arguments, without the time.
            options: Its keyword arguments.

        Raises:
            LocalProtocolError: This thread is inside another call (`refusal`).
        """

        def call(engine: E_, now: float) -> T_:
            value: T_ = getattr(engine, method.__name__)(now, *args, **options)
            return value

        return self.apply(call)

    def apply(self, function: Callable[[E_, float], T_]) -> T_:
        """Call `function` with the engine and the time. Otherwise, do the same as `call`."""
        self._check_nesting()
        with self._lock:
            try:
                self._enter()
                value = function(self.engine, clock())
                self._leave()
            except BaseException as error:
                self._recover(error)
                raise
        return value

    def call_or_post(self, function: Callable[[E_, float], object]) -> None:
        """Call the engine, or post the call if this thread is inside another one."""
        if self._lock.owned():
            self.post(function)
        else:
            self.apply(function)

    def post(self, function: Callable[[E_, float], object]) -> None:
        """Schedule a call of the engine. This never blocks, so signal handlers can use it."""
        self._posted.append(function)
        self._poller.waker.wake()

    def block(self, wait: Wait, bell: Bell) -> None:
        """Block until `wait`, which rings `bell`, is ready."""
        self._check_nesting()
        with self._lock:
            try:
                on_top = self._leadership.block(wait, bell, self._poll)
                self._leadership.hand_over()
                if on_top:
                    # The deadline of the leader's interrupted sleep may have changed.
                    self._poller.waker.wake()
            except BaseException as error:
                self._recover(error)
                raise

    def flush(self) -> None:
        """Release ended calls. If a thread holds the lock, leave that to it.

        This never blocks. The garbage collector finalizes an unfinished generator in any thread,
        even in one that holds the lock of this driver or of another.
        """
        self._lock.try_run(self._flush)

    def close(self) -> None:
        """Close the engine and all sockets. All blocked calls return."""
        try:
            self.call_or_post(lambda engine, now: engine.close(now))
        except ConnectionError:
            # The program has closed the descriptors. All connections have been dropped now, so
            # the second call only closes the engine.
            self.call_or_post(lambda engine, now: engine.close(now))
        if not self._lock.owned():
            with self._lock:
                self._close_poller()

    def listen(
        self,
        sock: socket.socket,
        accept: Callable[[E_, str, int, float], Any],
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Accept connections from the listening socket `sock`. The driver takes ownership of it.

        Args:
            sock: The socket.
            accept: Called with the engine, the peer's address, the new socket's descriptor and the
                time. It returns the link.
            context: The TLS context. If there is one, the driver notifies the engine when a link's
                handshake is done.

        Raises:
            ConnectionError: The system has no descriptors left.
        """
        sock.setblocking(False)
        with self._lock:
            self._poller.open()
            self._poller.listen(Listener(sock, accept, context))

    def _check_nesting(self) -> None:
        if self._lock.owned():
            raise self._refusal(
                "this is in the middle of another call of the same thread, as signal handlers and "
                "finalizers may be: nothing that waits can be called here"
            )

    def clean_up(self) -> None:
        """Clean up after a call that an exception has ended."""
        if not self._lock.owned():
            self.apply(lambda _engine, _now: None)

    # All methods below, up to the finalizer, are called with the lock held.

    def _recover(self, error: BaseException) -> None:
        """Make the driver usable after `error` has ended the use of the engine or the sockets.

        Raises:
            ConnectionError: The system call failed because the program has closed the descriptors.
        """
        if isinstance(error, OSError) and not is_from_handler(error):
            try:
                self._poller.check()
            except ConnectionError as closed:
                self._busy = True
                self._interrupted(closed)
                raise closed from error
        self._interrupted(error)

    def _check_sockets(self) -> None:
        """Begin to use the engine, and process the sockets' events if no thread polls.

        Above all, detect connections that have ended: data sent on them would be lost.
        """
        self._enter()
        selector = self._poller.selector
        if selector is not None and self._leadership.leader is None and self._poller.transports:
            ready = selector.select(0)
            if ready:
                self._handle(ready, -math.inf)

    def _enter(self) -> float:
        """Begin to use the engine, and return the time."""
        self._finish_recovery()
        self._busy = True
        now = clock()
        self._release_all(now)
        if self._posted:
            self._do_posted(now)
        return now

    def _leave(self) -> None:
        self._pump()
        self._busy = False
        self._leadership.hand_over()

    def _flush(self) -> None:
        try:
            if self._act(self._enter()):
                self._pump()
            self._busy = False
            self._leadership.hand_over()
            self._close_poller()
        except BaseException as error:
            self._recover(error)
            raise

    def _finish_recovery(self) -> None:
        """Complete a call of `_interrupted` that was interrupted in another thread."""
        if self._busy:
            self._interrupted(InterruptedError("twice"))

    def _interrupted(self, error: BaseException) -> None:
        """Recover from an exception. If it interrupted the engine, replace the engine."""
        if self._busy:
            # All calls end, and a Bell can't wake the leader. The leader also completes this if it
            # is interrupted itself.
            self._poller.waker.wake()
            super()._interrupted(error)
            self._pump()
            self._busy = False
        self._leadership.hand_over()
        self._close_poller()

    def _replace(self, error: Exception) -> None:
        super()._replace(error)
        self._rounds += 1
        self._poller.reset(asleep=self._leadership.is_asleep)

    def _close_poller(self) -> None:
        """Close all sockets if the engine is closed. If a thread leads, wake it to do that."""
        if self.engine.closed:
            if self._leadership.leader is None:
                self._poller.close()
            else:
                self._poller.waker.wake()

    # Polling.

    def _poll(self) -> None:
        """Sleep until a socket is ready or a deadline passes, and process the events.

        Then log the engine's notices, without the lock: a log handler can make a nested call.
        """
        self._finish_recovery()
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
            ready = self._leadership.sleep(deadline, selector.select, timeout)
        finally:
            # If this call is nested, the outer call sleeps in the selector as well.
            if self._leadership.depth == 1:
                if self.engine.closed:
                    self._poller.close()
                if selector is not self._poller.selector:
                    self._poller.drop(selector)
        # The results are stale if a nested call has polled meanwhile.
        if rounds == self._rounds and not self._busy:
            self._handle(ready, deadline)
        if self.engine.notices:
            self._lock.sleep(self.log_notices)

    def _handle(self, ready: list[tuple[Any, int]], deadline: float) -> None:
        """Process the selector's results, and carry out the engine's actions.

        Args:
            ready: The owners of the ready sockets, and their events.
            deadline: The time from which timeouts are handled. Processing `ready` may set an
                earlier one, which is checked before the next sleep.
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
            # Otherwise, the socket was closed after the selector returned.
        # Received data takes precedence over timeouts.
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
            transport = self._poller.transports.get(link)
            # None: an earlier step has ended this link, or the engine was replaced.
            if transport and transport.deadline is not None and transport.deadline <= now:
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
        if events == WRITE or link.has_backlog:
            return
        while True:
            try:
                data = transport.read()
            except _BROKEN as error:
                reraise_from_handler(error)
                self._lost(link, self.engine.connection_lost, _with_text(error), now)
                return
            if data:
                self._tell(self.engine.receive_data, link, data, now)
            elif data is not None:
                # The engine decides when to close the link. It may still have data to send.
                self._poller.touched.add(link)
                self._tell(self.engine.receive_eof, link, now)
            if not data or not transport.has_pending:
                return

    def _attempt(self, link: Any, step: Callable[[float], Any], now: float) -> bool:
        """Run one step of connecting. Return True if it was the last."""
        self._poller.suspend(link)  # The step may close sockets.
        try:
            done = bool(step(now))
        except Exception as error:  # noqa: BLE001 - see below
            # It can be of any type: the system may have no memory or no thread left, and `ssl`
            # raises ValueError for some host names.
            reraise_from_handler(error)
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

    # Carrying out the engine's actions.

    def _pump(self) -> None:
        """Carry out the engine's actions, send its data, and wake the leader if necessary."""
        now = clock()
        changed = self._act(now)
        while links := [*self.engine.links_to_write(), *self._writable]:
            lost = self._write(links, now)
            if not self._act(now) and not lost:
                break
            changed = True
        if self._poller.touched:
            changed |= self._poller.refresh()
        until = self._leadership.sleeping_until
        if until is not None and (
            changed or self._leadership.is_done or self._next_deadline() < until
        ):
            self._poller.waker.wake()

    def _act(self, now: float) -> bool:
        """Run posted calls, and carry out the engine's actions. Return True if there were any."""
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
        """Send the pending data of `links`. Return True if a connection was lost."""
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
                reraise_from_handler(error)
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
            # This runs in the resolver's thread. If no thread leads, the next leader handles it.
            self.post(lambda _engine, now: self._on_resolved(link, found, now))

        self._attempt(link, functools.partial(transport.start, resolved), now)

    def _on_resolved(self, link: Any, found: list[Any] | Exception, now: float) -> None:
        transport = self._poller.transports.get(link)
        if transport is None:
            return  # The engine has abandoned the link.
        if isinstance(found, Exception):
            self._lost(link, self.engine.connect_failed, found, now)
        else:
            self._attempt(link, functools.partial(transport.connect, found), now)

    def _transport(
        self, address: ServerAddress, timeout: float, context: ssl.SSLContext | None
    ) -> Transport:
        if context is None:
            return Transport(address, timeout, self._last_good)
        from ._tls import SecureTransport  # noqa: PLC0415 - `ssl` is slow to import

        return SecureTransport(address, timeout, self._last_good, context)

    # Finalizing and forking.

    def __del__(self) -> None:
        # No call is blocked: it would hold a reference. Close the engine as `close` does.
        if hasattr(self, "_poller") and self._poller.is_open:
            with self._lock:
                self.engine.close(clock())
            self._poller.close()

    def after_fork(self) -> None:
        """Drop the parent's sockets, lock and engine, in the child of a fork.

        Another thread may have been using them, so they can't be relied on. Their errors are
        suppressed, because other drivers have to drop theirs as well.
        """
        was_closed = self.engine.closed
        with contextlib.suppress(Exception):
            self.engine.abandon(ConnectionError("the process was forked"))
        with contextlib.suppress(Exception):
            self._poller.close(in_child=True)
        if not was_closed:
            self._setup()


class Call(Generic[W_]):
    """A blocking call.

    It is created before its Wait, so that no exception between the two can lose the Wait.
    """

    def __init__(self, driver: Driver[Any]) -> None:
        self._driver = driver
        #: A separate object: the Wait refers to it, and must not be in a cycle with the Call.
        self.bell = Bell()
        #: The engine's Wait; None until the call has begun.
        self.wait: W_ = None  # type: ignore[assignment]

    def begin(self, method: Method[E_, P_, W_], *args: P_.args, **options: P_.kwargs) -> None:
        """Begin the call. If the engine refuses it, raise the reason. See `Driver.run`."""
        self._driver.begin(self, method, *args, **options)
        if self.wait.error is not None:
            self.wait.raise_error()

    def block(self) -> W_:
        """Block until the Wait is ready, and return it."""
        if not self.wait.ready:
            self._driver.block(self.wait, self.bell)
        return self.wait


_drivers: Final[weakref.WeakSet[Driver[Any]]] = weakref.WeakSet()


def _after_fork() -> None:
    restore_in_child()
    for driver in list(_drivers):
        driver.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
