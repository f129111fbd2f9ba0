"""For any input, a job server's engine does not raise, stays consistent and loses no job.

The input is a program (see `program`). Clients, workers and admins connect, send requests and any
bytes, stop reading, shut down one direction, or vanish. Both clocks advance, and the wall clock
jumps. After each step:

* No call has raised, except `serve` after the server has ended.
* Functions, jobs, links, timers and memory agree, byte by byte (`tests.engines.server_harness`).
* Memory exceeds `max_memory` at most by the bytes of links that are too small to disconnect.
* After `handle_timeout`, `next_deadline` is later than the time passed to it.
* A peer that sends only valid requests receives answers in order, the end of each of its jobs once,
  and nothing about other jobs. Peers that send other bytes also receive valid packets and lines.

At the end, a good worker does the remaining jobs, and every foreground job has ended. Then the
server shuts down, and `serve` returns.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final

from gearman_proto.engines.server.engine import _FEW_BYTES, ServerEngine
from gearman_proto.errors import LocalProtocolError
from gearman_proto.wire.packets import (
    BY_NUMBER,
    HEADER,
    HEADER_SIZE,
    MAGIC_REQUEST,
    MAGIC_RESPONSE,
    PACKETS,
    CanDo,
    Error,
    Event,
    GrabJob,
    GrabJobAll,
    GrabJobUniq,
    JobAssign,
    JobAssignAll,
    JobAssignUniq,
    JobCreated,
    NoJob,
    PacketEvent,
    Role,
    SubmitJob,
    SubmitJobHigh,
    SubmitJobLow,
    SubmitReduceJob,
    TextLine,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
    parse,
)
from tests.engines.harness import Bell
from tests.engines.server_harness import Peer, raw

from .game import Game, with_peer
from .program import SECONDS, TO_SERVER, Program
from .worlds import ServerWorld, packed

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Reasons why a server's `Connection` refuses a client's request. Such a request is sent as it is.
ALLOWED: Final[dict[type[Exception], str]] = {
    LocalProtocolError: "servers would not take it; gearmand would close, say"
}
_FOREGROUND: Final = (SubmitJob, SubmitJobHigh, SubmitJobLow, SubmitReduceJob)
_TERMINAL: Final = (WorkComplete, WorkFail, WorkException)
_ABOUT_JOBS: Final = (WorkData, WorkWarning, WorkStatus, *_TERMINAL)
_ASSIGNED: Final = (JobAssign, JobAssignUniq, JobAssignAll)
_SUBMITS: Final = [packet for packet in TO_SERVER if packet.is_submit]
_OF_WORKERS: Final = [packet for packet in TO_SERVER if packet.name.startswith(("CA", "WORK_"))]
_LINES: Final = (
    b"status",
    b"workers",
    b"prioritystatus",
    b"show jobs",
    b"show unique jobs",
    b"create function f",
    b"create function new",
    b"drop function f",
    b"drop function new",
    b"maxqueue f 1",
    b"maxqueue g 1 2 3",
    b"cancel job H:localhost:1",
    b"version",
    b"getpid",
    b"verbose",
)
#: The handles. All servers in a World assign the same ones.
_HANDLES: Final = list(itertools.islice(ServerWorld().engine.queue._handles, 6))
_MAX_PEERS: Final = 8


class _Heard:
    """The expected and received data of a peer."""

    def __init__(self) -> None:
        #: The number of the peer's submits that wait for the end of each handle.
        self.waits_for: Counter[bytes] = Counter()
        #: True if the peer has sent bytes that its Connection does not know of.
        self.is_wild = False
        #: False once the peer has shut down its sending side.
        self.may_send = True
        #: An incomplete packet or line.
        self.rest = b""


class _Game(Game[Peer]):
    """A server and its adversaries."""

    world: ServerWorld
    engine: ServerEngine

    def __init__(self, program: Program) -> None:
        self.max_memory = program.pick([2**30, 40_000])
        world = ServerWorld(
            turn=program.pick([250, 250, 1, 3]),
            job_retries=program.pick([None, 0, 1, 10]),
            max_memory=self.max_memory,
            max_unread=program.pick([2**30, 500]),
            max_queue_size=program.pick([0, 0, 3]),
            max_abilities=program.pick([1000, 2]),
            max_packet_size=program.pick([64 * 1024, 1000]),
            exceptions=program.flag(),
        )
        super().__init__(program, world)
        self.heard: dict[Peer, _Heard] = {}
        self.wait = self.engine.serve(0.0, Bell())
        self.connect()
        self.connect()
        self.steps = [
            self.connect,
            self.shake_hands,
            self.ask,
            self.ask,
            self.submit,
            self.submit,
            self.say_of_job,
            self.work,
            self.work,
            self.grab,
            self.command,
            self.send_raw,
            self.send_packet,
            self.leave,
            self.shut_one_side,
            self.stall,
            self.too_late,
            self.wait_a_while,
            self.sleep,
            self.set_the_clock,
            self.let_one_turn_pass,
            self.shut_down,
            self.close,
        ]

    # The peers.

    def living(self) -> list[Peer]:
        return [peer for peer in self.world.peers if not peer.closed]

    def peer(self) -> Peer | None:
        peers = [p for p in self.living() if p.link.is_up and self.heard[p].may_send]
        return self.program.pick(peers) if peers else None

    def connect(self) -> None:
        if len(self.living()) < _MAX_PEERS:
            peer = self.world.connect()
            self.heard[peer] = _Heard()

    def shake_hands(self) -> None:
        """Let a peer start a handshake, or let a handshake succeed or fail."""
        world = self.world
        waiting = [p for p in self.living() if not p.link.is_up and p.link in self.engine.links]
        choice = self.program.below(3)
        if waiting and choice < 2:
            peer = self.program.pick(waiting)
            if choice:
                world.call(self.engine.connected, peer.link, world.now)
            else:
                peer.close(OSError("no TLS"))
        elif len(self.living()) < _MAX_PEERS:
            number = len(world.peers) + 1
            link = self.engine.accept("::1", number, world.now, handshake=True)
            peer = Peer(world, link)
            world.peers.append(peer)
            self.heard[peer] = _Heard()
            world.call(self.engine.handle_timeout, world.now)

    @with_peer
    def leave(self, peer: Peer) -> None:
        peer.close()

    @with_peer
    def shut_one_side(self, peer: Peer) -> None:
        self.heard[peer].may_send = False
        self.world.call(self.engine.receive_eof, peer.link, self.now)

    @with_peer
    def stall(self, peer: Peer) -> None:
        """Let a peer stop or resume reading."""
        if peer.reads:
            peer.stop_reading()
        else:
            peer.read_on()

    # The peers' packets.

    def _send(self, peer: Peer, *events: Event) -> None:
        """Send events, through the peer's Connection if it accepts them."""
        data = b""
        for event in events:
            try:
                data += peer.connection.send(event)
            except LocalProtocolError:
                self.heard[peer].is_wild = True
                if isinstance(event, PacketEvent):
                    data += packed(event, MAGIC_REQUEST)
        self.give(peer, data)

    @with_peer
    def ask(self, peer: Peer) -> None:
        self._send(peer, self.program.event(TO_SERVER, _HANDLES))

    @with_peer
    def submit(self, peer: Peer) -> None:
        count = 1 + self.program.below(3)
        self._send(peer, *[self.program.event(_SUBMITS, _HANDLES) for _ in range(count)])

    @with_peer
    def say_of_job(self, peer: Peer) -> None:
        """Let a worker send a valid packet about one of its jobs."""
        if peer.link.jobs:
            kinds = [p for p in _OF_WORKERS if p.name.startswith("WORK_")]
            event = self.program.event(kinds, list(peer.link.jobs))
            self._send(peer, event)

    @with_peer
    def grab(self, peer: Peer) -> None:
        grabs = (GrabJob, GrabJobUniq, GrabJobAll)
        self._send(peer, CanDo(b"f"), CanDo(b"g"), self.program.pick(grabs)())

    @with_peer
    def work(self, peer: Peer) -> None:
        """Let a well-behaved worker do a job."""
        if not peer.reads or self.heard[peer].is_wild:
            return
        self._send(peer, CanDo(b"f"), CanDo(b"g"), GrabJobUniq())
        end = self.program.pick([*_TERMINAL, None])
        self.hear()
        for handle in [*peer.link.jobs]:
            if end is not None and not peer.closed:
                self._send(peer, end(handle) if end is WorkFail else end(handle, b"result"))

    @with_peer
    def command(self, peer: Peer) -> None:
        line = self.program.value(_LINES)
        self._send(peer, TextLine(line.replace(b"\n", b""), b"\n"))

    @with_peer
    def send_packet(self, peer: Peer) -> None:
        """Send a packet that is not for servers, or whose size or magic is wrong."""
        self.heard[peer].is_wild = True
        event = self.program.event(PACKETS, _HANDLES)
        magic = MAGIC_RESPONSE if self.program.below(4) == 0 else MAGIC_REQUEST
        data = packed(event, magic)
        off = self.program.pick([0, 0, 1, -1, 2**31])
        size = max(len(data) - HEADER_SIZE + off, 0)
        self.give(peer, data[:8] + size.to_bytes(4) + data[12:])

    @with_peer
    def send_raw(self, peer: Peer) -> None:
        self.heard[peer].is_wild = True
        self.give(peer, self.program.raw(self.program.below(64)))

    # Time.

    def wait_a_while(self) -> None:
        self.world.goes_on = True
        self.world.wait(self.program.pick(SECONDS))

    def sleep(self) -> None:
        """Let time pass, and let the driver be late."""
        world = self.world
        world.now += self.program.pick(SECONDS)
        world.call(self.engine.handle_timeout, world.now)

    def set_the_clock(self) -> None:
        self.world.ahead += self.program.pick([-100.0, -1.0, 1.0, 100.0])

    def let_one_turn_pass(self) -> None:
        """Keep links with a backlog waiting from now on, or let them continue."""
        world = self.world
        if world.has_backlog:
            world.turn()
        world.goes_on = not world.goes_on

    def shut_down(self) -> None:
        # Rarely, because a server that has shut down ends the game.
        if self.program.byte() == 1 and not self.engine.closed:
            self.world.shut_down(graceful=self.program.flag())

    def close(self) -> None:
        """Close the engine, rarely, or make it crash."""
        match self.program.byte():
            case 1:
                self.world.call(self.engine.close, self.now)
            case 2:
                self.engine.abandon(OSError("interrupted"))

    # Invariants.

    def follow(self) -> None:
        self.hear()

    def hear(self) -> None:
        for peer in self.world.peers:
            if peer.inbox:
                if self.heard[peer].is_wild:
                    self._hear_any(peer)
                else:
                    for event in peer.take():
                        self._hear_one(peer, event)

    def _hear_one(self, peer: Peer, event: Event) -> None:
        waits_for = self.heard[peer].waits_for
        if isinstance(event, JobCreated):
            if isinstance(event.answers, _FOREGROUND):
                waits_for[event.handle] += 1
        elif isinstance(event, _ABOUT_JOBS):
            assert waits_for[event.handle], event
            if isinstance(event, _TERMINAL):
                waits_for[event.handle] -= 1
        elif isinstance(event, Error):
            assert event.code.isupper(), event

    def _hear_any(self, peer: Peer) -> None:
        """Check that a peer's input consists of packets and lines, regardless of its requests."""
        heard = self.heard[peer]
        data = heard.rest + peer.take_raw()
        while data:
            if data[0]:
                line, found, rest = data.partition(b"\n")
                if not found:
                    break
                assert b"\0" not in line or line.startswith(b"ERR "), line
                data = rest
                continue
            if len(data) < HEADER_SIZE:
                break
            magic, number, size = HEADER.unpack_from(data)
            assert magic == MAGIC_RESPONSE
            packet = BY_NUMBER[number]
            assert packet.sender & Role.SERVER
            if len(data) < HEADER_SIZE + size:
                break
            parse(packet, data, HEADER_SIZE, HEADER_SIZE + size)
            data = data[HEADER_SIZE + size :]
        heard.rest = data

    def check(self) -> None:
        super().check()
        queue, links = self.engine.queue, self.engine.links
        few = sum(min(link.held, _FEW_BYTES) for link in links)
        assert queue.memory <= self.max_memory + few
        assert self.wait.done == self.engine.closed

    def forget(self, dead: Sequence[Peer]) -> None:
        super().forget([peer for peer in dead if not peer.link.has_backlog])

    def end(self) -> None:
        world, engine = self.world, self.engine
        world.goes_on = True
        world.wait(0.0)
        if engine.closed:
            return
        self._let_all_be_done()
        world.shut_down()
        world.wait(60.0)
        self._let_all_read()
        self.check()
        assert engine.closed
        assert self.wait.done
        assert not self.living()

    def _let_all_read(self) -> None:
        for peer in self.living():
            if peer.link.alive:
                peer.read_on()
        self.hear()

    def _let_all_be_done(self) -> None:
        world, engine = self.world, self.engine
        self._let_all_read()
        world.ahead = max([job.epoch for job in engine.queue.jobs.values()], default=0.0)
        world.wait(61.0)
        for peer in self.living():
            if self.heard[peer].is_wild or not self.heard[peer].may_send:
                peer.close()  # The peer might have stopped in the middle of a packet.
            elif peer.link.is_up:
                peer.send_raw(raw(*[WorkComplete(handle, b"") for handle in list(peer.link.jobs)]))
        self.hear()
        if not world.listening:
            return
        for _ in range(200):
            if not engine.queue.jobs:
                break
            functions = [f.name for f in engine.queue.functions.values() if f.total]
            worker = world.connect()
            self.heard[worker] = _Heard()
            self._do_one(worker, functions[0])
            self.hear()
            self.check()
        assert not engine.queue.jobs
        for peer in self.living():
            if peer.link.is_up:
                assert not self.heard[peer].waits_for.total(), peer

    def _do_one(self, worker: Peer, function: bytes) -> None:
        """Let a good worker connect, do all jobs of a function, and disconnect."""
        worker.send_raw(raw(CanDo(function)))
        while not worker.closed:
            worker.connection.send(GrabJob())
            worker.send_raw(raw(GrabJob()))
            (assign,) = worker.take()
            if isinstance(assign, NoJob):
                break
            assert isinstance(assign, JobAssign)
            worker.send_raw(raw(WorkComplete(assign.handle, b"")))
        if not worker.closed:
            worker.close()


def check(data: bytes) -> None:
    """Raise if the invariant does not hold for the program `data`."""
    _Game(Program(data)).play()
