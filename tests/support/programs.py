"""Programs that tests start: whether they are installed, how they start, and how they end."""

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

#: The directories where Debian and others install gearmand. Few users have them in their PATH.
SBIN: Final = os.pathsep.join(("/usr/sbin", "/usr/local/sbin"))
# Below those that Linux and others give out by themselves.
_PORTS: Final = range(12_000, 32_000)
# Runs a command, with the default disposition of SIGINT.
_WITH_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def find_program(program: str) -> str | None:
    """Return the path of `program`, or None if it is not installed."""
    return shutil.which(program) or shutil.which(program, path=SBIN)


def require(program: str) -> str:
    """The path of `program`. Without it the test is skipped, but never where CI runs."""
    path = find_program(program)
    if path is None:
        _missing(program)
    return path


def require_module(module: str) -> None:
    """Look for `module`, which is not imported. Without it: as with `require`."""
    if importlib.util.find_spec(module) is None:
        _missing(f"the module {module}")


def _missing(what: str) -> NoReturn:
    reason = f"{what} is not installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens at, and that the system gives to nobody by itself.

    Among those that it does, another test's server or connection may take it before it is used.
    """
    for port in random.SystemRandom().sample(_PORTS, 100):
        with contextlib.suppress(OSError), socket_for(host) as sock:
            sock.bind((host, port))
            return port
    raise OSError(f"no port is free at {host}")


def interruptible(*command: str) -> tuple[str, ...]:
    """The command, started such that Ctrl-C ends it, also where the tests themselves ignore it.

    A shell lets what it starts in the background ignore SIGINT, and an ignored signal, unlike one
    with a handler, is ignored by all that is started from there.
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
        """End it at once, and all that it started."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class PortProgram(Program):
    """A program that listens at a port."""

    def __init__(self, host: str, port: int, *command: str) -> None:
        super().__init__(*command)
        self.host = host
        self.port = port

    def start(self) -> None:
        """Start it, and return when it listens."""
        process = self.spawn()

        def listens() -> bool:
            assert process.poll() is None, f"{self.command[0]} ended with {process.returncode}"
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port)):
                return True
            return False

        eventually(listens, f"{self.command[0]} listening")
