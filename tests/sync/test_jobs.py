"""Jobs with workers that are lost repeatedly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gearman_sync as gearman
from gearman_sync import GearmanClient
from tests.support import Gearmand, eventually, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync.testing import ScriptedJob, ScriptedWorker

    StartWorker = Callable[..., ScriptedWorker]
    MakeClient = Callable[..., GearmanClient]


def test_job_retries_used_up(
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    def die(job: ScriptedJob) -> bytes:
        raise OSError

    server = start_gearmand("--job-retries", "1")
    future = spawn(make_client(server.address).submit_job, task, b"data")
    server.wait_for_jobs(task, 1)
    worker = start_worker(server.address, {task: die})
    eventually(lambda: worker.jobs)
    worker.stop()
    request = future.result(20)
    assert request.state == gearman.JOB_FAILED
    assert request.exception is None
