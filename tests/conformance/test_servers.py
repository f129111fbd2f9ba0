"""The cases for servers: JobServer and gearmand pass, and what is wrong fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gearman_sync.conformance.capabilities import CAPABILITIES
from gearman_sync.conformance.case import Verdict
from gearman_sync.conformance.running import Judge, Selection
from gearman_sync.conformance.suites import SUITES
from tests.conformance.kits import IMPATIENCE, PATIENCE, SURFACES, Address, server_kit, serving
from tests.conformance.lies.server_jobs import LIES as LIES_OF_JOBS
from tests.conformance.lies.server_work import LIES as LIES_OF_WORK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_sync.conformance.case import Case
    from tests.support.servers import Gearmand

LIES: Final = {**LIES_OF_JOBS, **LIES_OF_WORK}
CASES: Final = SUITES["server"].cases
HAS: Final = frozenset(CAPABILITIES) - {"restart"}
ALL: Final = Selection(slow=True)


@pytest.fixture(scope="module", params=[*SURFACES, "gearmand"])
def address(request: pytest.FixtureRequest) -> Iterator[Address]:
    if request.param == "gearmand":
        gearmand: Gearmand = request.getfixturevalue("gearmand")
        yield gearmand.address
    else:
        with serving(request.param) as address:
            yield address


@pytest.fixture(scope="module")
def job_server() -> Iterator[Address]:
    with serving("sync") as address:
        yield address


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.id, marks=[pytest.mark.slow] if case.slow else [])
        for case in CASES.values()
    ],
)
def test_what_is_right_passes(case: Case, address: Address, request: pytest.FixtureRequest) -> None:
    of_gearmand = request.node.callspec.params["address"] == "gearmand"
    profile = "gearmand-1.1" if of_gearmand else "document"
    judge = Judge(lambda case: server_kit(case, address, HAS, PATIENCE), HAS, profile, ALL)
    outcome = judge.judge(case)
    assert not outcome.is_bad, outcome
    if outcome.verdict is Verdict.UNSUPPORTED:
        assert "restart" in case.requires


@pytest.mark.parametrize(("name", "number"), [(n, i) for n in LIES for i in range(len(LIES[n]))])
def test_what_is_wrong_fails(name: str, number: int, job_server: Address) -> None:
    make = LIES[name][number]
    judge = Judge(
        lambda case: server_kit(case, job_server, HAS, IMPATIENCE, make()), HAS, selection=ALL
    )
    outcome = judge.judge(CASES[name])
    assert outcome.verdict is Verdict.FAIL, outcome
    assert outcome.expected
    assert outcome.got
    assert outcome.recording is not None
    assert outcome.recording.exchange


def test_each_case_can_fail() -> None:
    judged = {case.id for case in CASES.values() if case.level.value != "info"}
    assert not judged - LIES.keys()
    assert not LIES.keys() - CASES.keys()
