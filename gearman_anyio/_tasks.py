"""A task group that can be hidden behind an ``async with``, and which event loop it is on.

A task group turns whatever leaves it into an ExceptionGroup, and waits for its tasks. Neither is
for somebody who does not know that there is one: leaving `Tasks` cancels its tasks, and what the
body raises leaves it as it is. Only what a task raises has no other way out; it goes before.

A task group also has to be left by the task that entered it. pytest-asyncio enters and leaves an
async generator's fixture in different tasks, and so do some frameworks with what lives as long as
the application. On asyncio, `HostedTasks` therefore have their group in a task of their own. trio
has no task outside a nursery except its system tasks, whose exceptions end the whole program, so
there the task that enters must also leave. (pytest-trio does that.)
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import anyio.lowlevel

from gearman_proto.errors import ConnectionError

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
            await self._leave()
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

    async def _leave(self) -> None:
        await self._manager.__aexit__(None, None, None)

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Run `function` in a task of its own."""
        self._group.start_soon(function, *args)


class HostedTasks(Tasks):
    """Tasks of asyncio that another task may leave than the one that entered.

    If one of them raises or is cancelled, the others are cancelled, as in a task group, and so is
    the task that entered, if it still runs.

    Args:
        failed: Called with the exception of a task as soon as all have ended. `__aexit__` raises
            the exception too.
    """

    def __init__(self, failed: Callable[[BaseException], object] | None) -> None:
        super().__init__()
        self._failed = failed
        self._is_leaving = False
        self._has_cancelled = False

    async def __aenter__(self) -> Self:
        import asyncio  # noqa: PLC0415 - as in `native`

        self._owner: Any = asyncio.current_task()
        begun = asyncio.Event()
        self._host = asyncio.create_task(self._run(begun), name="gearman")
        self._host.add_done_callback(self._ended)
        try:
            await begun.wait()
        except BaseException:
            self._host.cancel()
            self._is_leaving = True
            with contextlib.suppress(BaseException):  # The cancellation is raised below.
                await self._leave()
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._is_leaving = True
        await super().__aexit__(kind, error, traceback)

    async def _run(self, begun: Event) -> None:
        async with self._manager as self._group:
            begun.set()
            await anyio.sleep_forever()

    async def _leave(self) -> None:
        import asyncio  # noqa: PLC0415 - as in `native`

        cancellation = None
        while not self._host.done():
            try:
                await asyncio.wait([self._host])
            except asyncio.CancelledError as error:
                # The tasks are about to end, and none may outlive this.
                cancellation = error
        if self._has_cancelled and self._owner is asyncio.current_task():
            asyncio.current_task().uncancel()  # type: ignore[union-attr]
        if not self._host.cancelled():  # It is where the event loop ends.
            self._host.result()
        if cancellation is not None:
            raise cancellation

    def _ended(self, host: Any) -> None:
        if self._is_leaving:
            return
        # Without an exception, something has cancelled one of them, as the end of the loop does.
        error = None if host.cancelled() else host.exception()
        if self._failed is not None:
            self._failed(error or ConnectionError("its tasks were cancelled"))
        # It may be waiting for something else than these tasks. If it has ended, this does nothing.
        self._has_cancelled = self._owner.cancel()


def hosted_tasks(failed: Callable[[BaseException], object] | None = None) -> Tasks:
    """Return tasks that any task may leave, where the event loop has such: see `HostedTasks`."""
    return HostedTasks(failed) if is_asyncio() else Tasks()


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
