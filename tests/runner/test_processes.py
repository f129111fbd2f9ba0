"""`gearmanctl run` with real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_sync import GearmanAdminClient, GearmanClient
from tests.support import PATIENCE, EmbeddedServer, eventually, interruptible, spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="it needs a POSIX system"),
]

#: Each callback prints to the log, and waits until the file `go` exists.
PLAIN: Final = """
import contextlib, os, sys, time
from gearman_sync import Tasks, current_job

@contextlib.contextmanager
def lifespan():
    print("enters", file=sys.stderr, flush=True)
    yield
    print("leaves", file=sys.stderr, flush=True)

tasks = Tasks(lifespan=lifespan)

@tasks.task("echo")
def echo(job):
    assert current_job() is job
    return job.data

@tasks.task("pid")
def pid(job):
    return str(os.getpid())

@tasks.task("wait")
def wait(job):
    print("begins", job.handle, file=sys.stderr, flush=True)
    while not os.path.exists("go"):
        time.sleep(0.01)
    return job.data
"""
AWAITED: Final = (
    PLAIN.replace("gearman_sync", "gearman_anyio")
    .replace("@contextlib.contextmanager\ndef", "@contextlib.asynccontextmanager\nasync def")
    .replace("def wait", "async def wait")
    .replace("time.sleep", "await anyio.sleep")
    .replace("import contextlib", "import anyio, contextlib")
)


class Run:
    """The program, with the application `tasks.py` in its directory."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self.server = server
        self._log = folder / "log"
        self.process: Any = None

    def write(self, code: str) -> None:
        (self.folder / "tasks.py").write_text(code)

    def start(self, *options: str, app: str = "tasks:tasks", **environment: str) -> None:
        command = (sys.executable, "-m", "gearman_sync", "run", app, "--servers", self.server)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                interruptible(*command, "--app-dir", str(self.folder), *options),
                stderr=log,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            )

    def log(self) -> str:
        return self._log.read_text()

    def sees(self, text: str, times: int = 1) -> None:
        """Wait until the log has `text` so many times."""
        eventually(lambda: self.log().count(text) >= times or self.has_ended(), repr(text))
        assert self.log().count(text) >= times, self.log()

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def status(self) -> int:
        """Wait for the end of the program. Return its exit status."""
        status: int = self.process.wait(PATIENCE)
        return status


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    server = EmbeddedServer()
    yield server
    server.kill()


@pytest.fixture
def run(tmp_path: Path, server: EmbeddedServer) -> Iterator[Run]:
    run = Run(tmp_path, f"127.0.0.1:{server.port}")
    run.write(PLAIN)
    yield run
    (tmp_path / "go").touch()
    if run.process is not None:
        if not run.has_ended():
            run.signal(signal.SIGQUIT)
        run.process.wait(PATIENCE)


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[GearmanClient]:
    with GearmanClient([server.address]) as client:
        yield client


def workers(server: EmbeddedServer) -> list[Any]:
    with GearmanAdminClient([server.address]) as admin:
        return [each for each in admin.get_workers() if each.tasks]


@pytest.mark.parametrize(
    ("code", "backend"), [(PLAIN, "asyncio"), (AWAITED, "asyncio"), (AWAITED, "trio")]
)
def test_running_job_ends_before_the_program(
    run: Run, server: EmbeddedServer, client: GearmanClient, code: str, backend: str
) -> None:
    run.write(code)
    run.start("--jobs", "2", "--id", "own", GEARMAN_RUN_BACKEND=backend)
    assert client.submit_job("echo", b"data").result == b"data"
    assert [each.client_id.split(":")[::2] for each in workers(server)] == [["own", "0"]]
    job = spawn(client.submit_job, "wait", b"last")
    run.sees("begins H:")
    run.signal(signal.SIGTERM)
    run.sees("stops when its jobs are done")
    (run.folder / "go").touch()
    assert job.result(PATIENCE).result == b"last"
    assert run.status() == 0
    assert (run.log().count("enters"), run.log().count("leaves")) == (1, 1)


