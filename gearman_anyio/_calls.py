"""What callers await. It touches no stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol

import anyio
import anyio.lowlevel

from gearman_proto.engines.driving import W_

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from gearman_proto import Wait


class Event(Protocol):
    """What `trio.Event` and `asyncio.Event` have in common."""

    def set(self) -> object: ...
    def is_set(self) -> bool: ...
    async def wait(self) -> object: ...


class Bell:
    """Wakes those who wait for something, any number of times.

    Args:
        make_event: Makes an event of this event loop. (anyio asks each time which one that is.)
    """

    __slots__ = ("_event", "_make_event")

    def __init__(self, make_event: Callable[[], Event]) -> None:
        self._make_event = make_event
        self._event: Event | None = None

    def ring(self) -> None:
        """Wake who waits."""
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return when it rings."""
        if self._event is None or self._event.is_set():
            self._event = self._make_event()
        await self._event.wait()


class Call(Generic[W_]):
    """A call that waits for something. Leaving it as a context manager releases its Wait.

    Args:
        wait: What it waits for.
        release: Releases that.
        bell: What its `wake` rings.
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
        """Return when the Wait is ready."""
        if self.wait.ready:
            await anyio.lowlevel.checkpoint()
        while not self.wait.ready:
            await self._bell.wait()
