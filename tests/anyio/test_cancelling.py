"""Cancellation at every wait: the operation ends at once and affects no other operation."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import gearman_anyio as gearman
from gearman_anyio._streams import pipe
from gearman_proto.errors import GearmanError
from gearman_proto.jobs import tracking
from tests.profiles import seeds
from tests.support import PATIENCE

from .stepping import (
    Attempt,
    Stepped,
    assert_idle,
    attempts,
    count_tasks,
    echo,
    is_asleep,
    nothing_left,
    working,
)
from .support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from anyio.abc import ByteStream

    Operation = Callable[[gearman.GearmanClient, str], Coroutine[Any, Any, object]]

pytestmark = pytest.mark.anyio

only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])

# Seconds: long enough for an operation to start, too short for an endless one to do much.
A_MOMENT = 0.005


@pytest.fixture(autouse=True)
async def _nothing_left(anyio_backend: str) -> AsyncIterator[None]:
    async with nothing_left():
        yield


def requests_for(task: str, *data: str, background: bool = False) -> list[Any]:
    """Return new requests."""
    return [
        gearman.GearmanJobRequest(
            gearman.GearmanJob(None, None, task, None, each), background=background
        )
        for each in data
    ]


async def accepted(client: gearman.GearmanClient, task: str, *data: str) -> list[Any]:
    """Return requests that the server has accepted."""
    return await client.submit_multiple_requests(
        requests_for(task, *data), wait_until_complete=False
    )


async def assert_usable(client: gearman.GearmanClient, task: str, word: str) -> None:
    """Check that another job on the same client gets its own result."""
    with anyio.fail_after(PATIENCE):
        request = await client.submit_job(task, f"after {word}")
    assert (request.state, request.result) == (gearman.JOB_COMPLETE, f"after {word}".encode())
    await assert_idle(client)


# Operations of a client. Each checks its own result.


async def submit_multiple_jobs(client: gearman.GearmanClient, task: str) -> None:
    jobs = [{"task": task, "data": data} for data in ("one", "two", "three")]
    requests = await client.submit_multiple_jobs(jobs)
    assert [request.result for request in requests] == [b"one", b"two", b"three"]


async def as_completed(client: gearman.GearmanClient, task: str) -> None:
    requests = await accepted(client, task, "one", "two", "three")
    seen = [request.result async for request in client.as_completed(requests)]
    assert sorted(seen) == [b"one", b"three", b"two"]


async def updates(client: gearman.GearmanClient, task: str) -> None:
    (request,) = await accepted(client, task, "one")
    seen = [update async for update in client.updates(request)]
    assert [type(update) for update in seen] == [gearman.JobEnded]
    assert request.result == b"one"


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


# Each operation waits in a different way. The other methods call one of these.
OPERATIONS: list[Operation] = [
    submit_multiple_jobs,
    as_completed,
    updates,
    get_job_statuses,
    establish_connection,
    poll_connections,
]
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.__name__)


@each_operation
async def test_operations_cancelled_with_an_open_connection(
    operation: Operation, server: Any, task: str
) -> None:
    async with (
        working(server, {task: echo}),
        gearman.GearmanClient([server.address]) as client,
    ):
        await assert_usable(client, task, "nothing")
        for attempt in attempts():
            await attempt(operation(client, task))
            await assert_idle(client)
            await assert_usable(client, task, repr(attempt))


@pytest.mark.slow
@pytest.mark.both_streams
@each_operation
async def test_operations_cancelled_with_a_new_client(
    operation: Operation, server: Any, task: str
) -> None:
    """The sweep covers connecting, and all steps from `__aenter__` to `__aexit__`."""

    async def whole() -> None:
        async with gearman.GearmanClient([server.address]) as client:
            await operation(client, task)

    async with working(server, {task: echo}):
        for attempt in attempts():
            async with nothing_left(), gearman.GearmanClient([server.address]) as client:
                await attempt(operation(client, task))
                await assert_idle(client)
                await assert_usable(client, task, repr(attempt))
        for attempt in attempts(2):
            async with nothing_left():
                await attempt(whole())


async def test_pending_calls_return_when_the_client_exits(server: Any, task: str) -> None:
    """Pending calls return, regardless of how the client's task ends."""

    async def whole(pending: list[Any]) -> None:
        async with (
            gearman.GearmanClient([server.address]) as client,
            anyio.create_task_group() as tasks,
        ):
            for request in pending:
                tasks.start_soon(client.submit_multiple_requests, [request])
            tasks.start_soon(client.poll_connections_until_stopped, [], lambda _: True)
            await client.submit_job(task, "x", background=True)
            await client.shutdown()

    for attempt in attempts(3):
        pending = requests_for(task, "one", "two")
        async with nothing_left():
            await attempt(whole(pending))
        for request in pending:
            # Requests without a waiting call keep their state.
            assert tracking.is_orphaned(request) or request.state == gearman.JOB_UNKNOWN
            assert request._gm_waits == ()