def test_reload_takes_new_code_unless_it_is_broken(
    run: Run, server: EmbeddedServer, client: GearmanClient
) -> None:
    run.start()
    run.sees("ready with 1 processes")
    run.write("a syntax error")
    run.signal(signal.SIGHUP)
    run.sees("the old ones continue")
    assert "SyntaxError" in run.log()
    assert client.submit_job("echo", b"data").result == b"data"
    job = spawn(client.submit_job, "wait", b"of the old code")
    run.sees("begins H:")
    run.write(PLAIN.replace("return job.data", "return b'new'"))
    run.signal(signal.SIGHUP)
    run.sees("has reloaded")  # The old job does not delay that.
    assert client.submit_job("echo", b"data").result == b"new"
    (run.folder / "go").touch()
    assert job.result(PATIENCE).result == b"of the old code"
    run.signal(signal.SIGINT)
    assert run.status() == 0


def test_killed_process_is_replaced_and_its_job_is_run_again(
    run: Run, client: GearmanClient
) -> None:
    run.start()
    first = client.submit_job("pid", b"").result
    job = spawn(client.submit_job, "wait", b"again")
    run.sees("begins H:")
    os.kill(int(first), signal.SIGKILL)
    run.sees("has ended with signal 9")
    run.sees("begins H:", 2)
    (run.folder / "go").touch()
    assert job.result(PATIENCE).result == b"again"
    assert client.submit_job("pid", b"").result != first


def test_processes_drain_if_the_supervisor_is_killed(
    run: Run, server: EmbeddedServer, client: GearmanClient
) -> None:
    run.start()
    job = spawn(client.submit_job, "wait", b"last")
    run.sees("begins H:")
    run.signal(signal.SIGKILL)
    run.process.wait(PATIENCE)
    queued = client.submit_job("echo", b"", wait_until_complete=False)
    (run.folder / "go").touch()
    assert job.result(PATIENCE).result == b"last"
    eventually(lambda: "leaves" in run.log(), "the end of the lifespan")
    eventually(lambda: not workers(server), "the end of the worker")
    assert queued.state == "CREATED"


def test_second_signal_ends_at_once(run: Run, client: GearmanClient) -> None:
    run.start()
    job = client.submit_job("wait", b"", wait_until_complete=False)
    run.sees("begins H:")
    run.signal(signal.SIGTERM)
    run.sees("stops when its jobs are done")
    run.signal(signal.SIGINT)
    assert run.status() == 128 + signal.SIGINT
    assert re.search(rf"{job.handle}.* ends with its process, after \d+\.\d s", run.log())


def test_shutdown_timeout_ends_the_rest(run: Run, client: GearmanClient) -> None:
    run.start("--shutdown-timeout", "1")
    client.submit_job("wait", b"", wait_until_complete=False)
    run.sees("begins H:")
    run.signal(signal.SIGTERM)
    assert run.status() == 128 + signal.SIGTERM
    assert "has not stopped after 1 s" in run.log()


def test_failure_of_one_process_ends_the_first_start(run: Run, server: EmbeddedServer) -> None:
    run.write(  # Only one of the three processes can create the directory.
        PLAIN + "\ntry: os.mkdir('mine')\nexcept FileExistsError: pass\n"
        "else: raise LookupError('not configured')"
    )
    run.start("--processes", "3")
    assert run.status() == 1
    assert run.log().count("LookupError: not configured") == 1
    assert not workers(server)


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("nothing:tasks", "No module named 'nothing'"),
        ("tasks:nothing", "has no attribute 'nothing'"),
        ("tasks:os", "tasks:os is a Tasks or a dict of names and callbacks, or with --factory"),
    ],
)
def test_wrong_application_is_named(run: Run, app: str, message: str) -> None:
    run.start(app=app)
    assert run.status() == 1
    assert message in run.log()


