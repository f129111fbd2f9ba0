"""Checks that docs/reference/gearmanctl.md and docs/howto/workers.md show the real output.

The test types the ```console blocks of a page into a shell, in order, and compares the screen with
the block, where three dots match anything. The comment ``<!-- it runs -->`` marks a block whose
last command keeps running: the screen has to match at some moment, and the command runs until the
end of the page, or until its jobs end.
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
from .terminal import Shell, commands_of, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = [ROOT / "docs" / "reference" / "gearmanctl.md", ROOT / "docs" / "howto" / "workers.md"]
CONSOLE = re.compile(r"(<!-- it runs -->\n)?^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# The name of this machine on the page.
HOST = "myhost"


@dataclass
class Block:
    """A console block of a page."""

    text: str
    #: True if the last command keeps running.
    runs: bool = False

    @property
    def last(self) -> str:
        """The last command."""
        return commands_of(self.text)[-1]

    @property
    def is_screen(self) -> bool:
        """True if the command uses the whole screen after the first line."""
        return self.runs and self.last.startswith("gearmanctl top")


def blocks_of(page: str) -> list[Block]:
    return [Block(match[2], bool(match[1])) for match in CONSOLE.finditer(page)]


def is_shown(expected: str, screen: str) -> bool:
    """Return True if the screen matches the text of a block."""
    if HOST in expected:
        # The widths of columns depend on the length of the real name.
        expected, screen = (re.sub(r"( |─)\1+", r"\1", text) for text in (expected, screen))
    return matches(expected, screen)


class Resize:
    """A worker's function that pretends to resize photos, and fails for some."""

    def __init__(self) -> None:
        self._progress = {b"b.jpg": (3, 10), b"c.jpg": (8, 10), b"photo.jpg": (7, 10)}
        self._released = threading.Event()

    def __call__(self, job: ScriptedJob) -> bytes:
        if job.data in self._progress:
            may_go_on = self._released
            job.send_data(b"reading " + job.data + b"\n")
            job.send_status(*self._progress[job.data])
            assert may_go_on.wait(4 * PATIENCE)
        return b"small-" + job.data

    def release(self) -> None:
        """Let the current jobs end."""
        self._released.set()
        self._released = threading.Event()


@pytest.fixture
def no_hang() -> None:
    """Disable the limit on a test's duration. Each wait has its own timeout."""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds gearmanctl."""
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "gearmanctl"
    python = shlex.quote(sys.executable)
    program.write_text(f'#!/bin/sh\nexec {python} -W error -m gearman_sync "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(directory), os.environ.get("PATH", os.defpath)])
    return environment(PATH=path)


def short_port() -> int:
    """Return a free port with as many digits as those on the page."""
    for port in random.sample(range(4740, 10000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
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
    resize.release()
    for worker in workers:
        worker.stop()


def wait_for_worker(server: Gearmand, command: str) -> None:
    """Wait until a worker that `command` has started is known to the server."""
    match command.split():
        case ["gearmanctl", "work", task, *_]:
            eventually(lambda: server.counts(task)[2], f"a worker for {task}")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_shows_the_real_output(
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
            shell.type_block(block.text, places, runs=block.runs)
            text = block.text.partition("\n")[2] if block.is_screen else block.text
            shell.expect(text, places, is_shown)
            wait_for_worker(server, block.last)
            resize.release()
            server.wait_for_jobs("resize", 0)
            if block.runs and "submit" not in block.last:
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
