"""WorkerEngine passes the conformance suite, in memory and virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gearman_proto.testing.conformance import worker  # noqa: F401 - adds the cases
from gearman_proto.testing.conformance.case import Verdict
from gearman_proto.testing.conformance.judge import Judge, Selection
from gearman_proto.testing.conformance.program_kit import WORKER, WorkerKit
from tests.conformance.memory import WorkerWorld

if TYPE_CHECKING:
    from gearman_proto.testing.conformance.case import Case

#: Seconds of virtual time.
PATIENCE: Final = 20.0
#: The behaviour of our worker in each case that knows several.
TOLD: Final = {
    "ability/later/1": "before it asks",
    "ability/limit/2": "CAN_DO",
    "ability/id/1": "it has none",
    "grab/first/1": "asks first",
    "grab/kind/1": "GRAB_JOB_UNIQ",
    "grab/unanswered/1": "waits",
    "error/option/1": "asks for none",
    "wire/stray/1": "connects again",
    "wire/echo/1": "sends none",
    "life/down/1": "ends",
}


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in WORKER.cases.values()])
def test_worker_engine_in_memory_passes_the_case(case: Case) -> None:
    judge = Judge(
        lambda case: WorkerKit(WorkerWorld(), f"conformance-{case.id}", PATIENCE),
        frozenset(),
        selection=Selection(slow=True),
    )
    outcome = judge.judge(case)
    assert not outcome.is_bad, outcome
    assert outcome.verdict is not Verdict.UNSUPPORTED
    assert outcome.got == TOLD.get(case.id, "")
