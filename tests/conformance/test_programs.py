"""Our workers and clients pass the cases, over sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gearman_proto.testing.conformance.case import Verdict
from gearman_proto.testing.conformance.judge import Selection
from gearman_proto.testing.conformance.suites import SUITES
from gearman_sync.testing.conformance.running import Judge
from tests.conformance.kits import PATIENCE, program_kit, sync_client, sync_worker

if TYPE_CHECKING:
    from gearman_proto.testing.conformance.case import Case

LAUNCHES: Final = {"worker": sync_worker, "client": sync_client}
HAS: Final = frozenset({"several"})
SLOW_TOO: Final = Selection(slow=True)
CASES: Final = {case.id: (side, case) for side in LAUNCHES for case in SUITES[side].cases.values()}


@pytest.mark.parametrize(
    ("side", "case"),
    [
        pytest.param(side, case, id=name, marks=[pytest.mark.slow] if case.slow else [])
        for name, (side, case) in CASES.items()
    ],
)
def test_our_program_passes_the_case(side: str, case: Case) -> None:
    launch = LAUNCHES[side]
    judge = Judge(lambda case: program_kit(case, launch, PATIENCE), HAS, selection=SLOW_TOO)
    outcome = judge.judge(case)
    assert not outcome.is_bad, outcome
    assert outcome.verdict is not Verdict.UNSUPPORTED
