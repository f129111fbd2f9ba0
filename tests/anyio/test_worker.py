"""The worker on asyncio and trio: callbacks, hooks, ways out of `work`, and all that goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import json
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

import gearman_anyio as gearman
import gearman_sync
from gearman_anyio import GearmanClient, GearmanWorker, WorkerJob
from gearman_anyio._streams import pipe
from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.errors import (
    ConnectionError,
    InvalidWorkerState,
    LocalProtocolError,
    ServerUnavailable,
)
from gearman_proto.wire.events import (
    CanDo,
    ConnectionClosed,
    EchoReq,
    EchoRes,
    Event,
    GrabJobUniq,
    JobAssignUniq,
    NoJob,
    PreSleep,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.support import PATIENCE, Gearmand, free_port, wait_for

from .conftest import SERVERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import ByteStream, TaskGroup

pytestmark = pytest.mark.anyio

MB = 1_000_000
KINDS = ["async", "plain"]
WORK = (WorkComplete, WorkFail, WorkException, WorkData, WorkStatus, WorkWarning)


async def eventually(condition: Callable[[], object], what: str = "condition") -> None:
    """Wait until `condition` is true, while the event loop runs."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        await anyio.sleep(0.002)


async def admin(server: Any, command: str) -> str:
    """The reply to a line of the admin protocol, also from a server in this event loop."""
    async with await anyio.connect_tcp(*server.address) as stream:
        await stream.send(command.encode() + b"\r\n")
        is_list = command.startswith(("status", "workers", "show"))
        reply = b""
        while not (reply == b".\n" or reply.endswith(b"\n.\n" if is_list else b"\n")):
            reply += await stream.receive()
    return reply.decode()


async def counts(server: Any, task: str) -> tuple[int, int, int]:
    """How many jobs of `task` there are, how many of them run, and how many workers."""
    for line in (await admin(server, "status")).splitlines():
        name, *numbers = line.split("\t")
        if name == task:
            total, running, workers = map(int, numbers)
            return total, running, workers
    return 0, 0, 0


async def counted(server: Any, task: str, expected: tuple[int, int, int]) -> None:
    """Wait until that is so."""
    deadline = time.monotonic() + PATIENCE
    while (found := await counts(server, task)) != expected:
        assert time.monotonic() < deadline, f"{found}, not {expected}"
        await anyio.sleep(0.002)


class Working:
    """A worker that works in a task."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.ended = anyio.Event()
        self.error: Exception | None = None

    async def run(self, poll_timeout: float | None) -> None:
        try:
            await self.worker.work(poll_timeout)
        except Exception as error:  # noqa: BLE001 - raised by `end`
            self.error = error
        finally:
            self.ended.set()

    async def end(self) -> None:
        """Wait for the end of `work`, and raise what it has raised."""
        with anyio.fail_after(PATIENCE):
            await self.ended.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error


@contextlib.asynccontextmanager
async def working(worker: GearmanWorker, poll_timeout: float | None = 60) -> AsyncIterator[Working]:
    """Lets a worker work until the end of the block, where its jobs are given up."""
    it = Working(worker)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.run, poll_timeout)
        try:
            yield it
        finally:
            tasks.cancel_scope.cancel()
    await it.end()


def make_worker(
    *hosts: Any,
    tasks: dict[str, Any] | None = None,
    kind: type[GearmanWorker] = GearmanWorker,
    **options: Any,
) -> Any:
    """A worker for the `tasks` with these callbacks."""
    worker = kind(list(hosts), **options)
    for task, callback in (tasks or {}).items():
        worker.register_task(task, callback)
    return worker


async def reverse(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data[::-1]


def plain_reverse(worker: Any, job: WorkerJob) -> Any:
    return job.data[::-1]


class Held:
    """A callback that holds its jobs until they are let go, async or in a thread."""

    def __init__(self, kind: str, jobs: int = 1) -> None:
        self.kind = kind
        self.jobs = jobs
        self.begun = 0
        self.done: list[bytes] = []
        self.gone: list[bytes] = []
        self._go_on = threading.Event()
        self._let_go = anyio.Event()

    @property
    def callback(self) -> Callable[..., Any]:
        return self._async if self.kind == "async" else self._plain

    async def wait(self) -> None:
        """Wait until all jobs have begun."""
        await eventually(lambda: self.begun == self.jobs, "the beginning of the jobs")

    def let_go(self) -> None:
        self._go_on.set()
        self._let_go.set()

    async def _async(self, worker: Any, job: WorkerJob) -> Any:
        self.begun += 1
        try:
            await self._let_go.wait()
        except BaseException:
            self.gone.append(job.data)
            raise
        self.done.append(job.data)
        return job.data

    def _plain(self, worker: Any, job: WorkerJob) -> Any:
        self.begun += 1
        wait_for(self._go_on)
        self.done.append(job.data)
        return job.data


# A server in memory, that does as the test says.


class Disconnected(Exception):
    """The worker has closed the connection."""


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        #: All that the worker has sent and was taken.
        self.events: list[Event] = []
        self._connection = Connection(Role.SERVER)

    async def receive(self) -> Event:
        """The next packet."""
        while (event := self._connection.next_event()) is NEED_DATA:
            await self._read()
        if isinstance(event, ConnectionClosed):
            raise Disconnected
        assert isinstance(event, Event)
        self.events.append(event)
        return event

    async def _read(self) -> None:
        try:
            self._connection.receive_data(await self.stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._connection.receive_eof()

    async def expect(self, kind: type[Event]) -> None:
        """The next packet is a `kind`."""
        event = await self.receive()
        assert isinstance(event, kind), event

    async def send(self, *events: Event) -> None:
        await self.stream.send(b"".join([self._connection.send(event) for event in events]))

    async def hold(self) -> None:
        """Take what comes and say nothing."""
        while True:
            await self.receive()


class Scripted:
    """A server in memory: `script` is run for each connection, which ends when it returns."""

    def __init__(self, tasks: TaskGroup, script: Callable[[Peer], Awaitable[object]]) -> None:
        self.peers: list[Peer] = []
        self._tasks = tasks
        self._script = script

    async def connect(self, address: object) -> ByteStream:
        near, far = pipe()
        self._tasks.start_soon(self._run, far)
        return near

    async def _run(self, stream: ByteStream) -> None:
        async with stream:
            peer = Peer(stream)
            self.peers.append(peer)
            with contextlib.suppress(Disconnected, anyio.BrokenResourceError):
                await self._script(peer)

    @property
    def about_jobs(self) -> list[Event]:
        """What the worker has sent about its jobs."""
        return [event for peer in self.peers for event in peer.events if isinstance(event, WORK)]


def give(*jobs: bytes) -> Callable[[Peer], Awaitable[None]]:
    """A script: give these jobs, one after the other, and then none."""

    async def script(peer: Peer) -> None:
        left = list(jobs)
        while True:
            event = await peer.receive()
            if isinstance(event, EchoReq):
                await peer.send(EchoRes(event.data))
            elif isinstance(event, GrabJobUniq):
                if left:
                    handle = b"H:%d" % (len(jobs) - len(left) + 1)
                    await peer.send(JobAssignUniq(handle, b"task", b"unique", left.pop(0)))
                else:
                    await peer.send(NoJob())

    return script


@contextlib.asynccontextmanager
async def scripted(script: Callable[[Peer], Awaitable[object]]) -> AsyncIterator[Scripted]:
    """Runs a server in memory."""
    async with anyio.create_task_group() as tasks:
        try:
            yield Scripted(tasks, script)
        finally:
            tasks.cancel_scope.cancel()


# A server that can be killed.


class Embedded:
    """A JobServer in this loop that can be killed, and started again, as a Gearmand can be."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.port = 0
        self._tasks = tasks
        self._killed = anyio.Event()
        self._ended = anyio.Event()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    async def start(self) -> None:
        self._killed, self._ended = anyio.Event(), anyio.Event()
        self.port = await self._tasks.start(self._run)

    async def _run(self, *, task_status: Any) -> None:
        async with gearman.JobServer(port=self.port) as server:
            task_status.started(server.address.port)
            await self._killed.wait()
        self._ended.set()

    async def kill(self) -> None:
        self._killed.set()
        await self._ended.wait()


class External:
    """A gearmand with the same surface."""

    def __init__(self, gearmand: Gearmand) -> None:
        self.address = gearmand.address
        self._gearmand = gearmand

    async def start(self) -> None:
        self._gearmand.start()

    async def kill(self) -> None:
        self._gearmand.kill()


