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
           that long, which the server might have lost       oldest first; without such a job, send
           while it serves others                            ECHO_REQ if the link is silent
probed     a byte arrived since                              alive again
dead       nothing has moved for `seconds` since the         close the connection
           question was sent (see `delivery`)
stuck      for twice `seconds`, a packet has been arriving   close the connection
           at less than 1 KiB per `seconds`
=========  ================================================  =====================================

Any received byte counts as a sign of life. So does progress of sent bytes, since the question can
be queued after a large job on a slow link. A link gets stuck when the size of a packet is corrupted
in transit. Everything that the server sends from then on, including answers to ECHO_REQ, then seems
to be part of that packet.

The connection preserves the order of answers and WORK_* packets. If a STATUS_RES says that the
server does not know a job whose end has not arrived, that end will never arrive.

If the client's own process was stopped, or does not run the engine between calls, received data
waits unread in the socket. If a check itself is late, the link therefore gets another second.

The heartbeat can't detect a job whose function was dropped on gearmand 1.1.21 (it stays known), nor
a worker that sleeps on its job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gearman_proto import constants
from gearman_proto.names import to_wire
from gearman_proto.wire.packets import EchoReq, GetStatus

from .queries import Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_proto.engines.delivery import Delivery
    from gearman_proto.wire.packets import PacketEvent, StatusRes, StatusResUnique

    from .foreground import ForegroundJobs, Job, LoneRef

# Maximum number of GET_STATUS in flight on one link, so that ten thousand jobs cause no burst.
_AT_ONCE: Final = 64
# Seconds. If a check is later than this, the driver has not read from the socket, either.
_LATE: Final = 1.0
# Minimum growth of an incomplete packet in `seconds`, in bytes.
_MIN_GROWTH: Final = 1024


class JobProbe(Probe):
    """A question whether the server has a job."""

    __slots__ = ("_on_end",)

    def __init__(self, event: PacketEvent, on_end: Callable[[], object]) -> None:
        super().__init__(event)
        self._on_end = on_end

    def answer(self, event: StatusRes | StatusResUnique, now: float) -> None:  # noqa: ARG002
        """Ask about the next job."""
        self._on_end()

    def fail(self, error: Exception) -> None:  # noqa: ARG002
        """Ask about the next job."""
        self._on_end()


_ECHO: Final = Probe(EchoReq(b"heartbeat"))


class Heartbeat:
    """Checks the server of one link.

    Args:
        seconds: Interval between checks, and timeout of a question.
        jobs: The foreground jobs pending on the link.
        delivery: Progress of the bytes sent on the link.
        ask: Sends a question before all queued packets.

    Attributes:
        heard: Time of the last received byte, or of the first request after an idle period.
        understood: Time of the last complete packet.
        asked: Time of the question, if no byte has arrived since; otherwise None.
        due: Time of the next check; None if the client waits for nothing.
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
        ask: Callable[[Probe], object],
    ) -> None:
        self._seconds = seconds
        self._jobs = jobs
        self._delivery = delivery
        self._ask = ask
        self.heard: float = 0.0
        self.understood: float = 0.0
        self.asked: float | None = None
        self.due: float | None = None
        # The value of `heard` when the link last got another second.
        self._late: float | None = None
        # The start of the current period of an incomplete packet, with the size received by then,
        # and the number of successive periods without enough growth.
        self._partial = (0.0, 0)
        self._stuck = 0
        # The jobs still to ask about, and the number of unanswered GET_STATUS.
        self._round: Iterator[Job | LoneRef] = iter(())
        self._under_way = 0

    def check(self, now: float, *, queued: int, unanswered: int, partial: int) -> str | None:
        """Check the link, ask a question if necessary, and set `due`.

        Args:
            now: The time.
            queued: Bytes that would be sent before a question.
            unanswered: Bytes handed to the transport that the server has not answered.
            partial: Bytes received of an incomplete packet.

        Returns:
            The reason to close the link, or None if it is alive.
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
        # Check again within `seconds` in any case: after an answer, the usual timeout applies.
        self.due = min(due, now + seconds)
        return None

    def _is_stuck(self, now: float, partial: int) -> bool:
        """Return whether a packet has hardly grown in two periods, although bytes arrived."""
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

    def _answered(self) -> None:
        """Note that the server has answered a JobProbe."""
        self._under_way -= 1
        self._ask_next()

    def _ask_for_jobs(self, now: float) -> bool:
        """Ask about all jobs that have been pending for `seconds`. Return False if none has."""
        if self._under_way:
            return False  # The server has not answered the previous questions yet.
        seconds = self._seconds
        self._round = iter([job for job in self._jobs.values() if job.since + seconds <= now])
        while self._under_way < _AT_ONCE and self._ask_next():
            pass
        return self._under_way > 0

    def _ask_next(self) -> bool:
        for job in self._round:
            handle = to_wire(job.handle)
            if self._jobs.get(job.handle) is job and len(handle) <= constants.MAX_HANDLE_SIZE:
                self._ask(JobProbe(GetStatus(handle), self._answered))
                self._under_way += 1
                return True
        return False
