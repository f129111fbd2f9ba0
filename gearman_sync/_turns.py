"""Which of the threads that are blocked in a call polls for all of them, and who sleeps meanwhile.

One, the leader, polls, and the others, the followers, sleep on conditions of their own. The leader
stays the leader until its own call is done and then hands over to one other (handing over more
often would wake sleepers for nothing). A thread that comes by and changes what the leader waits
for, or ends its call, has to wake it.

All of this has the lock, but for the sleep itself.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import Wait
    from gearman_proto.engines.driving import T_

# For type checkers it is final, and has no private methods.
_RLock: Final[Any] = type(threading.RLock())


class Lock(_RLock):  # type: ignore[misc]
    """A lock that knows its owner, and is given back while that sleeps.

    It is re-entrant not to be entered again, but for that knowledge. This is the one place that
    uses what is private to CPython's locks: the methods that `threading.Condition` is made of. A
    signal's exception may come after any instruction of Python code, and no lock may be lost or
    kept by that. So

    * it is CPython's lock that is entered and left: in C, where a signal waits until the ``with``
      has begun.
    * it is taken back after a sleep by `_acquire_restore`. Unlike `acquire`, this can't be
      interrupted before it has the lock.
    * it is released without a look first whether it is held: the signal may come after that.
    """

    __slots__ = ()

    @property
    def is_mine(self) -> bool:
        """Whether this thread has it: so for what runs on top of that (see `Driver.release`)."""
        return bool(self._is_owned())

    def sleep(self, function: Callable[..., T_], *args: object) -> T_:
        """Call `function`, which sleeps, without the lock. This thread has it before and after."""
        once = (1, threading.get_ident())
        try:
            self.release()
            return function(*args)
        finally:
            self._acquire_restore(once)

    def if_free(self, function: Callable[[], object]) -> None:
        """Call `function` with the lock, unless somebody has it, this thread included."""
        if self._is_owned():
            return
        try:
            if self.acquire(blocking=False):
                function()
        finally:
            try:  # noqa: SIM105 - a signal may come within that call, before this one
                self.release()
            except RuntimeError:
                pass  # Somebody else had it.


class Turns:
    """The leader and the followers of a driver.

    Args:
        lock: The driver's.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self.has_leader = False
        # What the leader waits for.
        self._leading: Wait | None = None
        #: Those who sleep while somebody else leads.
        self.followers: dict[threading.Condition, None] = {}
        #: Until when the leader sleeps; None if it does not.
        self.sleeping_until: float | None = None

    def block(self, wait: Wait, condition: threading.Condition, poll: Callable[[], object]) -> None:
        """Return when `wait` is ready.

        Args:
            wait: What this thread waits for.
            condition: What its `wake` notifies.
            poll: Sleeps and takes in what comes, once; called by whoever leads.
        """
        try:
            while not wait.ready:
                if self.has_leader:
                    self.followers[condition] = None
                    condition.wait()
                    self.followers.pop(condition, None)
                else:
                    self._lead(wait, poll)
        finally:
            self.followers.pop(condition, None)
            if not self.has_leader and self.followers:
                next(iter(self.followers)).notify()

    def _lead(self, wait: Wait, poll: Callable[[], object]) -> None:
        self.has_leader = True
        self._leading = wait
        try:
            while not wait.ready:
                poll()
        finally:
            self.has_leader = False
            self._leading = None

    def sleep(self, until: float, function: Callable[..., T_], *args: object) -> T_:
        """Call `function`, in which the leader sleeps, without the lock."""
        self.sleeping_until = until
        try:
            return self._lock.sleep(function, *args)
        finally:
            self.sleeping_until = None

    @property
    def is_done(self) -> bool:
        """Whether the leader's call is. Where it sleeps, its own wake-up does not reach it."""
        return self._leading is not None and self._leading.ready
