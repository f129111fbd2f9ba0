"""What the packages import, and how much of them is the same."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gearman_proto

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(gearman_proto.__file__).parents[1]
NEVER_IN_THE_CORE: Final = {
    *("asyncio", "select", "selectors", "socket", "ssl", "threading", "time"),
    *("anyio", "trio", "gearman_sync", "gearman_anyio"),
}
# Lines in a row that two adapters may share.
LONGEST_RUN: Final = 5


def modules(package: str) -> list[Path]:
    """The modules of a package, but for the command line and what is for tests."""
    found = (ROOT / package).rglob("*.py")
    return sorted(path for path in found if not {"cli", "testing"} & {*path.parts})


def imported(path: Path) -> Iterator[str]:
    """The top-level names that a module imports, for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def test_the_core_imports_nothing_that_waits() -> None:
    for path in modules("gearman_proto"):
        assert not NEVER_IN_THE_CORE & {*imported(path)}, path


def test_the_surface_knows_no_engines() -> None:
    for path in modules("gearman_proto/surface"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert "engines" not in (node.module or ""), path
                assert "engines" not in [alias.name for alias in node.names], path


def test_adapters_do_not_know_each_other() -> None:
    for package, other in (
        ("gearman_anyio", "gearman_sync"),
        ("gearman_sync", "gearman_anyio"),
    ):
        for path in modules(package):
            assert other not in imported(path), path
        program = (
            f"import sys, {package}; print([name for name in sys.modules if name.startswith("
            f"{other!r})])"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
        )
        assert ran.stdout == "[]\n"


# How much of the adapters is the same.


def lines_of_code(path: Path) -> dict[int, str]:
    """The lines that hold code, by number: no blank lines, comments or documentation."""
    source = path.read_text()
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                left_out.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    kept: set[int] = set()
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*blank, tokenize.ENDMARKER):
            kept.update(range(token.start[0], token.end[0] + 1))
    text = source.splitlines()
    return {number: text[number - 1].strip() for number in sorted(kept - left_out)}


def bodies(path: Path) -> Iterator[list[str]]:
    """The lines, documentation too, of what is no import and no signature, piece by piece."""
    between: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) != "__all__":
            continue
        if isinstance(node, (ast.Assign, ast.Import, ast.ImportFrom)):
            between.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            between.update(range(node.lineno, node.body[0].lineno))
    piece: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if number in between:
            yield piece
            piece = []
        elif line.strip():
            piece.append(line.strip())
    yield piece


def runs(package: str, length: int) -> dict[tuple[str, ...], Path]:
    """All runs of so many lines in a package."""
    return {
        tuple(piece[start : start + length]): path
        for path in modules(package)
        for piece in bodies(path)
        for start in range(len(piece) - length + 1)
    }


def test_nothing_stands_in_both_adapters() -> None:
    blocking, awaited = (runs(each, LONGEST_RUN + 1) for each in ("gearman_sync", "gearman_anyio"))
    assert not {run: blocking[run].name for run in blocking.keys() & awaited}


def test_adapters_are_thin() -> None:
    core, *adapters = (
        sum(len(lines_of_code(path)) for path in modules(package))
        for package in ("gearman_proto", "gearman_sync", "gearman_anyio")
    )
    assert all(size <= 0.28 * core for size in adapters), (core, adapters)
