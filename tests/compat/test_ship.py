"""A program for python3_gearman: overridden hooks, and jobs that submit jobs."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any

import gearman_sync
from tests.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Gearmand


def test_hooks_send_the_result_and_the_reason(
    nothing: None,
    work: Callable[..., Any],
    start_worker: Callable[..., Any],
    server: Gearmand,
    host: str,
    task: str,
) -> None:
    gearman_sync.install_as_gearman("python3_gearman")
    library: Any = importlib.import_module("python3_gearman")

    class ShipWorker(library.GearmanWorker):  # type: ignore[misc]
        def __init__(self) -> None:
            self.stop = False  # The library has a method of this name.
            super().__init__(host_list=[host])

        def on_job_execute(self, current_job: Any) -> Any:
            self.stop = False
            return super().on_job_execute(current_job)

        def on_job_exception(self, current_job: Any, exc_info: Any) -> Any:
            self.send_job_data(current_job, f"{exc_info[0].__name__}: {exc_info[1]}")
            return super().on_job_exception(current_job, exc_info)

        def on_job_complete(self, current_job: Any, job_result: Any) -> Any:
            jobs = [{"task": f"{task}-next", "data": name} for name in json.loads(job_result)]
            next_client = library.GearmanClient([host])
            submitted = next_client.submit_multiple_jobs(
                jobs, background=False, wait_until_complete=False
            )
            next_client.wait_until_jobs_completed(submitted)
            states = [request.state for request in submitted]
            return super().send_job_complete(current_job, json.dumps(states))

    worker = ShipWorker()
    worker.register_task(task, lambda worker, job: json.dumps(json.loads(job.data)["next"]))
    work(worker)
    start_worker(server.address, {f"{task}-next": lambda job: b""})
    client = library.GearmanClient([host])
    request = client.submit_job(task, '{"next": ["a", "b"]}', poll_timeout=PATIENCE)
    assert json.loads(request.result) == ["COMPLETE", "COMPLETE"]
    request = client.submit_job(task, "{}", poll_timeout=PATIENCE)
    assert (request.state, list(request.data_updates)) == ("FAILED", ["KeyError: 'next'"])
    client.shutdown()