@pytest.mark.parametrize("connected", [False, True])
async def test_shutdown(connected: bool, server: Any, task: str) -> None:
    for attempt in attempts():
        async with nothing_left(), gearman.GearmanClient([server.address]) as client:
            if connected:
                await client.submit_job(task, "x", background=True)
            await attempt(client.shutdown())
            # The client is shut down although the call was cancelled.
            with pytest.raises(gearman.errors.InvalidClientState):
                await client.submit_job(task, "x")


# Iterating.


async def test_each_item_of_as_completed(server: Any, task: str) -> None:
    words = [f"job {number}" for number in range(6)]
    async with (
        working(server, {task: echo}, max_jobs=2),
        gearman.GearmanClient([server.address]) as client,
    ):
        # Cancel once, at each wait. The remaining items follow afterwards.
        for attempt in attempts(3):
            requests = await accepted(client, task, *words)
            items = client.as_completed(requests)
            seen: list[bytes] = []

            async def take(items: Any = items, seen: list[bytes] = seen) -> None:
                async for request in items:
                    seen.append(request.result)  # noqa: PERF401 - what came before a cancellation

            await attempt(take())
            await take()
            assert sorted(seen) == [word.encode() for word in words]
            await assert_idle(client)
        # Cancel each `__anext__` at each of its waits.
        items = client.as_completed(await accepted(client, task, *words))
        found = [await each_place(items) for _ in words]
        assert sorted(request.result for request in found) == [word.encode() for word in words]
        with pytest.raises(StopAsyncIteration):
            await each_place(items)
        await assert_idle(client)
        await assert_usable(client, task, "all that")


async def each_place(items: Any) -> Any:
    """Cancel `__anext__` at each of its waits, and then return the next item."""
    for attempt in attempts():
        item = await attempt(items.__anext__())
        if attempt.completed:
            return item
    raise AssertionError("it has no end")


