"""A program for python3_gearman: overridden hooks, and jobs that submit jobs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Gearmand

    Load = Callable[[str], Any]
    Work = Callable[..., Any]


@pytest.fixture
def worker(load: Load, work: Work, host: str, task: str) -> Any:
    """The program's worker, which runs."""
    module = load("ship_worker")
    worker = module.ShipWorker(host, task)
    worker.register_task(f"{task}transfer", module.transfer)
    work(worker)
    return worker


def submit(client: Any, task: str, **payload: Any) -> Any:
    return client.submit_job(f"{task}transfer", json.dumps(payload), poll_timeout=PATIENCE)


def test_hook_sends_the_result(
    worker: Any, client: Any, start_worker: Any, server: Gearmand, task: str
) -> None:
    start_worker(server.address, {f"{task}next": lambda job: b"{}"})
    request = submit(client, task, files=["a", "b"], followers=["next", "next"])
    result = json.loads(request.result)
    assert (result["parts"], result["followed"]) == (["a", "b"], ["COMPLETE", "COMPLETE"])
    assert list(request.status_updates) == [(0, 100), (50, 100)]
    started, completed = worker.reports
    assert started[:2] == ("started", "Transfer")
    assert completed == ("completed", request.job.handle)
    assert isinstance(json.dumps(started), str)


@pytest.mark.usefixtures("worker")
def test_crashed_job_fails(client: Any, task: str) -> None:
    request = submit(client, task, nothing=1)
    assert request.state == "FAILED"
    (said,) = request.data_updates
    assert json.loads(said)[0]["reason"] == "KeyError: 'files'"
