"""docs/tutorial.md, typed by a user who is new to Gearman.

In the order of the page, each ```py block is written to the file named in its first line, and each
```console block is typed into a shell in a new terminal. Then the screen has to match the block,
where three dots match anything. After ``<!-- it runs -->``, the last command keeps running. A later
block that begins with a running command continues in its terminal, where the test types ``^C`` if
the block contains it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

pytest.importorskip("pyte")
pytest.importorskip("rich")
pytest.importorskip("trio")
pytest.importorskip("typer")

import gearman_anyio
import gearman_proto
import gearman_sync
from tests.cli.terminal import CTRL_C, PROMPT, Shell, commands_of, environment
from tests.support import SBIN, eventually, free_port, require
from tests.test_docs_pages import matches

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tutorial.md"
FENCED = re.compile(r"^(<!-- it runs -->\n)?```(py|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"# (\w+\.py)\n")
# The blocks that create an environment and change into its directory.
INSTALL, GO_THERE = "python3 -m venv .venv", "cd first-jobs"
SERVERS = {"gearmand": "gearmand", "JobServer": "gearmanctl serve"}
PORT = "4730"


def is_shown(text: str, screen: str) -> bool:
    """Return True if the screen shows the text. (The prompt can follow directly after ``^C``.)"""
    return matches(text.rstrip("\n"), screen.rstrip("\n"))


class Learner:
    """A user with the page and any number of terminals."""

    def __init__(self, home: Path, server: str) -> None:
        if server == "gearmand":
            require("gearmand")
        self.home = home
        self.port = str(free_port())
        self.places = {PORT: self.port, "myhost": socket.gethostname()}
        self.starts_server = SERVERS[server]
        self.other_servers = tuple(set(SERVERS.values()) - {self.starts_server})
        path = os.pathsep.join([os.environ.get("PATH", os.defpath), SBIN])
        self.environment = environment(
            PATH=path,
            GEARMAN_SERVERS=f"localhost:{self.port}",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            VIRTUAL_ENV_DISABLE_PROMPT="1",
        )
        self.prelude: list[str] = []
        self.running: dict[str, Shell] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for shell in self.running.values():
            shell.__exit__(*exc_info)

    def write(self, text: str) -> None:
        name = FILE_NAME.match(text)
        assert name is not None, f"a file without a name: {text}"
        path = self.home / "first-jobs" / name[1]
        path.write_text(text.replace(PORT, self.port), encoding="utf-8")

    def look(self, text: str, *, runs: bool) -> None:
        """Type the commands of a block unless they are running, and compare the screen."""
        commands = commands_of(text)
        if commands[0].startswith(self.other_servers):
            if "^C" not in text:
                return
            # Apply the block to the server that is running.
            (command,) = (each for each in self.running if each.startswith(self.starts_server))
            text = f"{PROMPT}{command}\n...^C\n"
        else:
            command = commands[0]
        shell = self.running.pop(command, None)
        if shell is None:
            shell = self.open_terminal()
            shell.type_block(text, self.places, runs=runs)
        elif "^C" in text:
            shell.type(CTRL_C)
        if not runs:
            shell.wait_for_prompt()
        shell.expect(text, self.places, is_shown)
        if runs:
            self.running[commands[-1]] = shell
            if commands[-1].startswith(self.starts_server):
                eventually(self.is_served, "the server")
        else:
            shell.leave()
            shell.__exit__(None, None, None)

    def open_terminal(self) -> Shell:
        shell = Shell(self.environment, columns=160, lines=50, cwd=self.home)
        for command in self.prelude:
            shell.run(command)
            shell.wait_for_prompt()
        if self.prelude:
            shell.run("clear")
            shell.wait_for_prompt()
        return shell

    def is_served(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", int(self.port))),
        ):
            return True
        return False


def read_page() -> Iterator[tuple[bool, str, str]]:
    page = PAGE.read_text(encoding="utf-8")
    for match in FENCED.finditer(page):
        yield bool(match[1]), match[2], match[3]


def follow(learner: Learner, *, install: bool) -> None:
    """Follow the page. Without `install`, the environment already exists."""
    for runs, language, text in read_page():
        if language == "py":
            learner.write(text)
        elif text.startswith(PROMPT + GO_THERE):
            learner.prelude = [each.removeprefix(PROMPT) for each in text.splitlines()]
        elif install or not text.startswith(PROMPT + INSTALL):
            learner.look(text, runs=runs)
    for command in list(learner.running):
        learner.running.pop(command).__exit__(None, None, None)


def make_environment(directory: Path) -> None:
    venv.create(directory, symlinks=True)
    (packages,) = directory.glob("lib/python*/site-packages")
    ours = Path(gearman_sync.__file__).parent.parent
    paths = [str(ours), *(path for path in sys.path if path.endswith("-packages"))]
    (packages / "here.pth").write_text("".join(f"{path}\n" for path in paths))
    program = directory / "bin" / "gearmanctl"
    program.write_text(f'#!/bin/sh\nexec "{directory}/bin/python" -m gearman_sync "$@"\n')
    program.chmod(0o755)


def copy_checkout(directory: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, directory)
    for package in (gearman_proto, gearman_sync, gearman_anyio):
        shutil.copytree(package.__path__[0], directory / package.__name__)


def has_index(directory: Path) -> bool:
    """Return True if pip can download packages."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(directory), "trio"]
    return subprocess.run(pip, check=False, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_tutorial(server: str, tmp_path: Path) -> None:
    """Follow the page. With a JobServer, begin with the first command, which installs packages."""
    install = server == "JobServer" and ("CI" in os.environ or has_index(tmp_path))
    with Learner(tmp_path, server) as learner:
        if install:
            copy_checkout(learner.home)
        else:
            make_environment(learner.home / ".venv")
            (learner.home / "first-jobs").mkdir()
        follow(learner, install=install)
