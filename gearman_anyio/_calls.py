"""Calls, the bells that callers await, and work in steps. This module uses no streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol

import anyio
import anyio.lowlevel

from gearman_proto.engines.driver import T_, W_

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from gearman_proto import Wait
    from gearman_proto.jobs.submitting import Steps


class Event(Protocol):
    """The common interface of `trio.Event` and `asyncio.Event`."""

    def set(self) -> object: ...
    def is_set(self) -> bool: ...
    async def wait(self) -> object: ...


class Bell:
    """A wake-up call for waiting tasks, which can ring any number of times.

    Args:
        make_event: Makes an event of this event loop. (anyio's Event looks up the loop each time.)
    """

    __slots__ = ("_event", "_make_event")

    def __init__(self, make_event: Callable[[], Event]) -> None:
        self._make_event = make_event
        self._event: Event | None = None

    def ring(self) -> None:
        """Wake the waiting tasks."""
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Wait until the bell rings."""
        if self._event is None or self._event.is_set():
            self._event = self._make_event()
        await self._event.wait()


class Call(Generic[W_]):
    """A call that waits for the engine. Leaving it as a context manager releases its Wait.

    Args:
        wait: The engine's Wait.
        release: Releases the Wait.
        bell: The Bell that the Wait's `wake` rings.
    """

    def __init__(self, wait: W_, release: Callable[[Wait], object], bell: Bell) -> None:
        self.wait: W_ = wait
        self._release = release
        self._bell = bell

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._release(self.wait)

    async def block(self) -> None:
        """Wait until the Wait is ready."""
        if self.wait.ready:
            await anyio.lowlevel.checkpoint()
        while not self.wait.ready:
            await self._bell.wait()


async def in_steps(steps: Steps[T_]) -> T_:
    """Do `steps`, let other tasks run after each, and return their value."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T_ = end.value
            return value
        await anyio.lowlevel.checkpoint()
