"""`max_packet_size` holds in both directions: nothing is sent that would not be received."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gearman_proto import WorkerJob

    from .kit import Kit, Server

SMALL = 1000


@pytest.mark.parametrize("count", [1, 2000])
async def test_submit_of_a_job_too_large_for_a_packet_raises_and_sends_nothing(
    kit: Kit, server: Server, task: str, count: int
) -> None:
    client = await kit.client(server.address, max_packet_size=SMALL)
    jobs = [{"task": task, "data": b"small"}] * (count - 1) + [{"task": task, "data": bytes(SMALL)}]
    with pytest.raises(ValueError, match="has 1000 bytes: with a max_packet_size of 1000"):
        await client.submit_multiple_jobs(jobs, background=True)
    assert not client.connection_list[0].connected
    room = SMALL - 129 - len(task)
    request = await client.submit_job(task, bytes(room), unique="u" * 63, background=True)
    assert request.complete
    gate = kit.gate()
    gate.open.set()
    await kit.start_worker(server.address, tasks={task: gate}, max_packet_size=SMALL)
    await kit.eventually(lambda: gate.order == [bytes(room)])


@pytest.mark.parametrize("exceptions", [False, True])
async def test_result_too_large_for_a_packet_fails_its_job_once(
    kit: Kit, server: Server, task: str, exceptions: bool, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def callback(worker: Any, job: WorkerJob) -> bytes:
        calls.append(job.data)
        return bytes(SMALL) if job.data == b"large" else job.data

    await kit.start_worker(
        server.address, tasks={task: callback}, max_packet_size=SMALL, exceptions=exceptions
    )
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"large")
    assert request.state == "FAILED"
    reason = f"ValueError: the result of {task!r} has {SMALL} bytes: with a max_packet_size of"
    assert request.reason.startswith(reason)
    assert (request.exception is not None) == exceptions
    (logged,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert logged.exc_info
    assert f"ValueError: {logged.exc_info[1]}" == request.reason
    assert (await client.submit_job(task, b"next")).result == b"next"
    assert calls == [b"large", b"next"]


@pytest.mark.parametrize("method", ["data", "complete"])
async def test_send_of_more_than_a_packet_raises_in_the_callback(
    kit: Kit, server: Server, task: str, method: str
) -> None:
    async def callback(worker: Any, job: WorkerJob) -> str:
        try:
            await getattr(worker, f"send_job_{method}")(job, bytes(SMALL))
        except ValueError as error:
            await worker.send_job_data(job, "small")
            return str(error)
        raise AssertionError("it was sent")

    await kit.start_worker(
        server.address, tasks={task: kit.callback(callback)}, max_packet_size=SMALL
    )
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"")
    assert b"has 1000 bytes: with a max_packet_size of 1000, it can have" in request.result
    assert [*request.data_updates] == [b"small"]
