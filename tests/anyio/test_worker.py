"""The worker on asyncio and trio: callbacks in the event loop and in threads, and their ends."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

import gearman_anyio as gearman
import gearman_sync
from gearman_anyio import JOB_FAILED, GearmanClient, GearmanWorker, WorkerJob
from gearman_anyio._tasks import Tasks
from gearman_proto.errors import (
    ConnectionError,
    InvalidWorkerState,
)
from gearman_proto.wire.packets import (
    CanDo,
    Event,
    GrabJobUniq,
    JobAssignUniq,
    NoJob,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkWarning,
)
from tests.support import PATIENCE

from .scripted import Peer, give, scripted
from .support import (
    KINDS,
    Held,
    counted,
    make_worker,
    no_more_threads,
    plain_reverse,
    reverse,
    until,
    working,
)

if TYPE_CHECKING:
    from collections.abc import Callable


pytestmark = pytest.mark.anyio

MB = 1_000_000


# Running callbacks.


async def test_threads(server: Any, task: str) -> None:
    """A plain callback runs in another thread, and an async callback in the event loop."""
    threads: dict[str, int] = {}

    def plain(worker: Any, job: WorkerJob) -> None:
        threads["plain"] = threading.get_ident()

    async def function(worker: Any, job: WorkerJob) -> None:
        threads["async"] = threading.get_ident()

    worker = make_worker(server.address, tasks={task: plain, f"{task}-async": function})
    async with working(worker), GearmanClient([server.address]) as client:
        assert (await client.submit_job(task, b"")).complete
        assert (await client.submit_job(f"{task}-async", b"")).complete
    assert threads["plain"] != threading.get_ident()
    assert threads["async"] == threading.get_ident()


class Objects:
    """Callbacks of all forms. Each returns its name followed by the data."""

    async def __call__(self, worker: Any, job: WorkerJob) -> Any:
        assert isinstance(worker, GearmanWorker)
        return b"async object " + job.data

    async def method(self, worker: Any, job: WorkerJob) -> Any:
        assert isinstance(worker, GearmanWorker)
        return b"async method " + job.data

    async def partial(self, first: bytes, worker: Any, job: WorkerJob, *, last: bytes) -> Any:
        assert isinstance(worker, GearmanWorker)
        return first + b" partial " + job.data + last


class PlainObject:
    def __call__(self, worker: Any, job: WorkerJob) -> Any:
        assert not isinstance(worker, GearmanWorker)
        return b"plain object " + job.data

    def method(self, worker: Any, job: WorkerJob) -> Any:
        return b"plain method " + job.data


def plain_partial(first: bytes, worker: Any, job: WorkerJob) -> Any:
    assert threading.current_thread() is not threading.main_thread()
    return first + b" partial " + job.data


async def returned(worker: Any, job: WorkerJob) -> Any:
    assert threading.current_thread() is threading.main_thread()
    await worker.send_job_data(job, b"part")
    worker.set_client_id("its-own")
    return b"lambda " + job.data


FORMS: list[tuple[Any, bytes]] = [
    (Objects(), b"async object x"),
    (Objects().method, b"async method x"),
    (functools.partial(Objects().partial, b"async", last=b"!"), b"async partial x!"),
    (functools.partial(functools.partial(Objects()), job=None), b""),
    (PlainObject(), b"plain object x"),
    (PlainObject().method, b"plain method x"),
    (functools.partial(plain_partial, b"plain"), b"plain partial x"),
    (lambda worker, job: returned(worker, job), b"lambda x"),  # noqa: PLW0108 - it is
    (lambda worker, job: b"value " + job.data, b"value x"),
]


@pytest.mark.parametrize("number", [number for number, (_, result) in enumerate(FORMS) if result])
async def test_forms_of_callbacks(server: Any, task: str, number: int) -> None:
    callback, result = FORMS[number]
    worker = make_worker(server.address, tasks={task: callback})
    async with working(worker), GearmanClient([server.address]) as client:
        assert (await client.submit_job(task, b"x")).result == result


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nothing")


@pytest.mark.parametrize("kind", KINDS)
async def test_context(server: Any, task: str, kind: str) -> None:
    """Each callback runs in a copy of the caller's context."""

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