def test_program_waits_for_servers_unless_they_are_required(run: Run) -> None:
    run.server = "127.0.0.1:1"
    run.start("--require-server")
    assert run.status() == 3
    run.start()
    run.sees("ready with 1 processes")
    run.sees("127.0.0.1:1")
    run.signal(signal.SIGHUP)
    run.sees("has reloaded")
    run.signal(signal.SIGTERM)
    assert run.status() == 0


def test_factory_makes_the_worker(run: Run, client: GearmanClient) -> None:
    run.write(
        "from gearman_sync import GearmanWorker\n"
        "def make():\n"
        f"    worker = GearmanWorker([{run.server!r}])\n"
        "    worker.register_task('factory', lambda job: job.data)\n"
        "    return worker\n"
    )
    run.start("--factory", app="tasks:make")
    assert client.submit_job("factory", b"data").result == b"data"
    run.signal(signal.SIGTERM)
    assert run.status() == 0


def test_pause_leaves_jobs_queued_until_resume(run: Run, client: GearmanClient) -> None:
    run.start()
    assert client.submit_job("echo", b"").complete
    run.signal(signal.SIGUSR1)
    requests = []

    def is_paused() -> bool:
        requests.append(client.submit_job("echo", b"x", poll_timeout=1.0))
        return requests[-1].state == "CREATED"

    eventually(is_paused, "a job that stays queued")
    run.signal(signal.SIGUSR2)
    client.wait_until_jobs_completed(requests)
    assert {request.result for request in requests} == {b"x"}


def test_service_manager_is_told_the_state(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(PATIENCE)
        receive: Callable[[], bytes] = lambda: sock.recv(100)  # noqa: E731
        run.start(NOTIFY_SOCKET=path)
        assert receive() == b"READY=1"
        run.signal(signal.SIGHUP)
        assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", receive())
        assert receive() == b"READY=1"
        run.signal(signal.SIGTERM)
        assert receive() == b"STOPPING=1"
    assert run.status() == 0


def test_new_processes_follow_a_moved_link(run: Run, client: GearmanClient) -> None:
    for name in ("one", "two"):
        (run.folder / name).mkdir()
        (run.folder / name / "tasks.py").write_text(
            "import os\n"
            f"tasks = {{'name': lambda job: {name!r} + ' ' + os.path.basename(os.getcwd())}}"
        )
    link = run.folder / "current"
    link.symlink_to("one")
    run.start("--app-dir", str(link))
    assert client.submit_job("name", b"").result == b"one one"
    link.unlink()
    link.symlink_to("two")
    run.signal(signal.SIGHUP)
    run.sees("has reloaded")
    # The old process can still get a job before it handles its signal.
    eventually(lambda: client.submit_job("name", b"").result == b"two two", "the new process")


@pytest.mark.parametrize("code", [PLAIN, AWAITED])
def test_process_is_replaced_after_its_number_of_jobs(
    run: Run, client: GearmanClient, code: str
) -> None:
    run.write(code)
    run.start("--max-jobs", "1")
    first = client.submit_job("pid", b"").result
    run.sees("leaves")
    assert client.submit_job("pid", b"").result != first
    assert "is replaced: it has done its number of jobs" in run.log()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="it needs Linux")
def test_process_is_replaced_when_it_needs_too_much_memory(run: Run, client: GearmanClient) -> None:
    run.write(
        PLAIN
        + """
kept = []

@tasks.task("leak")
def leak(job):
    kept.append(b"x" * 150_000_000)
"""
    )
    run.start("--max-memory", "1")
    assert run.status() == 1
    assert "--max-memory is 1 MB, and a process without jobs has" in run.log()
    run.start("--max-memory", "120")
    assert client.submit_job("echo", b"").complete
    assert "is replaced" not in run.log()
    assert client.submit_job("leak", b"").complete
    run.sees("is replaced: it has ")
    run.sees("leaves")
