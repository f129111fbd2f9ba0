"""Property tests of clients, workers and a job server together.

The tests connect the real engines with wires in memory. A wire delivers any number of bytes at a
time, has a limited capacity and breaks at any time, separately for each side. A ledger observes
each packet that the server processes. It keeps its own record of each job: its worker, listeners,
place in the queue, updates and end. The states of the clients' requests must agree with the ledger.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gearman_proto.address import parse_host_list
from gearman_proto.constants import (
    DEFAULT_MAX_UNREAD,
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
)
from gearman_proto.engines.base import Close, Connect
from gearman_proto.engines.client.engine import ClientEngine
from gearman_proto.engines.client.link import ClientLink
from gearman_proto.engines.client.queries import status_queries
from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.engines.server.jobqueue import JobState
from gearman_proto.engines.waits import RequestsWait
from gearman_proto.engines.worker.engine import WorkerEngine
from gearman_proto.engines.worker.phases import Phase
from gearman_proto.errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import next_update
from gearman_proto.jobs.submitting import make_requests, prepare
from gearman_proto.jobs.updates import JobData, JobProgress, JobWarning
from gearman_proto.testing.audit import check_function, check_job, check_places, count_memory
from gearman_proto.wire.packets import (
    PacketEvent,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.profiles import examples

from .harness import EPOCH, Bell, check_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_proto.engines.server.links import ServerLink
    from gearman_proto.engines.waits import Wait
    from gearman_proto.engines.worker.engine import WorkStream
    from gearman_proto.jobs.job import WorkerJob
    from gearman_proto.jobs.request import GearmanJobRequest

PRIORITIES = [PRIORITY_HIGH, PRIORITY_NONE, PRIORITY_LOW]
TERMINAL = {WorkComplete: "complete", WorkFail: "fail", WorkException: "exception"}
UPDATES = {WorkData: "data", WorkWarning: "warning", WorkStatus: "status"}
#: More bytes than any wire holds.
ALL = 10**6
# After the last failure, all calls must end within this many seconds: the longest pause before a
# retry of a failed server, plus a margin.
PATIENCE = 40.0


class Wire:
    """A connection, or connection attempt, of a client or worker to the server."""

    def __init__(self, host: ClientHost | WorkerHost, link: Any, capacity: int) -> None:
        self.host = host
        self.link = link
        self.capacity = capacity
        #: The server's link once the connection is open.
        self.server_link: ServerLink | None = None
        #: Bytes in flight to the server, and from it.
        self.up = bytearray()
        self.down = bytearray()
        #: True while the engine at that end might have more data for the wire.
        self.up_waits = False
        self.down_waits = False
        #: True once the engine at that end has closed the wire or learnt of its end.
        self.peer_gone = False
        self.server_gone = False
        #: True once the wire drops all newly written data.
        self.broken = False

    def __repr__(self) -> str:
        return f"<Wire of {self.host}: {self.link}, {self.server_link}>"

    @property
    def is_open(self) -> bool:
        return self.server_link is not None

    @property
    def connecting(self) -> bool:
        return self.server_link is None and not self.peer_gone

    @property
    def over(self) -> bool:
        return self.peer_gone and (self.server_gone or self.server_link is None)

    @property
    def peer_may_see_its_end(self) -> bool:
        return self.is_open and not self.peer_gone and (self.broken or self.server_gone)

    @property
    def server_may_see_its_end(self) -> bool:
        return self.is_open and not self.server_gone and (self.broken or self.peer_gone)


class Entry:
    """A job in the ledger."""

    def __init__(self, number: int, handle: bytes, event: Any, priority: int) -> None:
        #: Number of the request that created the job.
        self.number = number
        self.handle = handle
        self.function: bytes = event.function
        self.unique: bytes = event.unique
        self.data: bytes = event.data
        self.priority = priority
        self.background = False
        self.listeners: set[ServerLink] = set()
        #: The job's place in the queue, or None if it does not wait for a worker.
        self.place: int | None = None
        #: The worker that runs the job, the start of the run, and its time limit.
        self.holder: ServerLink | None = None
        self.since = 0.0
        self.limit = 0.0
        #: Number of runs, and of runs lost with their worker.
        self.runs = 0
        self.losses = 0
        #: Updates from workers.
        self.updates: list[tuple[str, bytes]] = []
        #: The kind of the job's end, and its data.
        self.end: tuple[str, bytes | None] | None = None
        #: All results that workers have sent for the job.
        self.results: set[bytes] = set()


class Ledger:
    """An independent record of the server's jobs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server = world.server
        #: All jobs, and the unfinished ones.
        self.entries: dict[bytes, Entry] = {}
        self.open: dict[bytes, Entry] = {}
        #: Submits by request: the link of arrival, the job, and the number of updates before it.
        self.submits: dict[int, list[tuple[ServerLink, bytes, int]]] = {}
        self.refused: set[int] = set()
        #: Links that received the same job more than once.
        self.repeated: set[ServerLink] = set()
        self.seen: dict[ServerLink, set[bytes]] = {}
        self._places = 0
        handlers = self.server._handlers
        for kind in list(handlers):
            handlers[kind] = self._watched(handlers[kind])

    def _watched(
        self, handle: Callable[[ServerLink, Any, Any, float], None]
    ) -> Callable[[ServerLink, Any, Any, float], None]:
        def watched(link: ServerLink, kind: Any, args: Any, now: float) -> None:
            def handler(link: ServerLink, _: Any) -> None:
                handle(link, kind, args, now)

            name = kind.__name__
            event = kind(*args)
            if name.startswith("SubmitJob"):
                self._submit(handler, link, event)
            elif name.startswith("GrabJob"):
                self._grab(handler, link, event)
            elif type(event) in TERMINAL:
                self._terminal(handler, link, event)
            elif type(event) in UPDATES:
                self._update(handler, link, event)
            else:
                handler(link, event)
            self.observe()

        return watched

    def _submit(self, handler: Any, link: ServerLink, event: Any) -> None:
        number = int(event.data)
        model = self.world.models[number]
        same = [
            entry
            for entry in self.open.values()
            if (entry.function, entry.unique) == (event.function, event.unique)
        ]
        before = set(self.server.queue.jobs)
        queued = sum(entry.function == event.function for entry in self.open.values())
        full = 0 < self.world.max_queue_size <= queued
        handler(link, event)
        new = set(self.server.queue.jobs) - before
        if same:
            assert not new
            (entry,) = same
        elif full:
            assert not new
            self.refused.add(number)
            return
        else:
            (handle,) = new
            assert handle not in self.entries
            entry = Entry(number, handle, event, PRIORITIES.index(model.priority))
            self.entries[handle] = self.open[handle] = entry
        if model.background:
            entry.background = True
        else:
            entry.listeners.add(link)
        self.submits.setdefault(number, []).append((link, entry.handle, len(entry.updates)))

    def _grab(self, handler: Any, link: ServerLink, event: Any) -> None:
        """Check that the worker receives the first job in the ledger's order."""
        functions = {function.name for function in link.abilities}
        waiting = {
            (entry.priority, entry.place): entry
            for entry in self.open.values()
            if entry.place is not None and entry.function in functions
        }
        before = set(link.jobs)
        handler(link, event)
        new = set(link.jobs) - before
        if not waiting:
            assert not new
            return
        (handle,) = new
        entry = self.entries[handle]
        best = min(waiting)
        assert (entry.priority, entry.place) == best
        assert entry.holder is None
        entry.place = None
        entry.holder = link
        entry.since = self.world.now
        entry.limit = link.abilities[self.server.queue.functions[entry.function]]
        entry.runs += 1
        seen = self.seen.setdefault(link, set())
        if handle in seen:
            self.repeated.add(link)
        seen.add(handle)

    def _terminal(self, handler: Any, link: ServerLink, event: Any) -> None:
        before = set(self.server.queue.jobs)
        entry = self.open.get(event.handle)
        handler(link, event)
        if entry is None or entry.holder is not link:
            assert set(self.server.queue.jobs) == before
            return
        assert set(self.server.queue.jobs) == before - {event.handle}
        entry.end = (TERMINAL[type(event)], getattr(event, "data", None))
        entry.holder = None

    def _update(self, handler: Any, link: ServerLink, event: Any) -> None:
        entry = self.open.get(event.handle)
        handler(link, event)
        if entry is not None and entry.holder is link:
            value = event.numerator if isinstance(event, WorkStatus) else event.data
            entry.updates.append((UPDATES[type(event)], value))

    def observe(self) -> None:
        """Record the changes of the server's jobs, and check that each has a reason."""
        jobs = self.server.queue.jobs
        assert jobs.keys() <= self.open.keys()
        # The jobs of one lost link return to the queue together, in any order.
        self._places += 1
        for handle, entry in list(self.open.items()):
            job = jobs.get(handle)
            if entry.holder is not None and (job is None or job.worker is not entry.holder):
                late = entry.limit and entry.since + entry.limit <= self.world.now
                assert late or not entry.holder.alive
                entry.holder = None
                entry.losses += 1
            if job is None:
                del self.open[handle]
                if entry.end is None:
                    self._lost(entry)
                self.check(entry)
                continue
            assert entry.end is None
            assert (job.background, job.priority) == (entry.background, entry.priority)
            assert job.worker is entry.holder
            assert job.losses == entry.losses
            assert (job.function.name, job.unique, job.data) == (
                entry.function,
                entry.unique,
                entry.data,
            )
            if job.state is JobState.QUEUED and entry.place is None:
                entry.place = self._places
            assert (entry.place is not None) == (job.state is JobState.QUEUED)
            self.check(entry)

    def _lost(self, entry: Entry) -> None:
        retries = self.world.job_retries
        if retries is not None and entry.losses > retries:
            entry.end = ("given up", None)
        else:
            # The server drops only jobs without listeners.
            assert not entry.background
            assert not any(link.alive for link in entry.listeners)
            entry.end = ("unwanted", None)

    def check(self, entry: Entry) -> None:
        """Check that a job runs again only after the loss of its worker."""
        ended = entry.end is not None and entry.end[0] in TERMINAL.values()
        assert entry.runs == entry.losses + (ended or entry.holder is not None)
        if self.world.job_retries is not None:
            assert entry.losses <= self.world.job_retries + 1


