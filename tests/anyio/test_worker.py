"""The worker on asyncio and trio: callbacks in the event loop and in threads, and their ends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import pytest

from gearman_anyio import GearmanClient, GearmanWorker, WorkerJob
from gearman_anyio._callbacks import WorkTask
from gearman_anyio._tasks import Tasks
from gearman_proto.errors import ConnectionError, InvalidWorkerState, ServerUnavailable
from tests.support import PATIENCE, wait_for

from .support import (
    KINDS,
    make_worker,
    no_more_threads,
    only_asyncio,
    plain_reverse,
    reverse,
    until,
    working,
)

pytestmark = pytest.mark.anyio


# Running callbacks.


class Objects:
    """Callbacks of several forms."""

    async def __call__(self, worker: Any, job: WorkerJob) -> Any:
        return in_the_loop(worker, job)

    async def method(self, worker: Any, job: WorkerJob) -> Any:
        return in_the_loop(worker, job)

    async def partial(self, first: bytes, worker: Any, job: WorkerJob, *, last: bytes) -> Any:
        return first + in_the_loop(worker, job) + last


class PlainObjects:
    """Plain callbacks of several forms."""

    def __call__(self, worker: Any, job: WorkerJob) -> Any:
        return in_a_thread(worker, job)

    def partial(self, first: bytes, worker: Any, job: WorkerJob) -> Any:
        return first + in_a_thread(worker, job)


def in_the_loop(worker: Any, job: WorkerJob) -> Any:
    assert threading.current_thread() is threading.main_thread()
    assert isinstance(worker, GearmanWorker)
    return job.data


def in_a_thread(worker: Any, job: WorkerJob) -> Any:
    assert threading.current_thread() is not threading.main_thread()
    assert not isinstance(worker, GearmanWorker)
    return job.data


async def returned(worker: Any, job: WorkerJob) -> Any:
    assert threading.current_thread() is threading.main_thread()
    await worker.send_job_data(job, b"part")
    worker.set_client_id("its-own")
    return job.data


FORMS: dict[str, tuple[Any, bytes]] = {
    "async object": (Objects(), b"x"),
    "async method": (Objects().method, b"x"),
    "async partial": (functools.partial(Objects().partial, b"<", last=b">"), b"<x>"),
    "function": (in_a_thread, b"x"),
    "object": (PlainObjects(), b"x"),
    "partial": (functools.partial(PlainObjects().partial, b"<"), b"<x"),
    "lambda": (lambda worker, job: in_a_thread(worker, job), b"x"),  # noqa: PLW0108 - it is
    # The worker of the lambda, a proxy for threads, is used in the event loop.
    "lambda with an awaitable": (lambda worker, job: returned(worker, job), b"x"),  # noqa: PLW0108
}


@pytest.mark.parametrize("form", FORMS)
async def test_async_callbacks_run_in_the_loop_and_plain_ones_in_threads(
    server: Any, task: str, form: str
) -> None:
    callback, result = FORMS[form]
    async with (
        working(server.address, tasks={task: callback}),
        GearmanClient([server.address]) as client,
    ):
        assert (await client.submit_job(task, b"x")).result == result


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nothing")


@pytest.mark.parametrize("kind", KINDS)
async def test_each_callback_runs_in_a_copy_of_the_callers_context(
    server: Any, task: str, kind: str
) -> None:
    def plain(worker: Any, job: WorkerJob) -> str:
        seen = VARIABLE.get()
        VARIABLE.set("the job's")
        return seen

    async def function(worker: Any, job: WorkerJob) -> str:
        return plain(worker, job)

    worker = make_worker(server.address, tasks={task: plain if kind == "plain" else function})
    token = VARIABLE.set("the caller's")
    try:
        async with working(worker), GearmanClient([server.address]) as client:
            for _ in range(3):
                assert (await client.submit_job(task, b"")).result == b"the caller's"
    finally:
        VARIABLE.reset(token)


class Sub(GearmanWorker):
    """A subclass with attributes and methods of its own."""

    total = 0
    label = "class"

    def plain_method(self, number: int) -> int:
        return self.total + number


async def test_worker_in_a_thread_is_a_proxy_with_blocking_methods(server: Any, task: str) -> None:
    """Attributes that the proxy does not know are the worker's."""
    seen: list[Any] = []

    def function(proxy: Any, job: WorkerJob) -> Any:
        proxy.total += 5
        proxy.label = "instance"
        proxy.new = ["new"]
        with pytest.raises(AttributeError, match="nothing"):
            _ = proxy.nothing
        with pytest.raises(TypeError):
            proxy.register_task(5, reverse)
        seen.append((repr(proxy), proxy.plain_method(1), proxy.has_job_lock()))
        seen.append(proxy.register_task(f"{task}-b", reverse, timeout=100))
        seen.append(list(proxy.worker_abilities))
        seen.append(proxy.unregister_task(task=f"{task}-b"))
        seen.append((proxy.set_client_id("me"), proxy.worker_client_id))
        return b"done"

    worker = make_worker(server.address, kind=Sub, tasks={task: function})
    async with working(worker), GearmanClient([server.address]) as client:
        assert (await client.submit_job(task, b"")).result == b"done"
    assert seen == [
        (repr(worker), 6, True),
        f"{task}-b",
        [task, f"{task}-b"],
        f"{task}-b",
        ("me", "me"),
    ]
    assert (worker.total, worker.label, worker.new) == (5, "instance", ["new"])
    assert (Sub.total, Sub.label) == (0, "class")


