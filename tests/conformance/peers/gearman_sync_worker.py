"""A worker of gearman_sync: the argument is HOST:PORT. SIGTERM and SIGINT stop it."""

from __future__ import annotations

import signal
import sys
import time

import gearman_sync as gearman


def reverse(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    payload: bytes = job.data
    return payload[::-1]


def fail(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    raise RuntimeError("this job fails")


def progress(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    worker.send_job_status(job, 1, 2)
    worker.send_job_data(job, b"half")
    payload: bytes = job.data
    return payload


def slow(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    time.sleep(0.5)
    payload: bytes = job.data
    return payload


def main(address: str) -> None:
    with gearman.GearmanWorker([address]) as worker:
        for function in (reverse, fail, progress, slow):
            worker.register_task(function.__name__, function)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        worker.work()


if __name__ == "__main__":
    main(*sys.argv[1:])
