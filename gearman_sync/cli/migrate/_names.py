"""The names in other libraries, and the replacement for each."""

from __future__ import annotations

import re
from typing import Final

#: The modules of python-gearman and its forks. gearman3 and pygearman are imported as ``gearman``.
GEARMAN: Final = ("gearman", "python3_gearman", "py3gearman")
#: Names of distributions that programs import by mistake.
DISTRIBUTIONS: Final = ("pygearman", "gearman3")
#: Libraries that are not forks of python-gearman and share none of its names. libgearman is
#: imported from the package ``gearman``.
OTHERS: Final = ("gear", "aiogear", "aiogearman", "pygear", "libgearman")
ALL_MODULES: Final = (*GEARMAN, *DISTRIBUTIONS, *OTHERS)


def table(rows: str) -> dict[str, str]:
    """Return {name: advice} for rows of ``name name: advice``."""
    found: dict[str, str] = {}
    for row in rows.strip().splitlines():
        names, _, advice = row.strip().partition(": ")
        found |= dict.fromkeys(names.split(), advice)
    return found


#: The modules of python-gearman that `install_as_gearman` provides, and the imports to use without
#: it.
MODULES: Final = table("""
    admin_client: import GearmanAdminClient from gearman_sync
    client worker: import from gearman_sync, and exceptions from gearman_sync.errors
    connection: there is no connection without the mode: see connection-class
    connection_manager: import DataEncoder from gearman_sync
    constants: import from gearman_sync.constants
    errors: import from gearman_sync.errors
    job: import from gearman_sync.job
    protocol: the protocol's packets are in gearman_proto.events
    util: it has nothing that is needed here: time.monotonic() measures time
""")
#: Modules and classes that have no equivalent here.
INNER_MODULES: Final = table("""
    admin_client_handler client_handler command_handler: see docs/reference/core.md
    worker_handler GearmanCommandHandler GearmanWorkerCommandHandler: see docs/reference/core.md
    GearmanAdminClientCommandHandler GearmanClientCommandHandler: see docs/reference/core.md
    compat: Python 3 has all of it
    connection_poller io GearmanConnectionPoller: the library polls by itself
    version: the version is gearman_sync.__version__
""")
#: Internal attributes and methods of python-gearman's classes. A leading dot marks a name that
#: other libraries use as well. Such a name counts only if the kind of its object is known.
INNER_PARTS: Final = table("""
    command_handler_class connection_to_handler_map: see docs/reference/core.md
    handler_to_connection_map .read_command: see docs/reference/core.md
    ._create_client_socket gearman_socket: keepalive and TLS are in the server's dict
    read_data_from_socket send_data_to_socket: use gearman_proto.Connection, without sockets
    _create_request_from_dictionary: use submit_multiple_jobs([...]), or GearmanJobRequest
    _get_handler_for_job .send_command: use the submit or send_job_... methods
    send_commands_to_buffer: use the submit or send_job_... methods
    _register_connections_with_poller handle_connection_activity: override after_poll()
    poll_connections_once: override after_poll()
    .handle_read .handle_write: override after_poll()
    ._reset_connection: use shutdown()
    _update_initial_state handler_initial_state: use register_task() and set_client_id()
    check_job_lock command_handler_holding_job_lock set_job_lock: use has_job_lock()
    .create_job .job_class: jobs and requests are of the library's own classes
    .current_handler wait_until_server_responds: leave it out
    establish_request_connection: routing= of the client says which server gets a job
    .handle_error: the library reconnects by itself; request.error says why a request was lost
    on_gearman_error: what the server refuses is request.error, a ServerError
    randomized_connections: use connection_list
    send_job_request: use submit_multiple_requests([request])
    wait_until_job_statuses_received: use get_job_statuses(requests)
    wait_until_updates_sent: leave it out: the send_job_... methods wait until it is sent
""")
#: Names and modules of python-gearman 1.x.
OLD_NAMES: Final = table("""
    GearmanManager manager: use GearmanAdminClient
    GearmanServer server: use gearmand, or gearman_sync.JobServer in tests
    Task task: use client.submit_job(task, data)
    Taskset: use client.submit_multiple_jobs([{'task': ..., 'data': ...}])
    dispatch_background_task: use client.submit_job(task, data, background=True)
    do_task: use client.submit_job(task, data).result
    do_taskset: use client.submit_multiple_jobs(jobs)
    register_function: use worker.register_task(name, callback); the callback gets worker and job
""")
#: The page that shows how to port a program of each of `OTHERS`.
PAGE: Final = "docs/howto/migrating.md"
#: Names of gear, and of members of its classes.
GEAR: Final = table("""
    ACL ACLEntry ACLError: leave it out: gearmand and JobServer have no access control lists
    BaseClient BaseClientServer: use GearmanClient or GearmanWorker
    BaseJob BinaryJob Job submitJob: use client.submit_job(task, data, wait_until_complete=False)
    TextJob: use client.submit_job(task, data), with data_encoder = TextEncoder
    BinaryWorkerJob WorkerJob: the callback gets the job, and worker.grab() returns it
    TextWorker TextWorkerJob: use GearmanWorker with data_encoder = TextEncoder
    CancelJobAdminRequest: use client.cancel_job(request)
    Client: use GearmanClient([...]), and client.updates(requests) instead of handle...() methods
    Connection Packet sendPacket sendRaw: use gearman_proto.Connection, without sockets
    ConfigurationError InvalidDataError: catch TypeError and ValueError
    ConnectionError DisconnectError NoConnectedServersError RetryIOError: catch ServerUnavailable
    GearmanError: catch ServerUnavailable and ExceededConnectionAttempts
    UnknownJobError: leave it out: packets for unknown jobs are ignored
    FunctionRecord registerFunction: use worker.register_task(task, callback, timeout)
    setFunctions: use worker.register_task(task, callback) and worker.unregister_task(task)
    unRegisterFunction: use worker.unregister_task(task)
    InterruptedError: after worker.stop(), work() returns, and grab() returns None
    PRECEDENCE_HIGH: use PRIORITY_HIGH
    PRECEDENCE_LOW: use PRIORITY_LOW
    PRECEDENCE_NORMAL: use PRIORITY_NONE
    Server ServerJob: use gearman_sync.JobServer in tests, and gearmand elsewhere
    ShowJobsAdminRequest: use GearmanAdminClient.get_jobs()
    ShowUniqueJobsAdminRequest: use GearmanAdminClient.get_unique_jobs()
    StatusAdminRequest: use GearmanAdminClient.get_status()
    VersionAdminRequest: use GearmanAdminClient.get_version()
    WorkersAdminRequest: use GearmanAdminClient.get_workers()
    broadcast sendAdminRequest: use GearmanAdminClient, or client.cancel_job(request)
    echo: use GearmanAdminClient.ping_server()
    TimeoutError: a timeout raises nothing: see request.timed_out
    Worker: use GearmanWorker([...])
    addServer: pass all servers to GearmanClient([...]) or GearmanWorker([...])
    convert_to_bytes: leave it out: names and data can be str
    arguments: use data of the job
    data: use request.result, or client.updates(requests)
    name: use task
    warning: use request.warning_updates, or client.updates(requests)
    failure: compare request.state with JOB_FAILED
    fraction_complete: use the numerator and denominator of request.status
    getConnection setOption: leave it out: the client does it by itself
    getJob: use worker.register_task(task, callback) and worker.work(), or worker.grab()
    getQueue: use get_status() and get_jobs() of GearmanAdminClient
    handleDisconnect: JobEnded of client.updates(requests) has the state JOB_UNKNOWN
    handleJobCreated: submit_job(..., wait_until_complete=False) returns then
    handleStatusRes: use client.get_job_status(request)
    handleWorkComplete: JobEnded of client.updates(requests) has the state JOB_COMPLETE
    handleWorkFail handleWorkException: JobEnded of client.updates(requests) has JOB_FAILED
    handleWorkData: client.updates(requests) yields JobData
    handleWorkStatus: client.updates(requests) yields JobProgress
    handleWorkWarning: client.updates(requests) yields JobWarning
    sendWorkComplete: return the result; after grab(), use worker.send_job_complete(job, data)
    sendWorkData: use job.send_data(data)
    sendWorkException: use worker.send_job_exception(job, data), or raise
    sendWorkFail: use worker.send_job_failure(job), or raise
    sendWorkStatus: use job.send_status(numerator, denominator)
    sendWorkWarning: use job.send_warning(data)
    shutdown: keep it, or use with
    stopWaitingForJobs: use worker.stop()
    waitForServer: use client.wait_for_servers(timeout), or a worker with max_outage=None
""")
#: Members of python-gearman's classes that subclasses override and assign.
OVERRIDDEN: Final = re.compile(
    "_.*|(submit|wait|register|unregister|send|on_job|after|establish|poll)_.*|get_(job_.*|jobs|status"
    "|workers|version|unique_jobs|pid)|connection_list|data_encoder|shutdown|work|worker_.*"
    "|set_client_id|has_job_lock|cancel_job|ping_server"
)
