"""Calls of the application's functions: async ones in the event loop, plain ones in threads.

A plain callback gets a `ThreadProxy` in place of the worker. Its methods block instead of being
awaited, so a plain callback looks like one for the blocking worker, and can be used for both.
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

from gearman_proto import ConnectionError, signals
from gearman_proto.engines.driver import THREAD_AGAIN
from gearman_proto.engines.worker.outcomes import ForkGuard
from gearman_proto.jobs import tracking
from gearman_proto.surface.worker import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import WorkerJob
    from gearman_proto.surface.worker import Ability

# The worker's methods for callbacks. Methods that a subclass adds are called directly.
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
_IN_THE_LOOP: Final = frozenset(
    {"pause", "register_task", "resume", "set_client_id", "stop", "unregister_task"}
)

# Seconds between checks whether a thread's calls have returned.
_LOOK: Final = 0.001


class CallbackExit(Exception):
    """Raised if a callback in a thread has raised a BaseException, such as SystemExit.

    In the event loop, that exception itself would end more than the job.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class WorkTask:
    """The task that `work` runs in, and whether it is being cancelled."""

    def __init__(self) -> None:
        self._task: Any = None
        self._before = 0
        asyncio = sys.modules.get("asyncio")
        if asyncio and anyio.get_cancelled_exc_class() is asyncio.CancelledError:
            self._task = asyncio.current_task()
            self._before = self._task.cancelling()

    def is_ending(self) -> bool:
        """Return True if the exception just raised in a task of `work` can be its cancellation."""
        try:
            if anyio.current_effective_deadline() == -math.inf:
                return True
        except RuntimeError:  # No event loop is running: the coroutine is being closed.
            return True
        # anyio does not see asyncio's own cancellation: `Task.cancel`, or the end of the loop,
        # which cancels all tasks at once. (A callback might have cancelled only its own task.)
        return self._task is not None and bool(self._task.cancelling() > self._before)


async def awaited(value: Any) -> Any:
    """Await `value` if it is awaitable, and return the result; otherwise return `value`."""
    return await value if inspect.isawaitable(value) else value


#: Ends this process at once, without cleanup.
end_process: Final = functools.partial(signals.end_process, os._exit)
#: Makes the guard of a job. See `ForkGuard`.
guard: Final = functools.partial(ForkGuard, logger, os.getpid, end_process)
#: A guard that does nothing.
NO_GUARD: Final = contextlib.nullcontext()


async def call_back(
    ability: Ability,
    worker: Any,
    job: WorkerJob,
    limiter: anyio.CapacityLimiter,
) -> Any:
    """Call the callback of `ability`, and return the result.

    If this is cancelled, the callback's thread is abandoned. If the system refuses another thread,
    the job waits for one: other workers in the same container would not get one either.

    Raises:
        CallbackExit: The callback ran in a thread, and raised a BaseException other than an
            Exception.
    """
    callback = ability.callback
    if ability.is_async:
        with guard(job):
            return await callback(worker, job)
    calls = _Calls()
    view = ThreadProxy(worker, calls)
    tracking.attach(job, view)
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
    # A plain callback can return an awaitable. A lambda does that, for example.
    with guard(job):
        return await awaited(result)


def _contained(
    callback: Callable[[Any, WorkerJob], Any], worker: Any, job: WorkerJob, calls: _Calls
) -> tuple[Any]:
    calls.has_begun = True
    try:
        with guard(job):
            # In a tuple, because trio does not allow threads to return a coroutine.
            return (callback(worker, job),)
    except Exception:
        raise
    except BaseException as error:
        raise CallbackExit(error) from error


class _Calls:
    """The calls from one callback's thread to the event loop.

    None of them can be in progress when the loop ends: on asyncio, such a call would never return.
    The program waits for its threads, so it would never exit. An abandoned thread is therefore not
    allowed to make further calls.
    """

    def __init__(self) -> None:
        #: The event loop's thread.
        self.thread = threading.get_ident()
        #: True once the callback's thread runs.
        self.has_begun = False
        self._lock = threading.Lock()
        self._under_way = 0
        self._is_finished = False

    def __enter__(self) -> None:
        with self._lock:
            if self._is_finished:
                raise ConnectionError(
                    "this job was given up: its server gives it to another worker"
                )
            self._under_way += 1

    def __exit__(self, *args: object) -> None:
        with self._lock:
            self._under_way -= 1

    async def end(self) -> None:
        """Refuse further calls, and wait for those in progress."""
        with self._lock:
            self._is_finished = True
        with anyio.CancelScope(shield=True):
            # A thread can't wake this task safely, so poll. It does not take long: the job's
            # connection is closed, which ends every call that waits for it.
            while self._under_way:  # noqa: ASYNC110 - see above
                await anyio.sleep(_LOOK)


class ThreadProxy:
    """A proxy of the worker for a callback in a thread, with the blocking worker's methods.

    In the event loop's thread, the methods are those of the worker itself.
    """

    __slots__ = ("_gm_calls", "_gm_worker")

    def __init__(self, worker: Any, calls: _Calls) -> None:
        object.__setattr__(self, "_gm_calls", calls)
        object.__setattr__(self, "_gm_worker", worker)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._gm_worker, name)
        if name in _AWAITED:
            return functools.partial(self._gm_run, anyio.from_thread.run, value)
        if name in _IN_THE_LOOP:
            return functools.partial(self._gm_run, anyio.from_thread.run_sync, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._gm_worker, name, value)

    def __repr__(self) -> str:
        return repr(self._gm_worker)

    def _gm_run(
        self, run: Callable[..., Any], method: Callable[..., Any], *args: Any, **options: Any
    ) -> Any:
        if threading.get_ident() == self._gm_calls.thread:
            # The callback has returned an awaitable, which makes this call.
            return method(*args, **options)
        with self._gm_calls:
            return run(functools.partial(method, *args, **options))
