"""For any input, an admin client's engine does not raise, stays consistent and ends every query.

The input is a program (see `program`). The caller queries, gives up and closes. The server answers
correctly or wrongly, and sends any bytes. Links fail and time passes. After each step:

* Only calls of the caller's side have raised, and only exceptions in ALLOWED.
* At most one link is alive, and dead links hold nothing (`tests.engines.admin_harness`).
* A pending query has a deadline, is queued in an engine that connects or asks, or is in flight on
  the living link.
* After `handle_timeout`, `next_deadline` is later than the time passed to it.
* A server's Connection accepts the engine's output, one query at a time.
* An answer has the type of its command, and an error is in ERRORS.
* The bytes buffered for a reply are bounded by `max_reply_size`.

At the end, the server fails. Then all queries are done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gearman_proto import text
from gearman_proto.engines.base import LinkState
from gearman_proto.errors import (
    InvalidAdminClientState,
    RemoteProtocolError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.wire.packets import EchoReq, EchoRes, Error, Event, InvalidRequest
from tests.engines.admin_harness import Peer

from .game import TIMEOUTS, ConnectingGame, with_peer
from .program import FROM_SERVER, Program
from .worlds import AdminWorld, packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.engines.admin import AdminEngine, Question

#: The exceptions that a call of the caller's side can raise.
ALLOWED: Final[dict[type[Exception], str]] = {InvalidAdminClientState: "the engine is closed"}
#: The errors that a query can end with.
ERRORS: Final[dict[type[Exception], str]] = {
    InvalidAdminClientState: "there was no answer in time, or the engine was closed",
    RemoteProtocolError: "the server answered something else",
    ServerError: "the server refused it",
    ServerUnavailable: "there was no connection, or it ended",
}
_COMMANDS: Final[list[tuple[text.Command[Any], type, bytes]]] = [
    (text.status(), tuple, b"f\t1\t2\t3\n.\n"),
    (text.workers(), tuple, b"3 127.0.0.1 - : f g\n.\n"),
    (text.prioritystatus(), tuple, b"f\t1\t2\t3\t4\n.\n"),
    (text.show_jobs(), tuple, b"H:h:1\t1\t0\t1\n.\n"),
    (text.show_unique_jobs(), tuple, b"u\n.\n"),
    (text.version(), str, b"OK 1.1.21\n"),
    (text.getpid(), int, b"OK 17\n"),
    (text.maxqueue("f", 1), str, b"OK\r\n"),
    (text.shutdown(graceful=True), str, b"ERR UNKNOWN_COMMAND Unknown+server+command\r\n"),
]
_MAX_REPLY_SIZE: Final = 300
# Maximum number of finished queries to keep. More would not find more.
_MAX_DONE: Final = 4


class _Game(ConnectingGame[Peer]):
    """An admin client and its adversaries."""

    world: AdminWorld
    engine: AdminEngine

    def __init__(self, program: Program) -> None:
        size = program.pick([_MAX_REPLY_SIZE, 10**6])
        super().__init__(program, AdminWorld(connect_timeout=3.0, max_reply_size=size))
        #: The index in _COMMANDS of each query; -1 is a ping.
        self.asked: dict[int, int] = {}
        self.unanswered: dict[Peer, Event] = {}
        self.steps = [
            self.ask,
            self.ask,
            self.ping,
            self.release,
            self.disconnect,
            self.up,
            self.up,
            self.fail,
            self.read,
            self.read,
            self.answer,
            self.answer,
            self.say,
            self.send_raw,
            self.too_late,
            self.sleep,
            self.sleep_to_deadline,
            self.close,
            self.abandon,
        ]

    # The caller.

    def ask(self) -> None:
        number = self.program.below(len(_COMMANDS))
        self._ask(number, self.world.ask, _COMMANDS[number][0])

    def ping(self) -> None:
        self._ask(-1, self.world.ping)

    def _ask(self, number: int, call: Callable[..., Question[Any]], *args: Any) -> None:
        try:
            question = call(*args, timeout=self.program.pick(TIMEOUTS))
        except InvalidAdminClientState:
            assert self.engine.closed
        else:
            self.asked[id(question)] = number

    def release(self) -> None:
        if self.world.questions:
            self._release(self.program.pick(self.world.questions))

    def _release(self, question: Question[Any]) -> None:
        world = self.world
        world.questions = [other for other in world.questions if other is not question]
        world.release(question)
        number = self.asked.pop(id(question))
        if question.done:
            expected = float if number < 0 else _COMMANDS[number][1]
            try:
                assert isinstance(question.value, expected)
            except tuple(ERRORS):
                pass

    def disconnect(self) -> None:
        self.engine.disconnect(self.now, self.engine.server)

    # The server.

    def peer(self, *, up: bool = True) -> Peer | None:
        # There is at most one link, so nothing to choose.
        return next((peer for peer in self.world.alive() if peer.link.is_up is up), None)

    def give(self, peer: Peer, data: bytes) -> None:
        super().give(peer, data)
        if peer.link.sent is None:
            self.unanswered.pop(peer, None)

    @with_peer
    def read(self, peer: Peer) -> None:
        for event in peer.take():
            assert not isinstance(event, InvalidRequest), event
            assert peer not in self.unanswered
            self.unanswered[peer] = event

    @with_peer
    def answer(self, peer: Peer) -> None:
        if peer.link.sent is None:
            return
        question = self.unanswered.pop(peer, None)
        if question is None:
            return
        if isinstance(question, EchoReq):
            self.give(peer, packed(EchoRes(question.data)))
        elif self.program.below(8) == 0:
            self.give(peer, b"ERR UNKNOWN_COMMAND Unknown+server+command\r\n")
        else:
            command = next(c for c in _COMMANDS if c[0].event == question)
            self.give(peer, command[2])

    @with_peer
    def say(self, peer: Peer) -> None:
        """Let the server send a reply that might be out of order."""
        if self.program.flag():
            self.give(peer, self.program.pick(_COMMANDS)[2])
        elif self.program.flag():
            self.give(peer, packed(Error(b"X", b"no")))
        else:
            self.give(peer, packed(self.program.event(FROM_SERVER, [b"H:1"])))

    # Invariants.

    def check(self) -> None:
        super().check()
        world, engine = self.world, self.engine
        done = [question for question in world.questions if question.done]
        for question in done[:-_MAX_DONE]:
            self._release(question)
        link = engine._link
        assert not (engine.closed and link)
        for question in world.questions:
            if not question.done:
                assert link is not None
                assert question is link.asked or question in engine._queue
                assert question.deadline is None or question in engine._timers
        if link is not None:
            connecting = link.state is LinkState.CONNECTING
            assert connecting == (link in engine._timers)
            assert connecting or link.asked is not None or not engine._is_wanted()
            assert link.connection.buffered <= engine._max_reply_size + 1024 * 1024
            if link.asked is not None and link.asked.reply is not None:
                assert sum(map(len, link.asked.reply._lines)) <= engine._max_reply_size
        assert len(engine._waits) <= len(world.questions)

    def end(self) -> None:
        world = self.world
        for _ in range(100):
            if not world.alive():
                break
            world.peer().lose()
            self.check()
        assert self.engine._link is None
        assert all(question.done for question in world.questions)
        for question in list(world.questions):
            self._release(question)
        world.check_rest()


def check(data: bytes) -> None:
    """Raise if the invariant does not hold for the program `data`."""
    _Game(Program(data)).play()
