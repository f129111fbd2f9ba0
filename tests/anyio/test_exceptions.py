"""Exceptions: those of the application pass unchanged, and our own reach the right callers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import gearman_anyio as gearman
from gearman_anyio._raw import RawStream
from gearman_proto.errors import ConnectionError, GearmanError
from tests.support import PATIENCE

from .support import echo, is_asleep, make_worker, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Place = Callable[[BaseException, Any, str], Awaitable[None]]

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_is_left")]

A_MOMENT = 0.005


class Own(Exception):
    """An exception of the application."""


class OwnBase(BaseException):
    """A BaseException of the application."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "Own": Own,
    "OwnBase": OwnBase,
    "SystemExit": lambda: SystemExit(3),
    "StopAsyncIteration": StopAsyncIteration,
    "group of one": lambda: ExceptionGroup("mine", [ValueError()]),
    "BaseExceptionGroup": lambda: BaseExceptionGroup("mine", [OwnBase(), ValueError()]),
}


def make_error(kind: str) -> BaseException:
    """Return an exception with a traceback, a cause and a context."""
    try:
        try:
            raise LookupError("its context")
        except LookupError:
            error = ERRORS[kind]()
            raise error from OSError("its cause")
    except BaseException as error:  # noqa: BLE001 - to be returned
        return error


@contextlib.contextmanager
def raised(error: BaseException) -> Iterator[None]:
    """Check that the body raises this exception with its history unchanged."""
    past = error.__cause__, error.__context__, error.__suppress_context__
    try:
        yield
    except BaseException as caught:
        if caught is not error:
            raise
    else:
        pytest.fail("nothing was raised")
    assert (error.__cause__, error.__context__, error.__suppress_context__) == past


# Places from which an exception leaves `async with`.


async def nested_clients(error: BaseException, server: Any, task: str) -> None:
    async with gearman.GearmanClient([server.address]) as outer:
        with raised(error):
            async with (
                gearman.GearmanClient([server.address]) as middle,
                gearman.GearmanClient([server.address]) as inner,
            ):
                for client in (outer, middle, inner):
                    await client.submit_job(task, "x", background=True)
                raise error
        assert (await outer.submit_job(task, "x", background=True)).complete


async def pending_calls(error: BaseException, server: Any, task: str) -> None:
    """They return, and their requests are marked lost."""
    requests = [new_request(task) for _ in range(2)]
    items: list[Any] = []

    async def iterate(client: gearman.GearmanClient) -> None:
        await client.submit_multiple_requests(requests[1:], wait_until_complete=False)
        items.extend([item async for item in client.updates(requests[1])])

    async with anyio.create_task_group() as tasks:
        with raised(error):
            async with gearman.GearmanClient([server.address]) as client:
                tasks.start_soon(client.submit_multiple_requests, requests[:1])
                tasks.start_soon(iterate, client)
                await until(lambda: all(request.handle for request in requests))
                raise error
    assert [request.state for request in requests] == [gearman.JOB_UNKNOWN] * 2
    assert [item.state for item in items] == [gearman.JOB_UNKNOWN]


async def cancelled_scope(error: BaseException, server: Any, task: str) -> None:
    """A cancelled trio scope regroups exceptions that leave it, so it surrounds `raised`."""
    with anyio.CancelScope() as scope, raised(error):
        async with (
            gearman.JobServer() as own,
            gearman.GearmanClient([own.address]) as client,
        ):
            await client.submit_job(task, "x", background=True)
            scope.cancel()
            raise error


async def server_with_a_client(error: BaseException, server: Any, task: str) -> None:
    own = gearman.JobServer()
    async with gearman.GearmanClient(["any"], connect=own.connect) as client:
        with raised(error):
            async with own:
                await client.submit_job(task, "x", background=True)
                raise error
        with pytest.raises(GearmanError):
            await client.submit_job(task, "x")


async def working_worker(error: BaseException, server: Any, task: str) -> None:
    """`work` returns in its task."""
    async with anyio.create_task_group() as tasks:
        with raised(error):
            async with make_worker(server.address, tasks={task: echo}) as worker:
                tasks.start_soon(worker.work)
                await until(functools.partial(is_asleep, worker))
                raise error


PLACES: list[Place] = [
    nested_clients,
    pending_calls,
    cancelled_scope,
    server_with_a_client,
    working_worker,
]


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
async def test_exception_of_the_body_leaves_it_unchanged(
    place: Place, kind: str, server: Any, task: str
) -> None:
    with anyio.fail_after(PATIENCE):
        await place(make_error(kind), server, task)


def new_request(task: str, data: str = "x") -> gearman.GearmanJobRequest:
    return gearman.GearmanJobRequest(gearman.GearmanJob(None, None, task, None, data))


async def test_exception_of_a_sibling_task_is_in_one_group(server: Any, task: str) -> None:
    """The application's task group raises the error, in a group as usual."""
    error = make_error("Own")

    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    async def body() -> None:
        async with (
            gearman.GearmanClient([server.address]) as outer,
            anyio.create_task_group() as tasks,
            gearman.GearmanClient([server.address]) as inner,
        ):
            tasks.start_soon(fail)
            tasks.start_soon(outer.submit_job, task, "x")
            await inner.submit_job(task, "x")

    with pytest.raises(ExceptionGroup) as caught:
        await body()
    assert caught.value.exceptions == (error,)


