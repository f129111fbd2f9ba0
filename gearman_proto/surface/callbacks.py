"""What can be said of a worker's callback before it is called.

One that can't do its jobs would fail each of them, so it is refused when it is registered. But only
where that is certain: whatever does not say what it takes is let through.

`inspect` takes as long to import as all of the wire, and only workers need it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from gearman_proto.errors import ArgumentTypeError

if TYPE_CHECKING:
    import inspect


def is_async(function: Any) -> bool:
    """Whether what `function` returns has to be awaited, as far as can be seen."""
    while isinstance(function, functools.partial):
        function = function.func
    import inspect  # noqa: PLC0415

    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is async
    )


def check_callback(task: str, callback: Any, *, is_awaited: bool) -> None:
    """Check the callback of a task.

    Args:
        task: The task.
        callback: The callback.
        is_awaited: Whether the worker awaits what has to be awaited.

    Raises:
        TypeError: It can't be called with a worker and a job, or by this worker.
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
    """What `callback` takes; None if it does not say."""
    # What somebody has put in place of the true one may be that of a function within.
    if getattr(callback, "__signature__", None) is not None:
        return None
    import inspect  # noqa: PLC0415

    try:
        return inspect.signature(callback, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # Many of those that are written in C.
