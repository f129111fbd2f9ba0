"""How far the bytes that were sent on a link have got, so that a slow link is not taken for dead.

An engine asks a question (GRAB_JOB, ECHO_REQ, GET_STATUS) and waits for the answer. On a slow link
the question may be queued after megabytes of jobs or results, so the time for the answer starts
again whenever a part of the bytes before the question moves on:

=============  =============================================  ==================================
bytes are      until                                          seen by
=============  =============================================  ==================================
handed over    the transport asks for more (`data_to_send`)   every driver
on their way   the peer's system acknowledges them            a driver that calls `measured`
with the peer  it answers                                     `receive_data`
=============  =============================================  ==================================

A system, or a tunnel on the way (stunnel, ssh), takes bytes long before the server has them. Where
nothing can be seen of that, the server gets the time that the unanswered bytes need at `RATE`. That
is the price of patience: a server that hangs just after a large submit is noticed later.

Bytes that were sent after the question are no sign of life: the system of a stopped process
acknowledges them, too, until its buffer is full.
"""

from __future__ import annotations

from typing import Final

#: Bytes per second that the slowest healthy link transfers.
RATE: Final = 20_000
#: Bytes that the systems and tunnels between this program and the server can hold.
MAX_HIDDEN: Final = 8 * 1024 * 1024


class Delivery:
    """The bytes of one link, and the question whose answer is awaited.

    Attributes:
        acknowledged: Bytes that the peer's system had acknowledged at the last measurement; -1
            where the driver does not measure.
        handed: Bytes handed to the transport.
        question: Bytes that were queued before the question.
        moved_at: When one of them was last seen to move on, in the engine's time; at first, when
            the question was asked.
    """

    __slots__ = ("_arrived", "_taken", "acknowledged", "handed", "moved_at", "question")

    def __init__(self) -> None:
        self.acknowledged: int = -1
        self.handed: int = 0
        self.question: int = 0
        self.moved_at: float = 0.0
        # Bytes that the transport has written, and that the peer's system had acknowledged at the
        # last check.
        self._taken = -1
        self._arrived = -1

    def ask(self, queued: int, now: float) -> None:
        """Ask a question that is sent after `queued` more bytes."""
        self.question = self.handed + queued
        self.moved_at = now
        self._taken = -1
        self._arrived = self.acknowledged

    def taken(self, now: float) -> None:
        """Note that the transport has written everything that it was handed."""
        # Until the question itself is written, which is the byte after those before it.
        if self._taken <= self.question:
            self._taken = self.handed
            self.moved_at = now

    def measured(self, unacknowledged: int) -> None:
        """Note how many of the bytes handed over the peer's system has not acknowledged."""
        # TLS adds some bytes to those that were handed over.
        self.acknowledged = max(self.handed - unacknowledged, 0)

    def deadline(self, now: float, seconds: float, unanswered: int) -> float:
        """Return when the link is dead unless something moves before.

        Args:
            now: The time.
            seconds: How long nothing may move.
            unanswered: Bytes handed over, up to the question, that the server has not answered.
        """
        if self.acknowledged >= 0:
            if self._arrived < min(self.acknowledged, self.question):
                self.moved_at = now
            self._arrived = max(self.acknowledged, self._arrived)
            if self.acknowledged < self.handed:
                unanswered = 0  # They are on their way to the peer's system, and can be watched.
        return self.moved_at + seconds + min(unanswered, MAX_HIDDEN) / RATE
