"""A worker of gearman_anyio: the backend, then HOST:PORT. SIGTERM and SIGINT stop it."""

from __future__ import annotations

import signal
import sys

import anyio
import anyio.abc

import gearman_anyio as gearman


async def reverse(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    payload: bytes = job.data
    return payload[::-1]


async def fail(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    raise RuntimeError("this job fails")


async def progress(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    await worker.send_job_status(job, 1, 2)
    await worker.send_job_data(job, b"half")
    payload: bytes = job.data
    return payload


async def slow(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
    await anyio.sleep(0.5)
    payload: bytes = job.data
    return payload


async def stop_on_signal(
    worker: gearman.GearmanWorker, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            worker.stop()


async def main(address: str) -> None:
    async with gearman.GearmanWorker([address]) as worker, anyio.create_task_group() as tasks:
        for function in (reverse, fail, progress, slow):
            worker.register_task(function.__name__, function)
        await tasks.start(stop_on_signal, worker)
        await worker.work()
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, sys.argv[2], backend=sys.argv[1])
