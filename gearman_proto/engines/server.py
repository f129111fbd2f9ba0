"""Tier 2, the job server: everything that it decides, without I/O.

It is for development, tests, and small use on a single machine: nothing is kept on disk, so what is
queued ends with the process. In production use gearmand, with one of its persistent queues.

It does what gearmand 1.1.21 does, but for what are gearmand's faults; docs/server.md has the list.

Order
    Everything is carried out as it is received, one packet after the other, and each link has one
    queue of what is to be sent on it. So answers come in the order of the requests, and nothing
    about a job comes to a client before the JOB_CREATED of its submit.

Memory
    `memory` counts what peers can make this server keep: jobs, functions, unfinished packets, and
    what has not been read by those it is for. A submit that would lead over three quarters of
    `max_memory` is refused with an ERROR, and so is a job of more than a quarter: that much is for
    workers, and for the packets that bring jobs to their end. Where these lead over `max_memory`,
    the link that holds most is cut off, and so is any link on which more than `max_unread` waits.
    Links are cut off after the call that found it, never in the middle of something.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants
from gearman_proto.errors import LocalProtocolError, RemoteProtocolError
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.events import (
    AllYours,
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    InvalidRequest,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    ResetAbilities,
    SetClientId,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
    SubmitJobSched,
    SubmitReduceJob,
    SubmitReduceJobBackground,
    TextLine,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from gearman_proto.wire.packets import Role, number

from .base import Action, Close, StopListening
from .jobqueue import (
    DELAYED,
    ENDED,
    HIGH,
    LOW,
    NORMAL,
    QUEUED,
    RUNNING,
    Function,
    QueuedJob,
    key_of,
)
from .server_commands import reply
from .timers import Timers
from .waits import Wait

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from gearman_proto.wire.events import Event, PacketEvent

#: Bytes that jobs, functions and packets may take up together, unless told otherwise.
DEFAULT_MAX_MEMORY: Final = 1024 * 1024 * 1024
#: Bytes that may wait on one link behind the first packet, unless told otherwise.
DEFAULT_MAX_UNREAD: Final = 64 * 1024 * 1024
#: How often a job is run again because its worker was lost, unless told otherwise.
DEFAULT_JOB_RETRIES: Final = 10

# Bytes to write at a time.
_CHUNK_SIZE: Final = 256 * 1024
# Bytes that each takes up beside its names and data: a job, a link that waits for it, a function, a
# registration for one.
_JOB_SIZE: Final = 1024
_LISTENER_SIZE: Final = 256
_FUNCTION_SIZE: Final = 2048
_ABILITY_SIZE: Final = 512
# A link that holds less is not worth cutting off.
_FEW_BYTES: Final = 64 * 1024
# Functions are kept for the lists, as gearmand does, but names that are made up for one job each
# must not pile up.
_MANY_FUNCTIONS: Final = 10_000
# Handles of jobs that a worker no longer has, and may still send packets about.
_FORMER_JOBS: Final = 256
# Seconds that a peer has to read what was left for it when the server closed the connection.
_LAST_WORDS: Final = 5.0
# Seconds after which to look at the wall clock again: it may have been set.
_LOOK_AT_CLOCK: Final = 60.0
# Bytes; gearmand takes uniques of 64.
_MAX_UNIQUE_SIZE: Final = 64

_FULL: Final = b"The memory of the server is full"
_NOT_FOUND: Final = b"Job given in work result not found"
_NOT_ON_SERVER: Final = b"Job does not exist on server"
_NOT_FOUND_TEXTS: Final = {
    WorkData: _NOT_ON_SERVER,
    WorkWarning: _NOT_ON_SERVER,
    WorkException: b"An exception was received for a job that does not exist",
}
_EPOCHS: Final = "epochs"


class ServerLink:
    """A connection that was accepted."""

    __slots__ = (
        "abilities",
        "alive",
        "asleep",
        "buffered",
        "client_id",
        "connection",
        "exceptions",
        "former",
        "jobs",
        "last_words",
        "listening",
        "number",
        "peer",
        "registered",
        "unsent",
        "unsent_size",
        "writing",
    )

    def __init__(self, connection: Connection, peer: str, number: int) -> None:
        self.connection: Connection = connection
        #: The address of the other end, and the adapter's number for it, for the list of workers.
        self.peer: str = peer
        self.number: int = number
        #: Whether the engine still wants to hear of it.
        self.alive: bool = True
        #: Whether it is only there until what was left has been sent.
        self.last_words: bool = False
        self.client_id: bytes = b"-"
        #: Whether it is to get WORK_EXCEPTION.
        self.exceptions: bool = False
        #: Packets to send, and their bytes.
        self.unsent: deque[bytes] = deque()
        self.unsent_size: int = 0
        #: Bytes that the transport has, until it asks for more.
        self.writing: int = 0
        #: Bytes of an unfinished packet.
        self.buffered: int = 0
        #: Bytes that its registrations take up.
        self.registered: int = 0
        #: As a client: the foreground jobs that it waits for.
        self.listening: dict[QueuedJob, None] = {}
        #: As a worker: what it has registered for, with the seconds that a job may take (0: any).
        self.abilities: dict[Function, float] = {}
        self.asleep: bool = False
        #: The jobs that it has, by handle.
        self.jobs: dict[bytes, QueuedJob] = {}
        #: The handles of jobs that were taken away from it, latest last.
        self.former: dict[bytes, None] = {}

    def __repr__(self) -> str:
        return f"<ServerLink {self.number} from {self.peer}>"

    @property
    def held(self) -> int:
        """Bytes in packets and registrations that are kept for it."""
        return self.buffered + self.unsent_size + self.writing + self.registered


class ServerEngine:
    """A complete job server.

    See `engine` for the transport side. Here links come from `accept`; there is no Connect. When
    somebody has to wait until the server has ended (`close`, or the admin command ``shutdown``),
    `serve` returns a Wait.

    Args:
        rng: Where chance comes from: each life of a server has handles of its own.
        wall_clock: Returns seconds since 1970.
        pid: What ``getpid`` answers.
        version: What ``version`` answers.
        job_retries: How often a job is run again because its worker was lost or took too long, None
            for any number. Then it fails. (gearmand's ``--job-retries N`` is N - 1 here.)
        max_packet_size: Bytes. A peer that announces a larger packet is cut off.
        max_unread: Bytes. A peer is cut off that leaves more unread.
        max_memory: Bytes, for all jobs and packets together. Jobs may take three quarters of it,
            one job a quarter.
        max_queue_size: How many jobs a function may have, unless ``maxqueue`` says otherwise; 0 for
            any number.
        exceptions: Whether all clients get WORK_EXCEPTION, and not only those that asked for it.
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        wall_clock: Callable[[], float],
        pid: int = 0,
        version: str = "",
        job_retries: int | None = DEFAULT_JOB_RETRIES,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
        max_unread: int = DEFAULT_MAX_UNREAD,
        max_memory: int = DEFAULT_MAX_MEMORY,
        max_queue_size: int = 0,
        exceptions: bool = False,
    ) -> None:
        if job_retries is not None and job_retries < 0:
            raise ValueError(f"job_retries is {job_retries}: it can't be negative")
        for name, value in (
            ("max_packet_size", max_packet_size),
            ("max_unread", max_unread),
            ("max_memory", max_memory),
        ):
            if value <= 0:
                raise ValueError(f"{name} is {value}: it must be more than 0")
        if max_packet_size > constants.MAX_BODY_SIZE // 2:
            # JOB_ASSIGN has more in it than the submit had.
            raise ValueError(f"max_packet_size is {max_packet_size}: packets can't be so large")
        if max_queue_size < 0:
            raise ValueError(f"max_queue_size is {max_queue_size}: it can't be negative")
        #: Whether it has ended.
        self.closed: bool = False
        #: Bytes that peers make it keep.
        self.memory: int = 0
        #: The functions, jobs and links that there are.
        self.functions: dict[bytes, Function] = {}
        self.jobs: dict[bytes, QueuedJob] = {}
        self.links: dict[ServerLink, None] = {}
        self.pid: int = pid
        self.version: str = version
        self._wall_clock = wall_clock
        self._handle_prefix = b"H:" + rng.randbytes(4).hex().encode() + b":"
        self._handles = 0
        self._order = 0
        self._job_retries = job_retries
        self._max_packet_size = max_packet_size
        self._max_unread = max_unread
        self._max_memory = max_memory
        # The part of it that is left to workers and packets.
        self._reserve = max_memory // 4
        self._room = max_memory - self._reserve
        self._limits = (max_queue_size,) * 3
        self._exceptions = exceptions
        self._accepting = True
        # Whether it is about to end; and whether it does the jobs first that it has.
        self._retiring = False
        self._graceful = False
        self._actions: deque[Action] = deque()
        # Running jobs with a time limit; links with last words; _EPOCHS.
        self._timers = Timers()
        # Jobs for later, by the wall clock.
        self._delayed = Timers()
        self._look_at: float | None = None
        self._to_write: dict[ServerLink, None] = {}
        # Links to cut off.
        self._doomed: dict[ServerLink, None] = {}
        self._waits: set[Wait] = set()
        self._many_functions = _MANY_FUNCTIONS
        self._now = 0.0
        self._handlers: dict[Any, Callable[[ServerLink, Any], None]] = {
            CanDo: self._on_can_do,
            CanDoTimeout: self._on_can_do_timeout,
            CantDo: self._on_cant_do,
            ResetAbilities: self._on_reset_abilities,
            PreSleep: self._on_pre_sleep,
            GrabJob: self._on_grab,
            GrabJobUniq: self._on_grab,
            GrabJobAll: self._on_grab,
            SubmitJobEpoch: self._on_submit_epoch,
            SubmitReduceJob: self._on_submit_reduce,
            SubmitReduceJobBackground: self._on_submit_reduce,
            SubmitJobSched: self._on_unsupported,
            AllYours: self._on_unsupported,
            GetStatus: self._on_get_status,
            GetStatusUnique: self._on_get_status_unique,
            EchoReq: self._on_echo,
            OptionReq: self._on_option,
            SetClientId: self._on_set_client_id,
            InvalidRequest: self._on_invalid,
            TextLine: self._on_line,
            WorkData: self._on_work_data,
            WorkWarning: self._on_work_data,
            WorkStatus: self._on_work_status,
            WorkComplete: self._on_work_complete,
            WorkFail: self._on_work_fail,
            WorkException: self._on_work_exception,
        }
        for event_class in _SUBMITS:
            self._handlers[event_class] = self._on_submit

    # The caller's side.

    def accept(self, peer: str, number: int, now: float) -> ServerLink:
        """A connection has come; return the link for it.

        Args:
            peer: The address of the other end, for the list of workers.
            number: The adapter's number for it (gearmand: the file descriptor), for the same.
            now: The time.
        """
        self._now = now
        link = ServerLink(
            Connection(Role.SERVER, max_packet_size=self._max_packet_size), peer, number
        )
        link.exceptions = self._exceptions
        if self._accepting:
            self.links[link] = None
        else:
            link.alive = False
            self._actions.append(Close(link))
        return link

    def serve(self, now: float, wake: Callable[[], Any]) -> Wait:
        """Return a Wait that is done when the server has ended.

        Raises:
            LocalProtocolError: It has ended already.
        """
        if self.closed:
            raise LocalProtocolError("this server has ended")
        wait = Wait((), None, wake)
        wait.open = 1
        self._waits.add(wait)
        return wait

    def release(self, wait: Wait) -> None:
        """The caller of `wait` is no longer blocked."""
        self._waits.discard(wait)

    def shut_down(self, now: float, *, graceful: bool = False) -> None:
        """Take no new connection, send what is to be sent, and end.

        Args:
            now: The time.
            graceful: Whether to go on until no job is left.
        """
        self._now = now
        self.retire(graceful=graceful)
        self._tidy_up()

    def retire(self, *, graceful: bool) -> None:
        """Begin to do that, in the middle of a call."""
        self._stop_listening()
        self._retiring = True
        self._graceful = graceful

    def close(self, now: float) -> None:
        """End at once: all connections are closed."""
        self._stop_listening()
        for link in self._give_up_links():
            self._actions.append(Close(link))
        self._end()

    def crash(self, error: Exception) -> None:
        """One of the calls raised, which is a bug: the server ends."""
        for wait in self._waits:
            wait.error = error
        self.close(self._now)

    def abandon(self, error: Exception) -> None:
        """Nobody will run this engine any more, as in the child of a fork."""
        self.closed = True
        self._give_up_links()

    # The transport side, in.

    def connected(self, link: ServerLink, now: float) -> None:
        """Links are open from the start: nothing to do."""

    def connect_failed(self, link: ServerLink, error: Exception, now: float) -> None:
        """Links are open from the start: treated as a lost connection."""
        self.connection_lost(link, error, now)

    def receive_data(self, link: ServerLink, data: bytes, now: float) -> None:
        """The peer of `link` has sent `data`."""
        if not link.alive or link.last_words:
            return
        self._now = now
        connection = link.connection
        connection.receive_data(data)
        handlers = self._handlers
        doomed = self._doomed
        next_event = connection.next_event
        try:
            # What a link that is to be cut off still asks for is not worth the work.
            while link not in doomed and (event := next_event()) is not NEED_DATA:
                handlers[type(event)](link, event)
        except RemoteProtocolError:
            self._end_link(link)
        self.memory += connection.buffered - link.buffered
        link.buffered = connection.buffered
        self._tidy_up()

    def connection_lost(self, link: ServerLink, error: Exception | None, now: float) -> None:
        """`link` has ended."""
        if not link.alive:
            return
        self._now = now
        self._drop_link(link)
        self._tidy_up()

    def handle_timeout(self, now: float) -> None:
        """It is `now`."""
        self._now = now
        while (expired := self._timers.pop_expired(now)) is not None:
            if isinstance(expired, QueuedJob):
                self._take_away(expired)
            elif isinstance(expired, ServerLink):
                self._doomed[expired] = None
            else:
                self._release_delayed()
        self._tidy_up()

    # The transport side, out.

    def next_action(self) -> Action | None:
        """The next thing to do, or None."""
        return self._actions.popleft() if self._actions else None

    def links_to_write(self) -> Iterable[ServerLink]:
        """The links on which there is something new to send, each once."""
        links, self._to_write = self._to_write, {}
        return links

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is to be called next, or None."""
        return self._timers.next_deadline()

    def data_to_send(self, link: ServerLink) -> bytes:
        """Bytes to write on `link` now, or none."""
        unsent = link.unsent
        self.memory -= link.writing
        link.writing = 0
        if not unsent:
            if link.last_words and link.alive:
                self._actions.append(Close(link))
                self._drop_link(link)
                self._tidy_up()
            return b""
        if link.unsent_size <= _CHUNK_SIZE:
            data = b"".join(unsent)
            unsent.clear()
        else:
            packets = [unsent.popleft()]
            size = len(packets[0])
            while unsent and size + len(unsent[0]) <= _CHUNK_SIZE:
                size += len(unsent[0])
                packets.append(unsent.popleft())
            data = b"".join(packets)
        link.unsent_size -= len(data)
        link.writing = len(data)
        return data

    # Links.

    def _send(self, link: ServerLink, event: Event) -> None:
        self._queue(link, link.connection.send(event))

    def _queue(self, link: ServerLink, data: bytes) -> None:
        unsent = link.unsent
        if link.unsent_size > self._max_unread:
            # The first one may be of any size, and the peer may have had no time to read it.
            first = 0 if link.writing else len(unsent[0])
            if link.unsent_size - first > self._max_unread:
                self._doomed[link] = None
                return
        unsent.append(data)
        link.unsent_size += len(data)
        self.memory += len(data)
        self._to_write[link] = None

    def _tidy_up(self) -> None:
        """What is left to do at the end of each call."""
        while self._doomed or (self.memory > self._max_memory and self._doom_largest()):
            link, _ = self._doomed.popitem()
            self._actions.append(Close(link))
            self._drop_link(link)
        if self._retiring and not self.closed:
            if not (self._graceful and self.jobs):
                for link in self.links:
                    self._end_link(link)
            if not self.links:
                self._end()

    def _doom_largest(self) -> bool:
        """Where links take up too much memory, choose the one to cut off."""
        self._drop_idle_functions()
        worst = max(self.links, key=lambda link: link.held, default=None)
        if self.memory <= self._max_memory or worst is None or worst.held < _FEW_BYTES:
            return False
        self._doomed[worst] = None
        return True

    def _end_link(self, link: ServerLink) -> None:
        """Close `link` as soon as what is to be sent on it has been."""
        if link.last_words:
            return
        link.last_words = True
        self._detach(link)
        self._timers.set(link, self._now + _LAST_WORDS)
        self._to_write[link] = None

    def _drop_link(self, link: ServerLink) -> None:
        link.alive = False
        self.links.pop(link, None)
        self._to_write.pop(link, None)
        self._doomed.pop(link, None)
        self._timers.cancel(link)
        self._detach(link)
        self.memory -= link.held
        link.unsent.clear()
        link.unsent_size = link.buffered = link.writing = 0

    def _detach(self, link: ServerLink) -> None:
        """`link` is neither a client nor a worker any more."""
        for job in link.listening:
            del job.listeners[link]
            job.size -= _LISTENER_SIZE
            self.memory -= _LISTENER_SIZE
            if not job.wanted and job.state is not RUNNING:
                self._forget(job)
        link.listening.clear()
        for function in list(link.abilities):
            self._remove_ability(link, function)
        for job in list(link.jobs.values()):
            self._take_away(job)

    def _stop_listening(self) -> None:
        if self._accepting:
            self._accepting = False
            self._actions.append(StopListening())

    def _give_up_links(self) -> list[ServerLink]:
        links = list(self.links)
        for link in links:
            link.alive = False
            link.unsent.clear()
        self.links.clear()
        self._to_write.clear()
        return links

    def _end(self) -> None:
        self.closed = True
        self.jobs.clear()
        self.functions.clear()
        self.memory = 0
        self._timers = Timers()
        for wait in self._waits:
            wait.open = 0
            wait.finish()

    # Functions and workers.

    def function(self, name: bytes) -> Function:
        """The function of this name; a new one if there is none."""
        function = self.functions.get(name)
        if function is None:
            if len(self.functions) >= self._many_functions:
                self._drop_idle_functions()
                # So that this is not done again for each of those that are not idle.
                self._many_functions = max(_MANY_FUNCTIONS, 2 * len(self.functions))
            function = self.functions[name] = Function(name)
            self.memory += len(name) + _FUNCTION_SIZE
        return function

    def has_room(self, size: int) -> bool:
        """Whether something of `size` bytes may be kept that is neither a worker nor a packet."""
        if size > self._reserve:
            return False  # It could never be given out.
        if self.memory + size > self._room:
            self._drop_idle_functions()
        return self.memory + size <= self._room

    def _drop_idle_functions(self) -> None:
        for idle in [function for function in self.functions.values() if function.idle]:
            self.drop_function(idle)

    def drop_function(self, function: Function) -> None:
        """Forget a function that has neither jobs nor workers."""
        del self.functions[function.name]
        self.memory -= len(function.name) + _FUNCTION_SIZE

    def _add_ability(self, link: ServerLink, name: bytes, seconds: float) -> None:
        function = self.function(name)
        if function in link.abilities:
            del link.abilities[function]  # It becomes the latest.
        else:
            link.registered += _ABILITY_SIZE + len(name)
            self.memory += _ABILITY_SIZE + len(name)
        link.abilities[function] = seconds
        function.workers[link] = None
        if link.asleep:
            function.sleepers[link] = None
            if function.head() is not None:
                self._wake(link)

    def _remove_ability(self, link: ServerLink, function: Function) -> None:
        del link.abilities[function]
        del function.workers[link]
        function.sleepers.pop(link, None)
        link.registered -= _ABILITY_SIZE + len(function.name)
        self.memory -= _ABILITY_SIZE + len(function.name)

    def _on_can_do(self, link: ServerLink, event: CanDo) -> None:
        self._add_ability(link, event.function, 0)

    def _on_can_do_timeout(self, link: ServerLink, event: CanDoTimeout) -> None:
        self._add_ability(link, event.function, max(number(event.timeout), 0) / 1000)

    def _on_cant_do(self, link: ServerLink, event: CantDo) -> None:
        function = self.functions.get(event.function)
        if function in link.abilities:
            self._remove_ability(link, function)

    def _on_reset_abilities(self, link: ServerLink, event: ResetAbilities) -> None:
        for function in list(link.abilities):
            self._remove_ability(link, function)

    def _on_pre_sleep(self, link: ServerLink, event: PreSleep) -> None:
        if self._next_job(link) is not None:
            self._send(link, Noop())
            return
        link.asleep = True
        for function in link.abilities:
            function.sleepers[link] = None

    def _wake_up(self, link: ServerLink) -> None:
        """`link`, which was asleep, is awake: no new job is news to it."""
        link.asleep = False
        for function in link.abilities:
            function.sleepers.pop(link, None)

    def _wake(self, link: ServerLink) -> None:
        self._wake_up(link)
        self._send(link, Noop())

    def _next_job(self, link: ServerLink) -> QueuedJob | None:
        best = None
        for function in link.abilities:
            job = function.head()
            if job is not None and (best is None or job.rank < best.rank):
                best = job
        return best

    def _on_grab(self, link: ServerLink, event: PacketEvent) -> None:
        if link.asleep:
            self._wake_up(link)
        job = self._next_job(link)
        if job is None:
            self._send(link, NoJob())
            return
        function = job.function
        function.remove(job)
        function.running += 1
        job.state = RUNNING
        job.worker = link
        link.jobs[job.handle] = job
        if link.former:
            link.former.pop(job.handle, None)
        seconds = link.abilities[function]
        if seconds:
            job.limited = True
            self._timers.set(job, self._now + seconds)
        assign: PacketEvent
        if type(event) is GrabJob:
            assign = JobAssign(job.handle, function.name, job.data)
        elif type(event) is GrabJobAll and job.reducer:
            assign = JobAssignAll(job.handle, function.name, job.unique, job.reducer, job.data)
        else:
            assign = JobAssignUniq(job.handle, function.name, job.unique, job.data)
        self._send(link, assign)

    # Jobs.

    def _on_submit(self, link: ServerLink, event: Any) -> None:
        priority, background = _SUBMITS[type(event)]
        self._submit(link, event, priority, background=background)

    def _on_submit_epoch(self, link: ServerLink, event: SubmitJobEpoch) -> None:
        epoch = number(event.epoch)
        if epoch > constants.MAX_EPOCH or event.epoch[19:20].isdigit():
            self._refuse(link, b"ARGUMENT_TOO_LARGE", b"Epoch out of range")
            return
        # What is due now stays so, also where the wall clock is set back while it runs.
        later = epoch > self._wall_clock()
        self._submit(link, event, NORMAL, background=True, epoch=epoch if later else 0)

    def _on_submit_reduce(
        self, link: ServerLink, event: SubmitReduceJob | SubmitReduceJobBackground
    ) -> None:
        if len(event.reducer) > constants.MAX_REDUCER_SIZE:
            self._refuse(link, b"ARGUMENT_TOO_LARGE", b"Unique value too large")
            return
        background = isinstance(event, SubmitReduceJobBackground)
        self._submit(link, event, NORMAL, background=background, reducer=event.reducer)

    def _submit(
        self,
        link: ServerLink,
        event: Any,
        priority: int,
        *,
        background: bool,
        epoch: int = 0,
        reducer: bytes = b"",
    ) -> None:
        unique: bytes = event.unique
        if len(unique) > _MAX_UNIQUE_SIZE:
            self._refuse(link, b"ARGUMENT_TOO_LARGE", b"Unique value too large")
            return
        function = self.functions.get(event.function)
        key = key_of(unique, event.data)
        job = function.by_key.get(key) if function is not None else None
        if job is None:
            size = _JOB_SIZE + len(event.function) + len(unique) + len(event.data)
            full = size > self._reserve or self.memory + size > self._room
            if full and not self.has_room(size):
                self._refuse(link, b"QUEUE_ERROR", _FULL)
                return
            function = self.function(event.function)
            limit = (function.limits or self._limits)[priority]
            if limit and function.total >= limit:
                self._refuse(link, b"QUEUE_ERROR", b"Job queue is full")
                return
            self._handles += 1
            handle = b"%b%d" % (self._handle_prefix, self._handles)
            job = self.jobs[handle] = QueuedJob(
                handle, function, unique, event.data, priority, key, size
            )
            job.reducer = reducer
            job.epoch = epoch
            self.memory += size
            function.add(job)
            # Before JOB_CREATED, as gearmand does, which shows where a client is a worker, too.
            self._put(job)
        elif not (background or link in job.listeners or self.has_room(_LISTENER_SIZE)):
            self._refuse(link, b"QUEUE_ERROR", _FULL)
            return
        if background:
            job.background = True
        elif link in job.listeners:
            job.listeners[link] += 1
        else:
            job.listeners[link] = 1
            link.listening[job] = None
            job.size += _LISTENER_SIZE
            self.memory += _LISTENER_SIZE
        self._send(link, JobCreated(job.handle))

    def _put(self, job: QueuedJob) -> None:
        """Give `job` out to whoever asks, from its epoch on."""
        if job.epoch:
            job.function.delayed += 1
            self._delayed.set(job, job.epoch)
            self._watch_clock()
            return
        self._order += 1
        function = job.function
        function.push(job, self._order)
        if function.sleepers:
            for link in list(function.sleepers):
                self._wake(link)

    def _watch_clock(self) -> None:
        """Look again when the next job for later is due."""
        epoch = self._delayed.next_deadline()
        if epoch is not None:
            look_at = self._now + min(max(epoch - self._wall_clock(), 0.0), _LOOK_AT_CLOCK)
            if self._look_at is None or look_at < self._look_at:
                self._look_at = look_at
                self._timers.set(_EPOCHS, look_at)

    def _release_delayed(self) -> None:
        self._look_at = None
        wall = self._wall_clock()
        while (job := self._delayed.pop_expired(wall)) is not None:
            job.function.delayed -= 1
            job.epoch = 0
            self._put(job)
        self._watch_clock()

    def _take_away(self, job: QueuedJob) -> None:
        """The worker of `job` is lost to it: run it again, unless that has happened too often."""
        self._leave_before_its_end(job)
        job.losses += 1
        job.numerator = job.denominator = 0
        if not job.wanted:
            self._forget(job)
        elif self._job_retries is not None and job.losses > self._job_retries:
            self._tell(job, WorkFail(job.handle))
            self._forget(job)
        else:
            self._put(job)

    def _leave_worker(self, job: QueuedJob) -> None:
        link: ServerLink = job.worker
        job.worker = None
        job.function.running -= 1
        del link.jobs[job.handle]
        if job.limited:
            job.limited = False
            self._timers.cancel(job)

    def _leave_before_its_end(self, job: QueuedJob) -> None:
        """The same where the worker may still send something about it."""
        former: dict[bytes, None] = job.worker.former
        self._leave_worker(job)
        former[job.handle] = None
        if len(former) > _FORMER_JOBS:
            del former[next(iter(former))]

    def _forget(self, job: QueuedJob) -> None:
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
        job.function.forget(job)
        del self.jobs[job.handle]
        self.memory -= job.size

    def cancel(self, job: QueuedJob) -> None:
        """End a job, whatever its state; those who wait for it get WORK_FAIL."""
        self._tell(job, WorkFail(job.handle))
        if job.worker is not None:
            self._leave_before_its_end(job)
        self._forget(job)

    def _tell(self, job: QueuedJob, event: PacketEvent) -> None:
        for link in job.listeners:
            self._send(link, event)

    # What workers send.

    def _job_of(self, link: ServerLink, event: Any) -> QueuedJob | None:
        """The job that `event` is about, if `link` has it."""
        job = link.jobs.get(event.handle)
        # Workers do not expect an ERROR for what was theirs. Several stop working on one.
        if job is None and event.handle not in link.former:
            text = _NOT_FOUND_TEXTS.get(type(event), _NOT_FOUND)
            self._refuse(link, b"JOB_NOT_FOUND", text)
        return job

    def _on_work_data(self, link: ServerLink, event: WorkData | WorkWarning) -> None:
        job = self._job_of(link, event)
        if job is not None:
            self._tell(job, event)

    def _on_work_status(self, link: ServerLink, event: WorkStatus) -> None:
        job = self._job_of(link, event)
        if job is not None:
            event.denominator = _cut(event.denominator)
            job.numerator = max(number(event.numerator), 0)
            job.denominator = max(number(event.denominator), 0)
            self._tell(job, event)

    def _on_work_complete(self, link: ServerLink, event: WorkComplete) -> None:
        job = self._job_of(link, event)
        if job is not None:
            self._finish(job, event)

    def _on_work_fail(self, link: ServerLink, event: WorkFail) -> None:
        job = self._job_of(link, event)
        if job is not None:
            # Anything behind the handle hangs libgearman's clients.
            event.reason = None
            self._finish(job, event)

    def _on_work_exception(self, link: ServerLink, event: WorkException) -> None:
        job = self._job_of(link, event)
        if job is not None:
            failed = WorkFail(job.handle)
            for listener in job.listeners:
                self._send(listener, event if listener.exceptions else failed)
            # Some workers send WORK_FAIL after it.
            self._leave_before_its_end(job)
            self._forget(job)

    def _finish(self, job: QueuedJob, event: PacketEvent) -> None:
        self._tell(job, event)
        self._leave_worker(job)
        self._forget(job)

    # What anybody sends.

    def _refuse(self, link: ServerLink, code: bytes, text: bytes) -> None:
        self._send(link, Error(code, text))

    def _on_unsupported(self, link: ServerLink, event: PacketEvent) -> None:
        self._refuse(link, b"INVALID_COMMAND", b"Command not expected")

    def _on_invalid(self, link: ServerLink, event: InvalidRequest) -> None:
        self._refuse(link, event.code, event.text)

    def _on_echo(self, link: ServerLink, event: EchoReq) -> None:
        self._send(link, EchoRes(event.data))

    def _on_option(self, link: ServerLink, event: OptionReq) -> None:
        if event.option.lower() == b"exceptions":
            link.exceptions = True
            self._send(link, OptionRes(event.option))
        else:
            self._refuse(link, b"UNKNOWN_OPTION", b"Server does not recognize given option")

    def _on_set_client_id(self, link: ServerLink, event: SetClientId) -> None:
        link.client_id = _cut(event.client_id)[: constants.MAX_CLIENT_ID_SIZE]

    def _on_get_status(self, link: ServerLink, event: GetStatus) -> None:
        handle = _cut(event.handle)
        self._send(link, StatusRes(handle, *_status(self.jobs.get(handle))))

    def _on_get_status_unique(self, link: ServerLink, event: GetStatusUnique) -> None:
        unique = _cut(event.unique)
        job = None
        if unique:
            found = (function.by_key.get(unique) for function in self.functions.values())
            job = next((job for job in found if job is not None), None)
        clients = sum(job.listeners.values()) if job is not None else 0
        self._send(link, StatusResUnique(unique, *_status(job), b"%d" % clients))

    def _on_line(self, link: ServerLink, event: TextLine) -> None:
        self._queue(link, reply(self, event.line))


# The submits that have nothing special: priority, and whether nobody waits.
_SUBMITS: Final[dict[type[PacketEvent], tuple[int, bool]]] = {
    SubmitJob: (NORMAL, False),
    SubmitJobHigh: (HIGH, False),
    SubmitJobLow: (LOW, False),
    SubmitJobBg: (NORMAL, True),
    SubmitJobHighBg: (HIGH, True),
    SubmitJobLowBg: (LOW, True),
}


def _cut(name: bytes) -> bytes:
    """The name as far as its first NUL; the last name of a packet may hold some."""
    return name.partition(b"\0")[0] if 0 in name else name


def _status(job: QueuedJob | None) -> tuple[bytes, bytes, bytes, bytes]:
    """Known, running, numerator, denominator."""
    if job is None:
        return b"0", b"0", b"0", b"0"
    running = b"1" if job.state is RUNNING else b"0"
    return b"1", running, b"%d" % job.numerator, b"%d" % job.denominator
