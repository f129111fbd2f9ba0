"""The library's names, so that subclasses can use any ordinary private name for their own."""

from __future__ import annotations

from typing import Any, Final

from .kit import Kit, collect, echo

#: The prefix of the library's private names.
PREFIX: Final = "_gm_"

#: The public names of each class. Adding a name needs a decision: subclasses might already use it.
CONNECTED: Final = {"connection_list", "shutdown"}
PUBLIC: Final = {
    "GearmanClient": CONNECTED
    | {
        *("as_completed", "data_encoder", "establish_connection", "get_job_status"),
        *("get_job_statuses", "poll_connections_until_stopped", "submit_job"),
        *("submit_multiple_jobs", "submit_multiple_requests", "updates"),
        *("wait_until_jobs_accepted", "wait_until_jobs_completed"),
    },
    "GearmanWorker": CONNECTED
    | {
        *("after_job", "after_poll", "data_encoder", "has_job_lock", "on_job_complete"),
        *("on_job_exception", "on_job_execute", "register_task", "send_job_complete"),
        *("send_job_data", "send_job_exception", "send_job_failure", "send_job_status"),
        *("send_job_warning", "set_client_id", "stop", "unregister_task", "work"),
        *("worker_abilities", "worker_client_id"),
    },
    "GearmanAdminClient": CONNECTED
    | {
        *("cancel_job", "create_function", "drop_function", "get_jobs", "get_pid"),
        *("get_priority_status", "get_status", "get_unique_jobs", "get_verbosity"),
        *("get_version", "get_workers", "ping_server", "poll_timeout", "send_maxqueue"),
        "send_shutdown",
    },
    "JobServer": {"address", "stop", "wait"},
}
MORE: Final = {
    ("gearman_sync", "JobServer"): {"start"},
    ("gearman_anyio", "JobServer"): {"connect", "handle"},
}


def names_of(made: Any) -> set[str]:
    """Return the names that these packages have given to an object and its classes."""
    names = set(vars(made))
    for kind in type(made).__mro__:
        if kind.__module__.startswith("gearman_"):
            names |= vars(kind).keys() | kind.__annotations__.keys()
    # Exclude special methods and the attribute of `abc`.
    made_by_python = {name for name in names if name.startswith("__") or name == "_abc_impl"}
    return names - made_by_python


def open_names(made: Any) -> set[str]:
    return {name for name in names_of(made) if not name.startswith(PREFIX)}


async def test_private_names_begin_with_the_prefix(kit: Kit) -> None:
    server = await kit.start_job_server()
    client, admin = await kit.client(server.address), await kit.admin_client(server.address)
    worker = await kit.make_worker(server.address, tasks={"echo": echo})
    worker.set_client_id("own")
    call = await kit.work(worker)
    request = await client.submit_job("echo", b"ab", wait_until_complete=False)
    assert await collect(client.as_completed([request])) == [request]
    await client.get_job_status(request)
    await admin.ping_server()
    await admin.get_status()
    worker.unregister_task("echo")
    worker.stop()
    await call.result()
    # The calls might have added attributes.
    for each in (client, worker, admin, server):
        made = getattr(each, "_target", each)
        kind = type(made).__name__
        more = MORE.get((kit.gearman.__name__, kind), set())
        assert open_names(made) == PUBLIC[kind] | more, kind
