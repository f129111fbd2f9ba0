"""Selectors, which report ready sockets.

The Python code of `selectors` takes longer than the system call. So on Linux, this module uses
epoll directly. On other systems, it uses `selectors`.
"""

from __future__ import annotations

import functools
import os
import select
import selectors
from typing import Any, Final, TypeAlias

_Ready: TypeAlias = "list[tuple[Any, int]]"


class EpollSelector:
    """A Linux epoll, and the owners of its registered sockets."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._is_abandoned = False
        self._owners: dict[int, Any] = {}

    def register(self, fd: int, events: int, owner: object) -> None:
        """Poll a socket for `events` from now on. `select` reports `owner` when it is ready."""
        self._epoll.register(fd, events)
        self._owners[fd] = owner

    def modify(self, fd: int, events: int) -> None:
        """Change the events of a registered socket."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Stop polling a registered socket."""
        self._epoll.unregister(fd)
        del self._owners[fd]

    def select(self, timeout: float | None) -> _Ready:
        """Sleep until sockets are ready.

        Args:
            timeout: Seconds after which to stop sleeping; None means never.

        Returns:
            The owner of each ready socket (None if it was unregistered meanwhile) and its events.
            All events except WRITE mean that the socket is readable, all except READ that it is
            writable.
        """
        owner = self._owners.get
        return [(owner(fd), events) for fd, events in self._epoll.poll(timeout)]

    def close(self) -> None:
        """Close the system's selector."""
        if not self._is_abandoned:
            self._epoll.close()

    def abandon(self) -> None:
        """Drop the epoll without closing it: its number belongs to another file."""
        self._is_abandoned = True
        _keep(self._epoll)


class SystemSelector:
    """A selector of `selectors`, with the interface of EpollSelector, for other systems."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.register = self._selector.register
        self.unregister = self._selector.unregister
        self._is_abandoned = False

    def modify(self, fd: int, events: int) -> None:
        """Change the events of a registered socket."""
        self._selector.modify(fd, events, self._selector.get_key(fd).data)

    def select(self, timeout: float | None) -> _Ready:
        """Sleep until sockets are ready."""
        return [(key.data, events) for key, events in self._selector.select(timeout)]

    def close(self) -> None:
        """Close the system's selector."""
        if not self._is_abandoned:
            self._selector.close()

    def abandon(self) -> None:
        """Drop the system's selector without closing it: its number belongs to another file."""
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
Selector: Final[type[EpollSelector | SystemSelector]] = (
    EpollSelector if _HAS_EPOLL else SystemSelector
)
READ: Final[int] = select.EPOLLIN if _HAS_EPOLL else selectors.EVENT_READ
WRITE: Final[int] = select.EPOLLOUT if _HAS_EPOLL else selectors.EVENT_WRITE
