"""Building blocks of scenarios, which are async functions that run with every adapter.

A scenario awaits every method. With gearman_anyio, these are the adapter's own coroutines. With
gearman_sync, a `Blocking` proxy calls the blocking method, which returns before the `await` does.
Such a scenario never suspends, so one `send(None)` runs it. Concurrent workers and calls run in
threads with gearman_sync, and in tasks with gearman_anyio.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import anyio
import anyio.to_thread
import pytest

import gearman_anyio
import gearman_sync
from gearman_sync.testing import ScriptedClient, ScriptedServer
from tests.support import PATIENCE, Gearmand, ServerAt, spawn, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from anyio.abc import TaskGroup

    from gearman_proto import WorkerJob

    Scenario = Callable[..., Coroutine[Any, Any, None]]

T = TypeVar("T")

ADAPTERS: Final = ("sync", "asyncio", "trio")
SERVERS: Final = ("gearmand", "JobServer")

_ITERATED: Final = frozenset({"as_completed", "results", "updates"})
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
    """A proxy that makes the methods of a blocking object awaitable, as in gearman_anyio."""

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "_target", target)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if inspect.iscoroutinefunction(getattr(_async_class(type(self._target)), name, None)):
            return _awaitable(value)
        if name in _ITERATED:
            return lambda *args, **options: _Iterator(value(*args, **options))
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target, name, value)

    def __repr__(self) -> str:
        return repr(self._target)


def _async_class(kind: type) -> Any:
    """Return the class of gearman_anyio with the same methods."""
    found = (getattr(gearman_anyio, base.__name__, None) for base in kind.__mro__)
    # In a plain callback of gearman_anyio, the worker is a proxy.
    return next(filter(None, found), gearman_anyio.GearmanWorker)


def _awaitable(method: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **options: Any) -> Any:
        return method(*args, **options)

    return call


def plain(function: Callable[[Any, WorkerJob], Awaitable[Any]]) -> Callable[..., Any]:
    """Return an async callback as a plain one. The worker's methods block there."""

    async def call(worker: Any, job: WorkerJob) -> Any:
        return await function(Blocking(worker), job)

    return lambda worker, job: drive(call(worker, job))


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

    def close(self) -> None:
        self._iterator.close()  # type: ignore[attr-defined] # only a generator is closed


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


def reverse(worker: Any, job: WorkerJob) -> Any:
    """Return the job's data reversed, as a callback."""
    return job.data[::-1]


def echo(worker: Any, job: WorkerJob) -> Any:
    """Return the job's data, as a callback."""
    return job.data


