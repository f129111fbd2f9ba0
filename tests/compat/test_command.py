"""``python -m gearman_sync.compat`` with unchanged programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from gearman_sync.compat.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .support import Running

    Start = Callable[..., Running]

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


def test_file_runs_with_its_arguments(start: Start, directory: Path) -> None:
    """All arguments after the file belong to the program, whatever they look like."""
    arguments = ("--as", "-m", "-h", "--", "x y", "")
    out, errors, status = start(*COMMAND, directory / "program.py", *arguments).end()
    assert (errors, status) == ("", 3)
    assert out.splitlines() == [
        "__main__ program.py gearman_sync.compat",
        "True",
        f"True {list(arguments)}",
    ]


def test_file_in_the_current_directory_runs(start: Start, directory: Path) -> None:
    out, errors, status = start(*COMMAND, "program.py", "-v", cwd=directory).end()
    assert (errors, status) == ("", 3)
    assert out.splitlines()[1:] == ["True", "True ['-v']"]


def test_module_runs_with_its_arguments(start: Start, directory: Path) -> None:
    out, errors, status = start(*COMMAND, "-m", "program", "-m", "a", cwd=directory).end()
    assert (errors, status) == ("", 3)
    assert out.splitlines() == [
        "__main__ program.py gearman_sync.compat",
        "True",
        "True ['-m', 'a']",
    ]


def test_mode_under_another_name(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import python3_gearman as g\nprint(g.GearmanWorker.__module__)\n")
    out, errors, status = start(*COMMAND, "--as", "python3_gearman", program).end()
    assert (out, errors, status) == ("gearman_sync.compat.worker\n", "", 0)


def test_traceback_starts_at_the_program(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import gearman\n\nraise ValueError('the program is wrong')\n")
    out, errors, status = start(*COMMAND, program).end()
    assert (out, status) == ("", 1)
    assert f'File "{program}", line 3, in <module>' in errors
    assert errors.endswith("ValueError: the program is wrong\n")


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


def test_missing_module_fails(start: Start) -> None:
    _, errors, status = start(*COMMAND, "-m", "there_is_no_such_module").end()
    assert status == 1
    assert "No module named there_is_no_such_module" in errors
