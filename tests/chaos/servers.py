"""The servers: processes that the test kills, stops and restarts."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gearman_sync.testing.recording import is_whole_reply
from tests.support import ServerAt, counts_of, eventually, find_program, interruptible

from .payloads import TASK

# Seconds within which a restarted server has to listen.
_PATIENCE = 20.0


class ServerProcess:
    """A server with a port that stays reserved while the server is down.

    Args:
        name: The name of the server.
        kind: The implementation of the server.
        command: The command without the port, which is its last argument.
    """

    def __init__(self, name: str, kind: str, *command: str) -> None:
        self.name = name
        self.kind = kind
        self._command = command
        # This socket reserves the port, and never listens.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._holder.getsockname()
        #: The output of all runs of the server.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._process: subprocess.Popen[bytes] | None = None
        self._idle = (0, 0)
        #: True if a changed byte can end the server, even while it starts.
        self.may_die = False

    def start(self) -> None:
        """Start the server, and wait until it listens. Do nothing if it is running.

        On a busy machine, the steps of a plan overlap, so a server can be killed twice.
        """
        if self._process is not None and not self.died:
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
        """True if the server has ended without being killed."""
        return self._process is not None and self._process.poll() is not None

    @property
    def output(self) -> str:
        """The server's output."""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def kill(self) -> None:
        """Kill the server, which loses its queue."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """Send a signal to the server, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def end(self) -> None:
        """End the server for good."""
        self.kill()
        self._holder.close()
        self._output.close()

    # The server's remaining state.

    def jobs(self) -> int:
        """Return the number of queued and running jobs."""
        with socket.create_connection(self.address, _PATIENCE) as sock:
            sock.sendall(b"status\r\n")
            status = b""
            while not is_whole_reply(b"status", status):
                data = sock.recv(65536)
                assert data, f"{self.name} closed after {status!r}"
                status += data
        # Other names of functions can result from changed bytes.
        return counts_of(TASK, status.decode(errors="replace"))[0]

    @property
    def _open(self) -> tuple[int, int]:
        """The numbers of descriptors and threads."""
        assert self._process is not None
        proc = Path(f"/proc/{self._process.pid}")
        if not proc.exists():
            return 0, 0
        return len(os.listdir(proc / "fd")), len(os.listdir(proc / "task"))

    def leaks(self) -> str:
        """Describe the resources that the server has gained since its start, without peers."""
        try:
            eventually(lambda: all(now <= then for now, then in zip(self._open, self._idle)))
        except AssertionError:
            return f"{self.name} had (descriptors, threads) {self._idle}, and has {self._open}"
        return ""


def gearmand(name: str) -> ServerProcess | None:
    """Return a gearmand, or None if it is not installed."""
    path = find_program("gearmand")
    if path is None:
        if os.environ.get("CI"):
            raise AssertionError("gearmand is not installed")
        return None
    return ServerProcess(
        name, "gearmand", path, "-L", "127.0.0.1", "-t", "1", "-l", "/dev/null", "-p"
    )


def job_server(name: str, adapter: str) -> ServerProcess:
    """Return a JobServer of an adapter: "sync", "asyncio" or "trio"."""
    command = (sys.executable, "-m", "tests.chaos.jobserver", adapter)
    return ServerProcess(name, f"JobServer of {adapter}", *command)
