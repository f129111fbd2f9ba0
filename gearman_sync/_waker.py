"""What wakes the thread that sleeps in a selector, in which it is registered to be read.

`wake` ends the sleep, or else the next one, and `drain` has the selector sleep again. Neither ever
blocks, and nothing comes of them once the waker is closed.

Any thread may wake at any time, so it may be in the middle of that, with the number of a
descriptor, when another one closes it: the number may be somebody else's by then. So who shares a
waker does not close it, but puts `CLOSED` in its place; it is closed with its last reference, and
who is waking has one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from io import FileIO
from typing import Final

# What is written is added to the number that an eventfd holds; it can be read while that is not 0.
_ONE: Final = (1).to_bytes(8, sys.byteorder)


class EventWaker(FileIO):
    """An eventfd, which Linux has: one descriptor."""

    def __init__(self) -> None:
        super().__init__(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), "r+")

    def __del__(self) -> None:
        # Python would warn. In a circle this may come before the finalizer of the driver.
        self.close()

    def wake(self) -> None:
        """End the sleep, or the next one."""
        with contextlib.suppress(ValueError):  # It is closed.
            self.write(_ONE)

    def drain(self) -> None:
        """Somebody was woken."""
        with contextlib.suppress(ValueError):
            self.read(len(_ONE))


class PairWaker:
    """Two sockets, for other systems."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        self.fileno = self._near.fileno

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._far.fileno() < 0

    def wake(self) -> None:
        """End the sleep, or the next one."""
        with contextlib.suppress(OSError):  # It is full, or closed.
            self._far.send(b"\0")

    def drain(self) -> None:
        """Somebody was woken."""
        with contextlib.suppress(OSError):
            self._near.recv(4096)

    def close(self) -> None:
        """Close both."""
        self._near.close()
        self._far.close()

    def __del__(self) -> None:
        self.close()


class ClosedWaker:
    """What is in the place of a waker that is not needed any more."""

    closed: Final = True

    def wake(self) -> None:
        """Do nothing."""

    def drain(self) -> None:
        """Do nothing."""


CLOSED: Final = ClosedWaker()

#: Makes the one for this system.
Waker: Final[type[EventWaker | PairWaker]] = EventWaker if hasattr(os, "eventfd") else PairWaker
