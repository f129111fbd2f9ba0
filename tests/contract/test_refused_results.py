"""Values that can't be sent. The worker's log and the client name the cause and a remedy."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import NoopEncoder

from .kit import Kit, Server, echo

if TYPE_CHECKING:
    from gearman_proto import WorkerJob


class Listing(NoopEncoder):
    """An encoder that makes lists of tuples."""

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        return [*encodable_object] if isinstance(encodable_object, tuple) else encodable_object


LARGE = bytes(1000)
CURE = "must be bytes or str, not int; a data_encoder of the worker can make bytes of it"
LIMIT = "has 1000 bytes: with a max_packet_size of 1000, it can have "
# How a callback sends a value, and the reason that the client receives.
REASONS: dict[str, tuple[str, Any, str]] = {
    "number": ("return", 7, f"TypeError: the result of 'TASK' {CURE}"),
    "complete": ("send_job_complete", 7, f"TypeError: the result of 'TASK' {CURE}"),
    "data": ("send_job_data", 7, f"TypeError: a part of the result of 'TASK' {CURE}"),
    "warning": ("send_job_warning", 7, f"TypeError: a warning of 'TASK' {CURE}"),
    "exception": ("send_job_exception", 7, f"TypeError: the exception of 'TASK' {CURE}"),
    "large result": ("return", LARGE, f"ValueError: the result of 'TASK' {LIMIT}"),
    "large data": ("send_job_data", LARGE, f"ValueError: a part of the result of 'TASK' {LIMIT}"),
    "list of the encoder": (
        *("return", (1, 2), "TypeError: the worker's data_encoder must make bytes or str of "),
    ),
}


@pytest.mark.parametrize("max_jobs", [1, 3])
@pytest.mark.parametrize("what", REASONS)
async def test_unsendable_value_fails_the_job(
    kit: Kit,
    server: Server,
    task: str,
    what: str,
    max_jobs: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def callback(worker: Any, job: WorkerJob) -> Any:
        calls.append(job.data)
        if how == "return":
            return value
        return await getattr(worker, how)(job, value)

    calls: list[bytes] = []
    how, value, expected = REASONS[what]
    worker = await kit.make_worker(
        server.address,
        tasks={task: kit.callback(callback), f"{task}-good": echo},
        max_jobs=max_jobs,
        max_packet_size=1000,
    )
    worker.data_encoder = Listing
    await kit.work(worker)
    client = await kit.client(server.address)
    reason = (await client.submit_job(task, "")).reason
    assert reason.startswith(expected.replace("TASK", task))
    (logged,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert logged.exc_info
    assert f"{type(logged.exc_info[1]).__name__}: {logged.exc_info[1]}" == reason
    assert (await client.submit_job(f"{task}-good", b"next")).result == b"next"
    assert calls == [b""]
