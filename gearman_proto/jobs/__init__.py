"""What applications hold: jobs, requests, and what comes of them."""

from __future__ import annotations

from .assigned import WorkerJob
from .job import GearmanJob
from .request import GearmanJobRequest, JobStatus, ended, next_update
from .submitting import make_requests, prepare
from .updates import JobData, JobEnded, JobProgress, JobUpdate, JobWarning, UpdateQueue

__all__ = [
    "GearmanJob",
    "GearmanJobRequest",
    "JobData",
    "JobEnded",
    "JobProgress",
    "JobStatus",
    "JobUpdate",
    "JobWarning",
    "UpdateQueue",
    "WorkerJob",
    "ended",
    "make_requests",
    "next_update",
    "prepare",
]
