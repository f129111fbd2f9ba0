"""Programs that tests use: finding, starting and stopping them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from typing import Final, NoReturn

import pytest

from gearman_sync.testing.sockets import socket_for

from .waiting import eventually

#: Directories where distributions install gearmand, which are rarely in a user's PATH.
SBIN: Final = os.pathsep.join(("/usr/sbin", "/usr/local/sbin"))
# Ports below the ephemeral ranges of Linux and other systems.
_PORTS: Final = range(12_000, 32_000)
# Runs a command, with the default disposition of SIGINT.
_WITH_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it.
os.execvp(sys.argv[1], sys.argv[1:])
"""


def find_program(program: str) -> str | None:
    """Return the path of `program`, or None if it is not installed."""
    return shutil.which(program) or shutil.which(program, path=SBIN)


def require(program: str) -> str:
    """Return the path of `program`. If it is missing, skip the test, or fail in CI."""
    path = find_program(program)
    if path is None:
        _missing(program)
    return path


def require_module(module: str) -> None:
    """Check that `module` is installed, without importing it. See `require`."""
    if importlib.util.find_spec(module) is None:
        _missing(f"the module {module}")


def _missing(what: str) -> NoReturn:
    reason = f"{what} is not installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port(host: str = "127.0.0.1") -> int:
    """Return an unused port outside of the kernel's ephemeral range.

    The kernel could assign an ephemeral port to another test's server or connection before its use.
    """
    for port in random.SystemRandom().sample(_PORTS, 100):
        with contextlib.suppress(OSError), socket_for(host) as sock:
            sock.bind((host, port))
            return port
    raise OSError(f"no port is free at {host}")


def interruptible(*command: str) -> tuple[str, ...]:
    """Wrap `command` so that Ctrl-C ends it, even if the tests ignore SIGINT and SIGQUIT.

    A shell makes background processes ignore both. Child processes inherit an ignored signal, but
    not a handler.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        return command
    return (sys.executable, "-I", "-S", "-c", _WITH_SIGINT, *command)


class Program:
    """A program in a process group of its own."""

    def __init__(self, *command: str) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            interruptible(*self.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self.process

    def kill(self) -> None:
        """Kill the program and all processes that it started."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class PortProgram(Program):
    """A program that listens on a port."""

    def __init__(self, host: str, port: int, *command: str) -> None:
        super().__init__(*command)
        self.host = host
        self.port = port

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def start(self) -> None:
        """Start the program, and return when it listens."""
        process = self.spawn()

        def listens() -> bool:
            assert process.poll() is None, f"{self.command[0]} ended with {process.returncode}"
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port)):
                return True
            return False

        eventually(listens, f"{self.command[0]} listening")
