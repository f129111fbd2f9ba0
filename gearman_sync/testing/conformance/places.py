"""Places over sockets, which give a kit clocks, connections and a recording."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Final

from gearman_sync.testing.sockets import linger_not

from .exchange import Exchange, Tap
from .program import values_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gearman_proto.testing.conformance.program_kit import Running

    from .program import Launch

# Maximum number of connections that wait for `accept`.
_BACKLOG: Final = 16


class ResettableSocket(socket.socket):
    """A TCP socket without Nagle's algorithm that can be reset.

    Args:
        sock: The connected socket to replace.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(fileno=sock.detach())
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def reset(self) -> None:
        """Close the connection with a RST."""
        linger_not(self)
        self.close()


class SocketPlace:
    """A place with the real clocks and a recording.

    Attributes:
        exchange: The recording.
    """

    def __init__(self) -> None:
        self.exchange: Exchange = Exchange()

    @property
    def now(self) -> float:
        """The monotonic time in seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Return the time in seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Sleep for this number of seconds."""
        time.sleep(seconds)

    def record(self, sock: socket.socket, side: str, sender: str) -> Tap:
        """Return a connection that records its data.

        Args:
            sock: The socket.
            side: The side in the connection's name.
            sender: The side that writes to the socket.
        """
        return Tap(ResettableSocket(sock), self.exchange, self.exchange.name(side), sender)


class SocketServerPlace(SocketPlace):
    """A place that connects to a server.

    Args:
        address: The address of the server.
        timeout: Seconds to wait for a connection.
        restart: Restarts the server. None if the suite has not started it.
    """

    def __init__(
        self,
        address: tuple[str, int],
        timeout: float,
        restart: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self.address: tuple[str, int] = address
        self.restart: Any = restart
        self._timeout = timeout

    def connect(self, side: str) -> Tap:
        """Connect to the server.

        Raises:
            OSError: The server can't be reached.
        """
        return self.record(socket.create_connection(self.address, self._timeout), side, side)


class SocketProgramPlace(SocketPlace):
    """A place that starts a program and listens for its connections.

    Args:
        launch: Starts the program.

    Attributes:
        address: The address of the listening socket.
        told: The address to give to the program. It differs from `address` if a proxy is used.
    """

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self._launch = launch
        self._listener = _listen(0)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.told: tuple[str, int] = self.address

    def start(self, function: str, payloads: Sequence[str]) -> Running:
        """Start the program."""
        values = values_for(self.told, function=function, payload=payloads[0])
        return self._launch(values, payloads)

    def accept(self, seconds: float, side: str) -> Tap:
        """Return the program's next connection.

        Raises:
            TimeoutError: The program has not connected in time.
        """
        self._listener.settimeout(seconds)
        return self.record(self._listener.accept()[0], side, "server")

    def stop_listening(self) -> None:
        """Refuse connections."""
        self._listener.close()

    def listen_again(self) -> None:
        """Listen at the same address again."""
        self._listener = _listen(self.address[1])

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


def _listen(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
