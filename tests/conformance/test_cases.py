"""Rules for all cases: a short function, a demand, a source and a valid name."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import TYPE_CHECKING, Final

import pytest

from gearman_proto.testing.conformance.capabilities import CAPABILITIES
from gearman_proto.testing.conformance.case import INFO, PROFILES
from gearman_proto.testing.conformance.suites import SUITES
from gearman_sync.testing.conformance import expected
from tests.conformance.__main__ import DIFFERENCES, EXPECTED, PAGE

if TYPE_CHECKING:
    from gearman_proto.testing.conformance.case import Case

LONGEST: Final = 15
NAME: Final = re.compile(r"([a-z-]+/){1,2}[a-z-]+/[0-9]+")
#: Capabilities that clients may lack, in addition to those of servers.
OF_CLIENTS: Final = {"several"}


def lines_of(case: Case) -> int:
    """Return the number of lines in a case's function, without its head and docstring."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(case.check))).body
    assert isinstance(function, ast.FunctionDef)
    assert function.end_lineno is not None
    return function.end_lineno - function.body[1].lineno + 1


@pytest.mark.parametrize("side", SUITES)
def test_case_follows_the_rules(side: str) -> None:
    for name, case in SUITES[side].cases.items():
        assert NAME.fullmatch(name), name
        assert lines_of(case) <= LONGEST, name
        assert case.demand[-1] in ".?)", name
        assert case.source, name
        assert {*case.requires} <= CAPABILITIES.keys() | OF_CLIENTS, name
        assert {profile for some in case.known.values() for profile in some} <= PROFILES.keys(), (
            name
        )
        assert case.level is not INFO or len(case.known) > 1, name


def test_suites_have_many_cases() -> None:
    assert len(SUITES["server"].cases) >= 200
    assert len(SUITES["worker"].cases) >= 50
    assert len(SUITES["client"].cases) >= 60


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
