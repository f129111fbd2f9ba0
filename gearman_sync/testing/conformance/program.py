"""A program that is judged: how it is started, with which words, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Final, TypeAlias

from gearman_proto.testing.conformance.program_kit import Running

#: The word of a command that stands for several payloads, which become a word each.
PAYLOADS: Final = "{payloads}"
#: Bytes of its output that are looked at; what comes behind them is not.
_MOST: Final = 1 << 20


def values_for(address: tuple[str, int], **others: str) -> dict[str, str]:
    """Return the values of an address, in its three forms, and others."""
    host, port = address
    return {"address": f"{host}:{port}", "host": host, "port": str(port), **others}


def filled(command: Sequence[str], values: Mapping[str, str], payloads: Sequence[str]) -> list[str]:
    """Return the words of a command, with values for what is in braces."""
    words: list[str] = []
    for word in command:
        if word == PAYLOADS:
            words += payloads
            continue
        for name, value in values.items():
            word = word.replace(f"{{{name}}}", value)
        words.append(word)
    return words


#: Starts what is judged: gets values for what is in braces, and payloads.
Launch: TypeAlias = Callable[[Mapping[str, str], Sequence[str]], Running]


def launcher(command: Sequence[str]) -> Launch:
    """Return what starts a command, whose words have names in braces."""
    return lambda values, payloads: Program(filled(command, values, payloads))


class Program:
    """A process of its own session, so that all that it has started can be ended with it.

    Args:
        words: The program and its arguments.
        data: What it reads from its standard input.

    Raises:
        OSError: It can't be started.
    """

    def __init__(self, words: Sequence[str], data: bytes = b"") -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        with tempfile.TemporaryFile() as given:
            given.write(data)
            given.seek(0)
            try:
                self._process = subprocess.Popen(  # noqa: S603 - it is what the user has asked for
                    list(words),
                    stdin=given,
                    stdout=self._output,
                    stderr=self._errors,
                    start_new_session=True,
                )
            except BaseException:
                self._output.close()
                self._errors.close()
                raise

    @property
    def status(self) -> int | None:
        """Its exit status; None: it is running. A signal that has ended it is a negative number."""
        return self._process.poll()

    @property
    def output(self) -> bytes:
        """What it has written to standard output."""
        return _read(self._output)

    @property
    def errors(self) -> bytes:
        """What it has written to standard error."""
        return _read(self._errors)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to it, and to nobody else."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Kill it, and all that it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()
        self._errors.close()


def _read(file: IO[bytes]) -> bytes:
    return os.pread(file.fileno(), _MOST, 0)
