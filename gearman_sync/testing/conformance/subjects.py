"""The judged subjects: running servers, servers that the suite starts, and programs."""

# ruff: noqa: D102 - the methods inherit their docstrings

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from gearman_proto.testing.conformance.capabilities import CAPABILITIES, probe
from gearman_proto.testing.conformance.program_kit import ClientKit, WorkerKit
from gearman_proto.testing.conformance.server_kit import ServerKit

from .places import SocketProgramPlace, SocketServerPlace
from .program import PAYLOADS, launcher
from .running import Gone, StartedServer, is_there

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Self

    from gearman_proto.testing.conformance.case import Case
    from gearman_proto.testing.conformance.judge import Outcome
    from gearman_proto.testing.conformance.kit import Kit


def _name(case_id: str) -> str:
    """Return a unique name for the function of a case."""
    return f"conformance-{case_id}-{secrets.token_hex(4)}"


class Subject:
    """A judged server or program. Use it as a context manager.

    Attributes:
        has: The capabilities of the subject.
    """

    has: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server if the suite has started it."""

    def kit(self, case: Case) -> Kit:
        """Return the kit of a case."""
        raise NotImplementedError

    def look_after(self, outcome: Outcome) -> None:
        """Ensure that the subject is alive after a case.

        Programs need no check, because each case starts its own.

        Raises:
            Gone: The subject has died, and the suite can't restart it.
        """


class ServerSubject(Subject):
    """A judged server.

    Args:
        address: The address of a running server, or None to start a server.
        words: The command that starts a server.
        without: Capabilities to treat as missing.
        timeout: Seconds to wait for an answer.
    """

    def __init__(
        self,
        address: tuple[str, int] | None,
        words: Sequence[str],
        without: Collection[str],
        timeout: float,
    ) -> None:
        self._address = address
        self._words = words
        self._without = without
        self._timeout = timeout
        self._started: StartedServer | None = None

    def __enter__(self) -> Self:
        if self._address is None:
            self._started = StartedServer(self._words)
            self._address = self._started.address
        elif not is_there(self._address):
            raise Gone(f"no server listens at {self._address[0]}:{self._address[1]}")
        try:
            has = probe(self._kit_with, self._revive)
            if not has:
                # Without this check, every case would time out.
                where = f"{self.address[0]}:{self.address[1]}"
                raise Gone(f"the program that listens at {where} is not a Gearman server")
            if self._started is not None:
                has |= {"restart"}
            self.has: frozenset[str] = has.difference(self._without)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._started is not None:
            self._started.close()

    @property
    def address(self) -> tuple[str, int]:
        """The address of the server."""
        assert self._address is not None
        return self._address

    def _kit_with(self, has: frozenset[str]) -> ServerKit:
        # A server that lacks a capability can stay silent. A short timeout keeps the probes fast.
        timeout = min(self._timeout, 1.0)
        return ServerKit(SocketServerPlace(self.address, timeout), _name("probe"), timeout, has)

    def _revive(self, where: str) -> bool:
        """Restart the server if it has died, and return True in this case.

        Raises:
            Gone: The server has died, and the suite has not started it.
        """
        if is_there(self.address):
            return False
        if self._started is None:
            raise Gone(f"the server died in {where}")
        self._started.restart()
        return True

    def kit(self, case: Case) -> ServerKit:
        restart = self._started.restart if self._started is not None else None
        place = SocketServerPlace(self.address, self._timeout, restart)
        return ServerKit(place, _name(case.id), self._timeout, self.has)

    def look_after(self, outcome: Outcome) -> None:
        if outcome.is_bad and self._revive(outcome.case.id):
            outcome.got += "; then the server died"


class ProgramSubject(Subject):
    """A judged worker or client.

    Args:
        side: "worker" or "client".
        words: The command that starts the program.
        without: Capabilities to treat as missing.
        timeout: Seconds to wait for the program.
    """

    def __init__(
        self, side: str, words: Sequence[str], without: Collection[str], timeout: float
    ) -> None:
        has = {"several"} if side == "client" and PAYLOADS in words else set()
        self.has: frozenset[str] = frozenset(has.difference(without))
        self._kind = WorkerKit if side == "worker" else ClientKit
        self._words = words
        self._timeout = timeout

    def kit(self, case: Case) -> WorkerKit | ClientKit:
        return self._kind(SocketProgramPlace(launcher(self._words)), _name(case.id), self._timeout)


def check_capabilities(names: Collection[str]) -> None:
    """Raise ValueError if one of the capabilities is unknown."""
    for name in names:
        if name not in CAPABILITIES and name != "several":
            raise ValueError(f"there is no capability {name}")
