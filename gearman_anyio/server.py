"""A job server in the event loop, for development, tests, and small use on a single machine."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel
from anyio.abc import SocketAttribute, SocketListener

from gearman_proto import constants
from gearman_proto._version import __version__
from gearman_proto.address import HostAndPort
from gearman_proto.engines.server import (
    DEFAULT_JOB_RETRIES,
    DEFAULT_MAX_MEMORY,
    DEFAULT_MAX_UNREAD,
    ServerEngine,
)

from ._driver import Driver
from ._streams import pipe

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from anyio.abc import ByteStream, TaskStatus

# Connections that the system keeps until they are accepted.
_BACKLOG: Final = 1024


class JobServer:
    """A Gearman job server in this event loop, inside ``async with``.

    It keeps nothing on disk: what is queued ends with the process. In production use gearmand with
    one of its persistent queues; for clients and workers that is another host name. ::

        async with JobServer() as server:
            async with GearmanClient([server.address]) as client:
                ...

    Args:
        host: The address to listen on; a name is resolved.
        port: The port to listen on; 0 for any that is free.
        job_retries: How often a job is run again because its worker was lost or took too long; None
            for any number. Then it fails.
        max_packet_size: Bytes. A peer that sends a larger packet is cut off.
        max_unread: Bytes. A peer is cut off that leaves more unread of what was sent to it.
        max_memory: Bytes, for all jobs and packets together. Jobs may take three quarters of it,
            one job a quarter; submits beyond that are refused.
        max_queue_size: How many jobs a function may have, unless the admin command ``maxqueue``
            says otherwise; 0 for any number.
        exceptions: Whether all clients get the data of exceptions, and not only those that asked.

    Raises:
        ValueError: An argument has a value that can't be.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        job_retries: int | None = DEFAULT_JOB_RETRIES,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
        max_unread: int = DEFAULT_MAX_UNREAD,
        max_memory: int = DEFAULT_MAX_MEMORY,
        max_queue_size: int = 0,
        exceptions: bool = False,
    ) -> None:
        if not 0 <= port < 65536:
            raise ValueError(f"port {port} is not between 0 and 65535")
        engine = ServerEngine(
            rng=random.SystemRandom(),
            wall_clock=time.time,
            pid=os.getpid(),
            version=f"gearman-sansio-{__version__}",
            job_retries=job_retries,
            max_packet_size=max_packet_size,
            max_unread=max_unread,
            max_memory=max_memory,
            max_queue_size=max_queue_size,
            exceptions=exceptions,
        )
        self._host = host
        self._port = port
        self._driver = Driver(engine)
        self._address: HostAndPort | None = None

    async def __aenter__(self) -> Self:
        """Listen, and serve in the background.

        Raises:
            RuntimeError: It was started before.
            OSError: It can't listen there.
        """
        if self._address is not None or self._driver.engine.closed:
            raise RuntimeError("this server was started before, or stopped")
        listener = await _listen(self._host, self._port)
        self._address = HostAndPort(*listener.extra(SocketAttribute.local_address)[:2])
        await self._driver.__aenter__()
        self._driver.listen(listener, self.handle)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._driver.close()
        await self._driver.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<JobServer {self._address or 'not started'}>"

    @property
    def address(self) -> HostAndPort:
        """Its host and port, as GearmanClient and GearmanWorker take them in their `host_list`.

        Raises:
            RuntimeError: It was not started.
        """
        if self._address is None:
            raise RuntimeError("this server was not started")
        return self._address

    async def stop(self) -> None:
        """Close all connections and end. Leaving ``async with`` does it, too."""
        self._driver.close()
        await anyio.lowlevel.checkpoint()

    async def wait(self) -> None:
        """Wait until it has ended, by `stop` or the admin command ``shutdown``.

        Raises:
            RuntimeError: It was not started.
        """
        if self._address is None:
            raise RuntimeError("this server was not started")
        if self._driver.engine.closed:
            await anyio.lowlevel.checkpoint()
        else:
            await self._driver.run(lambda engine, now, wake: engine.serve(now, wake))

    async def handle(self, stream: ByteStream) -> None:
        """Serve a connection that somebody else has accepted, until it ends.

        For listeners of other kinds: ``await listener.serve(server.handle)``.

        Args:
            stream: The stream; it is closed in any case.

        Raises:
            RuntimeError: This is not inside ``async with``.
        """
        if not self._driver.is_running:
            await anyio.aclose_forcefully(stream)
            raise RuntimeError("this server is not running")
        peer = "-"  # In the list of workers, where a word has to be.
        number = -1
        with contextlib.suppress(anyio.TypedAttributeLookupError, OSError):
            address = stream.extra(SocketAttribute.remote_address)
            number = stream.extra(SocketAttribute.raw_socket).fileno()
            peer = str(address[0]) if isinstance(address, tuple) else "unix"
        await self._driver.serve(stream, lambda engine, now: engine.accept(peer, number, now))

    async def connect(self, address: object = None) -> ByteStream:  # noqa: ARG002 - a Connector's
        """Connect within this process, without a socket: ``GearmanClient(connect=server.connect)``.

        Then nothing waits for the system, so that a test may have a clock of its own
        (`trio.testing.MockClock`).

        Args:
            address: Not looked at.

        Raises:
            ConnectionRefusedError: The server is not running.
        """
        await anyio.lowlevel.checkpoint()
        if not self._driver.is_running or self._driver.engine.closed:
            raise ConnectionRefusedError("the job server is not running")
        near, far = pipe()
        self._driver.start_soon(self.handle, far)
        return near


async def serve(
    host: str = "127.0.0.1",
    port: int = constants.DEFAULT_GEARMAN_PORT,
    *,
    task_status: TaskStatus[JobServer] = anyio.TASK_STATUS_IGNORED,
    **options: Any,
) -> None:
    """Run a JobServer until it is cancelled, or told to end by the admin command ``shutdown``.

    ``server = await task_group.start(serve)`` returns when it listens.

    Args:
        host: The address to listen on.
        port: The port to listen on; 0 for any that is free.
        task_status: Gets the server.
        options: The other arguments of JobServer.

    Raises:
        OSError: It can't listen there.
        TypeError, ValueError: As JobServer.
    """
    async with JobServer(host, port, **options) as server:
        task_status.started(server)
        await server.wait()


async def _listen(host: str, port: int) -> SocketListener:
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    address = found[0][4][0]
    listeners = await anyio.create_tcp_listener(
        local_host=address, local_port=port, backlog=_BACKLOG
    )
    (listener,) = listeners.listeners
    assert isinstance(listener, SocketListener)
    return listener
