"""Run cases, and decide their verdicts."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .case import INFO, Failed, Unsupported, Verdict, mismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from .case import Case
    from .kit import Kit


@dataclass
class Outcome:
    """The outcome of a case.

    Attributes:
        case: The case.
        verdict: The verdict.
        expected: The expectation, if the case has failed.
        got: The observation, the name of a known behaviour, or the reason to skip the case.
        recording: A recording of the connections, or None.
        errors: The end of the standard error of the judged program.
        seconds: The duration of the case.
    """

    case: Case
    verdict: Verdict
    expected: str = ""
    got: str = ""
    recording: Any = None
    errors: str = ""
    seconds: float = 0.0

    @property
    def is_bad(self) -> bool:
        """True if the case has failed."""
        return self.verdict in (Verdict.FAIL, Verdict.ERROR)

    def fails_also(self, expected: str, got: str) -> None:
        """Let the case fail for another reason, in addition to an earlier one.

        Args:
            expected: The expectation.
            got: The observation.
        """
        if self.is_bad:
            self.got += f"; then {got}"
        else:
            self.verdict, self.expected, self.got = Verdict.FAIL, expected, got

    @property
    def message(self) -> str:
        """The reason for a failure: the expectation and the observation, or an error."""
        return self.got if self.verdict is Verdict.ERROR else mismatch(self.expected, self.got)


@dataclass
class Selection:
    """A choice of cases.

    Attributes:
        only: The cases to run: names, or prefixes of names such as "wire/echo". Empty for all.
        skip: The cases to skip, in the same form.
        slow: True to run slow cases too.
    """

    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    slow: bool = False

    def of(self, cases: Iterable[Case]) -> list[Case]:
        """Return the cases that `only` selects.

        Raises:
            ValueError: A prefix selects no case.
        """
        cases = list(cases)
        for word in [*self.only, *self.skip]:
            if not any(_begins(case, [word]) for case in cases):
                raise ValueError(f"there is no case {word}")
        return [case for case in cases if not self.only or self.means(case)]

    def means(self, case: Case) -> bool:
        """Return whether `only` selects a case."""
        return _begins(case, self.only)

    def why_not(self, case: Case) -> str:
        """Return the reason to skip a case, or an empty text to run it."""
        if _begins(case, self.skip):
            return "excluded"
        return "slow" if case.slow and not self.slow else ""


def _begins(case: Case, words: Iterable[str]) -> bool:
    """Return whether one of the words is the name of a case, or a parent in its path."""
    return any(case.id == word or case.id.startswith(word.rstrip("/") + "/") for word in words)


@dataclass
class Judge:
    """Runs cases.

    Attributes:
        make_kit: Called with a case. Returns its kit as a context manager.
        has: The capabilities of the judged side.
        profile: The profile, which selects one of the known behaviours.
        selection: The cases to run.
    """

    make_kit: Callable[[Case], AbstractContextManager[Any]]
    has: Collection[str] = ()
    profile: str = "document"
    selection: Selection = field(default_factory=Selection)

    def run(self, cases: Iterable[Case]) -> Iterator[Outcome]:
        """Yield the outcome of each case, in order."""
        return map(self.judge, cases)

    def judge(self, case: Case) -> Outcome:
        """Return the outcome of a case."""
        if why := self.selection.why_not(case):
            return Outcome(case, Verdict.SKIPPED, got=why)
        if missing := [name for name in case.requires if name not in self.has]:
            return Outcome(case, Verdict.UNSUPPORTED, got=f"requires {', '.join(missing)}")
        try:
            with self.make_kit(case) as kit:
                return self.check(case, kit)
        except Exception:  # noqa: BLE001 - an error of the suite or of the system
            return Outcome(case, Verdict.ERROR, got=traceback.format_exc())

    def check(self, case: Case, kit: Kit) -> Outcome:
        """Return the outcome of a case with this kit."""
        try:
            shown = case.check(kit)
        except Failed as failed:
            if case.level is INFO and case.wanted_by(self.profile) is None:
                return Outcome(case, Verdict.INFO, got=f"something else: {failed.got}")
            return Outcome(case, Verdict.FAIL, failed.expected, failed.got)
        except Unsupported as why:
            return Outcome(case, Verdict.UNSUPPORTED, got=str(why))
        except Exception:  # noqa: BLE001 - an error of the case
            return Outcome(case, Verdict.ERROR, got=traceback.format_exc())
        if shown is not None and shown not in case.known:
            return Outcome(case, Verdict.ERROR, got=f"the case does not list {shown!r} as known")
        if (wanted := case.wanted_by(self.profile)) is not None:
            if shown == wanted:
                return Outcome(case, Verdict.PASS, got=shown)
            return Outcome(case, Verdict.FAIL, wanted, shown or "the documented behaviour")
        if shown is None:
            return Outcome(case, Verdict.PASS)
        return Outcome(case, Verdict.INFO if case.level is INFO else Verdict.ALLOWED, got=shown)
