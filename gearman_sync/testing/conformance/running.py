"""Run cases over sockets, and start servers."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance import judge as conformance

from .program import Program, filled, values_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gearman_proto.testing.conformance.case import Case
    from gearman_proto.testing.conformance.judge import Outcome
    from gearman_proto.testing.conformance.kit import Kit

# Number of bytes to keep from the end of a program's standard error, in `Outcome.errors`.
_ERRORS: Final = 2000
# Seconds to wait until a started server listens.
_START: Final = 20.0
# Seconds between two attempts to connect.
_LOOK: Final = 0.02


class Gone(Exception):
    """Raised if the judged server can't be reached, does not start, or has died."""


class Judge(conformance.Judge):
    """A judge that runs cases over sockets, and records and times each of them."""

    def run(self, cases: Iterable[Case]) -> Iterator[Outcome]:
        """Yield the outcome of each case, in order."""
        for case in cases:
            begun = time.monotonic()
            outcome = self.judge(case)
            outcome.seconds = time.monotonic() - begun
            yield outcome

    def check(self, case: Case, kit: Kit) -> Outcome:
        """Return the outcome of a case with this kit."""
        outcome = super().check(case, kit)
        outcome.recording = kit.place.exchange.recording(case.id, case.demand)
        outcome.errors = kit.errors[-_ERRORS:].decode(errors="replace")
        return outcome


class StartedServer:
    """A server that the suite has started, and can restart at the same address.

    Args:
        words: The program and its arguments, with ``{port}``.

    Raises:
        OSError: The server can't be started.
        Gone: The server does not listen.
    """

    def __init__(self, words: Sequence[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address: tuple[str, int] = free.getsockname()
        self._words = filled(words, values_for(self.address), ())
        self._program = self._start()

    def _start(self) -> Program:
        program = Program(self._words)
        deadline = time.monotonic() + _START
        while not is_there(self.address):
            if program.status is not None or time.monotonic() > deadline:
                errors = program.errors.decode(errors="replace").strip()
                program.end()
                raise Gone(f"{self._words[0]} does not listen: {errors}")
            time.sleep(_LOOK)
        return program

    def restart(self) -> None:
        """Kill the server and restart it."""
        self._program.end()
        self._program = self._start()

    def close(self) -> None:
        """Kill the server."""
        self._program.end()


def is_there(address: tuple[str, int]) -> bool:
    """Return True if a server accepts connections at the address."""
    try:
        with socket.create_connection(address, 5.0):
            return True
    except OSError:
        return False
