"""Parsers of other libraries under the properties, which find real faults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import require_module

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "check_pygearman.py"


@pytest.mark.slow
def test_example_finds_a_fault_of_pygearman(tmp_path: Path) -> None:
    require_module("gearman")
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "an exception that is not allowed: error: " in ran.stderr
    # One such function in the list is enough, if its name does not begin with ASCII.
    (sent,) = re.findall(r"sent: 10 bytes, b'(.+)'", ran.stderr)
    assert re.fullmatch(r"\\x[89a-f][0-9a-f]\\t0\\t0\\t0\\n\.\\n", sent)
