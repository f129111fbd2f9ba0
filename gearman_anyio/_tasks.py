"""A task group that can be hidden behind an ``async with``, and which event loop it is on.

A task group turns whatever leaves it into an ExceptionGroup, and waits for its tasks. Neither is
for somebody who does not know that there is one: leaving `Tasks` cancels its tasks, and what the
body raises leaves it as it is. Only what a task raises has no other way out; it goes before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Self

    from ._calls import Event


class Tasks:
    """Tasks that run as long as the body of an ``async with`` does."""

    def __init__(self) -> None:
        self._manager = _open_group()
        self._group: Any = None

    async def __aenter__(self) -> Self:
        self._group = await self._manager.__aenter__()
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._group.cancel_scope.cancel()
        errors: list[BaseException] = []
        try:
            # The group is not told of `error`: it would come out in another form.
            await self._manager.__aexit__(None, None, None)
        except anyio.get_cancelled_exc_class():
            if error is None:
                raise
        except BaseExceptionGroup as group:
            errors += _others(group)
            if error is None and not errors:
                # This task is cancelled, and is to be told so by one exception.
                await anyio.lowlevel.checkpoint()
            if len(errors) > 1 or (error is None and not errors):
                raise
        if errors:
            _raise_again(errors.pop())

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Run `function` in a task of its own."""
        self._group.start_soon(function, *args)


def _open_group() -> Any:
    if is_asyncio():
        return anyio.create_task_group()
    import trio  # noqa: PLC0415 - it is there, and on asyncio it may not be

    # anyio's is one of these. For each task it makes a scope, an event and a handle, which nobody
    # here asks for, and which take longer than the task.
    return trio.open_nursery(strict_exception_groups=True)


def _raise_again(error: BaseException) -> NoReturn:
    """Raise `error` with the past that it has: nothing here is what it came of."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error  # It has a traceback with this frame.


def _others(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in `group`, and in groups in it, that are not mere cancellation."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _others(error)
        elif not isinstance(error, anyio.get_cancelled_exc_class()):
            yield error


def is_asyncio() -> bool:
    """Whether this event loop is asyncio's, or one like it, and not trio's."""
    return anyio.get_cancelled_exc_class().__module__.startswith("asyncio")


def native() -> tuple[Callable[[], float], Callable[[], Event]]:
    """Return the clock that `anyio.current_time` reads on this event loop, and its events."""
    # Imported here: whichever runs this is there, and the other one may not be.
    if is_asyncio():
        import asyncio  # noqa: PLC0415

        return asyncio.get_running_loop().time, asyncio.Event
    import trio  # noqa: PLC0415

    return trio.current_time, trio.Event