async def test_worker_itself_is_refused_in_another_thread(server: Any, task: str) -> None:
    """The error names `anyio.from_thread`."""
    refused: list[str] = []

    def function(_: Any, job: WorkerJob) -> None:
        for call in (worker.stop, functools.partial(worker.register_task, "x", reverse)):
            with pytest.raises(RuntimeError) as caught:
                call()
            refused.append(str(caught.value))
        anyio.from_thread.run(worker.send_job_data, job, b"by hand")

    worker = make_worker(server.address, tasks={task: function})
    async with working(worker), GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"")
        assert list(request.data_updates) == [b"by hand"]
    assert ["anyio.from_thread" in text for text in refused] == [True, True]
    assert "x" not in worker.worker_abilities


# Ends of callbacks.


@pytest.mark.parametrize("kind", KINDS)
async def test_shutdown_in_a_callback_returns_the_job(server: Any, task: str, kind: str) -> None:
    async def function(worker: Any, job: WorkerJob) -> Any:
        await worker.shutdown()

    def plain(worker: Any, job: WorkerJob) -> Any:
        worker.shutdown()

    worker = make_worker(server.address, tasks={task: plain if kind == "plain" else function})
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        with anyio.fail_after(PATIENCE):
            await worker.work()
        with pytest.raises(InvalidWorkerState, match="shut down"):
            await worker.work()
        async with working(server.address, tasks={task: reverse}):
            await client.wait_until_jobs_completed([request])
        assert request.result == b"ba"


async def fails_in_a_group(worker: Any, job: WorkerJob) -> Any:
    async def fail() -> None:
        raise KeyError("x")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail)


async def times_out(worker: Any, job: WorkerJob) -> Any:
    with anyio.fail_after(0.001):
        await anyio.sleep_forever()


async def cancels_a_scope(worker: Any, job: WorkerJob) -> Any:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep_forever()
    return "cancelled"


def raises_stop_iteration(worker: Any, job: WorkerJob) -> Any:
    raise StopIteration("over")


@pytest.mark.parametrize(
    ("callback", "outcome"),
    [
        (fails_in_a_group, b"ExceptionGroup: "),
        (times_out, b"TimeoutError"),
        (cancels_a_scope, b"cancelled"),
        (raises_stop_iteration, b"RuntimeError: coroutine raised StopIteration"),
    ],
)
async def test_scopes_and_groups_of_a_callback_end_its_own_job(
    server: Any, task: str, callback: Any, outcome: bytes
) -> None:
    """The next job of the same worker runs as well."""
    tasks = {task: callback, f"{task}-next": reverse}
    async with working(server.address, tasks=tasks), GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"")
        assert outcome in (request.result or request.warning_updates[0])
        assert (await client.submit_job(f"{task}-next", b"ab")).result == b"ba"


