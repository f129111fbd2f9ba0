"""A game against an engine, and the steps that the games against all engines share.

A program chooses from the game's `steps`. The corpus depends on their order.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from tests.engines import links

from .program import SECONDS, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Timeouts for a call, in seconds or None.
TIMEOUTS: Final = (None, None, *SECONDS)
# Maximum number of steps. Longer programs are slower and no better.
_MAX_STEPS: Final = 80
# Maximum number of dead links to keep. More would not find more.
_MAX_DEAD: Final = 4

P = TypeVar("P", bound=links.Peer)
S = TypeVar("S", bound=links.Server)

G = TypeVar("G", bound="Game[Any]")

log = logging.getLogger("fuzz")


def with_peer(step: Callable[[G, Any], None]) -> Callable[[G], None]:
    """Turn a function of a game and a peer into a step. Without a peer, the step does nothing."""

    @functools.wraps(step)
    def do(game: G) -> None:
        peer = game.peer()
        if peer is not None:
            step(game, peer)

    return do


class Game(Generic[P]):
    """An engine in its world, and its adversaries."""

    world: Any
    engine: Any
    steps: Sequence[Callable[[], None]]

    def __init__(self, program: Program, world: Any) -> None:
        self.program = program
        self.world = world
        self.engine = world.engine

    @property
    def now(self) -> float:
        now: float = self.world.now
        return now

    def play(self) -> None:
        """Do the steps of the program, and check the invariants after each."""
        for _ in range(_MAX_STEPS):
            if not self.program:
                break
            step = self.program.pick(self.steps)
            log.debug("%s", step.__name__)
            step()
            if self.engine.is_abandoned:
                return
            self.follow()
            self.check()
        self.end()

    def peer(self) -> P | None:
        """Return a peer with an open connection, if there is any."""
        raise NotImplementedError

    def follow(self) -> None:
        """Do the work of the driver and of others after each step."""
        raise NotImplementedError

    def check(self) -> None:
        """Check the invariants."""
        self.world.look()
        self.forget(self.dead())
        timers = self.engine._timers
        assert len(timers._heap) <= 128 + 2 * len(timers)

    def end(self) -> None:
        """End the game, and check that everything ends."""
        raise NotImplementedError

    def dead(self) -> list[P]:
        return [peer for peer in self.world.peers if not peer.link.alive]

    def forget(self, dead: Sequence[P]) -> None:
        """Remove dead peers, except the last few."""
        for peer in dead[:-_MAX_DEAD]:
            self.world.peers.remove(peer)

    def give(self, peer: P, data: bytes) -> None:
        """Let the engine receive `data`, possibly in pieces."""
        for piece in self.program.pieces(data):
            peer.send_raw(piece)

    def too_late(self) -> None:
        """Check that events on a dead link, as a driver reports them, change nothing."""
        dead = self.dead()
        if dead:
            engine, peer = self.engine, self.program.pick(dead)
            link = peer.link
            engine.connected(link, self.now)
            engine.receive_data(link, b"\0RES", self.now)
            engine.receive_eof(link, self.now)
            engine.connection_lost(link, OSError(), self.now)
            if isinstance(peer, links.Server):
                engine.connect_failed(link, OSError(), self.now)
            assert engine.data_to_send(link, self.now) == b""


class ConnectingGame(Game[S]):
    """A game against an engine that requests connections."""

    def follow(self) -> None:
        self.world.pump()

    def peer(self, *, up: bool = True) -> S | None:
        peers = [peer for peer in self.world.alive() if peer.link.is_up is up]
        return self.program.pick(peers) if peers else None

    def up(self) -> None:
        peer = self.peer(up=False)
        if peer is not None:
            peer.up()

    def fail(self) -> None:
        peer = self.peer(up=self.program.flag())
        if peer is not None:
            match self.program.below(3):
                case 0:
                    peer.refuse()
                case 1:
                    peer.lose()
                case _:
                    peer.lose(OSError("reset"))

    @with_peer
    def send_raw(self, peer: S) -> None:
        self.give(peer, self.program.raw(self.program.below(64)))

    def sleep(self) -> None:
        self.world.sleep(self.program.pick(SECONDS))

    def sleep_to_deadline(self) -> None:
        deadline = self.engine.next_deadline()
        if deadline is not None:
            self.world.sleep(max(deadline - self.now, 0.0))

    def disconnect(self) -> None:
        self.engine.disconnect(self.now, self.program.pick(self.engine.pool.servers))

    def close(self) -> None:
        # Rarely, because a closed engine ends the game.
        if self.program.byte() == 1:
            self.engine.close(self.now)

    def abandon(self) -> None:
        """Rarely, abandon the engine, as a driver does after an interruption. End the game."""
        if self.program.byte() == 1:
            waits = self.engine.abandon(OSError("interrupted"))
            assert all(wait.done for wait in waits)
            assert not list(self.engine.links_to_write())
            assert self.engine.next_action() is None
            assert self.engine.next_deadline() is None
            self.too_late()
