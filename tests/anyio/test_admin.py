"""The async admin client: cancellation, in-memory connections, and time limits."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import gearman_anyio as gearman
from gearman_anyio import GearmanAdminClient, JobServer
from gearman_anyio._streams import pipe
from gearman_proto.errors import (
    InvalidAdminClientState,
    ServerError,
    ServerUnavailable,
)
from tests.support import PATIENCE

from .stepping import (
    attempts,
    echo,
    nothing_left,
    working,
)
from .support import on_a_test_clock, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from anyio.abc import ByteStream, TaskGroup

    Operation = Callable[[GearmanAdminClient, str], Coroutine[Any, Any, object]]

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def _nothing_left(anyio_backend: str) -> AsyncIterator[None]:
    async with nothing_left():
        yield


# Operations of an admin client. Each checks its own reply.


async def get_status(client: GearmanAdminClient, task: str) -> None:
    records = {record.task: record for record in await client.get_status()}
    assert records[task].workers == 1


async def get_pid(client: GearmanAdminClient, task: str) -> None:
    assert type(await client.get_pid()) is int


async def ping_server(client: GearmanAdminClient, task: str) -> None:
    assert type(await client.ping_server()) is float


async def cancel_job(client: GearmanAdminClient, task: str) -> None:
    with pytest.raises(ServerError, match="UNKNOWN_JOB"):
        await client.cancel_job("H:nowhere:1")


# A list, a reply to a packet, and an error. All other methods work like one of these.
OPERATIONS: list[Operation] = [
    get_status,
    ping_server,
    cancel_job,
]
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: op.__name__)


async def assert_usable(client: GearmanAdminClient, task: str) -> None:
    """Check that further calls get their own replies and leave no state in the client."""
    with anyio.fail_after(PATIENCE):
        await get_pid(client, task)
        await get_status(client, task)
    engine = client._gm_driver.engine
    assert not engine._waits
    assert not engine._queue
    assert engine._link is not None
    assert engine._link.asked is None
    assert engine.next_deadline() is None
    assert list(client._gm_driver._wires) == [engine._link]


# Cancelling.


@each_operation
async def test_cancelled_with_a_connection(operation: Operation, server: Any, task: str) -> None:
    async with (
        working(server, {task: echo}),
        GearmanAdminClient([server.address]) as client,
    ):
        await assert_usable(client, task)
        for attempt in attempts():
            await attempt(operation(client, task))
            assert not client._gm_driver.engine._waits
            await assert_usable(client, task)


@each_operation
async def test_cancelled_with_a_new_client(operation: Operation, server: Any, task: str) -> None:
    """The sweep covers connecting, and all steps from `__aenter__` to `__aexit__`."""

    async def whole() -> None:
        async with GearmanAdminClient([server.address]) as client:
            await operation(client, task)

    async with working(server, {task: echo}):
        for attempt in attempts():
            async with nothing_left(), GearmanAdminClient([server.address]) as client:
                await attempt(operation(client, task))
                await assert_usable(client, task)
        for attempt in attempts(2):
            async with nothing_left():
                await attempt(whole())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@each_operation
async def test_cancelled_as_asyncio_does_it(operation: Operation, server: Any, task: str) -> None:
    async with (
        working(server, {task: echo}),
        GearmanAdminClient([server.address]) as client,
    ):
        for attempt in attempts():
            await attempt.native(operation(client, task))
            await assert_usable(client, task)


async def test_sending_shutdown_cancelled(task: str) -> None:
    """The server receives a cancelled shutdown command completely or not at all."""
    stopped = 0
    for attempt in attempts():
        async with (
            nothing_left(),
            JobServer() as server,
            GearmanAdminClient([server.address]) as client,
        ):
            await attempt(client.send_shutdown(graceful=False))
            if attempt.completed:
                await server.wait()
                stopped += 1
                with pytest.raises(ServerUnavailable):
                    await client.get_version()
    assert stopped


@pytest.mark.parametrize("connected", [False, True])
async def test_shutdown_cancelled(connected: bool, server: Any, task: str) -> None:
    for attempt in attempts():
        async with nothing_left(), GearmanAdminClient([server.address]) as client:
            if connected:
                await client.get_version()
            await attempt(client.shutdown())
            # The client is shut down although the call was cancelled.
            with pytest.raises(InvalidAdminClientState):
                await client.get_version()


class Script:
    """An in-memory server. All lines on a connection get the same reply.

    The nth connection uses the nth reply. None means that the server does not reply.
    """

    def __init__(self, answers: tuple[bytes | None, ...], tasks: TaskGroup) -> None:
        #: The lines received on each connection.
        self.lines: list[list[bytes]] = []
        self._answers = answers
        self._tasks = tasks

    async def connect(self, address: object) -> ByteStream:
        """Connect to this server, as the argument `connect=`."""
        answer = self._answers[len(self.lines)]
        near, far = pipe()
        self.lines.append([])
        self._tasks.start_soon(self._serve, far, self.lines[-1], answer)
        return near

    async def _serve(self, far: ByteStream, lines: list[bytes], answer: bytes | None) -> None:
        try:
            while True:
                lines.append(await far.receive())
                if answer is not None:
                    await far.send(answer)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass
        finally:
            await far.aclose()


@contextlib.asynccontextmanager
async def scripted(*answers: bytes | None, **options: Any) -> AsyncIterator[tuple[Script, Any]]:
    """Yield a Script and a client connected to it."""
    async with anyio.create_task_group() as tasks:
        script = Script(answers, tasks)
        async with GearmanAdminClient(["any"], connect=script.connect, **options) as client:
            yield script, client
        assert len(script.lines) == len(answers)


async def test_cancelled_question_does_not_delay_waiting_questions() -> None:
    """Waiting calls don't depend on the reply to a cancelled one."""
    answers: list[str] = []
    async with scripted(None, b"OK 1\n", poll_timeout=None) as (script, client):

        async def ask() -> None:
            answers.append(await client.get_version())

        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as scope:

                async def cancel() -> None:
                    await until(lambda: script.lines and script.lines[0], "the first question")
                    for _ in range(3):
                        tasks.start_soon(ask)
                    await until(lambda: len(client._gm_driver.engine._queue) == 3, "the others")
                    scope.cancel()

                tasks.start_soon(cancel)
                await client.get_status()
            assert scope.cancelled_caught
        assert answers == ["OK 1"] * 3
        assert script.lines == [[b"status\r\n"], [b"version\r\n"] * 3]


