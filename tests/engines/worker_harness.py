"""A small world for a worker's engine: scripted servers, and a clock that stands until it is moved.

There is no socket and no time here. A test takes the part of the servers and of the worker's
caller, so it reads like a conversation::

    world = World()
    world.work()
    server = world.serve()
    assert server.take() == [CanDo(b"f"), GrabJobUniq()]
    server.send(JobAssignUniq(b"H:1", b"f", b"u", b"in"))
    job = world.next_job()
    world.send(job, WorkComplete(b"H:1", b"out"))
    world.job_done(job)
    assert server.take() == [WorkComplete(b"H:1", b"out"), GrabJobUniq()]

The World is the driver: after each call it takes all actions and writes all that there is to write.
Each Peer looks at what it reads as a strict server would, and after each step the World checks what
has to be true of an engine at any time.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

from gearman_proto.address import parse_host_list
from gearman_proto.engines.worker.engine import (
    _ASKING,
    _MAX_UNSENT,
    _STALL,
    MOST_GRABS,
    WorkerEngine,
)
from gearman_proto.engines.worker.phases import Phase, WorkerLife
from gearman_proto.wire.connection import NEED_DATA
from gearman_proto.wire.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    Error,
    Event,
    GrabJob,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    NoJob,
    Noop,
    PacketEvent,
    PreSleep,
    SetClientId,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

from . import links
from .harness import Bell, wakes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gearman_proto.engines.waits import Wait
    from gearman_proto.engines.worker.engine import WorkStream
    from gearman_proto.engines.worker.phases import WorkerLink
    from gearman_proto.jobs.job import WorkerJob

TERMINAL = (WorkComplete, WorkFail, WorkException)


def is_about_a_job(event: Event) -> bool:
    """Whether `event` refuses a WORK_*, and so answers nothing."""
    return isinstance(event, Error) and event.code == b"JOB_NOT_FOUND"


class Peer(links.Server):
    """The server's end of one link."""

    world: World
    link: WorkerLink

    def __init__(self, world: World, link: WorkerLink, timeout: float) -> None:
        super().__init__(world, link, timeout)
        #: Whether it reads what is written.
        self.reads = True
        #: Whether what it reads may be from before the last thing that happened.
        self.is_behind = False
        #: Whether it looks at what it reads as a strict server would.
        self.strict = True
        #: What it has read and not answered.
        self.questions: deque[Event] = deque()
        #: What it has read and no test has taken, and how many packets in all.
        self.inbox: list[Event] = []
        self.count = 0
        #: What the worker can do.
        self.functions: set[bytes] = set()
        #: The jobs that the worker has, by handle: a list of functions, as a handle may come again.
        self.held: dict[bytes, list[bytes]] = {}
        #: How many grabs it has read whose answer has not arrived; and what it has read last.
        self.grabs = 0
        self.last: Event | None = None
        self.may_sleep = False
        # On its way to the engine, and what is true from which byte on.
        self._outgoing = b""
        self._effects: deque[tuple[int, Event]] = deque()

    @property
    def grabbing(self) -> bool:
        return self.grabs > 0

    # From the engine.

    def take(self) -> list[Event]:
        """All that it has read since the last time."""
        events, self.inbox = self.inbox, []
        return events

    def read(self, data: bytes) -> None:
        """Read `data`."""
        assert not self.closed
        self.connection.receive_data(data)
        while (event := self.connection.next_event()) is not NEED_DATA:
            assert isinstance(event, Event)
            if self.strict:
                self._examine(event)
            if isinstance(event, (GrabJob, GrabJobUniq, EchoReq)):
                self.questions.append(event)
            self.inbox.append(event)
            self.last = event
            self.count += 1

    def _examine(self, event: Event) -> None:
        if isinstance(event, (GrabJob, GrabJobUniq)):
            # Those of one turn come together.
            assert not self.grabbing or isinstance(self.last, type(event))
            assert self.is_behind or self.world.engine._life is WorkerLife.WORKING
            assert self.functions
            held = {function for functions in self.held.values() for function in functions}
            assert self.is_behind or held <= self.world.engine._abilities.keys()
            self.grabs += 1
            assert self.grabs <= MOST_GRABS
            self.may_sleep = False
        elif isinstance(event, PreSleep):
            assert self.may_sleep
            assert not self.grabbing
            self.may_sleep = False
        elif isinstance(event, (CanDo, CanDoTimeout)):
            assert event.function not in self.functions
            self.functions.add(event.function)
        elif isinstance(event, CantDo):
            assert not self.grabbing
            assert all(event.function not in functions for functions in self.held.values())
            self.functions.remove(event.function)
        elif isinstance(event, EchoReq):
            assert self.is_behind or self.world.engine._life is not WorkerLife.WORKING
            assert not self.grabbing
            assert not self.held
        elif isinstance(event, (WorkStatus, WorkData, WorkWarning, *TERMINAL)):
            functions = self.held[event.handle]
            if isinstance(event, TERMINAL):
                functions.pop(0)
                if not functions:
                    del self.held[event.handle]
        else:
            assert isinstance(event, SetClientId)

    # To the engine.

    def send(self, *events: Event) -> None:
        """Send. The server's Connection refuses what is out of order."""
        self.write(*events)
        while self._outgoing:
            self.deliver(self.world.chunk or len(self._outgoing))

    def write(self, *events: Event) -> None:
        """Send, but let nothing arrive."""
        for event in events:
            self._outgoing += self.connection.send(event)
            if not isinstance(event, Noop) and not is_about_a_job(event):
                self.questions.popleft()
            self._effects.append((len(self._outgoing), event))

    def deliver(self, size: int) -> None:
        """Let some of the bytes that were sent arrive."""
        data, self._outgoing = self._outgoing[:size], self._outgoing[size:]
        effects = [(at - len(data), event) for at, event in self._effects]
        self._effects = deque(effect for effect in effects if effect[0] > 0)
        for at, event in effects:
            if at <= 0:
                self._said(event)
        if data:
            self.send_raw(data)

    def _said(self, event: Event) -> None:
        if isinstance(event, NoJob):
            self.grabs -= 1
            self.may_sleep = True
        elif isinstance(event, (JobAssign, JobAssignUniq)):
            self.grabs -= 1
            self.may_sleep = False
            self.held.setdefault(event.handle, []).append(event.function)
        elif isinstance(event, Error) and not is_about_a_job(event):
            self.grabs -= 1

    def assign(self, number: int = 1, function: bytes = b"f", data: bytes = b"in") -> WorkerJob:
        """Give the worker a job, which takes it."""
        self.send(JobAssignUniq(b"H:%d" % number, function, b"", data))
        return self.world.job()


