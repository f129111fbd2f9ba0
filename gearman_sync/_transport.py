"""One non-blocking socket: resolving, connecting, and moving bytes; `_tls` has the one with TLS.

A Transport goes through its stages without ever blocking:

    RESOLVING -> CONNECTING (one address after the other) -> HANDSHAKING (with TLS) -> OPEN

Host names are resolved in a thread of their own, since `getaddrinfo` blocks; numbers are not. When
a name has several addresses, each gets an equal share of the connect timeout, so that a dead one
does not use up the time of those behind it.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import socket
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gearman_proto.engines.driving import READ_SIZE
from gearman_proto.keepalive import socket_options, unacknowledged

from ._selector import READ, WRITE
from ._threads import start_thread

try:
    import fcntl
    import termios
except ImportError:  # Windows has neither.
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from gearman_proto.address import ServerAddress
    from gearman_proto.engines.base import Link

# Bytes to read at a time from those who share a server, so that none is kept waiting.
_SHARED_READ_SIZE: Final = 64 * 1024
# Chunks to write before reading again: replies must not pile up behind a long write.
_WRITES: Final = 4
# Each empty memoryview takes 300 bytes, and most transports of a server have nothing to send.
_NOTHING: Final = memoryview(b"")
_IN_PROGRESS: Final = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)


class Stage(enum.Enum):
    """How far a Transport is."""

    RESOLVING = enum.auto()
    CONNECTING = enum.auto()
    HANDSHAKING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


# Looking members up in the class takes long before Python 3.12.
CONNECTING: Final = Stage.CONNECTING
OPEN: Final = Stage.OPEN


class _Socket(socket.socket):
    """One that ends without a word.

    Python warns of sockets that nobody has closed. The driver's finalizer closes these, but where
    it is in a circle, an exception's traceback, say, theirs may come before it.
    """

    __slots__ = ()

    def __del__(self) -> None:
        self.close()


class Transport:
    """A connection that is being made, or is there.

    Args:
        address: Where to.
        timeout: Seconds that connecting may take, shared by the addresses of a name.
    """

    #: What the socket raises where it has nothing, or takes nothing.
    _would_block: ClassVar[tuple[type[OSError], ...]] = (BlockingIOError,)

    __slots__ = (
        "_address",
        "_candidates",
        "_error",
        "_has_ended",
        "_read_size",
        "_share",
        "_timeout",
        "_unsent",
        "deadline",
        "is_blocked",
        "sock",
        "stage",
    )

    def __init__(self, address: ServerAddress, timeout: float) -> None:
        self.stage = Stage.RESOLVING
        self.sock: socket.socket | None = None
        #: When to give up on the current address and try the next, or None.
        self.deadline: float | None = None
        self._address = address
        self._timeout = timeout
        self._candidates: Sequence[Any] = ()
        self._share = timeout
        self._error: OSError | None = None
        self._unsent = _NOTHING
        #: Whether the socket takes no more for now.
        self.is_blocked = False
        # Whether the other end sends no more. It may still read.
        self._has_ended = False
        self._read_size = READ_SIZE

    def accept(self, sock: socket.socket) -> Self:
        """Have a socket that was accepted: open, or with a handshake to come. Returns this."""
        sock.setblocking(False)
        _set_options(sock, None)
        self.sock = sock
        self.stage = Stage.OPEN
        self._read_size = _SHARED_READ_SIZE
        return self

    @property
    def interest(self) -> int:
        """The selector events to wait for; 0 if there are none."""
        if self.stage is CONNECTING:
            return WRITE
        # At its end, a stream stays ready to be read.
        interest = 0 if self._has_ended else READ
        return interest | WRITE if self.is_blocked else interest

    # Connecting. Each of these raises OSError when there is no hope left.

    def start(self, resolved: Callable[[list[Any] | OSError], None], now: float) -> None:
        """Begin. `resolved` may be called, in another thread, with what `connect` takes."""
        host, port = self._address.host, self._address.port
        try:
            found = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except socket.gaierror:
            start_thread("gearman-resolve", _resolve, host, port, resolved, daemon=True)
        else:
            self.connect(found, now)

    def connect(self, found: list[Any], now: float) -> None:
        """Try the addresses `found`, one after the other."""
        self._candidates = found
        self._share = self._timeout / max(len(found), 1)
        self._connect_next(now)

    def give_up_address(self, now: float) -> None:
        """Its deadline has come: try the next address."""
        self._error = TimeoutError(f"no answer from {self._address.host}")
        self._connect_next(now)

    def _connect_next(self, now: float) -> None:
        self._drop_socket()
        while self._candidates:
            (family, kind, proto, _, where), *self._candidates = self._candidates
            try:
                self.sock = _Socket(family, kind, proto)
                self.sock.setblocking(False)
                code = self.sock.connect_ex(where)
                if code not in _IN_PROGRESS:
                    raise OSError(code, os.strerror(code))
            except OSError as error:
                self._error = error
                self._drop_socket()
                continue
            self.stage = Stage.CONNECTING
            self.deadline = now + self._share if self._candidates else None
            return
        raise self._error or OSError(f"no addresses for {self._address.host}")

    def advance(self, now: float) -> bool:
        """The socket is ready: go on with connecting. Returns whether that is done."""
        assert self.sock is not None
        if self.stage is Stage.CONNECTING:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._error = OSError(code, os.strerror(code))
                self._connect_next(now)
                return False
            self.deadline = None
            _set_options(self.sock, self._address)
            self._secure()
            self.stage = Stage.HANDSHAKING
        if not self._shake_hands():
            return False
        self.stage = Stage.OPEN
        return True

    def _secure(self) -> None:
        """It is connected: put TLS on the socket."""

    def _shake_hands(self) -> bool:
        """Go on with the handshake. Returns whether it is over."""
        return True

    # Moving bytes. Each of these raises OSError when the connection is lost.

    def read(self) -> bytes | None:
        """Return what has come: None if nothing has yet, nothing if the stream has ended."""
        assert self.sock is not None
        try:
            data = self.sock.recv(self._read_size)
        except self._would_block:
            return None
        self._has_ended = not data
        return data

    @property
    def has_pending(self) -> bool:
        """Whether bytes have come that no selector sees."""
        return False

    def write(self, more: Callable[[], bytes | None], link: Link) -> None:
        """Write as much as the socket takes, from what `more` returns for `link`."""
        assert self.sock is not None
        for _ in range(_WRITES):
            # Behind what was kept back, there may be more than the engine knew of then.
            asked = not self._unsent
            data = self._unsent or more()
            if not data:
                self.is_blocked = False
                return
            try:
                sent = self.sock.send(data)
            except self._would_block:
                self._unsent = memoryview(data)
                break
            self._unsent = memoryview(data)[sent:] if sent < len(data) else _NOTHING
            if asked and not (self._unsent or link.has_more):
                self.is_blocked = False
                return
        self.is_blocked = True

    def unacknowledged(self) -> int | None:
        """Return how many bytes from `more` the peer's system has not acknowledged, if known."""
        if self.sock is None or fcntl is None:
            return None
        size = unacknowledged(self.sock, fcntl, termios)
        return None if size is None else size + len(self._unsent)

    def close(self) -> None:
        """Close it, without a word to the peer."""
        self.stage = Stage.CLOSED
        self.deadline = None
        self._candidates = ()
        self._unsent = _NOTHING
        self._drop_socket()

    def _drop_socket(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None  # Only now: a signal's exception would leave it open.


def _set_options(sock: socket.socket, address: ServerAddress | None) -> None:
    for option in socket_options(address, socket):
        with contextlib.suppress(OSError):  # Not every kind of socket has each.
            sock.setsockopt(*option)


def _resolve(host: str, port: int, resolved: Callable[[list[Any] | OSError], None]) -> None:
    found: list[Any] | OSError
    try:
        found = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as error:
        found = error
    except UnicodeError as error:
        found = OSError(str(error))
    resolved(found)
