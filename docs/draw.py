"""Draws docs/explanation/architecture.md's pictures, from the imports and the tables of states.

    python docs/draw.py            # draw them anew
    python docs/draw.py --check    # fail if they are not those of the code

A picture stands between two comments, ``<!-- drawn: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import ast
import enum
import functools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gearman_proto
from gearman_proto.engines.base import LINK_STATES
from gearman_proto.engines.server.links import SERVER_LIVES
from gearman_proto.engines.worker.link import (
    PHASES,
    WORKER_LIVES,
)
from gearman_proto.jobs.tracking import REQUEST_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Where the packages are: a checkout, or where a wheel of them is installed.
SOURCES: Final = Path(gearman_proto.__file__).resolve().parent.parent
PACKAGES: Final = ("gearman_proto", "gearman_sync", "gearman_anyio")
#: The rooms in a package.
FOLDERS: Final = (
    "cli",
    "compat",
    "engines",
    "jobs",
    "surface",
    "testing",
    "wire",
)
#: Rooms within rooms.
INNER: Final = ("gearman_sync.testing.conformance",)
PAGE: Final = Path(__file__).parent / "explanation" / "architecture.md"
_BLOCK: Final = re.compile(r"(<!-- drawn: ([a-z ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return what a file says."""
    return ast.parse(path.read_text())


@functools.cache
def modules() -> dict[str, Path]:
    """Return the modules of all packages: name -> file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((SOURCES / package).rglob("*.py")):
            parts = path.relative_to(SOURCES).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(name: str, path: Path, known: Mapping[str, object]) -> set[str]:
    """Return which of the `known` modules the module `name` imports, for type checkers too."""
    found = set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            start = ".".join(base) if node.level else ""
            module = ".".join(part for part in (start, node.module or "") if part)
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                found.add(whole if whole in known else module)
    return {module for module in found if module in known and module != name}


@functools.cache
def import_graph() -> dict[str, set[str]]:
    """Return each module with the modules that it imports."""
    known = modules()
    return {name: imports(name, path, known) for name, path in known.items()}


def room(module: str) -> str:
    """Return the room that a module is in: a folder, the core's ground, or the pytest plugin."""
    parts = module.split(".")
    if parts[1:] in (["__main__"], ["migrate"]):  # What is behind `python -m`.
        return f"{parts[0]}.cli"
    if parts[1:] == ["pytest_plugin"]:
        return module
    if (inner := ".".join(parts[:3])) in INNER:
        return inner
    if len(parts) > 1 and parts[1] in FOLDERS:
        return ".".join(parts[:2])
    if len(parts) > 1 and parts[0] == "gearman_proto":
        return "gearman_proto (ground)"
    return parts[0]


def room_graph() -> dict[str, set[str]]:
    """Return each room with the rooms that it imports from; public names are not followed."""
    graph: dict[str, set[str]] = {}
    for module, imported in import_graph().items():
        if module == "gearman_proto":
            continue  # It only gathers the public names, which are those of the rooms below.
        start = room(module)
        graph.setdefault(start, set()).update(
            room(other) for other in imported if other != "gearman_proto"
        )
    return {start: ends - {start} for start, ends in graph.items()}


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    for end in graph.get(start, ()):
        found |= {end} | _reachable(graph, end)
    return found


def draw_rooms() -> Iterator[str]:
    """Yield the lines of the picture of who imports whom, without the arrows that others imply."""
    graph = room_graph()
    yield "graph TD"
    for start in sorted(graph):
        implied: set[str] = set()
        for end in graph[start]:
            implied |= _reachable(graph, end)
        for end in sorted(graph[start] - implied):
            yield f"    {_node(start)} --> {_node(end)}"


def draw_states(table: Mapping[Any, Mapping[Any, str]]) -> Iterator[str]:
    """Yield the lines of the picture of a table of states."""
    yield "stateDiagram-v2"
    for state in table:
        if isinstance(state, enum.Enum):
            yield f"    {_name(state)}: {_name(state)}<br>{_text(state.value)}"
    for state, following in table.items():
        for other, reason in following.items():
            yield f"    {_name(state)} --> {_name(other)}: {_text(reason)}"


def _name(state: Any) -> str:
    return state.name if isinstance(state, enum.Enum) else str(state)


def _node(room: str) -> str:
    identifier = re.sub(r"\W+", "_", room).strip("_")
    return f'{identifier}["{room}"]'


def _text(words: str) -> str:
    # A semicolon ends a statement of Mermaid.
    return words.replace(";", "#59;")


PICTURES: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "rooms": draw_rooms,
    "request": lambda: draw_states(REQUEST_STATES),
    "link": lambda: draw_states(LINK_STATES),
    "phases": lambda: draw_states(PHASES),
    "worker": lambda: draw_states(WORKER_LIVES),
    "server": lambda: draw_states(SERVER_LIVES),
}


def redrawn(page: str) -> str:
    """Return the text of a page with its pictures drawn anew."""

    def draw(block: re.Match[str]) -> str:
        picture = "\n".join(PICTURES[block[2]]())
        return f"{block[1]}```mermaid\n{picture}\n```\n{block[4]}"

    return _BLOCK.sub(draw, page)


def main() -> None:
    """Draw, or check."""
    before = PAGE.read_text()
    after = redrawn(before)
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(after)
    elif after != before:
        sys.exit(f"{PAGE.name} is not drawn from this code: run python docs/draw.py")


if __name__ == "__main__":
    main()
