"""Runs gearmanctl, either to its end in this process or in a process of its own.

`gearmanctl` shows the effect of a command. `Running`, and `Terminal` in `terminal`, are for tests
that need a process, for signals, closed pipes, or a command that runs meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest import mock

import pytest

from gearman_sync.cli import main
from tests.support import (
    PATIENCE,
    Administered,
    EmbeddedServer,
    Gearmand,
    eventually,
    interruptible,
    require,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    from gearman_sync.testing import ScriptedJob, ScriptedWorker

#: A server that a test can kill and restart.
Server: TypeAlias = Gearmand | EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-W", "error", "-m", "gearman_sync")
Argument: TypeAlias = "str | bytes | int | Path"

#: Run a test on both kinds of server, where the server's replies matter. Other tests use a
#: JobServer.
on_both = pytest.mark.parametrize("kind", ["gearmand", "JobServer"], indirect=True)

DONE, FAILED, USAGE, NO_SERVER, TIMED_OUT = range(5)


@dataclass(frozen=True)
class Result:
    """The exit status and the output of a program."""

    status: int
    output: bytes
    errors: str

    @property
    def lines(self) -> list[str]:
        """The lines of the output."""
        return self.output.decode().splitlines()

    @property
    def error(self) -> str:
        """The only line of standard error."""
        assert self.errors.startswith("gearmanctl: "), self.errors
        assert self.errors.endswith("\n"), self.errors
        assert self.errors.count("\n") == 1, self.errors
        return self.errors.removeprefix("gearmanctl: ")[:-1]


def environment(**variables: str) -> dict[str, str]:
    """Return an environment without variables that affect gearmanctl, except the given ones."""
    others = ("GEARMAN", "_GEARMANCTL", "PYTHONUNBUFFERED")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {**kept, "PYTHONPATH": str(ROOT), **variables}


def address_of(server: Administered | tuple[str, int]) -> str:
    """Return a server's address as the command line takes it."""
    host, port = server.address if isinstance(server, Administered) else server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def words_of(*arguments: Argument, at: Any = ()) -> list[str]:
    """Return a command's words: its name, the server or servers `at`, and its arguments."""
    servers = at if isinstance(at, tuple) and not (at and isinstance(at[0], str)) else (at,)
    options = [word for server in servers for word in ("--server", address_of(server))]
    words = (*arguments[:1], *options, *arguments[1:])
    return [os.fsdecode(str(word) if isinstance(word, int) else word) for word in words]


def command_line(*arguments: Argument, at: Any = ()) -> list[str]:
    """Return the command line that starts gearmanctl for the server or servers `at`."""
    return [*PROGRAM, *words_of(*arguments, at=at)]


