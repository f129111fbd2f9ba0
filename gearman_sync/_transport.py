"""One non-blocking socket: resolving, connecting, and moving bytes; `_tls` has the one with TLS.

A Transport goes through its stages without ever blocking:

    RESOLVING -> CONNECTING (a race of addresses) -> HANDSHAKING (with TLS) -> OPEN

Host names are resolved in a thread of their own, since `getaddrinfo` blocks; numbers are not. When
a name has several addresses, they race (`gearman_proto.engines.racing`): until one of them has
won, each that was started has a socket.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import socket
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gearman_proto.engines.driving import READ_SIZE
from gearman_proto.engines.racing import Race
from gearman_proto.keepalive import socket_options, unacknowledged

from ._selector import READ, WRITE
from ._threads import start_thread
from ._turns import is_from_handler

try:
    import fcntl
    import termios
except ImportError:  # Windows has neither.
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Self

    from gearman_proto.address import ServerAddress
    from gearman_proto.engines.base import Link
    from gearman_proto.engines.racing import Found, LastGood

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


class QuietSocket(socket.socket):
    """A socket whose finalizer closes it without a ResourceWarning.

    The driver's finalizer closes its sockets. In a reference cycle (with the traceback of an
    exception, for example), their finalizers may run before the driver's.
    """

    __slots__ = ()

    def __del__(self) -> None:
        # If the system had no descriptor left, `__init__` has failed: there is nothing to close.
        if self.fileno() >= 0:
            self.close()


class Transport:
    """A connection that is being made, or is there.

    Args:
        address: Where to.
        timeout: Seconds that connecting may take.
        last_good: The addresses of servers that worked last.
    """

    #: What the socket raises where it has nothing, or takes nothing.
    _would_block: ClassVar[tuple[type[OSError], ...]] = (BlockingIOError,)

    __slots__ = (
        "_address",
        "_attempts",
        "_has_ended",
        "_last_good",
        "_race",
        "_read_size",
        "_timeout",
        "_unsent",
        "_winner",
        "deadline",
        "is_blocked",
        "sock",
        "stage",
    )

    def __init__(self, address: ServerAddress, timeout: float, last_good: LastGood) -> None:
        self.stage = Stage.RESOLVING
        #: The socket of the connection. There is none before an address has won the race.
        self.sock: socket.socket | None = None
        #: When to start the next address, or None.
        self.deadline: float | None = None
        self._address = address
        self._timeout = timeout
        self._last_good = last_good
        self._race: Race | None = None
        self._winner: Found | None = None
        # The sockets that race, and their addresses.
        self._attempts: dict[socket.socket, Found] | None = None
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
    def sockets(self) -> Collection[socket.socket]:
        """The open sockets: one, or those of all addresses that race."""
        return self._attempts or (() if self.sock is None else (self.sock,))

    @property
    def interest(self) -> int:
        """The selector events to wait for; 0 if there are none."""
        if self.stage is CONNECTING:
            return WRITE
        # At its end, a stream stays ready to be read.
        interest = 0 if self._has_ended else READ
        return interest | WRITE if self.is_blocked else interest

    # Connecting. Each of these raises OSError when there is no hope left.

    def start(self, resolved: Callable[[list[Any] | Exception], None], now: float) -> None:
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
        """Connect to one of the addresses `found`."""
        self._race = Race(self._address, found, self._timeout, self._last_good)
        self._attempts = {}
        self.stage = Stage.CONNECTING
        self.start_due(now)

    def start_due(self, now: float) -> None:
        """Start the addresses whose turn it is. Raise the race's error if it is lost."""
        assert self._race is not None
        while (address := self._race.take(now)) is not None:
            self._start(address)
        if self._race.is_lost:
            raise self._race.error()
        self.deadline = self._race.next_start

    def _start(self, address: Found) -> None:
        assert self._race is not None
        assert self._attempts is not None
        family, kind, proto, _, where = address
        try:
            sock = QuietSocket(family, kind, proto)
            sock.setblocking(False)
            code = sock.connect_ex(where)
        except OSError as error:
            if is_from_handler(error):
                raise
            self._race.fail(address, error)
        else:
            if code in _IN_PROGRESS:
                self._attempts[sock] = address
            else:
                self._race.fail(address, _os_error(code))
                sock.close()

    def advance(self, now: float) -> bool:
        """Go on with connecting: a socket is ready. Return True when the connection is open."""
        if self.stage is Stage.CONNECTING:
            if self.sock is None:
                self._end_race()
            elif code := _error_of(self.sock):  # An accepted one, which is lost already.
                raise _os_error(code)
            if self.sock is None:
                self.start_due(now)
                return False
            self._secure()
            self.stage = Stage.HANDSHAKING
        if not self._shake_hands():
            return False
        if self._winner is not None:
            assert self._race is not None
            self._race.won(self._winner)
            self._race = self._winner = None
        self.stage = Stage.OPEN
        return True

    def _end_race(self) -> None:
        """Take the first socket that is connected, if there is one, and close all others."""
        assert self._race is not None
        assert self._attempts is not None
        for sock, address in list(self._attempts.items()):
            if code := _error_of(sock):
                del self._attempts[sock]
                sock.close()
                self._race.fail(address, _os_error(code))
            elif _is_connected(sock):
                _set_options(sock, self._address)
                self.sock, self._winner, self.deadline = sock, address, None
                del self._attempts[sock]
                self._close_attempts()
                return

    def _close_attempts(self) -> None:
        while self._attempts:
            sock, _ = self._attempts.popitem()
            sock.close()

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

    def close(self, *, in_child: bool = False) -> None:
        """Close the connection.

        Args:
            in_child: True in the child of a fork, whose parent still uses the connection.
        """
        self._end()
        self._close_attempts()
        if self.sock is not None:
            if in_child:
                self.sock.close()
            else:
                end(self.sock)
            self.sock = None  # Only now: a signal's exception would leave it open.

    def abandon(self) -> None:
        """Drop the sockets without closing them: their numbers belong to other files."""
        self._end()
        for sock in self.sockets:
            sock.detach()
        self._attempts = self.sock = None

    def _end(self) -> None:
        self.stage = Stage.CLOSED
        self.deadline = None
        self._unsent = _NOTHING


def end(sock: socket.socket) -> None:
    """Close a socket, and the connection too if other processes have copies of the descriptor."""
    with contextlib.suppress(OSError):  # The socket is not connected.
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _error_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _set_options(sock: socket.socket, address: ServerAddress | None) -> None:
    for option in socket_options(address, socket):
        with contextlib.suppress(OSError):  # Not every kind of socket has each.
            sock.setsockopt(*option)


def _resolve(host: str, port: int, resolved: Callable[[list[Any] | Exception], None]) -> None:
    found: list[Any] | Exception
    try:
        found = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001 - a resolver's, which may be anybody's
        found = error
    resolved(found)
