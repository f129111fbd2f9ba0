"""The packets of the binary protocol: one class each. `Connection` calls their instances events.

A packet is a header of 12 bytes (magic, type number, size of the body; big-endian) and a body. The
body holds the packet's arguments, joined by single NULs. A packet with N arguments is split at its
first N - 1 NULs, so only the last argument can contain NULs.

Each class below defines its packet completely: the decorator `packet` names the number, the sender,
the receiver and the answers, and the fields are the arguments, in the order of the wire. The tables
at the end of this module are derived from the classes. The class of SUBMIT_JOB_BG is `SubmitJobBg`,
and `SubmitJobBg.packet` describes it.

All fields are bytes, including numbers. Servers leave numbers empty and workers send any text, but
a packet must leave as it arrived. `number` reads them. Events are mutable only because frozen ones
take more than twice as long to create. This package never changes an event after its creation, and
applications must not either.

An event that answers a request has a field `answers`: the token that `Connection.send` received
with the request. Comparisons ignore it.
"""

from __future__ import annotations

import re
import struct
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, dataclass_transform

from gearman_proto.constants import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE
from gearman_proto.errors import RemoteProtocolError
from gearman_proto.records import hidden, record, values_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: The first bytes of a packet to a server.
MAGIC_REQUEST: Final = b"\0REQ"
#: The first bytes of a packet from a server.
MAGIC_RESPONSE: Final = b"\0RES"
HEADER: Final = struct.Struct(">4sII")
HEADER_SIZE: Final = HEADER.size
#: The format of the type number, and of the size, in a header.
NUMBER: Final = struct.Struct(">I")


class Role(Flag):
    """The role of one end of a connection. An end can be client and worker at the same time."""

    #: Submits jobs, and asks for their status.
    CLIENT = auto()
    #: Runs jobs.
    WORKER = auto()
    #: Queues jobs.
    SERVER = auto()


@record(frozen=True, eq=False)
class PacketType:
    """The description of one packet."""

    #: The type number in the header.
    number: int
    #: The name in Gearman's documents.
    name: str
    #: The roles that send it.
    sender: Role
    #: The roles that receive it.
    receiver: Role
    #: The names of its arguments, in order.
    args: tuple[str, ...] = ()
    #: True if the last argument is a payload, which can contain any bytes and have any size.
    opaque: bool = False
    #: True if the last argument can be missing, with the NUL before it.
    optional: bool = False
    #: The names of the packets that can answer it. The server sends exactly one of them, or an
    #: ERROR, and answers requests in order.
    answers: tuple[str, ...] = ()
    #: True if a server is known to drop it without an answer (Python gear's does).
    ignorable: bool = False

    @property
    def is_submit(self) -> bool:
        """True if JOB_CREATED answers it."""
        return "JOB_CREATED" in self.answers


class Event:
    """The base class of the results of `Connection.next_event`.

    `Connection.send` accepts packets and lines of text.
    """

    __slots__ = ()


class PacketEvent(Event):
    """The base class of all packets."""

    __slots__ = ()

    #: The description of the packet.
    packet: ClassVar[PacketType]
    #: Return the arguments of an event, in the order of the wire.
    arguments: ClassVar[Callable[[Any], tuple[bytes, ...]]]


#: The class of each packet, by type number.
EVENT_CLASSES: dict[int, type[PacketEvent]] = {}

_E = TypeVar("_E", bound=type[PacketEvent])


def _arguments_getter(args: tuple[str, ...], *, optional: bool) -> Callable[[Any], Any]:
    get = values_of(args)
    if optional:
        return lambda event: tuple(value for value in get(event) if value is not None)
    return get


@dataclass_transform(field_specifiers=(hidden,))
def packet(
    number: int,
    sender: Role,
    receiver: Role,
    *,
    answers: tuple[type[PacketEvent], ...] = (),
    opaque: bool = False,
    optional: bool = False,
    ignorable: bool = False,
) -> Callable[[_E], _E]:
    """Define a packet: make the class a record, describe it, and enter it in the tables.

    The name and the arguments come from the class. See `PacketType` for the parameters.
    """

    def define(kind: _E) -> _E:
        # A subclass of PlainSubmit is a record already.
        event_class: Any = kind if hasattr(kind, "__match_args__") else record()(kind)
        args = tuple(name for name in event_class.__match_args__ if name != "answers")
        event_class.packet = PacketType(
            number,
            re.sub("(?<=[a-z])(?=[A-Z])", "_", event_class.__name__).upper(),
            sender,
            receiver,
            args,
            opaque,
            optional,
            tuple(answer.packet.name for answer in answers),
            ignorable,
        )
        # Python would bind a lambda as a method.
        event_class.arguments = staticmethod(_arguments_getter(args, optional=optional))
        EVENT_CLASSES[number] = event_class
        return event_class  # type: ignore[no-any-return]

    return define


