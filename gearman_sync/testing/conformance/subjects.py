"""What is judged: a server that runs, one that is started here, or a program."""

# ruff: noqa: D102 - the documentation of methods is inherited

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
    """A name for a function that nobody has used before."""
    return f"conformance-{case_id}-{secrets.token_hex(4)}"


class Subject:
    """What is judged, inside of its ``with``.

    Attributes:
        has: What it can do.
    """

    has: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what was started here."""

    def kit(self, case: Case) -> Kit:
        """Return the kit of a case."""
        raise NotImplementedError

    def look_after(self, outcome: Outcome) -> None:
        """See whether it can still be judged after a case. What is started for each always can.

        Raises:
            Gone: It can't.
        """


class ServerSubject(Subject):
    """A server.

    Args:
        address: Where it runs; None if it is to be started.
        words: How it is started.
        without: Capabilities that it is not to be asked for.
        timeout: Seconds that an answer is waited for.
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
            raise Gone(f"nobody listens at {self._address[0]}:{self._address[1]}")
        try:
            has = probe(self._kit_with, self._revive)
            if not has:
                # Each case would wait for it in vain.
                raise Gone(f"what listens at {self.address[0]}:{self.address[1]} is no server")
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
        """Where it listens."""
        assert self._address is not None
        return self._address

    def _kit_with(self, has: frozenset[str]) -> ServerKit:
        # A server that lacks something may say nothing, which is waited for in vain.
        timeout = min(self._timeout, 1.0)
        return ServerKit(SocketServerPlace(self.address, timeout), _name("probe"), timeout, has)

    def _revive(self, where: str) -> bool:
        """Start it again if it has died. Returns whether it had.

        Raises:
            Gone: It has, and was not started here.
        """
        if is_there(self.address):
            return False
        if self._started is None:
            raise Gone(f"the server has died in {where}")
        self._started.restart()
        return True

    def kit(self, case: Case) -> ServerKit:
        restart = self._started.restart if self._started is not None else None
        place = SocketServerPlace(self.address, self._timeout, restart)
        return ServerKit(place, _name(case.id), self._timeout, self.has)

    def look_after(self, outcome: Outcome) -> None:
        if outcome.is_bad and self._revive(outcome.case.id):
            outcome.got += "; and the server has died"


class ProgramSubject(Subject):
    """A worker or a client.

    Args:
        side: Which.
        words: How it is started.
        without: Capabilities that it is not to be asked for.
        timeout: Seconds that it is waited for.
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
    """Raise ValueError if a capability is unknown."""
    for name in names:
        if name not in CAPABILITIES and name != "several":
            raise ValueError(f"there is no capability {name}")
