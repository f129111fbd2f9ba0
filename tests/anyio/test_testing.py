"""gearman_anyio.testing: workers under test, callbacks called directly, and the virtual clock."""

# ruff: noqa: PT012 - it is the end of a `with` that raises

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import asyncio
import functools
import math
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from gearman_anyio import (
    GearmanClient,
    GearmanWorker,
    JobData,
    JobEnded,
    JobProgress,
    JobServer,
    JobWarning,
    WorkerJob,
)
from gearman_anyio.testing import (
    BlockingWorkerUnderTest,
    JobDouble,
    VirtualTimeLoop,
    WorkerUnderTest,
    virtual_clock,
)
from gearman_proto.errors import InvalidWorkerState, ServerUnavailable
from gearman_sync import GearmanClient as BlockingClient
from tests.support import PATIENCE

from .support import on_a_test_clock, reverse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support import Gearmand

HOUR = 3600.0


async def fail(worker: Any, job: WorkerJob) -> None:
    raise ZeroDivisionError(job.data)


def data_of(runs: list[Any]) -> list[Any]:
    return [run.job.data for run in runs]


# A worker under test, without sockets.


@pytest.fixture
async def embedded(anyio_backend: Any) -> AsyncIterator[JobServer]:
    async with JobServer() as server:
        yield server


@pytest.fixture
async def client(embedded: JobServer) -> AsyncIterator[GearmanClient]:
    async with GearmanClient(connect=embedded.connect) as client:
        yield client


@pytest.mark.anyio
@on_a_test_clock
async def test_drain_includes_jobs_that_take_hours_and_submit_others(
    embedded: JobServer, client: GearmanClient
) -> None:
    async def countdown(worker: Any, job: WorkerJob) -> None:
        await anyio.sleep(HOUR)
        if number := int(job.data):
            await client.submit_job("task", str(number - 1), background=True)

    under_test = WorkerUnderTest({"task": countdown}, embedded, timeout=24 * HOUR)
    assert await under_test.drain() == []
    begun = anyio.current_time()
    await client.submit_job("task", "2", background=True)
    assert data_of(await under_test.drain()) == [b"2", b"1", b"0"]
    assert anyio.current_time() - begun == pytest.approx(3 * HOUR)


@pytest.mark.anyio
@on_a_test_clock
async def test_worker_in_a_task_can_be_waited_for_and_drained(
    embedded: JobServer, client: GearmanClient
) -> None:
    worker = GearmanWorker(["nowhere.invalid:1"], max_jobs=3, connect=None)
    worker.register_task("task", reverse)
    async with WorkerUnderTest(worker, embedded) as under_test:
        assert (await client.submit_job("task", "ab")).result == b"ba"
        await client.submit_job("task", "cd", background=True)
        assert data_of(await under_test.drain()) == [b"ab", b"cd"]
        assert (await client.submit_job("task", "ef")).result == b"fe"
        await client.submit_job("task", "last", background=True)
    assert data_of(under_test.runs) == [b"ab", b"cd", b"ef", b"last"]
    # The worker's own server is unchanged.
    assert str(worker.connection_list[0].address) == "nowhere.invalid:1"
    assert worker._gm_connect is None
    async with under_test:
        assert (await client.submit_job("task", "gh")).result == b"hg"


@pytest.mark.anyio
@on_a_test_clock
@pytest.mark.parametrize("kind", ["callback", "hook", "plain hook"])
async def test_exception_of_a_callback_or_hook_is_raised_in_the_test(
    embedded: JobServer, client: GearmanClient, kind: str
) -> None:
    class Worker(GearmanWorker):
        async def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
            if kind == "hook":
                raise ZeroDivisionError(current_job.data)
            return await super().on_job_complete(current_job, job_result)

        def on_job_execute(self, current_job: WorkerJob) -> Any:
            if kind == "plain hook":
                raise ZeroDivisionError(current_job.data)
            return super().on_job_execute(current_job)

        async def after_poll(self, any_activity: bool) -> bool:
            return bool(super().after_poll(any_activity))

    worker = Worker()
    worker.register_task("task", fail if kind == "callback" else reverse)
    under_test = WorkerUnderTest(worker, embedded)
    await client.submit_job("task", "first", background=True)
    with pytest.raises(ZeroDivisionError, match="first"):
        await under_test.drain()
    with pytest.raises(ZeroDivisionError, match="second"):
        async with under_test:
            assert (await client.submit_job("task", "second")).state == "FAILED"
    assert await WorkerUnderTest(worker, embedded, raise_errors=False).drain() == []


