"""Callbacks that raise, exit or are cancelled, with one slot and with several.

Async callbacks run in the thread of `work`, and so do all callbacks of a blocking worker with one
slot. Other callbacks run in a thread pool.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from .kit import Kit, Server, echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gearman_proto import WorkerJob

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

# Exceptions of callbacks that must not end `work`, and their texts.
RAISED: dict[str, tuple[Callable[[], BaseException], bytes]] = {
    "Exception": (lambda: ZeroDivisionError("zero"), b"ZeroDivisionError: zero"),
    "GeneratorExit": (lambda: GeneratorExit("out"), b"GeneratorExit: out"),
    "asyncio.CancelledError": (asyncio.CancelledError, b"asyncio.exceptions.CancelledError"),
    "trio.Cancelled": (lambda: STRAY, b"trio.Cancelled: "),
    "no Exception": (lambda: Odd("odd"), b"tests.contract.test_outcomes.Odd: odd"),
    # These end `work` if its thread runs the callback: see test_exit.
    "KeyboardInterrupt": (lambda: KeyboardInterrupt("now"), b"KeyboardInterrupt: now"),
    "SystemExit": (lambda: SystemExit(3), b"SystemExit: 3"),
}


@each_number_of_slots
@pytest.mark.parametrize("what", RAISED)
async def test_callback_that_raises(
    kit: Kit, adapter: str, server: Server, task: str, what: str, max_jobs: int
) -> None:
    """Fail the job with the exception's text, and keep working."""
    make_error, text = RAISED[what]

    async def callback(worker: Any, job: WorkerJob) -> Any:
        if job.data == b"good":
            return job.data
        raise make_error()

    tasks = kit.both_forms(task, callback)
    if what in ("KeyboardInterrupt", "SystemExit"):
        del tasks[f"{task}-awaiting"]
        if adapter == "sync" and max_jobs == 1:
            pytest.skip("the thread of `work` runs the callback")
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

    client, request = await kit.submit(server.address, task, b"x")

    def raised() -> BaseException | None:
        try:
            work()
        except BaseException as caught:  # noqa: BLE001 - the thread would discard it
            return caught
        return None

    assert await kit.blocking(raised) is error
    await kit.start_worker(server.address, tasks={task: echo})
    await client.wait_until_jobs_completed([request])
    assert (request.result, list(request.warning_updates)) == (b"x", [])


async def be_cancelled(worker: Any, begun: anyio.Event) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.work)
        await begun.wait()
        tasks.cancel_scope.cancel()


async def end_the_loop(worker: Any, begun: anyio.Event) -> asyncio.Task[None]:
    """Return, so that asyncio cancels the tasks of the loop one by one."""
    task = asyncio.create_task(worker.work())
    await begun.wait()
    return task


@pytest.mark.parametrize("way", [be_cancelled, end_the_loop])
async def test_cancelled_work_returns_its_job(
    kit: Kit,
    adapter: str,
    server: Server,
    task: str,
    way: Callable[[Any, anyio.Event], Awaitable[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    if adapter == "sync" or (adapter == "trio" and way is end_the_loop):
        pytest.skip("the adapter has no such way")

    async def main() -> Any:
        async def awaiting(worker: Any, job: WorkerJob) -> Any:
            begun.set()
            await anyio.sleep_forever()

        begun = anyio.Event()
        worker = kit.gearman.GearmanWorker([server.address])
        worker.register_task(task, awaiting)
        return await way(worker, begun)

    client, request = await kit.submit(server.address, task, b"x")
    ended = await kit.blocking(lambda: anyio.run(main, backend=adapter))
    assert ended is None or ended.cancelled()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await kit.start_worker(server.address, tasks={task: echo})
    await client.wait_until_jobs_completed([request])
    assert (request.result, list(request.warning_updates)) == (b"x", [])
