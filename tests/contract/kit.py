"""Building blocks of scenarios, which are async functions that run with every adapter.

A scenario awaits every method. With gearman_anyio, these are the adapter's own coroutines. With
gearman_sync, a `Blocking` proxy calls the blocking method, which returns before the `await` does.
Such a scenario never suspends, so one `send(None)` runs it. Concurrent workers and calls run in
threads with gearman_sync, and in tasks with gearman_anyio.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread
import pytest

import gearman_anyio
import gearman_sync
from tests.support import PATIENCE, Gearmand, ServerAt, spawn, wait_for

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

    from anyio.abc import TaskGroup, TaskStatus

    from gearman_proto import WorkerJob
    from gearman_proto.address import HostAndPort

T = TypeVar("T")

ADAPTERS: Final = ("sync", "asyncio", "trio")
SERVERS: Final = ("gearmand", "JobServer")

# Seconds between two checks of a condition.
_LOOK = 0.002

# Methods that are coroutines in gearman_anyio.
_AWAITED: Final = frozenset(
    {
        *("submit_job", "submit_multiple_jobs", "submit_multiple_requests"),
        *("wait_until_jobs_accepted", "wait_until_jobs_completed"),
        *("get_job_status", "get_job_statuses"),
        *("establish_connection", "poll_connections_until_stopped"),
        *("send_job_complete", "send_job_data", "send_job_exception", "send_job_failure"),
        *("send_job_status", "send_job_warning", "shutdown", "stop", "wait", "work"),
        *("get_status", "get_priority_status", "get_workers", "get_jobs", "get_unique_jobs"),
        *("get_version", "get_pid", "get_verbosity", "ping_server", "send_maxqueue"),
        *("cancel_job", "create_function", "drop_function", "send_shutdown"),
    }
)
_ITERATED: Final = frozenset({"as_completed", "updates"})
_HOOKS: Final = (
    *("on_job_execute", "on_job_exception", "on_job_complete"),
    *("after_poll", "after_job"),
)


async def settled(value: Any) -> Any:
    """Return the value of a hook's `super()` call, awaiting it if necessary."""
    return await value if inspect.isawaitable(value) else value


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    raise AssertionError(f"{coroutine!r} waits for an event loop")


class Blocking:
    """A proxy that makes the methods of a blocking object awaitable."""

    def __init__(self, target: Any, awaited: frozenset[str] = _AWAITED) -> None:
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_awaited", awaited)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if name in self._awaited:
            return _awaitable(value)
        if name in _ITERATED:
            return lambda *args, **options: _Iterator(value(*args, **options))
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target, name, value)

    def __repr__(self) -> str:
        return repr(self._target)


def _awaitable(method: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **options: Any) -> Any:
        return method(*args, **options)

    return call


class _Iterator:
    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __aiter__(self) -> _Iterator:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            raise StopAsyncIteration from None


class Hooks:
    """A base class for workers with hooks. `make_worker` adds the adapter's worker class as a base.

    A plain hook returns the value of `super()`. An async hook awaits it with `settled`.
    """

    if TYPE_CHECKING:

        def on_job_execute(self, current_job: WorkerJob) -> Any: ...
        def on_job_exception(self, current_job: WorkerJob, exc_info: Any) -> Any: ...
        def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> Any: ...
        def after_poll(self, any_activity: bool) -> Any: ...
        def after_job(self) -> Any: ...
        def __getattr__(self, name: str) -> Any: ...


