"""A TCP proxy that does to connections what networks do.

It needs nothing but the standard library, knows nothing of what passes through it, and runs in a
thread of its own::

    with FaultyProxy(("127.0.0.1", 4730)) as proxy:
        client = GearmanClient([proxy.address])
        slow = proxy.add(Latency(0.2, jitter=0.05))
        ...
        proxy.remove(slow)

Theory of operation
    One event loop (asyncio) in one thread; each connection has a task for each direction, which
    reads, applies what is due, and writes. What a toxic changes is a field of the direction, which
    the task looks at before each piece that it passes on. Nothing is read ahead, so that as long
    as a direction stalls, the sender's bytes stay in the sockets' buffers, and then with the
    sender, as they do in a network. Only where there is latency, a second task reads, and notes
    when each piece came: latency makes everything later, and does not make less of it pass.

    The port is kept by a second socket, which is bound and never listens, so that nobody else gets
    it while connections are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import random
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from .toxics import (
    Bandwidth,
    Corrupt,
    Direction,
    HalfOpen,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Stall,
    Timeout,
    Toxic,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from types import TracebackType
    from typing import Self

_T = TypeVar("_T", bound=Toxic)

# Bytes that are read at once.
_PIECE = 65536
# Pieces that wait where there is latency.
_AHEAD = 64
# Bytes that are kept of what has passed.
_TAIL = 16
# Seconds that a piece takes at the most where the bandwidth is limited.
_TICK = 0.05
# Makes `close` send a reset: linger, for no time.
_ABORT = struct.pack("ii", 1, 0)


@dataclasses.dataclass(frozen=True)
class Happened:
    """A toxic, when and to which connection it happened.

    Attributes:
        when: Seconds, of `time.monotonic`.
        connection: The connection's number, or -1 for all new ones.
        what: A toxic, or "refuse", "ignore", "accept", "end", "unreachable".
        before: The bytes that passed right before, at most 16, where one was changed.
    """

    when: float
    connection: int
    what: Toxic | str
    before: bytes = b""


class _Stream:
    """One direction of a connection."""

    def __init__(
        self, direction: Direction, source: socket.socket, sink: socket.socket, rng: random.Random
    ) -> None:
        self.direction = direction
        self.source = source
        self.sink = sink
        self.rng = rng
        #: Bytes that have been passed on, or taken and thrown away.
        self.passed = 0
        #: The last of them.
        self.tail = b""
        #: What is still to happen, and after how many bytes, the first of all last.
        self.to_come: list[tuple[int, Toxic]] = []
        #: What has begun, and goes on.
        self.active: list[Toxic] = []
        #: What is sent goes nowhere, for ever.
        self.dead = False
        #: When something passes again, in the loop's time.
        self.stalled_until = 0.0
        #: How many bytes the slicers that have an end have still to cut.
        self.to_slice: dict[int, int] = {}
        #: What changes the next byte.
        self.corrupt: Corrupt | None = None
        #: What was read ahead, and when. None: nothing is.
        self.ahead: asyncio.Queue[tuple[bytes | OSError, float]] | None = None

    @property
    def swallows(self) -> bool:
        """Whether what is sent goes nowhere."""
        return self.dead or bool(self.of(Timeout))

    def of(self, kind: type[_T]) -> list[_T]:
        """The toxics of a kind that have begun."""
        return [toxic for toxic in self.active if isinstance(toxic, kind)]

    def room(self, size: int) -> int:
        """How many of `size` bytes pass at once."""
        if self.to_come:
            size = min(size, self.to_come[-1][0] - self.passed)
        for slicer in self.of(Slicer):
            variation = self.rng.randint(-slicer.size_variation, slicer.size_variation)
            size = min(size, slicer.average_size + variation, self.to_slice.get(id(slicer), size))
        for limit in self.of(Bandwidth):
            size = min(size, max(1, int(limit.rate * _TICK)))
        return size

    def pause(self, size: int) -> float:
        """Seconds before `size` bytes pass, for slicers and bandwidth."""
        seconds = sum(size / limit.rate for limit in self.of(Bandwidth))
        for slicer in self.of(Slicer):
            seconds += slicer.delay
            if id(slicer) in self.to_slice:
                self.to_slice[id(slicer)] -= size
                if not self.to_slice[id(slicer)]:
                    del self.to_slice[id(slicer)]
                    self.active.remove(slicer)
        return seconds

    def latency(self) -> float:
        """Seconds between the coming of the next piece, and its passing."""
        return sum(
            toxic.latency + self.rng.uniform(-toxic.jitter, toxic.jitter)
            for toxic in self.of(Latency)
        )


class _Connection:
    """A connection that was accepted, and its other half to the server."""

    def __init__(self, proxy: FaultyProxy, number: int, near: socket.socket) -> None:
        self.proxy = proxy
        self.number = number
        self.near = near
        self.far = socket.socket(socket.AF_INET6 if ":" in proxy.upstream[0] else socket.AF_INET)
        self.far.setblocking(False)
        #: Decides which toxics it has.
        self.rng = random.Random(f"{proxy.seed} {number}")  # noqa: S311 - it is to be repeated
        self.streams = {
            direction: _Stream(
                direction,
                source,
                sink,
                random.Random(f"{proxy.seed} {number} {direction}"),  # noqa: S311 - the same
            )
            for direction, source, sink in (
                (Direction.UP, self.near, self.far),
                (Direction.DOWN, self.far, self.near),
            )
        }
        for toxic in (*proxy.plan(number), *proxy.toxics):
            self.expect(toxic)
        self.tasks: dict[Direction, asyncio.Task[None]] = {}
        self.readers: list[asyncio.Task[None]] = []
        #: Nothing is passed on any more, in no direction.
        self.ended = False

    async def run(self) -> None:
        """Pass bytes, until both directions have ended."""
        loop = asyncio.get_running_loop()
        try:
            try:
                await loop.sock_connect(self.far, self.proxy.upstream)
            except OSError:
                self.proxy.note(self.number, "unreachable")
                self._linger_not(self.near)
                return
            for sock in (self.near, self.far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for stream in () if self.ended else self.streams.values():
                self.tasks[stream.direction] = asyncio.create_task(self._pass_on(stream))
            if self.tasks:
                await asyncio.wait(self.tasks.values())
        finally:
            tasks = [*self.tasks.values(), *self.readers]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Close both sockets, when no task is left.

        Who waits for a closed one waits for whatever gets its number next.
        """
        self.near.close()
        self.far.close()

    def expect(self, toxic: Toxic) -> None:
        """Let a toxic happen, after so many bytes from now, if it is to happen here at all."""
        if self.rng.random() < toxic.toxicity:
            stream = self.streams[toxic.direction]
            stream.to_come.append((stream.passed + toxic.begins, toxic))
            stream.to_come.sort(key=lambda pair: pair[0], reverse=True)

    def inject(self, toxic: Toxic) -> None:
        """The same for a connection that there is, also where nothing passes."""
        self.expect(toxic)
        self._let_happen(self.streams[toxic.direction])

    def remove(self, toxic: Toxic) -> None:
        """Let a toxic happen no more."""
        stream = self.streams[toxic.direction]
        stream.to_come = [pair for pair in stream.to_come if pair[1] is not toxic]
        if any(each is toxic for each in stream.active):
            stream.active = [each for each in stream.active if each is not toxic]
            if isinstance(toxic, Timeout):
                # Bytes were lost: what came behind them would mean something else.
                self.end(reset=False)

    async def _pass_on(self, stream: _Stream) -> None:
        loop = asyncio.get_running_loop()
        while not self._let_happen(stream):
            data, came = await self._read(stream)
            if isinstance(data, OSError):
                if not stream.swallows:
                    self.proxy.tap(self.number, stream.direction, b"")
                    self.end(reset=True)
                return
            due = came + stream.latency()
            if not data:
                if not stream.swallows:
                    await asyncio.sleep(sum(toxic.delay for toxic in stream.of(SlowClose)))
                    await asyncio.sleep(due - loop.time())
                    self.proxy.tap(self.number, stream.direction, b"")
                    with contextlib.suppress(OSError):
                        stream.sink.shutdown(socket.SHUT_WR)
                return
            while data and not self._let_happen(stream):
                room = stream.room(len(data))
                if stream.corrupt is not None:
                    self.proxy.note(self.number, stream.corrupt, stream.tail)
                    data = bytes([data[0] ^ stream.corrupt.mask]) + data[1:]
                    stream.corrupt = None
                piece, data = data[:room], data[room:]
                await self._wait(due, stream.pause(len(piece)), stream)
                stream.passed += len(piece)
                stream.tail = (stream.tail + piece[-_TAIL:])[-_TAIL:]
                if stream.swallows:
                    continue
                self.proxy.tap(self.number, stream.direction, piece)
                try:
                    await loop.sock_sendall(stream.sink, piece)
                except OSError:
                    # Who has gone says so in the other direction.
                    if not self.streams[stream.direction.other].swallows:
                        self.end(reset=True)
                        return
                    stream.dead = True

    async def _read(self, stream: _Stream) -> tuple[bytes | OSError, float]:
        """The next piece, and when it came. It is empty at the end."""
        if stream.ahead is not None:
            return await stream.ahead.get()
        read = await self._receive(stream)
        if stream.of(Latency):
            # For the rest of the connection: to end that task might lose what it has just read.
            stream.ahead = asyncio.Queue(_AHEAD)
            self.readers.append(asyncio.create_task(self._read_ahead(stream, stream.ahead)))
        return read

    async def _read_ahead(
        self, stream: _Stream, ahead: asyncio.Queue[tuple[bytes | OSError, float]]
    ) -> None:
        data: bytes | OSError = b"something"
        while data and not isinstance(data, OSError):
            data, came = await self._receive(stream)
            await ahead.put((data, came))

    @staticmethod
    async def _receive(stream: _Stream) -> tuple[bytes | OSError, float]:
        loop = asyncio.get_running_loop()
        try:
            data: bytes | OSError = await loop.sock_recv(stream.source, _PIECE)
        except OSError as error:
            data = error
        return data, loop.time()

    @staticmethod
    async def _wait(due: float, pause: float, stream: _Stream) -> None:
        """Wait before a piece that is due then, as long as toxics make it."""
        loop = asyncio.get_running_loop()
        if pause:
            await asyncio.sleep(pause)
        if (left := due - loop.time()) > 0:
            await asyncio.sleep(left)
        if (left := stream.stalled_until - loop.time()) > 0:
            await asyncio.sleep(left)

    def _let_happen(self, stream: _Stream) -> bool:
        """Let happen what is due. Returns whether the connection has ended."""
        while not self.ended and stream.to_come and stream.to_come[-1][0] <= stream.passed:
            self._happen(stream, stream.to_come.pop()[1])
        return self.ended

    def _happen(self, stream: _Stream, toxic: Toxic) -> None:
        if isinstance(toxic, Corrupt):
            stream.corrupt = toxic  # It happens when the byte is there.
            return
        self.proxy.note(self.number, toxic)
        loop = asyncio.get_running_loop()
        match toxic:
            case Latency() | Bandwidth() | SlowClose():
                stream.active.append(toxic)
            case Slicer():
                stream.active.append(toxic)
                if toxic.length:
                    stream.to_slice[id(toxic)] = toxic.length
            case Timeout():
                stream.active.append(toxic)
                if toxic.timeout:
                    loop.call_later(toxic.timeout, self._end_of, stream, toxic)
            case ResetPeer() if toxic.timeout:
                stream.active.append(toxic)
                loop.call_later(toxic.timeout, self._end_of, stream, toxic)
            case ResetPeer():
                self.end(reset=True)
            case LimitData():
                self.end(reset=False)
            case Stall():
                stream.stalled_until = max(stream.stalled_until, loop.time() + toxic.seconds)
            case HalfOpen():
                stream.dead = True
                # The receiver is to see the end, and the sender to hear no more.
                self._stop(stream.direction.other)
                with contextlib.suppress(OSError):
                    stream.sink.shutdown(socket.SHUT_RDWR)
            case _:
                raise TypeError(f"this proxy knows no {toxic!r}")

    def _end_of(self, stream: _Stream, toxic: Toxic) -> None:
        """The time of a toxic has come, unless it was removed."""
        if any(each is toxic for each in stream.active):
            self.end(reset=isinstance(toxic, ResetPeer))

    def end(self, *, reset: bool) -> None:
        """End it, for both sides."""
        self.ended = True
        for sock in (self.near, self.far):
            if reset:
                self._linger_not(sock)
            else:
                # What was not read would make a reset of the `close` that follows.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
        for direction in Direction:
            self._stop(direction)

    def _stop(self, direction: Direction) -> None:
        task = self.tasks.get(direction)
        # One that ends its own connection looks at `ended`.
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    @staticmethod
    def _linger_not(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)


