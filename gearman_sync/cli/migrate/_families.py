"""What the libraries are called when they are imported, what they have, and what is here for it.

docs/howto/migrating.md names all that is in these tables.
"""

from __future__ import annotations

from typing import Final

#: The modules of python-gearman and of its forks. gearman3 and pygearman are imported as gearman.
GEARMAN_MODULES: Final = ("gearman", "python3_gearman", "py3gearman")
#: What is imported by mistake: the name that pip knows.
DISTRIBUTIONS: Final = ("pygearman", "gearman3")
ALL_MODULES: Final = (*GEARMAN_MODULES, *DISTRIBUTIONS, "gear", "aiogear")

#: python-gearman's modules that the mode has, and where their names are without it.
MODULES: Final[dict[str, str]] = {
    "admin_client": "import GearmanAdminClient from gearman_sync",
    "client": "import from gearman_sync, and exceptions from gearman_sync.errors",
    "connection": "there is no connection without the mode: see connection-class",
    "connection_manager": "import DataEncoder from gearman_sync",
    "constants": "import from gearman_sync.constants",
    "errors": "import from gearman_sync.errors",
    "job": "import from gearman_sync.job",
    "protocol": "the protocol's packets are in gearman_proto.events",
    "util": "it has nothing that is needed here: time.monotonic() measures time",
    "worker": "import from gearman_sync, and exceptions from gearman_sync.errors",
}
#: Those of them that ``import gearman_sync as gearman`` has as attributes of that name, too.
PLAIN_MODULES: Final = ("client", "constants", "errors", "job", "worker")
_ENGINES: Final = (
    "the protocol without sockets is gearman_proto.Connection: see docs/reference/core.md"
)
#: The modules that are not here at all.
INNER_MODULES: Final[dict[str, str]] = {
    "admin_client_handler": _ENGINES,
    "client_handler": _ENGINES,
    "command_handler": _ENGINES,
    "compat": "Python 3 has all of it",
    "connection_poller": "the library polls by itself",
    "io": "the library polls by itself",
    "version": "the version is gearman_sync.__version__",
    "worker_handler": _ENGINES,
}
_HANDLERS: Final = (
    "the library has no handlers: see docs/reference/core.md for the protocol without sockets"
)
#: Inner classes, which are in those modules, and in others.
INNER_CLASSES: Final[dict[str, str]] = {
    "GearmanAdminClientCommandHandler": _HANDLERS,
    "GearmanClientCommandHandler": _HANDLERS,
    "GearmanCommandHandler": _HANDLERS,
    "GearmanConnectionPoller": "the library polls by itself",
    "GearmanWorkerCommandHandler": _HANDLERS,
}

_POLLS: Final = "the library polls by itself; override after_poll() to be called while it does"
_SENDS: Final = "use the send_job_... methods of the worker, or the submit methods of the client"
_SOCKET: Final = "there is no socket to get at; keepalive and TLS are in the server's dict"
_SUBMITS: Final = "use submit_multiple_requests([request])"
_LOCK: Final = "use has_job_lock(); max_jobs= says how many jobs are done at once"
_JOBS: Final = "jobs and requests are of the library's own classes"
_ADMIN: Final = "leave it out: each call of the admin client connects where it has to"
#: Inner parts of clients, workers, admin clients and connections.
INNER_PARTS: Final[dict[str, str]] = {
    "_create_client_socket": _SOCKET,
    "_create_request_from_dictionary": "use submit_multiple_jobs([...]), or GearmanJobRequest",
    "_get_handler_for_job": _SENDS,
    "_register_connections_with_poller": _POLLS,
    "_reset_connection": "use shutdown()",
    "_update_initial_state": "use register_task() and set_client_id()",
    "check_job_lock": _LOCK,
    "command_handler_class": _HANDLERS,
    "command_handler_holding_job_lock": _LOCK,
    "connection_to_handler_map": _HANDLERS,
    "create_job": _JOBS,
    "current_handler": _ADMIN,
    "establish_request_connection": "routing= of the client says which server gets a job",
    "gearman_socket": _SOCKET,
    "handle_connection_activity": _POLLS,
    "handle_error": "a lost connection is made again; request.error says why a request was lost",
    "handle_read": _POLLS,
    "handle_write": _POLLS,
    "handler_initial_state": "use register_task() and set_client_id()",
    "handler_to_connection_map": _HANDLERS,
    "job_class": _JOBS,
    "on_gearman_error": "what the server refuses is request.error, a ServerError",
    "poll_connections_once": _POLLS,
    "randomized_connections": "use connection_list",
    "read_command": _HANDLERS,
    "read_data_from_socket": _SOCKET,
    "send_command": _SENDS,
    "send_commands_to_buffer": _SENDS,
    "send_data_to_socket": _SOCKET,
    "send_job_request": _SUBMITS,
    "set_job_lock": _LOCK,
    "wait_until_job_statuses_received": "use get_job_statuses(requests)",
    "wait_until_server_responds": _ADMIN,
    "wait_until_updates_sent": "leave it out: the send_job_... methods wait until it is sent",
}
#: Those of them that mean something else elsewhere: they count only where the object is known.
COMMON_PARTS: Final = frozenset(
    {
        "create_job",
        "current_handler",
        "handle_error",
        "handle_read",
        "handle_write",
        "job_class",
        "read_command",
        "send_command",
        "_create_client_socket",
        "_reset_connection",
    }
)
#: python-gearman's work() and what it calls.
WORKER_POLL: Final[dict[str, str]] = {
    "establish_worker_connections": "use work(), which connects; max_outage= says for how long",
    "poll_connections_until_stopped": "use work(), with after_poll() and after_job(), or stop()",
}
#: python-gearman 1.x.
OLD_NAMES: Final[dict[str, str]] = {
    "GearmanManager": "use GearmanAdminClient",
    "GearmanServer": "use gearmand, or gearman_sync.JobServer in tests",
    "Task": "use client.submit_job(task, data)",
    "Taskset": "use client.submit_multiple_jobs([{'task': ..., 'data': ...}])",
    "dispatch_background_task": "use client.submit_job(task, data, background=True)",
    "do_task": "use client.submit_job(task, data).result",
    "do_taskset": "use client.submit_multiple_jobs(jobs)",
    "register_class": "call worker.register_task(name, callback) for each method",
    "register_function": "use worker.register_task(name, callback), whose callback gets the worker "
    "and the job; job.arg is job.data",
}
#: The modules of 1.x that 2.x does not have.
OLD_MODULES: Final[dict[str, str]] = {
    "manager": "use GearmanAdminClient",
    "server": "use gearmand, or gearman_sync.JobServer in tests",
    "task": "use client.submit_job(task, data)",
}

