"""The worker (`gearman.worker`) with data as str."""

from __future__ import annotations

from typing import Any

from gearman_proto.jobs.encoder import TextEncoder
from gearman_sync.compat import worker
from gearman_sync.compat.worker import *  # noqa: F403


class GearmanWorker(worker.GearmanWorker):  # type: ignore[no-redef]
    """Does jobs, as in `gearman_sync.compat`. Their data is str."""

    data_encoder: Any = TextEncoder
