"""``python -m gearman_sync.compat`` with unchanged programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from gearman_sync.compat.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.sync.support import StartScript

COMMAND = ("-m", "gearman_sync.compat")

SHOWS = """
import os, sys
import gearman
from gearman.errors import ServerUnavailable
import beside
print(__name__, os.path.basename(__file__), gearman.__package__)
print(os.path.realpath(sys.path[0]) == os.path.realpath(beside.DIRECTORY))
print(sys.argv[0] == __file__, sys.argv[1:])
sys.exit(3)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with a program and a module next to it."""
    (tmp_path / "program.py").write_text(SHOWS)
    (tmp_path / "beside.py").write_text(f"DIRECTORY = {str(tmp_path)!r}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        # All arguments after the program belong to it, whatever they look like.
        (["{directory}/program.py"], ["--as", "-m", "-h", "--", "x y", ""]),
        (["program.py"], ["-v"]),
        (["-m", "program"], ["-m", "a"]),
    ],
)
def test_program_runs_with_its_arguments(
    start_script: StartScript, directory: Path, program: list[str], arguments: list[str]
) -> None:
    program = [word.format(directory=directory) for word in program]
    out, errors, status = start_script(*COMMAND, *program, *arguments, cwd=directory).end()
    assert (errors, status) == ("", 3)
    first, *others = out.splitlines()
    assert first == "__main__ program.py gearman_sync.compat"
    assert others == ["True", f"True {arguments}"]


def test_mode_under_another_name(start_script: StartScript, tmp_path: Path) -> None:
    """A traceback starts at the program."""
    program = tmp_path / "program.py"
    program.write_text("import other as g\nprint(g.GearmanWorker.__module__)\nraise ValueError\n")
    out, errors, status = start_script(*COMMAND, "--as", "other", program).end()
    assert (out, status) == ("gearman_sync.compat.worker\n", 1)
    assert f'File "{program}", line 3, in <module>' in errors


def test_data_is_str_with_the_option(start_script: StartScript, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import gearman\nprint(gearman.GearmanWorker.data_encoder.__name__)\n")
    assert start_script(*COMMAND, "--text", program).end() == ("TextEncoder\n", "", 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: PROGRAM"),
        (("missing.py",), "there is no file 'missing.py'"),
        (("--as",), "expected one argument"),
    ],
)
def test_wrong_arguments_are_a_usage_error(
    nothing: None,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["compat", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("usage: python -m gearman_sync.compat [--as NAME]")
    assert said in errors
    assert "gearman" not in sys.modules
