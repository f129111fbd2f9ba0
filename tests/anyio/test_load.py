"""Many tasks, jobs and clients, and slow connections. No test measures time."""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import random
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import ByteStream

import gearman_anyio as gearman
from gearman_anyio._driver import Driver
from gearman_proto.wire.packets import (
    JobCreated,
    SubmitJob,
    WorkComplete,
)
from tests.support import PATIENCE, deadlines_of, wait_for

from .stepping import (
    assert_idle,
    attempts,
    echo,
    nothing_left,
    working,
)
from .support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import FrameType

    from gearman_sync.testing import Peer
    from tests.support import Gearmand

pytestmark = pytest.mark.anyio

MEGABYTE = 1024 * 1024


@pytest.fixture(autouse=True)
async def _nothing_left(anyio_backend: str) -> AsyncIterator[None]:
    async with nothing_left():
        yield


@pytest.mark.slow
async def test_a_thousand_tasks(server: Any, task: str) -> None:
    """Every third task is cancelled at a random step. The others get their own results."""
    rng = random.Random(1)
    results: dict[int, bytes] = {}
    cancelled = 0

    async def submit(client: gearman.GearmanClient, number: int, delay: int | None) -> None:
        nonlocal cancelled
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                if delay is not None:
                    tasks.start_soon(cancel_later, scope, delay)
                request = await client.submit_job(task, f"job {number}")
                results[number] = request.result
                tasks.cancel_scope.cancel()
        cancelled += scope.cancelled_caught

    async def cancel_later(scope: anyio.CancelScope, delay: int) -> None:
        for _ in range(delay):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async with (
        working(server, {task: echo}, max_jobs=20),
        gearman.GearmanClient([server.address]) as client,
    ):
        # Connect first, so that the connection does not count as left over.
        await client.submit_job(task, "first")
        async with nothing_left(), anyio.create_task_group() as tasks:
            for number in range(1000):
                delay = rng.randrange(200) if number % 3 == 0 else None
                tasks.start_soon(submit, client, number, delay)
        assert cancelled > 100
        assert len(results) == 1000 - cancelled
        assert set(results) >= {number for number in range(1000) if number % 3}
        assert all(result == b"job %d" % number for number, result in results.items())
        await assert_idle(client)
        assert (await client.submit_job(task, "last")).result == b"last"
        (link,) = (each.link for each in client.connection_list)
        await until(lambda: not link.jobs, "the end of the jobs")
        assert not link.outbox
        assert not link.connection.unanswered


# The cost of a job.


@contextlib.contextmanager
def counting_calls() -> Iterator[collections.Counter[str]]:
    """Count the calls of Python and C functions made by the packages' code."""
    counts: collections.Counter[str] = collections.Counter()

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event in {"call", "c_call"}:
            name = frame.f_code.co_filename
            for package in ("gearman_proto", "gearman_anyio"):
                if f"{os.sep}{package}{os.sep}" in name:
                    counts[package] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield counts
    finally:
        sys.setprofile(before)


async def cost(task: str, number: int, *, one_by_one: bool) -> collections.Counter[str]:
    """Count the calls that client, server and worker make for `number` concurrent jobs."""
    async with (
        gearman.JobServer() as server,
        gearman.GearmanClient([server.address]) as client,
    ):
        with counting_calls() as counts:
            words = [b"%d" % word for word in range(number)]
            async with anyio.create_task_group() as tasks:
                if one_by_one:
                    for word in words:
                        tasks.start_soon(submit_one, client, task, word)
                else:
                    tasks.start_soon(submit_all, client, task, words)
                # All jobs are queued before the worker starts.
                await until(lambda: len(server._gm_driver.engine.queue.jobs) == number, "all jobs")
                async with working(server, {task: echo}, max_jobs=10):
                    await until(lambda: not server._gm_driver.engine.queue.jobs, "no jobs")
        await assert_idle(client)
        return counts


async def submit_one(client: gearman.GearmanClient, task: str, word: bytes) -> None:
    assert (await client.submit_job(task, word)).result == word


