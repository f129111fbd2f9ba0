"""Outcomes of a job: each row of the table, with one slot and with several.

Async callbacks run in the thread of `work`, and so do all callbacks of a blocking worker with one
slot. Other callbacks run in a thread pool.
"""

from __future__ import annotations

import asyncio
import logging
import types
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

import gearman_anyio
from gearman_anyio._callbacks import Host
from gearman_proto import NoopEncoder, ServerAddress, WorkerJob, WorkerLink
from gearman_proto.engines.servers import Server as KnownServer
from gearman_proto.engines.worker.outcomes import OUTCOMES, Happened, Sent, Then

from .kit import Hooks, Kit, Server, echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

each_number_of_slots = pytest.mark.parametrize("max_jobs", [1, 3])


class Odd(BaseException):
    """A BaseException that is not an Exception."""


async def _be_cancelled(caught: list[BaseException]) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            caught.append(error)
            raise


def make_stray_cancellation() -> BaseException:
    """Return a trio.Cancelled whose cancel scope has ended."""
    caught: list[BaseException] = []
    trio.run(_be_cancelled, caught)
    return caught[0]


# Only trio can create a Cancelled, and only outside of another event loop.
STRAY = make_stray_cancellation()

# Exceptions of callbacks that must not end `work`.
RAISED: dict[str, tuple[Happened, Callable[[], BaseException], bytes]] = {
    "Exception": (
        *(Happened.RAISED, lambda: ZeroDivisionError("zero")),
        b"ZeroDivisionError: zero",
    ),
    "GeneratorExit": (
        *(Happened.RAISED_OTHER, lambda: GeneratorExit("out")),
        b"GeneratorExit: out",
    ),
    "asyncio.CancelledError": (
        *(Happened.RAISED_OTHER, asyncio.CancelledError),
        b"asyncio.exceptions.CancelledError",
    ),
    "trio.Cancelled": (*(Happened.RAISED_OTHER, lambda: STRAY), b"trio.Cancelled: "),
    "no Exception": (
        *(Happened.RAISED_OTHER, lambda: Odd("odd")),
        b"tests.contract.test_outcomes.Odd: odd",
    ),
    "KeyboardInterrupt": (
        *(Happened.EXITED_IN_THREAD, lambda: KeyboardInterrupt("now")),
        b"KeyboardInterrupt: now",
    ),
    "SystemExit": (*(Happened.EXITED_IN_THREAD, lambda: SystemExit(3)), b"SystemExit: 3"),
}


@each_number_of_slots
@pytest.mark.parametrize("what", RAISED)
async def test_callback_that_raises(
    kit: Kit, adapter: str, server: Server, task: str, what: str, max_jobs: int
) -> None:
    """Fail the job with the exception's text, and keep working."""
    happened, make_error, text = RAISED[what]
    outcome = OUTCOMES[happened]
    assert (outcome.sent, outcome.then) == (Sent.FAILURE, Then.GO_ON)

    def plain(worker: Any, job: WorkerJob) -> Any:
        if job.data == b"good":
            return job.data
        raise make_error()

    async def awaiting(worker: Any, job: WorkerJob) -> Any:
        return plain(worker, job)

    tasks = {f"{task}-plain": plain, f"{task}-awaiting": kit.callback(awaiting)}
    if happened is Happened.EXITED_IN_THREAD:
        del tasks[f"{task}-awaiting"]
        if adapter == "sync" and max_jobs == 1:
            tasks.clear()  # In these cases, the exception ends `work`: see test_exit.
    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks=tasks, max_jobs=max_jobs)
    call = await kit.work(worker)
    for name in tasks:
        for _ in range(2):
            request = await client.submit_job(name, b"bad", poll_timeout=20)
            assert request.state == "FAILED"
            assert [bytes(warning)[: len(text)] for warning in request.warning_updates] == [text]
        assert (await client.submit_job(name, b"good", poll_timeout=20)).result == b"good"
    assert not call.done


