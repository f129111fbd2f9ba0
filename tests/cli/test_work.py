"""``gearmanctl work``: a command for each job; signals let it finish, or stop it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync import JOB_COMPLETE, GearmanClient
from gearman_sync.testing import ScriptedWorker, reverse
from tests.support import PATIENCE, eventually, free_port

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    USAGE,
    Result,
    Running,
    gearman,
    gearmanctl,
    is_alive,
    on_both,
    stays,
    words_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gearman_sync import GearmanJobRequest

    from .support import Server

    StartWorker = Callable[..., ScriptedWorker]
    Start = Callable[..., Running]
    Work = Callable[..., Running]

LARGE = bytes(range(256)) * 20_000
each_signal = pytest.mark.parametrize(("number", "jobs"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])
#: A command that leaves a process running, which is in a session of its own and has its pipes.
LEAVES = """
import subprocess, sys, time
sleep = [sys.executable, "-ISc", "import time; time.sleep(1000)"]
left = subprocess.Popen(sleep, start_new_session=True).pid
print(left, flush=True)
"""
#: gearmanctl, whose worker says when it has no job any more: its client knows a little earlier.
SAYS_IDLE = """
import os, threading, time
from gearman_sync import GearmanWorker
from gearman_sync.cli import main

def after_job(worker):
    def tell():
        while worker.has_job_lock():
            time.sleep(0.001)
        os.write(2, b"idle\\n")

    threading.Thread(target=tell).start()
    return True

