"""Odd arguments do not affect other calls.

Each parameter of each method receives each odd value. The call either works or immediately raises
a clear error. Meanwhile, another job of the same client or worker stays in flight on the same
connection and completes.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import GearmanError, GearmanJob, GearmanJobRequest
from gearman_proto.checks import to_seconds
from tests.support import odd

from .kit import Kit, Launch, Server, collect, echo, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    Methods = dict[str, dict[str, Any]]

#: Exceptions that a call can raise. StubbornError is the application's own.
CLEAR: Final = (TypeError, ValueError, GearmanError, odd.StubbornError)


def target(owner: Any) -> Any:
    """Return the adapter's object."""
    return getattr(owner, "_target", owner)


def links(owner: Any) -> list[Any]:
    return [server.link for server in target(owner).connection_list]


class Watched:
    """A client or worker whose connections must survive any call."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._links = links(owner)
        assert all(link.is_up for link in self._links)

    async def call(self, name: str, arguments: dict[str, Any], value: Any) -> None:
        """Call a method with `value` among its arguments."""
        where = f"{name}, {[*arguments]}: {odd.name_of(value)}"
        failure = None
        try:
            returned = getattr(self._owner, name)(**arguments)
            await (collect(returned) if hasattr(returned, "__anext__") else settled(returned))
        except CLEAR as error:
            failure = error
        except Exception as error:
            error.add_note(where)
            raise
        if isinstance(failure, GearmanError):
            assert str(failure), where
            assert "internal error" not in str(failure), where
        assert links(self._owner) == self._links, where

    async def call_all(self, methods: Callable[[], Methods]) -> None:
        """Pass each odd value as each parameter of these methods, with their good arguments."""
        for name in methods():
            for parameter in inspect.signature(getattr(target(self._owner), name)).parameters:
                for value in odd.VALUES:
                    await self.call(name, {**methods()[name], parameter: value}, value)


ATTRIBUTES: Final = (
    *("task", "data", "unique", "handle", "connection", "state", "timed_out", "error"),
    *("priority", "background", "max_connection_attempts", "connection_attempts"),
    *("run_at", "reducer"),
)


async def test_every_parameter_of_a_client(kit: Kit, launch: Launch, task: str) -> None:
    """A job stays in flight on the client's connection meanwhile."""
    server = await launch()
    client, held, gate, *_ = await kit.running_job(server.address, f"{task}-held")
    waiting = await kit.spawn(client.wait_until_jobs_completed, [held])
    await kit.start_worker(server.address, tasks={task: echo})

    def methods() -> Methods:
        request = GearmanJobRequest.from_unique("nobody's", server.address)
        return {
            "submit_job": {"task": task, "data": b"in", "background": True},
            "submit_multiple_jobs": {
                "jobs_to_submit": [{"task": task, "data": b"in"}],
                "background": True,
            },
            "submit_multiple_requests": {"job_requests": [request]},
            "wait_until_jobs_accepted": {"job_requests": [request]},
            "wait_until_jobs_completed": {"job_requests": [request]},
            "as_completed": {"job_requests": [request]},
            "results": {"jobs": [{"task": task, "data": b"in"}], "background": True},
            "updates": {"job_requests": request},
            "cancel_job": {"job_request": GearmanJobRequest.from_handle("H:1", server.address)},
            "get_job_status": {"current_request": request},
            "get_job_statuses": {"job_requests": [request]},
            "establish_connection": {"connection": client.connection_list[0]},
            "wait_for_servers": {},
            "poll_connections_until_stopped": {
                "submitted_connections": [],
                "callback_fxn": lambda any_activity: False,
                "timeout": 0,
            },
        }

    watched = Watched(client)
    await watched.call_all(methods)
    # Attributes of requests, for two methods that send packets.
    for attribute in ATTRIBUTES:
        for value in odd.VALUES:
            stored = GearmanJobRequest.from_unique("nobody's", server.address)
            new = GearmanJobRequest(GearmanJob(None, None, task, None, b"in"), background=True)
            for request in (stored, new):
                setattr(request, attribute, value)
            await watched.call("get_job_status", {"current_request": stored}, value)
            await watched.call("wait_until_jobs_accepted", {"job_requests": [new]}, value)
    assert (held.state, waiting.done) == ("CREATED", False)
    gate.open.set()
    await waiting.result()
    assert held.result == b"data"


async def test_requests_of_an_unhashable_subclass(kit: Kit, server: Server, task: str) -> None:
    client = await kit.client_and_worker(server.address, tasks={task: echo})
    requests = [odd.Unhashable(GearmanJob(None, None, task, None, b"in")) for _ in range(2)]
    await client.submit_multiple_requests(requests, wait_until_complete=False)
    assert len(await collect(client.as_completed(requests))) == 2
    assert [request.result for request in requests] == [b"in", b"in"]
    await client.get_job_statuses(requests)
    await collect(client.updates(requests[0]))


async def test_every_parameter_of_a_worker(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    client, request, gate, worker, _ = await kit.running_job(server.address, task, max_jobs=2)
    (job,) = gate.jobs

    def methods() -> Methods:
        return {
            "register_task": {"task": f"{task}-b", "callback": echo},
            "unregister_task": {"task": f"{task}-b"},
            "set_client_id": {"client_id": "id"},
            "send_job_status": {"current_job": job, "numerator": 1, "denominator": 2},
            "send_job_data": {"current_job": job, "data": b""},
            "send_job_warning": {"current_job": job, "data": b""},
            # With a current job, these calls would end it.
            "send_job_complete": {"current_job": None, "data": b""},
            "send_job_failure": {"current_job": None},
            "send_job_exception": {"current_job": None, "data": b""},
        }

    watched = Watched(worker)
    await watched.call_all(methods)
    for value in odd.VALUES:
        if value is not None and not is_seconds(value):
            await watched.call("stop", {"timeout": value}, value)
    gate.open.set()
    await client.wait_until_jobs_completed([request])
    assert request.result == b"data"


async def test_every_parameter_of_an_admin_client(kit: Kit, launch: Launch, task: str) -> None:
    def methods() -> Methods:
        return {
            "send_maxqueue": {"task": task, "max_size": 1},
            "cancel_job": {"handle": "H:1"},
            "create_function": {"task": task},
            "drop_function": {"task": "another"},
        }

    server = await launch()
    client = await kit.admin_client(server.address)
    await client.create_function(task)
    watched = Watched(client)
    await watched.call_all(methods)
    for value in odd.VALUES:
        if not is_seconds(value):
            client.poll_timeout = value
            await watched.call("get_status", {}, value)
    client.poll_timeout = 10
    assert task in {function.task for function in await client.get_status()}


def is_seconds(value: Any) -> bool:
    try:
        to_seconds(value)
    except (TypeError, ValueError, odd.StubbornError):
        return False
    return True
