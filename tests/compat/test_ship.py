"""A program for python3_gearman: overridden hooks, nested submits, and stopping by signals."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import PATIENCE, EmbeddedServer, Gearmand

from .support import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .support import Running

    Load = Callable[[str], Any]
    Work = Callable[..., Any]
    Server = Gearmand | EmbeddedServer


@pytest.fixture
def ship(load: Load, work: Work, host: str, task: str) -> Any:
    """The program's module, with a running worker."""
    module = load("ship_worker")
    module.worker = module.ShipWorker(host, task)
    module.worker.register_task(f"{task}transfer", module.transfer)
    work(module.worker)
    return module


def submit(module: Any, host: str, task: str, data: str) -> Any:
    client = module.python3_gearman.GearmanClient([host])
    request = client.submit_job(task, data, poll_timeout=PATIENCE)
    client.shutdown()
    return request


def test_hook_sends_the_result(ship: Any, host: str, task: str) -> None:
    request = submit(ship, host, f"{task}transfer", json.dumps({"files": ["a", "b"]}))
    assert json.loads(request.result) == {"parts": ["a", "b"], "followers": []}
    assert list(request.status_updates) == [(0, 100), (50, 100), (100, 100)]
    started, completed = ship.worker.reports
    assert started == ("started", "Transfer", {"files": ["a", "b"]}, request.job.handle)
    assert completed == ("completed", request.job.handle)
    assert isinstance(json.dumps(started), str)


def test_job_submits_jobs(ship: Any, start_worker: Any, server: Server, task: str) -> None:
    start_worker(server.address, {f"{task}next": lambda job: b"{}"})
    data = json.dumps({"files": [], "followers": ["next", "next"]})
    request = submit(ship, "{}:{}".format(*server.address), f"{task}transfer", data)
    assert json.loads(request.result)["followed"] == ["COMPLETE", "COMPLETE"]


def test_invalid_payload_fails_the_job(ship: Any, host: str, task: str) -> None:
    request = submit(ship, host, f"{task}transfer", "no JSON")
    assert json.loads(request.result)["parts"][0]["reason"] == "Failed to parse"


def test_crashed_job_fails(ship: Any, host: str, task: str) -> None:
    request = submit(ship, host, f"{task}transfer", json.dumps({"nothing": 1}))
    assert request.state == "FAILED"
    (said,) = request.data_updates
    assert json.loads(said)[0]["reason"] == "KeyError: 'files'"


def test_background_jobs_are_complete_when_accepted(
    ship: Any, server: Server, host: str, task: str
) -> None:
    """Accepted background jobs are complete, so waiting for them returns at once."""
    client = ship.python3_gearman.GearmanClient([host])
    jobs = [{"task": f"{task}transfer", "data": json.dumps({"files": []})}] * 5
    submitted = client.submit_multiple_jobs(jobs, background=True, wait_until_complete=False)
    assert client.wait_until_jobs_completed(submitted) is submitted
    assert {request.state for request in submitted} == {"CREATED"}
    assert all(request.complete for request in submitted)
    client.shutdown()
    server.wait_for_jobs(f"{task}transfer", 0)
    assert len(ship.worker.reports) == 10


@pytest.mark.skipif(not hasattr(signal, "SIGQUIT"), reason="this system has other signals")
def test_signals_stop_the_program(
    start: Callable[..., Running], gearman: Any, gearmand: Gearmand, task: str
) -> None:
    """SIGQUIT ends the job early. SIGINT shuts the worker down, which ends the program."""
    host = "{}:{}".format(*gearmand.address)
    ship = start(PROGRAMS / "ship_worker.py", host, task)
    assert ship.line() == str(ship.process.pid)
    client = gearman.GearmanClient([host])
    data = json.dumps({"files": ["wait", "never"]})
    request = client.submit_job(f"{task}transfer", data, wait_until_complete=False)
    assert ship.line() == "waits"
    ship.process.send_signal(signal.SIGQUIT)
    client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert json.loads(request.result)["parts"] == ["wait"]
    assert str(PROGRAMS / "ship_worker.py") in gearmand.client_ids()
    ship.process.send_signal(signal.SIGINT)
    out, errors, status = ship.end()
    assert (out, status) == ("ended\n", 0), errors
    client.shutdown()