class Model:
    """A request with its recorded history."""

    def __init__(self, client: ClientHost, number: int, request: GearmanJobRequest) -> None:
        self.client = client
        self.number = number
        self.request: GearmanJobRequest | None = request
        self.background = request.background
        self.priority = request.priority
        self.function = request.task.encode()
        #: The unique chosen by the application, or None.
        self.unique = request.unique
        self.states = [JOB_UNKNOWN]
        #: The link of the last submit.
        self.link: Any = None
        self.handle: bytes | None = None
        self.updates: list[tuple[str, bytes]] = []
        self.outcome: Any = None

    def __repr__(self) -> str:
        return f"<Model {self.number} {self.states}>"

    @property
    def over(self) -> bool:
        return self.request is None or self.outcome is not None


#: Allowed next states of a request, by state.
FOLLOWING = {
    JOB_UNKNOWN: {JOB_PENDING},
    JOB_PENDING: {JOB_CREATED, JOB_FAILED, JOB_UNKNOWN},
    JOB_CREATED: {JOB_COMPLETE, JOB_FAILED, JOB_UNKNOWN},
}


class ClientHost:
    """A client process."""

    def __init__(self, world: World, *, exceptions: bool = True) -> None:
        self.world = world
        self.exceptions = exceptions
        self.engine = ClientEngine(
            parse_host_list(["s"]),
            rng=random.Random(world.next_seed()),
            wall_clock=lambda: EPOCH + world.now,
            exceptions=exceptions,
        )
        self.waits: list[Wait] = []

    def submit(
        self,
        function: bytes = b"f",
        *,
        background: bool = False,
        priority: str | None = PRIORITY_NONE,
        unique: str | None = None,
        retries: int = 0,
        timeout: float | None = None,
    ) -> Model:
        """Submit a job. Its data is the number of its request."""
        number = len(self.world.models)
        jobs = [{"task": function, "data": b"%d" % number, "unique": unique, "priority": priority}]
        requests = make_requests(jobs, background=background, max_retries=retries)
        prepare(requests, NoopEncoder)
        model = Model(self, number, requests[0])
        self.world.models[number] = model
        wait = self.engine.submit(self.world.now, Bell(), requests, timeout=timeout)
        self.waits.append(wait)
        self.world.after()
        return model

    def ask(self, model: Model) -> None:
        """Ask for the status of a request."""
        assert model.request is not None
        queries = status_queries(self.engine.pool, [model.request])
        self.waits.append(self.engine.statuses(self.world.now, Bell(), [model.request], queries))
        self.world.after()

    def give_up(self, wait: Wait) -> None:
        """Release a Wait before its end."""
        self.engine.release(wait, self.world.now)
        self.waits = [other for other in self.waits if other is not wait]
        assert isinstance(wait, RequestsWait)
        for request in wait.requests:
            assert wait not in request._gm_waits
        self.world.after()

    def close(self) -> None:
        """Close all connections."""
        self.engine.close(self.world.now)
        self.world.after()
        for wait in self.waits:
            assert wait.done
        assert not any(wire.host is self and not wire.peer_gone for wire in self.world.wires)

    def check(self) -> None:
        server = self.engine.pool.servers[0]
        if server.link is not None:
            check_places(server.link)
        for wait in self.waits:
            check_wait(wait)


