"""Progress bars of `gearmanctl submit` in a pseudo-terminal, at a server that the test plays."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyte")
pytest.importorskip("rich")
pytest.importorskip("typer")

from gearman_proto.wire.packets import (
    JobCreated,
    SubmitJob,
    WorkComplete,
    WorkData,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from gearman_sync import JobServer
from gearman_sync.testing import Peer
from gearman_sync.testing.sockets import socket_for
from tests.support import PATIENCE

from .support import command_line
from .terminal import CTRL_C, Terminal, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Server(Peer):
    """The server's end of gearmanctl's connection. The nth job is `job(n)`."""

    def accept(self, count: int = 1) -> None:
        """Accept the next `count` jobs."""
        done = sum(isinstance(event, SubmitJob) for event in self.events)
        for number in range(done + 1, done + 1 + count):
            self.expect(SubmitJob)
            self.send(JobCreated(job(number)))

    def report(self, done: int, of: int, number: int = 1) -> None:
        """Send a job's progress."""
        self.send(WorkStatus(job(number), b"%d" % done, b"%d" % of))

    def complete(self, result: bytes, number: int = 1) -> None:
        """Send a job's result."""
        self.send(WorkComplete(job(number), result))


def job(number: int) -> bytes:
    return b"H:%d" % number


@contextlib.contextmanager
def submit(*words: str, data: bytes = b"", **options: Any) -> Iterator[tuple[Terminal, Server]]:
    """Run `gearmanctl submit` on a terminal, with `data` on its standard input."""
    with socket_for("127.0.0.1") as listener:
        listener.listen()
        listener.settimeout(PATIENCE)
        command = command_line("submit", *words, at=listener.getsockname())
        with Terminal(*command, **options) as terminal:
            if terminal.process.stdin is None:
                terminal.type(data.decode())
            else:
                terminal.process.stdin.write(data)
            sock, _ = listener.accept()
            sock.settimeout(PATIENCE)
            with Server(sock, 0) as server:
                yield terminal, server


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


def test_warning_of_the_library_appears_above_the_bar() -> None:
    with JobServer() as server:
        address = (server.address.host, server.address.port)
        command = command_line("submit", "nobody-does-this", "--lines", at=address)
        with Terminal(*command, lines=5) as terminal:
            terminal.type("data\n")
            terminal.wait_for("no worker of ", "its jobs wait until one does")
            terminal.wait_until(lambda: bar(terminal, "total") == "0/?", "the bar")


@pytest.mark.parametrize("name", ["resize", "[bold]x[/]", "a\x1b[31mb", "仕事" * 30])
def test_bar_shows_reported_progress(name: str) -> None:
    with submit(name, "photo") as (terminal, server):
        server.accept()
        for done, of, shown in (
            (5, 0, "5/?"),
            (3, 10, "3/10"),
            (7, 5, "7/5"),
            (10**9, 10**9, "1000000000/1000000000"),
        ):
            server.report(done, of)
            terminal.wait_for(shown, "━", name.replace("\x1b", r"\x1b")[:10])
        assert terminal.lines[1] == ""
        assert terminal.changes == ["modes", "cursor"]
        server.complete(b"done")
        assert terminal.wait_for_end() == 0
        assert terminal.text == "done"
        # The shell's prompt starts on a new line.
        assert terminal.raw.endswith(b"done\r\n")
        assert terminal.changes == []


