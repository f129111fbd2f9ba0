"""The judged subjects: running servers, servers that the suite starts, and programs."""

# ruff: noqa: D102 - the methods inherit their docstrings

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Final

from gearman_proto.testing.conformance.capabilities import CAPABILITIES, probe
from gearman_proto.testing.conformance.case import Failed
from gearman_proto.testing.conformance.judge import Selection
from gearman_proto.testing.conformance.program_kit import ClientKit, WorkerKit
from gearman_proto.testing.conformance.server_kit import ServerKit

from .places import SocketProgramPlace, SocketServerPlace
from .program import PAYLOADS, launcher
from .running import Gone, Judge, StartedServer, is_there

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from typing import Self

    from gearman_proto.testing.conformance.case import Case
    from gearman_proto.testing.conformance.judge import Outcome
    from gearman_proto.testing.conformance.kit import Kit

    from .exchange import Exchange

# Number of unanswered questions after which a server counts as dead.
_QUESTIONS: Final = 2
# Number of cases that may wait in vain for the full time.
_FULL_WAITS: Final = 3
# Minimum ratio between a shortened timeout and the longest wait for an answer.
_MARGIN: Final = 10.0
# Minimum of a shortened timeout, in seconds.
_LEAST: Final = 0.2


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

    def run(
        self,
        cases: Iterable[Case],
        profile: str = "document",
        selection: Selection | None = None,
    ) -> Iterator[Outcome]:
        """Yield the outcome of each case, in order.

        Args:
            cases: The cases.
            profile: The name of the profile.
            selection: The cases to run, by default all except slow ones.

        Raises:
            Gone: The subject has died, and the suite can't restart it.
        """
        for outcome in Judge(self.kit, self.has, profile, selection or Selection()).run(cases):
            self.look_after(outcome)
            if not outcome.is_bad:
                # Reports show only failures, and large payloads take much memory.
                outcome.recording = None
            yield outcome

    def look_after(self, outcome: Outcome) -> None:
        """Ensure that the subject is alive after a case. If it is not, the case fails.

        Programs need no check, because each case starts its own.

        Raises:
            Gone: The subject has died, and the suite can't restart it.
        """


class ServerSubject(Subject):
    """A judged server.

    A fault can make dozens of cases wait in vain. After the first few, the others wait a shorter
    time, but still much longer than the server has taken for any answer.

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
        self._kit: ServerKit
        # The longest wait for an answer, in seconds, and the number of cases that waited in vain.
        self._longest_wait = 0.0
        self._vain_waits = 0

    def __enter__(self) -> Self:
        if self._address is None:
            self._started = StartedServer(self._words)
            self._address = self._started.address
        elif not is_there(self._address):
            raise Gone(f"no server listens at {self._address[0]}:{self._address[1]}")
        try:
            # A server that lacks a capability can stay silent. A short timeout keeps the probes
            # fast.
            timeout = min(self._timeout, 1.0)
            has = probe(lambda has: self._kit_of("probe", timeout, has), self._revive)
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

    def _kit_of(self, name: str, timeout: float, has: Collection[str]) -> ServerKit:
        restart = self._started.restart if self._started is not None else None
        place = SocketServerPlace(self.address, self._timeout, restart)
        return ServerKit(place, _name(name), timeout, has)

    def _revive(self, where: str) -> None:
        """Restart the server if it has died in a probe.

        Raises:
            Gone: The server has died, and the suite has not started it.
        """
        if not is_there(self.address):
            self._restart(f"the server died in {where}")

    def _restart(self, why: str) -> None:
        if self._started is None:
            raise Gone(why)
        self._started.restart()

    @property
    def timeout(self) -> float:
        """Seconds to wait for an answer, which become fewer after several waits in vain."""
        if self._vain_waits < _FULL_WAITS:
            return self._timeout
        shortened = math.ceil(100 * _MARGIN * self._longest_wait) / 100
        return min(self._timeout, max(_LEAST, shortened))

    def kit(self, case: Case) -> ServerKit:
        # A slow case can wait for a timer of the server.
        timeout = self._timeout if case.slow else self.timeout
        self._kit = self._kit_of(case.id, timeout, self.has)
        return self._kit

    def look_after(self, outcome: Outcome) -> None:
        if outcome.recording is None:
            return
        if not outcome.case.slow:
            exchange: Exchange = self._kit.place.exchange
            self._longest_wait = max(self._longest_wait, exchange.longest_wait)
            self._vain_waits += outcome.is_bad and outcome.seconds >= self._kit.timeout
        if fault := self._fault():
            outcome.fails_also("a running server", fault)
            self._restart(f"{fault} in {outcome.case.id}")

    def _fault(self) -> str:
        """Return what is wrong with a server that answers nothing, otherwise an empty text."""
        for _ in range(_QUESTIONS):
            with self._kit_of("alive", self.timeout, self.has) as kit:
                try:
                    line = kit.client()
                    if "echo" in self.has or "text" not in self.has:
                        line.settle()
                    else:
                        line.text(b"version")
                except Failed:
                    continue
                return ""
        return "the server hangs" if is_there(self.address) else "the server died"


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
