"""The async driver: an engine over streams, one task group, and a nested one per connection.

Any task can use the engine. No code awaits while it uses the engine, so the driver needs no lock.
After each use, `_pump` carries out the engine's actions: it starts and cancels the tasks of
connections, has pending data sent, and sets the alarm. A caller awaits only an event, so cancelling
it can't truncate a packet:

    caller  -> engine -> _pump -> send_now, or the writer's bell ... stream.send
    stream.receive ... reader  \
    readable (a RawStream, asyncio) -> engine -> Wait.wake -> the caller's bell

The tasks of a connection read and write its stream, with two exceptions for RawStreams. On
asyncio, such a stream has no reader task; the event loop calls `_readable` instead. And `_pump`
sends data at once if the writer is idle and data was received since `_pump` last did so. In this
case, a client submits one job after another and waits for each, or a worker does jobs. If many
tasks send in one iteration of the event loop, `_pump` sends the first one's data, and the writer
sends the rest in one piece. So:

    writer               the engine has data              all data is sent      data was received
    idle, unanswered     wake the writer: busy            -                     idle, answered
    idle, answered       send_now: idle, unanswered;      -                     -
                         if the socket does not accept
                         all, the writer sends the rest:
                         busy
    busy                 -                                idle                  answered once idle

A connection ends in one of three ways: its stream fails (`_lost`), the engine returns Close, or the
task group ends. In the first two cases, the connection is removed from `_wires` and its tasks are
cancelled. In each case, `_converse` closes the stream.

`anyio.current_time` is the only clock. It looks up the event loop at each call. Inside
``async with``, the driver therefore uses the clock and the events of the event loop itself, which
are the same (`_tasks.native`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import random
import threading
import weakref
from typing import TYPE_CHECKING, Any, Concatenate, Final

import anyio
import anyio.lowlevel

from gearman_proto import Close, Connect, ConnectionError
from gearman_proto.engines.driver import E_, LISTEN_AGAIN, READ_SIZE, BaseDriver
from gearman_proto.handlers import is_from_handler, reraise_from_handler
from gearman_proto.signals import restore_in_child

from . import _sockets
from ._calls import Bell, Call, Event
from ._raw import RawStream, RawStreamOnAsyncio
from ._streams import (
    Ended,
    HangupWatcher,
    end_stream,
    failure,
    reason,
    set_options,
    socket_stream,
    unacknowledged,
)
from ._tasks import Tasks, hosted_tasks, native

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Self, TypeAlias

    from anyio.abc import ByteStream

    from gearman_proto import Wait
    from gearman_proto.engines.driver import P_, T_, W_, Method

    Handler: TypeAlias = Callable[[ByteStream], Coroutine[Any, Any, None]]

logger: Final = logging.getLogger("gearman")

#: The source of all randomness. It has no state.
rng: Final = random.SystemRandom()

# Bytes to send at a time: asyncio copies the bytes that the socket does not accept at once.
_WRITE_SIZE: Final = 256 * 1024


class _Wire:
    """The tasks of one connection, and the state of its writer."""

    __slots__ = ("is_answered", "is_idle", "raw", "rest", "scope", "sock", "writable")

    def __init__(self, make_event: Callable[[], Event]) -> None:
        self.scope = anyio.CancelScope()
        #: Rings when the engine might have data to send.
        self.writable = Bell(make_event)
        #: The stream, if it can send without waiting.
        self.raw: RawStream | None = None
        #: True while the writer waits for `writable`.
        self.is_idle = False
        #: True if data was received since the last `send_now` on `plain`.
        self.is_answered = False
        #: The stream's socket, if it has one.
        self.sock: Any = None
        #: Data that the stream has not accepted. The writer sends it first.
        self.rest: bytes | memoryview = b""

    def wake(self) -> None:
        """Wake the writer."""
        self.is_idle = False
        self.writable.ring()


class Driver(BaseDriver[E_]):
    """An engine and its connections, which exist inside ``async with driver:``.

    Args:
        make_engine: Makes the engine, and the engine that replaces it.
        open_stream: Opens the stream of a link; called with the link and a timeout in seconds.
        make_tasks: Creates the driver's task group; called with a function that the group calls
            with a task's exception.
    """

    def __init__(
        self,
        make_engine: Callable[[], E_],
        open_stream: Callable[[Any, float], Awaitable[ByteStream]] | None = None,
        make_tasks: Callable[[Callable[[BaseException], object]], Tasks] = hosted_tasks,
    ) -> None:
        super().__init__(make_engine, logger)
        self._open_stream = open_stream
        self._make_tasks = make_tasks
        # True while the engine is in use.
        self._busy = False
        self._tasks: Tasks | None = None
        self._thread = 0
        self._is_forked = False
        self._wires: dict[Any, _Wire] = {}
        self._hangups = HangupWatcher()
        self._clock = anyio.current_time
        # The time of the last `start`, `release` or end of ``async with``.
        self._last = 0.0
        self._make_event: Callable[[], Event] = anyio.Event
        self._alarm: anyio.CancelScope | None = None
        self._listening: anyio.CancelScope | None = None

    @property
    def is_running(self) -> bool:
        """True inside ``async with``."""
        return self._tasks is not None

    async def __aenter__(self) -> Self:
        tasks = self._make_tasks(self._failed)
        await tasks.__aenter__()
        self._tasks = tasks
        self._thread = threading.get_ident()
        _running.add(self)
        self._clock, self._make_event = native()
        self._alarm = None
        tasks.start_soon(self._keep_time)
        self._pump()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        assert self._tasks is not None
        try:
            await self._tasks.__aexit__(kind, error, traceback)
        finally:
            self._tasks = None
            self._last = self._clock()
            _running.discard(self)
            self._clock, self._make_event = anyio.current_time, anyio.Event

    # The driver's interface.

    async def run(self, method: Method[E_, P_, W_], *args: P_.args, **options: P_.kwargs) -> W_:
        """Make a call that waits, and raise its error if it failed.

        Args:
            method: The method of the engine that begins the call.
            args: Its arguments, without the time and `wake`.
            options: Its keyword arguments.

        Returns:
            The Wait of the call, which is done.
        """
        await self.wait_for_readers()
        try:
            with self.start(method, *args, **options) as call:
                await call.block()
        except BaseException:
            # The call may have been cancelled. Let the engine handle its release.
            self.apply(lambda _engine, _now: None)
            raise
        call.wait.raise_error()
        return call.wait

    async def run_at_once(
        self, method: Method[E_, P_, W_], *args: P_.args, **options: P_.kwargs
    ) -> W_:
        """Do the same as `run`, but let no other tasks run if the call ends at once."""
        await self.wait_for_readers()
        with self.start(method, *args, **options) as call:
            if not call.wait.ready:
                await call.block()
        call.wait.raise_error()
        return call.wait

    def start(self, method: Method[E_, P_, W_], *args: P_.args, **options: P_.kwargs) -> Call[W_]:
        """Begin a call as `run` does. The Call has to be used as a context manager.

        Raises:
            GearmanError: The engine refuses the call.
            RuntimeError: This thread is not that of the event loop.
        """
        bell = Bell(self._make_event)
        self._check_thread()
        self._busy = True
        try:
            begin = getattr(self.engine, method.__name__)
            now = self._last = self._clock()
            wait: W_ = begin(now, bell.ring, *args, **options)
        except BaseException as error:
            self._interrupted(error)
            raise
        finally:
            self._pump()
        if wait.error is not None:
            self.release(wait)
            wait.raise_error()
        return Call(wait, self.release, bell)

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
            RuntimeError: This thread is not that of the event loop.
        """

        def call(engine: E_, now: float) -> T_:
            value: T_ = getattr(engine, method.__name__)(now, *args, **options)
            return value

        return self.apply(call)

    def apply(self, function: Callable[[E_, float], T_]) -> T_:
        """Call `function` with the engine and the time, then carry out the engine's actions.

        Args:
            function: The function.

        Returns:
            The result of `function`.

        Raises:
            RuntimeError: This thread is not that of the event loop.
        """
        self._check_thread()
        self._busy = True
        try:
            return function(self.engine, self._now())
        except BaseException as error:
            self._interrupted(error)
            raise
        finally:
            self._pump()

    async def wait_for_readers(self) -> None:
        """Let the engine notice connections that have ended."""
        if self._hangups.any():
            await self._hangups.wait_for_readers()

    def call_or_post(self, function: Callable[[E_, float], object]) -> None:
        """Call the engine, or post the call if a signal handler makes it inside another one."""
        if self._busy and threading.get_ident() == self._thread:
            self._posted.append(function)
        else:
            self.apply(function)

    def release(self, wait: Wait) -> None:
        """Release `wait`, because its call has ended."""
        self._last = self._clock()
        self.engine.release(wait, self._last)

    def post(self, function: Callable[[E_, float], object]) -> None:
        """Call the engine soon. The garbage collector can call this at any point."""
        self._posted.append(function)

    def release_soon(self, wait: Wait) -> None:
        """Release `wait` soon. The garbage collector can call this at any point."""
        self._released.append(wait)
        if self._tasks is None:
            self._release_all(self._last)

    def close(self) -> None:
        """Close the engine and all connections. All waiting calls return."""
        if not self._is_forked:
            self.apply(lambda engine, now: engine.close(now))

    def after_fork(self) -> None:
        """Refuse all calls, in the child of a fork: it shares the event loop with the parent."""
        self._is_forked = True
        self._thread = 0  # The number of no thread, so all calls are refused.
        self._hangups = HangupWatcher()
        with contextlib.suppress(Exception):
            self.engine.abandon(ConnectionError("the process was forked"))

    def listen(self, listener: socket.socket, handle: Handler) -> None:
        """Accept connections from `listener`. The driver takes ownership of it.

        Args:
            listener: The listening socket.
            handle: Called with the stream of each connection, in a task of its own.
        """
        self._listening = anyio.CancelScope()
        self.start_soon(self._accept, listener, self._listening, handle)

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, object]], *args: Any) -> None:
        """Run `function` in a task that is cancelled at the end of the driver's ``async with``."""
        assert self._tasks is not None
        self._tasks.start_soon(function, *args)

    # Using the engine.

    def _now(self) -> float:
        # Without connections, nothing has a timeout, and an event loop might not even run.
        here = self.is_running and threading.get_ident() == self._thread
        return self._clock() if here else self._last

    def _check_thread(self) -> None:
        if self._tasks is not None and threading.get_ident() != self._thread:
            raise RuntimeError(
                "this belongs to the process that was forked: make a new one in the child"
                if self._is_forked
                else "this belongs to an event loop in another thread; see anyio.from_thread"
            )

    def _failed(self, error: BaseException) -> None:
        """End all waiting calls, because a task has raised `error` and all tasks have ended."""
        self._interrupted(error)
        self.close()

    def _replace(self, error: Exception) -> None:
        super()._replace(error)
        for link in list(self._wires):
            self._cut(link)
        if self.engine.closed and self._listening is not None:
            self._listening.cancel()

    def _feed(self, call: Callable[..., T_], *args: Any) -> T_ | None:
        """Notify the engine, and carry out its actions."""
        self._busy = True
        try:
            return self._tell(call, *args, self._clock())
        except BaseException as error:
            self._interrupted(error)
            raise
        finally:
            self._pump()

    def _pump(self) -> None:
        """Carry out the engine's actions, and run the posted calls."""
        if self._tasks is not None:
            try:
                if self._posted:
                    self._do_posted(self._now())
                self._act(self._tasks)
            except BaseException as error:
                # Output of the engine may be lost, the rest of a packet, for example.
                self._interrupted(error)
                self._act(self._tasks)
                raise
        self._busy = False
        if self._posted:
            self.apply(lambda _engine, now: self._do_posted(now))

    def _act(self, tasks: Tasks) -> None:
        if self._released:
            self._release_all(self._now())
        again = True
        while again:
            while (action := self.engine.next_action()) is not None:
                if isinstance(action, Connect):
                    tasks.start_soon(self._connect, action.link, action.timeout)
                elif isinstance(action, Close):
                    self._cut(action.link)
                elif self._listening is not None:
                    self._listening.cancel()
            again = self._write_all()
        alarm = self._alarm
        deadline = self.engine.next_deadline()
        if alarm is not None and deadline is not None and deadline < alarm.deadline:
            alarm.deadline = deadline

    def _write_all(self) -> bool:
        """Send pending data or wake its writers. Return True if the engine was asked for data."""
        asked = False
        for link in self.engine.links_to_write():
            wire = self._wires.get(link)
            if wire is None:
                continue
            if wire.is_idle and wire.is_answered and wire.raw is not None:
                asked = True
                wire.is_answered = False
                data = self._tell(self.engine.data_to_send, link, self._clock())
                if data:
                    wire.rest = wire.raw.send_now(data)
                if not wire.rest:
                    continue
            wire.wake()
        return asked

    def _unacknowledged(self, link: Any) -> int | None:
        wire = self._wires.get(link)
        size = None if wire is None else unacknowledged(wire.sock)
        return None if wire is None or size is None else size + len(wire.rest)

    def _cut(self, link: Any) -> bool:
        """Cancel the tasks of a connection. Return False if they were cancelled before."""
        wire = self._wires.pop(link, None)
        if wire is None:
            return False
        wire.scope.cancel()
        return True

    # The tasks.

    async def _keep_time(self) -> None:
        while True:
            self._feed(self._expire)
            deadline = self.engine.next_deadline()
            with anyio.CancelScope(deadline=math.inf if deadline is None else deadline) as alarm:
                self._alarm = alarm
                await anyio.sleep_forever()

    async def _connect(self, link: Any, timeout: float) -> None:
        assert self._open_stream is not None
        if not link.alive:
            return  # The engine abandoned the link before this task ran.
        self._wires[link] = wire = _Wire(self._make_event)
        with wire.scope:
            try:
                stream = await self._open_stream(link, timeout)
            except BaseException as error:  # noqa: BLE001 - `connect=` is the application's
                reraise_from_handler(error)
                why = reason(failure(error))
                if self._cut(link):
                    self._feed(self.engine.connect_failed, link, why)
                return
            if link in self._wires:  # `connect=` may have returned in spite of a cancellation.
                self._feed(self.engine.connected, link)
            await self._converse(link, wire, stream)

    async def _accept(
        self, listener: socket.socket, scope: anyio.CancelScope, handle: Handler
    ) -> None:
        try:
            with scope:
                while True:
                    try:
                        sock = await _sockets.accept(listener)
                    except Exception as error:  # noqa: BLE001 - backends differ
                        reraise_from_handler(error)
                        logger.warning("no connection can be accepted: %s", reason(error))
                        await anyio.sleep(LISTEN_AGAIN)
                        continue
                    self.start_soon(self._handle, sock, handle)
        finally:
            _sockets.end(listener)

    async def _handle(self, sock: socket.socket, handle: Handler) -> None:
        try:
            stream = await socket_stream(sock)
        except Exception as error:  # noqa: BLE001 - the peer has gone; backends differ
            reraise_from_handler(error)
            return
        set_options(stream, None)
        await handle(stream)

    async def serve(
        self,
        stream: ByteStream,
        accept: Callable[[E_, float], Any],
        secure: Callable[[ByteStream], Awaitable[ByteStream]] | None = None,
    ) -> None:
        """Run an accepted connection until it ends.

        Args:
            stream: The stream of the connection. It is closed in any case.
            accept: Called with the engine and the time. It returns the link.
            secure: Wraps the accepted stream for TLS, and returns the stream to use.
        """
        wire = _Wire(self._make_event)

        def begin(engine: E_, now: float) -> Any:
            link = accept(engine, now)
            self._wires[link] = wire
            return link

        _sockets.own_stream(stream)
        try:
            link = self.apply(begin)
        except BaseException:
            await end_stream(stream)
            raise
        try:
            with wire.scope:
                if secure is not None:
                    try:
                        stream = await secure(stream)
                    except BaseException as error:  # noqa: BLE001 - streams may be anybody's
                        await end_stream(stream)
                        reraise_from_handler(error)
                        self._lost(link, failure(error))
                        return
                    self._feed(self.engine.connected, link)
                await self._converse(link, wire, stream)
        finally:
            # This can run in a task of the application, and the engine has to know if that was
            # cancelled.
            self._lost(link, ConnectionError("it was given up"))

    async def _converse(self, link: Any, wire: _Wire, stream: ByteStream) -> None:
        """Receive and send on an open connection until it ends, and close it."""
        try:
            with self._hangups.watching(stream):
                async with anyio.create_task_group() as tasks:
                    # Neither runs in this task, which can be the application's (`serve`): asyncio's
                    # own cancellation of that task would look like an error of the stream.
                    tasks.start_soon(self._write, link, wire, stream)
                    wire.sock = _sockets.socket_of(stream)
                    if isinstance(stream, RawStream):
                        wire.raw = stream
                    if isinstance(stream, RawStreamOnAsyncio):
                        stream.watch(functools.partial(self._readable, link, wire, stream))
                    else:
                        tasks.start_soon(self._read, link, wire, stream)
        finally:
            try:
                await end_stream(stream)
            except Exception as error:  # noqa: BLE001 - the connection has ended in any case
                reraise_from_handler(error)
                logger.warning("closing %r failed: %r", link, error)

    async def _read(self, link: Any, wire: _Wire, stream: ByteStream) -> None:
        while True:
            try:
                data = await stream.receive(READ_SIZE)
            except (anyio.EndOfStream, Ended):
                self._received(link, wire, b"")
                return
            except BaseException as error:  # noqa: BLE001 - streams may be anybody's
                reraise_from_handler(error)
                self._lost(link, failure(error))
                return
            self._received(link, wire, data)
            while link.has_backlog:
                # Let all other tasks run.
                await anyio.lowlevel.checkpoint()

    def _readable(self, link: Any, wire: _Wire, stream: RawStreamOnAsyncio) -> None:
        """Receive data without a task. The links of clients and workers have no backlog."""
        try:
            data = stream.receive_now(READ_SIZE)
            if not data:
                stream.unwatch()
            self._received(link, wire, data)
        except BlockingIOError:
            pass
        except BaseException as error:
            if isinstance(error, OSError) and not is_from_handler(error):
                stream.unwatch()
                self._lost(link, error)
                return
            # Probably a signal handler's. The received data may be lost, and asyncio continues.
            self._interrupted(error)
            self._pump()
            raise

    def _received(self, link: Any, wire: _Wire, data: bytes) -> None:
        if link not in self._wires:
            return  # The tasks of the connection have not noticed its end yet.
        wire.is_answered = True
        if data:
            self._feed(self.engine.receive_data, link, data)
            if self.engine.notices:
                self.log_notices()
        else:
            # The engine decides when to close the link. It might still have data to send.
            self._feed(self.engine.receive_eof, link)

    async def _write(self, link: Any, wire: _Wire, stream: ByteStream) -> None:
        while True:
            wire.rest = wire.rest or self._feed(self.engine.data_to_send, link) or b""
            if not wire.rest:
                # New data rings the bell from now on. (Earlier data was sent.)
                wire.is_idle = True
                await wire.writable.wait()
                continue
            try:
                while wire.rest:
                    piece = wire.rest[:_WRITE_SIZE]
                    await stream.send(piece)  # type: ignore[arg-type] # any buffer will do
                    wire.rest = wire.rest[len(piece) :]
            except BaseException as error:  # noqa: BLE001 - streams may be anybody's
                reraise_from_handler(error)
                self._lost(link, failure(error))
                return

    def _lost(self, link: Any, error: Exception) -> None:
        if self._cut(link):
            self._feed(self.engine.connection_lost, link, reason(error))


# The drivers inside ``async with``, for the child of a fork.
_running: Final[weakref.WeakSet[Driver[Any]]] = weakref.WeakSet()


def _after_fork() -> None:
    restore_in_child()
    for driver in list(_running):
        driver.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
