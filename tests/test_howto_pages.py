"""The files and commands on the pages for operators work as the pages claim."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import GearmanClient, errors
from gearman_sync.testing import ScriptedWorker
from tests.support import (
    PATIENCE,
    Administered,
    EmbeddedServer,
    Gearmand,
    PortProgram,
    Program,
    client_context,
    client_keys,
    eventually,
    free_port,
    require,
    require_module,
)
from tests.test_docs_pages import FENCED, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from gearman_sync import GearmanJobRequest

    Server = Gearmand | EmbeddedServer

FILE = re.compile(r"<!-- file: (\S+) -->\n\Z")
GEARMANCTL = shlex.join([sys.executable, "-m", "gearman_sync"])


def page(name: str) -> str:
    return (ROOT / "docs" / "howto" / f"{name}.md").read_text(encoding="utf-8")


def files_of(text: str) -> dict[str, str]:
    """Return the files of a page by name."""
    found = {}
    for block in FENCED.finditer(text):
        if name := FILE.search(text, 0, block.start()):
            found[name[1]] = block[2]
    return found


def line_of(text: str, beginning: str) -> str:
    """Return the only line in shell blocks that begins with `beginning`."""
    blocks = [block[2].replace("\\\n", "") for block in FENCED.finditer(text) if block[1] == "sh"]
    (line,) = [
        line for block in blocks for line in block.splitlines() if line.startswith(beginning)
    ]
    return line


WORKERS, PRODUCTION, DEPLOYING = map(page, ("workers", "production", "deploying"))
MONITORING = page("monitoring")
FILES = files_of(WORKERS) | files_of(PRODUCTION) | files_of(MONITORING)


class Running(Program):
    """A file of a page that runs as a program in a directory."""

    def __init__(self, directory: Path, name: str, server: Administered, **env: str) -> None:
        path = directory / name
        path.write_text(FILES[name], encoding="utf-8")
        host, port = server.address
        servers = f"GEARMAN_SERVERS={host}:{port}"
        variables = (servers, f"PYTHONPATH={ROOT}", *(f"{key}={env[key]}" for key in env))
        super().__init__("env", *variables, sys.executable, "-W", "error", str(path))
        self.spawn()

    def terminate(self) -> None:
        """Send SIGTERM to the program, and check that it ends without an error."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start files of pages, and end them with the test."""
    with contextlib.ExitStack() as stack:

        def start(name: str, server: Administered, **env: str) -> Running:
            program = Running(tmp_path, name, server, **env)
            stack.callback(program.kill)
            return program

        yield start


def results(requests: Iterable[GearmanJobRequest]) -> list[Any]:
    return [request.result for request in requests]


@pytest.mark.parametrize(
    ("name", "task", "result"),
    [("worker.py", "thumbnail", b"small x"), ("worker_trio.py", "fetch", b"page of x")],
)
def test_worker_ends_its_job_at_sigterm(
    name: str,
    task: str,
    result: bytes,
    launch: Callable[[], Server],
    start: Callable[..., Running],
    no_hang: None,
) -> None:
    server = launch()
    worker = start(name, server)
    with GearmanClient([server.address]) as client:
        request = client.submit_job(task, "x", wait_until_complete=False)
        eventually(lambda: server.counts(task)[1], "the job running")
        worker.terminate()
        client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert request.result == result


