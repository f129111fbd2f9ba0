"""A test world for the worker engine, with scripted servers and a manual clock.

The world uses no sockets and no real time. A test acts as the servers and the worker's caller,
so it reads like a conversation::

    world, server = grabbing()
    job = server.assign()
    world.finish(job)
    assert server.take() == [result(), GRAB]
    assert server.says(NoJob()) == [PreSleep()]

The World is the driver: after each call it executes all actions and writes all pending data.
Each Peer checks the received packets like a strict server. After each step the World checks the
engine's invariants.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

from gearman_proto.address import parse_host_list
from gearman_proto.engines.worker.engine import (
    _ASKING,
    _DROPPED,
    _MAX_UNSENT,
    _STALL,
    MOST_GRABS,
    GrabWait,
    WorkerEngine,
    WorkSubscription,
)
from gearman_proto.engines.worker.link import Phase, WorkerLife
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
    from gearman_proto.engines.worker.link import WorkerLink
    from gearman_proto.jobs.job import WorkerJob

GRAB = GrabJobUniq()
TERMINAL = (WorkComplete, WorkFail, WorkException)
MEGABYTE = 1024 * 1024


def result(number: int = 1) -> WorkComplete:
    """Return the result that `World.complete` sends."""
    return WorkComplete(b"H:%d" % number, b"out")


def data(size: int) -> WorkData:
    """Return an update about job 1."""
    return WorkData(b"H:1", b"x" * size)


def is_about_a_job(event: Event) -> bool:
    """Return True if `event` rejects a WORK_* packet and answers no question."""
    return isinstance(event, Error) and event.code == b"JOB_NOT_FOUND"


class Peer(links.Server):
    """The server's end of one link."""

    world: World
    link: WorkerLink

    def __init__(self, world: World, link: WorkerLink, timeout: float) -> None:
        super().__init__(world, link, timeout)
        #: True if the server reads from the connection.
        self.reads = True
        #: True while unread data might be older than the engine's present state.
        self.has_backlog = False
        #: True if the Peer checks the received packets like a strict server.
        self.strict = True
        #: Received questions without an answer.
        self.questions: deque[Event] = deque()
        #: Received packets that no test has taken, and the number of all received packets.
        self.inbox: list[Event] = []
        self.count = 0
        #: Functions that the worker has registered.
        self.functions: set[bytes] = set()
        #: Functions of the worker's jobs, by handle. A handle can be assigned more than once.
        self.held: dict[bytes, list[bytes]] = {}
        #: Number of received grabs whose answer has not arrived, and the last received packet.
        self.grabs = 0
        self.last: Event | None = None
        self.may_sleep = False

    @property
    def grabbing(self) -> bool:
        return self.grabs > 0

    # From the engine.

    def take(self) -> list[Event]:
        """Return all packets received since the last call."""
        events, self.inbox = self.inbox, []
        return events

    def says(self, *events: Event) -> list[Event]:
        """Send `events`. Return the packets that the worker sends in reply."""
        self.send(*events)
        return self.take()

    def read(self, data: bytes) -> None:
        """Process `data` from the engine."""
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
            # All grabs of one turn arrive together.
            assert not self.grabbing or isinstance(self.last, type(event))
            life = self.world.engine._life
            assert self.has_backlog or life in (WorkerLife.WORKING, WorkerLife.PULLING)
            assert self.functions
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
            assert self.has_backlog or self.world.engine._life is not WorkerLife.WORKING
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
        """Send `events`. The server's Connection rejects events that are out of order."""
        data = b""
        for event in events:
            data += self.connection.send(event)
            if isinstance(event, Noop) or is_about_a_job(event):
                continue
            if isinstance(self.questions.popleft(), (GrabJob, GrabJobUniq)):
                self.grabs -= 1
                self.may_sleep = isinstance(event, NoJob)
            if isinstance(event, (JobAssign, JobAssignUniq)):
                self.held.setdefault(event.handle, []).append(event.function)
        self.send_raw(data)

    def assign(self, number: int = 1, function: bytes = b"f", data: bytes = b"in") -> WorkerJob:
        """Assign a job to the worker and return it."""
        self.send(JobAssignUniq(b"H:%d" % number, function, b"", data))
        return self.world.job()


