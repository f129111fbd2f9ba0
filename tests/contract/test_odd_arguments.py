"""Odd arguments do not affect other calls.

Each parameter of each method receives each odd value. The call either works or immediately raises
a clear error. Meanwhile, another job of the same client or worker stays in flight on the same
connection and completes.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import pytest

from gearman_proto import GearmanError, GearmanJob, GearmanJobRequest, InvalidClientState
from gearman_proto.checks import to_seconds
from gearman_proto.constants import JOB_CREATED
from tests.support import odd

from .kit import Kit, Server, collect, echo, settled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Exceptions that a call can raise. StubbornError is the application's own.
CLEAR: Final = (TypeError, ValueError, GearmanError, odd.StubbornError)


def job(task: str) -> dict[str, Any]:
    return {"task": task, "data": b"in"}


def good_arguments(client: Any, task: str) -> dict[str, dict[str, Any]]:
    """Return valid arguments for each client method. With them, the call returns soon."""

    def request() -> GearmanJobRequest:
        return GearmanJobRequest.from_unique("nobody's", client.connection_list[0].address)

    return {
        "submit_job": {"task": task, "data": b"in", "background": True},
        "submit_multiple_jobs": {"jobs_to_submit": [job(task)], "background": True},
        "submit_multiple_requests": {"job_requests": [request()]},
        "wait_until_jobs_accepted": {"job_requests": [request()]},
        "wait_until_jobs_completed": {"job_requests": [request()]},
        "as_completed": {"job_requests": [request()]},
        "updates": {"job_request": request()},
        "get_job_status": {"current_request": request()},
        "get_job_statuses": {"job_requests": [request()]},
        "establish_connection": {"connection": client.connection_list[0]},
        "poll_connections_until_stopped": {
            "submitted_connections": [],
            "callback_fxn": lambda any_activity: False,
        },
    }


def parameters(method: Any) -> list[str]:
    return list(inspect.signature(method).parameters)


async def call(method: Callable[..., Any], arguments: dict[str, Any]) -> BaseException | None:
    """Call a function or method and return the exception that it raised."""
    try:
        returned = method(**arguments)
        if hasattr(returned, "__anext__"):
            await collect(returned)
        else:
            await settled(returned)
    except Exception as error:  # noqa: BLE001 - the caller checks it
        return error
    return None


def links(owner: Any) -> list[Any]:
    """Return the open connections."""
    owner = getattr(owner, "_target", owner)
    return [server.link for server in owner.connection_list]


class Watched:
    """A client or worker with a job in flight. `look` checks that the job is unaffected."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._links = links(owner)
        assert all(link.is_up for link in self._links)

    async def call(self, name: str, arguments: dict[str, Any], value: Any, what: str) -> None:
        where = f"{name}, {what}: {odd.name_of(value)}"
        error = await call(getattr(self._owner, name), arguments)
        assert error is None or isinstance(error, CLEAR), (where, error)
        if isinstance(error, GearmanError):
            assert str(error), where
        assert "internal error" not in str(error), where
        assert links(self._owner) == self._links, where


@pytest.mark.slow
async def test_every_parameter_of_a_client(
    kit: Kit, launch: Callable[[], Awaitable[Server]], task: str
) -> None:
    server = await launch()
    gate = kit.gate()
    await kit.start_worker(server.address, tasks={f"{task}-held": gate}, max_jobs=2)
    await kit.start_worker(server.address, tasks={task: echo})
    client = await kit.client(server.address)
    held = await client.submit_job(f"{task}-held", b"in", wait_until_complete=False)
    waiting = await kit.spawn(client.wait_until_jobs_completed, [held])
    watched = Watched(client)
    count = 0
    for name in good_arguments(client, task):
        method = getattr(kit.gearman.GearmanClient, name)
        for parameter in parameters(method)[1:]:
            for value in odd.VALUES:
                arguments = {**good_arguments(client, task)[name], parameter: value}
                if name == "poll_connections_until_stopped" and parameter == "callback_fxn":
                    arguments["timeout"] = 0  # A value that is always true would poll forever.
                await watched.call(name, arguments, value, parameter)
                count += 1
    assert count > 1500
    assert (held.state, waiting.done) == (JOB_CREATED, False)
    gate.open.set()
    assert await waiting.result() == [held]
    assert held.result == b"in"
    assert (await client.submit_job(task, b"after")).result == b"after"