@each_number_of_slots
@pytest.mark.parametrize("error", [KeyboardInterrupt("now"), SystemExit(3)], ids=repr)
async def test_exit(
    kit: Kit, adapter: str, server: Server, task: str, error: BaseException, max_jobs: int
) -> None:
    """End `work` with the exception, and return the job to the server for another worker."""
    outcome = OUTCOMES[Happened.EXITED]
    assert (outcome.sent, outcome.then) == (Sent.GIVEN_UP, Then.LEAVE)
    if adapter == "sync" and max_jobs > 1:
        pytest.skip("its callbacks are in a pool")

    async def awaiting(worker: Any, job: WorkerJob) -> Any:
        raise error

    def work() -> None:
        # The exception would also end the scenario's event loop, so run the worker in its own.
        worker = kit.gearman.GearmanWorker([server.address], max_jobs=max_jobs)
        worker.register_task(task, kit.callback(awaiting))
        if adapter == "sync":
            worker.work()
        else:
            anyio.run(worker.work, backend=adapter)

    client = await kit.client(server.address)
    request = await client.submit_job(task, b"x", wait_until_complete=False)
    raised: list[BaseException] = []

    def work_and_tell() -> None:
        try:
            work()
        except BaseException as caught:  # noqa: BLE001 - the thread would discard it
            raised.append(caught)

    await kit.blocking(work_and_tell)
    assert raised == [error]
    await kit.start_worker(server.address, tasks={task: echo})
    await client.wait_until_jobs_completed([request])
    assert (request.result, list(request.warning_updates)) == (b"x", [])


@each_number_of_slots
async def test_cancelled_work_returns_its_job(
    kit: Kit, adapter: str, server: Server, task: str, max_jobs: int
) -> None:
    outcome = OUTCOMES[Happened.CANCELLED]
    assert (outcome.sent, outcome.then) == (Sent.GIVEN_UP, Then.LEAVE)
    if adapter == "sync":
        pytest.skip("nothing cancels a thread")
    begun = anyio.Event()

    async def awaiting(worker: Any, job: WorkerJob) -> Any:
        begun.set()
        await anyio.sleep_forever()

    client = await kit.client(server.address)
    request = await client.submit_job(task, b"x", wait_until_complete=False)
    worker = await kit.make_worker(server.address, tasks={task: awaiting}, max_jobs=max_jobs)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.work)
        await begun.wait()
        tasks.cancel_scope.cancel()
    await kit.start_worker(server.address, tasks={task: echo})
    await client.wait_until_jobs_completed([request])
    assert (request.result, list(request.warning_updates)) == (b"x", [])


