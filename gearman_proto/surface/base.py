"""What the classes of the surface have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

    from gearman_proto.address import ServerAddress

T_ = TypeVar("T_")
#: A server as an engine knows it: with `address`, `connected`, `gearman_host` and `gearman_port`.
ServerT = TypeVar("ServerT")
#: `ssl.SSLContext`, which the core does not import.
ContextT = TypeVar("ContextT")

#: What a method that waits returns: (blocking) this, (awaited) something that becomes this.
Waited: TypeAlias = "T_ | Awaitable[T_]"
#: What gives something several times: for ``for``, or for ``async for``.
Iterated: TypeAlias = "Iterator[T_] | AsyncIterator[T_]"


class Connected(ABC, Generic[ServerT]):
    """Something with connections to servers."""

    #: What runs the engine. Its type is the adapter's.
    _gm_driver: Any

    #: What the driver was made of.
    _gm_made_of: tuple[list[ServerAddress], dict[str, Any]]

    @abstractmethod
    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        """Make the driver, and in it an engine for these servers, with these `options`."""

    def _gm_make(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        self._gm_made_of = addresses, options
        self._gm_setup(addresses, options)

    # Copies, by `copy` and by `pickle`, are made of the same, and have a driver of their own.

    def __getstate__(self) -> dict[str, Any]:
        servers: list[Any] = self.connection_list
        if self._gm_driver.engine.closed or any(server.link is not None for server in servers):
            raise TypeError(f"{self!r} has connected, so it can't be copied or pickled any more")
        return {name: value for name, value in self.__dict__.items() if name != "_gm_driver"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._gm_setup(*self._gm_made_of)

    @property
    def connection_list(self) -> list[ServerT]:
        """The servers, each with its address and whether it is `connected` (python-gearman)."""
        return list(self._gm_driver.engine.pool.servers)

    def _gm_servers(self) -> str:
        servers: list[Any] = self.connection_list
        return ", ".join(str(server.address) for server in servers)
