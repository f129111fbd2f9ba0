"""The common part of the drivers of all adapters. It does no I/O either.

An engine may have a bug, and the exception of a signal handler, KeyboardInterrupt for example, may
interrupt it anywhere. After either, a packet may have been received but not processed, or created
but not sent, and requests could get each other's answers. So the driver replaces the engine and
closes all connections, and each waiting call raises the reason.

A signal handler, or a finalizer that the garbage collector runs, can also call the engine in the
middle of another call. The driver posts such a call, and makes it after the interrupted one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeAlias, TypeVar

from gearman_proto.errors import ConnectionError
from gearman_proto.handlers import reraise_from_handler

if TYPE_CHECKING:
    from .base import Engine
    from .waits import Wait

E_ = TypeVar("E_", bound="Engine[Any]")
W_ = TypeVar("W_", bound="Wait")
T_ = TypeVar("T_")
P_ = ParamSpec("P_")

#: A method of an engine that begins a call that waits. It gets the time and a `wake` first.
Method: TypeAlias = Callable[Concatenate[E_, float, Callable[[], Any], P_], W_]

#: Bytes to read at a time. Above 128 KiB, glibc may get the memory for each read from the system,
#: which takes longer than the read.
READ_SIZE: Final = 120 * 1024
#: Connections that the system keeps until they are accepted.
BACKLOG: Final = 1024
#: Seconds before the next `accept` after a failed one, for example with too many open files.
LISTEN_AGAIN: Final = 0.5
#: Seconds before the next attempt to start a thread after the system has refused one.
THREAD_AGAIN: Final = 0.1


class BaseDriver(Generic[E_]):
    """The base of drivers.

    Args:
        make_engine: Makes the engine, and the engine that replaces it.
        log: Logs the exception that is being handled, as `logging.Logger.exception` does.
    """

    def __init__(self, make_engine: Callable[[], E_], log: Callable[..., object]) -> None:
        self._make_engine = make_engine
        self.engine: E_ = make_engine()
        self._log = log
        # Waits of calls that are over, for the engine to be told of, and calls that are to be made.
        # Appended to from anywhere. There are few at a time.
        self._released: list[Wait | None] = []
        self._posted: list[Callable[[E_, float], object]] = []

    def _replace(self, error: Exception) -> None:
        """End all calls with `error`, which has left the engine in an unknown state.

        Replace the engine, unless it is closed. Adapters close the connections as well.
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
        """Make the calls that were posted. Returns whether there was any."""
        if not self._posted:
            return False
        while self._posted:
            try:
                self._posted[0](self.engine, now)
            except Exception as error:  # noqa: BLE001 - a bug, as in `_tell`
                reraise_from_handler(error)
                self._log("internal error in %r", self._posted[0])
                self._replace(error)
            del self._posted[0]  # Only now: a signal's exception would lose it.
        return True

    def _tell(self, call: Callable[..., T_], *args: Any) -> T_ | None:
        """Make a call of the engine's transport side. If it raises, replace the engine.

        Returns:
            The call's result, or None if it has raised.
        """
        try:
            return call(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is
            reraise_from_handler(error)
            self._log("internal error in %s", getattr(call, "__qualname__", call))
            self._replace(error)
            return None

    def _expire(self, now: float) -> None:
        """Report the progress of bytes on late links to the engine, then the time."""
        for link in self.engine.links_to_measure(now):
            size = self._unacknowledged(link)
            if size is not None:
                self.engine.measured(link, size)
        self.engine.handle_timeout(now)

    def _unacknowledged(self, link: Any) -> int | None:  # noqa: ARG002 - adapters know more
        """Return the number of bytes for `link` that the peer's system has not acknowledged.

        Return None if this is unknown.
        """
        return None

    def _interrupted(self, error: BaseException) -> None:
        """Replace the engine, because `error`, usually a signal handler's, has interrupted it."""
        self._replace(ConnectionError(f"interrupted by {error!r}"))
