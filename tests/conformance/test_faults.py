"""Some case notices each fault of the table of packets and kinds."""

from __future__ import annotations

import pytest

from gearman_proto.testing.conformance.suites import SUITES
from tests.conformance.faults import excuse, search


@pytest.mark.parametrize("side", SUITES)
def test_cases_notice_the_faults(side: str) -> None:
    missed = [fault for fault, case in search(side) if not case]
    assert not [str(fault) for fault in missed if not excuse(fault)]
    assert missed
