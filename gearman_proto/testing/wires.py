"""The two ends of a connection in a simulated network, and the line between them.

Bytes written at one end arrive at the other in order, after the latency, perhaps in pieces. If the
writer's buffer is full, the remaining bytes wait at the writer. Marks are queued among the bytes:
the connection was accepted, was closed in order (EOF), or was reset.

Buffers
    Written bytes pass through four buffers. Their limits are those of `Faults`.

    1. The writer's driver keeps the bytes that its system has no room for: `rest`.
    2. The writer's system keeps `capacity` bytes until the peer's system has acknowledged them. A
       tunnel on its host takes `tunnel` bytes more.
    3. The `Line` carries them, at its rate.
    4. The peer's system acknowledges them, and keeps `receive_buffer` bytes until its node reads.

How a connection can end
    =============  =================================  ============================================
    method         the other end                      bytes in flight
    =============  =================================  ============================================
    `close`        EOF; a reset, if this end had      arrive; some are lost with a reset
                   unread bytes
    `break_off`    a reset or EOF, at both ends       some are lost, in each direction
    `fall_silent`  nothing, until keepalive times     are lost, like all bytes written later
                   out
    =============  =================================  ============================================
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from .simulation import Simulation

#: Minimum bandwidth of a healthy link, in bytes per second. Engines must not give up such a link.
HEALTHY: Final = 20_000
# Target duration of a segment in seconds, and its minimum and maximum size in bytes.
_SECONDS: Final = 0.2
_SMALLEST: Final = 1448
_LARGEST: Final = 65536
#: Marks that are queued among the bytes.
ACCEPT: Final = "accept"
EOF: Final = "end of stream"
RESET: Final = "reset"
TIMEOUT: Final = "timeout"


class Host(Protocol):
    """The interface that an End needs from its node."""

    @property
    def name(self) -> str:
        """The node's name."""

    #: True if the node is running.
    is_up: bool
    #: End of the node's last freeze.
    frozen_until: float
    #: The ends that the node has not accepted yet.
    backlog: list[End]
    #: The ends that wait until the engine has processed its backlog.
    held: list[End]

    def accept(self, end: End) -> None:
        """Accept the new connection of `end`."""

    def receive(self, end: End, data: bytes) -> None:
        """Process received bytes."""

    def ended(self, end: End, mark: str) -> None:
        """Process a lost or half-closed connection."""

    def write_more(self, end: End) -> None:
        """Write more bytes, as the connection has room again."""

    def was_frozen(self, since: float, until: float) -> bool:
        """Return whether the node was frozen at any time from `since` to `until`."""


