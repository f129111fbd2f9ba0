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


def test_quickstart(gearmand: Gearmand, tmp_path: Path) -> None:
    files = []
    for number, text in enumerate(("one two three", "", "four\nfive\n")):
        file = tmp_path / f"{number}.txt"
        file.write_text(text)
        files.append(str(file))
    host, port = gearmand.address
    result = run("examples/quickstart.py", "--server", f"{host}:{port}", *files)
    assert result.stderr == ""
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    for path, words in zip(files, (3, 0, 2)):
        assert f"client: {path} has {words} words" in lines
    assert sum(line.startswith("worker: ") for line in lines) == 3
    assert re.fullmatch(r"3 of 3 jobs done in [\d.]+ s", lines[-1])


def test_quickstart_without_a_worker(gearmand: Gearmand) -> None:
    host, port = gearmand.address
    result = run(
        "examples/quickstart.py", "--server", f"{host}:{port}", "--no-worker", "--timeout", "0.2"
    )
    assert result.returncode == 1
    assert "timed out" in result.stdout
    assert "0 of 1 jobs done" in result.stdout


def test_quickstart_without_a_server() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = run("examples/quickstart.py", "--server", f"127.0.0.1:{unused.getsockname()[1]}")
    assert result.returncode == 3
    assert "Is there a gearmand at 127.0.0.1:" in result.stderr
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
