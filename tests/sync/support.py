"""Helpers for threads, signals and programs, some of which read the drivers' internals."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from gearman_sync import GearmanAdminClient, GearmanClient, GearmanWorker
from gearman_sync.testing import ScriptedServer, ScriptedWorker
from tests.support import PATIENCE, eventually, interruptible, spawn

MakeClient: TypeAlias = Callable[..., GearmanClient]
MakeWorker: TypeAlias = Callable[..., GearmanWorker]
StartServer: TypeAlias = Callable[..., ScriptedServer]
StartWorker: TypeAlias = Callable[..., ScriptedWorker]
StartScript: TypeAlias = "Callable[..., Script]"
Work: TypeAlias = "Callable[..., Working]"

ROOT = Path(__file__).resolve().parents[2]


def wait_for_leader(client: GearmanAdminClient | GearmanClient | GearmanWorker) -> None:
    """Wait until a thread polls the sockets."""
    eventually(lambda: client._gm_driver._leadership.sleeping_until is not None, "polling")


def wait_for_followers(client: GearmanAdminClient | GearmanClient, count: int) -> None:
    """Wait until one thread polls the sockets and `count` others sleep."""
    wait_for_leader(client)
    eventually(lambda: len(client._gm_driver._leadership.followers) == count, f"{count} followers")


@contextlib.contextmanager
def signal_handler(handle: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Install a signal handler. Yield a function that triggers it in this thread."""
    this = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handle())
    try:
        yield lambda: signal.pthread_kill(this, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextlib.contextmanager
def signalled(handle: Callable[[], object], when: Callable[[], object]) -> Iterator[None]:
    """Call `handle` as a signal handler of this thread, once `when` has returned in another one."""
    with signal_handler(handle) as trigger:
        sending = spawn(lambda: (when(), trigger()))
        try:
            yield
        finally:
            sending.result(PATIENCE)


def interrupt() -> None:
    """Interrupt the thread, as a signal handler."""
    raise KeyboardInterrupt


def open_files() -> set[str]:
    """Return the open file descriptors of this process."""
    return set(os.listdir("/dev/fd"))


def next_descriptor() -> int:
    """Return the number that the next descriptor gets."""
    number = os.dup(0)
    os.close(number)
    return number


@contextlib.contextmanager
def limited(more: int = 0) -> Iterator[None]:
    """Allow no descriptor, or only those before the `more`th number after the next one's."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_descriptor() + more, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class Working:
    """A worker whose `work` runs in a thread."""

    def __init__(self, worker: GearmanWorker, poll_timeout: float | None) -> None:
        self.worker = worker
        self.call = spawn(worker.work, poll_timeout)

    def end(self) -> None:
        """Wait for the end of `work`, and raise its exception, if any."""
        self.call.result(PATIENCE)


class Script:
    """A Python program in a process of its own that reads and writes lines.

    Args:
        command: The arguments of Python, of which the first can be a program of several lines.
        cwd: The directory in which it runs.
    """

    def __init__(self, *command: object, cwd: Path | None = None) -> None:
        words = list(map(str, command))
        if "\n" in words[0]:
            words.insert(0, "-c")
        self.process = subprocess.Popen(
            interruptible(sys.executable, "-W", "error", *words),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        """Return the program's next line of output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        return line.rstrip("\n")

    def ask(self, line: str = "") -> str:
        """Send a line to the program, and return the next line of output."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.line()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[str, str, int]:
        """Wait for the program's end. Return its stdout, its stderr and its exit status."""
        out, errors = self.process.communicate(timeout=PATIENCE)
        return out, errors, self.process.returncode

    def kill(self) -> None:
        """Kill the program."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with self.process:
            pass