@each_number_of_slots
async def test_job_of_an_ending_event_loop_is_returned(
    kit: Kit,
    adapter: str,
    server: Server,
    task: str,
    max_jobs: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Return the job if asyncio cancels the tasks of a loop one by one at its end."""
    if adapter != "asyncio":
        pytest.skip("it is asyncio's way")

    async def main() -> None:
        async def awaiting(worker: Any, job: WorkerJob) -> Any:
            begun.set()
            await asyncio.sleep(1000)

        begun = asyncio.Event()
        worker = kit.gearman.GearmanWorker([server.address], max_jobs=max_jobs)
        worker.register_task(task, awaiting)
        working.append(asyncio.create_task(worker.work()))
        await begun.wait()

    working: list[Any] = []
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"x", wait_until_complete=False)
    await kit.blocking(asyncio.run, main())
    assert working[0].cancelled()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await kit.start_worker(server.address, tasks={task: echo})
    await client.wait_until_jobs_completed([request])
    assert (request.result, list(request.warning_updates)) == (b"x", [])


@each_number_of_slots
async def test_callback_that_cancels_its_own_task_fails_its_job(
    kit: Kit, adapter: str, server: Server, task: str, max_jobs: int
) -> None:
    """Fail the job if its callback cancels its own task while the worker is not cancelled."""
    if adapter != "asyncio":
        pytest.skip("only asyncio has that")

    async def awaiting(worker: Any, job: WorkerJob) -> Any:
        if job.data == b"bad":
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            await asyncio.sleep(1000)
        return job.data

    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks={task: awaiting}, max_jobs=max_jobs)
    call = await kit.work(worker)
    request = await client.submit_job(task, b"bad", poll_timeout=20)
    assert request.state == "FAILED"
    assert list(request.warning_updates) == [b"asyncio.exceptions.CancelledError"]
    assert (await client.submit_job(task, b"good", poll_timeout=20)).result == b"good"
    assert not call.done


def test_closed_coroutine_does_not_end_the_job(adapter: str) -> None:
    """Don't treat the GeneratorExit of a closed coroutine as raised by the callback."""
    if adapter == "sync":
        pytest.skip("it has no coroutines")

    @types.coroutine
    def suspend() -> Generator[None, None, None]:
        yield

    async def awaiting(worker: Any, job: WorkerJob) -> None:
        await suspend()

    async def begin() -> Coroutine[Any, Any, bool]:
        worker._gm_host = Host()
        worker._gm_limiter = anyio.CapacityLimiter(1)
        executing = worker.on_job_execute(job)
        executing.send(None)
        return executing

    link = WorkerLink(KnownServer(ServerAddress("h")), 1000)
    job = WorkerJob(link, b"H:1", b"task", None, b"")
    worker = gearman_anyio.GearmanWorker([])
    worker.register_task("task", awaiting)
    executing = anyio.run(begin, backend=adapter)
    executing.close()
    assert not job.ended


@each_number_of_slots
async def test_callbacks_that_return_or_end_their_jobs(
    kit: Kit, server: Server, task: str, max_jobs: int
) -> None:
    rows = (Happened.RETURNED, Happened.UNENCODABLE, Happened.ENDED)
    assert [OUTCOMES[row].sent for row in rows] == [Sent.RESULT, Sent.FAILURE, Sent.NOTHING]
    assert {OUTCOMES[row].then for row in rows} == {Then.GO_ON}

    async def function(worker: Any, job: WorkerJob) -> Any:
        if job.data in (b"ends and returns", b"ends and raises", b"ends and exits"):
            await worker.send_job_complete(job, b"ended")
        if job.data == b"ends and raises":
            raise ZeroDivisionError
        if job.data == b"ends and exits":
            raise GeneratorExit
        return {b"value": b"a value", b"None": None, b"number": 5}.get(job.data, b"not sent")

    client = await kit.client(server.address)
    tasks = {task: kit.callback(function)}
    worker = await kit.make_worker(server.address, tasks=tasks, max_jobs=max_jobs)
    call = await kit.work(worker)
    for data, result in (
        (b"value", b"a value"),
        (b"None", b""),
        (b"number", None),
        (b"ends and returns", b"ended"),
        (b"ends and raises", b"ended"),
        (b"ends and exits", b"ended"),
        (b"value", b"a value"),
    ):
        request = await client.submit_job(task, data, poll_timeout=20)
        assert (request.result, len(request.warning_updates)) == (result, data == b"number")
    assert not call.done


@each_number_of_slots
async def test_lost_connection(
    kit: Kit, launch: Callable[[], Awaitable[Server]], task: str, max_jobs: int
) -> None:
    assert OUTCOMES[Happened.LOST].then is Then.GO_ON
    server = await launch()
    gate = kit.gate()
    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks={task: gate}, max_jobs=max_jobs)
    call = await kit.work(worker)
    await client.submit_job(task, b"x", background=True)
    await kit.wait_for(gate.begun)
    await server.kill()
    gate.open.set()
    await kit.eventually(lambda: not worker.has_job_lock())
    await server.start()
    other = await kit.client(server.address)
    await kit.eventually(lambda: worker.connection_list[0].connected)
    assert (await other.submit_job(task, b"y", poll_timeout=20)).result == b"y"
    assert not call.done


@each_number_of_slots
@pytest.mark.parametrize("hook", ["on_job_execute", "on_job_complete", "on_job_exception"])
@pytest.mark.parametrize("what", ["raises", "raises no Exception", "leaves it open"])
async def test_hooks(
    kit: Kit, server: Server, task: str, hook: str, what: str, max_jobs: int
) -> None:
    row = Happened.LEFT_OPEN if what == "leaves it open" else Happened.HOOK_RAISED
    assert OUTCOMES[row].then is Then.GO_ON

    def replaced(self: Any, current_job: WorkerJob, *args: Any) -> Any:
        if current_job.data == b"good":
            return getattr(super(kind, self), hook)(current_job, *args)
        if what == "leaves it open":
            return False
        raise ZeroDivisionError("hook") if what == "raises" else GeneratorExit("hook")

    def function(worker: Any, job: WorkerJob) -> Any:
        if job.data == b"bad" and hook == "on_job_exception":
            raise LookupError
        return job.data

    kind = type("Hooked", (Hooks,), {hook: replaced})
    client = await kit.client(server.address)
    worker = await kit.make_worker(
        server.address, kind=kind, tasks={task: function}, max_jobs=max_jobs
    )
    call = await kit.work(worker)
    request = await client.submit_job(task, b"bad", poll_timeout=20)
    texts = {
        "raises": [b"ZeroDivisionError: hook"],
        "raises no Exception": [b"GeneratorExit: hook"],
    }
    assert (request.state, list(request.warning_updates)) == ("FAILED", texts.get(what, []))
    assert OUTCOMES[row].sent is (Sent.FAILURE if what in texts else Sent.FAIL)
    assert (await client.submit_job(task, b"good", poll_timeout=20)).result == b"good"
    assert not call.done


