"""The examples and the benchmark do what they say, run as a user runs them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support import Gearmand

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def write_files(directory: Path) -> list[str]:
    files = []
    for number, text in enumerate(("one two three", "", "four\nfive\n")):
        file = directory / f"{number}.txt"
        file.write_text(text)
        files.append(str(file))
    return files


def check_quickstart(result: subprocess.CompletedProcess[str], files: list[str]) -> list[str]:
    """Check that everybody says what they did, in order, and return the lines."""
    assert result.stderr == ""
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    for path, words in zip(files, (3, 0, 2)):
        (submitted,) = (line for line in lines if line.startswith(f"client: submitted {path} as "))
        handle = submitted.rpartition(" ")[2]
        (done,) = (line for line in lines if line.endswith(f": counted {words} words in {handle}"))
        assert re.match(r"worker [12]: ", done)
        steps = [submitted, done, f"client: {path} has {words} words"]
        assert [line for line in lines if line in steps] == steps
    assert re.fullmatch(r"3 of 3 jobs done in [\d.]+ s", lines[-1])
    return lines


def test_quickstart(tmp_path: Path) -> None:
    files = write_files(tmp_path)
    lines = check_quickstart(run("examples/quickstart.py", *files), files)
    assert lines[0].startswith("server: listening at 127.0.0.1:")


def test_quickstart_without_arguments() -> None:
    result = run("examples/quickstart.py")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^client: README.md has \d+ words$", result.stdout, re.MULTILINE)


def test_quickstart_with_a_gearmand(gearmand: Gearmand, tmp_path: Path) -> None:
    files = write_files(tmp_path)
    host, port = gearmand.address
    lines = check_quickstart(
        run("examples/quickstart.py", "--server", f"{host}:{port}", *files), files
    )
    assert not any(line.startswith("server: ") for line in lines)


def test_quickstart_without_a_worker() -> None:
    result = run("examples/quickstart.py", "--workers", "0", "--timeout", "0.2", "README.md")
    assert result.returncode == 1
    assert "README.md: timed out" in result.stdout
    assert "0 of 1 jobs done" in result.stdout


def test_quickstart_without_a_server() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = run("examples/quickstart.py", "--server", f"127.0.0.1:{unused.getsockname()[1]}")
    assert result.returncode == 3
    assert "no server could be reached" in result.stderr
    assert "Traceback" not in result.stderr


def test_quickstart_with_bad_arguments() -> None:
    for arguments in (("--server", "h:0"), ("--server", "h", "no such file")):
        result = run("examples/quickstart.py", *arguments)
        assert result.returncode == 2
        assert result.stderr.startswith("quickstart: ")


def test_benchmark(gearmand: Gearmand) -> None:  # for its rule about a missing gearmand
    result = run("bench/submit.py", "--jobs", "300", "--small", "100", "--rounds", "1")
    assert result.returncode == 0, result.stderr
    for mode in ("background", "foreground"):
        assert f"{mode} jobs" in result.stdout
    rows = re.findall(r"^gearman_sync +300 .* ([\d.]+) x$", result.stdout, re.MULTILINE)
    assert len(rows) == 2
    assert all(float(ratio) > 0 for ratio in rows)


def test_benchmark_of_servers(gearmand: Gearmand) -> None:  # for its rule about a missing gearmand
    result = run("bench/jobs.py", "--jobs", "100", "--rounds", "1")
    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^JobServer +(\d+) .* ([\d.]+) x +\S+ x$", result.stdout, re.MULTILINE)
    assert [int(jobs) for jobs, _ in rows[:4]] == [100, 100, 5, 5]
    assert len(rows) == 5
    assert all(float(ratio) > 0 for _, ratio in rows)
    assert len(re.findall(r"^JobServer does \S+ times ", result.stdout, re.MULTILINE)) == 5