async def test_one_of_many_that_wait_is_cancelled(server: Any, task: str) -> None:
    async with working(server, {task: echo}), GearmanAdminClient([server.address]) as client:
        for attempt in attempts():
            done: list[Operation] = []

            async def run(operation: Operation, done: list[Operation] = done) -> None:
                await operation(client, task)
                done.append(operation)

            async with anyio.create_task_group() as tasks:
                for operation in OPERATIONS:
                    tasks.start_soon(run, operation)
                await attempt(get_status(client, task))
                for operation in OPERATIONS:
                    tasks.start_soon(run, operation)
            assert sorted(done, key=OPERATIONS.index) == sorted(
                OPERATIONS * 2, key=OPERATIONS.index
            )
            await assert_usable(client, task)


# Use outside of the block, and within the process.


async def test_outside_of_its_block(server: Any) -> None:
    client = GearmanAdminClient([server.address])
    calls: list[Callable[[], Any]] = [
        client.get_version,
        client.get_status,
        client.ping_server,
        client.send_shutdown,
        client.shutdown,
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="works inside `async with GearmanAdminClient"):
            await call()
    async with client:
        assert (await client.get_version()).startswith("OK ")
        with pytest.raises(RuntimeError, match="can be used only once"):
            await client.__aenter__()
        assert (await client.get_version()).startswith("OK ")
    for call in calls:
        with pytest.raises(RuntimeError, match="works inside"):
            await call()
    with pytest.raises(RuntimeError, match="can be used only once"):
        await client.__aenter__()


async def test_within_the_process(task: str) -> None:
    async with (
        JobServer() as server,
        GearmanAdminClient(["any"], connect=server.connect) as client,
    ):
        worker = gearman.GearmanWorker(["any"], connect=server.connect)
        worker.register_task(task, echo)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.work)
            with anyio.fail_after(PATIENCE):
                while not any(record.tasks for record in await client.get_workers()):
                    await anyio.lowlevel.checkpoint()
            for operation in OPERATIONS:
                await operation(client, task)
            worker.stop()
        assert await client.send_shutdown() == "OK"
        await server.wait()
        with pytest.raises(ServerUnavailable):
            await client.get_version()


# Time.


@on_a_test_clock
async def test_default_timeout_applies_unless_a_call_sets_its_own() -> None:
    async with scripted(None) as (_, client):
        before = anyio.current_time()
        with pytest.raises(InvalidAdminClientState):
            await client.ping_server()
        assert anyio.current_time() == pytest.approx(before + 10)
