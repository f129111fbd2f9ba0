"""A worker for python3_gearman, whose hooks report, send the result, and submit more jobs."""

# ruff: noqa: E402, BLE001, LOG015

import gearman_sync

gearman_sync.install_as_gearman("python3_gearman")

import json
import logging
import os
import signal
import sys
import threading
from typing import Any

import python3_gearman  # type: ignore[import-not-found]


class ShipWorker(python3_gearman.GearmanWorker):  # type: ignore[misc]
    def __init__(self, server: str, prefix: str) -> None:
        self.stop = False
        self.stopped = threading.Event()
        self.server = server
        self.prefix = prefix
        self.task: Any = None
        self.reports: list[Any] = []
        super().__init__(host_list=[server])

    def _fail_job(self, current_job: Any, part: str, reason: str) -> Any:
        return self.on_job_complete(
            current_job, json.dumps({"parts": [{part: "Fail", "reason": reason}]})
        )

    def on_job_execute(self, current_job: Any) -> Any:
        self.stop = False
        try:
            payload = json.loads(current_job.data)
        except Exception:
            return self._fail_job(current_job, "Retrieve job data", "Failed to parse")
        tasks = [{"name": f"{self.prefix}transfer", "longName": "Transfer"}]
        found = list(filter(lambda task: task["name"] == current_job.task, tasks))
        self.task = found[0] if found else {"name": current_job.task, "longName": "Other"}
        self.reports.append(("started", self.task["longName"], payload, current_job.handle))
        return super().on_job_execute(current_job)

    def on_job_exception(self, current_job: Any, exc_info: Any) -> Any:
        exc_type, exc_value, exc_tb = exc_info
        line = exc_tb.tb_lineno
        reason = f"{exc_type.__name__}: {exc_value}"
        logging.error("%s, line %s", reason, line)
        self.send_job_data(
            current_job, json.dumps([{"partName": "Worker crashed", "reason": reason}])
        )
        return super().on_job_exception(current_job, exc_info)

    def on_job_complete(self, current_job: Any, job_result: Any) -> Any:
        results = json.loads(job_result)
        followers = results.get("followers", [])
        if followers:
            gm_client = python3_gearman.GearmanClient([self.server])
            jobs = [{"task": self.prefix + name, "data": json.dumps({})} for name in followers]
            submitted = gm_client.submit_multiple_jobs(
                jobs, background=False, wait_until_complete=False
            )
            gm_client.wait_until_jobs_completed(submitted)
            results["followed"] = [request.state for request in submitted]
        self.reports.append(("completed", current_job.handle))
        return super().send_job_complete(current_job, json.dumps(results))

    def stop_task(self) -> None:
        self.stop = True
        self.stopped.set()

    def quit_worker(self) -> None:
        self.stop = True
        self.shutdown()


def transfer(worker: ShipWorker, current_job: Any) -> str:
    payload = json.loads(current_job.data)
    files = payload["files"]
    done = []
    for index, name in enumerate(files):
        if worker.stop:
            break
        worker.send_job_status(current_job, int(100 * index / len(files)), 100)
        done.append(name)
        if name == "wait":
            print("waits", flush=True)
            worker.stopped.wait()
    worker.send_job_status(current_job, 100, 100)
    return json.dumps({"parts": done, "followers": payload.get("followers", [])})


def main(server: str, prefix: str) -> None:
    logging.basicConfig(level=logging.INFO)
    worker = ShipWorker(server, prefix)
    worker.set_client_id(__file__)
    signal.signal(signal.SIGQUIT, lambda number, frame: worker.stop_task())
    signal.signal(signal.SIGINT, lambda number, frame: worker.quit_worker())
    worker.register_task(f"{prefix}transfer", transfer)
    print(os.getpid(), flush=True)
    worker.work()
    print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
