"""The worker engine (tier 2): which server to ask for jobs, and the states of these jobs.

The module `link` has the tables of its states.

An open link is in one phase at a time. `_enter` is the only way into one.

Slots
    There are `max_jobs` slots. A job occupies one from JOB_ASSIGN until `job_done`, which follows
    the job's end because hooks run in between. A GRAB_JOB occupies a slot until it is answered,
    since the answer might be a job. Links that want to grab take turns, so that all servers are
    served alike. If a server leaves a grab unanswered, other links can use its slot after a second,
    and the engine closes the link after half a minute.

    A link sends one grab in its first turn. After each turn that has yielded a job, it doubles the
    number of grabs, up to `MOST_GRABS`, if slots are free. A long queue then does not cost a round
    trip for each job, and other workers still get jobs from a short one. A turn is over when all
    its grabs are answered. Servers answer in order: if the last grab has yielded no job, the queue
    is empty.

Time
    A sleeping link grabs again now and then, without a NOOP. gearmand does not wake workers when a
    job with a start time is due (recording 35_epoch), and an unanswered grab reveals a dead
    connection. If such a job precedes jobs of low priority in the queue, gearmand keeps answering
    PRE_SLEEP with NOOP and GRAB_JOB with NO_JOB. A link that is repeatedly woken without getting a
    job therefore waits in between (BACKOFF).

Deferred jobs
    A callback can leave its job open (`WorkerJob.defer`). Meanwhile the job keeps its slot, and its
    link. The engine holds the job, the application the handle:

    =======  ===============================================  ===================================
    job      event                                            effect
    =======  ===============================================  ===================================
    called   the callback returns, and the job is deferred:   left
             `leave`
    called   it returns, and the job has ended or was lost    `job_done`, as for any other job
    left     a final packet is sent: `send`                   finished
    left     the handle is garbage-collected                  WORK_FAIL and a notice; finished
    left     the link is lost                                 finished
    left     the time of `stop` is over                       the link is closed
    =======  ===============================================  ===================================

    `next_job` returns a finished job once more, so that the caller runs the hooks for its end and
    calls `job_done`. A handle can be garbage-collected at any point, which only leaves a reference
    in `dropped`. Once a second, while the engine holds jobs that were left, it checks their handles
    if there is such a reference.

Pulling
    Without `work`, each call of `grab` asks for one job. The calls that wait are the slots, so a
    link grabs only while more calls wait than grabs are unanswered, and `max_jobs` does not apply.
    The connections stay open between the calls, and the application ends each job by `send`, which
    also releases it.

    ==================================  ==========================================================
    event, in PULLING                   effect on the calls
    ==================================  ==========================================================
    a job is received                   The oldest call returns it. If no call waits, because the
                                        server has answered late, the next call returns it.
    the deadline of a call passes       The call returns None once no grab is unanswered, since the
                                        answer could be a job, or after another second.
    a call is cancelled after it has    The next call returns the job.
    been given a job
    no server can be reached            All calls raise ServerUnavailable, and the worker is IDLE.
    `stop`                              All calls return None when the servers have confirmed all
                                        results, and only jobs of the application keep links open.
                                        A call whose deadline is earlier returns None then.
    ==================================  ==========================================================

    A stopping worker gives jobs that no call has returned back to their servers, by closing the
    links once these have no other job.

Functions
    The engine wants the jobs of each function that is registered and not paused. A link tells its
    server of changes at the next event at which it may:

    ==================================  ==========================================================
    change, and the state of the link   effect
    ==================================  ==========================================================
    now wanted                          CAN_DO at once, and a grab if the link rests or sleeps
    no longer wanted, and a grab is     nothing yet: the answer could be such a job
    unanswered
    no longer wanted, and the link      nothing yet: gearmand would take the job away (recording
    holds a job of the function         21_cant_do_while_holding)
    no longer wanted, otherwise         CANT_DO
    ==================================  ==========================================================

    Until CANT_DO is sent, the link grabs for its other functions, so that a long job does not keep
    them from being served. If an answer brings a job of the unwanted function, the caller runs it.

    While the whole worker is paused, its links keep their functions but neither grab nor sleep:
    they rest, except for grabs that are unanswered. Servers send no NOOP to them.

Stopping
    A worker always stops in the same way. The links stop grabbing, the caller finishes the current
    jobs, and the engine closes each link without jobs. If a result was sent on the link, the engine
    first sends ECHO_REQ. The answer shows that the server has received the result. Without it,
    closing the connection could destroy the result in transit.

A lost link loses its jobs. The server gives them to other workers, and the engine must not send
packets about them on another connection.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants
from gearman_proto.checks import (
    check_count,
    check_packet_size,
    check_seconds,
    check_timeout,
    deadline_of,
)
from gearman_proto.engines.base import take_chunk
from gearman_proto.engines.connecting import ConnectingEngine, server_error
from gearman_proto.engines.delivery import MAX_HIDDEN, RATE
from gearman_proto.engines.servers import Server, ServerPool
from gearman_proto.engines.states import transition
from gearman_proto.engines.waits import Subscription, Wait
from gearman_proto.errors import (
    ConnectionError,
    InvalidWorkerState,
    LocalProtocolError,
    RemoteProtocolError,
)
from gearman_proto.jobs.job import WorkerJob
from gearman_proto.names import check_client_id, check_task
from gearman_proto.wire.connection import NEED_DATA
from gearman_proto.wire.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    EchoRes,
    Error,
    GrabJob,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    NoJob,
    Noop,
    PreSleep,
    SetClientId,
    Unanswered,
    WorkComplete,
    WorkException,
    WorkFail,
)

from .link import (
    GRABBING,
    PHASES,
    PULLING,
    QUEUED,
    RESTING,
    WORKER_LIVES,
    WORKING,
    Phase,
    WorkerLife,
    WorkerLink,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from gearman_proto.address import ServerAddress
    from gearman_proto.wire.packets import Event, PacketEvent


# Seconds after which an unanswered grab no longer keeps its slot.
_LATE: Final = 1.0
# Seconds without an answer or progress after which the worker closes a link.
_LOST: Final = 30.0
# This timeout replaces _LOST for the last grab of a stopping worker if no job or result is pending.
_LAST_ANSWER: Final = 1.0
# Bytes of an incoming packet that count as progress between two checks.
_MIN_GROWTH: Final = 1024
# A NOOP within _AT_ONCE seconds of PRE_SLEEP answers it. After more than _FRUITLESS such NOOPs
# without a job, the worker pauses before the next grab. The first pause takes _FIRST_PAUSE seconds,
# and each further pause twice as long, up to _LONGEST_PAUSE.
_AT_ONCE: Final = 0.05
_FRUITLESS: Final = 3
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.1
#: Maximum number of grabs to send at once. More would gain little and take jobs from other workers.
MOST_GRABS: Final = 8
# Maximum number of unsent bytes on a link before `send` returns a pending Wait.
_MAX_UNSENT: Final = 1024 * 1024
# Seconds without progress after which the worker disconnects a server while a `send` is pending.
_STALLED: Final = 60.0
# Seconds. A shorter interval would be a busy loop.
_SHORTEST_POLL: Final = 0.01
# Bytes. The worker could not send any packet about a job with a longer handle.
_LONGEST_HANDLE: Final = 65536
_MAX_NOTICES: Final = 100
# Seconds between checks for garbage-collected handles.
_LOOK_FOR_DROPPED: Final = 1.0

_POLL: Final = "poll"
_OUTAGE: Final = "outage"
_DRAIN: Final = "drain"
_DROPPED: Final = "dropped"
_STALL: Final = "stall"
# Links grab in these states.
_ACTIVE: Final = (WORKING, PULLING)
_TERMINAL: Final = (WorkComplete, WorkFail, WorkException)
# The phases in which a GRAB_JOB is unanswered, with their timeouts in seconds.
_ASKING: Final = {GRABBING: _LATE, Phase.LATE: _LOST, Phase.LAST_GRAB: _LAST_ANSWER}


class WorkSubscription(Subscription):
    """The call of `work`, which is woken for each update and done when the work is over."""

    __slots__ = ("active", "timeout")

    def __init__(self, wake: Callable[[], Any], timeout: float | None) -> None:
        super().__init__((), None, wake)
        #: Seconds without any event after which the caller is woken nevertheless, or None. The
        #: caller can change it. The change takes effect when `next_job` returns None or a job ends.
        self.timeout: float | None = timeout
        #: True if a server sent data or a connection was lost. The caller resets it.
        self.active: bool = False


class GrabWait(Wait):
    """A call of `grab`, which is done with a job or without."""

    __slots__ = ("job",)

    def __init__(self, deadline: float | None, wake: Callable[[], Any]) -> None:
        super().__init__(deadline, wake)
        self.job: WorkerJob | None = None

    def take(self) -> WorkerJob | None:
        """Remove and return the job, or return None. If it is not taken, the next call gets it."""
        job, self.job = self.job, None
        return job


class WorkerEngine(ConnectingEngine[WorkerLink]):
    """The logic of a Gearman worker, without I/O.

    See `Engine` for the transport side.

    On the caller's side, `work` returns a WorkSubscription. Whenever it is `ready`, the caller
    calls `next_job` until it returns None. The caller runs each job, ends it by a `send` of a
    terminal packet, and calls `job_done`. If the application has deferred the job, the caller calls
    `leave` instead of ending it. When the subscription is `done`, or to give up, the
    caller calls `end_work`, `release` and `raise_error`. The caller logs the `notices`.

    Instead of `work`, `grab` returns the Wait for one job. When it is done, the caller calls
    `take`, `release` and `raise_error`. The job ends with a `send` of a terminal packet.

    Args:
        addresses: The servers.
        rng: The random number generator.
        max_jobs: Maximum number of jobs at a time.
        connect_timeout: Seconds to wait for a connection.
        max_outage: Seconds without any server after which `work` gives up. When it starts, it gives
            up as soon as every server has failed once. With None, it waits forever in both cases.
        poll_interval: Seconds after which a sleeping link asks for jobs without a NOOP.
        max_packet_size: Size limit of a packet in bytes. The worker disconnects a server that
            sends a larger one.
        job_class: The class of the jobs.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an invalid value.
    """

    def __init__(
        self,
        addresses: Iterable[ServerAddress],
        *,
        rng: random.Random,
        max_jobs: int = 1,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_outage: float | None = constants.DEFAULT_MAX_OUTAGE,
        poll_interval: float = constants.DEFAULT_POLL_INTERVAL,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
        job_class: type[WorkerJob] = WorkerJob,
    ) -> None:
        super().__init__(connect_timeout)
        check_count("max_jobs", max_jobs, 1)
        check_seconds("poll_interval", poll_interval, constants.MIN_POLL_INTERVAL)
        if max_outage is not None:
            check_seconds("max_outage", max_outage, 0)
        check_packet_size(max_packet_size)
        self.pool: ServerPool = ServerPool(addresses, rng)
        #: Messages for the caller to log, newest last.
        self.notices: deque[str] = deque(maxlen=_MAX_NOTICES)
        #: A reference to a garbage-collected handle of a deferred job, if there might be one whose
        #: job has not ended. Only the newest is kept, since handles of ended jobs are dropped too.
        self.dropped: deque[Any] = deque(maxlen=1)
        self._rng = rng
        self._max_jobs = max_jobs
        self._max_outage = max_outage
        self._poll_interval = poll_interval
        self._max_packet_size = max_packet_size
        self._job_class = job_class
        self._abilities: dict[bytes, int | None] = {}
        # The paused functions. None stands for the whole worker.
        self._paused: set[bytes | None] = set()
        # The abilities that are not paused.
        self._wanted: dict[bytes, int | None] = {}
        self._client_id: bytes | None = None
        # The keys of the timers are links (connect timeout or end of a phase), servers (the next
        # connection), Waits of `send`, (_STALL, link) for a link with such Waits, _POLL, _OUTAGE,
        # _DRAIN and _DROPPED.
        self._grab_queue: deque[WorkerLink] = deque()
        # Number of grabs that occupy a slot.
        self._grabs = 0
        # Jobs that occupy a slot, and those that the caller has not taken yet.
        self._jobs: set[WorkerJob] = set()
        self._ready: deque[WorkerJob] = deque()
        # The jobs that were left open by their callbacks and have not ended.
        self._left: set[WorkerJob] = set()
        self._subscription: WorkSubscription | None = None
        # The calls of `grab` that wait.
        self._pulls: deque[GrabWait] = deque()
        self._life = WorkerLife.IDLE
        # The servers that have not failed since `work` began; None once a server was reached.
        self._untried: set[Server] | None = None
        # Servers that do not know GRAB_JOB_UNIQ.
        self._old_servers: set[Server] = set()
        # Callbacks for events, and for phases that have timed out. They share a dict because Python
        # 3.11 looks attributes up more slowly if an object has 30 or more.
        self._handlers: dict[Any, Callable[..., None]] = {
            Noop: self._on_noop,
            NoJob: self._on_no_job,
            JobAssign: self._on_job_assign,
            JobAssignUniq: self._on_job_assign,
            EchoRes: self._on_echo_res,
            Error: self._on_error,
            Unanswered: self._on_echo_res,
            GRABBING: self._on_late,
            Phase.LATE: self._on_unanswered,
            Phase.ASLEEP: self._enqueue,
            Phase.BACKOFF: self._enqueue,
            Phase.LAST_GRAB: self._on_unanswered,
            Phase.LEAVING: self._on_unanswered,
        }

    def _transition(self, life: WorkerLife) -> None:
        self._life = transition(WORKER_LIVES, self._life, life)

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._life is WorkerLife.CLOSED

    @property
    def is_idle(self) -> bool:
        """True if `work` and `grab` can begin."""
        return self._life in (WorkerLife.IDLE, WorkerLife.TOLD_TO_STOP)

    @property
    def is_pulling(self) -> bool:
        """True while the worker has connections for calls of `grab`."""
        return self._subscription is None and self._life in (PULLING, WorkerLife.STOPPING)

    # The caller's side: abilities.

    def register(self, now: float, function: str | bytes, timeout: float | None) -> None:
        """Accept jobs of `function`, with a time limit of `timeout` seconds (None: no limit).

        Raises:
            TypeError, ValueError: Servers do not accept such a name or timeout.
        """
        name = check_task(function)
        seconds = check_timeout(timeout)
        milliseconds = None if seconds is None else math.ceil(seconds * 1000)
        self._abilities.pop(name, None)
        self._abilities[name] = milliseconds
        self._tell_abilities(now)

    def unregister(self, now: float, function: str | bytes) -> None:
        """Stop accepting jobs of `function`. The current ones are finished first.

        Raises:
            TypeError, ValueError: Servers do not accept such a name.
        """
        self._abilities.pop(check_task(function), None)
        self._tell_abilities(now)

    def pause(self, now: float, function: str | bytes | None = None) -> None:
        """Stop accepting jobs until `resume`. The current ones are finished first.

        Args:
            now: The time.
            function: The function, registered or not. None pauses the whole worker.

        Raises:
            TypeError, ValueError: Servers do not accept such a name.
        """
        self._paused.add(None if function is None else check_task(function))
        self._tell_abilities(now)

    def resume(self, now: float, function: str | bytes | None = None) -> None:
        """Undo `pause` with the same `function`."""
        self._paused.discard(None if function is None else check_task(function))
        self._tell_abilities(now)

    def set_client_id(self, client_id: str | bytes) -> None:
        """Set the name of this worker in the servers' lists of workers.

        Raises:
            TypeError, ValueError: Servers do not accept such a name.
        """
        self._client_id = check_client_id(client_id)
        for link in self.pool.links():
            if link.is_up:
                self._send(link, SetClientId(self._client_id))

    # The caller's side: working.

    def work(
        self, now: float, wake: Callable[[], Any], *, timeout: float | None = None
    ) -> WorkSubscription:
        """Start working.

        Args:
            now: The time.
            wake: Called for each update, and when the work is over.
            timeout: Seconds without any event after which `wake` is called nevertheless, or None.

        Returns:
            The subscription. The engine refuses the call if it is closed or is working already.
        """
        subscription = WorkSubscription(wake, timeout)
        if self.closed:
            return subscription.refuse(InvalidWorkerState("this worker has been shut down"))
        if self._subscription is not None:
            return subscription.refuse(InvalidWorkerState("this worker works already"))
        if self.is_pulling:
            return subscription.refuse(
                InvalidWorkerState("this worker grabs jobs: stop it and finish them before work()")
            )
        self._subscription = subscription
        self._waits.add(subscription)
        if self._life is WorkerLife.TOLD_TO_STOP:
            self._transition(WorkerLife.STOPPING)
            subscription.finish()
            return subscription
        self._transition(WORKING)
        self._connect_to_all(now)
        self._set_poll(now)
        return subscription

    def grab(
        self, now: float, wake: Callable[[], Any], *, timeout: float | None = None
    ) -> GrabWait:
        """Ask for one job.

        Args:
            now: The time.
            wake: Called once, when the Wait is done.
            timeout: Seconds to wait for a job, or None. An unanswered grab can take a second more.

        Returns:
            The Wait. Without a job, its time is over, or the worker is stopped. The engine refuses
            the call if it is closed, or if `work` is running.
        """
        wait = GrabWait(deadline_of(now, timeout), wake)
        if self.closed:
            return wait.refuse(InvalidWorkerState("this worker has been shut down"))
        if self._subscription is not None:
            return wait.refuse(InvalidWorkerState("work() is running, and gets all jobs"))
        if self._life is WorkerLife.TOLD_TO_STOP:
            wait.finish()
            return wait
        self._waits.add(wait)
        self._pulls.append(wait)
        if wait.deadline is not None:
            self._timers.set(wait, wait.deadline, self._on_grab_timeout)
        if self._life is WorkerLife.IDLE:
            self._transition(PULLING)
            self._connect_to_all(now)
        self._look_for_dropped(_DROPPED, now)
        self._serve_pulls(now)
        self._grab_more(now)
        return wait

    def next_job(self, now: float) -> WorkerJob | None:
        """Remove and return the next job, or return None.

        A job that was left is returned again when it has ended.

        After None, the subscription becomes ready at the next update. This also applies after the
        last job in the queue, so the caller need not call again before that update.
        """
        while self._ready:
            job = self._ready.popleft()
            if job._gm_link.alive or job._gm_is_left:
                assert self._subscription is not None
                self._subscription.news = bool(self._ready)
                return job
            self._jobs.discard(job)  # It is somebody else's by now.
        if self._subscription is not None:
            self._subscription.news = False
            self._set_poll(now)
        self._grab_more(now)
        self._check_end(now)
        return None

    def send(
        self,
        now: float,
        wake: Callable[[], Any],
        job: WorkerJob,
        event: PacketEvent,
        *,
        timeout: float | None = None,
        done: bool = False,
    ) -> Wait:
        """Send a packet about a job. The Wait is done when there is room for another packet.

        Args:
            now: The time.
            wake: Called once, when the Wait is done.
            job: The job.
            event: The WORK_* packet.
            timeout: Seconds after which the Wait is done in any case, or None.
            done: True to call `job_done` as well if `event` ends the job. The result and the next
                GRAB_JOB are then written together.

        Returns:
            The Wait. The engine refuses the call with InvalidWorkerState if the job has ended or
            belongs to another worker, and with LocalProtocolError if servers do not accept such a
            packet. It refuses with ConnectionError if the job's connection was lost, since the
            server then gives the job to another worker.
        """
        wait = Wait(deadline_of(now, timeout), wake)
        if job.ended:
            return wait.refuse(InvalidWorkerState(f"{job!r} has ended"))
        link: WorkerLink = job._gm_link
        ends = isinstance(event, _TERMINAL)
        if not link.alive:
            job.ended = ends
            return wait.refuse(
                ConnectionError(
                    f"{job!r} was lost with its connection to {link.address}: {link.reason}"
                )
            )
        if link.server not in self.pool.servers:
            return wait.refuse(InvalidWorkerState(f"{job!r} is another worker's"))
        try:
            self._send(link, event)
        except LocalProtocolError as error:
            return wait.refuse(error)
        if ends:
            job.ended = True
            del link.jobs[job]
            link.results += 1
            self._resume(link, now)
            if done or self._subscription is None:
                self.job_done(now, job)
            elif job in self._left:
                self._finish_left(job, now)
            else:
                self._grab_more(now)
        if link.unsent_size <= _MAX_UNSENT:
            wait.finish()
            return wait
        if not link.waits:
            self._watch_stall(link, now)
        link.waits.append(wait)
        self._waits.add(wait)
        if wait.deadline is not None:
            self._timers.set(wait, wait.deadline, Wait.expire)
        return wait

    def leave(self, now: float, job: WorkerJob) -> bool:
        """Leave `job`, which is deferred, open when its callback has returned.

        Returns:
            True if the job is open, so that `next_job` returns it again when it has ended. False if
            it has ended or was lost, or is not deferred, so the caller calls `job_done` now.
        """
        is_open = job in self._jobs and job._gm_link.alive and not job.ended
        if not is_open or job._gm_deferred is None:
            return False
        job._gm_is_left = True
        self._left.add(job)
        self._look_for_dropped(_DROPPED, now)
        return True

    def job_done(self, now: float, job: WorkerJob, *, go_on: bool = True) -> None:
        """Release the slot of `job`. If the job has not ended, fail it.

        Args:
            now: The time.
            job: The job.
            go_on: False to stop as well, unless the `work` that has received the job is over.
        """
        link: WorkerLink = job._gm_link
        if not go_on and job in self._jobs:
            self.stop(now)  # First: its failure may otherwise let the link ask for another one.
        self._left.discard(job)
        if not job.ended and link.alive:
            self.send(now, _nothing, job, WorkFail(job.wire_handle))
        self._jobs.discard(job)
        job._gm_is_finished = True
        if self._life not in _ACTIVE and link.alive:
            self._retire(link, now)
        if self._subscription is not None:
            self._set_poll(now)  # The caller could not wait while it did the job.
        self._grab_more(now)
        self._check_end(now)

    def has_jobs(self) -> bool:
        """Return True if any job still occupies a slot."""
        return bool(self._jobs)

    def stop(self, now: float, *, timeout: float | None = None) -> None:
        """End the work as soon as the current jobs are done.

        If the worker is idle, the next `work` ends at once. All calls of `grab` return None.

        Args:
            now: The time.
            timeout: Seconds to wait for the jobs before closing the connections. None waits
                forever.
        """
        if self._life in (WorkerLife.IDLE, WorkerLife.TOLD_TO_STOP):
            self._transition(WorkerLife.TOLD_TO_STOP)
        if self._life in (WorkerLife.TOLD_TO_STOP, WorkerLife.CLOSED):
            return
        if timeout is not None:
            self._timers.set(_DRAIN, now + timeout, self._on_drained)
        if self._life in _ACTIVE:
            self._transition(WorkerLife.STOPPING)
            self._cancel_pending()
            for link in self.pool.links():
                self._retire(link, now)
        self._check_end(now)

    def end_work(self, now: float) -> None:
        """Close all links, because the caller of `work` has returned for any reason."""
        self._subscription = None
        self._left.clear()
        if self._life in (WORKING, PULLING, WorkerLife.STOPPING):
            self._transition(WorkerLife.IDLE)
        for link in self.pool.links():
            self._close(link, ConnectionError("the worker has stopped"), now)
        self._timers.cancel(_POLL)
        self._timers.cancel(_DRAIN)
        self._timers.cancel(_DROPPED)
        self._cancel_pending()
        self._ready.clear()
        self._jobs.clear()
        for wait in [*self._pulls]:
            self._finish_pull(wait)

    def release(self, wait: Wait, now: float) -> None:
        """Forget `wait`, because its caller has stopped waiting. If it is from `work`, end that."""
        if wait is self._subscription:
            self.end_work(now)
        self._waits.discard(wait)
        self._timers.cancel(wait)
        if isinstance(wait, GrabWait):
            if self.is_pulling:
                self._put_back(wait, now)
            return
        for link in self.pool.links():
            if wait in link.waits:
                link.waits.remove(wait)

    def close(self, now: float) -> None:
        """Close all connections at once and end the work permanently."""
        self._transition(WorkerLife.CLOSED)
        subscription = self._subscription
        self.end_work(now)
        if subscription is not None:
            subscription.finish()

    def abandon(self, error: Exception) -> list[Wait]:
        """End all calls, from any state. See `Engine.abandon`."""
        for link in self.pool.links():
            link.reason = str(error)
            link.unsent.clear()
        return super().abandon(error)

    # The transport side, in.

    def receive_data(self, link: WorkerLink, data: bytes, now: float) -> None:
        """Process the bytes `data`, received on `link`."""
        if not link.alive:
            return
        connection = link.connection
        connection.receive_data(data)
        try:
            event = connection.next_event()
            if event is not NEED_DATA:
                link.server.answered()
                self._reach()
            while event is not NEED_DATA and link.alive:
                self._handlers[type(event)](link, event, now)
                if connection.is_drained():
                    break
                event = connection.next_event()
        except RemoteProtocolError as error:
            self._close(link, error, now)
        self._news(now, active=True)
        self._grab_more(now)

    def handle_timeout(self, now: float) -> None:
        """Process the deadlines that have passed at `now`."""
        self._timers.expire(now)
        if self._pulls:
            self._serve_pulls(now)
        self._grab_more(now)

    # The transport side, out.

    def _links(self) -> list[WorkerLink]:
        return self.pool.links()

    def _is_due(self, link: WorkerLink, now: float) -> bool:
        # A link on which a `send` is pending has a timer of its own.
        return bool(link.waits) or super()._is_due(link, now)

    def links_to_write(self) -> Iterable[WorkerLink]:
        """Return the links that have bytes to send."""
        return [link for link in self.pool.links() if link.unsent]

    def data_to_send(self, link: WorkerLink, now: float) -> bytes:
        """Return the bytes to write on `link` now, or none."""
        delivery = link.delivery
        delivery.taken(now)
        if not link.unsent:
            return b""
        data = take_chunk(link.unsent)
        link.unsent_size -= len(data)
        delivery.handed += len(data)
        if link.waits and link.unsent_size <= _MAX_UNSENT:
            self._end_waits(link)
        return data

    # Links.

    def _send(self, link: WorkerLink, event: Event) -> None:
        for piece in link.connection.send_with_data_passthrough(event):
            link.unsent.append(piece)
            link.unsent_size += len(piece)

    def _connect_to_all(self, now: float) -> None:
        self._untried = set(self.pool.servers)
        for server in self.pool.servers:
            self._connect_to(server, now)
        if not self.pool.servers:
            self._give_up(now)

    def _connect_to(self, server: Server, now: float) -> None:
        self._connect(WorkerLink(server, self._max_packet_size, self.dropped), now)

    def _opened(self, link: WorkerLink, now: float) -> None:
        if self._client_id is not None:
            self._send(link, SetClientId(self._client_id))
        self._resume(link, now)
        self._grab_more(now)
        if not self._may_grab(link):
            self._reach()  # It is not asked anything, so it will not answer.
        elif link.phase is not GRABBING:
            self._timers.cancel(_OUTAGE)  # Nor is it yet while jobs of lost links keep all slots.

    def _reach(self) -> None:
        """Note that a server was reached."""
        self._untried = None
        self._timers.cancel(_OUTAGE)

    def _lost(self, link: WorkerLink, error: Exception, now: float) -> None:
        server = link.server
        link.reason = str(error)
        self._drop(link)
        self._end_waits(link)
        if self._subscription is None:
            # No caller is going to call `job_done` for the jobs of `grab`.
            self._jobs.difference_update(link.jobs)
            self._left.difference_update(link.jobs)
        for job in self._left & link.jobs.keys():
            self._finish_left(job, now)
        if self._life not in _ACTIVE:
            self._check_end(now)
            return
        if link.has_lasted(now):
            server.served()
        server.failed(error, now, self._rng)
        lost = f", and {len(link.jobs)} jobs with it" if link.jobs else ""
        self.notices.append(f"no connection to {link.address}: {error}{lost}")
        self._timers.set(server, server.cool_until, self._connect_to)
        if self._untried is not None:
            self._untried.discard(server)
        if self._untried is not None and not self._untried:
            if self._max_outage is not None:
                self._give_up(now)
            else:
                self._untried = None
                self.notices.append(f"{self.pool.unavailable()}; waiting for one")
        elif (
            self._max_outage is not None
            and _OUTAGE not in self._timers  # Then it has begun before.
            and not any(other.is_up for other in self.pool.links())
        ):
            self._timers.set(_OUTAGE, now + self._max_outage, self._on_outage)
        self._news(now, active=True)
        self._grab_more(now)

    def _drop(self, link: WorkerLink) -> None:
        self._grabs -= link.grabs * (link.phase is GRABBING)
        link.unsent.clear()
        super()._drop(link)

    def _on_outage(self, _: str, now: float) -> None:
        if any(link.connection.buffered for link in self.pool.links()):
            # A server has answered with a large job, which is still arriving.
            self._timers.set(_OUTAGE, now + _LATE, self._on_outage)
        else:
            self._give_up(now)

    def _on_drained(self, _: str, now: float) -> None:
        """Close all links, since the time to finish jobs is over."""
        for link in self.pool.links():
            self._close(link, TimeoutError("the time to finish its jobs is over"), now)
        # Don't wait for callbacks, but return the jobs that were left to the caller.
        self._jobs.intersection_update(self._ready)
        self._check_end(now)

    def _give_up(self, now: float) -> None:
        """End the work, or the calls of `grab`, with an error, since no server can be reached."""
        error = self.pool.unavailable()
        if self._subscription is not None:
            self._subscription.error = error
            self._subscription.finish()
            return
        for wait in self._pulls:
            wait.note(error)
        self.end_work(now)

    # Phases.

    def _enter(
        self, link: WorkerLink, phase: Phase, now: float, seconds: float | None = None
    ) -> None:
        """Put `link` into `phase`, for at most `seconds` if this is given."""
        self._grabs += link.grabs * ((phase is GRABBING) - (link.phase is GRABBING))
        link.phase = transition(PHASES, link.phase, phase)
        link.since = now
        self._wait_on(link, now, seconds)

    def _wait_on(self, link: WorkerLink, now: float, seconds: float | None) -> None:
        """Set the timer that ends the phase of `link` in `seconds`; None cancels it."""
        if seconds is None:
            self._timers.cancel(link)
        else:
            self._timers.set(link, now + seconds, self._handlers[link.phase])

    def _on_late(self, link: WorkerLink, now: float) -> None:
        self._enter(link, Phase.LATE, now)
        self._on_unanswered(link, now)

    def _on_unanswered(self, link: WorkerLink, now: float) -> None:
        """Keep waiting for a late answer while bytes move in either direction, or close `link`."""
        delivery = link.delivery
        before, link.received_size = link.received_size, link.connection.buffered
        if link.received_size not in range(before, before + _MIN_GROWTH):
            delivery.moved_at = now  # A large job is arriving.
        is_idle = not (link.jobs or link.received_size) and link.results == link.confirmed
        patience = _LAST_ANSWER if is_idle and link.phase is Phase.LAST_GRAB else _LOST
        unanswered = min(delivery.handed, delivery.question) - link.confirmed_bytes
        deadline = delivery.deadline(now, patience, unanswered)
        if deadline > now:
            self._wait_on(link, now, deadline - now)
        else:
            self._close(link, TimeoutError("no answer within the time"), now)

    def _retire(self, link: WorkerLink, now: float) -> None:
        """Close `link` of a stopping worker as soon as it has neither a job nor a grab."""
        if not link.is_up:
            self._close(link, ConnectionError("the worker stops"), now)
        elif link.phase in _ASKING:
            # The answer might be a job, and closing the link now would lose it.
            self._enter(link, Phase.LAST_GRAB, now, _LAST_ANSWER)
        elif link.jobs:
            self._enter(link, RESTING, now)
        elif link.confirmed == link.results:
            self._close(link, ConnectionError("the worker stops"), now)
        elif link.phase is not Phase.LEAVING:
            link.delivery.ask(link.unsent_size, now)
            self._send(link, EchoReq(b""))
            # An early first check records the progress of the results.
            self._enter(link, Phase.LEAVING, now, _LAST_ANSWER)

    def _check_end(self, now: float) -> None:
        if self._life in _ACTIVE:
            return
        if self._subscription is None:
            self._serve_pulls(now)
        elif not self._jobs and not self.pool.links():
            self._subscription.finish()

    def _news(self, now: float, *, active: bool) -> None:
        subscription = self._subscription
        if subscription is None:
            self._serve_pulls(now)
            return
        subscription.active |= active
        subscription.notify()

    def _set_poll(self, now: float) -> None:
        subscription = self._subscription
        assert subscription is not None
        if subscription.timeout is not None:
            self._timers.set(_POLL, now + max(subscription.timeout, _SHORTEST_POLL), self._on_poll)
        else:
            self._timers.cancel(_POLL)

    def _on_poll(self, _: str, now: float) -> None:
        self._news(now, active=False)

    def _cancel_pending(self) -> None:
        """Cancel all queued grabs, scheduled reconnections, and the outage timer."""
        self._grab_queue.clear()
        self._timers.cancel(_OUTAGE)
        for server in self.pool.servers:
            self._timers.cancel(server)

    # Jobs that were left open.

    def _finish_left(self, job: WorkerJob, now: float) -> None:
        """Return `job`, which has ended or was lost, to the caller."""
        self._left.remove(job)
        self._ready.append(job)
        self._news(now, active=False)

    def _look_for_dropped(self, key: str, now: float) -> None:
        """Fail the jobs whose handles were garbage-collected."""
        if self.dropped:
            self.dropped.clear()
            for job in [job for job in self._left if _is_dropped(job)]:
                self.notices.append(f"{job!r} fails: its DeferredJob was garbage-collected")
                self.send(now, _nothing, job, WorkFail(job.wire_handle))
        if self._left:
            self._timers.set(key, now + _LOOK_FOR_DROPPED, self._look_for_dropped)

    # Calls of `grab`.

    def _serve_pulls(self, now: float) -> None:
        """Finish the calls of `grab` that have a job, or no reason to wait any longer."""
        ready, pulls = self._ready, self._pulls
        while ready and not ready[0]._gm_link.alive:
            ready.popleft()  # The server gives it to another worker.
        while ready and pulls:
            job = pulls[0].job = ready.popleft()
            job._gm_is_left = True
            self._left.add(job)
            self._finish_pull(pulls[0])
        # Look for dropped handles later: failing their jobs here would call this method again.
        if self._left and _DROPPED not in self._timers:
            self._timers.set(_DROPPED, now + _LOOK_FOR_DROPPED, self._look_for_dropped)
        if self._life is WorkerLife.STOPPING:
            self._drain_pulls(now)
        if not self._grabs:
            for wait in [wait for wait in pulls if wait.timed_out]:
                self._finish_pull(wait)

    def _put_back(self, wait: GrabWait, now: float) -> None:
        """Remove `wait`, and give the job that it has not returned to another call."""
        if wait in self._pulls:
            self._pulls.remove(wait)
        if wait.job is not None:
            self._ready.appendleft(wait.job)
            self._left.discard(wait.job)
        self._serve_pulls(now)

    def _drain_pulls(self, now: float) -> None:
        """Return jobs that no call of `grab` wants, and finish the calls if only jobs are left."""
        while self._ready:
            job = self._ready.popleft()
            self._jobs.discard(job)
            del job._gm_link.jobs[job]  # Its link is closed without an end of the job.
            self._retire(job._gm_link, now)
        links = self.pool.links()
        if all(link.phase is RESTING for link in links):
            for wait in [*self._pulls]:
                self._finish_pull(wait)
        if not links and not self._jobs:
            self._timers.cancel(_DRAIN)
            self._timers.cancel(_DROPPED)
            self._transition(WorkerLife.TOLD_TO_STOP)

    def _finish_pull(self, wait: GrabWait) -> None:
        self._pulls.remove(wait)
        self._timers.cancel(wait)
        wait.finish()

    def _on_grab_timeout(self, wait: GrabWait, now: float) -> None:
        wait.timed_out = True
        # Meanwhile, other links can send grabs for other calls.
        self._timers.set(wait, now + _LATE, self._on_last_chance)
        self._serve_pulls(now)

    def _on_last_chance(self, wait: GrabWait, now: float) -> None:
        self._finish_pull(wait)

    # Calls that wait to send more.

    def _end_waits(self, link: WorkerLink) -> None:
        self._timers.cancel((_STALL, link))
        waits, link.waits = link.waits, []
        for wait in waits:
            self._timers.cancel(wait)
            wait.finish()
            self._waits.discard(wait)

    # Abilities.

    def _tell_abilities(self, now: float) -> None:
        paused = self._paused
        self._wanted = {f: limit for f, limit in self._abilities.items() if f not in paused}
        for link in self.pool.links():
            if link.is_up:
                link.serves = not link.registered.keys().isdisjoint(self._wanted)
                self._resume(link, now)
                if None in paused and link.phase in (Phase.ASLEEP, Phase.BACKOFF):
                    self._enter(link, RESTING, now)
        self._grab_more(now)

    def _sync_abilities(self, link: WorkerLink, now: float) -> None:
        """Send the changed abilities to the server of `link`, as far as the phase allows."""
        wanted, registered = self._wanted, link.registered
        if registered == wanted or link.phase is Phase.LEAVING:
            return
        for function in [f for f in registered if registered[f] != wanted.get(f, -1)]:
            held = any(job.wire_task == function for job in link.jobs)
            if not held and link.phase not in _ASKING:
                del registered[function]
                self._send(link, CantDo(function))
        new = [function for function in wanted if function not in registered]
        for function in new:
            limit = registered[function] = wanted[function]
            if limit is None:
                self._send(link, CanDo(function))
            else:
                self._send(link, CanDoTimeout(function, b"%d" % limit))
        link.serves = not registered.keys().isdisjoint(wanted)
        # gearmand sends no NOOP for jobs that are already queued.
        if new and link.phase in (RESTING, Phase.ASLEEP, Phase.BACKOFF):
            self._enqueue(link, now)

    # Grabbing and sleeping.

    def _may_grab(self, link: WorkerLink) -> bool:
        return link.serves and self._life in _ACTIVE and None not in self._paused

    def _resume(self, link: WorkerLink, now: float) -> None:
        """Send the changed abilities to the server of `link`, and queue the link to grab."""
        self._sync_abilities(link, now)
        if link.phase is RESTING:
            self._enqueue(link, now)

    def _enqueue(self, link: WorkerLink, now: float) -> None:
        """Queue `link` to grab when its turn arrives."""
        if self._may_grab(link):
            self._enter(link, QUEUED, now)
            self._grab_queue.append(link)
        else:
            self._enter(link, RESTING, now)

    def _grab_more(self, now: float) -> None:
        while self._grab_queue and (free := self._free_slots()) > 0:
            link = self._grab_queue.popleft()
            if link.alive and link.phase is QUEUED:
                if self._may_grab(link):
                    share = -(-free // (len(self._grab_queue) + 1))
                    self._grab(link, min(link.next_grabs, share), now)
                else:
                    self._enter(link, RESTING, now)

    def _free_slots(self) -> int:
        if self._life is PULLING:
            return len(self._pulls) - self._grabs
        return self._max_jobs - len(self._jobs) - self._grabs

    def _grab(self, link: WorkerLink, count: int, now: float) -> None:
        link.delivery.ask(link.unsent_size, now)
        link.received_size = 0
        for _ in range(count):
            self._send(link, GrabJob() if link.server in self._old_servers else GrabJobUniq())
        link.grabs = count
        link.grabbed_after = link.results
        self._enter(link, GRABBING, now, _LATE)

    def _grab_answered(self, link: WorkerLink, now: float) -> bool:
        """Process the answer to a grab of `link`. Return True if no other grab is unanswered."""
        link.confirmed = link.grabbed_after
        link.confirmed_bytes = link.delivery.question
        if link.grabs == 1:
            self._enter(link, RESTING, now)
        else:
            self._grabs -= link.phase is GRABBING
            link.delivery.moved_at = now
            self._wait_on(link, now, _ASKING[link.phase])
        link.grabs -= 1
        return not link.grabs

    def _on_noop(self, link: WorkerLink, event: Noop, now: float) -> None:
        if link.phase is not Phase.ASLEEP:
            return  # It is going to grab anyway, or has done so.
        link.fruitless = link.fruitless + 1 if now - link.since < _AT_ONCE else 0
        if link.fruitless <= _FRUITLESS:
            self._enqueue(link, now)
        else:
            pause = _FIRST_PAUSE * 2 ** min(link.fruitless - _FRUITLESS - 1, 16)
            self._enter(link, Phase.BACKOFF, now, min(pause, _LONGEST_PAUSE))

    def _on_no_job(self, link: WorkerLink, event: NoJob, now: float) -> None:
        link.next_grabs = 1
        if not self._grab_answered(link, now):
            return
        self._sync_abilities(link, now)
        if self._life not in _ACTIVE:
            self._retire(link, now)
        elif link.phase is RESTING and self._may_grab(link):
            self._send(link, PreSleep())
            seconds = self._poll_interval * self._rng.uniform(0.8, 1.2)
            self._enter(link, Phase.ASLEEP, now, seconds)

    def _on_job_assign(
        self, link: WorkerLink, event: JobAssign | JobAssignUniq, now: float
    ) -> None:
        if len(event.handle) > _LONGEST_HANDLE:
            raise RemoteProtocolError(f"a job's handle has {len(event.handle)} bytes")
        if self._grab_answered(link, now):
            link.next_grabs = min(2 * link.next_grabs, MOST_GRABS)
        link.fruitless = 0
        if event.function in link.registered:
            link.server.served()
        unique = event.unique if isinstance(event, JobAssignUniq) else None
        job = self._job_class(link, event.handle, event.function, unique, event.data)
        link.jobs[job] = None
        self._jobs.add(job)
        self._ready.append(job)
        self._resume(link, now)

    def _on_echo_res(self, link: WorkerLink, event: EchoRes | Unanswered, now: float) -> None:
        self._close(link, ConnectionError("the worker stops"), now)

    def _on_error(self, link: WorkerLink, event: Error, now: float) -> None:
        error = server_error(event)
        if event.answers is None:
            self.notices.append(f"{link.address} did not take what was sent about a job: {error}")
        elif isinstance(event.answers, GrabJobUniq) and link.server not in self._old_servers:
            self._old_servers.add(link.server)
            self._grab_answered(link, now)
            self._resume(link, now)
            if self._life not in _ACTIVE:
                self._retire(link, now)
        else:
            self._close(link, error, now)

    def _watch_stall(self, link: WorkerLink, now: float) -> None:
        """Set the timer that closes `link` if no bytes move while a call waits to send more."""
        moved = link.delivery.handed, link.delivery.acknowledged
        look = functools.partial(self._on_stalled, moved=moved, since=now)
        self._timers.set((_STALL, link), now + _STALLED, look)

    def _on_stalled(
        self, stall: tuple[str, WorkerLink], now: float, *, moved: tuple[int, int], since: float
    ) -> None:
        link = stall[1]
        if not link.waits:
            return  # The calls have timed out, so there might be nothing left to write.
        handed, acknowledged = link.delivery.handed, link.delivery.acknowledged
        if moved != (handed, acknowledged):
            self._watch_stall(link, now)
            return
        # A socket becomes writable when half of its send buffer is empty. Without measurements, the
        # engine sees no progress before that.
        hidden = min(handed - link.confirmed_bytes, MAX_HIDDEN) if acknowledged < 0 else 0
        deadline = since + _STALLED + hidden / RATE
        if deadline > now:
            look = functools.partial(self._on_stalled, moved=moved, since=since)
            self._timers.set(stall, deadline, look)
        else:
            self._close(link, TimeoutError("the server does not read"), now)


def _is_dropped(job: WorkerJob) -> bool:
    """Return True if the handle of `job` was garbage-collected."""
    return job._gm_deferred is not None and job._gm_deferred() is None


def _nothing() -> None:
    """Do nothing, as the `wake` of a Wait without a caller."""