@pytest.fixture(params=SERVERS)
async def launch(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[Any]:
    """Starts a server for one test, a gearmand or a JobServer, that may be killed."""
    async with anyio.create_task_group() as tasks:

        async def start() -> Embedded | External:
            if request.param == "gearmand":
                return External(request.getfixturevalue("start_gearmand")())
            embedded = Embedded(tasks)
            await embedded.start()
            return embedded

        if request.param == "gearmand":
            request.getfixturevalue("start_gearmand")
        yield start
        tasks.cancel_scope.cancel()


@pytest.fixture
async def local(anyio_backend: str) -> AsyncIterator[gearman.JobServer]:
    """A server where it does not matter which."""
    async with gearman.JobServer() as server:
        yield server


# Jobs.


@pytest.mark.parametrize("form", ["str", "bytes"])
async def test_job(server: Any, task: str, form: str) -> None:
    jobs: list[WorkerJob] = []

    async def function(given: GearmanWorker, job: WorkerJob) -> Any:
        assert given is worker
        assert worker.has_job_lock()
        jobs.append(job)
        return b"<" + job.data + b">"

    name = f"{task}-ü"
    given = name if form == "str" else name.encode()
    worker = make_worker(server.address, tasks={given: function})  # type: ignore[dict-item]
    async with working(worker), GearmanClient([server.address]) as client:
        request = await client.submit_job(given, b"a\0b", unique="münchen")
        assert request.result == b"<a\0b>"
        (job,) = jobs
        assert (job.task, job.unique, job.data) == (name, "münchen", b"a\0b")
        assert job.handle == request.job.handle
        assert job.ended
        assert not job.is_lost
        await eventually(lambda: not worker.has_job_lock())


async def test_register_and_unregister(server: Any, task: str) -> None:
    worker = make_worker(server.address)
    assert worker.register_task(task, reverse) == task
    assert worker.register_task(f"{task}-b".encode(), reverse, timeout=1.5) == f"{task}-b"
    assert worker.worker_abilities == {task: reverse, f"{task}-b": reverse}
    assert worker.unregister_task(task.encode()) == task
    assert worker.worker_abilities == {f"{task}-b": reverse}
    with pytest.raises(InvalidWorkerState, match=task):
        worker.unregister_task(task)


async def test_wrong_arguments() -> None:
    worker = make_worker()
    for name in ("a\0b", b"\xff\0", "x" * 8200):
        with pytest.raises(ValueError):
            worker.register_task(name, reverse)
    for call in (
        lambda: worker.register_task(5, reverse),
        lambda: worker.register_task("task", b"reverse"),
        lambda: worker.register_task("task", reverse, timeout="1"),
        lambda: worker.set_client_id(5),
        lambda: worker.stop("1"),
        lambda: GearmanWorker([], max_jobs="1"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError):
        await worker.work("1")
    with pytest.raises(ValueError, match="nan"):
        await worker.work(float("nan"))
    with pytest.raises(ValueError, match="max_jobs"):
        GearmanWorker([], max_jobs=0)
    # None of that has begun any work.
    with pytest.raises(ServerUnavailable, match="host list"):
        await worker.work()
    assert worker.worker_abilities == {}
    assert worker.worker_client_id is None


async def test_repr_and_connection_list(server: Any, task: str) -> None:
    class Mine(GearmanWorker):
        pass

    worker = make_worker("one:1", ("::1", 2), kind=Mine, tasks={"a": reverse, "b": reverse})
    assert repr(worker) == "<Mine [one:1, [::1]:2] a, b>"
    worker = make_worker(server.address, tasks={task: reverse})
    (connection,) = worker.connection_list
    assert (connection.gearman_host, connection.gearman_port) == tuple(server.address)
    async with working(worker) as it:
        await eventually(lambda: connection.connected)
        worker.stop()
        await it.end()
        assert not connection.connected


async def test_client_id(server: Any, task: str) -> None:
    worker = make_worker(server.address, tasks={task: reverse})
    assert worker.set_client_id(f"{task}-before") == f"{task}-before"
    async with working(worker):
        await counted(server, task, (0, 0, 1))
        assert f" {task}-before :" in await admin(server, "workers")
        assert worker.set_client_id(f"{task}-after".encode()) == f"{task}-after"
        assert worker.worker_client_id == f"{task}-after"
        deadline = time.monotonic() + PATIENCE
        while f" {task}-after :" not in await admin(server, "workers"):
            assert time.monotonic() < deadline
        assert f" {task}-before :" not in await admin(server, "workers")


# How callbacks run.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_jobs", [1, 4])
async def test_slots(server: Any, task: str, kind: str, max_jobs: int) -> None:
    """As many callbacks as there are slots run at once; never more."""
    inside: list[Any] = []
    most: list[int] = []
    full = anyio.Event()
    barrier = threading.Barrier(max_jobs)

    async def function(worker: Any, job: WorkerJob) -> Any:
        inside.append(job.handle)
        most.append(len(inside))
        if len(inside) == max_jobs:
            full.set()
        # The first ones can't end before all slots are taken.
        await full.wait()
        await anyio.sleep(0.001)
        inside.remove(job.handle)
        return job.data

    def plain(worker: Any, job: WorkerJob) -> Any:
        inside.append(job.handle)
        barrier.wait(PATIENCE)
        most.append(len(inside))
        # None leaves before all have looked.
        barrier.wait(PATIENCE)
        inside.remove(job.handle)
        return job.data

    worker = make_worker(
        server.address, tasks={task: plain if kind == "plain" else function}, max_jobs=max_jobs
    )
    async with GearmanClient([server.address]) as client:
        jobs = [{"task": task, "data": b"%d" % number} for number in range(max_jobs * 10)]
        requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
        async with working(worker):
            with anyio.fail_after(PATIENCE):
                await client.wait_until_jobs_completed(requests)
    assert [request.result for request in requests] == [job["data"] for job in jobs]
    assert max(most) == max_jobs


async def test_slots_of_two_servers(launch: Any, task: str) -> None:
    """Both are served, by the same slots."""
    held = Held("async", 3)
    servers = [await launch(), await launch()]
    clients = [GearmanClient([server.address]) for server in servers]
    worker = make_worker(
        *[server.address for server in servers], tasks={task: held.callback}, max_jobs=3
    )
    async with clients[0], clients[1]:
        requests = [
            await client.submit_multiple_jobs(
                [{"task": task, "data": b"%d" % n} for n in range(5)], wait_until_complete=False
            )
            for client in clients
        ]
        async with working(worker):
            await held.wait()
            running = [(await counts(server, task))[1] for server in servers]
            assert sum(running) == 3
            assert all(running)
            held.let_go()
            for client, some in zip(clients, requests):
                with anyio.fail_after(PATIENCE):
                    await client.wait_until_jobs_completed(some)
                assert all(request.complete for request in some)


async def test_threads(local: Any, task: str) -> None:
    """A plain callback does not run in the event loop; an async one does."""
    threads: dict[str, int] = {}

    def plain(worker: Any, job: WorkerJob) -> None:
        threads["plain"] = threading.get_ident()

    async def function(worker: Any, job: WorkerJob) -> None:
        threads["async"] = threading.get_ident()

    worker = make_worker(local.address, tasks={task: plain, f"{task}-async": function})
    async with working(worker), GearmanClient([local.address]) as client:
        assert (await client.submit_job(task, b"")).complete
        assert (await client.submit_job(f"{task}-async", b"")).complete
    assert threads["plain"] != threading.get_ident()
    assert threads["async"] == threading.get_ident()


class Objects:
    """Callbacks of all forms: each returns its data behind its name."""

    async def __call__(self, worker: Any, job: WorkerJob) -> Any:
        assert isinstance(worker, GearmanWorker)
        return b"async object " + job.data

    async def method(self, worker: Any, job: WorkerJob) -> Any:
        assert isinstance(worker, GearmanWorker)
        return b"async method " + job.data

    async def partial(self, first: bytes, worker: Any, job: WorkerJob, *, last: bytes) -> Any:
        assert isinstance(worker, GearmanWorker)
        return first + b" partial " + job.data + last


class PlainObject:
    def __call__(self, worker: Any, job: WorkerJob) -> Any:
        assert not isinstance(worker, GearmanWorker)
        return b"plain object " + job.data

    def method(self, worker: Any, job: WorkerJob) -> Any:
        return b"plain method " + job.data


def plain_partial(first: bytes, worker: Any, job: WorkerJob) -> Any:
    assert threading.current_thread() is not threading.main_thread()
    return first + b" partial " + job.data


async def returned(job: WorkerJob) -> Any:
    assert threading.current_thread() is threading.main_thread()
    return b"lambda " + job.data


FORMS: list[tuple[Any, bytes]] = [
    (Objects(), b"async object x"),
    (Objects().method, b"async method x"),
    (functools.partial(Objects().partial, b"async", last=b"!"), b"async partial x!"),
    (functools.partial(functools.partial(Objects()), job=None), b""),
    (PlainObject(), b"plain object x"),
    (PlainObject().method, b"plain method x"),
    (functools.partial(plain_partial, b"plain"), b"plain partial x"),
    (lambda worker, job: returned(job), b"lambda x"),
    (lambda worker, job: b"value " + job.data, b"value x"),
]


@pytest.mark.parametrize("number", [number for number, (_, result) in enumerate(FORMS) if result])
async def test_forms_of_callbacks(local: Any, task: str, number: int) -> None:
    callback, result = FORMS[number]
    worker = make_worker(local.address, tasks={task: callback})
    async with working(worker), GearmanClient([local.address]) as client:
        assert (await client.submit_job(task, b"x")).result == result


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nothing")


@pytest.mark.parametrize("kind", KINDS)
async def test_context(local: Any, task: str, kind: str) -> None:
    """Callbacks see the variables of whoever called `work`; theirs are their own."""

    def plain(worker: Any, job: WorkerJob) -> str:
        seen = VARIABLE.get()
        VARIABLE.set("the job's")
        return seen

    async def function(worker: Any, job: WorkerJob) -> str:
        return plain(worker, job)

    worker = make_worker(local.address, tasks={task: plain if kind == "plain" else function})
    token = VARIABLE.set("the caller's")
    try:
        async with working(worker), GearmanClient([local.address]) as client:
            for _ in range(3):
                assert (await client.submit_job(task, b"")).result == b"the caller's"
    finally:
        VARIABLE.reset(token)


# What callbacks get and send.


@pytest.mark.parametrize("kind", KINDS)
async def test_updates(server: Any, task: str, kind: str) -> None:
    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        await worker.send_job_data(job, b"one")
        await worker.send_job_warning(job, "careful")
        await worker.send_job_status(job, 1, 4)
        await worker.send_job_status(job, "2", b"4")
        await worker.send_job_data(job, b"t\0wo", poll_timeout=20)
        return b"done"

    def plain(worker: Any, job: WorkerJob) -> Any:
        assert worker.send_job_data(job, b"one") is None
        worker.send_job_warning(job, "careful")
        worker.send_job_status(job, 1, 4)
        worker.send_job_status(job, "2", denominator=b"4")
        worker.send_job_data(job, b"t\0wo", poll_timeout=20)
        return b"done"

    worker = make_worker(server.address, tasks={task: plain if kind == "plain" else function})
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"", wait_until_complete=False)
        async with working(worker):
            assert [update async for update in client.updates(request)] == [
                gearman.JobData(b"one"),
                gearman.JobWarning(b"careful"),
                gearman.JobProgress(1, 4),
                gearman.JobProgress(2, 4),
                gearman.JobData(b"t\0wo"),
                gearman.JobEnded(gearman.JOB_COMPLETE, b"done"),
            ]


async def test_callback_of_the_blocking_worker(server: Any, task: str) -> None:
    """The same function does for both."""

    def function(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_status(job, 1, 2)
        if job.data == b"fail":
            worker.send_job_failure(job)
        elif job.data == b"exception":
            worker.send_job_exception(job, b"because")
        elif job.data == b"complete":
            worker.send_job_complete(job, b"sent")
        else:
            worker.send_job_data(job, b"data")
        return b"returned"

    async def outcomes() -> list[Any]:
        async with GearmanClient([server.address]) as client:
            requests = [
                await client.submit_job(task, data)
                for data in (b"fail", b"exception", b"complete", b"")
            ]
        return [
            (r.state, r.result, r.exception, list(r.data_updates), list(r.status_updates))
            for r in requests
        ]

    async with working(make_worker(server.address, tasks={task: function})):
        seen = await outcomes()
    blocking = gearman_sync.GearmanWorker([server.address])
    blocking.register_task(task, function)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(functools.partial(anyio.to_thread.run_sync, blocking.work))
        assert await outcomes() == seen
        blocking.stop()
    assert [state for state, *_ in seen] == ["FAILED", "FAILED", "COMPLETE", "COMPLETE"]
    assert seen[1][2] == b"because"
    assert [outcome[1] for outcome in seen[2:]] == [b"sent", b"returned"]
    blocking.shutdown()


class Sub(GearmanWorker):
    """A subclass with things of its own."""

    total = 0
    label = "class"

    def plain_method(self, number: int) -> int:
        return self.total + number


async def test_worker_in_a_thread(local: Any, task: str) -> None:
    """Its methods block; all else is that of the worker."""
    seen: dict[str, Any] = {}

    def function(worker: Any, job: WorkerJob) -> Any:
        seen["repr"] = repr(worker)
        seen["total"] = worker.total
        worker.total += 5
        worker.label = "instance"
        worker.new = ["new"]
        seen["method"] = worker.plain_method(1)
        seen["lock"] = worker.has_job_lock()
        seen["registered"] = worker.register_task(f"{task}-b", reverse, timeout=100)
        seen["abilities"] = list(worker.worker_abilities)
        seen["unregistered"] = worker.unregister_task(task=f"{task}-b")
        seen["client id"] = worker.set_client_id("me")
        seen["known by"] = worker.worker_client_id
        with pytest.raises(AttributeError, match="nothing"):
            _ = worker.nothing
        with pytest.raises(InvalidWorkerState, match="not registered"):
            worker.unregister_task("another")
        with pytest.raises(TypeError):
            worker.register_task(5, reverse)
        return b"done"

    worker = make_worker(local.address, kind=Sub, tasks={task: function})
    async with working(worker), GearmanClient([local.address]) as client:
        request = await client.submit_job(task, b"")
        assert (request.result, list(request.warning_updates)) == (b"done", [])
    assert seen == {
        "repr": repr(worker),
        "total": 0,
        "method": 6,
        "lock": True,
        "registered": f"{task}-b",
        "abilities": [task, f"{task}-b"],
        "unregistered": f"{task}-b",
        "client id": "me",
        "known by": "me",
    }
    assert (worker.total, worker.label, worker.new) == (5, "instance", ["new"])
    assert (Sub.total, Sub.label) == (0, "class")


async def test_another_thread_is_told(local: Any, task: str) -> None:
    """The worker itself can't be used there; `anyio.from_thread` is named."""
    refused: list[str] = []

    def function(_: Any, job: WorkerJob) -> None:
        for call in (worker.stop, functools.partial(worker.register_task, "x", reverse)):
            with pytest.raises(RuntimeError) as caught:
                call()
            refused.append(str(caught.value))
        anyio.from_thread.run(worker.send_job_data, job, b"by hand")

    worker = make_worker(local.address, tasks={task: function})
    async with working(worker), GearmanClient([local.address]) as client:
        request = await client.submit_job(task, b"")
        assert list(request.data_updates) == [b"by hand"]
    assert len(refused) == 2
    assert all("anyio.from_thread" in text for text in refused)
    assert "x" not in worker.worker_abilities


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_can_be_sent_after_the_end(server: Any, task: str, kind: str) -> None:
    refused: list[str] = []

    async def function(worker: GearmanWorker, job: WorkerJob) -> None:
        await worker.send_job_complete(job, b"done")
        for send in (
            functools.partial(worker.send_job_status, job, 1, 2),
            functools.partial(worker.send_job_data, job, b""),
            functools.partial(worker.send_job_warning, job, b""),
            functools.partial(worker.send_job_complete, job, b""),
            functools.partial(worker.send_job_failure, job),
            functools.partial(worker.send_job_exception, job, b""),
        ):
            with pytest.raises(InvalidWorkerState, match="has ended") as caught:
                await send()
            refused.append(str(caught.value))

    def plain(worker: Any, job: WorkerJob) -> None:
        worker.send_job_complete(job, b"done")
        for send in (
            functools.partial(worker.send_job_status, job, 1, 2),
            functools.partial(worker.send_job_data, job, b""),
            functools.partial(worker.send_job_warning, job, b""),
            functools.partial(worker.send_job_complete, job, b""),
            functools.partial(worker.send_job_failure, job),
            functools.partial(worker.send_job_exception, job, b""),
        ):
            with pytest.raises(InvalidWorkerState, match="has ended") as caught:
                send()
            refused.append(str(caught.value))

    worker = make_worker(server.address, tasks={task: plain if kind == "plain" else function})
    async with working(worker), GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"")
        assert request.result == b"done"
        await eventually(lambda: len(refused) == 6)
        assert not request.data_updates


@pytest.mark.parametrize("kind", KINDS)
async def test_updates_that_servers_do_not_take(local: Any, task: str, kind: str) -> None:
    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        with pytest.raises(LocalProtocolError):
            await worker.send_job_status(job, "1\0", "2")
        with pytest.raises(TypeError):
            await worker.send_job_data(job, 5)
        return b"alive"

    def plain(worker: Any, job: WorkerJob) -> Any:
        with pytest.raises(LocalProtocolError):
            worker.send_job_status(job, "1\0", "2")
        with pytest.raises(TypeError):
            worker.send_job_data(job, 5)
        return b"alive"

    worker = make_worker(local.address, tasks={task: plain if kind == "plain" else function})
    async with working(worker), GearmanClient([local.address]) as client:
        request = await client.submit_job(task, b"")
        assert request.result == b"alive"
        assert not request.status_updates


class JsonEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> str:
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return json.loads(decodable_string)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["class", "instance"])
async def test_encoder(local: Any, task: str, kind: str, place: str) -> None:
    class Encoding(GearmanWorker):
        data_encoder = JsonEncoder

    class EncodingClient(GearmanClient):
        data_encoder = JsonEncoder

    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        await worker.send_job_data(job, ["data", 1])
        await worker.send_job_warning(job, {"warning": 2})
        if job.data == "fail":
            await worker.send_job_exception(job, ["why"])
        return {"result": job.data}

    def plain(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_data(job, ["data", 1])
        worker.send_job_warning(job, {"warning": 2})
        if job.data == "fail":
            worker.send_job_exception(job, ["why"])
        return {"result": job.data}

    callback = plain if kind == "plain" else function
    worker = make_worker(
        local.address,
        kind=Encoding if place == "class" else GearmanWorker,
        tasks={task: callback, f"{task}-bad": lambda worker, job: {1, 2}},
    )
    if place == "instance":
        worker.data_encoder = JsonEncoder()
    async with working(worker), EncodingClient([local.address]) as client:
        thing = {"ümlaut": ["ß", None, 1.5]}
        request = await client.submit_job(task, thing)
        assert request.result == {"result": thing}
        assert list(request.data_updates) == [["data", 1]]
        assert list(request.warning_updates) == [{"warning": 2}]
        assert (await client.submit_job(task, "fail")).exception == ["why"]
        bad = await client.submit_job(f"{task}-bad", None)
        assert bad.state == gearman.JOB_FAILED
        assert "set is not JSON serializable" in bad.warning_updates[0]
        request = await client.submit_job(task, "again")
        assert request.result == {"result": "again"}
    assert GearmanWorker.data_encoder is not JsonEncoder


# Hooks.


class Hooked(GearmanWorker):
    """Writes down which hooks are called; they are async."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.calls: list[Any] = []

    async def on_job_execute(self, current_job: WorkerJob) -> bool:
        self.calls.append("execute")
        done = await super().on_job_execute(current_job)
        self.calls.append(done)
        return done

    async def on_job_exception(self, current_job: WorkerJob, exc_info: Any) -> bool:
        self.calls.append(exc_info[0])
        return await super().on_job_exception(current_job, exc_info)

    async def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
        self.calls.append(job_result)
        return await super().on_job_complete(current_job, job_result)

    async def after_job(self) -> bool:
        await anyio.lowlevel.checkpoint()
        self.calls.append("after")
        return True


class PlainHooked(GearmanWorker):
    """The same with plain hooks, which return what is to be awaited."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.calls: list[Any] = []

    def on_job_execute(self, current_job: WorkerJob) -> Any:
        self.calls.append("execute")
        return super().on_job_execute(current_job)

    def on_job_exception(self, current_job: WorkerJob, exc_info: Any) -> Any:
        self.calls.append(exc_info[0])
        return super().on_job_exception(current_job, exc_info)

    def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> Any:
        self.calls.append(job_result)
        return super().on_job_complete(current_job, job_result)

    def after_job(self) -> Any:
        self.calls.append("after")
        return super().after_job()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hooks", [Hooked, PlainHooked])
async def test_hooks(local: Any, task: str, kind: str, hooks: Any) -> None:
    def plain(worker: Any, job: WorkerJob) -> Any:
        return {b"good": b"result", b"bad": 5}[job.data]

    async def function(worker: Any, job: WorkerJob) -> Any:
        return plain(worker, job)

    worker = make_worker(
        local.address, kind=hooks, tasks={task: plain if kind == "plain" else function}
    )
    expected: list[Any] = []
    async with working(worker), GearmanClient([local.address]) as client:
        for data, state, calls in (
            (b"good", gearman.JOB_COMPLETE, ["execute", b"result", True, "after"]),
            (b"ugly", gearman.JOB_FAILED, ["execute", KeyError, False, "after"]),
            (b"bad", gearman.JOB_FAILED, ["execute", 5, TypeError, False, "after"]),
        ):
            assert (await client.submit_job(task, data)).state == state
            # Only the async one sees what its super has returned.
            expected += [c for c in calls if hooks is Hooked or not isinstance(c, bool)]
            await eventually(lambda: worker.calls == expected)  # noqa: B023 - it is called at once


@pytest.mark.parametrize("hooks", KINDS)
async def test_hooks_that_end_the_job_themselves(local: Any, task: str, hooks: str) -> None:
    class Async(GearmanWorker):
        async def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
            await self.send_job_complete(current_job, b"by the hook")
            return await super().on_job_complete(current_job, job_result)

        async def on_job_exception(self, current_job: WorkerJob, exc_info: Any) -> bool:
            await self.send_job_failure(current_job)
            return await super().on_job_exception(current_job, exc_info)

    class Plain(GearmanWorker):
        def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> Any:
            return self.send_job_complete(current_job, b"by the hook")

        def on_job_exception(self, current_job: WorkerJob, exc_info: Any) -> Any:
            return self.send_job_failure(current_job)

    async def function(worker: Any, job: WorkerJob) -> int:
        return 1 // len(job.data)

    worker = make_worker(
        local.address, kind=Plain if hooks == "plain" else Async, tasks={task: function}
    )
    async with working(worker) as it, GearmanClient([local.address]) as client:
        assert (await client.submit_job(task, b"x")).result == b"by the hook"
        request = await client.submit_job(task, b"")
        assert request.state == gearman.JOB_FAILED
        assert not request.warning_updates
        assert not it.ended.is_set()


async def test_callback_is_replaced_by_the_hook(local: Any, task: str) -> None:
    class Worker(GearmanWorker):
        async def on_job_execute(self, current_job: WorkerJob) -> bool:
            return await self.on_job_complete(current_job, current_job.task.encode())

    worker = make_worker(local.address, kind=Worker, tasks={task: reverse})
    async with working(worker), GearmanClient([local.address]) as client:
        assert (await client.submit_job(task, b"")).result == task.encode()


@pytest.mark.parametrize("hook", KINDS)
@pytest.mark.parametrize("max_jobs", [1, 3])
async def test_no_job_after_a_false_after_job(
    server: Any, task: str, hook: str, max_jobs: int
) -> None:
    """Jobs that run at the same time are finished; none is begun."""
    done: list[bytes] = []

    class Plain(GearmanWorker):
        def after_job(self) -> Any:
            return len(done) < 2 * max_jobs

    class Async(GearmanWorker):
        async def after_job(self) -> Any:
            await anyio.lowlevel.checkpoint()
            return len(done) < 2 * max_jobs

    inside = 0
    full = anyio.Event()

    async def function(worker: Any, job: WorkerJob) -> Any:
        # In rounds: nobody goes on before all slots are taken.
        nonlocal inside, full
        inside += 1
        this = full
        if inside == max_jobs:
            inside, full = 0, anyio.Event()
            done.extend([b""] * max_jobs)
            this.set()
        await this.wait()
        return job.data

    worker = make_worker(
        server.address,
        kind=Plain if hook == "plain" else Async,
        tasks={task: function},
        max_jobs=max_jobs,
    )
    async with GearmanClient([server.address]) as client:
        jobs = [{"task": task, "data": b"%d" % number} for number in range(4 * max_jobs)]
        await client.submit_multiple_jobs(jobs, background=True)
        with anyio.fail_after(PATIENCE):
            await worker.work()
    assert len(done) == 2 * max_jobs
    await counted(server, task, (2 * max_jobs, 0, 0))


@pytest.mark.parametrize("hook", KINDS)
async def test_after_poll(server: Any, task: str, hook: str) -> None:
    activity: list[bool] = []
    ending = False

    class Plain(GearmanWorker):
        def after_poll(self, any_activity: bool) -> Any:
            activity.append(any_activity)
            return not ending

    class Async(GearmanWorker):
        async def after_poll(self, any_activity: bool) -> Any:
            await anyio.lowlevel.checkpoint()
            activity.append(any_activity)
            return not ending

    worker = make_worker(
        server.address, kind=Plain if hook == "plain" else Async, tasks={task: reverse}
    )
    async with (
        working(worker, poll_timeout=0.02) as it,
        GearmanClient([server.address]) as client,
    ):
        await eventually(lambda: activity.count(False) > 3)
        before = activity.count(True)
        assert (await client.submit_job(task, b"ab")).result == b"ba"
        await eventually(lambda: activity.count(True) > before)
        ending = True
        await it.end()


async def test_after_poll_waits_for_the_jobs(server: Any, task: str) -> None:
    held = Held("async")

    class Worker(GearmanWorker):
        def after_poll(self, any_activity: bool) -> bool:
            return not self.has_job_lock()

    worker = make_worker(server.address, kind=Worker, tasks={task: held.callback}, max_jobs=2)
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        async with working(worker) as it:
            await held.wait()
            await counted(server, task, (1, 1, 1))
            assert not it.ended.is_set()
            held.let_go()
            await it.end()
        await client.wait_until_jobs_completed([request])
        assert request.result == b"ab"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hook", ["after_job", "after_poll"])
async def test_hook_that_raises_ends_work(server: Any, task: str, hook: str, kind: str) -> None:
    released = anyio.Event()

    class Worker(GearmanWorker):
        def raise_error(self, *args: Any) -> bool:
            if not self.has_job_lock():
                return True
            raise ZeroDivisionError("in the hook")

        async def raise_async(self, *args: Any) -> bool:
            await anyio.lowlevel.checkpoint()
            return self.raise_error()

    setattr(Worker, hook, Worker.raise_async if kind == "async" else Worker.raise_error)

    async def function(worker: Any, job: WorkerJob) -> Any:
        if hook == "after_poll":
            await released.wait()
        return b"done"

    worker = make_worker(server.address, kind=Worker, tasks={task: function}, max_jobs=2)
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"", wait_until_complete=False)
        with pytest.raises(ZeroDivisionError, match="in the hook"), anyio.fail_after(PATIENCE):
            await worker.work(0.02)
        if hook == "after_job":
            await client.wait_until_jobs_completed([request])
            assert request.result == b"done"
            await counted(server, task, (0, 0, 0))
        else:
            await counted(server, task, (1, 0, 0))
        assert not worker.has_job_lock()
    # What one `work` has raised is not the next one's.
    worker.stop()
    await worker.work()