class FaultyProxy:
    """Passes connections on to a server, and does to them what networks do.

    It is to be used in a ``with``, or between `start` and `stop`.

    `journal` is what has really happened: a toxic that lies behind more bytes than ever passed does
    not happen.

    Args:
        upstream: The host and port of the server. Nothing needs to listen there: then connections
            are reset.
        plan: Called with the number of each connection, from 0, when it is accepted, in the
            proxy's thread; returns its toxics. So the same plan gives the same toxics to the same
            connection, whatever the time. None: there are none but those that were added.
        seed: Decides jitter, sizes and toxicity: the same seed, the same ones for the connection
            of the same number.
        tap: Called in the proxy's thread with what passes, right before it does: the connection's
            number, the direction, and the bytes, which are empty at the end of that stream, or at
            a reset from there. It raises nothing.
        host: The address to listen on. The port is a free one.

    Attributes:
        address: Where it listens: host and port.
        upstream: As given. It may be changed: for new connections.
        plan: As given. It may be changed: for new connections.
        accepted: How many connections were accepted.
        toxics: What was added and not removed.
        journal: What has happened, oldest first. Appended to by the proxy's thread.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        plan: Callable[[int], Iterable[Toxic]] | None = None,
        *,
        seed: int = 0,
        tap: Callable[[int, Direction, bytes], object] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.upstream: tuple[str, int] = upstream
        self.plan: Callable[[int], Iterable[Toxic]] = plan or _no_toxics
        self.seed: int = seed
        self.tap: Callable[[int, Direction, bytes], object] = tap or _ignore
        self.toxics: list[Toxic] = []
        self.journal: list[Happened] = []
        self.accepted: int = 0
        self._holder = self._bind((host, 0))
        self.address: tuple[str, int] = self._holder.getsockname()[:2]
        self._listener: socket.socket | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        #: Seconds that `stop` waits for connections to end by themselves.
        self._patience = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faulty proxy", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # For all threads.

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self.up()

    def stop(self) -> None:
        """End all connections, and the proxy's thread.

        Raises:
            RuntimeError: It does not run.
        """
        if not self._thread.is_alive():
            raise RuntimeError("this proxy does not run")
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def add(self, toxic: _T) -> _T:
        """Let a toxic happen to all connections, those that there are and new ones.

        Where there is a connection already, its bytes are counted from now.

        Returns:
            The toxic, for `remove`.
        """

        async def add() -> None:
            self.toxics.append(toxic)
            for connection in list(self._connections):
                connection.inject(toxic)

        self._call(add())
        return toxic

    def remove(self, toxic: Toxic) -> None:
        """Let a toxic that was added happen no more.

        What one has done is not undone: what `HalfOpen` has cut stays so.

        Raises:
            ValueError: It was not added, or is removed already.
        """

        async def remove() -> None:
            left = [each for each in self.toxics if each is not toxic]
            if len(left) == len(self.toxics):
                raise ValueError(f"{toxic!r} was not added to this proxy")
            self.toxics[:] = left
            for connection in list(self._connections):
                connection.remove(toxic)

        self._call(remove())

    def inject(self, *toxics: Toxic) -> None:
        """Let toxics happen to all connections that there are, and to no new ones."""

        async def inject() -> None:
            for connection in list(self._connections):
                for toxic in toxics:
                    connection.inject(toxic)

        self._call(inject())

    def down(self) -> None:
        """End all connections, and refuse new ones: as if the server's process had ended."""

        async def down() -> None:
            await self._listen(None, "refuse")
            for connection in self._connections:
                connection.end(reset=False)

        self._call(down())

    def refuse(self) -> None:
        """Refuse new connections; those that there are stay."""
        self._call(self._listen(None, "refuse"))

    def ignore(self) -> None:
        """Take new connections no more: those who connect are connected, and hear nothing."""
        self._call(self._listen(False, "ignore"))

    def up(self) -> None:
        """Take new connections again, and those that were ignored."""
        self._call(self._listen(True, "accept"))

    def reset(self) -> None:
        """Remove all toxics, have no plan for new connections any more, and take them."""
        self.plan = _no_toxics
        for toxic in list(self.toxics):
            self.remove(toxic)
        self.up()

    # In the proxy's thread.

    def note(self, connection: int, what: Toxic | str, before: bytes = b"") -> None:
        """Write down what has happened."""
        self.journal.append(Happened(time.monotonic(), connection, what, before))

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    @staticmethod
    def _bind(address: tuple[str, int]) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        # Two sockets can have one port as long as at most one of them listens.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock

    async def _listen(self, taking: bool | None, name: str) -> None:
        """Take new connections, or ignore them, or (None) refuse them."""
        self.note(-1, name)
        # Not a task that waits for `sock_accept`: to cancel that may lose a connection, and in
        # Python 3.11 it may raise in the loop.
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
        if taking is None:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
            return
        if self._listener is None:
            self._listener = self._bind(self.address)
            self._listener.listen(128)
            self._listener.setblocking(False)
        if taking:
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            near, _ = listener.accept()
        except OSError:
            return  # It has gone, before it was taken.
        near.setblocking(False)
        connection = _Connection(self, self.accepted, near)
        self.accepted += 1
        task = self._loop.create_task(connection.run())
        self._connections[connection] = task
        task.add_done_callback(functools.partial(self._forget, connection))

    def _forget(self, connection: _Connection, _: asyncio.Task[None]) -> None:
        connection.close()
        del self._connections[connection]

    async def _end(self) -> None:
        await self._listen(None, "end")
        tasks = list(self._connections.values())
        if self._patience and tasks:
            await asyncio.wait(tasks, timeout=self._patience)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _no_toxics(_number: int) -> Iterable[Toxic]:
    return ()


def _ignore(_number: int, _direction: Direction, _data: bytes) -> None:
    pass
