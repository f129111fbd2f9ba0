"""A connection through a `FaultyProxy`: its two directions, and the effects of toxics on them.

Theory of operation
    Each direction has a task that reads, applies the toxics that are due, and writes. A toxic sets
    a field of the direction, and the task checks the fields before it forwards each piece. Without
    latency, the task does not read ahead. So while a direction stalls, the bytes stay in the
    sockets' buffers and, when these are full, with the sender, as in a real network. With latency,
    a second task reads ahead and notes the arrival time of each piece, because latency delays bytes
    without limiting the rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from dataclasses import dataclass, field
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

# Bytes to read at a time.
_PIECE = 65536
# Pieces to read ahead for latency.
_MAX_AHEAD = 64
# Passed bytes to keep.
_TAIL = 16
# Maximum time that a piece takes on a limited link, in seconds.
_TICK = 0.05


@dataclass
class Stream:
    """One direction of a connection."""

    direction: Direction
    source: socket.socket
    sink: socket.socket
    rng: random.Random
    #: The number of bytes that were forwarded or discarded.
    passed: int = 0
    #: The last of these bytes, for the journal.
    tail: bytes = b""
    #: Pending toxics, each with the value of `passed` at which it begins. The next one is last.
    pending: list[tuple[int, Toxic]] = field(default_factory=list)
    #: The toxics in effect.
    active: list[Toxic] = field(default_factory=list)
    #: True if all bytes are discarded from now on.
    dead: bool = False
    #: The end of a stall, in the loop's time.
    stalled_until: float = 0.0
    #: When the last byte will have passed the limited link, in the loop's time.
    clear_at: float = 0.0
    #: The toxic that changes the next byte.
    corrupt: Corrupt | None = None
    #: The pieces that were read ahead, with their arrival times; None without latency.
    ahead: asyncio.Queue[tuple[bytes | OSError, float]] | None = None

    @property
    def swallows(self) -> bool:
        """True if bytes are discarded."""
        return self.dead or bool(self.of(Timeout))

    def of(self, kind: type[_T]) -> list[_T]:
        """Return the toxics of a kind that are in effect."""
        return [toxic for toxic in self.active if isinstance(toxic, kind)]

    def expect(self, toxic: Toxic, after: int) -> None:
        """Schedule a toxic for when `after` more bytes have passed."""
        self.pending.append((self.passed + after, toxic))
        self.pending.sort(key=lambda pair: pair[0], reverse=True)

    def end(self, toxic: Toxic) -> bool:
        """Deactivate a toxic. Return True if it was in effect."""
        left = [each for each in self.active if each is not toxic]
        was_active, self.active = len(left) < len(self.active), left
        return was_active

    def room(self, size: int) -> int:
        """Return the number of bytes, at most `size`, that pass as one piece."""
        if self.pending:
            size = min(size, self.pending[-1][0] - self.passed)
        for slicer in self.of(Slicer):
            variation = self.rng.randint(-slicer.size_variation, slicer.size_variation)
            size = min(size, slicer.average_size + variation)
        for limit in self.of(Bandwidth):
            size = min(size, max(1, int(limit.rate * _TICK)))
        return size

    def pause(self) -> float:
        """Return the seconds that slicers wait before a piece."""
        return sum(slicer.delay for slicer in self.of(Slicer))

    def send_until(self, size: int, now: float) -> float:
        """Reserve the limited link for `size` bytes, and return when the last one has passed it.

        Up to one tick of idle time is credited, so that a late event loop does not lower the rate.
        """
        seconds = sum(size / limit.rate for limit in self.of(Bandwidth))
        if seconds:
            self.clear_at = max(self.clear_at, now - _TICK) + seconds
        return self.clear_at

    def latency(self) -> float:
        """Return the delay of the next piece in seconds."""
        return sum(
            toxic.latency + self.rng.uniform(-toxic.jitter, toxic.jitter)
            for toxic in self.of(Latency)
        )


class Proxied:
    """An accepted connection, and the proxy's connection to the server.

    Args:
        near: The accepted socket.
        upstream: The host and port of the server.
        seed: The random seed.
        toxics: The toxics to apply.
        note: Called when a toxic takes effect, with the toxic and the bytes before it.
        tap: Called with each piece right before it passes.
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
        #: The random generator that decides which toxics affect the connection.
        self.rng: random.Random = random.Random(seed)  # noqa: S311 - it has to be repeatable
        up, down = (random.Random(f"{seed} {each}") for each in Direction)  # noqa: S311 - the same
        self.streams: dict[Direction, Stream] = {
            Direction.UP: Stream(Direction.UP, self.near, self.far, up),
            Direction.DOWN: Stream(Direction.DOWN, self.far, self.near, down),
        }
        for toxic in toxics:
            self.expect(toxic)
        self.tasks: dict[Direction, asyncio.Task[None]] = {}
        self.readers: list[asyncio.Task[None]] = []
        #: True once forwarding has ended in both directions.
        self.ended: bool = False

    async def run(self) -> None:
        """Forward bytes until both directions have ended."""
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
                # The tap has raised. CancelledError is not an Exception.
                linger_not(self.near)
                linger_not(self.far)
                raise error

    def close(self) -> None:
        """Close both sockets. No task must be left.

        A task that waits for a closed socket would wait for the next file with the same descriptor.
        """
        self.near.close()
        self.far.close()

    def expect(self, toxic: Toxic) -> None:
        """Schedule a toxic, unless its toxicity excludes this connection."""
        if self.rng.random() < toxic.toxicity:
            self.streams[toxic.direction].expect(toxic, toxic.begins)

    def inject(self, toxic: Toxic) -> None:
        """Schedule a toxic, and let it take effect at once if it is due."""
        self.expect(toxic)
        self._apply_due(self.streams[toxic.direction])

    def remove(self, toxic: Toxic) -> None:
        """Remove a toxic."""
        stream = self.streams[toxic.direction]
        stream.pending = [pair for pair in stream.pending if pair[1] is not toxic]
        if stream.end(toxic) and isinstance(toxic, Timeout):
            # Bytes were lost, so the bytes after them would be misinterpreted.
            self.end(reset=False)

    async def _pass_on(self, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        while not self._apply_due(stream):
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
            while data and not self._apply_due(stream):
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
                    # The other direction shows that the peer has disconnected.
                    if not self.streams[stream.direction.other].swallows:
                        self.end(reset=True)
                        return
                    stream.dead = True

    async def _read(self, stream: Stream) -> tuple[bytes | OSError, float]:
        """Return the next piece and its arrival time. The piece is empty at the end."""
        if stream.ahead is not None:
            return await stream.ahead.get()
        read = await self._receive(stream)
        if stream.of(Latency):
            # The task runs until the connection ends: cancelling it could lose received bytes.
            stream.ahead = asyncio.Queue(_MAX_AHEAD)
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
        """Wait until `due`, or longer if toxics delay a piece of `size` bytes."""
        loop = asyncio.get_running_loop()
        if pause := stream.pause():
            await asyncio.sleep(pause)
        due = max(due, stream.send_until(size, loop.time()))
        if (left := due - loop.time()) > 0:
            await asyncio.sleep(left)
        if (left := stream.stalled_until - loop.time()) > 0:
            await asyncio.sleep(left)

    def _apply_due(self, stream: Stream) -> bool:
        """Apply the toxics that are due. Return True if the connection has ended."""
        while not self.ended and stream.pending and stream.pending[-1][0] <= stream.passed:
            self._apply(stream, stream.pending.pop()[1])
        return self.ended

    def _apply(self, stream: Stream, toxic: Toxic) -> None:
        if isinstance(toxic, Corrupt):
            stream.corrupt = toxic  # The toxic changes the next byte.
            return
        if isinstance(toxic, Slicer) and toxic.length and stream.end(toxic):
            return  # All bytes to be split have passed.
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
                # End the stream for the receiver, and stop forwarding to the sender.
                self._stop(stream.direction.other)
                with contextlib.suppress(OSError):
                    stream.sink.shutdown(socket.SHUT_RDWR)
            case _:
                raise TypeError(f"this proxy knows no {toxic!r}")

    def _end_of(self, stream: Stream, toxic: Toxic) -> None:
        """End the connection because of a toxic's timeout, unless the toxic was removed."""
        if stream.end(toxic):
            self.end(reset=isinstance(toxic, ResetPeer))

    def end(self, *, reset: bool) -> None:
        """End the connection for both sides."""
        self.ended = True
        for sock in (self.near, self.far):
            if reset:
                linger_not(sock)
            else:
                # Without this, `close` would reset the connection if there are unread bytes.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
        for direction in Direction:
            self._stop(direction)

    def _stop(self, direction: Direction) -> None:
        task = self.tasks.get(direction)
        # A task that ends its own connection checks `ended`.
        if task is not None and task is not asyncio.current_task():
            task.cancel()
