"""Connections that have ended without their readers having heard of it."""

from __future__ import annotations

import contextlib
import select
from typing import TYPE_CHECKING, Any, Final

import anyio.lowlevel
from anyio.abc import SocketAttribute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import ByteStream

# Turns of the event loop that a reader needs at most until it has heard of its connection's end:
# for what it may have to read before that, and for one that is not told by the system.
_TURNS: Final = 10
_TURNS_IN_PROCESS: Final = 2


class Ends:
    """Looks for connections that have ended before anything is sent on them.

    Their readers are about to hear of it, but what is submitted before they have is lost.
    """

    def __init__(self) -> None:
        # Linux tells what is an end from what is only data.
        self._events: int = getattr(select, "POLLRDHUP", getattr(select, "POLLIN", 0))
        self._poll: Any = select.poll() if self._events else None
        self._sockets = 0
        self._others = 0

    @contextlib.contextmanager
    def watching(self, stream: ByteStream) -> Iterator[None]:
        """Look at `stream`, too."""
        sock = stream.extra(SocketAttribute.raw_socket, None)
        number = -1 if sock is None or self._poll is None else sock.fileno()
        if number < 0:
            self._others += 1
            try:
                yield
            finally:
                self._others -= 1
            return
        self._sockets += 1
        self._poll.register(number, self._events)
        try:
            yield
        finally:
            self._sockets -= 1
            # If the socket was closed before, the number may have been another's since, which is
            # not looked at any more then; nothing worse.
            with contextlib.suppress(KeyError):
                self._poll.unregister(number)

    async def look(self) -> None:
        """Return when the readers of all connections that have ended have heard of it."""
        for turn in range(_TURNS):
            if self._others and turn < _TURNS_IN_PROCESS:
                pass  # The system can't be asked.
            elif not self._sockets or not self._poll.poll(0):
                return
            await anyio.lowlevel.checkpoint()
