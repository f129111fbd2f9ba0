"""The cases for servers: JobServer and gearmand pass, and what is wrong fails."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

from gearman_sync.testing.conformance import expected
from gearman_sync.testing.conformance.capabilities import CAPABILITIES
from gearman_sync.testing.conformance.case import Verdict
from gearman_sync.testing.conformance.reports import Report
from gearman_sync.testing.conformance.running import Judge, Selection, StartedServer
from gearman_sync.testing.conformance.suites import SUITES
from tests.conformance.__main__ import DIFFERENCES, EXPECTED
from tests.conformance.kits import IMPATIENCE, PATIENCE, SURFACES, Address, server_kit, serving
from tests.conformance.lies.server_jobs import LIES as LIES_OF_JOBS
from tests.conformance.lies.server_work import LIES as LIES_OF_WORK
from tests.support.programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_sync.testing.conformance.case import Case
    from tests.support.servers import Gearmand

LIES: Final = {**LIES_OF_JOBS, **LIES_OF_WORK}
CASES: Final = SUITES["server"].cases
HAS: Final = frozenset(CAPABILITIES) - {"restart"}
ALL: Final = Selection(slow=True)
RESTARTING: Final = [case for case in CASES.values() if "restart" in case.requires]
#: How servers are started that can be started again, by the names of their programs.
STARTED: Final = {
    "JobServer": [
        sys.executable,
        *("-c", "from gearman_sync.cli import main; main()", "serve", "--port", "{port}"),
    ],
    "gearmand": ["gearmand", "--listen", "{host}", "--port", "{port}", "--log-file", "stderr"],
}


@pytest.fixture(
    scope="module",
    # All three adapters share an engine, and tests/contract runs each of them.
    params=[
        "sync",
        *(pytest.param(name, marks=pytest.mark.slow) for name in SURFACES[1:]),
        "gearmand",
    ],
)
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


@pytest.mark.parametrize("name", STARTED)
def test_what_is_right_passes_where_a_server_starts_again(name: str) -> None:
    program, *options = STARTED[name]
    server = StartedServer([require(program), *options])
    try:
        has = HAS | {"restart"}
        judge = Judge(
            lambda case: server_kit(case, server.address, has, PATIENCE, (), server.restart),
            has,
            "gearmand-1.1" if name == "gearmand" else "document",
            ALL,
        )
        for outcome in judge.run(RESTARTING):
            assert not outcome.is_bad, outcome
    finally:
        server.close()


@pytest.fixture(scope="module")
def started() -> Iterator[StartedServer]:
    server = StartedServer(STARTED["JobServer"])
    yield server
    server.close()


# Most wait for something that does not come.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [(n, i) for n in LIES for i in range(len(LIES[n]))])
def test_what_is_wrong_fails(name: str, number: int, request: pytest.FixtureRequest) -> None:
    make, has, restart = LIES[name][number], HAS, None
    if "restart" in CASES[name].requires:
        server: StartedServer = request.getfixturevalue("started")
        address, has, restart = server.address, has | {"restart"}, server.restart
    else:
        address = request.getfixturevalue("job_server")
    judge = Judge(
        lambda case: server_kit(case, address, has, IMPATIENCE, make(), restart),
        has,
        selection=ALL,
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


def test_what_the_job_server_does_differently_is_listed(job_server: Address) -> None:
    """As docs/reference/server.md has it: what an info case would be on gearmand."""
    reasons = expected.load(EXPECTED / DIFFERENCES, CASES)
    judge = Judge(lambda case: server_kit(case, job_server, HAS, PATIENCE), HAS, "gearmand-1.1")
    # The others are demanded of everybody.
    cases = [case for case in CASES.values() if case.known]
    report = Report("JobServer", "server", judge.profile, list(judge.run(cases)), reasons)
    assert not report.unexpected
    assert not report.stale