# Arguments and packets of callbacks.


async def test_callback_behaves_the_same_in_the_blocking_worker(server: Any, task: str) -> None:
    """The same function works with both kinds of workers."""

    def function(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_status(job, 1, 2)
        if job.data == b"fail":
            worker.send_job_failure(job)
        elif job.data == b"exception":
            worker.send_job_exception(job, b"because")
        elif job.data == b"complete":
            worker.send_job_complete(job, b"sent")
        else:
            worker.send_job_data(job, b"data")
        return b"returned"

    async def outcomes() -> list[Any]:
        async with GearmanClient([server.address]) as client:
            requests = [
                await client.submit_job(task, data)
                for data in (b"fail", b"exception", b"complete", b"")
            ]
        return [
            (r.state, r.result, r.exception, list(r.data_updates), list(r.status_updates))
            for r in requests
        ]

    async with working(make_worker(server.address, tasks={task: function})):
        seen = await outcomes()
    blocking = gearman_sync.GearmanWorker([server.address])
    blocking.register_task(task, function)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(functools.partial(anyio.to_thread.run_sync, blocking.work))
        assert await outcomes() == seen
        blocking.stop()
    assert [state for state, *_ in seen] == ["FAILED", "FAILED", "COMPLETE", "COMPLETE"]
    assert seen[1][2] == b"because"
    assert [outcome[1] for outcome in seen[2:]] == [b"sent", b"returned"]
    blocking.shutdown()


class Sub(GearmanWorker):
    """A subclass with attributes and methods of its own."""

    total = 0
    label = "class"

    def plain_method(self, number: int) -> int:
        return self.total + number


async def test_worker_in_a_thread(server: Any, task: str) -> None:
    """A plain callback gets a proxy with blocking methods. Other attributes are the worker's."""
    seen: dict[str, Any] = {}

    def function(worker: Any, job: WorkerJob) -> Any:
        seen["repr"] = repr(worker)
        seen["total"] = worker.total
        worker.total += 5
        worker.label = "instance"
        worker.new = ["new"]
        seen["method"] = worker.plain_method(1)
        seen["lock"] = worker.has_job_lock()
        seen["registered"] = worker.register_task(f"{task}-b", reverse, timeout=100)
        seen["abilities"] = list(worker.worker_abilities)
        seen["unregistered"] = worker.unregister_task(task=f"{task}-b")
        seen["client id"] = worker.set_client_id("me")
        seen["known by"] = worker.worker_client_id
        with pytest.raises(AttributeError, match="nothing"):
            _ = worker.nothing
        assert worker.unregister_task("another") == "another"
        with pytest.raises(TypeError):
            worker.register_task(5, reverse)
        return b"done"

    worker = make_worker(server.address, kind=Sub, tasks={task: function})
    async with working(worker), GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"")
        assert (request.result, list(request.warning_updates)) == (b"done", [])
    assert seen == {
        "repr": repr(worker),
        "total": 0,
        "method": 6,
        "lock": True,
        "registered": f"{task}-b",
        "abilities": [task, f"{task}-b"],
        "unregistered": f"{task}-b",
        "client id": "me",
        "known by": "me",
    }
    assert (worker.total, worker.label, worker.new) == (5, "instance", ["new"])
    assert (Sub.total, Sub.label) == (0, "class")


async def test_worker_used_in_another_thread_raises(server: Any, task: str) -> None:
    """The worker itself can't be used in another thread. The error names `anyio.from_thread`."""
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
    assert len(refused) == 2
    assert all("anyio.from_thread" in text for text in refused)
    assert "x" not in worker.worker_abilities


# Stopping.


