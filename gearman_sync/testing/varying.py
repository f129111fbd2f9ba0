"""The values that differ between two runs of the same exchange.

Servers choose handles and clients choose uniques. File descriptors and times depend on the run, and
some lists have no order. This module translates a recorded packet or reply to the values of the
current run.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.packing import pack
from gearman_proto.testing.units import packet_of
from gearman_proto.wire.packets import HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

# The beginning of a line of ``workers``: the file descriptor.
_SOCKET: Final = re.compile(rb"^-?\d+ (?=[0-9a-fA-F.:]+ )")
# The answers to ``version`` and ``getpid``.
_OWN: Final = re.compile(rb"^OK \S+(?=\r?\n$)")


class Varying:
    """The translation of one recorded exchange.

    Args:
        epoch_base: The time, in seconds since 1970, that the recorded times of scheduled jobs are
            relative to. None keeps them unchanged.
    """

    def __init__(self, epoch_base: int | None) -> None:
        #: The current handle for each recorded one.
        self.handles: dict[bytes, bytes] = {}
        self._recorded_base = epoch_base
        self._base: int | None = None

    def request(self, unit: bytes) -> bytes:
        """Translate a recorded packet or line of a client or worker."""
        if unit[0]:
            return b" ".join([self._handle(word) for word in unit.split(b" ")])

        def change(field: str, value: bytes) -> bytes:
            if field == "epoch":
                return self._epoch(value)
            return self._handle(value) if field == "handle" else value

        return rewritten(unit, change)

    def reply(self, recorded: bytes, actual: bytes) -> bytes:
        """Translate a recorded packet or reply of the server, using the values in `actual`."""
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
        # The lines are the same, in another order or with other descriptors.
        if sorted(lines) == sorted(_SOCKET.sub(b"", line) for line in actual_lines):
            return actual
        return b"".join(lines)


def learn(names: dict[bytes, bytes], recorded: bytes, actual: bytes) -> bool:
    """Record the current name for a recorded one. Return True if that is consistent.

    Different names must stay different, and equal names must stay equal.
    """
    if recorded not in names and actual not in names.values():
        names[recorded] = actual
    return names.get(recorded) == actual


def rewritten(unit: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """Return a packet whose fields have the values that `change(name, value)` returns.

    Text is returned unchanged.
    """
    packet, fields = packet_of(unit), _fields(unit)
    if packet is None or not fields:
        return unit
    return pack(packet, [change(*field) for field in fields.items()], unit[:4])


def _fields(unit: bytes) -> dict[str, bytes]:
    """Return the fields of a packet, or an empty dict for text and unknown packets."""
    packet = packet_of(unit)
    if packet is None or not packet.args:
        return {}
    return dict(zip(packet.args, unit[HEADER_SIZE:].split(b"\0", len(packet.args) - 1)))
