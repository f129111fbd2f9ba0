"""A bug in the engine ends all waiting calls and is logged once. The client works on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ConnectionError, GearmanError
from gearman_proto.jobs.submitting import make_requests
from tests.support import PATIENCE, free_port

from .kit import Kit, Launch, Server, collect, echo

if TYPE_CHECKING:
    from collections.abc import Awaitable


def break_once(engine: Any, name: str) -> None:
    """Make the next call of an engine method raise."""
    engine = engine._gm_engine  # Of the StrictEngine that the driver uses.
    works = getattr(engine, name)

    def broken(*args: Any, **options: Any) -> Any:
        setattr(engine, name, works)
        raise ZeroDivisionError

    setattr(engine, name, broken)


async def assert_internal_error(call: Awaitable[object]) -> None:
    with pytest.raises(GearmanError, match="internal error: ZeroDivisionError") as caught:
        await call
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def assert_logged(caplog: pytest.LogCaptureFixture) -> None:
    (record,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert record.name == "gearman"
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("name", ["connected", "connect_failed"])
async def test_bug_while_a_call_connects_fails_the_call(
    kit: Kit, server: Server, task: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    await kit.start_worker(server.address, tasks={task: echo})
    client = await kit.client(("127.0.0.1", free_port()), server.address)
    refusing, good = client.connection_list
    break_once(client._gm_driver.engine, name)
    await assert_internal_error(
        client.establish_connection(good if name == "connected" else refusing)
    )
    assert_logged(caplog)
    assert (await client.submit_job(task, b"after", poll_timeout=PATIENCE)).result == b"after"


@pytest.mark.parametrize("name", ["data_to_send", "receive_data", "receive_eof", "handle_timeout"])
async def test_bug_ends_all_waiting_calls(
    kit: Kit, launch: Launch, task: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = await launch()
    client = await kit.client(server.address)
    requests = make_requests([{"task": task, "data": b""}] * 3, background=False, max_retries=0)
    await client.submit_multiple_requests(requests, wait_until_complete=False)
    engine = client._gm_driver.engine
    calls = [
        await kit.spawn(client.wait_until_jobs_completed, requests[:2]),
        await kit.spawn(collect, client.as_completed(requests[2:])),
        await kit.spawn(client.poll_connections_until_stopped, [], lambda _: True),
    ]
    await kit.eventually(lambda: len(engine._waits) == len(calls))
    break_once(engine, name)
    if name == "receive_eof":
        await server.kill()
    else:
        timeout = 0.01 if name == "handle_timeout" else None
        await assert_internal_error(
            client.wait_until_jobs_completed(requests, poll_timeout=timeout)
            if timeout
            else client.get_job_status(requests[0])
        )
    for call in calls:
        await assert_internal_error(call.result())
    assert_logged(caplog)
    assert [request.state for request in requests] == ["UNKNOWN"] * 3
    assert [request._gm_waits for request in requests] == [()] * 3
    assert not client._gm_driver.engine._waits
    if name == "receive_eof":
        await server.start()
    await kit.start_worker(server.address, tasks={task: echo})
    assert (await client.submit_job(task, b"after", poll_timeout=PATIENCE)).result == b"after"


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()], ids=repr)
async def test_exception_in_a_call_reaches_its_caller_unchanged(
    kit: Kit, server: Server, task: str, error: BaseException
) -> None:
    """Other waiting calls end with an error that names it."""
    client = await kit.client(server.address)
    request = await client.submit_job(task, b"", wait_until_complete=False)
    call = await kit.spawn(client.wait_until_jobs_completed, [request])
    engine = client._gm_driver.engine
    await kit.eventually(lambda: engine._waits)

    def broken(*args: Any, **options: Any) -> Any:
        raise error

    engine.submit = broken
    with pytest.raises(type(error)) as caught:
        await client.submit_job(task, b"")
    assert caught.value is error
    with pytest.raises(ConnectionError, match="interrupted by"):
        await call.result()
    assert (await client.submit_job(task, b"", background=True)).complete


@pytest.mark.parametrize("name", ["connected", "data_to_send", "receive_data", "handle_timeout"])
async def test_bug_in_a_worker_ends_work(
    kit: Kit, server: Server, task: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks={task: echo})
    worker.set_client_id(task)
    break_once(worker._gm_driver.engine, name)
    await assert_internal_error(worker.work(poll_timeout=0.01))
    assert_logged(caplog)
    await kit.work(worker)
    assert (await client.submit_job(task, b"after", poll_timeout=PATIENCE)).result == b"after"
    assert task in await server.client_ids()