class World(links.World[Peer]):
    """An engine, and all that is around it."""

    def __init__(
        self,
        servers: int | Iterable[Any] = 1,
        *,
        seed: int = 1,
        chunk: int = 0,
        functions: Iterable[bytes] = (b"f",),
        **options: Any,
    ) -> None:
        if isinstance(servers, int):
            servers = [f"s{number}" for number in range(servers)]
        super().__init__(Peer, chunk)
        self.engine: WorkerEngine = WorkerEngine(
            parse_host_list(list(servers)), rng=random.Random(seed), **options
        )
        for function in functions:
            self.engine.register(self.now, function, None)
        self.waits: list[Wait] = []
        # Whether a grab was ever late, so that there may be more jobs than slots.
        self.was_late = False

    # The driver's part.

    def pump(self) -> None:
        """Take all actions, and write all that there is to write."""
        busy = True
        while busy:
            self.act()
            busy = False
            for link in self.engine.links_to_write():
                (peer,) = (peer for peer in self.peers if peer.link is link)
                peer.is_behind |= not peer.reads
                while peer.reads and (data := self.engine.data_to_send(link, self.now)):
                    peer.read(data)
                    busy = True
                peer.is_behind &= not peer.reads

    def sleep(self, seconds: float) -> None:
        """Let time pass, from deadline to deadline."""
        end = self.now + seconds
        while (deadline := self.engine.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.call(self.engine.handle_timeout, self.now)
            following = self.engine.next_deadline()
            assert following is None or following > self.now
        self.now = end

    # The caller's part.

    def work(self, **options: Any) -> WorkStream:
        stream: WorkStream = self.call(self.engine.work, self.now, Bell(), **options)
        links.raise_refusal(stream)
        return stream

    def end_work(self) -> None:
        self.call(self.engine.end_work, self.now)

    def next_job(self) -> WorkerJob | None:
        job = self.engine.next_job(self.now)
        self.pump()
        if job is None:
            self.check()  # Else its caller will be back at once.
        return job

    def job(self) -> WorkerJob:
        """The only job to be taken."""
        job = self.next_job()
        assert job is not None
        assert self.next_job() is None
        return job

    def send(self, job: WorkerJob, event: PacketEvent, **options: Any) -> Wait:
        wait: Wait = self.engine.send(self.now, Bell(), job, event, **options)
        links.raise_refusal(wait)
        self.waits.append(wait)
        self.pump()
        self.check()
        return wait

    def complete(self, job: WorkerJob) -> None:
        """End `job` well; the caller is not yet done with it."""
        self.send(job, WorkComplete(job.wire_handle, b"out"))

    def job_done(self, job: WorkerJob, **options: Any) -> None:
        self.call(self.engine.job_done, self.now, job, **options)

    def finish(self, job: WorkerJob, **options: Any) -> None:
        """End `job` well, and be done with it."""
        self.complete(job)
        self.job_done(job, **options)

    def release(self, wait: Wait) -> None:
        self.waits = [other for other in self.waits if other is not wait]
        self.call(self.engine.release, wait, self.now)

    def register(self, function: bytes, timeout: float | None = None) -> None:
        self.call(self.engine.register, self.now, function, timeout)

    def unregister(self, function: bytes) -> None:
        self.call(self.engine.unregister, self.now, function)

    def stop(self, **options: Any) -> None:
        self.call(self.engine.stop, self.now, **options)

    def close(self) -> None:
        self.call(self.engine.close, self.now)

    # What has to be true at any time.

    def check(self) -> None:
        """Look at the whole engine."""
        engine = self.engine
        links = engine.pool.links()
        keeping = [link for link in links if link.phase is Phase.GRABBING]
        assert engine._grabs == sum(link.grabs for link in keeping)
        self.was_late |= any(link.phase is Phase.LATE for link in links)
        taken = len(engine._jobs) + engine._grabs
        assert taken <= engine._max_jobs or self.was_late
        for link in links:
            self._check_link(link)
            # Nobody waits for a slot that is there.
            assert link.phase is not Phase.QUEUED or taken >= engine._max_jobs or engine._ready
        for peer in self.peers:
            if not peer.link.alive:
                self._check_dead(peer.link)
        for wait in self.waits:
            assert wakes(wait) == wait.done
        self._check_stream()

    def _check_link(self, link: WorkerLink) -> None:
        engine, phase = self.engine, link.phase
        assert link.alive
        assert link.is_up or phase is Phase.RESTING
        assert (link.grabs > 0) == (phase in _ASKING)
        assert 1 <= link.next_grabs <= MOST_GRABS
        assert engine._turns.count(link) == (phase is Phase.QUEUED)
        # Time goes on for whoever waits for a server, and for nobody else.
        waits_for_nothing = link.is_up and phase in (Phase.QUEUED, Phase.RESTING)
        assert (link in engine._timers) != waits_for_nothing
        if link.is_up and phase is Phase.RESTING:
            assert (
                engine._life is not WorkerLife.WORKING
                or not link.registered
                or link.registered != engine._abilities
            )
            assert link.registered == engine._abilities or link.jobs
        if engine._life is not WorkerLife.WORKING:
            assert phase in (Phase.RESTING, Phase.LAST_GRAB, Phase.LEAVING)
            undone = any(job._gm_link is link for job in engine._jobs)
            assert phase is not Phase.RESTING or undone
        for job in link.jobs:
            assert job in engine._jobs
            assert job._gm_link is link
            assert not job.ended
            assert not job.is_lost
        assert link.unsent_size == sum(len(packet) for packet in link.unsent)
        waiting = [wait for wait in link.waits if not wait.done]
        if waiting:
            assert link.unsent_size > _MAX_UNSENT
            assert (_STALL, link) in engine._timers

    def _check_dead(self, link: WorkerLink) -> None:
        assert not link.is_up
        assert link.server.link is not link
        assert not link.waits
        assert not link.unsent
        assert self.engine.data_to_send(link, self.now) == b""
        assert link not in self.engine._timers
        assert (_STALL, link) not in self.engine._timers

    def _check_stream(self) -> None:
        engine, stream = self.engine, self.engine._stream
        if stream is None:
            assert not engine.pool.links()
            assert not engine._jobs
            assert not engine._ready
            assert not len(engine._timers)
            return
        assert stream.ready or not engine._ready
        if engine._life is not WorkerLife.WORKING:
            over = not engine._jobs and not engine.pool.links()
            assert stream.done == over or stream.error is not None
        elif not stream.done:
            # Each server is worked for, connected to, or connected to again after a while.
            for server in engine.pool.servers:
                assert (server.link is None) == (server in engine._timers)
