"""The examples work when run as a user runs them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
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
QUICKSTARTS = [f"examples/quickstart{end}.py" for end in ("", "_trio", "_asyncio")]
OWN_LOOP = "examples/own_loop.py"
FRAME_LOOP = "examples/frame_loop.py"
GEVENT = "examples/gevent_client.py"
QT = "examples/qt_client.py"
TWISTED = "examples/twisted_client.py"
DOCS_WORKER = "examples/docs_worker.py"
FUNCTIONS = "reverse, add, divide, refuse, slow"


each_quickstart = pytest.mark.parametrize("quickstart", QUICKSTARTS)


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


def require_framework(example: str) -> None:
    module = {TWISTED: "twisted", GEVENT: "gevent", QT: "PySide6"}.get(example)
    if module is not None:
        require_module(module)


def write_files(directory: Path) -> list[str]:
    files = []
    for number, text in enumerate(("one two three", "", "four\nfive\n")):
        file = directory / f"{number}.txt"
        file.write_text(text)
        files.append(str(file))
    return files


@each_quickstart
def test_quickstart(quickstart: str, tmp_path: Path) -> None:
    """The output reports all work in order, and commands to try next in a form that works here."""
    files = write_files(tmp_path)
    result = run(quickstart, *files)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("server: listening at 127.0.0.1:")
    for path, words in zip(files, (3, 0, 2)):
        (submitted,) = (line for line in lines if line.startswith(f"client: submitted {path} as "))
        handle = submitted.rpartition(" ")[2]
        (done,) = (line for line in lines if line.endswith(f": counted {words} words in {handle}"))
        steps = [submitted, done, f"client: {path} has {words} words"]
        assert [line for line in lines if line in steps] == steps
    assert set(re.findall(r"^worker \d", result.stdout, re.MULTILINE)) == {"worker 1", "worker 2"}
    assert re.fullmatch(r"3 of 3 jobs done in [\d.]+ s", lines[lines.index("") - 1])
    gearmand, command_line, pages = lines[-3:]
    assert gearmand.endswith(f"{quickstart} --server localhost:4730")
    assert " -m pip install '.[cli]'; " in command_line
    assert (ROOT / pages.split()[-1]).is_file()


def test_readme_shows_the_output_of_the_quickstart() -> None:
    """Except for numbers and names, each line is one that the program prints."""

    def general(line: str) -> str:
        return re.sub(r"\d+", "0", re.sub(r"H:[\w.-]+:", "H:", line))

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```\n(server: listening .*?)^```$", readme, re.DOTALL | re.MULTILINE)
    printed = {general(line) for line in run("examples/quickstart.py").stdout.splitlines()}
    assert {general(line) for line in shown.splitlines()} - {"..."} <= printed


@pytest.mark.parametrize(
    ("example", "module", "packages"),
    [
        ("quickstart_asyncio", "anyio", "anyio"),
        ("quickstart_trio", "trio", "'anyio[trio]'"),
        ("django_site", "django", "django"),
        ("fastapi_app", "fastapi", "anyio fastapi uvicorn"),
        ("twisted_client", "twisted", "twisted"),
        ("gevent_client", "gevent", "gevent"),
        ("qt_client", "PySide6", "pyside6"),
        ("check_pygearman", "hypothesis", "pygearman hypothesis"),
    ],
)
def test_example_without_its_package_says_what_to_install(
    example: str, module: str, packages: str
) -> None:
    path = f"examples/{example}.py"
    program = f"import runpy, sys; sys.modules[{module!r}] = None; runpy.run_path({path!r})"
    result = run("-c", f"import sys; sys.path[0] = 'examples'; {program}")
    assert result.returncode == 1
    assert re.fullmatch(
        rf"this example needs .*: pip install {re.escape(packages)}\n", result.stderr
    )


@pytest.mark.slow
@each_quickstart
def test_quickstart_with_jobs_that_time_out_or_fail(
    quickstart: str,
    start_gearmand: Callable[..., Gearmand],
    start_worker: Callable[..., ScriptedWorker],
) -> None:
    def fail(job: ScriptedJob) -> bytes:
        raise Failed

    server = start_gearmand()
    options = ("--workers", "0", "--server", f"localhost:{server.port}", "README.md")
    result = run(quickstart, "--timeout", "1", *options)
    assert (result.returncode, result.stderr) == (1, "")
    assert "server: " not in result.stdout
    assert "client: README.md: timed out\n0 of 1 jobs done" in result.stdout
    start_worker(server.address, {"count-words": fail})
    result = run(quickstart, *options)
    assert (result.returncode, result.stderr) == (1, "")
    assert "client: README.md: FAILED\n0 of 1 jobs done" in result.stdout


@pytest.mark.parametrize(
    "example",
    [
        *(*QUICKSTARTS, OWN_LOOP, FRAME_LOOP, DOCS_WORKER, GEVENT),
        pytest.param(QT, marks=pytest.mark.slow),
    ],
)
def test_example_without_a_server_or_with_a_wrong_port(example: str) -> None:
    require_framework(example)
    # The documentation's worker would start a server at a local address.
    address = "nowhere.invalid" if example == DOCS_WORKER else "127.0.0.1:1"
    result = run(example, "--server", address)
    assert (result.returncode, result.stdout) == (3, "")
    assert re.match(rf"\w+: no server could be reached: {address}", result.stderr)
    result = run(example, "--server", "localhost:0")
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"\w+: port 0 is not between 1 and 65535\n", result.stderr)


def check_reversed(result: subprocess.CompletedProcess[str], jobs: int, size: int) -> list[str]:
    """Check that all jobs were done. Return the rest of the output."""
    assert result.stderr == ""
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    done = {f"job {number}: {size} bytes reversed" for number in range(1, jobs + 1)}
    assert done <= set(lines)
    assert re.fullmatch(rf"{jobs} of {jobs} jobs done in [\d.]+ s", lines.pop())
    return [line for line in lines if line not in done]


@pytest.mark.parametrize("example", [OWN_LOOP, TWISTED, pytest.param(QT, marks=pytest.mark.slow)])
def test_adapter_does_its_own_jobs(example: str) -> None:
    require_framework(example)
    (line,) = check_reversed(run(example), 8, 1_000_000)
    assert line.startswith("server: listening at 127.0.0.1:")


@pytest.mark.parametrize("example", [OWN_LOOP, TWISTED, pytest.param(QT, marks=pytest.mark.slow)])
def test_adapter_without_a_worker(example: str, gearmand: Gearmand) -> None:
    require_framework(example)
    options = ["--no-worker"] if example == TWISTED else []
    server = f"localhost:{gearmand.port}"
    result = run(example, "--server", server, "--jobs", "2", "--timeout", "0.2", *options)
    assert (result.returncode, result.stderr) == (1, "")
    assert re.fullmatch(r"(job \d: timed out\n){2}0 of 2 jobs done in .*\n", result.stdout)


def test_frame_loop_draws_while_jobs_run(gearmand: Gearmand) -> None:
    result = run(FRAME_LOOP)
    assert (result.returncode, result.stderr) == (0, "")
    server, *frames = result.stdout.splitlines()
    assert server.startswith("server: listening at 127.0.0.1:")
    done = [int(frame.split()[2]) for frame in frames]
    assert frames == [
        f"frame {number}: {each} of 8 jobs done" for number, each in enumerate(done, 1)
    ]
    assert done == sorted(done)
    assert done[-1] == 8
    # Frames go on while a job waits for a worker.
    options = ("--jobs", "1", "--size", "1", "--timeout", "1")
    result = run(FRAME_LOOP, "--server", f"localhost:{gearmand.port}", *options)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.count("0 of 1 jobs done") > 1


def test_gevent_greenlets_share_a_client(launch: Callable[[], Gearmand | EmbeddedServer]) -> None:
    require_module("gevent")
    for options in ((), ("--server", f"localhost:{launch().port}")):
        result = run(GEVENT, *options)
        assert (result.returncode, result.stderr) == (0, "")
        done = r"100 of 100 jobs done; another greenlet has counted to [1-9]\d*\n"
        assert re.fullmatch(done, result.stdout)


@pytest.mark.slow
def test_qt_with_a_gearmand(
    start_gearmand: Callable[..., Gearmand], start_worker: Callable[..., ScriptedWorker]
) -> None:
    """The data exceeds the buffers of the sockets and of Qt in both directions."""
    require_module("PySide6")
    server = start_gearmand()
    start_worker(server.address, {"reverse": reverse})
    options = ("--jobs", "20", "--size", "5_000_000")
    result = run(QT, "--server", f"localhost:{server.port}", *options)
    assert check_reversed(result, 20, 5_000_000) == []


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


def test_adapter_of_own_loop_is_short_and_needs_only_the_core() -> None:
    """The adapter is as short as the documentation claims, and needs only the core."""
    text = (ROOT / OWN_LOOP).read_text(encoding="utf-8")
    _, adapter, _ = re.split(r"# The adapter (?:begins|ends) here\.\n", text)
    assert len([line for line in adapter.splitlines() if line.strip()]) <= 92
    assert "gearman_" not in adapter


def test_twisted_with_a_gearmand(start_gearmand: Callable[..., Gearmand]) -> None:
    """The data exceeds the buffers of the sockets and the reactor in both directions."""
    require_module("twisted")
    server = f"localhost:{start_gearmand().port}"
    result = run(TWISTED, "--server", server, "--jobs", "20", "--size", "5_000_000")
    assert check_reversed(result, 20, 5_000_000) == []


TWISTED_PROGRAM = """
import sys
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.task import deferLater, react
from examples.twisted_client import GearmanClient, GearmanWorker

