"""The examples work when run as a user runs them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gearman_sync import GearmanClient
from gearman_sync.testing import Failed, Peer, ScriptedJob, ScriptedServer, ScriptedWorker, reverse
from tests.support import EmbeddedServer, Gearmand, eventually, free_port, require_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
QUICKSTARTS = ["quickstart", "quickstart_trio", "quickstart_asyncio"]
OWN_LOOP = "examples/own_loop.py"
TWISTED = "examples/twisted_client.py"
DOCS_WORKER = "examples/docs_worker.py"
FUNCTIONS = "reverse, add, divide, refuse, slow"


def quickly_with(name: str) -> pytest.MarkDecorator:
    """Run a test with one quickstart, and with the others only among the slow tests."""
    others = [each for each in QUICKSTARTS if each != name]
    slow = [pytest.param(each, marks=pytest.mark.slow) for each in others]
    return pytest.mark.parametrize("quickstart", [name, *slow], indirect=True)


@pytest.fixture(params=QUICKSTARTS)
def quickstart(request: pytest.FixtureRequest) -> str:
    """The path of a quickstart."""
    return f"examples/{request.param}.py"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=ENVIRONMENT,
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
    """Check that the output reports all work in order. Return its lines."""
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
    assert at_work(result) == {"worker 1", "worker 2"}
    end = lines.index("")
    assert re.fullmatch(r"3 of 3 jobs done in [\d.]+ s", lines[end - 1])
    return lines


def test_quickstart(quickstart: str, tmp_path: Path) -> None:
    files = write_files(tmp_path)
    lines = check_quickstart(run(quickstart, *files), files)
    assert lines[0].startswith("server: listening at 127.0.0.1:")
    # Commands to try next, in a form that works here.
    gearmand, command_line, pages = lines[-3:]
    assert gearmand.endswith(f"{quickstart} --server localhost:4730")
    assert " -m pip install '.[cli]'; " in command_line
    assert (ROOT / pages.split()[-1]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 5])
def test_quickstart_with_other_numbers_of_workers(
    quickstart: str, tmp_path: Path, workers: int
) -> None:
    result = run(quickstart, "--workers", str(workers), *write_files(tmp_path))
    assert result.returncode == 0, result.stderr
    assert len(at_work(result)) == min(workers, 3)
    # The program did not wait for workers without a job.
    assert seconds(result) < 5.0


@pytest.mark.slow
def test_quickstart_with_another_worker_that_takes_a_job(
    quickstart: str,
    start_gearmand: Callable[..., Gearmand],
    start_worker: Callable[..., ScriptedWorker],
) -> None:
    """One of the program's two workers gets no job. The other waits for it, but not forever."""

    def count(job: ScriptedJob) -> bytes:
        time.sleep(2.0)
        return b"3"

    server = start_gearmand()
    start_worker(server.address, {"count-words": count})
    files = ["README.md", "CHANGELOG.md"]
    result = run(quickstart, "--server", f"localhost:{server.port}", *files)
    assert result.returncode == 0, result.stderr
    assert len(at_work(result)) == 1
    assert seconds(result) >= 5.0


def at_work(result: subprocess.CompletedProcess[str]) -> set[str]:
    """Return the workers that have done a job."""
    return set(re.findall(r"^worker \d", result.stdout, re.MULTILINE))


def seconds(result: subprocess.CompletedProcess[str]) -> float:
    """Return the duration of the jobs."""
    (number,) = re.findall(r" jobs done in ([\d.]+) s$", result.stdout, re.MULTILINE)
    return float(number)


def test_readme_shows_the_output_of_the_quickstart() -> None:
    """Except for numbers and names, each line is one that the program prints."""

    def general(line: str) -> str:
        return re.sub(r"\d+", "0", re.sub(r"H:[\w.-]+:", "H:", line))

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```\n(server: listening .*?)^```$", readme, re.DOTALL | re.MULTILINE)
    printed = {general(line) for line in run("examples/quickstart.py").stdout.splitlines()}
    assert {general(line) for line in shown.splitlines()} - {"..."} <= printed


@quickly_with("quickstart_trio")
def test_quickstart_without_arguments(quickstart: str) -> None:
    result = run(quickstart)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^client: README.md has \d+ words$", result.stdout, re.MULTILINE)


