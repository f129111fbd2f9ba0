"""The program as a whole: its help and its dependencies."""

from __future__ import annotations

import io
import os
import shlex
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

from gearman_proto._version import __version__
from gearman_sync.cli import output
from tests.support import require

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    ROOT,
    USAGE,
    Result,
    Running,
    command_line,
    gearmanctl,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .support import Server


def test_version_option_prints_the_version() -> None:
    assert gearmanctl("--version") == Result(DONE, f"gearmanctl {__version__}\n".encode(), "")


def test_script_and_module_are_the_same_program(run_program: Callable[..., Running]) -> None:
    script = require(str(Path(sys.executable).with_name("gearmanctl")))
    for words in (["--help"], ["nothing"]):
        assert run_program([script, *words]).end() == gearmanctl(*words)


# Dependencies.


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_missing_package_prints_how_to_install_it(
    run_program: Callable[..., Running], missing: str
) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None;"
        "from gearman_sync.cli import main; sys.argv = ['gearmanctl', 'status']; main()"
    )
    result = run_program([sys.executable, "-c", program]).end()
    assert (result.status, result.output) == (USAGE, b"")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # In the format of the installed metadata.
    needed = shlex.join(str(Requirement(each)) for each in project["optional-dependencies"]["cli"])
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    assert result.error == f"{missing} not found; {pip} {needed} installs what it needs"


@pytest.mark.parametrize("words", [["--version"], ["status"]])
def test_closed_pipe_ends_the_program_silently(
    server: Server, start: Callable[..., Running], words: list[str]
) -> None:
    assert gearmanctl("submit", "task", "", "-b", at=server).status == DONE
    read, write = os.pipe()
    os.close(read)
    running = start(*words, at=server if words == ["status"] else (), stdout=write)
    os.close(write)
    assert running.end() == Result(FAILED, b"", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_error_that_can_not_be_written_keeps_the_status(start: Callable[..., Running]) -> None:
    with open("/dev/full", "wb") as full:
        running = start("status", at=("127.0.0.1", 1), stderr=full)
    assert running.end() == Result(NO_SERVER, b"", "")


def test_short_write_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    """With PYTHONUNBUFFERED, a write to a full disk, or an interrupted write, can be short."""

    class Short(io.BytesIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data[:3]))

    short = Short()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=short))
    output.write(b"more than three")
    assert short.getvalue() == b"more than three"


def test_program_closes_all_resources(server: Server, run_program: Callable[..., Running]) -> None:
    for closed in ("2>&-", "<&- >&- 2>&-"):
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
        result = run_program([*shell, *command_line("status", at=server)]).end()
        assert (result.status, result.errors) == (DONE, "")
