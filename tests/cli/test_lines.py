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
from gearman_sync.testing import Failed, Raised, ScriptedJob, reverse
from tests.support import eventually, wait_for

from .support import (
    DONE,
    FAILED,
    NO_SERVER,
    TIMED_OUT,
    Queue,
    Result,
    Running,
    command_line,
    stays,
)

if TYPE_CHECKING:
    from collections.abc import Callable


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
def work(queue: Queue) -> Callable[..., Slow]:
    """Start two workers that block jobs with the given data."""

    def work(*held: bytes) -> Slow:
        slow = Slow(*held)
        for _ in range(2):
            queue.do(slow)
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
    queue: Queue, data: bytes, output: bytes, order: list[str]
) -> None:
    queue.do(brackets)
    result = queue.submit("--lines", *order, data=data)
    assert result == Result(DONE, output, "")


def test_data_and_result_of_a_job_form_one_line(queue: Queue) -> None:
    def function(job: ScriptedJob) -> bytes:
        job.send_data(b"part of ")
        job.send_warning(b"look out for " + job.data)
        return job.data

    queue.do(function)
    result = queue.submit("--lines", data=b"1\n2\n")
    assert result == Result(DONE, b"part of 1\npart of 2\n", "look out for 1\nlook out for 2\n")


def test_results_have_the_order_of_the_lines(queue: Queue, work: Callable[..., Slow]) -> None:
    slow = work(b"1")
    running = queue.start("1\n2\n3\n", "--lines")
    wait_for(slow.begun)
    # The other jobs are done, but their results are held back.
    eventually(lambda: queue.counts[0] == 1)
    assert running.process.poll() is None
    slow.open.set()
    assert running.end() == Result(DONE, numbers(1, 3, b"<%d>\n"), "")


@pytest.mark.parametrize("unordered", [False, True], ids=["ordered", "unordered"])
def test_results_are_written_before_the_end_of_input(
    queue: Queue, work: Callable[..., Slow], unordered: bool
) -> None:
    slow = work(b"held")
    running = queue.start("--lines", *["--unordered"] * unordered)
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


def test_options_apply_to_each_job(queue: Queue) -> None:
    low = queue.submit("--lines", "-b", "-p", "low", data=b"low\n")
    high = queue.submit("--lines", "-b", "-p", "high", data=b"1\n2\n")
    later = queue.submit("--lines", "--at", "+1000", data=b"a\nb\n")
    jobs = queue.server.admin("show jobs")
    for result, count in ((low, 1), (high, 2), (later, 2)):
        assert (result.status, result.errors, len(set(result.lines))) == (DONE, "", count)
        assert all(f"{handle}\t" in jobs for handle in result.lines)
    worker = queue.do(reverse)
    eventually(lambda: worker.order == [b"1", b"2", b"low"])


def test_equal_lines_with_unique_dash_are_one_job(queue: Queue) -> None:
    running = queue.start("a\nb\na\n", "--lines", "--unique", "-")
    queue.wait_for(2)
    worker = queue.do(brackets)
    assert running.end() == Result(DONE, b"<a>\n<b>\n<a>\n", "")
    assert sorted(worker.order) == [b"a", b"b"]


# Failures.


def test_failed_lines_are_reported_and_others_continue(queue: Queue) -> None:
    queue.do(Slow())
    data = b"1\nfail\n3\nraise\n5\n"
    errors = "gearmanctl: line 2: the job failed\ngearmanctl: line 4: the job failed: no reason\n"
    result = queue.submit("--lines", data=data)
    # The nth line still belongs to the nth job.
    assert result == Result(FAILED, b"<1>\n\n<3>\n\n<5>\n", errors)
    result = queue.submit("--lines", "--unordered", data=data)
    assert result == Result(FAILED, b"<1>\n<3>\n<5>\n", errors)


