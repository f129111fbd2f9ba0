"""Threads that share a client."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import echo
from tests.support import PATIENCE, spawn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support import Gearmand

THREADS = 20


@pytest.fixture
def switching() -> Iterator[None]:
    """Make threads switch after almost every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
def test_simultaneous_first_calls_share_a_connection(
    gearman: Any, start_worker: Any, server: Gearmand, host: str, task: str
) -> None:
    """The calls share one driver, so that no request is lost with a second one."""
    start_worker(server.address, {task: echo})
    for _ in range(5):
        client = gearman.GearmanClient([host])
        drivers: set[int] = set()
        barrier = threading.Barrier(THREADS)

        def use(number: int, client: Any, drivers: set[int], barrier: threading.Barrier) -> None:
            barrier.wait(PATIENCE)
            data = b"%d" % number
            request = client.submit_job(task, data, wait_until_complete=False)
            drivers.add(id(client._gm_driver))
            client.poll_connections_until_stopped(client.connection_list, lambda _: False)
            client.wait_until_any_job_completed([request], poll_timeout=PATIENCE)
            assert request.result == data

        calls = [spawn(use, number, client, drivers, barrier) for number in range(THREADS)]
        for call in calls:
            call.result(PATIENCE)
        assert len(drivers) == 1
        client.shutdown()
