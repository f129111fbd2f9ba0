"""Progress bars of `gearmanctl submit` in a pseudo-terminal."""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pyte")
pytest.importorskip("rich")
pytest.importorskip("typer")

from gearman_sync.testing import Failed, ScriptedJob, ScriptedWorker
from tests.support import PATIENCE

from .support import PROGRAM, address_of
from .terminal import CTRL_C, Terminal, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .support import Server


class Puppets:
    """Workers whose jobs the test controls."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.stack = contextlib.ExitStack()
        self.begun: dict[bytes, ScriptedJob] = {}
        self._arrived: queue.Queue[ScriptedJob] = queue.Queue()
        self._ends: dict[bytes, queue.Queue[bytes | None]] = {}

    def start(self, task: str, count: int = 1) -> None:
        """Let `count` workers wait for jobs."""
        for _ in range(count):
            self.stack.callback(ScriptedWorker(self.server.address, {task: self._run}).stop)

    def _run(self, job: ScriptedJob) -> bytes:
        end = self._ends[job.data] = queue.Queue()
        self._arrived.put(job)
        result = end.get(timeout=2 * PATIENCE)
        if result is None:
            raise Failed
        return result

    def next(self) -> ScriptedJob:
        """Return the next job that has begun."""
        job = self._arrived.get(timeout=PATIENCE)
        self.begun[job.data] = job
        return job

    def all(self, count: int) -> dict[bytes, ScriptedJob]:
        """Return the next `count` jobs, by their data."""
        return {job.data: job for job in (self.next() for _ in range(count))}

    def end(self, job: ScriptedJob, result: bytes | None) -> None:
        """End a job with its result, or with WORK_FAIL if `result` is None."""
        self._ends[job.data].put(result)

    def stop(self) -> None:
        for end in self._ends.values():
            end.put(b"")
        self.stack.close()


@pytest.fixture
def puppets(launch: Callable[[], Server]) -> Iterator[Puppets]:
    puppets = Puppets(launch())
    yield puppets
    puppets.stop()


def submit(puppets: Puppets, *arguments: str, **kwargs: object) -> Terminal:
    command = (*PROGRAM, "submit", "--server", address_of(puppets.server), *arguments)
    return Terminal(*command, **kwargs)  # type: ignore[arg-type]


def bar(terminal: Terminal, name: str) -> str | None:
    """Return the numbers in the bar of this name as "n/m", or None if there is no such bar."""
    for line in terminal.lines:
        if line.startswith(f"{name} ") and "━" in line:
            return line.split()[-2]
    return None


def wait_for_bars(terminal: Terminal, **bars: str | None) -> None:
    """Wait until the bars show these numbers. (line_1 is the bar of line 1.)"""
    terminal.wait_until(
        lambda: all(bar(terminal, name.replace("_", " ")) == n for name, n in bars.items()),
        f"{bars}",
    )


def feed(terminal: Terminal, data: bytes, *, end: bool = False) -> None:
    """Write to the program's standard input, which is a pipe."""
    stdin = terminal.process.stdin
    assert stdin is not None
    stdin.write(data)
    stdin.flush()
    if end:
        stdin.close()


def test_bar_shows_reported_progress(puppets: Puppets) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo") as terminal:
        job = puppets.next()
        assert bar(terminal, "resize") is None
        job.send_status(3, 10)
        wait_for_bars(terminal, resize="3/10")
        assert terminal.changes == ["modes", "cursor"]
        job.send_status(7, 10)
        wait_for_bars(terminal, resize="7/10")
        puppets.end(job, b"done")
        assert terminal.wait_for_end() == 0
        assert terminal.text == "done"
        # The shell's prompt starts on a new line.
        assert terminal.raw.endswith(b"done\r\n")
        assert terminal.changes == []


def test_job_without_progress_has_no_bar(puppets: Puppets) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo") as terminal:
        puppets.end(puppets.next(), b"one\ntwo\n")
        assert terminal.wait_for_end() == 0
        assert terminal.text == "one\ntwo"
        assert "━".encode() not in terminal.raw


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([(5, 0)], "5/?"),
        ([(7, 5)], "7/5"),
        ([(5, 0), (5, 9)], "5/9"),
        ([(0, 10), (10**9, 10**9)], "1000000000/1000000000"),
    ],
)
def test_bar_shows_unusual_progress(
    puppets: Puppets, reports: list[tuple[int, int]], expected: str
) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo") as terminal:
        job = puppets.next()
        for report in reports:
            job.send_status(*report)
        wait_for_bars(terminal, resize=expected)
        puppets.end(job, b"done")
        assert terminal.wait_for_end() == 0
        assert terminal.text == "done"


