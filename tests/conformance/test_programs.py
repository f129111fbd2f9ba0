"""The cases for workers and clients: ours pass, and what is wrong fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gearman_sync.testing.conformance.case import Verdict
from gearman_sync.testing.conformance.running import Judge, Selection
from gearman_sync.testing.conformance.suites import SUITES
from tests.conformance.kits import CLIENTS, IMPATIENCE, PATIENCE, SURFACES, WORKERS, program_kit
from tests.conformance.lies.client import LIES as CLIENT_LIES
from tests.conformance.lies.worker import LIES as WORKER_LIES

if TYPE_CHECKING:
    from gearman_sync.testing.conformance.case import Case

LIES: Final = {**WORKER_LIES, **CLIENT_LIES}
LAUNCHES: Final = {"worker": WORKERS, "client": CLIENTS}
HAS: Final = frozenset({"several"})
SLOW_TOO: Final = Selection(slow=True)
CASES: Final = {case.id: (side, case) for side in LAUNCHES for case in SUITES[side].cases.values()}


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    ("side", "case"),
    [
        pytest.param(side, case, id=name, marks=[pytest.mark.slow] if case.slow else [])
        for name, (side, case) in CASES.items()
    ],
)
def test_ours_pass(side: str, case: Case, surface: str) -> None:
    launch = LAUNCHES[side][surface]
    judge = Judge(lambda case: program_kit(case, launch, PATIENCE), HAS, selection=SLOW_TOO)
    outcome = judge.judge(case)
    assert not outcome.is_bad, outcome
    assert outcome.verdict is not Verdict.UNSUPPORTED


# Most wait for something that does not come.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [(n, i) for n in LIES for i in range(len(LIES[n]))])
def test_what_is_wrong_fails(name: str, number: int) -> None:
    side, case = CASES[name]
    make, launch = LIES[name][number], LAUNCHES[side]["sync"]
    judge = Judge(
        lambda case: program_kit(case, launch, IMPATIENCE, make()), HAS, selection=SLOW_TOO
    )
    outcome = judge.judge(case)
    assert outcome.verdict is Verdict.FAIL, outcome
    assert outcome.expected
    assert outcome.got


def test_each_case_can_fail() -> None:
    judged = {name for name, (_, case) in CASES.items() if case.level.value != "info"}
    assert not judged - LIES.keys()
    assert not LIES.keys() - CASES.keys()
