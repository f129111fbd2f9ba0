"""Runs programs in processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from tests.support import PATIENCE, interruptible

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).resolve().parent / "programs"


class Running:
    """A program in a separate process."""

    def __init__(self, *command: object, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            interruptible(sys.executable, "-W", "error", *map(str, command)),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        """Return the next line of the program's output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return line.rstrip("\n")

    def end(self) -> tuple[str, str, int]:
        """Wait for the program's end. Return its output, its errors and its exit status."""
        out, errors = self.process.communicate(timeout=PATIENCE)
        return out, errors, self.process.returncode

    def kill(self) -> None:
        """Kill the program and everything that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 9)
        with self.process:
            pass
