"""The link from one end of a simulated connection to the other, with a limited rate.

Bytes that the sender's system has accepted wait in a queue. The line carries them one segment after
the other, each in ``size / rate`` seconds. Like TCP, it pauses while the receiver's buffer is full
or the connection is stalled. A mark (see `wires`) follows the bytes that were queued before it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from .simulation import Simulation

#: Minimum bandwidth of a healthy link, in bytes per second. Engines must not give up such a link.
HEALTHY: Final = 20_000
# Target duration of a segment in seconds, and its minimum and maximum size in bytes.
_SECONDS: Final = 0.2
_SMALLEST: Final = 1448
_LARGEST: Final = 65536


class Receiver(Protocol):
    """The interface of the receiving end of a line."""

    gone: bool
    stalled_until: float

    def has_window(self, size: int, rate: float) -> bool:
        """Return whether its system has room for `size` more bytes."""

    def expect(self, item: bytes | str) -> None:
        """Receive `item`, bytes or a mark, after the latency."""


class Sender(Protocol):
    """The interface of the sending end of a line."""

    silent: bool

    @property
    def peer(self) -> Receiver:
        """The other end."""

    def refused(self) -> None:
        """Learn that bytes were not delivered."""


class Line:
    """One direction of a connection.

    Args:
        net: The network.
        end: The end that sends.

    Attributes:
        bandwidth: Bytes per second, infinite without a limit.
        throttled_until: End of the last `throttle` fault, in seconds of virtual time.
    """

    __slots__ = ("_end", "_is_sending", "_net", "_queue", "bandwidth", "throttled_until")

    def __init__(self, net: Simulation, end: Sender) -> None:
        self._net = net
        self._end = end
        self.bandwidth: float = net.bandwidth()
        self.throttled_until: float = 0.0
        # The unsent part of the sender's buffer, and marks.
        self._queue: deque[memoryview | str] = deque()
        self._is_sending = False

    @property
    def rate(self) -> float:
        """The current rate in bytes per second."""
        is_throttled = self.throttled_until > self._net.now
        return min(HEALTHY, self.bandwidth) if is_throttled else self.bandwidth

    @property
    def is_clear(self) -> bool:
        """True if bytes reach the peer without waiting for the line."""
        return not (self._queue or self._is_sending) and self.rate == math.inf

    def send(self, item: bytes | str) -> None:
        """Queue `item`, bytes or a mark."""
        self._queue.append(item if isinstance(item, str) else memoryview(item))
        self.send_next()

    def send_next(self) -> None:
        """Send the next segment, if the line is free and the peer has room for it."""
        net, peer, queue = self._net, self._end.peer, self._queue
        while queue and not self._is_sending:
            item = queue[0]
            if isinstance(item, str):
                queue.popleft()
                peer.expect(item)
                continue
            rate = self.rate
            size = min(len(item), int(max(_SMALLEST, min(rate * _SECONDS, _LARGEST))))
            if not peer.has_window(size, rate):
                return  # The peer calls send_next again when its node reads.
            queue[0] = item[size:]
            if size == len(item):
                queue.popleft()
            self._is_sending = True
            begun = max(net.now, peer.stalled_until)
            net.schedule(begun + size / rate, self._sent, bytes(item[:size]))

    def _sent(self, segment: bytes) -> None:
        end, peer = self._end, self._end.peer
        self._is_sending = False
        if end.silent or peer.gone:
            self._queue.clear()
            end.refused()
        else:
            peer.expect(segment)
            self.send_next()

    def clear(self) -> None:
        """Drop the bytes and marks that were not sent yet."""
        self._queue.clear()
