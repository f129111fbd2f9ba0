"""Cut a byte stream into packets and lines of text, and show them.

This module does not use `Connection`, so tests can look at bytes that a Connection refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto.wire.packets import BY_NUMBER, HEADER, HEADER_SIZE, MAGIC_REQUEST, MAGIC_RESPONSE

if TYPE_CHECKING:
    from gearman_proto.wire.packets import PacketType

# The number of bytes above which a body is shortened, and the number of bytes that remain.
_LONG: Final = 200
_FRONT: Final = 60


class Cutter:
    """Cuts one direction of a connection into units: packets and lines of text.

    Attributes:
        rest: The received bytes of an incomplete unit.
        lost: True if `rest` begins like no packet, so it will never be complete.
    """

    def __init__(self) -> None:
        self.rest: bytes = b""
        self.lost: bool = False

    def cut(self, data: bytes) -> list[bytes]:
        """Add `data`, and return the units that are complete now."""
        self.rest += data
        units: list[bytes] = []
        while (size := self._size()) and size <= len(self.rest):
            units.append(self.rest[:size])
            self.rest = self.rest[size:]
        return units

    def take(self, data: bytes) -> list[bytes]:
        """Do the same, but return `rest` too if it can't be completed.

        Empty `data` is the end of the stream.
        """
        units = self.cut(data)
        if self.rest and (self.lost or not data):
            units.append(self.rest)
            self.rest = b""
        return units

    def _size(self) -> int:
        """Return the size of the first unit, or 0 if it is unknown."""
        if self.lost or not self.rest:
            return 0
        if self.rest[0]:
            return self.rest.find(b"\n") + 1
        if not any(magic.startswith(self.rest[:4]) for magic in (MAGIC_REQUEST, MAGIC_RESPONSE)):
            self.lost = True
            return 0
        if len(self.rest) < HEADER_SIZE:
            return 0
        return HEADER_SIZE + int(HEADER.unpack_from(self.rest)[2])


def packet_of(unit: bytes) -> PacketType | None:
    """Return the type of the packet `unit`, or None for text and for unknown packets."""
    if unit[:1] != b"\0" or len(unit) < HEADER_SIZE:
        return None
    return BY_NUMBER.get(HEADER.unpack_from(unit)[1])


def decode(data: bytes) -> str:
    """Return bytes in readable form: packets by their names, and lines of text."""
    cutter = Cutter()
    parts = []
    for unit in cutter.cut(data):
        if unit[0]:
            parts.append(f"TEXT {_shown(unit)}")
            continue
        magic, number, _ = HEADER.unpack_from(unit)
        name = BY_NUMBER[number].name if number in BY_NUMBER else str(number)
        parts.append(f"{magic[1:].decode()} {name} {_shown(unit[HEADER_SIZE:])}")
    if rest := cutter.rest:
        more = f"...({len(rest)} bytes)" if len(rest) > _LONG else ""
        parts.append(f"PARTIAL {(rest[:_FRONT] if more else rest).hex()}{more}")
    return "; ".join(parts)


def _shown(data: bytes) -> str:
    if len(data) > _LONG:
        return f"{repr(data[:_FRONT])[1:]}...({len(data)} bytes)"
    return repr(data)[1:]
