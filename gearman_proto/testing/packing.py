"""Pack packets for the wire, including packets that no peer is allowed to send.

This module does not use `Connection`, so the code under test does not generate its own test data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto.checks import check_type
from gearman_proto.errors import ArgumentValueError
from gearman_proto.wire.packets import HEADER, MAGIC_REQUEST, Event, PacketEvent, TextLine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gearman_proto.wire.packets import PacketType


def pack(packet: PacketType, args: Sequence[bytes], magic: bytes) -> bytes:
    """Return the bytes of a packet, valid or not.

    Args:
        packet: Its type, a row of `PACKETS`.
        args: Its arguments, which are joined by NULs. Any number of them is allowed. Leave out an
            optional argument to omit it.
        magic: The first four bytes, ``MAGIC_REQUEST`` or ``MAGIC_RESPONSE`` for a valid packet.

    Raises:
        ValueError: `magic` is not four bytes long.
    """
    if len(magic) != len(MAGIC_REQUEST):
        raise ArgumentValueError(f"magic is {magic!r}: it must have four bytes")
    body = b"\0".join(args)
    return HEADER.pack(magic, packet.number, len(body)) + body


def pack_event(event: Event, magic: bytes) -> bytes:
    """Return the bytes that `event` stands for.

    Args:
        event: A packet or a line of text. Any other event, such as ConnectionClosed, has no bytes.
        magic: The first four bytes of a packet: ``MAGIC_REQUEST`` if a client or worker sends it,
            ``MAGIC_RESPONSE`` if a server does.

    Raises:
        TypeError: `event` is not an event.
        ValueError: `magic` is not four bytes long.
    """
    if isinstance(event, PacketEvent):
        return pack(event.packet, type(event).arguments(event), magic)
    if isinstance(event, TextLine):
        return event.line + event.ending
    check_type("event", event, Event, "an event")
    return b""
