"""Random conversations of a worker's engine with correct servers, over links that break."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gearman_proto.engines.worker.engine import _OUTAGE
from gearman_proto.engines.worker.phases import WorkerLife
from gearman_proto.errors import ConnectionError, InvalidWorkerState, ServerUnavailable
from gearman_proto.wire.packets import (
    EchoReq,
    EchoRes,
    Error,
    GrabJob,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    NoJob,
    Noop,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
)
from tests.profiles import examples

from .harness import raw
from .worker_harness import Peer, World

if TYPE_CHECKING:
    from gearman_proto.jobs.job import WorkerJob
    from gearman_proto.wire.packets import PacketEvent

SIZES = st.sampled_from([10**6, 10**6, 10**6, 100, 13, 1])
FUNCTIONS = st.sampled_from([b"f", b"g"])
LIMITS = st.sampled_from([None, None, 1.5])


class WorkerMachine(RuleBasedStateMachine):
    """Correct servers, links that break and a caller with arbitrary calls.

    The World and its Peers check every step. At the end no link breaks, and the worker must
    make progress: it grabs jobs from each server, runs them, and stops on request.
    """

    @initialize(
        servers=st.integers(1, 3),
        max_jobs=st.integers(1, 3),
        seed=st.integers(0, 3),
        calm=st.booleans(),
        timeout=st.sampled_from([None, 0.7]),
    )
    def start(
        self, servers: int, max_jobs: int, seed: int, calm: bool, timeout: float | None
    ) -> None:
        self.world = World(servers, seed=seed, max_jobs=max_jobs, connect_timeout=3.0)
        #: True if no link breaks, so that jobs make progress.
        self.calm = calm
        self.timeout = timeout
        #: Jobs handed to the caller and not yet done.
        self.jobs: list[WorkerJob] = []
        self.handles = 0
        self.stream: Any = None
        self.begin()

    # Helpers.

    def pick(self, data: st.DataObject, items: list[Any]) -> Any:
        return data.draw(st.sampled_from(items))

    def links(self, *, up: bool) -> list[Peer]:
        self.world.peers = self.world.alive()
        return [peer for peer in self.world.peers if peer.link.is_up is up]

    def asked(self) -> list[Peer]:
        return [peer for peer in self.links(up=True) if peer.questions]

    def answer(self, peer: Peer, how: str, function: bytes) -> None:
        question = peer.questions[0]
        if isinstance(question, EchoReq):
            peer.write(EchoRes(b""))
        elif how == "refuse":
            peer.write(Error(b"server_error", b""))
        elif how == "job" and peer.functions:
            self.handles += 1
            if function not in peer.functions:
                (function,) = peer.functions
            handle = b"H:%d" % self.handles
            if isinstance(question, GrabJob):
                peer.write(JobAssign(handle, function, b"in"))
            else:
                peer.write(JobAssignUniq(handle, function, b"", b"in"))
        else:
            peer.write(NoJob())

    # The caller.

    @precondition(lambda self: self.stream is None)
    @rule()
    def begin(self) -> None:
        self.stream = self.world.work(timeout=self.timeout)

    def return_from_work(self) -> None:
        self.world.end_work()
        self.stream = None

    @precondition(lambda self: self.stream is not None)
    @rule(chance=st.integers(0, 9))
    def leave_work(self, chance: int) -> None:
        if chance == 0 or (chance < 7 and self.stream.done):
            self.return_from_work()

    @rule()
    def take_jobs(self) -> None:
        while (job := self.world.next_job()) is not None:
            assert job not in self.jobs
            assert not job.is_lost
            self.jobs.append(job)
        if self.stream is not None:
            assert self.stream.ready == self.stream.done

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), size=st.sampled_from([0, 10, 600_000]))
    def say_something(self, data: st.DataObject, size: int) -> None:
        job = self.pick(data, self.jobs)
        self.say(job, WorkData(job.wire_handle, b"x" * size))

    def say(self, job: WorkerJob, event: PacketEvent) -> None:
        was_ended, was_lost = job.ended, job.is_lost
        try:
            wait = self.world.send(job, event, timeout=2.0)
        except InvalidWorkerState:
            assert was_ended
        except ConnectionError:
            assert was_lost
        else:
            assert not was_ended
            assert not was_lost
            if wait.done:
                self.world.release(wait)

    @precondition(lambda self: self.world.waits)
    @rule(data=st.data())
    def return_from_sending(self, data: st.DataObject) -> None:
        self.world.release(self.pick(data, self.world.waits))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), kind=st.sampled_from([WorkComplete, WorkException, WorkFail]))
    def end_a_job(self, data: st.DataObject, kind: Any) -> None:
        job = self.pick(data, self.jobs)
        self.say(job, kind(job.wire_handle) if kind is WorkFail else kind(job.wire_handle, b"out"))
        assert job.ended

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), end=st.booleans(), chance=st.integers(0, 19))
    def be_done(self, data: st.DataObject, end: bool, chance: int) -> None:
        job = self.pick(data, self.jobs)
        self.jobs.remove(job)
        if end:
            self.say(job, WorkComplete(job.wire_handle, b"out"))
        self.world.job_done(job, go_on=chance != 0)

    @rule(function=FUNCTIONS, limit=LIMITS)
    def register(self, function: bytes, limit: float | None) -> None:
        self.world.register(function, limit)

    @rule(function=FUNCTIONS)
    def unregister(self, function: bytes) -> None:
        self.world.unregister(function)

    @rule(chance=st.integers(0, 9), timeout=st.sampled_from([None, 0.5, 20.0]))
    def stop(self, chance: int, timeout: float | None) -> None:
        if chance == 0:
            self.world.stop(timeout=timeout)

    # The links.

    @precondition(lambda self: self.links(up=False))
    @rule(data=st.data())
    def connect(self, data: st.DataObject) -> None:
        self.pick(data, self.links(up=False)).up()

    @precondition(lambda self: not self.calm and (self.links(up=False) or self.links(up=True)))
    @rule(data=st.data(), how=st.sampled_from(["end", "reset", "garbage"]))
    def break_a_link(self, data: st.DataObject, how: str) -> None:
        peer = self.pick(data, self.links(up=False) + self.links(up=True))
        if not peer.link.is_up:
            peer.refuse()
        elif how == "garbage":
            peer.deliver(10**9)
            peer.send_raw(b"garbage")
        else:
            peer.lose(OSError("reset") if how == "reset" else None)
        assert not peer.link.alive
        # Later calls of a slow driver have no effect on the dead link.
        peer.lose()
        peer.up()
        peer.send_raw(raw(NoJob()))

    @precondition(lambda self: not self.calm and self.links(up=True))
    @rule(data=st.data())
    def read_or_do_not(self, data: st.DataObject) -> None:
        peer = self.pick(data, self.links(up=True))
        peer.reads = not peer.reads
        self.world.call(self.world.engine.next_action)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 6.0, 35.0]))
    def sleep(self, seconds: float) -> None:
        self.world.sleep(0.3 if self.calm else seconds)

    # The servers.

    @precondition(lambda self: self.asked())
    @rule(
        data=st.data(),
        how=st.sampled_from(["job", "job", "job", "none", "none", "refuse"]),
        function=FUNCTIONS,
        size=SIZES,
    )
    def answer_a_grab(self, data: st.DataObject, how: str, function: bytes, size: int) -> None:
        peer = self.pick(data, self.asked())
        self.answer(peer, "none" if how == "refuse" and self.calm else how, function)
        peer.deliver(size)

    answer_more = answer_a_grab
    answer_still_more = answer_a_grab

    @precondition(lambda self: self.links(up=True))
    @rule(data=st.data(), size=SIZES, about_a_job=st.booleans())
    def say_what_is_no_answer(self, data: st.DataObject, size: int, about_a_job: bool) -> None:
        peer = self.pick(data, self.links(up=True))
        peer.write(Error(b"JOB_NOT_FOUND", b"") if about_a_job else Noop())
        peer.deliver(size)

    # The final checks.

    def be_kind(self, seconds: int, how: str) -> Counter[str]:
        """Run without failures for a while. Return the number of grabs by server."""
        asked: Counter[str] = Counter()
        for _ in range(seconds):
            for peer in self.links(up=False):
                peer.up()
            for _ in range(3):
                for peer in self.links(up=True):
                    peer.reads = True
                    self.world.call(self.world.engine.next_action)
                    peer.deliver(10**9)
                    while peer.link.alive and peer.questions:
                        asked[peer.host] += isinstance(peer.questions[0], (GrabJob, GrabJobUniq))
                        self.answer(peer, how, b"f")
                        peer.deliver(10**9)
                self.take_jobs()
                for job in self.jobs:
                    self.world.job_done(job)
                self.jobs.clear()
            self.world.sleep(1.0)
        return asked

    def work_again(self) -> None:
        """Begin a `work` that is not over."""
        if self.stream is not None:
            self.return_from_work()
        self.begin()
        if self.stream.done:  # `stop` was called before `work`.
            self.return_from_work()
            self.begin()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        self.be_kind(1, "none")
        if self.stream is None or self.stream.done or world.engine._life is not WorkerLife.WORKING:
            self.be_kind(3, "none")
            assert self.stream is None or self.stream.done
            self.work_again()
        if _OUTAGE in world.engine._timers:
            # An earlier outage might end the work before the worker reconnects.
            self.be_kind(36, "none")
            if self.stream.done:
                assert isinstance(self.stream.error, ServerUnavailable)
                self.work_again()
        world.register(b"f")
        # This time covers the longest backoff and the poll interval.
        asked = self.be_kind(36, "none")
        hosts = {server.address.host for server in world.engine.pool.servers}
        assert {host for host in asked if asked[host]} == hosts
        asked = self.be_kind(7, "job")
        assert min(asked.values()) > 1
        assert not self.stream.done
        world.stop()
        self.be_kind(3, "none")
        assert world.is_over()
        self.return_from_work()


WorkerMachine.TestCase.settings = examples(
    2, stateful_step_count=60, suppress_health_check=list(HealthCheck)
)
TestWorkerMachine = WorkerMachine.TestCase