class Run:
    """One run of a job by a worker."""

    def __init__(self, number: int, job: WorkerJob) -> None:
        self.number = number
        self.job = job


class WorkerHost:
    """A worker process."""

    def __init__(self, world: World, *, max_jobs: int = 1, look_again: float = 1e6) -> None:
        self.world = world
        self.max_jobs = max_jobs
        self.engine = WorkerEngine(
            parse_host_list(["s"]),
            rng=random.Random(world.next_seed()),
            max_jobs=max_jobs,
            look_again=look_again,
            max_outage=None,
        )
        self.stream: WorkStream | None = None
        self.runs: list[Run] = []
        self.work()

    def work(self) -> None:
        """Start a call of `work`."""
        assert self.stream is None
        self.stream = self.engine.work(self.world.now, Bell())
        self.world.after()

    def end_work(self) -> None:
        """End the call of `work`."""
        assert self.stream is not None
        stream, self.stream = self.stream, None
        self.engine.end_work(self.world.now)
        self.engine.release(stream, self.world.now)
        assert stream.error is None or isinstance(stream.error, ServerUnavailable)
        self.world.after()
        assert not any(wire.host is self and not wire.peer_gone for wire in self.world.wires)

    def register(self, function: bytes, timeout: float | None = None) -> None:
        self.engine.register(self.world.now, function, timeout)
        self.world.after()

    def unregister(self, function: bytes) -> None:
        self.engine.unregister(self.world.now, function)
        self.world.after()

    def take(self) -> Run | None:
        """Take a job if the stream is ready."""
        if self.stream is None or not self.stream.ready:
            return None
        job = self.engine.next_job(self.world.now)
        self.world.after()
        if job is None:
            return None
        assert not job.is_lost
        entry = self.world.ledger.entries[job.wire_handle]
        assert job.wire_task == entry.function
        assert job.unique == entry.unique.decode()
        assert job.data == entry.data
        self.world.runs += 1
        run = Run(self.world.runs, job)
        self.runs.append(run)
        return run

    def say(self, run: Run, kind: str) -> None:
        """Send a packet of `kind` about a job, with a new value each time."""
        self.world.values += 1
        job, value = run.job, b"%d" % self.world.values
        handle = job.wire_handle
        event: PacketEvent
        if kind == "data":
            event = WorkData(handle, value)
        elif kind == "warning":
            event = WorkWarning(handle, value)
        elif kind == "status":
            event = WorkStatus(handle, value, b"9")
        elif kind == "fail":
            event = WorkFail(handle)
        else:
            value = b"%b in run %d" % (job.data, run.number)
            self.world.ledger.entries[handle].results.add(value)
            event = (WorkComplete if kind == "complete" else WorkException)(handle, value)
        lost = job.is_lost
        try:
            wait = self.engine.send(self.world.now, Bell(), job, event)
        except ConnectionError:
            assert lost
        else:
            assert not lost
            assert wait.done
        assert job.ended == (kind in TERMINAL.values())
        self.world.after()

    def done(self, run: Run) -> None:
        """Release the slot of a job. A job without an end fails."""
        self.runs.remove(run)
        self.engine.job_done(self.world.now, run.job)
        assert run.job.ended or run.job.is_lost
        self.world.after()

    def stop(self) -> None:
        """Stop after the jobs in progress."""
        self.engine.stop(self.world.now)
        self.world.after()

    def check(self) -> None:
        engine = self.engine
        link = engine.pool.servers[0].link
        links = [] if link is None else [link]
        grabs = [link.grabs for link in links if link.phase is Phase.GRABBING]
        assert engine._grabs == sum(grabs)
        assert len(engine._jobs) + engine._grabs <= self.max_jobs
        assert set(engine._ready) <= engine._jobs
        if any(not job.is_lost for job in engine._ready):
            assert self.stream is not None
            assert self.stream.ready
        for link in links:
            assert link.alive
            assert set(link.jobs) <= engine._jobs
            assert not any(job.ended for job in link.jobs)
            queued = sum(other is link for other in engine._turns)
            assert queued == (link.phase is Phase.QUEUED)
            if link.phase is Phase.QUEUED and self.stream is not None and not self.stream.ready:
                assert len(engine._jobs) + engine._grabs == self.max_jobs


