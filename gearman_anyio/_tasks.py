"""Task groups that an ``async with`` can hide, and functions that depend on the event loop.

A task group wraps exceptions in an ExceptionGroup, and waits for its tasks. Both would surprise a
user who does not know that an object has a task group. Leaving `Tasks` cancels the tasks, and an
exception of the body propagates unchanged. An exception of a task has no other way to the user, so
it takes precedence.

A task group also has to be left by the task that entered it. pytest-asyncio enters and leaves an
async generator's fixture in different tasks. So do some frameworks with objects that live as long
as the application. On asyncio, `HostedTasks` therefore run their group in a task of its own. trio
has no task outside a nursery except its system tasks, whose exceptions end the whole program. On
trio, the task that enters must therefore also leave. (pytest-trio does that.)
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import anyio.lowlevel

from gearman_proto.errors import ConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from ._calls import Event


class Tasks:
    """Tasks that run as long as the body of an ``async with``."""

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
            # Don't pass `error` to the group, which would wrap it.
            await self._leave()
        except anyio.get_cancelled_exc_class():
            if error is None:
                raise
        except BaseExceptionGroup as group:
            errors += _others(group)
            if error is None and not errors:
                # This task is cancelled. Raise its cancellation alone.
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
    """Tasks on asyncio that any task can leave, not only the one that entered.

    If one of the tasks raises or is cancelled, the others are cancelled, as in a task group. The
    task that entered is cancelled as well, if it is still running.

    Args:
        failed: Called with a task's exception when all tasks have ended. `__aexit__` raises the
            exception too.
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
                # Keep waiting: the tasks are ending, and none may outlive this call.
                cancellation = error
        if self._has_cancelled and self._owner is asyncio.current_task():
            asyncio.current_task().uncancel()  # type: ignore[union-attr]
        if not self._host.cancelled():  # The end of the event loop cancels it.
            self._host.result()
        if cancellation is not None:
            raise cancellation

    def _ended(self, host: Any) -> None:
        if self._is_leaving:
            return
        # Without an exception, a task was cancelled, by the end of the event loop, for example.
        error = None if host.cancelled() else host.exception()
        if self._failed is not None:
            self._failed(error or ConnectionError("its tasks were cancelled"))
        # The owner may be waiting for something unrelated. If it has ended, this has no effect.
        self._has_cancelled = self._owner.cancel()


def hosted_tasks(failed: Callable[[BaseException], object] | None = None) -> Tasks:
    """Return tasks that any task can leave, if the event loop allows that: see `HostedTasks`."""
    return HostedTasks(failed) if is_asyncio() else Tasks()


class Use:
    """A period in which a worker's driver runs, for `work` or for calls of `grab`.

    Attributes:
        ending: Set if the period ends once the engine is idle.
        ended: Set at the end.
    """

    def __init__(self) -> None:
        self.ending: anyio.Event = anyio.Event()
        self.ended: anyio.Event = anyio.Event()

    async def keep(self, manager: AbstractAsyncContextManager[Any]) -> None:
        """Keep `manager` open until `ending` is set."""
        with self:
            async with manager:
                await self.ending.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.ended.set()


def _open_group() -> Any:
    if is_asyncio():
        return anyio.create_task_group()
    import trio  # noqa: PLC0415 - it is imported already; on asyncio it might not be

    # anyio's task group wraps a nursery. For each task, it creates a scope, an event and a handle,
    # which this package does not need, and which take longer than the task itself.
    return trio.open_nursery(strict_exception_groups=True)


def _raise_again(error: BaseException) -> NoReturn:
    """Raise `error` with its own context: no exception that is handled here has caused it."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error  # Break the cycle: its traceback refers to this frame.


def _others(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Yield the exceptions in `group` and in nested groups, except cancellations."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _others(error)
        elif not isinstance(error, anyio.get_cancelled_exc_class()):
            yield error


def is_asyncio() -> bool:
    """Return True on asyncio and its replacements, False on trio."""
    return anyio.get_cancelled_exc_class().__module__.startswith("asyncio")


def make_call_soon() -> Callable[[Callable[[], object]], object]:
    """Return a function that lets this event loop call another one soon.

    Signal handlers can call it, even if the event loop sleeps.
    """
    if is_asyncio():
        import asyncio  # noqa: PLC0415 - as in `native`

        return asyncio.get_running_loop().call_soon_threadsafe
    import trio  # noqa: PLC0415 - as in `native`

    return trio.lowlevel.current_trio_token().run_sync_soon


def native() -> tuple[Callable[[], float], Callable[[], Event]]:
    """Return the clock that `anyio.current_time` reads on this event loop, and its events."""
    # Imported here: the running event loop's package is installed, the other one might not be.
    if is_asyncio():
        import asyncio  # noqa: PLC0415

        return asyncio.get_running_loop().time, asyncio.Event
    import trio  # noqa: PLC0415

    return trio.current_time, trio.Event
