"""Run cases, and decide their verdicts."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .case import INFO, Failed, Unsupported, Verdict

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
        expected: The demand, if it was not met.
        got: The unexpected event, the name of a known behaviour, or the reason to skip the case.
        recording: A recording of the connections, or None.
        errors: The end of the standard error of the judged program.
        seconds: The duration.
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


@dataclass
class Selection:
    """A choice of cases.

    Attributes:
        only: Prefixes of the names of the cases to run; none means all.
        skip: Prefixes of the names of the cases to skip.
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
        """Return whether `only` names a case."""
        return _begins(case, self.only)

    def why_not(self, case: Case) -> str:
        """Return why a case is not run, or an empty text if it is."""
        if _begins(case, self.skip):
            return "it was not asked for"
        return "it takes long" if case.slow and not self.slow else ""


def _begins(case: Case, words: Iterable[str]) -> bool:
    """Return whether one of the words is a case's name, or a folder of that."""
    return any(case.id == word or case.id.startswith(word.rstrip("/") + "/") for word in words)


@dataclass
class Judge:
    """Runs cases.

    Attributes:
        make_kit: Makes the kit of a case.
        has: The capabilities of the judged side.
        profile: The profile, which decides between known behaviours.
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
            return Outcome(case, Verdict.UNSUPPORTED, got=f"it lacks {', '.join(missing)}")
        try:
            with self.make_kit(case) as kit:
                return self.check(case, kit)
        except Exception:  # noqa: BLE001 - an error of the suite or of the system
            return Outcome(case, Verdict.ERROR, got=traceback.format_exc())

    def check(self, case: Case, kit: Kit) -> Outcome:
        """Return the outcome of a case with this kit."""
        try:
            told = case.check(kit)
        except Failed as failed:
            if case.level is INFO and case.wanted_by(self.profile) is None:
                return Outcome(case, Verdict.INFO, got=f"something else: {failed.got}")
            return Outcome(case, Verdict.FAIL, failed.expected, failed.got)
        except Unsupported as why:
            return Outcome(case, Verdict.UNSUPPORTED, got=str(why))
        except Exception:  # noqa: BLE001 - an error of the case
            return Outcome(case, Verdict.ERROR, got=traceback.format_exc())
        if told is not None and told not in case.known:
            return Outcome(case, Verdict.ERROR, got=f"the case does not say what {told!r} is")
        if (wanted := case.wanted_by(self.profile)) is not None:
            if told == wanted:
                return Outcome(case, Verdict.PASS, got=told)
            return Outcome(case, Verdict.FAIL, wanted, told or "what the document demands")
        if told is None:
            return Outcome(case, Verdict.PASS)
        return Outcome(case, Verdict.INFO if case.level is INFO else Verdict.ALLOWED, got=told)
