"""A test world for the admin client's engine, with a scripted server and a manual clock.

The world uses no sockets and no real time; see `harness`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from gearman_proto import text
from gearman_proto.address import parse_host_list
from gearman_proto.engines.admin import AdminEngine, AdminLink, Question
from gearman_proto.wire.connection import NEED_DATA
from gearman_proto.wire.packets import Event, TextLine

from . import links
from .harness import Bell, wakes

T = TypeVar("T")


class Peer(links.Server):
    """The server's end of one link."""

    world: World
    link: AdminLink

    def take(self) -> list[Event]:
        """Return all events that the engine has to send."""
        events: list[Event] = []
        while data := self.world.call(self.world.engine.data_to_send, self.link, self.world.now):
            self.connection.receive_data(data)
            while (event := self.connection.next_event()) is not NEED_DATA:
                assert isinstance(event, Event)
                events.append(event)
        return events

    def one(self) -> bytes:
        """Return the only command that the engine has to send."""
        (event,) = self.take()
        assert isinstance(event, TextLine)
        return event.line

    def send(self, data: bytes, *more: bytes) -> None:
        """Send arbitrary bytes in these chunks."""
        for chunk in (data, *more):
            self.send_raw(chunk)


class World(links.World[Peer]):
    """An admin engine with its callers, driver and server."""

    def __init__(self, **options: Any) -> None:
        super().__init__(Peer)
        self.now = 100.0
        self.engine: AdminEngine = AdminEngine(parse_host_list(["s:1"]), **options)
        self.questions: list[Question[Any]] = []
        #: True once the engine is abandoned, so that it wakes no caller.
        self.abandoned = False

    def check(self) -> None:
        """Check the engine's invariants."""
        living = [peer.link for peer in self.alive()]
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
        """Ask a question, by default for the status."""
        asked: Any = command or text.status()
        return self._asked(self.engine.ask(self.now, Bell(), asked, timeout=timeout))

    def ping(self, timeout: float | None = None) -> Question[float]:
        return self._asked(self.engine.ping(self.now, Bell(), timeout=timeout))

    def _asked(self, question: Question[T]) -> Question[T]:
        links.raise_refusal(question)
        self.questions.append(question)
        self.act()
        self.check()
        return question

    def release(self, *questions: Question[Any]) -> None:
        for question in questions:
            self.engine.release(question, self.now)
        self.act()
        self.check()

    def check_rest(self) -> None:
        """Check that the engine keeps nothing of past questions."""
        # Release only the pending questions: a second release could hide a leak.
        self.release(*self.engine._waits.copy())
        assert not self.engine._waits
        assert not self.engine._queue
        assert self.engine.next_deadline() is None
        assert len(self.engine._timers) == 0
        assert self.engine.next_action() is None
        assert not list(self.engine.links_to_write())
        for peer in self.peers:
            assert peer.link.asked is None
            assert not peer.link.unsent
