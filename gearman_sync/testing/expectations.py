"""The expectations of a scripted server, and its reactions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from gearman_proto.checks import check_callable, check_count, check_type
from gearman_proto.testing.matching import Wanted, matcher
from gearman_proto.wire.packets import Event

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from .conversation import Peer

#: An answer: an event, or a function that takes the received event and returns one or several.
Answer: TypeAlias = "Event | Callable[[Any], Event | Iterable[Event]]"


class Expectation:
    """An expected event, and the server's reaction to it.

    `ScriptedServer.expect` and `ScriptedServer.whenever` create expectations. Each method adds an
    action to the reaction and returns the expectation, so that calls can be chained. The actions
    run in the order of the calls. Without any, the server sends nothing.

    Attributes:
        wanted: The expected event, as text.
        connection: The number of the event's connection, from 0, or None for any connection.
        left: The number of times that the event is still expected.
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
        """Return True if `event` is the expected one."""
        return self._matches(event)

    def act(self, peer: Peer, event: Event) -> None:
        """Run the actions for the received `event`."""
        for action in self._actions:
            action(peer, event)

    def times(self, count: int) -> Self:
        """Expect the event `count` times, each time with the same reaction.

        Raises:
            TypeError, ValueError: `count` is not an integer, or is negative.
        """
        self.left = check_count("count", count, 0)
        return self

    def answer(self, *answers: Answer) -> Self:
        """Send answers.

        Args:
            answers: Events, or functions that take the received event and return one or several.

        Raises:
            TypeError: An answer is neither.
        """
        _check_answers(answers)
        return self.then(lambda peer, event: peer.send(*_made(answers, event)))

    def answer_anyway(self, *answers: Answer) -> Self:
        """Send answers as `answer` does, but allow those that a server must not send now."""
        _check_answers(answers)
        return self.then(lambda peer, event: peer.send_anyway(*_made(answers, event)))

    def send_raw(self, data: bytes | Callable[[Any], bytes]) -> Self:
        """Send any bytes, or the bytes that a function of the received event returns.

        Raises:
            TypeError: `data` is neither.
        """
        check_type("data", data, (bytes, Callable), "bytes, or a function of an event")
        return self.then(lambda peer, event: peer.send_raw(data(event) if callable(data) else data))

    def silence(self) -> Self:
        """Send nothing. The call documents that the silence is intended."""
        return self

    def close(self) -> Self:
        """Close the connection."""
        return self.then(lambda peer, _event: peer.close())

    def reset(self) -> Self:
        """Close the connection with a RST, as if the process had crashed."""
        return self.then(lambda peer, _event: peer.reset())

    def then(self, action: Callable[[Peer, Any], object]) -> Self:
        """Call `action` with the `Peer` and the received event, in the server's thread.

        The function can wait, for example for a `threading.Event` of the test. It delays later
        events of this connection.

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
