"""The decisions of the supervisor, without I/O.

The supervisor keeps one process in each of its slots. To replace a process, it starts a new one in
the same slot, waits until that is ready, and then drains the old one. So there are at most
`processes` ready ones, one more that is starting, and `processes` that are draining.

The inputs are signals, messages of children, their ends, and the time. The outputs are actions,
which the caller carries out in order.

A message is a dict with one of these keys. Unknown keys are ignored, because after an upgrade, new
children talk to an old supervisor.

    ready     (any value) the application is imported, and `work` has begun
    failed    the traceback of a child that can't start; `status` is the exit status, 1 by default
    recycle   why this child wants to be replaced
"""

from __future__ import annotations

import collections
import signal
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gearman_proto.checks import check_count, check_seconds
from gearman_proto.engines.states import State, StateTable, transition
from gearman_proto.engines.timers import Timers
from gearman_proto.records import record
from gearman_proto.signals import SIGNALLED

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

#: Seconds after which a child that was to end at once is killed.
GRACE: Final = 5.0
#: Seconds that a child has to be ready for its death not to count as a failure to start.
_STABLE: Final = 10.0
#: The longest pause before a child is started again, in seconds.
_MAX_PAUSE: Final = 30.0


class ChildState(State):
    """State of a child, in the words of the documentation."""

    STARTING = "imports the application"
    READY = "does jobs"
    PAUSED = "requests no jobs"
    DRAINING = "finishes its jobs"
    GONE = "has ended"


#: The transitions of a child.
CHILD_STATES: Final[StateTable[ChildState]] = {
    ChildState.STARTING: {
        ChildState.READY: "it says so",
        ChildState.DRAINING: "the supervisor stops",
        ChildState.GONE: "it ends, or is killed after the start timeout",
    },
    ChildState.READY: {
        ChildState.PAUSED: "SIGUSR1",
        ChildState.DRAINING: "the supervisor stops, or its successor is ready",
        ChildState.GONE: "it ends",
    },
    ChildState.PAUSED: {
        ChildState.READY: "SIGUSR2",
        ChildState.DRAINING: "as when it was ready",
        ChildState.GONE: "it ends",
    },
    ChildState.DRAINING: {ChildState.GONE: "it ends, or is killed"},
    ChildState.GONE: {},
}
_SERVING: Final = (ChildState.READY, ChildState.PAUSED)


@record(frozen=True)
class Spawn:
    """Start a process, and call `spawned` or `spawn_failed`."""

    slot: int


@record(frozen=True)
class Signal:
    """Send a signal to a process."""

    pid: int
    number: int


@record(frozen=True)
class Notify:
    """Tell the service manager: ``READY``, ``RELOADING`` or ``STOPPING``."""

    state: str


@record(frozen=True)
class Log:
    """Log a message."""

    message: str
    is_error: bool = False


@record(frozen=True)
class Exit:
    """End the supervisor. It has no children."""

    status: int


Action: TypeAlias = Spawn | Signal | Notify | Log | Exit


class Child:
    """A process.

    Attributes:
        slot: The number of its slot.
        pid: Its process id.
        state: Its state.
        has_handlers: True once it handles signals itself.
        ready_since: When it became ready.
        status: The supervisor's exit status if this child fails in the first start.
    """

    def __init__(self, slot: int, pid: int) -> None:
        self.slot: int = slot
        self.pid: int = pid
        self.state: ChildState = ChildState.STARTING
        self.has_handlers: bool = False
        self.ready_since: float = 0.0
        self.status: int = 1

    def __repr__(self) -> str:
        return f"process {self.pid}"

    def transition(self, state: ChildState) -> None:
        """Change the state, as the table allows."""
        self.state = transition(CHILD_STATES, self.state, state)


