"""What both clients have in common: each is used once, inside ``async with``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from ._driver import E_, Driver

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Opened(Generic[E_]):
    """The base of a client. Its `_driver` runs from the beginning of ``async with`` to its end."""

    _driver: Driver[E_]

    async def __aenter__(self) -> Self:
        if self._driver.is_running or self._driver.engine.closed:
            raise RuntimeError(f"{self!r} can be used only once")
        await self._driver.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._driver.close()
        await self._driver.__aexit__(kind, error, traceback)

    @property
    def _open(self) -> Driver[E_]:
        if not self._driver.is_running:
            name = type(self).__name__
            raise RuntimeError(f"a {name} works inside `async with {name}(...) as client:` only")
        return self._driver