_END: Final = "the callback returns the result"
_TEXT_JOB: Final = "use client.submit_job(task, data); data may be str"
_ASKS: Final = "use GearmanAdminClient"
_HOOK: Final = "iterate over client.updates(request)"
_RAISES: Final = (
    "see gearman_sync.errors: ServerUnavailable, ServerError, ExceededConnectionAttempts"
)
_SERVER: Final = "use gearmand, or gearman_sync.JobServer in tests"
#: gear: what it has, and what to use.
GEAR: Final[dict[str, str]] = {
    # Classes, functions and constants.
    "ACL": _SERVER,
    "ACLEntry": _SERVER,
    "ACLError": _SERVER,
    "BaseClient": "use GearmanClient or GearmanWorker",
    "BaseClientServer": "use GearmanClient or GearmanWorker",
    "BaseJob": _TEXT_JOB,
    "BinaryJob": _TEXT_JOB,
    "BinaryWorkerJob": "the callback gets the job",
    "CancelJobAdminRequest": "use GearmanAdminClient.cancel_job(handle)",
    "Client": "use GearmanClient([...])",
    "ConfigurationError": "wrong arguments are TypeError and ValueError",
    "Connection": "use GearmanClient or GearmanWorker; for packets, gearman_proto.Connection",
    "ConnectionError": _RAISES,
    "DisconnectError": _RAISES,
    "FunctionRecord": "use register_task(task, callback, timeout)",
    "GearmanError": _RAISES,
    "InterruptedError": "work() returns after stop()",
    "InvalidDataError": "wrong arguments are TypeError and ValueError",
    "Job": _TEXT_JOB,
    "NoConnectedServersError": "catch ServerUnavailable",
    "PRECEDENCE_HIGH": "use PRIORITY_HIGH",
    "PRECEDENCE_LOW": "use PRIORITY_LOW",
    "PRECEDENCE_NORMAL": "use PRIORITY_NONE",
    "Packet": "packets are in gearman_proto.events",
    "RetryIOError": _RAISES,
    "Server": _SERVER,
    "ServerJob": _SERVER,
    "ShowJobsAdminRequest": "use GearmanAdminClient.get_jobs()",
    "ShowUniqueJobsAdminRequest": "use GearmanAdminClient.get_unique_jobs()",
    "StatusAdminRequest": "use GearmanAdminClient.get_status()",
    "TextJob": _TEXT_JOB,
    "TextWorker": "use GearmanWorker([...]) with a data_encoder that decodes",
    "TextWorkerJob": "the callback gets the job",
    "TimeoutError": "request.timed_out says it; a timeout raises nothing",
    "UnknownJobError": _RAISES,
    "VersionAdminRequest": "use GearmanAdminClient.get_version()",
    "Worker": "use GearmanWorker([...])",
    "WorkerJob": "the callback gets the job",
    "WorkersAdminRequest": "use GearmanAdminClient.get_workers()",
    "convert_to_bytes": "names and data may be str",
    # Methods and attributes.
    "addServer": "pass all servers to GearmanClient([...]) or GearmanWorker([...])",
    "arguments": "it is job.data",
    "data": "it is request.data_updates, and request.result",
    "name": "it is job.task",
    "warning": "it is request.warning_updates",
    "broadcast": _ASKS,
    "echo": "use GearmanAdminClient.ping_server()",
    "failure": "request.state == JOB_FAILED says it",
    "fraction_complete": "use numerator and denominator of request.status",
    "getConnection": "leave it out: the client connects by itself",
    "getJob": "use worker.register_task(task, callback) and worker.work()",
    "handleDisconnect": "request.state == JOB_UNKNOWN says it, and request.error why",
    "handleJobCreated": "submit_job(..., wait_until_complete=False) returns when it has come",
    "handleStatusRes": "use client.get_job_status(request)",
    "handleWorkComplete": "iterate over client.as_completed(requests)",
    "handleWorkData": _HOOK,
    "handleWorkException": _HOOK,
    "handleWorkFail": "iterate over client.as_completed(requests)",
    "handleWorkStatus": _HOOK,
    "handleWorkWarning": _HOOK,
    "registerFunction": "use worker.register_task(name, callback, timeout)",
    "sendAdminRequest": _ASKS,
    "sendPacket": "packets are sent with gearman_proto.Connection: see docs/reference/core.md",
    "sendRaw": "bytes are sent with gearman_proto.Connection: see docs/reference/core.md",
    "sendWorkComplete": _END,
    "sendWorkData": "use worker.send_job_data(job, data)",
    "sendWorkException": "use worker.send_job_exception(job, data), or raise",
    "sendWorkFail": "use worker.send_job_failure(job), or raise",
    "sendWorkStatus": "use worker.send_job_status(job, numerator, denominator)",
    "sendWorkWarning": "use worker.send_job_warning(job, data)",
    "setFunctions": "use register_task() and unregister_task()",
    "setOption": "exceptions are asked for by themselves: leave it out",
    "shutdown": "it is shutdown(), too; with calls it",
    "stopWaitingForJobs": "use worker.stop()",
    "submitJob": "use client.submit_job(task, data, unique, priority, background)",
    "unRegisterFunction": "use worker.unregister_task(name)",
    "waitForServer": "leave it out: calls connect, and raise ServerUnavailable if they can't",
}
#: Those of them that mean something else elsewhere.
GEAR_COMMON: Final = frozenset(
    {"arguments", "broadcast", "data", "echo", "failure", "fraction_complete", "name", "shutdown"}
    | {"warning"}
)

