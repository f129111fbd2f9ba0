"""Test harness for the job server's engine: peers, and two clocks that tests move.

The harness uses neither sockets nor real time. A test acts as the driver and as all clients,
workers, and admins, so it reads like a conversation::

    world = World()
    client, worker = world.connect(), world.worker(b"f")
    handle = client.submit(SubmitJob(b"f", b"", b"in"))
    assert worker.grab() == JobAssign(handle, b"f", b"in")
    worker.send(WorkComplete(handle, b"out"))
    assert client.take() == [WorkComplete(handle, b"out")]

After each step, the World checks the invariants of the server.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from gearman_proto.engines.base import Close, LinkState, StopListening
from gearman_proto.engines.server.engine import _EPOCHS, _FORMER_JOBS, _LOOK_AT_CLOCK, ServerEngine
from gearman_proto.engines.server.jobqueue import JobState, QueuedJob
from gearman_proto.testing import pack
from gearman_proto.testing.audit import check_server
from gearman_proto.wire.connection import NEED_DATA
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    CanDo,
    Event,
    GrabJob,
    JobCreated,
    PacketEvent,
    Role,
)

from . import links
from .harness import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.engines.server.links import ServerLink


def raw(*events: PacketEvent) -> bytes:
    """Return `events` as request packets, without checking that a peer is allowed to send them."""
    return b"".join(pack(e.packet, type(e).arguments(e), MAGIC_REQUEST) for e in events)


class Peer(links.Peer):
    """The peer of one link."""

    world: World
    link: ServerLink

    def __init__(self, world: World, link: ServerLink) -> None:
        super().__init__(world, link, Role.CLIENT | Role.WORKER)
        #: True if the peer reads from its socket.
        self.reads = True
        #: Bytes read and not yet processed.
        self.inbox = b""

    def send(self, *events: Event) -> None:
        """Send `events`. The Connection refuses those that no client or worker may send."""
        self.send_raw(b"".join([self.connection.send(event) for event in events]))

    def take(self) -> list[Event]:
        """Return the events received since the last call, checked by the Connection."""
        events: list[Event] = []
        self.connection.receive_data(self.take_raw())
        while (event := self.connection.next_event()) is not NEED_DATA:
            assert isinstance(event, Event)
            events.append(event)
        return events

    def take_raw(self) -> bytes:
        """Return the bytes received since the last call."""
        data, self.inbox = self.inbox, b""
        return data

    def one(self) -> Event:
        """Return the only event received since the last call."""
        (event,) = self.take()
        return event

    def submit(self, event: PacketEvent) -> bytes:
        """Submit a job and return its handle."""
        self.send(event)
        created = self.one()
        assert isinstance(created, JobCreated)
        return created.handle

    def grab(self, event: PacketEvent | None = None) -> Event:
        """Request a job and return the response."""
        self.send(event or GrabJob())
        return self.one()

    def ask(self, line: bytes) -> bytes:
        """Send a text command and return the reply."""
        self.send_raw(line + b"\r\n")
        return self.take_raw()

    def close(self, error: Exception | None = None) -> None:
        """Close the connection."""
        self.closed = True
        error = error or ConnectionResetError("the peer is gone")
        self.world.call(self.world.engine.connection_lost, self.link, error, self.world.now)

    def stop_reading(self) -> Peer:
        self.reads = False
        return self

    def read_on(self) -> None:
        """Resume reading, starting with the buffered output."""
        self.reads = True
        self.world.drive([self.link])
        self.world.check()


class World:
    """A job server's engine with its driver, peers, and clocks."""

    def __init__(self, *, chunk: int = 0, turn: int = 250, **options: Any) -> None:
        self.now = 0.0
        #: True to process backlogs completely within `call`.
        self.goes_on = True
        #: Seconds by which the wall clock is ahead of the monotonic one.
        self.ahead = EPOCH
        self.chunk = chunk
        self.engine = ServerEngine(
            rng=random.Random(1), wall_clock=lambda: self.ahead + self.now, **options
        )
        self.engine._call_budget = turn
        self.listening = True
        #: The peers of all links, including closed ones, the oldest first.
        self.peers: list[Peer] = []

    # The driver.

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call the engine as the driver does."""
        value = function(*args, **options)
        self.drive([])
        self.check()
        while self.goes_on and self.has_backlog:
            self.turn()
        return value

    @property
    def has_backlog(self) -> bool:
        """True if the engine has a backlog or a deadline that has passed."""
        deadline = self.engine.next_deadline()
        return deadline is not None and deadline <= self.now

    def turn(self) -> None:
        """Give links with a backlog one turn."""
        assert self.has_backlog
        self.engine.handle_timeout(self.now)
        self.drive([])
        self.check()

    def shut_down(self, *, graceful: bool = False) -> None:
        """Shut the server down as the command ``shutdown`` does, without a peer that sends it."""
        self.engine.retire(graceful=graceful)
        self.call(self.engine.handle_timeout, self.now)

    def drive(self, links: list[ServerLink]) -> None:
        """Write all output, including that of `links`, and run all actions."""
        links += self.engine.links_to_write()
        assert all(link.alive for link in links)
        self.act()
        while links:
            for link in links:
                peer = self.peer(link)
                while peer.reads and (data := self.engine.data_to_send(link, self.now)):
                    assert not peer.closed
                    peer.inbox += data
                    if not link.has_more:
                        break
            self.act()
            links = list(self.engine.links_to_write())
        assert not list(self.engine.links_to_write())
        assert self.engine.next_action() is None

    def act(self) -> None:
        while (action := self.engine.next_action()) is not None:
            if isinstance(action, StopListening):
                assert self.listening
                self.listening = False
            else:
                assert isinstance(action, Close)
                peer = self.peer(action.link)
                assert not peer.closed
                peer.closed = True

    def peer(self, link: ServerLink) -> Peer:
        (peer,) = (peer for peer in self.peers if peer.link is link)
        return peer

    def connect(
        self, address: str = "127.0.0.1", *, reads: bool = True, handshake: bool = False
    ) -> Peer:
        """Connect a client, worker, or admin, which might begin with a TLS handshake."""
        link = self.engine.accept(address, len(self.peers) + 1, self.now, handshake=handshake)
        peer = Peer(self, link)
        peer.reads = reads
        self.peers.append(peer)
        self.drive([])
        self.check()
        return peer

    def worker(self, *functions: bytes) -> Peer:
        """Connect a worker and register it for `functions`."""
        peer = self.connect()
        peer.send(*[CanDo(function) for function in functions])
        return peer

    def sleep(self, seconds: float) -> None:
        """Advance the clocks in one step."""
        self.now += seconds
        self.call(self.engine.handle_timeout, self.now)
        deadline = self.engine.next_deadline()
        assert deadline is None or deadline > self.now

    def wait(self, seconds: float) -> None:
        """Advance the clocks from one deadline of the engine to the next."""
        until = self.now + seconds
        while (deadline := self.engine.next_deadline()) is not None and deadline <= until:
            self.sleep(deadline - self.now)
        self.now = until

    # Invariants.

    def check(self) -> None:
        """Check the invariants of the engine."""
        engine = self.engine
        check_links(self)
        check_server(engine)
        if engine.closed:
            assert not engine.links
            assert not engine.queue.functions
            return
        keys = {job.key for job in engine.queue.jobs.values() if job.key}
        assert engine.queue.by_key.keys() == keys
        check_timers(self)


def check_links(world: World) -> None:
    engine = world.engine
    assert not engine._to_disconnect
    assert set(engine.links) == {peer.link for peer in world.peers if peer.link.alive}
    for peer in world.peers:
        link = peer.link
        assert peer.closed != link.alive
        assert link.alive or not link.unsent
        assert link.has_backlog or link.work is None or not link.is_up
        if engine.closed:
            continue
        assert link.has_backlog == (link in engine._backlogged)
        if not link.alive or link.state is LinkState.ENDING:
            assert link.has_backlog or not (link.abilities or link.jobs or link.listening)
            assert not link.asleep
        elif link.state is not LinkState.CONNECTING:
            assert not link.connection.unanswered
            assert len(link.former) <= _FORMER_JOBS
            assert not link.former.keys() & link.jobs.keys()
            for function in link.abilities:
                assert engine.queue.functions[function.name] is function


def check_timers(world: World) -> None:
    engine = world.engine
    things = set(engine._timers._current)
    if len(engine.queue._delayed):
        assert _EPOCHS in things
        assert engine._look_at is not None
        assert engine._look_at <= world.now + _LOOK_AT_CLOCK
    for thing in things - {_EPOCHS}:
        if isinstance(thing, QueuedJob):
            assert engine.queue.jobs[thing.handle] is thing
            assert thing.state is JobState.RUNNING
        else:
            assert thing.state in (LinkState.CONNECTING, LinkState.ENDING)
    assert {link for link in engine.links if not link.is_up} <= things
