"""The Gearman protocol without I/O, for event loops of any kind.

Tier 1 is `Connection`: the bytes of one connection to events, and back. Tier 2 are the engines,
which decide everything that a client, a worker or a job server has to decide; see `ClientEngine`,
`WorkerEngine`, `AdminEngine`, `ServerEngine` and `engine`.
"""

from __future__ import annotations

from . import admin, constants, encoder, errors, events, job
from ._version import __version__
from .address import ServerAddress, parse_address, parse_host_list
from .admin import FunctionStatus, JobRecord, PriorityStatus, WorkerStatus
from .admin_engine import AdminEngine, AdminLink, Question
from .client import ClientEngine, ClientLink
from .connection import NEED_DATA, Connection
from .constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
)
from .encoder import DataEncoder, NoopEncoder
from .engine import Action, Close, Connect, Engine, StopListening
from .errors import (
    ConnectionError,
    ExceededConnectionAttempts,
    GearmanError,
    InvalidAdminClientState,
    InvalidClientState,
    InvalidWorkerState,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    ServerError,
    ServerUnavailable,
    UnknownCommandError,
)
from .job import (
    GearmanJob,
    GearmanJobRequest,
    JobData,
    JobEnded,
    JobProgress,
    JobStatus,
    JobUpdate,
    JobWarning,
    UpdateQueue,
)
from .packets import PACKETS, PacketType, Role
from .server import ServerEngine, ServerLink
from .servers import Server
from .waits import Stream, Wait
from .worker import WorkerEngine, WorkerJob, WorkerLink

__all__ = [
    "JOB_COMPLETE",
    "JOB_CREATED",
    "JOB_FAILED",
    "JOB_PENDING",
    "JOB_UNKNOWN",
    "NEED_DATA",
    "PACKETS",
    "PRIORITY_HIGH",
    "PRIORITY_LOW",
    "PRIORITY_NONE",
    "Action",
    "AdminEngine",
    "AdminLink",
    "ClientEngine",
    "ClientLink",
    "Close",
    "Connect",
    "Connection",
    "ConnectionError",
    "DataEncoder",
    "Engine",
    "ExceededConnectionAttempts",
    "FunctionStatus",
    "GearmanError",
    "GearmanJob",
    "GearmanJobRequest",
    "InvalidAdminClientState",
    "InvalidClientState",
    "InvalidWorkerState",
    "JobData",
    "JobEnded",
    "JobProgress",
    "JobRecord",
    "JobStatus",
    "JobUpdate",
    "JobWarning",
    "LocalProtocolError",
    "NoopEncoder",
    "PacketType",
    "PriorityStatus",
    "ProtocolError",
    "Question",
    "RemoteProtocolError",
    "Role",
    "Server",
    "ServerAddress",
    "ServerEngine",
    "ServerError",
    "ServerLink",
    "ServerUnavailable",
    "StopListening",
    "Stream",
    "UnknownCommandError",
    "UpdateQueue",
    "Wait",
    "WorkerEngine",
    "WorkerJob",
    "WorkerLink",
    "WorkerStatus",
    "__version__",
    "admin",
    "constants",
    "encoder",
    "errors",
    "events",
    "job",
    "parse_address",
    "parse_host_list",
]
