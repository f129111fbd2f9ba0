"""What docs/reference/gearmanctl.md and docs/howto/workers.md show is what is on the screen.

Their ```console blocks are typed into a shell in a terminal, in the order of a page, and what is on
the screen then has to be the block, where three dots stand for anything. Behind the comment
``<!-- it runs -->`` the last command of a block is not over: the screen is as shown at some moment,
and the command goes on until the end of the page, or until its jobs end.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import socket
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pyte")
pytest.importorskip("rich")
pytest.importorskip("typer")

from gearman_sync.testing import ScriptedJob, ScriptedWorker
from tests.support import PATIENCE, Gearmand, eventually
from tests.test_docs_pages import jobs_at, matches

from .support import ROOT
from .terminal import PROMPT, Shell, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = [ROOT / "docs" / "reference" / "gearmanctl.md", ROOT / "docs" / "howto" / "workers.md"]
CONSOLE = re.compile(r"(<!-- it runs -->\n)?^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# The name of this machine, on the page.
HOST = "myhost"


@dataclass
class Block:
    """What a page shows of a terminal."""

    text: str
    #: The line of the page that it begins at.
    line: int
    #: Whether its last command goes on.
    runs: bool = False

    @property
    def commands(self) -> list[str]:
        lines = self.text.splitlines()
        return [line.removeprefix(PROMPT) for line in lines if line.startswith(PROMPT)]

    @property
    def is_screen(self) -> bool:
        """Whether its command has the whole terminal to itself, after the first line."""
        return self.runs and self.commands[-1].startswith("gearmanctl top")


def blocks_of(page: str) -> list[Block]:
    return [
        Block(match[2], page.count("\n", 0, match.start(2)), bool(match[1]))
        for match in CONSOLE.finditer(page)
    ]


def is_shown(block: Block, screen: str) -> bool:
    """Whether a block is what is on the screen."""
    expected = block.text.partition("\n")[2] if block.is_screen else block.text
    if HOST in block.text:
        # The widths of columns depend on how long its real name is.
        expected, screen = (re.sub(r"( |─)\1+", r"\1", text) for text in (expected, screen))
    return matches(expected, screen)


class Resize:
    """A worker's function that makes small pictures of photos, and does not get on with some."""

    def __init__(self) -> None:
        self._progress = {b"b.jpg": (3, 10), b"c.jpg": (8, 10), b"photo.jpg": (7, 10)}
        self._may_go_on = threading.Event()

    def __call__(self, job: ScriptedJob) -> bytes:
        if job.data in self._progress:
            may_go_on = self._may_go_on
            job.send_data(b"reading " + job.data + b"\n")
            job.send_status(*self._progress[job.data])
            assert may_go_on.wait(4 * PATIENCE)
        return b"small-" + job.data

    def go_on(self) -> None:
        """Let the jobs end that it has now."""
        self._may_go_on.set()
        self._may_go_on = threading.Event()


