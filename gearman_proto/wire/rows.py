"""The table of packets, prepared for a Connection: what of a row each packet needs, at hand."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants

from .packets import (
    BY_NAME,
    EVENT_CLASSES,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    NUMBER,
    PACKETS,
    PacketType,
    Role,
)
from .special import SPECIAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .packets import Event

# A packet without a payload is made of names and numbers. gearmand's fit its buffer of 8192 bytes;
# this leaves room for servers with longer names, and none for a damaged size.
MAX_PLAIN_SIZE: Final = 65536
# What is larger is neither taken nor made by the quick paths of a server: there it is the bytes
# that take time, and not the events.
QUICK_SIZE: Final = 4096
#: The numbers of the packets that answer a request.
_ANSWERS: Final = frozenset(BY_NAME[name].number for p in PACKETS for name in p.answers) | {
    BY_NAME["ERROR"].number
}

#: Sizes in bytes of what clients and workers send, by argument.
_SIZES: Final = {
    "function": constants.MAX_FUNCTION_SIZE,
    "unique": constants.MAX_UNIQUE_SIZE,
    "reducer": constants.MAX_REDUCER_SIZE,
    "client_id": constants.MAX_CLIENT_ID_SIZE,
    "option": constants.MAX_HANDLE_SIZE,
    "numerator": constants.MAX_PROGRESS_SIZE,
    "denominator": constants.MAX_PROGRESS_SIZE,
}


def size_limit(packet: PacketType | None, max_packet_size: int) -> int:
    """The largest body to take for `packet`; None is a type that is not known."""
    if packet is None or packet.opaque:
        return max_packet_size
    return min(max_packet_size, MAX_PLAIN_SIZE)


class Row:
    """A row of the packet table, prepared for the two paths that every job takes."""

    __slots__ = (
        "accepts",
        "alone",
        "answers_something",
        "count",
        "enough",
        "event_class",
        "get_args",
        "head",
        "ignorable",
        "is_special",
        "limits",
        "max_size",
        "nuls",
        "number",
        "opaque",
        "owes",
        "packet",
        "quick_size",
        "repeated",
        "single",
    )

    def __init__(self, packet: PacketType, max_packet_size: int) -> None:
        self.packet: PacketType = packet
        self.number: int = packet.number
        self.opaque: bool = packet.opaque
        self.ignorable: bool = packet.ignorable
        self.event_class: Any = EVENT_CLASSES[packet.number]
        self.get_args: Any = self.event_class.arguments
        self.max_size: int = size_limit(packet, max_packet_size)
        self.quick_size: int = min(self.max_size, QUICK_SIZE)
        #: How the packet begins that a server sends: magic and number.
        self.head: bytes = MAGIC_RESPONSE + NUMBER.pack(packet.number)
        self.count: int = len(packet.args)
        #: The numbers of what answers it, without ERROR.
        self.accepts: frozenset[int] = frozenset(BY_NAME[name].number for name in packet.answers)
        #: Its entry in the queue of what was asked, if the answer repeats nothing of it.
        self.alone: tuple[Row, bytes | None] = (self, None)
        #: What a server owes for it: the numbers of what answers it, and its name; or None.
        self.owes: tuple[frozenset[int], str] | None = None
        if packet.answers or packet.name == "ALL_YOURS":
            self.owes = self.accepts, packet.name
        #: True if its first argument comes back in the answer.
        self.repeated: bool = bool(packet.answers and packet.args and not packet.is_submit)
        self.answers_something: bool = packet.number in _ANSWERS
        #: True if its body is one plain argument.
        self.single: bool = len(packet.args) == 1 and not packet.opaque
        sizes = dict(_SIZES)
        if packet.name == "GET_STATUS":
            # Other packets repeat the handle that a server gave, whatever its size.
            sizes["handle"] = constants.MAX_HANDLE_SIZE
        plain = packet.args[: len(packet.args) - packet.opaque]
        #: The largest size of each plain argument of a request.
        self.limits: tuple[int, ...] = tuple(sizes.get(name, MAX_PLAIN_SIZE) for name in plain)
        #: How many NULs stand before the payload, or in all if there is none.
        self.nuls: int = max(len(packet.args) - 1, 0)
        #: Plain arguments that are no larger together are not too large.
        self.enough: int = min(self.limits, default=0)
        #: True if it may be sent only with certain values, or never.
        self.is_special: bool = packet.name in SPECIAL

    def is_sound(self, args: Sequence[bytes]) -> bool:
        """Whether there are NULs only where they may be, in a payload."""
        return self.opaque and not any(0 in value for value in args[:-1])


@functools.lru_cache(maxsize=16)
def prepared(
    role: Role, max_packet_size: int
) -> tuple[dict[type[Event], Row], dict[int, Row], dict[bytes, Row]]:
    """What `role` may send, by event class, and what it may receive, by number.

    The last is what a server may receive, by how it begins: magic and number.
    """
    rows = [Row(packet, max_packet_size) for packet in PACKETS]
    if role is Role.SERVER:
        for row in rows:
            # What a server repeats has passed its peer's limits.
            row.enough = constants.MAX_BODY_SIZE
    to_send = {row.event_class: row for row in rows if row.packet.sender & role}
    to_receive = {row.number: row for row in rows if row.packet.receiver & role}
    requests = to_receive if role is Role.SERVER else {}
    return to_send, to_receive, {MAGIC_REQUEST + NUMBER.pack(n): requests[n] for n in requests}
