"""Calls to the application's functions: async ones here, plain ones in threads.

A plain callback gets the worker in the form of `InThread`, whose methods block instead of being
awaited, so that it reads like a callback of the blocking worker (and may be one).
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Final

import anyio.from_thread
import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import WorkerJob

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


async def awaited(value: Any) -> Any:
    """Return what `value` becomes: the result of a function that may be async, or not."""
    return await value if inspect.isawaitable(value) else value


async def call_back(
    callback: Callable[[Any, WorkerJob], Any],
    worker: Any,
    job: WorkerJob,
    limiter: anyio.CapacityLimiter,
) -> Any:
    """Call `callback`, and return what it returns. If it is cancelled, its thread is abandoned."""
    if _is_async(callback):
        return await callback(worker, job)
    # It may be plain and still return something to await, as a lambda does.
    return await awaited(
        await anyio.to_thread.run_sync(
            callback, InThread(worker), job, abandon_on_cancel=True, limiter=limiter
        )
    )


def _is_async(callback: Any) -> bool:
    while isinstance(callback, functools.partial):
        callback = callback.func
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
        getattr(callback, "__call__", None)  # noqa: B004 - an object whose __call__ is async
    )


class InThread:
    """A worker as a callback in a thread sees it: with the methods of the blocking worker."""

    __slots__ = ("_worker",)

    def __init__(self, worker: Any) -> None:
        object.__setattr__(self, "_worker", worker)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._worker, name)
        if name in _AWAITED:
            return functools.partial(_run, anyio.from_thread.run, value)
        if name in _IN_THE_LOOP:
            return functools.partial(_run, anyio.from_thread.run_sync, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._worker, name, value)

    def __repr__(self) -> str:
        return repr(self._worker)


def _run(run: Callable[..., Any], method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return run(functools.partial(method, *args, **options))
