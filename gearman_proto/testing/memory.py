"""One engine in virtual time, and the other ends of its connections in memory.

`World` drives the engine, as an adapter would. A test holds the other ends, each a `MemoryStream`
that a `Peer` can use like a socket. Time passes only while a test waits in `recv`: the world then
runs the engine's deadlines until data arrives.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.engines.base import Close, Connect

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds that each `recv` takes at least. So a loop of questions and answers passes its deadline.
_LATENCY: Final = 0.001
# Bytes that a connection buffers for a test that does not read.
_CAPACITY: Final = 1 << 20


class MemoryStream:
    """The test's end of a connection to an engine, with the methods of a socket.

    Args:
        world: The world of the engine.
        link: The engine's link.
    """

    def __init__(self, world: World, link: Any) -> None:
        self.link: Any = link
        self._world = world
        # Items that the engine has not processed: data, None for the end of the stream, or the
        # error that has ended the connection.
        self._sent: deque[bytes | Exception | None] = deque()
        self._received = bytearray()
        self._timeout: float | None = None
        # True once this end has closed, and once the engine has.
        self._is_closed = False
        self._is_finished = False

    # The methods of a socket.

    def recv(self, size: int) -> bytes:
        """Return data from the engine, and let time pass until it has sent some.

        Raises:
            TimeoutError: It has sent none in time.
        """
        world = self._world
        timeout = math.inf if self._timeout is None else self._timeout
        deadline = world.now + timeout
        world.sleep(_LATENCY)
        while not (self._received or self._is_finished):
            if not world.step(deadline):
                raise TimeoutError("timed out")
        data = bytes(self._received[:size])
        del self._received[:size]
        world.pump()
        return data

    def sendall(self, data: bytes) -> None:
        """Send `data` to the engine. Drop it if the engine has closed the connection."""
        self._put(data)

    def send(self, data: bytes) -> int:
        """Send `data` to the engine.

        Raises:
            BlockingIOError: The engine does not read at the moment.
        """
        if self._sent:
            raise BlockingIOError("the engine does not read")
        self._put(data)
        return len(data)

    def settimeout(self, seconds: float | None) -> None:
        """Set the seconds of virtual time after which `recv` raises TimeoutError."""
        self._timeout = seconds

    def gettimeout(self) -> float | None:
        """Return these seconds."""
        return self._timeout

    def shutdown(self, _how: int) -> None:
        """Half-close the connection."""
        self._put(None)

    def close(self) -> None:
        """Close the connection. As TCP does, reset it if received data is unread."""
        if not self._is_closed:
            self._is_closed = True
            self._put(ConnectionResetError("reset") if self._received else None)

    def reset(self) -> None:
        """Close the connection with a reset."""
        self._is_closed = True
        self._put(ConnectionResetError("reset"))

    def _put(self, item: bytes | Exception | None) -> None:
        if not self._is_finished:
            self._sent.append(item)
            self._world.pump()

    def _end(self) -> None:
        """End the connection, because the engine has closed it."""
        self._is_finished = True
        self._sent.clear()


class World:
    """An engine, its clock, and its connections.

    Args:
        make: Makes the engine. Called with a function that returns the wall clock's time.

    Attributes:
        engine: The engine.
        now: The virtual time, in seconds.
    """

    #: The wall clock's time at the virtual time 0, in seconds since 1970.
    epoch: float = 1_700_000_000.0

    def __init__(self, make: Callable[[Callable[[], float]], Any]) -> None:
        self.now: float = 0.0
        self._make = make
        self._streams: dict[Any, MemoryStream] = {}
        # The connections that the engine has made and `accept` has not returned.
        self._arrivals: deque[MemoryStream] = deque()
        self._is_listening = True
        self.engine: Any = make(self.wall)
        self._count = 0

    def wall(self) -> float:
        """Return the wall clock's time, in seconds since 1970."""
        return self.epoch + self.now

    def connect(self, _side: str = "", /) -> MemoryStream:
        """Connect to the engine, which is a server's, and return the other end."""
        self._count += 1
        stream = self._add(self.engine.accept("127.0.0.1", self._count, self.now))
        self.pump()
        return stream

    def accept(self, seconds: float, _side: str = "", /) -> MemoryStream:
        """Return the engine's next connection.

        Args:
            seconds: Seconds to wait for it.

        Raises:
            TimeoutError: The engine makes none in time.
        """
        deadline = self.now + seconds
        while not self._arrivals:
            if not self.step(deadline):
                raise TimeoutError("timed out")
        return self._arrivals.popleft()

    def stop_listening(self) -> None:
        """Refuse connections of the engine."""
        self._is_listening = False

    def listen_again(self) -> None:
        """Accept connections of the engine again."""
        self._is_listening = True

    def restart(self) -> None:
        """Replace the engine by a new one, as if its process was killed and started again."""
        for stream in self._streams.values():
            stream._end()
        self._streams.clear()
        self.engine = self._make(self.wall)

    def close(self) -> None:
        """End the engine."""
        self.engine.close(self.now)
        self.pump()

    def _add(self, link: Any) -> MemoryStream:
        stream = self._streams[link] = MemoryStream(self, link)
        return stream

    # Time.

    def step(self, until: float) -> bool:
        """Advance the clock to the engine's next deadline, but not beyond `until`.

        Returns:
            True if the engine had a deadline by then.
        """
        deadline = self.engine.next_deadline()
        if deadline is None or deadline > until:
            self.now = max(self.now, until)
            return False
        self.now = max(self.now, deadline)
        self.engine.handle_timeout(self.now)
        self.pump()
        return True

    def sleep(self, seconds: float) -> None:
        """Advance the clock by so many seconds."""
        until = self.now + seconds
        while self.step(until):
            pass

    # Driving the engine.

    def pump(self) -> None:
        """Carry out the engine's actions, and move data, until nothing is left to do."""
        is_busy = True
        while is_busy:
            is_busy = False
            for link in list(self._streams):
                self._write(link)
            while (action := self.engine.next_action()) is not None:
                self._act(action)
                is_busy = True
            for stream in list(self._streams.values()):
                if stream._sent and not stream.link.has_backlog:
                    self._feed(stream.link, stream._sent.popleft())
                    is_busy = True

    def _write(self, link: Any) -> None:
        stream = self._streams[link]
        while len(stream._received) < _CAPACITY:
            data = self.engine.data_to_send(link, self.now)
            if not data:
                return
            if not stream._is_closed:
                stream._received += data

    def _act(self, action: Any) -> None:
        if isinstance(action, Close):
            self._streams.pop(action.link)._end()
        elif isinstance(action, Connect):
            if self._is_listening:
                self._arrivals.append(self._add(action.link))
                self.engine.connected(action.link, self.now)
            else:
                error = ConnectionRefusedError("refused")
                self.engine.connect_failed(action.link, error, self.now)

    def _feed(self, link: Any, item: bytes | Exception | None) -> None:
        if isinstance(item, bytes):
            self.engine.receive_data(link, item, self.now)
        elif item is None:
            self.engine.receive_eof(link, self.now)
        else:
            self._streams.pop(link)._end()
            self.engine.connection_lost(link, item, self.now)