def test_output_appears_above_the_bar_in_whole_lines(puppets: Puppets) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo") as terminal:
        job = puppets.next()
        job.send_status(1, 3)
        job.send_data(b"page 1\npa")
        wait_for_bars(terminal, resize="1/3")
        terminal.wait_until(lambda: terminal.lines[0] == "page 1", "a line")
        assert terminal.lines[1].startswith("resize ━")
        assert terminal.lines[2] == ""
        job.send_data(b"ge ")
        job.send_data(b"2\n")
        job.send_warning(b"no title")
        job.send_status(2, 3)
        wait_for_bars(terminal, resize="2/3")
        terminal.wait_for("no title")
        assert terminal.lines[:3] == ["page 1", "page 2", "no title"]
        assert terminal.lines[3].startswith("resize ━")
        puppets.end(job, b"the end")
        assert terminal.wait_for_end() == 0
        assert terminal.text == "page 1\npage 2\nno title\nthe end"
        assert terminal.changes == []


def test_binary_output_is_shown_on_a_terminal(puppets: Puppets) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo") as terminal:
        job = puppets.next()
        job.send_data(b"[bold]gr\xc3\xbcn[/] \xff :smile:\n")
        terminal.wait_for("[bold]grün[/] \N{REPLACEMENT CHARACTER} :smile:")
        puppets.end(job, b"\xfe")
        assert terminal.wait_for_end() == 0


def test_line_longer_than_the_screen_is_complete(puppets: Puppets) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo") as terminal:
        job = puppets.next()
        job.send_status(1, 2)
        wait_for_bars(terminal, resize="1/2")
        puppets.end(job, b"word " * 50 + b"end\n")
        assert terminal.wait_for_end() == 0
        text = "word " * 50 + "end"
        assert terminal.lines[:4] == [text[n : n + 80].rstrip() for n in range(0, 320, 80)]


@pytest.mark.parametrize(
    "name",
    ["[bold]x[/]", "a\x1b[31mb", "仕事" * 30],
    ids=["markup", "control", "long and wide"],
)
def test_bar_shows_odd_name_unchanged(puppets: Puppets, name: str) -> None:
    puppets.start(name)
    with submit(puppets, name, "data") as terminal:
        job = puppets.next()
        job.send_status(3, 10)
        terminal.wait_for("3/10", "━", name.replace("\x1b", r"\x1b")[:10])
        assert terminal.lines[1] == ""
        job.send_status(999999, 1000000)
        terminal.wait_for("999999/1000000", "━", name[:1])
        puppets.end(job, b"done")
        assert terminal.wait_for_end() == 0
        assert terminal.text == "done"


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1"}])
def test_no_bar_if_standard_error_is_no_terminal(
    puppets: Puppets, variables: dict[str, str]
) -> None:
    puppets.start("resize")
    env = environment(**variables)
    with submit(puppets, "resize", "photo", stderr=subprocess.PIPE, env=env) as terminal:
        job = puppets.next()
        job.send_status(3, 10)
        job.send_data(b"half a li")
        terminal.wait_for("half a li")
        job.send_warning(b"no title")
        puppets.end(job, b"ne")
        assert terminal.wait_for_end() == 0
        assert terminal.raw == b"half a line\r\n"
        assert terminal.process.stderr is not None
        assert terminal.process.stderr.read() == b"no title\n"


def test_no_bar_on_a_terminal_without_a_cursor(puppets: Puppets) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo", env=environment(TERM="dumb")) as terminal:
        job = puppets.next()
        job.send_status(3, 10)
        puppets.end(job, b"done")
        assert terminal.wait_for_end() == 0
        assert terminal.raw == b"done\r\n"


def test_output_to_a_file_is_unchanged(puppets: Puppets, tmp_path: Path) -> None:
    puppets.start("resize")
    result = bytes(range(256)) * 500
    with (
        (tmp_path / "small.jpg").open("wb") as file,
        submit(puppets, "resize", "photo", stdout=file) as terminal,
    ):
        job = puppets.next()
        job.send_status(3, 10)
        job.send_data(b"\n\x00")
        wait_for_bars(terminal, resize="3/10")
        puppets.end(job, result)
        assert terminal.wait_for_end() == 0
        assert terminal.text == ""
        assert terminal.changes == []
    assert (tmp_path / "small.jpg").read_bytes() == b"\n\x00" + result


