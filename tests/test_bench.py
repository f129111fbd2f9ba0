"""The benchmarks run, report missing peers, and detect a stage that has become slower."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench import rounds, tables
from bench.stages import STAGES

if TYPE_CHECKING:
    from tests.support import Gearmand

ROOT = Path(__file__).resolve().parent.parent
VERSION = ".".join(platform.python_version_tuple()[:2])
# Benchmarks that need no peer. (They use only levels that do not exceed the number of jobs.)
ALONE = ["core", "functions", "connections", "listings", "memory", "updates"]
OTHERS = ["bulk", "single", "worker", "servers", "sizes", "waits", "imports"]
OTHERS += ["payloads", "queues"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env={"PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def measured(directory: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Return the results and the output of a run with an empty PATH."""
    result = run(*arguments, "--json", str(directory / "json"), PATH=str(directory))
    assert result.returncode == 0, result.stderr
    return json.loads((directory / "json").read_text()), result.stdout


def check(found: dict[str, Any], *, rows: int) -> None:
    """Check that each table has its rows, and each row its time."""
    names = [(table["title"], row["name"]) for table in found["tables"] for row in table["rows"]]
    assert len(names) >= rows
    for table in found["tables"]:
        assert table["rows"]
        for row in table["rows"]:
            assert len(row["values"]) == len(table["columns"])
            assert all(value is None or value >= 0 for value in row["values"])


@pytest.mark.slow
def test_benchmarks_without_peers_run(tmp_path: Path) -> None:
    found, printed = measured(tmp_path, *ALONE, "--quick", "--jobs", "20", "--rounds", "1")
    check(found, rows=len(STAGES) + 8)
    assert found["facts"]["Python"].startswith(platform.python_version())
    assert found["settings"] == {"jobs": 20, "rounds": 1}
    # That PATH contains no compiler and no valgrind.
    assert {"libgearman", "valgrind"} <= set(found["missing"])
    assert "valgrind is not installed: apt-get install valgrind" in printed
    for table in found["tables"]:
        assert f"\n{table['title']}\n" in printed


@pytest.mark.slow
def test_benchmarks_with_peers_run(gearmand: Gearmand, tmp_path: Path) -> None:  # for its rule
    plotted = tmp_path / "svg"
    found, _ = measured(tmp_path, *OTHERS, "--jobs", "100", "--rounds", "1", "--plot", str(plotted))
    check(found, rows=50)
    assert "gearman_anyio, trio" in plotted.read_text()


def test_unknown_benchmark_is_a_usage_error() -> None:
    result = run("speed")
    assert result.returncode == 2
    assert "there is no measure 'speed'" in result.stderr


def figures(*walls: float) -> list[rounds.Figures]:
    return [{"jobs": 10, "wall": wall, "cpu": wall / 2} for wall in walls]


def test_ratio_is_the_median_of_pairs() -> None:
    # The machine was three times as slow in the second round.
    results = {"raw": figures(1.0, 3.0, 1.0), "gearman_sync": figures(2.0, 6.0, 5.0)}
    baselines = dict.fromkeys(results, "raw")
    ratio_columns = [
        tables.RatioColumn("wall", "wall", baselines),
        tables.RatioColumn("rate", "rate", baselines),
    ]
    table = tables.compared("jobs", results, ratio_columns)
    assert table.rows[1] == ("gearman_sync", [10, 1 / 5.0, 5.0, 2.5, 2.0, 0.5])
    assert table.text().splitlines()[-1].split()[-4:] == ["2.00", "x", "0.50", "x"]
