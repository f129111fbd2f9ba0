"""Which of the threads that are blocked in a call polls for all of them, and who sleeps meanwhile.

One, the leader, polls, and the others, the followers, sleep, each until its Bell rings. The leader
stays the leader until its own call is done and then hands over to one other (handing over more
often would wake sleepers for nothing). A thread that comes by and changes what the leader waits
for, or ends its call, has to wake it. All of this has the lock, but for the sleep itself.

What signals may do
    A signal handler, or a finalizer that the collector runs, may call again, in a thread that
    sleeps here. It is on top of that then: the call beneath can't go on before it has returned.
    On top of the leader's sleep it leads itself: nobody else may, and nobody else would poll. On
    top of a follower's it follows as well, or leads when it is its turn; of one thread's bells,
    the one that is on top came last, so it is the last follower that is handed over to.

    An exception of a signal handler may come wherever CPython looks for signals: where a function
    of Python code is entered, where one in C has returned, and where a loop goes back. In between
    it does not come. So assignments in a row are one step, and a call of C is one. What must not be
    torn is made of these:

    * the lock is entered and left by ``with``, in C, and taken back after a sleep by a call that
      can't be interrupted before it has the lock.
    * who leads is one assignment, which a ``finally`` takes back by another.
    * to ring is to release a lock that the sleeper waits for.

    One that comes between Python's last look and the system call in which a thread sleeps does not
    end that, and its handler is run behind it. So nobody sleeps for long at a time.

    What takes more steps, as handing over does, may be torn, and can be done twice: whoever leaves
    the lock sees to it that somebody leads while there are followers (`Driver` calls `hand_over`),
    and a call that an exception has ended takes the lock once more for that.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import Wait
    from gearman_proto.engines.driving import T_

#: Seconds: how late the handler of a signal may run.
LONGEST_SLEEP: Final = 1.0
_clock: Final = time.monotonic


def sleep_until(deadline: float) -> float:
    """Return for how many seconds a thread sleeps now which has nothing to do before `deadline`."""
    return min(max(deadline - _clock(), 0.0), LONGEST_SLEEP)


# For type checkers it is final, and has no private methods.
_RLock: Final[Any] = type(threading.RLock())
# Before Python 3.12 there is no need to ask: sub-interpreters share everything.
_is_main_interpreter: Final = getattr(_thread, "_is_main_interpreter", lambda: True)
# A call of C; `threading.get_ident` of the module would be looked up twice.
_this_thread: Final = threading.get_ident


class Lock(_RLock):  # type: ignore[misc]
    """A lock that knows its owner, and is given back while that sleeps.

    It is re-entrant not to be entered again, but for that knowledge. This is the one place that
    uses what is private to CPython's locks: the methods that `threading.Condition` is made of.
    (That itself loses its lock where a signal's exception hits its `__enter__` or `wait`.)
    """

    __slots__ = ()

    #: Returns whether this thread has it, and so whether what runs is on top of that.
    is_mine: Callable[[], bool] = _RLock._is_owned  # noqa: SLF001

    def sleep(self, function: Callable[..., T_], *args: object) -> T_:
        """Call `function`, which sleeps, without the lock. This thread has it before and after."""
        once = (1, _this_thread())
        try:
            self.release()
            return function(*args)
        finally:
            self._acquire_restore(once)

    def if_free(self, function: Callable[..., object], *args: object) -> None:
        """Call `function` with the lock, unless somebody has it, this thread included."""
        if self.is_mine():
            return
        try:
            if self.acquire(blocking=False):
                function(*args)
        finally:
            # Without a look first whether it is held: the exception may come behind that, and
            # before it, where `acquire` has returned.
            try:  # noqa: SIM105 - a call of Python code could be hit where it is entered
                self.release()
            except RuntimeError:
                pass  # Somebody else had it.


def is_from_handler(error: BaseException) -> bool:
    """Return True if a signal handler raised `error`: the interrupted function has not failed.

    The traceback then has a frame of the handler. A handler in C has no frame, but Python's own,
    for Ctrl-C, raises KeyboardInterrupt, which is no Exception.
    """
    # The module is slow to import. A program that has not imported it has no handler.
    signal = sys.modules.get("signal")
    is_main = threading.current_thread() is threading.main_thread() and _is_main_interpreter()
    if signal is None or not is_main:
        return False
    handlers = map(signal.getsignal, signal.valid_signals())
    codes = {_code_of(handler) for handler in handlers if callable(handler)} - {None}
    return any(frame.f_code in codes for frame, _ in walk_tb(error.__traceback__))


def _code_of(handler: Any) -> object:
    while hasattr(handler, "func"):  # A partial.
        handler = handler.func
    if not hasattr(handler, "__code__"):  # A method has its function's.
        handler = type(handler).__call__
    return getattr(handler, "__code__", None)


class Bell:
    """Wakes one thread. It stays rung until that has been woken."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Wake who sleeps. Ringing again does nothing."""
        try:
            if self._lock.locked():
                self._lock.release()
        except RuntimeError:
            pass  # Two have rung at once.

    def sleep(self, lock: Lock) -> None:
        """Return, with `lock` as before, when it has rung since `mute`, or for another look."""
        lock.sleep(self._lock.acquire, True, LONGEST_SLEEP)

    def mute(self) -> None:
        """Forget that it has rung."""
        self._lock.acquire(blocking=False)


class Turns:
    """The leader and the followers of a driver.

    Args:
        lock: The driver's.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        #: The thread that leads, and how often it does so on top of itself.
        self.leader: int | None = None
        self.depth = 0
        # What the leader waits for; of several, what the one on top does.
        self._leading: Wait | None = None
        #: Those who sleep while somebody else leads.
        self.followers: dict[Bell, None] = {}
        #: Until when the leader sleeps; None if it does not.
        self.sleeping_until: float | None = None

    def block(self, wait: Wait, bell: Bell, poll: Callable[[], object]) -> bool:
        """Return when `wait` is ready.

        Args:
            wait: What this thread waits for.
            bell: What its `wake` rings.
            poll: Sleeps and takes in what comes, once; called by whoever leads.

        Returns:
            Whether this was on top of the leader's sleep.
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

    def sleep(self, until: float, function: Callable[..., T_], *args: object) -> T_:
        """Call `function`, in which the leader sleeps, without the lock."""
        self.sleeping_until = until
        try:
            return self._lock.sleep(function, *args)
        finally:
            self.sleeping_until = None

    def hand_over(self) -> None:
        """Have somebody lead, if there is anybody, and nobody does."""
        if self.followers and self.leader is None:
            next(reversed(self.followers)).ring()

    @property
    def is_asleep(self) -> bool:
        """Whether anybody sleeps in the selector: the leader, or beneath what it does on top."""
        return self.sleeping_until is not None or self.depth > 1

    @property
    def is_done(self) -> bool:
        """Whether the leader's call is. Where it sleeps, its own wake-up does not reach it."""
        return self._leading is not None and self._leading.ready