# Stopping.


@pytest.mark.parametrize("max_jobs", [1, 2])
async def test_stop_when_idle(server: Any, task: str, max_jobs: int) -> None:
    """It waits neither for the next look nor for a poll's timeout."""
    worker = make_worker(server.address, tasks={task: reverse}, max_jobs=max_jobs, look_again=1000)
    async with working(worker, poll_timeout=None) as it:
        await counted(server, task, (0, 0, 1))
        worker.stop()
        await it.end()
    await counted(server, task, (0, 0, 0))


@pytest.mark.parametrize("times", [1, 2])
async def test_stop_before_work(server: Any, task: str, times: int) -> None:
    worker = make_worker(server.address, tasks={task: reverse})
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        for _ in range(times):
            worker.stop()
        with anyio.fail_after(PATIENCE):
            await worker.work()
        assert not request.complete
        assert await counts(server, task) == (1, 0, 0)
        # That was one `work`.
        async with working(worker):
            await client.wait_until_jobs_completed([request])
            assert request.result == b"ba"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_jobs", [1, 3])
async def test_stop_finishes_the_jobs(server: Any, task: str, kind: str, max_jobs: int) -> None:
    """Those that run, and no others."""
    held = Held(kind, max_jobs)
    worker = make_worker(server.address, tasks={task: held.callback}, max_jobs=max_jobs)
    async with GearmanClient([server.address]) as client:
        jobs = [{"task": task, "data": b"%d" % number} for number in range(max_jobs + 2)]
        requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
        async with working(worker) as it:
            await held.wait()
            worker.stop()
            worker.stop()
            await anyio.sleep(0.01)
            assert not it.ended.is_set()
            held.let_go()
            await it.end()
        assert len(held.done) == max_jobs
        done = [request for request in requests if request.job.data in held.done]
        await client.wait_until_jobs_completed(done)
        assert all(request.complete for request in done)
        assert sum(request.complete for request in requests) == max_jobs
        await counted(server, task, (2, 0, 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["callback", "after_job"])
async def test_stop_from_inside(server: Any, task: str, kind: str, place: str) -> None:
    class Worker(GearmanWorker):
        def after_job(self) -> bool:
            if place == "after_job":
                self.stop()
            return True

    done: list[bytes] = []

    def plain(worker: Any, job: WorkerJob) -> Any:
        done.append(job.data)
        if place == "callback":
            worker.stop()
        return job.data

    async def function(worker: Any, job: WorkerJob) -> Any:
        return plain(worker, job)

    worker = make_worker(
        server.address, kind=Worker, tasks={task: plain if kind == "plain" else function}
    )
    async with GearmanClient([server.address]) as client:
        await client.submit_multiple_jobs([{"task": task, "data": b""}] * 5, background=True)
        for number in (1, 2):
            with anyio.fail_after(PATIENCE):
                await worker.work()
            assert len(done) == number
            await counted(server, task, (5 - number, 0, 0))


@pytest.mark.parametrize("kind", KINDS)
async def test_stop_with_a_timeout(server: Any, task: str, kind: str) -> None:
    """A job that hangs is another worker's then; its own result is nobody's."""
    held = Held(kind, 2)
    worker = make_worker(
        server.address, tasks={task: held.callback, f"{task}-other": reverse}, max_jobs=2
    )
    async with GearmanClient([server.address]) as client:
        jobs = [{"task": task, "data": b"%d!" % number} for number in range(2)]
        requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
        async with working(worker) as it:
            await held.wait()
            before = time.monotonic()
            worker.stop(timeout=0.1)
            await it.end()
            assert 0.099 <= time.monotonic() - before < PATIENCE / 2
        assert not held.done
        assert sorted(held.gone) == ([b"0!", b"1!"] if kind == "async" else [])
        assert not worker.has_job_lock()
        async with working(make_worker(server.address, tasks={task: reverse})):
            await client.wait_until_jobs_completed(requests)
            assert [request.result for request in requests] == [b"!0", b"!1"]
        # The worker can work again, with all its slots, while those still hang.
        worker.unregister_task(task)
        other = Held("plain", 2)
        worker.register_task(f"{task}-other", other.callback)
        async with working(worker):
            jobs = [{"task": f"{task}-other", "data": b"%d" % number} for number in range(2)]
            requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
            await other.wait()
            other.let_go()
            await client.wait_until_jobs_completed(requests)
            assert [request.result for request in requests] == [b"0", b"1"]
        held.let_go()
        if kind == "plain":
            await eventually(lambda: len(held.done) == 2)


async def test_stop_with_a_timeout_that_is_long_enough(server: Any, task: str) -> None:
    held = Held("async")
    worker = make_worker(server.address, tasks={task: held.callback})
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        async with working(worker) as it:
            await held.wait()
            worker.stop(timeout=10 * PATIENCE)
            held.let_go()
            await it.end()
        await client.wait_until_jobs_completed([request])
        assert request.result == b"ab"


async def test_results_reach_clients_through_a_stop(server: Any, task: str) -> None:
    """Closing behind a result, of which much has not been written, does not destroy it."""
    payload = bytes(8 * MB)

    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        worker.stop()
        return job.data + payload

    worker = make_worker(server.address, tasks={task: function})
    async with GearmanClient([server.address]) as client:
        for number in range(2):
            request = await client.submit_job(task, b"%d" % number, wait_until_complete=False)
            with anyio.fail_after(PATIENCE):
                await worker.work()
            await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
            assert request.result == b"%d" % number + payload


async def test_work_twice_at_once(server: Any, task: str) -> None:
    """The first one does not notice."""
    held = Held("async")
    worker = make_worker(server.address, tasks={task: held.callback})
    async with GearmanClient([server.address]) as client, working(worker) as it:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        await held.wait()
        with pytest.raises(InvalidWorkerState, match="works already"):
            await worker.work()
        held.let_go()
        await client.wait_until_jobs_completed([request])
        assert request.result == b"ab"
        assert not it.ended.is_set()


async def test_work_again(server: Any, task: str) -> None:
    worker = make_worker(server.address, tasks={task: reverse})
    async with GearmanClient([server.address]) as client:
        for _ in range(3):
            async with working(worker) as it:
                assert (await client.submit_job(task, b"ab")).result == b"ba"
                worker.stop()
                await it.end()
            await counted(server, task, (0, 0, 0))


@pytest.mark.parametrize("kind", KINDS)
async def test_work_in_a_callback(server: Any, task: str, kind: str) -> None:
    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        await worker.work()

    callback: Any = function if kind == "async" else lambda worker, job: worker.work()
    worker = make_worker(server.address, tasks={task: callback})
    async with working(worker) as it, GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"")
        assert list(request.warning_updates) == [
            b"gearman_proto.errors.InvalidWorkerState: this worker works already"
        ]
        assert not it.ended.is_set()