@quickly_with("quickstart")
def test_quickstart_with_a_gearmand(quickstart: str, gearmand: Gearmand, tmp_path: Path) -> None:
    files = write_files(tmp_path)
    host, port = gearmand.address
    lines = check_quickstart(run(quickstart, "--server", f"{host}:{port}", *files), files)
    assert not any(line.startswith("server: ") for line in lines)
    assert "--server" not in "".join(lines[-2:])


@quickly_with("quickstart_asyncio")
def test_quickstart_without_a_worker(quickstart: str) -> None:
    result = run(quickstart, "--workers", "0", "--timeout", "0.2", "README.md")
    assert result.returncode == 1
    assert result.stderr == ""
    assert "README.md: timed out" in result.stdout
    assert "0 of 1 jobs done" in result.stdout


@quickly_with("quickstart_trio")
def test_quickstart_with_a_worker_that_fails(
    quickstart: str,
    start_gearmand: Callable[..., Gearmand],
    start_worker: Callable[..., ScriptedWorker],
) -> None:
    def fail(job: ScriptedJob) -> bytes:
        raise Failed

    server = start_gearmand()
    start_worker(server.address, {"count-words": fail})
    result = run(quickstart, "--workers", "0", "--server", f"localhost:{server.port}", "README.md")
    assert result.returncode == 1
    assert result.stderr == ""
    assert "client: README.md: FAILED\n0 of 1 jobs done" in result.stdout


@quickly_with("quickstart")
def test_quickstart_without_a_server(quickstart: str) -> None:
    result = run(quickstart, "--server", f"127.0.0.1:{free_port()}")
    assert result.returncode == 3
    assert result.stderr.startswith("quickstart: no server could be reached")
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_quickstart_with_bad_arguments(quickstart: str) -> None:
    for arguments in (("--server", "h:0"), ("--server", "h", "no such file"), ("no such file",)):
        result = run(quickstart, *arguments)
        assert result.returncode == 2
        assert re.fullmatch(r"quickstart: .+\n", result.stderr)


def check_reversed(result: subprocess.CompletedProcess[str], jobs: int, size: int) -> list[str]:
    """Check that all jobs were done. Return the rest of the output."""
    assert result.stderr == ""
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    done = {f"job {number}: {size} bytes reversed" for number in range(1, jobs + 1)}
    assert done <= set(lines)
    assert re.fullmatch(rf"{jobs} of {jobs} jobs done in [\d.]+ s", lines.pop())
    return [line for line in lines if line not in done]


def test_own_loop() -> None:
    (line,) = check_reversed(run(OWN_LOOP), 8, 1_000_000)
    assert line.startswith("server: listening at 127.0.0.1:")


@pytest.mark.slow
def test_own_loop_with_a_gearmand(
    start_gearmand: Callable[..., Gearmand], start_worker: Callable[..., ScriptedWorker]
) -> None:
    server = start_gearmand()
    start_worker(server.address, {"reverse": reverse})
    # More data than both sockets hold in both directions, then more jobs than can be
    # unacknowledged.
    for jobs, size in ((100, 1_000_000), (10_000, 20)):
        result = run(
            OWN_LOOP,
            *("--server", f"localhost:{server.port}"),
            *("--jobs", str(jobs), "--size", str(size)),
        )
        assert check_reversed(result, jobs, size) == []


def test_own_loop_without_a_worker(gearmand: Gearmand) -> None:
    server = f"localhost:{gearmand.port}"
    result = run(OWN_LOOP, "--server", server, "--jobs", "2", "--timeout", "0.2")
    assert result.returncode == 1
    assert result.stderr == ""
    assert re.fullmatch(r"(job \d: timed out\n){2}0 of 2 jobs done in .*\n", result.stdout)


