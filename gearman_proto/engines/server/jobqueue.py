"""The functions and jobs of a job server, and the workers registered for each function.

JobQueue manages them. It has no connections and sends nothing. Clients and workers are opaque
objects that the engine passes in (its links). `memory` counts the bytes that the queue uses, and
the engine adds the bytes that its links hold.

A job is in one state at a time, and in the one place that belongs to it:

    =======  ==========================  ==========================
    state    place                       ends with
    =======  ==========================  ==========================
    DELAYED  `JobQueue._delayed`         the epoch, cancellation
    QUEUED   `function.queues`           GRAB_JOB, cancellation
    RUNNING  `link.jobs` of the worker   its result, a lost worker
    ENDED    none
    =======  ==========================  ==========================

Until a job ends, it can also be found by its handle, and by its key if it has one. If jobs of
several functions have the same key, `by_key` has one of them. `_namesakes` has the others.

Jobs run in the order of their priority, across all functions of a worker. Among jobs of the same
priority, the oldest runs first, unless more than MOST_CANDIDATES functions have one.

A worker can register for thousands of functions, so no packet may cause a scan of all functions of
a worker. For each priority, a registration is in one of two places: `function.watchers` until the
function gets a job of this priority, then `link.ready`. `next_job` compares the oldest jobs of a
few functions in `link.ready`, and moves functions without jobs back to `watchers`. A worker sleeps
only while its `link.ready` is empty, so the next job of any of its functions wakes it. One packet
pays for each move into `link.ready`, and so for the move back. The amortized cost of a packet thus
does not depend on the number of functions.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from gearman_proto.constants import MAX_HANDLE_SIZE
from gearman_proto.engines.timers import Timers

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator

HIGH: Final = 0
NORMAL: Final = 1
LOW: Final = 2
PRIORITIES: Final = range(3)
# Maximum number of functions whose oldest jobs a grab compares. The function of the assigned job
# then becomes the last in `link.ready`.
MOST_CANDIDATES: Final = 20

# Approximate size in bytes of a job, a listener, a function, and a registration, in addition to
# their names and data.
JOB_SIZE: Final = 1024
LISTENER_SIZE: Final = 256
FUNCTION_SIZE: Final = 2048
ABILITY_SIZE: Final = 512
# Number of functions above which idle ones are dropped. As in gearmand, idle functions stay in the
# admin lists, but clients that make up a function name for every job must not fill the memory.
MANY_FUNCTIONS: Final = 10_000


class JobState(enum.Enum):
    """State of a job."""

    DELAYED = enum.auto()
    QUEUED = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()


#: The unique of a job. If that is ``-``, a tuple with the job's data as its only element.
Key: TypeAlias = "bytes | tuple[bytes, ...]"


def key_of(unique: bytes, data: bytes) -> Key:
    """Return the key for coalescing submits. A submit with an empty key is never coalesced."""
    if unique != b"-":
        return unique
    return (data,) if data else b""


# Number of digits in a handle.
_DIGITS: Final = 12
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")


def make_handles(host: str, rng: random.Random) -> Iterator[bytes]:
    """Return an iterator over the handles of a server run, ``H:host:number``, as PHP expects them.

    All handles have the same length. The client of libgearman 2.0.0 confuses a handle with a longer
    one that starts with it, and gives the result to the wrong job. The numbers start at random, so
    that a handle from before a restart does not refer to another job afterwards.

    Args:
        host: The name of this machine. Characters that would break text replies become hyphens, and
            a name that is too long for a handle is truncated.
        rng: The random number generator.
    """
    room = MAX_HANDLE_SIZE - len("H::") - _DIGITS
    name = _NO_NAME.sub("-", host)[:room] or "localhost"
    count = 10**_DIGITS
    first = rng.randrange(count)
    numbers = itertools.chain(range(first, count), range(count))
    template = b"H:%b:%%0%dd" % (name.encode(), _DIGITS)
    return map(template.__mod__, numbers)


FULL: Final = b"The memory of the server is full"

# Enum attribute lookup is slow before Python 3.12.
DELAYED: Final = JobState.DELAYED
QUEUED: Final = JobState.QUEUED
RUNNING: Final = JobState.RUNNING
ENDED: Final = JobState.ENDED


class QueuedJob:
    """A job of a server."""

    __slots__ = (
        "attached",
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
        "order",
        "priority",
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
        #: Submits with this key join this job. If the key is empty, none does.
        self.key: Key = key
        #: Bytes that the job uses, including its listeners.
        self.size: int = size
        self.reducer: bytes = b""
        #: Earliest time to run the job, in seconds since 1970 (0 means immediately).
        self.epoch: int = 0
        self.state: JobState = DELAYED
        #: Its place among the QUEUED jobs of its priority. Older jobs have lower numbers.
        self.order: int = 0
        #: True if the job runs even without listeners.
        self.background: bool = False
        #: Number of foreground submits by link, for each link that waits for the job's end.
        self.listeners: dict[Any, int] = {}
        #: Total number of these submits.
        self.attached: int = 0
        #: The link of the worker that runs the job.
        self.worker: Any = None
        #: True while the job runs with a time limit.
        self.limited: bool = False
        #: Number of times that a worker of the job was lost or timed out.
        self.losses: int = 0
        self.numerator: int = 0
        self.denominator: int = 0

    @property
    def wanted(self) -> bool:
        """True if the job has a listener or is a background job."""
        return self.background or bool(self.listeners)


class Registered(Protocol):
    """The link of a worker."""

    #: The worker's functions, each with the time limit of a job in seconds (0 means unlimited).
    abilities: dict[Function, float]
    #: For each priority, the functions in `abilities` that might have queued jobs.
    ready: tuple[dict[Function, None], ...]
    #: True from PRE_SLEEP until the worker is woken.
    asleep: bool
    #: Bytes that the registrations use.
    registered: int


class Function:
    """A function, its jobs, and its workers."""

    __slots__ = (
        "delayed",
        "limits",
        "name",
        "queues",
        "running",
        "total",
        "watchers",
        "workers",
    )

    def __init__(self, name: bytes) -> None:
        self.name: bytes = name
        #: The QUEUED jobs, one queue per priority.
        self.queues: tuple[OrderedDict[QueuedJob, None], ...] = tuple(
            OrderedDict() for _ in PRIORITIES
        )
        #: Number of jobs in any state.
        self.total: int = 0
        self.running: int = 0
        self.delayed: int = 0
        #: Maximum of `total`, by the priority of a new job (0 means unlimited), or None if
        #: ``maxqueue`` was never used.
        self.limits: tuple[int, int, int] | None = None
        #: Number of registered workers.
        self.workers: int = 0
        #: For each priority, the workers to notify of the next job.
        self.watchers: tuple[dict[Any, None], ...] = tuple({} for _ in PRIORITIES)

    @property
    def idle(self) -> bool:
        """True if the function can be dropped without loss."""
        return not self.total and not self.workers and self.limits is None


class QueueFullError(Exception):
    """Raised when a job is refused. `text` is the text of the ERROR packet."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.text = text


