"""Packets as they go on the wire, whether or not any peer may send them.

Nothing here goes through a `Connection`, so that what is tested does not make its own tests' bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto.arguments import check_type
from gearman_proto.errors import ArgumentValueError
from gearman_proto.wire.events import Event, PacketEvent, TextLine
from gearman_proto.wire.packets import HEADER, MAGIC_REQUEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gearman_proto.wire.packets import PacketType


def pack(packet: PacketType, args: Sequence[bytes], magic: bytes) -> bytes:
    """Return the bytes of a packet, however odd it is.

    Args:
        packet: Its type: a row of `PACKETS`.
        args: Its arguments, as few or as many as you like. They are joined by NULs. An optional one
            that is to be missing is left out.
        magic: How it begins: four bytes, ``MAGIC_REQUEST`` or ``MAGIC_RESPONSE`` if it is sound.

    Raises:
        ValueError: `magic` has another length.
    """
    if len(magic) != len(MAGIC_REQUEST):
        raise ArgumentValueError(f"magic is {magic!r}: it must have four bytes")
    body = b"\0".join(args)
    return HEADER.pack(magic, packet.number, len(body)) + body


def pack_event(event: Event, magic: bytes) -> bytes:
    """Return the bytes that `event` stands for.

    Args:
        event: A packet, or a line of text. What is neither, such as ConnectionClosed, has no bytes.
        magic: How a packet begins: ``MAGIC_REQUEST`` if a client or worker sends it,
            ``MAGIC_RESPONSE`` if a server does.

    Raises:
        TypeError: It is no event.
        ValueError: `magic` has not four bytes.
    """
    if isinstance(event, PacketEvent):
        return pack(event.packet, type(event).arguments(event), magic)
    if isinstance(event, TextLine):
        return event.line + event.ending
    check_type("event", event, Event, "an event")
    return b""