async def test_cancelled_work_gives_the_jobs_to_others(
    server: Any, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held("async", 2)
    worker = make_worker(server.address, tasks={task: held.callback}, max_jobs=2)
    async with GearmanClient([server.address]) as client:
        jobs = [{"task": task, "data": b"%d!" % number} for number in range(2)]
        requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.work)
            await held.wait()
            tasks.cancel_scope.cancel()
        assert sorted(held.gone) == [b"0!", b"1!"]
        assert not worker.has_job_lock()
        await counted(server, task, (2, 0, 0))
        # It can work again.
        worker.register_task(task, reverse)
        async with working(worker):
            await client.wait_until_jobs_completed(requests)
            assert [request.result for request in requests] == [b"!0", b"!1"]
            assert not any(request.warning_updates for request in requests)
    # Nothing has failed.
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_move_on_after_around_work(server: Any, task: str) -> None:
    """As somebody would do it who knows nothing of `stop`."""
    worker = make_worker(server.address, tasks={task: reverse})
    with anyio.move_on_after(0.05) as scope:
        await worker.work()
    assert scope.cancelled_caught
    await counted(server, task, (0, 0, 0))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_cancellation(server: Any, task: str, anyio_backend: str) -> None:
    """`Task.cancel`, which anyio knows nothing of."""
    held = Held("async")
    worker = make_worker(server.address, tasks={task: held.callback})
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        work = asyncio.create_task(worker.work())
        await held.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert held.gone == [b"ab"]
        worker.register_task(task, reverse)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(worker.work(), 0.2)
        async with working(worker):
            await client.wait_until_jobs_completed([request])
            assert request.result == b"ba"