@pytest.fixture
def no_hang() -> None:
    """A page takes as long as it takes; each wait has an end."""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that has gearmanctl."""
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "gearmanctl"
    python = shlex.quote(sys.executable)
    program.write_text(f'#!/bin/sh\nexec {python} -W error -m gearman_sync "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(directory), os.environ.get("PATH", os.defpath)])
    return environment(PATH=path)


def short_port() -> int:
    """A free port that is as wide as those on the page."""
    ports = list(range(4740, 10000))
    random.shuffle(ports)
    for port in ports:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@pytest.fixture
def server() -> Iterator[Gearmand]:
    server = Gearmand(port=short_port())
    yield server
    server.kill()


@pytest.fixture
def resize(server: Gearmand) -> Iterator[Resize]:
    """A function with two workers."""
    resize = Resize()
    workers = [ScriptedWorker(server.address, {"resize": resize}) for _ in range(2)]
    yield resize
    resize.go_on()
    for worker in workers:
        worker.stop()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(
    page: Path, server: Gearmand, resize: Resize, environ: dict[str, str], tmp_path: Path
) -> None:
    places = {
        "localhost:4730": f"localhost:{server.port}",
        "4731": str(short_port()),
        HOST: socket.gethostname(),
    }
    environ["GEARMAN_SERVERS"] = places["localhost:4730"]
    directory = tmp_path / "home"
    directory.mkdir()
    blocks = blocks_of(page.read_text(encoding="utf-8"))
    assert blocks
    with contextlib.ExitStack() as stack:
        running: list[tuple[Block, Shell]] = []
        for block in blocks:
            lines = block.text.count("\n") - 1 if block.is_screen else 60
            shell = stack.enter_context(Shell(environ, lines=lines, cwd=directory))
            run(block, shell, server, places)
            resize.go_on()
            server.wait_for_jobs("resize", 0)
            if block.runs and "submit" not in block.commands[-1]:
                running.append((block, shell))
            else:
                shell.wait_for_prompt()
                shell.leave()
            if "gearmanctl shutdown" in block.text:
                for other, its_shell in running:
                    if "gearmanctl serve" in other.text:
                        its_shell.wait_for_prompt()
        assert jobs_at(server) == []
        for _, shell in reversed(running):
            shell.leave()


def run(block: Block, shell: Shell, server: Gearmand, places: dict[str, str]) -> None:
    """Do what a block shows, and compare."""

    def shown() -> str:
        text = shell.shown
        for written, real in places.items():
            text = text.replace(real, written)
        return text

    for number, command in enumerate(block.commands, 1):
        for written, real in places.items():
            command = command.replace(written, real)
        shell.run(command)
        if not block.runs or number < len(block.commands):
            shell.wait_for_prompt()
    if block.runs:
        with contextlib.suppress(AssertionError):
            shell.wait_until(lambda: is_shown(block, shown()))
        match block.commands[-1].split():
            case ["gearmanctl", "work", task, *_]:
                eventually(lambda: server.counts(task)[2], f"a worker for {task}")
    assert is_shown(block, shown()), f"line {block.line} shows\n{shown()}\nand not\n{block.text}"


def test_what_a_page_shows() -> None:
    page = (
        "# Title\n\n```console\n$ date\ntoday\n$ id\n```\n\n```sh\nls\n```\n\n"
        "<!-- it runs -->\n```console\n$ gearmanctl top\nfunction\n```\n"
    )
    first, second = blocks_of(page)
    assert first == Block("$ date\ntoday\n$ id\n", 3)
    assert first.commands == ["date", "id"]
    assert not first.is_screen
    assert second == Block("$ gearmanctl top\nfunction\n", 14, runs=True)
    assert second.is_screen


@pytest.mark.parametrize(
    ("text", "runs", "screen", "good"),
    [
        ("$ a\nb\n", False, "$ a\nb\n", True),
        ("$ a\nb\n", False, "$ a\nb\nc\n", False),
        ("$ a\nb ...\n", False, "$ a\nb c\n", True),
        ("$ a\nb  c\n", False, "$ a\nb c\n", False),
        ("$ a\nmyhost  c\n─── ─\n", False, "$ a\nmyhost     c\n────── ─\n", True),
        ("$ gearmanctl top\nb\n", True, "b\n", True),
        ("$ gearmanctl top\nb\n", True, "$ gearmanctl top\nb\n", False),
    ],
)
def test_comparing(text: str, runs: bool, screen: str, good: bool) -> None:
    assert is_shown(Block(text, 1, runs), screen) is good


def test_commands_are_typed_and_what_they_print_is_compared(
    server: Gearmand, environ: dict[str, str], tmp_path: Path
) -> None:
    with Shell(environ, cwd=tmp_path) as shell:
        run(Block("$ echo a\na\n$ printf 'b\\n'; false\nb\n$ echo $?\n1\n", 1), shell, server, {})
        shell.leave()
    with Shell(environ, cwd=tmp_path) as shell, pytest.raises(AssertionError, match="shows"):
        run(Block("$ echo a\nb\n", 1), shell, server, {})
