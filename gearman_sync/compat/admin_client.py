"""The admin client (`gearman.admin_client`): rows are dicts, with python-gearman's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import gearman_sync.admin
from gearman_proto.constants import DEFAULT_ADMIN_TIMEOUT
from gearman_proto.errors import ConnectionError, InvalidAdminClientState, ServerUnavailable

from .connection_manager import GearmanConnectionManager

if TYPE_CHECKING:
    from gearman_proto import Server

    from .connection import GearmanConnection

__all__ = [
    "DEFAULT_ADMIN_CLIENT_TIMEOUT",
    "ConnectionError",
    "GearmanAdminClient",
    "GearmanConnectionManager",
    "InvalidAdminClientState",
    "ServerUnavailable",
]

DEFAULT_ADMIN_CLIENT_TIMEOUT: Final = DEFAULT_ADMIN_TIMEOUT


class GearmanAdminClient(GearmanConnectionManager, gearman_sync.admin.GearmanAdminClient):
    """Asks one Gearman server about itself (python-gearman: `GearmanAdminClient`)."""

    def _servers_of(self, driver: Any) -> list[Server]:
        return [driver.engine.server]

    @property
    def current_connection(self) -> GearmanConnection:
        """The connection to the server."""
        connection: GearmanConnection = self.connection_list[0]
        return connection

    def establish_admin_connection(self) -> None:
        """Connect to the server. Raises what `ping_server` does."""
        self.ping_server()

    def get_status(self) -> tuple[dict[str, Any], ...]:  # type: ignore[override]
        """Ask for all functions: dicts with `task`, `queued`, `running` and `workers`."""
        return tuple(dict(record) for record in super().get_status())

    def get_workers(self) -> tuple[dict[str, Any], ...]:  # type: ignore[override]
        """Ask for all connections: dicts with `file_descriptor`, `ip`, `client_id` and `tasks`.

        The first is text, as in python-gearman.
        """
        return tuple(
            {**record, "file_descriptor": str(record.file_descriptor)}
            for record in super().get_workers()
        )

    def get_jobs(self) -> tuple[dict[str, Any], ...]:  # type: ignore[override]
        """Ask for all jobs: dicts with `handle`, `queued`, `canceled` and `enabled`.

        These are the names that python-gearman has for a job's retries, whether it is ignored, and
        whether it is queued.
        """
        return tuple(
            {
                "handle": record.handle,
                "queued": record.retries,
                "canceled": int(record.ignored),
                "enabled": int(record.queued),
            }
            for record in super().get_jobs()
        )

    def get_unique_jobs(self) -> tuple[dict[str, Any], ...]:  # type: ignore[override]
        """Ask for the uniques of all jobs: dicts with `unique`."""
        return tuple({"unique": unique} for unique in super().get_unique_jobs())

    def get_pid(self) -> str:  # type: ignore[override]
        """Ask for the number of the server's process. Returns the server's line, ``OK 4711``."""
        return f"OK {super().get_pid()}"
