"""The server's end of a connection to the judged worker or client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gearman_proto.errors import LocalProtocolError, RemoteProtocolError
from gearman_proto.testing.matching import shortened
from gearman_proto.testing.packing import pack_event
from gearman_proto.wire.packets import (
    MAGIC_RESPONSE,
    CanDo,
    CanDoTimeout,
    CantDo,
    ConnectionClosed,
    EchoReq,
    EchoRes,
    Error,
    Event,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    ResetAbilities,
    Role,
    SetClientId,
    SubmitJob,
    SubmitJobBg,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from .case import Closed, Failed, demand
from .talk import Talk

if TYPE_CHECKING:
    from collections.abc import Callable

    from .kit import Place, ResettableStream

Grab: TypeAlias = "GrabJob | GrabJobUniq | GrabJobAll"
End: TypeAlias = "WorkComplete | WorkFail | WorkException"
Submit: TypeAlias = (
    "SubmitJob | SubmitJobBg | SubmitJobHigh | SubmitJobHighBg | SubmitJobLow | SubmitJobLowBg"
)

GRABS: Final = (GrabJob, GrabJobUniq, GrabJobAll)
ENDS: Final = (WorkComplete, WorkFail, WorkException)
UPDATES: Final = (WorkData, WorkWarning, WorkStatus)
# Packets that a worker may send before a grab.
_REGISTRATIONS: Final = (CanDo, CanDoTimeout, CantDo, SetClientId)
SUBMITS: Final = (
    SubmitJob,
    SubmitJobBg,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
)

# Maximum number of grabs before a worker must sleep. Several grabs can be in flight.
_MOST_GRABS: Final = 20
# Minimum timeout in seconds. A timeout of 0 would make a socket non-blocking.
_LEAST: Final = 0.001


class Session(Talk):
    """The server's end of a connection. It answers OPTION_REQ and ECHO_REQ automatically.

    Args:
        stream: The connection.
        place: The kit's place, for its clock.

    Attributes:
        functions: The worker's registered functions, in the order of registration.
        asleep: True if the worker has sent PRE_SLEEP and has not been woken since.
        grants_options: True to answer OPTION_REQ.
        answers_echoes: True to answer ECHO_REQ.
        piece: Maximum number of bytes per write (0 means unlimited).
        fails_twice: True if the worker has ended a job with WORK_EXCEPTION and then WORK_FAIL.
            `receive` skips the WORK_FAIL.
    """

    asleep: bool = False
    grants_options: bool = True
    answers_echoes: bool = True
    piece: int = 0
    fails_twice: bool = False
    _given: int = 0
    _refuses_options: bool = False
    _raised: bytes | None = None

    def __init__(self, stream: ResettableStream, place: Place) -> None:
        super().__init__(stream, Role.SERVER)
        self._place = place
        self.functions: dict[bytes, None] = {}

    def receive(self) -> Event:
        """Answer OPTION_REQ and ECHO_REQ, and return the next other packet or line."""
        while isinstance(event := super().receive(), (EchoReq, OptionReq)):
            if isinstance(event, OptionReq):
                self._answer(event)
            elif self.answers_echoes:
                self.send(EchoRes(event.data))
        match event:
            case CanDo(function) | CanDoTimeout(function, _):
                self.functions[function] = None
            case CantDo(function):
                self.functions.pop(function, None)
            case ResetAbilities():
                self.functions.clear()
            case PreSleep():
                self.asleep = True
            case GrabJob() | GrabJobUniq() | GrabJobAll():
                self.asleep = False
            case WorkException(handle):
                self._raised = handle
            case WorkFail(handle) if handle == self._raised:
                self.fails_twice = True
                return self.receive()
        return event

    def send(self, *events: Event) -> None:
        """Send packets in one write, even if the connection's state does not allow them."""
        self.send_raw(b"".join(map(self._bytes_of, events)))

    def _bytes_of(self, event: Event) -> bytes:
        # The connection refuses a packet that its state does not allow.
        try:
            return self.connection.send(event)
        except LocalProtocolError:
            return pack_event(event, MAGIC_RESPONSE)

    def send_raw(self, data: bytes) -> None:
        """Send raw bytes.

        Raises:
            Closed: The other side has closed the connection.
        """
        size = self.piece or len(data) or 1
        try:
            for start in range(0, len(data), size):
                super().send_raw(data[start : start + size])
        except OSError as error:
            raise Closed("an open connection", str(error)) from None

    # Methods for workers.

    def asked(self, wanted: str = "a GRAB_JOB or PRE_SLEEP") -> Event:
        """Skip registrations, and return the next GRAB_JOB of any kind or PRE_SLEEP.

        Raises:
            Failed: The worker sends another packet, or none in time.
        """
        while True:
            event = self.next(wanted)
            if isinstance(event, (*GRABS, PreSleep)):
                return event
            demand(isinstance(event, (*_REGISTRATIONS, ResetAbilities)), wanted, event)

    def wake(self) -> None:
        """Send a NOOP to the sleeping worker."""
        self.asleep = False
        self.send(Noop())

    def grabs(self) -> Grab:
        """Wake the worker if it sleeps, and return its next grab."""
        while True:
            if self.asleep:
                self.wake()
            event: Any = self.asked("a GRAB_JOB")
            if not isinstance(event, PreSleep):
                return event  # type: ignore[no-any-return]

    def job_for(
        self,
        grab: Grab,
        data: bytes,
        *,
        function: bytes | None = None,
        handle: bytes = b"",
        unique: bytes | None = None,
    ) -> JobAssign | JobAssignUniq:
        """Return the JOB_ASSIGN or JOB_ASSIGN_UNIQ that answers a grab."""
        self._given += 1
        handle = handle or b"H:conformance:%d" % self._given
        function = function if function is not None else next(iter(self.functions))
        if isinstance(grab, GrabJob):
            return JobAssign(handle, function, data)
        unique = unique if unique is not None else b"unique-%d" % self._given
        return JobAssignUniq(handle, function, unique, data)

    def assign(
        self, grab: Grab, data: bytes, *, function: bytes | None = None, handle: bytes = b""
    ) -> bytes:
        """Answer a grab with a job, and return its handle."""
        job = self.job_for(grab, data, function=function, handle=handle)
        self.send(job)
        return job.handle

    def give(self, data: bytes, *, function: bytes | None = None, handle: bytes = b"") -> bytes:
        """Wait for a grab, answer it with a job, and return its handle."""
        return self.assign(self.grabs(), data, function=function, handle=handle)

    def refuse(self) -> None:
        """Answer grabs with NO_JOB until the worker sleeps.

        Raises:
            Failed: The worker keeps asking.
        """
        grabs = 0
        while not self.asleep:
            if not isinstance(self.asked(), PreSleep):
                self.send(NoJob())
                grabs += 1
                demand(grabs < _MOST_GRABS, "a PRE_SLEEP", f"GRAB_JOB {grabs} times")

    def end_of(self, handle: bytes, updates: list[Event] | None = None) -> End:
        """Return the packet that ends a job. Answer grabs with NO_JOB meanwhile.

        Args:
            handle: The handle of the job.
            updates: The list to append the job's WORK_DATA, WORK_WARNING and WORK_STATUS to.

        Raises:
            Failed: Another job ends, or the worker sends another packet, or none in time.
        """
        about = handle.decode(errors="backslashreplace")
        wanted = f"the end of {about}"
        while True:
            event: Any = self.next(wanted)
            if isinstance(event, ENDS):
                demand(event.handle == handle, wanted, shortened(event))
                return event
            if isinstance(event, UPDATES):
                demand(event.handle == handle, f"an update of {about}", event)
                if updates is not None:
                    updates.append(event)
            elif isinstance(event, GRABS):
                self.send(NoJob())
            else:
                demand(isinstance(event, (PreSleep, *_REGISTRATIONS)), wanted, event)

    def serve(self, data: bytes = b"data", *, handle: bytes = b"") -> End:
        """Give the worker a job, and return the packet that ends it."""
        return self.end_of(self.give(data, handle=handle))

    def wakes(self) -> Grab:
        """Send a NOOP to the sleeping worker, and return its next grab."""
        self.wake()
        for _ in range(_MOST_GRABS):
            event: Any = self.asked("a GRAB_JOB")
            if not isinstance(event, PreSleep):
                return event  # type: ignore[no-any-return]
            # After several grabs in flight, the worker can send several PRE_SLEEPs.
        raise Failed("a GRAB_JOB", f"PRE_SLEEP {_MOST_GRABS} times")

    def asks_despite(self, handle: bytes) -> Grab:
        """Skip packets about a job, wake the worker if it sleeps, and return its next grab."""
        while True:
            if self.asleep:
                self.wake()
            event: Any = self.next("a GRAB_JOB")
            if isinstance(event, GRABS):
                return event
            about = isinstance(event, (*ENDS, *UPDATES)) and event.handle == handle
            demand(about or isinstance(event, (PreSleep, *_REGISTRATIONS)), "a GRAB_JOB", event)

    def grabs_within(self, seconds: float, *, answer: bool = True) -> int:
        """Return the number of grabs within `seconds`.

        Args:
            seconds: The duration.
            answer: True to answer each grab with NO_JOB at once.

        Raises:
            Closed: The worker closes the connection.
            Failed: The worker sends invalid bytes.
        """
        deadline = self._place.now + seconds
        count = 0
        while (left := deadline - self._place.now) > _LEAST:
            try:
                event = self.within(left, self.receive)
            except TimeoutError:
                break
            except RemoteProtocolError as error:
                raise Failed("a waiting worker", str(error)) from None
            except OSError as error:
                raise Closed("a waiting worker", str(error)) from None
            if isinstance(event, GRABS):
                count += 1
                if answer:
                    self.send(NoJob())
        return count

    # Methods for clients.

    def submitted(self) -> Submit:
        """Return the next submit.

        Raises:
            Failed: The client sends another packet, or none in time.
        """
        while True:
            event: Any = self.next("a SUBMIT_JOB")
            if isinstance(event, SUBMITS):
                return event
            demand(isinstance(event, SetClientId), "a SUBMIT_JOB", event)

    def refuse_options(self) -> None:
        """Answer OPTION_REQ with an ERROR from now on."""
        self._refuses_options = True

    def _answer(self, event: OptionReq) -> None:
        if self._refuses_options:
            self.send(Error(b"UNKNOWN_OPTION", b"Server does not recognize given option"))
        elif self.grants_options:
            self.send(OptionRes(event.option))

    # Methods for both.

    def rest_of(self, take: Callable[[Event], object] | None = None) -> None:
        """Receive until the other side closes the connection. Answer grabs with NO_JOB.

        Args:
            take: Called with each event.

        Raises:
            Failed: The other side does not close it in time.
        """
        seconds = self.sock.gettimeout() or 0.0
        deadline = self._place.now + seconds
        while True:
            try:
                event: Event = self.within(max(deadline - self._place.now, _LEAST), self.receive)
                if isinstance(event, GRABS):
                    self.send(NoJob())
            except TimeoutError:
                break
            except (OSError, Closed):
                return
            except RemoteProtocolError as error:
                raise Failed("the end of the connection", str(error)) from None
            if take is not None and not isinstance(event, ConnectionClosed):
                take(event)
            if self._place.now >= deadline:
                break
        raise Failed("the end of the connection", f"none in {seconds:g} s")

    def packed(self, *events: Event) -> bytes:
        """Return packets as bytes, to send them in pieces or together with other bytes."""
        return b"".join([self.connection.send(event) for event in events])
