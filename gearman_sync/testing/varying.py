"""What is different each time that an exchange takes place, and so is no difference.

A server gives out handles as it likes, clients choose uniques, file descriptors and times are as
they happen to be, and some lists have no order. Here a recorded packet or reply becomes what it
has to be this time.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.packing import pack
from gearman_proto.wire.packets import HEADER_SIZE

from .recording import packet_of

if TYPE_CHECKING:
    from collections.abc import Callable

# How a line of ``workers`` begins: with the number of a socket.
_SOCKET: Final = re.compile(rb"^-?\d+ (?=[0-9a-fA-F.:]+ )")
# The answers to ``version`` and ``getpid``.
_OWN: Final = re.compile(rb"^OK \S+(?=\r?\n$)")


class Varying:
    """What has been seen of one exchange.

    Args:
        epoch_base: The second that the recorded times of jobs for later are counted from. None:
            they stay as they are.
    """

    def __init__(self, epoch_base: int | None) -> None:
        #: What each recorded handle is this time.
        self.handles: dict[bytes, bytes] = {}
        self._recorded_base = epoch_base
        self._base: int | None = None

    def request(self, unit: bytes) -> bytes:
        """What a recorded packet or line of a client or worker is this time."""
        if unit[0]:
            return b" ".join([self._handle(word) for word in unit.split(b" ")])

        def change(field: str, value: bytes) -> bytes:
            if field == "epoch":
                return self._epoch(value)
            return self._handle(value) if field == "handle" else value

        return rewritten(unit, change)

    def reply(self, recorded: bytes, actual: bytes) -> bytes:
        """What a recorded packet or reply of the server is this time, as `actual` shows."""
        if recorded[0]:
            return self._text(recorded, actual)
        fields = _fields(actual) if actual[:8] == recorded[:8] else {}

        def change(field: str, value: bytes) -> bytes:
            if field != "handle":
                return value
            if field in fields:
                learn(self.handles, value, fields[field])
            return self._handle(value)

        return rewritten(recorded, change)

    def _handle(self, word: bytes) -> bytes:
        line = word.rstrip(b"\r\n")
        return self.handles.get(line, line) + word[len(line) :]

    def _epoch(self, value: bytes) -> bytes:
        if self._recorded_base is None or not value.isdigit():
            return value
        if self._base is None:
            self._base = int(time.time())
        return b"%d" % (self._base + int(value) - self._recorded_base)

    def _text(self, recorded: bytes, actual: bytes) -> bytes:
        if _OWN.match(recorded) and _OWN.match(actual):
            return actual
        lines = [
            b"\t".join([self._handle(column) for column in _SOCKET.sub(b"", line).split(b"\t")])
            for line in recorded.splitlines(keepends=True)
        ]
        actual_lines = actual.splitlines(keepends=True)
        # The same lines in another order, and with other sockets.
        if sorted(lines) == sorted(_SOCKET.sub(b"", line) for line in actual_lines):
            return actual
        return b"".join(lines)


def learn(names: dict[bytes, bytes], recorded: bytes, actual: bytes) -> bool:
    """Take note of what a recorded name is this time. Returns whether that fits what is known.

    What were two names are two, and what was one is one.
    """
    if recorded not in names and actual not in names.values():
        names[recorded] = actual
    return names.get(recorded) == actual


def rewritten(unit: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """A packet with other fields: `change` gets the name and the value of each. Text stays."""
    packet, fields = packet_of(unit), _fields(unit)
    if packet is None or not fields:
        return unit
    return pack(packet, [change(*field) for field in fields.items()], unit[:4])


def _fields(unit: bytes) -> dict[str, bytes]:
    """The fields of a packet; none of text, and of what is no known packet."""
    packet = packet_of(unit)
    if packet is None or not packet.args:
        return {}
    return dict(zip(packet.args, unit[HEADER_SIZE:].split(b"\0", len(packet.args) - 1)))
