"""Helpers that cancel an operation at each of its waits, and that check what is left of it.

    for attempt in attempts():
        await attempt(client.submit_job(...))

repeats an operation. Attempt n cancels it just before its nth wait. The last attempt completes,
because the operation waits fewer than n times. A cancel scope cancels it, or asyncio's own
`Task.cancel` if `native` is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import sniffio
import trio

from gearman_proto.engines.waits import Subscription
from tests.support import deadlines_of

from .support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator

    import gearman_anyio as gearman

T = TypeVar("T")

# More waits than any operation has.
_TOO_OFTEN = 2000


class Stepped(Generic[T]):
    """A coroutine wrapper that calls `at_step` with 1, 2, ... before each wait."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], at_step: Callable[[int], object]) -> None:
        self._coroutine = coroutine
        self._at_step = at_step
        #: Number of waits so far, and the number of the last wait that raised an exception.
        self.steps = 0
        self.last_raised = 0

    def __await__(self) -> Generator[Any, Any, T]:
        coroutine = self._coroutine
        step: Callable[[], Any] = functools.partial(coroutine.send, None)
        try:
            while True:
                try:
                    trap = step()
                except StopIteration as end:
                    result: T = end.value
                    return result
                self.steps += 1
                self._at_step(self.steps)
                try:
                    step = functools.partial(coroutine.send, (yield trap))
                except BaseException as error:  # noqa: BLE001 - it is the coroutine's
                    self.last_raised = self.steps
                    step = functools.partial(coroutine.throw, error)
        finally:
            # `step` refers to the exception, whose traceback refers to this frame: a cycle.
            del step


class Attempt:
    """One run of an operation, cancelled just before its `number`th wait."""

    def __init__(self, number: int, *, native: bool = False) -> None:
        self.number = number
        self._native = native
        #: Number of times the operation has waited.
        self.steps = -1
        #: True once the operation has completed.
        self.completed = False

    def __repr__(self) -> str:
        return f"<Attempt {self.number}: {self.steps} steps>"

    @property
    def touched(self) -> bool:
        """True if the operation was cancelled, even if it completed nevertheless."""
        return self.steps >= self.number

    async def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """Return the operation's result, or None if it was cancelled."""
        if self._native:
            return await self._in_a_task(coroutine)
        with anyio.CancelScope() as scope:
            stepped = Stepped(coroutine, self._at_step(scope.cancel))
            result = None
            try:
                result = await stepped
                self.completed = True
            finally:
                self.steps = stepped.steps
        # The operation may complete if its result arrived in the same step. Otherwise the
        # cancellation has to end it.
        swallowed = self.completed and stepped.last_raised >= self.number
        assert not swallowed, "a cancellation was swallowed"
        return result

    async def _in_a_task(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        async def run() -> T:
            me = asyncio.current_task()
            assert me is not None
            stepped = Stepped(coroutine, self._at_step(me.cancel))
            try:
                return await stepped
            finally:
                self.steps = stepped.steps

        task = asyncio.create_task(run())
        await asyncio.wait([task])
        assert task.cancelled() == self.touched, "a cancellation was swallowed"
        self.completed = not task.cancelled()
        return task.result() if self.completed else None

    def _at_step(self, cancel: Callable[[], object]) -> Callable[[int], object]:
        return lambda step: cancel() if step == self.number else None


def attempts(least: int = 1, *, native: bool = False) -> Iterator[Attempt]:
    """Yield attempts until one is not cancelled. At least `least` have to be cancelled."""
    for number in range(1, _TOO_OFTEN):
        attempt = Attempt(number, native=native)
        yield attempt
        assert attempt.steps >= 0, "the attempt was not used"
        if not attempt.touched:
            assert number > least, f"it waited {number - 1} times: nothing was tested"
            return
    raise AssertionError("the operation has no end")


def open_sockets() -> set[str]:
    """Return the names of this process's sockets, or nothing on systems without /proc."""
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return {name for name in found if name.startswith("socket:")}


def count_tasks() -> int:
    """Return the number of tasks in this event loop."""
    if sniffio.current_async_library() == "trio":
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Check that the body leaves neither tasks nor sockets."""
    await anyio.lowlevel.checkpoint()
    tasks, sockets = count_tasks(), open_sockets()
    yield
    await until(lambda: count_tasks() <= tasks, "the end of all tasks")
    await until(lambda: open_sockets() <= sockets, "the end of all sockets")


async def assert_idle(client: gearman.GearmanClient) -> None:
    """Check that the client holds no state of a finished call."""
    engine = client._gm_driver.engine
    # Until the next checkpoint, the event loop refers to the exception that cancelled this task,
    # and so to the frames in its traceback.
    await anyio.lowlevel.checkpoint()
    if any(isinstance(wait, Subscription) for wait in engine._waits):
        gc.collect()
    # The next call would release collected iterators in this way.
    client._gm_driver._pump()
    assert not engine._waits
    assert not engine._watchers
    assert not engine._actions
    assert not client._gm_driver._released
    if all(server.link is None or server.link.is_up for server in engine.pool.servers):
        assert not deadlines_of(engine)