@pytest.mark.parametrize("kind", KINDS)
async def test_shutdown_in_a_callback(server: Any, task: str, kind: str) -> None:
    async def function(worker: Any, job: WorkerJob) -> Any:
        await worker.shutdown()

    def plain(worker: Any, job: WorkerJob) -> Any:
        worker.shutdown()

    worker = make_worker(server.address, tasks={task: plain if kind == "plain" else function})
    async with GearmanClient([server.address]) as client:
        await client.submit_job(task, b"", background=True)
        with anyio.fail_after(PATIENCE):
            await worker.work()
        with pytest.raises(InvalidWorkerState, match="shut down"):
            await worker.work()
    await counted(server, task, (1, 0, 0))


# Failing callbacks.


def failure(text: bytes) -> list[Event]:
    return [WorkWarning(b"H:1", text), WorkFail(b"H:1")]


async def raise_error(worker: Any, job: WorkerJob) -> Any:
    raise ZeroDivisionError("too\nbad")


async def several(worker: Any, job: WorkerJob) -> Any:
    async def fail() -> None:
        raise KeyError("x")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail)


async def times_out(worker: Any, job: WorkerJob) -> Any:
    with anyio.fail_after(0.001):
        await anyio.sleep_forever()


async def cancels_itself(worker: Any, job: WorkerJob) -> Any:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep_forever()
    return "cancelled"


def plain_exit(worker: Any, job: WorkerJob) -> Any:
    sys.exit(3)


class Odd(BaseException):
    pass


def plain_odd(worker: Any, job: WorkerJob) -> Any:
    raise Odd("odd")


def plain_generator_exit(worker: Any, job: WorkerJob) -> Any:
    raise GeneratorExit("out")


def plain_stop_iteration(worker: Any, job: WorkerJob) -> Any:
    raise StopIteration("over")


# For each callback: the packets sent, and the error in the log.
CALLBACKS: dict[str, tuple[Callable[..., Any], list[Event], str | None]] = {
    "raises": (raise_error, failure(b"ZeroDivisionError: too\nbad"), "ZeroDivisionError"),
    "a group": (several, [], "ExceptionGroup"),
    "times out": (times_out, failure(b"TimeoutError"), "TimeoutError"),
    "cancels itself": (cancels_itself, [WorkComplete(b"H:1", b"cancelled")], None),
    "exits in a thread": (plain_exit, failure(b"SystemExit: 3"), "SystemExit"),
    "odd in a thread": (plain_odd, failure(b"tests.anyio.test_worker.Odd: odd"), "Odd"),
    "generator exit in a thread": (
        plain_generator_exit,
        failure(b"GeneratorExit: out"),
        "GeneratorExit",
    ),
    "stop iteration in a thread": (
        plain_stop_iteration,
        failure(b"RuntimeError: coroutine raised StopIteration"),
        "RuntimeError",
    ),
}


@pytest.mark.parametrize(
    ("what", "max_jobs"), [(what, 1 + number % 2) for number, what in enumerate(CALLBACKS)]
)
async def test_one_end_per_job(caplog: pytest.LogCaptureFixture, what: str, max_jobs: int) -> None:
    """The next job runs as well."""
    callback, sent, error = CALLBACKS[what]

    async def function(worker: Any, job: WorkerJob) -> Any:
        return "next"

    class Worker(GearmanWorker):
        async def on_job_execute(self, current_job: WorkerJob) -> bool:
            self.register_task("task", callback if current_job.handle == "H:1" else function)
            return await super().on_job_execute(current_job)

    async with scripted(give(b"", b"next")) as server:
        worker = make_worker(
            "any:1",
            kind=Worker,
            tasks={"task": function},
            max_jobs=max_jobs,
            connect=server.connect,
        )
        async with working(worker) as it:
            # The order depends on the event loop.
            ends = (WorkComplete, WorkFail, WorkException)
            await until(lambda: sum(isinstance(e, ends) for e in server.about_jobs) == 2)
            worker.stop()
            await it.end()
    events = server.about_jobs
    events.remove(WorkComplete(b"H:2", b"next"))
    if what == "a group":
        warning, failed = events
        assert isinstance(warning, WorkWarning)
        assert b"ExceptionGroup" in warning.data
        assert failed == WorkFail(b"H:1")
    else:
        assert events == sent
    records = [record for record in caplog.records if record.name == "gearman"]
    if error is None:
        assert not records
    else:
        (record,) = records
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert record.exc_info[0] is not None
        assert record.exc_info[0].__name__ == error
        assert record.exc_info[2] is not None
        assert "H:1" in record.getMessage()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_asyncio_future(anyio_backend: str) -> None:
    """A callback that awaits a cancelled future fails only its own job."""

    async def function(worker: Any, job: WorkerJob) -> Any:
        if job.handle == "H:1":
            other = asyncio.ensure_future(asyncio.sleep(1000))
            asyncio.get_running_loop().call_soon(other.cancel)
            await other
        return b"next"

    async with scripted(give(b"", b"")) as server:
        worker = make_worker("any:1", tasks={"task": function}, connect=server.connect)
        async with working(worker):
            await until(lambda: WorkComplete(b"H:2", b"next") in server.about_jobs)
    assert [type(event) for event in server.about_jobs] == [WorkWarning, WorkFail, WorkComplete]


