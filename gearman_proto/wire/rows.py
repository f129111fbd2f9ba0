"""The table of packets, prepared for the two ends of a connection.

`Connection` looks up one `Row` for each packet. A row holds everything that sending or receiving
the packet needs, so that the code for each packet reads attributes and computes nothing.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants
from gearman_proto.errors import LocalProtocolError

from .packets import (
    BY_NAME,
    EVENT_CLASSES,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    NUMBER,
    PACKETS,
    AllYours,
    CanDoTimeout,
    Event,
    PacketType,
    Role,
    SubmitJobEpoch,
    WorkFail,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A packet without a payload contains only names and numbers. In gearmand's packets these fit a
# buffer of 8192 bytes. This limit allows longer names, but refuses the size in a damaged header.
MAX_PLAIN_SIZE: Final = 65536
# The quick paths of a server skip larger packets. Such a packet takes most of its time for copying
# bytes, so skipping the event would save little.
QUICK_SIZE: Final = 4096

#: Maximum size of a request's arguments in bytes, by name.
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
    """Return the maximum body size to accept for `packet`, or for an unknown type (None)."""
    if packet is None or packet.opaque:
        return max_packet_size
    return min(max_packet_size, MAX_PLAIN_SIZE)


class Row:
    """A packet, prepared for one role."""

    __slots__ = (
        "accepts",
        "alone",
        "answers_something",
        "check",
        "count",
        "enough",
        "event_class",
        "get_args",
        "head",
        "ignorable",
        "limits",
        "max_size",
        "nuls",
        "number",
        "opaque",
        "owes",
        "packet",
        "pairs_received",
        "pairs_sent",
        "quick_size",
        "single",
    )

    def __init__(self, packet: PacketType, max_packet_size: int, *, of_server: bool) -> None:
        self.packet: PacketType = packet
        self.number: int = packet.number
        self.opaque: bool = packet.opaque
        self.ignorable: bool = packet.ignorable
        self.event_class: Any = EVENT_CLASSES[packet.number]
        self.get_args: Any = self.event_class.arguments
        self.max_size: int = size_limit(packet, max_packet_size)
        self.quick_size: int = min(self.max_size, QUICK_SIZE)
        #: The first bytes of the packet when this end sends it: magic and number.
        self.head: bytes = (MAGIC_RESPONSE if of_server else MAGIC_REQUEST) + NUMBER.pack(
            packet.number
        )
        self.count: int = len(packet.args)
        #: The numbers of the packets that answer it, without ERROR.
        self.accepts: frozenset[int] = frozenset(BY_NAME[name].number for name in packet.answers)
        #: The server's debt for it: the numbers of its answers, and its name. None if it has none.
        self.owes: tuple[frozenset[int], str] | None = None
        if packet.answers or self.event_class is AllYours:
            self.owes = self.accepts, packet.name
        #: Its entry in the queue of unanswered requests. None if the answer repeats its first
        #: argument, which then is a part of the entry.
        self.alone: tuple[Row, None] | None = (self, None)
        if packet.answers and packet.args and not packet.is_submit:
            self.alone = None
        self.answers_something: bool = hasattr(self.event_class, "answers")
        #: True if its body is one plain argument.
        self.single: bool = self.count == 1 and not packet.opaque
        #: Checks the values of a request. None if servers accept all of them.
        self.check: Callable[[PacketType, Any], None] | None = _CHECKS.get(self.event_class)
        #: Maximum size of each plain argument.
        self.limits: tuple[int, ...] = tuple(
            # A server repeats names that were within its client's limits.
            constants.MAX_BODY_SIZE if of_server else _limit(packet, name)
            for name in packet.args[: self.count - packet.opaque]
        )
        #: If all plain arguments together are not larger, none is too large.
        self.enough: int = constants.MAX_BODY_SIZE if of_server else min(self.limits, default=0)
        #: The number of NULs before the payload, or in the whole body if it has no payload.
        self.nuls: int = max(self.count - 1, 0)
        #: True if the end must be notified before it sends the packet.
        self.pairs_sent: bool = (
            self.answers_something if of_server else bool(self.accepts or self.check)
        )
        #: True if the end must be notified when it has received the packet.
        self.pairs_received: bool = self.owes is not None if of_server else self.answers_something

    def is_sound(self, args: Sequence[bytes]) -> bool:
        """Return True if only the payload contains NULs."""
        return self.opaque and not any(0 in value for value in args[:-1])

    def check_args(self, args: tuple[bytes, ...]) -> None:
        """Raise LocalProtocolError if a plain argument contains a NUL or is too large."""
        for name, value, limit in zip(self.packet.args, args, self.limits):
            if 0 in value:
                raise LocalProtocolError(f"{self.packet.name}: a NUL in the {name} {value[:80]!r}")
            if len(value) > limit:
                raise LocalProtocolError(
                    f"{self.packet.name}: the {name} has {len(value)} bytes, more than the {limit} "
                    "that servers take"
                )

    def too_large(self, size: int) -> LocalProtocolError:
        """Return the error for a body of `size` bytes."""
        return LocalProtocolError(f"{self.packet.name}: {size} bytes do not fit a packet")


def _limit(packet: PacketType, name: str) -> int:
    if name == "handle" and packet.name == "GET_STATUS":
        # Other packets repeat the handle from a server, which can have any size.
        return constants.MAX_HANDLE_SIZE
    return _SIZES.get(name, MAX_PLAIN_SIZE)


def _check_timeout(packet: PacketType, event: CanDoTimeout) -> None:
    _check_number(packet, event.timeout, constants.MAX_CAN_DO_TIMEOUT)


def _check_epoch(packet: PacketType, event: SubmitJobEpoch) -> None:
    _check_number(packet, event.epoch, constants.MAX_EPOCH)


def _check_number(packet: PacketType, text: bytes, largest: int) -> None:
    if not text.isdigit() or len(text) > 19 or int(text) > largest:
        raise LocalProtocolError(
            f"{packet.name}: {text[:80]!r} is not a number from 0 to {largest}"
        )


def _check_reason(_packet: PacketType, event: WorkFail) -> None:
    if event.reason is not None:
        raise LocalProtocolError(
            "WORK_FAIL with anything after the handle hangs libgearman's clients"
        )


def _refuse(_packet: PacketType, _event: AllYours) -> None:
    raise LocalProtocolError(
        "no server acts on ALL_YOURS, and gearmand's ERROR to it would pass for the "
        "answer to another request"
    )


#: The requests that servers accept only with certain values, or never.
_CHECKS: Final[dict[type[Event], Callable[[PacketType, Any], None]]] = {
    CanDoTimeout: _check_timeout,
    SubmitJobEpoch: _check_epoch,
    WorkFail: _check_reason,
    AllYours: _refuse,
}


_SPACES: Final = re.compile(rb" +")


def words_of(command: bytes) -> list[bytes]:
    """Return the words of a text command, split as gearmand does.

    Any number of spaces separates two words. Spaces at the beginning or the end add an empty word.
    The command ends at a NUL.
    """
    return _SPACES.split(command.partition(b"\0")[0])


def has_too_many_words(command: bytes) -> bool:
    """Return True if servers would refuse a line of text because of its number of words."""
    return len(words_of(command)) > constants.MAX_COMMAND_WORDS


@functools.lru_cache(maxsize=16)
def prepared(
    role: Role, max_packet_size: int
) -> tuple[dict[type[Event], Row], dict[int, Row], dict[bytes, Row]]:
    """Return the rows of one role.

    Args:
        role: The role of this end.
        max_packet_size: Maximum body size of a received packet in bytes.

    Returns:
        The outgoing packets by class; the incoming packets by number; and, for a server, the
        incoming packets by their first bytes (magic and number).
    """
    of_server = role is Role.SERVER
    rows = [Row(packet, max_packet_size, of_server=of_server) for packet in PACKETS]
    outgoing = {row.event_class: row for row in rows if row.packet.sender & role}
    incoming = {row.number: row for row in rows if row.packet.receiver & role}
    requests = {MAGIC_REQUEST + NUMBER.pack(n): row for n, row in incoming.items() if of_server}
    return outgoing, incoming, requests
