"""Whatever comes, a worker's engine raises nothing, keeps its books, and its work and calls end.

The input is a program (see `program`): the caller registers, works, takes jobs, sends what it likes
about them and stops; servers give jobs, answer wrongly, do not read, and send any bytes; links
fail, and time passes. After each step:

* no call has raised but those of the caller's side, and those only what ALLOWED has;
* phases, slots, jobs and timers are in accord (`tests.engines.worker_harness`);
* a call that is not done has a deadline, or stands on a living link that is watched;
* `next_deadline` has moved on behind the time that `handle_timeout` was told;
* what the engine has written is read by a server's Connection, and no part of it is refused;
* timers, notices and received bytes that are kept are bounded.

At the end the worker is told to stop, and with time its work is over, whatever servers do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gearman_proto.engines.phases import WorkerLife
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
    from gearman_proto.engines.worker import WorkerEngine
    from gearman_proto.jobs.assigned import WorkerJob

#: What a call of the caller's side may raise.
ALLOWED: Final[dict[type[Exception], str]] = {
    InvalidWorkerState: "it works already, is closed; or the job has ended",
    ConnectionError: "the job was lost with its connection",
    LocalProtocolError: "servers do not take such a packet",
}
_MAX_PACKET_SIZE: Final = 4096
_ABOUT_JOBS: Final = [p for p in PACKETS if p.name.startswith("WORK_")]
_HANDLES: Final = (b"H:1", b"H:2", b"H:3", b"")
_FUNCTIONS: Final = (b"f", b"g", b"h", b"f" * 100)
# More than may be on a link before those who send have to wait.
_LARGE: Final = b"z" * 700_000


class _Game(ConnectingGame[Peer]):
    """A worker, and everybody who is against it."""

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
            look_again=program.pick([15.0, 1.0]),
            max_packet_size=_MAX_PACKET_SIZE,
        )
        super().__init__(program, world)
        self.stream: Any = None
        self.jobs: list[WorkerJob] = []
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
        ]

    # The caller.

    def play(self) -> None:
        self.stream = self.world.work(timeout=self.program.pick(TIMEOUTS))
        super().play()

    def work(self) -> None:
        stream = self.engine.work(self.now, Bell(), timeout=self.program.pick(TIMEOUTS))
        if isinstance(stream.error, InvalidWorkerState):
            assert self.stream is not None or self.engine.closed
        else:
            assert self.stream is None
            self.stream = stream

    def register(self) -> None:
        timeout = self.program.pick([None, None, 0.5, 30])
        self.engine.register(self.now, self.program.value(_FUNCTIONS).replace(b"\0", b""), timeout)

    def unregister(self) -> None:
        self.engine.unregister(self.now, self.program.pick(_FUNCTIONS))

    def name(self) -> None:
        self.engine.set_client_id(self.program.pick([b"id", b"two"]))

    def take_job(self) -> None:
        if self.stream is not None and self.stream.ready:
            self.stream.active = False
            while (job := self.engine.next_job(self.now)) is not None:
                self.jobs.append(job)

    def _job(self) -> WorkerJob | None:
        return self.program.pick(self.jobs) if self.jobs else None

    def _send(self, job: WorkerJob, event: PacketEvent, **options: Any) -> None:
        timeout = self.program.pick(TIMEOUTS)
        wait = self.engine.send(self.now, Bell(), job, event, timeout=timeout, **options)
        if wait.error is None:
            self.world.waits.append(wait)
        else:
            assert isinstance(wait.error, tuple(ALLOWED))

    def _about(self, job: WorkerJob) -> tuple[Any, list[bytes]]:
        """What may be said of `job`: the class of a packet, and its arguments."""
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
        job = self._job()
        if job is None:
            return
        self.jobs.remove(job)
        kind, args = self._about(job)
        done = self.program.flag()
        if not job.ended:
            self._send(job, kind(*args), done=done)
        if not (done and job.over):
            self.engine.job_done(self.now, job, go_on=self.program.below(8) > 0)

    def release(self) -> None:
        if self.world.waits:
            wait = self.program.pick(self.world.waits)
            self.world.release(wait)
            assert wait.error is None

    def stop(self) -> None:
        if self.program.below(4) == 0:
            self.engine.stop(self.now, timeout=self.program.pick(TIMEOUTS))

    def return_from_work(self) -> None:
        """`work` is over, or gives up."""
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
        """A server stops to read, or goes on."""
        peer.reads = not peer.reads

    @with_peer
    def answer(self, peer: Peer) -> None:
        """A server answers its oldest questions, if the link has any."""
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
        """An ERROR that is, or is not, about what was sent of a job."""
        code = self.program.pick([b"JOB_NOT_FOUND", b"not_worker", b"X"])
        self.give(peer, packed(Error(code, b"no")))

    @with_peer
    def say(self, peer: Peer) -> None:
        """A server says something that may be out of place: mostly NOOP."""
        kinds = FROM_SERVER[:1] if self.program.byte() < 200 else FROM_SERVER
        self.give(peer, packed(self.program.event(kinds, _HANDLES)))

    @with_peer
    def flood(self, peer: Peer) -> None:
        """A server says NOOP again and again, and the caller looks each time."""
        for _ in range(self.program.byte()):
            peer.send_raw(packed(Noop()))
            self.take_job()

    # What has to be true.

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
            # A work that waits for servers has something that will go on.
            assert engine.pool.servers
            assert engine.pool.links() or engine.next_deadline() is not None

    def end(self) -> None:
        world, engine = self.world, self.engine
        if self.stream is None:
            assert not engine.pool.links()
            assert engine.next_deadline() is None
            return
        for job in self.jobs:
            engine.job_done(self.now, job)
        self.take_job()
        engine.stop(self.now)
        # A server that hangs may have the time for 8 MiB of results in a tunnel: 450 seconds.
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


def check(data: bytes) -> None:
    """Raise unless the invariant holds for the program `data`."""
    _Game(Program(data)).play()
