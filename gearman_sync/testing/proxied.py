"""A connection through a `FaultyProxy`: its two directions, and the effects of toxics on them.

Theory of operation
    Each direction has a task that applies the toxics that are due, and writes. A toxic either has
    its effect at once, or becomes active, and the task checks the active ones before it forwards
    each piece. Another task reads, and notes the arrival time of each piece. Without latency, it
    waits until a piece has passed before it reads the next one. So while a direction stalls, the
    bytes stay in the sockets' buffers and, when these are full, with the sender, as in a real
    network. With latency, the task reads ahead, because latency delays bytes without limiting the
    rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from typing import TYPE_CHECKING, Final, TypeVar

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

# Bytes to read at a time.
_PIECE: Final = 65536
# Pieces to read ahead for latency.
_MAX_AHEAD: Final = 64
# Passed bytes to keep.
_TAIL: Final = 16
# Maximum time that a piece takes on a limited link, in seconds.
_TICK: Final = 0.05


class Stream:
    """One direction of a connection.

    Args:
        connection: The connection.
        direction: The direction.
        source: The socket to read from.
        sink: The socket to write to.
        seed: The random seed.
    """

    #: The task that forwards, once the connection was made.
    task: asyncio.Task[None] | None = None

    def __init__(
        self,
        connection: Proxied,
        direction: Direction,
        source: socket.socket,
        sink: socket.socket,
        seed: str,
    ) -> None:
        self._connection = connection
        self._direction = direction
        self._source = source
        self._sink = sink
        self._rng = random.Random(f"{seed} {direction}")  # noqa: S311 - it has to be repeatable
        # The number of bytes that were forwarded or discarded, and the last of them.
        self._passed = 0
        self._tail = b""
        # Pending toxics, each with the value of `_passed` at which it begins. The next one is last.
        self._pending: list[tuple[int, Toxic]] = []
        # The toxics in effect.
        self._active: list[Toxic] = []
        # True if all bytes are discarded from now on.
        self._is_dead = False
        # The end of a stall, in the loop's time.
        self._stalled_until = 0.0
        # When the last byte will have passed the limited link, in the loop's time.
        self._clear_at = 0.0
        # The received pieces with their arrival times. A piece is b"" at the end, None at a reset.
        self._received: asyncio.Queue[tuple[bytes | None, float]] = asyncio.Queue(_MAX_AHEAD)

    @property
    def swallows(self) -> bool:
        """True if bytes are discarded."""
        return self._is_dead or bool(self._of(Timeout))

    def _of(self, kind: type[_T]) -> list[_T]:
        return [toxic for toxic in self._active if isinstance(toxic, kind)]

    # Toxics.

    def expect(self, toxic: Toxic, after: int) -> None:
        """Schedule a toxic for when `after` more bytes have passed."""
        self._pending.append((self._passed + after, toxic))
        self._pending.sort(key=lambda pair: pair[0], reverse=True)

    def remove(self, toxic: Toxic) -> None:
        """Remove a toxic."""
        self._pending = [pair for pair in self._pending if pair[1] is not toxic]
        if self._end(toxic) and isinstance(toxic, Timeout):
            # Bytes were lost, so the bytes after them would be misinterpreted.
            self._connection.end(reset=False)

    def _end(self, toxic: Toxic) -> bool:
        """Deactivate a toxic. Return True if it was active."""
        left = [each for each in self._active if each is not toxic]
        was_active, self._active = len(left) < len(self._active), left
        return was_active

    def apply_due(self) -> bool:
        """Apply the toxics that are due. Return True if the connection has ended."""
        while self._pending and self._pending[-1][0] <= self._passed and not self._connection.ended:
            self._apply(self._pending.pop()[1])
        return self._connection.ended

    def _apply(self, toxic: Toxic) -> None:
        if isinstance(toxic, Slicer) and toxic.length and self._end(toxic):
            return  # All bytes to be split have passed.
        if not isinstance(toxic, Corrupt):  # This one changes the next byte.
            self._connection.note(toxic, b"")
        self._active.append(toxic)
        loop = asyncio.get_running_loop()
        match toxic:
            case Slicer() if toxic.length:
                self.expect(toxic, toxic.length)
            case Timeout() | ResetPeer() if toxic.timeout:
                loop.call_later(toxic.timeout, self._time_out, toxic)
            case ResetPeer() | LimitData():
                self._connection.end(reset=isinstance(toxic, ResetPeer))
            case Stall():
                self._stalled_until = max(self._stalled_until, loop.time() + toxic.seconds)
            case HalfOpen():
                self._is_dead = True
                # End the stream for the receiver, and stop forwarding to the sender.
                self._connection.streams[self._direction.other].stop()
                with contextlib.suppress(OSError):
                    self._sink.shutdown(socket.SHUT_RDWR)

    def _time_out(self, toxic: Toxic) -> None:
        """End the connection because of a toxic's timeout, unless the toxic was removed."""
        if self._end(toxic):
            self._connection.end(reset=isinstance(toxic, ResetPeer))

    # Forwarding.

    async def run(self) -> None:
        """Forward bytes until the stream or the connection has ended."""
        reader = asyncio.create_task(self._read())
        try:
            while not self.apply_due():
                data, came = await self._received.get()
                due = came + sum(
                    toxic.latency + self._rng.uniform(-toxic.jitter, toxic.jitter)
                    for toxic in self._of(Latency)
                )
                if not data:
                    await self._forward_end(due, is_reset=data is None)
                    return
                while data and not self.apply_due():
                    piece, data = self._cut(data)
                    await self._wait(due, len(piece))
                    await self._forward(piece)
                self._received.task_done()
        finally:
            reader.cancel()
            await asyncio.wait([reader])

    def stop(self) -> None:
        """Stop forwarding. A task that ends its own connection goes on, and checks `ended`."""
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        data: bytes | None = b"something"
        while data:
            try:
                data = await loop.sock_recv(self._source, self._connection.piece)
            except OSError:
                data = None
            await self._received.put((data, loop.time()))
            if not self._of(Latency):
                await self._received.join()

    def _cut(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the bytes that pass as one piece, and the others."""
        size = len(data)
        if self._pending:
            size = min(size, self._pending[-1][0] - self._passed)
        for slicer in self._of(Slicer):
            variation = self._rng.randint(-slicer.size_variation, slicer.size_variation)
            size = min(size, slicer.average_size + variation)
        for limit in self._of(Bandwidth):
            size = min(size, max(1, int(limit.rate * _TICK)))
        for corrupt in self._of(Corrupt):
            self._connection.note(corrupt, self._tail)
            data = bytes([data[0] ^ corrupt.mask]) + data[1:]
            self._end(corrupt)
        return data[:size], data[size:]

    async def _wait(self, due: float, size: int) -> None:
        """Wait until `due`, or longer if toxics delay a piece of `size` bytes."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(sum(slicer.delay for slicer in self._of(Slicer)))
        if seconds := sum(size / limit.rate for limit in self._of(Bandwidth)):
            # Credit up to one tick of idle time, so that a late loop does not lower the rate.
            self._clear_at = max(self._clear_at, loop.time() - _TICK) + seconds
        await asyncio.sleep(max(due, self._clear_at) - loop.time())
        await asyncio.sleep(self._stalled_until - loop.time())

    async def _forward(self, piece: bytes) -> None:
        connection = self._connection
        self._passed += len(piece)
        self._tail = (self._tail + piece)[-_TAIL:]
        if not self.swallows:
            connection.tap(self._direction, piece)
        if connection.ended or self.swallows:
            return
        try:
            await asyncio.get_running_loop().sock_sendall(self._sink, piece)
        except OSError:
            # The other direction shows that the peer has disconnected.
            if connection.streams[self._direction.other].swallows:
                self._is_dead = True
            else:
                connection.end(reset=True)

    async def _forward_end(self, due: float, *, is_reset: bool) -> None:
        if self.swallows:
            return
        if is_reset:
            self._connection.tap(self._direction, b"")
            self._connection.end(reset=True)
            return
        await asyncio.sleep(sum(toxic.delay for toxic in self._of(SlowClose)))
        await asyncio.sleep(due - asyncio.get_running_loop().time())
        self._connection.tap(self._direction, b"")
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)


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
        self._near = near
        self._far = socket_for(upstream[0])
        set_buffers(self._far, buffer)
        self._far.setblocking(False)
        self._upstream = upstream
        self.note = note
        self.tap = tap
        #: Bytes to read at a time. The proxy's own memory is a buffer as well.
        self.piece: int = min(buffer, _PIECE) or _PIECE
        # This one decides which toxics affect the connection.
        self._rng = random.Random(seed)  # noqa: S311 - it has to be repeatable
        self.streams: dict[Direction, Stream] = {
            Direction.UP: Stream(self, Direction.UP, near, self._far, seed),
            Direction.DOWN: Stream(self, Direction.DOWN, self._far, near, seed),
        }
        #: True once forwarding has ended in both directions.
        self.ended: bool = False
        for toxic in toxics:
            self.expect(toxic)

    async def run(self) -> None:
        """Forward bytes until both directions have ended."""
        tasks: list[asyncio.Task[None]] = []
        try:
            try:
                await asyncio.get_running_loop().sock_connect(self._far, self._upstream)
            except OSError:
                self.note("unreachable", b"")
                linger_not(self._near)
                return
            for sock in (self._near, self._far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.ended:
                return
            for stream in self.streams.values():
                stream.task = asyncio.create_task(stream.run())
                tasks.append(stream.task)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for error in results:
            if isinstance(error, Exception):
                # The tap has raised. CancelledError is not an Exception.
                linger_not(self._near)
                linger_not(self._far)
                raise error

    def close(self) -> None:
        """Close both sockets. No task must be left.

        A task that waits for a closed socket would wait for the next file with the same descriptor.
        """
        self._near.close()
        self._far.close()

    def expect(self, toxic: Toxic) -> None:
        """Schedule a toxic, unless its toxicity excludes this connection."""
        if self._rng.random() < toxic.toxicity:
            self.streams[toxic.direction].expect(toxic, toxic.begins)

    def inject(self, toxic: Toxic) -> None:
        """Schedule a toxic, and let it take effect at once if it is due."""
        self.expect(toxic)
        self.streams[toxic.direction].apply_due()

    def end(self, *, reset: bool) -> None:
        """End the connection for both sides."""
        self.ended = True
        for sock in (self._near, self._far):
            if reset:
                linger_not(sock)
            else:
                # Without this, `close` would reset the connection if there are unread bytes.
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
        for stream in self.streams.values():
            stream.stop()
