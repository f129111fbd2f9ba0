"""Many lines through ``submit --lines`` and four ``work`` processes, none lost or duplicated."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import eventually

from .support import DONE, Running, command_line, on_both

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .support import Server

LINES = int(os.environ.get("GEARMAN_TEST_LINES", "1000"))
WORKERS = 4
#: Maximum memory of the submitter in kilobytes, for any number of lines.
MAX_MEMORY = 120_000
#: Runs a command, and writes its peak memory in kilobytes to standard error.
MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak // 1024 if sys.platform == "darwin" else peak, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.slow
@on_both
def test_many_lines(
    server: Server,
    start: Callable[..., Running],
    run_program: Callable[..., Running],
    task: str,
    tmp_path: Path,
) -> None:
    signal.alarm(0)  # The duration depends on the number of lines.
    workers, logs = [], []
    for number in range(WORKERS):
        # `tee` returns the data as `cat` does, and also logs it.
        logs.append(tmp_path / f"worker {number}")
        workers.append(start("work", task, "--", "tee", "-a", logs[-1], at=server))
    eventually(lambda: server.counts(task)[2] == WORKERS, "the workers")

    lines = [b"line %d;" % number for number in range(LINES)]
    (tmp_path / "lines").write_bytes(b"\n".join(lines))
    submit = command_line("submit", task, "--lines", at=server)
    measure = [sys.executable, "-c", MEASURE]
    with open(tmp_path / "lines", "rb") as source, open(tmp_path / "results", "wb") as results:
        submitting = run_program([*measure, *submit], stdin=source, stdout=results)
        submitting.process.wait()
    result = submitting.end()

    assert result.status == DONE, result.errors
    assert int(result.errors) < MAX_MEMORY
    # No line was lost, and all results are in order.
    assert (tmp_path / "results").read_bytes() == b"".join(line + b"\n" for line in lines)
    # No job was done twice, and every worker has done some.
    done = [log.read_bytes().removesuffix(b";").split(b";") for log in logs]
    assert all(len(some) > 1 for some in done)
    assert sorted(line + b";" for some in done for line in some) == sorted(lines)
    for worker in workers:
        worker.signal(signal.SIGTERM)
    assert [worker.end().status for worker in workers] == [DONE] * WORKERS
