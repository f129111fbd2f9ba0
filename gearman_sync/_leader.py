"""Leader and followers: one of the blocked threads polls for all of them, and the others sleep.

One thread, the leader, polls. The others, the followers, sleep until their Bells ring. A leader
leads until its own call is done, and then hands over to one follower. (Handing over more often
would cause unnecessary wake-ups.) A thread that changes the leader's events or deadline, or ends
its call, has to wake it. The lock guards all of this, except for the sleep itself.

Signals
    A signal handler, or a finalizer that the garbage collector runs, can make a nested call in a
    thread that sleeps here. The outer call can't continue until the nested call returns. A call
    nested in the leader's sleep leads itself: no other thread is allowed to, so no other thread
    would poll. A call nested in a follower's sleep follows as well, or leads when it is woken.
    Among the Bells of one thread, that of the innermost call is the newest. So
    `Leadership.hand_over` rings the newest Bell.

    A signal handler can raise an exception wherever CPython checks for signals: when a Python
    function is entered, after a C function has returned, and when a loop jumps back. It can't
    between these points. So consecutive assignments are atomic, and so is a call of a C function.
    Everything that has to be atomic is built from these:

    * ``with`` acquires and releases the lock in C. After a sleep, a call that can't be interrupted
      before it has the lock acquires it again.
    * One assignment sets the leader, and a ``finally`` restores it with another.
    * Ringing a Bell releases a lock that the sleeper waits for.

    A signal can arrive after Python's last check and just before the main thread sleeps in a system
    call. It does not end the sleep, and its handler runs only afterwards. So each sleep of the main
    thread is short. Handlers run in no other thread.

    Longer operations, such as handing over, can be interrupted and are safe to repeat. Every thread
    that releases the lock ensures that a thread leads while there are followers (`Driver` calls
    `Leadership.hand_over`). A call that an exception has ended takes the lock once more to do that.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.handlers import is_from_handler, reraise_from_handler

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from gearman_proto import Wait
    from gearman_proto.engines.driver import T_

# Maximum delay of a signal handler, in seconds.
_LONGEST_DELAY: Final = 1.0
# Seconds. All systems can sleep that long.
_LONGEST_SLEEP: Final = 1_000_000.0
_clock: Final = time.monotonic


def sleep_until(deadline: float) -> float:
    """Return the seconds that this thread sleeps now if it has nothing to do before `deadline`."""
    is_main = _this_thread() == threading.main_thread().ident
    return min(max(deadline - _clock(), 0.0), _LONGEST_DELAY if is_main else _LONGEST_SLEEP)


# Any, because type checkers take the class for final and do not know its private methods.
_RLock: Final[Any] = type(threading.RLock())
# A C function. Calling it as `threading.get_ident` would take two lookups.
_this_thread: Final = threading.get_ident


class Lock(_RLock):  # type: ignore[misc]
    """A lock that knows its owner and is released while its owner sleeps.

    It is an RLock because only RLocks know their owner; no thread acquires it twice. No other class
    uses private methods of CPython's locks. They are those that `threading.Condition` is built on.
    (A Condition itself loses its lock if a signal handler's exception interrupts its `__enter__` or
    `wait`.)
    """

    __slots__ = ()

    #: Returns True if this thread holds the lock, that is, if the current call is nested.
    owned: Callable[[], bool] = _RLock._is_owned  # noqa: SLF001

    def sleep(self, function: Callable[..., T_], *args: object) -> T_:
        """Release the lock, call `function`, which sleeps, and acquire the lock again."""
        once = (1, _this_thread())
        try:
            self.release()
            return function(*args)
        finally:
            self._acquire_restore(once)

    def try_run(self, function: Callable[..., object], *args: object) -> None:
        """Call `function` with the lock, unless a thread, even this one, already holds it."""
        if self.owned():
            return
        try:
            if self.acquire(blocking=False):
                function(*args)
        finally:
            # Don't check first whether the lock is held: a signal handler's exception could arrive
            # right after the check, and also before it, right after `acquire` has returned.
            try:
                self.release()
            except RuntimeError as error:
                reraise_from_handler(error)  # Otherwise, another thread holds it.


class ignoring:  # noqa: N801 - used as a function is
    """A context manager that ignores OSError, except from a signal handler."""

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return isinstance(error, OSError) and not is_from_handler(error)


class Bell:
    """A wake-up call for one thread. It stays rung until that thread has woken up."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Wake the sleeping thread. Ringing again has no effect."""
        try:
            if self._lock.locked():
                self._lock.release()
        except RuntimeError as error:
            reraise_from_handler(error)  # Otherwise, two threads have rung at once.

    def sleep(self, lock: Lock) -> None:
        """Sleep without `lock` until the bell has rung since `mute`, or until `sleep_until`."""
        lock.sleep(self._lock.acquire, True, sleep_until(math.inf))

    def mute(self) -> None:
        """Clear an earlier ring."""
        self._lock.acquire(blocking=False)


class Leadership:
    """The leader and the followers of a driver.

    Args:
        lock: The driver's.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        #: The thread that leads, and how many of its nested calls lead.
        self.leader: int | None = None
        self.depth = 0
        # The Wait of the leader's innermost call.
        self._leading: Wait | None = None
        #: The bells of the threads that sleep while another thread leads, the newest last.
        self.followers: dict[Bell, None] = {}
        #: The end of the leader's sleep, or None if it is awake.
        self.sleeping_until: float | None = None

    def block(self, wait: Wait, bell: Bell, poll: Callable[[], object]) -> bool:
        """Block until `wait` is ready.

        Args:
            wait: The Wait of this thread's call.
            bell: The Bell that the `wake` of `wait` rings.
            poll: Sleeps once and processes the events; called while this thread leads.

        Returns:
            True if this call is nested in the leader's sleep.
        """
        thread = _this_thread()
        try:
            while not wait.ready:
                if self.leader is None or self.leader == thread:
                    self._lead(thread, wait, poll)
                else:
                    bell.mute()
                    self.followers[bell] = None
                    bell.sleep(self._lock)
                    del self.followers[bell]
        finally:
            self.followers.pop(bell, None)
        return self.leader == thread

    def _lead(self, thread: int, wait: Wait, poll: Callable[[], object]) -> None:
        before = self.leader, self.depth, self._leading, self.sleeping_until
        self.leader, self._leading, self.sleeping_until = thread, wait, None
        self.depth += 1
        try:
            while not wait.ready:
                poll()
        finally:
            self.leader, self.depth, self._leading, self.sleeping_until = before

    def sleep(self, until: float, function: Callable[[float], T_], seconds: float) -> T_:
        """Call `function(seconds)` without the lock; the leader sleeps there until `until`."""
        self.sleeping_until = until
        try:
            return self._lock.sleep(function, seconds)
        finally:
            self.sleeping_until = None

    def hand_over(self) -> None:
        """Wake a follower to lead, if no thread leads."""
        if self.followers and self.leader is None:
            next(reversed(self.followers)).ring()

    @property
    def is_asleep(self) -> bool:
        """True if a call sleeps in the selector: the leader's, or an outer call of its thread."""
        return self.sleeping_until is not None or self.depth > 1

    @property
    def is_done(self) -> bool:
        """True if the leader's call is done. Its Bell can't end its sleep in the selector."""
        return self._leading is not None and self._leading.ready
