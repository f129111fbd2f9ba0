"""The two ends of a connection in a simulated network.

What is written at one end is on its way to the other for a while, in order, perhaps in pieces; so
many bytes at most, the rest waits where it was written. Behind the bytes come marks: the connection
was accepted, has ended in order (EOF), or was reset.

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

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

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


class End:
    """One end of a connection: what its engine writes, and what is on its way to it.

    Attributes:
        node: The node that it is at.
        link: The engine's link; None at a server that has not accepted it yet.
        peer: The other end.
        gone: Whether the engine is told of nothing more: it has closed it, or knows that it ended.
        stalled_until: Until when nothing arrives.
        rest: What was written and has no room yet.
        is_connected: Whether its connection was made.
        has_ended: Whether the other side has said that it sends no more.
        heard_at: When bytes have come last.
        wrote_at: When some were written last.
        arrives_at: When the last of what is under way to it arrives, if nothing keeps that back.
    """

    __slots__ = (
        "_flight",
        "_is_due",
        "_net",
        "_size",
        "arrives_at",
        "gone",
        "has_ended",
        "heard_at",
        "is_connected",
        "link",
        "node",
        "peer",
        "rest",
        "silent",
        "stalled_until",
        "wrote_at",
    )

    peer: End

    def __init__(self, net: Simulation, node: Host, link: Any) -> None:
        self._net = net
        self.node: Host = node
        self.link: Any = link
        self.gone: bool = False
        self.stalled_until: float = 0.0
        self.rest: bytes = b""
        self.silent: bool = False
        self.has_ended: bool = False
        self.is_connected: bool = False
        self.heard_at: float = net.now
        self.wrote_at: float = net.now
        self.arrives_at: float = 0.0
        # When what arrives, the first thing first; and bytes of that.
        self._flight: deque[tuple[float, bytes | str]] = deque()
        self._size = 0
        self._is_due = False

    # Writing.

    @property
    def is_blocked(self) -> bool:
        """Whether the system takes no more."""
        return bool(self.rest)

    def write(self, data: bytes) -> None:
        """Send `data`, as much of it as there is room for; the rest stays in `rest`."""
        peer = self.peer
        self.wrote_at = self._net.now
        room = self._net.faults.capacity - peer._size  # noqa: SLF001 - the other half of this
        if room < len(data):
            self.rest = data[room:]
            data = data[:room]
            if not data:
                return
        peer._size += len(data)  # noqa: SLF001
        if self.silent or peer.gone:
            # Nobody gets it. The system of a node that has closed this, or was started again, says
            # so; that of a node that has vanished says nothing, and what is written piles up.
            if peer.gone and peer.node.is_up:
                self.expect(RESET)
            return
        if self._net.chance() < self._net.faults.cut and len(data) > 1:
            at = 1 + int(self._net.chance() * (len(data) - 1))
            peer.expect(data[:at])
            data = data[at:]
        peer.expect(data)

    def _unblock(self) -> None:
        """There is room again at the other end."""
        data, self.rest = self.rest, b""
        self.write(data)
        if not self.rest and not self.gone:
            self.node.write_more(self)

    # Arriving.

    def expect(self, item: bytes | str) -> None:
        """`item`, bytes or a mark, is on its way to this end."""
        at = self._net.now + self._net.latency()
        at = self.arrives_at = max(at, self.arrives_at)
        self._flight.append((at, item))
        if not self._is_due:
            self._is_due = True
            self._net.schedule(at, self.arrive)

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
            self.heard_at = now
            node.receive(self, item)
            # As systems do, so that no single bytes are asked for.
            if self.peer.rest and self._size <= self._net.faults.capacity // 2:
                self.peer._unblock()  # noqa: SLF001
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
        """The node has closed it, or its system has, when it died."""
        unread = self.leave()
        peer = self.peer
        if not (self.silent or peer.gone):
            if unread:
                peer.lose_some()
            peer.expect(RESET if unread else EOF)

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
            if not end.gone:
                end.lose_some()
                end.expect(mark)

    def fall_silent(self) -> None:
        """Nothing arrives any more. The systems notice it in time, each for itself."""
        for end in (self, self.peer):
            end.silent = True
            end._flight.clear()  # noqa: SLF001
            self._net.schedule(
                self._net.now + self._net.faults.keepalive,
                end._notice,  # noqa: SLF001
            )

    def _notice(self) -> None:
        if not self.gone:
            self.expect(TIMEOUT)
