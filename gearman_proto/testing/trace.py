"""The steps of a simulated network as text, and a digest for the comparison of two runs.

Every step is added to the digest. The text is kept only for the last steps, and is formatted on
demand: a run has very many steps, and the text of nearly all runs is never read.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from typing import Final

from .units import decode

# Maximum number of lines to keep.
_KEPT: Final = 60
_STAMP: Final = struct.Struct("<dI").pack


class Trace:
    """The steps of one run."""

    def __init__(self) -> None:
        self._lines: deque[tuple[float, str, str, str | bytes]] = deque(maxlen=_KEPT)
        self._hash = hashlib.blake2b(digest_size=16)
        self._update = self._hash.update
        self._append = self._lines.append

    def add(self, now: float, who: str, what: str, detail: str | bytes = "") -> None:
        """Record a step.

        Args:
            now: The virtual time, in seconds.
            who: The node.
            what: The action of the node, or the event that has reached it.
            detail: More about the step. Bytes are shown as the packets that they encode.
        """
        self._append((now, who, what, detail))
        data = detail if type(detail) is bytes else str(detail).encode("utf-8", "backslashreplace")
        self._update(_STAMP(now, len(data)) + f"{who} {what} ".encode() + data)

    @property
    def digest(self) -> str:
        """The digest of all steps, in hexadecimal. Equal runs have equal digests."""
        return self._hash.hexdigest()

    def lines(self) -> list[str]:
        """Return the last steps, one line each: the time in seconds, the node, and the step."""
        return [
            f"{now:12.6f}  {who:<10} {what} "
            + (decode(detail) if isinstance(detail, bytes) else detail)
            for now, who, what, detail in self._lines
        ]
