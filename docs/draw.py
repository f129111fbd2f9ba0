"""Draws the pictures of the documentation: docs/pictures/NAME-light.svg and NAME-dark.svg.

    python docs/draw.py            # draw the pictures that have changed; needs Graphviz's dot
    python docs/draw.py --check    # fail if a picture does not show the code

The pictures of architecture.md come from the imports and the tables of states, and the others from
this file. Each SVG file contains its source in the DOT language. The check compares the sources,
since each version of Graphviz draws them a little differently.
"""

from __future__ import annotations

import ast
import enum
import functools
import html
import math
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gearman_proto
from gearman_proto.engines.base import LINK_STATES
from gearman_proto.engines.server.links import SERVER_LIVES
from gearman_proto.engines.worker.link import PHASES, WORKER_LIVES
from gearman_proto.jobs.tracking import REQUEST_STATES
from gearman_sync.runner.engine import CHILD_STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

#: Where the packages are: a checkout, or where a wheel of them is installed.
SOURCES: Final = Path(gearman_proto.__file__).resolve().parent.parent
PACKAGES: Final = ("gearman_proto", "gearman_sync", "gearman_anyio")
#: The rooms in a package.
FOLDERS: Final = (
    "cli",
    "compat",
    "engines",
    "jobs",
    "runner",
    "surface",
    "testing",
    "wire",
)
#: Rooms within rooms.
INNER: Final = ("gearman_sync.testing.conformance",)
#: Where the pictures are.
FOLDER: Final = Path(__file__).parent / "pictures"
#: The colours of each theme: of lines and text, of the background, and of the nodes.
THEMES: Final = {
    "light": ("#1f2328", "#ffffff", "#eef2f7"),
    "dark": ("#d5dae0", "#131416", "#24292f"),
}


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
    if parts[1:] in (["__main__"], ["migrate"]):  # These modules run with `python -m`.
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


def draw_rooms() -> str:
    """Draw which folder imports from which, without the imports that follow from others."""
    graph = room_graph()
    arrows = []
    for start in sorted(graph):
        implied: set[str] = set()
        for end in graph[start]:
            implied |= _reachable(graph, end)
        arrows += [_arrow(start, end) for end in sorted(graph[start] - implied)]
    return _graph("TB", arrows)


def draw_states(table: Mapping[Any, Mapping[Any, str]]) -> str:
    """Draw a table of states: for each state, the next states and their causes."""
    lines = []
    for state in table:
        label = f"<b>{_name(state)}</b>"
        if isinstance(state, enum.Enum):
            label += f"<br/>{_lines(state.value)}"
        lines.append(f"{_quoted(_name(state))} [label=<{label}>]")
    for state, following in table.items():
        lines += [_arrow(_name(state), _name(end), cause) for end, cause in following.items()]
    return _graph("TB", lines)


def draw_conversation(participants: Sequence[str], messages: Sequence[tuple[str, str, str]]) -> str:
    """Draw messages between participants, from top to bottom.

    Args:
        participants: Their names, from left to right.
        messages: The sender, the receiver and the text of each message.
    """
    lines = ["layout=neato", "inputscale=72", "node [pin=true]"]
    columns = {name: 190 * number for number, name in enumerate(participants)}
    for name, x in columns.items():
        lines += [
            f'{_quoted(name)} [pos="{x},30"]',
            f'{_quoted(f"end of {name}")} [pos="{x},{-30 * len(messages)}", style=invis]',
            f"{_quoted(name)} -> {_quoted(f'end of {name}')} [style=dotted, arrowhead=none]",
        ]
    for number, (start, end, text) in enumerate(messages):
        ends = [_quoted(f"{name} {number}") for name in (start, end)]
        for name, point in zip((start, end), ends):
            lines.append(f'{point} [pos="{columns[name]},{-30 * number}", shape=point, width=0.01]')
        # Beside the sender, so that no line crosses the text.
        middle = columns[start] + math.copysign(95, columns[end] - columns[start])
        lines += [
            f"{ends[0]} -> {ends[1]}",
            f'{_quoted(text)} [pos="{middle:g},{8 - 30 * number}", shape=plain, style=""]',
        ]
    return _graph("TB", lines)


def _graph(direction: str, lines: Iterable[str]) -> str:
    return "\n".join((f"digraph {{\nrankdir={direction}", *lines, "}\n"))