class World:
    """A server, clients and workers, the wires between them, and a clock."""

    def __init__(
        self,
        *,
        capacity: int = ALL,
        job_retries: int | None = 10,
        max_queue_size: int = 0,
        max_unread: int = DEFAULT_MAX_UNREAD,
    ) -> None:
        self.now = 0.0
        self.capacity = capacity
        self.job_retries = job_retries
        self.max_queue_size = max_queue_size
        self.server = ServerEngine(
            rng=random.Random(0),
            wall_clock=lambda: EPOCH + self.now,
            job_retries=job_retries,
            max_queue_size=max_queue_size,
            max_unread=max_unread,
        )
        self.clients: list[ClientHost] = []
        self.workers: list[WorkerHost] = []
        #: Wires that have not ended on both sides, oldest first.
        self.wires: list[Wire] = []
        #: All requests by number.
        self.models: dict[int, Model] = {}
        self.ledger = Ledger(self)
        #: Counters that make each run and each update unique.
        self.runs = 0
        self.values = 0
        self._seeds = 0
        self._accepted = 0
        self._origins: dict[Any, ServerLink | None] = {}

    def next_seed(self) -> int:
        self._seeds += 1
        return self._seeds

    def client(self, **options: Any) -> ClientHost:
        """Add a client."""
        client = ClientHost(self, **options)
        self.clients.append(client)
        return client

    def worker(self, *functions: bytes, **options: Any) -> WorkerHost:
        """Add a worker."""
        worker = WorkerHost(self, **options)
        self.workers.append(worker)
        for function in functions:
            worker.register(function)
        return worker

    # The drivers' part.

    def after(self) -> None:
        """Do the drivers' work after a call, then check all invariants."""
        while self._act() or self._pull() or self._catch_up():
            pass
        self.wires = [wire for wire in self.wires if not wire.over]
        self.check()

    def _act(self) -> bool:
        busy = False
        for host in self.hosts():
            while (action := host.engine.next_action()) is not None:
                busy = True
                if isinstance(action, Connect):
                    self.wires.append(Wire(host, action.link, self.capacity))
                    self._origins[action.link] = None
                else:
                    assert isinstance(action, Close)
                    (wire,) = (w for w in self.wires if w.link is action.link and not w.peer_gone)
                    self._peer_is_gone(wire)
        while (action := self.server.next_action()) is not None:
            busy = True
            assert isinstance(action, Close)
            (wire,) = (w for w in self.wires if w.server_link is action.link and not w.server_gone)
            self._server_is_gone(wire)
        if busy:
            self.ledger.observe()
        return busy

    def _catch_up(self) -> bool:
        """Let the server process its backlog of received data."""
        if not any(link.behind for link in self.server.links):
            return False
        self.server.handle_timeout(self.now)
        self.ledger.observe()
        return True

    def _pull(self) -> bool:
        """Move the engines' outgoing data into the wires, up to their capacity."""
        busy = False
        up: list[Any] = []
        for host in self.hosts():
            up += host.engine.links_to_write()
        down = list(self.server.links_to_write())
        for wire in self.wires:
            wire.up_waits |= any(link is wire.link for link in up)
            wire.down_waits |= any(link is wire.server_link for link in down)
            while wire.up_waits and not wire.peer_gone and len(wire.up) < wire.capacity:
                data = wire.host.engine.data_to_send(wire.link, self.now)
                wire.up_waits = bool(data)
                busy |= bool(data)
                if not (wire.broken or wire.server_gone):
                    wire.up += data
            while wire.down_waits and not wire.server_gone and len(wire.down) < wire.capacity:
                assert wire.server_link is not None
                data = self.server.data_to_send(wire.server_link, self.now)
                wire.down_waits = bool(data)
                busy |= bool(data)
                if not (wire.broken or wire.peer_gone):
                    wire.down += data
        return busy

    @staticmethod
    def _peer_is_gone(wire: Wire) -> None:
        assert not wire.peer_gone
        wire.peer_gone = True
        wire.down.clear()

    @staticmethod
    def _server_is_gone(wire: Wire) -> None:
        assert not wire.server_gone
        wire.server_gone = True
        wire.up.clear()

    # The network's part.

    def open(self, wire: Wire) -> None:
        """Open a connection."""
        assert wire.connecting
        self._accepted += 1
        wire.server_link = self.server.accept("127.0.0.1", self._accepted, self.now)
        self._origins[wire.link] = wire.server_link
        self.after()
        wire.host.engine.connected(wire.link, self.now)
        self.after()

    def refuse(self, wire: Wire) -> None:
        """Refuse a connection."""
        assert wire.connecting
        self._peer_is_gone(wire)
        wire.host.engine.connect_failed(wire.link, ConnectionRefusedError("refused"), self.now)
        self.after()

    def move(self, wire: Wire, size: int, *, up: bool) -> bool:
        """Deliver up to `size` bytes. Return False if there were none."""
        queue = wire.up if up else wire.down
        data = bytes(queue[:size])
        del queue[:size]
        if data and up:
            assert wire.server_link is not None
            self.server.receive_data(wire.server_link, data, self.now)
            self.ledger.observe()
        elif data:
            wire.host.engine.receive_data(wire.link, data, self.now)
        self.after()
        return bool(data)

    def break_(self, wire: Wire, up: int = ALL, down: int = ALL) -> None:
        """Break a wire. Keep the first `up` and `down` bytes in flight."""
        wire.broken = True
        del wire.up[up:]
        del wire.down[down:]

    def end(self, wire: Wire, *, at_server: bool, error: Exception | None = None) -> None:
        """Report the end of the wire to one side."""
        engine: Any
        if at_server:
            assert wire.server_may_see_its_end
            self._server_is_gone(wire)
            engine, link = self.server, wire.server_link
        else:
            assert wire.peer_may_see_its_end
            self._peer_is_gone(wire)
            engine, link = wire.host.engine, wire.link
        engine.connection_lost(link, error, self.now)
        self.ledger.observe()
        self.after()
        # Later calls of a slow driver have no effect on the dead link.
        before = self.server.queue.memory
        engine.connection_lost(link, error, self.now)
        engine.receive_data(link, b"garbage\r\n", self.now)
        engine.connected(link, self.now)
        assert engine.data_to_send(link, self.now) == b""
        self.ledger.observe()
        self.after()
        assert self.server.queue.memory == before

    def kill(self, host: ClientHost | WorkerHost) -> None:
        """Kill a process. Its sent data stays in flight."""
        if isinstance(host, WorkerHost):
            self.workers.remove(host)
        else:
            self.clients.remove(host)
        for wire in self.wires:
            if wire.host is host and not wire.peer_gone:
                self._peer_is_gone(wire)
        self.after()

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.now += seconds
        for engine in self.engines():
            deadline = engine.next_deadline()
            if deadline is not None and deadline <= self.now:
                engine.handle_timeout(self.now)
                self.ledger.observe()
                self.after()
                deadline = engine.next_deadline()
                assert deadline is None or deadline > self.now

    def engines(self) -> Iterator[ClientEngine | WorkerEngine | ServerEngine]:
        for host in self.hosts():
            yield host.engine
        yield self.server

    def hosts(self) -> list[ClientHost | WorkerHost]:
        return [*self.clients, *self.workers]

    def pump(self, size: int = ALL) -> bool:
        """Deliver one chunk per wire and direction. Return False if nothing was in flight."""
        busy = False
        for wire in list(self.wires):
            if wire.connecting:
                busy = True
                self.open(wire)
            busy |= bool(wire.up) and self.move(wire, size, up=True)
            busy |= bool(wire.down) and self.move(wire, size, up=False)
        return busy

    def settle(self) -> None:
        """Deliver all data in flight and report every end."""
        busy = True
        while busy:
            busy = self.pump()
            for wire in list(self.wires):
                if wire.peer_may_see_its_end and not wire.down:
                    self.end(wire, at_server=False)
                    busy = True
                if wire.server_may_see_its_end and not wire.up:
                    self.end(wire, at_server=True)
                    busy = True

    # The end.

    def finish(self) -> None:
        """Run without further failures, and check that all jobs and calls end."""
        functions = {model.function for model in self.models.values()}
        if not self.workers:
            self.worker()
        for worker in self.workers:
            for function in functions:
                worker.register(function)
        until = self.now + PATIENCE
        while True:
            while self._work():
                pass
            if not self.server.queue.jobs and all(model.over for model in self.models.values()):
                break
            deadlines = [engine.next_deadline() for engine in self.engines()]
            deadline = min(deadline for deadline in deadlines if deadline is not None)
            assert deadline <= until, "nothing happens any more"
            self.sleep(deadline - self.now)
        self._check_end()
        self._stop()
        self._close()

    def _work(self) -> bool:
        """Let the workers run all available jobs. Return False if there was no work."""
        self.settle()
        busy = False
        for worker in self.workers:
            if worker.stream is not None and worker.stream.done:
                worker.end_work()
            if worker.stream is None:
                worker.work()
                busy = True
            while worker.take():
                pass
            for run in list(worker.runs):
                busy = True
                if not run.job.ended:
                    worker.say(run, "complete")
                worker.done(run)
        self.settle()
        return busy or any(worker.stream is None or worker.stream.done for worker in self.workers)

    def _check_end(self) -> None:
        for client in self.clients:
            for wait in client.waits:
                assert wait.done, wait
        for entry in self.ledger.entries.values():
            assert entry.end is not None
            if entry.background:
                assert entry.end[0] in {*TERMINAL.values(), "given up"}
        for model in self.models.values():
            if model.background and model.states[-1] == JOB_CREATED:
                assert model.handle is not None
                assert self.ledger.entries[model.handle].background
        for wire in self.wires:
            if isinstance(wire.host, WorkerHost) and wire.host.stream is not None:
                assert wire.server_link is not None
                told = {function.name for function in wire.server_link.abilities}
                assert told == set(wire.link.registered) == set(wire.host.engine._abilities)

    def _stop(self) -> None:
        """Stop the idle workers, and check that each ends at once."""
        for worker in self.workers:
            worker.stop()
            self.settle()
            assert worker.stream is not None
            assert worker.stream.done
            assert worker.stream.error is None
            worker.end_work()
            assert worker.engine.next_deadline() is None
            assert not worker.engine.has_jobs()

    def _close(self) -> None:
        for client in self.clients:
            for wait in list(client.waits):
                client.give_up(wait)
            client.close()
            assert client.engine.next_deadline() is None
        self.settle()
        assert not self.wires
        assert not self.server.links
        assert not self.server.queue.jobs
        assert self.server.next_deadline() is None
        for function in self.server.queue.functions.values():
            assert function.idle
        self.server.queue.drop_idle_functions()
        assert self.server.queue.memory == 0

    # Invariants.

    def check(self) -> None:
        """Check all invariants."""
        for client in self.clients:
            client.check()
        for worker in self.workers:
            worker.check()
        self.check_server()
        for model in self.models.values():
            if model.request is not None:
                self.check_request(model, model.request)

    def check_server(self) -> None:
        server = self.server
        for function in server.queue.functions.values():
            jobs = [job for job in server.queue.jobs.values() if job.function is function]
            check_function(server, function, jobs)
        for job in server.queue.jobs.values():
            check_job(server, job)
        assert server.queue.memory == count_memory(server)
        links = {wire.server_link for wire in self.wires if wire.is_open and not wire.server_gone}
        assert set(server.links) == links
        for link in server.links:
            assert link.is_up
            for handle, job in link.jobs.items():
                assert server.queue.jobs[handle] is job
                assert job.worker is link
            for job in link.listening:
                assert server.queue.jobs[job.handle] is job
                assert link in job.listeners

    def check_request(self, model: Model, request: GearmanJobRequest) -> None:
        """Check that a request agrees with the ledger."""
        if isinstance(request._gm_link, ClientLink):
            model.link = request._gm_link
        while (update := next_update(request)) is not None:
            if isinstance(update, JobProgress):
                model.updates.append(("status", b"%d" % update.numerator))
            else:
                assert isinstance(update, (JobData, JobWarning))
                kind = "data" if isinstance(update, JobData) else "warning"
                model.updates.append((kind, update.data))
        outcome = (request.state, request.handle, request.result, request.exception, request.error)
        if model.outcome is not None:
            assert outcome == model.outcome
        elif request.state != model.states[-1]:
            self._changed(model, request)
        # A closed client leaves the states of its requests unchanged.
        if request.complete or not isinstance(request._gm_link, ClientLink):
            model.outcome = outcome
            assert not request._gm_waits
        self._check_updates(model, request)

    def _changed(self, model: Model, request: GearmanJobRequest) -> None:
        # One chunk can contain several packets, so a request can skip a state.
        if model.states[-1] == JOB_UNKNOWN:
            model.states.append(JOB_PENDING)
        if model.states[-1] == JOB_PENDING and request.handle is not None:
            model.states.append(JOB_CREATED)
            model.handle = request.handle.encode()
        state = request.state
        if state != model.states[-1]:
            assert state in FOLLOWING[model.states[-1]]
            model.states.append(state)
        if model.handle is None:
            self._check_unaccepted(model, request)
            return
        entry = self.ledger.entries[model.handle]
        assert entry.function == model.function
        assert (entry.unique.decode() == request.unique) or entry.number == model.number
        assert self._origins_of(model)
        if state == JOB_COMPLETE:
            assert entry.end == ("complete", request.result)
            assert request.result in entry.results
            assert request.exception is None
        elif state == JOB_FAILED:
            assert entry.end is not None
            assert entry.end[0] in ("fail", "exception", "given up")
            told = entry.end[0] == "exception" and model.client.exceptions
            assert request.exception == (entry.end[1] if told else None)
            assert request.result is None
            assert request.error is None
        elif state == JOB_UNKNOWN:
            assert not model.link.alive

    def _check_unaccepted(self, model: Model, request: GearmanJobRequest) -> None:
        if request.state == JOB_FAILED:
            assert isinstance(request.error, ServerError)
            same = {model.number}
            if model.unique is not None:  # The request might have joined the submit of another.
                same |= {
                    other.number for other in self.models.values() if other.unique == model.unique
                }
            assert same & self.ledger.refused
        elif request.state == JOB_UNKNOWN:
            assert isinstance(request.error, (ServerUnavailable, ExceededConnectionAttempts))
            if isinstance(request.error, ExceededConnectionAttempts):
                assert request.connection_attempts == request.max_connection_attempts
        assert request.connection_attempts <= request.max_connection_attempts

    def _check_updates(self, model: Model, request: GearmanJobRequest) -> None:
        """Check that the updates have no gap, and are complete if the job has ended."""
        if model.handle is None or model.background:
            assert not model.updates
            return
        origins = self._origins_of(model)
        updates = self.ledger.entries[model.handle].updates
        if model.number not in origins and model.updates:
            # The request has joined a submit of the same unique while updates were in flight.
            joined_at = updates.index(model.updates[0])
            assert joined_at >= min(origins.values())
            updates = updates[joined_at:]
        elif model.number in origins:
            updates = updates[origins[model.number] :]
        else:
            return
        assert model.updates == updates[: len(model.updates)]
        if request.state in (JOB_COMPLETE, JOB_FAILED):
            assert model.updates == updates

    def _origins_of(self, model: Model) -> dict[int, int]:
        """Return the submits of this request's job on its link, as update counts by request number.

        The count is the number of updates before the submit. If requests share a unique, the job
        can have several submits. Otherwise the request's own submit is the only one.
        """
        link = self._origins[model.link]
        origins = {
            number: updates
            for number, submits in self.ledger.submits.items()
            for other, handle, updates in submits
            if other is link and handle == model.handle
        }
        if model.unique is None:
            assert model.number in origins
            return {model.number: origins[model.number]}
        assert origins
        return origins


