"""Rules for all cases: a demand, a source and a valid name."""

from __future__ import annotations

import re
from typing import Final

import pytest

from gearman_proto.testing.conformance.capabilities import CAPABILITIES
from gearman_proto.testing.conformance.case import INFO, PROFILES
from gearman_proto.testing.conformance.suites import SUITES
from gearman_sync.testing.conformance import expected
from tests.conformance.__main__ import DIFFERENCES, EXPECTED, PAGE

NAME: Final = re.compile(r"([a-z-]+/){1,2}[a-z-]+/[0-9]+")
#: Capabilities that clients may lack, in addition to those of servers.
OF_CLIENTS: Final = {"several"}


@pytest.mark.parametrize("side", SUITES)
def test_case_follows_the_rules(side: str) -> None:
    for name, case in SUITES[side].cases.items():
        assert NAME.fullmatch(name), name
        assert case.demand[-1] in ".?)", name
        assert case.source, name
        assert {*case.requires} <= CAPABILITIES.keys() | OF_CLIENTS, name
        assert {profile for some in case.known.values() for profile in some} <= PROFILES.keys(), (
            name
        )
        assert case.level is not INFO or len(case.known) > 1, name


def test_page_and_lists_name_only_existing_cases() -> None:
    names = {name for suite in SUITES.values() for name in suite.cases}
    # Names of cases and of files have the same form.
    told = set(re.findall(r"`((?:[a-z-]+/){2,3}[0-9]+)`", PAGE.read_text(encoding="utf-8")))
    assert len(told) > 100
    # One name is the example of how to write a case.
    assert told - names <= {"submit/answers/1"}
    for path in EXPECTED.iterdir():
        side = path.name.partition("-")[0] if path.name != DIFFERENCES else "server"
        assert expected.load(path, SUITES[side].cases)