@pytest.mark.parametrize("kind", KINDS)
async def test_shutdown_gives_the_job_to_another(server: Any, task: str, kind: str) -> None:
    held = Held(kind)
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        async with make_worker(server.address, tasks={task: held.callback}) as worker:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.work)
                await held.wait()
                await worker.shutdown()
                await worker.shutdown()
            assert held.gone == ([b"ab"] if kind == "async" else [])
            with pytest.raises(InvalidWorkerState, match="shut down"):
                await worker.work()
            # It is of no use any more, and of no harm.
            worker.stop()
            worker.register_task(task, reverse)
            worker.unregister_task(task)
            worker.set_client_id("me")
        async with working(make_worker(server.address, tasks={task: reverse})):
            await client.wait_until_jobs_completed([request])
            assert request.result == b"ba"
        held.let_go()
        if kind == "plain":
            await eventually(lambda: held.done)


async def test_context_manager_ends_work(server: Any, task: str) -> None:
    async with (
        anyio.create_task_group() as tasks,
        make_worker(server.address, tasks={task: reverse}) as worker,
    ):
        tasks.start_soon(worker.work)
        await counted(server, task, (0, 0, 1))
    await counted(server, task, (0, 0, 0))


@pytest.mark.parametrize("kind", KINDS)
async def test_shutdown_in_a_callback(server: Any, task: str, kind: str) -> None:
    async def function(worker: Any, job: WorkerJob) -> Any:
        await worker.shutdown()

    def plain(worker: Any, job: WorkerJob) -> Any:
        worker.shutdown()

    worker = make_worker(server.address, tasks={task: plain if kind == "plain" else function})
    async with GearmanClient([server.address]) as client:
        await client.submit_job(task, b"", background=True)
        with anyio.fail_after(PATIENCE):
            await worker.work()
        with pytest.raises(InvalidWorkerState, match="shut down"):
            await worker.work()
    await counted(server, task, (1, 0, 0))


# Callbacks that fail.


def failure(text: bytes) -> list[Event]:
    return [WorkWarning(b"H:1", text), WorkFail(b"H:1")]


async def raise_error(worker: Any, job: WorkerJob) -> Any:
    raise ZeroDivisionError("too\nbad")


def plain_raise_error(worker: Any, job: WorkerJob) -> Any:
    raise ZeroDivisionError("too\nbad")


async def complete_and_raise(worker: GearmanWorker, job: WorkerJob) -> Any:
    await worker.send_job_complete(job, "done")
    raise ZeroDivisionError("afterwards")


async def complete_twice(worker: GearmanWorker, job: WorkerJob) -> Any:
    await worker.send_job_complete(job, "done")
    await worker.send_job_complete(job, "again")


def plain_complete_twice(worker: Any, job: WorkerJob) -> Any:
    worker.send_job_complete(job, "done")
    worker.send_job_complete(job, "again")


async def fail_and_return(worker: GearmanWorker, job: WorkerJob) -> Any:
    await worker.send_job_failure(job)
    return "well"


async def exception_and_fail(worker: GearmanWorker, job: WorkerJob) -> Any:
    await worker.send_job_exception(job, "why")
    await worker.send_job_failure(job)


async def data_and_raise(worker: GearmanWorker, job: WorkerJob) -> Any:
    await worker.send_job_data(job, "part")
    raise KeyError("x")


async def several(worker: Any, job: WorkerJob) -> Any:
    async def fail() -> None:
        raise KeyError("x")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail)


async def times_out(worker: Any, job: WorkerJob) -> Any:
    with anyio.fail_after(0.001):
        await anyio.sleep_forever()


async def cancels_itself(worker: Any, job: WorkerJob) -> Any:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.sleep_forever()
    return "cancelled"


async def unawaitable(worker: Any, job: WorkerJob) -> Any:
    return object()


def plain_exit(worker: Any, job: WorkerJob) -> Any:
    sys.exit(3)


def plain_interrupt(worker: Any, job: WorkerJob) -> Any:
    raise KeyboardInterrupt("in a thread")


class Odd(BaseException):
    pass


def plain_odd(worker: Any, job: WorkerJob) -> Any:
    raise Odd("odd")


def plain_generator_exit(worker: Any, job: WorkerJob) -> Any:
    raise GeneratorExit("out")


def plain_stop_iteration(worker: Any, job: WorkerJob) -> Any:
    raise StopIteration("over")


class Ascii(gearman.DataEncoder):
    """An encoder that has no form for None, and can't read everything."""

    @classmethod
    def encode(cls, encodable_object: str) -> bytes:
        return encodable_object.encode("ascii")

    @classmethod
    def decode(cls, decodable_string: bytes) -> str:
        return decodable_string.decode("ascii")


