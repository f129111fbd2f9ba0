"""Clocks for tests that jump to the next time anybody waits for, as soon as nothing else is left.

trio has one. asyncio's is a loop whose selector, where nothing is ready, does not sleep, but moves
the loop's time on by as much as it should have slept. A test that leaves the process (sockets,
threads, subprocesses) has to say how long, in real time, it takes others to answer.
"""

from __future__ import annotations

import asyncio
import functools
import math
import selectors
import time
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.arguments import FOR_EVER, check_seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from selectors import SelectorKey


# Seconds that asyncio adds to the time to see what is due.
_RESOLUTION: Final = time.get_clock_info("monotonic").resolution


def check_backend(backend: str) -> str:
    """Return `backend`, the name of an event loop.

    Raises:
        ValueError: There is no such event loop.
    """
    if backend not in ("asyncio", "trio"):
        raise ValueError(f"the event loops are 'asyncio' and 'trio', not {backend!r}")
    return backend


def virtual_clock(backend: str, *, autojump_threshold: float = 0.0) -> tuple[str, dict[str, Any]]:
    """Return an event loop for anyio in which waiting takes no time.

    The clock stands still while any task runs. When all tasks wait, it jumps to the next time that
    one of them waits for. A new loop begins at 0 seconds. Use it as the fixture `anyio_backend`::

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return virtual_clock(request.param)

    or in a program: ``anyio.run(main, backend=name, backend_options=options)``.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
        autojump_threshold: How many real seconds nothing may happen before the clock jumps, as for
            `trio.testing.MockClock`. With 0, all that a test waits for has to be in its own event
            loop; what a socket or a thread has to say would come too late.

    Returns:
        The name and the options.

    Raises:
        ValueError: There is no such event loop; or the threshold is negative, infinite or NaN.
        TypeError: The threshold is no number.
    """
    _check_threshold(autojump_threshold)
    if check_backend(backend) == "asyncio":
        return backend, {"loop_factory": functools.partial(VirtualTimeLoop, autojump_threshold)}
    import trio.testing  # noqa: PLC0415 - it may not be there

    return backend, {"clock": trio.testing.MockClock(autojump_threshold=autojump_threshold)}


def _check_threshold(seconds: float) -> float:
    return check_seconds("autojump_threshold", seconds, 0, FOR_EVER)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio in which waiting takes no time; see `virtual_clock`.

    By itself it is for `asyncio.Runner`::

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(main())

    Args:
        autojump_threshold: How many real seconds nothing may happen before the clock jumps.

    Raises:
        TypeError, ValueError: The threshold is no number from 0 on.
    """

    # asyncio's `__del__` reads this, also if `__init__` has refused its argument.
    _closed = True

    def __init__(self, autojump_threshold: float = 0.0) -> None:
        self._jumping = _Jumping(_check_threshold(autojump_threshold))
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the seconds since the loop was made."""
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
        """Wait for the executor's threads, for as long as it takes: `timeout` would be over."""
        del timeout
        await super().shutdown_default_executor()

    def _has_returned(self, _: asyncio.Future[Any]) -> None:
        self._jumping.calls -= 1


class _Jumping(selectors.DefaultSelector):
    """A selector that sleeps only if nobody has said for how long, or there are calls in threads.

    asyncio itself makes such calls, to look up addresses.
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
            # What is due has to be below this sum. In a year's time it would be the same number.
            if self.time + _RESOLUTION == self.time:
                self.time = math.nextafter(self.time, math.inf)
        return ready
