"""A worker that continues after its server was down, and settings for all connections."""

# ruff: noqa: E402, TRY300

import gearman_sync

gearman_sync.install_as_gearman()

import logging
from collections.abc import Callable
from typing import Any

import gearman
from gearman.connection import GearmanConnection as BaseGearmanConnection


class GearmanConnection(BaseGearmanConnection):  # type: ignore[misc]
    connect_timeout = 5.0
    keepalive = True
    keepalive_idle = 60
    keepalive_interval = 11
    keepalive_count = 4


class GearmanClient(gearman.GearmanClient):  # type: ignore[misc]
    connection_class = GearmanConnection


class GearmanWorker(gearman.GearmanWorker):  # type: ignore[misc]
    connection_class = GearmanConnection

    def work_with_reconnect(
        self,
        shutdown_event: Any,
        logger: logging.Logger,
        *,
        poll_timeout: float = 5.0,
        delay: float = 0.01,
        on_connection_unavailable: Callable[[], None] | None = None,
    ) -> None:
        unavailable = False
        while not shutdown_event.is_set():
            if self.establish_worker_connections():
                if unavailable:
                    logger.info("reconnected")
                    unavailable = False
                try:
                    self.work(poll_timeout=poll_timeout)
                    return
                except gearman.errors.ServerUnavailable as caught_error:
                    connection_error = caught_error
            else:
                connection_error = gearman.errors.ServerUnavailable(
                    f"Found no valid connections in list: {self.connection_list!r}"
                )
            if not unavailable:
                logger.warning("unavailable: %s", connection_error)
                unavailable = True
                if on_connection_unavailable is not None:
                    on_connection_unavailable()
            if shutdown_event.wait(delay):
                return
