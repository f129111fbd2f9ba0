"""Jobs, requests and updates: the objects that applications hold."""

from __future__ import annotations

from .batch import Batch
from .job import DeferredJob, GearmanJob, WorkerJob
from .request import GearmanJobRequest, ended, next_update
from .submitting import JobDict, make_requests, prepare
from .updates import JobData, JobEnded, JobProgress, JobStatus, JobUpdate, JobWarning, UpdateQueue

__all__ = [
    "Batch",
    "DeferredJob",
    "GearmanJob",
    "GearmanJobRequest",
    "JobData",
    "JobDict",
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
