"""Whatever comes, an admin client's engine raises nothing, keeps its books, and each question ends.

The input is a program (see `program`): the caller asks, gives up and closes; the server answers,
answers wrongly, and sends any bytes; links fail, and time passes. After each step:

* no call has raised but those of the caller's side, and those only what ALLOWED has;
* one link at most is alive, and dead ones hold nothing (`tests.engines.admin_harness`);
* a question that is not done has a deadline, or is in the queue of an engine that connects or asks,
  or is under way on the living link;
* `next_deadline` has moved on behind the time that `handle_timeout` was told;
* what the engine has written is read by a server's Connection: one question at a time;
* an answer is of the type that its command has, and an error is one of ERRORS;
* what is kept of a reply is bounded by `max_reply_size`.

At the end the server fails, and then every question is done.
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

#: What a call of the caller's side may raise.
ALLOWED: Final[dict[type[Exception], str]] = {InvalidAdminClientState: "the engine is closed"}
#: What a question may end with in place of an answer.
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
# More questions that are done say no more than these.
_MAX_DONE: Final = 4


class _Game(ConnectingGame[Peer]):
    """An admin client, and everybody who is against it."""

    world: AdminWorld
    engine: AdminEngine

    def __init__(self, program: Program) -> None:
        size = program.pick([_MAX_REPLY_SIZE, 10**6])
        super().__init__(program, AdminWorld(connect_timeout=3.0, max_reply_size=size))
        #: What each question was, as an index of _COMMANDS; -1 is a ping.
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
        # There is one at most, and so nothing to choose.
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
        """The server says something that may be out of place."""
        if self.program.flag():
            self.give(peer, self.program.pick(_COMMANDS)[2])
        elif self.program.flag():
            self.give(peer, packed(Error(b"X", b"no")))
        else:
            self.give(peer, packed(self.program.event(FROM_SERVER, [b"H:1"])))

    # What has to be true.

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
    """Raise unless the invariant holds for the program `data`."""
    _Game(Program(data)).play()