# Calls that a client refuses.


def calls_of(client: Any) -> list[Callable[[], Awaitable[object]]]:
    """Return a call of each method that the client waits in."""
    if isinstance(client, gearman.GearmanAdminClient):
        return [client.get_version, client.ping_server, client.send_shutdown, client.shutdown]
    request, known = new_request("task"), gearman.GearmanJobRequest.from_unique("x")
    return [
        lambda: client.submit_job("task", "x"),
        lambda: client.wait_until_jobs_accepted([request]),
        lambda: client.wait_until_jobs_completed([request]),
        lambda: client.as_completed([request]).__anext__(),
        lambda: client.updates(request).__anext__(),
        lambda: client.get_job_status(known),
        lambda: client.establish_connection(client.connection_list[0]),
        lambda: client.poll_connections_until_stopped([], lambda _: True),
        client.shutdown,
    ]


@pytest.mark.parametrize("kind", [gearman.GearmanClient, gearman.GearmanAdminClient])
async def test_calls_outside_of_the_block_or_the_thread_are_refused(
    kind: Any, server: Any, anyio_backend: str
) -> None:
    """The refused calls leave the client unchanged. The other thread has an event loop."""
    client = kind([server.address])

    async def all_refused(text: str) -> None:
        for call in calls_of(client):
            with pytest.raises(RuntimeError, match=text):
                await call()

    async def all_refused_in_a_thread() -> None:
        await all_refused("another thread")

    await all_refused(f"works inside `async with {kind.__name__}")
    async with client:
        first = calls_of(client)[0 if kind is gearman.GearmanAdminClient else -3]
        await first()
        await anyio.to_thread.run_sync(
            functools.partial(anyio.run, all_refused_in_a_thread, backend=anyio_backend)
        )
        with pytest.raises(RuntimeError, match="only once"):
            await client.__aenter__()
        await first()
        assert not client._gm_driver.engine._waits
    await all_refused("works inside")
    assert client._gm_driver.engine.next_action() is None
    with pytest.raises(RuntimeError, match="only once"):
        await client.__aenter__()


# Bugs in the server's engine, and exceptions of signal handlers.


@pytest.mark.parametrize("name", ["data_to_send", "receive_data", "receive_eof"])
async def test_bug_in_a_server_is_raised_by_wait(
    name: str, task: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any) -> Any:
        monkeypatch.undo()
        raise ZeroDivisionError

    async def use() -> None:
        await until(lambda: server._gm_driver.engine._waits)
        monkeypatch.setattr(server._gm_driver.engine, name, broken)
        async with gearman.GearmanClient([server.address]) as client:
            with contextlib.suppress(GearmanError):
                await client.submit_job(task, "x", background=True)

    with anyio.fail_after(PATIENCE):
        async with gearman.JobServer() as server, anyio.create_task_group() as tasks:
            tasks.start_soon(use)
            with pytest.raises(GearmanError, match="internal error: ZeroDivisionError") as caught:
                await server.wait()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    (record,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


class Limit(TimeoutError):
    """An exception raised by a signal handler, for example by a time limit."""


@pytest.mark.parametrize("where", ["engine", "driver"])
async def test_exception_of_a_signal_handler_during_a_read_is_no_internal_error(
    where: str,
    server: Any,
    task: str,
    anyio_backend_name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """trio raises it. asyncio continues, so the call raises an error that names the exception."""
    limit = Limit("one second")

    def on_signal(number: int, frame: object) -> None:
        raise limit

    def interrupted(*args: Any) -> None:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGUSR1)

    async def submit() -> None:
        async with gearman.GearmanClient([server.address]) as client:
            driver = client._gm_driver
            if where == "engine":
                # In the engine itself: the StrictEngine checks that it is not used any further.
                engine: Any = driver.engine
                monkeypatch.setattr(engine._gm_engine, "receive_data", interrupted)
            else:
                monkeypatch.setattr(driver, "_received", interrupted)
            await client.submit_job(task, "x", background=True)

    before = signal.signal(signal.SIGUSR1, on_signal)
    is_asyncio = anyio_backend_name == "asyncio"
    reported: list[object] = []
    if is_asyncio:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: reported.append(context["exception"])
        )
    try:
        with pytest.raises(ConnectionError if is_asyncio else Limit, match="one second") as caught:
            await submit()
        assert (reported if is_asyncio else [caught.value]) == [limit]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not [each for each in caplog.records if each.name == "gearman"]


@pytest.mark.parametrize("sent", [0, 10])
async def test_exception_of_a_signal_handler_during_a_write_is_raised_in_the_caller(
    sent: int, server: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packet may be written in part. Calls that wait for lost requests end."""
    send_now = RawStream.send_now

    def interrupted(stream: RawStream, data: bytes) -> Any:
        monkeypatch.undo()
        send_now(stream, data[:sent])
        raise KeyboardInterrupt

    async def wait(client: gearman.GearmanClient) -> None:
        with pytest.raises(ConnectionError, match="interrupted by"):
            await client.submit_multiple_requests([request])

    request = new_request(task)
    with anyio.fail_after(PATIENCE):
        async with gearman.GearmanClient([server.address]) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, client)
                await until(lambda: request.handle, "the first")
                monkeypatch.setattr(RawStream, "send_now", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    await client.submit_job(task, b"second", background=True)
            assert (await client.submit_job(task, b"third", background=True)).complete
