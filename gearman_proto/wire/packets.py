"""The one table of the binary protocol's packets, and their packing and parsing.

A packet is a header of 12 bytes (magic, type, size of the body; big-endian) and a body: arguments
joined by single NULs. The body is split at the first N NULs, where N comes from the type; what is
left, NULs and all, is the last argument. Everything else about a packet (who may send it, what
answers it) is a column of the table too. `events` has a class for each row.
"""

from __future__ import annotations

import enum
import re
import struct
from typing import Final

from gearman_proto.errors import RemoteProtocolError
from gearman_proto.records import record

#: How a packet begins that goes to a server.
MAGIC_REQUEST: Final = b"\0REQ"
#: How a packet begins that a server sends.
MAGIC_RESPONSE: Final = b"\0RES"
HEADER: Final = struct.Struct(">4sII")
HEADER_SIZE: Final = HEADER.size
#: Each of the two numbers in it.
NUMBER: Final = struct.Struct(">I")


class Role(enum.Flag):
    """What one end of a connection is. A connection may be client and worker at once."""

    #: It submits jobs, or asks about them or the server.
    CLIENT = enum.auto()
    #: It does jobs.
    WORKER = enum.auto()
    #: It has the jobs.
    SERVER = enum.auto()


_C, _W, _S = Role.CLIENT, Role.WORKER, Role.SERVER
_ANY = _C | _W


@record(frozen=True, eq=False)
class PacketType:
    """A row of the table."""

    #: The number on the wire.
    number: int
    #: The name in Gearman's own documents.
    name: str
    #: Who sends it.
    sender: Role
    #: Who takes it.
    receiver: Role
    #: The names of its arguments, in order.
    args: tuple[str, ...] = ()
    #: True if the last argument is a payload, any bytes of any number.
    opaque: bool = False
    #: True if the last argument, and the NUL before it, may be missing.
    optional: bool = False
    #: The names of the packets that answer it, exactly one of them and in order. Any of them may
    #: be replaced by an ERROR.
    answers: tuple[str, ...] = ()
    #: True if some server is known to drop it without an answer (Python gear's does).
    ignorable: bool = False

    @property
    def is_submit(self) -> bool:
        """Whether JOB_CREATED answers it."""
        return "JOB_CREATED" in self.answers


_JOB = ("function", "unique", "data")
_REDUCE = ("function", "unique", "reducer", "aggregate", "data")
_WORK = ("handle", "data")
_STATUS = ("known", "running", "numerator", "denominator")
_CREATED = ("JOB_CREATED",)


def _submit(number: int, name: str, args: tuple[str, ...] = _JOB) -> PacketType:
    return PacketType(number, name, _C, _S, args, opaque=True, answers=_CREATED)


def _work(number: int, name: str) -> PacketType:
    return PacketType(number, name, _W | _S, _S | _C, _WORK, opaque=True)


