"""Checks of a worker's callback at registration.

A callback gets the worker and the job, or only the job if it takes one argument. One with another
signature would fail all its jobs, so `check_callback` rejects it when it is registered. If a
callback has no reliable signature, it gets both.

Only workers need `inspect`, which takes as long to import as all of `gearman_proto.wire`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

from gearman_proto.errors import ArgumentTypeError

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable

    from gearman_proto.jobs.job import WorkerJob

#: A function of the worker and the job, or of the job alone, that returns the result.
Callback: TypeAlias = "Callable[[Any, WorkerJob], Any] | Callable[[WorkerJob], Any]"


def is_async(function: Any) -> bool:
    """Return True if `function` is known to be async."""
    while isinstance(function, functools.partial):
        function = function.func
    import inspect  # noqa: PLC0415

    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is async
    )


def check_callback(
    task: str, callback: Any, *, is_awaited: bool, prefers_job: bool = False
) -> Callable[[Any, Any], Any]:
    """Check the callback of a task, and return it as a function of the worker and the job.

    Args:
        task: The name of the task.
        callback: The callback.
        is_awaited: True if the worker accepts async callbacks.
        prefers_job: True if one required parameter means the job, even if the callback has optional
            parameters.

    Raises:
        TypeError: The callback does not accept a worker and a job, nor a job alone. Or it is async
            and the worker does not accept async callbacks.
    """
    if not callable(callback):
        raise ArgumentTypeError(f"the callback of {task!r} can't be called: {callback!r}")
    if not is_awaited and is_async(callback):
        raise ArgumentTypeError(
            f"the callback of {task!r} is async, which this worker does not await: "
            f"gearman_anyio.GearmanWorker does"
        )
    adapted = of_worker_and_job(callback, prefers_job=prefers_job)
    if adapted is None:
        raise ArgumentTypeError(
            f"the callback of {task!r} is called with the worker and the job, or with the job "
            f"alone, which {callback!r} does not take"
        )
    return adapted


def of_worker_and_job(
    callback: Any, *, prefers_job: bool = False
) -> Callable[[Any, Any], Any] | None:
    """Return `callback` as a function of the worker and the job; None if it can't be called so."""
    signature = _signature(callback)
    if signature is None or (
        _takes(signature, 2) and not (prefers_job and _requires_one(signature))
    ):
        function: Callable[[Any, Any], Any] = callback
        return function
    return (lambda _worker, job: callback(job)) if _takes(signature, 1) else None


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _requires_one(signature: inspect.Signature) -> bool:
    """Return True if `signature` has one required argument and no `*args`."""
    parameters = signature.parameters.values()
    has_any = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    return not has_any and _takes(signature, 1) and not _takes(signature, 0)


def _signature(callback: Any) -> inspect.Signature | None:
    """Return the signature of `callback`, or None if it has no reliable one."""
    # A decorator might have set this attribute to the signature of the wrapped function.
    if getattr(callback, "__signature__", None) is not None:
        return None
    import inspect  # noqa: PLC0415

    try:
        return inspect.signature(callback, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # Many functions written in C have no signature.