async def test_callback_that_swallows_its_cancellation(server: Any, task: str) -> None:
    """Later packets and the result of the callback are dropped, and `work` ends."""
    begun = anyio.Event()
    after: list[str] = []

    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        begun.set()
        try:
            await anyio.sleep_forever()
        except BaseException as error:  # noqa: BLE001 - this is what the test is about
            after.append(type(error).__name__)
        try:
            await worker.send_job_data(job, b"still here")
        except ConnectionError as error:
            after.append(str(error))
            raise
        return b"mine"

    worker = make_worker(server.address, tasks={task: function})
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        async with working(worker) as it:
            await begun.wait()
            worker.stop(0)
            await it.end()
        assert len(after) == 2
        assert "Cancel" in after[0]
        assert "was lost" in after[1]
        async with working(make_worker(server.address, tasks={task: reverse})):
            await client.wait_until_jobs_completed([request])
            assert request.result == b"ba"
        assert not request.data_updates


@pytest.mark.parametrize("kind", KINDS)
async def test_kept_jobs(server: Any, task: str, kind: str) -> None:
    """After `work` has ended, sending for a job raises an error."""
    kept: list[tuple[Any, WorkerJob]] = []
    errors: list[Exception] = []
    held = Held(kind)

    async def function(worker: Any, job: WorkerJob) -> Any:
        kept.append((worker, job))
        if job.data == b"hold":
            return await held.callback(worker, job)
        return b"done"

    def plain(worker: Any, job: WorkerJob) -> Any:
        kept.append((worker, job))
        if job.data == b"hold":
            held.callback(worker, job)
            # `work` has ended by now and does not wait for this thread.
            for send in (worker.send_job_data, worker.send_job_complete):
                with pytest.raises(ConnectionError) as caught:
                    send(job, b"late")
                errors.append(caught.value)
        return b"done"

    worker = make_worker(server.address, tasks={task: plain if kind == "plain" else function})
    async with GearmanClient([server.address]) as client:
        async with working(worker) as it:
            assert (await client.submit_job(task, b"end")).result == b"done"
            await client.submit_job(task, b"hold", background=True)
            await held.wait()
            worker.stop(0)
            await it.end()
        (_, ended), (_, lost) = kept
        with pytest.raises(InvalidWorkerState, match="has ended"):
            await worker.send_job_data(ended, b"late")
        assert lost.is_lost
        held.let_go()
        if kind == "plain":
            await until(lambda: len(errors) == 2)
        else:
            for send in (worker.send_job_data, worker.send_job_complete):
                with pytest.raises(ConnectionError) as caught:
                    await send(lost, b"late")
                errors.append(caught.value)
        reason = "given up" if kind == "plain" else "was lost"
        assert [reason in str(error) for error in errors] == [True, True]
        with pytest.raises((InvalidWorkerState, ConnectionError), match=r"has ended|was lost"):
            await worker.send_job_failure(lost)
        # The server has received no packet for the job.
        await counted(server, task, (1, 0, 0))


