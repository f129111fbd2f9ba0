"""The conformance suite in memory: a lie makes each case fail. Our engines pass: tests/engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gearman_proto.testing.conformance.case import INFO, Verdict
from gearman_proto.testing.conformance.suites import SUITES
from tests.conformance.lies.client import LIES as LIES_OF_CLIENTS
from tests.conformance.lies.server_jobs import LIES as LIES_OF_JOBS
from tests.conformance.lies.server_regular import LIES as LIES_OF_REGULARITY
from tests.conformance.lies.server_sizes import LIES as LIES_OF_SIZES
from tests.conformance.lies.server_state import LIES as LIES_OF_STATE
from tests.conformance.lies.server_work import LIES as LIES_OF_WORK
from tests.conformance.lies.worker import LIES as LIES_OF_WORKERS
from tests.conformance.lying import fresh
from tests.conformance.memory import outcome_with

if TYPE_CHECKING:
    from tests.conformance.lying import Lies


#: Seconds of virtual time. A case that polls a liar takes its whole time limit.
LIAR_TIMEOUT: Final = 0.25
PROGRAM_TIMEOUT: Final = 20.0
LIES: Final[dict[str, dict[str, list[Lies]]]] = {
    "server": {
        **LIES_OF_JOBS,
        **LIES_OF_WORK,
        **LIES_OF_STATE,
        **LIES_OF_REGULARITY,
        **LIES_OF_SIZES,
    },
    "worker": LIES_OF_WORKERS,
    "client": LIES_OF_CLIENTS,
}


@pytest.mark.parametrize(
    ("side", "name", "got"),
    [
        ("worker", "error/grab/1", ""),
        ("worker", "wire/stray/1", "connects again"),
        ("client", "result/status/1", ""),
        ("client", "life/refused/1", ""),
        ("client", "life/close/1", ""),
        ("client", "life/silent/1", "waits"),
        ("client", "life/stray/1", "gives up"),
        ("client", "option/silence/1", "goes on"),
    ],
)
def test_kit_of_a_correct_program_returns_its_behaviour(side: str, name: str, got: str) -> None:
    outcome = outcome_with(side, name, (), PROGRAM_TIMEOUT)
    assert not outcome.is_bad, outcome
    assert outcome.got == got


@pytest.mark.parametrize(
    ("side", "name", "number"),
    [
        pytest.param(
            *(side, name, number),
            id=f"{side}-{name}-{number}",
            marks=[pytest.mark.slow] * SUITES[side].cases[name].slow,
        )
        for side, lies in LIES.items()
        for name, several in lies.items()
        for number in range(len(several))
    ],
)
def test_case_with_lying_connections_fails(side: str, name: str, number: int) -> None:
    lies = fresh(LIES[side][name][number])
    outcome = outcome_with(side, name, lies, LIAR_TIMEOUT)
    assert outcome.verdict is Verdict.FAIL, outcome
    assert outcome.expected
    assert outcome.got


@pytest.mark.parametrize("side", LIES)
def test_every_case_has_a_lie(side: str) -> None:
    cases = SUITES[side].cases
    judged = {case.id for case in cases.values() if case.level is not INFO}
    assert not judged - LIES[side].keys()
    assert not LIES[side].keys() - cases.keys()
