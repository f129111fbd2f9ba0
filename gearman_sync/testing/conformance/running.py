"""Runs cases, and says what each has come to."""

from __future__ import annotations

import socket
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .case import INFO, Failed, Unsupported, Verdict
from .program import Program, filled, values_for

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from gearman_sync.testing import Recording

    from .case import Case
    from .kit import Kit

# Bytes of a program's standard error that are kept in `Outcome.errors`: the last ones.
_ERRORS: Final = 2000
# Seconds that a server has to begin to listen.
_START: Final = 20.0
# Seconds between two looks.
_LOOK: Final = 0.02


class Gone(Exception):
    """The server that is judged can't be reached, or does not start, or has died."""


@dataclass
class Outcome:
    """What a case has come to.

    Attributes:
        case: The case.
        verdict: What it has come to.
        expected: What was demanded, where that was not met.
        got: What came in place of it; which known behaviour it was; or why it was not run.
        recording: What has passed.
        errors: The end of what the program has written to standard error.
        seconds: How long it took.
    """

    case: Case
    verdict: Verdict
    expected: str = ""
    got: str = ""
    recording: Recording | None = None
    errors: str = ""
    seconds: float = 0.0

    @property
    def is_bad(self) -> bool:
        """Whether it is a failure."""
        return self.verdict in (Verdict.FAIL, Verdict.ERROR)


@dataclass
class Selection:
    """Which cases are to be run.

    Attributes:
        only: What their names begin with; none: all.
        skip: What the names of those begin with that are not to be run.
        slow: Whether those are that take long.
    """

    only: Sequence[str] = ()
    skip: Sequence[str] = ()
    slow: bool = False

    def of(self, cases: Iterable[Case]) -> list[Case]:
        """Return the cases that are meant by `only`.

        Raises:
            ValueError: There is none for one of its words.
        """
        cases = list(cases)
        for word in [*self.only, *self.skip]:
            if not any(_begins(case, [word]) for case in cases):
                raise ValueError(f"there is no case {word}")
        return [case for case in cases if not self.only or self.means(case)]

    def means(self, case: Case) -> bool:
        """Whether a case is named by `only`."""
        return _begins(case, self.only)

    def why_not(self, case: Case) -> str:
        """Return why a case is not run, or nothing."""
        if _begins(case, self.skip):
            return "it was not asked for"
        return "it takes long" if case.slow and not self.slow else ""


def _begins(case: Case, words: Iterable[str]) -> bool:
    """Whether a case's name is one of these, or below one."""
    return any(case.id == word or case.id.startswith(word.rstrip("/") + "/") for word in words)


@dataclass
class Judge:
    """Runs cases.

    Attributes:
        make_kit: Makes the kit of a case.
        has: The capabilities of what is judged.
        profile: The profile that says which known behaviours must be.
        selection: Which cases are run.
    """

    make_kit: Callable[[Case], AbstractContextManager[Kit]]
    has: Collection[str] = ()
    profile: str = "document"
    selection: Selection = field(default_factory=Selection)

    def run(self, cases: Iterable[Case]) -> Iterator[Outcome]:
        """Yield what each case has come to, in their order."""
        for case in cases:
            begun = time.monotonic()
            outcome = self.judge(case)
            outcome.seconds = time.monotonic() - begun
            yield outcome

    def judge(self, case: Case) -> Outcome:
        """Return what a case has come to."""
        if why := self.selection.why_not(case):
            return Outcome(case, Verdict.SKIPPED, got=why)
        if missing := [name for name in case.requires if name not in self.has]:
            return Outcome(case, Verdict.UNSUPPORTED, got=f"it lacks {', '.join(missing)}")
        try:
            with self.make_kit(case) as kit:
                outcome = self._check(case, kit)
                outcome.recording = kit.exchange.recording(case.id, case.demand)
                outcome.errors = kit.errors[-_ERRORS:].decode(errors="replace")
        except Exception:  # noqa: BLE001 - of the suite, or of the system, and no failure
            return Outcome(case, Verdict.ERROR, got=traceback.format_exc())
        return outcome

    def _check(self, case: Case, kit: Kit) -> Outcome:
        try:
            told = case.check(kit)
        except Failed as failed:
            if case.level is INFO and case.wanted_by(self.profile) is None:
                return Outcome(case, Verdict.INFO, got=f"something else: {failed.got}")
            return Outcome(case, Verdict.FAIL, failed.expected, failed.got)
        except Unsupported as why:
            return Outcome(case, Verdict.UNSUPPORTED, got=str(why))
        except Exception:  # noqa: BLE001 - a fault of the case
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


class StartedServer:
    """A server that the suite has started, and can start again at the same address.

    Args:
        words: The program and its arguments, with ``{port}``.

    Raises:
        OSError: It can't be started.
        Gone: It does not listen.
    """

    def __init__(self, words: Sequence[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address: tuple[str, int] = free.getsockname()
        self._words = filled(words, values_for(self.address), ())
        self._program = self._start()

    def _start(self) -> Program:
        program = Program(self._words)
        deadline = time.monotonic() + _START
        while not is_there(self.address):
            if program.status is not None or time.monotonic() > deadline:
                errors = program.errors.decode(errors="replace").strip()
                program.end()
                raise Gone(f"{self._words[0]} does not listen: {errors}")
            time.sleep(_LOOK)
        return program

    def restart(self) -> None:
        """Kill it, and start it again."""
        self._program.end()
        self._program = self._start()

    def close(self) -> None:
        """Kill it."""
        self._program.end()


def is_there(address: tuple[str, int]) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection(address, 5.0):
            return True
    except OSError:
        return False
