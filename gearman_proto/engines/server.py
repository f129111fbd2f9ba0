"""The job server engine (tier 2): all decisions of a job server, without I/O.

The module `jobqueue` has its jobs, and `accepted` its links.

The engine behaves as gearmand 1.1.21, except for gearmand's faults: docs/reference/server.md lists
them.

Order
    The engine processes packets in the order in which they arrive, and each link has one queue of
    packets to send. So answers have the order of the requests, and a client gets JOB_CREATED before
    any other packet about its job.

Turns
    The work for one link at a time is limited, so that no link delays the others for long. `_left`
    counts down from _TURN: one for each packet, more for expensive steps. Later calls of
    `handle_timeout` do the rest, each with one turn for all links. Until then, `link.behind` is
    true, and the link is queued in `_behind`. `link.work` is a text reply or the end of a link,
    which may take several turns.

Life
    SERVER_LIVES has the states of the server. If a peer ends its stream or sends garbage, its link
    is ENDING: the engine still sends the queued packets, and then closes the link.

Memory
    `queue.memory` counts the bytes that peers make the server keep: jobs, functions, unfinished
    packets, and data that its receivers have not read. The engine refuses a submit beyond three
    quarters of `max_memory` with an ERROR, and any job of more than a quarter. The last quarter is
    for workers and for the packets that end jobs. If these exceed `max_memory`, the engine
    disconnects the link that holds most, and also any link with more than `max_unread` unread
    bytes. It disconnects after the call that has found the excess, never during other work.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants
from gearman_proto.arguments import check_count, check_packet_size
from gearman_proto.constants import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE
from gearman_proto.errors import LocalProtocolError, RemoteProtocolError
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.packets import (
    SUBMITS,
    AllYours,
    CanDo,
    CanDoTimeout,
    CantDo,
    ConnectionClosed,
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
    PacketEvent,
    PreSleep,
    ResetAbilities,
    Role,
    SetClientId,
    StatusRes,
    StatusResUnique,
    SubmitJobEpoch,
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
    number,
)

from .accepted import SERVER_LIVES, SERVING, ServerLife, ServerLink
from .base import GONE, OPEN, BaseEngine, Close, LinkState, StopListening, take_chunk
from .delivery import Delivery
from .jobqueue import (
    FULL,
    HIGH,
    LISTENER_SIZE,
    LOW,
    NORMAL,
    RUNNING,
    JobQueue,
    QueuedJob,
    QueueFullError,
    key_of,
    make_handles,
)
from .server_commands import Listing, reply
from .states import turn
from .waits import Wait

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Sequence


# What may be done for one link before others have their turn: as much as so many usual packets
# take, which is about a millisecond.
_TURN: Final = 250
# The size of a piece of a list, and functions that may have jobs, that take as long as a packet.
_TEXT: Final = 256
_LOOKS: Final = 50
# A link that holds less is not worth cutting off.
_FEW_BYTES: Final = 64 * 1024
# Bytes that the transport may have without their being counted.
_FEW_WRITTEN: Final = 4096
# Handles of jobs that a worker no longer has, and may still send packets about.
_FORMER_JOBS: Final = 256
# Seconds without progress after which an ENDING link is cut off.
_LAST_WORDS: Final = 5.0
# Seconds that a peer has for its part of a TLS handshake.
_HANDSHAKE: Final = 10.0
# Seconds after which to look at the wall clock again: it may have been set.
_LOOK_AT_CLOCK: Final = 60.0
# Bytes; gearmand takes uniques of 64 (recording 29_unique_63_and_64).
_MAX_UNIQUE_SIZE: Final = 64
# Size of a JOB_ASSIGN_UNIQ without function, unique and data: a handle and three NULs.
_ASSIGN_OVERHEAD: Final = constants.MAX_HANDLE_SIZE + 3

_NOT_FOUND: Final = b"Job given in work result not found"
_NOT_ON_SERVER: Final = b"Job does not exist on server"
_NOT_FOUND_TEXTS: Final = {
    WorkData: _NOT_ON_SERVER,
    WorkWarning: _NOT_ON_SERVER,
    WorkException: b"An exception was received for a job that does not exist",
}
_EPOCHS: Final = "epochs"


class ServerEngine(BaseEngine):
    """A complete job server, for development, tests, and small use on a single machine.

    Nothing is kept on disk, so what is queued ends with the process.

    See `Engine` for the transport side. Here links come from `accept`; there is no Connect. When
    somebody has to wait until the server has ended (`close`, or the admin command ``shutdown``),
    `serve` returns a Wait.

    Args:
        rng: Where chance comes from: each life of a server has handles of its own.
        wall_clock: Returns seconds since 1970.
        host: The name of this machine, for handles.
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
        max_abilities: How many functions a connection may register for. A peer that registers for
            more gets an ERROR and is cut off.
        exceptions: Whether all clients get WORK_EXCEPTION, and not only those that asked for it.

    Raises:
        TypeError: An argument is not of the type it must be.
        ValueError: An argument has a value that can't be.
    """

    def __init__(
        self,
        *,
        rng: random.Random,
        wall_clock: Callable[[], float],
        host: str = "localhost",
        pid: int = 0,
        version: str = "",
        job_retries: int | None = constants.DEFAULT_JOB_RETRIES,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
        max_unread: int = constants.DEFAULT_MAX_UNREAD,
        max_memory: int = constants.DEFAULT_MAX_MEMORY,
        max_queue_size: int = 0,
        max_abilities: int = constants.DEFAULT_MAX_ABILITIES,
        exceptions: bool = False,
    ) -> None:
        if job_retries is not None:
            check_count("job_retries", job_retries, 0)
        # JOB_ASSIGN has more in it than the submit had.
        check_packet_size(max_packet_size, constants.MAX_BODY_SIZE // 2)
        check_count("max_unread", max_unread, 1)
        check_count("max_memory", max_memory, 1)
        check_count("max_queue_size", max_queue_size, 0)
        check_count("max_abilities", max_abilities, 1)
        super().__init__()
        # There may be as many as there are links.
        self._actions = deque()
        #: The functions and jobs that there are.
        self.queue: JobQueue = JobQueue(
            make_handles(host, rng), wall_clock, max_memory, max_queue_size
        )
        #: The links that there are.
        self.links: dict[ServerLink, None] = {}
        self.pid: int = pid
        self.version: str = version
        self._wall_clock = wall_clock
        self._job_retries = job_retries
        self._max_packet_size = max_packet_size
        self._max_unread = max_unread
        self._max_memory = max_memory
        self._max_abilities = max_abilities
        self._exceptions = exceptions
        self._life = ServerLife.SERVING
        # Timers are those of running jobs with a time limit, of links that are CONNECTING or
        # ENDING, and _EPOCHS.
        self._look_at: float | None = None
        self._to_write: dict[ServerLink, None] = {}
        # Links to cut off.
        self._doomed: dict[ServerLink, None] = {}
        # Links with a backlog in the order of their turns (`_behind`), the budget of each turn
        # (`_turn_size`), the rest of the current budget (`_left`), and the time at which the last
        # link has joined (`_behind_since`).
        self._behind: OrderedDict[ServerLink, None] = OrderedDict()
        # The progress of the last bytes for each ENDING link.
        self._ending: dict[ServerLink, Delivery] = {}
        self._turn_size = _TURN
        self._left = _TURN
        self._behind_since = 0.0
        # They get the link, the class of the event, the arguments of the packet, and the time.
        self._handlers: dict[Any, Callable[[ServerLink, Any, Any, float], None]] = {
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
            ConnectionClosed: self._on_closed,
            TextLine: self._on_line,
            WorkData: self._on_work_data,
            WorkWarning: self._on_work_data,
            WorkStatus: self._on_work_status,
            WorkComplete: self._on_work_end,
            WorkFail: self._on_work_end,
            WorkException: self._on_work_exception,
            **dict.fromkeys(_SUBMITS, self._on_submit),
        }

    def _turn(self, life: ServerLife) -> None:
        self._life = turn(SERVER_LIVES, self._life, life)

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._life is ServerLife.ENDED

    # The caller's side.

    def accept(self, peer: str, number: int, now: float, *, handshake: bool = False) -> ServerLink:
        """A connection has come; return the link for it.

        Args:
            peer: The address of the other end, for the list of workers.
            number: The adapter's number for it (gearmand: the file descriptor), for the same.
            now: The time.
            handshake: Whether the transport has to shake hands first. Then `connected` follows, or
                `connect_failed`; and Close, where it takes more than ten seconds.
        """
        link = ServerLink(
            Connection(Role.SERVER, max_packet_size=self._max_packet_size),
            peer,
            number,
            LinkState.CONNECTING if handshake else OPEN,
        )
        link.exceptions = self._exceptions
        if self._life is ServerLife.SERVING:
            self.links[link] = None
            if handshake:
                self._timers.set(link, now + _HANDSHAKE, self._on_silence)
        else:
            link.turn(LinkState.GONE)
            self._actions.append(Close(link))
        return link

    def serve(self, now: float, wake: Callable[[], Any]) -> Wait:
        """Return a Wait that is done, and calls `wake`, when the server has ended.

        It is refused if the server has ended already.
        """
        wait = Wait(None, wake)
        if self.closed:
            return wait.refuse(LocalProtocolError("this server has ended"))
        self._waits.add(wait)
        return wait

    def release(self, wait: Wait, now: float) -> None:
        """The caller of `wait` is no longer blocked."""
        self._waits.discard(wait)

    def retire(self, *, graceful: bool) -> None:
        """Take no new connection, send what is to be sent, and end; for commands, within a call.

        Args:
            graceful: Whether to go on until no job is left.
        """
        self._stop_listening()
        if self._life in (ServerLife.SERVING, ServerLife.DRAINING):
            self._turn(ServerLife.DRAINING if graceful else ServerLife.ENDING)

    def close(self, now: float) -> None:
        """End at once: all connections are closed."""
        self._stop_listening()
        for link in self._give_up_links():
            self._actions.append(Close(link))
        self._end()

    def abandon(self, error: Exception) -> list[Wait]:
        """End the server, from any state. See `Engine.abandon`."""
        self._life = ServerLife.ENDED
        waits = super().abandon(error)
        self._give_up_links()
        return waits

    def _links(self) -> list[ServerLink]:
        return list(self.links)

    # The transport side, in.

    def connected(self, link: ServerLink, now: float) -> None:
        """The handshake of `link` is over, if there was one."""
        if link.state is LinkState.CONNECTING:
            link.turn(OPEN)
            self._timers.cancel(link)

    def connect_failed(self, link: ServerLink, error: Exception, now: float) -> None:
        """The handshake of `link` has failed."""
        self.connection_lost(link, error, now)

    def receive_data(self, link: ServerLink, data: bytes, now: float) -> None:
        """The peer of `link` has sent `data`."""
        if link.state is not OPEN:
            return
        link.connection.receive_data(data)
        if link.behind:
            self._count(link)
        else:
            self._left = self._turn_size
            self._go_on(link, now)
        self._tidy_up(now)

    def receive_eof(self, link: ServerLink, now: float) -> None:
        """The peer of `link` sends no more, as in ``echo status | nc``. It may still read."""
        if link.is_up:
            link.connection.receive_eof()
            if not link.behind:
                self._left = self._turn_size
                self._go_on(link, now)
            self._tidy_up(now)

    def connection_lost(self, link: ServerLink, error: Exception, now: float) -> None:
        """`link` has ended. What it has sent and was not looked at is dropped."""
        if link.alive:
            self._left = self._turn_size
            self._drop_link(link, now)
            self._tidy_up(now)

    def handle_timeout(self, now: float) -> None:
        """It is `now`: what is due happens, and those that are behind have a turn."""
        self._left = self._turn_size
        while self._left > 0 and self._timers.expire_one(now):
            self._left -= 1
        while self._left > 0 and self._behind:
            link, _ = self._behind.popitem(last=False)
            self._go_on(link, now)
        self._tidy_up(now)

    def _go_on(self, link: ServerLink, now: float) -> None:
        """Do some of what is to be done for `link`; the rest in its next turn."""
        connection, handlers = link.connection, self._handlers
        behind = kept = True
        try:
            while self._left > 0:
                if link.work is None:
                    for kind, args in connection.requests():
                        self._left -= 1
                        handlers[kind](link, kind, args, now)
                        if self._left <= 0 or link.work is not None:
                            break
                    else:
                        if connection.is_drained():
                            behind = kept = False
                            break
                        event = connection.next_event()
                        if event is NEED_DATA:
                            behind = False
                            break
                        self._left -= 1
                        values: tuple[Any, ...] = (event,)  # Of what is no packet, it is that.
                        if isinstance(event, PacketEvent):
                            values = type(event).arguments(event)
                        handlers[type(event)](link, type(event), values, now)
                elif (cost := next(link.work, None)) is not None:
                    self._left -= cost
                # What a link that is to be cut off still asks for is not worth the work.
                elif link.state is OPEN and link not in self._doomed:
                    link.work = None
                else:
                    behind = False
                    break
        except RemoteProtocolError:
            self._end_link(link, now)
            behind = link.behind
        link.behind = behind
        if behind:
            self._behind[link] = None
            self._behind_since = now
        if kept or link.buffered:
            self._count(link)

    def _count(self, link: ServerLink) -> None:
        """Count what is kept of what `link` has sent."""
        buffered = link.connection.buffered if link.state is not GONE else 0
        if buffered != link.buffered:
            self.queue.memory += buffered - link.buffered
            link.buffered = buffered

    # The transport side, out.

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is to be called next, or None."""
        return self._behind_since if self._behind else self._timers.next_deadline()

    def links_to_measure(self, now: float) -> Iterable[ServerLink]:
        """Return the ENDING links whose peer is late, for `measured`."""
        return [link for link in self._ending if self._is_due(link, now)]

    def measured(self, link: ServerLink, unacknowledged: int) -> None:
        """Report the number of handed-over bytes that the peer's system has not acknowledged."""
        self._ending[link].measured(unacknowledged)

    def links_to_write(self) -> Iterable[ServerLink]:
        """The links on which there is something new to send, each once."""
        links, self._to_write = self._to_write, {}
        return links

    def data_to_send(self, link: ServerLink, now: float) -> bytes:
        """Return the bytes to write on `link` now, or none."""
        unsent = link.unsent
        if link.writing:
            self.queue.memory -= link.writing
            link.writing = 0
        delivery = self._ending.get(link) if self._ending else None
        if delivery is not None:
            delivery.taken(now)
        if not unsent:
            if delivery is not None:
                self._left = self._turn_size
                self._actions.append(Close(link))
                self._drop_link(link, now)
                self._tidy_up(now)
            return b""
        data = take_chunk(unsent)
        size = len(data)
        if delivery is not None:
            delivery.handed += size
        link.unsent_size -= size
        # Small writes are not counted, so that the driver can skip the next `data_to_send`.
        link.has_more = bool(unsent) or size > _FEW_WRITTEN or link.state is not OPEN
        if link.has_more:
            link.writing = size
        else:
            self.queue.memory -= size
        return data

    # Links.

    def _send(self, link: ServerLink, kind: type[PacketEvent], args: Sequence[bytes] = ()) -> None:
        self._queue(link, link.connection.send_args(kind, args))

    def _queue(self, link: ServerLink, data: bytes) -> None:
        unread, size = link.unsent_size, len(data)
        if unread > self._max_unread:
            # The first one may be of any size, and the peer may have had no time to read it.
            first = 0 if link.writing else len(link.unsent[0])
            if unread - first > self._max_unread:
                self._doom(link)
                return
        link.unsent.append(data)
        link.unsent_size = unread + size
        self.queue.memory += size
        self._to_write[link] = None

    def _queue_copies(self, link: ServerLink, data: bytes, count: int) -> None:
        """The same so many times, of which the first and the last are looked at."""
        self._queue(link, data)
        size = (count - 2) * len(data)
        if size > self._max_unread:
            self._doom(link)
            return
        link.unsent.extend([data] * (count - 2))
        link.unsent_size += size
        self.queue.memory += size
        self._queue(link, data)

    def _doom(self, link: ServerLink) -> None:
        """Cut `link` off at the end of this call."""
        self._doomed[link] = None
        if link.work is None:
            link.work = iter(())  # Nothing that it has sent is looked at any more.

    def _tidy_up(self, now: float) -> None:
        """What is left to do at the end of each call."""
        while self._doomed or (self.queue.memory > self._max_memory and self._doom_largest()):
            link, _ = self._doomed.popitem()
            self._actions.append(Close(link))
            self._drop_link(link, now)
        if self._life is not SERVING and not self.closed:
            if self._life is ServerLife.ENDING or not self.queue.jobs:
                if self._life is ServerLife.DRAINING:
                    self._turn(ServerLife.ENDING)
                for link in list(self.links):
                    self._end_link(link, now)
            if not self.links:
                self._end()

    def _doom_largest(self) -> bool:
        """Where links take up too much memory, choose the one to cut off."""
        self.queue.drop_idle_functions()
        worst = max(self.links, key=lambda link: link.held, default=None)
        if self.queue.memory <= self._max_memory or worst is None or worst.held < _FEW_BYTES:
            return False
        self._doom(worst)
        return True

    def _end_link(self, link: ServerLink, now: float) -> None:
        """Close `link` as soon as all queued bytes have been sent."""
        if link.is_up:
            link.turn(LinkState.ENDING)
            self._detach(link, now)
            delivery = self._ending[link] = Delivery()
            delivery.ask(link.unsent_size, now)
            self._timers.set(link, now + _LAST_WORDS, self._on_last_words)
            self._to_write[link] = None
        elif link.state is LinkState.CONNECTING:
            self._actions.append(Close(link))
            self._drop_link(link, now)

    def _on_last_words(self, link: ServerLink, now: float) -> None:
        """Keep sending on ENDING `link` while bytes move, or cut it off."""
        deadline = self._ending[link].deadline(now, _LAST_WORDS, link.writing)
        if deadline > now:
            self._timers.set(link, deadline, self._on_last_words)
        else:
            self._doom(link)

    def _on_silence(self, link: ServerLink, now: float) -> None:
        self._doom(link)

    def _drop_link(self, link: ServerLink, now: float) -> None:
        link.turn(LinkState.GONE)
        self.links.pop(link, None)
        self._to_write.pop(link, None)
        self._doomed.pop(link, None)
        self._behind.pop(link, None)
        self._ending.pop(link, None)
        self._timers.cancel(link)
        self.queue.memory -= link.held - link.registered
        link.unsent.clear()
        link.unsent_size = link.buffered = link.writing = link.listed = 0
        self._detach(link, now)

    def _detach(self, link: ServerLink, now: float) -> None:
        """`link` is neither a client nor a worker any more."""
        self.queue.memory -= link.listed
        link.listed = 0
        link.asleep = False
        link.work = self._detaching(link, now)
        self._go_on(link, now)

    def _detaching(self, link: ServerLink, now: float) -> Iterator[int]:
        """Take `link`, which is ENDING or GONE, from all that knows it."""
        while link.listening:
            job, _ = link.listening.popitem()
            self.queue.stop_listening(job, link)
            yield 1
        yield from self._resetting(link)
        for job in list(link.jobs.values()):
            if job.worker is link:
                self._take_away(job, now)
            yield 1

    def _stop_listening(self) -> None:
        if self._life is ServerLife.SERVING:
            self._actions.append(StopListening())

    def _give_up_links(self) -> list[ServerLink]:
        links = list(self.links)
        for link in links:
            if link.alive:
                link.turn(LinkState.GONE)
            link.unsent.clear()
            link.work = None
        self.links.clear()
        self._ending.clear()
        self._behind.clear()
        self._to_write.clear()
        return links

    def _end(self) -> None:
        self._turn(ServerLife.ENDED)
        self._behind.clear()
        self.queue.clear()
        self._timers.clear()
        for wait in self._waits:
            wait.finish()

    # Functions and workers.

    def _add_ability(self, link: ServerLink, name: bytes, seconds: float) -> None:
        if len(link.abilities) >= self._max_abilities:
            function = self.queue.functions.get(name)
            if function is None or function not in link.abilities:
                text = f"A connection may register for {self._max_abilities} functions at most"
                self._refuse(link, b"TOO_MANY_FUNCTIONS", text.encode())
                # If it went on, what it does not serve would never be done.
                raise RemoteProtocolError(text)
        self.queue.register(link, name, seconds)
        if link.asleep and link.ready:
            self._wake(link)

    def _on_can_do(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        (function,) = args
        self._add_ability(link, function, 0)

    def _on_can_do_timeout(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        # Milliseconds. Less than a second is a second, as in gearmand: workers in several languages
        # mean seconds.
        function, timeout = args
        seconds = number(timeout) / 1000
        self._add_ability(link, function, max(seconds, 1.0) if seconds > 0 else 0)

    def _on_cant_do(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        (name,) = args
        function = self.queue.functions.get(name)
        if function in link.abilities:
            self.queue.unregister(link, function)

    def _on_reset_abilities(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        link.work = self._resetting(link)

    def _resetting(self, link: ServerLink) -> Iterator[int]:
        """Take all abilities of `link` away, the latest first."""
        while link.abilities:
            self.queue.unregister(link, next(reversed(link.abilities)))
            yield 1

    def _on_pre_sleep(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        if len(link.ready) > _LOOKS:
            self._left -= len(link.ready) // _LOOKS
        if self.queue.next_job(link) is not None:
            self._send(link, Noop)
        else:
            link.asleep = True

    def _wake(self, link: ServerLink) -> None:
        """No job that comes after this is news to `link` until it sleeps again."""
        link.asleep = False
        self._send(link, Noop)

    def _on_grab(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        link.asleep = False
        if len(link.ready) > _LOOKS:
            self._left -= len(link.ready) // _LOOKS
        job = self.queue.next_job(link)
        if job is None:
            self._send(link, NoJob)
            return
        function, handle = job.function, job.handle
        self.queue.assign(job, link)
        link.jobs[handle] = job
        if link.former:
            link.former.pop(handle, None)
        seconds = link.abilities[function]
        if seconds:
            job.limited = True
            self._timers.set(job, now + seconds, self._take_away)
        if kind is GrabJob:
            self._send(link, JobAssign, (handle, function.name, job.data))
        elif kind is GrabJobAll and job.reducer:
            names = handle, function.name, job.unique, job.reducer
            self._send(link, JobAssignAll, (*names, job.data))
        else:
            self._send(link, JobAssignUniq, (handle, function.name, job.unique, job.data))

    # Jobs.

    def _on_submit(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        function, unique, data = args
        priority, background = _SUBMITS[kind]
        self._submit(link, now, function, unique, data, priority, background=background)

    def _on_submit_epoch(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        function, unique, text, data = args
        epoch = number(text)
        if epoch > constants.MAX_EPOCH or text[19:20].isdigit():
            self._refuse(link, b"ARGUMENT_TOO_LARGE", b"Epoch out of range")
            return
        # What is due now stays so, also where the wall clock is set back while it runs.
        if epoch <= self._wall_clock():
            epoch = 0
        self._submit(link, now, function, unique, data, NORMAL, background=True, epoch=epoch)

    def _on_submit_reduce(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        function, unique, reducer, _, data = args
        if len(reducer) > constants.MAX_REDUCER_SIZE:
            self._refuse(link, b"ARGUMENT_TOO_LARGE", b"Unique value too large")
            return
        background = kind is SubmitReduceJobBackground
        self._submit(
            link, now, function, unique, data, NORMAL, background=background, reducer=reducer
        )

    def _submit(
        self,
        link: ServerLink,
        now: float,
        function: bytes,
        unique: bytes,
        data: bytes,
        priority: int,
        *,
        background: bool,
        epoch: int = 0,
        reducer: bytes = b"",
    ) -> None:
        if len(unique) > _MAX_UNIQUE_SIZE:
            self._refuse(link, b"ARGUMENT_TOO_LARGE", b"Unique value too large")
            return
        # The packet for the worker includes the handle. A worker's size limit can be the same.
        size = len(function) + len(unique) + len(data) + _ASSIGN_OVERHEAD
        size += len(reducer) + bool(reducer)
        if size > self._max_packet_size:
            text = b"%d bytes with the handle; max_packet_size is %d"
            self._refuse(link, b"ARGUMENT_TOO_LARGE", text % (size, self._max_packet_size))
            return
        queue = self.queue
        key = key_of(unique, data)
        job = queue.find(function, key)
        try:
            if job is None:
                job = queue.add(function, unique, data, key, priority)
                job.reducer = reducer
                job.epoch = epoch
                # Before JOB_CREATED, as gearmand does, which shows where a client is a worker, too
                # (recording 25_noop_before_assign).
                self._put(job, now)
            elif not (background or link in job.listeners or queue.has_room(LISTENER_SIZE)):
                raise QueueFullError(FULL)
        except QueueFullError as full:
            self._refuse(link, b"QUEUE_ERROR", full.text)
            return
        if background:
            job.background = True
        else:
            queue.listen(job, link)
            link.listening[job] = None
        self._queue(link, link.connection.send_args(JobCreated, (job.handle,)))

    def _put(self, job: QueuedJob, now: float) -> None:
        """Give `job` out to whoever asks, from its epoch on."""
        for link in self.queue.put(job):
            self._left -= 1
            self._wake(link)
        if job.epoch:
            self._watch_clock(now)

    def _watch_clock(self, now: float) -> None:
        """Look again when the next job for later is due."""
        seconds = self.queue.seconds_to_epoch()
        if seconds is not None:
            look_at = now + min(seconds, _LOOK_AT_CLOCK)
            if self._look_at is None or look_at < self._look_at:
                self._look_at = look_at
                self._timers.set(_EPOCHS, look_at, self._on_epochs)

    def _on_epochs(self, _: str, now: float) -> None:
        self._look_at = None
        # The others are due still.
        for job in self.queue.take_due(max(self._left, 1)):
            self._left -= 1
            self._put(job, now)
        self._watch_clock(now)

    def _take_away(self, job: QueuedJob, now: float) -> None:
        """The worker of `job` is lost to it: run it again, unless that has happened too often."""
        self._leave_before_its_end(job)
        job.losses += 1
        job.numerator = job.denominator = 0
        if not job.wanted:
            self.queue.forget(job)
        elif self._job_retries is not None and job.losses > self._job_retries:
            self._tell(job, WorkFail, (job.handle,))
            self.queue.forget(job)
        else:
            self._put(job, now)

    def _leave_worker(self, job: QueuedJob) -> None:
        del job.worker.jobs[job.handle]
        self.queue.take_back(job)
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

    def cancel(self, job: QueuedJob) -> None:
        """End `job`, whatever its state; those who wait for it get WORK_FAIL."""
        self._tell(job, WorkFail, (job.handle,))
        if job.worker is not None:
            self._leave_before_its_end(job)
        self.queue.forget(job)

    def _tell(self, job: QueuedJob, kind: type[PacketEvent], args: Sequence[bytes]) -> None:
        """Send a packet to all who wait for `job`; WORK_FAIL to those who want no exceptions."""
        packet = b""
        for link, count in job.listeners.items():
            self._left -= count
            if link.state is not OPEN:
                continue  # It has not been taken from here yet.
            if kind is WorkException and not link.exceptions:
                data = link.connection.send_args(WorkFail, (job.handle,))
            else:
                # It answers nothing, so it is the same for all of them.
                data = packet = packet or link.connection.send_args(kind, args)
            if count == 1:
                self._queue(link, data)
            else:
                self._queue_copies(link, data, count)

    # What workers send.

    def _job_of(self, link: ServerLink, kind: Any, handle: bytes) -> QueuedJob | None:
        """The job that a packet is about, if `link` has it."""
        job = link.jobs.get(handle)
        # Workers do not expect an ERROR for what was theirs. Several stop working on one.
        if job is None and handle not in link.former:
            self._refuse(link, b"JOB_NOT_FOUND", _NOT_FOUND_TEXTS.get(kind, _NOT_FOUND))
        return job

    def _on_work_data(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        job = self._job_of(link, kind, args[0])
        if job is not None:
            self._tell(job, kind, args)

    def _on_work_status(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        handle, numerator, denominator = args
        job = self._job_of(link, kind, handle)
        if job is not None:
            denominator = _cut(denominator)
            job.numerator = max(number(numerator), 0)
            job.denominator = max(number(denominator), 0)
            self._tell(job, kind, (handle, numerator, denominator))

    def _on_work_end(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        job = self._job_of(link, kind, args[0])
        if job is not None:
            # Anything behind the handle of WORK_FAIL hangs libgearman's clients.
            self._tell(job, kind, args[:1] if kind is WorkFail else args)
            self._leave_worker(job)
            self.queue.forget(job)

    def _on_work_exception(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        job = self._job_of(link, kind, args[0])
        if job is not None:
            self._tell(job, kind, args)
            # Some workers send WORK_FAIL after it.
            self._leave_before_its_end(job)
            self.queue.forget(job)

    # What anybody sends.

    def _refuse(self, link: ServerLink, code: bytes, text: bytes) -> None:
        self._send(link, Error, (code, text))

    def _on_unsupported(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        self._refuse(link, b"INVALID_COMMAND", b"Command not expected")

    def _on_invalid(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        (event,) = args
        self._refuse(link, event.code, event.text)

    def _on_echo(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        self._send(link, EchoRes, args)

    def _on_option(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        (option,) = args
        if option.lower() == b"exceptions":
            link.exceptions = True
            self._send(link, OptionRes, (option,))
        else:
            self._refuse(link, b"UNKNOWN_OPTION", b"Server does not recognize given option")

    def _on_set_client_id(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        link.client_id = _cut(args[0])[: constants.MAX_CLIENT_ID_SIZE]

    def _on_get_status(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        handle = _cut(args[0])
        self._send(link, StatusRes, (handle, *_status(self.queue.jobs.get(handle))))

    def _on_get_status_unique(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        unique = _cut(args[0])
        job = self.queue.by_key.get(unique)
        clients = job.attached if job is not None else 0
        self._send(link, StatusResUnique, (unique, *_status(job), b"%d" % clients))

    def _on_line(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        (event,) = args
        answer = reply(self, event.line)
        if isinstance(answer, bytes):
            self._queue(link, answer)
        else:
            link.listed = answer.size
            self.queue.memory += answer.size
            link.work = self._send_list(link, answer)

    def _send_list(self, link: ServerLink, listing: Listing) -> Iterator[int]:
        for piece, size in listing:
            self._queue(link, piece)
            yield 1 + size // _TEXT
        self.queue.memory -= link.listed
        link.listed = 0

    def _on_closed(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        self._end_link(link, now)


_RANKS: Final = {PRIORITY_HIGH: HIGH, PRIORITY_NONE: NORMAL, PRIORITY_LOW: LOW}
# The submits that have nothing special: rank, and whether nobody waits.
_SUBMITS: Final = {
    event_class: (_RANKS[priority], background)
    for (priority, background), event_class in SUBMITS.items()
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
