"""The fixture of the pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gearman_sync import GearmanClient
from gearman_sync.errors import ServerUnavailable
from tests.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    RunPytest = Callable[..., tuple[int, str]]

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import os
import threading

import pytest

from gearman_sync import GearmanAdminClient, GearmanClient

def note(address):
    with open(os.environ["ADDRESSES"], "a") as file:
        print(address, file=file)

@pytest.mark.parametrize("form", [str, tuple, lambda address: address])
def test_submit(gearman_server, form):
    note(gearman_server)
    with GearmanClient([form(gearman_server)]) as client:
        # Nothing is there from the test before.
        request = client.submit_job("task", b"", unique="same", background=True)
        assert request.state == "CREATED"
    with GearmanAdminClient([gearman_server]) as admin:
        assert [status.queued for status in admin.get_status()] == [1]

def test_forms(gearman_server):
    note(gearman_server)
    host, port = gearman_server
    assert (gearman_server.host, gearman_server.port) == (host, port)
    assert str(gearman_server) == f"{host}:{port}"
    assert host == "127.0.0.1"

@pytest.fixture
def client(gearman_server):
    with GearmanClient([gearman_server]) as client:
        yield client

def test_other_fixtures_may_use_it(client, gearman_server):
    note(gearman_server)
    assert client.submit_job("task", b"", background=True).state == "CREATED"

def test_failing(gearman_server):
    note(gearman_server)
    raise ZeroDivisionError

def test_nothing_is_left():
    assert threading.active_count() == 1
"""


@pytest.fixture
def run_pytest(tmp_path: Path) -> RunPytest:
    """Runs pytest on a file of tests, with the plugins that are at `path`, or without plugins.

    Returns the exit status, and what it has written.
    """

    def run(tests: str, *args: str, path: Path | None = None) -> tuple[int, str]:
        (tmp_path / "test_it.py").write_text(tests)
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args],
            cwd=tmp_path,
            env={
                **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
                **({} if path is not None else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
                "PYTHONPATH": os.pathsep.join(str(p) for p in (ROOT, path) if p is not None),
                "ADDRESSES": str(tmp_path / "addresses"),
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    return run


def test_fixture(run_pytest: RunPytest, tmp_path: Path) -> None:
    status, output = run_pytest(TESTS, "-W", "error", "-p", "gearman_sync.pytest_plugin")
    assert "1 failed, 6 passed" in output
    assert "ZeroDivisionError" in output
    assert status == 1
    addresses = (tmp_path / "addresses").read_text().split()
    assert len(addresses) == 6
    # Each test has had its own, and all are gone.
    for address in addresses:
        with GearmanClient([address]) as client, pytest.raises(ServerUnavailable):
            client.submit_job("task", b"", background=True)


@pytest.mark.slow
def test_entry_point(run_pytest: RunPytest, tmp_path: Path) -> None:
    """Where the package is installed, the fixture is there without a word."""
    table = re.search(
        r"^\[project\.entry-points\.pytest11\]\n((?:\w.*\n)+)",
        (ROOT / "pyproject.toml").read_text(),
        re.MULTILINE,
    )
    assert table is not None
    info = tmp_path / "installed" / "gearman_sansio-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gearman-sansio\nVersion: 0\n")
    entries = table[1].replace('"', "")
    (info / "entry_points.txt").write_text(f"[pytest11]\n{entries}")
    status, output = run_pytest("", "--fixtures", path=info.parent)
    assert status in (0, 5), output
    assert re.search(r"^gearman_server\b.*\n +The address of a job server", output, re.MULTILINE)
    tests = "def test_it(gearman_server):\n    assert gearman_server.port\n"
    status, output = run_pytest(tests, path=info.parent)
    assert (status, "1 passed" in output) == (0, True), output
