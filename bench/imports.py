"""The cost of an import: the CPU time of an interpreter with the import, minus that without it."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

from . import processes
from .peers import has
from .rounds import Figures, Results, interleaved
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rounds import Settings

# Interpreters per measurement.
_TIMES = 5


def run(settings: Settings) -> Iterator[Table]:
    over = {"gearman_proto": "", "gearman_sync": ""}
    if has("anyio"):
        over |= {"anyio": "", "gearman_anyio": "anyio"}
    results = interleaved(
        {name: partial(_measure, name) for name in ("", *over)}, settings.rounds + 1
    )
    table = Table("imports", [("CPU", "ms"), ("over", "ms")])
    for name, other in over.items():
        title = f"import {name}, over {f'import {other}' if other else 'bare Python'}"
        table.add(title, *_medians(results, name, other))
    yield table


def _measure(name: str) -> Figures:
    command = [sys.executable, "-c", f"import {name}" if name else "pass"]
    before = _cpu()
    for _ in range(_TIMES):
        subprocess.run(command, cwd=processes.ROOT, env=processes.environment(), check=True)
    return {"cpu": (_cpu() - before) / _TIMES}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _medians(results: Results, name: str, other: str) -> tuple[float, float]:
    """Return the medians, without the first round, which compiles the modules."""
    pairs = list(zip(results[name], results[other]))[1:]
    return (
        statistics.median(mine["cpu"] for mine, _ in pairs),
        statistics.median(mine["cpu"] - its["cpu"] for mine, its in pairs),
    )
