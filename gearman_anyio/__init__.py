"""Gearman for trio and asyncio.

The classes and methods are those of `gearman_sync`, but async: ``async with GearmanClient([...]) as
client:``.
"""

from __future__ import annotations

try:
    import anyio as _anyio  # noqa: F401 - only for a clear error message
except ModuleNotFoundError as _missing:
    if _missing.name != "anyio":
        raise
    raise ModuleNotFoundError(
        "gearman_anyio needs anyio, which is not installed: "
        "pip install 'gearman-sansio[anyio]', or pip install anyio",
        name="anyio",
    ) from None

from gearman_proto import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
    Batch,
    DataEncoder,
    DeferredJob,
    FunctionStatus,
    GearmanJob,
    GearmanJobRequest,
    HostAndPort,
    JobData,
    JobDict,
    JobEnded,
    JobLogFilter,
    JobProgress,
    JobRecord,
    JobStatus,
    JobUpdate,
    JobWarning,
    JSONEncoder,
    PriorityStatus,
    TextEncoder,
    WorkerJob,
    WorkerStatus,
    __version__,
    constants,
    current_job,
    errors,
)
from gearman_proto import jobs as job

from .admin import GearmanAdminClient
from .client import GearmanClient
from .server import JobServer, serve
from .tasks import Tasks
from .worker import GearmanWorker

__all__ = [
    "JOB_COMPLETE",
    "JOB_CREATED",
    "JOB_FAILED",
    "JOB_PENDING",
    "JOB_UNKNOWN",
    "PRIORITY_HIGH",
    "PRIORITY_LOW",
    "PRIORITY_NONE",
    "Batch",
    "DataEncoder",
    "DeferredJob",
    "FunctionStatus",
    "GearmanAdminClient",
    "GearmanClient",
    "GearmanJob",
    "GearmanJobRequest",
    "GearmanWorker",
    "HostAndPort",
    "JSONEncoder",
    "JobData",
    "JobDict",
    "JobEnded",
    "JobLogFilter",
    "JobProgress",
    "JobRecord",
    "JobServer",
    "JobStatus",
    "JobUpdate",
    "JobWarning",
    "PriorityStatus",
    "Tasks",
    "TextEncoder",
    "WorkerJob",
    "WorkerStatus",
    "__version__",
    "constants",
    "current_job",
    "errors",
    "job",
    "serve",
]
