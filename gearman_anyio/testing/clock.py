"""Clocks for tests that jump to the next deadline as soon as all tasks wait.

trio has such a clock. For asyncio, this module has a loop whose selector does not sleep if no
socket is ready. Instead, it advances the loop's time by the length of the sleep. If a test uses
sockets, threads or subprocesses, it has to set the real time that these take to answer.
"""

from __future__ import annotations

import asyncio
import functools
import math
import selectors
import time
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.checks import FOR_EVER, check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from selectors import SelectorKey


# Seconds that asyncio adds to the current time when it looks for expired timers.
_RESOLUTION: Final = time.get_clock_info("monotonic").resolution


def check_backend(backend: str) -> str:
    """Return `backend`, the name of an event loop.

    Raises:
        ValueError: It is not a known event loop.
    """
    if backend not in ("asyncio", "trio"):
        raise ValueError(f"the event loops are 'asyncio' and 'trio', not {backend!r}")
    return backend


def virtual_clock(backend: str, *, autojump_threshold: float = 0.0) -> tuple[str, dict[str, Any]]:
    """Return an event loop for anyio that waits without taking time.

    The clock stands still while any task runs. When all tasks wait, it jumps to the next deadline.
    A new loop begins at 0 seconds. Use it as the fixture `anyio_backend`::

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return virtual_clock(request.param)

    or in a program: ``anyio.run(main, backend=name, backend_options=options)``.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        autojump_threshold: Real seconds without activity before the clock jumps, as for
            `trio.testing.MockClock`. With 0, a test can wait only for tasks of its own event loop:
            the clock would jump before data from a socket or a thread arrived.

    Returns:
        The name and the options.

    Raises:
        ValueError: The event loop is unknown, or the threshold is negative, infinite or NaN.
        TypeError: The threshold is not a number.
    """
    _check_threshold(autojump_threshold)
    if check_backend(backend) == "asyncio":
        return backend, {"loop_factory": functools.partial(VirtualTimeLoop, autojump_threshold)}
    import trio.testing  # noqa: PLC0415 - it might not be installed

    return backend, {"clock": trio.testing.MockClock(autojump_threshold=autojump_threshold)}


def _check_threshold(seconds: float) -> float:
    return check_seconds("autojump_threshold", seconds, 0, FOR_EVER)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio that waits without taking time; see `virtual_clock`.

    Without anyio, use it with `asyncio.Runner`::

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())

    Args:
        autojump_threshold: Real seconds without activity before the clock jumps.

    Raises:
        TypeError, ValueError: The threshold is not a number, or is negative.
    """

    # asyncio's `__del__` reads this, even if `__init__` has rejected its argument.
    _closed = True

    def __init__(self, autojump_threshold: float = 0.0) -> None:
        self._jumping = _Jumping(_check_threshold(autojump_threshold))
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual seconds since the loop was created."""
        return self._jumping.time

    def run_in_executor(  # type: ignore[override] # its type needs Python 3.11's syntax spelt out
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call `func` in a thread of an executor. The clock stands still meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.calls += 1
        future.add_done_callback(self._has_returned)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the executor's threads without a limit: virtual time would exceed `timeout`."""
        del timeout
        await super().shutdown_default_executor()

    def _has_returned(self, _: asyncio.Future[Any]) -> None:
        self._jumping.calls -= 1


class _Jumping(selectors.DefaultSelector):
    """A selector that sleeps only if no timer is set, or while calls run in threads.

    asyncio itself makes such calls, to resolve addresses.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.time = 0.0
        self.calls = 0
        self._threshold = threshold

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.calls:
            return super().select()
        ready = super().select(min(timeout, self._threshold))
        if not ready:
            self.time += timeout
            # asyncio compares deadlines with this sum. After about a year, adding the resolution
            # no longer changes the time.
            if self.time + _RESOLUTION == self.time:
                self.time = math.nextafter(self.time, math.inf)
        return ready
