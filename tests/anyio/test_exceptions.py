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
from gearman_proto.engines.waits import Stream
from gearman_proto.errors import ConnectionError, GearmanError, ServerUnavailable
from tests.support import PATIENCE, black_hole, free_port

from .stepping import (
    echo,
    is_asleep,
    nothing_left,
    working,
)
from .support import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    Situation = Callable[[gearman.GearmanClient, Any, str], Any]

pytestmark = pytest.mark.anyio

A_MOMENT = 0.005


@pytest.fixture(autouse=True)
async def _nothing_left(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[None]:
    async with nothing_left():
        yield


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
each_error = pytest.mark.parametrize("kind", ERRORS)
some_errors = pytest.mark.parametrize("kind", ["Own", "OwnBase", "SystemExit", "group of one"])


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


# Through `async with`.


async def at_once(client: gearman.GearmanClient, server: Any, task: str) -> None:
    """Do nothing, not even a checkpoint."""


async def connected(client: gearman.GearmanClient, server: Any, task: str) -> None:
    await client.submit_job(task, "x", background=True)


async def shut_down(client: gearman.GearmanClient, server: Any, task: str) -> None:
    await client.submit_job(task, "x", background=True)
    await client.shutdown()


async def timed_out(client: gearman.GearmanClient, server: Any, task: str) -> None:
    assert (await client.submit_job(task, "x", poll_timeout=A_MOMENT)).timed_out


async def in_the_middle(client: gearman.GearmanClient, server: Any, task: str) -> None:
    """Abandon an iteration."""
    request = await client.submit_job(task, "x", wait_until_complete=False)
    with anyio.move_on_after(A_MOMENT):
        await client.updates(request).__anext__()


SITUATIONS: list[Situation] = [at_once, connected, shut_down, timed_out, in_the_middle]


@each_error
async def test_from_the_body_of_a_client(kind: str, gearmand: Any, task: str) -> None:
    for situation in SITUATIONS:
        error = make_error(kind)
        with raised(error):
            async with gearman.GearmanClient([gearmand.address]) as client:
                await situation(client, gearmand, task)
                raise error


@some_errors
async def test_with_calls_pending(kind: str, server: Any, task: str) -> None:
    """Pending calls return, and their requests are marked lost."""
    error = make_error(kind)
    requests = [await make_request(task) for _ in range(3)]
    items: list[Any] = []

    async def iterate(client: gearman.GearmanClient) -> None:
        await client.submit_multiple_requests(requests[2:], wait_until_complete=False)
        items.extend([item async for item in client.updates(requests[2])])

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with raised(error):
                async with gearman.GearmanClient([server.address]) as client:
                    for request in requests[:2]:
                        tasks.start_soon(client.submit_multiple_requests, [request])
                    tasks.start_soon(iterate, client)
                    await until(lambda: all(r.state == gearman.JOB_CREATED for r in requests))
                    raise error
    assert [request.state for request in requests] == 3 * [gearman.JOB_UNKNOWN]
    assert [item.state for item in items] == [gearman.JOB_UNKNOWN]


async def make_request(task: str, data: str = "x") -> gearman.GearmanJobRequest:
    return gearman.GearmanJobRequest(gearman.GearmanJob(None, None, task, None, data))


@some_errors
async def test_while_connecting(kind: str, anyio_backend: str) -> None:
    error = make_error(kind)
    with black_hole() as address, anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with raised(error):
                async with gearman.GearmanClient([address]) as client:
                    tasks.start_soon(expect_unavailable, client)
                    await until(lambda: client._gm_driver._wires, "the attempt to connect")
                    await anyio.sleep(A_MOMENT)
                    raise error


async def expect_unavailable(client: gearman.GearmanClient) -> None:
    with pytest.raises(ServerUnavailable):
        await client.submit_job("x", "x")


@each_error
async def test_exception_with_a_simultaneous_cancellation(
    kind: str, gearmand: Any, task: str
) -> None:
    # A cancelled trio scope regroups the exceptions that leave it, so the scope surrounds `raised`.
    for situation in (at_once, connected):
        error = make_error(kind)
        with anyio.CancelScope() as scope, raised(error):
            async with gearman.GearmanClient([gearmand.address]) as client:
                await situation(client, gearmand, task)
                scope.cancel()
                raise error
        error = make_error(kind)
        with anyio.CancelScope() as scope, raised(error):
            async with gearman.JobServer() as own:
                async with gearman.GearmanClient([own.address]) as client:
                    await situation(client, own, task)
                scope.cancel()
                raise error


@each_error
async def test_when_the_server_has_died(
    kind: str, task: str, start_gearmand: Callable[..., Any], anyio_backend: str
) -> None:
    # The first server ends just now, so the client has not noticed yet.
    error = make_error(kind)
    with raised(error):
        async with (
            gearman.JobServer() as server,
            gearman.GearmanClient([server.address]) as client,
        ):
            await client.submit_job(task, "x", background=True)
            await server.stop()
            raise error


@each_error
async def test_from_the_body_of_a_server(kind: str, task: str) -> None:
    error = make_error(kind)
    with raised(error):
        async with gearman.JobServer() as server:
            raise error
    error = make_error(kind)
    server = gearman.JobServer()
    async with gearman.GearmanClient([("127.0.0.1", 1)], connect=server.connect) as client:
        with raised(error):
            async with server:
                await client.submit_job(task, "x", background=True)
                raise error
        with pytest.raises(GearmanError):
            await client.submit_job(task, "x")


@some_errors
async def test_from_the_body_of_a_worker(kind: str, server: Any, task: str) -> None:
    """`work` returns in its task."""
    error = make_error(kind)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            with raised(error):
                async with gearman.GearmanWorker([server.address]) as worker:
                    worker.register_task(task, echo)
                    tasks.start_soon(worker.work)
                    await until(functools.partial(is_asleep, worker))
                    raise error


@some_errors
async def test_nested_clients(kind: str, server: Any, task: str) -> None:
    error = make_error(kind)
    with raised(error):
        async with (
            gearman.GearmanClient([server.address]) as outer,
            gearman.GearmanClient([server.address]) as inner,
        ):
            for client in (outer, inner):
                await client.submit_job(task, "x", background=True)
            raise error
    error = make_error(kind)
    async with gearman.GearmanClient([server.address]) as outer:
        with raised(error):
            async with gearman.GearmanClient([server.address]) as inner:
                await inner.submit_job(task, "x", background=True)
                raise error
        request = await outer.submit_job(task, "x", background=True)
        assert request.state == gearman.JOB_CREATED


async def test_a_sibling_task_fails(server: Any, task: str) -> None:
    """The application's task group raises the error once, in a group, as usual."""
    error = make_error("Own")

    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    async def around() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            async with gearman.GearmanClient([server.address]) as client:
                await client.submit_job(task, "x")

    async def inside() -> None:
        async with (
            gearman.GearmanClient([server.address]) as client,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(client.submit_job, task, "x")
            tasks.start_soon(fail)
            await client.submit_job(task, "x")

    for function in (around, inside):
        with pytest.raises(ExceptionGroup) as caught:
            await function()
        assert caught.value.exceptions == (error,)


# Calls that a client refuses.


def calls_of(client: gearman.GearmanClient) -> dict[str, Callable[[], Awaitable[object]]]:
    """Return a call of each public method, by name."""
    request = gearman.GearmanJobRequest(gearman.GearmanJob(None, None, "task", None, "x"))
    known = gearman.GearmanJobRequest.from_unique("x")

    async def as_completed() -> None:
        await client.as_completed([request]).__anext__()

    async def updates() -> None:
        await client.updates(request).__anext__()

    return {
        "submit_job": lambda: client.submit_job("task", "x"),
        "submit_multiple_jobs": lambda: client.submit_multiple_jobs([{"task": "t", "data": "x"}]),
        "submit_multiple_requests": lambda: client.submit_multiple_requests([request]),
        "wait_until_jobs_accepted": lambda: client.wait_until_jobs_accepted([request]),
        "wait_until_jobs_completed": lambda: client.wait_until_jobs_completed([request]),
        "as_completed": as_completed,
        "updates": updates,
        "get_job_status": lambda: client.get_job_status(known),
        "get_job_statuses": lambda: client.get_job_statuses([known]),
        "establish_connection": lambda: client.establish_connection(client.connection_list[0]),
        "poll_connections_until_stopped": lambda: client.poll_connections_until_stopped(
            [], lambda _: True
        ),
        "shutdown": client.shutdown,
    }


def test_calls_cover_all_methods() -> None:
    public = {name for name in dir(gearman.GearmanClient) if not name.startswith("_")}
    assert public - {"connection_list", "data_encoder"} == set(calls_of(gearman.GearmanClient()))


async def test_outside(server: Any) -> None:
    async def call_all(client: gearman.GearmanClient) -> None:
        for call in calls_of(client).values():
            with pytest.raises(RuntimeError, match="works inside `async with GearmanClient"):
                await call()

    client = gearman.GearmanClient([server.address])
    await call_all(client)
    async with client:
        await client.submit_job("task", "x", background=True)
    await call_all(client)
    assert client._gm_driver.engine.next_action() is None


async def test_in_another_thread(server: Any, task: str, anyio_backend: str) -> None:
    """The other thread has an event loop. The refused calls leave the client unchanged."""
    async with gearman.GearmanClient([server.address]) as client:
        await client.submit_job(task, "x", background=True)

        async def call_all() -> None:
            for call in calls_of(client).values():
                with pytest.raises(RuntimeError, match="another thread"):
                    await call()

        await anyio.to_thread.run_sync(
            functools.partial(anyio.run, call_all, backend=anyio_backend)
        )
        request = await client.submit_job(task, "x", background=True)
        assert request.state == gearman.JOB_CREATED
        assert not client._gm_driver.engine._waits


async def test_entering_a_client_twice(server: Any, task: str) -> None:
    client = gearman.GearmanClient([server.address])
    async with client:
        with pytest.raises(RuntimeError, match="only once"):
            await client.__aenter__()
        request = await client.submit_job(task, "x", background=True)
        assert request.state == gearman.JOB_CREATED
    with pytest.raises(RuntimeError, match="only once"):
        await client.__aenter__()
    unused = gearman.GearmanClient([server.address])
    async with unused:
        pass
    with pytest.raises(RuntimeError, match="only once"):
        await unused.__aenter__()


# Bugs in the engine.


def break_once(monkeypatch: pytest.MonkeyPatch, engine: Any, name: str) -> None:
    """Make the next call of an engine method raise."""
    works = getattr(engine, name)

    def broken(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(engine, name, works)
        raise ZeroDivisionError

    monkeypatch.setattr(engine, name, broken)


def assert_logged(caplog: pytest.LogCaptureFixture) -> None:
    (record,) = (each for each in caplog.records if each.levelno == logging.ERROR)
    assert record.name == "gearman"
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


async def expect_internal_error(call: Awaitable[object], seen: list[object]) -> None:
    with pytest.raises(GearmanError, match="internal error: ZeroDivisionError") as caught:
        await call
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    seen.append(caught.value)


@pytest.mark.parametrize(
    ("name", "is_connected"),
    [
        ("connected", False),
        ("data_to_send", False),
        ("data_to_send", True),
        ("receive_data", False),
        ("receive_data", True),
        ("receive_eof", True),
        ("connect_failed", False),
        ("handle_timeout", True),
    ],
)
async def test_engine_bug_ends_all_waiting_calls(
    name: str,
    is_connected: bool,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    anyio_backend: str,
) -> None:
    """Every waiting call raises an internal error. Afterwards the client continues, if it can."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(gearman.JobServer())
        address = ("127.0.0.1", free_port()) if name == "connect_failed" else first.address
        client = await stack.enter_async_context(gearman.GearmanClient([address]))
        engine = client._gm_driver.engine
        if is_connected:
            await client.submit_job(task, "x", background=True)
        seen: list[object] = []
        requests = [await make_request(task) for _ in range(3)]

        async def iterate() -> None:
            await client.submit_multiple_requests(requests[2:], wait_until_complete=False)
            async for _ in client.as_completed(requests[2:]):
                pytest.fail("it has not ended")

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                if not is_connected:
                    break_once(monkeypatch, engine, name)
                calls: list[Awaitable[object]] = [
                    client.submit_multiple_requests(requests[:2]),
                    iterate(),
                    client.poll_connections_until_stopped([], lambda _: True),
                ]
                for call in calls:
                    tasks.start_soon(expect_internal_error, call, seen)
                if is_connected:
                    # `poll_connections_until_stopped` counts as an iteration, too.
                    await until(lambda: sum(isinstance(w, Stream) for w in engine._waits) == 2)
                    await until(lambda: all(r.state == gearman.JOB_CREATED for r in requests))
                    break_once(monkeypatch, engine, name)
                    if name == "receive_eof":
                        await first.stop()
                    elif name == "handle_timeout":
                        tasks.start_soon(wait_a_moment, client, requests[0], seen)
                    else:
                        request = gearman.GearmanJobRequest.from_unique("x")
                        tasks.start_soon(
                            expect_internal_error, client.get_job_status(request), seen
                        )
        assert len(seen) >= 3
        assert [request.state for request in requests] == 3 * [gearman.JOB_UNKNOWN]
        assert [request._gm_waits for request in requests] == 3 * [()]
        assert_logged(caplog)
        assert not client._gm_driver.engine._waits
        # The client continues to work.
        if name in ("receive_eof", "connect_failed"):
            with pytest.raises(ServerUnavailable):
                await client.submit_job(task, "y")
            return
        async with working(first, {task: echo}):
            request = await client.submit_job(task, "y", poll_timeout=PATIENCE)
        assert request.result == b"y"


class Limit(TimeoutError):
    """An exception raised by a signal handler, for example by a time limit."""


async def test_exception_of_a_signal_handler_in_the_engine_is_no_internal_error(
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
            monkeypatch.setattr(client._gm_driver.engine, "receive_data", interrupted)
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


async def wait_a_moment(
    client: gearman.GearmanClient, request: gearman.GearmanJobRequest, seen: list[object]
) -> None:
    await expect_internal_error(
        client.wait_until_jobs_completed([request], poll_timeout=A_MOMENT), seen
    )


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()], ids=repr)
async def test_engine_bug_in_a_call_reaches_its_caller(
    error: BaseException,
    server: Any,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The caller gets the original exception. Other waiting calls get an internal error."""

    async def wait_for(client: gearman.GearmanClient) -> None:
        with pytest.raises(ConnectionError, match="interrupted by"):
            await client.submit_multiple_requests([request])

    def broken(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.undo()
        raise error

    request = await make_request(task)
    with anyio.fail_after(PATIENCE):
        async with gearman.GearmanClient([server.address]) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait_for, client)
                await until(lambda: request.state == gearman.JOB_CREATED)
                monkeypatch.setattr(client._gm_driver.engine, "submit", broken)
                with raised(error):
                    await client.submit_job(task, "x")
            async with working(server, {task: echo}):
                assert (await client.submit_job(task, "y")).result == b"y"


@pytest.mark.parametrize("name", ["connected", "data_to_send", "receive_data", "handle_timeout"])
async def test_a_bug_in_a_worker(
    name: str,
    server: Any,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = gearman.GearmanWorker([server.address])
    worker.register_task(task, echo)
    break_once(monkeypatch, worker._gm_driver.engine, name)
    with anyio.fail_after(PATIENCE):
        await expect_internal_error(worker.work(poll_timeout=A_MOMENT), [])
    assert_logged(caplog)
    caplog.clear()
    # The worker can work again.
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.work)
        async with gearman.GearmanClient([server.address]) as client:
            assert (await client.submit_job(task, "x")).result == b"x"
        worker.stop()


@pytest.mark.parametrize("name", ["data_to_send", "receive_data", "receive_eof"])
async def test_a_bug_in_a_server(
    name: str,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    anyio_backend: str,
) -> None:
    seen: list[object] = []
    with anyio.fail_after(PATIENCE):
        async with gearman.JobServer() as server, anyio.create_task_group() as tasks:
            tasks.start_soon(expect_internal_error, server.wait(), seen)
            await until(lambda: server._gm_driver.engine._waits)
            break_once(monkeypatch, server._gm_driver.engine, name)
            async with gearman.GearmanClient([server.address]) as client:
                with contextlib.suppress(GearmanError):
                    await client.submit_job(task, "x", background=True)
    assert len(seen) == 1
    assert_logged(caplog)
