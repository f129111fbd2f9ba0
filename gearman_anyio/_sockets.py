"""Sockets that connect, accept and close, and that a forked child does not keep open.

A child that keeps a copy of a worker's socket keeps the connection alive. While the child lives,
the server gives the job to no other worker, even if the parent was killed. So the child closes its
copies as soon as it runs (`_after_fork`). In addition, every orderly close first shuts down the
connection. That ends it even for copies that this package does not know.

Closing a copy does not disturb the parent. The child shares the epoll of the parent's event loop,
but an epoll watches open file descriptions, not descriptor numbers. It drops a description when its
last descriptor is closed, and the parent still has one. The child must not use that epoll in any
other way: a `remove_reader` in the child would unregister the parent's socket. This applies to the
epolls of asyncio and of trio. The child also sends nothing. A shutdown, for example, would end the
parent's connection.

Another file can get the number of a closed descriptor at once. So the child closes the socket
object, not the number. If the owner of the object (a stream, a transport, the garbage collector)
closes it again, that has no effect. uvloop keeps numbers that no object can close. In place of such
a connection, the child opens the null device under the same number, which uvloop can close safely.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import weakref
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.abc import SocketAttribute

if TYPE_CHECKING:
    from anyio.abc import AnyByteStream

    from gearman_proto.engines.racing import Found

_IN_PROGRESS: Final = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)

# The open sockets, or streams if they hide their socket, with their descriptors and inodes. The
# inode shows whether the descriptor still belongs to the socket.
_open: Final[weakref.WeakKeyDictionary[Any, tuple[int, int]]] = weakref.WeakKeyDictionary()


def own(sock: socket.socket) -> socket.socket:
    """Mark `sock` to be closed in the child of a fork, and return it."""
    _own(sock, sock.fileno())
    return sock


def own_stream(stream: AnyByteStream) -> None:
    """Mark the socket of `stream`, if it has one, to be closed in the child of a fork."""
    if (sock := socket_of(stream)) is not None:
        # The socket may be closed already, or the stream may not support weak references.
        with contextlib.suppress(OSError, TypeError):
            _own(sock if isinstance(sock, socket.socket) else stream, sock.fileno())


def _own(owner: Any, number: int) -> None:
    if hasattr(os, "register_at_fork"):
        _open[owner] = number, os.fstat(number).st_ino


def socket_of(stream: AnyByteStream) -> Any:
    """Return the socket below a stream, or None if it has none. uvloop's is not a real socket."""
    found: Any = stream.extra(SocketAttribute.raw_socket, None)
    # asyncio's transports wrap their socket in an object that can't be closed.
    return getattr(found, "_sock", found)


def shut_down(sock: Any) -> None:
    """End the connection of `sock` in all processes that have a copy. Its owner closes `sock`."""
    with contextlib.suppress(OSError):  # The socket was never connected, or has been closed.
        if isinstance(sock, socket.socket):
            sock.shutdown(socket.SHUT_RDWR)
        else:
            with socket.socket(fileno=os.dup(sock.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)


def end(sock: socket.socket) -> None:
    """Shut down `sock`, and close it."""
    shut_down(sock)
    sock.close()


async def connect(address: Found) -> socket.socket:
    """Connect to `address`, and return the non-blocking socket.

    Raises:
        OSError: The connection could not be made.
    """
    family, kind, proto, _, where = address
    sock = own(socket.socket(family, kind, proto))
    try:
        sock.setblocking(False)
        code = sock.connect_ex(where)
        if code in _IN_PROGRESS:
            await anyio.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        end(sock)
        raise
    return sock


def listen(address: Found, backlog: int) -> socket.socket:
    """Listen on `address`, and return the non-blocking socket.

    Raises:
        OSError: It is not possible to listen on the address.
    """
    family, _, _, _, where = address
    sock = own(socket.create_server(where[:2], family=family, backlog=backlog))
    sock.setblocking(False)
    return sock


async def accept(listener: socket.socket) -> socket.socket:
    """Accept the next connection, and return its non-blocking socket.

    Raises:
        OSError: No connection could be accepted.
    """
    while True:
        await anyio.wait_readable(listener)
        try:
            sock = own(listener.accept()[0])
        except BlockingIOError:
            continue
        sock.setblocking(False)
        return sock


def _after_fork() -> None:
    null = None
    for owner, (number, inode) in list(_open.items()):
        # An OSError means that the descriptor is closed, as it should be.
        with contextlib.suppress(OSError):
            if isinstance(owner, socket.socket):
                owner.close()
            if os.fstat(number).st_ino == inode:
                null = os.open(os.devnull, os.O_RDWR) if null is None else null
                os.dup2(null, number, inheritable=False)
    if null is not None:
        os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
