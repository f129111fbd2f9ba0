"""Gearman with blocking calls.

With ``import gearman_sync as gearman``, programs for python-gearman 2.x can use this package.
"""

from __future__ import annotations

from . import _interrupts  # First: from here on, Ctrl-C ends gearmanctl silently.

# isort: split
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
    current_job,
)

from . import constants, errors, job
from ._install import install_as_gearman
from .admin import GearmanAdminClient
from .client import GearmanClient
from .server import JobServer
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
    "install_as_gearman",
    "job",
]

_interrupts.raise_once()
