"""The Python in README.md and docs/*.md runs as it stands, and prints what the pages say.

The blocks of a page are one program, against a gearmand with workers. What a block prints is in the
```text block behind it, where three dots stand for anything. A block that awaits something stands
for the body of an async function: it has an event loop to itself, of asyncio and then of trio.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from tests.support import (
    Failed,
    Gearmand,
    Job,
    Raised,
    Stunnel,
    Worker,
    make_certificates,
    reverse,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import CodeType

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass
class Block:
    """A block of Python, and what it prints."""

    code: str
    #: The line of the page that it begins at.
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
    """The event loops that a page is run in. A page that awaits nothing is run once."""
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


# What the workers do.


def convert(job: Job) -> bytes:
    job.send_status(1, 2)
    job.send_data(b"page 1")
    job.send_warning(b"no title")
    job.send_status(2, 2)
    job.send_data(b"page 2")
    return b"2 pages"


def slow(job: Job) -> bytes:
    time.sleep(0.5)
    return job.data


def divide(job: Job) -> bytes:
    raise Raised(b"ZeroDivisionError")


def refuse(job: Job) -> bytes:
    """As this library's own worker does by default."""
    job.send_warning(b"ValueError: not today")
    raise Failed


def add(job: Job) -> bytes:
    return json.dumps({"sum": sum(json.loads(job.data))}).encode()


@pytest.fixture
def servers(
    start_gearmand: Callable[..., Gearmand], start_worker: Callable[..., Worker]
) -> list[Gearmand]:
    """localhost and otherhost, with workers."""
    servers = [start_gearmand(), start_gearmand()]
    functions = (add, convert, divide, refuse, reverse)
    for server in servers:
        start_worker(server.address, {function.__name__: function for function in functions})
        start_worker(server.address, {"slow": slow})
    return servers


@pytest.fixture
def tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: list[Gearmand]
) -> Iterator[Stunnel]:
    """TLS in front of localhost, and a working directory with the certificates for it."""
    make_certificates(tmp_path)
    monkeypatch.chdir(tmp_path)
    program = Stunnel(tmp_path, servers[0])
    yield program
    program.kill()


def run(path: Path, places: dict[str, str], backend: str) -> None:
    """Run a page. `places` are what it writes, and what is meant: addresses and ports."""
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
    ("page", "backend"), [(page, backend) for page in PAGES for backend in backends_of(page)]
)
def test_page(
    page: str,
    backend: str,
    servers: list[Gearmand],
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


def test_there_are_pages() -> None:
    assert len(PAGES) > 1


def test_what_is_awaited() -> None:
    assert backends_of("docs/anyio.md") == ["asyncio", "trio"]
    assert backends_of("docs/client.md") == ["asyncio"]


def test_what_a_page_says() -> None:
    page = "# Title\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n```sh\nls\n```\n"
    assert blocks_of(page) == [Block("print(1)\n", 3, "1\n")]


@pytest.mark.parametrize(
    ("expected", "printed", "good"),
    [
        ("", "", True),
        ("", "1\n", False),
        ("1\n", "1\n", True),
        ("1\n", "1\n2\n", False),
        ("a...\nb\n", "axyz\nb\n", True),
        ("a...\nb\n", "axyz\nc\n", False),
        ("a.\n", "ab\n", False),
    ],
)
def test_comparing(expected: str, printed: str, good: bool) -> None:
    assert matches(expected, printed) is good
