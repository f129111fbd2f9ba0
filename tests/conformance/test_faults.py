"""Cases notice each fault in the table of packets and kinds, and the page shows the table."""

from __future__ import annotations

import pytest

from gearman_proto.testing.conformance.suites import SUITES
from tests.conformance.__main__ import PAGE
from tests.conformance.faults import excuse, search, table


@pytest.mark.slow
@pytest.mark.parametrize("side", SUITES)
def test_cases_notice_the_faults(side: str) -> None:
    results = list(search(side))
    assert not [str(fault) for fault, case in results if not (case or excuse(fault))]
    assert "\n".join(table(side, results)) in PAGE.read_text(encoding="utf-8")
