"""Detect dead servers, and jobs that a server has dropped silently.

A stopped process or a vanished host sends nothing that would tell the client, and gearmand drops
some foreground jobs without notice (recordings 36_abandoned_then_resubmitted,
37_background_lost_with_foreground). While a client waits for anything on a link, it therefore
checks the link every `seconds`:

=========  ================================================  =====================================
state      condition                                         action
=========  ================================================  =====================================
alive      a byte arrived since the last check, and no job   none
           is older than `seconds`
suspect    no byte for `seconds`; or a job has been pending  send GET_STATUS for each such job, the
           that long, which the server may have lost while   oldest first; if there is none, and
           it serves others                                  the link is silent, send ECHO_REQ
probed     a byte arrived since                              alive again
dead       nothing has moved for `seconds` since the         close the connection
           question was sent (see `delivery`)
stuck      for twice `seconds`, a packet has been arriving   close the connection
           at less than 1 KiB per `seconds`
=========  ================================================  =====================================

Any received byte counts as a sign of life, and so do bytes that the server's system still
acknowledges: the question may be queued after a large job on a slow link. A link is stuck if the
size of a packet was corrupted on its way: everything that the server sends from then on, answers to
ECHO_REQ included, seems to be part of that packet.

Answers and WORK_* packets share the connection's order, so a STATUS_RES "not known" for a job whose
end has not arrived means that no end will.

A program that was stopped itself, or does not run the engine between its calls, has not read what
the server sent meanwhile. If the check itself is late, the link therefore gets another second.

The heartbeat can't detect a job whose function was dropped on gearmand 1.1 (it stays known), nor a
worker that sleeps on its job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto import constants
from gearman_proto.names import to_wire
from gearman_proto.records import record
from gearman_proto.wire.events import EchoReq, GetStatus, PacketEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .delivery import Delivery
    from .foreground import ForegroundJobs, Job, LoneRef

# GET_STATUS that are under way at once on one link, so that ten thousand jobs are no burst.
_AT_ONCE: Final = 64
# Seconds. A check that is later than this shows that nobody has read from the socket, either.
_LATE: Final = 1.0
# Bytes that have to arrive of an incomplete packet in `seconds`.
_MIN_GROWTH: Final = 1024


@record(eq=False)
class Aside:
    """Something that is sent although nobody waits for its answer."""

    event: PacketEvent


class JobQuestion(Aside):
    """Asks whether the server has a job."""

    __slots__ = ()


_ECHO: Final = Aside(EchoReq(b"heartbeat"))


class Heartbeat:
    """Checks the server of one link.

    Args:
        seconds: How long it may be silent.
        jobs: The jobs that are waited for there.
        delivery: How far the bytes that were sent on the link have got.
        ask: Sends a question, before anything that is not on its way yet.

    Attributes:
        heard: When the last byte arrived, or when something was awaited again after nothing had
            been.
        understood: When the last packet was complete.
        asked: When a question was asked, if no byte has arrived since.
        due: When to check next; None if nothing is awaited.
    """

    __slots__ = (
        "_ask",
        "_delivery",
        "_jobs",
        "_late",
        "_partial",
        "_round",
        "_seconds",
        "_stuck",
        "_under_way",
        "asked",
        "due",
        "heard",
        "understood",
    )

    def __init__(
        self,
        seconds: float,
        jobs: ForegroundJobs,
        delivery: Delivery,
        ask: Callable[[Aside], object],
    ) -> None:
        self._seconds = seconds
        self._jobs = jobs
        self._delivery = delivery
        self._ask = ask
        self.heard: float = 0.0
        self.understood: float = 0.0
        self.asked: float | None = None
        self.due: float | None = None
        # The value of `heard` when the end of the link was last put off.
        self._late: float | None = None
        # When an incomplete packet was first seen, and how many bytes of it had arrived; and for
        # how many periods in a row it has hardly grown.
        self._partial = (0.0, 0)
        self._stuck = 0
        # The jobs that are still to be asked for, and how many were and have not been answered.
        self._round: Iterator[Job | LoneRef] = iter(())
        self._under_way = 0

    def check(self, now: float, *, queued: int, unanswered: int, partial: int) -> str | None:
        """Ask a question if there is reason to, and set `due`; or say why the link is dead.

        Args:
            now: The time.
            queued: Bytes that a question would be sent after.
            unanswered: Bytes that were handed to the transport and not answered.
            partial: Bytes that have arrived of an incomplete packet.

        Returns:
            Why the link has to be closed, or None.
        """
        seconds = self._seconds
        if self._is_stuck(now, partial):
            return f"{partial} bytes of a packet have arrived, and no more"
        if self.asked is not None:
            due = self._delivery.deadline(now, seconds, unanswered)
            if now >= due:
                if now < due + _LATE or self._late == self.heard:
                    silent = f"the server has been silent for {now - self.heard:.3g} seconds"
                    return f"{silent}, and did not answer when asked"
                self._late = self.heard
                self._delivery.moved_at += now + _LATE - due
                due = now + _LATE
        elif self._ask_for_jobs(now) or (now >= self.heard + seconds and self._ask_for_echo()):
            self.asked = now
            self._delivery.ask(queued, now)
            due = now + seconds
        else:
            due = self.heard + seconds
        # Soon in any case: once the server has answered, it has no more time than usual.
        self.due = min(due, now + seconds)
        return None

    def _is_stuck(self, now: float, partial: int) -> bool:
        """Whether a packet has hardly grown for two periods in a row, though bytes have arrived."""
        since, before = self._partial
        if not partial or self.understood >= since or partial - before >= _MIN_GROWTH:
            self._partial = now, partial
            self._stuck = 0
        elif now - since >= self._seconds and self.heard >= since:
            self._partial = now, partial
            self._stuck += 1
        return self._stuck > 1

    def _ask_for_echo(self) -> bool:
        self._ask(_ECHO)
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
