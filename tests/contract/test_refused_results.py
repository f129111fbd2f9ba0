"""Errors for unsendable results. The worker's log and the client name the cause and a remedy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.jobs.encoder import DataEncoder

if TYPE_CHECKING:
    from gearman_proto import WorkerJob

    from .kit import Kit, Server

SENDERS = {
    "send_job_data": "a part of the result",
    "send_job_warning": "a warning",
    "send_job_exception": "the exception",
}


async def failure(
    kit: Kit, server: Server, task: str, callback: Any, caplog: pytest.LogCaptureFixture, **how: Any
) -> str:
    """Return the reason that the client received, after checking that the worker logged it."""
    worker = await kit.make_worker(
        server.address, tasks={task: callback}, max_jobs=how.get("max_jobs", 1)
    )
    if "encoder" in how:
        worker.data_encoder = how["encoder"]
    await kit.work(worker)
    client = await kit.client(server.address)
    reason = (await client.submit_job(task, "")).reason
    assert isinstance(reason, str)
    (logged,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert logged.exc_info
    assert f"TypeError: {logged.exc_info[1]}" == reason
    return reason


@pytest.mark.parametrize("max_jobs", [1, 3])
@pytest.mark.parametrize("value", [{"a": 1}, 7, [b"x"], object()], ids=lambda v: type(v).__name__)
async def test_unsendable_result_fails_the_job(
    kit: Kit,
    server: Server,
    task: str,
    value: Any,
    max_jobs: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def callback(worker: Any, job: WorkerJob) -> Any:
        return value

    assert await failure(kit, server, task, callback, caplog, max_jobs=max_jobs) == (
        f"TypeError: the result of {task!r} must be bytes or str, not {type(value).__name__}; "
        "a data_encoder of the worker can make bytes of it"
    )


@pytest.mark.parametrize("method", SENDERS)
async def test_unsendable_update_fails_the_job(
    kit: Kit, server: Server, task: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def callback(worker: Any, job: WorkerJob) -> None:
        await getattr(worker, method)(job, 7)

    reason = await failure(kit, server, task, kit.callback(callback), caplog)
    assert reason.startswith(
        f"TypeError: {SENDERS[method]} of {task!r} must be bytes or str, not int; a data_encoder"
    )


async def test_unsendable_send_job_complete_fails_the_job(
    kit: Kit, server: Server, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def callback(worker: Any, job: WorkerJob) -> None:
        await worker.send_job_complete(job, 7)

    reason = await failure(kit, server, task, kit.callback(callback), caplog)
    assert reason.startswith("TypeError: the result of ")
    assert "must be bytes or str, not int; a data_encoder of the worker" in reason


async def test_encoder_returning_a_list_fails_the_job(
    kit: Kit, server: Server, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Listing(DataEncoder):
        @classmethod
        def encode(cls, encodable_object: Any) -> Any:
            return list(encodable_object)

        @classmethod
        def decode(cls, decodable_string: bytes) -> Any:
            return decodable_string

    def callback(worker: Any, job: WorkerJob) -> Any:
        return (1, 2)

    assert await failure(kit, server, task, callback, caplog, encoder=Listing) == (
        f"TypeError: the worker's data_encoder must make bytes or str of the result of {task!r}, "
        "and has made list"
    )
