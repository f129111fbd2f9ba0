"""Calls to the application's functions: async ones here, plain ones in threads.

A plain callback gets the worker in the form of `InThread`, whose methods block instead of being
awaited, so that it reads like a callback of the blocking worker (and may be one).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio.from_thread
import anyio.to_thread

from gearman_proto import ConnectionError
from gearman_proto.engines.driving import THREAD_AGAIN
from gearman_proto.engines.outcomes import ForkGuard
from gearman_proto.surface.worker import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import WorkerJob
    from gearman_proto.surface.worker import Ability

# The worker's methods that its callbacks may call. What a subclass adds is called as it is.
_AWAITED: Final = frozenset(
    {
        "send_job_complete",
        "send_job_data",
        "send_job_exception",
        "send_job_failure",
        "send_job_status",
        "send_job_warning",
        "shutdown",
    }
)
_IN_THE_LOOP: Final = frozenset({"register_task", "set_client_id", "stop", "unregister_task"})

# Seconds between two looks at whether a thread's calls have returned.
_LOOK: Final = 0.001


class Escaped(Exception):
    """A callback in a thread has raised what is no Exception: SystemExit, say.

    Raised in the event loop, that would end more than the job.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Host:
    """The task that `work` runs in, and whether it is on its way out."""

    def __init__(self) -> None:
        self._task: Any = None
        self._before = 0
        asyncio = sys.modules.get("asyncio")
        if asyncio and anyio.get_cancelled_exc_class() is asyncio.CancelledError:
            self._task = asyncio.current_task()
            self._before = self._task.cancelling()

    def is_ending(self) -> bool:
        """Whether what has just been raised in a task of `work` may be its cancellation."""
        try:
            if anyio.current_effective_deadline() == -math.inf:
                return True
        except RuntimeError:  # No event loop runs this: the coroutine is being closed.
            return True
        # asyncio's own cancellation, of which anyio does not know: `Task.cancel`, or the end of the
        # loop, which cancels all tasks at once. (A callback may have cancelled its own only.)
        return self._task is not None and bool(self._task.cancelling() > self._before)


async def awaited(value: Any) -> Any:
    """Return what `value` becomes: the result of a function that may be async, or not."""
    return await value if inspect.isawaitable(value) else value


def _end_process(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(status)


#: Gets the job. See `ForkGuard`.
guard: Final = functools.partial(ForkGuard, logger, os.getpid, _end_process)
#: Does nothing.
NO_GUARD: Final = contextlib.nullcontext()


async def call_back(
    ability: Ability,
    worker: Any,
    job: WorkerJob,
    limiter: anyio.CapacityLimiter,
) -> Any:
    """Call the callback of `ability`, and return what it returns.

    If it is cancelled, its thread is abandoned. If the system has no thread left, the job waits for
    one: another worker in the same container would have none either.

    Raises:
        Escaped: It ran in a thread, and has raised what is no Exception.
    """
    callback = ability.callback
    if ability.is_async:
        with guard(job):
            return await callback(worker, job)
    calls = _Calls()
    view = InThread(worker, calls)
    try:
        is_waiting = False
        while not calls.has_begun:
            try:
                (result,) = await anyio.to_thread.run_sync(
                    _contained, callback, view, job, calls, abandon_on_cancel=True, limiter=limiter
                )
            except RuntimeError as error:
                if calls.has_begun:
                    raise
                if not is_waiting:
                    logger.warning("%r waits for a thread: %s", job, error)
                    is_waiting = True
                await anyio.sleep(THREAD_AGAIN)
    except anyio.get_cancelled_exc_class():
        await calls.end()
        raise
    # It may be plain and still return something to await, as a lambda does.
    with guard(job):
        return await awaited(result)


def _contained(
    callback: Callable[[Any, WorkerJob], Any], worker: Any, job: WorkerJob, calls: _Calls
) -> tuple[Any]:
    calls.has_begun = True
    try:
        with guard(job):
            # In a tuple: trio takes no coroutine from a thread.
            return (callback(worker, job),)
    except Exception:
        raise
    except BaseException as error:
        raise Escaped(error) from error


class _Calls:
    """The calls of one callback's thread to the event loop.

    None of them may be on its way when the loop ends: on asyncio it would never return, and the
    program, which waits for its threads, would never end. So an abandoned thread makes no more.
    """

    def __init__(self) -> None:
        #: The event loop's.
        self.thread = threading.get_ident()
        #: True once the callback's thread runs.
        self.has_begun = False
        self._lock = threading.Lock()
        self._under_way = 0
        self._is_over = False

    def __enter__(self) -> None:
        with self._lock:
            if self._is_over:
                raise ConnectionError(
                    "this job was given up: its server gives it to another worker"
                )
            self._under_way += 1

    def __exit__(self, *args: object) -> None:
        with self._lock:
            self._under_way -= 1

    async def end(self) -> None:
        """Let no more calls be made, and wait for those that are under way."""
        with self._lock:
            self._is_over = True
        with anyio.CancelScope(shield=True):
            # Nothing that a thread does could safely wake this. It is a matter of a moment: the
            # job's connection is closed, at which whatever a call waits for ends.
            while self._under_way:  # noqa: ASYNC110 - see above
                await anyio.sleep(_LOOK)


class InThread:
    """A worker as a callback in a thread sees it: with the methods of the blocking worker.

    In the event loop's thread, they are those of the worker itself.
    """

    __slots__ = ("_calls", "_worker")

    def __init__(self, worker: Any, calls: _Calls) -> None:
        object.__setattr__(self, "_calls", calls)
        object.__setattr__(self, "_worker", worker)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._worker, name)
        if name in _AWAITED:
            return functools.partial(self._run, anyio.from_thread.run, value)
        if name in _IN_THE_LOOP:
            return functools.partial(self._run, anyio.from_thread.run_sync, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._worker, name, value)

    def __repr__(self) -> str:
        return repr(self._worker)

    def _run(
        self, run: Callable[..., Any], method: Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        if threading.get_ident() == self._calls.thread:
            # The callback has returned something to await, and this is in it.
            return method(*args, **options)
        with self._calls:
            return run(functools.partial(method, *args, **options))
