"""A case: one demand on a server, a worker or a client, and the check of it."""

from __future__ import annotations

import enum
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gearman_proto.testing.matching import shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Level(enum.Enum):
    """The weight of a demand.

    Attributes:
        MUST: Peers that rely on the demand break without it.
        SHOULD: Both the protocol document and gearmand support the demand, but peers can work
            without it.
        INFO: Several behaviours are known. The report names the observed one. Only a profile can
            make another one a failure.
    """

    MUST = "must"
    SHOULD = "should"
    INFO = "info"


MUST: Final = Level.MUST
SHOULD: Final = Level.SHOULD
INFO: Final = Level.INFO

#: The models that a server can follow. A case lists its known behaviours, each with the profiles
#: that require it. The default, ``document``, requires only the demands of the protocol document.
PROFILES: Final = {
    "document": "what the protocol document demands",
    "gearmand-1.1": "what gearmand 1.1 does (tried: 1.1.21)",
    "gearmand-2.0": "what gearmand 2.0 does (tried: 2.0.0)",
    "perl": "what Perl's Gearman::Server does (tried: 1.130.1)",
}
#: Profiles of the servers that were tried: those of gearmand, and all.
GEARMANDS: Final = ("gearmand-1.1", "gearmand-2.0")
EVERY: Final = (*GEARMANDS, "perl")


class Verdict(enum.Enum):
    """The result of a case.

    Attributes:
        PASS: The judged side meets the demand.
        ALLOWED: It shows another known behaviour, which peers can handle.
        INFO: The case has the level INFO, and reports the behaviour.
        FAIL: The judged side does not meet the demand.
        UNSUPPORTED: It lacks a required capability.
        SKIPPED: The case was not selected.
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
    """Raised by a case, or by a function that it calls, if a demand is not met.

    Args:
        expected: The expectation, in a few words.
        got: The observation, in a few words.
    """

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}, and got {got}")
        self.expected: str = expected
        self.got: str = got


class Closed(Failed):
    """Raised if a demand is not met because the other side has closed the connection."""


class Unsupported(Exception):
    """Raised by a case that can't decide because the judged side lacks a feature."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        id: The name, ``area/topic/number``, which never changes.
        demand: The demand or the question, in a sentence: the docstring of `check`.
        source: The source of the demand: a quotation from the protocol document, or the practice
            of servers if the document is silent.
        level: The weight of the demand.
        check: Called with the kit of its side. Returns None if the demand is met, or the name of
            the `known` behaviour that it has seen. Otherwise, raises `Failed`.
        known: Other behaviours by name, each with the profiles that require it.
        requires: The required capabilities.
        slow: True if the case must wait for time to pass.
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
    """The cases of one side, in their order.

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
        source: str = "",
        *,
        known: Mapping[str, tuple[str, ...]] | None = None,
        requires: tuple[str, ...] = (),
        slow: bool = False,
    ) -> Callable[[_Check], _Check]:
        """Decorate the function that checks a case. Its docstring is the demand.

        The arguments are those fields of `Case`. If the source is omitted, it is the paragraph of
        the docstring that begins with "Source: ".

        Raises:
            ValueError: The suite has a case of that name, or the function has no docstring.
        """

        def add(check: _Check) -> _Check:
            demanded = inspect.getdoc(check)
            if id in self.cases or not demanded:
                raise ValueError(f"there are two cases {id}, or it has no docstring")
            told, _, found = " ".join(demanded.split()).partition(" Source: ")
            self.cases[id] = Case(
                id, told, source or found, level, check, known or {}, requires, slow
            )
            return check

        return add


def demand(holds: object, expected: str, got: object) -> None:
    """Raise `Failed` unless something holds.

    Args:
        holds: The condition.
        expected: The expectation, in a few words.
        got: The observation: a text, or any object, which is shown by `repr`.
    """
    if not holds:
        raise Failed(expected, got if isinstance(got, str) else shortened(got))