def gearmanctl(*arguments: Argument, at: Any = (), data: bytes = b"", **env: str) -> Result:
    """Run gearmanctl to its end in this process, with a command for the server or servers `at`.

    The command has its own arguments, environment, standard streams with descriptors, and loggers.
    Exceptions that gearmanctl does not catch are raised here.
    """
    with (
        tempfile.TemporaryFile() as source,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        source.write(data)
        source.seek(0)
        with (
            mock.patch.dict(os.environ, environment(**env), clear=True),
            mock.patch.object(sys, "argv", [PROGRAM[-1], *words_of(*arguments, at=at)]),
            mock.patch.object(sys, "excepthook", sys.excepthook),  # typer sets a hook.
            mock.patch.object(logging.getLogger(), "handlers", []),
            mock.patch.object(logging.getLogger("gearman"), "filters", []),
            _kept_handler(signal.SIGINT),
            _standard("stdin", source, "r"),
            _standard("stdout", output, "w"),
            _standard("stderr", errors, "w"),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        status = ended.value.code
        assert isinstance(status, int), status
        output.seek(0)
        errors.seek(0)
        return Result(status, output.read(), errors.read().decode("utf-8", "surrogateescape"))


@contextlib.contextmanager
def _kept_handler(number: int) -> Iterator[None]:
    """Restore the handler of a signal at the end."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, handler)


@contextlib.contextmanager
def _standard(name: str, file: IO[bytes], mode: str) -> Iterator[None]:
    """Use a file as one of the standard streams."""
    with (
        open(file.fileno(), mode, encoding="utf-8", closefd=False) as stream,
        mock.patch.object(sys, name, stream),
        # Python determines the width of the terminal from these streams.
        mock.patch.object(sys, f"__{name}__", stream),
    ):
        yield


# A wrapper program that makes a terminal the controlling one of its session, then runs the command.
_TAKE = (
    "import fcntl, os, sys, termios; number = int(sys.argv[1]); "
    "fcntl.ioctl(number, termios.TIOCSCTTY, 0); os.close(number); "
    "os.execvp(sys.argv[2], sys.argv[2:])"
)


def start_process(
    command: list[str], *, terminal: int | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start a command in its own session, with a controlling terminal if `terminal` is given.

    The pipes are not buffered in this process.
    """
    if terminal is not None:
        command = [sys.executable, "-ISc", _TAKE, str(terminal), *command]
        options["pass_fds"] = [terminal]
    return subprocess.Popen(interruptible(*command), bufsize=0, start_new_session=True, **options)


class Running:
    """A running program. Its pipes are not buffered in this process."""

    def __init__(self, command: list[str], **options: Any) -> None:
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.process = start_process(command, **{"env": environment(), **pipes, **options})

    def write(self, data: bytes) -> None:
        """Write to the program's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def close(self) -> None:
        """Close the program's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def line(self) -> bytes:
        """Return the next line of standard output."""
        return self._line(self.process.stdout)

    def error(self) -> str:
        """Return the next line of standard error."""
        return self._line(self.process.stderr).decode("utf-8", "surrogateescape").rstrip("\n")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> Result:
        """Wait for the program's end. The result contains the unread output."""
        if self.process.stdin is not None and self.process.stdin.closed:
            self.process.stdin = None
        output, errors = self.process.communicate(timeout=PATIENCE)
        return Result(self.process.wait(), output or b"", (errors or b"").decode())

    def kill(self) -> None:
        """Kill the program and everything that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with self.process:
            pass

    @staticmethod
    def _line(stream: IO[bytes] | None) -> bytes:
        assert stream is not None
        assert select.select([stream], [], [], PATIENCE)[0], "nothing was written"
        return stream.readline()


@dataclass(frozen=True)
class Queue:
    """The queue of one function at one server."""

    server: Server
    task: str
    _start: Callable[..., Running]
    _start_worker: Callable[..., ScriptedWorker]

    def submit(self, *words: Argument, **options: Any) -> Result:
        """Run `gearmanctl submit` to its end."""
        return gearmanctl("submit", self.task, *words, at=self.server, **options)

    def start(self, *words: Argument, **options: Any) -> Running:
        """Start `gearmanctl submit`."""
        return self._start("submit", self.task, *words, at=self.server, **options)

    def do(self, function: Callable[[ScriptedJob], bytes], **options: Any) -> ScriptedWorker:
        """Start a worker."""
        return self._start_worker(self.server.address, {self.task: function}, **options)

    def start_work(self, *words: Argument, **options: Any) -> Running:
        """Start `gearmanctl work`, and wait until the server knows it."""
        before = self.counts[2]
        running = self._start("work", self.task, *words, at=self.server, **options)
        eventually(lambda: self.counts[2] == before + 1, "a worker")
        return running

    @property
    def counts(self) -> tuple[int, int, int]:
        """The numbers of jobs, of running jobs, and of workers."""
        return self.server.counts(self.task)

    def wait_for(self, count: int) -> None:
        """Wait until the server has `count` jobs."""
        self.server.wait_for_jobs(self.task, count)


def gearman(server: Administered, *arguments: str, data: bytes = b"") -> Result:
    """Run libgearman's `gearman` program to its end."""
    host, port = server.address
    process = subprocess.run(
        [require("gearman"), "-h", host, "-p", str(port), *arguments],
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    return Result(process.returncode, process.stdout, process.stderr.decode())


def is_alive(pid: int) -> bool:
    """Return True if the process exists and is not a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    if status.exists():
        with contextlib.suppress(OSError):
            return status.read_text().rpartition(")")[2].split()[0] != "Z"
        return False
    return True


def stays(condition: Any, seconds: float = 0.3) -> bool:
    """Return True if `condition` stays true for a while. A wrong program would break it at once."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not condition():
            return False
        time.sleep(0.01)
    return True
