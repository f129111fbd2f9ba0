"""Property tests of the job server's engine, with random peers, links, and clocks.

The World checks the engine's invariants after each call. The peer's Connection checks that
responses have the order of the requests. The tests also check that a peer receives packets only
about jobs that it waits for, and exactly one end for each foreground submit.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gearman_proto.wire.packets import (
    CanDo,
    CanDoTimeout,
    CantDo,
    EchoReq,
    Error,
    Event,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    OptionReq,
    PacketEvent,
    PreSleep,
    ResetAbilities,
    SetClientId,
    SubmitJob,
    SubmitJobBg,
    SubmitJobEpoch,
    SubmitJobHigh,
    SubmitJobHighBg,
    SubmitJobLow,
    SubmitJobLowBg,
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
from tests.profiles import examples

from .harness import EPOCH, Bell
from .server_harness import Peer, World, raw

if TYPE_CHECKING:
    from collections.abc import Callable

FOREGROUND = (SubmitJob, SubmitJobHigh, SubmitJobLow, SubmitReduceJob)
TERMINAL = (WorkComplete, WorkFail, WorkException)
ABOUT_JOBS = (WorkData, WorkWarning, WorkStatus, *TERMINAL)
ASSIGNED = (JobAssign, JobAssignUniq, JobAssignAll)
#: All servers of a World give out the same handles.
HANDLES = list(itertools.islice(World().engine.queue._handles, 12))

functions = st.sampled_from([b"f", b"g", b""])
uniques = st.sampled_from([b"", b"", b"u", b"v", b"-"])
payloads = st.sampled_from([b"", b"x", b"y" * 300])
handles = st.sampled_from(HANDLES)
milliseconds = st.sampled_from([b"0", b"500", b"1000", b"30000"])


def any_of(classes: list[Any], *fields: st.SearchStrategy[bytes]) -> st.SearchStrategy[Any]:
    """Return a strategy for events of `classes` with these `fields`."""
    return st.builds(
        lambda event_class, *args: event_class(*args), st.sampled_from(classes), *fields
    )


submits = st.one_of(
    any_of(
        [SubmitJob, SubmitJobHigh, SubmitJobLow, SubmitJobBg, SubmitJobHighBg, SubmitJobLowBg],
        functions,
        uniques,
        payloads,
    ),
    any_of([SubmitJob], functions, uniques, payloads),
    any_of(
        [SubmitReduceJob, SubmitReduceJobBackground],
        functions,
        uniques,
        st.sampled_from([b"", b"reducer"]),
        st.just(b""),
        payloads,
    ),
    any_of(
        [SubmitJobEpoch],
        functions,
        uniques,
        st.integers(-5, 100).map(lambda seconds: b"%d" % (EPOCH + seconds)),
        payloads,
    ),
)
grabs = st.sampled_from([GrabJob(), GrabJobUniq(), GrabJobAll()])
works = st.one_of(
    any_of([WorkData, WorkWarning, WorkComplete, WorkException], handles, payloads),
    any_of([WorkStatus], handles, st.sampled_from([b"1", b"-1", b""]), st.sampled_from([b"2"])),
    any_of([WorkFail], handles),
)
abilities = st.one_of(
    any_of([CanDo, CanDo, CantDo], functions),
    any_of([CanDoTimeout], functions, milliseconds),
    st.sampled_from([ResetAbilities(), PreSleep(), PreSleep()]),
)
queries = st.one_of(
    any_of([GetStatus], handles),
    any_of([GetStatusUnique], uniques),
    any_of([EchoReq, OptionReq, SetClientId], st.sampled_from([b"exceptions", b"x", b""])),
)
lines = st.one_of(
    st.sampled_from([b"status", b"workers", b"prioritystatus", b"show jobs", b"show unique jobs"]),
    st.builds(
        lambda command, function: command % function,
        st.sampled_from(
            [b"create function %b", b"drop function %b", b"maxqueue %b 2", b"maxqueue %b 0 1"]
        ),
        functions,
    ),
    handles.map(lambda handle: b"cancel job " + handle),
).map(TextLine)
requests: st.SearchStrategy[Event] = st.one_of(
    submits, grabs, works, works, abilities, queries, lines
)


def leave_in_the_middle_of_a_packet(peer: Peer) -> None:
    peer.send_raw(raw(SubmitJobBg(b"f", b"", b"x" * 100))[:-1])
    if not peer.closed:
        peer.close()


DEEDS: dict[str, Callable[[Peer], object]] = {
    "close": Peer.close,
    "leave": leave_in_the_middle_of_a_packet,
    "stop reading": Peer.stop_reading,
    "read on": Peer.read_on,
    "garbage": lambda peer: peer.send_raw(b"\0XXX"),
    "six words": lambda peer: peer.send_raw(b"1 2 3 4 5 6\n"),
}


class ServerMachine(RuleBasedStateMachine):
    @initialize(
        chunk=st.sampled_from([0, 0, 1, 50]),
        turn=st.sampled_from([250, 250, 1, 3]),
        job_retries=st.sampled_from([None, 0, 1, 10]),
        max_memory=st.sampled_from([2**30, 40_000]),
        max_unread=st.sampled_from([2**30, 500]),
        max_queue_size=st.sampled_from([0, 0, 3]),
        exceptions=st.booleans(),
    )
    def start(self, **options: Any) -> None:
        self.world = World(**options)
        self.wait = self.world.engine.serve(0.0, Bell())
        #: Number of unfinished foreground submits of each peer, by handle.
        self.waits_for: dict[Peer, Counter[bytes]] = {}
        for _ in range(2):
            self.connect()

    def living(self) -> list[Peer]:
        return [peer for peer in self.world.peers if not peer.closed]

    def pick(self, number: int) -> Peer:
        living = self.living()
        return living[number % len(living)]

    def hear(self) -> None:
        """Process the received events of all peers."""
        for peer in self.living():
            if peer.reads:
                for event in peer.take():
                    self.heard(peer, event)

    def heard(self, peer: Peer, event: Event) -> None:
        waits_for = self.waits_for[peer]
        if isinstance(event, JobCreated):
            if isinstance(event.answers, FOREGROUND):
                waits_for[event.handle] += 1
        elif isinstance(event, ABOUT_JOBS):
            assert waits_for[event.handle]
            if isinstance(event, TERMINAL):
                waits_for[event.handle] -= 1
        elif isinstance(event, Error):
            assert event.code in {b"JOB_NOT_FOUND", b"QUEUE_ERROR", b"UNKNOWN_OPTION"}

    # The rules.

    @precondition(lambda self: len(self.living()) < 6)
    @rule()
    def connect(self) -> None:
        self.waits_for[self.world.connect()] = Counter()

    @precondition(lambda self: self.living())
    @rule(number=st.integers(0, 5), events=st.lists(requests, min_size=1, max_size=5))
    def send(self, number: int, events: list[Event]) -> None:
        self.pick(number).send(*events)
        self.hear()

    @precondition(lambda self: self.living())
    @rule(number=st.integers(0, 5), grab=grabs, end=st.sampled_from([*TERMINAL, None]))
    def work(self, number: int, grab: PacketEvent, end: Callable[..., PacketEvent] | None) -> None:
        """Act as a correct worker."""
        peer = self.pick(number)
        if not peer.reads:
            return
        peer.send(CanDo(b"f"), CanDo(b"g"), grab)
        for event in peer.take() if not peer.closed else []:
            self.heard(peer, event)
            if isinstance(event, ASSIGNED) and end is not None:
                peer.send(end(event.handle) if end is WorkFail else end(event.handle, b"result"))
        self.hear()

    @precondition(lambda self: self.living())
    @rule(number=st.integers(0, 5), deed=st.sampled_from(list(DEEDS)))
    def misbehave(self, number: int, deed: str) -> None:
        DEEDS[deed](self.pick(number))
        self.hear()

    @rule(seconds=st.sampled_from([0.0, 0.25, 1.0, 20.0]), late=st.booleans())
    def let_time_pass(self, seconds: float, late: bool) -> None:
        if late:
            self.world.sleep(seconds)
        else:
            self.world.wait(seconds)
        self.hear()

    @rule(seconds=st.sampled_from([-100.0, -1.0, 1.0, 100.0]))
    def set_the_wall_clock(self, seconds: float) -> None:
        self.world.ahead += seconds

    def teardown(self) -> None:
        """Check that a correct worker can finish all jobs, and that the server then shuts down."""
        if not hasattr(self, "world"):
            return
        world = self.world
        for peer in self.living():
            peer.read_on()
        self.hear()
        world.ahead += 1000
        world.wait(60)
        for peer in self.living():
            peer.send(*[WorkComplete(handle, b"") for handle in list(peer.link.jobs)])
        self.hear()
        worker = world.worker(b"f", b"g", b"")
        self.waits_for[worker] = Counter()
        while not isinstance(assign := worker.grab(), NoJob):
            assert isinstance(assign, JobAssign)
            worker.send(WorkComplete(assign.handle, b""))
        self.hear()
        assert not world.engine.queue.jobs
        assert worker in self.living()
        for peer in self.living():
            assert not self.waits_for[peer].total()
        world.shut_down()
        assert world.engine.closed
        assert self.wait.done
        assert not self.living()


ServerMachine.TestCase.settings = examples(
    3, stateful_step_count=50, suppress_health_check=list(HealthCheck)
)
TestServerMachine = ServerMachine.TestCase


# Random bytes.

pieces = st.one_of(
    st.binary(max_size=30),
    st.builds(raw, st.one_of(submits, grabs, works, abilities, queries)),
    lines.map(lambda line: line.line + b"\n"),
    st.builds(
        lambda number, size, body: b"\0REQ" + bytes([0, 0, 0, number, 0, 0, 0, size]) + body,
        st.integers(0, 45),
        st.integers(0, 40),
        st.binary(max_size=40),
    ),
)


@examples(5)
@given(st.lists(st.tuples(st.integers(0, 2), pieces), max_size=30), st.sampled_from([0, 1, 3, 17]))
def test_random_bytes_do_not_affect_other_peers(parts: list[tuple[int, bytes]], chunk: int) -> None:
    world = World(chunk=chunk, max_packet_size=1000)
    peers = [world.connect() for _ in range(3)]
    for number, data in parts:
        peers[number].send_raw(data)
        world.sleep(0.5)
    # The bytes have not affected other peers.
    witness = world.worker(b"witness")
    handle = witness.submit(SubmitJob(b"witness", b"", b""))
    assert witness.grab() == JobAssign(handle, b"witness", b"")
    witness.send(WorkComplete(handle, b"out"))
    assert witness.take() == [WorkComplete(handle, b"out")]
    for peer in peers:
        if not peer.closed:
            peer.close()
    assert list(world.engine.links) == [witness.link]
