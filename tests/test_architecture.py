"""The code has the structure that docs/explanation/architecture.md describes."""

from __future__ import annotations

import ast
import graphlib
import importlib
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A script that belongs to no package.
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
#: The permitted imports.
ARROWS: Final[dict[str, set[str]]] = {
    GROUND: set(),
    "gearman_proto.wire": {GROUND},
    "gearman_proto.jobs": {GROUND, "gearman_proto.wire"},
    "gearman_proto.surface": {
        GROUND,
        "gearman_proto.wire",
        "gearman_proto.jobs",
        "gearman_proto.engines",
    },
    "gearman_proto.engines": {GROUND, "gearman_proto.wire", "gearman_proto.jobs"},
    "gearman_sync": CORE,
    "gearman_sync.cli": CORE
    | {"gearman_sync", "gearman_sync.runner", "gearman_sync.testing.conformance"},
    "gearman_sync.runner": CORE | {"gearman_sync"},
    "gearman_sync.compat": CORE | {"gearman_sync"},
    "gearman_anyio": CORE,
    "gearman_proto.testing": CORE,
    "gearman_sync.testing.conformance": CORE | {"gearman_proto.testing", "gearman_sync.testing"},
    "gearman_sync.testing": CORE | {"gearman_proto.testing", "gearman_sync"},
    "gearman_anyio.testing": CORE | {"gearman_proto.testing", "gearman_anyio"},
    "gearman_sync.pytest_plugin": CORE | {"gearman_sync", "gearman_sync.testing"},
}
#: Modules that do I/O, read a clock or are random, which the core must not import at run time.
FORBIDDEN: Final = {
    "anyio",
    "asyncio",
    "os",
    "random",
    "select",
    "selectors",
    "socket",
    "ssl",
    "threading",
    "time",
}
#: Slow imports that not every program needs. Each takes as long as a package of the core.
SLOW: Final = {"dataclasses", "hashlib", "inspect", "ipaddress", "ssl", "urllib.parse"}


def trees(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((SOURCES / package).rglob("*.py")):
        yield path, draw.tree_of(path)


def test_wings_of_the_engines_import_no_other_wing() -> None:
    wings = [f"gearman_proto.engines.{name}." for name in ("client", "worker", "server")]
    for module, ends in draw.import_graph().items():
        start = next((wing for wing in wings if module.startswith(wing)), None)
        reached = {wing for wing in wings for end in ends if f"{end}.".startswith(wing)}
        assert start is None or reached <= {start}, module


def test_imports_follow_the_layers() -> None:
    graph = draw.room_graph()
    assert graph.keys() <= ARROWS.keys()
    for start, ends in graph.items():
        assert ends <= ARROWS[start], start


def test_imports_have_no_cycle() -> None:
    graphlib.TopologicalSorter(draw.import_graph()).prepare()


def imported(tree: ast.AST) -> set[str]:
    """Return the top-level names of the modules that are imported at run time."""
    found = set()
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
        else:
            nodes += ast.iter_child_nodes(node)
    return found


def test_core_does_no_io() -> None:
    found = {(path.name, name) for path, tree in trees("gearman_proto") for name in imported(tree)}
    assert len(found) > 100
    assert not [(name, module) for name, module in found if module in FORBIDDEN]


def test_pictures_show_the_code() -> None:
    assert not [path.name for path, _, _ in draw.outdated()], "run python docs/draw.py"
    shown = re.findall(
        r"(?m)^!\[[^\]]+\]\(.*pictures/(\w+)-light\.svg\)$",
        "".join(page.read_text() for page in draw.FOLDER.parent.rglob("*.md")),
    )
    assert sorted(shown) == sorted(draw.PICTURES)


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("gearman_anyio", "gearman_sync"),
        ("gearman_sync", "gearman_anyio"),
        (
            "gearman_proto",
            ("gearman_anyio", "gearman_sync", "anyio", "asyncio", "select", "socket", "ssl"),
        ),
    ],
)
def test_import_loads_only_its_package(package: str, others: str | tuple[str, ...]) -> None:
    program = f"import sys, {package}; print([n for n in sys.modules if n.startswith({others!r})])"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=SOURCES, check=True
    )
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("package", ["gearman_proto", "gearman_sync"])
def test_import_loads_no_slow_module(package: str) -> None:
    program = f"import sys, {package}; print(sorted(sys.modules.keys() & {SLOW!r}))"
    # Disable `site`, which can load anything, for example to measure coverage. Without it, Python
    # finds no other package, so this also shows that the library needs none.
    ran = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        cwd=SOURCES,
        check=True,
    )
    assert ran.stdout == "[]\n"


def test_help_of_gearmanctl_imports_no_command() -> None:
    program = (
        "import sys; from gearman_sync.cli.app import COMMANDS, run; run(['--help']);"
        "modules = {f'gearman_sync.cli.{module}' for module, _ in COMMANDS.values()};"
        "print(sorted(sys.modules.keys() & {*modules, 'rich', 'ssl'}), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=SOURCES, check=True
    )
    assert ran.stderr == "[]\n"
