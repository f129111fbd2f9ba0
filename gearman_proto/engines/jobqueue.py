"""What a job server keeps: functions, the jobs that wait for each, and who has registered for them.

JobQueue is all of it. It knows no connections and sends nothing: whoever listens to a job, runs it
or sleeps is an object that the engine gives (its link). It counts what it keeps in `memory`, to
which the engine adds what its links hold.

A job is in one state at a time, and in exactly one place for it:

    =========  ==========================================  ======================
    DELAYED    the server's timers, until its epoch        its time, cancelling
    QUEUED     `function.queues[priority]`                 GRAB_JOB, cancelling
    RUNNING    `link.jobs` of the worker that has it       its end, a lost worker
    ENDED      nowhere
    =========  ==========================================  ======================

Until it has ended it is also known by its handle, and by its unique if it has one. Where functions
have jobs of the same unique, one of these is in `by_key`, and the others are its namesakes.

Which job is next: the highest priority first, over all functions of a worker, and the oldest first
within a priority. `rank` says both, so that the next job of a function is the head of its first
queue that is not empty, and the next job of a worker is the smallest of those.

A worker may have registered for thousands of functions, of which few have jobs, so nothing goes
through all of them. Each registration is in one of two places: in `function.watchers`, whose links
are to be told when the function gets a job, or, once that has happened, in `link.ready`. All that
asks for the next job looks through `link.ready`, and puts the functions that have none any more
back to `watchers`. A worker sleeps only if nothing is ready for it, so it is told of the next job
of any of its functions. Whatever is moved was put where it was by a packet, so that the cost of a
packet does not depend on how many functions there are.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from gearman_proto.constants import MAX_HANDLE_SIZE

from .timers import Timers

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator

HIGH: Final = 0
NORMAL: Final = 1
LOW: Final = 2
_PRIORITIES: Final = 3
# Ranks of one priority; more jobs than a server sees in its life.
_RANKS: Final = 1 << 62

# Bytes that each takes up beside its names and data: a job, a link that waits for it, a function,
# a registration for one.
JOB_SIZE: Final = 1024
LISTENER_SIZE: Final = 256
FUNCTION_SIZE: Final = 2048
ABILITY_SIZE: Final = 512
# Functions are kept for the lists, as gearmand does, but names that are made up for one job each
# must not pile up.
MANY_FUNCTIONS: Final = 10_000


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


# Digits of the number in a handle.
_DIGITS: Final = 12
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")


def make_handles(host: str, rng: random.Random) -> Iterator[bytes]:
    """Yield the handles of a server's life, ``H:host:number``, which is how PHP expects them.

    All have one length: the client of libgearman 2.0 takes a handle for another one that begins
    with it, and gives the result to the wrong job. The numbers begin anywhere, so that a handle
    that a client has kept is not another job's after a restart.

    Args:
        host: The name of this machine. What servers' text replies have no place for is made a
            hyphen, and what is more than a handle holds is cut.
        rng: Where chance comes from.
    """
    room = MAX_HANDLE_SIZE - len("H::") - _DIGITS
    name = _NO_NAME.sub("-", host)[:room] or "localhost"
    count = 10**_DIGITS
    first = rng.randrange(count)
    numbers = itertools.chain(range(first, count), range(count))
    template = b"H:%b:%%0%dd" % (name.encode(), _DIGITS)
    return map(template.__mod__, numbers)


FULL: Final = b"The memory of the server is full"

# Looking members up in the class takes long.
DELAYED: Final = JobState.DELAYED
QUEUED: Final = JobState.QUEUED
RUNNING: Final = JobState.RUNNING
ENDED: Final = JobState.ENDED


class QueuedJob:
    """A job that a server has."""

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
        #: True if it is to be run although nobody listens.
        self.background: bool = False
        #: The links that wait for its end, and how many submits of each do; how many do in all.
        self.listeners: dict[Any, int] = {}
        self.attached: int = 0
        #: The link that runs it.
        self.worker: Any = None
        #: True while its worker has a time limit for it.
        self.limited: bool = False
        #: How often its worker was lost.
        self.losses: int = 0
        self.numerator: int = 0
        self.denominator: int = 0

    @property
    def wanted(self) -> bool:
        """Whether there is a reason to run it."""
        return self.background or bool(self.listeners)


class Registered(Protocol):
    """A link, as far as it is a worker."""

    #: What it has registered for, with the seconds that a job may take (0: any).
    abilities: dict[Function, float]
    #: Those of them that may have jobs to give out.
    ready: dict[Function, None]
    #: True from PRE_SLEEP until it is woken.
    asleep: bool
    #: Bytes that its registrations take up.
    registered: int


class Function:
    """The jobs of one name."""

    __slots__ = (
        "delayed",
        "limits",
        "name",
        "next_job",
        "queues",
        "running",
        "total",
        "watchers",
        "workers",
    )

    def __init__(self, name: bytes) -> None:
        self.name: bytes = name
        #: The jobs that can be given out, by priority, each queue in the order of their ranks.
        self.queues: tuple[OrderedDict[QueuedJob, None], ...] = tuple(
            OrderedDict() for _ in range(_PRIORITIES)
        )
        #: The one of them that is given out next.
        self.next_job: QueuedJob | None = None
        #: All jobs, whatever their state.
        self.total: int = 0
        self.running: int = 0
        self.delayed: int = 0
        #: How many jobs there may be for another one of each priority to be taken, 0 for any
        #: number; None where nothing was said.
        self.limits: tuple[int, int, int] | None = None
        #: How many links have registered for it.
        self.workers: int = 0
        #: Those of them that are to be told when there is a job to give out.
        self.watchers: dict[Any, None] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is lost by forgetting it."""
        return not self.total and not self.workers and self.limits is None

    def push(self, job: QueuedJob, order: int) -> None:
        """Put `job` behind all others of its priority; `order` only goes up."""
        job.state = QUEUED
        rank = job.rank = job.priority * _RANKS + order
        self.queues[job.priority][job] = None
        if self.next_job is None or rank < self.next_job.rank:
            self.next_job = job

    def remove(self, job: QueuedJob) -> None:
        """Take `job` out of its queue."""
        del self.queues[job.priority][job]
        if job is self.next_job:
            self.next_job = None
            for queue in self.queues:
                if queue:
                    self.next_job = next(iter(queue))
                    break


