"""Load: the cost of a job, large jobs, and a server that does not read. No test measures time."""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

import gearman_anyio as gearman
from gearman_proto.wire.packets import JobCreated, SubmitJob, WorkComplete
from tests.support import wait_for

from .stepping import assert_idle
from .support import echo, until, working

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from gearman_sync.testing import Peer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_is_left")]

MEGABYTE = 1024 * 1024


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
                async with working(server.address, tasks={task: echo}, max_jobs=10):
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
    few, many = 50, 200
    await cost(task, few, one_by_one=one_by_one)  # Warm up: imports and caches.
    of_few = await cost(task, few, one_by_one=one_by_one)
    of_many = await cost(task, many, one_by_one=one_by_one)
    for package, count in of_few.items():
        assert count > few, "nothing was counted"
        assert of_many[package] / many < 1.3 * count / few, package


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
