"""Property tests of the client's engine, with random callers, servers and links.

A model of up to three servers runs beside the engine. The servers sometimes lose jobs silently.
A server identifies only the first request of a submit, by its data, so the model finds the other
requests of each JOB_CREATED itself. All bytes travel in chunks of random size, in both directions.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.engines.client.link import requests_of
from gearman_proto.engines.servers import LONGEST_COOL_DOWN
from gearman_proto.engines.waits import Stream
from gearman_proto.errors import ExceededConnectionAttempts, ServerUnavailable
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import next_update
from gearman_proto.jobs.submitting import prepare
from gearman_proto.jobs.updates import JobData, JobProgress, JobWarning
from gearman_proto.testing import check_chunking
from gearman_proto.testing.strategies import chunked
from gearman_proto.wire.connection import NEED_DATA
from gearman_proto.wire.packets import (
    EchoReq,
    EchoRes,
    Error,
    Event,
    GetStatus,
    GetStatusUnique,
    JobCreated,
    OptionReq,
    OptionRes,
    PacketEvent,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.profiles import examples

from .harness import Peer, World, raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.engines.waits import Wait
    from gearman_proto.jobs.request import GearmanJobRequest

TERMINAL = {JOB_FAILED, JOB_COMPLETE}


class Request:
    """A request and its expected state."""

    def __init__(self, number: int, request: GearmanJobRequest, unique: str | None) -> None:
        self.number = number
        self.request = request
        self.unique = unique
        #: The link of the last submit.
        self.link: Any = None
        self.state = JOB_UNKNOWN
        self.handle: str | None = None
        self.result: bytes | None = None
        self.exception: bytes | None = None
        self.updates: list[Any] = []
        self.read: list[Any] = []
        #: The server that acknowledged the request.
        self.server: ScriptedServer | None = None

    def submitted(self) -> None:
        self.state = JOB_PENDING
        self.handle = self.result = self.exception = self.server = None
        self.updates = []
        self.read = []


class Job:
    """A job at a server."""

    def __init__(self, handle: bytes, key: bytes) -> None:
        self.handle = handle
        self.key = key
        #: Number of foreground submits.
        self.attached = 0


class ScriptedServer:
    """The server's end of one link, with the jobs of that link only."""

    def __init__(self, machine: ClientMachine, peer: Peer) -> None:
        self.machine = machine
        self.peer = peer
        self.questions: deque[Event] = deque()
        self.jobs: dict[bytes, Job] = {}
        self.ended: list[bytes] = []
        #: Jobs in progress that the engine knows: handles by unique.
        self.known: dict[str, str] = {}
        #: Bytes in flight to the server, and to the engine.
        self.incoming = b""
        self.outgoing = b""
        # Numbers of written and delivered bytes, and the effects at each position.
        self.written = 0
        self.delivered = 0
        self.effects: deque[tuple[int, Callable[[], None]]] = deque()

    def receive(self, size: int) -> None:
        connection = self.peer.connection
        connection.receive_data(self.incoming[:size])
        self.incoming = self.incoming[size:]
        while (event := connection.next_event()) is not NEED_DATA:
            assert isinstance(event, Event)
            self.questions.append(event)

    def write(self, data: bytes, effect: Callable[[], None] | None = None) -> None:
        self.outgoing += data
        self.written += len(data)
        if effect is not None:
            self.effects.append((self.written, effect))

    def deliver(self, size: int) -> None:
        data, self.outgoing = self.outgoing[:size], self.outgoing[size:]
        self.delivered += len(data)
        self.peer.send_raw(data)
        while self.effects and self.effects[0][0] <= self.delivered:
            self.effects.popleft()[1]()

    def answer(self, *, refuse: bool) -> None:
        """Answer the oldest question."""
        question = self.questions.popleft()
        send = self.peer.connection.send
        if isinstance(question, OptionReq):
            self.write(send(OptionRes(question.option)))
        elif isinstance(question, GetStatus):
            handle, is_known = question.handle, question.handle in self.jobs
            self.write(
                send(StatusRes(handle, b"%d" % is_known, b"0", b"", b"")),
                None if is_known else lambda: self._ends(handle, JOB_UNKNOWN),
            )
        elif isinstance(question, EchoReq):
            self.write(send(EchoRes(question.data)))
        elif isinstance(question, GetStatusUnique):
            known = b"%d" % any(job.key == question.unique for job in self.jobs.values())
            self.write(send(StatusResUnique(question.unique, known, b"0", b"0", b"0", b"0")))
        else:
            assert isinstance(question, (SubmitJob, SubmitJobBg))
            model = self.machine.models[int(question.data)]
            assert (type(question) is SubmitJobBg) == model.request.background
            if refuse:
                self.write(
                    send(Error(b"QUEUE_ERROR", b"full")), lambda: self._each(model, self._refused)
                )
                return
            job = next((job for job in self.jobs.values() if job.key == question.unique), None)
            if job is None:
                self.machine.handles += 1
                job = Job(b"H:%d" % self.machine.handles, question.unique)
                self.jobs[job.handle] = job
            attached = job
            if not model.request.background:
                # With a second submit, gearmand would send each update twice, unlike other servers.
                assert not job.attached
                job.attached += 1
            self.write(
                send(JobCreated(job.handle)),
                lambda: self._each(model, lambda each: self.created(each, attached.handle)),
            )

    def _each(self, model: Request, call: Callable[[Request], None]) -> None:
        """Call `call` for `model` and for all requests that joined its submit."""
        for other in self.machine.models.values():
            joined = (
                other.state == JOB_PENDING
                and other.link is self.peer.link
                and other.unique is not None
                and other.unique == model.unique
                and not (other.request.background or model.request.background)
            )
            if other is model or joined:
                call(other)

    def created(self, model: Request, handle: bytes) -> None:
        assert model.state == JOB_PENDING
        model.state = JOB_CREATED
        model.handle = handle.decode()
        model.server = self
        if model.unique is not None and not model.request.background:
            self.known[model.unique] = model.handle

    @staticmethod
    def _refused(model: Request) -> None:
        assert model.state == JOB_PENDING
        model.state = JOB_FAILED

    def work(self, handle: bytes, kind: str, value: bytes) -> None:
        """Send a packet from the job's worker."""
        event: PacketEvent
        effect: Callable[[Request], None]
        is_end = kind not in ("data", "warning", "status")
        if kind == "data":
            event, effect = WorkData(handle, value), lambda m: m.updates.append(JobData(value))
        elif kind == "warning":
            event = WorkWarning(handle, value)
            effect = lambda m: m.updates.append(JobWarning(value))  # noqa: E731
        elif kind == "status":
            event = WorkStatus(handle, b"1", b"%d" % sum(value))
            effect = lambda m: m.updates.append(JobProgress(1, sum(value)))  # noqa: E731
        else:
            if kind == "complete":
                event = WorkComplete(handle, value)
            elif kind == "exception":
                event = WorkException(handle, value)
            else:
                event = WorkFail(handle, b"" if value == b"x" else None)

            def effect(model: Request) -> None:
                model.result = value if kind == "complete" else None
                model.exception = value if kind == "exception" else None

        def happens() -> None:
            for model in self._waiting_for(handle):
                effect(model)
            if is_end:
                self._ends(handle, JOB_COMPLETE if kind == "complete" else JOB_FAILED)

        if self.jobs[handle].attached:
            self.write(raw(event), happens)
        if is_end:
            del self.jobs[handle]
            self.ended.append(handle)

    def _waiting_for(self, handle: bytes) -> list[Request]:
        return [
            model
            for model in self.machine.models.values()
            if model.server is self
            and model.handle == handle.decode()
            and model.state == JOB_CREATED
            and not model.request.background
        ]

    def _ends(self, handle: bytes, state: str) -> None:
        """Record that the engine knows of the job's end or loss."""
        for model in self._waiting_for(handle):
            model.state = state
        for unique, known in list(self.known.items()):
            if known == handle.decode():
                del self.known[unique]

    def lost(self) -> None:
        """Record the end of the link and the loss of all data in flight."""
        for model in self.machine.models.values():
            if model.server is self and model.state == JOB_CREATED and not model.request.background:
                model.state = JOB_UNKNOWN


