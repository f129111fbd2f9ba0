"""A connection through a `FaultyProxy`: its two halves, and what toxics do to them.

Theory of operation
    Each direction has a task, which reads, applies what is due, and writes. What a toxic changes is
    a field of the direction, which the task looks at before each piece that it passes on. Nothing
    is read ahead, so that as long as a direction stalls, the sender's bytes stay in the sockets'
    buffers, and then with the sender, as they do in a network. Only where there is latency, a
    second task reads, and notes when each piece came: latency makes everything later, and does not
    make less of it pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from typing import TYPE_CHECKING, TypeVar

from .sockets import linger_not, set_buffers, socket_for
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
    from collections.abc import Callable, Iterable

_T = TypeVar("_T", bound=Toxic)

#: The kinds of toxics that a connection knows.
KINDS = (
    *(Bandwidth, Corrupt, HalfOpen, Latency, LimitData),
    *(ResetPeer, Slicer, SlowClose, Stall, Timeout),
)

# Bytes that are read at once.
_PIECE = 65536
# Pieces that wait where there is latency.
_AHEAD = 64
# Bytes that are kept of what has passed.
_TAIL = 16
# Seconds that a piece takes at the most where the bandwidth is limited.
_TICK = 0.05


class Stream:
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
        self.stalled_until: float = 0.0
        #: When the limited link has sent all that it was given, in the loop's time.
        self.clear_at: float = 0.0
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

    def expect(self, toxic: Toxic, after: int) -> None:
        """Let a toxic happen after so many bytes from now."""
        self.to_come.append((self.passed + after, toxic))
        self.to_come.sort(key=lambda pair: pair[0], reverse=True)

    def end(self, toxic: Toxic) -> bool:
        """Let a toxic go on no longer. Returns whether it did."""
        left = [each for each in self.active if each is not toxic]
        went_on, self.active = len(left) < len(self.active), left
        return went_on

    def room(self, size: int) -> int:
        """How many of `size` bytes pass at once."""
        if self.to_come:
            size = min(size, self.to_come[-1][0] - self.passed)
        for slicer in self.of(Slicer):
            variation = self.rng.randint(-slicer.size_variation, slicer.size_variation)
            size = min(size, slicer.average_size + variation)
        for limit in self.of(Bandwidth):
            size = min(size, max(1, int(limit.rate * _TICK)))
        return size

    def pause(self) -> float:
        """Return the seconds before a piece passes, for slicers."""
        return sum(slicer.delay for slicer in self.of(Slicer))

    def send_until(self, size: int, now: float) -> float:
        """Send `size` bytes over the limited link, and return when their last one has arrived.

        Up to one tick of unused time counts, so that a late event loop does not lower the rate.
        """
        seconds = sum(size / limit.rate for limit in self.of(Bandwidth))
        if seconds:
            self.clear_at = max(self.clear_at, now - _TICK) + seconds
        return self.clear_at

    def latency(self) -> float:
        """Seconds between the coming of the next piece, and its passing."""
        return sum(
            toxic.latency + self.rng.uniform(-toxic.jitter, toxic.jitter)
            for toxic in self.of(Latency)
        )


class Proxied:
    """A connection that was accepted, and its other half to the server.

    Args:
        near: The socket that was accepted.
        upstream: The host and port of the server.
        seed: Decides what chance decides.
        toxics: What is to happen.
        note: Called with what has happened, and the bytes before it.
        tap: Called with what passes, right before it does.
        buffer: Limit of the kernel's buffers in bytes; 0 leaves them to the system.
    """

    def __init__(
        self,
        near: socket.socket,
        upstream: tuple[str, int],
        seed: str,
        toxics: Iterable[Toxic],
        note: Callable[[Toxic | str, bytes], object],
        tap: Callable[[Direction, bytes], object],
        buffer: int = 0,
    ) -> None:
        self.near = near
        self.far: socket.socket = socket_for(upstream[0])
        set_buffers(self.far, buffer)
        # The proxy's own memory is a buffer as well.
        self._piece = min(buffer, _PIECE) or _PIECE
        self.far.setblocking(False)
        self._upstream = upstream
        self._note = note
        self._tap = tap
        #: Decides which toxics it has.
        self.rng: random.Random = random.Random(seed)  # noqa: S311 - it is to be repeated
        self.streams: dict[Direction, Stream] = {
            direction: Stream(
                direction,
                source,
                sink,
                random.Random(f"{seed} {direction}"),  # noqa: S311 - the same
            )
            for direction, source, sink in (
                (Direction.UP, self.near, self.far),
                (Direction.DOWN, self.far, self.near),
            )
        }
        for toxic in toxics:
            self.expect(toxic)
        self.tasks: dict[Direction, asyncio.Task[None]] = {}
        self.readers: list[asyncio.Task[None]] = []
        #: Nothing is passed on any more, in no direction.
        self.ended: bool = False

    async def run(self) -> None:
        """Pass bytes, until both directions have ended."""
        loop = asyncio.get_running_loop()
        try:
            try:
                await loop.sock_connect(self.far, self._upstream)
            except OSError:
                self._note("unreachable", b"")
                linger_not(self.near)
                return
            for sock in (self.near, self.far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for stream in () if self.ended else self.streams.values():
                self.tasks[stream.direction] = asyncio.create_task(self._pass_on(stream))
            if self.tasks:
                await asyncio.wait(self.tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        finally:
            tasks = [*self.tasks.values(), *self.readers]
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for error in results:
            if isinstance(error, Exception):
                # The tap has raised: a CancelledError is no Exception.
                linger_not(self.near)
                linger_not(self.far)
                raise error

    def close(self) -> None:
        """Close both sockets, when no task is left.

        Who waits for a closed one waits for whatever gets its number next.
        """
        self.near.close()
        self.far.close()

    def expect(self, toxic: Toxic) -> None:
        """Let a toxic happen, after so many bytes from now, if it is to happen here at all."""
        if self.rng.random() < toxic.toxicity:
            self.streams[toxic.direction].expect(toxic, toxic.begins)

    def inject(self, toxic: Toxic) -> None:
        """The same for a connection that there is, also where nothing passes."""
        self.expect(toxic)
        self._let_happen(self.streams[toxic.direction])

    def remove(self, toxic: Toxic) -> None:
        """Let a toxic happen no more."""
        stream = self.streams[toxic.direction]
        stream.to_come = [pair for pair in stream.to_come if pair[1] is not toxic]
        if stream.end(toxic) and isinstance(toxic, Timeout):
            # Bytes were lost: what came behind them would mean something else.
            self.end(reset=False)

    async def _pass_on(self, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        while not self._let_happen(stream):
            data, came = await self._read(stream)
            if isinstance(data, OSError):
                if not stream.swallows:
                    self._tap(stream.direction, b"")
                    self.end(reset=True)
                return
            due = came + stream.latency()
            if not data:
                if not stream.swallows:
                    await asyncio.sleep(sum(toxic.delay for toxic in stream.of(SlowClose)))
                    await asyncio.sleep(due - loop.time())
                    self._tap(stream.direction, b"")
                    with contextlib.suppress(OSError):
                        stream.sink.shutdown(socket.SHUT_WR)
                return
            while data and not self._let_happen(stream):
                room = stream.room(len(data))
                if stream.corrupt is not None:
                    self._note(stream.corrupt, stream.tail)
                    data = bytes([data[0] ^ stream.corrupt.mask]) + data[1:]
                    stream.corrupt = None
                piece, data = data[:room], data[room:]
                await self._wait(due, stream, len(piece))
                stream.passed += len(piece)
                stream.tail = (stream.tail + piece[-_TAIL:])[-_TAIL:]
                if not stream.swallows:
                    self._tap(stream.direction, piece)
                if self.ended:
                    return
                if stream.swallows:
                    continue
                try:
                    await loop.sock_sendall(stream.sink, piece)
                except OSError:
                    # Who has gone says so in the other direction.
                    if not self.streams[stream.direction.other].swallows:
                        self.end(reset=True)
                        return
                    stream.dead = True

    async def _read(self, stream: Stream) -> tuple[bytes | OSError, float]:
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
        self, stream: Stream, ahead: asyncio.Queue[tuple[bytes | OSError, float]]
    ) -> None:
        data: bytes | OSError = b"something"
        while data and not isinstance(data, OSError):
            data, came = await self._receive(stream)
            await ahead.put((data, came))

    async def _receive(self, stream: Stream) -> tuple[bytes | OSError, float]:
        loop = asyncio.get_running_loop()
        try:
            data: bytes | OSError = await loop.sock_recv(stream.source, self._piece)
        except OSError as error:
            data = error
        return data, loop.time()

    @staticmethod
    async def _wait(due: float, stream: Stream, size: int) -> None:
        """Wait before a piece of `size` bytes that is due then, as long as toxics make it."""
        loop = asyncio.get_running_loop()
        if pause := stream.pause():
            await asyncio.sleep(pause)
        due = max(due, stream.send_until(size, loop.time()))
        if (left := due - loop.time()) > 0:
            await asyncio.sleep(left)
        if (left := stream.stalled_until - loop.time()) > 0:
            await asyncio.sleep(left)

    def _let_happen(self, stream: Stream) -> bool:
        """Let happen what is due. Returns whether the connection has ended."""
        while not self.ended and stream.to_come and stream.to_come[-1][0] <= stream.passed:
            self._happen(stream, stream.to_come.pop()[1])
        return self.ended

    def _happen(self, stream: Stream, toxic: Toxic) -> None:
        if isinstance(toxic, Corrupt):
            stream.corrupt = toxic  # It happens when the byte is there.
            return
        if isinstance(toxic, Slicer) and toxic.length and stream.end(toxic):
            return  # All that it was to cut has passed.
        self._note(toxic, b"")
        loop = asyncio.get_running_loop()
        match toxic:
            case Latency() | Bandwidth() | SlowClose():
                stream.active.append(toxic)
            case Slicer():
                stream.active.append(toxic)
                if toxic.length:
                    stream.expect(toxic, toxic.length)
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

    def _end_of(self, stream: Stream, toxic: Toxic) -> None:
        """The time of a toxic has come, unless it was removed."""
        if stream.end(toxic):
            self.end(reset=isinstance(toxic, ResetPeer))

    def end(self, *, reset: bool) -> None:
        """End it, for both sides."""
        self.ended = True
        for sock in (self.near, self.far):
            if reset:
                linger_not(sock)
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