# Conversations.


def test_a_job_from_submit_to_result_byte_by_byte() -> None:
    world = World()
    worker, client = world.worker(b"f"), world.client()
    while world.pump(size=1):
        pass
    model = client.submit(b"f")
    while world.pump(size=1):
        pass
    run = worker.take()
    assert run is not None
    worker.say(run, "status")
    worker.say(run, "data")
    worker.say(run, "complete")
    worker.done(run)
    while world.pump(size=1):
        pass
    assert model.updates == [("status", b"1"), ("data", b"2")]
    assert model.request is not None
    assert model.request.result == b"0 in run 1"
    assert client.waits[0].done
    world.finish()


def test_job_of_a_killed_worker_is_run_by_another() -> None:
    world = World()
    first, client = world.worker(b"f"), world.client()
    model = client.submit(b"f")
    world.settle()
    run = first.take()
    assert run is not None
    first.say(run, "data")
    second = world.worker(b"f")
    world.settle()
    assert second.take() is None
    # The first worker sends its result, but the last byte is lost.
    first.say(run, "complete")
    (wire,) = (wire for wire in world.wires if wire.host is first)
    del wire.up[-1:]
    world.kill(first)
    world.settle()
    again = second.take()
    assert again is not None
    second.say(again, "complete")
    second.done(again)
    world.settle()
    assert model.request is not None
    assert model.request.result == b"0 in run 2"
    assert model.updates == [("data", b"1")]
    world.finish()


