"""Start and stop judged programs, and fill in the placeholders of their commands."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final, TypeAlias

from gearman_proto.testing.conformance.program_kit import Running

#: The placeholder for several payloads. Each payload becomes a separate word of the command.
PAYLOADS: Final = "{payloads}"
#: Maximum number of bytes to read from the standard output or the standard error.
_MOST: Final = 1 << 26


def values_for(address: tuple[str, int], **others: str) -> dict[str, str]:
    """Return values for the placeholders: three forms of an address, and `others`."""
    host, port = address
    return {"address": f"{host}:{port}", "host": host, "port": str(port), **others}


def filled(command: Sequence[str], values: Mapping[str, str], payloads: Sequence[str]) -> list[str]:
    """Return the words of a command with its placeholders replaced."""
    words: list[str] = []
    for word in command:
        if word == PAYLOADS:
            words += payloads
            continue
        for name, value in values.items():
            word = word.replace(f"{{{name}}}", value)
        words.append(word)
    return words


#: A function that starts a program, given the values of the placeholders and the payloads.
Launch: TypeAlias = Callable[[Mapping[str, str], Sequence[str]], Running]


def launcher(command: Sequence[str]) -> Launch:
    """Return a function that fills in the placeholders of a command and starts it."""
    return lambda values, payloads: Program(filled(command, values, payloads))


class _Process(subprocess.Popen[bytes]):
    """A process in its own session, which ends if an exception interrupts its start.

    A signal handler, such as that of Ctrl-C, can raise while Popen waits for the new process.
    """

    def __init__(self, words: Sequence[str], **options: Any) -> None:
        try:
            super().__init__(words, start_new_session=True, **options)
        except BaseException:
            if getattr(self, "pid", None) is not None and self.returncode is None:
                self.end()
            raise

    def end(self) -> None:
        """Kill the process and its children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


class Program:
    """A process in its own session, so that `end` can kill its child processes too.

    Args:
        words: The program and its arguments.
        data: The standard input of the program.

    Raises:
        OSError: The program can't be started.
    """

    def __init__(self, words: Sequence[str], data: bytes = b"") -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        with tempfile.TemporaryFile() as given:
            given.write(data)
            given.seek(0)
            try:
                self._process = _Process(
                    list(words), stdin=given, stdout=self._output, stderr=self._errors
                )
            except BaseException:
                self._output.close()
                self._errors.close()
                raise

    @property
    def status(self) -> int | None:
        """The exit status, or None while the process is running.

        The status is `-N` if signal number N has ended the process.
        """
        return self._process.poll()

    @property
    def output(self) -> bytes:
        """The standard output of the process so far."""
        return _read(self._output)

    @property
    def errors(self) -> bytes:
        """The standard error of the process so far."""
        return _read(self._errors)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the process, but not to its children."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Kill the process and its children."""
        self._process.end()
        self._output.close()
        self._errors.close()


def _read(file: IO[bytes]) -> bytes:
    return os.pread(file.fileno(), _MOST, 0)
