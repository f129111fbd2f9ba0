"""The values that differ between two runs of the same exchange.

Servers choose handles and clients choose uniques. File descriptors and times depend on the run, and
some lists have no order. This module translates recorded packets and lines to the values of the
current run.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.packing import pack
from gearman_proto.testing.units import Cutter, packet_of
from gearman_proto.wire.packets import HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

# The beginning of a line of ``workers``: the file descriptor.
_SOCKET: Final = re.compile(rb"^-?\d+ (?=[0-9a-fA-F.:]+ )")
# The answers to ``version`` and ``getpid``.
_OWN: Final = re.compile(rb"^OK \S+(?=\r?\n$)")
# Uniques that have a meaning: the empty one, and "-", which stands for the data.
_FIXED: Final = (b"", b"-")
# Fields whose values the peer is free to choose, and that occur in no other packet.
_FREE: Final = ("epoch", "client_id")


class Varying:
    """The translation of one recorded exchange.

    Args:
        chosen: The field whose values the peer chooses: ``handle`` of a server, ``unique`` of a
            client.
        epoch_base: The time, in seconds since 1970, that the recorded times of scheduled jobs are
            relative to. None keeps them unchanged.
    """

    def __init__(self, chosen: str, epoch_base: int | None = None) -> None:
        #: The peer's current name for each recorded one.
        self.names: dict[bytes, bytes] = {}
        self._chosen = chosen
        self._recorded_base = epoch_base
        self._base: int | None = None

    def to_send(self, data: bytes) -> bytes:
        """Translate recorded packets and lines of this end."""
        cutter = Cutter()
        return b"".join(map(self._translated, cutter.cut(data))) + cutter.rest

    def expected(self, recorded: bytes, actual: bytes) -> bytes:
        """Translate a recorded packet or reply of the peer, using the values in `actual`."""
        if recorded[:1] != b"\0":
            return self._text(recorded, actual)
        fields = _fields(actual) if actual[:8] == recorded[:8] else {}

        def change(field: str, value: bytes) -> bytes:
            current = fields.get(field, value)
            if field in _FREE:
                return current
            if field != self._chosen:
                return value
            if field in fields and not {value, current} & {*_FIXED}:
                self._learn(value, current)
            return self.names.get(value, value)

        return _rewritten(recorded, change)

    def _learn(self, recorded: bytes, actual: bytes) -> None:
        """Record the current name for a recorded one. Different names must stay different."""
        if recorded not in self.names and actual not in self.names.values():
            self.names[recorded] = actual

    def _translated(self, unit: bytes) -> bytes:
        if unit[0]:
            return b" ".join(map(self._word, unit.split(b" ")))

        def change(field: str, value: bytes) -> bytes:
            if field == "epoch":
                return self._epoch(value)
            return self.names.get(value, value) if field == self._chosen else value

        return _rewritten(unit, change)

    def _word(self, word: bytes) -> bytes:
        name = word.rstrip(b"\r\n")
        return self.names.get(name, name) + word[len(name) :]

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
            b"\t".join(map(self._word, _SOCKET.sub(b"", line).split(b"\t")))
            for line in recorded.splitlines(keepends=True)
        ]
        actual_lines = actual.splitlines(keepends=True)
        # The lines are the same, in another order or with other descriptors.
        if sorted(lines) == sorted(_SOCKET.sub(b"", line) for line in actual_lines):
            return actual
        return b"".join(lines)


def _rewritten(unit: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """Return a packet whose fields have the values that `change(name, value)` returns."""
    packet, fields = packet_of(unit), _fields(unit)
    if packet is None or not fields:
        return unit
    return pack(packet, [change(*field) for field in fields.items()], unit[:4])


def _fields(unit: bytes) -> dict[str, bytes]:
    """Return the fields of a packet, or an empty dict for unknown packets."""
    packet = packet_of(unit)
    if packet is None or not packet.args:
        return {}
    return dict(zip(packet.args, unit[HEADER_SIZE:].split(b"\0", len(packet.args) - 1)))
