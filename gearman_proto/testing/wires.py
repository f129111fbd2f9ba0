"""The two ends of a connection in a simulated network.

What is written at one end is on its way to the other for a while, in order, perhaps in pieces; so
many bytes at most, the rest waits where it was written. Behind the bytes come marks: the connection
was accepted, has ended in order (EOF), or was reset.

Buffers
    Bytes that a node writes pass through four places. The limits are those of `Faults`.

    1. The writer's driver keeps what its system has no room for: `rest`.
    2. The writer's system keeps `capacity` bytes until the peer's system has acknowledged them. A
       tunnel beside it takes `tunnel` bytes more.
    3. The `Line` carries them, at its rate.
    4. The peer's system acknowledges them, and keeps `receive_buffer` bytes until its node reads.

How a connection can end
    =============  =================================  ============================================
    what           the other end                      bytes that are under way
    =============  =================================  ============================================
    `close`        EOF; a reset, if there was         arrive; some are lost with a reset
                   something that was not read
    `break_off`    a reset or EOF, at both ends       each way, some are lost
    `fall_silent`  nothing, until keepalive notices   are lost, and so is all that follows
    =============  =================================  ============================================
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from .lines import HEALTHY, Line

if TYPE_CHECKING:
    from .simulation import Simulation

#: Marks among the bytes.
ACCEPT: Final = "accept"
EOF: Final = "end of stream"
RESET: Final = "reset"
TIMEOUT: Final = "timeout"


class Host(Protocol):
    """What an End asks of the node that it is at."""

    @property
    def name(self) -> str:
        """What the node is known by."""

    #: Whether it runs, and until when it does nothing.
    is_up: bool
    frozen_until: float
    #: The ends that it has not accepted yet, and those that it reads from later.
    backlog: list[End]
    held: list[End]

    def accept(self, end: End) -> None:
        """A connection has come."""

    def receive(self, end: End, data: bytes) -> None:
        """Bytes have come."""

    def ended(self, end: End, mark: str) -> None:
        """A connection has ended, or the other side sends no more."""

    def write_more(self, end: End) -> None:
        """There is room on a connection again."""

    def was_frozen(self, since: float, until: float) -> bool:
        """Return whether it was stopped at any time from `since` to `until`."""


class End:
    """One end of a connection: what its engine writes, and what is on its way to it.

    Attributes:
        node: The node that it is at.
        link: The engine's link; None at a server that has not accepted it yet.
        peer: The other end.
        line: The link that carries the bytes written here.
        gone: Whether the engine is told of nothing more: it has closed it, or knows that it ended.
        stalled_until: Until when nothing arrives.
        rest: What was written and has no room yet.
        is_connected: Whether its connection was made.
        has_ended: Whether the other side has said that it sends no more.
        made_at: Start of the attempt to connect.
        heard_at: When bytes have come last.
        wrote_at: When some were written last.
        written: How many were.
        moved_at: Time of the last acknowledgement by the peer's system.
        arrives_at: When the last of what is under way to it arrives, if nothing keeps that back.
    """

    __slots__ = (
        "_arrived",
        "_flight",
        "_is_due",
        "_kept",
        "_net",
        "_size",
        "_taken",
        "arrives_at",
        "gone",
        "has_ended",
        "heard_at",
        "is_connected",
        "line",
        "link",
        "made_at",
        "moved_at",
        "node",
        "peer",
        "rest",
        "silent",
        "stalled_until",
        "written",
        "wrote_at",
    )

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
        # What arrives when, the first thing first; and bytes of that.
        self._flight: deque[tuple[float, bytes | str]] = deque()
        self._size = 0
        self._is_due = False
        # Bytes that have arrived and are unread; and how many of them this system has acknowledged.
        self._arrived = 0
        self._kept = 0
        # Bytes in this system's send buffer: the peer's system has not acknowledged them.
        self._taken = 0

    def is_healthy(self) -> bool:
        """Return whether the connection has always been sound and quick, and both nodes read."""
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
        """Whether the system takes no more."""
        return bool(self.rest)

    @property
    def unacknowledged(self) -> int:
        """The bytes that were written and that the peer's system has not acknowledged."""
        return self._taken + len(self.rest)

    def write(self, data: bytes | memoryview) -> None:
        """Send `data`, as much of it as there is room for; the rest stays in `rest`."""
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
        """Drop written bytes. The system of a peer that has closed answers them with a reset."""
        # The system of a node that has vanished says nothing, and the writer's buffer fills up.
        if self.peer.gone and self.peer.node.is_up:
            self.expect(RESET)

    def _unblock(self) -> None:
        """Write more, if there was something left to write and there is room again."""
        if not self.rest:
            return
        if self.node.frozen_until > self._net.now:
            self._net.schedule(self.node.frozen_until, self._unblock)
            return
        faults = self._net.faults
        # As systems do, so that no single bytes are asked for.
        if self._taken > (faults.capacity + faults.tunnel) // 2:
            return
        data, self.rest = self.rest, b""
        self.write(data)
        if not self.rest and not self.gone:
            self.node.write_more(self)

    def _acknowledge(self, arrived: int = 0, read: int = 0) -> None:
        """Count bytes that have arrived, or that the node has read.

        This end's system acknowledges bytes as far as they fit into its buffer, or when they are
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
        """Return whether the peer may send `size` more bytes, at this rate."""
        faults = self._net.faults
        # However small the buffer is, the line is never idle while the node reads.
        window = max(faults.receive_buffer, size + rate * faults.latency[1])
        return rate == math.inf or self._size + size <= window

    def expect(self, item: bytes | str) -> None:
        """`item`, bytes or a mark, is on its way to this end."""
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
        """Hand `size` bytes that have arrived to the system, which buffers them for the node."""
        if self.stalled_until > self._net.now:
            self._net.schedule(self.stalled_until, self._land, size)
        elif not (self.gone or self.silent):
            self._acknowledge(arrived=size)
            self.peer._unblock()  # noqa: SLF001

    def arrive(self) -> None:
        """Take in what has arrived, if its time has come and the node reads."""
        node, now = self.node, self._net.now
        if self.gone or not self._flight:
            self._is_due = False
            return
        later = max(self.stalled_until, node.frozen_until)
        if later > now:
            self._net.schedule(later, self.arrive)
            return
        if self.link is not None and self.link.behind:
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
        else:  # It has ended before it was accepted, or even asked for.
            if self in node.backlog:
                node.backlog.remove(self)
            self.leave()

    # Ending.

    def leave(self) -> bool:
        """Be gone. Returns whether something had come, or was about to, that nobody reads now."""
        unread = any(isinstance(item, bytes) for _, item in self._flight)
        self.gone = True
        self.rest = b""
        self._flight.clear()
        return unread

    def close(self) -> None:
        """The node has closed it, or its system has, when it died.

        The system still sends the bytes that it has buffered, unless the node has left some unread.
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
        """Some of what is under way to this end, from somewhere on, does not arrive."""
        keep = int(self._net.chance() * (len(self._flight) + 1))
        while len(self._flight) > keep:
            at, item = self._flight.pop()
            if len(self._flight) == keep and isinstance(item, bytes) and len(item) > 1:
                # A part of it does.
                self._flight.append((at, item[: 1 + int(self._net.chance() * (len(item) - 1))]))
                return

    def break_off(self, mark: str) -> None:
        """Both ends see `mark`, each in its time, and some of what is under way is lost."""
        for end in (self, self.peer):
            end.silent = True
            end.line.clear()
            if not end.gone:
                end.lose_some()
                end.expect(mark)

    def fall_silent(self) -> None:
        """Nothing arrives any more. The systems notice it in time, each for itself."""
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
