"""A small world for an admin client's engine: a scripted server, and a clock that is moved by hand.

There is no socket and no time here; see `harness`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from gearman_proto import text
from gearman_proto.address import parse_host_list
from gearman_proto.engines.admin import AdminEngine, AdminLink, Question
from gearman_proto.engines.base import Close, Connect
from gearman_proto.wire.connection import NEED_DATA, Connection
from gearman_proto.wire.events import Event, TextLine
from gearman_proto.wire.packets import Role

from .harness import Bell, wakes

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Peer:
    """The other end of one link."""

    def __init__(self, world: World, link: AdminLink, timeout: float) -> None:
        self.world = world
        self.link = link
        self.timeout = timeout
        self.connection = Connection(Role.SERVER)
        #: Whether the engine has asked to close it.
        self.closed = False

    def up(self) -> Peer:
        """The connection is open."""
        self.world.call(self.world.engine.connected, self.link, self.world.now)
        return self

    def refuse(self) -> None:
        """The connection can't be made."""
        error = ConnectionRefusedError("refused")
        self.world.call(self.world.engine.connect_failed, self.link, error, self.world.now)

    def lose(self, error: Exception | None = None) -> None:
        """The connection ends."""
        engine, now = self.world.engine, self.world.now
        if error is None:
            self.world.call(engine.receive_eof, self.link, now)
        else:
            self.world.call(engine.connection_lost, self.link, error, now)

    def take(self) -> list[Event]:
        """All that the engine has to send, until now."""
        events: list[Event] = []
        while data := self.world.call(self.world.engine.data_to_send, self.link, self.world.now):
            self.connection.receive_data(data)
            while (event := self.connection.next_event()) is not NEED_DATA:
                assert isinstance(event, Event)
                events.append(event)
        return events

    def one(self) -> bytes:
        """The command that the engine has to send."""
        (event,) = self.take()
        assert isinstance(event, TextLine)
        return event.line

    def send(self, data: bytes, *more: bytes) -> None:
        """Send anything, in these chunks."""
        for chunk in (data, *more):
            self.world.call(self.world.engine.receive_data, self.link, chunk, self.world.now)


class World:
    """An engine, and all that is around it."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.engine = AdminEngine(parse_host_list(["s:1"]), **options)
        #: All links that the engine has asked for, oldest first.
        self.peers: list[Peer] = []
        self.questions: list[Question[Any]] = []
        #: Whether nobody is to be woken any more.
        self.abandoned = False

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call the engine's transport side, as the driver does."""
        value = function(*args)
        self.act()
        return value

    def act(self) -> None:
        """Take all actions, and see that all is as it has to be at any time."""
        while (action := self.engine.next_action()) is not None:
            if isinstance(action, Connect):
                assert all(peer.link is not action.link for peer in self.peers)
                self.peers.append(Peer(self, action.link, action.timeout))
                continue
            assert isinstance(action, Close)
            (peer,) = (peer for peer in self.peers if peer.link is action.link)
            assert not peer.closed
            peer.closed = True
        living = [peer.link for peer in self.peers if peer.link.alive]
        assert living == [link for link in [self.engine._link] if link is not None]
        assert self.engine.server.link is self.engine._link
        for peer in self.peers:
            if not peer.link.alive:
                assert (peer.link.is_up, peer.link.asked, peer.link.unsent) == (False, None, False)
        for link in self.engine.links_to_write():
            assert link.is_up
            assert link.unsent
        for question in self.questions:
            assert wakes(question) == question.done or self.abandoned

    def ask(
        self, command: text.Command[T] | None = None, timeout: float | None = None
    ) -> Question[Any]:
        """Ask, for the status if nothing else is said."""
        command = command or text.status()  # type: ignore[assignment]
        assert command is not None
        return self._asked(self.engine.ask(command, self.now, Bell(), timeout=timeout))

    def ping(self, timeout: float | None = None) -> Question[float]:
        question = self.engine.ping(self.now, Bell(), timeout=timeout)
        self._asked(question)
        return question

    def _asked(self, question: Question[T]) -> Question[T]:
        self.questions.append(question)
        self.act()
        return question

    def release(self, *questions: Question[Any]) -> None:
        for question in questions:
            self.engine.release(question, self.now)
        self.act()

    def peer(self) -> Peer:
        """The living link."""
        (peer,) = (peer for peer in self.peers if peer.link.alive)
        return peer

    def serve(self) -> Peer:
        """The living link, open."""
        peer = self.peer()
        return peer if peer.link.is_up else peer.up()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.call(self.engine.handle_timeout, self.now)
        deadline = self.engine.next_deadline()
        assert deadline is None or deadline > self.now

    def wake_up(self) -> None:
        """What a driver does when a deadline may have come."""
        deadline = self.engine.next_deadline()
        if deadline is not None and deadline <= self.now:
            self.sleep(0)

    def check_rest(self) -> None:
        """Nothing is left of any question."""
        # Releasing one again would take away what should not be there any more.
        self.release(*self.engine._held.copy())
        assert not self.engine._held
        assert not self.engine._queue
        assert self.engine.next_deadline() is None
        assert len(self.engine._timers) == 0
        assert self.engine.next_action() is None
        assert not list(self.engine.links_to_write())
        for peer in self.peers:
            assert peer.link.asked is None
            assert not peer.link.unsent
