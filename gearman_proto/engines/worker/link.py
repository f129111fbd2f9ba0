"""The states of a worker and of its links to servers.

An open link goes through phases. PHASES lists the allowed transitions and their causes. The loss
of the link can end any phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gearman_proto.engines.connecting import OutgoingLink
from gearman_proto.engines.states import State
from gearman_proto.wire.packets import Role

if TYPE_CHECKING:
    from collections import deque

    from gearman_proto.engines.servers import Server
    from gearman_proto.engines.states import StateTable
    from gearman_proto.engines.waits import Wait
    from gearman_proto.jobs.job import WorkerJob


class Phase(State):
    """The phase of an open link."""

    RESTING = "no function is wanted, or the worker is paused or stops"
    QUEUED = "queued for a free slot, or for a call of `grab`"
    GRABBING = "GRAB_JOB was sent, and reserves a slot"
    LATE = "GRAB_JOB has been unanswered for a second, and no longer reserves a slot"
    ASLEEP = "PRE_SLEEP was sent after NO_JOB"
    BACKOFF = "too many NOOPs without a job"
    LAST_GRAB = "the worker stops, but the answer to GRAB_JOB might be a job"
    LEAVING = "the worker stops, and ECHO_REQ was sent after the last result"


# Enum attribute lookup is slow before Python 3.12.
RESTING: Final = Phase.RESTING
QUEUED: Final = Phase.QUEUED
GRABBING: Final = Phase.GRABBING

PHASES: Final[StateTable[Phase]] = {
    Phase.RESTING: {
        Phase.RESTING: "still nothing to grab",
        Phase.QUEUED: "register, resume, end of a job",
        Phase.ASLEEP: "NO_JOB",
        Phase.LEAVING: "stop",
    },
    Phase.QUEUED: {
        Phase.GRABBING: "free slot",
        Phase.RESTING: "pause, unregister, stop",
        Phase.LEAVING: "stop",
    },
    Phase.GRABBING: {
        Phase.RESTING: "NO_JOB, JOB_ASSIGN",
        Phase.LATE: "timeout",
        Phase.LAST_GRAB: "stop",
    },
    Phase.LATE: {
        Phase.RESTING: "NO_JOB, JOB_ASSIGN",
        Phase.LAST_GRAB: "stop",
    },
    Phase.ASLEEP: {
        Phase.QUEUED: "NOOP, register, resume, timeout",
        Phase.BACKOFF: "NOOP without a job",
        Phase.RESTING: "pause, unregister, stop",
        Phase.LEAVING: "stop",
    },
    Phase.BACKOFF: {
        Phase.QUEUED: "timeout, register, resume",
        Phase.RESTING: "pause, unregister, stop",
        Phase.LEAVING: "stop",
    },
    Phase.LAST_GRAB: {
        Phase.RESTING: "NO_JOB, JOB_ASSIGN",
        Phase.LAST_GRAB: "end of another job",
    },
    Phase.LEAVING: {},
}


class WorkerLife(State):
    """The state of a worker."""

    IDLE = "`work` is not running"
    TOLD_TO_STOP = "stopped: the next `work` and all calls of `grab` return immediately"
    WORKING = "does jobs"
    PULLING = "asks for one job per call of `grab`"
    STOPPING = "finishes its jobs, then `work` or `grab` returns"
    CLOSED = "closed for good"


WORKING: Final = WorkerLife.WORKING
PULLING: Final = WorkerLife.PULLING

WORKER_LIVES: Final[StateTable[WorkerLife]] = {
    WorkerLife.IDLE: {
        WorkerLife.WORKING: "work",
        WorkerLife.PULLING: "grab",
        WorkerLife.TOLD_TO_STOP: "stop",
        WorkerLife.CLOSED: "close",
    },
    WorkerLife.TOLD_TO_STOP: {
        WorkerLife.TOLD_TO_STOP: "stop",
        WorkerLife.STOPPING: "work",
        WorkerLife.CLOSED: "close",
    },
    WorkerLife.WORKING: {
        WorkerLife.STOPPING: "stop, a hook that returns false",
        WorkerLife.IDLE: "end_work",
        WorkerLife.CLOSED: "close",
    },
    WorkerLife.PULLING: {
        WorkerLife.STOPPING: "stop",
        WorkerLife.IDLE: "no server could be reached",
        WorkerLife.CLOSED: "close",
    },
    WorkerLife.STOPPING: {
        WorkerLife.IDLE: "end_work",
        WorkerLife.TOLD_TO_STOP: "the last job of `grab` has ended",
        WorkerLife.CLOSED: "close",
    },
    WorkerLife.CLOSED: {WorkerLife.CLOSED: "close"},
}


class WorkerLink(OutgoingLink):
    """One connection to a server, or the attempt to make one.

    Args:
        server: The server.
        max_packet_size: Size limit of a packet in bytes; see Connection.
        dropped: Receives the references to garbage-collected handles of deferred jobs.
    """

    __slots__ = (
        "confirmed",
        "confirmed_bytes",
        "dropped",
        "fruitless",
        "grabbed_after",
        "grabs",
        "jobs",
        "next_grabs",
        "phase",
        "reason",
        "received_size",
        "registered",
        "results",
        "serves",
        "since",
        "unsent",
        "unsent_size",
        "waits",
    )

    def __init__(self, server: Server, max_packet_size: int, dropped: deque[Any]) -> None:
        super().__init__(server, Role.WORKER, max_packet_size)
        self.dropped: deque[Any] = dropped
        self.phase: Phase = Phase.RESTING
        #: The reason for the loss of the connection.
        self.reason: str = ""
        #: Start of the phase, in the engine's time.
        self.since: float = 0.0
        #: Number of bytes of an incomplete packet at the last check of a late answer.
        self.received_size: int = 0
        #: The functions registered at the server, with their time limits in milliseconds or None.
        self.registered: dict[bytes, int | None] = {}
        #: True if the engine wants any of these functions.
        self.serves: bool = False
        #: The jobs from this server that have not ended.
        self.jobs: dict[WorkerJob, None] = {}
        #: The number of unanswered GRAB_JOB, and the number to send next time if slots are free.
        self.grabs: int = 0
        self.next_grabs: int = 1
        #: The number of successive PRE_SLEEP that were answered by a NOOP without a job.
        self.fruitless: int = 0
        #: The number of results sent (`results`), the number sent before the last GRAB_JOB
        #: (`grabbed_after`), and the number that the server has certainly received, because it has
        #: answered a later packet (`confirmed`).
        self.results: int = 0
        self.grabbed_after: int = 0
        self.confirmed: int = 0
        #: The number of bytes that the server has certainly received, for the same reason.
        self.confirmed_bytes: int = 0
        #: Packets to send, with large payloads as separate items, and their total size in bytes.
        self.unsent: list[bytes | memoryview] = []
        self.unsent_size: int = 0
        #: Calls that wait until the link has fewer unsent bytes.
        self.waits: list[Wait] = []

    def __repr__(self) -> str:
        phase = self.phase if self.is_up else self.state
        return f"<WorkerLink to {self.address}, {phase.name.lower()}>"
