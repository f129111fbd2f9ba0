"""A worker of pygearman or gearman_sync: the module, then HOST:PORT. A signal ends it."""

from __future__ import annotations

import importlib
import signal
import sys
import time
from typing import Any


def reverse(worker: Any, job: Any) -> Any:
    if job.data.startswith(b"slow"):
        time.sleep(1)  # A case stops the worker during such a job.
    return job.data[::-1]


def fail(worker: Any, job: Any) -> Any:
    raise RuntimeError("this job fails")


def progress(worker: Any, job: Any) -> Any:
    worker.send_job_status(job, 1, 2)
    worker.send_job_data(job, b"half")
    return job.data


def slow(worker: Any, job: Any) -> Any:
    time.sleep(0.5)
    return job.data


def main(module: str, address: str) -> None:
    worker = importlib.import_module(module).GearmanWorker([address])
    for function in (reverse, fail, progress, slow):
        # pygearman looks tasks up by their encoded names.
        worker.register_task(function.__name__.encode(), function)
    if module == "gearman_sync":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
    worker.work()
    worker.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
