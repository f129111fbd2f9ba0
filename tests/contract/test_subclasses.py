"""Subclasses of public classes may use any ordinary private name for attributes and methods."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_proto import constants

from .kit import Blocking, Kit, settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gearman_proto import WorkerJob

#: The prefix of the library's private names.
PREFIX: Final = "_gm_"

#: Ordinary private names of attributes and methods of subclasses.
ORDINARY: Final = (
    *("_address", "_addresses", "_args", "_ask", "_cache", "_call", "_calls", "_check", "_client"),
    *("_close", "_config", "_connect", "_context", "_data", "_db", "_do", "_driver", "_encoding"),
    *("_end", "_ended", "_engine", "_event", "_execute", "_find", "_handle", "_host", "_hosts"),
    *("_how", "_id", "_init", "_is_open", "_iterate", "_jobs", "_limiter", "_lock", "_log"),
    *("_logger", "_loop", "_make", "_max_jobs", "_name", "_open", "_options", "_pool", "_port"),
    *("_prepare", "_queue", "_registered", "_requests", "_result", "_run", "_running", "_send"),
    *("_serve", "_server", "_servers", "_setup", "_start", "_state", "_stop", "_tasks", "_thread"),
    *("_timeout", "_work", "_worker"),
)

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


def mine(self: Any, *args: Any, **options: Any) -> Any:
    raise AssertionError("the library has called a method of the application")


def set_attributes(made: Any) -> None:
    for name in ORDINARY:
        setattr(made, name, f"{name} of the application")


def set_before(kind: Any) -> Any:
    def init(self: Any, *args: Any, **options: Any) -> None:
        set_attributes(self)
        kind.__init__(self, *args, **options)

    return type(kind.__name__, (kind,), {"__init__": init})


def set_after(kind: Any) -> Any:
    def init(self: Any, *args: Any, **options: Any) -> None:
        kind.__init__(self, *args, **options)
        set_attributes(self)

    return type(kind.__name__, (kind,), {"__init__": init})


def define_methods(kind: Any) -> Any:
    return type(kind.__name__, (kind,), dict.fromkeys(ORDINARY, mine))


def own_values(made: Any) -> list[Any]:
    """Return the values of the application's attributes."""
    return [getattr(value, "__func__", value) for value in (getattr(made, n) for n in ORDINARY)]


@contextlib.asynccontextmanager
async def opened(made: Any) -> AsyncIterator[Any]:
    if hasattr(made, "__aenter__"):
        async with made:
            yield made
    else:
        with made:
            yield Blocking(made)


@pytest.mark.parametrize("max_jobs", [1, 2])
@pytest.mark.parametrize("subclass", [set_before, set_after, define_methods])
async def test_subclass_with_ordinary_private_names_works(
    kit: Kit, subclass: Callable[[Any], Any], max_jobs: int
) -> None:
    gearman = kit.gearman
    seen: list[Any] = []

    def callback(worker: Any, job: WorkerJob) -> Any:
        seen.append(own_values(worker))
        worker.send_job_status(job, 1, 2)
        if job.data == b"bad":
            raise ValueError("of the callback")
        worker.send_job_data(job, b"part")
        return job.data[::-1]

    server = subclass(gearman.JobServer)(port=0)
    values = own_values(server)
    async with opened(server):
        hosts = [server.address]
        worker = subclass(gearman.GearmanWorker)(hosts, max_jobs=max_jobs)
        worker.register_task("reverse", callback)
        worker.set_client_id("own")
        # `copy` copies the whole state.
        client = copy.copy(subclass(gearman.GearmanClient)(hosts))
        admin = subclass(gearman.GearmanAdminClient)(hosts)
        async with opened(worker) as works, opened(client) as asks, opened(admin) as tells:
            call = await kit.work(works)
            request = await asks.submit_job("reverse", b"ab")
            assert (request.result, list(request.data_updates)) == (b"ba", [b"part"])
            assert (await asks.submit_job("reverse", b"bad")).state == constants.JOB_FAILED
            waiting = await asks.submit_job("nobody", b"", background=True)
            assert (await asks.get_job_status(waiting)).status["known"]
            more = await asks.submit_multiple_jobs(
                [{"task": "reverse", "data": b"cd"}], wait_until_complete=False
            )
            assert [each.result async for each in asks.as_completed(more)] == [b"dc"]
            assert {each.task for each in await tells.get_status()} == {"nobody", "reverse"}
            worker.unregister_task("reverse")
            await settled(works.stop())
            await call.result()
            assert "<GearmanWorker [127.0.0.1" in repr(worker)
            assert [own_values(each) for each in (server, worker, client, admin)] == [values] * 4
    assert seen == [values] * 3


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
    gearman = kit.gearman
    server = gearman.JobServer(port=0)
    async with opened(server):
        made = [gearman.GearmanClient, gearman.GearmanWorker, gearman.GearmanAdminClient]
        client, worker, admin = (kind([server.address]) for kind in made)
        worker.register_task("echo", lambda worker, job: job.data)
        async with opened(worker) as works, opened(client) as asks, opened(admin) as tells:
            call = await kit.work(works)
            assert (await asks.submit_job("echo", b"ab")).result == b"ab"
            await tells.ping_server()
            await settled(works.stop())
            await call.result()
            # The calls might have added attributes.
            for each in (client, worker, admin, server):
                kind = type(each).__name__
                more = MORE.get((gearman.__name__, kind), set())
                assert open_names(each) == PUBLIC[kind] | more, kind
