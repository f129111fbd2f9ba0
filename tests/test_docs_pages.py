"""The Python code in README.md and docs/ runs unchanged, and prints the output on the page.

The blocks of a page form one program, which runs against gearmand and against JobServer, each with
the workers of examples/docs_worker.py. The ```text block after a block contains its output, where
three dots match anything. A block that awaits represents the body of an async function and runs in
its own event loop, first asyncio, then trio. A page must not leave jobs in the queue.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import gearman_proto
from tests.support import (
    EmbeddedServer,
    Gearmand,
    Stunnel,
    eventually,
    make_certificates,
    nothing_imported,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import CodeType

    Server = Gearmand | EmbeddedServer

# A program that belongs to no package.
docs_worker: Any = importlib.import_module("examples.docs_worker")
ROOT = Path(__file__).parent.parent
PAGES = [
    page
    for page in [
        "README.md",
        *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
    ]
    if "```python\n" in (ROOT / page).read_text(encoding="utf-8")
]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass
class Block:
    """A block of Python, with its expected output."""

    code: str
    #: The number of the block's first line in the page.
    line: int
    output: str = ""


def blocks_of(page: str) -> list[Block]:
    blocks: list[Block] = []
    end = 0
    for match in FENCED.finditer(page):
        language, text = match.groups()
        if language == "python":
            blocks.append(Block(text, page.count("\n", 0, match.start(2))))
        elif language == "text":
            assert blocks, "output before any code"
            assert not page[end : match.start()].strip(), "output that is not right behind its code"
            blocks[-1].output = text
        end = match.end()
    return blocks


def backends_of(page: str) -> list[str]:
    """Return the event loops to run a page with. A page that does not await runs once."""
    text = (ROOT / page).read_text(encoding="utf-8")
    awaits = [compiled(block, page).co_flags & inspect.CO_COROUTINE for block in blocks_of(text)]
    return ["asyncio", "trio"] if any(awaits) else ["asyncio"]


def compiled(block: Block, name: str) -> CodeType:
    code = "\n" * block.line + block.code
    result: CodeType = compile(code, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return result


def matches(expected: str, printed: str) -> bool:
    pattern = "(?s:.*)".join(re.escape(part) for part in expected.split("..."))
    return re.fullmatch(pattern, printed) is not None


@pytest.fixture
def servers(launch: Callable[[], Server]) -> Iterator[list[Server]]:
    """localhost and otherhost, with workers."""
    servers = [launch(), launch()]
    tasks = [callback.__name__ for some in docs_worker.WORKERS.values() for callback in some]
    with docs_worker.working([server.address for server in servers]):
        eventually(
            lambda: all(server.counts(task)[2] for server in servers for task in tasks),
            "the workers",
        )
        yield servers


@pytest.fixture
def tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: list[Server]
) -> Iterator[Stunnel]:
    """A TLS tunnel to localhost. The working directory contains its certificates."""
    make_certificates(tmp_path)
    monkeypatch.chdir(tmp_path)
    program = Stunnel(tmp_path, servers[0])
    yield program
    program.kill()


@pytest.fixture(autouse=True)
def _no_gearman() -> Iterator[None]:
    """Undo a page's installation as `gearman`, the name of a peer that other tests import."""
    with nothing_imported():
        yield


def run(path: Path, places: dict[str, str], backend: str) -> None:
    """Run a page, replacing the addresses and ports in `places`."""
    names: dict[str, Any] = {"__name__": path.stem}
    for block in blocks_of(path.read_text(encoding="utf-8")):
        for written, real in places.items():
            block.code = block.code.replace(written, real)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            body = eval(compiled(block, str(path)), names)
            if body is not None:
                anyio.run(awaited, body, backend=backend)
        output = printed.getvalue()
        for written, real in places.items():
            output = output.replace(real, written)
        assert matches(block.output, output), (
            f"{path.name}:{block.line} prints\n{output}\nand not\n{block.output}"
        )


async def awaited(body: Awaitable[object]) -> None:
    await body


@pytest.mark.parametrize(
    "launch", ["gearmand", pytest.param("JobServer", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize(
    ("page", "backend"), [(page, backend) for page in PAGES for backend in backends_of(page)]
)
def test_page(
    page: str,
    backend: str,
    servers: list[Server],
    request: pytest.FixtureRequest,
    no_hang: None,
) -> None:
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    if backend != "trio" and "trio.run" not in text:  # trio keeps threads for a while.
        request.getfixturevalue("no_leak")
    places = {
        "localhost:4730": f"localhost:{servers[0].port}",
        "otherhost:4730": f"localhost:{servers[1].port}",
        '"port": 4730': f'"port": {servers[0].port}',
    }
    if "4731" in text:
        places["4731"] = str(request.getfixturevalue("tunnel").port)
    run(path, places, backend)
    eventually(lambda: not any(map(jobs_at, servers)), "the end of the jobs of the page")


def jobs_at(server: Server) -> list[str]:
    """Return the functions that have jobs."""
    lines = server.admin("status").splitlines()[:-1]
    return [line for line in lines if line.split("\t")[1:3] != ["0", "0"]]


@pytest.mark.parametrize("name", ["ClientEngine", "WorkerEngine", "ServerEngine", "AdminEngine"])
def test_core_page_calls_engines_with_their_first_parameters(name: str) -> None:
    page = (ROOT / "docs/reference/core.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    engine = getattr(gearman_proto, name)
    calls = [
        (method, given.split(", ") if given else [])
        for method, given in re.findall(r"`(\w+)\(([\w, ]*)\)`", section)
        if hasattr(engine, method)
    ]
    assert calls
    for method, given in calls:
        parameters = list(inspect.signature(getattr(engine, method)).parameters)[1:]
        assert parameters[: len(given)] == given, method