_ANYIO: Final = "use gearman_anyio, inside async with: "
_SUBMIT: Final = "await client.submit_job(task, data"
_GRABS: Final = "await worker.work(), which fetches jobs by itself"
#: aiogear: what it has, and what to use.
AIOGEAR: Final[dict[str, str]] = {
    "Admin": _ANYIO + "GearmanAdminClient([...])",
    "CallbackClient": _ANYIO + "GearmanClient([...]), and its as_completed() and updates()",
    "Client": _ANYIO + "GearmanClient([...])",
    "PacketType": "packets are in gearman_proto.events",
    "Worker": _ANYIO + "GearmanWorker([...])",
    "can_do": "worker.register_task(name, callback)",
    "can_do_timeout": "worker.register_task(name, callback, timeout)",
    "disconnect": "leaving async with closes",
    "get_status": "await client.get_job_status(request); of an admin client, await get_status()",
    "get_status_unique": "await client.get_job_status(request, by_unique=True)",
    "grab_job": _GRABS,
    "grab_job_all": _GRABS,
    "grab_job_uniq": _GRABS,
    "maxqueue": "await admin.send_maxqueue(task, max_size)",
    "option_req": "exceptions are asked for by themselves: leave it out",
    "pre_sleep": _GRABS,
    "register_function": "worker.register_task(name, callback), whose callback gets the worker and "
    "the job; job.workload is job.data",
    "set_client_id": "worker.set_client_id(name)",
    "set_update_callback": "async for update in client.updates(request)",
    "shutdown": "worker.stop(), or await admin.send_shutdown()",
    "status": "await admin.get_status(), whose keys are task, queued, running and workers",
    "submit_job": _SUBMIT + ", wait_until_complete=False)",
    "submit_job_bg": _SUBMIT + ", background=True)",
    "submit_job_high": _SUBMIT + ", priority=PRIORITY_HIGH, wait_until_complete=False)",
    "submit_job_high_bg": _SUBMIT + ", priority=PRIORITY_HIGH, background=True)",
    "submit_job_low": _SUBMIT + ", priority=PRIORITY_LOW, wait_until_complete=False)",
    "submit_job_low_bg": _SUBMIT + ", priority=PRIORITY_LOW, background=True)",
    "submit_job_sched": _SUBMIT + ", background=True, run_at=...)",
    "submit_jobs": "await client.submit_multiple_jobs([...])",
    "verbose": "await admin.get_verbosity()",
    "version": "await admin.get_version()",
    "wait_job": "await client.wait_until_jobs_completed([request]); then request.result",
    "work_complete": _END,
    "work_exception": "await worker.send_job_exception(job, data), or raise",
    "work_fail": "await worker.send_job_failure(job), or raise",
    "workers": "await admin.get_workers(), whose keys are file_descriptor, ip, client_id and tasks",
    "workload": "it is job.data, and is bytes",
}
#: Those of them that mean something else elsewhere.
AIOGEAR_COMMON: Final = frozenset(
    {"disconnect", "get_status", "shutdown", "status", "verbose", "version", "workers"}
)
