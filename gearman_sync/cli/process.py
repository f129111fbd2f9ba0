"""Commands that are run for jobs.

A command has a session of its own, so that a Ctrl-C on the terminal is for gearmanctl alone, and so
that whatever it has started can be killed with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from gearman_proto.constants import DEFAULT_MAX_PACKET_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

# Bytes to read at a time.
_CHUNK_SIZE: Final = 65536
# Bytes that a pipe takes before anybody reads it, on any system.
_PIPE_SIZE: Final = 4096
#: Bytes of the standard error that are kept: the last ones.
MAX_ERRORS: Final = 65536


@dataclass
class Outcome:
    """How a command has ended.

    Attributes:
        output: What it has written to standard output.
        errors: The end of what it has written to standard error.
        failure: Why that is no result, or None.
    """

    output: bytes
    errors: bytes
    failure: str | None


class Processes:
    """Runs a command, in any number of threads.

    Args:
        command: The program and its arguments.
        max_output: Bytes. A command that writes more is killed.
    """

    def __init__(self, command: list[str], max_output: int = DEFAULT_MAX_PACKET_SIZE) -> None:
        self._command = command
        self._max_output = max_output
        self._running: set[subprocess.Popen[bytes]] = set()
        self._killed = False

    def run(self, data: bytes, environment: Mapping[str, str]) -> Outcome:
        """Run it with `data` on its standard input, and wait for its end."""
        try:
            process = subprocess.Popen(  # noqa: S603 - it is what the user has asked for
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Outcome(b"", b"", f"{self._command[0]}: {error}")
        with process:
            self._running.add(process)
            if self._killed:
                _kill(process)
            try:
                return self._converse(process, data)
            finally:
                self._running.discard(process)

    def kill(self) -> None:
        """Kill all commands, and those that are about to be run.

        This never blocks: it may be called in a signal handler.
        """
        self._killed = True
        for process in list(self._running):
            _kill(process)

    def _converse(self, process: subprocess.Popen[bytes], data: bytes) -> Outcome:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        errors: deque[bytes] = deque()
        # Neither may wait for the other: a command may write before it reads, or all at once.
        threads = [threading.Thread(target=_read_errors, args=(process.stderr, errors))]
        if len(data) > _PIPE_SIZE:
            threads.append(threading.Thread(target=_feed, args=(process.stdin, data)))
        for thread in threads:
            thread.start()
        if len(data) <= _PIPE_SIZE:
            _feed(process.stdin, data)
        output = self._read_output(process, process.stdout)
        for thread in threads:
            thread.join()
        status = process.wait()
        failure = None
        if output is None:
            failure = f"more than {self._max_output} bytes of output"
        elif status < 0:
            failure = f"killed by {_name_of(-status)}"
        elif status:
            failure = f"exit status {status}"
        return Outcome(output or b"", b"".join(errors), failure)

    def _read_output(self, process: subprocess.Popen[bytes], stream: IO[bytes]) -> bytes | None:
        """All that comes, or None if that is too much."""
        chunks = []
        size = 0
        while chunk := os.read(stream.fileno(), _CHUNK_SIZE):
            size += len(chunk)
            if size > self._max_output:
                _kill(process)
                return None
            chunks.append(chunk)
        return b"".join(chunks)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # Most of the real-time ones have no name.
        return f"signal {number}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):  # It has ended.
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _feed(stream: IO[bytes], data: bytes) -> None:
    # A command need not read what it gets.
    with contextlib.suppress(BrokenPipeError), stream:
        stream.write(data)


def _read_errors(stream: IO[bytes], errors: deque[bytes]) -> None:
    """Pass on what comes, and keep the end of it."""
    size = 0
    while chunk := os.read(stream.fileno(), _CHUNK_SIZE):
        sys.stderr.buffer.write(chunk)
        sys.stderr.flush()
        errors.append(chunk)
        size += len(chunk)
        while size - len(errors[0]) >= MAX_ERRORS:
            size -= len(errors.popleft())
