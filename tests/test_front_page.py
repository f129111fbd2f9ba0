"""The workers and clients on docs/index.md print what the page shows."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gearman_sync import JobServer
from tests.support import require_module

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(
    r"^:sync: (\w+)\n\n```py\n(.*?)^```\n\n```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)
OUTPUT = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def server() -> Iterator[JobServer]:
    with JobServer("127.0.0.1", 0) as server:
        yield server


@pytest.mark.parametrize(("name", "worker", "client"), PROGRAMS, ids=[each[0] for each in PROGRAMS])
def test_worker_and_client(server: JobServer, name: str, worker: str, client: str) -> None:
    if name != "blocking":
        require_module(name)
    places = {
        "localhost:4730": f"127.0.0.1:{server.address[1]}",
        "poll_timeout=10": "poll_timeout=60",
    }
    for shown, real in places.items():
        worker, client = worker.replace(shown, real), client.replace(shown, real)
    with subprocess.Popen([sys.executable, "-c", worker], cwd=ROOT) as process:
        try:
            printed = subprocess.check_output([sys.executable, "-c", client], cwd=ROOT, text=True)
        finally:
            process.send_signal(signal.SIGTERM)
    assert [printed] == OUTPUT
    assert process.returncode == 0


def test_tabs() -> None:
    assert [name for name, _, _ in PROGRAMS] == ["blocking", "trio", "asyncio"]