KINDS = st.sampled_from(["data", "data", "warning", "status", "complete", "fail", "exception"])
SIZES = st.sampled_from([10**6, 10**6, 10**6, 100, 33, 7])
TIMEOUTS = st.sampled_from([None, None, 0.0, 0.5, 5.0])


class ClientMachine(RuleBasedStateMachine):
    @initialize(
        servers=st.integers(1, 3),
        routing=st.sampled_from(["random", "unique"]),
        seed=st.integers(0, 3),
        calm=st.booleans(),
        heartbeat=st.sampled_from([None, 4.0, 30.0]),
    )
    def start(
        self, servers: int, routing: str, seed: int, calm: bool, heartbeat: float | None
    ) -> None:
        self.world = World(
            servers, seed=seed, routing=routing, connect_timeout=3.0, heartbeat=heartbeat
        )
        #: True if no link breaks, so that jobs make progress.
        self.calm = calm
        self.models: dict[int, Request] = {}
        self.servers: list[ScriptedServer] = []
        self.handles = 0
        self.values = 0

    # Helpers.

    def pick(self, data: st.DataObject, items: list[Any]) -> Any:
        return items[data.draw(st.integers(0, len(items) - 1))]

    def links(self, *, up: bool) -> list[ScriptedServer]:
        known = {id(server.peer) for server in self.servers}
        for peer in self.world.peers:
            if id(peer) not in known:
                peer.grants_options = False
                self.servers.append(ScriptedServer(self, peer))
        return [s for s in self.servers if s.peer.link.alive and s.peer.link.is_up is up]

    def settle(self) -> None:
        """Record the links that have ended."""
        for server in self.servers:
            if not server.peer.link.alive:
                server.lost()
        self.servers = [server for server in self.servers if server.peer.link.alive]
        self.world.peers = [peer for peer in self.world.peers if peer.link.alive]

    # The caller.

    @rule(
        data=st.data(),
        jobs=st.lists(
            st.tuples(st.booleans(), st.integers(0, 2), st.sampled_from([None, "a", "b"])),
            min_size=1,
            max_size=4,
        ),
        again=st.booleans(),
        accepted_only=st.booleans(),
        timeout=TIMEOUTS,
    )
    def submit(
        self,
        data: st.DataObject,
        jobs: list[tuple[bool, int, str | None]],
        again: bool,
        accepted_only: bool,
        timeout: float | None,
    ) -> None:
        chosen = []
        for background, retries, unique in jobs:
            number = len(self.models)
            request = self.world.request(
                data=b"%d" % number, background=background, retries=retries, unique=unique
            )
            self.models[number] = Request(number, request, unique)
            chosen.append(self.models[number])
        if again and self.models:
            chosen += [self.pick(data, list(self.models.values())) for _ in range(2)]
        requests = [model.request for model in chosen]
        prepare(requests, NoopEncoder)
        self.world.submit(*requests, accepted_only=accepted_only, timeout=timeout)
        for model in chosen:
            if model.state == JOB_UNKNOWN:
                model.submitted()

    @precondition(lambda self: self.models)
    @rule(data=st.data(), stream=st.booleans(), timeout=TIMEOUTS)
    def wait(self, data: st.DataObject, stream: bool, timeout: float | None) -> None:
        chosen = [self.pick(data, list(self.models.values())).request for _ in range(3)]
        call = self.world.as_completed if stream else self.world.wait_completed
        call(*chosen, timeout=timeout)

    @precondition(lambda self: any(m.state != JOB_UNKNOWN for m in self.models.values()))
    @rule(data=st.data(), by_unique=st.booleans(), timeout=TIMEOUTS)
    def ask(self, data: st.DataObject, by_unique: bool, timeout: float | None) -> None:
        models = [model for model in self.models.values() if model.state != JOB_UNKNOWN]
        request = self.pick(data, models).request
        self.world.statuses(request, by_unique=by_unique, timeout=timeout)

    @precondition(lambda self: self.world.waits)
    @rule(data=st.data())
    def return_from_or_abandon_a_wait(self, data: st.DataObject) -> None:
        wait: Wait = self.pick(data, self.world.waits)
        if isinstance(wait, Stream):
            ended = list(wait.finished)
            wait.news = False
            assert not wait.done or wait.timed_out or len(ended) == len(set(wait.requests))
        self.world.release(wait)
        for request in getattr(wait, "requests", ()):
            assert wait not in request._gm_waits

    # The links.

    @precondition(lambda self: not self.calm and (self.links(up=False) or self.links(up=True)))
    @rule(
        data=st.data(),
        how=st.sampled_from(["refuse", "lose", "reset", "garbage"]),
        garbage=st.sampled_from([b"HTTP/1.1", b"\0RES\0\0\0\x06\0\0\0\0", b"\0\0\0\0"]),
    )
    def break_a_link(self, data: st.DataObject, how: str, garbage: bytes) -> None:
        server = self.pick(data, self.links(up=False) + self.links(up=True))
        peer = server.peer
        if not peer.link.is_up:
            peer.refuse()
        elif how == "garbage":
            server.deliver(len(server.outgoing))
            peer.send_raw(garbage)
            assert peer.closed
        else:
            peer.lose(OSError("reset") if how == "reset" else None)
        self.settle()
        # Later calls of a slow driver have no effect on the dead link.
        peer.lose()
        peer.up()
        peer.send_raw(raw(JobCreated(b"H:0")))
        assert peer.pull() == b""

    @precondition(lambda self: self.world.engine.next_deadline() is not None)
    @rule(seconds=st.sampled_from([0.1, 0.5, 5.0]))
    def sleep(self, seconds: float) -> None:
        self.links(up=False)
        self.world.sleep(seconds)
        self.settle()
        deadline = self.world.engine.next_deadline()
        assert deadline is None or deadline > self.world.now

    # The servers.

    @precondition(lambda self: self.links(up=False))
    @rule(data=st.data())
    def connect(self, data: st.DataObject) -> None:
        self.pick(data, self.links(up=False)).peer.up()

    @precondition(lambda self: self.links(up=False) or self.links(up=True))
    @rule(sizes=st.tuples(SIZES, SIZES), count=st.integers(0, 6), refuse=st.integers(0, 9))
    def answer(self, sizes: tuple[int, int], count: int, refuse: int) -> None:
        """Let all servers receive submits, answer some of them, and deliver some of the bytes."""
        for server in self.links(up=False)[:1]:
            server.peer.up()
        for server in self.links(up=True):
            server.incoming += server.peer.pull()
            server.receive(sizes[0])
            for number in range(min(count, len(server.questions))):
                server.answer(refuse=refuse == number)
            server.deliver(sizes[1])

    @precondition(lambda self: any(server.jobs for server in self.links(up=True)))
    @rule(
        data=st.data(),
        kinds=st.lists(KINDS, min_size=1, max_size=4),
        same=st.booleans(),
        size=SIZES,
    )
    def work(self, data: st.DataObject, kinds: list[str], same: bool, size: int) -> None:
        server = self.pick(data, [server for server in self.links(up=True) if server.jobs])
        for kind in kinds:
            if server.jobs:
                self.values += 1
                handle = self.pick(data, list(server.jobs))
                server.work(handle, kind, b"x" if same else b"%d" % self.values)
        server.deliver(size)

    # Hypothesis picks rules with equal probability, but a job needs several of these steps.
    answer_more = answer
    work_more = work

    @precondition(lambda self: any(server.jobs for server in self.links(up=True)))
    @rule(data=st.data())
    def lose_a_job(self, data: st.DataObject) -> None:
        """Let a server lose a job silently."""
        server = self.pick(data, [server for server in self.links(up=True) if server.jobs])
        handle = self.pick(data, list(server.jobs))
        del server.jobs[handle]

    @precondition(lambda self: self.links(up=True))
    @rule(data=st.data(), kind=st.sampled_from([WorkFail, WorkComplete, WorkData]))
    def say_something_about_no_job(self, data: st.DataObject, kind: Any) -> None:
        server = self.pick(data, self.links(up=True))
        handle = self.pick(data, [b"H:0", *server.ended])
        server.write(raw(kind(handle, b"stray")))

    # Invariants. (The World checks its own after each call.)

    @invariant()
    def the_model_agrees(self) -> None:
        for model in self.models.values():
            request = model.request
            if request._gm_link is not None:
                model.link = request._gm_link
            if model.state == JOB_PENDING and request.state == JOB_CREATED:
                # The request has joined an existing job without a submit.
                (server,) = (s for s in self.links(up=True) if s.peer.link is request._gm_link)
                assert model.unique is not None
                handle = server.known[model.unique]
                server.created(model, handle.encode())
            if model.state == JOB_PENDING and request.state == JOB_UNKNOWN:
                if request.handle is None:
                    assert isinstance(
                        request.error, (ServerUnavailable, ExceededConnectionAttempts)
                    )
                else:  # The request had joined a job that was lost later.
                    model.handle = request.handle
                    assert isinstance(request.error, ConnectionError)
                if isinstance(request.error, ExceededConnectionAttempts):
                    assert request.connection_attempts == request.max_connection_attempts
                model.state = JOB_UNKNOWN
            assert request.state == model.state, (request, model.state, model.handle, request.error)
            assert request.connection_attempts <= request.max_connection_attempts
            under_way = request.state == JOB_PENDING or (
                request.state == JOB_CREATED and not request.background
            )
            assert (request._gm_link is not None) == under_way
            if not under_way:
                assert request._gm_waits == ()
            if model.handle is not None:
                assert request.job.handle == model.handle
            assert (request.result, request.exception) == (model.result, model.exception)
            while (update := next_update(request)) is not None:
                model.read.append(update)
            assert model.read == model.updates

    @invariant()
    def each_request_is_where_its_link_says(self) -> None:
        places: list[object] = []
        for link in self.world.engine.pool.links():
            for item in link.items():
                places += requests_of(item)
            for job in link.jobs.values():
                places += job.live()
        numbers = [id(place) for place in places]
        for model in self.models.values():
            here = model.request._gm_link is not None
            assert numbers.count(id(model.request)) == here

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for turn in range(100):
            if not self.world.engine.pool.links():
                break
            links = self.links(up=False) + self.links(up=True)
            if not links:
                self.world.sleep(LONGEST_COOL_DOWN)  # Let the server cool down before the retry.
            for server in links:
                if server.peer.link.alive and not server.peer.link.is_up and turn % 2:
                    server.peer.refuse()
                elif server.peer.link.alive:
                    server.peer.up()
                    server.peer.pull()
                    server.peer.lose()
            self.settle()
        self.the_model_agrees()
        assert not self.world.engine.pool.links()
        for wait in self.world.waits:
            assert wait.done
        for model in self.models.values():
            assert model.request.complete or model.state == JOB_UNKNOWN


