"""The program as a whole: its help and its dependencies."""

from __future__ import annotations

import importlib.metadata
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

import gearman_proto
import gearman_sync
from gearman_proto._version import __version__
from gearman_sync.cli import output
from tests.support import require

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    PROGRAM,
    ROOT,
    USAGE,
    Result,
    Running,
    address_of,
    command_line,
    environment,
    gearmanctl,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .support import Server

COMMANDS = [
    "submit", "work", "status", "workers", "jobs", "top", "version", "ping", "cancel", "maxqueue",
    "shutdown", "serve", "conformance",
]  # fmt: skip


def run(*command: str, **variables: str) -> Result:
    process = subprocess.run(
        command,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Result(process.returncode, process.stdout, process.stderr.decode())


def test_version_option_prints_the_version() -> None:
    assert gearmanctl("--version") == Result(DONE, f"gearmanctl {__version__}\n".encode(), "")


def test_script_and_module_are_the_same_program() -> None:
    script = require(str(Path(sys.executable).with_name("gearmanctl")))
    for words in (["--help"], ["nothing"]):
        assert run(script, *words) == gearmanctl(*words)


def test_help_names_the_commands() -> None:
    result = gearmanctl("--help")
    assert (result.status, result.errors) == (DONE, "")
    assert re.findall(r"^  ([a-z]+)  ", result.output.decode(), re.MULTILINE) == COMMANDS
    assert gearmanctl("-h") == result


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_has_examples(command: str) -> None:
    result = gearmanctl(command, "--help")
    assert (result.status, result.errors) == (DONE, "")
    examples = result.output.decode().partition("Example")[2]
    assert re.match(rf"s?:\n    gearmanctl {command}\b", examples)
    if command not in ("serve", "conformance"):
        assert "--server" in examples
        assert "--tls-ca" in examples


def test_no_arguments_prints_help() -> None:
    result = run(*PROGRAM)
    assert result == Result(USAGE, gearmanctl("--help").output, "")


@pytest.mark.parametrize("words", [("nothing",), ("--nothing",), ("status", "--nothing")])
def test_unknown_command_or_option_is_a_usage_error(words: tuple[str, ...]) -> None:
    result = gearmanctl(*words)
    assert (result.status, result.output) == (USAGE, b"")
    assert "othing" in result.error
    assert "--help" in result.error


# Dependencies.


def test_missing_extra_prints_how_to_install_it(tmp_path: Path) -> None:
    # Run without site-packages and without metadata of the installation, so no versions are known.
    for package in (gearman_proto, gearman_sync):
        (tmp_path / package.__name__).symlink_to(package.__path__[0])
    command = (sys.executable, "-S", "-P", "-m", "gearman_sync", "status")
    result = run(*command, PYTHONPATH=str(tmp_path))
    assert (result.status, result.output) == (USAGE, b"")
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    assert result.error == f"typer and rich not found; {pip} typer rich installs what it needs"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_missing_package_prints_how_to_install_it(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None;"
        "from gearman_sync.cli import main; sys.argv = ['gearmanctl', 'status']; main()"
    )
    result = run(sys.executable, "-c", program)
    assert (result.status, result.output) == (USAGE, b"")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # In the format of the installed metadata.
    needed = shlex.join(str(Requirement(each)) for each in project["optional-dependencies"]["cli"])
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    assert result.error == f"{missing} not found; {pip} {needed} installs what it needs"


def test_library_needs_no_package_of_the_extra() -> None:
    program = "import sys, gearman_sync; print({'typer', 'rich', 'click'} & set(sys.modules))"
    assert run(sys.executable, "-c", program) == Result(DONE, b"set()\n", "")


@pytest.mark.parametrize("words", [["--version"], ["status"]])
def test_closed_pipe_ends_the_program_silently(
    server: Server, run_program: Callable[..., Running], words: list[str]
) -> None:
    options = [] if words[0].startswith("-") else ["--server", address_of(server)]
    assert gearmanctl("submit", "task", "", "-b", at=server).status == DONE
    read, write = os.pipe()
    os.close(read)
    running = run_program(command_line(*words, *options), stdout=write)
    os.close(write)
    assert running.end() == Result(FAILED, b"", "")


def test_error_that_can_not_be_written_keeps_the_status(
    run_program: Callable[..., Running],
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    for words, status in (["nothing"], USAGE), (["status", "-s", "127.0.0.1:1"], NO_SERVER):
        with open("/dev/full", "wb") as full:
            running = run_program(command_line(*words), stderr=full)
        assert running.end() == Result(status, b"", "")


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
    command = command_line("status", servers=(server,))
    for closed in ("2>&-", "<&- >&- 2>&-"):
        shell = f'exec "$@" {closed}'.encode()
        running = run_program([b"sh", b"-c", shell, b"sh", *command])
        result = running.end()
        assert (result.status, result.errors) == (DONE, "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("submit t --priority urgent", "'urgent' is not one of 'high', 'normal', 'low'."),
        ("submit t --in-flight 0", "0 is not in the range x>=1."),
        ("status --timeout soon", "'soon' is not a valid float range."),
        ("status --timeout nan", "nan is not a number of seconds."),
        ("submit t d --timeout nan", "nan is not a number of seconds."),
        ("top --interval nan", "nan is not a number of seconds."),
        ("maxqueue t many", "'many' is not a valid int."),
    ],
)
def test_invalid_value_prints_a_reason(line: str, said: str) -> None:
    """The text is that of the allowed versions of typer. .ci/run compares all pages."""
    words = line.split()
    result = gearmanctl(*words)
    assert (result.status, result.output) == (USAGE, b"")
    assert result.error.startswith("Invalid value for ")
    assert result.error.endswith(f": {said} (see gearmanctl {words[0]} --help)")


def test_extra_installs_no_compiled_validation() -> None:
    """Check for compiled data validation, which a terminal program does not need."""
    found: set[str] = set()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    to_look_at = project["optional-dependencies"]["cli"]
    while to_look_at:
        needed = Requirement(to_look_at.pop())
        if needed.name not in found and (needed.marker is None or needed.marker.evaluate()):
            found.add(needed.name)
            to_look_at += importlib.metadata.requires(needed.name) or []
    assert {"rich", "typer"} < found
    assert not {name for name in found if name.startswith("pydantic")}


def test_requirements_of_tests_include_the_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extra = project["project"]["optional-dependencies"]["cli"]
    assert set(extra) <= set(project["dependency-groups"]["test"])