def test_own_loop_when_the_server_is_killed(start_gearmand: Callable[..., Gearmand]) -> None:
    server = start_gearmand()
    command = [sys.executable, OWN_LOOP, "--server", f"localhost:{server.port}", "--jobs", "3"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            server.wait_for_jobs("reverse", 3)
            server.kill()
            output, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert errors == ""
    assert process.returncode == 1
    # The server might die before its last acknowledgement arrives.
    lost = r"job \d: (the connection to .* was lost after .*|a submit was tried 1 time .*)\n"
    assert re.fullmatch(rf"({lost}){{3}}0 of 3 jobs done in .*\n", output)


def test_own_loop_when_the_server_closes_in_a_packet(
    start_server: Callable[..., ScriptedServer],
) -> None:
    def close(peer: Peer) -> None:
        peer.sock.recv(65536)

    host, port = start_server(close, receive_buffer=8192).address
    result = run(OWN_LOOP, "--server", f"{host}:{port}", "--jobs", "2", "--size", "10_000_000")
    assert result.returncode == 1
    assert result.stderr == ""
    lost = r"job \d: a submit was tried 1 time .*\n"
    assert re.fullmatch(rf"({lost}){{2}}0 of 2 jobs done in .*\n", result.stdout)


def test_own_loop_without_a_server() -> None:
    result = run(OWN_LOOP, "--server", f"127.0.0.1:{free_port()}")
    assert result.returncode == 3
    assert re.fullmatch(r"own_loop: no server could be reached: .* refused\)\n", result.stderr)


def test_own_loop_with_bad_arguments() -> None:
    result = run(OWN_LOOP, "--server", "h:0")
    assert result.returncode == 2
    assert re.fullmatch(r"own_loop: .+\n", result.stderr)


def test_adapter_of_own_loop_is_short_and_needs_only_the_core() -> None:
    """The adapter is as short as the documentation claims, and needs only the core."""
    text = (ROOT / OWN_LOOP).read_text(encoding="utf-8")
    _, adapter, _ = re.split(r"# The adapter (?:begins|ends) here\.\n", text)
    assert len([line for line in adapter.splitlines() if line.strip()]) <= 70
    assert "gearman_" not in adapter


def run_twisted(*command: str) -> subprocess.CompletedProcess[str]:
    require_module("twisted")
    return run(*command)


def test_twisted() -> None:
    (line,) = check_reversed(run_twisted(TWISTED), 8, 1_000_000)
    assert line.startswith("server: listening at 127.0.0.1:")


def test_twisted_with_a_gearmand(start_gearmand: Callable[..., Gearmand]) -> None:
    """The data exceeds the buffers of the sockets and the reactor in both directions."""
    server = f"localhost:{start_gearmand().port}"
    result = run_twisted(TWISTED, "--server", server, "--jobs", "20", "--size", "5_000_000")
    assert check_reversed(result, 20, 5_000_000) == []


def test_twisted_without_a_worker(server: Gearmand | EmbeddedServer) -> None:
    address = f"localhost:{server.port}"
    result = run_twisted(
        TWISTED, "--server", address, "--jobs", "2", "--timeout", "0.2", "--no-worker"
    )
    assert (result.returncode, result.stderr) == (1, "")
    assert re.fullmatch(r"(job \d: timed out\n){2}0 of 2 jobs done in .*\n", result.stdout)


def test_twisted_without_a_server() -> None:
    result = run_twisted(TWISTED, "--server", f"127.0.0.1:{free_port()}", "--jobs", "1")
    assert (result.returncode, result.stderr) == (1, "")
    failed = r"job 1: no server could be reached: .* refused.*\n0 of 1 jobs done in .*\n"
    assert re.fullmatch(failed, result.stdout)


def test_twisted_when_the_server_is_killed(launch: Callable[[], Gearmand | EmbeddedServer]) -> None:
    """The job is lost. A later submit waits for the restarted server."""
    program = """
import sys
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react
from examples.twisted_client import GearmanClient, GearmanWorker

async def main(reactor):
    client = GearmanClient(reactor, sys.argv[1:])
    worker = GearmanWorker(reactor, sys.argv[1:])
    worker.register("hold", lambda job: deferLater(reactor, 3600, bytes))
    work = worker.work()
    request = await client.submit("hold", b"")
    print(request.state, request.error)
    worker.close()
    await work
    client.close()
    while client.wires or worker.wires:
        await deferLater(reactor, 0.01, int)
    print(client.wires, worker.wires)

react(lambda reactor: ensureDeferred(main(reactor)))
"""
    require_module("twisted")
    server = launch()
    with subprocess.Popen(
        [sys.executable, "-c", program, f"localhost:{server.port}"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            eventually(lambda: server.counts("hold")[1] == 1, "the job that runs")
            server.kill()
            output, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    lost = r"UNKNOWN the connection to .* was lost after the job had been acknowledged.*\n"
    assert re.fullmatch(rf"{lost}{{}} {{}}\n", output), output


def test_twisted_with_failing_jobs(server: Gearmand | EmbeddedServer, task: str) -> None:
    program = """
import sys
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.task import react
from examples.twisted_client import GearmanClient, GearmanWorker

def divide(job):
    return b"%d" % (6 // int(job.data)) if job.data != b"none" else None

async def main(reactor):
    client, worker = [made(reactor, [sys.argv[1]]) for made in (GearmanClient, GearmanWorker)]
    cancelled = client.submit(sys.argv[2], b"3")
    cancelled.addErrback(lambda failure: print(failure.type.__name__))
    cancelled.cancel()
    worker.register(sys.argv[2], divide)
    work = worker.work()
    for data in (b"2", b"0", b"none"):
        request = await client.submit(sys.argv[2], data, timeout=20)
        print(request.state, request.result)
    try:
        client.submit("a\\0b", b"")
    except ValueError as error:
        print(error)
    worker.stop()
    await work
    client.close()

react(lambda reactor: ensureDeferred(main(reactor)))
"""
    result = run_twisted("-c", program, f"localhost:{server.port}", task)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:-1] == [
        "CancelledError",
        "COMPLETE b'3'",
        "FAILED None",
        "FAILED None",
    ]
    assert "ZeroDivisionError" in result.stderr
    assert "TypeError" in result.stderr


def test_twisted_replaces_an_engine_with_a_bug(
    server: Gearmand | EmbeddedServer, task: str
) -> None:
    program = """
import sys
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react
from examples.twisted_client import GearmanClient, GearmanWorker

def broken(*args):
    raise ZeroDivisionError

async def main(reactor):
    client, worker = [made(reactor, [sys.argv[1]]) for made in (GearmanClient, GearmanWorker)]
    worker.register(sys.argv[2], lambda job: job.data[::-1])
    for adapter, call in ((client, lambda: client.submit(sys.argv[2], b"")), (worker, worker.work)):
        adapter.engine.receive_data = broken
        try:
            await call()
        except Exception as error:
            print(error)
    work = worker.work()
    request = await client.submit(sys.argv[2], b"ab", timeout=60)
    print(request.state, request.result)
    worker.stop()
    await work
    client.close()

react(lambda reactor: ensureDeferred(main(reactor)))
"""
    result = run_twisted("-c", program, f"localhost:{server.port}", task)
    assert result.returncode == 0, result.stderr
    bug = "internal error: ZeroDivisionError()"
    assert result.stdout.splitlines() == [bug, bug, "COMPLETE b'ba'"]


def test_page_of_adapters_shows_the_twisted_example() -> None:
    """The page shows parts of the example with less indentation."""

    def lines(text: str) -> str:
        return "\n".join(line.strip() for line in text.splitlines() if line.strip())

    page = (ROOT / "docs/howto/adapters.md").read_text(encoding="utf-8")
    example = lines((ROOT / TWISTED).read_text(encoding="utf-8"))
    shown = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(shown) == 4
    for block in shown:
        assert lines(block) in example


@contextlib.contextmanager
def docs_worker(address: str) -> Iterator[list[str]]:
    """Run the documentation's worker as a user does. Yield the lines that it has printed."""
    with subprocess.Popen(
        [sys.executable, DOCS_WORKER, "--server", address],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            if lines[0].startswith("server: "):
                lines.append(process.stdout.readline())
            yield lines
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()


def reversed_at(address: str) -> object:
    with GearmanClient([address]) as client:
        return client.submit_job("reverse", "hello", poll_timeout=20).result


def test_docs_worker_starts_a_server() -> None:
    address = f"localhost:{free_port()}"
    with docs_worker(address) as lines:
        assert reversed_at(address) == b"olleh"
        assert lines == [
            f"server: nobody listens at {address}, so a job server of this program does\n",
            f"worker: doing {FUNCTIONS} at {address}; Ctrl-C ends it\n",
        ]


def test_docs_worker_with_a_gearmand(start_gearmand: Callable[..., Gearmand]) -> None:
    address = f"localhost:{start_gearmand().port}"
    with docs_worker(address) as lines:
        assert reversed_at(address) == b"olleh"
        assert len(lines) == 1


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("nowhere.invalid", 3, "no server could be reached: nowhere.invalid:4730 "),
        ("localhost:0", 2, "port 0 is not between 1 and 65535"),
    ],
)
def test_docs_worker_without_a_server(address: str, status: int, said: str) -> None:
    result = run(DOCS_WORKER, "--server", address)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith(f"docs_worker: {said}")
    assert result.stderr.count("\n") == 1
