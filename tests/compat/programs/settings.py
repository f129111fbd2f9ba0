"""Settings for all connections of a program."""

# ruff: noqa: E402

import gearman_sync

gearman_sync.install_as_gearman()

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


class GearmanAdminClient(gearman.GearmanAdminClient):  # type: ignore[misc]
    connection_class = GearmanConnection
