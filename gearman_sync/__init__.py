"""Gearman with blocking calls.

``import gearman_sync as gearman`` runs a python-gearman 2.x program.
"""

from __future__ import annotations

from gearman_proto._version import __version__
from gearman_proto.address import HostAndPort
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
from gearman_proto.jobs.assigned import WorkerJob
from gearman_proto.jobs.encoder import DataEncoder
from gearman_proto.jobs.job import GearmanJob
from gearman_proto.jobs.request import GearmanJobRequest, JobStatus
from gearman_proto.jobs.updates import JobData, JobEnded, JobProgress, JobUpdate, JobWarning
from gearman_proto.wire.text import FunctionStatus, JobRecord, PriorityStatus, WorkerStatus

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
