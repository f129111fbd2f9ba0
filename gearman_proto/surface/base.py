"""What the classes of the surface have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
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
#: Begins a call: gets the engine, the time and a `wake`, and returns the call's Wait.
Begin: TypeAlias = Callable[[Any, float, Callable[[], Any]], Any]


class Connected(ABC, Generic[ServerT]):
    """Something with connections to servers."""

    #: What runs the engine. Its type is the adapter's.
    _driver: Any

    @abstractmethod
    def _setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        """Make the driver, and in it an engine for these servers, with these `options`."""

    @property
    def connection_list(self) -> list[ServerT]:
        """The servers, each with its address and whether it is `connected` (python-gearman)."""
        return list(self._driver.engine.pool.servers)

    def _servers(self) -> str:
        servers: list[Any] = self.connection_list
        return ", ".join(str(server.address) for server in servers)
