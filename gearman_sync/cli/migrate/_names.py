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
#: Members of python-gearman's classes that subclasses override and assign.
OVERRIDDEN: Final = re.compile(
    "_.*|(submit|wait|register|unregister|send|on_job|after|establish|poll)_.*|get_(job_.*|jobs|status"
    "|workers|version|unique_jobs|pid)|connection_list|data_encoder|shutdown|work|worker_.*"
    "|set_client_id|has_job_lock|cancel_job|ping_server"
)
