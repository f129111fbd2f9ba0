"""A job server in the background, for development, tests, and small use on a single machine."""

# ruff: noqa: D102 - methods inherit their documentation

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import GearmanError, HostAndPort, ServerEngine, surface
from gearman_proto.checks import to_seconds
from gearman_proto.engines.driver import BACKLOG
from gearman_proto.tls import check_context

from ._closing import load_ssl
from ._driver import Driver, rng
from ._leader import sleep_until

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

logger: Final = logging.getLogger("gearman")


class JobServer(surface.JobServer["ssl.SSLContext"]):
    """A Gearman job server in a thread of this process.

    Leaving the ``with`` stops the server. ::

        with JobServer() as server:
            client = GearmanClient([server.address])
    """

    def _gm_setup(self, options: dict[str, Any], ssl_context: ssl.SSLContext | None) -> None:
        def make_engine() -> ServerEngine:
            return ServerEngine(
                rng=rng,
                wall_clock=self._gm_wall_clock or time.time,
                host=socket.gethostname(),
                pid=os.getpid(),
                **options,
            )

        self._gm_context = check_context(ssl_context, load_ssl)
        make_engine()  # Report invalid arguments now and not in `start`.
        self._gm_make_engine = make_engine
        self._gm_driver: Driver[ServerEngine] | None = None
        self._gm_thread: threading.Thread | None = None
        self._gm_ended = threading.Event()

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

    def start(self) -> None:
        """Listen on the address, and serve in a background thread.

        Raises:
            RuntimeError: The server was started before, or the system can't start a thread.
            OSError: The server can't listen on the address.
        """
        if self._gm_driver is not None:
            raise RuntimeError("this server was started before")
        listener = _listen(self._gm_host, self._gm_port)
        driver = Driver(self._gm_make_engine)
        handshake = self._gm_context is not None

        def accept(engine: ServerEngine, peer: str, number: int, now: float) -> object:
            return engine.accept(peer, number, now, handshake=handshake)

        address = HostAndPort(*listener.getsockname()[:2])
        try:
            driver.listen(listener, accept, self._gm_context)
            thread = threading.Thread(
                target=_serve,
                args=(driver, self._gm_ended),
                name=f"gearman-server-{address.port}",
                daemon=True,
            )
            thread.start()
            self._gm_driver, self._gm_address, self._gm_thread = driver, address, thread
        except BaseException:
            driver.close()
            listener.close()
            raise

    def stop(self) -> None:
        if self._gm_driver is not None:
            self._gm_driver.close()
        self.wait()

    def wait(self, timeout: float | None = None) -> bool:
        seconds = to_seconds(timeout, "timeout")
        # After a fork, the thread is not alive in the child process.
        if self._gm_thread is None or not self._gm_thread.is_alive():
            return True
        # Before Python 3.13, an interrupted join (Ctrl-C) would mark the thread as ended.
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        while not self._gm_ended.wait(sleep_until(deadline)):
            if time.monotonic() >= deadline:
                return False
        self._gm_thread.join()
        return True


def _listen(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    return socket.create_server(where[:2], family=family, backlog=BACKLOG)


def _serve(driver: Driver[ServerEngine], ended: threading.Event) -> None:
    try:
        driver.run(ServerEngine.serve)
    except GearmanError:
        logger.exception("the job server has ended")
    finally:
        try:
            driver.close()
        finally:
            ended.set()
