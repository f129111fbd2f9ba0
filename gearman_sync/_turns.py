"""Which of the threads that are blocked in a call polls for all of them, and who sleeps meanwhile.

One, the leader, polls, and the others, the followers, sleep on conditions of their own. The leader
stays the leader until its own call is done and then hands over to one other (handing over more
often would wake sleepers for nothing). A thread that comes by and changes what the leader waits for
has to wake it; `oversleeps` tells.

All of this has the lock, but for the sleep itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from gearman_proto import Wait

    from ._lock import Lock

T_ = TypeVar("T_")


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

    def oversleeps(self, deadline: float) -> bool:
        """Whether the leader sleeps although its call is done, or until after `deadline`."""
        if self.sleeping_until is None:
            return False
        # Its own wake-up would not reach it there.
        is_done = self._leading is not None and self._leading.ready
        return is_done or deadline < self.sleeping_until