def test_output_appears_above_the_bar_in_whole_lines() -> None:
    with submit("resize", "photo") as (terminal, server):
        server.accept()
        server.report(1, 3)
        server.send(WorkData(job(1), b"[bold]gr\xc3\xbcn[/] \xff :smile:\npa"))
        wait_for_bars(terminal, resize="1/3")
        first = "[bold]grün[/] \N{REPLACEMENT CHARACTER} :smile:"
        terminal.wait_until(lambda: terminal.lines[0] == first, "a line")
        assert terminal.lines[1].startswith("resize ━")
        assert terminal.lines[2] == ""
        server.send(WorkData(job(1), b"ge 2\n"), WorkWarning(job(1), b"no title"))
        server.report(2, 3)
        wait_for_bars(terminal, resize="2/3")
        terminal.wait_for("no title")
        assert terminal.lines[:3] == [first, "page 2", "no title"]
        # A line that is longer than the screen is complete.
        end = "word " * 50 + "end"
        server.complete(end.encode())
        assert terminal.wait_for_end() == 0
        wrapped = [end[at : at + 80].rstrip() for at in range(0, len(end), 80)]
        assert terminal.text.splitlines() == [first, "page 2", "no title", *wrapped]


@pytest.mark.parametrize(
    ("variables", "streams"),
    [
        ({}, {"stderr": subprocess.PIPE}),
        ({"FORCE_COLOR": "1"}, {"stderr": subprocess.PIPE}),
        ({"TERM": "dumb"}, {}),
    ],
    ids=["no terminal", "forced colours", "no cursor"],
)
def test_no_bar_without_a_terminal_that_can_draw_it(
    variables: dict[str, str], streams: dict[str, Any]
) -> None:
    with submit("resize", "photo", env=environment(**variables), **streams) as (terminal, server):
        server.accept()
        server.report(3, 10)
        server.send(WorkData(job(1), b"half a li"))
        terminal.wait_for("half a li")
        server.complete(b"ne")
        assert terminal.wait_for_end() == 0
        assert terminal.raw == b"half a line\r\n"
        assert terminal.process.stderr is None or terminal.process.stderr.read() == b""


@pytest.mark.parametrize("lines", [False, True], ids=["one", "lines"])
def test_output_to_a_file_is_unchanged_and_bars_are_drawn(tmp_path: Path, lines: bool) -> None:
    result = bytes(range(256)) * 500
    words = ["--lines"] if lines else []
    with (
        (tmp_path / "small.jpg").open("wb") as file,
        submit("resize", "photo", *words, stdout=file) as (terminal, server),
    ):
        server.accept()
        server.report(3, 10)
        wait_for_bars(
            terminal, **({"line_1": "3/10", "total": "0/1"} if lines else {"resize": "3/10"})
        )
        server.complete(result)
        assert terminal.wait_for_end() == 0
        assert terminal.text == ""
        assert terminal.changes == []
    assert (tmp_path / "small.jpg").read_bytes() == result + b"\n" * lines


def test_output_to_another_terminal_stays_off_the_bars_terminal() -> None:
    with Terminal("sleep", "60") as other:
        with submit("resize", "photo", stdout=other.device) as (terminal, server):
            server.accept()
            server.report(3, 10)
            wait_for_bars(terminal, resize="3/10")
            server.send(WorkData(job(1), b"part, "))
            other.wait_for("part,")
            server.complete(b"end")
            assert terminal.wait_for_end() == 0
            assert terminal.text == ""
        other.wait_for("part, end")


# A job for each line.


def test_lines_have_a_bar_each_and_a_total() -> None:
    options: dict[str, Any] = {"data": b"a\nb\n", "stdin": subprocess.PIPE}
    with submit("resize", "--lines", **options) as (terminal, server):
        server.accept(2)
        server.report(20, 30, number=2)
        wait_for_bars(terminal, line_2="20/30", total="0/?")
        server.report(1, 4, number=1)
        wait_for_bars(terminal, line_1="1/4", line_2="20/30", total="0/?")
        # The order does not depend on which job was first.
        names = [line.split(" ━")[0].rstrip() for line in terminal.lines[:3]]
        assert names == ["total", "line 1", "line 2"]
        server.complete(b"A", number=1)
        wait_for_bars(terminal, line_1=None, line_2="20/30", total="1/?")
        # The number of lines is known only now.
        assert terminal.process.stdin is not None
        terminal.process.stdin.write(b"c\nd")
        terminal.process.stdin.close()
        server.accept(2)
        wait_for_bars(terminal, total="1/4")
        # The result of line 3 is held back, and so is the end of its bar.
        server.report(5, 6, number=3)
        server.complete(b"C", number=3)
        server.report(1, 2, number=4)
        wait_for_bars(terminal, line_2="20/30", line_3="5/6", line_4="1/2", total="1/4")
        server.complete(b"B", number=2)
        wait_for_bars(terminal, line_2=None, line_3=None, line_4="1/2", total="3/4")
        assert terminal.lines[:3] == ["A", "B", "C"]
        server.complete(b"D", number=4)
        assert terminal.wait_for_end() == 0
        assert terminal.text == "A\nB\nC\nD"
        assert terminal.changes == []


