"""A job server in the background, for development, tests, and small use on a single machine."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from gearman_proto import constants
from gearman_proto._version import __version__
from gearman_proto.address import HostAndPort
from gearman_proto.engines.server import (
    DEFAULT_JOB_RETRIES,
    DEFAULT_MAX_MEMORY,
    DEFAULT_MAX_UNREAD,
    ServerEngine,
)
from gearman_proto.errors import GearmanError

from ._driver import Call, Driver

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from gearman_proto.engines.waits import Wait

logger: Final = logging.getLogger("gearman")

# Connections that the system keeps until they are accepted.
_BACKLOG: Final = 1024


class JobServer:
    """A Gearman job server in a thread of this process.

    It keeps nothing on disk: what is queued ends with the process. In production use gearmand with
    one of its persistent queues; for clients and workers that is another host name. ::

        with JobServer() as server:
            client = GearmanClient([server.address])

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

        def make_engine() -> ServerEngine:
            return ServerEngine(
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

        make_engine()  # Wrong arguments are wrong now, and not when it starts.
        self._make_engine = make_engine
        self._host = host
        self._port = port
        self._driver: Driver[ServerEngine] | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._address: HostAndPort | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

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

    def start(self) -> None:
        """Listen, and serve in the background.

        Raises:
            RuntimeError: It was started before.
            OSError: It can't listen there.
        """
        if self._driver is not None:
            raise RuntimeError("this server was started before")
        listener = _listen(self._host, self._port)
        driver = Driver(self._make_engine)
        driver.listen(listener, ServerEngine.accept)
        call = driver.start(lambda engine, now, wake: engine.serve(now, wake))
        self._driver = driver
        self._address = HostAndPort(*listener.getsockname()[:2])
        self._thread = threading.Thread(
            target=_serve,
            args=(driver, call, self._ended),
            name=f"gearman-server-{self._address.port}",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Close all connections and end. Calling it again does nothing."""
        if self._driver is not None:
            self._driver.close()
        self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, by `stop` or the admin command ``shutdown``.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Returns:
            Whether it has.
        """
        # In the child of a fork, the thread is not alive.
        if self._thread is None or not self._thread.is_alive():
            return True
        # A join that is interrupted (Ctrl-C) would take the thread for ended before Python 3.13.
        if not self._ended.wait(timeout):
            return False
        self._thread.join()
        return True


def _listen(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    return socket.create_server(where[:2], family=family, backlog=_BACKLOG)


def _serve(driver: Driver[ServerEngine], call: Call[Wait], ended: threading.Event) -> None:
    try:
        with call:
            call.block()
        call.wait.raise_error()
    except GearmanError:
        logger.exception("the job server has ended")
    finally:
        try:
            driver.close()
        finally:
            ended.set()