class Gate:
    """A callback that records each job's start and blocks until the gate is opened."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        #: The data of the jobs that have started.
        self.order: list[Any] = []

    def __call__(self, worker: Any, job: WorkerJob) -> Any:
        self.order.append(job.data)
        self.begun.set()
        wait_for(self.open, "opening of a gate")
        return job.data


# Concurrent calls.


class Call:
    """A call in its own thread or task."""

    @property
    def done(self) -> bool:
        """Return True if the call has returned or raised."""
        raise NotImplementedError

    async def finished(self) -> None:
        """Wait until the call has returned or raised."""
        raise NotImplementedError

    async def result(self) -> Any:
        """Wait for the call, then return its result or raise its exception."""
        raise NotImplementedError


class _ThreadCall(Call):
    def __init__(self, future: concurrent.futures.Future[Any]) -> None:
        self._future = future

    @property
    def done(self) -> bool:
        return self._future.done()

    async def finished(self) -> None:
        self._future.exception(PATIENCE)

    async def result(self) -> Any:
        return self._future.result(PATIENCE)


class _TaskCall(Call):
    def __init__(self) -> None:
        self._ended = anyio.Event()
        self._value: Any = None
        self._error: Exception | None = None

    async def run(self, function: Callable[..., Awaitable[Any]], args: Any, options: Any) -> None:
        try:
            self._value = await function(*args, **options)
        except Exception as error:  # noqa: BLE001 - `result` raises it
            self._error = error
        finally:
            self._ended.set()

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    async def finished(self) -> None:
        with anyio.fail_after(PATIENCE):
            await self._ended.wait()

    async def result(self) -> Any:
        await self.finished()
        if self._error is not None:
            raise self._error
        return self._value


class Kit:
    """An adapter and the objects that a scenario creates with it. They end with the scenario."""

    #: The adapter's module.
    gearman: Any

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._gates: list[Gate] = []

    def run(self, scenario: Callable[..., Coroutine[Any, Any, None]], args: dict[str, Any]) -> None:
        """Run a scenario."""
        raise NotImplementedError

    async def _play(
        self, scenario: Callable[..., Coroutine[Any, Any, None]], args: dict[str, Any]
    ) -> None:
        try:
            for server in args.values():
                if isinstance(server, Server):
                    await server.start()
            await scenario(**args)
        finally:
            for gate in self._gates:
                gate.open.set()
            await self._stack.aclose()

    async def client(self, *hosts: Any, **options: Any) -> Any:
        """Return an open client."""
        raise NotImplementedError

    async def admin_client(self, *hosts: Any, **options: Any) -> Any:
        """Return an open admin client."""
        raise NotImplementedError

    async def make_worker(
        self,
        *hosts: Any,
        tasks: dict[str, Any] | None = None,
        kind: type[Hooks] | None = None,
        **options: Any,
    ) -> Any:
        """Return a worker with the callbacks `tasks`. `kind` is a class with hooks."""
        raise NotImplementedError

    def _worker(
        self, hosts: Any, tasks: dict[str, Any] | None, kind: type | None, options: Any
    ) -> Any:
        worker = (kind or self.gearman.GearmanWorker)(list(hosts), **options)
        for task, callback in (tasks or {}).items():
            worker.register_task(task, callback)
        return worker

    async def work(self, worker: Any, poll_timeout: float | None = 60) -> Call:
        """Run a worker, at most until the scenario ends."""
        call = await self.spawn(worker.work, poll_timeout)

        async def end() -> None:
            await worker.shutdown()
            await call.finished()

        self._stack.push_async_callback(end)
        return call

    async def start_worker(self, *hosts: Any, **options: Any) -> Any:
        """Create a worker with `make_worker` and run it."""
        worker = await self.make_worker(*hosts, **options)
        await self.work(worker)
        return worker

    def callback(self, function: Callable[[Any, WorkerJob], Awaitable[Any]]) -> Any:
        """Return a callback that runs an async function, which awaits `send_job_*` methods."""
        raise NotImplementedError

    def gate(self) -> Gate:
        """Return a callback that blocks until its gate opens or the scenario ends."""
        gate = Gate()
        self._gates.append(gate)
        return gate

    def job_server(self, **options: Any) -> Any:
        """Return a JobServer that does not run yet."""
        raise NotImplementedError

    async def begin(self, job_server: Any) -> None:
        """Run a JobServer, at most until the scenario ends."""
        raise NotImplementedError

    async def serve(self, port: int = 0) -> tuple[HostAndPort, Callable[[], Awaitable[None]]]:
        """Run a JobServer. Return its address and a function that stops it."""
        raise NotImplementedError

    # Waiting.

    async def sleep(self, seconds: float) -> None:
        """Sleep, so that other threads and tasks can run."""
        raise NotImplementedError

    async def blocking(self, function: Callable[..., T], *args: Any) -> T:
        """Call a blocking function. Meanwhile, other tasks of this process can run."""
        raise NotImplementedError

    async def spawn(self, function: Callable[..., Any], *args: Any, **options: Any) -> Call:
        """Start an awaitable call concurrently with the scenario."""
        raise NotImplementedError

    async def eventually(self, condition: Callable[[], Any], what: str = "condition") -> None:
        """Wait until `condition`, a plain or async function, returns true."""
        deadline = time.monotonic() + PATIENCE
        while not await settled(condition()):
            assert time.monotonic() < deadline, f"{what} did not come true"
            await self.sleep(_LOOK)

    async def wait_for(self, event: threading.Event, what: str = "event") -> None:
        """Wait until a callback or a scripted server sets `event`."""
        await self.eventually(event.is_set, what)


class BlockingKit(Kit):
    """The kit of gearman_sync, whose workers run in threads."""

    gearman = gearman_sync

    def run(self, scenario: Callable[..., Coroutine[Any, Any, None]], args: dict[str, Any]) -> None:
        drive(self._play(scenario, args))

    async def client(self, *hosts: Any, **options: Any) -> Any:
        client = self._stack.enter_context(gearman_sync.GearmanClient(list(hosts), **options))
        return Blocking(client)

    async def admin_client(self, *hosts: Any, **options: Any) -> Any:
        client = gearman_sync.GearmanAdminClient(list(hosts), **options)
        return Blocking(self._stack.enter_context(client))

    async def make_worker(
        self,
        *hosts: Any,
        tasks: dict[str, Any] | None = None,
        kind: type[Hooks] | None = None,
        **options: Any,
    ) -> Any:
        made = None
        if kind is not None:
            hooks = {
                name: _plain_hook(getattr(kind, name)) for name in _HOOKS if name in vars(kind)
            }
            made = type(kind.__name__, (kind, gearman_sync.GearmanWorker), hooks)
        worker = self._stack.enter_context(self._worker(hosts, tasks, made, options))
        # `stop` is a plain method in both adapters.
        return Blocking(worker, _AWAITED - {"stop"})

    def callback(self, function: Callable[[Any, WorkerJob], Awaitable[Any]]) -> Any:
        async def call(worker: Any, job: WorkerJob) -> Any:
            return await function(Blocking(worker, _AWAITED - {"stop"}), job)

        return lambda worker, job: drive(call(worker, job))

    def job_server(self, **options: Any) -> Any:
        return Blocking(gearman_sync.JobServer(**options))

    async def begin(self, job_server: Any) -> None:
        job_server.start()
        self._stack.push_async_callback(job_server.stop)

    async def serve(self, port: int = 0) -> tuple[HostAndPort, Callable[[], Awaitable[None]]]:
        server = self._stack.enter_context(gearman_sync.JobServer(port=port))

        async def end() -> None:
            server.stop()

        return server.address, end

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - no event loop runs here

    async def blocking(self, function: Callable[..., T], *args: Any) -> T:
        return function(*args)

    async def spawn(self, function: Callable[..., Any], *args: Any, **options: Any) -> Call:
        return _ThreadCall(spawn(lambda: drive(function(*args, **options))))


def _plain_hook(hook: Callable[..., Any]) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(hook):
        return hook

    def call(*args: Any) -> Any:
        return drive(hook(*args))

    return call


class AnyioKit(Kit):
    """The kit of gearman_anyio, whose workers run in tasks."""

    gearman = gearman_anyio

    def __init__(self, backend: str) -> None:
        super().__init__()
        self._backend = backend
        self._tasks: TaskGroup

    def run(self, scenario: Callable[..., Coroutine[Any, Any, None]], args: dict[str, Any]) -> None:
        anyio.run(self._main, scenario, args, backend=self._backend)

    async def _main(
        self, scenario: Callable[..., Coroutine[Any, Any, None]], args: dict[str, Any]
    ) -> None:
        failure: BaseException | None = None
        async with anyio.create_task_group() as self._tasks:
            try:
                await self._play(scenario, args)
            # Raise it below, outside the task group: pytest reports a group as a failure.
            except (Exception, pytest.skip.Exception) as error:  # noqa: BLE001
                failure = error
            self._tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def client(self, *hosts: Any, **options: Any) -> Any:
        client = gearman_anyio.GearmanClient(list(hosts), **options)
        return await self._stack.enter_async_context(client)

    async def admin_client(self, *hosts: Any, **options: Any) -> Any:
        client = gearman_anyio.GearmanAdminClient(list(hosts), **options)
        return await self._stack.enter_async_context(client)

    async def make_worker(
        self,
        *hosts: Any,
        tasks: dict[str, Any] | None = None,
        kind: type[Hooks] | None = None,
        **options: Any,
    ) -> Any:
        made = None
        if kind is not None:
            made = type(kind.__name__, (kind, gearman_anyio.GearmanWorker), {})
        worker = self._worker(hosts, tasks, made, options)
        return await self._stack.enter_async_context(worker)

    def callback(self, function: Callable[[Any, WorkerJob], Awaitable[Any]]) -> Any:
        return function

    def job_server(self, **options: Any) -> Any:
        return gearman_anyio.JobServer(**options)

    async def begin(self, job_server: Any) -> None:
        await self._stack.enter_async_context(job_server)

    async def serve(self, port: int = 0) -> tuple[HostAndPort, Callable[[], Awaitable[None]]]:
        # The server has its own task, since it might end before tasks that were started later.
        ending, ended = anyio.Event(), anyio.Event()

        async def run(*, task_status: TaskStatus[HostAndPort] = anyio.TASK_STATUS_IGNORED) -> None:
            async with gearman_anyio.JobServer(port=port) as server:
                task_status.started(server.address)
                await ending.wait()
            ended.set()

        async def end() -> None:
            ending.set()
            await ended.wait()

        address: HostAndPort = await self._tasks.start(run)
        self._stack.push_async_callback(end)
        return address, end

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def blocking(self, function: Callable[..., T], *args: Any) -> T:
        return await anyio.to_thread.run_sync(function, *args)

    async def spawn(self, function: Callable[..., Any], *args: Any, **options: Any) -> Call:
        call = _TaskCall()
        self._tasks.start_soon(call.run, function, args, options)
        return call


def make_kit(adapter: str) -> Kit:
    """Return the kit of one of `ADAPTERS`."""
    return BlockingKit() if adapter == "sync" else AnyioKit(adapter)


# Job servers.


async def admin(kit: Kit, address: tuple[str, int], command: str) -> str:
    """Send a line of the admin protocol to the server at `address` and return the reply."""
    return await kit.blocking(ServerAt(address).admin, command)


class Server:
    """A job server that a scenario can query, kill and restart."""

    def __init__(self, kit: Kit, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._kit = kit
        #: The address of the server, set by `start`.
        self.address = address

    async def start(self) -> None:
        """Start the server, at its earlier address if it has one."""
        raise NotImplementedError

    async def kill(self) -> None:
        """Kill the server. Its queued jobs are lost."""
        raise NotImplementedError

    async def admin(self, command: str) -> str:
        """Send a line of the admin protocol and return the reply."""
        return await admin(self._kit, self.address, command)

    async def counts(self, task: str) -> tuple[int, int, int]:
        """Return the numbers of jobs, of running jobs and of workers of `task`."""
        return await self._kit.blocking(ServerAt(self.address).counts, task)

    async def wait_for_counts(self, task: str, *expected: int) -> None:
        """Wait until `counts` equal these, or start with these."""

        async def is_so() -> bool:
            return (await self.counts(task))[: len(expected)] == expected

        await self._kit.eventually(is_so, f"{expected} of {task}")

    async def client_ids(self) -> list[str]:
        """Return the client ids of the server's connections."""
        return await self._kit.blocking(ServerAt(self.address).client_ids)


