"""The supervisor's processes, signals and sockets. It never imports the application."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from .engine import Exit, Log, Notify, Signal, Spawn, Supervisor

if TYPE_CHECKING:
    from collections.abc import Mapping

logger: Final = logging.getLogger("gearman.run")

_SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")
#: The most bytes of a child's unfinished message. Children send less.
_MAX_MESSAGE: Final = 1 << 20


class _Process:
    """A child, and its socket."""

    def __init__(self, popen: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self.popen = popen
        self.sock: socket.socket | None = sock
        self._data = b""

    def read(self) -> list[dict[str, Any]]:
        """Return the messages that have arrived. Close the socket at its end."""
        while self.sock is not None:
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._data += data
            if not data or len(self._data) > _MAX_MESSAGE:
                self.sock.close()
                self.sock = None
        *lines, self._data = self._data.split(b"\n")
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):  # The application has written to the socket.
                message = json.loads(line)
                if isinstance(message, dict):
                    found.append(message)
        return found


class Runner:
    """Runs a `Supervisor` until it ends.

    Args:
        engine: The supervisor.
        settings: What each child gets as JSON, with its `slot` and the descriptor of its `socket`.
        directory: The working directory of the children.
    """

    def __init__(self, engine: Supervisor, settings: Mapping[str, Any], directory: str) -> None:
        self._engine = engine
        self._settings = settings
        self._directory = directory
        self._processes: dict[int, _Process] = {}
        self._selector = selectors.DefaultSelector()
        self._status: int | None = None

    def run(self) -> int:
        """Start the processes, and return the exit status when all have ended."""
        wakeup, wakeup_writer = socket.socketpair()
        with contextlib.closing(self._selector), wakeup, wakeup_writer:
            for sock in (wakeup, wakeup_writer):
                sock.setblocking(False)
            self._selector.register(wakeup, selectors.EVENT_READ)
            signal.set_wakeup_fd(wakeup_writer.fileno(), warn_on_full_buffer=False)
            try:
                for name in (*_SIGNALS, "SIGCHLD"):
                    number = getattr(signal, name)
                    if signal.getsignal(number) is not signal.SIG_IGN or name == "SIGCHLD":
                        signal.signal(number, lambda _number, _frame: None)
                return self._run(wakeup)
            finally:
                signal.set_wakeup_fd(-1)

    def _run(self, wakeup: socket.socket) -> int:
        engine = self._engine
        while True:
            self._carry_out()
            if self._status is not None:
                return self._status
            deadline = engine.next_deadline()
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            numbers = b""
            for key, _ in self._selector.select(timeout):
                if key.fileobj is wakeup:
                    numbers += wakeup.recv(1 << 12)
                else:
                    self._read(key.data)
            if numbers:
                self._reap()
            for number in numbers:
                engine.signal(time.monotonic(), number)
            engine.handle_timeout(time.monotonic())

    def _carry_out(self) -> None:
        while (action := self._engine.next_action()) is not None:
            match action:
                case Spawn(slot):
                    self._spawn(slot)
                case Signal(pid, number):
                    # It is not reaped yet, so no other process has this number.
                    os.kill(pid, number)
                case Notify(state):
                    _notify(state)
                case Log(message, is_error):
                    logger.log(logging.ERROR if is_error else logging.INFO, "%s", message)
                case Exit(status):
                    self._status = status

    def _spawn(self, slot: int) -> None:
        ours, theirs = socket.socketpair()
        settings = {**self._settings, "slot": slot, "socket": theirs.fileno()}
        # -P: a module in the working directory must not replace one of the standard library before
        # the child can report that. The child adds the directory.
        command = [sys.executable, "-P", "-m", "gearman_sync.runner.child", json.dumps(settings)]
        try:
            popen = subprocess.Popen(  # noqa: S603 - it is this Python
                command,
                stdin=subprocess.DEVNULL,
                cwd=self._directory,
                env={**os.environ, "PWD": self._directory},
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        except OSError as error:
            ours.close()
            self._engine.spawn_failed(time.monotonic(), slot, str(error))
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._processes[popen.pid] = _Process(popen, ours)
        self._selector.register(ours, selectors.EVENT_READ, popen.pid)
        self._engine.spawned(time.monotonic(), slot, popen.pid)

    def _read(self, pid: int) -> None:
        process = self._processes[pid]
        sock = process.sock
        if sock is None:
            return
        messages = process.read()
        if process.sock is None:
            self._selector.unregister(sock)
        for message in messages:
            self._engine.said(time.monotonic(), pid, message)

    def _reap(self) -> None:
        """Handle the ends of processes, also of those that PID 1 has inherited."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid not in self._processes:
                continue
            # A process that the child has forked can keep the socket open, so don't wait for EOF.
            self._read(pid)
            process = self._processes.pop(pid)
            process.popen.returncode = os.waitstatus_to_exitcode(status)
            if process.sock is not None:
                self._selector.unregister(process.sock)
                process.sock.close()
            self._engine.exited(time.monotonic(), pid, process.popen.returncode)


def _notify(state: str) -> None:
    """Tell systemd the state, as sd_notify(3) does."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    text = f"{state}=1"
    if state == "RELOADING":
        text += f"\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(text.encode(), "\0" + path[1:] if path.startswith("@") else path)
        except OSError as error:
            logger.warning("NOTIFY_SOCKET %s: %s", path, error)
