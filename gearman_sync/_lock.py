"""The lock of a driver: it knows its owner, and gives itself back while somebody sleeps.

This is the one place that uses what is private to CPython's locks: the methods that
`threading.Condition` is made of. A signal's exception may come after any instruction of Python
code, and no lock may be lost or kept by that. So

* it is a subclass of CPython's lock, which adds nothing to entering and leaving: those stay in C,
  where a signal waits until the ``with`` has begun.
* it is taken back after a sleep by `_acquire_restore`. Unlike `acquire`, this can't be interrupted
  before it has the lock.
* whether it is held is asked of the lock (`_is_owned`), not remembered from what `acquire` said.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T_ = TypeVar("T_")

# For type checkers it is final, and has no private methods.
_RLock: Final[Any] = type(threading.RLock())


class Lock(_RLock):  # type: ignore[misc]
    """A lock. It is re-entrant not to be entered again, but as it knows its owner."""

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
        if self.is_mine:
            return
        try:
            if self.acquire(blocking=False):
                function()
        finally:
            if self.is_mine:
                self.release()
