"""Byte streams to servers, whether they have ended, and what their errors mean."""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import anyio
import anyio.lowlevel
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledObjectStream

from gearman_proto import errors, keepalive
from gearman_proto.handlers import reraise_from_handler
from gearman_proto.keepalive import socket_options
from gearman_proto.tls import handshake_failure

from . import _sockets

try:
    import fcntl
    import termios
except ImportError:  # Windows has neither.
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from anyio.abc import AnyByteStream

    from gearman_proto import ServerAddress

#: Gets the address of a server and returns a byte stream to it.
Connector: TypeAlias = "Callable[[ServerAddress], Awaitable[ByteStream]]"

# Maximum number of chunks in flight in a pipe.
_PIPE_SIZE: Final = 4
# Maximum number of event loop iterations that a reader needs to notice the end of its connection.
# The first is for sockets, whose readers may have to receive data before. The second is for streams
# that the system can't check.
_TURNS: Final = 10
_TURNS_IN_PROCESS: Final = 2


async def socket_stream(sock: socket.socket) -> ByteStream:
    """Return anyio's stream of a connected socket. If this fails, the socket is closed.

    Raises:
        Exception: The connection has ended meanwhile.
    """
    try:
        return await SocketStream.from_socket(sock)
    except BaseException:
        _sockets.end(sock)
        raise


async def end_stream(stream: ByteStream) -> None:
    """Shut down the connection of `stream`, and close it without waiting."""
    if (sock := _sockets.socket_of(stream)) is not None:
        _sockets.shut_down(sock)
    await anyio.aclose_forcefully(stream)


async def open_stream(
    address: ServerAddress, context: ssl.SSLContext | None, connecting: Awaitable[ByteStream]
) -> ByteStream:
    """Return the stream to `address` that `connecting` opens, with TLS if `context` is given.

    Raises:
        Exception: The connection could not be opened, or the handshake failed.
    """
    stream = await connecting
    try:
        _sockets.own_stream(stream)
        set_options(stream, address)
        return stream if context is None else await _secure(stream, address, context)
    except BaseException:
        await end_stream(stream)
        raise


async def _secure(
    stream: ByteStream, address: ServerAddress, context: ssl.SSLContext
) -> ByteStream:
    try:
        return await _wrap(stream, context, address.host)
    except Exception as error:  # noqa: BLE001 - streams may be anybody's
        reraise_from_handler(error)
        raise handshake_failure(reason(error)) from None


async def accept_tls(context: ssl.SSLContext, stream: ByteStream) -> ByteStream:
    """Add TLS to the accepted `stream`, and return the result.

    Raises:
        Exception: The handshake failed. `stream` is still open.
    """
    return await _wrap(stream, context, None)


async def _wrap(stream: ByteStream, context: ssl.SSLContext, hostname: str | None) -> ByteStream:
    # This imports `ssl`, which is slow to import.
    from anyio.streams.tls import TLSStream  # noqa: PLC0415

    shared = _LockedStream(stream)
    # Nothing in the protocol depends on how a stream ends, and servers do not say goodbye.
    secured = await TLSStream.wrap(
        shared,
        server_side=hostname is None,
        hostname=hostname,
        ssl_context=context,
        standard_compatible=False,
    )
    shared.is_secured = True
    return secured


def set_options(stream: AnyByteStream, address: ServerAddress | None) -> None:
    """Set the options of a socket's stream to the server at `address`, or of an accepted one."""
    sock = stream.extra(SocketAttribute.raw_socket, None)
    if sock is not None:
        for level, option, value in socket_options(address, socket):
            with contextlib.suppress(OSError):  # Some kinds of sockets lack some options.
                sock.setsockopt(level, option, value)


def unacknowledged(sock: Any) -> int | None:
    """Return how many bytes written to `sock` the peer's system has not acknowledged, if known."""
    if sock is None or fcntl is None:
        return None
    with contextlib.suppress(OSError):
        return keepalive.unacknowledged(sock, fcntl, termios)
    return None


class Ended(Exception):
    """Raised by `receive` of a TLS stream if the peer has ended the stream below TLS.

    A TLSStream that gets EndOfStream instead also stops sending. So if its reader was faster than
    its writer, the last reply was lost. It lets this exception pass.
    """


