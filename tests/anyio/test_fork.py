"""Forks: a child keeps no connection open, affects none, and exits at the end of its callback."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute

import gearman_anyio as gearman
from tests.support import PATIENCE, black_hole, server_context
from tests.sync.test_fork import Child

from .conftest import open_sockets
from .support import counted, make_worker, reverse, until, working
from .test_streams import Tunnel, tcp

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import Self

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
    # Warnings about forking with threads, and about event loops collected in the child.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


class Hidden:
    """A socket that can't be closed or shut down, as uvloop shows it."""

    def __init__(self, sock: Any) -> None:
        self.fileno = sock.fileno
        self.setsockopt = sock.setsockopt


class Hiding(Tunnel):
    """A stream whose raw socket is Hidden."""

    @property
    def extra_attributes(self) -> Any:
        return {SocketAttribute.raw_socket: lambda: Hidden(self._raw_socket())}

    def _raw_socket(self) -> Any:
        return self.stream.extra(SocketAttribute.raw_socket)


async def connect_hiding(address: Any) -> Hiding:
    return Hiding(await tcp(address))


class AnyConnections:
    """One connection of each kind, for use in ``async with``."""

    def __init__(self, certificates: Path, context: ssl.SSLContext) -> None:
        self._certificates = certificates
        self._context = context
        self._stack = contextlib.AsyncExitStack()
        self.clients: list[Any] = []
        #: Their sockets, as `open_sockets` names them.
        self.sockets: set[str] = set()

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_async_context
        hole = self._stack.enter_context(black_hole())
        others = open_sockets()
        server = await enter(gearman.JobServer())
        secure = await enter(gearman.JobServer(ssl_context=server_context(self._certificates)))
        self.clients = [
            await enter(gearman.GearmanClient([server.address])),
            await enter(gearman.GearmanClient([server.address], connect=tcp)),
            await enter(gearman.GearmanClient([server.address], connect=connect_hiding)),
            await enter(
                gearman.GearmanClient(
                    [("localhost", secure.address.port)], ssl_context=self._context
                )
            ),
        ]
        self.admin = await enter(gearman.GearmanAdminClient([server.address]))
        worker = make_worker(server.address, tasks={"reverse": reverse})
        await enter(working(worker))
        # The connection attempt of this client never completes.
        late = await enter(gearman.GearmanClient([hole]))
        tasks = await enter(anyio.create_task_group())
        self._stack.callback(tasks.cancel_scope.cancel)
        await counted(server, "reverse", (0, 0, 1))
        await self.use()
        before = open_sockets()
        tasks.start_soon(late.submit_job, "reverse", b"")
        await until(lambda: open_sockets() - before, "the socket that connects")
        self.sockets = open_sockets() - others
        return self

    async def __aexit__(self, *args: object) -> None:
        await self._stack.aclose()

    async def use(self) -> None:
        """Use each connection, and check that none has to reconnect."""
        assert (await self.clients[0].submit_job("reverse", b"ab")).result == b"ba"
        for client in self.clients:
            request = await client.submit_job("queue", b"", background=True)
            assert request.connection_attempts == 1
        assert await self.admin.ping_server() > 0


@pytest.fixture
def connections(tls_certificates: Path, tls_context: ssl.SSLContext) -> AnyConnections:
    return AnyConnections(tls_certificates, tls_context)


async def test_child_has_no_socket(connections: AnyConnections) -> None:
    async with connections:
        # Both ends of six connections, one connection attempt, and two listening sockets.
        assert len(connections.sockets) == 15
        child = Child(lambda: open_sockets() & connections.sockets)
        await connections.use()
        assert child.result() == set()
        await connections.use()


async def test_numbers_in_the_child_are_free(connections: AnyConnections) -> None:
    """The child's files reuse the sockets' descriptors, and no collected object closes them."""
    async with connections:

        def in_child() -> int:
            files = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
            connections.clients.clear()
            gc.collect()
            return len([os.fstat(file) for file in files])

        assert Child(in_child).result() == 40
        await connections.use()


async def test_client_used_in_the_child_raises(connections: AnyConnections) -> None:
    async with connections:
        client = connections.clients[0]

        def in_child() -> str:
            try:
                client.submit_job("queue", b"", background=True).send(None)
            except RuntimeError as error:
                return str(error)
            raise AssertionError("it was served")

        assert "make a new one in the child" in Child(in_child).result()


async def test_requests_are_lost_to_the_child(server: Any, task: str) -> None:
    async with gearman.GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"", wait_until_complete=False)
        assert Child(lambda: request.state).result() == gearman.JOB_UNKNOWN
        assert request.state == gearman.JOB_CREATED


async def test_client_that_was_not_used_works_in_the_child(
    server: Any, task: str, anyio_backend: str
) -> None:
    client = gearman.GearmanClient([server.address])

    async def submit() -> bool:
        async with client:
            return bool((await client.submit_job(task, b"", background=True)).complete)

    def in_child() -> bool:
        asyncio.events._set_running_loop(None)
        return asyncio.run(submit())

    assert await anyio.to_thread.run_sync(lambda: Child(in_child).result())


