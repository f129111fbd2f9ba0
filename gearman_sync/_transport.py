"""One non-blocking socket: resolving, connecting, receiving and sending. `_tls` adds TLS.

A Transport goes through its stages without ever blocking:

    RESOLVING -> CONNECTING (a race of addresses) -> HANDSHAKING (with TLS) -> OPEN

A host name is resolved in a separate thread, because `getaddrinfo` blocks. A numeric address needs
no thread. If a name has several addresses, they race (`gearman_proto.engines.racing`). Until one of
them has won, each address that was started has a socket.
"""

from __future__ import annotations

import enum
import errno
import os
import socket
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gearman_proto.engines.driver import READ_SIZE
from gearman_proto.engines.racing import Race
from gearman_proto.handlers import reraise_from_handler
from gearman_proto.keepalive import socket_options, unacknowledged

from ._leader import ignoring
from ._selector import READ, WRITE
from ._threads import start_thread

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

# Bytes that a server reads at a time, so that one peer does not delay the others.
_SHARED_READ_SIZE: Final = 64 * 1024
# Chunks to send before reading again, so that replies don't pile up during a long send.
_WRITES: Final = 4
# Shared: an empty memoryview takes 300 bytes, and most transports of a server have nothing to send.
_NOTHING: Final = memoryview(b"")
_IN_PROGRESS: Final = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)


class Stage(enum.Enum):
    """The stages of a Transport."""

    RESOLVING = enum.auto()
    CONNECTING = enum.auto()
    HANDSHAKING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


# Enum attribute lookup is slow before Python 3.12.
CONNECTING: Final = Stage.CONNECTING
OPEN: Final = Stage.OPEN


class QuietSocket(socket.socket):
    """A socket whose finalizer closes it without a ResourceWarning.

    The driver's finalizer closes its sockets. In a reference cycle (with the traceback of an
    exception, for example), their finalizers may run before the driver's.
    """

    __slots__ = ()

    #: A function in C: a signal handler's exception that hits a finalizer in Python is lost.
    __del__ = socket.SocketType.close


class Transport:
    """A connection that is open or being opened.

    Args:
        address: The server's address.
        timeout: Maximum time for connecting, in seconds.
        last_good: The last working address of each server.
    """

    #: The exceptions of a socket that is not ready to be read or written.
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
        #: The socket of the connection, or None until an address has won the race.
        self.sock: socket.socket | None = None
        #: When to start the next address, or None.
        self.deadline: float | None = None
        self._address = address
        self._timeout = timeout
        self._last_good = last_good
        self._race: Race | None = None
        self._winner: Found | None = None
        # The racing sockets and their addresses.
        self._attempts: dict[socket.socket, Found] | None = None
        self._unsent = _NOTHING
        #: True while the socket's send buffer is full.
        self.is_blocked = False
        # True once the peer has ended its stream. It may still read.
        self._has_ended = False
        self._read_size = READ_SIZE

    def accept(self, sock: socket.socket) -> Self:
        """Use an accepted socket, which is open unless TLS needs a handshake. Return `self`."""
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
        """The selector events to wait for, or 0."""
        if self.stage is CONNECTING:
            return WRITE
        # After the end of its stream, the socket would stay ready to be read.
        interest = 0 if self._has_ended else READ
        return interest | WRITE if self.is_blocked else interest

    # Connecting. Each of these methods raises OSError if no connection is possible any longer.

    def start(self, resolved: Callable[[list[Any] | Exception], None], now: float) -> None:
        """Begin to connect. For a host name, another thread calls `resolved` with the result."""
        host, port = self._address.host, self._address.port
        try:
            # Of bytes, because Python's codec for names wraps a signal handler's exception.
            found = socket.getaddrinfo(
                host.encode(), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
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
        """Start the addresses that are due. Raise the race's error if it is lost."""
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
            reraise_from_handler(error)
            self._race.fail(address, error)
        else:
            if code in _IN_PROGRESS:
                self._attempts[sock] = address
            else:
                self._race.fail(address, _os_error(code))
                sock.close()

    def advance(self, now: float) -> bool:
        """Continue connecting, as a socket is ready. Return True when the connection is open."""
        if self.stage is Stage.CONNECTING:
            if self.sock is None:
                self._end_race()
            elif code := _error_of(self.sock):  # An accepted socket that is lost already.
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
        """Close the failed sockets. If one is connected, use it and close all others."""
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
        """Add TLS to the connected socket."""

    def _shake_hands(self) -> bool:
        """Continue the handshake. Return True when it is done."""
        return True

    # Receiving and sending. Each of these methods raises OSError if the connection is lost.

    def read(self) -> bytes | None:
        """Return received data, None if no data is available, or b"" if the stream has ended."""
        assert self.sock is not None
        try:
            data = self.sock.recv(self._read_size)
        except self._would_block:
            return None
        self._has_ended = not data
        return data

    @property
    def has_pending(self) -> bool:
        """True if received bytes are buffered where no selector sees them."""
        return False

    def write(self, more: Callable[[], bytes | None], link: Link) -> None:
        """Send the data that `more` returns for `link`, as far as the socket accepts it."""
        assert self.sock is not None
        for _ in range(_WRITES):
            # After unsent data, ask the engine again: it may have more data than it had before.
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
        size = None
        with ignoring():
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
            self.sock = None  # Last: otherwise a signal handler's exception could leave it open.

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
    with ignoring():  # The socket is not connected.
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _error_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError as error:
        reraise_from_handler(error)
        return False
    return True


def _set_options(sock: socket.socket, address: ServerAddress | None) -> None:
    for option in socket_options(address, socket):
        with ignoring():  # Some kinds of sockets lack some options.
            sock.setsockopt(*option)


def _resolve(host: str, port: int, resolved: Callable[[list[Any] | Exception], None]) -> None:
    found: list[Any] | Exception
    try:
        found = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001 - an application may replace the resolver
        found = error
    resolved(found)
