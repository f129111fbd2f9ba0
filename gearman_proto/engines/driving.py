"""What the drivers of all adapters have in common. It does no I/O either.

A driver may rely on what `Engine` says, but for two things: there may be a bug in one, and a
signal's exception (KeyboardInterrupt) may hit it anywhere. After either, a packet may have been
taken and not applied, or made and not written; to go on would give requests each other's answers.
So all connections are given up, and everybody who waits is told why.

What else a signal handler may do, and so may a finalizer that the collector runs, is to call the
engine again, on top of a call that it has interrupted. Such a call is posted: it is made when the
one beneath is over.
"""

from __future__ import annotations

from collections.abc import Callable
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from gearman_proto.errors import ConnectionError

from .base import REFUSALS

if TYPE_CHECKING:
    from .base import Engine
    from .waits import Wait

E_ = TypeVar("E_", bound="Engine[Any]")
W_ = TypeVar("W_", bound="Wait")
T_ = TypeVar("T_")

#: Begins a call: it gets the engine, the time and a `wake`, and returns the Wait.
Begin: TypeAlias = Callable[[E_, float, Callable[[], Any]], W_]

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
        engine: The engine.
        log: Writes down an exception that is being handled, as `logging.Logger.exception` does.
    """

    def __init__(self, engine: E_, log: Callable[..., object]) -> None:
        self.engine: E_ = engine
        self._log = log
        # Waits of calls that are over, for the engine to be told of, and calls that are to be made.
        # Appended to from anywhere. There are few at a time.
        self._released: list[Wait | None] = []
        self._posted: list[Callable[[E_, float], object]] = []

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
                if self._is_refusal(error):
                    self._log("a call that was made in the middle of another was refused")
                else:
                    self._log("internal error in %r", self._posted[0])
                    self.engine.crash(error)
            del self._posted[0]  # Only now: a signal's exception would lose it.
        return True

    def _tell(self, call: Callable[..., T_], *args: Any) -> T_ | None:
        """Make a call of the engine's transport side. If it raises, which is a bug, nobody hangs.

        Returns:
            What it has returned; None if it has raised.
        """
        try:
            return call(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._log("internal error in %s", getattr(call, "__qualname__", call))
            self.engine.crash(error)
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

    @staticmethod
    def _is_refusal(error: BaseException) -> bool:
        """Whether `error` is one of REFUSALS, so that nothing has changed.

        It is none if it comes from a signal handler that has hit the engine in the middle of
        something, and has used another client, say.
        """
        is_inside = False
        for frame, _ in walk_tb(error.__traceback__):
            name = frame.f_globals["__name__"]
            if is_inside and not name.startswith("gearman_proto."):
                return False
            is_inside |= name.startswith("gearman_proto.engines.") and name != __name__
        return isinstance(error, REFUSALS)

    def _interrupted(self, error: BaseException) -> None:
        """An exception has come out of the middle of the engine: a signal's, most likely."""
        self.engine.crash(ConnectionError(f"interrupted by {error!r}"))