@only_asyncio
async def test_callback_that_cancels_its_own_task_fails_its_job(server: Any, task: str) -> None:
    async def cancel_itself(worker: Any, job: WorkerJob) -> Any:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(1000)

    tasks = {task: cancel_itself, f"{task}-next": reverse}
    async with working(server.address, tasks=tasks), GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"", poll_timeout=PATIENCE)
        assert list(request.warning_updates) == [b"asyncio.exceptions.CancelledError"]
        assert (await client.submit_job(f"{task}-next", b"ab")).result == b"ba"


def test_coroutine_closed_after_its_loop_counts_as_cancelled(anyio_backend: str) -> None:
    """Don't treat the GeneratorExit of a closed coroutine as raised by the callback."""

    async def begin() -> WorkTask:
        return WorkTask()

    assert anyio.run(begin, backend=anyio_backend).is_ending()


async def test_callback_that_swallows_its_cancellation_sends_nothing_more(
    server: Any, task: str
) -> None:
    """`work` ends, and another worker runs the job."""
    begun = anyio.Event()
    errors: list[BaseException] = []

    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        begun.set()
        for wait in (anyio.sleep_forever, functools.partial(worker.send_job_data, job, b"late")):
            try:
                await wait()
            except BaseException as error:  # noqa: BLE001 - this is what the test is about
                errors.append(error)
        return b"mine"

    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        async with anyio.create_task_group() as tasks:
            worker = make_worker(server.address, tasks={task: function})
            tasks.start_soon(worker.work)
            await begun.wait()
            worker.stop(0)
        cancellation, refusal = errors
        assert isinstance(cancellation, anyio.get_cancelled_exc_class())
        assert isinstance(refusal, ConnectionError)
        async with working(server.address, tasks={task: reverse}):
            await client.wait_until_jobs_completed([request])
        assert (request.result, list(request.data_updates)) == (b"ba", [])


