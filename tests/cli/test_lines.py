"""``gearmanctl submit --lines``: a job for each line, with a limit on jobs in flight."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.testing.strategies import chunked
from gearman_sync.cli.lines import Entry, Room, split_lines
from gearman_sync.testing import Failed, Raised, ScriptedJob, ScriptedWorker, reverse
from tests.support import eventually, wait_for

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    TIMED_OUT,
    Result,
    Running,
    command_line,
    gearmanctl,
    stays,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .support import Server

    StartWorker = Callable[..., ScriptedWorker]
    Start = Callable[..., Running]


class Slow:
    """A worker's function that blocks jobs with certain data until the test opens it."""

    def __init__(self, *held: bytes) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self._held = held

    def __call__(self, job: ScriptedJob) -> bytes:
        if job.data in self._held:
            self.begun.set()
            wait_for(self.open, "opening of a job")
        if job.data == b"fail":
            raise Failed
        if job.data == b"raise":
            raise Raised(b"no\nreason")
        return brackets(job)


def brackets(job: ScriptedJob) -> bytes:
    return b"<" + job.data + b">"


@pytest.fixture
def work(server: Server, start_worker: StartWorker, task: str) -> Callable[..., Slow]:
    """Start two workers that block jobs with the given data."""

    def work(*held: bytes) -> Slow:
        slow = Slow(*held)
        for _ in range(2):
            start_worker(server.address, {task: slow})
        return slow

    return work


def numbers(first: int, last: int, form: bytes = b"%d\n") -> bytes:
    return b"".join(form % number for number in range(first, last + 1))


# Lines in, lines out.


@pytest.mark.parametrize(
    ("data", "output", "order"),
    [
        (b"", b"", []),
        (b"a\n\nb", b"<a>\n<>\n<b>\n", []),
        (b"a\n\nb", b"<a>\n<>\n<b>\n", ["--unordered"]),
        (b"\xff\0\x85\x0c\r\n", b"<\xff\0\x85\x0c\r>\n", []),
    ],
    ids=["nothing", "empty among others", "unordered", "any bytes"],
)
def test_each_line_gives_a_result_line(
    server: Server,
    start_worker: StartWorker,
    task: str,
    data: bytes,
    output: bytes,
    order: list[str],
) -> None:
    start_worker(server.address, {task: brackets})
    result = gearmanctl("submit", task, "--lines", *order, at=server, data=data)
    assert result == Result(DONE, output, "")


def test_data_and_result_of_a_job_form_one_line(
    server: Server, start_worker: StartWorker, task: str
) -> None:
    def function(job: ScriptedJob) -> bytes:
        job.send_data(b"part of ")
        job.send_warning(b"look out for " + job.data)
        return job.data

    start_worker(server.address, {task: function})
    result = gearmanctl("submit", task, "--lines", at=server, data=b"1\n2\n")
    assert result == Result(DONE, b"part of 1\npart of 2\n", "look out for 1\nlook out for 2\n")


def test_results_have_the_order_of_the_lines(
    server: Server, work: Callable[..., Slow], start: Start, task: str
) -> None:
    slow = work(b"1")
    running = start("submit", task, "1\n2\n3\n", "--lines", at=server)
    wait_for(slow.begun)
    # The other jobs are done, but their results are held back.
    eventually(lambda: server.counts(task)[0] == 1)
    assert running.process.poll() is None
    slow.open.set()
    assert running.end() == Result(DONE, numbers(1, 3, b"<%d>\n"), "")


@pytest.mark.parametrize("unordered", [False, True], ids=["ordered", "unordered"])
def test_results_are_written_before_the_end_of_input(
    server: Server, work: Callable[..., Slow], start: Start, task: str, unordered: bool
) -> None:
    slow = work(b"held")
    running = start("submit", task, "--lines", *["--unordered"] * unordered, at=server)
    if unordered:
        running.write(b"held\n")
        wait_for(slow.begun)
    # Each result arrives alone, so no other event can trigger its output.
    for number in range(1, 30):
        running.write(b"%d\n" % number)
        assert running.line() == b"<%d>\n" % number
    running.write(b"the ")
    running.write(b"last")
    running.close()
    assert running.line() == b"<the last>\n"
    slow.open.set()
    assert running.end() == Result(DONE, b"<held>\n" if unordered else b"", "")


def test_background_lines_give_handles(
    server: Server, start_worker: StartWorker, task: str
) -> None:
    result = gearmanctl("submit", task, "--lines", "-b", at=server, data=b"1\n2\n3\n")
    assert (result.status, result.errors) == (DONE, "")
    assert len(set(result.lines)) == 3
    jobs = server.admin("show jobs")
    assert all(f"{handle}\t" in jobs for handle in result.lines)
    worker = start_worker(server.address, {task: reverse})
    eventually(lambda: worker.order == [b"1", b"2", b"3"])


