"""ClientEngine passes the conformance suite, in memory and virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_proto.testing.conformance import client  # noqa: F401 - adds the cases
from gearman_proto.testing.conformance.case import Verdict
from gearman_proto.testing.conformance.judge import Judge, Selection
from gearman_proto.testing.conformance.program_kit import CLIENT, ClientKit
from tests.conformance.memory import ClientWorld

if TYPE_CHECKING:
    from gearman_proto.testing.conformance.case import Case

#: Seconds of virtual time.
PATIENCE: Final = 20.0
#: The behaviour of our engine in cases that know several.
TOLD: Final = {
    "submit/unique/2": "of its own",
    "result/short/1": "gives up",
    "order/same/3": "both end",
    "life/stray/1": "gives up",
    "life/stray/2": "gives up",
    "life/stray/3": "gives up",
    "life/stray/4": "gives up",
    "life/silent/1": "waits",
    "life/silent/2": "waits",
    "echo/ping/1": "does not ask",
    "option/silence/1": "goes on",
    "option/error/1": "goes on",
}


def make_kit(case: Case) -> Any:
    return ClientKit(ClientWorld(), f"conformance-{case.id}", PATIENCE)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CLIENT.cases.values()])
def test_client_engine_in_memory_passes_the_case(case: Case) -> None:
    judge = Judge(make_kit, frozenset({"several"}), selection=Selection(slow=True))
    outcome = judge.judge(case)
    assert not outcome.is_bad, outcome
    assert outcome.verdict is not Verdict.UNSUPPORTED
    assert outcome.got == TOLD.get(case.id, outcome.got)
