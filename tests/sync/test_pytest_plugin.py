"""The fixtures of the pytest plugin, tested in a separate pytest process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import GearmanClient, pytest_plugin
from gearman_sync.errors import ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Gearmand

    RunPytest = Callable[..., tuple[int, str]]

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import asyncio
import os
import threading

import pytest

from gearman_sync import GearmanAdminClient, GearmanClient, GearmanWorker

def reverse(worker, job):
    return job.data[::-1]

async def async_reverse(worker, job):
    await asyncio.sleep(0)
    return job.data[::-1]

def own_worker():
    worker = GearmanWorker(["nowhere.invalid:1"])
    worker.register_task("task", reverse)
    return worker

def own_async_worker():
    import gearman_anyio

    worker = gearman_anyio.GearmanWorker(["nowhere.invalid:1"])
    worker.register_task("task", async_reverse)
    return worker

@pytest.fixture
def client(gearman_server):
    with GearmanClient([gearman_server]) as client:
        yield client

@pytest.mark.parametrize("form", [str, tuple])
def test_submit(gearman_server, client, form):
    # Nothing is there from the test before.
    assert client.submit_job("task", b"", unique="same", background=True).state == "CREATED"
    with GearmanAdminClient([form(gearman_server)]) as admin:
        assert [status.queued for status in admin.get_status()] == [1]
    with open(os.environ["ADDRESSES"], "a") as file:
        print(gearman_server, file=file)

@pytest.mark.parametrize(
    "make",
    [lambda: {"task": reverse}, lambda: {"task": async_reverse}, own_worker, own_async_worker],
)
def test_worker(gearman_worker, client, make):
    worker = gearman_worker(make(), timeout=20)
    client.submit_job("task", "ab", background=True)
    assert [run.result for run in worker.drain()] == [b"ba"]
    with worker:
        assert client.submit_job("task", "cd").result == b"dc"

def test_failing_callback(gearman_worker, client):
    client.submit_job("task", "ab", background=True)
    gearman_worker({"task": lambda worker, job: 1 // 0}).drain()

def test_nothing_is_left():
    assert threading.active_count() == 1

@pytest.fixture
def gearman_server_options():
    return {"wall_clock": lambda: 4e9, "max_queue_size": 1}

def test_options(gearman_worker, client):
    client.submit_job("task", "later", background=True, run_at=3e9)
    assert client.submit_job("task", "", background=True).state == "FAILED"
    assert [run.result for run in gearman_worker({"task": reverse}).drain()] == [b"retal"]
"""

ON_ANOTHER_SERVER = """
import pytest
from gearman_sync import GearmanClient

def test_it(gearman_server, gearman_worker):
    assert type(gearman_server).__name__ == "HostAndPort"
    with GearmanClient([gearman_server]) as client:
        client.submit_job("TASK", "ab", background=True)
    assert len(gearman_worker({"TASK": lambda worker, job: ""}).drain()) == 1

class TestOptions:
    @pytest.fixture
    def gearman_server_options(self):
        return {"job_retries": 1}

    def test_it(self, gearman_server):
        raise AssertionError
"""


@pytest.fixture
def run_pytest(tmp_path: Path) -> RunPytest:
    """Run pytest on a test file, with the plugins found at `path` or with this one.

    Return the exit status and the output.
    """

    def run(tests: str, *args: str, path: Path | None = None) -> tuple[int, str]:
        (tmp_path / "test_it.py").write_text(tests)
        plugin = () if path else ("-W", "error", "-p", "gearman_sync.pytest_plugin")
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, *args],
            cwd=tmp_path,
            env={
                **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
                **({} if path else {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
                "PYTHONPATH": os.pathsep.join(map(str, (ROOT, path) if path else (ROOT,))),
                "ADDRESSES": str(tmp_path / "addresses"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    return run


def test_fixtures(run_pytest: RunPytest, tmp_path: Path) -> None:
    status, output = run_pytest(TESTS)
    assert (status, "1 failed, 8 passed" in output) == (1, True), output
    assert re.search(r"test_it\.py:\d+: ZeroDivisionError", output)
    assert "It was raised for <GearmanJob task='task'" in output
    # Each test had its own server, and all servers have ended.
    for address in (tmp_path / "addresses").read_text().split():
        with GearmanClient([address]) as client, pytest.raises(ServerUnavailable):
            client.submit_job("task", b"", background=True)


def test_another_server(run_pytest: RunPytest, gearmand: Gearmand, task: str) -> None:
    tests = ON_ANOTHER_SERVER.replace("TASK", task)
    address = "{}:{}".format(*gearmand.address)
    status, output = run_pytest(tests, "--gearman-server", address)
    assert (status, "1 passed, 1 skipped" in output) == (0, True), output
    status, output = run_pytest(tests, "--gearman-server", "nowhere:x")
    assert (status, "'x' is not a port" in output) == (1, True), output


def test_plugin_import_loads_no_other_module() -> None:
    """pytest loads the plugin in every project, so the plugin must not import unused modules."""
    program = (
        "import sys, pytest, gearman_sync; before = set(sys.modules);"
        "import gearman_sync.pytest_plugin; print(set(sys.modules) - before)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert ran.stdout == "{'gearman_sync.pytest_plugin'}\n"


@pytest.mark.slow
def test_entry_point(run_pytest: RunPytest, tmp_path: Path) -> None:
    """If the package is installed, the fixture is available without configuration."""
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
    tests = "def test_it(gearman_server):\n    assert gearman_server.port\n"
    status, output = run_pytest(tests, path=info.parent)
    assert (status, "1 passed" in output) == (0, True), output


def test_async_worker_without_the_entry_point_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reverse(worker: Any, job: Any) -> bytes:
        return b""

    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])
    with pytest.raises(RuntimeError, match=r"which is async: .*pip install"):
        pytest_plugin._kind_for({"task": reverse})