def test_output_to_another_terminal_stays_off_the_bars_terminal(puppets: Puppets) -> None:
    puppets.start("resize")
    with Terminal("sleep", "60") as other:
        with submit(puppets, "resize", "photo", stdout=other.device) as terminal:
            job = puppets.next()
            job.send_status(3, 10)
            wait_for_bars(terminal, resize="3/10")
            job.send_data(b"part, ")
            other.wait_for("part,")
            puppets.end(job, b"end")
            assert terminal.wait_for_end() == 0
            assert terminal.text == ""
        other.wait_for("part, end")


# A job for each line.


def test_lines_have_a_bar_each_and_a_total(puppets: Puppets) -> None:
    puppets.start("resize", 2)
    with submit(puppets, "resize", "--lines", stdin=subprocess.PIPE) as terminal:
        feed(terminal, b"a\nb\n")
        jobs = puppets.all(2)
        jobs[b"b"].send_status(20, 30)
        wait_for_bars(terminal, line_2="20/30", total="0/?")
        jobs[b"a"].send_status(1, 4)
        wait_for_bars(terminal, line_1="1/4", line_2="20/30", total="0/?")
        # The order does not depend on which job was first.
        assert [line.split(" ━")[0].rstrip() for line in terminal.lines[:3]] == [
            "total",
            "line 1",
            "line 2",
        ]
        jobs[b"a"].send_status(2, 4)
        wait_for_bars(terminal, line_1="2/4", line_2="20/30")
        puppets.end(jobs[b"a"], b"A")
        wait_for_bars(terminal, line_1=None, line_2="20/30", total="1/?")
        # The number of lines is known only now.
        feed(terminal, b"c", end=True)
        wait_for_bars(terminal, total="1/3")
        job = puppets.next()
        job.send_status(5, 6)
        wait_for_bars(terminal, line_2="20/30", line_3="5/6")
        puppets.end(jobs[b"b"], b"B")
        wait_for_bars(terminal, line_2=None, line_3="5/6", total="2/3")
        assert terminal.lines[:2] == ["A", "B"]
        puppets.end(job, b"C")
        assert terminal.wait_for_end() == 0
        assert terminal.text == "A\nB\nC"
        assert terminal.changes == []


def test_ordered_result_held_back_keeps_its_bar(
    puppets: Puppets,
) -> None:
    puppets.start("resize", 2)
    with submit(puppets, "resize", "--lines", stdin=subprocess.PIPE) as terminal:
        feed(terminal, b"a\nb\n", end=True)
        jobs = puppets.all(2)
        jobs[b"b"].send_status(1, 1)
        wait_for_bars(terminal, line_2="1/1", total="0/2")
        puppets.end(jobs[b"b"], b"B")
        jobs[b"a"].send_status(1, 3)
        wait_for_bars(terminal, line_1="1/3", total="0/2")
        assert terminal.lines[0].startswith("total")
        puppets.end(jobs[b"a"], b"A")
        assert terminal.wait_for_end() == 0
        assert terminal.text == "A\nB"


def test_piped_results_leave_the_bars_on_the_terminal(puppets: Puppets, tmp_path: Path) -> None:
    puppets.start("resize", 2)
    with (
        (tmp_path / "results").open("wb") as file,
        submit(puppets, "resize", "--lines", stdin=subprocess.PIPE, stdout=file) as terminal,
    ):
        feed(terminal, b"a\nb\n", end=True)
        jobs = puppets.all(2)
        jobs[b"b"].send_status(1, 2)
        wait_for_bars(terminal, line_2="1/2", total="0/2")
        puppets.end(jobs[b"a"], b"\xff\x00")
        puppets.end(jobs[b"b"], b"")
        assert terminal.wait_for_end() == 0
        assert terminal.text == ""
    assert (tmp_path / "results").read_bytes() == b"\xff\x00\n\n"