ATTRIBUTES: Final = (
    *("task", "data", "unique", "handle", "connection", "state", "timed_out", "error"),
    *("priority", "background", "max_connection_attempts", "connection_attempts"),
    *("run_at", "reducer"),
)


@pytest.mark.slow
async def test_every_attribute_of_a_request(
    kit: Kit, launch: Callable[[], Awaitable[Server]], task: str
) -> None:
    """Change an attribute of a request before passing it to a method."""
    server = await launch()
    gate = kit.gate()
    await kit.start_worker(server.address, tasks={f"{task}-held": gate})
    client = await kit.client(server.address, routing="unique")
    held = await client.submit_job(f"{task}-held", b"in", wait_until_complete=False)
    watched = Watched(client)
    for attribute in ATTRIBUTES:
        for value in odd.VALUES:
            for name, wraps in (
                ("get_job_status", False),
                ("submit_multiple_requests", True),
                ("wait_until_jobs_completed", True),
                ("updates", False),
            ):
                request = GearmanJobRequest.from_unique("nobody's", server.address)
                if name == "submit_multiple_requests":
                    request.reset()
                    request.job.task = task
                setattr(request, attribute, value)
                parameter = parameters(getattr(kit.gearman.GearmanClient, name))[1]
                arguments: dict[str, Any] = {parameter: [request] if wraps else request}
                if name == "submit_multiple_requests":
                    arguments["wait_until_complete"] = False
                await watched.call(name, arguments, value, attribute)
    gate.open.set()
    await client.wait_until_jobs_completed([held])
    assert held.result == b"in"


@pytest.mark.slow
async def test_request_list_changed_during_a_wait(
    kit: Kit, launch: Callable[[], Awaitable[Server]], task: str
) -> None:
    server = await launch()
    gate = kit.gate()
    await kit.start_worker(server.address, tasks={f"{task}-held": gate})
    client = await kit.client(server.address)
    held = await client.submit_job(f"{task}-held", b"in", wait_until_complete=False)
    requests: list[Any] = [held]
    calling = await kit.spawn(client.wait_until_jobs_completed, requests, 2.0)
    await kit.eventually(lambda: held._gm_waits, "the call")
    requests += [None, 5]
    assert await calling.result() is requests
    assert held.timed_out
    gate.open.set()
    await client.wait_until_jobs_completed([held])
    assert held.result == b"in"


async def test_requests_of_an_unhashable_subclass(
    kit: Kit, launch: Callable[[], Awaitable[Server]], task: str
) -> None:
    server = await launch()
    await kit.start_worker(server.address, tasks={task: echo})
    client = await kit.client(server.address)
    requests = [odd.Unhashable(GearmanJob(None, None, task, None, b"in")) for _ in range(2)]
    await client.submit_multiple_requests(requests, wait_until_complete=False)
    ended = await collect(client.as_completed(requests))
    assert {id(request) for request in ended} == {id(request) for request in requests}
    assert [request.result for request in requests] == [b"in", b"in"]
    await client.get_job_statuses(requests)
    await collect(client.updates(requests[0]))


async def test_every_parameter_of_a_worker(
    kit: Kit, launch: Callable[[], Awaitable[Server]], task: str
) -> None:
    server = await launch()
    gate = kit.gate()
    jobs: list[Any] = []

    def callback(worker: Any, job: Any) -> Any:
        jobs.append(job)
        return gate(worker, job)

    worker = await kit.start_worker(server.address, tasks={task: callback}, max_jobs=2)
    client = await kit.client(server.address)
    held = await client.submit_job(task, b"in", wait_until_complete=False)
    await kit.eventually(gate.begun.is_set, "a job")
    watched = Watched(worker)
    good: dict[str, dict[str, Any]] = {
        "register_task": {"task": f"{task}-b", "callback": echo},
        "unregister_task": {"task": f"{task}-b"},
        "set_client_id": {"client_id": "id"},
        "send_job_status": {"current_job": jobs[0], "numerator": 1, "denominator": 2},
        "send_job_data": {"current_job": jobs[0], "data": b""},
        "send_job_warning": {"current_job": jobs[0], "data": b""},
        # With a current job, these calls would end it.
        "send_job_complete": {"current_job": None, "data": b""},
        "send_job_failure": {"current_job": None},
        "send_job_exception": {"current_job": None, "data": b""},
    }
    for name, arguments in good.items():
        for parameter in parameters(getattr(kit.gearman.GearmanWorker, name))[1:]:
            for value in odd.VALUES:
                await watched.call(name, {**arguments, parameter: value}, value, parameter)
    for value in odd.VALUES:
        if value is not None and not is_seconds(value):
            await watched.call("stop", {"timeout": value}, value, "timeout")
    gate.open.set()
    await client.wait_until_jobs_completed([held])
    assert held.result == b"in"


