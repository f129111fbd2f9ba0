"""Gearman with blocking calls.

``import gearman_sync as gearman`` runs a python-gearman 2.x program.
"""

from __future__ import annotations

from gearman_proto._version import __version__
from gearman_proto.address import HostAndPort
from gearman_proto.admin import FunctionStatus, JobRecord, PriorityStatus, WorkerStatus
from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
)
from gearman_proto.encoder import DataEncoder
from gearman_proto.job import (
    GearmanJob,
    GearmanJobRequest,
    JobData,
    JobEnded,
    JobProgress,
    JobStatus,
    JobUpdate,
    JobWarning,
)
from gearman_proto.worker import WorkerJob

from . import constants, errors, job
from .admin import GearmanAdminClient
from .client import GearmanClient
from .server import JobServer
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
    "DataEncoder",
    "FunctionStatus",
    "GearmanAdminClient",
    "GearmanClient",
    "GearmanJob",
    "GearmanJobRequest",
    "GearmanWorker",
    "HostAndPort",
    "JobData",
    "JobEnded",
    "JobProgress",
    "JobRecord",
    "JobServer",
    "JobStatus",
    "JobUpdate",
    "JobWarning",
    "PriorityStatus",
    "WorkerJob",
    "WorkerStatus",
    "__version__",
    "constants",
    "errors",
    "job",
]