def test_more_jobs_than_lines_get_bars_later() -> None:
    text = "\n".join(map(str, range(1, 13)))
    with submit("resize", text, "--lines", lines=8) as (terminal, server):
        server.accept(12)
        for number in range(1, 13):
            server.report(number, 100, number)
        wait_for_bars(terminal, total="0/12", line_1="1/100", line_5="5/100", line_6=None)
        # Bars of other jobs use the free places.
        for number in range(1, 6):
            server.complete(b"result %d" % number, number)
        wait_for_bars(terminal, total="5/12", line_5=None, line_6="6/100", line_10="10/100")
        for number in range(6, 13):
            server.complete(b"result %d" % number, number)
        assert terminal.wait_for_end() == 0
        results = re.findall(rb"result (\d+)", terminal.raw)
        assert results == [b"%d" % number for number in range(1, 13)]


# The end. In each case, the bar is removed and the terminal is restored.

each_form = pytest.mark.parametrize("lines", [(), ("--lines",)], ids=["one", "lines"])


@contextlib.contextmanager
def running(*words: str, data: bytes = b"") -> Iterator[tuple[Terminal, Server]]:
    """Run a job on a terminal until its bar is drawn. Check that the end removes the bar."""
    with submit("resize", *words, data=data) as (terminal, server):
        server.accept()
        server.report(3, 10)
        terminal.wait_for("3/10")
        yield terminal, server
        assert terminal.changes == []
        assert "━" not in terminal.text
        assert "Traceback" not in terminal.text


def test_ctrl_c_removes_the_bar() -> None:
    with running("photo") as (terminal, server):
        server.send(WorkData(job(1), b"page 1\nhalf"))
        terminal.wait_for("page 1")
        terminal.type(CTRL_C)
        assert terminal.wait_for_end() == 130
        assert "half" in terminal.lines


def test_ctrl_c_while_lines_are_read_from_the_terminal_removes_the_bars() -> None:
    with running("--lines", data=b"a\n") as (terminal, _):
        terminal.wait_for("gearmanctl: reading from the terminal; Ctrl-D ends it\n")
        terminal.type(CTRL_C)
        assert terminal.wait_for_end() == 130


def test_repeated_ctrl_c_restores_the_terminal() -> None:
    with running("photo") as (terminal, _):
        terminal.signal_until_the_end(signal.SIGINT)


@each_form
def test_sigterm_removes_the_bar(lines: tuple[str, ...]) -> None:
    with running("photo", *lines) as (terminal, _):
        terminal.process.terminate()
        assert terminal.wait_for_end() == 128 + signal.SIGTERM
        assert terminal.text == ""


@each_form
def test_lost_connection_removes_the_bar(lines: tuple[str, ...]) -> None:
    with running("photo", *lines) as (terminal, server):
        server.close()
        assert terminal.wait_for_end() == 3
        assert " after it had accepted the job" in terminal.text.replace("\n", "")


@each_form
def test_failed_job_removes_its_bar(lines: tuple[str, ...]) -> None:
    with running("photo", *lines) as (terminal, server):
        server.send(WorkFail(job(1)))
        assert terminal.wait_for_end() == 1
        where = "line 1: " if lines else ""
        assert terminal.text == f"gearmanctl: {where}the job failed"
