"""The common part of the drivers of all adapters, without I/O.

An engine can have a bug, and an exception from a signal handler, such as KeyboardInterrupt, can
interrupt it at any point. Afterwards, a received packet might be unprocessed or an encoded packet
unsent, and requests could receive the answers to other requests. Therefore, the driver replaces the
engine and closes all connections, and each waiting call raises the reason.

A signal handler or a finalizer can also call the engine during another call. The driver queues such
a call and makes it after the interrupted one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeAlias, TypeVar

from gearman_proto.errors import ConnectionError
from gearman_proto.handlers import reraise_from_handler
from gearman_proto.printable import printable

if TYPE_CHECKING:
    from logging import Logger

    from .base import Engine
    from .waits import Wait

E_ = TypeVar("E_", bound="Engine[Any]")
W_ = TypeVar("W_", bound="Wait")
T_ = TypeVar("T_")
P_ = ParamSpec("P_")

#: An engine's method that returns a Wait. Its first arguments are the time and `wake`.
Method: TypeAlias = Callable[Concatenate[E_, float, Callable[[], Any], P_], W_]

#: Maximum number of bytes per read. Above 128 KiB, glibc might request the memory for each read
#: from the system, which takes longer than the read.
READ_SIZE: Final = 120 * 1024
#: An event loop lets other tasks run after a task has sent this many bytes.
YIELD_SIZE: Final = 64 * 1024
#: Maximum number of connections that the system queues until the server accepts them.
BACKLOG: Final = 1024
#: Seconds before the next `accept` after a failed one, for example due to too many open files.
LISTEN_AGAIN: Final = 0.5
#: Seconds before the next attempt to start a thread after the system has refused one.
THREAD_AGAIN: Final = 0.1


class BaseDriver(Generic[E_]):
    """The base of drivers.

    Args:
        make_engine: Function that returns a new engine, also to replace a failed one.
        logger: The logger of internal errors and of the engine's notices.
    """

    def __init__(self, make_engine: Callable[[], E_], logger: Logger) -> None:
        self._make_engine = make_engine
        self.engine: E_ = make_engine()
        self._logger = logger
        # Waits to release and calls to make. Signal handlers and finalizers can append to them at
        # any point. Plain lists are enough for the few items that they hold.
        self._released: list[Wait | None] = []
        self._posted: list[Callable[[E_, float], object]] = []

    def log_notices(self) -> None:
        """Log the engine's notices. Call this outside the engine, since it runs log handlers."""
        taken = []
        with contextlib.suppress(IndexError):  # Several threads can do this at the same time.
            while True:
                taken.append(self.engine.notices.popleft())
        for notice in taken:
            self._logger.warning("%s", printable(notice))

    def _replace(self, error: Exception) -> None:
        """End all calls with `error`, which has left the engine in an unknown state.

        Replace the engine unless it is closed. Adapters also close the connections.
        """
        for wait in self.engine.abandon(error):
            wait.wake()
        if not self.engine.closed:
            self.engine = self._make_engine()

    def _release_all(self, now: float) -> None:
        while self._released:
            wait = self._released.pop(0)
            if wait is not None:
                self.engine.release(wait, now)

    def _do_posted(self, now: float) -> bool:
        """Make the queued calls. Return True if there was at least one."""
        if not self._posted:
            return False
        while self._posted:
            try:
                self._posted[0](self.engine, now)
            except Exception as error:
                reraise_from_handler(error)
                self._logger.exception("internal error in %r", self._posted[0])
                self._replace(error)
            del self._posted[0]  # After the call, so that a signal's exception does not lose it.
        return True

    def _tell(self, call: Callable[..., T_], *args: Any) -> T_ | None:
        """Call a method of the engine's transport side. If it raises, replace the engine.

        Returns:
            The method's result, or None if the method has raised an exception.
        """
        try:
            return call(*args)
        except Exception as error:
            reraise_from_handler(error)
            self._logger.exception("internal error in %s", getattr(call, "__qualname__", call))
            self._replace(error)
            return None

    def _expire(self, now: float) -> None:
        """Report the unacknowledged bytes of late links to the engine, then the time."""
        for link in self.engine.links_to_measure(now):
            size = self._unacknowledged(link)
            if size is not None:
                self.engine.measured(link, size)
        self.engine.handle_timeout(now)

    def _unacknowledged(self, link: Any) -> int | None:  # noqa: ARG002 - adapters know more
        """Return the number of bytes for `link` that the peer's system has not acknowledged.

        Return None if the number is unknown.
        """
        return None

    def _interrupted(self, error: BaseException) -> None:
        """Replace the engine after an interruption by `error`, usually from a signal handler."""
        if not isinstance(error, ConnectionError):
            error = ConnectionError(f"interrupted by {error!r}")
        self._replace(error)
