"""A case: one demand on a server, a worker or a client, with its check."""

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
    "document": "the demands of the protocol document",
    "gearmand-1.1": "the behaviour of gearmand 1.1 (tested: 1.1.21)",
    "gearmand-2.0": "the behaviour of gearmand 2.0 (tested: 2.0.0)",
    "perl": "the behaviour of Perl's Gearman::Server (tested: 1.130.1)",
}
#: The profiles of gearmand, and those of all tested servers.
GEARMANDS: Final = ("gearmand-1.1", "gearmand-2.0")
EVERY: Final = (*GEARMANDS, "perl")


class Verdict(enum.Enum):
    """The result of a case.

    Attributes:
        PASS: The judged side meets the demand.
        ALLOWED: The judged side shows another known behaviour, which peers can handle.
        INFO: The case has the level INFO and reports a behaviour.
        FAIL: The judged side does not meet the demand.
        UNSUPPORTED: The judged side lacks a required capability.
        SKIPPED: The case was not selected.
        ERROR: The suite has failed.
    """

    PASS = "pass"  # noqa: S105 - no password
    ALLOWED = "allowed"
    INFO = "info"
    FAIL = "fail"
    UNSUPPORTED = "unsupported"
    SKIPPED = "skipped"
    ERROR = "error"


def mismatch(expected: str, got: str) -> str:
    """Return the message about an expectation that was not met."""
    return f"expected {expected}, and got {got}"


class Failed(Exception):
    """Raised by the check of a case if the demand is not met.

    Args:
        expected: The expectation, in a few words.
        got: The observation, in a few words.
    """

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(mismatch(expected, got))
        self.expected: str = expected
        self.got: str = got


class Closed(Failed):
    """Raised if a demand is not met because the peer has closed the connection."""


class Unsupported(Exception):
    """Raised by the check of a case if the judged side lacks a required feature."""


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        id: The name, ``area/topic/number``, which never changes.
        demand: The demand, from the docstring of `check`. With the level INFO, the subject of the
            report.
        source: The source of the demand: a quotation from the protocol document, or the practice
            of servers if the document is silent.
        level: The weight of the demand.
        check: Called with a kit. Returns None if the demand is met, or the name of the observed
            `known` behaviour. Otherwise, raises `Failed`.
        known: Other behaviours by name, each with the profiles that require it.
        requires: The required capabilities.
        slow: True if the case takes seconds because it waits for time to pass.
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
        """Return the known behaviour that a profile requires, or None."""
        return next((name for name, profiles in self.known.items() if profile in profiles), None)


_Check = TypeVar("_Check", bound="Callable[[Any], str | None]")


class Suite:
    """The cases of one side, in execution order.

    Args:
        side: "server", "worker" or "client".

    Attributes:
        side: As given.
        cases: The cases, by name.
    """

    def __init__(self, side: str) -> None:
        self.side: str = side
        self.cases: dict[str, Case] = {}

    def case(
        self,
        id: str,  # noqa: A002 - named like the field
        level: Level,
        source: str = "",
        *,
        known: Mapping[str, tuple[str, ...]] | None = None,
        requires: tuple[str, ...] = (),
        slow: bool = False,
    ) -> Callable[[_Check], _Check]:
        """Add a case to the suite. Decorates its check, whose docstring states the demand.

        The arguments are fields of `Case`. The default source is the paragraph of the docstring
        that begins with "Source: ".

        Raises:
            ValueError: The suite already has a case with this name, or the check has no docstring.
        """

        def add(check: _Check) -> _Check:
            if id in self.cases:
                raise ValueError(f"there are two cases {id}")
            text = inspect.getdoc(check)
            if not text:
                raise ValueError(f"the check of case {id} has no docstring")
            stated, _, found = " ".join(text.split()).partition(" Source: ")
            self.cases[id] = Case(
                id, stated, source or found, level, check, known or {}, requires, slow
            )
            return check

        return add


def demand(holds: object, expected: str, got: object) -> None:
    """Raise `Failed` unless a condition holds.

    Args:
        holds: The condition.
        expected: The expectation, in a few words.
        got: The observation: a text, or an object, which the message shows with `repr`.
    """
    if not holds:
        raise Failed(expected, got if isinstance(got, str) else shortened(got))
