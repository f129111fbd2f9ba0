"""For any input, a worker's engine does not raise, stays consistent and ends its work and calls.

The input is a program (see `program`). The caller registers and pauses functions, works, grabs
and defers jobs, sends any packets about them, and stops. Servers assign jobs, answer wrongly, stop
reading, and send any bytes. Links fail and time passes. After each step:

* Only calls of the caller's side have raised, and only exceptions in ALLOWED.
* Phases, slots, jobs and timers agree (`tests.engines.worker_harness`).
* A pending call has a deadline, or depends on a living link that is monitored.
* After `handle_timeout`, `next_deadline` is later than the time passed to it.
* A server's Connection accepts the engine's whole output.
* The numbers of timers, notices and buffered bytes are bounded.

At the end, the worker is stopped. After some time its work ends, whatever servers do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gearman_proto.engines.worker.link import WorkerLife
from gearman_proto.errors import (
    ConnectionError,
    GearmanError,
    InvalidWorkerState,
    LocalProtocolError,
)
from gearman_proto.wire.packets import (
    PACKETS,
    EchoReq,
    EchoRes,
    Error,
    Event,
    InvalidRequest,
    JobAssign,
    JobAssignUniq,
    NoJob,
    Noop,
    PacketEvent,
)
from tests.engines.harness import Bell
from tests.engines.worker_harness import Peer

from .game import TIMEOUTS, ConnectingGame, with_peer
from .program import FROM_SERVER, Program
from .worlds import WorkerWorld, packed

if TYPE_CHECKING:
    from gearman_proto.engines.worker.engine import GrabWait, WorkerEngine
    from gearman_proto.jobs.job import DeferredJob, WorkerJob

#: The exceptions that a call of the caller's side can raise.
ALLOWED: Final[dict[type[Exception], str]] = {
    InvalidWorkerState: "it works already, is closed; or the job has ended",
    ConnectionError: "the job was lost with its connection",
    LocalProtocolError: "servers do not take such a packet",
}
_MAX_PACKET_SIZE: Final = 4096
_ABOUT_JOBS: Final = [p for p in PACKETS if p.name.startswith("WORK_")]
_HANDLES: Final = (b"H:1", b"H:2", b"H:3", b"")
_FUNCTIONS: Final = (b"f", b"g", b"h", b"f" * 100)
# Larger than a link's buffers, so senders have to wait.
_LARGE: Final = b"z" * 700_000


class _Game(ConnectingGame[Peer]):
    """A worker and its adversaries."""

    world: WorkerWorld
    engine: WorkerEngine

    def __init__(self, program: Program) -> None:
        world = WorkerWorld(
            1 + program.below(3),
            seed=program.below(4),
            functions=[b"f"] if program.flag() else [],
            max_jobs=1 + program.below(4),
            connect_timeout=3.0,
            max_outage=program.pick([60.0, None, 0.0]),
            poll_interval=program.pick([15.0, 1.0]),
            max_packet_size=_MAX_PACKET_SIZE,
        )
        super().__init__(program, world)
        self.stream: Any = None
        self.jobs: list[WorkerJob] = []
        self.deferred: list[DeferredJob] = []
        self.pulls: list[GrabWait] = []
        self.steps = [
            self.work,
            self.register,
            self.unregister,
            self.name,
            self.take_job,
            self.take_job,
            self.say_of_job,
            self.say_of_job,
            self.finish_job,
            self.finish_job,
            self.release,
            self.stop,
            self.return_from_work,
            self.disconnect,
            self.up,
            self.up,
            self.fail,
            self.stall,
            self.answer,
            self.answer,
            self.answer,
            self.answer_wrongly,
            self.say,
            self.flood,
            self.send_raw,
            self.too_late,
            self.sleep,
            self.sleep_to_deadline,
            self.close,
            self.abandon,
            self.pause,
            self.resume,
            self.leave,
            self.drop,
            self.grab,
            self.take_grabbed,
        ]

    # The caller.

    def play(self) -> None:
        timeout = self.program.pick(TIMEOUTS)
        if self.program.below(4):
            self.stream = self.world.work(timeout=timeout)
        super().play()

    def work(self) -> None:
        stream = self.engine.work(self.now, Bell(), timeout=self.program.pick(TIMEOUTS))
        if isinstance(stream.error, InvalidWorkerState):
            assert self.stream is not None or self.engine.closed or self.engine.is_pulling
        else:
            assert self.stream is None
            self.stream = stream

    def register(self) -> None:
        timeout = self.program.pick([None, None, 0.5, 30])
        function = self.program.value(_FUNCTIONS).replace(b"\0", b"") or b"f"
        self.engine.register(self.now, function, timeout)

    def unregister(self) -> None:
        self.engine.unregister(self.now, self.program.pick(_FUNCTIONS))

    def pause(self) -> None:
        self.engine.pause(self.now, self.program.pick([None, *_FUNCTIONS]))

    def resume(self) -> None:
        self.engine.resume(self.now, self.program.pick([None, *_FUNCTIONS]))

    def name(self) -> None:
        self.engine.set_client_id(self.program.pick([b"id", b"two"]))

    def take_job(self) -> None:
        if self.stream is not None and self.stream.ready:
            self.stream.active = False
            while (job := self.engine.next_job(self.now)) is not None:
                self.jobs.append(job)

    def _job(self) -> WorkerJob | None:
        jobs = [*self.jobs, *(deferred.job for deferred in self.deferred)]
        return self.program.pick(jobs) if jobs else None

    def _send(self, job: WorkerJob, event: PacketEvent, **options: Any) -> None:
        timeout = self.program.pick(TIMEOUTS)
        wait = self.engine.send(self.now, Bell(), job, event, timeout=timeout, **options)
        if wait.error is None:
            self.world.waits.append(wait)
        else:
            assert isinstance(wait.error, tuple(ALLOWED))

    def _about(self, job: WorkerJob) -> tuple[Any, list[bytes]]:
        """Return a packet class and arguments for a packet about `job`."""
        event = self.program.event(_ABOUT_JOBS, [job.wire_handle])
        return type(event), [job.wire_handle, *type(event).arguments(event)[1:]]

    def say_of_job(self) -> None:
        job = self._job()
        if job is not None:
            kind, args = self._about(job)
            if self.program.below(8) == 1:
                args[-1] = _LARGE
            self._send(job, kind(*args))

    def finish_job(self) -> None:
        if not self.jobs:
            return
        job = self.program.pick(self.jobs)
        self.jobs.remove(job)
        kind, args = self._about(job)
        done = self.program.flag()
        if not job.ended:
            self._send(job, kind(*args), done=done)
        if not (done and job._gm_is_finished):
            self.engine.job_done(self.now, job, go_on=self.program.below(8) > 0)

    def grab(self) -> None:
        wait = self.engine.grab(self.now, Bell(), timeout=self.program.pick(TIMEOUTS))
        if isinstance(wait.error, InvalidWorkerState):
            assert self.stream is not None or self.engine.closed
        elif self.engine.is_pulling or wait.done:
            self.pulls.append(wait)

    def take_grabbed(self) -> None:
        """Let a call of `grab` return or be cancelled. Keep a handle of its job."""
        if self.pulls:
            wait = self.program.pick(self.pulls)
            self.pulls.remove(wait)
            if self.program.below(4):
                job = wait.take()
                if job is not None and not job.ended:
                    self.deferred.append(job.defer())
            self.engine.release(wait, self.now)

    def leave(self) -> None:
        """Leave a job open. If its handle is kept, `_job` can return it."""
        job = self._job()
        if job in self.jobs and not job.ended and job._gm_deferred is None:
            self.deferred.append(job.defer())
            if self.engine.leave(self.now, job):
                self.jobs.remove(job)  # `next_job` returns it again.

    def drop(self) -> None:
        """Drop the handle of a deferred job."""
        if self.deferred:
            self.deferred.remove(self.program.pick(self.deferred))

    def release(self) -> None:
        if self.world.waits:
            wait = self.program.pick(self.world.waits)
            self.world.release(wait)
            assert wait.error is None

    def stop(self) -> None:
        if self.program.below(4) == 0:
            self.engine.stop(self.now, timeout=self.program.pick(TIMEOUTS))

    def return_from_work(self) -> None:
        """Let `work` return or give up."""
        if self.stream is not None and (self.stream.done or self.program.below(8) == 0):
            self._return()

    def _return(self) -> None:
        stream, self.stream = self.stream, None
        self.jobs.clear()
        self.engine.end_work(self.now)
        self.engine.release(stream, self.now)
        try:
            stream.raise_error()
        except GearmanError as error:
            assert "internal error" not in str(error), error

    # The servers.

    def up(self) -> None:
        for peer in self.world.peers:
            peer.strict = False
        super().up()

    @with_peer
    def stall(self, peer: Peer) -> None:
        """Let a server stop or resume reading."""
        peer.reads = not peer.reads

    @with_peer
    def answer(self, peer: Peer) -> None:
        """Let a server answer its oldest requests, if the link has any."""
        data = b""
        for _ in range(1 + self.program.below(3)):
            if peer.questions:
                data += packed(self._answer_to(peer.questions.popleft()))
        self.give(peer, data)

    def _answer_to(self, question: Event) -> PacketEvent:
        if isinstance(question, EchoReq):
            return EchoRes(question.data)
        choice = self.program.byte()
        if choice > 250:
            return Error(b"INVALID_COMMAND", b"no")
        if choice % 2:
            return NoJob()
        handle, function = self.program.pick(_HANDLES), self.program.pick(_FUNCTIONS)
        if choice > 240:
            return JobAssign(handle, function, b"in")
        return JobAssignUniq(handle, function, b"u", b"in")

    @with_peer
    def answer_wrongly(self, peer: Peer) -> None:
        """Send an ERROR that might or might not be about a packet of a job."""
        code = self.program.pick([b"JOB_NOT_FOUND", b"not_worker", b"X"])
        self.give(peer, packed(Error(code, b"no")))

    @with_peer
    def say(self, peer: Peer) -> None:
        """Let a server send a packet, usually NOOP, that might be out of order."""
        kinds = FROM_SERVER[:1] if self.program.byte() < 200 else FROM_SERVER
        self.give(peer, packed(self.program.event(kinds, _HANDLES)))

    @with_peer
    def flood(self, peer: Peer) -> None:
        """Let a server repeat NOOP while the caller polls each time."""
        for _ in range(self.program.byte()):
            peer.send_raw(packed(Noop()))
            self.take_job()

    # Invariants.

    def follow(self) -> None:
        super().follow()
        for peer in self.world.peers:
            for event in peer.take():
                assert not isinstance(event, InvalidRequest), event
        if self.engine.closed and self.stream is not None:
            assert self.stream.done

    def check(self) -> None:
        super().check()
        world, engine = self.world, self.engine
        for wait in world.waits:
            links = [link for link in engine.pool.links() if wait in link.waits]
            assert wait.done or links, wait
            assert wait.done or wait.deadline is None or wait in engine._timers
        world.waits = [wait for wait in world.waits if not wait.done]
        for link in engine.pool.links():
            assert link.connection.buffered <= _MAX_PACKET_SIZE + 12
            assert link.connection.unanswered <= 100
        if engine._life is WorkerLife.WORKING and self.stream is not None and not self.stream.done:
            # While work waits for servers, something will make it continue.
            assert engine.pool.servers
            assert engine.pool.links() or engine.next_deadline() is not None

    def end(self) -> None:
        world, engine = self.world, self.engine
        if engine.is_pulling:
            self._end_pulling()
        if self.stream is None:
            assert not engine.pool.links()
            assert engine.next_deadline() is None
            assert all(wait.done for wait in self.pulls)
            return
        self.deferred.clear()
        for job in self.jobs:
            engine.job_done(self.now, job)
        self.take_job()
        engine.stop(self.now)
        # With a slow link, a server that hangs has up to 450 seconds for 8 MiB of results.
        for _ in range(250):
            if self.stream.done:
                break
            for job in self.jobs:
                engine.job_done(self.now, job)
            self.jobs.clear()
            self.follow()
            world.sleep(2.0)
            self.stream.news = True
            self.take_job()
        assert self.stream.done
        self._return()
        self.follow()
        self.check()
        assert not engine.pool.links()
        assert all(wait.done for wait in world.waits)
        assert engine.next_deadline() is None

    def _end_pulling(self) -> None:
        """Stop the worker. Its calls of `grab` end, whatever servers do."""
        self.deferred.clear()
        for wait in self.pulls:
            self.engine.release(wait, self.now)
        wait = self.engine.grab(self.now, Bell())
        self.pulls = [wait]
        self.engine.stop(self.now, timeout=200.0)
        for _ in range(250):
            if not self.engine.is_pulling:
                break
            self.follow()
            self.world.sleep(2.0)
            self.follow()
        assert not self.engine.is_pulling
        self.engine.release(wait, self.now)


def check(data: bytes) -> None:
    """Raise if the invariant does not hold for the program `data`."""
    _Game(Program(data)).play()
