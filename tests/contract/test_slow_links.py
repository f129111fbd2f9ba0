"""Healthy but slow links stay connected, and their data arrives exactly once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from gearman_sync.testing import Bandwidth, Direction, FaultyProxy

from .kit import Kit, Server, echo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    SlowLink = Callable[[Server, float], "Uplink"]

#: Timeout in seconds, long enough for any machine.
OVERDUE = 90.0
#: Bytes per second.
KILOBYTE = 1e3


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
async def test_stop_while_a_result_is_sent_returns_after_its_arrival(
    kit: Kit, server: Server, slow_link: SlowLink, task: str
) -> None:
    large = b"r" * 500_000
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
