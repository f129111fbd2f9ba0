"""The client (`gearman.client`) with data as str."""

from __future__ import annotations

from typing import Any

from gearman_proto.jobs.encoder import TextEncoder
from gearman_sync.compat import client
from gearman_sync.compat.client import *  # noqa: F403


class GearmanClient(client.GearmanClient):  # type: ignore[no-redef]
    """Submits jobs, as in `gearman_sync.compat`. Data, results and updates are str."""

    data_encoder: Any = TextEncoder
