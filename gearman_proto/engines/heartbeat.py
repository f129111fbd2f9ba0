"""Whether the server of a client's link is still there, and still has the jobs.

A server may be stopped, or its host gone, without a byte that tells; and gearmand drops foreground
jobs without a word (recordings 36_abandoned_then_resubmitted, 37_background_lost_with_foreground).
So a link on which something is awaited is looked at every `seconds`:

==========  ==============================================  =======================================
it is       when                                            what is done
==========  ==============================================  =======================================
lively      a byte has come since the last look, and no     nothing
            job is that old
to be       no byte has come for `seconds`; or a job is     GET_STATUS for each job that is as old,
asked       waited for as long, which the server may have   oldest first; ECHO_REQ if there is none
            lost while it goes on with others               (a lively link is not sent that)
asked       and a byte has come since                       it is lively
lost        and none has, for `seconds` since the question  the link is given up
            was handed to the transport
==========  ==============================================  =======================================

Any byte is life. The question may stand behind a packet that is large: then the seconds begin when
the transport has taken the last piece of that, and begin anew with each piece.

Answers and WORK_* packets share the connection's order, so a STATUS_RES "not known" for a job whose
end has not come means that no end will come.

A program that was stopped itself, or does not run the engine between its calls, has not heard what
came in the meantime. So an end that comes late is put off once, for as long as it takes to read.

What this can't see: a job whose function was dropped on gearmand 1.1 (it stays known), and a worker
that sleeps on its job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto import constants
from gearman_proto.names import to_wire
from gearman_proto.records import record
from gearman_proto.wire.events import EchoReq, GetStatus, PacketEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .foreground import ForegroundJobs, Job, LoneRef

# GET_STATUS that are under way at once on one link, so that ten thousand jobs are no burst.
_AT_ONCE: Final = 64
# Seconds. A look that comes later than this after it was due shows that nobody has read, either.
_LATE: Final = 1.0


@record(eq=False)
class Aside:
    """Something that is sent although nobody waits for its answer."""

    event: PacketEvent


class JobQuestion(Aside):
    """Asks whether the server has a job."""

    __slots__ = ()


_ECHO: Final = Aside(EchoReq(b"heartbeat"))


class Heartbeat:
    """Looks after the server of one link.

    Args:
        seconds: How long it may be silent.
        jobs: The jobs that are waited for there.
        ask: Sends a question, before anything that is not on its way yet.

    Attributes:
        heard: When the last byte came, or when something was awaited again after nothing had been.
        asked: When a question, or a piece of what lies before it, was handed to the transport, if
            no byte has come since.
        due: When to look next; None if nothing is awaited.
    """

    __slots__ = (
        "_ask",
        "_jobs",
        "_late",
        "_round",
        "_seconds",
        "_under_way",
        "asked",
        "due",
        "heard",
    )

    def __init__(
        self, seconds: float, jobs: ForegroundJobs, ask: Callable[[Aside], object]
    ) -> None:
        self._seconds = seconds
        self._jobs = jobs
        self._ask = ask
        self.heard: float = 0.0
        self.asked: float | None = None
        self.due: float | None = None
        # What `heard` was when an end that came late was put off.
        self._late: float | None = None
        # The jobs that are still to be asked for, and how many were and have not been answered.
        self._round: Iterator[Job | LoneRef] = iter(())
        self._under_way = 0

    def handed_over(self, now: float) -> None:
        """The transport takes a question, or a piece of what lies before it."""
        if self.asked is not None:
            self.asked = now

    def look(self, now: float) -> bool:
        """Ask what is to be asked, and say when to look again; False if the link is lost."""
        seconds = self._seconds
        if self.asked is not None:
            due = self.asked + seconds
            if now >= due:
                if now < due + _LATE or self._late == self.heard:
                    return False
                self._late = self.heard
                self.asked = now + _LATE - seconds
                due = now + _LATE
        elif self._ask_for_jobs(now):
            self.asked = now
            due = now + seconds
        elif now < self.heard + seconds:
            due = self.heard + seconds
        else:
            self._ask(_ECHO)
            self.asked = now
            due = now + seconds
        self.due = due
        return True

    def answered(self) -> None:
        """The server has answered a JobQuestion."""
        self._under_way -= 1
        self._ask_next()

    def _ask_for_jobs(self, now: float) -> bool:
        """Ask for the jobs that have been waited for long enough. Returns whether there is one."""
        if self._under_way:
            return False  # The server still has the last ones to answer.
        seconds = self._seconds
        self._round = iter([job for job in self._jobs.values() if job.since + seconds <= now])
        while self._under_way < _AT_ONCE and self._ask_next():
            pass
        return self._under_way > 0

    def _ask_next(self) -> bool:
        for job in self._round:
            handle = to_wire(job.handle)
            if self._jobs.get(job.handle) is job and len(handle) <= constants.MAX_HANDLE_SIZE:
                self._ask(JobQuestion(GetStatus(handle)))
                self._under_way += 1
                return True
        return False
