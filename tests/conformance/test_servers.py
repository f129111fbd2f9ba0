"""JobServer and gearmand pass the cases for servers, over sockets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import pytest

from gearman_proto.testing.conformance.capabilities import CAPABILITIES
from gearman_proto.testing.conformance.case import Verdict
from gearman_proto.testing.conformance.judge import Selection
from gearman_proto.testing.conformance.suites import SUITES
from gearman_sync.testing.conformance import expected
from gearman_sync.testing.conformance.reports import Report
from gearman_sync.testing.conformance.running import Judge, StartedServer
from tests.conformance.__main__ import DIFFERENCES, EXPECTED
from tests.conformance.kits import PATIENCE, Address, server_kit, serving
from tests.support.programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gearman_proto.testing.conformance.case import Case
    from tests.support.servers import Gearmand

CASES: Final = SUITES["server"].cases
HAS: Final = frozenset(CAPABILITIES) - {"restart"}
ALL: Final = Selection(slow=True)
RESTARTING: Final = [case for case in CASES.values() if "restart" in case.requires]
#: Commands that start the servers that can be restarted, by program name.
STARTED: Final = {
    "JobServer": [
        sys.executable,
        *("-c", "from gearman_sync.cli import main; main()", "serve", "--port", "{port}"),
    ],
    "gearmand": ["gearmand", "--listen", "{host}", "--port", "{port}", "--log-file", "stderr"],
}


@pytest.fixture(scope="module", params=["JobServer", "gearmand"])
def address(request: pytest.FixtureRequest) -> Iterator[Address]:
    if request.param == "gearmand":
        gearmand: Gearmand = request.getfixturevalue("gearmand")
        yield gearmand.address
    else:
        with serving() as address:
            yield address


@pytest.fixture(scope="module")
def job_server() -> Iterator[Address]:
    with serving() as address:
        yield address


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.id, marks=[pytest.mark.slow] if case.slow else [])
        for case in CASES.values()
    ],
)
def test_server_passes_the_case(
    case: Case, address: Address, request: pytest.FixtureRequest
) -> None:
    of_gearmand = request.node.callspec.params["address"] == "gearmand"
    profile = "gearmand-1.1" if of_gearmand else "document"
    judge = Judge(lambda case: server_kit(case, address, HAS, PATIENCE), HAS, profile, ALL)
    outcome = judge.judge(case)
    assert not outcome.is_bad, outcome
    if outcome.verdict is Verdict.UNSUPPORTED:
        assert "restart" in case.requires


@pytest.mark.parametrize("name", STARTED)
def test_server_that_restarts_passes_the_case(name: str) -> None:
    program, *options = STARTED[name]
    server = StartedServer([require(program), *options])
    try:
        has = HAS | {"restart"}
        judge = Judge(
            lambda case: server_kit(case, server.address, has, PATIENCE, server.restart),
            has,
            "gearmand-1.1" if name == "gearmand" else "document",
            ALL,
        )
        for outcome in judge.run(RESTARTING):
            assert not outcome.is_bad, outcome
    finally:
        server.close()


def test_differences_of_the_job_server_are_listed(job_server: Address) -> None:
    """Report each documented difference; see docs/reference/server.md."""
    reasons = expected.load(EXPECTED / DIFFERENCES, CASES)
    judge = Judge(lambda case: server_kit(case, job_server, HAS, PATIENCE), HAS, "gearmand-1.1")
    # The other cases are required of every server.
    cases = [case for case in CASES.values() if case.known]
    report = Report("JobServer", "server", judge.profile, list(judge.run(cases)), reasons)
    assert not report.unexpected
    assert not report.stale
