"""One class for each packet, and a few for what is no packet. SUBMIT_JOB_BG is `SubmitJobBg`.

Fields are the packet's arguments as bytes, numbers too: servers leave them empty, workers send
what they like, and a packet must come out as it went in (`packets.number` reads them). The fields
stand in the order of the table in `packets`. Nothing in this package changes an event once it is
made, and neither should you: they are not frozen only because that would more than double the cost
of making one.

The events that answer a request have `answers`: what was given to `Connection.send` as the
request's token. It takes no part in comparisons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from gearman_proto.constants import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE
from gearman_proto.records import hidden, record, values_of

from .packets import BY_NAME, PacketType

if TYPE_CHECKING:
    from collections.abc import Callable


class Event:
    """What `Connection.next_event` returns, and, if it is a packet or a line, what `send` takes."""

    __slots__ = ()


class PacketEvent(Event):
    """An event that is a packet of the binary protocol."""

    __slots__ = ()

    #: The row of the table.
    packet: ClassVar[PacketType]
    #: Returns the arguments of an event as the table orders them.
    arguments: ClassVar[Callable[[Any], tuple[bytes, ...]]]


#: The event class for each type number.
EVENT_CLASSES: dict[int, type[PacketEvent]] = {}

_E = TypeVar("_E", bound=type[PacketEvent])


def _arguments_getter(packet: PacketType) -> Callable[[Any], tuple[bytes, ...]]:
    get = values_of(packet.args)
    if packet.optional:
        return lambda event: tuple(value for value in get(event) if value is not None)
    return get


def _packet(name: str) -> Callable[[_E], _E]:
    def register(event_class: _E) -> _E:
        packet = BY_NAME[name]
        event_class.packet = packet
        # attrgetter is no function, so neither form is bound as a method.
        event_class.arguments = staticmethod(_arguments_getter(packet))
        EVENT_CLASSES[packet.number] = event_class
        return event_class

    return register


# Jobs, from the client's side.


@record()
class PlainSubmit(PacketEvent):
    """A submit that has nothing special."""

    function: bytes
    unique: bytes
    data: bytes


@_packet("SUBMIT_JOB")
class SubmitJob(PlainSubmit):
    """Submit a foreground job of normal priority."""

    __slots__ = ()


@_packet("SUBMIT_JOB_HIGH")
class SubmitJobHigh(PlainSubmit):
    """Submit a foreground job of high priority."""

    __slots__ = ()


@_packet("SUBMIT_JOB_LOW")
class SubmitJobLow(PlainSubmit):
    """Submit a foreground job of low priority."""

    __slots__ = ()


@_packet("SUBMIT_JOB_BG")
class SubmitJobBg(PlainSubmit):
    """Submit a background job of normal priority."""

    __slots__ = ()


@_packet("SUBMIT_JOB_HIGH_BG")
class SubmitJobHighBg(PlainSubmit):
    """Submit a background job of high priority."""

    __slots__ = ()


@_packet("SUBMIT_JOB_LOW_BG")
class SubmitJobLowBg(PlainSubmit):
    """Submit a background job of low priority."""

    __slots__ = ()


@_packet("SUBMIT_JOB_SCHED")
@record()
class SubmitJobSched(PacketEvent):
    """Submit a background job by a calendar. gearmand answers ERROR."""

    function: bytes
    unique: bytes
    minute: bytes
    hour: bytes
    day_of_month: bytes
    month: bytes
    day_of_week: bytes
    data: bytes


@_packet("SUBMIT_JOB_EPOCH")
@record()
class SubmitJobEpoch(PacketEvent):
    """Submit a background job to run at `epoch`, in seconds since 1970."""

    function: bytes
    unique: bytes
    epoch: bytes
    data: bytes


@_packet("SUBMIT_REDUCE_JOB")
@record()
class SubmitReduceJob(PacketEvent):
    """Submit a foreground job with a reducer. `aggregate` is dropped by servers."""

    function: bytes
    unique: bytes
    reducer: bytes
    aggregate: bytes
    data: bytes


@_packet("SUBMIT_REDUCE_JOB_BACKGROUND")
@record()
class SubmitReduceJobBackground(PacketEvent):
    """Submit a background job with a reducer. `aggregate` is dropped by servers."""

    function: bytes
    unique: bytes
    reducer: bytes
    aggregate: bytes
    data: bytes


@_packet("JOB_CREATED")
@record()
class JobCreated(PacketEvent):
    """A submit was taken."""

    handle: bytes
    answers: Any = hidden(default=None, compare=False)


@_packet("GET_STATUS")
@record()
class GetStatus(PacketEvent):
    """Ask how far the job of a handle is."""

    handle: bytes


@_packet("STATUS_RES")
@record()
class StatusRes(PacketEvent):
    """How far the job of `handle` is. A finished job is as unknown as one that never was."""

    handle: bytes
    known: bytes
    running: bytes
    numerator: bytes
    denominator: bytes
    answers: Any = hidden(default=None, compare=False)


@_packet("GET_STATUS_UNIQUE")
@record()
class GetStatusUnique(PacketEvent):
    """Ask how far the job of a unique is."""

    unique: bytes


@_packet("STATUS_RES_UNIQUE")
@record()
class StatusResUnique(PacketEvent):
    """How far the job of `unique` is; `clients` counts the foreground submits that wait for it."""

    unique: bytes
    known: bytes
    running: bytes
    numerator: bytes
    denominator: bytes
    clients: bytes
    answers: Any = hidden(default=None, compare=False)


# Jobs, on their way from the worker through the server to the client.


@_packet("WORK_DATA")
@record()
class WorkData(PacketEvent):
    """A part of a job's result."""

    handle: bytes
    data: bytes