def test_refused_line_is_reported(queue: Queue) -> None:
    queue.server.admin(f"create function {queue.task}")
    queue.server.admin(f"maxqueue {queue.task} 2")
    result = queue.submit("--lines", "-b", data=b"1\n2\n3\n")
    assert result.status == FAILED
    assert re.match(r"line 3: \S+ refused the job: ", result.error)
    assert [bool(line) for line in result.lines] == [True, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("order", [[], ["--unordered"]], ids=["ordered", "unordered"])
def test_each_job_has_its_own_timeout_and_the_exit_status_is_the_worst(
    queue: Queue, work: Callable[..., Slow], order: list[str]
) -> None:
    slow = work(b"2")
    words = ("1\n2\nfail\n4\n", "--lines", "--timeout", "3", *order)
    try:
        result = queue.submit(*words)
    finally:
        slow.open.set()
    assert result.status == TIMED_OUT
    lines = sorted(result.errors.splitlines())
    assert re.fullmatch(r"gearmanctl: line 2: H:\S+ has not ended in time", lines[0])
    assert lines[1:] == ["gearmanctl: line 3: the job failed"]
    assert result.output == (b"<1>\n<4>\n" if order else b"<1>\n\n\n<4>\n")


@pytest.mark.parametrize("order", [[], ["--unordered"]], ids=["ordered", "unordered"])
def test_lost_server_reports_lines_in_flight(
    queue: Queue, work: Callable[..., Slow], order: list[str]
) -> None:
    slow = work(b"10", b"11")
    text = numbers(1, 30)
    running = queue.start(text, "--lines", "--in-flight", "5", *order)
    wait_for(slow.begun)
    written = [running.line() for _ in range(9)]
    expected = [b"<%d>\n" % number for number in range(1, 10)]
    assert (sorted(written) if order else written) == expected
    queue.server.kill()
    slow.open.set()
    result = running.end()
    assert result.status == NO_SERVER
    assert result.output.strip() == b""
    *lost, last = result.errors.splitlines()
    # Each line in flight is named once. The other lines were not submitted.
    named = [
        int(number)
        for number in re.findall(r"gearmanctl: line (\d+): lost the connection to", result.errors)
    ]
    assert named == list(range(10, 10 + len(named)))
    assert 1 <= len(named) == len(lost) <= 5
    assert last.startswith(("gearmanctl: no server could be reached", "gearmanctl: a submit was"))


def test_lost_server_without_input_is_reported(queue: Queue, work: Callable[..., Slow]) -> None:
    slow = work(b"1")
    running = queue.start("--lines")
    running.write(b"1\n")
    wait_for(slow.begun)
    queue.server.kill()
    slow.open.set()
    assert running.error().startswith("gearmanctl: line 1: lost the connection to ")
    assert running.line() == b"\n"
    running.write(b"2\n")
    result = running.end()
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert result.error.startswith("no server could be reached")


def test_reader_that_closes_the_pipe_ends_the_program(
    queue: Queue, run_program: Callable[..., Running]
) -> None:
    queue.do(lambda job: job.data * 20)
    command = command_line("submit", queue.task, "--lines", at=queue.server)
    running = run_program(["sh", "-c", 'yes | "$@" | head -n 1', "sh", *command])
    assert running.end() == Result(DONE, b"y" * 20 + b"\n", "")


# Queue in flight.


def test_jobs_in_flight_are_limited(queue: Queue, work: Callable[..., Slow]) -> None:
    running = queue.start(numbers(1, 10), "--lines", "--in-flight", "3")
    queue.wait_for(3)
    assert stays(lambda: queue.counts[0] == 3)
    slow = work(b"3", b"6")
    wait_for(slow.begun)
    # With ordered results, the jobs after line 3 are still in flight.
    eventually(lambda: queue.counts[0] <= 2)
    assert stays(lambda: queue.counts[0] <= 3)
    slow.open.set()
    assert running.end() == Result(DONE, numbers(1, 10, b"<%d>\n"), "")


def test_input_is_not_read_ahead(queue: Queue) -> None:
    """No worker does the jobs, so the writer of the lines has to wait."""
    running = queue.start("--lines", "--in-flight", "10")
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
    queue.wait_for(10)
    # The program has read one pipe buffer and one chunk.
    assert stays(lambda: fill() < 500_000)
    assert queue.counts[0] == 10


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
