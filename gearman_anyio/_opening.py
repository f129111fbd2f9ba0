"""A base class for clients and job servers, which are used once, inside ``async with``.

This module also opens the streams of clients and workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from gearman_proto.engines.driver import E_
from gearman_proto.tls import make_contexts

from . import _racing, _raw, _sockets, _streams

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Collection
    from types import TracebackType
    from typing import Self

    from anyio.abc import ByteStream

    from gearman_proto import ServerAddress
    from gearman_proto.engines.racing import Found, LastGood
    from gearman_proto.tls import Ssl

    from ._driver import Driver
    from ._streams import Connector

SSLContext: TypeAlias = "ssl.SSLContext"


def load_ssl() -> Ssl[SSLContext]:
    """Import `ssl`, for the functions of `gearman_proto.tls`."""
    import ssl  # noqa: PLC0415 - it is slow to import

    return ssl


def make_opener(
    addresses: Collection[ServerAddress], connect: Connector | None
) -> Callable[[Any, float], Awaitable[ByteStream]]:
    """Return a function that opens the streams of links to `addresses`, by `connect` or TCP.

    The function gets the link and the connect timeout. Within that time, it tries all addresses.
    """
    contexts = make_contexts(addresses, load_ssl)
    last_good: LastGood = {}
    if connect is not None and not callable(connect):
        raise TypeError(f"connect is a function that opens a stream, not {connect!r}")

    def open_link(link: Any, timeout: float) -> Awaitable[ByteStream]:
        address = link.address
        context = contexts.get(address)

        def attempt(found: Found) -> Awaitable[ByteStream]:
            return _streams.open_stream(address, context, _connect(found, context is None))

        if connect is not None:
            return _streams.open_stream(address, context, connect(address))
        return _racing.connect(address, timeout, last_good, attempt)

    return open_link


async def _connect(found: Found, is_plain: bool) -> ByteStream:
    sock = await _sockets.connect(found)
    return await (_raw.raw_stream if is_plain else _streams.socket_stream)(sock)


class SingleUse(Generic[E_]):
    """A base class whose `_gm_driver` runs from the beginning of ``async with`` to its end."""

    _gm_driver: Driver[E_]

    async def __aenter__(self) -> Self:
        if self._gm_driver.is_running or self._gm_driver.engine.closed:
            raise RuntimeError(f"{self!r} can be used only once")
        await self._gm_driver.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._gm_driver.close()
        await self._gm_driver.__aexit__(kind, error, traceback)

    @property
    def _gm_open(self) -> Driver[E_]:
        if not self._gm_driver.is_running:
            name = type(self).__name__
            raise RuntimeError(f"a {name} works inside `async with {name}(...) as client:` only")
        return self._gm_driver
