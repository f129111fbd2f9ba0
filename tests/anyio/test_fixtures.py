"""Clients that one task enters and another one exits, as in pytest-asyncio's fixtures."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from gearman_anyio import GearmanAdminClient, GearmanClient, JobServer
from gearman_anyio._tasks import HostedTasks
from gearman_anyio.testing import WorkerUnderTest
from gearman_proto.errors import ConnectionError

from .stepping import Attempt, count_tasks, nothing_left
from .support import reverse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gearman_proto import ServerAddress

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The event loop: all tasks of trio belong to nurseries."""
    return "asyncio"


TESTS = """
import pytest, pytest_asyncio
from gearman_anyio import GearmanClient, JobServer
from gearman_anyio.testing import WorkerUnderTest

async def reverse(worker, job):
    return job.data[::-1]

@pytest_asyncio.fixture
async def client():
    async with JobServer() as server, GearmanClient([server.address]) as client:
        async with WorkerUnderTest({"reverse": reverse}, server):
            yield client

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(3))
async def test_submit(client, number):
    assert (await client.submit_job("reverse", b"ab")).result == b"ba"

@pytest.mark.asyncio
async def test_that_fails(client):
    await client.submit_job("reverse", b"ab", background=True)
    raise ZeroDivisionError("of the test")
"""


@pytest.mark.slow
def test_fixtures_of_pytest_asyncio(tmp_path: Path) -> None:
    pytest.importorskip("pytest_asyncio")
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    )
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "pytest_asyncio", "-q"]
    ran = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "1 failed, 3 passed in" in ran.stdout, ran.stdout
    assert "of the test" in ran.stdout
    assert "cancel scope" not in ran.stdout


async def in_a_task(function: Callable[..., Any], *args: Any) -> Any:
    """Call an async function in a task of its own."""
    return await asyncio.create_task(function(*args))


@pytest.mark.parametrize("error", [None, ZeroDivisionError("of the body")])
async def test_each_object_can_be_left_by_another_task(error: BaseException | None) -> None:
    tasks = count_tasks()
    server = JobServer()
    await in_a_task(server.__aenter__)
    worker = WorkerUnderTest({"reverse": reverse}, server)
    client = GearmanClient([server.address])
    admin = GearmanAdminClient([server.address])
    entered: list[Any] = [worker, client, admin]
    for each in entered:
        await in_a_task(each.__aenter__)
    assert (await client.submit_job("reverse", b"ab")).result == b"ba"
    assert await admin.ping_server() > 0
    for each in [*reversed(entered), server]:
        await in_a_task(each.__aexit__, type(error) if error else None, error, None)
    with pytest.raises(RuntimeError, match="works inside `async with"):
        await client.submit_job("reverse", b"ab")
    assert count_tasks() == tasks


async def test_cancelled_task_that_entered_ends_nothing(server: Any) -> None:
    """Cancelling the task that entered leaves the client usable. Another task exits it."""
    client = GearmanClient([server.address])

    async def enter() -> None:
        await client.__aenter__()
        await asyncio.sleep(3600)

    task = asyncio.create_task(enter())
    while not client._gm_driver.is_running:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert (await client.submit_job("queue", b"", background=True)).complete
    await client.__aexit__(None, None, None)


@pytest.mark.parametrize("native", [False, True])
async def test_cancelled_exit_ends_the_tasks(server: Any, native: bool) -> None:
    async with nothing_left():
        client = GearmanClient([server.address])
        await in_a_task(client.__aenter__)
        await client.submit_job("queue", b"", background=True)
        attempt = Attempt(1, native=native)
        await attempt(client.__aexit__(None, None, None))
        assert attempt.touched
        assert not client._gm_driver.is_running


class Odd(BaseException):
    """A BaseException, which ends a task of the driver."""


async def break_client(entered: GearmanClient) -> None:
    """Start a task of the client's driver that raises."""

    async def fail() -> None:
        raise Odd("of a task")

    entered._gm_driver.start_soon(fail)


def never(address: ServerAddress) -> Any:
    """Connect without ever completing."""
    return anyio.sleep_forever()


async def test_error_of_a_task_is_raised_by_leaving() -> None:
    """The error also ends a waiting call."""
    client = GearmanClient(["any"], connect=never)
    await in_a_task(client.__aenter__)
    call = asyncio.create_task(client.submit_job("task", b""))
    await asyncio.sleep(0)
    await break_client(client)
    with pytest.raises(ConnectionError):
        await call
    with pytest.raises(Odd, match="of a task"):
        await in_a_task(client.__aexit__, None, None, None)


async def test_error_of_a_task_ends_the_body() -> None:

    async def body() -> None:
        async with GearmanClient(["any"], connect=never) as client:
            await break_client(client)
            await anyio.sleep_forever()

    with pytest.raises(Odd, match="of a task"):
        await body()
    # The cancellation that ended the body has been undone.
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


def test_loop_that_ends_leaves_nothing() -> None:
    """The tasks end with the loop, even if the context is never exited."""
    ended: list[str] = []

    async def run() -> None:
        tasks = HostedTasks(lambda error: ended.append(type(error).__name__))
        await tasks.__aenter__()

        async def forever() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("task")

        tasks.start_soon(forever)
        await asyncio.sleep(0)

    asyncio.run(run())
    assert sorted(ended) == ["ConnectionError", "task"]