class End:
    """One end of a connection: its outgoing bytes, and the bytes in flight to it.

    Attributes:
        node: The node at this end.
        link: The engine's link; None until a server has accepted the connection.
        peer: The other end.
        line: The line that carries the bytes written here.
        gone: True if the engine has closed the link or knows that it was lost. The
            engine gets no further events then.
        stalled_until: Time before which nothing arrives.
        rest: Bytes that were written but do not fit into the buffer yet.
        is_connected: True once the connection was made.
        has_ended: True once the peer has half-closed the connection.
        made_at: Start of the attempt to connect.
        heard_at: Time at which the last bytes were received.
        wrote_at: Time of the last write.
        written: The number of bytes written.
        moved_at: Time of the last acknowledgement by the peer's system.
        arrives_at: Arrival time of the last item in flight to this end, unless it is delayed.
    """

    peer: End

    def __init__(self, net: Simulation, node: Host, link: Any) -> None:
        self._net = net
        self.node: Host = node
        self.link: Any = link
        self.line: Line = Line(net, self)
        self.gone: bool = False
        self.stalled_until: float = 0.0
        self.rest: bytes | memoryview = b""
        self.silent: bool = False
        self.has_ended: bool = False
        self.is_connected: bool = False
        self.made_at: float = net.now
        self.heard_at: float = net.now
        self.wrote_at: float = net.now
        self.written: int = 0
        self.moved_at: float = net.now
        self.arrives_at: float = 0.0
        # Items in flight with their arrival times, in order.
        self._flight: deque[tuple[float, bytes | str]] = deque()
        # The number of bytes in flight.
        self._size = 0
        self._is_due = False
        # The number of unread bytes that have arrived.
        self._arrived = 0
        # The number of these that this system has acknowledged.
        self._kept = 0
        # The number of bytes in the send buffer. The peer's system has not acknowledged them.
        self._taken = 0

    def is_healthy(self) -> bool:
        """Return whether no fault has hit the connection, it is fast, and both nodes read."""
        now, peer = self._net.now, self.peer
        return self.is_connected and all(
            not (end.silent or end.has_ended)
            and end.stalled_until <= end.made_at
            and end.line.bandwidth >= HEALTHY
            and end.node.is_up
            and not end.node.was_frozen(self.made_at, now)
            for end in (self, peer)
        )

    # Writing.

    @property
    def is_blocked(self) -> bool:
        """True if the send buffer is full."""
        return bool(self.rest)

    @property
    def unacknowledged(self) -> int:
        """The number of bytes that were written and that the peer's system has not acknowledged."""
        return self._taken + len(self.rest)

    def write(self, data: bytes | memoryview) -> None:
        """Send as many bytes of `data` as the buffer has room for; keep the others in `rest`."""
        peer, net = self.peer, self._net
        self.wrote_at = net.now
        room = net.faults.capacity + net.faults.tunnel - self._taken
        if room < len(data):
            view = memoryview(data)
            self.rest = view[room:]
            data = view[:room]
            if not data:
                return
        self._taken += len(data)
        self.written += len(data)
        data = bytes(data)
        if self.silent or peer.gone:
            self.refused()
            return
        if not self.line.is_clear:
            self.line.send(data)
            return
        if net.chance() < net.faults.cut and len(data) > 1:
            at = 1 + int(net.chance() * (len(data) - 1))
            peer.expect(data[:at])
            data = data[at:]
        peer.expect(data)

    def refused(self) -> None:
        """Drop written bytes. The system of a peer that has closed replies to them with a reset."""
        # The system of a vanished node does not reply, so the writer's buffer fills up.
        if self.peer.gone and self.peer.node.is_up:
            self.expect(RESET)

    def _unblock(self) -> None:
        """Write the bytes in `rest`, if there is room for them again."""
        if not self.rest:
            return
        if self.node.frozen_until > self._net.now:
            self._net.schedule(self.node.frozen_until, self._unblock)
            return
        faults = self._net.faults
        # Real systems wait for a half-empty buffer, too, and so avoid tiny writes.
        if self._taken > (faults.capacity + faults.tunnel) // 2:
            return
        data, self.rest = self.rest, b""
        self.write(data)
        if not self.rest and not self.gone:
            self.node.write_more(self)

    def _acknowledge(self, arrived: int = 0, read: int = 0) -> None:
        """Count bytes that have arrived, or that the node has read.

        This end's system acknowledges bytes when they fit into its buffer, or else when they are
        read.
        """
        self._arrived += arrived - read
        before, self._kept = self._kept, max(min(self._arrived, self._net.faults.receive_buffer), 0)
        acknowledged = read + self._kept - before
        if acknowledged:
            self.peer._taken -= acknowledged  # noqa: SLF001 - the other half of this
            self.peer.moved_at = self._net.now

    # Arriving.

    def has_window(self, size: int, rate: float) -> bool:
        """Return whether the peer can send `size` more bytes at this rate."""
        faults = self._net.faults
        # Even with a small buffer, the line is never idle while the node reads.
        window = max(faults.receive_buffer, size + rate * faults.latency[1])
        return rate == math.inf or self._size + size <= window

    def expect(self, item: bytes | str) -> None:
        """Put `item`, bytes or a mark, in flight to this end."""
        at = self._net.now + self._net.latency()
        at = self.arrives_at = max(at, self.arrives_at)
        self._flight.append((at, item))
        if isinstance(item, bytes):
            self._size += len(item)
            if self._net.faults.receive_buffer:
                self._net.schedule(at, self._land, len(item))
        if not self._is_due:
            self._is_due = True
            self._net.schedule(at, self.arrive)

    def _land(self, size: int) -> None:
        """Pass `size` bytes that have arrived to the system, which buffers them for the node."""
        if self.stalled_until > self._net.now:
            self._net.schedule(self.stalled_until, self._land, size)
        elif not (self.gone or self.silent):
            self._acknowledge(arrived=size)
            self.peer._unblock()  # noqa: SLF001

    def arrive(self) -> None:
        """Deliver the next item in flight, if its time has passed and the node reads."""
        node, now = self.node, self._net.now
        if self.gone or not self._flight:
            self._is_due = False
            return
        later = max(self.stalled_until, node.frozen_until)
        if later > now:
            self._net.schedule(later, self.arrive)
            return
        if self.link is not None and self.link.has_backlog:
            node.held.append(self)
            return
        _, item = self._flight.popleft()
        if self._flight:
            self._net.schedule(max(self._flight[0][0], now), self.arrive)
        else:
            self._is_due = False
        if isinstance(item, bytes):
            self._size -= len(item)
            self._acknowledge(read=len(item))
            self.heard_at = now
            node.receive(self, item)
            self.peer._unblock()  # noqa: SLF001
            self.peer.line.send_next()
        elif item is ACCEPT:
            node.accept(self)
        elif self.link is not None:
            self.has_ended = True
            node.ended(self, item)
        else:  # The connection has ended before it was accepted, or even requested.
            if self in node.backlog:
                node.backlog.remove(self)
            self.leave()

    # Ending.

    def leave(self) -> bool:
        """Detach from the engine. Return whether unread bytes had arrived or were in flight."""
        unread = any(isinstance(item, bytes) for _, item in self._flight)
        self.gone = True
        self.rest = b""
        self._flight.clear()
        return unread

    def close(self) -> None:
        """Close the connection, for the node or, after its death, for its system.

        The system still sends the bytes in its buffer, unless the node has left received bytes
        unread.
        """
        unread = self.leave()
        peer = self.peer
        if not (self.silent or peer.gone):
            if unread:
                self.line.clear()
                peer.lose_some()
                peer.expect(RESET)
            else:
                self.line.send(EOF)

    def lose_some(self) -> None:
        """Drop the items in flight to this end from a random position on."""
        keep = int(self._net.chance() * (len(self._flight) + 1))
        while len(self._flight) > keep:
            at, item = self._flight.pop()
            if len(self._flight) == keep and isinstance(item, bytes) and len(item) > 1:
                # A part of the first lost item arrives.
                self._flight.append((at, item[: 1 + int(self._net.chance() * (len(item) - 1))]))
                return

    def break_off(self, mark: str) -> None:
        """Deliver `mark` to both ends after the latency, and lose some of the bytes in flight."""
        for end in (self, self.peer):
            end.silent = True
            end.line.clear()
            if not end.gone:
                end.lose_some()
                end.expect(mark)

    def fall_silent(self) -> None:
        """Stop all delivery. Each system detects the dead connection later, by keepalive."""
        for end in (self, self.peer):
            end.silent = True
            end.line.clear()
            end._flight.clear()  # noqa: SLF001
            self._net.schedule(
                self._net.now + self._net.faults.keepalive,
                end._notice,  # noqa: SLF001
            )

    def _notice(self) -> None:
        if not self.gone:
            self.expect(TIMEOUT)


class Line:
    """One direction of a connection, with a limited rate.

    Bytes that the sender's system has accepted wait in a queue. The line carries them one segment
    after the other, each in ``size / rate`` seconds. Like TCP, it pauses while the receiver's
    buffer is full or the connection is stalled. A mark follows the bytes that were queued before.

    Args:
        net: The network.
        end: The end that sends.

    Attributes:
        bandwidth: Bytes per second, infinite without a limit.
        throttled_until: End of the last `throttle` fault, in seconds of virtual time.
    """

    def __init__(self, net: Simulation, end: End) -> None:
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