@pytest.mark.slow
def test_rolling_restart_loses_no_job(
    launch: Callable[[], Server], start: Callable[..., Running], no_hang: None
) -> None:
    server = launch()
    first, second = start("worker.py", server), start("worker.py", server)
    eventually(lambda: server.counts("thumbnail")[2] == 2, "two workers")
    jobs = [{"task": "thumbnail", "data": str(number)} for number in range(12)]
    with GearmanClient([server.address]) as client:
        requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
        eventually(lambda: server.counts("thumbnail")[1] == 2, "two jobs running")
        first.terminate()
        start("worker.py", server)
        second.terminate()
        assert {line.split("\t")[1] for line in server.admin("show jobs").splitlines()[:-1]} <= {
            "0"
        }, "a job has lost its worker"
        client.wait_until_jobs_completed(requests, poll_timeout=PATIENCE)
    assert results(requests) == [b"small %d" % number for number in range(12)]


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".service")])
def test_unit_is_valid(name: str, tmp_path: Path) -> None:
    text = FILES[name].replace("/opt/thumbnails/bin/python", sys.executable)
    text = text.replace("/usr/sbin/gearmand", require("gearmand"))
    text = text.replace("/usr/local/bin/gearmanctl", sys.executable)
    (tmp_path / name).write_text(text)
    analyze = [require("systemd-analyze"), "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(analyze, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if name.replace("@.", "@") in line]
    assert (done.returncode, said) == (0, []), done.stderr


def gearmand_of_unit() -> tuple[list[str], int]:
    """Return the command of gearmand's systemd unit, and the signal that stops it."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read_string(FILES["gearmand@.service"].replace("\\\n", ""))
    _, *options = shlex.split(unit["Service"]["ExecStart"])
    return [require("gearmand"), *options], signal.Signals[unit["Service"]["KillSignal"]]


class UnitsGearmand(PortProgram, Administered):
    """A gearmand that is started as by its systemd unit, on a separate port."""

    def __init__(self, port: int) -> None:
        command, self._signal = gearmand_of_unit()
        super().__init__("127.0.0.1", port, *command, "--port", str(port))
        self.start()

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def drain(self) -> None:
        """Stop the server as systemd does."""
        assert self.process is not None
        self.process.send_signal(self._signal)


def listens(address: tuple[str, int]) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(address):
        return True
    return False


def test_second_gearmand_takes_over_while_the_first_drains(
    start: Callable[..., Running], no_hang: None
) -> None:
    first = UnitsGearmand(free_port())
    with contextlib.ExitStack() as stack:
        stack.callback(first.kill)
        worker = start("worker.py", first)
        eventually(lambda: first.counts("thumbnail")[2], "the worker")
        jobs = [{"task": "thumbnail", "data": str(number)} for number in range(5)]
        with GearmanClient([first.address]) as old, GearmanClient([first.address]) as new:
            requests = old.submit_multiple_jobs(jobs, wait_until_complete=False)
            first.drain()
            eventually(lambda: not listens(first.address), "nobody listening")
            second = UnitsGearmand(first.port)
            stack.callback(second.kill)
            late = new.submit_job("thumbnail", "late", wait_until_complete=False)
            assert old.submit_job("thumbnail", "soon", poll_timeout=PATIENCE).result
            old.wait_until_jobs_completed(requests, poll_timeout=PATIENCE)
            assert results(requests) == [b"small %d" % number for number in range(5)]
            assert first.process is not None
            assert first.process.wait(PATIENCE) == 0
            # The worker reconnects on its own.
            new.wait_until_jobs_completed([late], poll_timeout=PATIENCE)
            assert late.result == b"small late"
        worker.terminate()


def test_command_lists_functions_without_workers(start_gearmand: Callable[[], Gearmand]) -> None:
    require_module("typer")
    gearmand = start_gearmand()
    line = line_of(DEPLOYING, "gearmanctl status").replace("gearmanctl", GEARMANCTL)
    host, port = gearmand.address
    environ = {**os.environ, "GEARMAN_SERVERS": f"{host}:{port}", "PYTHONPATH": str(ROOT)}

    def printable() -> bytes:
        return subprocess.run(line, shell=True, env=environ, capture_output=True, check=True).stdout

    assert printable() == b""
    with GearmanClient([gearmand.address]) as client:
        client.submit_job("nobody-does-it", "", background=True)
    assert printable() == b"nobody-does-it\t1\t0\t0\n"
    worker = ScriptedWorker(gearmand.address, {"nobody-does-it": lambda job: b""})
    gearmand.wait_for_jobs("nobody-does-it", 0)
    worker.stop()
    assert printable() == b""


def test_sqlite_queue_with_empty_data_starts_after_the_delete(
    start_gearmand: Callable[..., Gearmand], tmp_path: Path
) -> None:
    if "libsqlite3" not in subprocess.check_output([require("gearmand"), "--help"], text=True):
        pytest.skip("this gearmand has no queue in SQLite")
    _, name, statement = shlex.split(line_of(PRODUCTION, "sqlite3 "))
    database = tmp_path / name
    gearmand = start_gearmand("--queue-type", "libsqlite3", "--libsqlite3-db", str(database))
    with GearmanClient([gearmand.address]) as client:
        for task, data in (("without", ""), ("with", "data")):
            assert client.submit_job(task, data, background=True).complete
    gearmand.kill()

    command = [word.replace("/dev/null", "stderr") for word in gearmand.command]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    (logged,) = [
        block[2].splitlines() for block in FENCED.finditer(PRODUCTION) if "QUEUE_ERROR" in block[2]
    ]
    assert (failed.returncode, len(logged)) == (1, 2)
    assert all(line in failed.stderr for line in logged), failed.stderr

    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute(statement).rowcount == 1
    gearmand.start()
    assert [gearmand.counts(task) for task in ("without", "with")] == [(0, 0, 0), (1, 0, 0)]


def test_certificates_and_terminator_work(
    start_gearmand: Callable[[], Gearmand], tmp_path: Path
) -> None:
    require("openssl")
    gearmand = start_gearmand()
    sh = ["sh", "-e", "-c", FILES["certificates.sh"]]
    made = subprocess.run(sh, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert made.stdout == "server.pem: OK\nclient.pem: OK\n"

    port = free_port()
    config = FILES["gearman.conf"].replace("4731", f"127.0.0.1:{port}")
    config = config.replace("127.0.0.1:4730", f"127.0.0.1:{gearmand.port}")
    for name in ("server.pem", "server.key", "ca.pem"):
        config = config.replace(name, str(tmp_path / name))
    (tmp_path / "gearman.conf").write_text(config)
    stunnel = PortProgram("127.0.0.1", port, require("stunnel4"), str(tmp_path / "gearman.conf"))
    try:
        stunnel.start()
        host = {"host": "localhost", "port": port}
        with GearmanClient([{**host, **client_keys(tmp_path)}]) as client:
            assert client.submit_job("nobody-does-this", "", background=True).complete
        with (
            GearmanClient([{**host, "ca_certs": str(tmp_path / "ca.pem")}]) as client,
            pytest.raises((errors.ServerUnavailable, errors.ExceededConnectionAttempts)),
        ):
            client.submit_job("nobody-does-this", "", background=True)
        with (
            GearmanClient([("127.0.0.1", port)], ssl_context=client_context(tmp_path)) as client,
            pytest.raises(errors.ServerUnavailable, match="IP address mismatch"),
        ):
            client.submit_job("nobody-does-this", "", background=True)
        require_module("typer")
        line = line_of(PRODUCTION, "gearmanctl ping").replace("gearmanctl", GEARMANCTL)
        line = line.replace("jobs1.example.org:4731", f"localhost:{port}")
        command = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
        subprocess.run(shlex.split(line), check=True, **command)  # type: ignore[call-overload]
    finally:
        stunnel.kill()


def test_exporter_serves_the_metrics_of_the_page(launch: Callable[[], Server]) -> None:
    require_module("typer")
    parser: Any = pytest.importorskip("prometheus_client.parser")
    server = launch()
    address = "{}:{}".format(*server.address)
    worker = ScriptedWorker(server.address, {"thumbnail": lambda job: b""})
    eventually(lambda: server.counts("thumbnail")[2], "the worker")
    port = free_port()
    line = line_of(MONITORING, "gearmanctl exporter").replace("9418", str(port))
    line = line.replace("gearmanctl", GEARMANCTL).replace("localhost:4730", address)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def scrape() -> list[Any]:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                text = answer.read().decode()
            families = parser.text_string_to_metric_families(text)
            return [sample for family in families for sample in family.samples]
        return []

    with subprocess.Popen(shlex.split(line), env=environment) as process:
        try:
            eventually(scrape, "the exporter")
            samples = scrape()
            described = re.findall(r"^\| `(gearman_\w+)` \|([^|]*)", MONITORING, re.MULTILINE)
            labels = {sample.name: set(sample.labels) for sample in samples}
            assert labels == {
                name: {"server", *re.findall(r"`(\w+)`", names)} for name, names in described
            }
            values = {(each.name, each.labels.get("function")): each.value for each in samples}
            assert values["gearman_up", None] == 1
            assert values["gearman_workers", "thumbnail"] == 1
        finally:
            process.terminate()
    assert process.returncode == 0
    worker.stop()


def test_check_of_the_page_succeeds(launch: Callable[[], Server]) -> None:
    require_module("typer")
    server = launch()
    worker = ScriptedWorker(server.address, {"thumbnail": lambda job: b""})
    eventually(lambda: server.counts("thumbnail")[2], "the worker")
    line = line_of(MONITORING, "gearmanctl check").replace("gearmanctl", GEARMANCTL)
    servers = "{}:{}".format(*server.address)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GEARMAN_SERVERS": servers}
    subprocess.run(shlex.split(line), check=True, env=environment)
    worker.stop()
