"""The structure that docs/explanation/architecture.md describes is that of the code."""

from __future__ import annotations

import ast
import graphlib
import importlib
import io
import subprocess
import sys
import tokenize
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

# It is a script, and in no package.
draw: Any = importlib.import_module("docs.draw")
SOURCES: Final = draw.SOURCES
GROUND: Final = "gearman_proto (ground)"
CORE: Final = {
    GROUND,
    "gearman_proto.wire",
    "gearman_proto.jobs",
    "gearman_proto.surface",
    "gearman_proto.engines",
}
#: Who may import whom.
ARROWS: Final[dict[str, set[str]]] = {
    GROUND: set(),
    "gearman_proto.wire": {GROUND},
    "gearman_proto.jobs": {GROUND, "gearman_proto.wire"},
    "gearman_proto.surface": {GROUND, "gearman_proto.wire", "gearman_proto.jobs"},
    "gearman_proto.engines": {GROUND, "gearman_proto.wire", "gearman_proto.jobs"},
    "gearman_sync": CORE,
    "gearman_sync.cli": CORE | {"gearman_sync", "gearman_sync.testing.conformance"},
    "gearman_sync.compat": CORE | {"gearman_sync"},
    "gearman_anyio": CORE,
    "gearman_proto.testing": CORE,
    "gearman_sync.testing.conformance": CORE | {"gearman_proto.testing", "gearman_sync.testing"},
    "gearman_sync.testing": CORE | {"gearman_proto.testing", "gearman_sync"},
    "gearman_anyio.testing": CORE | {"gearman_proto.testing", "gearman_anyio"},
    "gearman_sync.pytest_plugin": CORE
    | {"gearman_sync", "gearman_sync.testing", "gearman_anyio", "gearman_anyio.testing"},
}
#: What does I/O, or reads a clock, is not for the core.
FORBIDDEN: Final = {
    "anyio",
    "asyncio",
    "os",
    "select",
    "selectors",
    "socket",
    "ssl",
    "threading",
    "time",
}
#: What takes long to import, and is not needed by every program: each of these takes as long as a
#: room of the core.
SLOW: Final = {"dataclasses", "hashlib", "inspect", "ipaddress", "ssl", "urllib.parse"}
#: Lines of a module, unless one machine and one table fill it and its first lines say so.
LONGEST: Final = 700
#: Lines in a row that two adapters may share, but for imports and signatures.
LONGEST_RUN: Final = 5
#: What an adapter may have, in lines of code, for each line of the core.
ADAPTERS_SHARE: Final = 0.28


#: What is in the package of an adapter beside it.
PROGRAMS: Final = {"cli", "compat", "migrate.py", "pytest_plugin.py", "testing"}


def trees(package: str, *, without: Collection[str] = ()) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((SOURCES / package).rglob("*.py")):
        if not set(path.relative_to(SOURCES).parts) & set(without):
            yield path, draw.tree_of(path)


def test_arrows_run_down() -> None:
    graph = draw.room_graph()
    assert graph.keys() <= ARROWS.keys()
    for start, ends in graph.items():
        assert ends <= ARROWS[start], start


def test_there_is_no_circle() -> None:
    graphlib.TopologicalSorter(draw.import_graph()).prepare()


def imported(tree: ast.AST, *, at_run_time: bool = False) -> set[str]:
    """The first names of the modules that are imported, or of those at run time."""
    found = set()
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        if at_run_time and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
        else:
            nodes += ast.iter_child_nodes(node)
    return found


def test_the_core_does_no_input_or_output() -> None:
    found = {(path.name, name) for path, tree in trees("gearman_proto") for name in imported(tree)}
    assert len(found) > 100
    assert not [(name, module) for name, module in found if module in FORBIDDEN]


def test_the_core_is_given_its_chance() -> None:
    for path, tree in trees("gearman_proto"):
        assert "random" not in imported(tree, at_run_time=True), path


@pytest.mark.parametrize(
    ("program", "is_found"),
    [
        ("if TYPE_CHECKING:\n    import random", False),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import random", True),
        ("if not TYPE_CHECKING:\n    import random", True),
        ("import heapq, random as chance", True),
        ("def draw():\n    from random import choice", True),
    ],
)
def test_imports_at_run_time_are_found(program: str, is_found: bool) -> None:
    tree = ast.parse(program)
    assert ("random" in imported(tree, at_run_time=True)) == is_found
    assert "random" in imported(tree)


def test_the_pictures_are_those_of_the_code() -> None:
    page = draw.PAGE.read_text()
    drawn = draw.redrawn(page)
    assert drawn == page, "run python docs/draw.py"
    assert drawn.count("```mermaid") == len(draw.PICTURES)