async def submit_all(client: gearman.GearmanClient, task: str, words: list[bytes]) -> None:
    jobs = [{"task": task, "data": word} for word in words]
    requests = await client.submit_multiple_jobs(jobs)
    assert [request.result for request in requests] == words


@pytest.mark.slow
@pytest.mark.parametrize("one_by_one", [True, False], ids=["calls", "one call"])
async def test_cost_of_a_job_does_not_depend_on_their_number(
    one_by_one: bool, task: str, anyio_backend: str
) -> None:
    """The calls per job hardly grow with the number of jobs in flight."""
    few, many = 50, 400
    await cost(task, few, one_by_one=one_by_one)  # Warm up: imports and caches.
    of_few = await cost(task, few, one_by_one=one_by_one)
    of_many = await cost(task, many, one_by_one=one_by_one)
    for package, count in of_few.items():
        assert count > few, "nothing was counted"
        assert of_many[package] / many < 1.3 * count / few, package


@pytest.mark.slow
@pytest.mark.parametrize("one_by_one", [True, False], ids=["calls", "one call"])
async def test_ten_thousand_jobs(
    one_by_one: bool,
    start_gearmand: Callable[..., Gearmand],
    task: str,
    start_worker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All jobs are in flight before the worker starts."""
    number = 10_000
    # The server runs in another process, so that the client is the bottleneck.
    server = start_gearmand()
    pumps = 0
    pump = Driver._pump

    def count(driver: Driver[Any]) -> None:
        nonlocal pumps
        pumps += driver is client._gm_driver
        pump(driver)

    words = [b"%d" % word for word in range(number)]
    async with gearman.GearmanClient([server.address]) as client:
        monkeypatch.setattr(Driver, "_pump", count)
        async with anyio.create_task_group() as tasks:
            if one_by_one:
                for word in words:
                    tasks.start_soon(submit_one, client, task, word)
            else:
                tasks.start_soon(submit_all, client, task, words)
            (connected,) = client.connection_list
            await until(
                lambda: connected.link is not None and len(connected.link.jobs) == number,
                "all jobs at the server",
            )
            # The worker is simple and runs in a thread, so that the client is the bottleneck.
            worker = await anyio.to_thread.run_sync(
                start_worker, server.address, {task: lambda job: job.data}
            )
        await assert_idle(client)
        assert not connected.link.jobs
        assert sorted(worker.order) == sorted(words)
        # One pump per call, read and write. In the worst case, each read or write is for one job.
        assert pumps < (number if one_by_one else 0) + 3 * number
        assert (await client.submit_job(task, b"last")).result == b"last"


async def test_twenty_clients(server: Any, task: str) -> None:
    async def use(number: int) -> None:
        words = [b"%d of client %d" % (word, number) for word in range(30)]
        async with gearman.GearmanClient([server.address]) as client:
            async with anyio.create_task_group() as tasks:
                for word in words[:10]:
                    tasks.start_soon(submit_one, client, task, word)
                tasks.start_soon(submit_all, client, task, words[10:])
            await assert_idle(client)

    async with (
        working(server, {task: echo}, max_jobs=5),
        nothing_left(),
        anyio.create_task_group() as tasks,
    ):
        for number in range(20):
            tasks.start_soon(use, number)


# Large jobs and slow connections.


@pytest.mark.both_streams
async def test_cancelled_in_the_middle_of_a_large_job(server: Any, task: str) -> None:
    """The client completes a partly sent packet before it sends the next one."""
    data = b"x" * (3 * MEGABYTE)
    async with (
        working(server, {task: echo}),
        gearman.GearmanClient([server.address]) as client,
    ):
        await client.submit_job(task, "first")
        for steps in (1, 2, 5, 20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.submit_job, task, data)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            await submit_one(client, task, b"after %d" % steps)
        await assert_idle(client)


class Slow(ByteStream):
    """A stream that transfers few bytes at a time, with a checkpoint before each piece."""

    def __init__(self, stream: ByteStream, size: int) -> None:
        self._stream = stream
        self._size = size

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        return await self._stream.receive(min(max_bytes, self._size))

    async def send(self, item: bytes) -> None:
        for at in range(0, len(item), self._size):
            await anyio.lowlevel.checkpoint()
            await self._stream.send(item[at : at + self._size])

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_slow_connection(server: Any, task: str) -> None:
    """Cancelling a call at any moment does not truncate packets."""
    words = [b"word %d " % number * 200 for number in range(20)]

    async def connect(address: Any) -> ByteStream:
        return Slow(await anyio.connect_tcp(*server.address), 97)

    async with (
        working(server, {task: echo}, max_jobs=3),
        gearman.GearmanClient([server.address], connect=connect) as client,
    ):
        async with anyio.create_task_group() as tasks:
            for word in words:
                tasks.start_soon(submit_one, client, task, word)
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as given_up:
                        given_up.start_soon(client.submit_job, task, word)
                        for _ in range(len(word) % 7):
                            await anyio.lowlevel.checkpoint()
                        scope.cancel()
        for attempt in attempts():
            await attempt(submit_one(client, task, words[0]))
        await assert_idle(client)


@pytest.mark.both_streams
async def test_cancelled_calls_to_a_server_that_does_not_read_leave_client_usable(
    task: str, start_server: Callable[..., Any], anyio_backend: str
) -> None:
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        wait_for(go_on)
        number = 0
        while True:
            event = peer.expect(SubmitJob)
            number += 1
            handle = b"H:x:%d" % number
            peer.send(JobCreated(handle), WorkComplete(handle, event.data[:10]))

    server = start_server(script, receive_buffer=4096)
    large = b"large" * MEGABYTE
    async with gearman.GearmanClient([server.address]) as client:
        for _ in range(2):
            with anyio.move_on_after(0.02) as scope:
                await client.submit_job(task, large)
            assert scope.cancelled_caught
        await assert_idle(client)
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(submit_one, client, task, b"small %d" % number)
            go_on.set()
        assert (await client.submit_job(task, large)).result == large[:10]
        await assert_idle(client)


# Abandoned iterators.


async def test_abandoned_updates(server: Any, task: str) -> None:
    async def talk(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
        for number in range(5):
            await worker.send_job_data(job, f"part {number}")
        data: bytes = job.data
        return data

    async def first_of(client: gearman.GearmanClient, number: int) -> None:
        request = await client.submit_job(task, f"job {number}", wait_until_complete=False)
        async for update in client.updates(request):
            assert isinstance(update, gearman.JobData)
            assert update.data == b"part 0"
            break

    async with (
        working(server, {task: talk}, max_jobs=5),
        gearman.GearmanClient([server.address]) as client,
    ):
        engine = client._gm_driver.engine
        for number in range(5):
            await first_of(client, number)
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(first_of, client, number)
        # One iterator never starts, and one starts with a deadline.
        request = await client.submit_job(f"{task}-nobody", "x", wait_until_complete=False)
        client.updates(request)
        items: Any = client.updates(request, poll_timeout=PATIENCE)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(items.__anext__)
            await until(lambda: len(deadlines_of(engine)) == 1, "its beginning")
            tasks.cancel_scope.cancel()
        assert len(deadlines_of(engine)) == 1
        del items
        await anyio.lowlevel.checkpoint()
        gc.collect()
        # The next call of any kind releases collected iterators.
        await client.submit_job(task, "x", background=True)
        assert not engine._waits
        assert not deadlines_of(engine)
        assert request._gm_waits == ()
        assert not client._gm_driver._released
        (link,) = (each.link for each in client.connection_list)
        await until(lambda: len(link.jobs) == 1, "the end of all jobs but nobody's")


async def test_an_iterator_that_outlives_its_client(server: Any, task: str) -> None:
    async with gearman.GearmanClient([server.address]) as client:
        request = await client.submit_job(task, "x", wait_until_complete=False)
        items: Any = client.updates(request)
        with anyio.move_on_after(0.005):
            await items.__anext__()
    with anyio.fail_after(PATIENCE):
        assert [item.state async for item in items] == [gearman.JOB_UNKNOWN]
    assert not client._gm_driver.engine._waits
