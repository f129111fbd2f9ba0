"""Cancellation at every wait: the operation ends at once and affects no other operation."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import sys
from typing import TYPE_CHECKING, Any
from unittest import mock

import anyio
import anyio.lowlevel
import pytest

import gearman_anyio as gearman
from gearman_anyio._streams import pipe
from gearman_proto.errors import GearmanError
from gearman_proto.jobs import submitting
from tests.support import PATIENCE

from .stepping import Attempt, assert_idle, attempts, nothing_left
from .support import echo, is_asleep, make_worker, only_asyncio, until, working

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio.abc import ByteStream

    Operation = Callable[[Any, str], Coroutine[Any, Any, object]]

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_is_left")]

# Seconds: long enough for an operation to start, too short for an endless one to do much.
A_MOMENT = 0.005

#: Both event loops with a cancel scope, and asyncio with `Task.cancel`.
each_way = pytest.mark.parametrize(
    ("anyio_backend", "native"),
    [("asyncio", False), ("trio", False), ("asyncio", True)],
    ids=["asyncio", "trio", "native"],
)

_numbers = itertools.count()


def requests_for(task: str, *data: str) -> list[Any]:
    """Return new requests."""
    return [
        gearman.GearmanJobRequest(gearman.GearmanJob(None, None, task, None, each)) for each in data
    ]


async def accepted(client: gearman.GearmanClient, task: str, *data: str) -> list[Any]:
    """Return requests that the server has accepted."""
    return await client.submit_multiple_requests(
        requests_for(task, *data), wait_until_complete=False
    )


# Operations of a client. Each checks its own result.


async def submit_multiple_jobs(client: gearman.GearmanClient, task: str) -> None:
    jobs = [{"task": task, "data": data} for data in ("one", "two", "three")]
    requests = await client.submit_multiple_jobs(jobs)
    assert [request.result for request in requests] == [b"one", b"two", b"three"]


async def submit_in_steps(client: gearman.GearmanClient, task: str) -> None:
    jobs = [{"task": task, "data": b"%d" % number} for number in range(5)]
    with mock.patch.multiple(submitting, MANY=1, SLICE=2):
        requests = await client.submit_multiple_jobs(jobs)
    assert [request.result for request in requests] == [job["data"] for job in jobs]


async def as_completed(client: gearman.GearmanClient, task: str) -> None:
    requests = await accepted(client, task, "one", "two", "three")
    seen = [request.result async for request in client.as_completed(requests)]
    assert sorted(seen) == [b"one", b"three", b"two"]


async def updates(client: gearman.GearmanClient, task: str) -> None:
    (request,) = await accepted(client, task, "one")
    seen = [update async for update in client.updates(request)]
    assert seen == [gearman.JobEnded(gearman.JOB_COMPLETE, b"one")]


async def get_job_statuses(client: gearman.GearmanClient, task: str) -> None:
    requests = [gearman.GearmanJobRequest.from_unique(f"nobody's {n}") for n in range(3)]
    for request in await client.get_job_statuses(requests):
        assert request.status is not None
        assert not request.status["known"]


async def establish_connection(client: gearman.GearmanClient, task: str) -> None:
    (server,) = client.connection_list
    assert (await client.establish_connection(server)).connected


async def poll_connections(client: gearman.GearmanClient, task: str) -> None:
    requests = await accepted(client, task, "one", "two")

    async def go_on(active: bool) -> bool:
        await anyio.lowlevel.checkpoint()
        return not all(request.complete for request in requests)

    assert not await client.poll_connections_until_stopped([], go_on)
    assert [request.result for request in requests] == [b"one", b"two"]


# Operations of an admin client: a list, a reply to a packet, and an error.


async def get_status(client: gearman.GearmanAdminClient, task: str) -> None:
    assert {status.task: status.workers for status in await client.get_status()}[task] == 1


async def ping_server(client: gearman.GearmanAdminClient, task: str) -> None:
    assert type(await client.ping_server()) is float


async def cancel_job(client: gearman.GearmanAdminClient, task: str) -> None:
    with pytest.raises(gearman.errors.ServerError, match="UNKNOWN_JOB"):
        await client.cancel_job("H:nowhere:1")


# Each operation waits in a different way. The other methods call one of these.
ADMIN: list[Operation] = [get_status, ping_server, cancel_job]
OPERATIONS: list[Operation] = [
    submit_multiple_jobs,
    submit_in_steps,
    as_completed,
    updates,
    get_job_statuses,
    establish_connection,
    poll_connections,
    *ADMIN,
]


def client_for(operation: Operation, server: Any) -> Any:
    """Return a client that has the operation."""
    kind = gearman.GearmanAdminClient if operation in ADMIN else gearman.GearmanClient
    return kind([server.address])


async def assert_usable(client: Any, task: str) -> None:
    """Check that another call gets its own result and that the client holds no other state."""
    with anyio.fail_after(PATIENCE):
        if isinstance(client, gearman.GearmanAdminClient):
            await get_status(client, task)
            engine = client._gm_driver.engine
            assert engine._link is not None
            assert not engine._waits
            assert not engine._queue
            assert (engine._link.asked, engine._timers.next_deadline()) == (None, None)
            assert list(client._gm_driver._wires) == [engine._link]
        else:
            word = b"job %d" % next(_numbers)
            request = await client.submit_job(task, word)
            assert (request.state, request.result) == (gearman.JOB_COMPLETE, word)
            await assert_idle(client)


@each_way
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.__name__)
async def test_cancelled_call_leaves_a_usable_client(
    operation: Operation, native: bool, server: Any, task: str
) -> None:
    async with (
        working(server.address, tasks={task: echo}),
        client_for(operation, server) as client,
    ):
        await assert_usable(client, task)
        for attempt in attempts(native=native):
            await attempt(operation(client, task))
            await assert_usable(client, task)


@each_way
@pytest.mark.both_streams
@pytest.mark.parametrize("operation", [as_completed, get_status], ids=lambda op: op.__name__)
async def test_cancelled_connecting_leaves_nothing(
    operation: Operation, native: bool, server: Any, task: str
) -> None:
    """The sweep covers connecting, and all steps from `__aenter__` to `__aexit__`."""

    async def whole() -> None:
        async with client_for(operation, server) as client:
            await operation(client, task)

    async with working(server.address, tasks={task: echo}):
        for attempt in attempts(native=native):
            async with nothing_left(), client_for(operation, server) as client:
                await attempt(operation(client, task))
                await assert_usable(client, task)
        for attempt in attempts(2, native=native):
            async with nothing_left():
                await attempt(whole())


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("operation", [establish_connection, ping_server])
async def test_cancelled_shutdown_closes_the_client(
    operation: Operation, connected: bool, server: Any, task: str
) -> None:
    for attempt in attempts():
        async with nothing_left(), client_for(operation, server) as client:
            if connected:
                await operation(client, task)
            await attempt(client.shutdown())
            with pytest.raises(gearman.errors.LocalProtocolError, match="shut down"):
                await operation(client, task)


# Iterating.


async def each_place(items: Any) -> list[Any]:
    """Cancel each `__anext__` at each of its waits, and return all items."""
    found: list[Any] = []
    while True:
        for attempt in attempts(0):
            try:
                item = await attempt(items.__anext__())
            except StopAsyncIteration:
                return found
            if attempt.completed:
                found.append(item)
                break


async def test_cancelled_iterators_lose_no_item(server: Any, task: str) -> None:
    async def talk(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> Any:
        for number in range(3):
            await worker.send_job_data(job, f"{number}")
            await worker.send_job_status(job, number, 3)
        return job.data

    words = [f"job {number}" for number in range(6)]
    async with (
        working(server.address, tasks={task: talk}, max_jobs=2),
        gearman.GearmanClient([server.address]) as client,
    ):
        requests = await each_place(client.as_completed(await accepted(client, task, *words)))
        assert sorted(request.result.decode() for request in requests) == words
        (request,) = await accepted(client, task, "last")
        seen = await each_place(client.updates(request))
        parts = [each.data for each in seen if isinstance(each, gearman.JobData)]
        assert parts == [b"0", b"1", b"2"]
        assert seen[-1] == gearman.JobEnded(gearman.JOB_COMPLETE, b"last")
        await assert_idle(client)


async def test_abandoned_iterators_are_released_by_the_next_call(server: Any, task: str) -> None:
    async with gearman.GearmanClient([server.address]) as client:
        (request,) = await accepted(client, task, "x")
        items: list[Any] = [
            client.updates(request, poll_timeout=PATIENCE),
            client.as_completed([request]),
        ]
        for each in items:
            await Attempt(2)(each.__anext__())
        assert len(client._gm_driver.engine._waits) == 2
        del items, each
        await client.get_job_status(request)
        await assert_idle(client)
        assert request._gm_waits == ()


async def test_iterator_that_outlives_its_client_ends(server: Any, task: str) -> None:
    async with gearman.GearmanClient([server.address]) as client:
        (request,) = await accepted(client, task, "x")
        items: Any = client.updates(request)
        await Attempt(2)(items.__anext__())
    with anyio.fail_after(PATIENCE):
        assert [item.state async for item in items] == [gearman.JOB_UNKNOWN]


# Jobs of cancelled calls.


@pytest.mark.parametrize("is_sent", [False, True])
async def test_request_of_a_cancelled_call_stays_in_flight(
    is_sent: bool, server: Any, task: str
) -> None:
    """Another call can wait for it, whether the cancelled one had sent it or not."""
    (request,) = requests_for(task, "one")
    async with gearman.GearmanClient([server.address]) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.submit_multiple_requests, [request])
            await until(
                lambda: request.state == gearman.JOB_CREATED if is_sent else request._gm_waits
            )
            tasks.cancel_scope.cancel()
        assert request.state == (gearman.JOB_CREATED if is_sent else gearman.JOB_PENDING)
        assert request._gm_waits == ()
        async with working(server.address, tasks={task: echo}):
            await client.wait_until_jobs_completed([request])
        assert request.result == b"one"
        await assert_idle(client)


@pytest.mark.parametrize("is_sent", [False, True])
async def test_cancelled_call_cancels_its_job_if_asked_to(
    is_sent: bool, server: Any, task: str
) -> None:
    (request,) = requests_for(task, "one")
    submit = functools.partial(
        gearman.GearmanClient.submit_multiple_requests, cancel_if_abandoned=True
    )
    async with gearman.GearmanClient([server.address]) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(submit, client, [request])
            await until(
                lambda: request.state == gearman.JOB_CREATED if is_sent else request._gm_waits
            )
            tasks.cancel_scope.cancel()
        assert request.state == gearman.JOB_FAILED
        ran: list[bytes] = []
        async with working(server.address, tasks={task: lambda _, job: ran.append(job.data)}):
            await client.submit_job(task, "last")
        assert ran == [b"last"]
        await assert_idle(client)


@pytest.mark.slow
async def test_storm_of_cancelled_calls_leaves_no_job(server: Any, task: str) -> None:
    ran: list[bytes] = []

    async def cancel_after(checkpoints: int, scope: anyio.CancelScope) -> None:
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async def abandon(checkpoints: int) -> None:
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel_after, checkpoints, scope)
            await client.submit_job(task, "x", cancel_if_abandoned=True)
        assert scope.cancelled_caught

    async with gearman.GearmanClient([server.address]) as client:
        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(abandon, number % 50)
        engine = client._gm_driver.engine
        # The cancellations of slow calls continue after these.
        await until(
            lambda: (
                not any(admin._waits for admin in engine._admins.values())
                and not [item for link in engine.pool.links() for item in link.items()]
            ),
            "the end of all cancellations",
        )
        async with working(server.address, tasks={task: lambda _, job: ran.append(job.data)}):
            await client.submit_job(task, "last", priority="LOW")
        assert ran == [b"last"]
        await assert_idle(client)


async def test_cancelled_client_does_not_wait_for_the_cancellation_of_its_job(
    server: Any, task: str
) -> None:
    """The cancellation also ends the tasks of the client. The server then drops the job."""
    with anyio.fail_after(PATIENCE), anyio.CancelScope() as scope:
        async with (
            gearman.GearmanClient([server.address]) as client,
            anyio.create_task_group() as tasks,
        ):
            submit = functools.partial(client.submit_job, task, "x", cancel_if_abandoned=True)
            tasks.start_soon(submit)
            await until(lambda: client._gm_driver.engine._waits, "the call")
            scope.cancel()
    assert scope.cancelled_caught


@only_asyncio
@pytest.mark.parametrize("seconds", [-1, 0, A_MOMENT])
async def test_asyncio_timeout_around_calls_and_objects(
    seconds: float, server: Any, task: str
) -> None:
    """asyncio.timeout counts the cancellations, and none is left over."""
    me = asyncio.current_task()
    assert me is not None
    async with gearman.GearmanClient([server.address]) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await client.submit_job(task, "x")
        assert me.cancelling() == 0
        await assert_idle(client)
    async with nothing_left():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds), gearman.GearmanClient([server.address]) as client:
                await client.submit_job(task, "x")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await make_worker(server.address, tasks={task: echo}).work()
        assert me.cancelling() == 0


# The worker.


class Counting(gearman.GearmanWorker):
    """A worker that stops after a number of jobs, or when the queue is empty."""

    left = 0

    async def after_job(self) -> bool:
        await anyio.lowlevel.checkpoint()
        self.left -= 1
        return self.left > 0

    async def after_poll(self, any_activity: bool) -> bool:
        await anyio.lowlevel.checkpoint()
        # Any activity is a reply of the server.
        return self.left > 0 or not any_activity


def assert_at_rest(worker: gearman.GearmanWorker) -> None:
    """Check that `work` left no state in the worker."""
    engine = worker._gm_driver.engine
    assert engine._subscription is None
    assert not worker.has_job_lock()
    assert not engine.pool.links()
    assert not engine._actions
    assert not len(engine._timers)
    assert not worker._gm_driver._wires
    assert not worker._gm_driver.is_running


@each_way
@pytest.mark.both_streams
@pytest.mark.parametrize(
    ("jobs", "is_async"), [(0, True), (4, True), (4, False)], ids=["idle", "async", "plain"]
)
async def test_cancelled_work_loses_no_job(
    jobs: int, is_async: bool, native: bool, server: Any, task: str
) -> None:
    """The next worker runs the remaining jobs."""

    async def slow(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> Any:
        for number in range(2):
            await worker.send_job_status(job, number, 2)
        return job.data

    def plain(worker: Any, job: gearman.WorkerJob) -> Any:
        with contextlib.suppress(GearmanError):
            worker.send_job_status(job, 1, 2)
        return job.data

    words = [f"job {number}" for number in range(jobs)]
    callback = slow if is_async else plain
    async with gearman.GearmanClient([server.address]) as client:
        for attempt in attempts(3, native=native):
            worker = make_worker(server.address, kind=Counting, tasks={task: callback}, max_jobs=3)
            requests = await accepted(client, task, *words)
            async with nothing_left():
                worker.left = jobs
                with anyio.fail_after(PATIENCE):
                    await attempt(worker.work())
                assert_at_rest(worker)
            if jobs and attempt.touched:
                worker.left = sys.maxsize
                async with working(worker):
                    await client.wait_until_jobs_completed(requests, poll_timeout=PATIENCE)
            assert [request.result for request in requests] == [word.encode() for word in words]
            await assert_idle(client)


async def test_send_that_its_callback_cancels_is_whole_and_sent_once(
    server: Any, task: str
) -> None:
    """The sends are an update and the job's result."""
    current = [Attempt(1)]

    async def send(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> str:
        sends = worker.send_job_complete if job.data == b"end" else worker.send_job_data
        await current[0](sends(job, "sent"))
        return "returned"

    async with (
        working(server.address, tasks={task: send}),
        gearman.GearmanClient([server.address]) as client,
    ):
        for current[0] in attempts():
            request = await client.submit_job(task, "update", poll_timeout=PATIENCE)
            assert (request.result, list(request.data_updates)) == (b"returned", [b"sent"])
        for current[0] in attempts():
            request = await client.submit_job(task, "end", poll_timeout=PATIENCE)
            assert request.result == b"sent"


async def test_cancelled_shutdown_of_a_worker_ends_work(server: Any, task: str) -> None:
    for attempt in attempts():
        worker = make_worker(server.address, tasks={task: echo})
        async with nothing_left(), anyio.create_task_group() as tasks:
            tasks.start_soon(worker.work)
            await until(functools.partial(is_asleep, worker), "the connection")
            await attempt(worker.shutdown())
        assert_at_rest(worker)
        assert worker._gm_driver.engine.closed


# The job server.


async def use(server: gearman.JobServer, task: str, **options: Any) -> None:
    """Use a server, and return once it has stopped or replied."""
    with contextlib.suppress(GearmanError):
        async with gearman.GearmanClient([server.address], **options) as client:
            for _ in range(2):
                await client.submit_job(task, "x", background=True)
                await client.get_job_status(gearman.GearmanJobRequest.from_unique("x"))


@each_way
@pytest.mark.parametrize("in_memory", [False, True], ids=["sockets", "memory"])
async def test_server_and_client_cancelled_at_every_wait_leave_nothing(
    in_memory: bool, native: bool, task: str
) -> None:
    """If only the start was cancelled, the server can be started again."""

    async def whole(server: gearman.JobServer) -> None:
        async with server:
            await use(server, task, **({"connect": server.connect} if in_memory else {}))
            await server.stop()
            await server.wait()

    again = 0
    for attempt in attempts(4, native=native):
        server = gearman.JobServer()
        async with nothing_left():
            await attempt(whole(server))
            if repr(server) == "<JobServer not started>":
                again += 1
                await whole(server)
        assert server._gm_driver.engine.closed
    assert again


async def test_cancelled_call_of_a_server_has_its_effect_or_none(task: str) -> None:
    """A cancelled `wait` or `connect` changes nothing. A cancelled `stop` stops the server."""
    for attempt in attempts():
        async with nothing_left(), gearman.JobServer() as server:
            await Attempt(1)(server.wait())
            assert not server._gm_driver.engine._waits
            near: Any = await attempt(server.connect())
            if near is not None:
                await near.aclose()
            await use(server, task)
            await Attempt(attempt.number)(server.stop())
            assert server._gm_driver.engine.closed
            with anyio.fail_after(PATIENCE):
                await server.wait()


@each_way
async def test_cancelled_handling_closes_the_connection(native: bool, task: str) -> None:
    async def connect(address: object) -> ByteStream:
        return near

    async with gearman.JobServer() as server:
        for attempt in attempts(native=native):
            near, far = pipe()
            async with nothing_left(), anyio.create_task_group() as tasks:
                tasks.start_soon(functools.partial(use, server, task, connect=connect))
                await attempt(server.handle(far))
                if attempt.touched:
                    with pytest.raises(anyio.ClosedResourceError):
                        await far.receive()
                    tasks.cancel_scope.cancel()
                await near.aclose()
            assert not server._gm_driver.engine.links
            await use(server, task)


@each_way
async def test_serve_cancelled_at_every_wait_leaves_nothing(native: bool, task: str) -> None:
    class Status:
        """A task status that stops the server once it has started, without another task."""

        def started(self, server: gearman.JobServer) -> None:
            async def run() -> None:
                await use(server, task)
                await server.stop()

            tasks.start_soon(run)

    for attempt in attempts(3, native=native):
        async with nothing_left(), anyio.create_task_group() as tasks:
            await attempt(gearman.serve(port=0, task_status=Status()))  # type: ignore[arg-type]