ClientMachine.TestCase.settings = examples(
    3, stateful_step_count=60, suppress_health_check=list(HealthCheck)
)
TestClientMachine = ClientMachine.TestCase


# Chunking.

EVENTS = st.one_of(
    st.builds(
        lambda kind, n, data: kind(b"H:%d" % n, data),
        st.sampled_from([WorkData, WorkWarning, WorkComplete, WorkException]),
        st.integers(1, 5),
        st.binary(max_size=20),
    ),
    st.builds(lambda n: WorkFail(b"H:%d" % n), st.integers(1, 5)),
    st.builds(
        lambda n, m: WorkStatus(b"H:%d" % n, b"%d" % m, b"9"), st.integers(1, 5), st.integers(0, 9)
    ),
    st.just(Error(b"QUEUE_ERROR", b"")),
    st.builds(lambda n: JobCreated(b"H:%d" % n), st.integers(1, 4)),
)


class Talk:
    """A parser of one server's bytes for four requests, which returns their states at the end."""

    def __init__(self) -> None:
        world = World(exceptions=False)
        self._requests = [world.request(unique=unique) for unique in ("a", "a", "b", "c")]
        self._wait = world.submit(*self._requests)
        self._server = world.serve()
        self._server.take()

    def receive(self, data: bytes) -> list[Any]:
        if data:
            self._server.send_raw(data)
            return []
        return [
            self._wait.done,
            self._server.closed,
            *(
                (r.state, r.job.handle, r.result, r.exception, type(r.error), all_updates(r))
                for r in self._requests
            ),
        ]


def all_updates(request: GearmanJobRequest) -> list[Any]:
    updates = []
    while (update := next_update(request)) is not None:
        updates.append(update)
    return updates


@examples(2)
@given(
    st.lists(EVENTS, max_size=12),
    st.sampled_from([b"", b"\0RES", b"GARBAGE"]),
    st.data(),
)
def test_chunks_make_no_difference(
    answers: list[PacketEvent], end: bytes, draw: st.DataObject
) -> None:
    data = raw(JobCreated(b"H:1"), JobCreated(b"H:1"), *answers) + end
    check_chunking(Talk, data, draw.draw(chunked(data)))
    check_chunking(Talk, data, [data[at : at + 1] for at in range(len(data))])
