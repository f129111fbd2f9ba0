"""A case: one thing that is demanded of a server, a worker or a client, and how that is seen."""

from __future__ import annotations

import enum
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gearman_sync.testing.matching import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Level(enum.Enum):
    """How much is demanded.

    Attributes:
        MUST: Peers that rely on it break without it.
        SHOULD: It is what both the protocol document and gearmand say, and a peer can live without.
        INFO: There are several known behaviours. Which one it is, is told, and is never a failure,
            unless a profile says which one it must be.
    """

    MUST = "must"
    SHOULD = "should"
    INFO = "info"


MUST: Final = Level.MUST
SHOULD: Final = Level.SHOULD
INFO: Final = Level.INFO

#: Whom a server may mean to be like. A case names the behaviours that it knows, and for each the
#: profiles in which it must be so. With ``document``, the default, nothing but what the protocol
#: document demands is a failure.
PROFILES: Final = {
    "document": "what the protocol document demands",
    "gearmand-1.1": "what gearmand 1.1 does (tried: 1.1.21)",
    "gearmand-2.0": "what gearmand 2.0 does (tried: 2.0.0)",
    "perl": "what Perl's Gearman::Server does (tried: 1.130.1)",
}


class Verdict(enum.Enum):
    """What a case has come to.

    Attributes:
        PASS: It does what is demanded.
        ALLOWED: It does something else that is known and that peers live with.
        INFO: What is told of a case of the level INFO.
        FAIL: It does not do what is demanded.
        UNSUPPORTED: It lacks a capability that the case needs.
        SKIPPED: The case was not to be run.
        ERROR: The suite itself has failed.
    """

    PASS = "pass"  # noqa: S105 - no password
    ALLOWED = "allowed"
    INFO = "info"
    FAIL = "fail"
    UNSUPPORTED = "unsupported"
    SKIPPED = "skipped"
    ERROR = "error"


class Failed(Exception):
    """Raised by a case, or by what it calls: this is not what was demanded.

    Args:
        expected: What was, in a few words.
        got: What came in place of it.
    """

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, and got {got}")
        self.expected: str = expected
        self.got: str = got


class Closed(Failed):
    """Raised in the same way: the other side has closed the connection."""


class Unsupported(Exception):
    """Raised by a case that finds out that what it asks about is not there."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        id: Its name, ``area/topic/number``, which stays the same for ever.
        demand: What is demanded, or what is asked, in a sentence: the docstring of `check`.
        source: Whence that comes: a part of the protocol document and a few of its words, or what
            servers do where the document does not say.
        level: How much is demanded.
        check: Gets the kit of its side, and returns None if all is as demanded, or which of the
            `known` behaviours it has seen; raises `Failed` if it is neither.
        known: What else may be seen, by name, each with the profiles in which that must be so.
        requires: The capabilities without which the case makes no sense.
        slow: Whether it has to wait for time to pass.
    """

    id: str
    demand: str
    source: str
    level: Level
    check: Callable[[Any], str | None]
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    slow: bool = False

    def wanted_by(self, profile: str) -> str | None:
        """Return which of the known behaviours a profile asks for, if it asks for one."""
        return next((name for name, profiles in self.known.items() if profile in profiles), None)


_Check = TypeVar("_Check", bound="Callable[[Any], str | None]")


class Suite:
    """The cases of one side, in the order in which they are run.

    Args:
        side: "server", "worker" or "client".

    Attributes:
        side: As given.
        cases: The cases, by their names.
    """

    def __init__(self, side: str) -> None:
        self.side: str = side
        self.cases: dict[str, Case] = {}

    def case(
        self,
        id: str,  # noqa: A002 - its name everywhere
        level: Level,
        source: str,
        *,
        known: Mapping[str, tuple[str, ...]] | None = None,
        requires: tuple[str, ...] = (),
        slow: bool = False,
    ) -> Callable[[_Check], _Check]:
        """Decorate the function that checks a case, whose docstring is what is demanded.

        The arguments are those fields of `Case`.

        Raises:
            ValueError: There is a case of that name, or it demands nothing.
        """

        def add(check: _Check) -> _Check:
            demanded = inspect.getdoc(check)
            if id in self.cases or not demanded:
                raise ValueError(f"there are two cases {id}, or it has no docstring")
            sentence = " ".join(demanded.split())
            self.cases[id] = Case(id, sentence, source, level, check, known or {}, requires, slow)
            return check

        return add


def demand(holds: object, expected: str, got: object) -> None:
    """Raise `Failed` unless something holds.

    Args:
        holds: Whether it does.
        expected: What was demanded, in a few words.
        got: What came in place of it: words, or what is shown as it is.
    """
    if not holds:
        raise Failed(expected, got if isinstance(got, str) else shortened(got))