@pytest.mark.parametrize("package", draw.PACKAGES)
def test_modules_are_small(package: str) -> None:
    for path, tree in trees(package):
        length = path.read_text().count("\n")
        says_why = "One machine and its table" in (ast.get_docstring(tree) or "")[:300]
        assert (length > LONGEST) == says_why, (path, length)


def lines_of_code(package: str, *, without: Collection[str] = ()) -> int:
    """Lines that hold code: no comments, documentation and blank lines."""
    count = 0
    for path, tree in trees(package, without=without):
        documentation: set[int] = set()
        for node in ast.walk(tree):
            documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            if isinstance(node, documented) and ast.get_docstring(node) is not None:
                documentation.update(range(node.body[0].lineno, _end(node.body[0]) + 1))
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type in (tokenize.OP, tokenize.NAME, tokenize.NUMBER, tokenize.STRING):
                lines.update(range(token.start[0], token.end[0] + 1))
        count += len(lines - documentation)
    return count


def _end(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno


def test_adapters_are_thin() -> None:
    core = lines_of_code("gearman_proto", without={"testing"})
    for adapter in ("gearman_sync", "gearman_anyio"):
        share = lines_of_code(adapter, without=PROGRAMS) / core
        assert 0.1 < share <= ADAPTERS_SHARE, (adapter, share)


def bodies(path: Path) -> Iterator[list[str]]:
    """The lines, documentation too, of what is no import and no signature, piece by piece."""
    between: set[int] = set()
    for node in ast.walk(draw.tree_of(path)):
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
        for path, _ in trees(package, without=PROGRAMS)
        for piece in bodies(path)
        for start in range(len(piece) - length + 1)
    }


def test_nothing_stands_in_both_adapters() -> None:
    blocking, awaited = (runs(each, LONGEST_RUN + 1) for each in ("gearman_sync", "gearman_anyio"))
    assert not {run: blocking[run].name for run in blocking.keys() & awaited}


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("gearman_anyio", "gearman_sync"),
        ("gearman_sync", "gearman_anyio"),
        ("gearman_proto", ("gearman_anyio", "gearman_sync", "anyio", "ssl")),
    ],
)
def test_what_an_import_loads(package: str, others: str | tuple[str, ...]) -> None:
    program = f"import sys, {package}; print([n for n in sys.modules if n.startswith({others!r})])"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=SOURCES, check=True
    )
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("package", ["gearman_proto", "gearman_sync"])
def test_an_import_loads_nothing_that_is_slow(package: str) -> None:
    program = f"import sys, {package}; print(sorted(sys.modules.keys() & {SLOW!r}))"
    # Without `site`, which may load anything, to measure coverage, say.
    ran = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        cwd=SOURCES,
        check=True,
    )
    assert ran.stdout == "[]\n"


def private_accesses() -> Iterator[tuple[str, int, str]]:
    """Accesses to the underscored attributes of other objects in the core."""
    # The testing kit's audit looks into engines.
    for path, tree in trees("gearman_proto", without={"testing"}):
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
                continue
            own = ast.unparse(node.value) in ("self", "cls", "super()")
            if not own and not node.attr.startswith("__"):
                yield path.name, node.lineno, ast.unparse(node)


def test_private_parts_stay_private() -> None:
    assert len(list(private_accesses())) <= 10


def booleans() -> Iterator[tuple[str, str]]:
    """The boolean attributes of links, engines, waits and connections."""
    for path, tree in [*trees("gearman_proto/engines"), *trees("gearman_proto/wire")]:
        for kind in ast.walk(tree):
            if not isinstance(kind, ast.ClassDef) or path.name in ("packets.py", "text.py"):
                continue
            if kind.name == "Row":  # A row of a table has no state.
                continue
            init = [f for f in kind.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"]
            flags = {
                argument.arg
                for function in init
                for argument in (*function.args.args, *function.args.kwonlyargs)
                if argument.annotation is not None and ast.unparse(argument.annotation) == "bool"
            }
            found = set()
            for node in ast.walk(kind):
                if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "bool":
                    found.add(ast.unparse(node.target))
                elif isinstance(node, ast.Assign) and (
                    ast.unparse(node.value) in {"True", "False", *flags}
                    or isinstance(node.value, ast.Compare)
                ):
                    found.update(ast.unparse(target) for target in node.targets)
            yield from sorted((kind.name, name) for name in found if name.startswith("self."))


def test_states_are_not_in_flags() -> None:
    found = list(booleans())
    assert 10 < len(found) <= 25, found