_C, _W, _S = Role.CLIENT, Role.WORKER, Role.SERVER

# From the server to clients.


@packet(8, _S, _C)
class JobCreated(PacketEvent):
    """Accept a job."""

    handle: bytes
    answers: Any = hidden(default=None, compare=False)


@packet(20, _S, _C)
class StatusRes(PacketEvent):
    """Report the progress of the job of `handle`.

    A server does not know a finished job any longer, so its answer is the same as for a handle that
    never existed.
    """

    handle: bytes
    known: bytes
    running: bytes
    numerator: bytes
    denominator: bytes
    answers: Any = hidden(default=None, compare=False)


# Gearman's document begins with the handle, servers with the unique (recording
# 14_background_status).
@packet(42, _S, _C)
class StatusResUnique(PacketEvent):
    """Report the progress of the job of `unique`.

    `clients` counts the foreground submits that wait for the job.
    """

    unique: bytes
    known: bytes
    running: bytes
    numerator: bytes
    denominator: bytes
    clients: bytes
    answers: Any = hidden(default=None, compare=False)


# From clients to the server.


@record()
class PlainSubmit(PacketEvent):
    """The base class of the submits that have only a function, a unique and data."""

    function: bytes
    unique: bytes
    data: bytes


@packet(7, _C, _S, answers=(JobCreated,), opaque=True)
class SubmitJob(PlainSubmit):
    """Submit a foreground job of normal priority."""

    __slots__ = ()


@packet(21, _C, _S, answers=(JobCreated,), opaque=True)
class SubmitJobHigh(PlainSubmit):
    """Submit a foreground job of high priority."""

    __slots__ = ()


@packet(33, _C, _S, answers=(JobCreated,), opaque=True)
class SubmitJobLow(PlainSubmit):
    """Submit a foreground job of low priority."""

    __slots__ = ()


@packet(18, _C, _S, answers=(JobCreated,), opaque=True)
class SubmitJobBg(PlainSubmit):
    """Submit a background job of normal priority."""

    __slots__ = ()


@packet(32, _C, _S, answers=(JobCreated,), opaque=True)
class SubmitJobHighBg(PlainSubmit):
    """Submit a background job of high priority."""

    __slots__ = ()


@packet(34, _C, _S, answers=(JobCreated,), opaque=True)
class SubmitJobLowBg(PlainSubmit):
    """Submit a background job of low priority."""

    __slots__ = ()


@packet(35, _C, _S, answers=(JobCreated,), opaque=True)
class SubmitJobSched(PacketEvent):
    """Submit a background job with a schedule. gearmand answers ERROR."""

    function: bytes
    unique: bytes
    minute: bytes
    hour: bytes
    day_of_month: bytes
    month: bytes
    day_of_week: bytes
    data: bytes


@packet(36, _C, _S, answers=(JobCreated,), opaque=True)
class SubmitJobEpoch(PacketEvent):
    """Submit a background job to run at `epoch`, in seconds since 1970."""

    function: bytes
    unique: bytes
    epoch: bytes
    data: bytes


# Gearman's document has no `aggregate`, but servers require it, and libgearman sends it empty
# (recording 05_reduce_all).
@packet(37, _C, _S, answers=(JobCreated,), opaque=True)
class SubmitReduceJob(PacketEvent):
    """Submit a foreground job with a reducer. Servers drop `aggregate`."""

    function: bytes
    unique: bytes
    reducer: bytes
    aggregate: bytes
    data: bytes


@packet(38, _C, _S, answers=(JobCreated,), opaque=True)
class SubmitReduceJobBackground(PacketEvent):
    """Submit a background job with a reducer. Servers drop `aggregate`."""

    function: bytes
    unique: bytes
    reducer: bytes
    aggregate: bytes
    data: bytes