@pytest.mark.anyio
@on_a_test_clock
@pytest.mark.parametrize("how", ["drain", "drain in with", "end"])
async def test_time_limit_cancels_the_callback_and_names_its_job(
    embedded: JobServer, client: GearmanClient, how: str
) -> None:
    ends: list[float] = []

    async def callback(worker: Any, job: WorkerJob) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ends.append(anyio.current_time())

    begun = anyio.current_time()
    request = await client.submit_job("task", "", background=True)
    under_test = WorkerUnderTest({"task": callback}, embedded, timeout=50)
    with pytest.raises(TimeoutError, match=f"after 50 seconds .*{request.job.handle}"):
        if how == "drain":
            await under_test.drain()
        else:
            async with under_test:
                await anyio.sleep(HOUR)
                if how == "drain in with":
                    await under_test.drain()
    assert ends == [pytest.approx(begun + 50 + HOUR * (how != "drain"))]
    assert len(await WorkerUnderTest({"task": reverse}, embedded).drain()) == 1


@pytest.mark.anyio
@on_a_test_clock
async def test_failing_test_raises_its_own_exception(
    embedded: JobServer, client: GearmanClient
) -> None:
    under_test = WorkerUnderTest({"task": fail}, embedded)
    with pytest.raises(LookupError, match="the test"):
        async with under_test:
            await client.submit_job("task", "", background=True)
            raise LookupError("the test")
    with anyio.move_on_after(1) as scope:
        async with under_test:
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.anyio
@on_a_test_clock
async def test_worker_without_a_server_raises(
    embedded: JobServer, caplog: pytest.LogCaptureFixture
) -> None:
    await embedded.stop()
    under_test = WorkerUnderTest({"task": reverse}, embedded)
    with pytest.raises(ServerUnavailable):
        await under_test.drain()
    with pytest.raises(ServerUnavailable):
        async with under_test:
            await anyio.sleep(1)
    assert "the worker under test has ended" in caplog.text


# Synchronous tests.

each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@each_backend
def test_blocking_worker_is_used_like_the_one_of_gearman_sync(
    gearmand: Gearmand, task: str, backend: str
) -> None:
    tasks = {task: reverse, f"{task}-fails": fail}
    under_test = BlockingWorkerUnderTest(tasks, gearmand.address, backend=backend, timeout=PATIENCE)
    with BlockingClient([gearmand.address]) as client:
        client.submit_job(task, "ab", background=True)
        assert [run.result for run in under_test.drain()] == [b"ba"]
        with under_test:
            assert client.submit_job(task, "cd", poll_timeout=PATIENCE).result == b"dc"
            client.submit_job(task, "ef", background=True)
            assert data_of(under_test.drain()) == [b"cd", b"ef"]
            client.submit_job(task, "last", background=True)
        assert data_of(under_test.runs) == [b"ab", b"cd", b"ef", b"last"]
        assert under_test.worker.worker_abilities == tasks
        client.submit_job(f"{task}-fails", "first", background=True)
        with pytest.raises(ZeroDivisionError, match="first"):
            under_test.drain()
        with pytest.raises(ZeroDivisionError, match="second"), under_test:
            client.submit_job(f"{task}-fails", "second", poll_timeout=PATIENCE)
    with pytest.raises(LookupError), under_test:
        raise LookupError


# Callbacks called directly.


async def convert(worker: Any, job: WorkerJob) -> Any:
    await worker.send_job_status(job, 1, 2)
    await worker.send_job_data(job, b"page 1")
    await worker.send_job_warning(job, "no title")
    return job.data.upper()


def plain_convert(worker: Any, job: WorkerJob) -> Any:
    worker.send_job_status(job, 1, 2)
    worker.send_job_data(job, b"page 1")
    worker.send_job_warning(job, "no title")
    return job.data.upper()


UPDATES = [JobProgress(1, 2), JobData(b"page 1"), JobWarning(b"no title")]


@pytest.mark.anyio
@pytest.mark.parametrize("callback", [convert, plain_convert])
async def test_job_double_records_what_a_callback_sends(callback: Any) -> None:
    job = JobDouble("convert", "book", worker=GearmanWorker(max_jobs=3))
    assert await job.call(callback) == b"BOOK"
    assert job.updates == [*UPDATES, JobEnded("COMPLETE", b"BOOK")]
    with pytest.raises(InvalidWorkerState, match="has ended: make another one"):
        await job.call(callback)
    by_hand = JobDouble("convert", "book")
    if callback is convert:
        assert await convert(by_hand.worker, by_hand) == b"BOOK"
        assert by_hand.updates == UPDATES


