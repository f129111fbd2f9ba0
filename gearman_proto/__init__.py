"""The Gearman protocol without I/O, for event loops of any kind.

Tier 1 is `Connection`: the bytes of one connection to events, and back. Tier 2 are the engines,
which decide everything that a client, a worker or a job server has to decide; see `ClientEngine`,
`WorkerEngine`, `AdminEngine`, `ServerEngine` and `Engine`.
"""

from __future__ import annotations

from gearman_proto.engines.client.engine import ClientEngine
from gearman_proto.engines.client.link import ClientLink
from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.engines.server.links import ServerLink
from gearman_proto.engines.servers import Server
from gearman_proto.engines.worker.engine import WorkerEngine
from gearman_proto.engines.worker.link import WorkerLink

from . import constants, errors, surface
from ._version import __version__
from .address import HostAndPort, HostSpec, ServerAddress, parse_address, parse_host_list
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
from .engines.admin import AdminEngine, AdminLink, Question
from .engines.base import Action, Close, Connect, Engine, StopListening
from .engines.waits import Subscription, Wait
from .errors import (
    ArgumentTypeError,
    ArgumentValueError,
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
from .jobs import (
    Batch,
    DeferredJob,
    GearmanJob,
    GearmanJobRequest,
    JobData,
    JobDict,
    JobEnded,
    JobProgress,
    JobStatus,
    JobUpdate,
    JobWarning,
    UpdateQueue,
    WorkerJob,
    make_requests,
    next_update,
    prepare,
)
from .jobs.encoder import DataEncoder, JSONEncoder, NoopEncoder, TextEncoder
from .surface.tasks import JobLogFilter, current_job
from .wire import packets as events
from .wire import text
from .wire.connection import NEED_DATA, Connection
from .wire.packets import PACKETS, PacketType, Role
from .wire.text import FunctionStatus, JobRecord, PriorityStatus, WorkerStatus

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
    "ArgumentTypeError",
    "ArgumentValueError",
    "Batch",
    "ClientEngine",
    "ClientLink",
    "Close",
    "Connect",
    "Connection",
    "ConnectionError",
    "DataEncoder",
    "DeferredJob",
    "Engine",
    "ExceededConnectionAttempts",
    "FunctionStatus",
    "GearmanError",
    "GearmanJob",
    "GearmanJobRequest",
    "HostAndPort",
    "HostSpec",
    "InvalidAdminClientState",
    "InvalidClientState",
    "InvalidWorkerState",
    "JSONEncoder",
    "JobData",
    "JobDict",
    "JobEnded",
    "JobLogFilter",
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
    "Subscription",
    "TextEncoder",
    "UnknownCommandError",
    "UpdateQueue",
    "Wait",
    "WorkerEngine",
    "WorkerJob",
    "WorkerLink",
    "WorkerStatus",
    "__version__",
    "constants",
    "current_job",
    "errors",
    "events",
    "make_requests",
    "next_update",
    "parse_address",
    "parse_host_list",
    "prepare",
    "surface",
    "text",
]
