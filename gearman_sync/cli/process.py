"""Commands that are run for jobs.

Each command runs in its own session. So Ctrl-C on the terminal interrupts only gearmanctl, and the
processes that a command has started can be killed with it.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import selectors
import signal
import subprocess
import time
from collections import deque
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from gearman_proto.constants import DEFAULT_MAX_PACKET_SIZE

from .output import write_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

# Bytes to read or write at a time.
_CHUNK_SIZE: Final = 65536
# Seconds to continue reading after the command has ended. A process that it leaves running can keep
# the pipes open forever.
_MOMENT: Final = 1.0
# Seconds to wait for a killed command. A command that runs as another user can't be killed.
_KILL_TIMEOUT: Final = 5.0
#: Maximum bytes of standard error to keep. The last ones are kept.
MAX_ERRORS: Final = 65536


@dataclass
class Outcome:
    """The outcome of a command.

    Attributes:
        output: The command's standard output.
        errors: The end of its standard error.
        failure: The reason why the output is not a result, or None.
        is_cut: True if a process that the command left running could have written more.
    """

    output: bytes
    errors: bytes
    failure: str | None
    is_cut: bool = False


class Processes:
    """Runs a command. Several threads can use it at the same time.

    Args:
        command: The program and its arguments.
        max_output: Maximum bytes of output. A command that writes more is killed.
    """

    def __init__(self, command: list[str], max_output: int = DEFAULT_MAX_PACKET_SIZE) -> None:
        self._command = command
        self._max_output = max_output
        self._running: set[subprocess.Popen[bytes]] = set()
        self._killed = False

    def run(self, data: bytes, environment: Mapping[str, str]) -> Outcome:
        """Run the command with `data` on its standard input, and wait until it ends.

        Reading stops shortly after the command has ended, even if a process that it left running
        keeps the pipes open.
        """
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is the user's own
                self._command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Outcome(b"", b"", f"{self._command[0]}: {error}")
        self._running.add(process)
        try:
            if self._killed:
                _kill(process)
            with _Pipes(process, data, self._max_output) as pipes:
                return self._converse(process, pipes)
        finally:
            self._running.discard(process)

    def kill(self) -> None:
        """Kill all running commands, and those about to start.

        This method never blocks, so a signal handler can call it.
        """
        self._killed = True
        for process in list(self._running):
            _kill(process)

    def _converse(self, process: subprocess.Popen[bytes], pipes: _Pipes) -> Outcome:
        deadline = math.inf
        is_killed = False
        while time.monotonic() < deadline:
            has_ended = process.poll() is not None
            is_killed = self._killed or pipes.is_too_much
            if has_ended and (is_killed or not pipes.are_readable):
                break
            if has_ended or is_killed:
                limit = _MOMENT if has_ended else _KILL_TIMEOUT
                deadline = min(deadline, time.monotonic() + limit)
            if pipes.are_readable:
                pipes.move(_MOMENT)
            else:
                _wait(process)
            if pipes.is_too_much:
                _kill(process)
        failure = None
        if pipes.is_too_much:
            failure = f"more than {self._max_output} bytes of output"
        elif process.returncode is None:
            failure = "it was killed, and goes on"
        elif process.returncode < 0:
            failure = f"killed by {_name_of(-process.returncode)}"
        elif process.returncode:
            failure = f"exit status {process.returncode}"
        output = b"" if pipes.is_too_much else b"".join(pipes.output)
        is_cut = pipes.are_readable and not is_killed
        return Outcome(output, b"".join(pipes.errors), failure, is_cut)


class _Pipes:
    """The pipes to and from one process. Leaving the context closes them.

    Args:
        process: The process. Its pipes must be unbuffered.
        data: The bytes for its standard input.
        max_output: Maximum bytes of standard output to read.

    Attributes:
        output: The process's standard output, in chunks.
        errors: The end of its standard error, in chunks.
        is_too_much: True once the process has written more than `max_output` bytes.
    """

    def __init__(self, process: subprocess.Popen[bytes], data: bytes, max_output: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.output: list[bytes] = []
        self.errors: deque[bytes] = deque()
        self.is_too_much: bool = False
        self._room = max_output
        self._data = memoryview(data)
        self._errors_size = 0
        self._stdin = process.stdin
        self._outputs = (process.stdout, process.stderr)
        self._selector = selectors.DefaultSelector()
        # Don't block on standard input: a command may write before it reads.
        os.set_blocking(process.stdin.fileno(), False)
        self._selector.register(process.stdin, selectors.EVENT_WRITE, self._feed)
        self._selector.register(process.stdout, selectors.EVENT_READ, self._read_output)
        self._selector.register(process.stderr, selectors.EVENT_READ, self._read_errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for stream in (self._stdin, *self._outputs):
            stream.close()

    @property
    def are_readable(self) -> bool:
        """True while the process or one of its children can still write."""
        return not all(stream.closed for stream in self._outputs)

    def move(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until a pipe is ready, and read or write some bytes."""
        for key, _ in self._selector.select(timeout):
            stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
            if not key.data(stream.fileno()):
                self._selector.unregister(stream)
                stream.close()

    def _feed(self, descriptor: int) -> bool:
        try:
            self._data = self._data[os.write(descriptor, self._data[:_CHUNK_SIZE]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:  # The command does not read all of its data.
            return False
        return len(self._data) > 0

    def _read_output(self, descriptor: int) -> bool:
        chunk = os.read(descriptor, _CHUNK_SIZE)
        self._room -= len(chunk)
        self.is_too_much = self._room < 0
        self.output.append(chunk)
        return bool(chunk) and not self.is_too_much

    def _read_errors(self, descriptor: int) -> bool:
        chunk = os.read(descriptor, _CHUNK_SIZE)
        write_errors(chunk)
        self.errors.append(chunk)
        self._errors_size += len(chunk)
        while self._errors_size - len(self.errors[0]) >= MAX_ERRORS:
            self._errors_size -= len(self.errors.popleft())
        return bool(chunk)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # Most real-time signals have no name.
        return f"signal {number}"


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process ends, up to `_MOMENT` seconds."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # pidfd_open requires Linux 5.3.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_MOMENT)
        return
    # `Popen.wait` with a timeout sleeps between polls, which costs each job a millisecond.
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(_MOMENT * 1000)
    finally:
        os.close(descriptor)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):  # The process has ended, or runs as another user.
        os.killpg(process.pid, signal.SIGKILL)
