"""What a scripted server waits for, and what it does then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from gearman_proto.arguments import check_callable, check_count, check_type
from gearman_proto.wire.events import Event

from .matching import Wanted, matcher

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from .conversation import Peer

#: What answers an event: an event, or a function of what came that returns one, or several.
Answer: TypeAlias = "Event | Callable[[Any], Event | Iterable[Event]]"


class Expectation:
    """Something that is to come, and what the server does then.

    `ScriptedServer.expect` and `ScriptedServer.whenever` make it. Its methods say what to do, in
    that order, and return the expectation, so that they can be written one behind the other. With
    none of them, the server says nothing.

    Attributes:
        wanted: What it waits for, as text.
        connection: The number of the connection over which that comes, from 0, or None: any.
        left: How often it is still to come.
    """

    def __init__(self, what: Wanted, fields: dict[str, object], connection: int | None) -> None:
        self._matches, wanted = matcher(what, fields)
        self.wanted: str = wanted
        if connection is not None:
            check_count("connection", connection, 0)
        self.connection: int | None = connection
        self.left: int = 1
        self._actions: list[Callable[[Peer, Any], object]] = []

    def matches(self, event: Event) -> bool:
        """Whether this is what it waits for."""
        return self._matches(event)

    def act(self, peer: Peer, event: Event) -> None:
        """Do what it says, now that `event` has come."""
        for action in self._actions:
            action(peer, event)

    def times(self, count: int) -> Self:
        """Expect it so many times, each time with the same answers.

        Raises:
            TypeError, ValueError: `count` is no whole number from 0 on.
        """
        self.left = check_count("count", count, 0)
        return self

    def answer(self, *answers: Answer) -> Self:
        """Send these.

        Args:
            answers: Events; or functions of the event that came, which return an event or several.

        Raises:
            TypeError: One is neither.
        """
        _check_answers(answers)
        return self.then(lambda peer, event: peer.send(*_made(answers, event)))

    def answer_anyway(self, *answers: Answer) -> Self:
        """Send these whether or not a server may send them now; else as `answer`."""
        _check_answers(answers)
        return self.then(lambda peer, event: peer.send_anyway(*_made(answers, event)))

    def send_raw(self, data: bytes | Callable[[Any], bytes]) -> Self:
        """Send any bytes, or those that a function of the received event returns.

        Raises:
            TypeError: `data` is neither.
        """
        check_type("data", data, (bytes, Callable), "bytes, or a function of an event")
        return self.then(lambda peer, event: peer.send_raw(data(event) if callable(data) else data))

    def silence(self) -> Self:
        """Send nothing. It does nothing, and says so to whoever reads the test."""
        return self

    def close(self) -> Self:
        """Close the connection."""
        return self.then(lambda peer, _event: peer.close())

    def reset(self) -> Self:
        """Close the connection with a RST, as after the crash of a process."""
        return self.then(lambda peer, _event: peer.reset())

    def then(self, action: Callable[[Peer, Any], object]) -> Self:
        """Call a function of the `Peer` and the event that came, in the server's thread.

        It may wait for something, a `threading.Event` of the test's, say: what comes over that
        connection meanwhile waits, too.

        Raises:
            TypeError: `action` can't be called.
        """
        self._actions.append(check_callable("action", action, "of a Peer and an event"))
        return self


def _check_answers(answers: tuple[Any, ...]) -> None:
    for answer in answers:
        check_type("an answer", answer, (Event, Callable), "an event, or a function of one")


def _made(answers: tuple[Answer, ...], event: Event) -> list[Event]:
    made: list[Event] = []
    for answer in answers:
        result = answer if isinstance(answer, Event) else answer(event)
        made += [result] if isinstance(result, Event) else result
    return made