class World(links.World[Peer]):
    """A worker engine with its caller, driver and servers."""

    def __init__(
        self,
        servers: int | Iterable[Any] = 1,
        *,
        seed: int = 1,
        functions: Iterable[bytes] = (b"f",),
        **options: Any,
    ) -> None:
        if isinstance(servers, int):
            servers = [f"s{number}" for number in range(servers)]
        super().__init__(Peer)
        self.engine: WorkerEngine = WorkerEngine(
            parse_host_list(list(servers)), rng=random.Random(seed), **options
        )
        for function in functions:
            self.engine.register(self.now, function, None)
        self.waits: list[Wait] = []
        #: The last call of `work`.
        self.stream: WorkSubscription
        # True once a grab was late, because its job can then exceed the slots.
        self.was_late = False

    # The driver's part.

    def pump(self) -> None:
        """Execute all actions and write all pending data."""
        busy = True
        while busy:
            self.act()
            busy = False
            for link in self.engine.links_to_write():
                (peer,) = (peer for peer in self.peers if peer.link is link)
                peer.has_backlog |= not peer.reads
                while peer.reads and (data := self.engine.data_to_send(link, self.now)):
                    peer.read(data)
                    busy = True
                peer.has_backlog &= not peer.reads

    def sleep(self, seconds: float) -> None:
        """Advance the clock from deadline to deadline."""
        end = self.now + seconds
        while (deadline := self.engine.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.call(self.engine.handle_timeout, self.now)
            following = self.engine.next_deadline()
            assert following is None or following > self.now
        self.now = end

    # The caller's part.

    def work(self, **options: Any) -> WorkSubscription:
        stream: WorkSubscription = self.call(self.engine.work, self.now, Bell(), **options)
        links.raise_refusal(stream)
        self.stream = stream
        return stream

    def is_over(self) -> bool:
        """Return True if the last call of `work` has ended without an error."""
        self.stream.raise_error()
        return self.stream.done

    def grab(self, timeout: float | None = None) -> GrabWait:
        wait: GrabWait = self.call(self.engine.grab, self.now, Bell(), timeout=timeout)
        links.raise_refusal(wait)
        return wait

    def grabbed(self, wait: GrabWait) -> WorkerJob | None:
        """Return the result of a call of `grab`."""
        assert wait.done
        job = wait.take()
        self.call(self.engine.release, wait, self.now)
        wait.raise_error()
        return job

    def serve_all(self) -> list[Peer]:
        """Open all links. Return their peers, which have read the greetings."""
        peers = [peer if peer.link.is_up else peer.up() for peer in self.alive()]
        for peer in peers:
            peer.take()
        return peers

    def end_work(self) -> None:
        self.call(self.engine.end_work, self.now)

    def next_job(self) -> WorkerJob | None:
        job = self.engine.next_job(self.now)
        self.pump()
        if job is None:
            self.check()  # After a job the caller calls again at once, so check only at the end.
        return job

    def job(self) -> WorkerJob:
        """Return the only available job."""
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
        """Send the result of `job` without releasing its slot."""
        self.send(job, WorkComplete(job.wire_handle, b"out"))

    def job_done(self, job: WorkerJob, **options: Any) -> None:
        self.call(self.engine.job_done, self.now, job, **options)

    def leave(self, job: WorkerJob) -> bool:
        is_left: bool = self.call(self.engine.leave, self.now, job)
        return is_left

    def finish(self, job: WorkerJob, **options: Any) -> None:
        """Send the result of `job` and release its slot."""
        self.complete(job)
        self.job_done(job, **options)

    def release(self, wait: Wait) -> None:
        self.waits = [other for other in self.waits if other is not wait]
        self.call(self.engine.release, wait, self.now)

    def register(self, function: str | bytes, timeout: float | None = None) -> None:
        self.call(self.engine.register, self.now, function, timeout)

    def unregister(self, function: str | bytes) -> None:
        self.call(self.engine.unregister, self.now, function)

    def pause(self, function: bytes | None = None) -> None:
        self.call(self.engine.pause, self.now, function)

    def resume(self, function: bytes | None = None) -> None:
        self.call(self.engine.resume, self.now, function)

    def stop(self, **options: Any) -> None:
        self.call(self.engine.stop, self.now, **options)

    def close(self) -> None:
        self.call(self.engine.close, self.now)

    # Invariants.

    def check(self) -> None:
        """Check the engine's invariants."""
        engine = self.engine
        links = engine.pool.links()
        keeping = [link for link in links if link.phase is Phase.GRABBING]
        assert engine._grabs == sum(link.grabs for link in keeping)
        self.was_late |= any(link.phase is Phase.LATE for link in links)
        taken = len(engine._jobs) + engine._grabs
        is_pulling = engine.is_pulling
        assert taken <= engine._max_jobs or self.was_late or is_pulling
        assert is_pulling or not engine._pulls
        assert not (engine._pulls and engine._ready)
        for link in links:
            self._check_link(link)
            # No link waits while a slot is free.
            assert link.phase is not Phase.QUEUED or engine._free_slots() <= 0 or engine._ready
        for peer in self.peers:
            if not peer.link.alive:
                self._check_dead(peer.link)
        for wait in self.waits:
            assert wakes(wait) == wait.done
        # The engine keeps no Wait that no caller releases, as that of the WORK_FAIL of `job_done`.
        pending = {wait for link in links for wait in link.waits} | {*self.waits}
        calls = (WorkSubscription, GrabWait)
        assert all(wait in pending or isinstance(wait, calls) for wait in engine._waits)
        self._check_stream()

    def _check_link(self, link: WorkerLink) -> None:
        engine, phase = self.engine, link.phase
        assert link.alive
        if None in engine._paused:
            assert phase not in (Phase.ASLEEP, Phase.BACKOFF)
        assert link.is_up or phase is Phase.RESTING
        assert (link.grabs > 0) == (phase in _ASKING)
        assert 1 <= link.next_grabs <= MOST_GRABS
        assert engine._grab_queue.count(link) == (phase is Phase.QUEUED)
        # A link has a timer if and only if it waits for a server.
        waits_for_nothing = link.is_up and phase in (Phase.QUEUED, Phase.RESTING)
        assert (link in engine._timers) != waits_for_nothing
        if link.is_up and phase is Phase.RESTING:
            assert (
                engine._life not in (WorkerLife.WORKING, WorkerLife.PULLING)
                or None in engine._paused
                or not link.registered.keys() & engine._wanted.keys()
            )
            assert link.registered == engine._wanted or link.jobs
        if engine._life not in (WorkerLife.WORKING, WorkerLife.PULLING):
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
        engine, stream = self.engine, self.engine._subscription
        assert all(job in link.jobs for job in engine._left for link in [job._gm_link])
        assert engine._left <= engine._jobs
        assert not engine._left or _DROPPED in engine._timers
        if engine.is_pulling:
            return
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
            # Each server has either a link or a timer for the next connection attempt.
            for server in engine.pool.servers:
                assert (server.link is None) == (server in engine._timers)


# Worlds in which `work` runs.


def working(servers: int | Iterable[Any] = 1, **options: Any) -> World:
    """Return a World with no connection yet."""
    world = World(servers, **options)
    world.work()
    return world


def grabbing(**options: Any) -> tuple[World, Peer]:
    """Return a World whose only server has read a grab."""
    world = working(**options)
    (server,) = world.serve_all()
    return world, server


def asleep(**options: Any) -> tuple[World, Peer]:
    """Return a World whose only server has answered NO_JOB."""
    world, server = grabbing(**options)
    assert server.says(NoJob()) == [PreSleep()]
    return world, server


def backing_off(**options: Any) -> tuple[World, Peer]:
    """Return a World whose only server has woken the worker without a job too often."""
    world, server = asleep(**options)
    for _ in range(3):
        server.send(Noop())
        server.send(NoJob())
    server.send(Noop())
    assert not server.grabbing
    server.take()
    return world, server


def holding(**options: Any) -> tuple[World, Peer, WorkerJob]:
    """Return a World whose only server has assigned a job."""
    world, server = grabbing(**options)
    job = server.assign()
    server.take()
    return world, server, job


#: The phases of the server s0 in `in_phase`.
PHASES = ["connecting", "cooling", "resting", "queued", "grabbing", "late", "asleep", "backoff"]
PHASES += ["taken", "ready", "ended", "stalled", "leaving", "stopping"]


def in_phase(phase: str) -> tuple[World, WorkerJob | None]:
    """Return a World whose server s0 is in `phase`, and the job that the caller has taken."""
    match phase:
        case "connecting":
            return working(), None
        case "queued":
            world = working(["s1", "s0"])
            world.serve("s1")
            world.serve("s0")
            return world, None
        case "cooling":
            world, server = asleep()
            server.lose()
            return world, None
        case "asleep":
            return asleep()[0], None
        case "backoff":
            return backing_off()[0], None
        case "resting" | "grabbing" | "late" | "ready":
            world, server = grabbing(functions=[] if phase == "resting" else [b"f"])
            if phase == "late":
                world.sleep(1.5)
            elif phase == "ready":
                server.send(JobAssignUniq(b"H:1", b"f", b"", b""))
            return world, None
    world, server, job = holding()
    if phase == "ended":
        world.complete(job)
    elif phase == "stalled":
        server.reads = False
        world.send(job, data(2 * MEGABYTE), timeout=90.0)
    elif phase == "leaving":
        world.finish(job, go_on=False)
    elif phase == "stopping":
        world.stop(timeout=5.0)
    return world, job
