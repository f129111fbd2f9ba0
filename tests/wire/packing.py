"""Packets as they go on the wire, whether or not any peer may send them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gearman_proto import PacketType


def pack(packet: PacketType, args: tuple[bytes, ...], magic: bytes) -> bytes:
    """Return a packet; an optional last argument is left out, not None."""
    body = b"\0".join(args)
    return magic + struct.pack(">II", packet.number, len(body)) + body
