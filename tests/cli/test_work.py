"""``gearmanctl work``: a command for each job; signals let it finish, or kill it."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING
from unittest import mock

import pytest

from gearman_sync import JOB_COMPLETE, GearmanClient
from gearman_sync.cli.work import _stopped_by_signals
from gearman_sync.testing import reverse
from tests.support import PATIENCE, eventually

from .support import (
    DONE,
    FAILED,
    Queue,
    Result,
    Running,
    gearman,
    gearmanctl,
    is_alive,
    on_both,
    stays,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gearman_sync import GearmanJobRequest

    from .support import Server

    Start = Callable[..., Running]

LARGE = bytes(range(256)) * 20_000
each_signal = pytest.mark.parametrize(("number", "jobs"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])


@pytest.fixture
def client(queue: Queue) -> Iterator[GearmanClient]:
    """A client of the server."""
    with GearmanClient([queue.server.address]) as client:
        yield client


def submit(client: GearmanClient, queue: Queue, data: bytes) -> GearmanJobRequest:
    """Submit a job without waiting for its end."""
    return client.submit_job(queue.task, data, wait_until_complete=False, poll_timeout=PATIENCE)


def results(client: GearmanClient, *requests: GearmanJobRequest) -> list[bytes]:
    """Wait for jobs, and return their results."""
    client.wait_until_jobs_completed(requests, poll_timeout=PATIENCE)
    assert all(request.state == JOB_COMPLETE for request in requests)
    return [request.result for request in requests]


class Held:
    """A command that writes the ids of its two processes, and runs until the test releases it."""

    def __init__(self, directory: Path) -> None:
        self._go_on = directory / "go on"
        script = (
            'sleep 1000 & echo $$ $! >&2; until test -e "$0"; do sleep 0.01; done; kill $!; cat'
        )
        self.command = ("--", "sh", "-c", script, str(self._go_on))

    def wait(self, worker: Running) -> list[int]:
        """Wait until a worker has started the command. Return the ids of its processes."""
        return [int(word) for word in worker.error().split()]

    def release(self) -> None:
        self._go_on.touch()


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(tmp_path)


# Queue.


@on_both
def test_output_of_the_command_is_the_result(queue: Queue) -> None:
    queue.start_work("--", "cat")
    for data in (b"", LARGE):
        assert queue.submit(data=data) == Result(DONE, data, "")
    data = bytes(range(256))
    assert gearman(queue.server, "-f", queue.task, data=data) == Result(DONE, data, "")


def test_environment_and_list_describe_the_job(queue: Queue, start: Start, task: str) -> None:
    name = task.encode() + b"-\xff"
    script = 'printf "$GEARMAN_TASK,$GEARMAN_UNIQUE,$GEARMAN_HANDLE"'
    words = ("--client-id", "its id", "--", "sh", "-c", script)
    start("work", name, *words, at=queue.server)
    result = gearmanctl("submit", name, "", "--unique", "a b", at=queue.server)
    assert re.fullmatch(name + rb",a b,H:\S+:\d+", result.output)
    rows = [line.split("\t") for line in gearmanctl("workers", at=queue.server).lines]
    assert f"{task}-\\xff" in [row[3] for row in rows if row[2] == "its id"]


def test_jobs_option_runs_jobs_concurrently(
    queue: Queue, held: Held, client: GearmanClient
) -> None:
    worker = queue.start_work("--jobs", "3", *held.command)
    requests = [submit(client, queue, b"%d" % number) for number in range(4)]
    for _ in range(3):
        held.wait(worker)
    assert queue.counts == (4, 3, 1)
    held.release()
    assert results(client, *requests) == [b"0", b"1", b"2", b"3"]


# Failures.


@pytest.mark.parametrize(
    ("script", "said", "reason"),
    [
        ("echo out; echo no such thing >&2; exit 3", "no such thing", "exit status 3"),
        ("false", "exit status 1", "exit status 1"),
    ],
)
def test_failed_command_sends_an_exception(
    queue: Queue, script: str, said: str, reason: str
) -> None:
    worker = queue.start_work("--", "sh", "-c", script)
    for _ in range(2):  # The worker continues.
        result = queue.submit("")
        assert (result.status, result.output) == (FAILED, b"")
        assert result.error == f"the job failed: {said}"
        if said != reason:
            assert worker.error() == said
        assert re.fullmatch(rf"gearmanctl: H:\S+: {reason}", worker.error())


def test_no_exceptions_sends_warning_and_failure(queue: Queue) -> None:
    queue.start_work("--no-exceptions", "--", "sh", "-c", "echo no such thing >&2; exit 3")
    result = queue.submit("")
    assert (result.status, result.output) == (FAILED, b"")
    assert result.errors == "no such thing\ngearmanctl: the job failed\n"
    theirs = gearman(queue.server, "-f", queue.task)
    assert (theirs.status, theirs.output) == (FAILED, b"")
    assert "no such thing" in theirs.errors


def test_process_left_running_with_the_output_is_reported(queue: Queue) -> None:
    worker = queue.start_work("--", "sh", "-c", "sleep 1000 & echo $!")
    result = queue.submit("")
    os.kill(int(result.output), signal.SIGKILL)
    assert "left a process running that still has its output" in worker.error()


# Servers.


def test_all_servers_are_served_and_a_restarted_one_again(
    launch: Callable[[], Server], start: Start, task: str
) -> None:
    servers = (launch(), launch())
    worker = start("work", task, "--", "rev", at=servers)
    for server in servers:
        eventually(lambda: server.counts(task)[2] == 1, "the worker")  # noqa: B023 - called here
        assert gearmanctl("submit", task, "ab", at=server) == Result(DONE, b"ba", "")
    servers[0].kill()
    assert "no connection to" in worker.error()
    servers[0].start()
    eventually(lambda: servers[0].counts(task)[2] == 1, "the worker")
    assert gearmanctl("submit", task, "ab", at=servers[0]) == Result(DONE, b"ba", "")
    worker.signal(signal.SIGTERM)
    result = worker.end()
    assert result.status == DONE
    assert "Traceback" not in result.errors


# Signals.


@each_signal
def test_signal_ends_an_idle_worker(queue: Queue, number: int, jobs: int) -> None:
    worker = queue.start_work("--jobs", jobs, "--", "cat")
    worker.signal(number)
    assert worker.end() == Result(DONE, b"", "")
    eventually(lambda: queue.counts[2] == 0)


@each_signal
def test_signal_lets_the_worker_finish_its_jobs(
    queue: Queue, held: Held, client: GearmanClient, number: int, jobs: int
) -> None:
    worker = queue.start_work("--jobs", jobs, *held.command)
    requests = [submit(client, queue, b"data") for _ in range(jobs)]
    for _ in range(jobs):
        held.wait(worker)
    other = submit(client, queue, b"not this")
    # A terminal sends SIGINT to the whole process group, but the commands have their own.
    os.killpg(worker.process.pid, number)
    assert "a second signal stops it at once" in worker.error()
    assert stays(lambda: worker.process.poll() is None, 0.1)
    held.release()
    assert worker.end() == Result(DONE, b"", "")
    assert results(client, *requests) == [b"data"] * jobs
    # The worker has accepted no other job.
    assert not other.complete
    eventually(lambda: queue.counts == (1, 0, 0))


@each_signal
def test_second_signal_kills_the_command(
    queue: Queue, held: Held, client: GearmanClient, number: int, jobs: int
) -> None:
    worker = queue.start_work("--jobs", jobs, *held.command)
    request = submit(client, queue, b"data")
    processes = held.wait(worker)
    worker.signal(number)
    worker.error()
    worker.signal(number)
    result = worker.end()
    assert result.status == 128 + number
    assert "Traceback" not in result.errors
    eventually(lambda: not any(map(is_alive, processes)), "the end of the command")
    # The output of the killed command is discarded, and another worker does the job.
    queue.do(reverse)
    assert results(client, request) == [b"atad"]


def test_second_signal_disconnects_before_it_kills() -> None:
    """Otherwise the failure of a killed command could reach the server, which ends the job."""
    calls = mock.Mock()
    calls.worker.has_job_lock.return_value = False
    with _stopped_by_signals(calls.worker, calls.processes) as status:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
    assert calls.mock_calls[-2:] == [mock.call.worker.shutdown(), mock.call.processes.kill()]
    assert status == [128 + signal.SIGTERM]
