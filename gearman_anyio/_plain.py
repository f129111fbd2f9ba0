"""Plain TCP connections that this package has opened itself, so that nobody else has their socket.

Whichever task runs may write to such a one at once, and need not leave that to a task that has its
turn later. Nothing can be torn by it: it does not wait, so it can't be cancelled. And asyncio calls
where there is something to read, so that no task has to wait for that.

Streams with TLS, those of the application's `connect=` and those that a server accepts are anyio's:
the bytes sent on them may differ from the socket's. (asyncio's own TLS is not used: told to keep
nothing back, it pauses and resumes its writer in turns. It also closes a half-closed connection.)
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream, SocketAttribute

from ._sockets import end
from ._streams import socket_stream
from ._tasks import is_asyncio

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping


async def plain_stream(sock: socket.socket) -> ByteStream:
    """Return the stream of a connected socket: a Plain one, if there are any on this event loop."""
    make = _kind()
    return await socket_stream(sock) if make is None else make(sock)


def _kind() -> Callable[[socket.socket], Plain] | None:
    if not is_asyncio():
        return PlainOnTrio
    import asyncio  # noqa: PLC0415 - it is there, and on trio it may not be

    # uvloop, say, has read something by then, perhaps, and is quicker with transports. Windows has
    # a loop that does not tell of sockets.
    loop = asyncio.get_running_loop()
    return PlainOnAsyncio if isinstance(loop, asyncio.SelectorEventLoop) else None


class Plain(ByteStream):
    """A stream that can also be written to without waiting.

    Args:
        sock: The socket, which is connected, and does not block.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {SocketAttribute.raw_socket: lambda: self._sock}

    def send_now(self, data: bytes) -> bytes | memoryview:
        """Send what the system takes at once, and return the rest.

        That is all of it where this fails: whoever sends the rest will be told.
        """
        try:
            sent = self._sock.send(data)
        except OSError:
            return data
        return b"" if sent == len(data) else memoryview(data)[sent:]

    def receive_now(self, max_bytes: int) -> bytes:
        """Return what has come, nothing if the peer sends no more.

        Raises:
            BlockingIOError: Nothing has come.
            OSError: The connection is lost.
        """
        return self._sock.recv(max_bytes)

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        end(self._sock)


class PlainOnTrio(Plain):
    """One that trio waits for."""

    def __init__(self, sock: socket.socket) -> None:
        from trio import lowlevel  # noqa: PLC0415 - it is there, and on asyncio it may not be

        super().__init__(sock)
        self._wait_readable = lowlevel.wait_readable
        self._wait_writable = lowlevel.wait_writable

    async def receive(self, max_bytes: int = 65536) -> bytes:
        # Looking before would be for nothing: what has come at once was taken the last time.
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


class PlainOnAsyncio(Plain):
    """One that asyncio watches. It is not received from: `watch` says when to `receive_now`."""

    def __init__(self, sock: socket.socket) -> None:
        import asyncio  # noqa: PLC0415 - as above

        super().__init__(sock)
        self._loop = asyncio.get_running_loop()
        self._is_watched = False

    def watch(self, readable: Callable[[], object]) -> None:
        """Call `readable` whenever `receive_now` has something to return, or to raise.

        No task is running then. All the same, anyio has to know which event loop this is: it may
        be asked to start one.
        """
        if sniffio := sys.modules.get("sniffio"):
            # Whoever has used `asyncio.run` has not said so. (Without sniffio, anyio sees it.) This
            # is for the calling task, and for what comes of it.
            sniffio.current_async_library_cvar.set("asyncio")
        self._loop.add_reader(self._sock, readable)
        self._is_watched = True

    def unwatch(self) -> None:
        """Call it no more."""
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._sock)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        raise NotImplementedError

    async def send(self, item: bytes | memoryview) -> None:
        await self._loop.sock_sendall(self._sock, item)

    async def aclose(self) -> None:
        self.unwatch()
        end(self._sock)