# What a callback does: its payload, what is on the wire, and the error in the log.
CALLBACKS: dict[str, tuple[Callable[..., Any], bytes, list[Event], str | None]] = {
    "none": (lambda worker, job: None, b"", [WorkComplete(b"H:1", b"")], None),
    "raises": (raise_error, b"", failure(b"ZeroDivisionError: too\nbad"), "ZeroDivisionError"),
    "raises in a thread": (
        plain_raise_error,
        b"",
        failure(b"ZeroDivisionError: too\nbad"),
        "ZeroDivisionError",
    ),
    "returns what is not encodable": (
        unawaitable,
        b"",
        failure(b"AttributeError: 'object' object has no attribute 'encode'"),
        "AttributeError",
    ),
    "not decodable": (
        reverse,
        b"\xff",
        failure(
            b"UnicodeDecodeError: 'ascii' codec can't decode byte 0xff in position 0: "
            b"ordinal not in range(128)"
        ),
        "UnicodeDecodeError",
    ),
    "completes and raises": (
        complete_and_raise,
        b"",
        [WorkComplete(b"H:1", b"done")],
        "ZeroDivisionError",
    ),
    "completes twice": (
        complete_twice,
        b"",
        [WorkComplete(b"H:1", b"done")],
        "InvalidWorkerState",
    ),
    "completes twice in a thread": (
        plain_complete_twice,
        b"",
        [WorkComplete(b"H:1", b"done")],
        "InvalidWorkerState",
    ),
    "fails and returns": (fail_and_return, b"", [WorkFail(b"H:1")], None),
    "exception and failure": (
        exception_and_fail,
        b"",
        [WorkException(b"H:1", b"why")],
        "InvalidWorkerState",
    ),
    "data and raises": (
        data_and_raise,
        b"",
        [WorkData(b"H:1", b"part"), *failure(b"KeyError: 'x'")],
        "KeyError",
    ),
    "a group": (several, b"", [], "ExceptionGroup"),
    "times out": (times_out, b"", failure(b"TimeoutError"), "TimeoutError"),
    "cancels itself": (cancels_itself, b"", [WorkComplete(b"H:1", b"cancelled")], None),
    "exits in a thread": (plain_exit, b"", failure(b"SystemExit: 3"), "SystemExit"),
    "interrupted in a thread": (
        plain_interrupt,
        b"",
        failure(b"KeyboardInterrupt: in a thread"),
        "KeyboardInterrupt",
    ),
    "odd in a thread": (
        plain_odd,
        b"",
        failure(b"tests.anyio.test_worker.Odd: odd"),
        "Odd",
    ),
    "generator exit in a thread": (
        plain_generator_exit,
        b"",
        failure(b"GeneratorExit: out"),
        "GeneratorExit",
    ),
    "stop iteration in a thread": (
        plain_stop_iteration,
        b"",
        failure(b"RuntimeError: coroutine raised StopIteration"),
        "RuntimeError",
    ),
}


@pytest.mark.parametrize(
    ("what", "max_jobs"), [(what, 1 + number % 2) for number, what in enumerate(CALLBACKS)]
)
async def test_one_end_per_job(caplog: pytest.LogCaptureFixture, what: str, max_jobs: int) -> None:
    """And the next job is done, too."""
    callback, payload, sent, error = CALLBACKS[what]

    async def function(worker: Any, job: WorkerJob) -> Any:
        return "next"

    class Worker(GearmanWorker):
        data_encoder = Ascii

        async def on_job_execute(self, current_job: WorkerJob) -> bool:
            self.register_task("task", callback if current_job.handle == "H:1" else function)
            return await super().on_job_execute(current_job)

    async with scripted(give(payload, b"next")) as server:
        worker = make_worker(
            "any:1",
            kind=Worker,
            tasks={"task": function},
            max_jobs=max_jobs,
            connect=server.connect,
        )
        async with working(worker) as it:
            # The order is that of the loop's tasks.
            ends = (WorkComplete, WorkFail, WorkException)
            await eventually(lambda: sum(isinstance(e, ends) for e in server.about_jobs) == 2)
            worker.stop()
            await it.end()
    events = server.about_jobs
    events.remove(WorkComplete(b"H:2", b"next"))
    if what == "a group":
        warning, failed = events
        assert isinstance(warning, WorkWarning)
        assert b"ExceptionGroup" in warning.data
        assert failed == WorkFail(b"H:1")
    else:
        assert events == sent
    records = [record for record in caplog.records if record.name == "gearman"]
    if error is None:
        assert not records
    else:
        (record,) = records
        assert record.levelno == logging.ERROR
        assert record.exc_info is not None
        assert record.exc_info[0] is not None
        assert record.exc_info[0].__name__ == error
        assert record.exc_info[2] is not None
        assert "H:1" in record.getMessage()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelled_asyncio_future(anyio_backend: str) -> None:
    """A callback that awaits something else that was cancelled fails, and nothing more."""

    async def function(worker: Any, job: WorkerJob) -> Any:
        if job.handle == "H:1":
            other = asyncio.ensure_future(asyncio.sleep(1000))
            asyncio.get_running_loop().call_soon(other.cancel)
            await other
        return b"next"

    async with scripted(give(b"", b"")) as server:
        worker = make_worker("any:1", tasks={"task": function}, connect=server.connect)
        async with working(worker):
            await eventually(lambda: WorkComplete(b"H:2", b"next") in server.about_jobs)
    assert [type(event) for event in server.about_jobs] == [WorkWarning, WorkFail, WorkComplete]


async def test_callback_that_swallows_its_cancellation(server: Any, task: str) -> None:
    """What it does afterwards is nobody's, and `work` ends all the same."""
    begun = anyio.Event()
    after: list[str] = []

    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        begun.set()
        try:
            await anyio.sleep_forever()
        except BaseException as error:  # noqa: BLE001 - this is what the test is about
            after.append(type(error).__name__)
        try:
            await worker.send_job_data(job, b"still here")
        except ConnectionError as error:
            after.append(str(error))
            raise
        return b"mine"

    worker = make_worker(server.address, tasks={task: function})
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        async with working(worker) as it:
            await begun.wait()
            worker.stop(0)
            await it.end()
        assert len(after) == 2
        assert "Cancel" in after[0]
        assert "was lost" in after[1]
        async with working(make_worker(server.address, tasks={task: reverse})):
            await client.wait_until_jobs_completed([request])
            assert request.result == b"ba"
        assert not request.data_updates


@pytest.mark.parametrize("kind", KINDS)
async def test_kept_jobs(server: Any, task: str, kind: str) -> None:
    """After `work` has ended, nothing can be sent about them."""
    kept: list[tuple[Any, WorkerJob]] = []
    errors: list[Exception] = []
    held = Held(kind)

    async def function(worker: Any, job: WorkerJob) -> Any:
        kept.append((worker, job))
        if job.data == b"hold":
            return await held.callback(worker, job)
        return b"done"

    def plain(worker: Any, job: WorkerJob) -> Any:
        kept.append((worker, job))
        if job.data == b"hold":
            held.callback(worker, job)
            # By now `work` has ended, and nobody waits for this thread.
            for send in (worker.send_job_data, worker.send_job_complete):
                with pytest.raises(ConnectionError) as caught:
                    send(job, b"late")
                errors.append(caught.value)
        return b"done"

    worker = make_worker(server.address, tasks={task: plain if kind == "plain" else function})
    async with GearmanClient([server.address]) as client:
        async with working(worker) as it:
            assert (await client.submit_job(task, b"end")).result == b"done"
            await client.submit_job(task, b"hold", background=True)
            await held.wait()
            worker.stop(0)
            await it.end()
        (_, ended), (_, lost) = kept
        with pytest.raises(InvalidWorkerState, match="has ended"):
            await worker.send_job_data(ended, b"late")
        assert lost.is_lost
        held.let_go()
        if kind == "plain":
            await eventually(lambda: len(errors) == 2)
        else:
            for send in (worker.send_job_data, worker.send_job_complete):
                with pytest.raises(ConnectionError) as caught:
                    await send(lost, b"late")
                errors.append(caught.value)
        reason = "given up" if kind == "plain" else "was lost"
        assert [reason in str(error) for error in errors] == [True, True]
        with pytest.raises((InvalidWorkerState, ConnectionError), match=r"has ended|was lost"):
            await worker.send_job_failure(lost)
        # The server has heard nothing of it.
        await counted(server, task, (1, 0, 0))


@pytest.mark.parametrize("error", [SystemExit(7), KeyboardInterrupt("now")])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_base_exception_in_the_event_loop(backend: str, error: BaseException) -> None:
    """In an async callback it is the program's: it leaves `work`, and the job is another's."""
    seen: list[Any] = []

    async def function(worker: Any, job: WorkerJob) -> Any:
        raise error

    async def main() -> None:
        async with gearman.JobServer() as server, GearmanClient([server.address]) as client:
            request = await client.submit_job("task", b"ab", wait_until_complete=False)
            worker = make_worker(server.address, tasks={"task": function})
            try:
                await worker.work()
            except BaseException as raised:
                seen.append(raised)
                if raised is not error:
                    raise  # asyncio has told the loop, and cancels all that is in it.
            seen.append(worker.has_job_lock())
            worker.register_task("task", reverse)
            async with working(worker):
                await client.wait_until_jobs_completed([request])
                seen.append((request.result, list(request.warning_updates)))

    if backend == "asyncio":
        # asyncio lets these out of its loop at once, whoever would catch them.
        with pytest.raises(type(error)) as caught:
            anyio.run(main, backend=backend)
        assert caught.value is error
    else:
        anyio.run(main, backend=backend)
        assert seen == [error, False, (b"ba", [])]


@pytest.mark.parametrize("kind", KINDS)
async def test_exceptions(kind: str) -> None:
    """WORK_EXCEPTION alone."""
    callback = plain_raise_error if kind == "plain" else raise_error
    async with scripted(give(b"1", b"2")) as server:
        worker = make_worker(
            "any:1", tasks={"task": callback}, exceptions=True, connect=server.connect
        )
        async with working(worker):
            await eventually(lambda: len(server.about_jobs) == 2)
    text = b"ZeroDivisionError: too\nbad"
    assert server.about_jobs == [WorkException(b"H:1", text), WorkException(b"H:2", text)]


