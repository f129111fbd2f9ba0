"""The library's names, so that subclasses can use any ordinary private name for their own."""

from __future__ import annotations

from typing import Any, Final

from gearman_proto import surface

from .kit import Kit, collect, echo

#: The prefix of the library's private names.
PREFIX: Final = "_gm_"

#: Public attributes of objects, and methods that only one adapter has.
MORE: Final = {"worker_abilities", "worker_client_id", "poll_timeout", "start", "connect", "handle"}
#: All public names. tests/surface/test_signatures.py compares those of each class.
PUBLIC: Final = {
    name
    for kind in (surface.Client, surface.Worker, surface.AdminClient, surface.JobServer)
    for name in dir(kind)
    if not name.startswith("_")
} | MORE


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
        assert open_names(made) <= PUBLIC, open_names(made) - PUBLIC
