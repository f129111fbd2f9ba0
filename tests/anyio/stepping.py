"""Cancelling an operation at each place where it waits, and what else several files here need.

    for attempt in attempts():
        await attempt(client.submit_job(...))

runs an operation again and again: the nth time it is cancelled when it is about to wait for the nth
time. The last time there was no nth time, and it has come to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.lowlevel
import sniffio
import trio

import gearman_anyio as gearman
from gearman_proto.engines.waits import Stream
from gearman_proto.engines.worker.phases import Phase
from tests.support import PATIENCE, deadlines_of

from .conftest import open_sockets
from .support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator

    from gearman_anyio.worker import Callback

T = TypeVar("T")

# No operation waits that often.
_TOO_OFTEN = 2000


class Stepped(Generic[T]):
    """A coroutine that calls `at_step`, with 1, 2, ..., when it is about to wait."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], at_step: Callable[[int], object]) -> None:
        self._coroutine = coroutine
        self._at_step = at_step
        #: How often it has waited, and at which of these times an exception came of it.
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
            # The exception has a traceback with this frame, and that with all that it holds.
            del step


class Attempt:
    """Runs one operation, and cancels it when it is about to wait for the `number`th time."""

    def __init__(self, number: int) -> None:
        self.number = number
        #: How often the operation has waited.
        self.steps = -1
        #: Whether it has come to its end.
        self.completed = False

    def __repr__(self) -> str:
        return f"<Attempt {self.number}: {self.steps} steps>"

    @property
    def touched(self) -> bool:
        """Whether the operation was cancelled, though it may have come to its end all the same."""
        return self.steps >= self.number

    async def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """What the operation returns; None if it was cancelled."""
        with anyio.CancelScope() as scope:
            stepped = Stepped(coroutine, self._at_step(scope.cancel))
            result = None
            try:
                result = await stepped
                self.completed = True
            finally:
                self.steps = stepped.steps
        # What it waited for may have come at the same moment. Else it has to end.
        swallowed = self.completed and stepped.last_raised >= self.number
        assert not swallowed, "a cancellation was swallowed"
        return result

    async def native(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """The same in a task of its own, cancelled as asyncio does it."""

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


def attempts(least: int = 1) -> Iterator[Attempt]:
    """Attempts 1, 2, ..., to the one whose operation was not touched; `least` have to be."""
    for number in range(1, _TOO_OFTEN):
        attempt = Attempt(number)
        yield attempt
        assert attempt.steps >= 0, "the attempt was not used"
        if not attempt.touched:
            assert number > least, f"it waited {number - 1} times: nothing was tested"
            return
    raise AssertionError("the operation has no end")


def count_tasks() -> int:
    """How many tasks there are in this event loop."""
    if sniffio.current_async_library() == "trio":
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """See to it that the body leaves neither tasks nor sockets."""
    await anyio.lowlevel.checkpoint()
    tasks, sockets = count_tasks(), open_sockets()
    yield
    await until(lambda: count_tasks() <= tasks, "the end of all tasks")
    await until(lambda: open_sockets() <= sockets, "the end of all sockets")


async def assert_idle(client: gearman.GearmanClient) -> None:
    """Nothing of a call is left in the client."""
    engine = client._gm_driver.engine
    # What has cancelled this task is held by the event loop until then, with all that it came by.
    await anyio.lowlevel.checkpoint()
    if any(isinstance(wait, Stream) for wait in engine._waits):
        gc.collect()
    # The next call would do this for iterators that nobody has any more.
    client._gm_driver._pump()
    assert not engine._waits
    assert not engine._watchers
    assert not engine._actions
    assert not client._gm_driver._released
    if all(server.link is None or server.link.is_up for server in engine.pool.servers):
        assert not deadlines_of(engine)


@contextlib.asynccontextmanager
async def working(
    server: Any, callbacks: dict[str, Callback], **options: Any
) -> AsyncIterator[gearman.GearmanWorker]:
    """A worker that works as long as the body runs."""
    worker = gearman.GearmanWorker([server.address], **options)
    for task, callback in callbacks.items():
        worker.register_task(task, callback)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.work)
        with anyio.fail_after(PATIENCE):
            # Then no task of it comes or goes until there is a job.
            await until(lambda: is_asleep(worker) or worker.has_job_lock(), "the worker's sleep")
        yield worker
        worker.stop()


def is_asleep(worker: gearman.GearmanWorker) -> bool:
    """Whether the worker has asked for a job, and waits for one."""
    return all(
        server.link is not None and server.link.phase is Phase.ASLEEP
        for server in worker.connection_list
    )


async def echo(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    """A callback: the data back."""
    data: bytes = job.data
    return data