class GearmandServer(Server):
    """A gearmand process, possibly shared between scenarios."""

    def __init__(self, kit: Kit, make: Callable[[], Gearmand], *, shared: bool) -> None:
        super().__init__(kit)
        self._make = make
        self._shared = shared
        self._program: Gearmand | None = None

    async def start(self) -> None:
        if self._program is None:
            self._program = await self._kit.blocking(self._make)
            self.address = self._program.address
        else:
            await self._kit.blocking(self._program.start)

    async def kill(self) -> None:
        assert self._program is not None
        assert not self._shared
        self._program.kill()


class EmbeddedServer(Server):
    """A JobServer of the adapter under test."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._end: Callable[[], Awaitable[None]] | None = None

    async def start(self) -> None:
        address, self._end = await self._kit.serve(self.address[1])
        self.address = address.host, address.port

    async def kill(self) -> None:
        assert self._end is not None
        await self._end()


async def collect(items: AsyncIterator[T]) -> list[T]:
    """Return a list of `items`."""
    return [item async for item in items]


def reverse(worker: Any, job: WorkerJob) -> Any:
    """Return the job's data reversed, as a callback."""
    return job.data[::-1]


def echo(worker: Any, job: WorkerJob) -> Any:
    """Return the job's data, as a callback."""
    return job.data