@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt("now")])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_base_exception_in_the_event_loop(backend: str, error: BaseException) -> None:
    """A BaseException of an async callback propagates from `work`, and the job is requeued."""
    seen: list[Any] = []

    async def function(worker: Any, job: WorkerJob) -> Any:
        raise error

    async def main() -> None:
        async with gearman.JobServer() as server, GearmanClient([server.address]) as client:
            request = await client.submit_job("task", b"ab", wait_until_complete=False)
            worker = make_worker(server.address, tasks={"task": function})
            try:
                await worker.work()
            except BaseException as raised:
                seen.append(raised)
                if raised is not error:
                    raise  # asyncio has stopped the loop and cancels all its tasks.
            seen.append(worker.has_job_lock())
            worker.register_task("task", reverse)
            async with working(worker):
                await client.wait_until_jobs_completed([request])
                seen.append((request.result, list(request.warning_updates)))

    if backend == "asyncio":
        # asyncio raises these from the running loop at once, past all handlers in tasks.
        with pytest.raises(type(error)) as caught:
            anyio.run(main, backend=backend)
        assert caught.value is error
    else:
        anyio.run(main, backend=backend)
        assert seen == [error, False, (b"ba", [])]


# Large and missing data.


@pytest.mark.parametrize("kind", KINDS)
async def test_stream_to_a_server_that_reads_slowly(kind: str) -> None:
    """Back-pressure suspends the callback instead of buffering its data. No data is lost."""
    reading = anyio.Event()
    received = 0
    sent: list[int] = []

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.expect(CanDo)
        await peer.expect(GrabJobUniq)
        await peer.send(JobAssignUniq(b"H:1", b"task", b"u", b""))
        await reading.wait()
        while not isinstance(event := await peer.receive(), WorkComplete):
            peer.events.clear()
            if isinstance(event, WorkData):
                received += len(event.data)
            elif isinstance(event, GrabJobUniq):
                await peer.send(NoJob())

    payload = bytes(100_000)

    async def function(worker: Any, job: WorkerJob) -> Any:
        for number in range(300):
            sent.append(number)
            await worker.send_job_data(job, payload)
        return b"end"

    def plain(worker: Any, job: WorkerJob) -> Any:
        for number in range(300):
            sent.append(number)
            worker.send_job_data(job, payload)
        return b"end"

    async with scripted(script) as server:
        worker = make_worker(
            "any:1",
            tasks={"task": plain if kind == "plain" else function},
            connect=server.connect,
        )
        async with working(worker):
            settled = -1
            while settled != len(sent) or len(sent) <= 5:  # Wait until sending has stalled.
                settled = len(sent)
                await anyio.sleep(0.05)
            # One megabyte is buffered, plus the pipe's content.
            assert len(sent) < 30
            reading.set()
            await until(lambda: received == 300 * 100_000)
    assert len(sent) == 300


async def test_cancelled_send(task: str) -> None:
    """After a cancelled send, packets are complete and later packets are in order."""
    reading = anyio.Event()

    async def script(peer: Peer) -> None:
        await peer.expect(CanDo)
        await peer.expect(GrabJobUniq)
        await peer.send(JobAssignUniq(b"H:1", b"task", b"u", b""))
        await reading.wait()
        await peer.hold()

    async def cancel_what_waits(scope: anyio.CancelScope) -> None:
        # `wait_all_tasks_blocked` sleeps for a tenth of a second on asyncio. After 20 checkpoints,
        # a send that blocks is already waiting.
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async def function(worker: Any, job: WorkerJob) -> Any:
        gave_up = 0
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                with anyio.CancelScope() as scope:
                    tasks.start_soon(cancel_what_waits, scope)
                    await worker.send_job_data(job, b"%d" % number + bytes(MB))
                gave_up += scope.cancelled_caught
        reading.set()
        return b"%d" % (gave_up > 0)

    async with scripted(script) as server:
        worker = make_worker("any:1", tasks={"task": function}, connect=server.connect)
        async with working(worker):
            await until(lambda: WorkComplete(b"H:1", b"1") in server.about_jobs)
    data = [event.data for event in server.about_jobs if isinstance(event, WorkData)]
    assert data == [b"%d" % number + bytes(MB) for number in range(10)]


