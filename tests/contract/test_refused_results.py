"""Errors for unsendable results. The worker's log and the client name the cause and a remedy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.jobs.encoder import DataEncoder

if TYPE_CHECKING:
    from gearman_proto import WorkerJob

    from .kit import Kit, Server


class Listing(DataEncoder):
    """An encoder that returns lists."""

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        return list(encodable_object)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return decodable_string


def must_be(what: str) -> str:
    cure = "a data_encoder of the worker can make bytes of it"
    return f"TypeError: {what} of 'TASK' must be bytes or str, not int; {cure}"


# How a callback sends the value, and the reason that the client receives.
REASONS = {
    "return": must_be("the result"),
    "send_job_complete": must_be("the result").replace("'TASK'", "a job"),
    "send_job_data": must_be("a part of the result"),
    "send_job_warning": must_be("a warning"),
    "send_job_exception": must_be("the exception"),
    "encoder": "TypeError: the worker's data_encoder must make bytes or str of the result of "
    "'TASK', and has made list",
}


@pytest.mark.parametrize("max_jobs", [1, 3])
@pytest.mark.parametrize("how", REASONS)
async def test_unsendable_value_fails_the_job(
    kit: Kit,
    server: Server,
    task: str,
    how: str,
    max_jobs: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def callback(worker: Any, job: WorkerJob) -> Any:
        if how.startswith("send"):
            await getattr(worker, how)(job, 7)
        return (1, 2) if how == "encoder" else 7

    worker = await kit.make_worker(
        server.address, tasks={task: kit.callback(callback)}, max_jobs=max_jobs
    )
    if how == "encoder":
        worker.data_encoder = Listing
    await kit.work(worker)
    client = await kit.client(server.address)
    reason = (await client.submit_job(task, "")).reason
    assert reason == REASONS[how].replace("TASK", task)
    (logged,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert logged.exc_info
    assert f"TypeError: {logged.exc_info[1]}" == reason