class JobQueue:
    """The functions and jobs of a server.

    Args:
        handles: The handles of future jobs.
        wall_clock: Returns the seconds since 1970.
        max_memory: Memory limit, in bytes. Jobs can use three quarters of it, and a single job one
            quarter.
        max_queue_size: Maximum number of jobs of a function, unless `Function.limits` is set. 0
            means unlimited.

    Attributes:
        functions: The functions, by name.
        jobs: The jobs that have not ended, by handle.
        by_key: One job of each key that is not empty.
        memory: Bytes that jobs, functions, and links use.
    """

    def __init__(
        self,
        handles: Iterator[bytes],
        wall_clock: Callable[[], float],
        max_memory: int,
        max_queue_size: int,
    ) -> None:
        self.functions: dict[bytes, Function] = {}
        self.jobs: dict[bytes, QueuedJob] = {}
        self.by_key: dict[Key, QueuedJob] = {}
        self.memory: int = 0
        # The other jobs of each key, by function name.
        self._namesakes: dict[Key, dict[bytes, QueuedJob]] = {}
        # All idle functions, and some that are in use again.
        self._idle: dict[Function, None] = {}
        self._handles = handles
        self._wall_clock = wall_clock
        self._limits = (max_queue_size,) * 3
        # Bytes reserved for workers and packets, and the rest.
        self._reserve = max_memory // 4
        self._room = max_memory - self._reserve
        self._many_functions = MANY_FUNCTIONS
        self._order = 0
        # The DELAYED jobs by epoch, and those that have just become due.
        self._delayed = Timers()
        self._due: list[QueuedJob] = []

    def clear(self) -> None:
        """Remove all functions and jobs."""
        self.functions.clear()
        self.jobs.clear()
        self.by_key.clear()
        self._namesakes.clear()
        self._idle.clear()
        self.memory = 0

    # Functions.

    def function(self, name: bytes) -> Function:
        """Return the function `name`, creating it if it does not exist."""
        function = self.functions.get(name)
        if function is None:
            if len(self.functions) >= self._many_functions:
                self.drop_idle_functions()
                # Don't scan again for every new function if most are in use.
                self._many_functions = max(MANY_FUNCTIONS, 2 * len(self.functions))
            function = self.functions[name] = Function(name)
            self._idle[function] = None
            self.memory += len(name) + FUNCTION_SIZE
        return function

    def drop_idle_functions(self) -> None:
        """Drop all idle functions."""
        functions, self._idle = self._idle, {}
        for function in functions:
            if function.idle:
                self.drop_function(function)

    def drop_function(self, function: Function) -> None:
        """Drop `function`, which has neither jobs nor workers."""
        del self.functions[function.name]
        self._idle.pop(function, None)
        self.memory -= len(function.name) + FUNCTION_SIZE

    def has_room(self, size: int) -> bool:
        """Return whether `size` more bytes fit in the memory that is not reserved.

        Drop idle functions if necessary.
        """
        if size > self._reserve:
            return False  # The packet for the worker would exceed the reserve.
        if self.memory + size > self._room:
            self.drop_idle_functions()
        return self.memory + size <= self._room

    # Workers.

    def register(self, link: Registered, name: bytes, seconds: float) -> Function:
        """Register the worker `link` for the function `name`, and return the function.

        `seconds` is the time limit of each job (0 means unlimited).
        """
        function = self.function(name)
        if function in link.abilities:
            del link.abilities[function]  # The assignment below then appends it.
        else:
            size = ABILITY_SIZE + len(name)
            link.registered += size
            self.memory += size
            function.workers += 1
            for queue, watchers, ready in zip(function.queues, function.watchers, link.ready):
                if queue:
                    ready[function] = None
                else:
                    watchers[link] = None
        link.abilities[function] = seconds
        return function

    def unregister(self, link: Registered, function: Function) -> None:
        """Unregister the worker `link` from `function`."""
        del link.abilities[function]
        for watchers, ready in zip(function.watchers, link.ready):
            watchers.pop(link, None)
            ready.pop(function, None)
        function.workers -= 1
        size = ABILITY_SIZE + len(function.name)
        link.registered -= size
        self.memory -= size
        if not function.workers and not function.total:
            self._idle[function] = None

    # Jobs.

    def find(self, name: bytes, key: Key) -> QueuedJob | None:
        """Return the job of the function `name` with this key, or None."""
        job = self.by_key.get(key)
        if job is None or job.function.name == name:
            return job
        namesakes = self._namesakes.get(key)
        return namesakes.get(name) if namesakes is not None else None

    def add(self, name: bytes, unique: bytes, data: bytes, key: Key, priority: int) -> QueuedJob:
        """Return a new job of the function `name`. The caller then calls `put`.

        Raises:
            QueueFullError: The memory or the function's queue is full.
        """
        size = JOB_SIZE + len(name) + len(unique) + len(data)
        full = size > self._reserve or self.memory + size > self._room
        if full and not self.has_room(size):
            raise QueueFullError(FULL)
        function = self.function(name)
        limit = (function.limits or self._limits)[priority]
        if limit and function.total >= limit:
            raise QueueFullError(b"Job queue is full")
        handle = next(self._handles)
        job = self.jobs[handle] = QueuedJob(handle, function, unique, data, priority, key, size)
        self.memory += size
        function.total += 1
        if key and self.by_key.setdefault(key, job) is not job:
            self._namesakes.setdefault(key, {})[name] = job
        return job

    def put(self, job: QueuedJob) -> Iterable[Any]:
        """Queue `job`, or delay it until its epoch. Return the workers to wake."""
        function = job.function
        if job.epoch:
            function.delayed += 1
            self._delayed.set(job, job.epoch, self._on_epoch)
            return ()
        self._order += 1
        job.order = self._order
        job.state = QUEUED
        priority = job.priority
        function.queues[priority][job] = None
        watchers = function.watchers[priority]
        if not watchers:
            return ()
        asleep = []
        for link in watchers:
            link.ready[priority][function] = None
            if link.asleep:
                asleep.append(link)
        watchers.clear()
        return asleep

    def seconds_to_epoch(self) -> float | None:
        """Return the seconds until the next DELAYED job is due, or None if there is none."""
        epoch = self._delayed.next_deadline()
        return None if epoch is None else max(epoch - self._wall_clock(), 0.0)

    def take_due(self, most: int) -> list[QueuedJob]:
        """Return up to `most` DELAYED jobs that are due. The caller then calls `put` for each."""
        now = self._wall_clock()
        while len(self._due) < most and self._delayed.expire_one(now):
            pass
        due, self._due = self._due, []
        return due

    def _on_epoch(self, job: QueuedJob, _: float) -> None:
        job.function.delayed -= 1
        job.epoch = 0
        self._due.append(job)

    def listen(self, job: QueuedJob, link: Any) -> None:
        """Add a submit of `link` to the listeners of `job`."""
        job.attached += 1
        if link in job.listeners:
            job.listeners[link] += 1
        else:
            job.listeners[link] = 1
            job.size += LISTENER_SIZE
            self.memory += LISTENER_SIZE

    def stop_listening(self, job: QueuedJob, link: Any) -> None:
        """Remove `link` from the listeners of `job`.

        Drop the job if it is no longer wanted, unless it is running.
        """
        job.attached -= job.listeners.pop(link)
        job.size -= LISTENER_SIZE
        self.memory -= LISTENER_SIZE
        if not job.wanted and job.state is not RUNNING:
            self.forget(job)

    def next_job(self, link: Registered) -> tuple[QueuedJob | None, int]:
        """Return the next job for the worker `link`, or None; and the number of functions checked.

        The candidates are the first functions of `link.ready` that have jobs.
        """
        checked = 0
        for priority, ready in enumerate(link.ready):
            if not ready:
                continue
            best = None
            candidates, idle = 0, []
            for function in ready:
                queue = function.queues[priority]
                if not queue:
                    idle.append(function)
                    continue
                job = next(iter(queue))
                if best is None or job.order < best.order:
                    best = job
                candidates += 1
                if candidates == MOST_CANDIDATES:
                    break
            for function in idle:
                del ready[function]
                function.watchers[priority][link] = None
            checked += candidates + len(idle)
            if best is not None:
                return best, checked
        return None, checked

    def assign(self, job: QueuedJob, link: Any) -> None:
        """Assign `job`, which is QUEUED, to the worker `link`."""
        function = job.function
        del function.queues[job.priority][job]
        # Let other functions become candidates.
        ready = link.ready[job.priority]
        if len(ready) > MOST_CANDIDATES:
            del ready[function]
            ready[function] = None
        function.running += 1
        job.state = RUNNING
        job.worker = link

    def take_back(self, job: QueuedJob) -> None:
        """Take `job` from its worker. The caller then calls `put` or `forget`."""
        job.function.running -= 1
        job.worker = None

    def forget(self, job: QueuedJob) -> None:
        """Remove `job`, which has ended or is no longer wanted, and has no worker."""
        if job.state is QUEUED:
            del job.function.queues[job.priority][job]
        elif job.state is DELAYED:
            job.function.delayed -= 1
            self._delayed.cancel(job)
        job.state = ENDED
        for link in job.listeners:
            del link.listening[job]
        job.listeners.clear()
        function = job.function
        function.total -= 1
        if not function.total and not function.workers:
            self._idle[function] = None
        del self.jobs[job.handle]
        if job.key in self._namesakes:
            self._forget_namesake(job)
        elif job.key:
            del self.by_key[job.key]
        self.memory -= job.size

    def _forget_namesake(self, job: QueuedJob) -> None:
        key, namesakes = job.key, self._namesakes[job.key]
        if self.by_key[key] is job:
            _, self.by_key[key] = namesakes.popitem()
        else:
            del namesakes[job.function.name]
        if not namesakes:
            del self._namesakes[key]
