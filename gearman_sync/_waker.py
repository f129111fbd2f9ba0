"""A socket pair that wakes the thread that sleeps in a selector.

`wake` ends the sleep, or else the next one, and `drain` lets the selector sleep again. Neither ever
blocks, and neither does anything once the waker is closed.

Any thread can call `wake` at any time. It might use a descriptor's number while another thread
closes the descriptor, and the number could belong to another file by then. So the owner of a shared
waker does not close it, but replaces it by `CLOSED`. The waker is closed when its last reference is
dropped, and a thread in `wake` holds a reference.

A program can close descriptors that it does not own: daemons call `os.closerange`. Then the numbers
are reused for the program's files. `is_intact` detects that by the inode, which is unique for each
socket. (All eventfds and epolls of a system share one inode.) `wake` never writes into such a file,
because `send` works on sockets only.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from gearman_proto.handlers import reraise_from_handler

from ._leader import ignoring
from ._transport import QuietSocket


def _quiet(sock: socket.socket) -> QuietSocket:
    return QuietSocket(sock.family, sock.type, sock.proto, sock.detach())


class Waker:
    """Two connected sockets. One of them is in the selector."""

    # The device and inode of each socket, or None on Windows, which has no inodes.
    _inodes: list[tuple[int, int]] | None = None

    def __init__(self) -> None:
        self._near, self._far = map(_quiet, socket.socketpair())
        self._near.setblocking(False)
        self._far.setblocking(False)
        self.fileno = self._near.fileno
        with ignoring():
            self._inodes = self._current_inodes()

    def _current_inodes(self) -> list[tuple[int, int]]:
        found = [os.fstat(sock.fileno()) for sock in (self._near, self._far)]
        return [(each.st_dev, each.st_ino) for each in found]

    @property
    def is_intact(self) -> bool:
        """True if both descriptors are still this waker's own."""
        try:
            return self._inodes is None or self._inodes == self._current_inodes()
        except OSError as error:
            reraise_from_handler(error)
            return False

    def wake(self) -> None:
        """End the sleep, or the next one."""
        with ignoring():  # The buffer is full, or the socket is closed.
            self._far.send(b"\0")

    def drain(self) -> None:
        """Let the selector sleep again."""
        with ignoring():
            self._near.recv(4096)

    def close(self) -> None:
        """Close both sockets if they are still this waker's."""
        if not self.is_intact:
            self._near.detach()
            self._far.detach()
        self._near.close()
        self._far.close()

    def __del__(self) -> None:
        # If the system had no descriptors left, `__init__` has failed.
        if hasattr(self, "_far"):
            self.close()


class ClosedWaker:
    """A placeholder for a waker that is not open yet, or closed."""

    is_intact: Final = True

    def wake(self) -> None:
        """Do nothing."""

    def drain(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


CLOSED: Final = ClosedWaker()
