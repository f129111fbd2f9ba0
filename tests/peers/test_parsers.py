"""Parsers of other libraries under the properties, which find real faults."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gearman_sync import GearmanClient
from tests.support import EmbeddedServer, require_module

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


def test_fault_that_the_example_finds_is_real() -> None:
    """Check that pygearman can't list the functions of a server with such a function."""
    require_module("gearman")
    gearman: Any = importlib.import_module("gearman")
    server = EmbeddedServer()
    try:
        admin = gearman.GearmanAdminClient([server.address])
        assert admin.get_status() == ()
        with GearmanClient([server.address]) as client:
            client.submit_job("\xfcber", b"", background=True)
        with pytest.raises(Exception, match="format requires 0 <= number <= 255"):
            admin.get_status()
        admin.shutdown()
    finally:
        server.kill()
