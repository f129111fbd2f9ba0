"""The steps of a simulated network as text, and a digest for the comparison of two runs.

Every step is added to the digest. The text is kept only for the last steps, and is formatted on
demand: a run has very many steps, and the text of nearly all runs is never read.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from typing import Final

from gearman_proto.wire.packets import BY_NUMBER, HEADER, HEADER_SIZE, MAGIC_REQUEST, MAGIC_RESPONSE

_STAMP: Final = struct.Struct("<dI").pack
# Maximum number of characters shown of a packet's arguments.
_SHOWN: Final = 60


class Trace:
    """The steps of one run.

    Args:
        keep: Maximum number of lines to keep.
    """

    def __init__(self, keep: int = 60) -> None:
        self._lines: deque[tuple[float, str, str, str | bytes]] = deque(maxlen=keep)
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
            + (describe(detail) if isinstance(detail, bytes) else detail)
            for now, who, what, detail in self._lines
        ]


def describe(data: bytes) -> str:
    """Return the names of the packets that begin in `data`, a part of a stream.

    Args:
        data: Any bytes. They can begin and end in the middle of a packet.
    """
    words = []
    at = 0
    while at < len(data):
        if not data.startswith((MAGIC_REQUEST, MAGIC_RESPONSE), at):
            places = (data.find(magic, at) for magic in (MAGIC_REQUEST, MAGIC_RESPONSE))
            end = min((place for place in places if place > 0), default=len(data))
            words.append(f"…{data[at:end]!r:.{_SHOWN}}")
            at = end
            continue
        if len(data) - at < HEADER_SIZE:
            words.append("a part of a header")
            break
        _, number, size = HEADER.unpack_from(data, at)
        body = data[at + HEADER_SIZE : at + HEADER_SIZE + size]
        packet = BY_NUMBER.get(number)
        name = packet.name if packet is not None else f"packet {number}"
        torn = "…" if len(body) < size else ""
        words.append(f"{name}({body!r:.{_SHOWN}}{torn})")
        at += HEADER_SIZE + size
    return " ".join(words)
