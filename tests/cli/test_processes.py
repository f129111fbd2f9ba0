"""The commands that ``gearmanctl work`` runs: their input, their output and their ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from gearman_sync.cli import process
from gearman_sync.cli.process import MAX_ERRORS, Outcome, Processes
from tests.support import PATIENCE, eventually, spawn

from .support import is_alive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = bytes(range(256)) * 20_000


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", program, *arguments]


def run(command: list[str], data: bytes = b"", *, max_output: int = 1 << 28) -> Outcome:
    return Processes(command, max_output).run(data, {})


WRITES_FIRST = """
import sys
sys.stdout.buffer.write(bytes(1000000))
sys.stdout.buffer.flush()
sys.stdout.buffer.write(sys.stdin.buffer.read())
"""


@pytest.mark.parametrize("data", [b"", LARGE[:4096], LARGE], ids=len)
def test_command_reads_its_input_or_does_not(data: bytes) -> None:
    assert run(["cat"], data) == Outcome(data, b"", None)
    assert run(["echo", "done"], data) == Outcome(b"done\n", b"", None)
    assert run(python(WRITES_FIRST), data) == Outcome(bytes(1_000_000) + data, b"", None)


def test_long_standard_error_keeps_its_end(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard error blocks nothing. Its end is kept, and all of it is passed on."""
    program = (
        "import sys; sys.stderr.write('x' * 1000000); sys.stderr.write('the end'); sys.exit(3)"
    )
    outcome = run(python(program), LARGE)
    assert (outcome.output, outcome.failure) == (b"", "exit status 3")
    assert outcome.errors.endswith(b"xthe end")
    assert MAX_ERRORS <= len(outcome.errors) < 3 * MAX_ERRORS
    assert capfd.readouterr().err == "x" * 1_000_000 + "the end"


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("echo out; exit 1", Outcome(b"out\n", b"", "exit status 1")),
        ("kill -KILL $$", Outcome(b"", b"", "killed by SIGKILL")),
        (
            "kill -40 $$",
            Outcome(b"", b"", "killed by signal 40"),
        ),  # Real-time signals have no name.
        # A command with too much output is killed at once, together with its children.
        ("yes | cat", Outcome(b"", b"", "more than 100000 bytes of output")),
        ("head -c 100000 /dev/zero", Outcome(bytes(100_000), b"", None)),
        ("head -c 100001 /dev/zero", Outcome(b"", b"", "more than 100000 bytes of output")),
    ],
)
def test_command_ends(script: str, outcome: Outcome) -> None:
    assert run(["sh", "-c", script], LARGE, max_output=100_000) == outcome


def test_missing_command_fails(tmp_path: Path) -> None:
    outcome = run([str(tmp_path / "nothing")], b"data")
    assert (outcome.output, outcome.errors) == (b"", b"")
    assert "No such file or directory" in str(outcome.failure)


def test_environment_is_passed_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "outside")
    outcome = Processes(["sh", "-c", "echo $FROM_OUTSIDE $NAME"]).run(b"", {"NAME": "a\udcff=b"})
    assert outcome == Outcome(b"outside a\xff=b\n", b"", None)


def test_kill_ends_commands_and_their_children(tmp_path: Path) -> None:
    """`kill` ends running commands with their children, and commands that are started later."""
    script = 'sleep 1000 & echo $! > "$0"; wait'
    processes = Processes(["sh", "-c", script, str(tmp_path / "pid")])
    running = spawn(processes.run, b"", {})
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    grandchild = int((tmp_path / "pid").read_text())
    assert is_alive(grandchild)
    processes.kill()
    assert running.result(PATIENCE) == Outcome(b"", b"", "killed by SIGKILL")
    eventually(lambda: not is_alive(grandchild), "the end of a grandchild")
    assert processes.run(b"", {}).failure == "killed by SIGKILL"


# Processes that outlive the command and keep its pipes.

#: Starts the program in its first argument in a new session, and writes its process id to the file
#: in the second argument.
DETACH = """
import os, subprocess, sys
os.environ["COMMAND"] = str(os.getpid())
process = subprocess.Popen([sys.executable, "-ISc", sys.argv[1]], start_new_session=True)
with open(sys.argv[2], "w") as file:
    print(process.pid, file=file)
"""
SLEEP = "import time; time.sleep(1000)"