def _arrow(start: str, end: str, text: str = "") -> str:
    label = f" [label=<{_lines(text)}>]" if text else ""
    return f"{_quoted(start)} -> {_quoted(end)}{label}"


def _name(state: Any) -> str:
    return state.name if isinstance(state, enum.Enum) else str(state)


def _quoted(text: str) -> str:
    return f'"{text}"'


def _lines(text: str) -> str:
    """Return `text` as HTML, broken into short lines."""
    return "<br/>".join(map(html.escape, textwrap.wrap(text, 26)))


PICTURES: Final[dict[str, Callable[[], str]]] = {
    "job": lambda: _graph(
        "LR",
        [
            _arrow("client", "job server", "the job: count-words, 'to be or not'"),
            _arrow("job server", "worker", "the job"),
            _arrow("worker", "job server", "the result: 4"),
            _arrow("job server", "client", "the result"),
        ],
    ),
    "call": lambda: draw_conversation(
        ("application", "driver", "engine", "server"),
        [
            ("application", "driver", "submit_job"),
            ("driver", "engine", "submit(requests, now)"),
            ("engine", "driver", "a Wait"),
            ("driver", "engine", "next_action()"),
            ("engine", "driver", "Connect(link)"),
            ("driver", "server", "connect"),
            ("driver", "engine", "connected(link, now)"),
            ("driver", "engine", "data_to_send(link, now)"),
            ("engine", "driver", "bytes of SUBMIT_JOB"),
            ("driver", "server", "write"),
            ("server", "driver", "read"),
            ("driver", "engine", "receive_data(link, bytes, now)"),
            ("engine", "driver", "wake: the Wait is done"),
            ("driver", "application", "the request, with its result"),
        ],
    ),
    "rooms": draw_rooms,
    "request": lambda: draw_states(REQUEST_STATES),
    "link": lambda: draw_states(LINK_STATES),
    "phases": lambda: draw_states(PHASES),
    "worker": lambda: draw_states(WORKER_LIVES),
    "server": lambda: draw_states(SERVER_LIVES),
    "child": lambda: draw_states(CHILD_STATES),
}


def path_of(name: str, theme: str) -> Path:
    """Return the file of a picture."""
    return FOLDER / f"{name}-{theme}.svg"


def drawn(source: str, theme: str) -> str:
    """Return the SVG of a graph, with its source as metadata."""
    ink, ground, fill = THEMES[theme]
    options = [
        *("-Tsvg", f"-Gbgcolor={ground}", "-Gpad=0.2", "-Nshape=box", "-Nstyle=rounded,filled"),
        *(f"-Nfillcolor={fill}", f"-Ecolor={ink}", f"-Ncolor={ink}"),
        *(f"-{kind}fontcolor={ink}" for kind in "NE"),
        *(f"-{kind}fontname=Helvetica" for kind in "NE"),
        *("-Nfontsize=12", "-Efontsize=11", "-Earrowsize=0.7"),
    ]
    command = ["dot", *options]
    svg = subprocess.run(  # noqa: S603 - the sources are those above
        command, input=source, capture_output=True, text=True, check=True
    ).stdout
    svg = svg[svg.index("<svg") :]
    # Comments and titles show the names of nodes as tooltips.
    svg = re.sub(r"<!--.*?-->\n|<title>.*?</title>\n", "", svg, flags=re.DOTALL)
    metadata = f"<metadata>{html.escape(source, quote=False)}</metadata>\n"
    return svg.replace("<g ", f"{metadata}<g ", 1)


def source_in(path: Path) -> str | None:
    """Return the source of the picture in a file, or None if the file or its source is missing."""
    if not path.exists():
        return None
    found = re.search("<metadata>(.*)</metadata>", path.read_text(), re.DOTALL)
    return html.unescape(found[1]) if found else None


def outdated() -> Iterator[tuple[Path, str, str]]:
    """Yield the file, the source and the theme of each picture that does not show the code."""
    for name, draw in PICTURES.items():
        source = draw()
        for theme in THEMES:
            if source_in(path_of(name, theme)) != source:
                yield path_of(name, theme), source, theme


def main() -> None:
    """Draw, or check."""
    if sys.argv[1:] == ["--check"]:
        if names := [path.name for path, _, _ in outdated()]:
            sys.exit(f"{', '.join(names)}: run python docs/draw.py, which needs Graphviz")
        return
    FOLDER.mkdir(exist_ok=True)
    for path, source, theme in outdated():
        path.write_text(drawn(source, theme))


if __name__ == "__main__":
    main()