class Gate:
    """A callback that records each job's start and blocks until the gate is opened."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        #: The jobs that have started.
        self.jobs: list[WorkerJob] = []

    @property
    def order(self) -> list[Any]:
        """The data of the jobs that have started."""
        return [job.data for job in self.jobs]

    def __call__(self, worker: Any, job: WorkerJob) -> Any:
        self.jobs.append(job)
        self.begun.set()
        wait_for(self.open, "opening of a gate")
        return job.data


class RunningJob(NamedTuple):
    """A job whose callback has started and blocks until the gate is opened."""

    client: Any
    request: Any
    gate: Gate
    worker: Any
    #: The call of `work`.
    working: Call


class Call:
    """A call in its own thread or task."""

    def __init__(self, kit: Kit, future: concurrent.futures.Future[Any]) -> None:
        self._kit = kit
        self._future = future

    @property
    def done(self) -> bool:
        """Return True if the call has returned or raised."""
        return self._future.done()

    async def finished(self) -> None:
        """Wait until the call has returned or raised."""
        await self._kit.eventually(self._future.done, "the end of a call")

    async def result(self) -> Any:
        """Wait for the call, then return its result or raise its exception."""
        await self.finished()
        return self._future.result()


class Kit:
    """An adapter and the objects that a scenario creates with it. They end with the scenario.

    The methods that raise NotImplementedError differ between the adapters.
    """

    #: The adapter's module.
    gearman: Any

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._gates: list[Gate] = []

    def run(self, scenario: Scenario, args: dict[str, Any]) -> None:
        """Run a scenario."""
        raise NotImplementedError

    async def _play(self, scenario: Scenario, args: dict[str, Any]) -> None:
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
        return await self._open(self.gearman.GearmanClient(list(hosts), **options))

    async def admin_client(self, *hosts: Any, **options: Any) -> Any:
        """Return an open admin client."""
        return await self._open(self.gearman.GearmanAdminClient(list(hosts), **options))

    async def make_worker(
        self,
        *hosts: Any,
        tasks: dict[str, Any] | None = None,
        kind: type[Hooks] | None = None,
        **options: Any,
    ) -> Any:
        """Return a worker with the callbacks `tasks`. `kind` is a class with hooks."""
        made = self.gearman.GearmanWorker
        if kind is not None:
            made = type(kind.__name__, (kind, made), self._hooks_of(kind))
        worker = made(list(hosts), **options)
        for task, callback in (tasks or {}).items():
            worker.register_task(task, callback)
        return await self._open(worker)

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

    async def client_and_worker(self, *hosts: Any, **options: Any) -> Any:
        """Run a worker. Return a client of the same servers."""
        client = await self.client(*hosts)
        await self.start_worker(*hosts, **options)
        return client

    async def submit(self, host: Any, *args: Any, **options: Any) -> tuple[Any, Any]:
        """Submit a job without waiting for its end. Return the client and the request."""
        client = await self.client(host)
        return client, await client.submit_job(*args, wait_until_complete=False, **options)

    async def running_job(
        self, host: Any, task: str, then: Callable[[Any, WorkerJob], Any] = echo, **options: Any
    ) -> RunningJob:
        """Submit a job with the data ``b"data"`` and run it until its callback blocks.

        When the gate opens, the callback calls `then`. The options are those of the worker.
        """

        def callback(worker: Any, job: WorkerJob) -> Any:
            gate(worker, job)
            return then(worker, job)

        gate = self.gate()
        worker = await self.make_worker(host, tasks={task: callback}, **options)
        working = await self.work(worker)
        client, request = await self.submit(host, task, b"data")
        await self.wait_for(gate.begun, "the beginning of a job")
        return RunningJob(client, request, gate, worker, working)

    def gate(self, *, opened: bool = False) -> Gate:
        """Return a callback that blocks until its gate opens or the scenario ends."""
        gate = Gate()
        if opened:
            gate.open.set()
        self._gates.append(gate)
        return gate

    def job_server(self, **options: Any) -> Any:
        """Return a JobServer that does not run yet."""
        raise NotImplementedError

    async def begin(self, job_server: Any) -> None:
        """Run a JobServer, at most until the scenario ends."""
        raise NotImplementedError

    async def start_job_server(self, **options: Any) -> Any:
        """Return a JobServer that runs until the scenario ends."""
        server = self.job_server(**options)
        await self.begin(server)
        return server

    async def _open(self, made: Any) -> Any:
        """Enter the context of a client or worker. Return it with awaitable methods."""
        raise NotImplementedError

    def callback(self, function: Callable[[Any, WorkerJob], Awaitable[Any]]) -> Any:
        """Return a callback that runs an async function, which awaits `send_job_*` methods."""
        raise NotImplementedError

    def both_forms(
        self, task: str, function: Callable[[Any, WorkerJob], Awaitable[Any]]
    ) -> dict[str, Any]:
        """Return tasks that run an async function as a plain callback and as `callback` does."""
        return {f"{task}-plain": plain(function), f"{task}-awaiting": self.callback(function)}

    def _hooks_of(self, kind: type[Hooks]) -> dict[str, Any]:
        """Return the hooks of `kind` that the adapter can't call as they are."""
        raise NotImplementedError

    # Waiting.

    async def see_the_end_of(self, address: tuple[str, int]) -> None:
        """Let clients and workers notice that the server at `address` has ended."""

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
            await self.sleep(0.002)

    async def wait_for(self, event: threading.Event, what: str = "event") -> None:
        """Wait until a callback or a scripted server sets `event`."""
        await self.eventually(event.is_set, what)