class Leaving:
    """Commands that leave a process running, in its own session."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "left running"

    def command(self, left: str, then: str) -> list[str]:
        """Leave a process with the program `left` running, then run the program `then`."""
        return python(DETACH + then, left, str(self._file))

    @property
    def pid(self) -> int:
        eventually(lambda: self._file.exists() and self._file.read_text().endswith("\n"))
        return int(self._file.read_text())


@pytest.fixture
def leaving(tmp_path: Path) -> Iterator[Leaving]:
    leaving = Leaving(tmp_path)
    yield leaving
    with contextlib.suppress(ProcessLookupError):
        os.kill(leaving.pid, signal.SIGKILL)


@pytest.mark.slow
def test_process_left_running_with_the_pipes_does_not_hold_up_the_result(
    leaving: Leaving,
) -> None:
    command = leaving.command(SLEEP, "print('out'); sys.stderr.write('error'); sys.exit(3)")
    outcome = spawn(run, command, LARGE).result(PATIENCE)
    assert outcome == Outcome(b"out\n", b"error", "exit status 3", is_cut=True)
    assert is_alive(leaving.pid)


def test_process_left_running_that_goes_on_writing_does_not_hold_up_the_result(
    leaving: Leaving,
) -> None:
    chatter = "import os, time\nwhile True: os.write(1, b'.'); time.sleep(0.01)"
    outcome = spawn(run, leaving.command(chatter, "")).result(PATIENCE)
    assert (outcome.failure, outcome.is_cut) == (None, True)
    # The process's output was closed.
    eventually(lambda: not is_alive(leaving.pid), "the end by SIGPIPE or an error")


def test_process_left_running_that_writes_a_moment_later_is_read(
    leaving: Leaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_MOMENT", PATIENCE)
    # The parent changes when the command has ended.
    late = "import os, time\nwhile os.getppid() == int(os.environ['COMMAND']): time.sleep(0.01)\n"
    late += "os.write(1, b'late'); os.write(2, b'late')"
    command = leaving.command(late, "print('early')")
    assert spawn(run, command).result(PATIENCE) == Outcome(b"early\nlate", b"late", None)


def test_kill_while_a_process_left_running_has_the_pipes_ends_the_run(leaving: Leaving) -> None:
    processes = Processes(leaving.command(SLEEP, f"print(flush=True); {SLEEP}"))
    running = spawn(processes.run, LARGE, {})
    assert is_alive(leaving.pid)
    processes.kill()
    outcome = running.result(PATIENCE)
    assert (outcome.errors, outcome.failure) == (b"", "killed by SIGKILL")
    assert is_alive(leaving.pid)


def test_too_much_output_of_a_process_left_running_ends_the_run(leaving: Leaving) -> None:
    flood = "import os\nwhile True: os.write(1, bytes(65536))"
    command = leaving.command(flood, SLEEP)
    outcome = spawn(run, command, max_output=1_000_000).result(PATIENCE)
    assert (outcome.output, outcome.failure) == (b"", "more than 1000000 bytes of output")


# Popen warns that the command is still running.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning")
@pytest.mark.parametrize("closing", ["", "import os; os.close(1); os.close(2);"])
def test_kill_of_a_command_that_may_not_be_killed_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: str
) -> None:
    """A command of another user, started by `sudo` for example, can't be killed."""
    monkeypatch.setattr(process, "_KILL_TIMEOUT", 1.0)
    program = f"{closing} open(sys.argv[1], 'w').close(); {SLEEP}"
    processes = Processes(python(f"import sys; {program}", str(tmp_path / "begun")))
    attempts = []

    def refuse(group: int, number: int) -> None:
        attempts.append(group)
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", refuse)
        running = spawn(processes.run, b"", {})
        eventually((tmp_path / "begun").exists, "the command")
        processes.kill()
        try:
            outcome = running.result(PATIENCE)
        finally:
            os.kill(attempts[0], signal.SIGKILL)
            os.waitpid(attempts[0], 0)
    assert outcome == Outcome(b"", b"", "it was killed, and goes on")
