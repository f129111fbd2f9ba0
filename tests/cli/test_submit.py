"""``gearmanctl submit``: one job, its data, its result, and its failures."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.cli.submit import parse_time
from gearman_sync.testing import (
    Failed,
    Gate,
    Peer,
    Raised,
    ScriptedJob,
    ScriptedServer,
    ScriptedWorker,
    reverse,
)
from tests.support import eventually, free_port, wait_for

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    ROOT,
    TIMED_OUT,
    USAGE,
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
    from pathlib import Path

    from .support import Server

    StartWorker = Callable[..., ScriptedWorker]
    Start = Callable[..., Running]

HANDLE = re.compile(rb"H:[!-~]+:\d+\n")
ALL_BYTES = bytes(range(256))


# Data and results.


def test_data_from_an_argument(server: Server, start_worker: StartWorker, task: str) -> None:
    start_worker(server.address, {task: reverse})
    assert gearmanctl("submit", task, "hello", at=server) == Result(DONE, b"olleh", "")


def test_data_that_begins_with_a_dash(server: Server, start_worker: StartWorker, task: str) -> None:
    start_worker(server.address, {task: reverse})
    assert gearmanctl("submit", task, "--", "--ab", at=server) == Result(DONE, b"ba--", "")


@pytest.mark.parametrize("words", [(), ("-",)], ids=["nothing", "dash"])
def test_data_from_standard_input(
    server: Server, start_worker: StartWorker, task: str, words: tuple[str, ...]
) -> None:
    start_worker(server.address, {task: reverse})
    result = gearmanctl("submit", task, *words, at=server, data=b"hello\n")
    assert result == Result(DONE, b"\nolleh", "")


def test_data_from_a_file(
    server: Server, start_worker: StartWorker, task: str, tmp_path: Path
) -> None:
    start_worker(server.address, {task: reverse})
    (tmp_path / "data").write_bytes(b"hello\n")
    result = gearmanctl("submit", task, "--file", tmp_path / "data", at=server, data=b"not this")
    assert result == Result(DONE, b"\nolleh", "")


def test_data_from_a_file_with_a_name_that_is_not_utf_8(
    server: Server, start_worker: StartWorker, task: str, tmp_path: Path
) -> None:
    start_worker(server.address, {task: reverse})
    path = os.fsencode(tmp_path) + b"/\xff"
    with open(path, "wb") as file:
        file.write(b"ab")
    assert gearmanctl("submit", task, "-f", path, at=server) == Result(DONE, b"ba", "")


@pytest.mark.parametrize("words", [("",), ()], ids=["argument", "standard input"])
def test_empty_data(
    server: Server, start_worker: StartWorker, task: str, words: tuple[str, ...]
) -> None:
    worker = start_worker(server.address, {task: lambda job: b"<" + job.data + b">"})
    assert gearmanctl("submit", task, *words, at=server) == Result(DONE, b"<>", "")
    assert worker.order == [b""]


def test_any_bytes_as_data_and_result(server: Server, start_worker: StartWorker, task: str) -> None:
    start_worker(server.address, {task: reverse})
    data = ALL_BYTES * 2000
    assert gearmanctl("submit", task, at=server, data=data) == Result(DONE, data[::-1], "")


def test_any_bytes_as_an_argument(server: Server, start_worker: StartWorker, task: str) -> None:
    start_worker(server.address, {task: reverse})
    data = ALL_BYTES[1:]
    assert gearmanctl("submit", task, data, at=server) == Result(DONE, data[::-1], "")


@on_both
def test_names_that_are_not_utf_8_are_escaped(launch: Callable[[], Server], task: str) -> None:
    server = launch()
    name, unique = task.encode() + b"-\xff", task.encode() + b"-\xfe"
    assert gearmanctl("submit", name, "-b", "-u", unique, "", at=server).status == DONE
    # A single byte can control a terminal, so it is printed escaped.
    assert f"{task}-\\xff\t1\t0\t0\n".encode() in gearmanctl("status", at=server).output
    assert f"{task}-\\xfe\n".encode() in gearmanctl("jobs", "--unique", at=server).output


def test_data_from_closed_standard_input(
    server: Server, start_worker: StartWorker, task: str, run_program: Start
) -> None:
    start_worker(server.address, {task: lambda job: b"<" + job.data + b">"})
    command = command_line("submit", task, servers=(server,))
    running = run_program([b"sh", b"-c", b'exec "$@" <&-', b"sh", *command])
    assert running.end() == Result(DONE, b"<>", "")


# Compatibility with libgearman's program.


def parts(job: ScriptedJob) -> bytes:
    job.send_data(b"one\n")
    job.send_data(b"two\n")
    return b"three"


@pytest.mark.parametrize(
    ("function", "data"), [(reverse, b""), (reverse, ALL_BYTES), (parts, b"a\nb")]
)
def test_output_is_that_of_the_gearman_program(
    server: Server,
    start_worker: StartWorker,
    task: str,
    function: Callable[[ScriptedJob], bytes],
    data: bytes,
) -> None:
    start_worker(server.address, {task: function})
    ours = gearmanctl("submit", task, at=server, data=data)
    assert ours == gearman(server, "-f", task, data=data)
    assert ours.status == DONE


def test_failure_is_the_same_as_of_the_gearman_program(
    server: Server, start_worker: StartWorker, task: str
) -> None:
    def fail(job: ScriptedJob) -> bytes:
        job.send_data(b"data")
        raise Failed

    start_worker(server.address, {task: fail})
    ours, theirs = gearmanctl("submit", task, at=server), gearman(server, "-f", task)
    assert (ours.status, ours.output) == (theirs.status, theirs.output) == (FAILED, b"data")


# Output during the job.


def test_data_of_a_running_job_is_written_at_once(
    server: Server, start_worker: StartWorker, start: Start, task: str
) -> None:
    def function(job: ScriptedJob) -> bytes:
        job.send_data(b"part\n")
        wait_for(gate)
        return b"end"

    gate = Gate().open
    start_worker(server.address, {task: function})
    running = start("submit", task, "", at=server)
    try:
        assert running.line() == b"part\n"
        assert running.process.poll() is None
    finally:
        gate.set()
    assert running.end() == Result(DONE, b"end", "")


def test_warnings_are_written_to_standard_error_at_once(
    server: Server, start_worker: StartWorker, start: Start, task: str
) -> None:
    def function(job: ScriptedJob) -> bytes:
        job.send_warning(b"look out \xff")
        wait_for(gate)
        return b"end"

    gate = Gate().open
    start_worker(server.address, {task: function})
    running = start("submit", task, "", at=server)
    try:
        assert running.error() == r"look out \xff"
    finally:
        gate.set()
    assert running.end() == Result(DONE, b"end", "")


def test_progress_is_not_written_to_a_pipe(
    server: Server, start_worker: StartWorker, task: str
) -> None:
    def function(job: ScriptedJob) -> bytes:
        job.send_status(1, 2)
        return b"end"

    start_worker(server.address, {task: function})
    assert gearmanctl("submit", task, "", at=server) == Result(DONE, b"end", "")


# Options of the submit.


def test_background_writes_the_handle(server: Server, start_worker: StartWorker, task: str) -> None:
    result = gearmanctl("submit", task, "data", "--background", at=server)
    assert (result.status, result.errors) == (DONE, "")
    assert HANDLE.fullmatch(result.output)
    assert result.lines[0] in server.admin("show jobs")
    assert server.counts(task) == (1, 0, 0)
    worker = start_worker(server.address, {task: reverse})
    eventually(lambda: worker.order == [b"data"])


def test_priority_orders_jobs(server: Server, start_worker: StartWorker, task: str) -> None:
    for priority in ("low", "normal", "high"):
        result = gearmanctl("submit", task, priority, "-b", "--priority", priority, at=server)
        assert result.status == DONE
    worker = start_worker(server.address, {task: reverse})
    eventually(lambda: worker.order == [b"high", b"normal", b"low"])


@pytest.mark.parametrize("unique", ["name", "-"])
def test_jobs_with_the_same_unique_are_one(server: Server, task: str, unique: str) -> None:
    submit = ("submit", task, "--background", "--unique", unique)
    first, second = (gearmanctl(*submit, "data", at=server) for _ in range(2))
    assert first == second
    assert HANDLE.fullmatch(first.output)
    other = gearmanctl(*submit, "other data", at=server)
    # With "-", the data serves as the unique.
    assert (other == first) == (unique != "-")
    assert server.counts(task)[0] == 1 + (unique == "-")


# Times.


def test_scheduled_job_does_not_run_early(
    server: Server, start_worker: StartWorker, task: str
) -> None:
    result = gearmanctl("submit", task, "later", "--at", "+1000", at=server)
    assert (result.status, result.errors) == (DONE, "")
    assert HANDLE.fullmatch(result.output)
    worker = start_worker(server.address, {task: reverse}, look_again=0.05)
    assert gearmanctl("submit", task, "now", at=server).output == b"won"
    # The scheduled job was submitted first.
    assert stays(lambda: worker.order == [b"now"], 0.1)
    assert server.counts(task)[0] == 1


@pytest.mark.parametrize("when", ["+0", "2000-01-31T18:00"])
def test_scheduled_job_runs_when_due(
    server: Server, start_worker: StartWorker, task: str, when: str
) -> None:
    assert gearmanctl("submit", task, "data", "--at", when, at=server).status == DONE
    worker = start_worker(server.address, {task: reverse}, look_again=0.05)
    eventually(lambda: worker.order == [b"data"])


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


@pytest.mark.parametrize(
    "when",
    ["", "+x", "+nan", "tomorrow", "-1", "9" * 400],
)
def test_invalid_time_is_a_usage_error(when: str) -> None:
    result = gearmanctl("submit", "task", "", "--at", when, at=("127.0.0.1", 1))
    assert (result.status, result.output) == (USAGE, b"")
    assert re.search("--at|run_at", result.error)


# Failures of the job.


def test_failed_job_is_reported(server: Server, start_worker: StartWorker, task: str) -> None:
    def fail(job: ScriptedJob) -> bytes:
        raise Failed

    start_worker(server.address, {task: fail})
    result = gearmanctl("submit", task, "", at=server)
    assert (result.status, result.output, result.error) == (FAILED, b"", "the job failed")


@on_both
def test_exception_of_a_job_is_reported(
    server: Server, start_worker: StartWorker, task: str
) -> None:
    def fail(job: ScriptedJob) -> bytes:
        raise Raised(b"no such\nthing\n")

    start_worker(server.address, {task: fail})
    result = gearmanctl("submit", task, "", at=server)
    assert (result.status, result.output) == (FAILED, b"")
    assert result.error == "the job failed: no such thing"


def test_slow_job_times_out(server: Server, task: str) -> None:
    result = gearmanctl("submit", task, "", "--timeout", "2", at=server)
    assert (result.status, result.output) == (TIMED_OUT, b"")
    assert re.fullmatch(r"H:\S+:\d+ has not ended in time", result.error)


def test_silent_server_times_out(
    start_server: Callable[..., ScriptedServer],
) -> None:
    silent = start_server(Peer.hold)
    for mode in ([], ["--background"]):
        result = gearmanctl("submit", "task", "", "--timeout", "0.1", *mode, at=silent.address)
        assert (result.status, result.output) == (TIMED_OUT, b"")
        assert result.error == "the job has not ended in time"


def test_lost_server_is_reported(
    launch: Callable[[], Server], start_worker: StartWorker, start: Start, task: str
) -> None:
    server = launch()
    gate = Gate()
    start_worker(server.address, {task: gate})
    running = start("submit", task, "", at=server)
    wait_for(gate.begun)
    server.kill()
    gate.open.set()
    result = running.end()
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert result.error.startswith(
        f"the connection to {address_of(server)} was lost after the job had been acknowledged"
    )


def test_server_lost_before_the_acknowledgement_is_reported(
    start_server: Callable[..., ScriptedServer],
) -> None:
    server = start_server(Peer.receive)
    result = gearmanctl("submit", "task", "", at=server.address)
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert "a submit was tried 1 time" in result.error


@on_both
def test_full_queue_is_reported(launch: Callable[[], Server], task: str) -> None:
    server = launch()
    server.admin(f"create function {task}")
    server.admin(f"maxqueue {task} 1")
    assert gearmanctl("submit", task, "1", "--background", at=server).status == DONE
    result = gearmanctl("submit", task, "2", at=server)
    assert (result.status, result.output) == (FAILED, b"")
    assert result.error.startswith(f"{address_of(server)} refused the job: ")
    assert re.search("queue is full", result.error, re.IGNORECASE)


def test_unreachable_server_is_reported(task: str) -> None:
    port = free_port()
    for mode in ([], ["--background"], ["--lines"]):
        result = gearmanctl("submit", task, "data", *mode, at=("127.0.0.1", port))
        assert (result.status, result.output) == (NO_SERVER, b"")
        assert re.match(rf"no server could be reached: 127\.0\.0\.1:{port} ", result.error)


def test_server_of_another_protocol_is_reported(
    start_server: Callable[..., ScriptedServer],
) -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.hold()

    server = start_server(script)
    result = gearmanctl("submit", "task", "data", at=server.address)
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert result.error


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("data", "--file", "pyproject.toml"), "not both"),
        (("--file", "nowhere"), "nowhere: No such file or directory"),
        (("--file", "tests"), "tests: Is a directory"),
        (("", "--unordered"), "--unordered is for --lines"),
        (("", "--lines", "--unique", "name"), "would be one"),
        (("", "--at", "+5", "--priority", "high"), "no --priority"),
        (("", "--in-flight", "0"), "--in-flight"),
        (("", "--priority", "urgent"), "--priority"),
        (("", "--timeout", "-1"), "--timeout"),
        (("", "--timeout", "nan"), "--timeout"),
        (("", "--unique", "u" * 70), "unique"),
        (("a", "b"), r"\(b\)"),
        (("", "--server", "host:port"), "port"),
        (("", "--server", ""), "host"),
        (("", "--nothing"), "--nothing"),
    ],
)
def test_wrong_command_line_is_a_usage_error(words: tuple[str, ...], reason: str) -> None:
    with contextlib.chdir(ROOT):
        result = gearmanctl("submit", "task", *words, at=("127.0.0.1", 1))
    assert (result.status, result.output) == (USAGE, b"")
    assert re.search(reason, result.error)


@pytest.mark.parametrize("mode", [[], ["--lines"]], ids=["one", "lines"])
def test_ctrl_c_leaves_the_job_running(
    server: Server, start: Start, task: str, mode: list[str]
) -> None:
    """The job continues without the client, if the server keeps it."""
    running = start("submit", task, *mode, at=server)
    running.write(b"data\n")
    if not mode:
        running.close()
    server.wait_for_jobs(task, 1)
    running.signal(signal.SIGINT)
    assert running.end() == Result(130, b"", "")


# The reader of the output.


def test_reader_that_closes_the_pipe_ends_the_program(
    server: Server, start_worker: StartWorker, task: str, run_program: Start
) -> None:
    start_worker(server.address, {task: lambda job: b"line\n" * 1_000_000})
    command = command_line("submit", task, "", servers=(server,))
    shell = b'"$@" | head -n 1'
    assert run_program([b"sh", b"-c", shell, b"sh", *command]).end() == Result(DONE, b"line\n", "")


def test_full_disk_is_reported(
    server: Server, start_worker: StartWorker, task: str, start: Start
) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    start_worker(server.address, {task: reverse})
    with open("/dev/full", "wb") as full:
        result = start("submit", task, "data", at=server, stdout=full).end()
    assert (result.status, result.error) == (FAILED, "No space left on device")


def test_several_servers_are_tried(server: Server, start_worker: StartWorker, task: str) -> None:
    start_worker(server.address, {task: reverse})
    nobody: Any = ("127.0.0.1", free_port())
    for servers in ((nobody, server), (server, nobody)):
        assert gearmanctl("submit", task, "ab", at=servers) == Result(DONE, b"ba", "")