class Unwilling(NoopEncoder):
    """An encoder that refuses every value except ``b"good"``."""

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        if encodable_object == b"good":
            return encodable_object
        raise GeneratorExit


@each_number_of_slots
async def test_encoder_that_refuses_the_reason_fails_without_it(
    kit: Kit, server: Server, task: str, max_jobs: int
) -> None:
    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks={task: echo}, max_jobs=max_jobs)
    worker.data_encoder = Unwilling
    call = await kit.work(worker)
    request = await client.submit_job(task, b"bad", poll_timeout=20)
    assert (request.state, len(request.warning_updates)) == ("FAILED", 0)
    assert (await client.submit_job(task, b"good", poll_timeout=20)).result == b"good"
    assert not call.done


AFTER: dict[str, tuple[Happened, Callable[[], BaseException] | None]] = {
    "true": (Happened.AFTER_TRUE, None),
    "false": (Happened.AFTER_FALSE, None),
    "raises": (Happened.AFTER_JOB_RAISED, lambda: ZeroDivisionError("after")),
    "raises no Exception": (Happened.AFTER_JOB_RAISED, lambda: Odd("after")),
}


@each_number_of_slots
@pytest.mark.parametrize("what", AFTER)
async def test_after_job(kit: Kit, server: Server, task: str, what: str, max_jobs: int) -> None:
    """Finish the other running job in any case, if the worker has several slots."""
    row, make_error = AFTER[what]
    then = OUTCOMES[row].then
    gate = kit.gate()
    error = make_error() if make_error else None

    def after_job(self: Any) -> Any:
        if error is not None:
            raise error
        return what == "true"

    caught: list[BaseException] = []

    async def work() -> None:
        try:
            await worker.work()
        except (ZeroDivisionError, Odd) as raised:
            caught.append(raised)

    tasks = {f"{task}-gate": gate, task: echo}
    client = await kit.client(server.address)
    kind = type("Hooked", (Hooks,), {"after_job": after_job})
    worker = await kit.make_worker(server.address, kind=kind, tasks=tasks, max_jobs=max_jobs)
    call = await kit.spawn(work)
    requests = []
    if max_jobs > 1:
        requests.append(await client.submit_job(f"{task}-gate", b"x", wait_until_complete=False))
        await kit.wait_for(gate.begun)
    requests.append(await client.submit_job(task, b"x", poll_timeout=20))
    if max_jobs > 1:
        assert not call.done
        gate.open.set()
    await client.wait_until_jobs_completed(requests)
    assert [request.result for request in requests] == [b"x"] * len(requests)
    if then is Then.GO_ON:
        assert (await client.submit_job(task, b"y", poll_timeout=20)).result == b"y"
        assert not call.done
        worker.stop()
    await call.result()
    assert caught == ([] if error is None else [error])
    assert (then is Then.RAISE) is (error is not None)


@each_number_of_slots
@pytest.mark.parametrize("what", ["false", "raises"])
async def test_after_poll(kit: Kit, server: Server, task: str, what: str, max_jobs: int) -> None:
    row = Happened.AFTER_FALSE if what == "false" else Happened.AFTER_POLL_RAISED
    assert OUTCOMES[row].then is (Then.STOP if what == "false" else Then.LEAVE)

    served: list[Any] = []

    def after_poll(self: Any, any_activity: bool) -> Any:
        if any_activity or not served:
            return True
        if what == "false":
            return False
        raise ZeroDivisionError("after")

    client = await kit.client(server.address)
    kind = type("Hooked", (Hooks,), {"after_poll": after_poll})
    worker = await kit.make_worker(server.address, kind=kind, tasks={task: echo}, max_jobs=max_jobs)
    call = await kit.work(worker, poll_timeout=0.2)
    served.append(await client.submit_job(task, b"x", poll_timeout=20))
    assert served[0].result == b"x"
    if what == "false":
        await call.result()
    else:
        with pytest.raises(ZeroDivisionError, match="after"):
            await call.result()
    await server.wait_for_counts(task, 0, 0, 0)
