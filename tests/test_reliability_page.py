"""Every cell of the tables in docs/explanation/reliability.md names existing tests."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from gearman_proto.testing.conformance.suites import SUITES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")

# The keys at the end of a cell or within it: (W1) or (W1, V22).
KEYS = re.compile(r"\(([A-Z]\d+(?:, [A-Z]\d+)*)\)")
NAMED = re.compile(r"^\* ([A-Z]\d+) `([^`]+)`$", re.MULTILINE)
# The text of cells where gearmand 2.0.0 behaves like gearmand 1.1.21, whose cell names the tests.
AS_BEFORE = "as 1.1.21"


def rows_of(page: str) -> list[list[str]]:
    """Return the rows of all tables without their headings."""
    rows = []
    lines = page.splitlines()
    for before, line in zip(["", *lines], lines):
        if not line.startswith("|") or set(line) <= set("|- "):
            continue
        if before.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def keys_of(text: str) -> list[str]:
    return [key for keys in KEYS.findall(text) for key in keys.split(", ")]


ROWS = rows_of(PAGE)
TESTS = dict(NAMED.findall(PAGE))


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_each_cell_names_a_test(row: list[str]) -> None:
    for cell in row[1:]:
        assert keys_of(cell) or cell == AS_BEFORE, f"no test is named: {cell}"


def test_keys_have_tests_and_tests_have_keys() -> None:
    named = [key for key, _ in NAMED.findall(PAGE)]
    assert len(named) == len(TESTS), "a key is there twice"
    assert set(keys_of("\n".join(" | ".join(row) for row in ROWS))) == set(TESTS)
    assert len(set(TESTS.values())) == len(TESTS), "a test is there twice"


@functools.cache
def names_in(file: Path) -> set[str | None]:
    """Return the functions and classes of a module."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return {getattr(node, "name", None) for node in body}


@pytest.mark.parametrize("key", TESTS)
def test_named_tests_exist(key: str) -> None:
    path, _, name = TESTS[key].partition("::")
    name, _, case = name.partition("[")
    file = ROOT / path
    assert file.is_file(), f"there is no {path}"
    if file.suffix == ".py":
        assert name in names_in(file), f"{path} has no {name}"
        assert name.startswith("test_")
    if case:
        assert case.removesuffix("]") in SUITES["server"].cases