@pytest.mark.parametrize("exceptions", [False, True])
async def test_what_the_client_sees(server: Any, task: str, exceptions: bool) -> None:
    worker = make_worker(server.address, tasks={task: raise_error}, exceptions=exceptions)
    text = b"ZeroDivisionError: too\nbad"
    async with working(worker):
        for asks in (True, False):
            async with GearmanClient([server.address], exceptions=asks) as client:
                for _ in range(2):
                    request = await client.submit_job(task, b"")
                    assert request.state == gearman.JOB_FAILED
                    assert request.result is None
                    assert request.exception == (text if exceptions and asks else None)
                    assert list(request.warning_updates) == ([] if exceptions else [text])


@pytest.mark.parametrize("hook", KINDS)
async def test_job_that_a_hook_leaves_open(caplog: pytest.LogCaptureFixture, hook: str) -> None:
    class Async(GearmanWorker):
        async def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
            return True

    class Plain(GearmanWorker):
        def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> Any:
            return True

    async with scripted(give(b"1")) as server:
        kind = Plain if hook == "plain" else Async
        worker = make_worker("any:1", kind=kind, tasks={"task": reverse}, connect=server.connect)
        async with working(worker):
            await eventually(lambda: server.about_jobs)
    assert server.about_jobs == [WorkFail(b"H:1")]
    assert "left without an end" in caplog.text


@pytest.mark.parametrize("hook", KINDS)
@pytest.mark.parametrize("name", ["on_job_execute", "on_job_complete", "on_job_exception"])
async def test_hook_that_fails(caplog: pytest.LogCaptureFixture, hook: str, name: str) -> None:
    class Worker(GearmanWorker):
        def raises(self, current_job: WorkerJob, *args: Any) -> Any:
            if current_job.handle == "H:1":
                raise LookupError("hook")
            return getattr(super(), name)(current_job, *args)

        async def async_raises(self, current_job: WorkerJob, *args: Any) -> Any:
            return await self.raises(current_job, *args)

    async def function(worker: Any, job: WorkerJob) -> Any:
        if job.handle == "H:1" and name == "on_job_exception":
            raise ZeroDivisionError
        return job.data

    setattr(Worker, name, Worker.async_raises if hook == "async" else Worker.raises)
    async with scripted(give(b"1", b"2")) as server:
        worker = make_worker("any:1", kind=Worker, tasks={"task": function}, connect=server.connect)
        async with working(worker):
            await eventually(lambda: WorkComplete(b"H:2", b"2") in server.about_jobs)
    assert server.about_jobs == [
        *failure(b"LookupError: hook"),
        WorkComplete(b"H:2", b"2"),
    ]
    assert "a hook failed" in caplog.text


async def test_job_of_a_task_that_is_unknown() -> None:
    async with scripted(give(b"1")) as server:
        worker = make_worker("any:1", tasks={"another": reverse}, connect=server.connect)
        async with working(worker):
            await eventually(lambda: len(server.about_jobs) == 2)
    assert server.about_jobs == failure(b"KeyError: 'task'")


# Tasks that come and go.


async def test_register_while_it_works(server: Any, task: str) -> None:
    worker = make_worker(server.address)

    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        worker.register_task(f"{task}-2", reverse)
        return b"registered"

    def plain(worker: Any, job: WorkerJob) -> Any:
        worker.register_task(f"{task}-3", plain_reverse)
        return b"registered"

    async with GearmanClient([server.address]) as client:
        requests = await client.submit_multiple_jobs(
            [{"task": f"{task}-{n}", "data": b"ab"} for n in range(4)], wait_until_complete=False
        )
        async with working(worker):
            await eventually(lambda: worker.connection_list[0].connected)
            worker.register_task(f"{task}-0", function)
            await client.wait_until_jobs_completed(requests[:1])
            worker.register_task(f"{task}-1", plain)
            await client.wait_until_jobs_completed(requests)
    assert [request.result for request in requests] == [b"registered"] * 2 + [b"ba"] * 2


async def test_registered_again(server: Any, task: str) -> None:
    worker = make_worker(server.address, tasks={task: reverse})
    async with working(worker), GearmanClient([server.address]) as client:
        assert (await client.submit_job(task, b"ab")).result == b"ba"
        worker.register_task(task, lambda worker, job: b"new", timeout=10)
        assert (await client.submit_job(task, b"ab")).result == b"new"
        with pytest.raises(ValueError, match="timeout"):
            worker.register_task(task, lambda worker, job: b"wrong", timeout=-1)
        assert (await client.submit_job(task, b"ab")).result == b"new"
        assert await counts(server, task) == (0, 0, 1)


async def test_unregister_while_jobs_are_queued(server: Any, task: str) -> None:
    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        worker.unregister_task(task)
        return b"last"

    worker = make_worker(server.address, tasks={task: function, f"{task}-other": reverse})
    async with GearmanClient([server.address]) as client:
        jobs = [{"task": task, "data": b"%d" % number} for number in range(5)]
        requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
        async with working(worker):
            await client.wait_until_jobs_completed(requests[:1])
            assert (await client.submit_job(f"{task}-other", b"ab")).result == b"ba"
            assert await counts(server, task) == (4, 0, 0)
            worker.register_task(task, reverse)
            await client.wait_until_jobs_completed(requests)
    assert [request.result for request in requests] == [b"last", b"1", b"2", b"3", b"4"]


async def test_job_that_submits(server: Any, task: str) -> None:
    """It waits for another, which the same worker does, with the same client."""

    async def outer(worker: GearmanWorker, job: WorkerJob) -> Any:
        return (await client.submit_job(f"{task}-inner", job.data)).result

    worker = make_worker(
        server.address, tasks={task: outer, f"{task}-inner": plain_reverse}, max_jobs=2
    )
    async with working(worker), GearmanClient([server.address]) as client:
        assert (await client.submit_job(task, b"ab")).result == b"ba"


# Connections that are lost.


