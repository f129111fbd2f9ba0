"""Ctrl-C while gearmanctl or the migration checker imports its modules."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import require

from .support import Running, environment

SCRIPT = str(Path(sys.executable).with_name("gearmanctl"))
PROGRAMS = {
    "gearmanctl": [SCRIPT, "--version"],
    "gearmanctl submit": [SCRIPT, "submit", "--help"],
    "-m gearman_sync": ["-m", "gearman_sync", "--version"],
    "-m gearman_sync.migrate": ["-m", "gearman_sync.migrate", "/nowhere"],
}
#: Sends SIGINT to its own process when a module is imported. Python imports this code at its start.
CUSTOMIZE = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_IMPORT"]:
            os.write(2, b"interrupted ")
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
"""


Interrupt = Callable[[list[str], str], tuple[int, str]]


@pytest.fixture
def interrupt(run_program: Callable[..., Running], tmp_path: Path) -> Interrupt:
    """Run Python with SIGINT at the import of a module. Return the status and the errors."""
    (tmp_path / "sitecustomize.py").write_text(CUSTOMIZE)
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])

    def interrupt(words: list[str], module: str) -> tuple[int, str]:
        env = environment(PYTHONPATH=path, INTERRUPTED_IMPORT=module)
        result = run_program([sys.executable, *words], env=env).end()
        return result.status, result.errors

    return interrupt


@pytest.mark.parametrize(
    ("program", "module"),
    [
        ("gearmanctl", "gearman_proto"),
        ("gearmanctl submit", "rich.console"),
        ("-m gearman_sync", "typer"),
        ("-m gearman_sync.migrate", "gearman_proto"),
        ("-m gearman_sync.migrate", "gearman_sync.cli.migrate._rules"),
    ],
)
def test_program_interrupted_while_it_imports_ends_silently(
    interrupt: Interrupt, program: str, module: str
) -> None:
    require(SCRIPT)
    assert interrupt(PROGRAMS[program], module) == (128 + signal.SIGINT, "interrupted ")


@pytest.mark.parametrize("words", [["-c", "import gearman_sync"], ["-m", "user.program"]])
def test_other_program_interrupted_while_it_imports_gets_keyboard_interrupt(
    interrupt: Interrupt, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "__init__.py").write_text("import gearman_sync")
    (tmp_path / "user" / "program.py").write_text("")
    status, errors = interrupt(words, "gearman_proto")
    assert status == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")


def test_interrupt_that_is_ignored_stays_ignored(interrupt: Interrupt) -> None:
    """Check the behaviour of background jobs in shell scripts, which ignore SIGINT."""
    program = (
        "import os, runpy, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "sys.argv = ['gearmanctl', '--version']; runpy.run_module('gearman_sync', None, '__main__')"
    )
    status, errors = interrupt(["-c", program], "typer")
    assert (status, set(errors.split())) == (0, {"interrupted"})
