"""Healthy but slow links stay connected, and their data arrives exactly once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import Bandwidth, Direction, FaultyProxy

from .kit import Kit, Server, echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_proto import WorkerJob

    SlowLink = Callable[[Server, float], "Uplink"]

#: Timeout in seconds, long enough for any machine.
OVERDUE = 90.0
#: Bytes per second.
KILOBYTE, MEGABYTE = 1e3, 1e6
#: A payload that takes 40 seconds at a megabyte per second. The sender's kernel buffers at most
#: six megabytes of it.
LARGE = b"x" * 40_000_000


class Uplink(FaultyProxy):
    """A proxy that forwards `rate` bytes per second to `server` and buffers almost nothing.

    Attributes:
        passed: Number of bytes forwarded to the server.
    """

    def __init__(self, server: Server, rate: float) -> None:
        self.passed = 0
        slow = Bandwidth(rate, direction=Direction.UP)
        super().__init__(server.address, lambda _: [slow], tap=self._count, buffer=4096)

    def _count(self, _number: int, direction: Direction, data: bytes) -> None:
        if direction is Direction.UP:
            self.passed += len(data)


@pytest.fixture
def slow_link() -> Iterator[SlowLink]:
    """A function that starts an Uplink."""
    with contextlib.ExitStack() as stack:
        yield lambda server, rate: stack.enter_context(Uplink(server, rate))


@pytest.mark.slow
async def test_result_that_takes_40_seconds_arrives_and_its_job_runs_once(
    kit: Kit, server: Server, slow_link: SlowLink, task: str
) -> None:
    runs = []

    def make(worker: Any, job: WorkerJob) -> bytes:
        runs.append(job.handle)
        return LARGE

    link = slow_link(server, MEGABYTE)
    client = await kit.client(server.address)
    await kit.start_worker(link.address, tasks={task: make})
    request = await client.submit_job(task, b"", poll_timeout=OVERDUE)
    assert (request.state, request.result == LARGE, len(runs)) == ("COMPLETE", True, 1)


@pytest.mark.slow
async def test_submit_that_takes_four_heartbeats_arrives_without_a_retry(
    kit: Kit, server: Server, slow_link: SlowLink, task: str
) -> None:
    link = slow_link(server, 25 * KILOBYTE)
    client = await kit.client(link.address, heartbeat=1.0)
    await kit.start_worker(server.address, tasks={task: echo})
    data = b"d" * 100_000
    request = await client.submit_job(task, data, max_retries=0, poll_timeout=OVERDUE)
    assert (request.state, request.result == data) == ("COMPLETE", True)
    assert link.accepted == 1


@pytest.mark.slow
@pytest.mark.both_servers
async def test_stop_while_a_result_is_sent_returns_after_its_arrival(
    kit: Kit, server: Server, slow_link: SlowLink, task: str
) -> None:
    large = b"r" * 1_000_000
    link = slow_link(server, 200 * KILOBYTE)
    client, request = await kit.submit(server.address, task, b"")
    worker = await kit.make_worker(link.address, tasks={task: lambda worker, job: large})
    work = await kit.work(worker)
    await kit.eventually(lambda: link.passed > 10_000, "the beginning of the result")
    worker.stop()
    await work.result()
    assert link.passed > len(large)
    await client.wait_until_jobs_completed([request], poll_timeout=OVERDUE)
    assert request.result == large
