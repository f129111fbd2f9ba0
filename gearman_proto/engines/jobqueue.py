"""What a job server keeps: functions, the jobs that wait for each, and who sleeps until one comes.

A job is in one state at a time, and in exactly one place for it:

    =========  ==========================================  ======================
    DELAYED    the server's timers, until its epoch        its time, cancelling
    QUEUED     `function.queues[priority]`                 GRAB_JOB, cancelling
    RUNNING    `link.jobs` of the worker that has it       its end, a lost worker
    ENDED      nowhere
    =========  ==========================================  ======================

Until it has ended it is also known by its handle, and by its unique if it has one.

Which job is next: the highest priority first, over all functions of a worker, and the oldest first
within a priority. `rank` says both, so that the next job of a function is the head of its first
queue that is not empty, and the next job of a worker is the smallest of those.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from typing import Any, Final, TypeAlias

HIGH: Final = 0
NORMAL: Final = 1
LOW: Final = 2
_PRIORITIES: Final = 3
# Ranks of one priority; more jobs than a server sees in its life.
_RANKS: Final = 1 << 62


class JobState(enum.Enum):
    """Where a job is."""

    DELAYED = enum.auto()
    QUEUED = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()


#: The unique of a job, or, where that is ``-``, its data as the only element of a tuple.
Key: TypeAlias = "bytes | tuple[bytes, ...]"


def key_of(unique: bytes, data: bytes) -> Key:
    """What submits have to have in common to be joined; empty if they are not."""
    if unique != b"-":
        return unique
    return (data,) if data else b""


# Looking members up in the class takes long.
DELAYED: Final = JobState.DELAYED
QUEUED: Final = JobState.QUEUED
RUNNING: Final = JobState.RUNNING
ENDED: Final = JobState.ENDED


class QueuedJob:
    """A job that a server has."""

    __slots__ = (
        "background",
        "data",
        "denominator",
        "epoch",
        "function",
        "handle",
        "key",
        "limited",
        "listeners",
        "losses",
        "numerator",
        "priority",
        "rank",
        "reducer",
        "size",
        "state",
        "unique",
        "worker",
    )

    def __init__(
        self,
        handle: bytes,
        function: Function,
        unique: bytes,
        data: bytes,
        priority: int,
        key: Key,
        size: int,
    ) -> None:
        self.handle: bytes = handle
        self.function: Function = function
        self.unique: bytes = unique
        self.data: bytes = data
        self.priority: int = priority
        #: What a submit that is joined to it has in common with it; empty if none is.
        self.key: Key = key
        #: Bytes that it takes up.
        self.size: int = size
        self.reducer: bytes = b""
        #: Not to be run before this time, in seconds since 1970; 0 for at once.
        self.epoch: int = 0
        self.state: JobState = DELAYED
        self.rank: int = 0
        #: Whether it is to be run although nobody listens.
        self.background: bool = False
        #: The links that wait for its end, and how many submits of each do.
        self.listeners: dict[Any, int] = {}
        #: The link that runs it.
        self.worker: Any = None
        #: Whether the time is limited that this may take.
        self.limited: bool = False
        #: How often its worker was lost.
        self.losses: int = 0
        self.numerator: int = 0
        self.denominator: int = 0

    @property
    def wanted(self) -> bool:
        """Whether there is a reason to run it."""
        return self.background or bool(self.listeners)


class Function:
    """The jobs of one name."""

    __slots__ = (
        "by_key",
        "delayed",
        "limits",
        "name",
        "queues",
        "running",
        "sleepers",
        "total",
        "workers",
    )

    def __init__(self, name: bytes) -> None:
        self.name: bytes = name
        #: The jobs that can be given out, by priority, each queue in the order of their ranks.
        self.queues: tuple[OrderedDict[QueuedJob, None], ...] = tuple(
            OrderedDict() for _ in range(_PRIORITIES)
        )
        #: All jobs, whatever their state.
        self.total: int = 0
        self.running: int = 0
        self.delayed: int = 0
        #: How many jobs there may be for another one of each priority to be taken, 0 for any
        #: number; None where nothing was said.
        self.limits: tuple[int, int, int] | None = None
        #: What a submit of the same key is joined to.
        self.by_key: dict[Key, QueuedJob] = {}
        #: The links that have registered for it.
        self.workers: dict[Any, None] = {}
        #: Those of them that are to be woken by the next job.
        self.sleepers: dict[Any, None] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is lost by forgetting it."""
        return not self.total and not self.workers and self.limits is None

    def head(self) -> QueuedJob | None:
        """The next job to give out."""
        for queue in self.queues:
            if queue:
                return next(iter(queue))
        return None

    def push(self, job: QueuedJob, order: int) -> None:
        """Put `job` behind all others of its priority; `order` only goes up."""
        job.state = QUEUED
        job.rank = job.priority * _RANKS + order
        self.queues[job.priority][job] = None

    def remove(self, job: QueuedJob) -> None:
        """Take `job` out of its queue."""
        del self.queues[job.priority][job]

    def add(self, job: QueuedJob) -> None:
        """Take note of a new job."""
        self.total += 1
        if job.key:
            self.by_key[job.key] = job

    def forget(self, job: QueuedJob) -> None:
        """A job is no more."""
        self.total -= 1
        if job.key:
            del self.by_key[job.key]
