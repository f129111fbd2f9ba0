"""Tests that need a missing program are skipped, or fail if CI is set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

# A sample of tests of each file and kind: some need the program, some don't.
SOME = "(matrix and one_after and libgearman) or exceptions or empty_lists or cancel"

RUN = """
import shutil, sys
import pytest

which = shutil.which
shutil.which = lambda program, *args, **kwargs: (
    None if program == sys.argv[1] else which(program, *args, **kwargs)
)
sys.exit(pytest.main(sys.argv[2:]))
"""


def run_without(program: str, ci: str) -> tuple[int, dict[str, int], str]:
    """Run some of the peers' tests and return pytest's status, counts and output."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, program, "-q", "-p", "no:cacheprovider", "-k", SOME,
         str(Path(__file__).parent)],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    ends = re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout.splitlines()[-1])
    return done.returncode, {end: int(count) for count, end in ends}, done.stdout


@pytest.mark.parametrize("program", ["gearmand", "gearman", "gearadmin"])
def test_missing_program_skips_its_tests(program: str) -> None:
    status, ends, output = run_without(program, ci="")
    assert status == 0, output
    assert "skipped" in ends, output


@pytest.mark.parametrize("program", ["gearmand", "gearman", "gearadmin"])
def test_missing_program_in_ci_fails_its_tests(program: str) -> None:
    status, ends, output = run_without(program, ci="true")
    assert status == 1, output
    assert "skipped" not in ends, output
    assert f"{program} is not installed" in output
