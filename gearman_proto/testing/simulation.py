"""Virtual time, scheduled events, randomness from a seed, and failures."""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, NoReturn

from gearman_proto.checks import check_callable
from gearman_proto.errors import ArgumentTypeError, ArgumentValueError

from .books import Books
from .trace import Trace

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from .faults import Fault, Faults

# Minimum number of steps between two audits.
_AUDIT: Final = 250
# Maximum number of steps at one virtual time. More of them count as a livelock.
_STANDSTILL: Final = 200_000
# Seconds of virtual time after which a run without `until` counts as endless.
_ENDLESS: Final = 1e6
# The usual `make_rng`, for error messages.
_EXAMPLE: Final = "random.Random"
# The maximum latency in seconds, and the minimum capacity in bytes, of a network that never delays.
_PROMPT: Final = 0.03
_ROOMY: Final = 1_000_000


class SimulationError(AssertionError):
    """Raised when a simulated network violates an invariant.

    The message contains the seed, the faults and the last steps. If an engine has raised an
    exception, that exception is the cause.

    Attributes:
        problem: The violation, as a sentence.
        seed: The network's seed.
        faults: The faults that had happened by then.
    """

    def __init__(self, problem: str, net: Simulation) -> None:
        self.problem = problem
        self.seed: int = net.seed
        self.faults: list[Fault] = list(net.happened)
        faults = "".join(f"    {fault}\n" for fault in self.faults)
        steps = "".join(f"    {line}\n" for line in net.trace.lines())
        super().__init__(
            f"{problem}\n  seed {net.seed}, at {net.now:.6f}, after {net.steps} steps\n"
            f"  the last steps:\n{steps}  the faults:\n{faults or '    none'}\n  {problem}"
        )


class Simulation(ABC):
    """The state that all nodes of a network share: time, randomness, the trace and the books.

    Its arguments are those of Network.

    Attributes:
        now: Virtual time, in seconds since the beginning.
        steps: The number of calls to engines. On the transport side, the methods that report an
            event (`connected`, `receive_data`, `handle_timeout`, ...) and `data_to_send` count; on
            the caller's side, all methods count. `next_action`, `links_to_write` and
            `next_deadline`, which are polled after each call, do not count.
        accepted: The number of accepted connections.
        leaving: The names of the workers that are stopping or have stopped. They neither ask for
            jobs nor sleep.
        trace: The steps of the run.
        books: The record of submits, executions and outcomes.
        happened: The faults that have happened.
        chance: Returns a random number from 0.0 to 1.0.
    """

    #: The wall clocks' time at the virtual time 0, in seconds since 1970.
    epoch: Final = 1_700_000_000.0

    def __init__(self, make_rng: Callable[[str], random.Random], seed: int, faults: Faults) -> None:
        self.seed = seed
        self._make_rng = check_callable("make_rng", make_rng, f"of a text, such as {_EXAMPLE}")
        self.faults = faults
        self.now: float = 0.0
        self.steps: int = 0
        self.accepted: int = 0
        self.leaving: set[str] = set()
        self.trace: Trace = Trace()
        self.happened: list[Fault] = []
        self.books: Books = Books(self.fail, self.is_calm)
        self.chance: Callable[[], float] = self.rng_of("network").random
        self._events: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._count = 0
        self._is_running = False
        self._audit_at = _AUDIT
        # Ends of the partitions, by the names of both nodes.
        self._cuts: dict[frozenset[str], float] = {}
        self._low, high = faults.latency
        self._spread = high - self._low

    def rng_of(self, what: str) -> random.Random:
        """Return the random number generator for a part of the network, by the seed and `what`.

        Raises:
            TypeError: `make_rng` has not returned a random number generator.
        """
        rng = self._make_rng(f"{self.seed} {what}")
        if not hasattr(rng, "random"):
            raise ArgumentTypeError(f"make_rng has made {rng!r} and no {_EXAMPLE}")
        return rng

    def schedule(self, at: float, function: Callable[..., Any], *args: Any) -> None:
        """Schedule a call of `function` at the virtual time `at`, or now if that has passed.

        Raises:
            ValueError: `at` is infinite or NaN.
        """
        if not at < math.inf:
            raise ArgumentValueError(f"at is {at}: it must be a number of seconds")
        self._count += 1
        heapq.heappush(self._events, (max(self.now, at), self._count, function, args))

    def is_calm(self) -> bool:
        """Return whether no fault has happened so far."""
        return not self.happened

    def is_prompt(self) -> bool:
        """Return whether nothing excuses delays: no fault has happened, and the network is fast."""
        faults = self.faults
        return (
            not self.happened
            and faults.latency[1] <= _PROMPT
            and faults.capacity >= _ROOMY
            and faults.bandwidth is None
        )

    def latency(self) -> float:
        """Return a random latency in seconds."""
        return self._low + self._spread * self.chance()

    def bandwidth(self) -> float:
        """Return a random bandwidth for one direction of a new connection, in bytes per second."""
        if self.faults.bandwidth is None:
            return math.inf
        low, high = self.faults.bandwidth
        # The logarithm is uniformly distributed, so slow links are as frequent as fast ones.
        return low if low == high else low * (high / low) ** self.chance()

    def fail(self, problem: str) -> NoReturn:
        """Raise SimulationError for `problem`."""
        raise SimulationError(problem, self)

    def cut_until(self, one: str, other: str) -> float:
        """Return the time at which the partition between two nodes ends, or 0.0."""
        return self._cuts.get(frozenset((one, other)), 0.0)

    def _run(self, until: float | None) -> None:
        if self._is_running:
            self.fail("the network runs: what it calls can't call run() or check()")
        self._is_running = True
        events, pop = self._events, heapq.heappop
        begun = self.steps
        last = self.now + _ENDLESS if until is None else until
        try:
            while events and events[0][0] <= last:
                at, _, function, args = pop(events)
                if at > self.now:
                    self.now = at
                    begun = self.steps
                elif self.steps - begun > _STANDSTILL:
                    self.fail("no time passes any more")
                function(*args)
                if self.steps >= self._audit_at:
                    self._look()
        except SimulationError:
            raise
        except Exception as error:
            raise SimulationError(repr(error), self) from error
        finally:
            self._is_running = False
        if until is None and events:
            self.fail(f"something is left to do after {_ENDLESS:g} seconds: give `until`")
        if until is not None and until > self.now:
            self.now = until

    def _look(self) -> None:
        """Audit the network."""
        # The interval grows with the work of an audit, so audits take a small part of the time.
        self._audit_at = self.steps + max(_AUDIT, 10 * self._audit())

    @abstractmethod
    def _audit(self) -> int:
        """Audit all nodes, and return the number of jobs that were checked."""
