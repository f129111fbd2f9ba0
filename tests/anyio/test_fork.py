"""Forks: a child keeps no connection open and affects none."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute

import gearman_anyio as gearman
from tests.support import PATIENCE, black_hole, server_context
from tests.sync.test_fork import Child

from .stepping import open_sockets
from .support import reverse, until, working
from .test_streams import Tunnel, tcp

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

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
        raw = SocketAttribute.raw_socket
        return {raw: lambda: Hidden(self.stream.extra(raw))}


async def connect_hiding(address: Any) -> Hiding:
    return Hiding(await tcp(address))


async def test_child_has_no_connection_and_disturbs_none(
    server: Any, tls_certificates: Path, tls_context: ssl.SSLContext
) -> None:
    """There is a connection of each kind, and one that is never accepted."""
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        hole = stack.enter_context(black_hole())
        others = open_sockets()
        secure = await enter(gearman.JobServer(ssl_context=server_context(tls_certificates)))
        hosts = [("localhost", secure.address.port)]
        clients: list[Any] = [
            await enter(gearman.GearmanClient([server.address])),
            await enter(gearman.GearmanClient([server.address], connect=tcp)),
            await enter(gearman.GearmanClient([server.address], connect=connect_hiding)),
            await enter(gearman.GearmanClient(hosts, ssl_context=tls_context)),
        ]
        admin = await enter(gearman.GearmanAdminClient([server.address]))
        late = await enter(gearman.GearmanClient([hole]))
        tasks = await enter(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        await enter(working(server.address, tasks={"reverse": reverse}))

        async def use() -> None:
            """Use each connection, and check that none has to reconnect."""
            assert (await clients[0].submit_job("reverse", b"ab")).result == b"ba"
            for client in clients:
                request = await client.submit_job("queue", b"", background=True)
                assert request.connection_attempts == 1
            assert await admin.ping_server() > 0

        def in_child() -> tuple[Any, ...]:
            sockets = open_sockets() & ours
            # Files get the numbers of the sockets, and no collected object closes them.
            files = [os.open(os.devnull, os.O_RDONLY) for _ in range(40)]
            client = clients[0]
            clients.clear()
            gc.collect()
            count = len([os.fstat(file) for file in files])
            try:
                client.submit_job("queue", b"", background=True).send(None)
            except RuntimeError as error:
                return sockets, count, str(error), request.state
            raise AssertionError("it was served")

        await use()
        request = await clients[0].submit_job("queue", b"", wait_until_complete=False)
        before = open_sockets()
        tasks.start_soon(late.submit_job, "reverse", b"")
        await until(lambda: open_sockets() - before, "the socket that connects")
        ours = open_sockets() - others
        # Both ends of six connections, one connection attempt, and a listening socket.
        assert len(ours) == 14
        child = Child(in_child)
        await use()
        sockets, count, error, state = child.result()
        assert (sockets, count, state) == (set(), 40, gearman.JOB_UNKNOWN)
        assert "make a new one in the child" in error
        assert request.state == gearman.JOB_CREATED
        await use()


async def test_client_that_was_not_used_works_in_the_child(server: Any, task: str) -> None:
    client = gearman.GearmanClient([server.address])

    async def submit() -> bool:
        async with client:
            return bool((await client.submit_job(task, b"", background=True)).complete)

    def in_child() -> bool:
        asyncio.events._set_running_loop(None)
        return asyncio.run(submit())

    assert await anyio.to_thread.run_sync(lambda: Child(in_child).result())


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
async def test_job_of_a_killed_worker_is_reassigned_while_its_child_lives(
    server: Any, task: str, callback: str, anyio_backend: str
) -> None:
    words = [sys.executable, "-W", "ignore", "-c", PROGRAM, *map(str, server.address)]
    async with (
        gearman.GearmanClient([server.address]) as client,
        await anyio.open_process([*words, task, callback, anyio_backend], stderr=None) as process,
    ):
        request = await client.submit_job(task, b"ab", wait_until_complete=False)
        assert process.stdout is not None
        child = int(await process.stdout.receive())
        try:
            process.kill()
            await process.wait()
            async with working(server.address, tasks={task: reverse}):
                await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
            assert request.result == b"ba"
            os.kill(child, 0)  # The child is still alive.
        finally:
            os.kill(child, signal.SIGKILL)
