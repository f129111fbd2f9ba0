"""Byte streams to servers, and what their errors mean."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING, TypeAlias

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledObjectStream
from anyio.streams.tls import TLSStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from anyio.abc import AnyByteStream

    from gearman_proto import ServerAddress

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

#: Gets the address of a server and returns a byte stream to it.
Connector: TypeAlias = "Callable[[ServerAddress], Awaitable[ByteStream]]"

# Chunks on their way in a pipe.
_PIPE_SIZE = 4


async def connect_tcp(address: ServerAddress) -> ByteStream:
    """Open a TCP connection to `address`, as anyio does it."""
    return await anyio.connect_tcp(address.host, address.port)


async def open_stream(
    address: ServerAddress, context: ssl.SSLContext | None, connect: Connector
) -> ByteStream:
    """Open a stream to `address` with `connect`, and secure it if there is a `context`.

    Raises:
        Exception: Whatever `connect` raises, and what a failed handshake does.
    """
    stream = await connect(address)
    try:
        keep_alive(stream)
        if context is not None:
            # Nothing in the protocol depends on how a stream ends, and servers do not say goodbye.
            return await TLSStream.wrap(
                stream,
                server_side=False,
                hostname=address.host,
                ssl_context=context,
                standard_compatible=False,
            )
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
    return stream


def keep_alive(stream: AnyByteStream) -> None:
    """Have the system look whether the other end is still there, if it is a socket's stream."""
    sock = stream.extra(SocketAttribute.raw_socket, None)
    if sock is not None:
        with contextlib.suppress(OSError):  # Not every kind of socket has this.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def pipe() -> tuple[ByteStream, ByteStream]:
    """The two ends of a connection within this process."""
    to_far, from_near = anyio.create_memory_object_stream[bytes](_PIPE_SIZE)
    to_near, from_far = anyio.create_memory_object_stream[bytes](_PIPE_SIZE)
    return (
        _End(StapledObjectStream(to_far, from_far)),
        _End(StapledObjectStream(to_near, from_near)),
    )


class _End(ByteStream):
    """One end of a pipe: a stream of chunks as a stream of bytes."""

    def __init__(self, chunks: StapledObjectStream[bytes]) -> None:
        self._chunks = chunks
        self._received = BufferedByteReceiveStream(chunks)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._received.receive(max_bytes)

    async def send(self, item: bytes) -> None:
        await self._chunks.send(item)

    async def send_eof(self) -> None:
        await self._chunks.send_eof()

    async def aclose(self) -> None:
        await self._chunks.aclose()


def reason(error: Exception) -> Exception:
    """What is behind an error of a stream, which often says no more than that there was one."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):
        return OSError("; ".join(str(reason(each)) for each in cause.exceptions))
    if isinstance(cause, OSError):
        return cause
    return error if str(error) else ConnectionError(type(error).__name__)