class QueueFullError(Exception):
    """A job was not taken; the message is what the server says about it."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.text = text


class JobQueue:
    """The functions and jobs of a server.

    Args:
        handles: The handles of the jobs that will come.
        wall_clock: Returns seconds since 1970.
        max_memory: Bytes. Jobs may take three quarters of it, one job a quarter.
        max_queue_size: How many jobs a function may have, unless something else was said about it;
            0 for any number.

    Attributes:
        functions: The functions, by name.
        jobs: The jobs that have not ended, by handle.
        by_key: Those that others may be joined to, by what these have to have in common: any one of
            each key.
        memory: Bytes that are kept, for jobs, functions and links.
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
        # The other jobs of a key, by the names of their functions.
        self._namesakes: dict[Key, dict[bytes, QueuedJob]] = {}
        # Functions that may be idle: all that are, and some that were.
        self._idle: dict[Function, None] = {}
        self._handles = handles
        self._wall_clock = wall_clock
        self._limits = (max_queue_size,) * 3
        # The part of the memory that is left to workers and packets, and the other.
        self._reserve = max_memory // 4
        self._room = max_memory - self._reserve
        self._many_functions = MANY_FUNCTIONS
        self._order = 0
        # Jobs for later, by the wall clock; those of them that are due.
        self._delayed = Timers()
        self._due: list[QueuedJob] = []

    def clear(self) -> None:
        """Forget everything."""
        self.functions.clear()
        self.jobs.clear()
        self.by_key.clear()
        self._namesakes.clear()
        self._idle.clear()
        self.memory = 0

    # Functions.

    def function(self, name: bytes) -> Function:
        """The function of this name; a new one if there is none."""
        function = self.functions.get(name)
        if function is None:
            if len(self.functions) >= self._many_functions:
                self.drop_idle_functions()
                # So that this is not done again for each of those that are not idle.
                self._many_functions = max(MANY_FUNCTIONS, 2 * len(self.functions))
            function = self.functions[name] = Function(name)
            self._idle[function] = None
            self.memory += len(name) + FUNCTION_SIZE
        return function

    def drop_idle_functions(self) -> None:
        """Forget the functions that nobody would miss."""
        functions, self._idle = self._idle, {}
        for function in functions:
            if function.idle:
                self.drop_function(function)

    def drop_function(self, function: Function) -> None:
        """Forget a function that has neither jobs nor workers."""
        del self.functions[function.name]
        self._idle.pop(function, None)
        self.memory -= len(function.name) + FUNCTION_SIZE

    def has_room(self, size: int) -> bool:
        """Whether something of `size` bytes may be kept that is neither a worker nor a packet."""
        if size > self._reserve:
            return False  # It could never be given out.
        if self.memory + size > self._room:
            self.drop_idle_functions()
        return self.memory + size <= self._room

    # Workers.

    def register(self, link: Registered, name: bytes, seconds: float) -> Function:
        """`link` takes jobs of the function `name`. Each may take so long; 0 is any time."""
        function = self.function(name)
        if function in link.abilities:
            del link.abilities[function]  # It becomes the latest.
        else:
            size = ABILITY_SIZE + len(name)
            link.registered += size
            self.memory += size
            function.workers += 1
            if function.next_job is None:
                function.watchers[link] = None
            else:
                link.ready[function] = None
        link.abilities[function] = seconds
        return function

    def unregister(self, link: Registered, function: Function) -> None:
        """`link` takes no more jobs of `function`."""
        del link.abilities[function]
        link.ready.pop(function, None)
        function.watchers.pop(link, None)
        function.workers -= 1
        size = ABILITY_SIZE + len(function.name)
        link.registered -= size
        self.memory -= size
        if not function.workers and not function.total:
            self._idle[function] = None

    # Jobs.

    def find(self, name: bytes, key: Key) -> QueuedJob | None:
        """The job of the function `name` that a submit of `key` is joined to, if there is one."""
        job = self.by_key.get(key)
        if job is None or job.function.name == name:
            return job
        namesakes = self._namesakes.get(key)
        return namesakes.get(name) if namesakes is not None else None

    def add(self, name: bytes, unique: bytes, data: bytes, key: Key, priority: int) -> QueuedJob:
        """Return a new job of the function `name`; `put` has to follow.

        Raises:
            QueueFullError: There is no room for it.
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
        """Give `job` out to whoever asks, from its epoch on. Returns whom to wake."""
        function = job.function
        if job.epoch:
            function.delayed += 1
            self._delayed.set(job, job.epoch, self._on_epoch)
            return ()
        self._order += 1
        function.push(job, self._order)
        if not function.watchers:
            return ()
        watchers, function.watchers = function.watchers, {}
        for link in watchers:
            link.ready[function] = None
        return [link for link in watchers if link.asleep]

    def seconds_to_epoch(self) -> float | None:
        """How long it is until a job for later is due, by the wall clock; None if there is none."""
        epoch = self._delayed.next_deadline()
        return None if epoch is None else max(epoch - self._wall_clock(), 0.0)

    def take_due(self, most: int) -> list[QueuedJob]:
        """Return the jobs for later that are due, so many at most; `put` has to follow."""
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
        """A submit of `link` waits for the end of `job`."""
        job.attached += 1
        if link in job.listeners:
            job.listeners[link] += 1
        else:
            job.listeners[link] = 1
            job.size += LISTENER_SIZE
            self.memory += LISTENER_SIZE

    def stop_listening(self, job: QueuedJob, link: Any) -> None:
        """`link` waits for `job` no more, which is forgotten if nobody wants it."""
        job.attached -= job.listeners.pop(link)
        job.size -= LISTENER_SIZE
        self.memory -= LISTENER_SIZE
        if not job.wanted and job.state is not RUNNING:
            self.forget(job)

    def next_job(self, link: Registered) -> QueuedJob | None:
        """The next job for the worker `link`, or None."""
        best = None
        idle = None
        for function in link.ready:
            job = function.next_job
            if job is None:
                idle = function
            elif best is None or job.rank < best.rank:
                best = job
        if idle is not None:
            for function in [each for each in link.ready if each.next_job is None]:
                del link.ready[function]
                function.watchers[link] = None
        return best

    def assign(self, job: QueuedJob, link: Any) -> None:
        """Give `job`, which is QUEUED, to the worker `link`."""
        function = job.function
        function.remove(job)
        function.running += 1
        job.state = RUNNING
        job.worker = link

    def take_back(self, job: QueuedJob) -> None:
        """`job` is with no worker any more: `put` or `forget` has to follow."""
        job.function.running -= 1
        job.worker = None

    def forget(self, job: QueuedJob) -> None:
        """`job` has ended, or nobody wants it any more. It is with no worker."""
        if job.state is QUEUED:
            job.function.remove(job)
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