#: Types 1 to 42; 5 is unused.
#:
#: SUBMIT_REDUCE_JOB has one argument more than Gearman's document says: servers wait for it, and
#: libgearman sends it empty (recording 05_reduce_all). STATUS_RES_UNIQUE starts with the unique,
#: not with the handle (14_background_status).
PACKETS: Final[tuple[PacketType, ...]] = (
    PacketType(1, "CAN_DO", _W, _S, ("function",)),
    PacketType(2, "CANT_DO", _W, _S, ("function",)),
    PacketType(3, "RESET_ABILITIES", _W, _S),
    PacketType(4, "PRE_SLEEP", _W, _S),
    PacketType(6, "NOOP", _S, _W),
    _submit(7, "SUBMIT_JOB"),
    PacketType(8, "JOB_CREATED", _S, _C, ("handle",)),
    PacketType(9, "GRAB_JOB", _W, _S, answers=("NO_JOB", "JOB_ASSIGN")),
    PacketType(10, "NO_JOB", _S, _W),
    PacketType(11, "JOB_ASSIGN", _S, _W, ("handle", "function", "data"), opaque=True),
    PacketType(12, "WORK_STATUS", _W | _S, _S | _C, ("handle", "numerator", "denominator")),
    _work(13, "WORK_COMPLETE"),
    PacketType(14, "WORK_FAIL", _W | _S, _S | _C, ("handle", "reason"), opaque=True, optional=True),
    PacketType(15, "GET_STATUS", _C, _S, ("handle",), answers=("STATUS_RES",)),
    PacketType(
        16, "ECHO_REQ", _ANY, _S, ("data",), opaque=True, answers=("ECHO_RES",), ignorable=True
    ),
    PacketType(17, "ECHO_RES", _S, _ANY, ("data",), opaque=True),
    _submit(18, "SUBMIT_JOB_BG"),
    PacketType(19, "ERROR", _S, _ANY, ("code", "text"), opaque=True),
    PacketType(20, "STATUS_RES", _S, _C, ("handle", *_STATUS)),
    _submit(21, "SUBMIT_JOB_HIGH"),
    PacketType(22, "SET_CLIENT_ID", _ANY, _S, ("client_id",)),
    PacketType(23, "CAN_DO_TIMEOUT", _W, _S, ("function", "timeout")),
    PacketType(24, "ALL_YOURS", _W, _S),
    _work(25, "WORK_EXCEPTION"),
    PacketType(26, "OPTION_REQ", _ANY, _S, ("option",), answers=("OPTION_RES",), ignorable=True),
    PacketType(27, "OPTION_RES", _S, _ANY, ("option",)),
    _work(28, "WORK_DATA"),
    _work(29, "WORK_WARNING"),
    PacketType(30, "GRAB_JOB_UNIQ", _W, _S, answers=("NO_JOB", "JOB_ASSIGN_UNIQ")),
    PacketType(
        31, "JOB_ASSIGN_UNIQ", _S, _W, ("handle", "function", "unique", "data"), opaque=True
    ),
    _submit(32, "SUBMIT_JOB_HIGH_BG"),
    _submit(33, "SUBMIT_JOB_LOW"),
    _submit(34, "SUBMIT_JOB_LOW_BG"),
    _submit(
        35,
        "SUBMIT_JOB_SCHED",
        (
            "function",
            "unique",
            "minute",
            "hour",
            "day_of_month",
            "month",
            "day_of_week",
            "data",
        ),
    ),
    _submit(36, "SUBMIT_JOB_EPOCH", ("function", "unique", "epoch", "data")),
    _submit(37, "SUBMIT_REDUCE_JOB", _REDUCE),
    _submit(38, "SUBMIT_REDUCE_JOB_BACKGROUND", _REDUCE),
    PacketType(
        39,
        "GRAB_JOB_ALL",
        _W,
        _S,
        # gearmand answers with JOB_ASSIGN_UNIQ where the job has no reducer
        # (recording 05_reduce_all).
        answers=("NO_JOB", "JOB_ASSIGN_ALL", "JOB_ASSIGN_UNIQ"),
    ),
    PacketType(
        40,
        "JOB_ASSIGN_ALL",
        _S,
        _W,
        ("handle", "function", "unique", "reducer", "data"),
        opaque=True,
    ),
    PacketType(
        41, "GET_STATUS_UNIQUE", _C, _S, ("unique",), answers=("STATUS_RES_UNIQUE",), ignorable=True
    ),
    PacketType(42, "STATUS_RES_UNIQUE", _S, _C, ("unique", *_STATUS, "clients")),
)

BY_NUMBER: Final = {packet.number: packet for packet in PACKETS}
BY_NAME: Final = {packet.name: packet for packet in PACKETS}
#: The highest number that the protocol gives to a type; 5 below it is unused.
LAST_NUMBER: Final = PACKETS[-1].number


def parse(packet: PacketType, data: bytes, start: int, end: int) -> list[bytes]:
    """Return the arguments in `data[start:end]`, a packet's whole body.

    Raises RemoteProtocolError where NULs are missing, or where the last argument of a packet that
    only servers send holds one. (In requests it stays: gearmand takes such names as they are.)
    """
    count = len(packet.args)
    if count == 0:
        return []  # Servers read and ignore a body here.
    args: list[bytes]
    if end - start <= _SMALL:
        args = data[start:end].split(b"\0", count - 1)
        if len(args) == count and (packet.opaque or packet.sender is not _S or 0 not in args[-1]):
            return args
    args = []
    begin = start
    for _ in range(count - 1):
        nul = data.find(b"\0", start, end)
        if nul < 0:
            if packet.optional and len(args) == count - 2:
                break
            raise RemoteProtocolError(
                f"{packet.name} has {len(args)} NULs in its body of {end - begin} bytes, "
                f"{count - 1} expected"
            )
        args.append(data[start:nul])
        start = nul + 1
    last = data[start:end]
    if not packet.opaque and packet.sender is _S and 0 in last:
        raise RemoteProtocolError(f"{packet.name}: a NUL in {packet.args[-1]} {last[:80]!r}")
    args.append(last)
    return args


# Bytes. What is larger is not copied twice.
_SMALL: Final = 4096
_DIGITS = re.compile(rb"[ \t]*([+-]?[0-9]{1,19})")


def number(text: bytes) -> int:
    """Read a number as servers do: leading digits count, anything else (nothing, too) is 0."""
    match = _DIGITS.match(text)
    return int(match[1]) if match else 0