async def test_each_of_the_updates(server: Any, task: str) -> None:
    go_on = anyio.Semaphore(0)

    async def talk(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
        for number in range(3):
            await go_on.acquire()
            await worker.send_job_data(job, f"{job.data!r}: {number}")
            await worker.send_job_status(job, number, 3)
        data: bytes = job.data
        return data

    async with (
        working(server, {task: talk}),
        gearman.GearmanClient([server.address]) as client,
    ):
        for attempt in attempts(3):
            (request,) = await accepted(client, task, repr(attempt))
            items = client.updates(request)
            seen: list[Any] = []

            async def take(items: Any = items, seen: list[Any] = seen) -> None:
                go_on.release()
                async for update in items:
                    seen.append(update)
                    go_on.release()

            await attempt(take())
            await take()
            assert [update.data for update in seen if isinstance(update, gearman.JobData)] == [
                f"{request.data.encode()!r}: {number}".encode() for number in range(3)
            ]
            ended = gearman.JobEnded(gearman.JOB_COMPLETE, request.data.encode())
            assert seen.index(ended) == len(seen) - 1
            progress = [update for update in seen if isinstance(update, gearman.JobProgress)]
            assert len(progress) == len(set(progress)) <= 3
            await assert_idle(client)
            while go_on.value:
                go_on.acquire_nowait()
        (request,) = await accepted(client, task, "last")
        items = client.updates(request)
        kinds: list[type] = []
        while gearman.JobEnded not in kinds:
            go_on.release()
            kinds.append(type(await each_place(items)))
        assert kinds.count(gearman.JobData) == 3
        assert gearman.JobProgress in kinds
        with pytest.raises(StopAsyncIteration):
            await each_place(items)
        await assert_idle(client)


async def test_abandoned_iteration_leaves_client_usable(server: Any, task: str) -> None:
    async with gearman.GearmanClient([server.address]) as client:
        (request,) = await accepted(client, task, "x")
        updates: Any = client.updates(request)
        requests: Any = client.as_completed([request])
        for items in (updates, requests):
            attempt = Attempt(2)
            await attempt(items.__anext__())
            assert attempt.touched
        assert len(client._gm_driver.engine._waits) == 2
        del updates, requests, items
        await client.get_job_status(request)
        await assert_idle(client)
        assert request._gm_waits == ()


# Jobs of cancelled calls.


@pytest.mark.parametrize("is_kept", [False, True])
async def test_job_of_a_cancelled_call_runs_to_its_end(
    is_kept: bool, server: Any, task: str
) -> None:
    done: list[bytes] = []

    async def count(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
        await worker.send_job_data(job, "part")
        done.append(job.data)
        data: bytes = job.data
        return data

    async with gearman.GearmanClient([server.address]) as client:
        requests = requests_for(task, *(f"job {number}" for number in range(5)))
        async with anyio.create_task_group() as tasks:
            for request in requests:
                tasks.start_soon(client.submit_multiple_requests, [request])
            await until(lambda: all(request.state == gearman.JOB_CREATED for request in requests))
            tasks.cancel_scope.cancel()
        await assert_idle(client)
        assert [request._gm_waits for request in requests] == 5 * [()]
        if not is_kept:
            del requests, request
        async with working(server, {task: count}):
            await until(lambda: len(done) == 5, "the end of the jobs")
            # The server replies in order, so the earlier replies have arrived as well.
            assert (await client.submit_job(task, "another")).result == b"another"
        assert sorted(done[:5]) == [f"job {number}".encode() for number in range(5)]
        if is_kept:
            await client.wait_until_jobs_completed(requests)
            assert [request.result for request in requests] == sorted(done[:5])
        await assert_idle(client)


async def test_cancelled_before_it_was_sent(server: Any, task: str) -> None:
    """The request stays in flight, and another call can wait for it."""
    async with gearman.GearmanClient([server.address]) as client:
        requests = requests_for(task, "one")
        attempt = Attempt(1)
        await attempt(client.submit_multiple_requests(requests))
        assert attempt.touched
        assert requests[0].state == gearman.JOB_PENDING
        async with working(server, {task: echo}):
            await client.wait_until_jobs_completed(requests)
        assert requests[0].result == b"one"


async def test_the_time_of_the_call_and_of_the_scope(server: Any, task: str) -> None:
    async with gearman.GearmanClient([server.address]) as client:
        with anyio.move_on_after(PATIENCE) as scope:
            request = await client.submit_job(task, "x", poll_timeout=A_MOMENT)
        assert request.timed_out
        assert not scope.cancel_called
        with anyio.move_on_after(A_MOMENT) as scope:
            await client.submit_job(task, "x", poll_timeout=PATIENCE)
        assert scope.cancelled_caught
        await assert_idle(client)
        with pytest.raises(TimeoutError):
            with anyio.fail_after(A_MOMENT):
                await client.submit_job(task, "x")


# Native cancellation of asyncio.


@only_asyncio
@each_operation
async def test_native_cancellation(operation: Operation, server: Any, task: str) -> None:
    async def whole() -> None:
        async with gearman.GearmanClient([server.address]) as client:
            await operation(client, task)

    async with working(server, {task: echo}):
        async with gearman.GearmanClient([server.address]) as client:
            for attempt in attempts():
                await attempt.native(operation(client, task))
                await assert_idle(client)
                await assert_usable(client, task, repr(attempt))
        for attempt in attempts(2):
            async with nothing_left():
                await attempt.native(whole())


@only_asyncio
async def test_native_cancellation_after_the_result_arrived(server: Any, task: str) -> None:
    """The result and the cancellation arrive between two steps of the waiting task."""
    async with (
        working(server, {task: echo}),
        gearman.GearmanClient([server.address]) as client,
    ):
        (request,) = requests_for(task, "x")
        call = asyncio.create_task(client.submit_multiple_requests([request]))
        while not client._gm_driver.engine._waits:
            await anyio.lowlevel.checkpoint()
        (wait,) = client._gm_driver.engine._waits
        wake = wait.wake

        def wake_and_cancel() -> None:
            wake()
            call.cancel()

        wait.wake = wake_and_cancel
        await asyncio.wait([call])
        assert call.cancelled()
        await assert_idle(client)
        # Only the call was cancelled. The request has its result.
        assert (await client.wait_until_jobs_completed([request]))[0].result == b"x"


@only_asyncio
async def test_timeout(server: Any, task: str) -> None:
    me = asyncio.current_task()
    assert me is not None
    async with gearman.GearmanClient([server.address]) as client:
        for seconds in (-1, 0, A_MOMENT):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await client.submit_job(task, "x")
            assert me.cancelling() == 0
            await assert_idle(client)
        async with working(server, {task: echo}):
            await assert_usable(client, task, "all that")
    # A scope around the client.
    for seconds in (-1, 0, A_MOMENT):
        async with nothing_left():
            with pytest.raises(TimeoutError):
                async with (
                    asyncio.timeout(seconds),
                    gearman.GearmanClient([server.address]) as client,
                ):
                    await client.submit_job(task, "x")
            assert me.cancelling() == 0
    # A scope around the worker.
    worker = gearman.GearmanWorker([server.address])
    worker.register_task(task, echo)
    async with nothing_left():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(A_MOMENT):
                await worker.work()
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
    assert engine._stream is None
    assert not worker.has_job_lock()
    assert not engine.pool.links()
    assert not engine._actions
    assert not len(engine._timers)
    assert not worker._gm_driver._wires
    assert not worker._gm_driver.is_running


@pytest.mark.both_streams
@pytest.mark.parametrize(
    ("jobs", "is_async", "native"),
    [(0, True, False), (4, True, False), (4, False, False), (4, True, True)],
    ids=["idle", "async", "plain", "native"],
)
async def test_work(
    jobs: int, is_async: bool, native: bool, server: Any, task: str, anyio_backend: str
) -> None:
    """The next worker runs the remaining jobs."""
    if native and anyio_backend != "asyncio":
        pytest.skip("there is none")

    async def slow(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
        for number in range(2):
            await worker.send_job_status(job, number, 2)
        data: bytes = job.data
        return data

    def plain(worker: Any, job: gearman.WorkerJob) -> bytes:
        with contextlib.suppress(GearmanError):
            worker.send_job_status(job, 1, 2)
        data: bytes = job.data
        return data

    words = [f"job {number}" for number in range(jobs)]
    async with gearman.GearmanClient([server.address]) as client:
        for attempt in attempts(3):
            worker = Counting([server.address], max_jobs=3)
            worker.register_task(task, slow if is_async else plain)
            requests = await accepted(client, task, *words)
            async with nothing_left():
                worker.left = jobs
                with anyio.fail_after(PATIENCE):
                    await (attempt.native if native else attempt)(worker.work())
                assert_at_rest(worker)
            if jobs and attempt.touched:
                async with anyio.create_task_group() as tasks:
                    worker.left = sys.maxsize
                    tasks.start_soon(worker.work)
                    with anyio.fail_after(PATIENCE):
                        await client.wait_until_jobs_completed(requests)
                    worker.stop()
            assert [request.result for request in requests] == [word.encode() for word in words]
            await assert_idle(client)


class Polled(gearman.GearmanWorker):
    """A worker whose `work` wakes for every packet, which adds places to cancel."""

    async def after_poll(self, any_activity: bool) -> bool:
        return True


@pytest.mark.parametrize(("kind", "places"), [(gearman.GearmanWorker, 2), (Polled, 3)])
async def test_work_while_it_stops(
    server: Any, task: str, kind: type[gearman.GearmanWorker], places: int
) -> None:
    """The drain is cancelled while one job runs and another job's result is in flight."""
    async with gearman.GearmanClient([server.address]) as client:
        for attempt in attempts(places):
            worker = kind([server.address], max_jobs=2)
            begun: list[bytes] = []

            async def stop(
                worker: gearman.GearmanWorker,
                job: gearman.WorkerJob,
                begun: list[bytes] = begun,
            ) -> bytes:
                begun.append(job.data)
                # Wait for both jobs, because `stop` prevents the worker from grabbing more.
                await until(lambda: len(begun) == 2, "both jobs")
                worker.stop()
                for _ in range(10 * len(begun)):
                    await anyio.lowlevel.checkpoint()
                data: bytes = job.data
                return data

            worker.register_task(task, stop)
            requests = await accepted(client, task, "one", "two")
            async with nothing_left():
                with anyio.fail_after(PATIENCE):
                    await attempt(worker.work())
                assert_at_rest(worker)
            async with working(server, {task: echo}):
                with anyio.fail_after(PATIENCE):
                    await client.wait_until_jobs_completed(requests)
            assert [request.result for request in requests] == [b"one", b"two"]


async def test_running_jobs_of_a_cancelled_worker_run_on_another(
    server: Any, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[str] = []

    async def stay(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            ends.append("cancelled")
            raise
        finally:
            ends.append("finally")

    async with gearman.GearmanClient([server.address]) as client:
        requests = requests_for(task, "one", "two", "three")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.submit_multiple_requests, requests)
            async with anyio.create_task_group() as work, anyio.create_task_group():
                worker = gearman.GearmanWorker([server.address], max_jobs=3)
                worker.register_task(task, stay)
                work.start_soon(worker.work)
                await until(lambda: len(worker._gm_driver.engine._jobs) == 3, "three jobs")
                await anyio.lowlevel.checkpoint()
                work.cancel_scope.cancel()
            assert ends == 3 * ["cancelled", "finally"]
            assert not caplog.records  # A failed job would have been logged.
            assert_at_rest(worker)
            assert not any(request.complete for request in requests)
            tasks.start_soon(finish_with, server, task, client, requests)
        assert [request.result for request in requests] == [b"one", b"two", b"three"]


async def finish_with(
    server: Any, task: str, client: gearman.GearmanClient, requests: list[Any]
) -> None:
    """Run a worker until the remaining jobs are done."""
    async with working(server, {task: echo}):
        with anyio.fail_after(PATIENCE):
            await client.wait_until_jobs_completed(requests)


@pytest.mark.parametrize("then", ["nothing", "send", "stop", "raise"])
async def test_a_blocked_thread_does_not_keep_work(then: str, server: Any, task: str) -> None:
    """`work` returns while the thread is blocked. Later packets from the thread are dropped."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def block(worker: Any, job: gearman.WorkerJob) -> bytes:
        begun.set()
        try:
            assert go_on.wait(PATIENCE)
            if then == "send":
                worker.send_job_data(job, "late")
            elif then == "stop":
                worker.stop()
            elif then == "raise":
                raise ZeroDivisionError
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            ended.set()
        return b"late"

    async with gearman.GearmanClient([server.address]) as client:
        (request,) = await accepted(client, task, "x")
        worker = gearman.GearmanWorker([server.address])
        worker.register_task(task, block)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.work)
                await until(begun.is_set, "the begin of the job")
                tasks.cancel_scope.cancel()
            assert not ended.is_set()
            assert_at_rest(worker)
            await finish_with(server, task, client, [request])
            assert request.result == b"x"
        finally:
            go_on.set()
        await until(ended.is_set, "the end of the thread")
        await assert_threads_idle()
        if then == "send":
            (error,) = raised
            assert isinstance(error, GearmanError)
        elif then == "raise":
            assert isinstance(raised[0], ZeroDivisionError)
        async with working(server, {task: echo}):
            await assert_usable(client, task, "the thread")


async def assert_threads_idle() -> None:
    """Wait until callback threads have reported all their results to the event loop."""
    for _ in range(5):
        await anyio.to_thread.run_sync(lambda: None)
        await anyio.lowlevel.checkpoint()


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
        working(server, {task: send}),
        gearman.GearmanClient([server.address]) as client,
    ):
        for current[0] in attempts():
            request = await client.submit_job(task, "update", poll_timeout=PATIENCE)
            assert (request.result, list(request.data_updates)) == (b"returned", [b"sent"])
        for current[0] in attempts():
            request = await client.submit_job(task, "end", poll_timeout=PATIENCE)
            assert request.result == b"sent"


async def test_callback_can_use_cancel_scopes(server: Any, task: str) -> None:
    """One scope contains another wait, and another contains a client."""

    async def nested(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> str:
        async with gearman.GearmanClient([server.address]) as client:
            with anyio.move_on_after(A_MOMENT) as scope:
                await client.submit_job(f"{task}-nobody", "x")
        return f"moved on: {scope.cancelled_caught}"

    async with (
        working(server, {task: nested}),
        gearman.GearmanClient([server.address]) as client,
    ):
        assert (await client.submit_job(task, "x")).result == b"moved on: True"


@only_asyncio
@pytest.mark.parametrize("where", ["callback", "hook"])
async def test_callback_that_awaits_a_cancelled_future_fails_its_job(
    where: str, server: Any, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The callback raises CancelledError without being cancelled. Only its job fails."""

    async def fail() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def callback(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
        if where == "callback" and job.data == b"fail":
            await fail()
        data: bytes = job.data
        return data

    class Worker(gearman.GearmanWorker):
        async def on_job_complete(self, current_job: Any, job_result: Any) -> bool:
            if where == "hook" and current_job.data == b"fail":
                await fail()
            return await super().on_job_complete(current_job, job_result)

    worker = Worker([server.address])
    worker.register_task(task, callback)
    async with (
        anyio.create_task_group() as tasks,
        gearman.GearmanClient([server.address]) as client,
    ):
        tasks.start_soon(worker.work)
        for _ in range(2):
            request = await client.submit_job(task, "fail", poll_timeout=PATIENCE)
            assert request.state == gearman.JOB_FAILED
            assert (await client.submit_job(task, "go on")).result == b"go on"
        worker.stop()
    assert len(caplog.records) == 2
    assert all(record.exc_info for record in caplog.records)


async def test_shutdown_of_a_worker(server: Any, task: str) -> None:
    for attempt in attempts():
        worker = gearman.GearmanWorker([server.address])
        worker.register_task(task, echo)
        async with nothing_left(), anyio.create_task_group() as tasks:
            tasks.start_soon(worker.work)
            await until(functools.partial(is_asleep, worker), "the connection")
            await attempt(worker.shutdown())
        # Shutdown makes `work` return, even if the call is cancelled.
        assert_at_rest(worker)
        assert worker._gm_driver.engine.closed


# The job server.


async def use(server: gearman.JobServer, task: str, **options: Any) -> None:
    """Use every feature of a server."""
    async with gearman.GearmanClient([server.address], **options) as client:
        for _ in range(2):
            await client.submit_job(task, "x", background=True)
            await client.get_job_status(gearman.GearmanJobRequest.from_unique("x"))


async def test_server_use_cancelled_at_every_wait(task: str) -> None:
    async def whole(in_memory: bool) -> None:
        async with gearman.JobServer() as server:
            options = {"connect": server.connect} if in_memory else {}
            await use(server, task, **options)
            await server.stop()
            await server.wait()

    for in_memory in (False, True):
        for attempt in attempts(4):
            async with nothing_left():
                await attempt(whole(in_memory))


async def test_starting_a_server(task: str) -> None:
    """A server can be started again after its start was cancelled."""

    async def start(server: gearman.JobServer) -> None:
        async with server:
            pass

    again = 0
    for attempt in attempts(2):
        async with nothing_left():
            server = gearman.JobServer()
            await attempt(start(server))
            if repr(server) == "<JobServer not started>":
                again += 1
                async with server:
                    await use(server, task)
            else:
                assert server._gm_driver.engine.closed
    assert again


async def test_waiting_for_a_server(task: str) -> None:
    async def stop_soon(server: gearman.JobServer) -> None:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        await server.stop()

    async def wait(server: gearman.JobServer, tasks: Any) -> None:
        tasks.start_soon(stop_soon, server)
        await server.wait()
        await server.wait()

    for attempt in attempts(2):
        async with (
            nothing_left(),
            gearman.JobServer() as server,
            anyio.create_task_group() as tasks,
        ):
            await attempt(wait(server, tasks))
            assert not server._gm_driver.engine._waits
            tasks.cancel_scope.cancel()


async def test_stopping_a_server(task: str) -> None:
    for attempt in attempts():
        async with nothing_left(), gearman.JobServer() as server:
            await use(server, task)
            await attempt(server.stop())
            assert server._gm_driver.engine.closed
            with anyio.fail_after(PATIENCE):
                await server.wait()


@pytest.mark.parametrize("native", [False, True], ids=["scope", "native"])
async def test_handling_a_connection(native: bool, task: str, anyio_backend: str) -> None:
    if native and anyio_backend != "asyncio":
        pytest.skip("there is none")

    async def use_near(server: gearman.JobServer, near: ByteStream) -> None:
        async def connect(address: object) -> ByteStream:
            return near

        with contextlib.suppress(GearmanError):
            await use(server, task, connect=connect)

    async with gearman.JobServer() as server:
        for attempt in attempts():
            near, far = pipe()
            async with nothing_left(), anyio.create_task_group() as tasks:
                tasks.start_soon(use_near, server, near)
                await (attempt.native if native else attempt)(server.handle(far))
                if attempt.touched:
                    with pytest.raises(anyio.ClosedResourceError):
                        await far.receive()
                    tasks.cancel_scope.cancel()
                await near.aclose()
            assert not server._gm_driver.engine.links
            await use(server, task)


async def test_connecting_within_the_process(task: str) -> None:
    async with gearman.JobServer() as server:
        for attempt in attempts():
            async with nothing_left():
                near: Any = await attempt(server.connect())
                if near is not None:
                    await near.aclose()
        await use(server, task, connect=server.connect)


@pytest.mark.parametrize("native", [False, True], ids=["scope", "native"])
async def test_serve(native: bool, task: str, anyio_backend: str) -> None:
    if native and anyio_backend != "asyncio":
        pytest.skip("there is none")

    class Status:
        """A task status that stops the server once it has started, without another task."""

        def __init__(self, tasks: Any) -> None:
            self.tasks = tasks

        def started(self, server: gearman.JobServer) -> None:
            async def run() -> None:
                with contextlib.suppress(GearmanError):
                    await use(server, task)
                await server.stop()

            self.tasks.start_soon(run)

    for attempt in attempts(3):
        async with nothing_left(), anyio.create_task_group() as tasks:
            serving = gearman.serve(port=0, task_status=Status(tasks))  # type: ignore[arg-type]
            await (attempt.native if native else attempt)(serving)


# All at once.


@pytest.mark.parametrize("seed", seeds(1))
async def test_many_cancelled_tasks_on_one_client_get_their_own_results(
    seed: int, server: Any, task: str
) -> None:
    """Many tasks share a client and are cancelled at random. Each result fits its request."""
    numbers = iter(range(sys.maxsize))
    arrived = cancelled = 0

    async def tell(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
        await worker.send_job_data(job, b"part of " + job.data)
        data: bytes = job.data
        return data

    async def one(client: gearman.GearmanClient, rng: random.Random) -> None:
        words = [f"{seed}: {next(numbers)}" for _ in range(rng.randint(1, 3))]
        kind = rng.randrange(5)
        if kind == 0:
            request = await client.submit_job(task, words[0])
            assert request.result == words[0].encode()
            assert list(request.data_updates) == [b"part of " + words[0].encode()]
        elif kind == 1:
            jobs = [{"task": task, "data": word} for word in words]
            requests = await client.submit_multiple_jobs(jobs)
            assert [request.result for request in requests] == [word.encode() for word in words]
        elif kind == 2:
            requests = await accepted(client, task, *words)
            seen = [request.result async for request in client.as_completed(requests)]
            assert sorted(seen) == sorted(word.encode() for word in words)
        elif kind == 3:
            (request,) = await accepted(client, task, words[0])
            unique = await client.get_job_status(request)
            assert unique.status is not None
            assert unique.status["handle"] == request.handle
            updates = [update async for update in client.updates(request)]
            assert [update.data for update in updates if isinstance(update, gearman.JobData)] == [
                b"part of " + words[0].encode()
            ]
            assert request.result == words[0].encode()
        else:
            request = await client.submit_job(task, words[0], background=True)
            assert request.state == gearman.JOB_CREATED

    async def some(client: gearman.GearmanClient, rng: random.Random) -> None:
        nonlocal arrived, cancelled
        for _ in range(15):
            attempt = Attempt(rng.choice([1, 2, 3, 4, sys.maxsize]))
            with anyio.move_on_after(rng.choice([A_MOMENT, PATIENCE, PATIENCE])):
                await attempt(one(client, rng))
            arrived += attempt.completed
            cancelled += not attempt.completed

    async with (
        working(server, {task: tell}, max_jobs=5),
        gearman.GearmanClient([server.address]) as client,
    ):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(some, client, random.Random(100 * seed + number))
        # On a slow machine, few results arrive before their call is cancelled.
        assert arrived > 20
        assert cancelled > 50
        await assert_idle(client)
        (server_of_client,) = client.connection_list
        assert server_of_client.connected
        await assert_usable(client, task, "the storm")
        # The client has to forget jobs whose requests were collected.
        await until(lambda: not live_jobs(client), "the end of the jobs")


def live_jobs(client: gearman.GearmanClient) -> list[Any]:
    """Return the jobs that are still pending in the client."""
    return [
        job
        for server in client.connection_list
        if server.link is not None
        for job in server.link.jobs.values()
    ]


# The helpers themselves.


async def test_stepping_finds_every_place() -> None:
    """The sweep cancels at every wait. A sweep that skipped one would prove nothing."""
    reached: list[int] = []

    async def three() -> str:
        for number in range(3):
            reached.append(number)
            await anyio.lowlevel.checkpoint()
        return "end"

    results = [await attempt(three()) for attempt in attempts()]
    assert results == [None, None, None, "end"]
    assert reached == [0, 0, 1, 0, 1, 2, 0, 1, 2]
    steps: list[int] = []
    assert await Stepped(three(), steps.append) == "end"
    assert steps == [1, 2, 3]
    assert count_tasks()