class BlockingKit(Kit):
    """The kit of gearman_sync, whose workers run in threads."""

    gearman = gearman_sync

    def run(self, scenario: Scenario, args: dict[str, Any]) -> None:
        drive(self._play(scenario, args))

    def job_server(self, **options: Any) -> Any:
        return Blocking(gearman_sync.JobServer(**options))

    async def begin(self, job_server: Any) -> None:
        job_server.start()
        self._stack.push_async_callback(job_server.stop)

    async def _open(self, made: Any) -> Any:
        return Blocking(self._stack.enter_context(made))

    def callback(self, function: Callable[[Any, WorkerJob], Awaitable[Any]]) -> Any:
        return plain(function)

    def _hooks_of(self, kind: type[Hooks]) -> dict[str, Any]:
        hooks = {name: vars(kind)[name] for name in _HOOKS if name in vars(kind)}
        return {
            name: functools.wraps(hook)(lambda *args, _hook=hook: drive(_hook(*args)))
            for name, hook in hooks.items()
            if inspect.iscoroutinefunction(hook)
        }

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - no event loop runs here

    async def blocking(self, function: Callable[..., T], *args: Any) -> T:
        return function(*args)

    async def spawn(self, function: Callable[..., Any], *args: Any, **options: Any) -> Call:
        return Call(self, spawn(lambda: drive(function(*args, **options))))


class AnyioKit(Kit):
    """The kit of gearman_anyio, whose workers run in tasks."""

    gearman = gearman_anyio

    def __init__(self, backend: str) -> None:
        super().__init__()
        self._backend = backend
        self._tasks: TaskGroup
        self._opened: list[Any] = []

    def run(self, scenario: Scenario, args: dict[str, Any]) -> None:
        anyio.run(self._main, scenario, args, backend=self._backend)

    async def _main(self, scenario: Scenario, args: dict[str, Any]) -> None:
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

    def job_server(self, **options: Any) -> Any:
        return gearman_anyio.JobServer(**options)

    async def begin(self, job_server: Any) -> None:
        await self._stack.enter_async_context(job_server)

    async def _open(self, made: Any) -> Any:
        self._opened.append(made)
        return await self._stack.enter_async_context(made)

    def callback(self, function: Callable[[Any, WorkerJob], Awaitable[Any]]) -> Any:
        return function

    def _hooks_of(self, kind: type[Hooks]) -> dict[str, Any]:
        return {}

    async def see_the_end_of(self, address: tuple[str, int]) -> None:
        links = [link for made in self._opened for link in made.connection_list]
        mine = [link for link in links if (link.gearman_host, link.gearman_port) == address]
        await self.eventually(lambda: not any(link.connected for link in mine))

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def blocking(self, function: Callable[..., T], *args: Any) -> T:
        return await anyio.to_thread.run_sync(function, *args)

    async def spawn(self, function: Callable[..., Any], *args: Any, **options: Any) -> Call:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        async def run() -> None:
            try:
                future.set_result(await function(*args, **options))
            except BaseException as error:
                future.set_exception(error)
                if not isinstance(error, Exception):
                    raise

        self._tasks.start_soon(run)
        return Call(self, future)


def make_kit(adapter: str) -> Kit:
    """Return the kit of one of `ADAPTERS`."""
    return BlockingKit() if adapter == "sync" else AnyioKit(adapter)


# Job servers.


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
        return await self._kit.blocking(ServerAt(self.address).admin, command)

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
    """A gearmand process. `make` starts it, or returns one that scenarios share."""

    def __init__(self, kit: Kit, make: Callable[[], Gearmand]) -> None:
        super().__init__(kit)
        self._make = make
        self._program: Gearmand | None = None

    async def start(self) -> None:
        if self._program is None:
            self._program = await self._kit.blocking(self._make)
            self.address = self._program.address
        else:
            await self._kit.blocking(self._program.start)

    async def kill(self) -> None:
        assert self._program is not None
        self._program.kill()
        await self._kit.see_the_end_of(self.address)


class EmbeddedServer(Server):
    """A JobServer of the adapter under test."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._server: Any = None

    async def start(self) -> None:
        self._server = self._kit.job_server(port=self.address[1])
        await self._kit.begin(self._server)
        self.address = tuple(self._server.address)

    async def kill(self) -> None:
        await self._server.stop()
        await self._kit.see_the_end_of(self.address)


#: The types of the fixtures `connect`, `launch` and `start_server`.
Connect = Callable[..., ScriptedClient]
Launch = Callable[[], Awaitable[Server]]
StartServer = Callable[..., ScriptedServer]


async def collect(items: AsyncIterator[T]) -> list[T]:
    """Return a list of `items`."""
    return [item async for item in items]
