"""``gearmanctl submit``: one job, its data, its result, and its failures."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.wire.packets import JobCreated, SubmitJob
from gearman_sync.cli.submit import parse_time
from gearman_sync.testing import (
    Failed,
    Gate,
    Peer,
    Raised,
    ScriptedJob,
    ScriptedServer,
    reverse,
)
from tests.support import eventually, wait_for

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    TIMED_OUT,
    Queue,
    Result,
    Running,
    address_of,
    command_line,
    gearman,
    gearmanctl,
    on_both,
    stays,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .support import Server

    Start = Callable[..., Running]

HANDLE = re.compile(rb"H:[!-~]+:\d+\n")
ALL_BYTES = bytes(range(256))


# Data and results.


def brackets(job: ScriptedJob) -> bytes:
    return b"<" + job.data + b">"


@pytest.mark.parametrize(
    ("words", "data", "expected"),
    [
        (["hello"], b"", b"<hello>"),
        (["--", "--ab"], b"", b"<--ab>"),
        ([""], b"not this", b"<>"),
        ([ALL_BYTES[1:]], b"", b"<" + ALL_BYTES[1:] + b">"),
        ([], b"hello\n", b"<hello\n>"),
        (["-"], b"", b"<>"),
        ([], ALL_BYTES * 2000, b"<" + ALL_BYTES * 2000 + b">"),
        (["--file", b"name \xff"], b"not this", b"<in a file>"),
    ],
    ids=["word", "dashes", "no text", "bytes", "input", "no input", "large", "file"],
)
def test_data_and_result_are_any_bytes(
    queue: Queue, tmp_path: Path, words: list[Any], data: bytes, expected: bytes
) -> None:
    queue.do(brackets)
    with contextlib.chdir(tmp_path):
        Path(os.fsdecode(b"name \xff")).write_bytes(b"in a file")
        result = queue.submit(*words, data=data)
    assert result == Result(DONE, expected, "")


@on_both
def test_names_that_are_not_utf_8_are_escaped(launch: Callable[[], Server], task: str) -> None:
    server = launch()
    name, unique = task.encode() + b"-\xff", task.encode() + b"-\xfe"
    assert gearmanctl("submit", name, "-b", "-u", unique, "", at=server).status == DONE
    # A single byte can control a terminal, so it is printed escaped.
    assert f"{task}-\\xff\t1\t0\t0\n".encode() in gearmanctl("status", at=server).output
    assert f"{task}-\\xfe\n".encode() in gearmanctl("jobs", "--unique", at=server).output


def test_data_from_closed_standard_input(queue: Queue, run_program: Start) -> None:
    queue.do(brackets)
    command = command_line("submit", queue.task, at=queue.server)
    running = run_program(["sh", "-c", 'exec "$@" <&-', "sh", *command])
    assert running.end() == Result(DONE, b"<>", "")


def parts(job: ScriptedJob) -> bytes:
    job.send_data(b"one\n")
    job.send_data(b"two\n")
    if job.data == b"fail":
        raise Failed
    return job.data


@pytest.mark.parametrize(("data", "status"), [(ALL_BYTES, DONE), (b"fail", FAILED)])
def test_output_is_that_of_the_gearman_program(queue: Queue, data: bytes, status: int) -> None:
    queue.do(parts)
    ours = queue.submit(data=data)
    theirs = gearman(queue.server, "-f", queue.task, data=data)
    assert (ours.status, ours.output) == (theirs.status, theirs.output)
    assert ours.status == status


def test_data_and_warnings_of_a_running_job_are_written_at_once(queue: Queue) -> None:
    def function(job: ScriptedJob) -> bytes:
        job.send_data(b"part\n")
        job.send_status(1, 2)  # Progress is not written to a pipe.
        job.send_warning(b"look out \xff")
        wait_for(gate)
        return b"end"

    gate = Gate().open
    queue.do(function)
    running = queue.start("")
    try:
        assert running.line() == b"part\n"
        assert running.error() == r"look out \xff"
    finally:
        gate.set()
    assert running.end() == Result(DONE, b"end", "")


# Options of the submit.


def test_background_writes_the_handle_and_priority_orders_jobs(
    queue: Queue,
) -> None:
    for priority in ("low", "normal", "high"):
        result = queue.submit(priority, "-b", "--priority", priority)
        assert (result.status, result.errors) == (DONE, "")
        assert HANDLE.fullmatch(result.output)
        assert result.lines[0] in queue.server.admin("show jobs")
    worker = queue.do(reverse)
    eventually(lambda: worker.order == [b"high", b"normal", b"low"])


@pytest.mark.parametrize("unique", ["name", "-"])
def test_jobs_with_the_same_unique_are_one(queue: Queue, unique: str) -> None:
    options = ("--background", "--unique", unique)
    first, second = (queue.submit("data", *options) for _ in range(2))
    assert first == second
    assert HANDLE.fullmatch(first.output)
    other = queue.submit("other data", *options)
    # With "-", the data serves as the unique.
    assert (other == first) == (unique != "-")
    assert queue.counts[0] == 1 + (unique == "-")


# Times.


def test_scheduled_job_runs_when_due(queue: Queue) -> None:
    for data, when in (("later", "+1000"), ("now", "+0"), ("past", "2000-01-31T18:00")):
        result = queue.submit(data, "--at", when)
        assert (result.status, result.errors) == (DONE, "")
        assert HANDLE.fullmatch(result.output)
    worker = queue.do(reverse, poll_interval=0.05)
    eventually(lambda: sorted(worker.order) == [b"now", b"past"])
    assert stays(lambda: queue.counts[0] == 1, 0.1)


def test_times_are_parsed() -> None:
    local = time.mktime((2030, 1, 31, 18, 0, 0, 0, 0, -1))
    assert parse_time("2030-01-31T18:00", 5.0) == local
    assert parse_time("2030-01-31 18:00:00", 5.0) == local
    assert parse_time("2030-01-31T18:00+00:00", 5.0) == 1896112800
    assert parse_time("2030-01-31", 5.0) == local - 18 * 3600
    assert parse_time("1896112800", 5.0) == 1896112800
    assert parse_time("1896112800.5", 5.0) == 1896112800.5
    assert parse_time("+10", 5.0) == 15.0
    assert parse_time("+0.5", 5.0) == 5.5


# Failures of the job.


@on_both
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Failed(), "the job failed"),
        (Raised(b"no such\nthing\n"), "the job failed: no such thing"),
    ],
)
def test_failed_job_is_reported(queue: Queue, error: Exception, said: str) -> None:
    def fail(job: ScriptedJob) -> bytes:
        raise error

    queue.do(fail)
    result = queue.submit("")
    assert (result.status, result.output, result.error) == (FAILED, b"", said)


def test_slow_job_times_out(queue: Queue) -> None:
    gate = Gate()
    queue.do(gate)
    eventually(lambda: queue.counts[2] == 1, "a worker")
    result = queue.submit("", "--timeout", "2")
    assert (result.status, result.output) == (TIMED_OUT, b"")
    assert re.fullmatch(r"H:\S+:\d+ has not ended in time", result.error)
    gate.open.set()


def accept_and_close(peer: Peer) -> None:
    peer.expect(SubmitJob)
    peer.send(JobCreated(b"H:1"))


def speak_http(peer: Peer) -> None:
    peer.receive()
    peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    peer.hold()


@pytest.mark.parametrize(
    ("script", "words", "status", "said"),
    [
        (Peer.hold, "--timeout 0.1", TIMED_OUT, "the job has not ended in time"),
        (Peer.hold, "--timeout 0.1 -b", TIMED_OUT, "the job has not ended in time"),
        (Peer.receive, "", NO_SERVER, "a submit was tried 1 time"),
        (accept_and_close, "", NO_SERVER, "after it had accepted the job"),
        (speak_http, "", NO_SERVER, "HTTP"),
    ],
)
def test_server_without_a_right_answer_is_reported(
    start_server: Callable[..., ScriptedServer],
    script: Callable[[Peer], None],
    words: str,
    status: int,
    said: str,
) -> None:
    server = start_server(script)
    result = gearmanctl("submit", "task", "data", *words.split(), at=server.address)
    assert (result.status, result.output) == (status, b"")
    assert said in result.error


@on_both
def test_full_queue_is_reported(queue: Queue) -> None:
    queue.server.admin(f"create function {queue.task}")
    queue.server.admin(f"maxqueue {queue.task} 1")
    assert queue.submit("1", "--background").status == DONE
    result = queue.submit("2")
    assert (result.status, result.output) == (FAILED, b"")
    assert result.error.startswith(f"{address_of(queue.server)} refused the job: ")
    assert re.search("queue is full", result.error, re.IGNORECASE)


@pytest.mark.parametrize("mode", [[], ["--lines"]], ids=["one", "lines"])
def test_ctrl_c_leaves_the_job_running(queue: Queue, mode: list[str]) -> None:
    """The job continues without the client, if the server keeps it."""
    running = queue.start(*mode)
    running.write(b"data\n")
    if not mode:
        running.close()
    queue.wait_for(1)
    running.signal(signal.SIGINT)
    assert running.end() == Result(130, b"", "")


# The reader of the output.


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_full_disk_is_reported(queue: Queue) -> None:
    queue.do(reverse)
    with open("/dev/full", "wb") as full:
        result = queue.start("data", stdout=full).end()
    assert (result.status, result.error) == (FAILED, "No space left on device")


@on_both
@pytest.mark.parametrize("words", [[""], ["--lines"]], ids=["one", "lines"])
def test_function_without_workers_is_reported_with_a_similar_name(
    queue: Queue, start: Start, words: list[str]
) -> None:
    queue.do(reverse)
    eventually(lambda: queue.counts[2] == 1, "a worker")
    task = f"{queue.task}~"
    running = start("submit", task, *words, at=queue.server)
    running.write(b"ab\n")
    running.close()
    assert running.error() == (
        f"gearmanctl: no worker of {address_of(queue.server)} has registered the function "
        f"{task!r}; its jobs wait until one does (a worker has registered {queue.task!r})"
    )