def test_options_apply_to_each_job(server: Server, task: str) -> None:
    low = gearmanctl("submit", task, "--lines", "-b", "-p", "low", at=server, data=b"1\n")
    high = gearmanctl("submit", task, "--lines", "-b", "-p", "high", at=server, data=b"1\n2\n")
    assert (low.status, high.status) == (DONE, DONE)
    assert f"{task}\t2\t0\t1\t0\n" in server.admin("prioritystatus")
    later = gearmanctl("submit", task, "--lines", "--at", "+1000", at=server, data=b"a\nb\n")
    assert (later.status, len(later.lines)) == (DONE, 2)


def test_equal_lines_with_unique_dash_are_one_job(
    server: Server, start_worker: StartWorker, start: Start, task: str
) -> None:
    running = start("submit", task, "a\nb\na\n", "--lines", "--unique", "-", at=server)
    server.wait_for_jobs(task, 2)
    worker = start_worker(server.address, {task: brackets})
    assert running.end() == Result(DONE, b"<a>\n<b>\n<a>\n", "")
    assert sorted(worker.order) == [b"a", b"b"]


# Failures.


def test_failed_lines_are_reported_and_others_continue(
    server: Server, start_worker: StartWorker, task: str
) -> None:
    start_worker(server.address, {task: Slow()})
    data = b"1\nfail\n3\nraise\n5\n"
    errors = "gearmanctl: line 2: the job failed\ngearmanctl: line 4: the job failed: no reason\n"
    result = gearmanctl("submit", task, "--lines", at=server, data=data)
    # The nth line still belongs to the nth job.
    assert result == Result(FAILED, b"<1>\n\n<3>\n\n<5>\n", errors)
    result = gearmanctl("submit", task, "--lines", "--unordered", at=server, data=data)
    assert result == Result(FAILED, b"<1>\n<3>\n<5>\n", errors)


