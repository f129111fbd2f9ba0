"""Plain TCP connections that this package has opened itself, so that it owns their sockets.

Any task can send on such a connection at once, and need not leave that to the writer, which runs
later. Sending does not wait, so it can't be cancelled in the middle of a packet. On asyncio, the
event loop calls a function when the socket is readable, so that no task has to wait for data.

Streams with TLS, those of the application's `connect=` and those that a server accepts are streams
of anyio: the bytes sent on them can differ from the socket's. (asyncio's own TLS is not used: if
told to buffer nothing, it pauses and resumes its writer in turns. It also closes a half-closed
connection.)
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, SocketAttribute

from gearman_proto.engines.driver import YIELD_SIZE
from gearman_proto.handlers import reraise_from_handler

from ._sockets import end
from ._streams import socket_stream
from ._tasks import is_asyncio

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping


async def raw_stream(sock: socket.socket) -> ByteStream:
    """Return the stream of a connected socket: a RawStream, if the event loop supports it."""
    make = _kind()
    return await socket_stream(sock) if make is None else make(sock)


def _kind() -> Callable[[socket.socket], RawStream] | None:
    if not is_asyncio():
        return RawStreamOnTrio
    import asyncio  # noqa: PLC0415 - it is imported already; on trio it might not be

    # uvloop, for example, may have read data by then, and its transports are faster. Windows has a
    # loop that can't watch sockets.
    loop = asyncio.get_running_loop()
    return RawStreamOnAsyncio if isinstance(loop, asyncio.SelectorEventLoop) else None


class RawStream(ByteStream):
    """A stream that can also send without waiting.

    Args:
        sock: A connected, non-blocking socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {SocketAttribute.raw_socket: lambda: self._sock}

    def send_now(self, data: bytes) -> bytes | memoryview:
        """Send the bytes that the system accepts at once, and return the rest.

        If sending fails, the rest is `data`; sending it later raises the error.
        """
        try:
            sent = self._sock.send(data)
        except OSError as error:
            reraise_from_handler(error)
            return data
        return b"" if sent == len(data) else memoryview(data)[sent:]

    def receive_now(self, max_bytes: int) -> bytes:
        """Return received data, or b"" if the peer has ended its stream.

        Raises:
            BlockingIOError: No data was received.
            OSError: The connection is lost.
        """
        return self._sock.recv(max_bytes)

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        end(self._sock)


class RawStreamOnTrio(RawStream):
    """A RawStream on trio."""

    def __init__(self, sock: socket.socket) -> None:
        from trio import lowlevel  # noqa: PLC0415 - it is imported already; on asyncio it might not be

        super().__init__(sock)
        self._wait_readable = lowlevel.wait_readable
        self._wait_writable = lowlevel.wait_writable

    async def receive(self, max_bytes: int = 65536) -> bytes:
        # Don't try to receive first: the previous call has received all available data.
        while True:
            await self._wait_readable(self._sock)
            try:
                data = self.receive_now(max_bytes)
            except BlockingIOError:
                continue
            if not data:
                raise anyio.EndOfStream
            return data

    async def send(self, item: bytes | memoryview) -> None:
        rest = memoryview(item)
        while rest:
            await self._wait_writable(self._sock)
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                continue


class RawStreamOnAsyncio(RawStream):
    """A RawStream on asyncio. It has no `receive`; `watch` calls back for `receive_now`."""

    def __init__(self, sock: socket.socket) -> None:
        import asyncio  # noqa: PLC0415 - as above

        super().__init__(sock)
        self._loop = asyncio.get_running_loop()
        self._is_watched = False

    def watch(self, readable: Callable[[], object]) -> None:
        """Call `readable` whenever `receive_now` has data to return or an error to raise.

        The call is not in a task. Even so, anyio has to know the current event loop, because
        `readable` can start a task.
        """
        if sniffio := sys.modules.get("sniffio"):
            # `asyncio.run` does not set this variable. (Without sniffio, anyio detects asyncio
            # itself.) It applies to the calling task, and to its callbacks and tasks.
            sniffio.current_async_library_cvar.set("asyncio")
        self._loop.add_reader(self._sock, readable)
        self._is_watched = True

    def unwatch(self) -> None:
        """Stop calling `readable`."""
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._sock)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        raise NotImplementedError

    async def send(self, item: bytes | memoryview) -> None:
        await self._loop.sock_sendall(self._sock, item)
        if len(item) >= YIELD_SIZE:  # If the system accepts all bytes, no other task has run.
            await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.unwatch()
        end(self._sock)
