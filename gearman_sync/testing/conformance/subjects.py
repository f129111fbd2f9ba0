"""What is judged: a server that runs, one that is started here, or a program."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

from .capabilities import CAPABILITIES, probe
from .program import PAYLOADS, launcher
from .programkit import ClientKit, WorkerKit
from .running import StartedServer, is_there
from .serverkit import ServerKit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from .case import Case
    from .running import Outcome


class Gone(Exception):
    """The server that is judged can't be reached, or has died and was not started here."""


def _name(case_id: str) -> str:
    """A name for a function that nobody has used before."""
    return f"conformance-{case_id}-{secrets.token_hex(4)}"


class ServerSubject:
    """A server.

    Args:
        address: Where it runs; None if it is to be started.
        words: How it is started.
        without: Capabilities that it is not to be asked for.
        timeout: Seconds that an answer is waited for.

    Attributes:
        has: What it can do, inside of ``with``.
        deaths: In which cases, and of which questions, it has died, as far as it was started here.
    """

    def __init__(
        self,
        address: tuple[str, int] | None,
        words: Sequence[str],
        without: Collection[str],
        timeout: float,
    ) -> None:
        self.has: frozenset[str] = frozenset()
        self.deaths: list[str] = []
        self._address = address
        self._words = words
        self._without = without
        self._timeout = timeout
        self._started: StartedServer | None = None

    def __enter__(self) -> Self:
        if self._address is None:
            try:
                self._started = StartedServer(self._words)
            except TimeoutError as error:
                raise Gone(str(error)) from None
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
            self.has = has.difference(self._without)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._started is not None:
            self._started.close()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self._address is not None
        return self._address

    def _kit_with(self, has: frozenset[str]) -> ServerKit:
        # A server that lacks something may say nothing, which is waited for in vain.
        return ServerKit(self.address, _name("probe"), has, min(self._timeout, 1.0))

    def _revive(self, where: str) -> bool:
        """Start it again if it has died. Returns whether it had.

        Raises:
            Gone: It has, and was not started here.
        """
        if is_there(self.address):
            return False
        if self._started is None:
            raise Gone(f"the server has died in {where}")
        self.deaths.append(where)
        self._started.restart()
        return True

    @contextlib.contextmanager
    def kit(self, case: Case) -> Iterator[Any]:
        """The kit of a case."""
        restart = self._started.restart if self._started is not None else None
        with ServerKit(self.address, _name(case.id), self.has, self._timeout, restart) as kit:
            yield kit

    def look_after(self, outcome: Outcome) -> None:
        """See whether it still runs after a case. If it was started here, it is started again.

        Raises:
            Gone: It has died.
        """
        if outcome.is_bad and self._revive(outcome.case.id):
            outcome.got += "; and the server has died"


class ProgramSubject:
    """A worker or a client.

    Args:
        side: Which.
        words: How it is started.
        without: Capabilities that it is not to be asked for.
        timeout: Seconds that it is waited for.

    Attributes:
        has: What it can do.
    """

    def __init__(
        self, side: str, words: Sequence[str], without: Collection[str], timeout: float
    ) -> None:
        has = {"several"} if side == "client" and PAYLOADS in words else set()
        self.has: frozenset[str] = frozenset(has.difference(without))
        self._kind = WorkerKit if side == "worker" else ClientKit
        self._words = words
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    @contextlib.contextmanager
    def kit(self, case: Case) -> Iterator[Any]:
        """The kit of a case."""
        with self._kind(launcher(self._words), _name(case.id), self._timeout) as kit:
            yield kit

    def look_after(self, outcome: Outcome) -> None:
        """There is nothing to look after: each case has a process of its own."""


def check_capabilities(names: Collection[str]) -> None:
    """Raise ValueError if a capability is unknown."""
    for name in names:
        if name not in CAPABILITIES and name != "several":
            raise ValueError(f"there is no capability {name}")