def test_refused_line_is_reported(launch: Callable[[], Server], task: str) -> None:
    server = launch()
    server.admin(f"create function {task}")
    server.admin(f"maxqueue {task} 2")
    result = gearmanctl("submit", task, "--lines", "-b", at=server, data=b"1\n2\n3\n")
    assert result.status == FAILED
    assert re.match(r"line 3: \S+ refused the job: ", result.error)
    assert [bool(line) for line in result.lines] == [True, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("order", [[], ["--unordered"]], ids=["ordered", "unordered"])
def test_each_job_has_its_own_timeout_and_the_exit_status_is_the_worst(
    server: Server, work: Callable[..., Slow], task: str, order: list[str]
) -> None:
    slow = work(b"2")
    words = ("submit", task, "1\n2\nfail\n4\n", "--lines", "--timeout", "3", *order)
    try:
        result = gearmanctl(*words, at=server)
    finally:
        slow.open.set()
    assert result.status == TIMED_OUT
    lines = sorted(result.errors.splitlines())
    assert re.fullmatch(r"gearmanctl: line 2: H:\S+ has not ended in time", lines[0])
    assert lines[1:] == ["gearmanctl: line 3: the job failed"]
    assert result.output == (b"<1>\n<4>\n" if order else b"<1>\n\n\n<4>\n")


@pytest.mark.parametrize("order", [[], ["--unordered"]], ids=["ordered", "unordered"])
def test_lost_server_reports_lines_in_flight(
    server: Server, work: Callable[..., Slow], start: Start, task: str, order: list[str]
) -> None:
    slow = work(b"10", b"11")
    text = numbers(1, 30)
    running = start("submit", task, text, "--lines", "--in-flight", "5", *order, at=server)
    wait_for(slow.begun)
    written = [running.line() for _ in range(9)]
    expected = [b"<%d>\n" % number for number in range(1, 10)]
    assert (sorted(written) if order else written) == expected
    server.kill()
    slow.open.set()
    result = running.end()
    assert result.status == NO_SERVER
    assert result.output.strip() == b""
    *lost, last = result.errors.splitlines()
    # Each line in flight is named once. The other lines were not submitted.
    named = [
        int(number)
        for number in re.findall(r"gearmanctl: line (\d+): the connection to", result.errors)
    ]
    assert named == list(range(10, 10 + len(named)))
    assert 1 <= len(named) == len(lost) <= 5
    assert last.startswith(("gearmanctl: no server could be reached", "gearmanctl: a submit was"))


def test_lost_server_without_input_is_reported(
    server: Server, work: Callable[..., Slow], start: Start, task: str
) -> None:
    slow = work(b"1")
    running = start("submit", task, "--lines", at=server)
    running.write(b"1\n")
    wait_for(slow.begun)
    server.kill()
    slow.open.set()
    assert running.error().startswith("gearmanctl: line 1: the connection to ")
    assert running.line() == b"\n"
    running.write(b"2\n")
    result = running.end()
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert result.error.startswith("no server could be reached")


def test_reader_that_closes_the_pipe_ends_the_program(
    server: Server, start_worker: StartWorker, task: str, run_program: Start
) -> None:
    start_worker(server.address, {task: lambda job: job.data * 20})
    command = command_line("submit", task, "--lines", at=server)
    running = run_program(["sh", "-c", 'yes | "$@" | head -n 1', "sh", *command])
    assert running.end() == Result(DONE, b"y" * 20 + b"\n", "")


# Jobs in flight.


def test_jobs_in_flight_are_limited(
    server: Server, work: Callable[..., Slow], start: Start, task: str
) -> None:
    running = start("submit", task, numbers(1, 10), "--lines", "--in-flight", "3", at=server)
    server.wait_for_jobs(task, 3)
    assert stays(lambda: server.counts(task)[0] == 3)
    slow = work(b"3", b"6")
    wait_for(slow.begun)
    # With ordered results, the jobs after line 3 are still in flight.
    eventually(lambda: server.counts(task)[0] <= 2)
    assert stays(lambda: server.counts(task)[0] <= 3)
    slow.open.set()
    assert running.end() == Result(DONE, numbers(1, 10, b"<%d>\n"), "")


def test_input_is_not_read_ahead(server: Server, start: Start, task: str) -> None:
    """No worker does the jobs, so the writer of the lines has to wait."""
    running = start("submit", task, "--lines", "--in-flight", "10", at=server)
    pipe = running.process.stdin
    assert pipe is not None
    os.set_blocking(pipe.fileno(), False)
    written = 0

    def fill() -> int:
        """Write as much as fits into the pipe. Return the number of bytes up to now."""
        nonlocal written
        while some := pipe.write(b"0123456789abcde\n" * 64):
            written += some
        return written

    assert fill() > 0
    server.wait_for_jobs(task, 10)
    # The program has read one pipe buffer and one chunk.
    assert stays(lambda: fill() < 500_000)
    assert server.counts(task)[0] == 10


# The parts.


TEXTS = st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\r", b"\0", b"\xff" * 3])).map(b"".join)
CHUNKS = TEXTS.flatmap(chunked)


@given(CHUNKS, st.integers(1, 9))
def test_lines_do_not_depend_on_the_chunks_and_are_limited(chunks: list[bytes], limit: int) -> None:
    expected = b"".join(chunks).split(b"\n")
    if not expected[-1]:
        expected.pop()
    lines: list[bytes] = []
    too_long = False
    try:
        for some in split_lines(chunks, limit):
            lines += some
    except ValueError:
        too_long = True
    assert too_long == any(len(line) > limit for line in expected)
    assert lines == (expected[: len(lines)] if too_long else expected)


def test_line_that_is_too_long_is_not_buffered() -> None:
    chunks = iter([b"x" * 10] * 20)
    with pytest.raises(ValueError, match="a line of more than 95 bytes"):
        list(split_lines(chunks, 95))
    assert len(list(chunks)) == 10


def entry(line: bytes) -> Entry:
    return Entry(1, len(line), GearmanJobRequest.from_handle("H:a:1", ("h", 1)), float("inf"))


@given(st.lists(st.integers(0, 12), min_size=1), st.integers(1, 5), st.integers(1, 10))
def test_room_limits_lines_and_bytes(sizes: list[int], most: int, most_bytes: int) -> None:
    room = Room(most, most_bytes)
    waiting = deque(b"x" * size for size in sizes)
    expected = list(waiting)
    inside: deque[bytes] = deque()
    taken: list[bytes] = []

    def fits(line: bytes) -> bool:
        return len(inside) < most and (not inside or len(line) + size() <= most_bytes)

    def size() -> int:
        return sum(map(len, inside))

    while waiting:
        some = room.enter(waiting)
        assert some
        inside += some
        taken += some
        assert len(inside) <= most
        assert size() <= most_bytes or len(inside) == 1
        assert not (waiting and fits(waiting[0]))
        while waiting and not fits(waiting[0]):
            room.leave([entry(inside.popleft())])
    assert taken == expected