# The end of a connection.


@pytest.mark.both_streams
@pytest.mark.parametrize("end", ["client", "worker", "server"])
async def test_orderly_end_ends_all_copies(server: Any, task: str, end: str) -> None:
    """Closing ends the connection even if a child that bypassed Python's fork hooks has copies."""
    before = open_sockets()
    copies: list[int] = []

    def copy() -> None:
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}") in open_sockets() - before:
                    copies.append(os.dup(int(name)))

    try:
        if end == "client":
            async with gearman.GearmanClient([server.address]) as client:
                await client.submit_job(task, b"", background=True)
                copy()
        elif end == "worker":
            async with working(make_worker(server.address, tasks={task: reverse})):
                await counted(server, task, (0, 0, 1))
                copy()
        else:
            async with gearman.JobServer() as other:
                copy()
            with pytest.raises(OSError):
                await anyio.connect_tcp(*other.address)
        assert copies
        await until(lambda: not server._gm_driver.engine.links, "the end of the connection")
    finally:
        for number in copies:
            os.close(number)


PROGRAM = textwrap.dedent("""
    import multiprocessing, os, sys, time
    import anyio
    from gearman_anyio import GearmanWorker

    def sleep(pipe):
        pipe.send(os.getpid())
        time.sleep(600)

    def start():
        near, far = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=sleep, args=(far,))
        process.start()
        print(near.recv(), flush=True)

    async def in_the_loop(worker, job):
        start()
        await anyio.sleep_forever()

    def in_a_thread(worker, job):
        start()
        time.sleep(600)

    async def main():
        worker = GearmanWorker([(sys.argv[1], int(sys.argv[2]))])
        worker.register_task(sys.argv[3], globals()[sys.argv[4]])
        await worker.work()

    anyio.run(main, backend=sys.argv[5])
""")


@pytest.mark.parametrize(
    ("callback", "anyio_backend"), [("in_the_loop", "trio"), ("in_a_thread", "asyncio")]
)
async def test_job_of_a_killed_worker_is_reassigned(
    server: Any, task: str, callback: str, anyio_backend: str
) -> None:
    """The job is reassigned although a multiprocessing child of the worker is alive."""
    host, port = server.address
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    words += [host, str(port), task, callback, anyio_backend]
    async with gearman.GearmanClient([server.address]) as client:
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        async with await anyio.open_process(words, stderr=None) as process:
            assert process.stdout is not None
            child = int(await process.stdout.receive())
            try:
                process.kill()
                await process.wait()
                async with working(make_worker(server.address, tasks={task: reverse})):
                    with anyio.fail_after(PATIENCE):
                        await client.wait_until_jobs_completed([request])
                assert request.result == b"ba"
                os.kill(child, 0)  # The child is still alive.
            finally:
                os.kill(child, signal.SIGKILL)


# Callbacks that fork.


def leave(how: str) -> bytes:
    """Leave a callback by returning, raising or exiting."""
    if how == "raises":
        raise ZeroDivisionError("in the child")
    if how == "exits":
        sys.exit(7)
    return b"of the child"


@pytest.mark.parametrize(
    ("kind", "how", "status"),
    [("async", "returns", 1), ("plain", "raises", 1), ("awaitable", "exits", 7)],
)
async def test_child_ends_where_its_callback_does(
    server: Any, task: str, kind: str, how: str, status: int
) -> None:
    children: list[int] = []

    def plain(worker: Any, job: gearman.WorkerJob) -> bytes:
        if (child := os.fork()) == 0:
            # The alarm ends a child that does not exit.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            return leave(how)
        children.append(child)
        data: bytes = job.data
        return data

    async def awaited(worker: Any, job: gearman.WorkerJob) -> bytes:
        return plain(worker, job)

    def awaitable(worker: Any, job: gearman.WorkerJob) -> Awaitable[bytes]:
        return awaited(worker, job)

    callbacks: dict[str, Callable[..., Any]] = {
        "async": awaited,
        "plain": plain,
        "awaitable": awaitable,
    }
    worker = make_worker(server.address, tasks={task: callbacks[kind]})
    async with working(worker), gearman.GearmanClient([server.address]) as client:
        for number in range(3):
            data = b"%d" % number
            assert (await client.submit_job(task, data)).result == data
    for child in children:
        _, ended = await anyio.to_thread.run_sync(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(ended) == status
    assert len(children) == 3


async def test_multiprocessing_child_runs_to_its_end(server: Any, task: str) -> None:
    def square(number: int) -> int:
        return number * number

    def function(worker: Any, job: gearman.WorkerJob) -> bytes:
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        process = context.Process(target=lambda: results.put(square(int(job.data))))
        process.start()
        result = results.get()
        process.join()
        assert process.exitcode == 0
        return b"%d" % result

    async with (
        working(make_worker(server.address, tasks={task: function})),
        gearman.GearmanClient([server.address]) as client,
    ):
        for number in range(3):
            request = await client.submit_job(task, b"%d" % number)
            assert request.result == b"%d" % (number * number)