async def test_every_parameter_of_an_admin_client(
    kit: Kit, launch: Callable[[], Awaitable[Server]], task: str
) -> None:
    server = await launch()
    client = await kit.admin_client(server.address)
    await client.create_function(task)
    watched = Watched(client)
    good: dict[str, dict[str, Any]] = {
        "send_maxqueue": {"task": task, "max_size": 1},
        "cancel_job": {"handle": "H:1"},
        "create_function": {"task": task},
        "drop_function": {"task": "another"},
    }
    for name, arguments in good.items():
        for parameter in parameters(getattr(kit.gearman.GearmanAdminClient, name))[1:]:
            for value in odd.VALUES:
                await watched.call(name, {**arguments, parameter: value}, value, parameter)
    await client.create_function(task)
    for value in odd.VALUES:
        if not is_seconds(value):
            client.poll_timeout = value
            await watched.call("get_status", {}, value, "poll_timeout")
    client.poll_timeout = 10
    assert task in {function.task for function in await client.get_status()}


def is_seconds(value: Any) -> bool:
    try:
        to_seconds(value)
    except (TypeError, ValueError, odd.StubbornError):
        return False
    return True


async def test_a_job_of_another_worker(
    kit: Kit, launch: Callable[[], Awaitable[Server]], task: str
) -> None:
    server = await launch()
    gate = kit.gate()
    jobs: list[Any] = []

    def callback(worker: Any, job: Any) -> Any:
        jobs.append(job)
        return gate(worker, job)

    await kit.start_worker(server.address, tasks={task: callback})
    other = await kit.start_worker(server.address, tasks={f"{task}-other": echo})
    client = await kit.client(server.address)
    held = await client.submit_job(task, b"in", wait_until_complete=False)
    await kit.eventually(gate.begun.is_set, "a job")
    await server.wait_for_counts(f"{task}-other", 0, 0, 1)
    watched = Watched(other)
    for name in ("send_job_data", "send_job_complete"):
        error = await call(getattr(other, name), {"current_job": jobs[0], "data": b"x"})
        assert "is another worker's" in str(error)
    assert links(other) == watched._links
    gate.open.set()
    await client.wait_until_jobs_completed([held])
    assert (held.result, list(held.data_updates)) == (b"in", [])
    assert (await client.submit_job(f"{task}-other", b"x")).result == b"x"


# Connections.


async def test_establish_connection_accepts_an_address(
    kit: Kit, launch: Callable[[], Awaitable[Server]], task: str
) -> None:
    server = await launch()
    host, port = server.address
    client, other = await kit.client(server.address), await kit.client(server.address)
    (own,) = client.connection_list
    (foreign,) = other.connection_list
    # A connection of another client selects this client's server at the same address.
    specs = [
        own,
        f"{host}:{port}",
        (host, port),
        {"host": host, "port": port},
        foreign,
        own.address,
    ]
    for spec in specs:
        assert await client.establish_connection(spec) is own
        assert own.connected
    assert not foreign.connected
    with pytest.raises(InvalidClientState, match="h:1 is not one of this client's servers"):
        await client.establish_connection("h:1")
    # The other client is unaffected.
    assert (await other.submit_job(task, b"", background=True)).state == JOB_CREATED
    assert await other.establish_connection(foreign) is foreign


async def test_job_status_accepts_an_address(
    kit: Kit, launch: Callable[[], Awaitable[Server]], task: str
) -> None:
    server = await launch()
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"", background=True)
    request.connection = "{}:{}".format(*server.address)
    assert (await client.get_job_status(request)).status["known"]
    request.connection = "h:1"
    with pytest.raises(InvalidClientState, match="h:1 is not one of this client's servers"):
        await client.get_job_status(request)