@_packet("WORK_WARNING")
@record()
class WorkWarning(PacketEvent):
    """A warning from a job."""

    handle: bytes
    data: bytes


@_packet("WORK_STATUS")
@record()
class WorkStatus(PacketEvent):
    """A job's progress."""

    handle: bytes
    numerator: bytes
    denominator: bytes


@_packet("WORK_COMPLETE")
@record()
class WorkComplete(PacketEvent):
    """A job ended well."""

    handle: bytes
    data: bytes


@_packet("WORK_FAIL")
@record()
class WorkFail(PacketEvent):
    """A job failed.

    `reason` is what follows a NUL behind the handle: None for the bare handle that the protocol
    means, ``b""`` where gearmand suppresses an exception, more where a worker sent more.
    """

    handle: bytes
    reason: bytes | None = None


@_packet("WORK_EXCEPTION")
@record()
class WorkException(PacketEvent):
    """A job failed with an exception."""

    handle: bytes
    data: bytes


# Workers.


@_packet("CAN_DO")
@record()
class CanDo(PacketEvent):
    """Register for a function."""

    function: bytes


@_packet("CAN_DO_TIMEOUT")
@record()
class CanDoTimeout(PacketEvent):
    """Register for a function, with a time limit of `timeout` milliseconds a job."""

    function: bytes
    timeout: bytes


@_packet("CANT_DO")
@record()
class CantDo(PacketEvent):
    """Give up a function. gearmand takes the jobs away that are held for it."""

    function: bytes


@_packet("RESET_ABILITIES")
@record()
class ResetAbilities(PacketEvent):
    """Give up all functions. gearmand takes all held jobs away."""


@_packet("PRE_SLEEP")
@record()
class PreSleep(PacketEvent):
    """Ask to be woken with NOOP when there is a job."""


@_packet("NOOP")
@record()
class Noop(PacketEvent):
    """There may be a job to grab."""


@_packet("GRAB_JOB")
@record()
class GrabJob(PacketEvent):
    """Ask for a job, to be assigned with JOB_ASSIGN."""