def broken(*args):
    raise ZeroDivisionError

async def main(reactor, server, task):
    client, worker = [made(reactor, [server]) for made in (GearmanClient, GearmanWorker)]
{}
react(lambda reactor, *args: ensureDeferred(main(reactor, *args)), sys.argv[1:])
"""


def twisted_program(body: str, server: Gearmand | EmbeddedServer, task: str) -> tuple[str, ...]:
    """Return the arguments of Python that run `body` with a client and a worker of Twisted."""
    require_module("twisted")
    program = TWISTED_PROGRAM.format(textwrap.indent(textwrap.dedent(body), "    "))
    return ("-c", program, f"localhost:{server.port}", task)


def test_twisted_when_the_server_is_killed(launch: Callable[[], Gearmand | EmbeddedServer]) -> None:
    body = """
        worker.register(task, lambda job: deferLater(reactor, 3600, bytes))
        work = worker.work()
        request = await client.submit(task, b"")
        print(request.state, request.error)
        worker.close()
        await work
        client.close()
        while client.wires or worker.wires:
            await deferLater(reactor, 0.01, int)
    """
    server = launch()
    with subprocess.Popen(
        [sys.executable, *twisted_program(body, server, "hold")],
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
    lost = r"UNKNOWN lost the connection to .* after it had accepted the job; .*\n"
    assert re.fullmatch(lost, output), output


def test_twisted_with_failing_jobs_and_an_engine_with_a_bug(
    server: Gearmand | EmbeddedServer, task: str
) -> None:
    body = """
        results = {b"2": b"3", b"none": None}
        worker.register(task, lambda job: results[job.data])
        for adapter, call in (client, lambda: client.submit(task, b"")), (worker, worker.work):
            adapter.engine.receive_data = broken
            try:
                await call()
            except Exception as error:
                print(error)
        cancelled = client.submit(task, b"3")
        cancelled.addErrback(lambda failure: print(failure.type.__name__))
        cancelled.cancel()
        work = worker.work()
        for data in (b"2", b"0", b"none"):
            request = await client.submit(task, data, timeout=60)
            print(request.state, request.result)
        worker.stop()
        await work
        client.close()
    """
    result = run(*twisted_program(body, server, task))
    assert result.returncode == 0, result.stderr
    bug = "internal error: ZeroDivisionError()"
    assert result.stdout.splitlines() == [
        *(bug, bug, "CancelledError", "COMPLETE b'3'", "FAILED None", "FAILED None")
    ]
    assert "KeyError" in result.stderr
    assert "TypeError" in result.stderr


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
