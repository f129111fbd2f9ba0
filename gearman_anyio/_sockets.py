"""The sockets of this package: how they connect, accept and end, and why no fork keeps them open.

A child that keeps a copy of a worker's socket keeps the connection alive: its server gives the job
to no other worker while the child lives, even if the parent was killed. So the child closes its
copies as soon as it runs (`_after_fork`), and an orderly end shuts the connection down before it
closes the socket, which ends it for copies of which this package does not know.

Closing a copy does not disturb the parent. The child shares the epoll of the parent's event loop,
but an epoll watches open file descriptions, not numbers: it drops one when the last descriptor for
it is closed, and the parent still has its own. Nothing else may touch that epoll: a
`remove_reader` in the child would end the parent's waiting. asyncio's and trio's epolls are alike
in this. The child also sends nothing, as a shutdown would end the parent's connection.

The number that is closed may soon be another file's. So it is the socket object that is closed, not
the number: an object that is closed again by its owner (a stream, a transport, the garbage
collector) does nothing then. uvloop keeps numbers that no object can close. In place of such a
connection, the child gets the null device under the same number, which uvloop may close.
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

# The sockets, or the streams of those that hide theirs, with the number and the inode of each. The
# inode tells whether the number is still that socket's.
_open: Final[weakref.WeakKeyDictionary[Any, tuple[int, int]]] = weakref.WeakKeyDictionary()


def own(sock: socket.socket) -> socket.socket:
    """Mark `sock` to be closed in the child of a fork, and return it."""
    _own(sock, sock.fileno())
    return sock


def own_stream(stream: AnyByteStream) -> None:
    """Mark the socket of `stream`, if there is one, to be closed in the child of a fork."""
    if (sock := socket_of(stream)) is not None:
        # It may have been closed meanwhile, or the stream may have no weak references.
        with contextlib.suppress(OSError, TypeError):
            _own(sock if isinstance(sock, socket.socket) else stream, sock.fileno())


def _own(owner: Any, number: int) -> None:
    if hasattr(os, "register_at_fork"):
        _open[owner] = number, os.fstat(number).st_ino


def socket_of(stream: AnyByteStream) -> Any:
    """Return the socket below a stream, or None if there is none. uvloop's only looks like one."""
    found: Any = stream.extra(SocketAttribute.raw_socket, None)
    # asyncio's transports show their socket in an envelope that can't be closed.
    return getattr(found, "_sock", found)


def shut_down(sock: Any) -> None:
    """End the connection of `sock`, for all processes that have a copy. Its owner closes it."""
    with contextlib.suppress(OSError):  # It was never connected, or has ended.
        if isinstance(sock, socket.socket):
            sock.shutdown(socket.SHUT_RDWR)
        else:
            with socket.socket(fileno=os.dup(sock.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)


def end(sock: socket.socket) -> None:
    """Shut `sock` down, and close it."""
    shut_down(sock)
    sock.close()


async def connect(address: Found) -> socket.socket:
    """Return a socket that is connected to `address`, and does not block.

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
    """Return a socket that listens at `address`.

    Raises:
        OSError: It can't listen there.
    """
    family, _, _, _, where = address
    sock = own(socket.create_server(where[:2], family=family, backlog=backlog))
    sock.setblocking(False)
    return sock


async def accept(listener: socket.socket) -> socket.socket:
    """Return the socket of the next connection, which does not block.

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
        # An OSError means that the number is closed, as it should be.
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
