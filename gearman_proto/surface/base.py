"""The common base of the client, the worker and the admin client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

from gearman_proto.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Generator,
        Iterable,
        Iterator,
    )

    from gearman_proto.address import ServerAddress

T_ = TypeVar("T_")
#: A server as an engine knows it: with `address`, `connected`, `gearman_host` and `gearman_port`.
ServerT = TypeVar("ServerT")
#: `ssl.SSLContext`, which the core does not import.
ContextT = TypeVar("ContextT")

#: The result of a waiting method. (blocking) The value itself. (awaited) An awaitable of it.
Waited: TypeAlias = "T_ | Awaitable[T_]"
#: The result of a generator method, for ``for`` or ``async for``.
Iterated: TypeAlias = "Iterator[T_] | AsyncIterator[T_]"
#: The result of a generator method that the caller can close.
Generated: TypeAlias = "Generator[T_, None, None] | AsyncGenerator[T_, None]"
#: A stream of values. (awaited) It can be async.
Streamed: TypeAlias = "Iterable[T_] | AsyncIterable[T_]"


class Connected(ABC, Generic[ServerT]):
    """An object with connections to servers."""

    #: The driver, which runs the engine. Each adapter has its own driver class.
    _gm_driver: Any

    #: True if `host_list` must not be empty.
    _gm_needs_servers: ClassVar[bool] = True

    #: The addresses and options of the driver, to make another one for a copy.
    _gm_made_of: tuple[list[ServerAddress], dict[str, Any]]

    @abstractmethod
    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        """Create the driver, with an engine for `addresses` that has these `options`."""

    def _gm_make(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        if self._gm_needs_servers and not addresses:
            raise ArgumentValueError(
                "host_list is empty: it must have at least one server, such as 'localhost:4730'"
            )
        self._gm_made_of = addresses, options
        self._gm_setup(addresses, options)

    # A copy, from `copy` or `pickle`, has the same addresses and options, and its own driver.

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
        """The servers, with their addresses and `connected` flags (python-gearman)."""
        return list(self._gm_driver.engine.pool.servers)

    def _gm_servers(self) -> str:
        servers: list[Any] = self.connection_list
        return ", ".join(str(server.address) for server in servers)
