"""A worker for python3_gearman, whose hooks report, send the result, and submit more jobs."""

# ruff: noqa: E402

import gearman_sync

gearman_sync.install_as_gearman("python3_gearman")

import json
from typing import Any

import python3_gearman  # type: ignore[import-not-found]


class ShipWorker(python3_gearman.GearmanWorker):  # type: ignore[misc]
    def __init__(self, server: str, prefix: str) -> None:
        self.stop = False  # The library has a method of this name.
        self.server = server
        self.prefix = prefix
        self.reports: list[Any] = []
        super().__init__(host_list=[server])

    def on_job_execute(self, current_job: Any) -> Any:
        self.stop = False
        payload = json.loads(current_job.data)
        tasks = [{"name": f"{self.prefix}transfer", "longName": "Transfer"}]
        (task,) = filter(lambda task: task["name"] == current_job.task, tasks)
        self.reports.append(("started", task["longName"], payload, current_job.handle))
        return super().on_job_execute(current_job)

    def on_job_exception(self, current_job: Any, exc_info: Any) -> Any:
        exc_type, exc_value, _ = exc_info
        reason = f"{exc_type.__name__}: {exc_value}"
        self.send_job_data(
            current_job, json.dumps([{"partName": "Worker crashed", "reason": reason}])
        )
        return super().on_job_exception(current_job, exc_info)

    def on_job_complete(self, current_job: Any, job_result: Any) -> Any:
        results = json.loads(job_result)
        gm_client = python3_gearman.GearmanClient([self.server])
        jobs = [{"task": self.prefix + name, "data": "{}"} for name in results["followers"]]
        submitted = gm_client.submit_multiple_jobs(
            jobs, background=False, wait_until_complete=False
        )
        gm_client.wait_until_jobs_completed(submitted)
        results["followed"] = [request.state for request in submitted]
        self.reports.append(("completed", current_job.handle))
        return super().send_job_complete(current_job, json.dumps(results))


def transfer(worker: ShipWorker, current_job: Any) -> str:
    payload = json.loads(current_job.data)
    files = payload["files"]
    for index in range(len(files)):
        worker.send_job_status(current_job, int(100 * index / len(files)), 100)
    return json.dumps({"parts": files, "followers": payload.get("followers", [])})
