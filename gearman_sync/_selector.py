"""What tells which sockets are ready.

`selectors` takes longer in Python than its system call does. Where there is an epoll, it is used
itself; elsewhere `selectors` has what the system has.
"""

from __future__ import annotations

import functools
import os
import select
import selectors
from typing import Any, Final, TypeAlias

_Ready: TypeAlias = "list[tuple[Any, int]]"


class EpollSelector:
    """An epoll, which Linux has, and whose sockets are in it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._is_abandoned = False
        self._owners: dict[int, Any] = {}

    def register(self, fd: int, events: int, owner: object) -> None:
        """Look for `events` of a socket from now on; `owner` is what `select` tells then."""
        self._epoll.register(fd, events)
        self._owners[fd] = owner

    def modify(self, fd: int, events: int) -> None:
        """Look for other events of a socket that is registered."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Look no more for a socket that is registered."""
        self._epoll.unregister(fd)
        del self._owners[fd]

    def select(self, timeout: float | None) -> _Ready:
        """Sleep until sockets are ready.

        Args:
            timeout: Seconds after which to stop sleeping; None never does.

        Returns:
            The owner of each that is, or None if it was unregistered meanwhile, and the events: all
            but WRITE mean that there is something to read, all but READ that it can be written to.
        """
        owner = self._owners.get
        return [(owner(fd), events) for fd, events in self._epoll.poll(timeout)]

    def close(self) -> None:
        """Have the system forget it."""
        if not self._is_abandoned:
            self._epoll.close()

    def abandon(self) -> None:
        """Forget the epoll without closing it: its number is that of another file."""
        self._is_abandoned = True
        _keep(self._epoll)


class PlainSelector:
    """The same for other systems, with their own of `selectors`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.register = self._selector.register
        self.unregister = self._selector.unregister
        self._is_abandoned = False

    def modify(self, fd: int, events: int) -> None:
        """Look for other events of a socket that is registered."""
        self._selector.modify(fd, events, self._selector.get_key(fd).data)

    def select(self, timeout: float | None) -> _Ready:
        """Sleep until sockets are ready."""
        return [(key.data, events) for key, events in self._selector.select(timeout)]

    def close(self) -> None:
        """Have the system forget it."""
        if not self._is_abandoned:
            self._selector.close()

    def abandon(self) -> None:
        """Forget the system's selector without closing it: its number is that of another file."""
        self._is_abandoned = True
        _keep(self._selector)


def _keep(thing: object) -> None:
    """Keep `thing` alive until the process ends, since its finalizer would close another file.

    The interpreter releases at-fork callbacks at its very end, after it has flushed and closed the
    program's files. It clears modules earlier. The callback itself does nothing.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=functools.partial(id, thing))


_HAS_EPOLL: Final = hasattr(select, "epoll")
Selector: Final[type[EpollSelector | PlainSelector]] = (
    EpollSelector if _HAS_EPOLL else PlainSelector
)
READ: Final[int] = select.EPOLLIN if _HAS_EPOLL else selectors.EVENT_READ
WRITE: Final[int] = select.EPOLLOUT if _HAS_EPOLL else selectors.EVENT_WRITE
