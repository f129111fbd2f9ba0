"""Progress of sent bytes, to tell a slow link from a dead one.

An engine sends a question (GRAB_JOB, ECHO_REQ, GET_STATUS) and waits for the answer. On a slow
link, the question can be queued after megabytes of jobs or results. The timeout for the answer
therefore restarts whenever bytes before the question make progress:

=============  =============================================  ==================================
bytes are      until                                          seen by
=============  =============================================  ==================================
handed over    the transport asks for more (`data_to_send`)   every driver
on their way   the peer's system acknowledges them            a driver that calls `measured`
with the peer  it answers                                     `receive_data`
=============  =============================================  ==================================

A system, or a tunnel on the way (stunnel, ssh), accepts bytes long before the server has them. If
this progress is invisible, the timeout grows by the time that the unanswered bytes need at `RATE`.
As a consequence, the engine takes longer to detect a server that hangs just after a large submit.

Progress of bytes sent after the question is no sign of life. The system of a stopped process
acknowledges them as well, until its buffer is full.
"""

from __future__ import annotations

from typing import Final

#: Bytes per second that the slowest healthy link transfers.
RATE: Final = 20_000
#: Bytes that the systems and tunnels between this program and the server can hold.
MAX_HIDDEN: Final = 8 * 1024 * 1024


class Delivery:
    """Progress of the bytes of one link, up to the question in flight.

    Attributes:
        acknowledged: Bytes that the peer's system had acknowledged at the last measurement; -1 if
            the driver does not measure.
        handed: Bytes handed to the transport.
        question: Position of the question: the number of bytes sent before it.
        moved_at: Time of the last progress of these bytes, in the engine's time; initially, the
            time of the question.
    """

    __slots__ = ("_arrived", "_taken", "acknowledged", "handed", "moved_at", "question")

    def __init__(self) -> None:
        self.acknowledged: int = -1
        self.handed: int = 0
        self.question: int = 0
        self.moved_at: float = 0.0
        # Bytes that the transport has written, and bytes that the peer's system had acknowledged at
        # the last check.
        self._taken = -1
        self._arrived = -1

    def ask(self, queued: int, now: float) -> None:
        """Start the timeout of a question that is queued after `queued` more bytes."""
        self.question = self.handed + queued
        self.moved_at = now
        self._taken = -1
        self._arrived = self.acknowledged

    def taken(self, now: float) -> None:
        """Note that the transport has written everything that it was handed."""
        # Stop once the question itself has been written. It starts right after byte `question`.
        if self._taken <= self.question:
            self._taken = self.handed
            self.moved_at = now

    def measured(self, unacknowledged: int) -> None:
        """Note the number of handed-over bytes that the peer's system has not acknowledged."""
        # TLS adds overhead, so `unacknowledged` can exceed `handed`.
        self.acknowledged = max(self.handed - unacknowledged, 0)

    def deadline(self, now: float, seconds: float, unanswered: int) -> float:
        """Return the time at which the link counts as dead unless bytes move before.

        Args:
            now: The time.
            seconds: Timeout without progress.
            unanswered: Bytes handed over, up to the question, that the server has not answered.
        """
        if self.acknowledged >= 0:
            if self._arrived < min(self.acknowledged, self.question):
                self.moved_at = now
            self._arrived = max(self.acknowledged, self._arrived)
            if self.acknowledged < self.handed:
                unanswered = 0  # Measurements show the progress of these bytes.
        return self.moved_at + seconds + min(unanswered, MAX_HIDDEN) / RATE