class _LockedStream(ByteStream):
    """The stream below TLS. The reader and the writer can both send and receive on it.

    TLS has to answer some messages of the peer (a new key, a renegotiation, a request for a
    certificate). The reader or the writer does that, while the other one may be sending or
    receiving. Other streams refuse such concurrent use.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._sending = anyio.Lock()
        self._receiving: anyio.Event | None = None
        #: True once the handshake is done.
        self.is_secured = False

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._stream.extra_attributes

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if self._receiving is not None:
            # The other task passes the received data to TLS. Afterwards, TLS may not need more.
            await self._receiving.wait()
            return b""
        self._receiving = anyio.Event()
        try:
            return await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            if self.is_secured:
                raise Ended from None
            raise
        finally:
            self._receiving.set()
            self._receiving = None

    async def send(self, item: bytes) -> None:
        # The TLS records stay in order, because no code awaits between TLS and this lock.
        async with self._sending:
            await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class HangupWatcher:
    """A check for ended connections before data is sent on them.

    Their readers will notice the end soon, but jobs that are submitted before would be lost.
    """

    def __init__(self) -> None:
        # Linux distinguishes the end of a stream from data.
        self._events: int = getattr(select, "POLLRDHUP", getattr(select, "POLLIN", 0))
        self._poll: Any = select.poll() if self._events else None
        self._sockets = 0
        self._others = 0

    @contextlib.contextmanager
    def watching(self, stream: ByteStream) -> Iterator[None]:
        """Include `stream` in the check, inside the context."""
        sock = stream.extra(SocketAttribute.raw_socket, None)
        number = -1 if sock is None or self._poll is None else sock.fileno()
        if number < 0:
            self._others += 1
            try:
                yield
            finally:
                self._others -= 1
            return
        self._sockets += 1
        self._poll.register(number, self._events)
        try:
            yield
        finally:
            self._sockets -= 1
            # If the socket was closed before, another socket may have got its number. Then that
            # socket is not checked any longer, which is harmless.
            with contextlib.suppress(KeyError):
                self._poll.unregister(number)

    def any(self) -> bool:
        """Return True if a connection might have ended without its reader's notice."""
        # The system can't check streams that have no socket.
        return bool(self._others or (self._sockets and self._poll.poll(0)))

    async def wait_for_readers(self) -> None:
        """Wait until the readers of all ended connections have noticed that."""
        for turn in range(_TURNS):
            if self._others and turn < _TURNS_IN_PROCESS:
                pass
            elif not self._sockets or not self._poll.poll(0):
                return
            await anyio.lowlevel.checkpoint()


def pipe() -> tuple[ByteStream, ByteStream]:
    """Return the two ends of a connection within this process."""
    to_far, from_near = anyio.create_memory_object_stream[bytes](_PIPE_SIZE)
    to_near, from_far = anyio.create_memory_object_stream[bytes](_PIPE_SIZE)
    return (
        _End(StapledObjectStream(to_far, from_far)),
        _End(StapledObjectStream(to_near, from_near)),
    )


class _End(ByteStream):
    """One end of a pipe, which turns a stream of chunks into a stream of bytes."""

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
    """Return the cause of a stream's error, whose own text is often meaningless."""
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):
        return OSError("; ".join(str(reason(each)) for each in cause.exceptions))
    if isinstance(cause, OSError):
        error = cause
    if isinstance(error, OSError) and str(error.strerror).startswith("Connect call failed"):
        # asyncio's message has the failed call, but not the reason.
        return OSError(error.errno, f"{error.strerror}: {os.strerror(error.errno or 0)}")
    if isinstance(error, anyio.EndOfStream):
        return ConnectionError("the connection was closed")
    return error if str(error) else ConnectionError(type(error).__name__)


def failure(error: BaseException) -> Exception:
    """Return `error` if it is a failure of the stream; otherwise raise it again."""
    if isinstance(error, Exception):
        return error
    is_cancellation = isinstance(error, anyio.get_cancelled_exc_class())
    if is_cancellation and anyio.current_effective_deadline() != -math.inf:
        # This task was not cancelled. On asyncio, the stream has awaited a cancelled task.
        return errors.ConnectionError("the stream was cancelled")
    raise error