@packet(15, _C, _S, answers=(StatusRes,))
class GetStatus(PacketEvent):
    """Ask for the progress of the job of a handle."""

    handle: bytes


@packet(41, _C, _S, answers=(StatusResUnique,), ignorable=True)
class GetStatusUnique(PacketEvent):
    """Ask for the progress of the job of a unique."""

    unique: bytes


# From a worker to the server, and from the server to the job's clients.


@packet(28, _W | _S, _S | _C, opaque=True)
class WorkData(PacketEvent):
    """Send a part of a job's result."""

    handle: bytes
    data: bytes


@packet(29, _W | _S, _S | _C, opaque=True)
class WorkWarning(PacketEvent):
    """Send a warning about a job."""

    handle: bytes
    data: bytes


@packet(12, _W | _S, _S | _C)
class WorkStatus(PacketEvent):
    """Report a job's progress."""

    handle: bytes
    numerator: bytes
    denominator: bytes


@packet(13, _W | _S, _S | _C, opaque=True)
class WorkComplete(PacketEvent):
    """End a job that succeeded."""

    handle: bytes
    data: bytes


@packet(14, _W | _S, _S | _C, opaque=True, optional=True)
class WorkFail(PacketEvent):
    """End a job that failed.

    `reason` is the text after a NUL that follows the handle. In a correct packet only the handle
    exists, and `reason` is None. gearmand sends ``b""`` in place of an exception that the client
    did not ask for, and some workers send a text.
    """

    handle: bytes
    reason: bytes | None = None


@packet(25, _W | _S, _S | _C, opaque=True)
class WorkException(PacketEvent):
    """Send the exception that ended a job."""

    handle: bytes
    data: bytes


# From the server to workers.


@packet(6, _S, _W)
class Noop(PacketEvent):
    """Wake the worker up, because a job might be waiting."""


@packet(10, _S, _W)
class NoJob(PacketEvent):
    """Report that no job is waiting."""

    answers: Any = hidden(default=None, compare=False)


@packet(11, _S, _W, opaque=True)
class JobAssign(PacketEvent):
    """Assign a job."""

    handle: bytes
    function: bytes
    data: bytes
    answers: Any = hidden(default=None, compare=False)


@packet(31, _S, _W, opaque=True)
class JobAssignUniq(PacketEvent):
    """Assign a job, with its unique."""

    handle: bytes
    function: bytes
    unique: bytes
    data: bytes
    answers: Any = hidden(default=None, compare=False)


@packet(40, _S, _W, opaque=True)
class JobAssignAll(PacketEvent):
    """Assign a job, with its unique and its reducer."""

    handle: bytes
    function: bytes
    unique: bytes
    reducer: bytes
    data: bytes
    answers: Any = hidden(default=None, compare=False)


# From workers to the server.


@packet(1, _W, _S)
class CanDo(PacketEvent):
    """Register for a function."""

    function: bytes


@packet(23, _W, _S)
class CanDoTimeout(PacketEvent):
    """Register for a function, with a time limit of `timeout` milliseconds per job."""

    function: bytes
    timeout: bytes


@packet(2, _W, _S)
class CantDo(PacketEvent):
    """Unregister from a function. gearmand then requeues the worker's jobs of that function."""

    function: bytes


@packet(3, _W, _S)
class ResetAbilities(PacketEvent):
    """Unregister from all functions. gearmand then requeues all jobs of the worker."""


@packet(4, _W, _S)
class PreSleep(PacketEvent):
    """Ask for a NOOP as soon as a job is waiting."""


@packet(9, _W, _S, answers=(NoJob, JobAssign))
class GrabJob(PacketEvent):
    """Ask for a job."""


@packet(30, _W, _S, answers=(NoJob, JobAssignUniq))
class GrabJobUniq(PacketEvent):
    """Ask for a job and its unique."""


# For a job without a reducer, gearmand sends JOB_ASSIGN_UNIQ (recording 05_reduce_all).
@packet(39, _W, _S, answers=(NoJob, JobAssignAll, JobAssignUniq))
class GrabJobAll(PacketEvent):
    """Ask for a job, its unique and its reducer."""


@packet(24, _W, _S)
class AllYours(PacketEvent):
    """Announce that the worker serves no other server. gearmand answers ERROR."""


