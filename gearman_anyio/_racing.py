"""TCP connections to servers whose names have several addresses (`gearman_proto.engines.racing`).

Each attempt has a task. The first stream that is open, including TLS, wins. Leaving the `Tasks`
cancels the other attempts, which close their sockets.
"""

from __future__ import annotations

import contextlib
import math
import socket
from typing import TYPE_CHECKING

import anyio

from gearman_proto.engines.racing import Race
from gearman_proto.handlers import reraise_from_handler

from ._streams import end_stream, reason
from ._tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import ByteStream

    from gearman_proto import ServerAddress
    from gearman_proto.engines.racing import Found, LastGood


async def connect(
    address: ServerAddress,
    timeout: float,
    last_good: LastGood,
    attempt: Callable[[Found], Awaitable[ByteStream]],
) -> ByteStream:
    """Connect to all addresses of a server, and return the first stream that is open.

    Args:
        address: The server's address.
        timeout: Seconds within which all resolved addresses are tried.
        last_good: The last working address of each server.
        attempt: Opens a stream to an address.

    Raises:
        Exception: The host name has no address, or all attempts have failed.
    """
    racing = Race(address, await resolve(address.host, address.port), timeout, last_good)
    opened: list[ByteStream] = []
    news = anyio.Event()

    async def run(found: Found) -> None:
        try:
            stream = await attempt(found)
        except Exception as error:  # noqa: BLE001 - TLS may raise anything
            reraise_from_handler(error)
            racing.fail(found, reason(error))
        else:
            racing.won(found)
            opened.append(stream)
        news.set()

    try:
        async with Tasks() as tasks:
            while not (opened or racing.is_lost):
                while (found := racing.take(anyio.current_time())) is not None:
                    tasks.start_soon(run, found)
                start = racing.next_start
                with anyio.CancelScope(deadline=math.inf if start is None else start):
                    await news.wait()
                    news = anyio.Event()
    except BaseException:
        await _end_all(opened)
        raise
    await _end_all(opened[1:])
    if opened:
        return opened[0]
    raise racing.error()


async def _end_all(streams: list[ByteStream]) -> None:
    for stream in streams:
        await end_stream(stream)


async def resolve(host: str, port: int, flags: int = 0) -> list[Found]:
    """Return the addresses of a host. Only a host name needs a thread.

    Raises:
        OSError: The host is unknown.
        Exception: The host name is invalid, or the system has no thread left.
    """
    with contextlib.suppress(socket.gaierror):
        return socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=flags | socket.AI_NUMERICHOST
        )
    return await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
