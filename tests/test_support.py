"""Programs that tests start can be interrupted. Missing peers are skipped, except in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE, Gearmand, require, require_module

ROOT = Path(__file__).resolve().parent.parent

# Ignores SIGINT like a background program of a shell.
_IN_THE_BACKGROUND = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)

from tests.support import PATIENCE, Program, eventually
from tests.sync.support import Script

script = Script('''
import time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
''')
try:
    print(script.line())
    script.signal(signal.SIGINT)
    print(script.line())
finally:
    script.kill()

begun = pathlib.Path(sys.argv[1])
program = Program(
    sys.executable,
    "-c",
    "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)",
    str(begun),
)
process = program.spawn()
try:
    eventually(begun.exists)
    process.send_signal(signal.SIGINT)
    print(process.wait(PATIENCE) == -signal.SIGINT)
finally:
    program.kill()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no such signals")
def test_programs_can_be_interrupted(tmp_path: Path) -> None:
    """This also holds if the tests run in the background of a shell."""
    result = subprocess.run(
        [sys.executable, "-c", _IN_THE_BACKGROUND, str(tmp_path / "begun")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (result.stdout, result.stderr) == ("ready\ninterrupted\nTrue\n", "")


@pytest.mark.parametrize("in_ci", [False, True])
def test_missing_peer_skips_or_fails(monkeypatch: pytest.MonkeyPatch, in_ci: bool) -> None:
    """A test with a missing peer is skipped on a developer's machine, and fails in CI."""
    if in_ci:
        monkeypatch.setenv("CI", "true")
    else:
        monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("shutil.which", lambda *args, **options: None)
    outcome = pytest.fail.Exception if in_ci else pytest.skip.Exception
    with pytest.raises(outcome, match="gearmand is not installed"):
        Gearmand()
    with pytest.raises(outcome, match="the module no_such_module is not installed"):
        require_module("no_such_module")
    monkeypatch.undo()
    assert Path(require(Path(sys.executable).name)).name == Path(sys.executable).name
