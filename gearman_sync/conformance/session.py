"""A server's end of a connection, which a worker or a client that is judged has made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gearman_proto.errors import RemoteProtocolError
from gearman_proto.wire.events import (
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
    PreSleep,
    ResetAbilities,
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
from gearman_sync.testing import Peer
from gearman_sync.testing.matching import shortened

from .case import Failed, demand
from .talk import Talk

if TYPE_CHECKING:
    from collections.abc import Callable

Grab: TypeAlias = "GrabJob | GrabJobUniq | GrabJobAll"
End: TypeAlias = "WorkComplete | WorkFail | WorkException"
Submit: TypeAlias = (
    "SubmitJob | SubmitJobBg | SubmitJobHigh | SubmitJobHighBg | SubmitJobLow | SubmitJobLowBg"
)

GRABS: Final = (GrabJob, GrabJobUniq, GrabJobAll)
ENDS: Final = (WorkComplete, WorkFail, WorkException)
UPDATES: Final = (WorkData, WorkWarning, WorkStatus)
SUBMITS: Final = (
    SubmitJob,
    SubmitJobBg,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
)


class Session(Talk, Peer):
    """The connection. OPTION_REQ and ECHO_REQ are answered, and are nothing that is received.

    Attributes:
        functions: For what the worker has registered until now, in the order of that.
        asleep: Whether it has sent PRE_SLEEP, and was not woken since.
        answers_echoes: Whether ECHO_REQ is answered.
    """

    functions: dict[bytes, None]
    asleep: bool = False
    answers_echoes: bool = True
    _given: int = 0
    _refuses_options: bool = False

    def receive(self) -> Event:
        """Return the next packet or line, but for OPTION_REQ and ECHO_REQ."""
        while isinstance(event := super().receive(), EchoReq):
            if self.answers_echoes:
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
        return event

    # With a worker.

    def asked(self, wanted: str = "a GRAB_JOB or a PRE_SLEEP") -> Event:
        """Return the next GRAB_JOB of any kind, or PRE_SLEEP. What it registers for may be before.

        Raises:
            Failed: Something else comes, or nothing.
        """
        while True:
            event = self.next(wanted)
            if isinstance(event, (*GRABS, PreSleep)):
                return event
            if not isinstance(event, (CanDo, CanDoTimeout, CantDo, ResetAbilities, SetClientId)):
                raise Failed(wanted, shortened(event))

    def grabs(self) -> Grab:
        """Return the next grab. A worker that sleeps is woken."""
        while True:
            if self.asleep:
                self.asleep = False
                self.send(Noop())
            event: Any = self.asked("a GRAB_JOB")
            if not isinstance(event, PreSleep):
                return event  # type: ignore[no-any-return]

    def assign(
        self, grab: Grab, data: bytes, *, function: bytes | None = None, handle: bytes = b""
    ) -> bytes:
        """Answer a grab with a job, in the kind that was asked for, and return its handle."""
        self._given += 1
        handle = handle or b"H:conformance:%d" % self._given
        function = function if function is not None else next(iter(self.functions))
        if isinstance(grab, GrabJob):
            self.send_anyway(JobAssign(handle, function, data))
        else:
            self.send_anyway(JobAssignUniq(handle, function, b"unique-%d" % self._given, data))
        return handle

    def give(self, data: bytes, *, function: bytes | None = None, handle: bytes = b"") -> bytes:
        """Wait for a grab, answer it with a job, and return its handle."""
        return self.assign(self.grabs(), data, function=function, handle=handle)

    def refuse(self) -> None:
        """Answer grabs with NO_JOB until the worker sleeps."""
        while not self.asleep:
            if not isinstance(self.asked(), PreSleep):
                self.send_anyway(NoJob())

    def end_of(self, handle: bytes, updates: list[Event] | None = None) -> End:
        """Return how a job ends. What the worker asks for meanwhile is answered with NO_JOB.

        Args:
            handle: The job.
            updates: Where its WORK_DATA, WORK_WARNING and WORK_STATUS are added.

        Raises:
            Failed: Another job ends, or something else comes, or nothing.
        """
        wanted = f"the end of {handle.decode()}"
        while True:
            event: Any = self.next(wanted)
            if isinstance(event, ENDS):
                demand(event.handle == handle, wanted, shortened(event))
                return event
            if isinstance(event, UPDATES):
                demand(event.handle == handle, f"something about {handle.decode()}", event)
                if updates is not None:
                    updates.append(event)
            elif isinstance(event, GRABS):
                self.send_anyway(NoJob())
            elif not isinstance(event, (PreSleep, CanDo, CanDoTimeout, CantDo, SetClientId)):
                raise Failed(wanted, shortened(event))

    # With a client.

    def submitted(self) -> Submit:
        """Return the next submit.

        Raises:
            Failed: Something else comes, or nothing.
        """
        while True:
            event: Any = self.next("a SUBMIT_JOB")
            if isinstance(event, SUBMITS):
                return event
            if not isinstance(event, SetClientId):
                raise Failed("a SUBMIT_JOB", shortened(event))

    def refuse_options(self) -> None:
        """From now on, answer OPTION_REQ with an ERROR."""
        self.grants_options = False
        self._refuses_options = True

    def take(self) -> Event:
        """Do what `receive` does, and return OPTION_REQ, ECHO_REQ like any other packet."""
        event = super().take()
        if self._refuses_options and isinstance(event, OptionReq):
            self.send(Error(b"UNKNOWN_OPTION", b"Server does not recognize given option"))
        return event

    # With either.

    def rest_of(self, take: Callable[[Event], object] | None = None) -> None:
        """Receive until the other side closes.

        Args:
            take: Called with each event.

        Raises:
            Failed: It does not close in time.
        """
        while True:
            try:
                event: Event = self.receive()
            except TimeoutError:
                seconds = self.sock.gettimeout()
                raise Failed("the end of the connection", f"nothing in {seconds:g} s") from None
            except OSError:
                return
            except RemoteProtocolError as error:
                raise Failed("the end of the connection", str(error)) from None
            if take is not None and not isinstance(event, ConnectionClosed):
                take(event)

    def packed(self, *events: Event) -> bytes:
        """Return the bytes of packets, to be sent in pieces, or with others in one write."""
        return b"".join([self.connection.send(event) for event in events])
