"""Many jobs in one call: little memory per job, large writes, and back-pressure."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync import GearmanClient
    from tests.support import Gearmand

    from .support import MakeClient

MANY = 20_000


@pytest.fixture
def client(start_gearmand: Callable[..., Gearmand], make_client: MakeClient) -> GearmanClient:
    """A client of a separate gearmand, because the queued jobs would slow other tests down."""
    client = make_client(start_gearmand().address)
    # Allocate everything that exists once.
    client.submit_job("task", b"", background=True)
    return client


@pytest.mark.parametrize("background", [True, False])
def test_memory_of_a_job(client: GearmanClient, task: str, background: bool) -> None:
    count = MANY // 4
    jobs = [{"task": task, "data": b"data"}] * count
    tracemalloc.start()
    try:
        requests = client.submit_multiple_jobs(
            jobs, background=background, wait_until_complete=False
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(requests) == count
    assert peak / count < 1024


def test_writes_are_large_and_loops_make_few_calls_of_the_engine(
    client: GearmanClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"select": 0, "data_to_send": 0, "receive_data": 0}

    def count(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    driver = client._gm_driver
    count(driver._poller.selector, "select")
    count(driver.engine, "data_to_send")
    count(driver.engine, "receive_data")
    client.submit_multiple_jobs([{"task": task, "data": b"data"}] * MANY, background=True)
    # A submit has about 80 bytes, a reply about 30.
    assert counts["receive_data"] <= counts["select"] + 1
    assert counts["data_to_send"] <= 2 * counts["select"] + MANY * 100 / 65536
    assert counts["select"] < MANY