# Between the server and both.


@packet(17, _S, _C | _W, opaque=True)
class EchoRes(PacketEvent):
    """Return the `data` of an EchoReq."""

    data: bytes
    answers: Any = hidden(default=None, compare=False)


@packet(16, _C | _W, _S, answers=(EchoRes,), opaque=True, ignorable=True)
class EchoReq(PacketEvent):
    """Ask the server to return `data`."""

    data: bytes


@packet(22, _C | _W, _S)
class SetClientId(PacketEvent):
    """Set the connection's name in the server's list of workers."""

    client_id: bytes


@packet(27, _S, _C | _W)
class OptionRes(PacketEvent):
    """Confirm an option."""

    option: bytes
    answers: Any = hidden(default=None, compare=False)


@packet(26, _C | _W, _S, answers=(OptionRes,), ignorable=True)
class OptionReq(PacketEvent):
    """Set an option. Servers know only ``exceptions``."""

    option: bytes


@packet(19, _S, _C | _W, opaque=True)
class Error(PacketEvent):
    """Refuse a request.

    `answers` is the token of that request. It is None if the server refuses a WORK_* packet.
    """

    code: bytes
    text: bytes
    answers: Any = hidden(default=None, compare=False)


#: The ERROR codes that refuse a WORK_* packet: gearmand's (recording 23_work_for_unknown_handle),
#: and the Perl server's.
WORK_ERRORS: Final = frozenset({b"JOB_NOT_FOUND", b"not_worker"})


# Events that are no packets.


@record()
class TextLine(Event):
    """A line of the admin protocol: a command to the server, or a line of a reply.

    `ending` is the line's ending. Commands should end in CRLF: in ``create function``, gearmand
    cuts off the last byte of the name if the line ends in a bare line feed.
    """

    line: bytes
    ending: bytes = b"\r\n"


@record()
class InvalidRequest(Event):
    """A complete packet that servers refuse. The server must answer it with this ERROR."""

    code: bytes
    text: bytes


@record()
class Unanswered(Event):
    """A request that the server will never answer, as it has answered a later one.

    Python gear's server drops some requests silently; see `PacketType.ignorable`.
    """

    packet: PacketType
    answers: Any = hidden(default=None, compare=False)


@record()
class ConnectionClosed(Event):
    """The peer closed the connection, between packets."""


# Tables.

#: All packets, by type number: 1 to 42, without 5.
PACKETS: Final[tuple[PacketType, ...]] = tuple(
    EVENT_CLASSES[number].packet for number in sorted(EVENT_CLASSES)
)
BY_NUMBER: Final = {packet.number: packet for packet in PACKETS}
BY_NAME: Final = {packet.name: packet for packet in PACKETS}
#: The highest type number. The protocol does not use number 5.
LAST_NUMBER: Final = PACKETS[-1].number

#: The classes of plain submits, by priority and by whether the job runs in the background.
SUBMITS: Final[dict[tuple[str | None, bool], type[PlainSubmit]]] = {
    (PRIORITY_NONE, False): SubmitJob,
    (PRIORITY_LOW, False): SubmitJobLow,
    (PRIORITY_HIGH, False): SubmitJobHigh,
    (PRIORITY_NONE, True): SubmitJobBg,
    (PRIORITY_LOW, True): SubmitJobLowBg,
    (PRIORITY_HIGH, True): SubmitJobHighBg,
}


# Parsing.


def parse(packet: PacketType, data: bytes, start: int, end: int) -> list[bytes]:
    """Return the arguments in `data[start:end]`, the complete body of a packet.

    Raises:
        RemoteProtocolError: NULs are missing, or the last argument contains a NUL although it is no
            payload and only servers send the packet. (In a request such a NUL is a part of the
            name, as in gearmand.)
    """
    count = len(packet.args)
    if count == 0:
        return []  # Servers ignore such a body.
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


# Larger bodies (in bytes) are not copied twice.
_SMALL: Final = 4096
_DIGITS = re.compile(rb"[ \t]*([+-]?[0-9]{1,19})")


def number(text: bytes) -> int:
    """Read a number as servers do: ignore everything after the leading digits.

    Return 0 if `text` has no leading digits.
    """
    match = _DIGITS.match(text)
    return int(match[1]) if match else 0