@pytest.mark.anyio
async def test_job_double_with_an_invalid_callback_or_result_raises() -> None:
    with pytest.raises(TypeError, match="must be bytes or str"):
        await JobDouble("task", "").call(lambda worker, job: 1)
    with pytest.raises(TypeError, match="callback is a function of a worker and a job, not 5"):
        await JobDouble("task", "").call(5)


# The clock.


@pytest.mark.anyio
@on_a_test_clock
async def test_clock_jumps_when_all_tasks_wait() -> None:
    real = time.monotonic()
    begun = anyio.current_time()
    woken: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append((name, anyio.current_time() - begun))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleep, "year", 365 * 24 * HOUR)
        tasks.start_soon(sleep, "hour", HOUR)
        tasks.start_soon(sleep, "moment", 0.01)
        # The clock does not advance while any task can run.
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert anyio.current_time() == begun
        with anyio.move_on_after(10) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert anyio.current_time() - begun == pytest.approx(10)
    assert [name for name, _ in woken] == ["moment", "hour", "year"]
    assert [when for _, when in woken] == pytest.approx([0.01, HOUR, 365 * 24 * HOUR], abs=1e-5)
    assert time.monotonic() - real < PATIENCE


@each_backend
def test_clock_waits_for_its_threshold(backend: str) -> None:
    """The clock does not overtake sockets and threads that answer within the threshold."""
    event = threading.Event()
    near, far = socket.socketpair()

    def answer() -> None:
        event.wait(PATIENCE)
        far.send(b"answer")

    async def main() -> None:
        near.setblocking(False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, answer)
            with anyio.fail_after(HOUR):
                event.set()
                await anyio.wait_readable(near)
        assert anyio.current_time() < HOUR
        await anyio.sleep(HOUR)
        assert anyio.current_time() >= HOUR

    name, options = virtual_clock(backend, autojump_threshold=1.0)
    with near, far:
        anyio.run(main, backend=name, backend_options=options)


def test_clock_waits_for_calls_in_an_executor() -> None:
    """The clock does not advance while a thread of asyncio's executor runs."""
    event = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(None, event.wait, PATIENCE)
        sleeping = asyncio.create_task(asyncio.sleep(HOUR))
        loop.call_soon(event.set)
        assert await call
        assert loop.time() == 0
        failing = loop.run_in_executor(None, functools.partial(int, "x"))
        with pytest.raises(ValueError, match="'x'"):
            await failing
        assert loop.time() == 0
        await sleeping
        assert loop.time() == HOUR

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


# Misuse.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: virtual_clock("curio"), "'asyncio' and 'trio', not 'curio'"),
        (lambda: virtual_clock("trio", autojump_threshold=-1), "autojump_threshold is"),
        (lambda: VirtualTimeLoop(math.nan), "autojump_threshold is"),
        (lambda: WorkerUnderTest({"f": fail}, "localhost", timeout=math.inf), "timeout is inf"),
        (lambda: BlockingWorkerUnderTest({}, "localhost", backend="curio"), "not 'curio'"),
    ],
)
def test_invalid_value_raises_at_once(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WorkerUnderTest({"f": fail}, 5), "a server's address is"),
        (lambda: BlockingWorkerUnderTest(None, "localhost"), r"a gearman_anyio\.worker"),
        (lambda: BlockingWorkerUnderTest({"f": fail}, JobServer()), "a server's address is"),
        (lambda: JobDouble("f", "", worker=BlockingClient), "worker is a gearman_anyio.worker"),
    ],
)
def test_argument_of_a_wrong_type_raises_at_once(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.anyio
async def test_worker_that_is_under_test_already_is_refused(embedded: JobServer) -> None:
    worker = GearmanWorker()
    worker.register_task("f", reverse)
    outer = WorkerUnderTest(worker, embedded)
    for inner in (outer, WorkerUnderTest(worker, embedded)):
        async with outer:
            with pytest.raises(RuntimeError, match="is under test already: end its"):
                await inner.__aenter__()


@pytest.mark.anyio
@pytest.mark.parametrize("inside", [False, True])
async def test_drain_in_a_callback_is_refused(
    embedded: JobServer, client: GearmanClient, inside: bool
) -> None:
    async def drain(worker: Any, job: WorkerJob) -> None:
        await under_test.drain()

    under_test = WorkerUnderTest({"f": drain}, embedded, timeout=PATIENCE)
    await client.submit_job("f", "", background=True)
    with pytest.raises(RuntimeError, match="can't drain it, as that waits for the callback's own"):
        if inside:
            async with under_test:
                pass
        else:
            await under_test.drain()
