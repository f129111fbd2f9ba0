"""The admin client (`gearman.admin_client`), whose rows are dicts with python-gearman's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import gearman_sync.admin
from gearman_proto.constants import DEFAULT_ADMIN_TIMEOUT
from gearman_proto.errors import *  # noqa: F403 - python-gearman's module has them

from .connection_manager import GearmanConnectionManager

if TYPE_CHECKING:
    from gearman_proto import Server

    from .connection import GearmanConnection


DEFAULT_ADMIN_CLIENT_TIMEOUT: Final = DEFAULT_ADMIN_TIMEOUT


class GearmanAdminClient(GearmanConnectionManager, gearman_sync.admin.GearmanAdminClient):
    """A client for the admin commands of one server (python-gearman: `GearmanAdminClient`)."""

    @staticmethod
    def _gm_servers_of(engine: Any) -> list[Server]:
        return [engine.server]

    @property
    def current_connection(self) -> GearmanConnection:
        """The connection to the server."""
        connection: GearmanConnection = self.connection_list[0]
        return connection

    def establish_admin_connection(self) -> None:
        """Connect to the server.

        Raises the same exceptions as `ping_server`.
        """
        self.ping_server()

    def get_status(self) -> tuple[dict[str, Any], ...]:  # type: ignore[override]
        """Return all functions: dicts with `task`, `queued`, `running` and `workers`."""
        return tuple(dict(record) for record in super().get_status())

    def get_workers(self) -> tuple[dict[str, Any], ...]:  # type: ignore[override]
        """Return all connections: dicts with `file_descriptor`, `ip`, `client_id` and `tasks`.

        The file descriptor is text, as in python-gearman.
        """
        return tuple(
            {**record, "file_descriptor": str(record.file_descriptor)}
            for record in super().get_workers()
        )

    def get_jobs(self) -> tuple[dict[str, Any], ...]:  # type: ignore[override]
        """Return all jobs: dicts with `handle`, `queued`, `canceled` and `enabled`.

        With these names, python-gearman reports the number of the job's retries, whether it is
        ignored, and whether it is queued.
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
        """Return the uniques of all jobs: dicts with `unique`."""
        return tuple({"unique": unique} for unique in super().get_unique_jobs())

    def get_pid(self) -> str:  # type: ignore[override]
        """Return the server's process id, as the server's line ``OK 4711``."""
        return f"OK {super().get_pid()}"
