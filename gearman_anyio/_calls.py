"""What callers await: a call, or the items that one gives. Neither touches a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import anyio
import anyio.lowlevel

from gearman_proto.engines.driving import T_, W_

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from gearman_proto import Engine, Stream, Wait
    from gearman_proto.engines.driving import Begin

E_co = TypeVar("E_co", bound="Engine[Any]", covariant=True)


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


class _Driver(Protocol[E_co]):
    """What Items need of a Driver."""

    def start(self, begin: Begin[E_co, W_]) -> Call[W_]: ...
    def release(self, wait: Wait) -> None: ...
    def release_soon(self, wait: Wait) -> None: ...


class Items(Generic[T_]):
    """What a Stream gives, for ``async for``.

    Not a generator: one that is not used up would have to be closed by whoever used it, and
    a cancelled `__anext__` would end it.

    Args:
        driver: The driver.
        begin: As for `Driver.start`; called by the first `__anext__`.
    """

    def __init__(self, driver: _Driver[E_co], begin: Begin[E_co, Stream]) -> None:
        self._driver = driver
        self._begin = begin
        self._call: Call[Stream] | None = None
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_:
        await anyio.lowlevel.checkpoint()
        if self._call is None and not self._is_over:
            self._call = self._driver.start(self._begin)
        while not self._is_over:
            assert self._call is not None
            stream = self._call.wait
            done = stream.done
            try:
                item = stream.take()
                if item is None and done:
                    stream.raise_error()
            except Exception:
                self._end()
                raise
            if item is not None:
                return item  # type: ignore[no-any-return] # what `begin` makes gives these
            if done:
                self._end()
            else:
                await self._call.block()
        raise StopAsyncIteration

    def _end(self) -> None:
        self._is_over = True
        call, self._call = self._call, None
        if call is not None:
            self._driver.release(call.wait)

    def __del__(self) -> None:
        if self._call is not None:
            self._driver.release_soon(self._call.wait)
