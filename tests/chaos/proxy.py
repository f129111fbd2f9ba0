"""A TCP proxy that does to connections what networks do.

It needs nothing but the standard library, knows nothing of what passes through it, and runs in a
thread of its own::

    with FaultProxy(("127.0.0.1", 4730), lambda number: [Cut(Direction.DOWN, after=1000)]) as proxy:
        client = connect(proxy.address)

Which faults a connection has is asked when it is accepted: the plan gets the number of the
connection, from 0, and returns its faults (see `faults`). So the same plan gives the same faults
to the same connection, whatever the time. `inject` gives faults to the connections that there
are now. `refuse` and `ignore` are for new connections; `accept` takes them again.

`journal` is what has really happened: a fault that lies behind more bytes than ever passed does
not happen.

Theory of operation
    One event loop (asyncio) in one thread; each connection has a task for each direction, which
    reads, applies what is due, and writes. What a fault changes is a field of the direction, which
    the task looks at before each piece that it passes on. Nothing is read ahead: as long as a
    direction stalls, the sender's bytes stay in the sockets' buffers, and then with the sender, as
    they do in a network.

    The port is kept by a second socket, which is bound and never listens, so that nobody else gets
    it while connections are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from .faults import (
    BlackHole,
    Corrupt,
    Cut,
    Delay,
    Direction,
    Drip,
    Fault,
    HalfOpen,
    Reset,
    Stall,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from types import TracebackType
    from typing import Self

# Bytes that are read at once.
_PIECE = 65536
# Bytes that are kept of what has passed.
_TAIL = 16
# Makes `close` send a reset: linger, for no time.
_ABORT = struct.pack("ii", 1, 0)


@dataclasses.dataclass(frozen=True)
class Happened:
    """A fault, when and to which connection it happened."""

    #: Seconds, of `time.monotonic`.
    when: float
    #: The connection's number, or -1 for all new ones.
    connection: int
    #: A fault, or "refuse", "ignore", "accept", "end", "unreachable".
    what: Fault | str
    #: The bytes that passed right before, at most 16, where one was changed.
    before: bytes = b""


class _Stream:
    """One direction of a connection."""

    def __init__(
        self,
        direction: Direction,
        source: socket.socket,
        sink: socket.socket,
        faults: Iterable[Fault],
    ) -> None:
        self.direction = direction
        self.source = source
        self.sink = sink
        #: Bytes that have been passed on, or taken and thrown away.
        self.passed = 0
        #: The last of them.
        self.tail = b""
        #: What is still to happen, the first of all last.
        self.to_come = sorted(faults, key=lambda fault: fault.after, reverse=True)
        #: What is sent goes nowhere.
        self.swallows = False
        #: Seconds that each piece waits.
        self.delay = 0.0
        #: When something passes again, in the loop's time.
        self.stalled_until = 0.0
        #: The bytes that are still to drip, and how.
        self.dripping = 0
        self.drip = Drip()
        #: What changes the next byte.
        self.corrupt: Corrupt | None = None


class _Connection:
    """A connection that was accepted, and its other half to the server."""

    def __init__(self, proxy: FaultProxy, number: int, near: socket.socket) -> None:
        self.proxy = proxy
        self.number = number
        self.near = near
        self.far = socket.socket(socket.AF_INET6 if ":" in proxy.target[0] else socket.AF_INET)
        self.far.setblocking(False)
        faults = list(proxy.plan(number))
        self.streams = [
            _Stream(direction, source, sink, [f for f in faults if f.direction is direction])
            for direction, source, sink in (
                (Direction.UP, self.near, self.far),
                (Direction.DOWN, self.far, self.near),
            )
        ]
        self.tasks: dict[Direction, asyncio.Task[None]] = {}
        #: Nothing is passed on any more, in no direction.
        self.ended = False

    async def run(self) -> None:
        """Pass bytes, until both directions have ended."""
        loop = asyncio.get_running_loop()
        try:
            try:
                await loop.sock_connect(self.far, self.proxy.target)
            except OSError:
                self.proxy.note(self.number, "unreachable")
                self._linger_not(self.near)
                return
            for sock in (self.near, self.far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for stream in () if self.ended else self.streams:
                self.tasks[stream.direction] = asyncio.create_task(self._pass_on(stream))
            if self.tasks:
                await asyncio.wait(self.tasks.values())
        finally:
            for task in self.tasks.values():
                task.cancel()
            await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    def close(self) -> None:
        """Close both sockets, when no task is left: who waits for a closed one waits for whatever
        gets its number next.
        """
        self.near.close()
        self.far.close()

    def inject(self, fault: Fault) -> None:
        """Let a fault happen, `after` so many bytes from now."""
        stream = self.streams[0 if fault.direction is Direction.UP else 1]
        if fault.after == 0:
            self._happen(stream, fault)
        else:
            due = stream.passed + fault.after
            stream.to_come.append(dataclasses.replace(fault, after=due))
            stream.to_come.sort(key=lambda fault: fault.after, reverse=True)

    async def _pass_on(self, stream: _Stream) -> None:
        loop = asyncio.get_running_loop()
        while not self._let_happen(stream):
            try:
                data = await loop.sock_recv(stream.source, _PIECE)
            except OSError:
                if not stream.swallows:
                    self.end(reset=True)
                return
            if not data:
                if not stream.swallows:
                    with contextlib.suppress(OSError):
                        stream.sink.shutdown(socket.SHUT_WR)
                return
            while data and not self._let_happen(stream):
                room = len(data)
                if stream.to_come:
                    room = min(room, stream.to_come[-1].after - stream.passed)
                if stream.corrupt is not None:
                    self.proxy.note(self.number, stream.corrupt, stream.tail)
                    data = bytes([data[0] ^ stream.corrupt.mask]) + data[1:]
                    stream.corrupt = None
                if stream.dripping:
                    room = min(room, stream.dripping, stream.drip.size)
                piece, data = data[:room], data[room:]
                await self._wait(stream, len(piece))
                stream.passed += len(piece)
                stream.tail = (stream.tail + piece[-_TAIL:])[-_TAIL:]
                if stream.swallows:
                    continue
                try:
                    await loop.sock_sendall(stream.sink, piece)
                except OSError:
                    # Who has gone says so in the other direction.
                    if not self._other(stream).swallows:
                        self.end(reset=True)
                        return
                    stream.swallows = True

    def _other(self, stream: _Stream) -> _Stream:
        return self.streams[0 if stream is self.streams[1] else 1]

    @staticmethod
    async def _wait(stream: _Stream, size: int) -> None:
        """Wait before a piece of `size` bytes, as long as faults make it."""
        loop = asyncio.get_running_loop()
        if stream.dripping:
            stream.dripping -= size
            await asyncio.sleep(stream.drip.seconds)
        if stream.delay:
            await asyncio.sleep(stream.delay)
        if (left := stream.stalled_until - loop.time()) > 0:
            await asyncio.sleep(left)

    def _let_happen(self, stream: _Stream) -> bool:
        """Let happen what is due. Returns whether the connection has ended."""
        while not self.ended and stream.to_come and stream.to_come[-1].after <= stream.passed:
            self._happen(stream, stream.to_come.pop())
        return self.ended

    def _happen(self, stream: _Stream, fault: Fault) -> None:
        if isinstance(fault, Corrupt):
            stream.corrupt = fault  # It happens when the byte is there.
            return
        self.proxy.note(self.number, fault)
        match fault:
            case Cut():
                self.end(reset=False)
            case Reset():
                self.end(reset=True)
            case Stall():
                now = asyncio.get_running_loop().time()
                stream.stalled_until = max(stream.stalled_until, now + fault.seconds)
            case Delay():
                stream.delay = fault.seconds
            case Drip():
                stream.dripping, stream.drip = fault.length, fault
            case BlackHole():
                stream.swallows = True
            case HalfOpen():
                stream.swallows = True
                # The receiver is to see the end, and the sender to hear no more.
                self._stop(stream.direction.other)
                with contextlib.suppress(OSError):
                    stream.sink.shutdown(socket.SHUT_RDWR)
            case _:
                raise TypeError(f"this proxy knows no {fault!r}")

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


class FaultProxy:
    """Passes connections on to a server, with faults.

    Args:
        target: The host and port of the server. Nothing needs to listen there: then connections
            are reset.
        plan: Called with the number of each connection, from 0, when it is accepted, in the
            proxy's thread; returns its faults. None: there are none.
        host: The address to listen on. The port is a free one.
    """

    def __init__(
        self,
        target: tuple[str, int],
        plan: Callable[[int], Iterable[Fault]] | None = None,
        *,
        host: str = "127.0.0.1",
    ) -> None:
        self.target = target
        self.plan: Callable[[int], Iterable[Fault]] = plan or (lambda _number: ())
        #: What has happened. Appended to by the proxy's thread.
        self.journal: list[Happened] = []
        #: How many connections were accepted.
        self.accepted = 0
        self._holder = self._bind((host, 0))
        #: Where it listens.
        self.address: tuple[str, int] = self._holder.getsockname()[:2]
        self._listener: socket.socket | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)

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
        self.accept()

    def stop(self) -> None:
        """End all connections, and the proxy's thread."""
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

    def inject(self, *faults: Fault) -> None:
        """Let faults happen to all connections that there are, after so many bytes from now."""

        async def inject() -> None:
            for connection in list(self._connections):
                for fault in faults:
                    connection.inject(fault)

        self._call(inject())

    def refuse(self) -> None:
        """Refuse new connections."""
        self._call(self._listen(None, "refuse"))

    def ignore(self) -> None:
        """Take new connections no more: those who connect are connected, and hear nothing."""
        self._call(self._listen(False, "ignore"))

    def accept(self) -> None:
        """Take new connections again, and those that were ignored."""
        self._call(self._listen(True, "accept"))

    def heal(self) -> None:
        """Have no plan for new connections any more, and take them."""
        self.plan = lambda _number: ()
        self.accept()

    # In the proxy's thread.

    def note(self, connection: int, what: Fault | str, before: bytes = b"") -> None:
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
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
