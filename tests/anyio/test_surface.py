"""A smoke test. The other files of this directory test the details."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import gearman_anyio as gearman
from tests.support import PATIENCE

pytestmark = pytest.mark.anyio


async def test_there_and_back(server: Any, task: str) -> None:
    async def reverse(worker: gearman.GearmanWorker, job: gearman.WorkerJob) -> bytes:
        data: bytes = job.data
        return data[::-1]

    worker = gearman.GearmanWorker([server.address])
    worker.register_task(task, reverse)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.work)
            async with gearman.GearmanClient([server.address]) as client:
                assert (await client.submit_job(task, "hello")).result == b"olleh"
            worker.stop()
