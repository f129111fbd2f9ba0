"""A job server in the event loop, for development, tests, and small use on a single machine."""

# ruff: noqa: D102 - the documentation of methods is inherited

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
from anyio.abc import SocketAttribute

from gearman_proto import HostAndPort, ServerEngine, constants, surface
from gearman_proto.engines.driver import BACKLOG
from gearman_proto.tls import check_context

from . import _sockets
from ._driver import Driver, rng
from ._opening import SingleUse, SSLContext, load_ssl
from ._racing import resolve
from ._streams import accept_tls, pipe

if TYPE_CHECKING:
    import ssl
    from typing import Self

    from anyio.abc import ByteStream, TaskStatus


class JobServer(surface.JobServer[SSLContext], SingleUse[ServerEngine]):
    """A Gearman job server in this event loop, inside ``async with``.

    Leaving that stops it. ::

        async with JobServer() as server:
            async with GearmanClient([server.address]) as client:
                ...
    """

    def _gm_setup(self, options: dict[str, Any], ssl_context: ssl.SSLContext | None) -> None:
        self._gm_context = check_context(ssl_context, load_ssl)
        make_engine = functools.partial(
            ServerEngine,
            host=socket.gethostname(),
            pid=os.getpid(),
            wall_clock=self._gm_wall_clock or time.time,
            rng=rng,
            **options,
        )
        self._gm_driver = Driver(make_engine)

    async def __aenter__(self) -> Self:
        """Listen, and serve in the background.

        Raises:
            RuntimeError: It was started before.
            OSError: It can't listen there.
        """
        if self._gm_address is not None or self._gm_driver.engine.closed:
            raise RuntimeError("this server was started before, or stopped")
        listener = await _listen(self._gm_host, self._gm_port)
        self._gm_address = HostAndPort(*listener.getsockname()[:2])
        try:
            await self._gm_driver.__aenter__()
        except BaseException:
            self._gm_address = None
            _sockets.end(listener)
            raise
        secure = functools.partial(self._gm_serve, context=self._gm_context)
        self._gm_driver.listen(listener, self.handle if self._gm_context is None else secure)
        return self

    async def stop(self) -> None:
        self._gm_driver.close()
        await anyio.lowlevel.checkpoint()

    async def wait(self) -> None:
        if self._gm_address is None:
            raise RuntimeError("this server was not started")
        if self._gm_driver.engine.closed:
            await anyio.lowlevel.checkpoint()
        else:
            await self._gm_driver.run(ServerEngine.serve)

    async def handle(self, stream: ByteStream) -> None:
        """Serve a connection that the application has accepted, until it ends.

        For listeners of other kinds: ``await listener.serve(server.handle)``.

        Args:
            stream: The stream; it is closed in any case. It is taken as it is: `ssl_context` is
                for what this server accepts itself.

        Raises:
            RuntimeError: This is not inside ``async with``.
        """
        if not self._gm_driver.is_running:
            await anyio.aclose_forcefully(stream)
            raise RuntimeError("this server is not running")
        await self._gm_serve(stream, None)

    async def _gm_serve(self, stream: ByteStream, context: ssl.SSLContext | None) -> None:
        peer = "-"  # In the list of workers, where a word has to be.
        number = -1
        with contextlib.suppress(anyio.TypedAttributeLookupError, OSError):
            address = stream.extra(SocketAttribute.remote_address)
            number = stream.extra(SocketAttribute.raw_socket).fileno()
            peer = str(address[0]) if isinstance(address, tuple) else "unix"

        def accept(engine: ServerEngine, now: float) -> object:
            return engine.accept(peer, number, now, handshake=context is not None)

        secure = None if context is None else functools.partial(accept_tls, context)
        await self._gm_driver.serve(stream, accept, secure)

    async def connect(self, address: object = None) -> ByteStream:  # noqa: ARG002 - a Connector's
        """Connect within this process, without a socket: ``GearmanClient(connect=server.connect)``.

        Then nothing waits for the system, so that a test may have a clock of its own
        (`gearman_anyio.testing.virtual_clock`).

        Args:
            address: Not looked at.

        Raises:
            ConnectionRefusedError: The server is not running.
        """
        await anyio.lowlevel.checkpoint()
        if not self._gm_driver.is_running or self._gm_driver.engine.closed:
            raise ConnectionRefusedError("the job server is not running")
        near, far = pipe()
        self._gm_driver.start_soon(self.handle, far)
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


async def _listen(host: str, port: int) -> socket.socket:
    await anyio.lowlevel.checkpoint()
    found = await resolve(host, port, socket.AI_PASSIVE)
    return _sockets.listen(found[0], BACKLOG)
