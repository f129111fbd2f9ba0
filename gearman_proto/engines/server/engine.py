"""The job server engine (tier 2): all decisions of a job server, without I/O.

The module `jobqueue` manages the jobs and functions, and `accepted` defines the links.

The engine behaves like gearmand 1.1.21 without gearmand's bugs, which docs/reference/server.md
lists.

Order
    The engine processes the packets of a link in the order of their arrival, and each link has one
    queue of outgoing packets. Responses therefore have the order of the requests, and a client
    receives JOB_CREATED before any other packet about its job.

Turns
    Each call of the engine does a limited amount of work, so that no link delays the others for
    long. `_budget` is the remaining budget of the current call. It starts at _BUDGET. Each packet
    costs 1, and expensive steps cost more. If the budget runs out, later calls of `handle_timeout`
    do the rest, with one budget for all links. Until then, `link.has_backlog` is true and the link
    is queued in `_backlogged`. `link.work` is work for several calls: a long text reply, or the
    cleanup of a link.

Life
    The table SERVER_LIVES has the states of the server. If a peer closes its stream or sends
    garbage, its link becomes ENDING: the engine sends the queued packets, then closes the link.

Memory
    `queue.memory` counts the bytes that the server keeps because of its peers: jobs, functions,
    unfinished packets, and unread output. The engine refuses a job of more than a quarter of
    `max_memory`, and any job that would raise the total above three quarters, with an ERROR. The
    last quarter is reserved for workers and for the packets that end jobs. If the total exceeds
    `max_memory`, the engine disconnects the link that holds the most bytes. It also disconnects
    any link with more than `max_unread` unread bytes. It disconnects links at the end of a call,
    never in the middle of other work.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants
from gearman_proto.checks import check_count, check_packet_size
from gearman_proto.constants import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE
from gearman_proto.engines.base import (
    GONE,
    OPEN,
    BaseEngine,
    Close,
    LinkState,
    StopListening,
    take_chunk,
)
from gearman_proto.engines.delivery import Delivery
from gearman_proto.engines.states import transition
from gearman_proto.engines.waits import Wait
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

from .commands import Listing, reply
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
from .links import SERVER_LIVES, SERVING, ServerLife, ServerLink

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Sequence


# Budget of one call, in typical packets. That many take about a millisecond.
_BUDGET: Final = 250
# Bytes of a text reply, and functions that a grab checks, that take as long as a packet.
_TEXT: Final = 256
_CHECKS: Final = 10
# Don't disconnect a link that holds less than this to free memory.
_FEW_BYTES: Final = 64 * 1024
# Don't count writes up to this size as unread output.
_FEW_WRITTEN: Final = 4096
# Maximum length of `link.former`.
_FORMER_JOBS: Final = 256
# Seconds without progress after which the engine closes an ENDING link.
_LAST_WORDS: Final = 5.0
# Timeout of the TLS handshake, in seconds.
_HANDSHAKE: Final = 10.0
# Maximum seconds between two readings of the wall clock, which an admin can set at any time.
_LOOK_AT_CLOCK: Final = 60.0
# In bytes, as in gearmand (recording 29_unique_63_and_64).
_MAX_UNIQUE_SIZE: Final = 64
# Size of a JOB_ASSIGN_UNIQ without its function, unique, and data: a handle and three NULs.
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

    The server keeps its jobs in memory only, so they are lost when the process ends.

    See `Engine` for the transport side. A server's links come from `accept`, and the engine never
    returns a Connect. `serve` returns a Wait for the end of the server, which `close` or the admin
    command ``shutdown`` causes.

    Args:
        rng: The random number generator that makes the handles of each server run distinct.
        wall_clock: Returns the seconds since 1970.
        host: The name of this machine, for handles.
        pid: The response to ``getpid``.
        version: The response to ``version``.
        job_retries: Maximum number of retries of a job whose worker was lost or timed out, after
            which the job fails. None means unlimited. (gearmand's ``--job-retries N`` is N - 1
            here.)
        max_packet_size: Size limit of a packet, in bytes. The server disconnects a peer that
            announces a larger packet.
        max_unread: Limit of unread output, in bytes. The server disconnects a peer that leaves
            more unread.
        max_memory: Memory limit for all jobs and packets, in bytes. Jobs can use three quarters of
            it, and a single job one quarter.
        max_queue_size: Maximum number of jobs of a function, unless ``maxqueue`` has set another
            limit. 0 means unlimited.
        max_abilities: Maximum number of functions of a worker. The server sends an ERROR to a
            worker that registers for more, then disconnects it.
        exceptions: If true, send WORK_EXCEPTION to all clients, otherwise only to those that have
            requested it.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an invalid value.
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
        # A JOB_ASSIGN is larger than the submit of its job.
        check_packet_size(max_packet_size, constants.MAX_BODY_SIZE // 2)
        check_count("max_unread", max_unread, 1)
        check_count("max_memory", max_memory, 1)
        check_count("max_queue_size", max_queue_size, 0)
        check_count("max_abilities", max_abilities, 1)
        super().__init__()
        # One call can cause an action for every link.
        self._actions = deque()
        #: The functions and jobs.
        self.queue: JobQueue = JobQueue(
            make_handles(host, rng), wall_clock, max_memory, max_queue_size
        )
        #: The live links.
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
        # The keys of `_timers` are running jobs with a time limit, CONNECTING and ENDING links,
        # and _EPOCHS. `_look_at` is the deadline of _EPOCHS.
        self._look_at: float | None = None
        self._to_write: dict[ServerLink, None] = {}
        # Links to disconnect at the end of the call.
        self._to_disconnect: dict[ServerLink, None] = {}
        # Links with a backlog, in the order of their turns (`_backlogged`); the budget of a call
        # (`_call_budget`); the rest of the current budget (`_budget`); and the time at which a link
        # was last added to `_backlogged` (`_backlogged_since`).
        self._backlogged: OrderedDict[ServerLink, None] = OrderedDict()
        # The progress of the last bytes of each ENDING link.
        self._ending: dict[ServerLink, Delivery] = {}
        self._call_budget = _BUDGET
        self._budget = _BUDGET
        self._backlogged_since = 0.0
        # Each handler is called with the link, the event's class, the packet's arguments, and the
        # time.
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

    def _transition(self, life: ServerLife) -> None:
        self._life = transition(SERVER_LIVES, self._life, life)

    @property
    def closed(self) -> bool:
        """True if the server has ended."""
        return self._life is ServerLife.ENDED

    # The caller's side.

    def accept(self, peer: str, number: int, now: float, *, handshake: bool = False) -> ServerLink:
        """Return the link of a new connection.

        Args:
            peer: The peer's address, for the list of workers.
            number: The adapter's number of the connection, for the list of workers. (gearmand shows
                the file descriptor.)
            now: The time.
            handshake: True if the connection starts with a TLS handshake. The transport then
                reports `connected` or `connect_failed`. If the handshake takes more than ten
                seconds, the engine returns a Close.
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
            link.transition(LinkState.GONE)
            self._actions.append(Close(link))
        return link

    def serve(self, now: float, wake: Callable[[], Any]) -> Wait:
        """Return a Wait that is done, and calls `wake`, when the server has ended.

        If the server has already ended, the call is refused.
        """
        wait = Wait(None, wake)
        if self.closed:
            return wait.refuse(LocalProtocolError("this server has ended"))
        self._waits.add(wait)
        return wait

    def release(self, wait: Wait, now: float) -> None:
        """Forget `wait`, whose caller is no longer blocked."""
        self._waits.discard(wait)

    def retire(self, *, graceful: bool) -> None:
        """Stop listening, send all queued packets, and end.

        Only admin commands call this, so it always runs within another call of the engine, which
        finishes the work.

        Args:
            graceful: If true, finish all jobs first.
        """
        self._stop_listening()
        if self._life in (ServerLife.SERVING, ServerLife.DRAINING):
            self._transition(ServerLife.DRAINING if graceful else ServerLife.ENDING)

    def close(self, now: float) -> None:
        """Close all connections and end immediately."""
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

    # The transport side: input.

    def connected(self, link: ServerLink, now: float) -> None:
        """Report that the handshake of `link` is complete. Ignore the call if there was none."""
        if link.state is LinkState.CONNECTING:
            link.transition(OPEN)
            self._timers.cancel(link)

    def connect_failed(self, link: ServerLink, error: Exception, now: float) -> None:
        """Report that the handshake of `link` failed with `error`."""
        self.connection_lost(link, error, now)

    def receive_data(self, link: ServerLink, data: bytes, now: float) -> None:
        """Process the bytes `data`, received on `link`."""
        if link.state is not OPEN:
            return
        link.connection.receive_data(data)
        if link.has_backlog:
            self._count(link)
        else:
            self._budget = self._call_budget
            self._resume(link, now)
        self._finish_call(now)

    def receive_eof(self, link: ServerLink, now: float) -> None:
        """Process the end of the stream that the peer of `link` sends.

        The peer might still read, as in ``echo status | nc``.
        """
        if link.is_up:
            link.connection.receive_eof()
            if not link.has_backlog:
                self._budget = self._call_budget
                self._resume(link, now)
            self._finish_call(now)

    def connection_lost(self, link: ServerLink, error: Exception, now: float) -> None:
        """Report that `link` was lost, and discard its unprocessed packets."""
        if link.alive:
            self._budget = self._call_budget
            self._drop_link(link, now)
            self._finish_call(now)

    def handle_timeout(self, now: float) -> None:
        """Process the deadlines that have passed at `now`, then links with a backlog."""
        self._budget = self._call_budget
        while self._budget > 0 and self._timers.expire_one(now):
            self._budget -= 1
        while self._budget > 0 and self._backlogged:
            link, _ = self._backlogged.popitem(last=False)
            self._resume(link, now)
        self._finish_call(now)

    def _resume(self, link: ServerLink, now: float) -> None:
        """Process packets and work of `link` until the budget is used up.

        If some remain, queue `link` for its next turn.
        """
        connection, handlers = link.connection, self._handlers
        has_backlog = kept = True
        try:
            while self._budget > 0:
                if link.work is None:
                    for kind, args in connection.requests():
                        self._budget -= 1
                        handlers[kind](link, kind, args, now)
                        if self._budget <= 0 or link.work is not None:
                            break
                    else:
                        if connection.is_drained():
                            has_backlog = kept = False
                            break
                        event = connection.next_event()
                        if event is NEED_DATA:
                            has_backlog = False
                            break
                        self._budget -= 1
                        # An event that is not a packet has no arguments. Pass the event itself.
                        values: tuple[Any, ...] = (event,)
                        if isinstance(event, PacketEvent):
                            values = type(event).arguments(event)
                        handlers[type(event)](link, type(event), values, now)
                elif (cost := next(link.work, None)) is not None:
                    self._budget -= cost
                # Don't process further packets of a link that is about to be disconnected.
                elif link.state is OPEN and link not in self._to_disconnect:
                    link.work = None
                else:
                    has_backlog = False
                    break
        except RemoteProtocolError:
            self._end_link(link, now)
            has_backlog = link.has_backlog
        link.has_backlog = has_backlog
        if has_backlog:
            self._backlogged[link] = None
            self._backlogged_since = now
        if kept or link.buffered:
            self._count(link)

    def _count(self, link: ServerLink) -> None:
        """Update the memory counter with the number of unprocessed bytes from `link`."""
        buffered = link.connection.buffered if link.state is not GONE else 0
        if buffered != link.buffered:
            self.queue.memory += buffered - link.buffered
            link.buffered = buffered

    # The transport side: output.

    def next_deadline(self) -> float | None:
        """Return the time of the next `handle_timeout`, or None."""
        return self._backlogged_since if self._backlogged else self._timers.next_deadline()

    def links_to_measure(self, now: float) -> Iterable[ServerLink]:
        """Return the ENDING links whose deadline has passed, for `measured`."""
        return [link for link in self._ending if self._is_due(link, now)]

    def measured(self, link: ServerLink, unacknowledged: int) -> None:
        """Report the number of written bytes that the peer's system has not acknowledged."""
        self._ending[link].measured(unacknowledged)

    def links_to_write(self) -> Iterable[ServerLink]:
        """Return the links that have had new output since the last call."""
        links, self._to_write = self._to_write, {}
        return links

    def data_to_send(self, link: ServerLink, now: float) -> bytes:
        """Return the next bytes to write on `link`, or ``b""``."""
        unsent = link.unsent
        if link.writing:
            self.queue.memory -= link.writing
            link.writing = 0
        delivery = self._ending.get(link) if self._ending else None
        if delivery is not None:
            delivery.taken(now)
        if not unsent:
            if delivery is not None:
                self._budget = self._call_budget
                self._actions.append(Close(link))
                self._drop_link(link, now)
                self._finish_call(now)
            return b""
        data = take_chunk(unsent)
        size = len(data)
        if delivery is not None:
            delivery.handed += size
        link.unsent_size -= size
        # If small writes were counted, the driver could not skip the next `data_to_send`.
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
            # The first packet does not count: a single packet can have any size, and the peer might
            # not have had time to read it.
            first = 0 if link.writing else len(link.unsent[0])
            if unread - first > self._max_unread:
                self._schedule_disconnect(link)
                return
        link.unsent.append(data)
        link.unsent_size = unread + size
        self.queue.memory += size
        self._to_write[link] = None

    def _queue_copies(self, link: ServerLink, data: bytes, count: int) -> None:
        """Queue `count` copies. Only the first and the last go through the limit check."""
        self._queue(link, data)
        size = (count - 2) * len(data)
        if size > self._max_unread:
            self._schedule_disconnect(link)
            return
        link.unsent.extend([data] * (count - 2))
        link.unsent_size += size
        self.queue.memory += size
        self._queue(link, data)

    def _schedule_disconnect(self, link: ServerLink) -> None:
        """Disconnect `link` at the end of this call."""
        self._to_disconnect[link] = None
        if link.work is None:
            link.work = iter(())  # Stop processing its packets.

    def _finish_call(self, now: float) -> None:
        """Disconnect links and advance the server's state at the end of a call."""
        while self._to_disconnect or (
            self.queue.memory > self._max_memory and self._disconnect_largest()
        ):
            link, _ = self._to_disconnect.popitem()
            self._actions.append(Close(link))
            self._drop_link(link, now)
        if self._life is not SERVING and not self.closed:
            if self._life is ServerLife.ENDING or not self.queue.jobs:
                if self._life is ServerLife.DRAINING:
                    self._transition(ServerLife.ENDING)
                for link in list(self.links):
                    self._end_link(link, now)
            if not self.links:
                self._end()

    def _disconnect_largest(self) -> bool:
        """Schedule the link that holds the most memory for disconnection.

        Return False if the server is below its memory limit, or if no link holds enough.
        """
        self.queue.drop_idle_functions()
        worst = max(self.links, key=lambda link: link.held, default=None)
        if self.queue.memory <= self._max_memory or worst is None or worst.held < _FEW_BYTES:
            return False
        self._schedule_disconnect(worst)
        return True

    def _end_link(self, link: ServerLink, now: float) -> None:
        """Close `link` as soon as all its queued bytes have been sent."""
        if link.is_up:
            link.transition(LinkState.ENDING)
            self._detach(link, now)
            delivery = self._ending[link] = Delivery()
            delivery.ask(link.unsent_size, now)
            self._timers.set(link, now + _LAST_WORDS, self._on_last_words)
            self._to_write[link] = None
        elif link.state is LinkState.CONNECTING:
            self._actions.append(Close(link))
            self._drop_link(link, now)

    def _on_last_words(self, link: ServerLink, now: float) -> None:
        """Disconnect the ENDING `link`, unless its bytes have made progress."""
        deadline = self._ending[link].deadline(now, _LAST_WORDS, link.writing)
        if deadline > now:
            self._timers.set(link, deadline, self._on_last_words)
        else:
            self._schedule_disconnect(link)

    def _on_silence(self, link: ServerLink, now: float) -> None:
        self._schedule_disconnect(link)

    def _drop_link(self, link: ServerLink, now: float) -> None:
        link.transition(LinkState.GONE)
        self.links.pop(link, None)
        self._to_write.pop(link, None)
        self._to_disconnect.pop(link, None)
        self._backlogged.pop(link, None)
        self._ending.pop(link, None)
        self._timers.cancel(link)
        self.queue.memory -= link.held - link.registered
        link.unsent.clear()
        link.unsent_size = link.buffered = link.writing = link.listed = 0
        self._detach(link, now)

    def _detach(self, link: ServerLink, now: float) -> None:
        """Start to remove `link` from all jobs and functions."""
        self.queue.memory -= link.listed
        link.listed = 0
        link.asleep = False
        link.work = self._detaching(link, now)
        self._resume(link, now)

    def _detaching(self, link: ServerLink, now: float) -> Iterator[int]:
        """Remove `link`, which is ENDING or GONE, from all jobs and functions, in steps."""
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
                link.transition(LinkState.GONE)
            link.unsent.clear()
            link.work = None
        self.links.clear()
        self._ending.clear()
        self._backlogged.clear()
        self._to_write.clear()
        return links

    def _end(self) -> None:
        self._transition(ServerLife.ENDED)
        self._backlogged.clear()
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
                # Disconnect the worker. Otherwise it would seem to serve a function that the
                # server never gives it jobs of.
                raise RemoteProtocolError(text)
        self.queue.register(link, name, seconds)
        if link.asleep and any(link.ready):
            self._wake(link)

    def _on_can_do(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        (function,) = args
        self._add_ability(link, function, 0)

    def _on_can_do_timeout(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        # The unit is milliseconds. As in gearmand, the minimum is one second, since workers in
        # several languages send seconds.
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
        """Unregister `link` from all its functions, the latest first, in steps."""
        while link.abilities:
            self.queue.unregister(link, next(reversed(link.abilities)))
            yield 1

    def _on_pre_sleep(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        if self._next_job(link) is not None:
            self._send(link, Noop)
        else:
            link.asleep = True

    def _next_job(self, link: ServerLink) -> QueuedJob | None:
        """Return the next job for the worker `link`, and charge the search to the budget."""
        job, checked = self.queue.next_job(link)
        self._budget -= checked // _CHECKS
        return job

    def _wake(self, link: ServerLink) -> None:
        """Send NOOP to `link`, once until it sleeps again."""
        link.asleep = False
        self._send(link, Noop)

    def _on_grab(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        link.asleep = False
        job = self._next_job(link)
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
        # A job that is due stays due, even if the wall clock is set back while the job runs.
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
        # The packet for the worker also has the handle, and the worker's size limit might equal
        # the server's.
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
                # As in gearmand, queue NOOP before JOB_CREATED. A client that is also a worker sees
                # the order (recording 25_noop_before_assign).
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
        """Queue `job` for workers, or delay it until its epoch."""
        for link in self.queue.put(job):
            self._budget -= 1
            self._wake(link)
        if job.epoch:
            self._watch_clock(now)

    def _watch_clock(self, now: float) -> None:
        """Set the timer for the next delayed job."""
        seconds = self.queue.seconds_to_epoch()
        if seconds is not None:
            look_at = now + min(seconds, _LOOK_AT_CLOCK)
            if self._look_at is None or look_at < self._look_at:
                self._look_at = look_at
                self._timers.set(_EPOCHS, look_at, self._on_epochs)

    def _on_epochs(self, _: str, now: float) -> None:
        self._look_at = None
        # Further due jobs stay in the queue, and `_watch_clock` sets a deadline that has passed.
        for job in self.queue.take_due(max(self._budget, 1)):
            self._budget -= 1
            self._put(job, now)
        self._watch_clock(now)

    def _take_away(self, job: QueuedJob, now: float) -> None:
        """Take `job` from its worker, and retry it unless it has reached the retry limit."""
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
        """Take `job` from its worker, which might still send packets about it."""
        former: dict[bytes, None] = job.worker.former
        self._leave_worker(job)
        former[job.handle] = None
        if len(former) > _FORMER_JOBS:
            del former[next(iter(former))]

    def cancel(self, job: QueuedJob) -> None:
        """End `job` in any state, and send WORK_FAIL to its listeners."""
        self._tell(job, WorkFail, (job.handle,))
        if job.worker is not None:
            self._leave_before_its_end(job)
        self.queue.forget(job)

    def _tell(self, job: QueuedJob, kind: type[PacketEvent], args: Sequence[bytes]) -> None:
        """Send a packet to all listeners of `job`.

        Listeners that have not requested exceptions receive WORK_FAIL instead of WORK_EXCEPTION.
        """
        packet = b""
        for link, count in job.listeners.items():
            self._budget -= count
            if link.state is not OPEN:
                continue  # The cleanup of this link has not reached the job yet.
            if kind is WorkException and not link.exceptions:
                data = link.connection.send_args(WorkFail, (job.handle,))
            else:
                # The packet is not a response, so all links can share its bytes.
                data = packet = packet or link.connection.send_args(kind, args)
            if count == 1:
                self._queue(link, data)
            else:
                self._queue_copies(link, data, count)

    # Packets from workers.

    def _job_of(self, link: ServerLink, kind: Any, handle: bytes) -> QueuedJob | None:
        """Return the job of `handle` if it is assigned to `link`, otherwise None.

        Send an ERROR if neither `link.jobs` nor `link.former` has the handle.
        """
        job = link.jobs.get(handle)
        # Workers do not expect an ERROR for a job that the server took from them. Some stop on one.
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
            # Data after the handle of WORK_FAIL would hang libgearman's clients.
            self._tell(job, kind, args[:1] if kind is WorkFail else args)
            self._leave_worker(job)
            self.queue.forget(job)

    def _on_work_exception(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        job = self._job_of(link, kind, args[0])
        if job is not None:
            self._tell(job, kind, args)
            # Some workers send WORK_FAIL after WORK_EXCEPTION.
            self._leave_before_its_end(job)
            self.queue.forget(job)

    # Packets from clients and workers, and text commands.

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
        option = _cut(args[0])
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
# The plain submits: their priority, and True for a background job.
_SUBMITS: Final = {
    event_class: (_RANKS[priority], background)
    for (priority, background), event_class in SUBMITS.items()
}


def _cut(name: bytes) -> bytes:
    """Return `name` up to its first NUL. Only the last argument of a packet can contain one."""
    return name.partition(b"\0")[0] if 0 in name else name


def _status(job: QueuedJob | None) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the fields "known", "running", "numerator", and "denominator" of a STATUS_RES."""
    if job is None:
        return b"0", b"0", b"0", b"0"
    running = b"1" if job.state is RUNNING else b"0"
    return b"1", running, b"%d" % job.numerator, b"%d" % job.denominator
