"""The servers: processes of their own, which are killed, stopped and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gearman_sync.testing.recording import is_whole_reply
from tests.support import ServerAt, counts_of, eventually, find_program, interruptible

from .payloads import TASK

# Seconds within which a server that was killed listens again.
_PATIENCE = 20.0


class ServerProcess:
    """A server at a port that stays its own, whatever becomes of it.

    Args:
        name: What it is known by.
        kind: Which server it is.
        command: What runs it, but for the port, which comes last.
    """

    def __init__(self, name: str, kind: str, *command: str) -> None:
        self.name = name
        self.kind = kind
        self._command = command
        # It keeps the port, and never listens.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._holder.getsockname()
        #: What it has said, of all its lives.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._process: subprocess.Popen[bytes] | None = None
        self._idle = (0, 0)
        #: Whether it may end by itself, because of a changed byte: also while it starts.
        self.may_die = False

    def start(self) -> None:
        """Start it, and return when it listens. If it runs, do nothing.

        On a busy machine, the steps of a plan overlap, and a server is killed twice.
        """
        if self.runs and not self.died:
            return
        self._spawn()
        deadline = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError, AssertionError):
                ServerAt(self.address).admin("version")
                break
            if self.died and self.may_die:
                self._spawn()
            if self.died or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} does not start: {self.output}")
            time.sleep(0.02)
        self._idle = self._open

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            interruptible(*self._command, str(self.address[1])),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
        )

    @property
    def died(self) -> bool:
        """Whether it has ended, and nobody has killed it."""
        return self._process is not None and self._process.poll() is not None

    @property
    def runs(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._process is not None

    @property
    def output(self) -> str:
        """What it has said."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def kill(self) -> None:
        """End it at once, and what it had queued."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let it do nothing (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it do something again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def end(self) -> None:
        """End it for good."""
        self.kill()
        self._holder.close()
        self._output.close()

    # What it has left.

    def jobs(self) -> int:
        """How many jobs it has, queued or running."""
        with socket.create_connection(self.address, _PATIENCE) as sock:
            sock.sendall(b"status\r\n")
            status = b""
            while not is_whole_reply(b"status", status):
                data = sock.recv(65536)
                assert data, f"{self.name} closed after {status!r}"
                status += data
        # Other functions' names may be what changed bytes have made of this one.
        return counts_of(TASK, status.decode(errors="replace"))[0]

    @property
    def _open(self) -> tuple[int, int]:
        """How many descriptors and threads it has."""
        assert self._process is not None
        proc = Path(f"/proc/{self._process.pid}")
        if not proc.exists():
            return 0, 0
        return len(os.listdir(proc / "fd")), len(os.listdir(proc / "task"))

    def leaks(self) -> str:
        """What it has that it had not at its start, when nobody is connected to it any more."""
        try:
            eventually(lambda: all(now <= then for now, then in zip(self._open, self._idle)))
        except AssertionError:
            return f"{self.name} had (descriptors, threads) {self._idle}, and has {self._open}"
        return ""


def gearmand(name: str) -> ServerProcess | None:
    """A gearmand, where it is installed."""
    path = find_program("gearmand")
    if path is None:
        if os.environ.get("CI"):
            raise AssertionError("gearmand is not installed")
        return None
    return ServerProcess(
        name, "gearmand", path, "-L", "127.0.0.1", "-t", "1", "-l", "/dev/null", "-p"
    )


def job_server(name: str, adapter: str) -> ServerProcess:
    """A JobServer of an adapter: "sync", "asyncio" or "trio"."""
    command = (sys.executable, "-m", "tests.chaos.jobserver", adapter)
    return ServerProcess(name, f"JobServer of {adapter}", *command)
