"""docs/reference/errors.md lists every exception, every end of a request and every refusal."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
from pathlib import Path

import gearman_proto
from gearman_proto import errors
from tests.recordings import VECTORS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
SOURCES = [
    path.read_text(encoding="utf-8")
    for room in ("wire", "jobs", "engines")
    for path in Path(gearman_proto.__path__[0], room).rglob("*.py")
]
PACKAGES = ["gearman_proto", "gearman_sync", "gearman_anyio"]
KITS = [f"{package}.testing" for package in PACKAGES]


def tables_of(heading: str) -> list[list[list[str]]]:
    """Return the tables below a heading, each as its rows without the table's heading."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
        for table in tables
    ]


def names_in(table: list[list[str]]) -> list[str]:
    return [row[0].strip("`") for row in table]


def exceptions_of(name: str) -> set[type[BaseException]]:
    """Return the exceptions that a module exports, without Python's own."""
    module = importlib.import_module(name)
    exported = [getattr(module, each) for each in module.__all__]
    return {
        each
        for each in exported
        if isinstance(each, type)
        and issubclass(each, BaseException)
        and getattr(builtins, each.__name__, None) is not each
    }


def test_page_lists_the_exceptions_of_the_library() -> None:
    names = names_in(tables_of("Exceptions")[0])
    assert len(names) == len(set(names))
    assert set(names) == set(errors.__all__)
    for package in PACKAGES:
        assert {each.__name__ for each in exceptions_of(package)} <= set(names)
        assert importlib.import_module(package).errors.__all__ == errors.__all__


def test_page_lists_the_exceptions_of_the_kits() -> None:
    exported = {f"{kit}.{each.__name__}" for kit in KITS for each in exceptions_of(kit)}
    (table,) = tables_of("Exceptions of the testing kits")
    assert sorted(names_in(table)) == sorted(exported)


def test_page_lists_the_ends_of_requests() -> None:
    """The texts on the page are those of the core."""
    said = [
        node.value
        for source in SOURCES
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    (table,) = tables_of("Requests that end badly")
    for state, error, text, *_ in table:
        assert state in ("`JOB_FAILED`", "`JOB_UNKNOWN`")
        assert error == "None" or error.strip("`") in errors.__all__
        if text.startswith("`"):
            assert any(text.strip("`") in each for each in said), text


def test_page_lists_the_refusals() -> None:
    packets, lines = map(names_in, tables_of("Refusals of servers"))
    recorded = {
        code
        for recording in VECTORS.values()
        for element in recording.exchange
        for code in re.findall(r"RES ERROR '(\w+)", element.decoded)
    }
    source = "".join(SOURCES)
    sent = re.findall(r'(?:_refuse\(link, |InvalidRequest\()b"([A-Z_]+)"', source)
    own = re.findall(r'ServerError\("([A-Z_]+)"', source)
    assert sorted(packets) == sorted(recorded | {*sent, *own})
    replies = set(re.findall(r'b"ERR ([A-Z_]+)\b', source))
    assert sorted(lines) == sorted(replies | {"ERR"})