@pytest.mark.parametrize("then", ["send", "complete", "stop", "raise"])
async def test_blocked_thread_is_abandoned(
    then: str, server: Any, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A cancelled `work` returns at once. The thread can send nothing later."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    raised: list[Exception] = []

    def block(worker: Any, job: WorkerJob) -> bytes:
        begun.set()
        wait_for(go_on)
        calls = {
            "send": functools.partial(worker.send_job_data, job, "late"),
            "complete": functools.partial(worker.send_job_complete, job, "late"),
            "stop": worker.stop,
            "raise": lambda: 1 / 0,
        }
        try:
            calls[then]()
        except Exception as error:
            raised.append(error)
            raise
        finally:
            ended.set()
        return b"late"

    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        async with working(server.address, tasks={task: block}) as worker:
            await until(begun.is_set, "the begin of the job")
        assert not worker.has_job_lock()
        async with working(server.address, tasks={task: reverse}):
            await client.wait_until_jobs_completed([request])
            go_on.set()
            await until(ended.is_set, "the end of the thread")
            # Let the thread report its result to the event loop.
            for _ in range(5):
                await anyio.to_thread.run_sync(lambda: None)
            assert (await client.submit_job(task, b"cd")).result == b"dc"
    assert (request.result, list(request.data_updates)) == (b"ba", [])
    (error,) = raised
    assert isinstance(error, ZeroDivisionError if then == "raise" else ConnectionError)
    assert then == "raise" or "given up" in str(error)
    assert not caplog.records


# Changes between `work` and `grab`, which share the driver.


async def without_connections() -> Any:
    """Return a worker, used with `async with`, whose driver still runs after a failed `grab`."""
    worker = make_worker("127.0.0.1:1", tasks={"task": reverse})
    await worker.__aenter__()
    with pytest.raises(ServerUnavailable):
        await worker.grab()
    return worker


async def test_grab_after_work_was_cancelled_at_its_start() -> None:
    worker = await without_connections()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await worker.work()
    assert scope.cancelled_caught
    with pytest.raises(ServerUnavailable):
        await worker.grab()
    await worker.__aexit__(None, None, None)


@pytest.mark.parametrize("order", [1, -1])
async def test_work_and_grab_at_once(order: int) -> None:
    """The first one that gets the driver fails without a server, and the other one is refused."""
    worker = await without_connections()
    errors: list[Exception] = []

    async def fail(function: Any) -> None:
        try:
            await function()
        except (InvalidWorkerState, ServerUnavailable) as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for function in [worker.work, worker.grab][::order]:
            tasks.start_soon(fail, function)
    assert {type(error) for error in errors} == {InvalidWorkerState, ServerUnavailable}
    await worker.__aexit__(None, None, None)


@pytest.mark.parametrize("then", ["grab", "work"])
async def test_worker_is_used_again_while_cancelled_work_still_ends(
    server: Any, task: str, then: str
) -> None:
    begun, go_on, ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def callback(worker: Any, job: WorkerJob) -> Any:
        if begun.is_set():
            worker.stop()
            return job.data
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await go_on.wait()
            ended.set()

    async def use_again() -> None:
        if then == "work":
            await worker.work()
        else:
            job = await worker.grab()
            assert job is not None
            await worker.send_job_complete(job, job.data)
        assert ended.is_set()

    async with (
        make_worker(server.address, tasks={task: callback}) as worker,
        GearmanClient([server.address]) as client,
        anyio.create_task_group() as again,
    ):
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.work)
            await begun.wait()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await until(lambda: not worker.has_job_lock())
                again.start_soon(use_again)
                await anyio.wait_all_tasks_blocked()
                go_on.set()
        await client.wait_until_jobs_completed([request])
        assert request.result == b"ab"


# Threads that the system refuses.


async def test_job_without_a_thread_waits_for_one(
    server: Any, task: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile other jobs run in the free slots. If `work` is cancelled, the job is requeued."""
    tasks = {task: plain_reverse, f"{task}-async": reverse}
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        with contextlib.ExitStack() as stack:
            stack.enter_context(no_more_threads(monkeypatch))
            async with working(server.address, tasks=tasks):
                await until(lambda: "waits for a thread: can't start new thread" in caplog.text)
            async with working(server.address, tasks=tasks, max_jobs=2):
                await until(lambda: caplog.text.count("waits for a thread") == 2)
                for _ in range(10):
                    assert (await client.submit_job(f"{task}-async", b"cd")).result == b"dc"
                assert not request.complete
                stack.close()
                await client.wait_until_jobs_completed([request])
        assert (request.result, list(request.warning_updates)) == (b"ba", [])
        assert caplog.text.count("waits for a thread") == 2


async def test_callbacks_own_runtime_error_fails_its_job(server: Any, task: str) -> None:
    """The error is the same as if the system had refused the thread."""
    runs: list[bytes] = []

    def function(worker: Any, job: WorkerJob) -> Any:
        runs.append(job.data)
        raise RuntimeError("can't start new thread")

    async with (
        working(server.address, tasks={task: function}),
        GearmanClient([server.address]) as client,
    ):
        request = await client.submit_job(task, b"ab")
        assert "can't start new thread" in str(request.reason)
    assert runs == [b"ab"]


async def test_cancelled_tasks_raise_one_cancellation() -> None:
    """`work` has a task group, which would raise a group of them."""
    seen: list[BaseException] = []
    with anyio.CancelScope() as scope:
        try:
            async with Tasks() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                await anyio.lowlevel.checkpoint()
                scope.cancel()
        except BaseException as error:
            seen.append(error)
            raise
    assert [type(error) for error in seen] == [anyio.get_cancelled_exc_class()]
