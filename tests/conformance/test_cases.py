"""What holds for each case: it is short, it says what it demands and whence, and has a name."""

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
#: What clients may lack, beside what servers may.
OF_CLIENTS: Final = {"several"}


def lines_of(case: Case) -> int:
    """How many lines its function has, but for its head and its docstring."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(case.check))).body
    assert isinstance(function, ast.FunctionDef)
    assert function.end_lineno is not None
    return function.end_lineno - function.body[1].lineno + 1


@pytest.mark.parametrize("side", SUITES)
def test_each_case(side: str) -> None:
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


def test_there_are_many() -> None:
    assert len(SUITES["server"].cases) >= 200
    assert len(SUITES["worker"].cases) >= 50
    assert len(SUITES["client"].cases) >= 60


def test_what_is_written_about_cases_names_those_that_there_are() -> None:
    names = {name for suite in SUITES.values() for name in suite.cases}
    # Cases and files are both written like that.
    told = set(re.findall(r"`((?:[a-z-]+/){2,3}[0-9]+)`", PAGE.read_text(encoding="utf-8")))
    assert len(told) > 100
    # One is the example of how to write a case.
    assert told - names <= {"submit/answers/1"}
    for path in EXPECTED.iterdir():
        side = path.name.partition("-")[0] if path.name != DIFFERENCES else "server"
        assert expected.load(path, SUITES[side].cases)