GearmanWorker.after_job = after_job
main()
"""


@pytest.fixture
def work(start: Start) -> Work:
    """Starts a worker, and returns when the server knows it."""

    def work(server: Server, task: str, *words: Any, **options: Any) -> Running:
        before = server.counts(task)[2]
        running = start("work", task, *words, at=server, **options)
        eventually(lambda: server.counts(task)[2] == before + 1, "a worker")
        return running

    return work


@pytest.fixture
def client(server: Server) -> Iterator[GearmanClient]:
    """A client of the server."""
    with GearmanClient([server.address]) as client:
        yield client


def submit(client: GearmanClient, task: str, data: bytes) -> GearmanJobRequest:
    """Submit a job, and do not wait for its end."""
    return client.submit_job(task, data, wait_until_complete=False, poll_timeout=PATIENCE)


def results(client: GearmanClient, *requests: GearmanJobRequest) -> list[bytes]:
    """Wait for the results of jobs."""
    client.wait_until_jobs_completed(requests, poll_timeout=PATIENCE)
    assert all(request.state == JOB_COMPLETE for request in requests)
    return [request.result for request in requests]


class Held:
    """A command that says that it has begun, and runs until it is let go."""

    def __init__(self, directory: Path) -> None:
        self._begun = directory / "begun"
        self._go_on = directory / "go on"
        begun, go_on = shlex.quote(str(self._begun)), shlex.quote(str(self._go_on))
        script = f"sleep 1000 & echo $$ $! >> {begun}; until test -e {go_on}; do sleep 0.01; done"
        self.command = ("--", "sh", "-c", f"{script}; kill $!; cat")

    @property
    def processes(self) -> list[int]:
        """Those that were started, two each time."""
        return [int(word) for word in self._begun.read_text().split()]

    def wait(self, times: int = 1) -> None:
        """Wait until it has begun."""
        eventually(
            lambda: self._begun.exists() and len(self.processes) == 2 * times, f"{times} commands"
        )

    def let_go(self) -> None:
        self._go_on.touch()


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(tmp_path)


# Jobs.


@on_both
def test_the_output_is_the_result(server: Server, work: Work, task: str) -> None:
    work(server, task, "--", "rev")
    for _ in range(2):
        assert gearmanctl("submit", task, "hello", at=server) == Result(DONE, b"olleh", "")


@pytest.mark.parametrize("data", [b"", bytes(range(256)), LARGE], ids=["empty", "bytes", "large"])
def test_any_data(server: Server, work: Work, task: str, data: bytes) -> None:
    work(server, task, "--", "cat")
    assert gearmanctl("submit", task, at=server, data=data) == Result(DONE, data, "")


def test_a_command_that_does_not_read_its_data(server: Server, work: Work, task: str) -> None:
    work(server, task, "--", "echo", "-n", "done")
    assert gearmanctl("submit", task, at=server, data=LARGE) == Result(DONE, b"done", "")


def test_the_gearman_program_gets_the_same(server: Server, work: Work, task: str) -> None:
    work(server, task, "--", "cat")
    data = bytes(range(256))
    assert gearman(server, "-f", task, data=data) == Result(DONE, data, "")
    assert gearmanctl("submit", task, at=server, data=data) == Result(DONE, data, "")


def test_a_task_that_is_no_utf_8(launch: Callable[[], Server], start: Start, task: str) -> None:
    server = launch()
    name = task.encode() + b"-\xff"
    start("work", name, "--", "cat", at=server)
    assert gearmanctl("submit", name, "data", at=server) == Result(DONE, b"data", "")


def test_environment(server: Server, work: Work, task: str) -> None:
    work(server, task, "--", "sh", "-c", 'echo "$GEARMAN_TASK,$GEARMAN_UNIQUE,$GEARMAN_HANDLE"')
    result = gearmanctl("submit", task, "", "--unique", "a b", at=server)
    assert re.fullmatch(rf"{task},a b,H:\S+:\d+\n", result.output.decode())


def test_client_id(server: Server, work: Work, task: str) -> None:
    work(server, task, "--client-id", f"id of {task}", "--", "cat")
    rows = [line.split("\t") for line in gearmanctl("workers", at=server).lines]
    assert [row[2] for row in rows if row[3] == task] == [f"id of {task}"]


def test_several_jobs_at_once(
    server: Server, work: Work, task: str, held: Held, client: GearmanClient
) -> None:
    work(server, task, "--jobs", "3", *held.command)
    requests = [submit(client, task, b"%d" % number) for number in range(4)]
    held.wait(3)
    assert server.counts(task) == (4, 3, 1)
    held.let_go()
    assert results(client, *requests) == [b"0", b"1", b"2", b"3"]


# Failures.


def test_a_command_that_fails(server: Server, work: Work, task: str) -> None:
    worker = work(server, task, "--", "sh", "-c", "echo out; echo no such thing >&2; exit 3")
    result = gearmanctl("submit", task, "", at=server)
    assert (result.status, result.output) == (FAILED, b"")
    assert result.error == "the job failed: no such thing"
    assert worker.error() == "no such thing"
    assert re.fullmatch(r"gearmanctl: H:\S+: exit status 3", worker.error())


def test_a_command_that_fails_without_a_word(server: Server, work: Work, task: str) -> None:
    work(server, task, "--", "false")
    result = gearmanctl("submit", task, "", at=server)
    assert (result.status, result.error) == (FAILED, "the job failed: exit status 1")


def test_a_failure_without_exceptions(server: Server, work: Work, task: str) -> None:
    work(server, task, "--no-exceptions", "--", "sh", "-c", "echo no such thing >&2; exit 3")
    result = gearmanctl("submit", task, "", at=server)
    assert (result.status, result.output) == (FAILED, b"")
    assert result.errors == "no such thing\ngearmanctl: the job failed\n"
    theirs = gearman(server, "-f", task)
    assert (theirs.status, theirs.output) == (FAILED, b"")
    assert "no such thing" in theirs.errors


def test_a_command_that_is_killed(server: Server, work: Work, task: str) -> None:
    work(server, task, "--", "sh", "-c", "kill -9 $$")
    result = gearmanctl("submit", task, "", at=server)
    assert (result.status, result.error) == (FAILED, "the job failed: killed by SIGKILL")
    # The worker goes on.
    result = gearmanctl("submit", task, "", at=server)
    assert (result.status, result.error) == (FAILED, "the job failed: killed by SIGKILL")


def test_a_command_that_disappears(server: Server, work: Work, task: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho here\n")
    script.chmod(0o755)
    work(server, task, "--", script)
    assert gearmanctl("submit", task, "", at=server) == Result(DONE, b"here\n", "")
    script.unlink()
    result = gearmanctl("submit", task, "", at=server)
    assert result.status == FAILED
    assert "No such file or directory" in result.error


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--", "no-such-command"), "no-such-command: there is no such command"),
        ((), "COMMAND"),
        (("--jobs", "0", "--", "cat"), "--jobs"),
        (("--client-id", "x" * 200, "--", "cat"), "127"),
    ],
)
def test_a_wrong_command_line(words: tuple[str, ...], reason: str) -> None:
    result = gearmanctl("work", "task", *words, at=("127.0.0.1", 1))
    assert (result.status, result.output) == (USAGE, b"")
    assert reason in result.error


# Servers.


def test_no_server() -> None:
    port = free_port()
    result = gearmanctl("work", "task", "--", "cat", at=("127.0.0.1", port))
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert f"no server could be reached: 127.0.0.1:{port}" in result.errors
    assert "Traceback" not in result.errors


def test_a_server_that_comes_back(launch: Callable[[], Server], work: Work, task: str) -> None:
    server = launch()
    worker = work(server, task, "--", "rev")
    server.kill()
    assert "no connection to" in worker.error()
    server.start()
    eventually(lambda: server.counts(task)[2] == 1, "the worker")
    assert gearmanctl("submit", task, "ab", at=server) == Result(DONE, b"ba", "")
    worker.signal(signal.SIGTERM)
    result = worker.end()
    assert result.status == DONE
    assert "Traceback" not in result.errors


def test_several_servers(launch: Callable[[], Server], start: Start, task: str) -> None:
    servers = (launch(), launch())
    start("work", task, "--", "rev", at=servers)
    for server in servers:
        assert gearmanctl("submit", task, "ab", at=server) == Result(DONE, b"ba", "")


# Signals.


@each_signal
def test_a_signal_ends_an_idle_worker(
    server: Server, run_program: Start, task: str, number: int, jobs: int
) -> None:
    command = [os.fsencode(word) for word in (sys.executable, "-W", "error", "-c", SAYS_IDLE)]
    words = words_of("work", task, "--jobs", jobs, "--", "cat", servers=(server,))
    worker = run_program([*command, *words])
    assert gearmanctl("submit", task, "ab", at=server) == Result(DONE, b"ab", "")
    assert worker.error() == "idle"
    worker.signal(number)
    assert worker.end() == Result(DONE, b"", "")
    eventually(lambda: server.counts(task)[2] == 0)


@each_signal
def test_a_signal_lets_it_finish_its_jobs(
    server: Server,
    work: Work,
    task: str,
    held: Held,
    client: GearmanClient,
    number: int,
    jobs: int,
) -> None:
    worker = work(server, task, "--jobs", jobs, *held.command)
    requests = [submit(client, task, b"data") for _ in range(jobs)]
    held.wait(jobs)
    other = submit(client, task, b"not this")
    worker.signal(number)
    assert "a second signal stops it at once" in worker.error()
    assert stays(lambda: worker.process.poll() is None, 0.1)
    held.let_go()
    assert worker.end() == Result(DONE, b"", "")
    assert results(client, *requests) == [b"data"] * jobs
    # It has taken no other.
    assert not other.complete
    eventually(lambda: server.counts(task) == (1, 0, 0))


@each_signal
def test_a_second_signal_stops_it(
    server: Server,
    work: Work,
    task: str,
    held: Held,
    start_worker: StartWorker,
    client: GearmanClient,
    number: int,
    jobs: int,
) -> None:
    worker = work(server, task, "--jobs", jobs, *held.command)
    request = submit(client, task, b"data")
    held.wait()
    worker.signal(number)
    worker.error()
    worker.signal(number)
    result = worker.end()
    assert result.status == 128 + number
    assert "Traceback" not in result.errors
    eventually(lambda: not any(map(is_alive, held.processes)), "the end of the command")
    # What it was is nobody's result: another worker does the job.
    start_worker(server.address, {task: reverse})
    assert results(client, request) == [b"atad"]


@pytest.mark.slow
def test_process_left_running_with_the_pipes_does_not_hold_up_the_job(
    server: Server, work: Work, task: str
) -> None:
    worker = work(server, task, "--", sys.executable, "-ISc", LEAVES)
    result = gearmanctl("submit", task, "", at=server)
    left = int(result.output)
    assert is_alive(left)
    os.kill(left, signal.SIGKILL)
    assert result == Result(DONE, b"%d\n" % left, "")
    assert "left a process running that still has its output" in worker.error()


def test_second_signal_ends_it_while_a_process_left_running_has_the_pipes(
    server: Server, work: Work, task: str, client: GearmanClient, tmp_path: Path
) -> None:
    file = tmp_path / "left running"
    script = (
        f"{LEAVES}print(left, end='.', file=open(sys.argv[1], 'w'), flush=True); time.sleep(1000)"
    )
    worker = work(server, task, "--", sys.executable, "-ISc", script, file)
    submit(client, task, b"data")
    eventually(lambda: file.exists() and file.read_text().endswith("."), "the command")
    left = int(file.read_text()[:-1])
    worker.signal(signal.SIGINT)
    worker.error()
    worker.signal(signal.SIGINT)
    try:
        assert worker.end().status == 128 + signal.SIGINT
    finally:
        assert is_alive(left)
        os.kill(left, signal.SIGKILL)


def test_ctrl_c_is_not_for_the_command(
    server: Server,
    work: Work,
    task: str,
    held: Held,
    client: GearmanClient,
) -> None:
    """A terminal sends it to the whole process group."""
    worker = work(server, task, *held.command)
    request = submit(client, task, b"data")
    held.wait()
    os.killpg(worker.process.pid, signal.SIGINT)
    worker.error()
    assert all(map(is_alive, held.processes))
    held.let_go()
    assert worker.end() == Result(DONE, b"", "")
    assert results(client, request) == [b"data"]


def test_a_worker_that_is_killed_has_not_done_its_job(
    server: Server,
    work: Work,
    task: str,
    held: Held,
    client: GearmanClient,
) -> None:
    worker = work(server, task, *held.command)
    request = submit(client, task, b"data")
    held.wait()
    worker.signal(signal.SIGKILL)
    assert worker.end().status == -signal.SIGKILL
    # Its command is nobody's now.
    for process in held.processes:
        os.kill(process, signal.SIGKILL)
    work(server, task, "--", sys.executable, "-c", "print('done by another')")
    assert results(client, request) == [b"done by another\n"]
