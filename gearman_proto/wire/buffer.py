"""What a connection has received and not yet parsed.

Two pieces. `data[start:]` is contiguous and is what gets parsed; parsing a packet moves `start`
and deletes nothing. What arrives while `data` still holds bytes goes to the tail, and both are
joined only when the piece that is wanted is complete. So a chunk that holds whole packets is never
copied, a byte is joined once for each packet it waited for, and an endless trickle of single bytes
costs the same.

A large payload is a third piece, once it is known where it begins: it is collected apart, in memory
that grows with what has come, and is handed out as it is. `data` is empty meanwhile, and the tail
has what comes behind it.
"""

from __future__ import annotations

import io


class ReceiveBuffer:
    """Bytes in, contiguous pieces out."""

    __slots__ = ("_apart", "_front", "_missing", "_scanned", "_tail", "data", "start")

    def __init__(self) -> None:
        self.data: bytes = b""
        self.start: int = 0
        # A bytearray, unless it is empty.
        self._tail: bytes | bytearray = b""
        # How many of the unparsed bytes are known to hold no line feed.
        self._scanned = 0
        # What is collected apart, if anything; how many bytes of it are still to come; and how many
        # came before it that belong to it.
        self._apart: io.BytesIO | None = None
        self._missing = 0
        self._front = 0

    def __len__(self) -> int:
        apart = 0 if self._apart is None else self._front + self._apart.tell()
        return apart + len(self.data) - self.start + len(self._tail)

    def feed(self, data: bytes) -> None:
        """Append `data`."""
        if self._apart is not None:
            self._feed_apart(data)
        elif self.start == len(self.data) and not self._tail:
            self.data = bytes(data)
            self.start = 0
        else:
            self._feed_tail(data)

    def _feed_tail(self, data: bytes | memoryview) -> None:
        if self._tail:
            self._tail += data
        else:
            self._tail = bytearray(data)

    def _feed_apart(self, data: bytes | bytearray | memoryview) -> None:
        assert self._apart is not None
        with memoryview(data) as view:
            taken = self._apart.write(view[: self._missing])
            self._missing -= taken
            if taken < len(view):
                self._feed_tail(view[taken:])

    def has(self, size: int) -> bool:
        """Whether `size` bytes are there. If so, they are in one piece at `data[start:]`.

        Never, if there are none in `data`, while something is collected apart.
        """
        held = len(self.data) - self.start
        if held >= size:
            return True
        if held + len(self._tail) < size or self._apart is not None:
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

    def collect(self, front: int, size: int) -> None:
        """Collect apart the `size` bytes that come behind the first `front`.

        Those first ones, which are in `data`, are dropped; of the others some are still to come.
        """
        data, begin, tail = self.data, self.start + front, self._tail
        self.clear()
        self._apart = io.BytesIO()
        self._missing = size
        self._front = front
        with memoryview(data) as view:
            self._feed_apart(view[begin:])
        self._feed_apart(tail)

    @property
    def collected(self) -> bytes | None:
        """What is collected apart, once it is complete, in the memory that it was collected in."""
        return self._apart.getvalue() if self._apart is not None and not self._missing else None

    def end_collecting(self) -> None:
        """Go on with what comes behind what was collected apart."""
        self._apart = None

    def is_spent(self) -> bool:
        """Whether nothing is left. What has been parsed is let go of then, as by `shrink`."""
        if self.start < len(self.data) or self._tail or self._apart is not None:
            return False
        self.data = b""
        self.start = 0
        return True

    def shrink(self) -> bool:
        """Let go of what has been parsed: there may be no more data for long.

        Returns:
            Whether nothing is left, unless something is collected apart.
        """
        if self.start:
            self.data = self.data[self.start :]
            self.start = 0
        return not self.data and not self._tail

    def clear(self) -> None:
        """Drop everything."""
        self.data = b""
        self.start = 0
        self._tail = b""
        self._scanned = 0
        self._apart = None