async def test_job_without_a_thread_waits_for_one(
    server: Any, task: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile other jobs run in the free slots."""
    worker = make_worker(
        server.address, tasks={task: plain_reverse, f"{task}-async": reverse}, max_jobs=2
    )
    async with working(worker), GearmanClient([server.address]) as client:
        with no_more_threads(monkeypatch):
            request = await client.submit_job(task, b"ab", wait_until_complete=False)
            await until(lambda: "waits for a thread: can't start new thread" in caplog.text)
            for _ in range(10):
                assert (await client.submit_job(f"{task}-async", b"cd")).result == b"dc"
            assert not request.complete
        await client.wait_until_jobs_completed([request])
        assert (request.result, list(request.warning_updates)) == (b"ba", [])
    assert caplog.text.count("waits for a thread") == 1


async def test_job_that_waits_for_a_thread_is_cancelled(
    server: Any, task: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is requeued, and another worker runs it."""
    async with GearmanClient([server.address]) as client:
        with no_more_threads(monkeypatch):
            async with working(make_worker(server.address, tasks={task: plain_reverse})):
                request = await client.submit_job(task, b"ab", wait_until_complete=False)
                await until(lambda: "waits for a thread" in caplog.text)
        async with working(make_worker(server.address, tasks={task: reverse})):
            await client.wait_until_jobs_completed([request])
        assert request.result == b"ba"


@pytest.mark.parametrize("error", ["of the callback", "can't start new thread"])
async def test_callbacks_own_runtime_error_fails_its_job(
    server: Any, task: str, error: str
) -> None:
    runs: list[bytes] = []

    def function(worker: Any, job: WorkerJob) -> Any:
        runs.append(job.data)
        raise RuntimeError(error)

    async with (
        working(make_worker(server.address, tasks={task: function})),
        GearmanClient([server.address]) as client,
    ):
        request = await client.submit_job(task, b"ab")
        assert request.state == JOB_FAILED
        assert error in str(request.reason)
    assert runs == [b"ab"]


@pytest.mark.parametrize("has_hook", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_jobs_start_in_the_reader_unless_after_poll_is_overridden(
    server: Any, task: str, has_hook: bool, anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a hook `after_poll`, the read callback starts the job and wakes no task before."""

    class Polled(GearmanWorker):
        async def after_poll(self, any_activity: bool) -> bool:
            return True

    kind = Polled if has_hook else GearmanWorker
    worker = make_worker(server.address, tasks={task: reverse}, kind=kind)
    start_soon = worker._gm_driver.start_soon
    starters: list[Any] = []

    def recorded(*args: Any) -> None:
        starters.append(asyncio.current_task())
        start_soon(*args)

    monkeypatch.setattr(worker._gm_driver, "start_soon", recorded)
    async with working(worker), GearmanClient([server.address]) as client:
        for _ in range(3):
            assert (await client.submit_job(task, b"ab")).result == b"ba"
    # asyncio runs reader callbacks outside of any task.
    assert [starter is not None for starter in starters] == [has_hook] * 3


async def test_notices_are_logged_while_it_works(caplog: pytest.LogCaptureFixture) -> None:
    """Notices are logged even if no event wakes `work`."""

    async def script(peer: Peer) -> None:
        assert await peer.receive() == CanDo(b"task")
        assert await peer.receive() == GrabJobUniq()
        await peer.send(NoJob())
        await peer.receive()

    async with scripted(script) as server:
        worker = make_worker("any:1", tasks={"task": reverse}, connect=server.connect)
        async with working(worker, poll_timeout=None):
            await until(lambda: "no connection to any:1" in caplog.text, "the notice")


async def test_one_cancellation() -> None:
    """`work` runs a task group, but its cancellation is not wrapped in an exception group."""
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