class Supervisor:
    """The state of all processes.

    Args:
        processes: The number of slots.
        start_timeout: Seconds after which a process that is not ready is killed.
        max_lifetime: Seconds after which a process is replaced, at most a tenth more. None means no
            limit.
        rng: Spreads the ends of the lifetimes.
        shutdown_timeout: Seconds after which a stop ends the processes that still have jobs. None
            means no limit.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has an invalid value.
    """

    def __init__(
        self,
        *,
        processes: int = 1,
        start_timeout: float = 60.0,
        shutdown_timeout: float | None = None,
        max_lifetime: float | None = None,
        rng: random.Random,
    ) -> None:
        self._count = check_count("processes", processes, 1)
        self._start_timeout = check_seconds("start_timeout", start_timeout, 0)
        if shutdown_timeout is not None:
            check_seconds("shutdown_timeout", shutdown_timeout, 0)
        self._shutdown_timeout = shutdown_timeout
        self._max_lifetime = max_lifetime
        self._rng = rng
        self.children: dict[int, Child] = {}
        self._actions: collections.deque[Action] = collections.deque()
        self._timers = Timers()
        # The slots for which a Spawn has been issued that was not answered yet.
        self._spawning: set[int] = set()
        # Consecutive failures to start, by slot.
        self._failures = dict.fromkeys(range(self._count), 0)
        # The processes to replace, in order.
        self._stale: dict[int, None] = {}
        self._is_first_start = True
        self._is_reloading = False
        self._reloads_again = False
        self._is_paused = False
        # The exit status, once it stops.
        self._status: int | None = None
        self._ends_at_once = False
        self._is_ended = False
        for slot in range(self._count):
            self._spawn(slot)

    # Outputs.

    def next_action(self) -> Action | None:
        """Return the next action, or None."""
        return self._actions.popleft() if self._actions else None

    def next_deadline(self) -> float | None:
        """Return when `handle_timeout` has to be called, or None."""
        return self._timers.next_deadline()

    # Inputs.

    def handle_timeout(self, now: float) -> None:
        """Handle the deadlines that have passed."""
        self._timers.expire(now)

    def spawned(self, now: float, slot: int, pid: int) -> None:
        """Note that the process of a Spawn has started."""
        self._spawning.discard(slot)
        child = self.children[pid] = Child(slot, pid)
        self._timers.set(("start", pid), now + self._start_timeout, self._start_timed_out)
        if self._status is not None:
            self._drain(child)

    def spawn_failed(self, now: float, slot: int, reason: str) -> None:
        """Note that the system has refused to start the process of a Spawn."""
        self._spawning.discard(slot)
        self._log_error(f"no process could be started: {reason}")
        self._has_not_started(now, slot, 1)
        self._advance()

    def said(self, now: float, pid: int, message: Mapping[str, Any]) -> None:
        """Handle a message of a child."""
        child = self.children.get(pid)
        if child is None:
            return
        if "ready" in message:
            self._is_ready(child, now)
        if "failed" in message:
            child.status = message.get("status", 1)
            if self._status is None:  # All processes of a first start fail alike: log one of them.
                self._log_error(f"{child} can't start:\n{message['failed']}")
        if "recycle" in message:
            self._recycle(child, message["recycle"])
        self._advance()

    def exited(self, now: float, pid: int, status: int) -> None:
        """Note that a process has ended.

        Args:
            now: The current time.
            pid: The process. An unknown one is ignored.
            status: Its exit status, or minus the number of the signal that ended it.
        """
        child = self.children.pop(pid, None)
        if child is None:
            return
        before = child.state
        child.transition(ChildState.GONE)
        self._stale.pop(pid, None)
        for kind in ("start", "age", "kill"):
            self._timers.cancel((kind, pid))
        how = f"signal {-status}" if status < 0 else f"status {status}"
        if before is ChildState.STARTING:
            self._log_error(f"{child} has ended with {how} before it was ready")
            self._has_not_started(now, child.slot, child.status)
        elif before in _SERVING:
            self._log_error(f"{child} has ended with {how}")
            is_stable = now - child.ready_since >= _STABLE
            self._pause_slot(now, child.slot, 0 if is_stable else self._failures[child.slot] + 1)
        elif status:
            self._log_error(f"{child} has ended with {how}")
        self._advance()

    def signal(self, now: float, number: int) -> None:
        """Handle a signal to the supervisor."""
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._status is None:
                self._log("stops when its jobs are done; a second signal stops it at once")
                self._stop(0)
                if self._shutdown_timeout is not None:
                    deadline = now + self._shutdown_timeout
                    self._timers.set(("shutdown", number), deadline, self._shutdown_timed_out)
            else:
                self._end_at_once(now, number)
        elif number == signal.SIGQUIT:
            self._end_at_once(now, number)
        elif number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGUSR1:
            self._is_paused = True
            self._move(ChildState.READY, ChildState.PAUSED, number)
        elif number == signal.SIGUSR2:
            self._is_paused = False
            self._move(ChildState.PAUSED, ChildState.READY, number)
        self._advance()

    # Starts and replacements.

    def _advance(self) -> None:
        """Start the processes that are missing, then the next successor; or end."""
        if self._status is not None:
            if not self.children and not self._spawning and not self._is_ended:
                self._is_ended = True
                self._timers.clear()
                self._actions.append(Exit(self._status))
            return
        for slot in range(self._count):
            is_taken = slot in self._spawning or self._living(slot)
            if not is_taken and ("slot", slot) not in self._timers:
                self._spawn(slot)
        if self._is_reloading and not self._stale:
            self._is_reloading = False
            self._log("has reloaded")
            self._actions.append(Notify("READY"))
        if self._reloads_again and not self._is_first_start and not self._is_reloading:
            self._reloads_again = False
            self._reload()
        self._start_successor()

    def _start_successor(self) -> None:
        """Start the successor of a stale process, unless another successor is starting."""
        draining = sum(each.state is ChildState.DRAINING for each in self.children.values())
        if draining >= self._count or any(map(self._has_successor, range(self._count))):
            return
        for pid in self._stale:
            child = self.children[pid]
            if child.state in _SERVING and ("slot", child.slot) not in self._timers:
                self._spawn(child.slot)
                return

    def _has_successor(self, slot: int) -> bool:
        states = [each.state for each in self._living(slot)]
        return (slot in self._spawning and bool(states)) or len(states) > 1

    def _living(self, slot: int) -> list[Child]:
        """Return the processes of a slot that do not drain."""
        return [
            each
            for each in self.children.values()
            if each.slot == slot and each.state is not ChildState.DRAINING
        ]

    def _spawn(self, slot: int) -> None:
        self._spawning.add(slot)
        self._actions.append(Spawn(slot))

    def _is_ready(self, child: Child, now: float) -> None:
        child.has_handlers = True
        self._timers.cancel(("start", child.pid))
        if child.state is not ChildState.STARTING:
            return
        predecessors = [each for each in self._living(child.slot) if each is not child]
        child.transition(ChildState.READY)
        child.ready_since = now
        if self._max_lifetime is not None:
            lifetime = self._max_lifetime * self._rng.uniform(1, 1.1)
            self._timers.set(("age", child.pid), now + lifetime, self._is_old)
        if self._is_paused:
            self._move(ChildState.READY, ChildState.PAUSED, signal.SIGUSR1)
        for each in predecessors:
            self._drain(each)
        serving = sum(each.state in _SERVING for each in self.children.values())
        if self._is_first_start and serving == self._count:
            self._is_first_start = False
            self._log(f"ready with {self._count} processes")
            self._actions.append(Notify("READY"))

    def _is_old(self, key: tuple[str, int], _now: float) -> None:
        self._recycle(self.children[key[1]], f"it is {self._max_lifetime:g} s old")
        self._advance()

    def _recycle(self, child: Child, reason: str) -> None:
        if child.state in _SERVING and child.pid not in self._stale:
            self._log(f"{child} is replaced: {reason}")
            self._stale[child.pid] = None

    def _has_not_started(self, now: float, slot: int, status: int) -> None:
        if self._status is not None:
            return
        if self._is_first_start:
            self._stop(status)
            return
        if self._living(slot) and self._is_reloading:
            self._log_error("the new processes do not start: the old ones continue")
            self._is_reloading = False
            self._stale.clear()
            self._actions.append(Notify("READY"))
        self._pause_slot(now, slot, self._failures[slot] + 1)

    def _pause_slot(self, now: float, slot: int, failures: int) -> None:
        """Set the number of consecutive failures, and the pause before the next start."""
        self._failures[slot] = failures
        if failures and self._status is None:
            pause = min(_MAX_PAUSE, 2.0 ** min(failures - 1, 10))
            # `_advance` starts the next one.
            self._timers.set(("slot", slot), now + pause, lambda _key, _now: self._advance())

    def _start_timed_out(self, key: tuple[str, int], _now: float) -> None:
        child = self.children[key[1]]
        self._log_error(f"{child} is not ready after {self._start_timeout:g} s: it is killed")
        self._actions.append(Signal(child.pid, signal.SIGKILL))

    def _reload(self) -> None:
        if self._status is not None:
            return
        if self._is_first_start or self._is_reloading:
            self._reloads_again = True
            return
        self._is_reloading = True
        for pid, child in self.children.items():
            if child.state is not ChildState.DRAINING:
                self._stale[pid] = None
        self._log("reloads")
        self._actions.append(Notify("RELOADING"))

    # The end.

    def _move(self, old: ChildState, new: ChildState, number: int) -> None:
        """Send a signal to all children in the state `old`, whose new state is `new`."""
        for child in self.children.values():
            if child.state is old:
                child.transition(new)
                self._actions.append(Signal(child.pid, number))

    def _drain(self, child: Child) -> None:
        child.transition(ChildState.DRAINING)
        self._stale.pop(child.pid, None)
        self._actions.append(Signal(child.pid, signal.SIGTERM))

    def _stop(self, status: int) -> None:
        self._status = status
        self._actions.append(Notify("STOPPING"))
        for action in [each for each in self._actions if isinstance(each, Spawn)]:
            self._actions.remove(action)
            self._spawning.discard(action.slot)
        for slot in range(self._count):
            self._timers.cancel(("slot", slot))
        for child in self.children.values():
            if child.state is not ChildState.DRAINING:
                self._drain(child)

    def _shutdown_timed_out(self, key: tuple[str, int], now: float) -> None:
        self._log_error(f"has not stopped after {self._shutdown_timeout:g} s")
        self._end_at_once(now, key[1])

    def _end_at_once(self, now: float, number: int) -> None:
        if self._status is None:
            self._stop(0)
        self._status = SIGNALLED + number
        for child in self.children.values():
            if child.has_handlers and not self._ends_at_once:
                self._actions.append(Signal(child.pid, signal.SIGQUIT))
                self._timers.set(("kill", child.pid), now + GRACE, self._kill)
            else:
                self._actions.append(Signal(child.pid, signal.SIGKILL))
        self._ends_at_once = True

    def _kill(self, key: tuple[str, int], _now: float) -> None:
        self._actions.append(Signal(key[1], signal.SIGKILL))

    def _log(self, message: str) -> None:
        self._actions.append(Log(message))

    def _log_error(self, message: str) -> None:
        self._actions.append(Log(message, is_error=True))