def test_closed_client_keeps_running_and_background_jobs() -> None:
    world = World()
    worker, client = world.worker(b"f"), world.client()
    running, queued, background = (
        client.submit(b"f"),
        client.submit(b"f"),
        client.submit(b"f", background=True, priority=PRIORITY_LOW),
    )
    world.settle()
    run = worker.take()
    assert run is not None
    assert run.job.data == b"0"
    client.close()
    assert running.states[-1] == queued.states[-1] == JOB_UNKNOWN
    assert background.states[-1] == JOB_CREATED
    # The running job continues. The server drops queued foreground jobs without listeners.
    world.settle()
    assert [job.data for job in world.server.queue.jobs.values()] == [b"0", b"2"]
    worker.say(run, "complete")
    worker.done(run)
    world.settle()
    last = worker.take()
    assert last is not None
    assert last.job.data == b"2"
    world.finish()


def test_stopping_worker_waits_until_its_result_is_received() -> None:
    world = World(capacity=1)
    worker, client = world.worker(b"f"), world.client()
    model = client.submit(b"f")
    world.settle()
    run = worker.take()
    assert run is not None
    worker.stop()
    worker.say(run, "complete")
    worker.done(run)
    assert worker.stream is not None
    while not worker.stream.done:
        assert world.pump(size=1)
    assert not world.server.queue.jobs
    worker.end_work()
    world.settle()
    assert model.request is not None
    assert model.request.result == b"0 in run 1"
    world.finish()


