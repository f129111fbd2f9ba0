"""Checks of a worker's callback at registration.

A callback with the wrong signature would fail all its jobs, so `check_callback` rejects it when it
is registered. If a callback has no reliable signature, the check accepts it.

Only workers need `inspect`, which takes as long to import as all of `gearman_proto.wire`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from gearman_proto.errors import ArgumentTypeError

if TYPE_CHECKING:
    import inspect


def is_async(function: Any) -> bool:
    """Return True if `function` is known to be async."""
    while isinstance(function, functools.partial):
        function = function.func
    import inspect  # noqa: PLC0415

    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is async
    )


def check_callback(task: str, callback: Any, *, is_awaited: bool) -> None:
    """Check the callback of a task.

    Args:
        task: The name of the task.
        callback: The callback.
        is_awaited: True if the worker accepts async callbacks.

    Raises:
        TypeError: The callback does not accept a worker and a job, or it is async and the worker
            does not accept async callbacks.
    """
    if not callable(callback):
        raise ArgumentTypeError(f"the callback of {task!r} can't be called: {callback!r}")
    if not is_awaited and is_async(callback):
        raise ArgumentTypeError(
            f"the callback of {task!r} is async, which this worker does not await: "
            f"gearman_anyio.GearmanWorker does"
        )
    signature = _signature(callback)
    if signature is None:
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ArgumentTypeError(
            f"the callback of {task!r} is called with the worker and the job, "
            f"which {callback!r} does not take: {error}"
        ) from None


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