def test_more_jobs_than_lines_get_bars_later(puppets: Puppets) -> None:
    puppets.start("resize", 12)
    with submit(puppets, "resize", "--lines", stdin=subprocess.PIPE, lines=8) as terminal:
        feed(terminal, b"".join(b"%02d\n" % number for number in range(12)), end=True)
        jobs = puppets.all(12)
        for number in range(12):
            jobs[b"%02d" % number].send_status(number, 100)
        wait_for_bars(terminal, total="0/12", line_1="0/100")

        def count() -> int:
            return sum("━" in line for line in terminal.lines)

        terminal.wait_until(lambda: count() == 6, "as many bars as there is room for")
        # Bars of other jobs use the free places.
        for number in range(12):
            puppets.end(jobs[b"%02d" % number], b"result %d" % number)
            wait_for_bars(terminal, total=f"{number + 1}/12" if number < 11 else None)
            last = jobs[b"11"]
            if number < 11:
                last.send_status(number, 100)
        assert terminal.wait_for_end() == 0
        results = [f"result {number}" for number in range(12)]
        assert terminal.text.splitlines() == results[-6:]
        assert [line for line in results if line.encode() not in terminal.raw] == []
        assert terminal.changes == []


# The end.


def test_ctrl_c_removes_the_bar(puppets: Puppets) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo") as terminal:
        job = puppets.next()
        job.send_status(3, 10)
        job.send_data(b"page 1\nhalf")
        wait_for_bars(terminal, resize="3/10")
        terminal.wait_for("page 1")
        terminal.type(CTRL_C)
        assert terminal.wait_for_end() == 130
        assert terminal.changes == []
        assert "━" not in terminal.text
        assert "Traceback" not in terminal.text
        assert "half" in terminal.lines


def test_ctrl_c_with_lines_removes_the_bars(puppets: Puppets) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "--lines") as terminal:
        terminal.type("a\n")  # The end of input does not arrive.
        puppets.next().send_status(3, 10)
        terminal.wait_for("gearmanctl: reading from the terminal; Ctrl-D ends it\n")
        wait_for_bars(terminal, line_1="3/10", total="0/?")
        terminal.type(CTRL_C)
        assert terminal.wait_for_end() == 130
        assert terminal.changes == []
        assert "━" not in terminal.text
        assert "Traceback" not in terminal.text


def test_repeated_ctrl_c_restores_the_terminal(puppets: Puppets) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo") as terminal:
        puppets.next().send_status(3, 10)
        wait_for_bars(terminal, resize="3/10")
        terminal.signal_until_the_end(signal.SIGINT)
        assert terminal.changes == []


@pytest.mark.parametrize("lines", [[], ["--lines"]])
def test_sigterm_removes_the_bar(puppets: Puppets, lines: list[str]) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo", *lines) as terminal:
        puppets.next().send_status(3, 10)
        terminal.wait_for("3/10")
        terminal.process.terminate()
        assert terminal.wait_for_end() == 128 + signal.SIGTERM
        assert terminal.changes == []
        assert terminal.text == ""


@pytest.mark.parametrize("lines", [[], ["--lines"]])
def test_dead_server_removes_the_bar(puppets: Puppets, lines: list[str]) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo", *lines) as terminal:
        puppets.next().send_status(3, 10)
        terminal.wait_for("3/10")
        puppets.server.kill()
        assert terminal.wait_for_end() == 3
        assert terminal.changes == []
        assert "━" not in terminal.text
        assert " was lost after the job had been acknowledged" in terminal.text.replace("\n", "")


@pytest.mark.parametrize("lines", [[], ["--lines"]])
def test_failed_job_removes_its_bar(puppets: Puppets, lines: list[str]) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo", *lines) as terminal:
        job = puppets.next()
        job.send_status(3, 10)
        terminal.wait_for("3/10")
        puppets.end(job, None)
        assert terminal.wait_for_end() == 1
        assert terminal.changes == []
        where = "line 1: " if lines else ""
        assert terminal.text == f"gearmanctl: {where}the job failed"


def test_timed_out_job_removes_its_bar(puppets: Puppets) -> None:
    puppets.start("resize")
    with submit(puppets, "resize", "photo", "--timeout", "1") as terminal:
        puppets.next().send_status(3, 10)
        wait_for_bars(terminal, resize="3/10")
        assert terminal.wait_for_end() == 4
        assert terminal.changes == []
        assert terminal.text.endswith(" has not ended in time")


@pytest.mark.parametrize("lines", [[], ["--lines"]])
def test_no_server_prints_one_line(lines: list[str]) -> None:
    command = (*PROGRAM, "submit", "x", "y", "--server", "127.0.0.1:1", *lines)
    with Terminal(*command, columns=200) as terminal:
        assert terminal.wait_for_end() == 3
        assert re.fullmatch(
            r"gearmanctl: no server could be reached: 127\.0\.0\.1:1 \(.*\)", terminal.text
        )
        assert terminal.changes == []
