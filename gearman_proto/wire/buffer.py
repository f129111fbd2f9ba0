"""The received bytes of a connection that are not yet parsed.

The buffer has two pieces. The parser reads `data[start:]`, which is contiguous. Parsing a packet
moves `start` and deletes nothing. While `data` contains unparsed bytes, the buffer appends new ones
to the tail, and joins the two pieces only if the next packet is complete. A chunk of whole packets
is therefore never copied. Other bytes are copied once for each packet that they wait for, even if
they arrive one by one.

A large payload is a third piece. The buffer collects it in a separate object, which grows with the
received bytes, and returns it without another copy. Meanwhile `data` is empty, and the tail
receives the bytes that follow the payload.
"""

from __future__ import annotations

import io


class ReceiveBuffer:
    """A buffer that returns received bytes in contiguous pieces."""

    __slots__ = ("_apart", "_front", "_missing", "_scanned", "_tail", "data", "start")

    def __init__(self) -> None:
        self.data: bytes = b""
        self.start: int = 0
        # A bytearray unless it is empty.
        self._tail: bytes | bytearray = b""
        # The number of bytes that `line_size` has already searched.
        self._scanned = 0
        # The payload that the buffer collects, the number of its missing bytes, and the size of the
        # dropped bytes before it, for `len`.
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
        """Return True if the buffer has `size` bytes, and make them contiguous at `data[start:]`.

        While the buffer collects a payload, return False unless `size` is 0.
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
        """Return the size of the first line with its line feed, or 0 if it is incomplete."""
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
        """Remove and return the first `size` bytes. `has(size)` must have returned True."""
        end = self.start + size
        piece = self.data[self.start : end]
        self.start = end
        self._scanned = 0
        return piece

    def collect(self, front: int, size: int) -> None:
        """Start to collect a payload.

        Args:
            front: The number of bytes before the payload. They must be in `data`. The buffer drops
                them.
            size: The size of the payload in bytes, including bytes that have not yet arrived.
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
        """The collected payload, or None while it is incomplete. This makes no copy."""
        return self._apart.getvalue() if self._apart is not None and not self._missing else None

    def end_collecting(self) -> None:
        """Continue with the bytes that follow the collected payload."""
        self._apart = None

    def is_spent(self) -> bool:
        """Return True if the buffer is empty, and release the memory of parsed bytes if it is."""
        if self.start < len(self.data) or self._tail or self._apart is not None:
            return False
        self.data = b""
        self.start = 0
        return True

    def shrink(self) -> bool:
        """Release the memory of parsed bytes, because the next data might arrive much later.

        Returns:
            True if the buffer is empty, apart from a collected payload.
        """
        if self.start:
            self.data = self.data[self.start :]
            self.start = 0
        return not self.data and not self._tail

    def clear(self) -> None:
        """Remove all bytes."""
        self.data = b""
        self.start = 0
        self._tail = b""
        self._scanned = 0
        self._apart = None
