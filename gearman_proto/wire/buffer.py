"""What a connection has received and not yet parsed.

Two pieces. `data[start:]` is contiguous and is what gets parsed; parsing a packet moves `start`
and deletes nothing. What arrives while `data` still holds bytes goes to the tail, and both are
joined only when the piece that is wanted is complete. So a chunk that holds whole packets is never
copied, a byte is joined once for each packet it waited for, and an endless trickle of single bytes
costs the same.
"""

from __future__ import annotations


class ReceiveBuffer:
    """Bytes in, contiguous pieces out."""

    __slots__ = ("_scanned", "_tail", "data", "start")

    def __init__(self) -> None:
        self.data: bytes = b""
        self.start: int = 0
        # A bytearray, unless it is empty.
        self._tail: bytes | bytearray = b""
        # How many of the unparsed bytes are known to hold no line feed.
        self._scanned = 0

    def __len__(self) -> int:
        return len(self.data) - self.start + len(self._tail)

    def feed(self, data: bytes) -> None:
        """Append `data`."""
        if self.start == len(self.data) and not self._tail:
            self.data = bytes(data)
            self.start = 0
        elif self._tail:
            self._tail += data
        else:
            self._tail = bytearray(data)

    def has(self, size: int) -> bool:
        """Whether `size` bytes are there. If so, they are in one piece at `data[start:]`."""
        held = len(self.data) - self.start
        if held >= size:
            return True
        if held + len(self._tail) < size:
            return False
        self.data = self.data[self.start :] + self._tail
        self.start = 0
        self._tail = b""
        return True

    def line_size(self) -> int:
        """The size of the first line with its line feed, or 0 while it is incomplete."""
        held = len(self.data) - self.start
        if self._scanned < held:
            at = self.data.find(b"\n", self.start + self._scanned)
            if at >= 0:
                return at - self.start + 1
            self._scanned = held
        at = self._tail.find(b"\n", self._scanned - held)
        if at >= 0:
            return held + at + 1
        self._scanned = held + len(self._tail)
        return 0

    def take(self, size: int) -> bytes:
        """Remove and return the first `size` bytes, which `has` said are there."""
        end = self.start + size
        piece = self.data[self.start : end]
        self.start = end
        self._scanned = 0
        return piece

    def shrink(self) -> None:
        """Let go of what has been parsed: there may be no more data for long."""
        if self.start:
            self.data = self.data[self.start :]
            self.start = 0

    def clear(self) -> None:
        """Drop everything."""
        self.data = b""
        self.start = 0
        self._tail = b""
        self._scanned = 0