# Random sequences of events.

FUNCTIONS = [b"f", b"g", b"h"]
SIZES = st.sampled_from([ALL, ALL, ALL, 40, 13, 1])
WORKED = st.sampled_from([{b"f"}, {b"f", b"g"}, {b"f", b"g", b"h"}])
JOBS = st.fixed_dictionaries(
    {
        "function": st.sampled_from(FUNCTIONS),
        "background": st.booleans(),
        "priority": st.sampled_from(PRIORITIES),
        "unique": st.sampled_from([None, None, "a", "b"]),
        "retries": st.integers(0, 2),
        "timeout": st.sampled_from([None, None, 0.5]),
    }
)
KINDS = st.sampled_from(["data", "warning", "status", "complete", "complete", "fail", "exception"])


class Machine(RuleBasedStateMachine):
    @initialize(
        clients=st.lists(st.booleans(), min_size=1, max_size=3),
        workers=st.lists(st.tuples(WORKED, st.integers(1, 2)), min_size=1, max_size=3),
        capacity=st.sampled_from([ALL, ALL, ALL, 100, 1]),
        job_retries=st.sampled_from([None, 10, 10, 1, 0]),
        max_queue_size=st.sampled_from([0, 0, 0, 0, 2]),
        max_unread=st.sampled_from([DEFAULT_MAX_UNREAD] * 5 + [100]),
        look_again=st.sampled_from([1e6, 1e6, 5.0]),
        limited=st.booleans(),
        calm=st.sampled_from([False, False, True]),
        connected=st.booleans(),
    )
    def start(
        self,
        clients: list[bool],
        workers: list[tuple[set[bytes], int]],
        capacity: int,
        job_retries: int | None,
        max_queue_size: int,
        max_unread: int,
        look_again: float,
        limited: bool,
        calm: bool,
        connected: bool,
    ) -> None:
        self.world = World(
            capacity=capacity,
            job_retries=job_retries,
            max_queue_size=max_queue_size,
            max_unread=max_unread,
        )
        self.look_again = look_again
        #: True if nothing breaks, so that jobs make progress.
        self.calm = calm
        for exceptions in clients:
            self.world.client(exceptions=exceptions)
        for functions, max_jobs in workers:
            worker = self.world.worker(max_jobs=max_jobs, look_again=look_again)
            for function in sorted(functions):
                worker.register(function, 2.0 if limited else None)
        if connected:
            self.world.settle()

    def pick(self, data: st.DataObject, items: list[Any]) -> Any:
        return items[data.draw(st.integers(0, len(items) - 1))]

    def wires(self, condition: Callable[[Wire], Any]) -> list[Wire]:
        return [wire for wire in self.world.wires if condition(wire)]

    def working(self) -> list[WorkerHost]:
        return [worker for worker in self.world.workers if worker.runs]

    # Clients.

    @precondition(lambda self: self.world.clients)
    @rule(data=st.data(), jobs=st.lists(JOBS, min_size=1, max_size=3))
    def submit(self, data: st.DataObject, jobs: list[Any]) -> None:
        client = self.pick(data, self.world.clients)
        for job in jobs:
            client.submit(**job)

    @precondition(lambda self: any(client.waits for client in self.world.clients))
    @rule(data=st.data(), forget=st.booleans())
    def give_up_a_wait(self, data: st.DataObject, forget: bool) -> None:
        client = self.pick(data, [client for client in self.world.clients if client.waits])
        wait = self.pick(data, client.waits)
        client.give_up(wait)
        for request in wait.requests:
            for model in self.world.models.values():
                if forget and model.request is request:
                    model.request = None

    @precondition(lambda self: any(m.request is not None for m in self.world.models.values()))
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        models = [m for m in self.world.models.values() if m.request and m.request.unique]
        models = [model for model in models if model.client in self.world.clients]
        if models:
            model = self.pick(data, models)
            model.client.ask(model)

    @precondition(lambda self: not self.calm and self.world.clients)
    @rule(data=st.data())
    def close_a_client(self, data: st.DataObject) -> None:
        client = self.pick(data, self.world.clients)
        client.close()
        self.world.clients.remove(client)

    @precondition(lambda self: len(self.world.clients) < 3)
    @rule(exceptions=st.booleans())
    def a_new_client(self, exceptions: bool) -> None:
        self.world.client(exceptions=exceptions)

    # Workers.

    @precondition(lambda self: any(w.stream and w.stream.ready for w in self.world.workers))
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        ready = [w for w in self.world.workers if w.stream is not None and w.stream.ready]
        worker = self.pick(data, ready)
        while worker.take():
            pass
        if worker.stream.done:
            worker.end_work()

    @precondition(lambda self: self.working())
    @rule(data=st.data(), kinds=st.lists(KINDS, max_size=4), done=st.booleans())
    def do(self, data: st.DataObject, kinds: list[str], done: bool) -> None:
        worker = self.pick(data, self.working())
        run = self.pick(data, worker.runs)
        for kind in kinds:
            if not run.job.ended:
                worker.say(run, kind)
        if done or (kinds and run.job.ended):
            worker.done(run)

    @precondition(lambda self: self.world.workers)
    @rule(
        data=st.data(),
        function=st.sampled_from(FUNCTIONS),
        timeout=st.sampled_from([None, None, 2.0]),
    )
    def register(self, data: st.DataObject, function: bytes, timeout: float | None) -> None:
        self.pick(data, self.world.workers).register(function, timeout)

    @precondition(lambda self: self.world.workers)
    @rule(data=st.data(), function=st.sampled_from(FUNCTIONS))
    def unregister(self, data: st.DataObject, function: bytes) -> None:
        self.pick(data, self.world.workers).unregister(function)

    @precondition(lambda self: any(worker.stream for worker in self.world.workers))
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        self.pick(data, [worker for worker in self.world.workers if worker.stream]).stop()

    @precondition(lambda self: any(worker.stream is None for worker in self.world.workers))
    @rule(data=st.data())
    def work_again(self, data: st.DataObject) -> None:
        self.pick(data, [worker for worker in self.world.workers if not worker.stream]).work()

    @precondition(lambda self: not self.calm and self.world.workers)
    @rule(data=st.data(), size=SIZES)
    def kill_a_worker(self, data: st.DataObject, size: int) -> None:
        worker = self.pick(data, self.world.workers)
        for wire in self.wires(lambda wire: wire.host is worker):
            del wire.up[size:]
        self.world.kill(worker)

    @precondition(lambda self: not self.calm and self.working())
    @rule(data=st.data(), how=st.sampled_from(["dies", "sees it", "does not see it"]))
    def lose_a_worker_at_work(self, data: st.DataObject, how: str) -> None:
        worker = self.pick(data, self.working())
        for wire in self.wires(lambda wire: wire.host is worker and wire.is_open):
            self.world.break_(wire, 0, 0)
            if how == "sees it" and wire.peer_may_see_its_end:
                self.world.end(wire, at_server=False)
            if wire.server_may_see_its_end:
                self.world.end(wire, at_server=True)
        if how == "dies":
            self.world.kill(worker)

    @precondition(lambda self: len(self.world.workers) < 3)
    @rule(functions=WORKED, max_jobs=st.integers(1, 2))
    def a_new_worker(self, functions: set[bytes], max_jobs: int) -> None:
        self.world.worker(*sorted(functions), max_jobs=max_jobs, look_again=self.look_again)

    # Wires.

    @precondition(lambda self: self.wires(lambda wire: wire.connecting))
    @rule(data=st.data(), refuse=st.booleans())
    def connect(self, data: st.DataObject, refuse: bool) -> None:
        wire = self.pick(data, self.wires(lambda wire: wire.connecting))
        if refuse and not self.calm:
            self.world.refuse(wire)
        else:
            self.world.open(wire)

    @precondition(lambda self: self.wires(lambda wire: wire.up or wire.down))
    @rule(data=st.data(), up=st.booleans(), size=SIZES)
    def move(self, data: st.DataObject, up: bool, size: int) -> None:
        wire = self.pick(data, self.wires(lambda wire: wire.up or wire.down))
        self.world.move(wire, size, up=up)

    @rule()
    def get_on(self) -> None:
        self.world.settle()

    @rule(kinds=st.lists(KINDS, min_size=1, max_size=4))
    def work(self, kinds: list[str]) -> None:
        """Let all processes make progress without failures."""
        self.world.settle()
        for worker in self.world.workers:
            while worker.take():
                pass
            for run in list(worker.runs):
                for kind in kinds:
                    if not run.job.ended:
                        worker.say(run, kind)
                if run.job.ended:
                    worker.done(run)

    @rule(size=SIZES, times=st.integers(1, 4))
    def pump(self, size: int, times: int) -> None:
        for _ in range(times):
            self.world.pump(size)

    @precondition(lambda self: not self.calm and self.wires(lambda w: w.is_open and not w.broken))
    @rule(data=st.data(), up=SIZES, down=SIZES)
    def break_a_wire(self, data: st.DataObject, up: int, down: int) -> None:
        wire = self.pick(data, self.wires(lambda wire: wire.is_open and not wire.broken))
        self.world.break_(wire, up, down)

    @precondition(
        lambda self: self.wires(lambda w: w.peer_may_see_its_end or w.server_may_see_its_end)
    )
    @rule(data=st.data(), error=st.sampled_from([None, OSError("reset")]))
    def see_an_end(self, data: st.DataObject, error: Exception | None) -> None:
        ends = [(wire, False) for wire in self.wires(lambda wire: wire.peer_may_see_its_end)]
        ends += [(wire, True) for wire in self.wires(lambda wire: wire.server_may_see_its_end)]
        wire, at_server = self.pick(data, ends)
        if error is None and not wire.broken:
            # An EOF follows all sent data.
            self.world.move(wire, ALL, up=at_server)
        if wire.server_may_see_its_end if at_server else wire.peer_may_see_its_end:
            self.world.end(wire, at_server=at_server, error=error)

    @rule(seconds=st.sampled_from([0.01, 0.01, 0.5, 2.0, 40.0]))
    def sleep(self, seconds: float) -> None:
        self.world.sleep(seconds)

    # Hypothesis picks rules with equal probability, but a job needs several of these steps.
    pump_more = pump
    take_more = take
    do_more = do
    work_more = work
    get_on_more = get_on
    get_on_even_more = get_on
    lose_more = lose_a_worker_at_work
    move_more = move

    # Invariants. (The World checks the others after each call.)

    @invariant()
    def workers_are_told_of_no_error(self) -> None:
        for worker in self.world.workers:
            for notice in worker.engine.notices:
                assert "did not take" not in notice or self.world.ledger.repeated

    def teardown(self) -> None:
        # A second failure would hide the first one.
        if hasattr(self, "world") and sys.exc_info()[0] is None:
            self.world.finish()


Machine.TestCase.settings = examples(
    3, stateful_step_count=60, suppress_health_check=list(HealthCheck)
)
TestMachine = Machine.TestCase