@pytest.mark.parametrize("kind", KINDS)
async def test_server_dies_in_the_middle_of_a_job(
    launch: Any, task: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The callback hears of it when it sends, and the worker comes back to the server."""
    begun = False
    killed = threading.Event()
    outcomes: list[str] = []

    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        nonlocal begun
        if job.data == b"lost":
            begun = True
            await eventually(lambda: job.is_lost)
            for _ in range(2):
                with pytest.raises(ConnectionError, match="was lost") as caught:
                    await worker.send_job_data(job, b"x")
                outcomes.append(str(caught.value))
        return job.data

    def plain(worker: Any, job: WorkerJob) -> Any:
        nonlocal begun
        if job.data == b"lost":
            begun = True
            wait_for(killed)
            deadline = time.monotonic() + PATIENCE
            while not job.is_lost and time.monotonic() < deadline:
                time.sleep(0.002)
            for _ in range(2):
                with pytest.raises(ConnectionError, match="was lost") as caught:
                    worker.send_job_data(job, b"x")
                outcomes.append(str(caught.value))
        return job.data

    server = await launch()
    worker = make_worker(server.address, tasks={task: plain if kind == "plain" else function})
    async with working(worker) as it:
        async with GearmanClient([server.address]) as client:
            lost = await client.submit_job(task, b"lost", wait_until_complete=False)
            await eventually(lambda: begun)
            await server.kill()
            killed.set()
            with anyio.fail_after(PATIENCE):
                await client.wait_until_jobs_completed([lost])
            assert lost.state == gearman.JOB_UNKNOWN
            await eventually(lambda: len(outcomes) == 2)
        await server.start()
        async with GearmanClient([server.address]) as client:
            assert (await client.submit_job(task, b"next")).result == b"next"
        assert not it.ended.is_set()
    assert any("and 1 jobs with it" in record.getMessage() for record in caplog.records)


async def test_one_of_two_servers_dies(launch: Any, task: str) -> None:
    servers = [await launch(), await launch()]
    go_on = anyio.Event()
    begun: list[Any] = []

    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        if job.data == b"wait":
            begun.append(job.handle)
            await go_on.wait()
        return job.data

    worker = make_worker(
        *[server.address for server in servers], tasks={task: function}, max_jobs=2
    )
    clients = [GearmanClient([server.address]) for server in servers]
    async with working(worker), clients[0], clients[1]:
        held = [
            await client.submit_job(task, b"wait", wait_until_complete=False) for client in clients
        ]
        await eventually(lambda: len(begun) == 2)
        await servers[0].kill()
        await clients[0].wait_until_jobs_completed(held[:1])
        assert held[0].state == gearman.JOB_UNKNOWN
        # The other's job goes on, and its next.
        go_on.set()
        await clients[1].wait_until_jobs_completed(held[1:])
        assert held[1].result == b"wait"
        assert (await clients[1].submit_job(task, b"1")).result == b"1"
        await servers[0].start()
        assert (await clients[0].submit_job(task, b"0")).result == b"0"
        assert [server.connected for server in worker.connection_list] == [True, True]


async def test_no_server(task: str) -> None:
    ports = [free_port(), free_port()]
    worker = make_worker(*[("127.0.0.1", port) for port in ports], tasks={task: reverse})
    for _ in range(2):
        with pytest.raises(ServerUnavailable) as caught, anyio.fail_after(PATIENCE):
            await worker.work()
        assert all(f"127.0.0.1:{port}" in str(caught.value) for port in ports)
        assert "refused" in str(caught.value).lower()
    async with (
        gearman.JobServer(port=ports[1]) as server,
        working(worker),
        GearmanClient([server.address]) as client,
    ):
        assert (await client.submit_job(task, b"ab")).result == b"ba"


async def test_stop_while_there_is_no_server(launch: Any, task: str) -> None:
    server = await launch()
    worker = make_worker(server.address, tasks={task: reverse}, max_outage=None)
    async with working(worker) as it:
        async with GearmanClient([server.address]) as client:
            assert (await client.submit_job(task, b"ab")).result == b"ba"
        await server.kill()
        await eventually(lambda: not worker.connection_list[0].connected)
        worker.stop()
        await it.end()


async def test_outage(launch: Any, task: str) -> None:
    server = await launch()
    worker = make_worker(server.address, tasks={task: reverse}, max_outage=0.1)
    async with working(worker) as it:
        async with GearmanClient([server.address]) as client:
            assert (await client.submit_job(task, b"ab")).result == b"ba"
        await server.kill()
        with pytest.raises(ServerUnavailable, match=str(server.address[1])):
            await it.end()
    await server.start()
    async with working(worker), GearmanClient([server.address]) as client:
        assert (await client.submit_job(task, b"ab")).result == b"ba"


async def test_garbage(caplog: pytest.LogCaptureFixture) -> None:
    """It costs the connection, and the server is used again."""

    async def script(peer: Peer) -> None:
        if len(server.peers) > 1:
            await give(b"ab")(peer)
        await peer.expect(CanDo)
        await peer.expect(GrabJobUniq)
        await peer.send(NoJob())
        await peer.stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.hold()

    async with scripted(script) as server:
        worker = make_worker("any:1", tasks={"task": reverse}, connect=server.connect)
        async with working(worker):
            await eventually(lambda: server.about_jobs)
    assert server.about_jobs == [WorkComplete(b"H:1", b"ba")]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "no connection to any:1" in warnings[0].getMessage()


async def test_streams_that_fail(task: str) -> None:
    """Whatever `connect` raises is a connection that could not be made."""
    calls = 0

    class Own(Exception):
        pass

    async def connect(address: Any) -> ByteStream:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Own("mine")
        if calls == 3:
            raise anyio.BrokenResourceError
        return await server.connect(address)

    async with gearman.JobServer() as server:
        worker = make_worker("any:1", tasks={task: reverse}, connect=connect)
        async with working(worker), GearmanClient(connect=server.connect) as client:
            assert (await client.submit_job(task, b"ab")).result == b"ba"
        for reason in ("mine", "BrokenResourceError"):
            with pytest.raises(ServerUnavailable, match=reason):
                await worker.work()
        async with working(worker), GearmanClient(connect=server.connect) as client:
            assert (await client.submit_job(task, b"ab")).result == b"ba"


async def test_refused_results_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.expect(CanDo)
        await peer.expect(GrabJobUniq)
        await peer.send(JobAssignUniq(b"H:1", b"task", b"u", b"ab"))
        await peer.expect(WorkComplete)
        await peer.stream.send(b"\0RES\0\0\0\x13\0\0\0\x0fJOB_NOT_FOUND\0no")
        await peer.hold()

    async with scripted(script) as server:
        worker = make_worker("any:1", tasks={"task": reverse}, connect=server.connect)
        async with working(worker) as it:
            await eventually(lambda: caplog.records)
            assert not it.ended.is_set()
    assert "JOB_NOT_FOUND" in caplog.text


# Much data, and none.


@pytest.mark.parametrize("kind", KINDS)
async def test_stream_to_a_server_that_reads_slowly(kind: str) -> None:
    """The callback is held back, instead of all being kept; and nothing of it is lost."""
    reading = anyio.Event()
    received = 0
    sent: list[int] = []

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.expect(CanDo)
        await peer.expect(GrabJobUniq)
        await peer.send(JobAssignUniq(b"H:1", b"task", b"u", b""))
        await reading.wait()
        while not isinstance(event := await peer.receive(), WorkComplete):
            peer.events.clear()
            if isinstance(event, WorkData):
                received += len(event.data)
            elif isinstance(event, GrabJobUniq):
                await peer.send(NoJob())

    payload = bytes(100_000)

    async def function(worker: Any, job: WorkerJob) -> Any:
        for number in range(300):
            sent.append(number)
            await worker.send_job_data(job, payload)
        return b"end"

    def plain(worker: Any, job: WorkerJob) -> Any:
        for number in range(300):
            sent.append(number)
            worker.send_job_data(job, payload)
        return b"end"

    async with scripted(script) as server:
        worker = make_worker(
            "any:1",
            tasks={"task": plain if kind == "plain" else function},
            connect=server.connect,
        )
        async with working(worker):
            settled = -1
            while settled != len(sent) or not sent:  # It stands still.
                settled = len(sent)
                await anyio.sleep(0.05)
            # A megabyte, and what is in the pipe.
            assert 5 < len(sent) < 30
            reading.set()
            await eventually(lambda: received == 300 * 100_000)
    assert len(sent) == 300


@pytest.mark.parametrize("kind", KINDS)
async def test_poll_timeout_of_what_is_sent(kind: str) -> None:
    """It bounds how long a callback is held back; the packet is sent all the same."""
    reading = anyio.Event()
    waited: list[float] = []

    async def script(peer: Peer) -> None:
        await peer.expect(CanDo)
        await peer.expect(GrabJobUniq)
        await peer.send(JobAssignUniq(b"H:1", b"task", b"u", b""))
        await reading.wait()
        await peer.hold()

    async def function(worker: Any, job: WorkerJob) -> Any:
        for _ in range(8):
            before = time.monotonic()
            await worker.send_job_data(job, bytes(MB), poll_timeout=0.05)
            waited.append(time.monotonic() - before)
        reading.set()
        return b"end"

    def plain(worker: Any, job: WorkerJob) -> Any:
        for _ in range(8):
            before = time.monotonic()
            worker.send_job_data(job, bytes(MB), poll_timeout=0.05)
            waited.append(time.monotonic() - before)
        anyio.from_thread.run_sync(reading.set)
        return b"end"

    async with scripted(script) as server:
        worker = make_worker(
            "any:1",
            tasks={"task": plain if kind == "plain" else function},
            connect=server.connect,
        )
        async with working(worker):
            await eventually(lambda: WorkComplete(b"H:1", b"end") in server.about_jobs)
    sizes = [len(event.data) for event in server.about_jobs if isinstance(event, WorkData)]
    assert sizes == [MB] * 8
    # The first ones fit into the pipe; clocks may differ a little.
    assert waited[-1] >= 0.049


async def test_cancelled_send(task: str) -> None:
    """A callback may give up sending: what it has sent is whole, and what follows is in order."""
    reading = anyio.Event()

    async def script(peer: Peer) -> None:
        await peer.expect(CanDo)
        await peer.expect(GrabJobUniq)
        await peer.send(JobAssignUniq(b"H:1", b"task", b"u", b""))
        await reading.wait()
        await peer.hold()

    async def function(worker: Any, job: WorkerJob) -> Any:
        gave_up = 0
        for number in range(10):
            with anyio.move_on_after(0.01) as scope:
                await worker.send_job_data(job, b"%d" % number + bytes(MB))
            gave_up += scope.cancelled_caught
        reading.set()
        return b"%d" % (gave_up > 0)

    async with scripted(script) as server:
        worker = make_worker("any:1", tasks={"task": function}, connect=server.connect)
        async with working(worker):
            await eventually(lambda: WorkComplete(b"H:1", b"1") in server.about_jobs)
    data = [event.data for event in server.about_jobs if isinstance(event, WorkData)]
    assert data == [b"%d" % number + bytes(MB) for number in range(10)]


@pytest.mark.parametrize("kind", KINDS)
async def test_big_jobs(server: Any, task: str, kind: str) -> None:
    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        await worker.send_job_data(job, job.data)
        return job.data[::-1]

    def plain(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_data(job, job.data)
        return job.data[::-1]

    worker = make_worker(server.address, tasks={task: plain if kind == "plain" else function})
    data = b"a" * (2 * MB) + b"b" * (2 * MB)
    async with working(worker), GearmanClient([server.address]) as client:
        request = await client.submit_job(task, data)
        assert request.result == data[::-1]
        assert list(request.data_updates) == [data]


async def test_many_jobs(server: Any, task: str) -> None:
    """Async and plain ones mixed, from several clients."""
    worker = make_worker(
        server.address, tasks={task: reverse, f"{task}-plain": plain_reverse}, max_jobs=8
    )

    async def run(number: int) -> None:
        async with GearmanClient([server.address]) as client:
            name = f"{task}-plain" if number % 2 else task
            data = [b"%d-%d" % (number, job) for job in range(30)]
            for each in data[:5]:
                assert (await client.submit_job(name, each)).result == each[::-1]
            requests = await client.submit_multiple_jobs([{"task": name, "data": d} for d in data])
            assert [request.result for request in requests] == [d[::-1] for d in data]

    async with working(worker):
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(run, number)


async def test_idle_worker_does_nothing(
    server: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine is hardly ever asked."""
    worker = make_worker(
        server.address, tasks={task: reverse}, look_again=1000, connect=None, max_jobs=2
    )
    async with (
        working(worker, poll_timeout=None),
        GearmanClient([server.address]) as client,
    ):
        assert (await client.submit_job(task, b"ab")).result == b"ba"
        await anyio.sleep(0.05)
        calls: list[str] = []
        engine = worker._driver.engine
        real = engine.next_deadline

        def next_deadline() -> Any:
            calls.append("asked")
            return real()

        monkeypatch.setattr(engine, "next_deadline", next_deadline)
        await anyio.sleep(0.2)
        # An alarm that was set for something else may still ring, once.
        assert len(calls) < 5
        # This would have shown it.
        assert (await client.submit_job(task, b"cd")).result == b"dc"
        assert calls


async def test_woken_at_once(server: Any, task: str) -> None:
    """By the server, and not by looking again."""
    worker = make_worker(server.address, tasks={task: reverse}, look_again=1000)
    async with (
        working(worker, poll_timeout=None),
        GearmanClient([server.address]) as client,
    ):
        for number in range(20):
            request = await client.submit_job(task, b"%d" % number, poll_timeout=PATIENCE)
            assert request.complete


async def test_stop_asks_the_server_nothing_when_idle() -> None:
    """There is no result that it could have missed: a server that is silent does not matter."""
    asleep = anyio.Event()

    async def script(peer: Peer) -> None:
        await peer.expect(CanDo)
        await peer.expect(GrabJobUniq)
        await peer.send(NoJob())
        await peer.expect(PreSleep)
        asleep.set()
        await peer.hold()

    async with scripted(script) as server:
        worker = make_worker(
            "any:1", tasks={"task": reverse}, look_again=1000, connect=server.connect
        )
        async with working(worker) as it:
            await asleep.wait()
            worker.stop()
            await it.end()
    assert [type(event) for event in server.peers[0].events] == [CanDo, GrabJobUniq, PreSleep]