@_packet("GRAB_JOB_UNIQ")
@record()
class GrabJobUniq(PacketEvent):
    """Ask for a job, to be assigned with JOB_ASSIGN_UNIQ."""


@_packet("GRAB_JOB_ALL")
@record()
class GrabJobAll(PacketEvent):
    """Ask for a job, to be assigned with JOB_ASSIGN_ALL (or _UNIQ where it has no reducer)."""


@_packet("NO_JOB")
@record()
class NoJob(PacketEvent):
    """There is no job to grab."""

    answers: Any = hidden(default=None, compare=False)


@_packet("JOB_ASSIGN")
@record()
class JobAssign(PacketEvent):
    """A job to do."""

    handle: bytes
    function: bytes
    data: bytes
    answers: Any = hidden(default=None, compare=False)


@_packet("JOB_ASSIGN_UNIQ")
@record()
class JobAssignUniq(PacketEvent):
    """A job to do, with the unique it was submitted with."""

    handle: bytes
    function: bytes
    unique: bytes
    data: bytes
    answers: Any = hidden(default=None, compare=False)


@_packet("JOB_ASSIGN_ALL")
@record()
class JobAssignAll(PacketEvent):
    """A job to do, with its unique and its reducer."""

    handle: bytes
    function: bytes
    unique: bytes
    reducer: bytes
    data: bytes
    answers: Any = hidden(default=None, compare=False)


@_packet("ALL_YOURS")
@record()
class AllYours(PacketEvent):
    """Tell the server that the worker serves no other. gearmand answers ERROR."""


# Everybody.


@_packet("ECHO_REQ")
@record()
class EchoReq(PacketEvent):
    """Ask for `data` back."""

    data: bytes


@_packet("ECHO_RES")
@record()
class EchoRes(PacketEvent):
    """The `data` of an EchoReq."""

    data: bytes
    answers: Any = hidden(default=None, compare=False)


@_packet("SET_CLIENT_ID")
@record()
class SetClientId(PacketEvent):
    """Name this connection for the list of workers."""

    client_id: bytes


@_packet("OPTION_REQ")
@record()
class OptionReq(PacketEvent):
    """Ask for an option; ``exceptions`` is the only one there is."""

    option: bytes


@_packet("OPTION_RES")
@record()
class OptionRes(PacketEvent):
    """The option is set."""

    option: bytes
    answers: Any = hidden(default=None, compare=False)


@_packet("ERROR")
@record()
class Error(PacketEvent):
    """A request was refused: the one whose token `answers` is, or, if that is None, some WORK_*."""

    code: bytes
    text: bytes
    answers: Any = hidden(default=None, compare=False)


#: The submits that have nothing special, by priority and whether nobody waits for the job's end.
SUBMITS: Final[dict[tuple[str | None, bool], type[PlainSubmit]]] = {
    (PRIORITY_NONE, False): SubmitJob,
    (PRIORITY_LOW, False): SubmitJobLow,
    (PRIORITY_HIGH, False): SubmitJobHigh,
    (PRIORITY_NONE, True): SubmitJobBg,
    (PRIORITY_LOW, True): SubmitJobLowBg,
    (PRIORITY_HIGH, True): SubmitJobHighBg,
}


# What is no packet.


@record()
class TextLine(Event):
    """A line of the admin protocol: a command to the server, or a line of a reply.

    `ending` is how it ends. Commands should end in CRLF: gearmand cuts a function's name in
    ``create function`` where they end in a bare line feed.
    """

    line: bytes
    ending: bytes = b"\r\n"


@record()
class InvalidRequest(Event):
    """A sound packet that no server takes. It has to be answered with this ERROR."""

    code: bytes
    text: bytes


@record()
class Unanswered(Event):
    """The answer to a later request shows that this one's will never come.

    Python gear's server drops some requests without a word; see `PacketType.ignorable`.
    """

    packet: PacketType
    answers: Any = hidden(default=None, compare=False)


@record()
class ConnectionClosed(Event):
    """The peer closed the connection, between packets."""
