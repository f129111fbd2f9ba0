"""gearmand passes the cases for servers, over sockets, and JobServer those with a restart."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Final

import pytest

import gearman_sync
from gearman_proto.testing.conformance.capabilities import CAPABILITIES
from gearman_proto.testing.conformance.case import Verdict
from gearman_proto.testing.conformance.judge import Selection
from gearman_proto.testing.conformance.server_kit import ServerKit
from gearman_proto.testing.conformance.suites import SUITES
from gearman_sync.testing.conformance import expected
from gearman_sync.testing.conformance.places import SocketServerPlace
from gearman_sync.testing.conformance.reports import Report
from gearman_sync.testing.conformance.running import Judge, StartedServer
from tests.conformance.__main__ import DIFFERENCES, EXPECTED
from tests.support.programs import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.testing.conformance.case import Case
    from tests.support.servers import Gearmand

CASES: Final = SUITES["server"].cases
#: Seconds to wait for an answer.
PATIENCE: Final = 20.0
_TIMES: Final = itertools.count(1)
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


def kit_of(
    case: Case,
    address: tuple[str, int],
    has: frozenset[str],
    restart: Callable[[], None] | None = None,
) -> ServerKit:
    """Return the kit of a case. A failing run may leave jobs in the queue of its function."""
    place = SocketServerPlace(address, PATIENCE, restart)
    return ServerKit(place, f"{next(_TIMES)}-conformance-{case.id}", PATIENCE, has)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.id, marks=[pytest.mark.slow] if case.slow else [])
        for case in CASES.values()
    ],
)
def test_gearmand_passes_the_case(case: Case, gearmand: Gearmand) -> None:
    judge = Judge(lambda case: kit_of(case, gearmand.address, HAS), HAS, "gearmand-1.1", ALL)
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
            lambda case: kit_of(case, server.address, has, server.restart),
            has,
            "gearmand-1.1" if name == "gearmand" else "document",
            ALL,
        )
        outcomes = list(judge.run(RESTARTING))
        assert len(outcomes) > 1
        assert not [outcome for outcome in outcomes if outcome.is_bad]
    finally:
        server.close()


def test_differences_of_the_job_server_are_listed() -> None:
    """Report each documented difference; see docs/reference/server.md."""
    reasons = expected.load(EXPECTED / DIFFERENCES, CASES)
    with gearman_sync.JobServer() as server:
        address = server.address[0], server.address[1]
        judge = Judge(lambda case: kit_of(case, address, HAS), HAS, "gearmand-1.1")
        # The other cases are required of every server.
        cases = [case for case in CASES.values() if case.known]
        report = Report("JobServer", "server", judge.profile, list(judge.run(cases)), reasons)
    assert not report.unexpected
    assert not report.stale
