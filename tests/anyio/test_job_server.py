"""JobServer in the event loop: start and stop, all kinds of streams, and lost descriptors."""

from __future__ import annotations

import errno
import functools
import os
import random
import socket
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

import gearman_anyio as gearman
from gearman_anyio import GearmanAdminClient, GearmanClient, JobServer, serve
from gearman_anyio._streams import pipe
from gearman_proto.wire.packets import CanDo, GrabJobUniq, JobAssignUniq
from gearman_sync.testing.sockets import linger_not
from tests.support import PATIENCE

from .peer import Peer
from .support import reverse, until, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.abc import ByteStream

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[JobServer]:
    async with JobServer() as server:
        yield server
    assert links(server) == 0
    assert not server._gm_driver._wires


def links(server: JobServer) -> int:
    return len(server._gm_driver.engine.links)


def open_files() -> int:
    """Return the number of open file descriptors of this process."""
    return len(os.listdir("/dev/fd"))


async def submits(server: JobServer) -> None:
    """Check that the server accepts jobs."""
    async with GearmanClient([server.address]) as client:
        request = await client.submit_job("submits", b"", background=True, poll_timeout=PATIENCE)
        assert request.state == gearman.JOB_CREATED


# Start and stop.


async def test_server_does_nothing_before_its_start_and_after_its_end() -> None:
    server = JobServer()
    with pytest.raises(RuntimeError, match="not started"):
        await server.wait()
    with pytest.raises(ConnectionRefusedError):
        await server.connect()
    async with server:
        await server.stop()
        await server.wait()
        with pytest.raises(ConnectionRefusedError):
            await server.connect()
    await server.wait()
    unused = JobServer()
    await unused.stop()
    with pytest.raises(RuntimeError, match="or stopped"):
        await unused.__aenter__()


@pytest.mark.parametrize("way", ["cancel", "command", "stop"])
async def test_serve_runs_until_it_ends(way: str) -> None:
    async with anyio.create_task_group() as tasks:
        server = await tasks.start(functools.partial(serve, port=0, max_queue_size=1))
        await submits(server)
        async with GearmanClient([server.address]) as client:
            request = await client.submit_job("submits", b"", background=True)
            assert request.state == gearman.JOB_FAILED
        if way == "cancel":
            tasks.cancel_scope.cancel()
        elif way == "stop":
            await server.stop()
        else:
            async with GearmanAdminClient([server.address]) as admin:
                await admin.send_shutdown(graceful=False)
    with pytest.raises(gearman.errors.ServerUnavailable, match="refused"):
        await submits(server)


async def test_serve_on_a_port_in_use_raises(server: JobServer) -> None:
    """`TaskGroup.start` raises the error itself, and no file stays open."""
    files = open_files()
    async with anyio.create_task_group() as tasks:
        with pytest.raises(OSError, match="in use") as caught:
            await tasks.start(functools.partial(serve, port=server.address.port))
    assert caught.value.errno == errno.EADDRINUSE
    assert open_files() == files


# Streams of other kinds.


async def test_connections_of_a_unix_listener_are_served(
    server: JobServer, task: str, tmp_path: Path
) -> None:
    """The listener's end closes the connections, and their jobs are requeued."""
    path = tmp_path / "gearman"

    async def connect(address: Any) -> ByteStream:
        return await anyio.connect_unix(path)

    async with (
        await anyio.create_unix_listener(path) as listener,
        GearmanClient([server.address]) as client,
        anyio.create_task_group() as listening,
    ):
        listening.start_soon(listener.serve, server.handle)
        async with working("any:1", tasks={task: reverse}, connect=connect):
            # TCP clients see the same jobs.
            assert (await client.submit_job(task, b"ab")).result == b"ba"
            async with GearmanAdminClient([server.address]) as admin:
                (worker,) = [each for each in await admin.get_workers() if each.tasks]
            assert (worker.ip, int(worker.file_descriptor) > 0) == ("unix", True)
        await until(lambda: links(server) == 1)
        request = await client.submit_job(task, b"cd", wait_until_complete=False)
        async with await anyio.connect_unix(path) as stream:
            peer = Peer(stream)
            await peer.send(CanDo(task.encode()), GrabJobUniq())
            assert isinstance(await peer.receive(), JobAssignUniq)
            listening.cancel_scope.cancel()
            assert await peer.rest() == b""
        async with working(server.address, tasks={task: reverse}):
            await client.wait_until_jobs_completed([request])
        assert request.result == b"dc"


@pytest.mark.parametrize("when", ["before", "stopped", "retiring", "after"])
async def test_stream_for_a_server_that_does_not_serve_is_closed(when: str) -> None:
    """`handle` returns, or raises if the server does not run."""
    near, far = pipe()
    server = JobServer()
    if when in ("before", "after"):
        if when == "after":
            async with server:
                pass
        with pytest.raises(RuntimeError, match="not running"):
            await server.handle(far)
    else:
        async with server, GearmanClient([server.address]) as client:
            await client.submit_job("task", b"", wait_until_complete=False)
            if when == "stopped":
                await server.stop()
            else:
                async with GearmanAdminClient([server.address]) as admin:
                    await admin.send_shutdown(graceful=True)
            await near.send(b"version\n")
            with anyio.fail_after(PATIENCE):
                await server.handle(far)
    async with near:
        assert await Peer(near).rest() == b""


async def test_server_in_memory_uses_no_socket(task: str) -> None:
    async with JobServer() as server:
        files = open_files()
        async with (
            working("any:1", tasks={task: reverse}, connect=server.connect, max_jobs=3),
            GearmanClient(connect=server.connect) as client,
            GearmanAdminClient(["any"], connect=server.connect) as admin,
        ):
            payload = random.Random(1).randbytes(5_000_000)
            jobs = [{"task": task, "data": data} for data in (b"ab", payload)] * 5
            requests = await client.submit_multiple_jobs(jobs)
            assert [request.result for request in requests] == [b"ba", payload[::-1]] * 5
            assert [status.workers for status in await admin.get_status()] == [1]
            assert {link.peer for link in server._gm_driver.engine.links} == {"-"}
            assert open_files() == files
        await until(lambda: not links(server))
        # The server replies after the end of the stream.
        async with await server.connect() as stream:
            await stream.send(b"version\n")
            await stream.send_eof()
            assert (await Peer(stream).rest()).startswith(b"OK ")


# Accepting.


async def test_peers_that_are_gone_before_they_are_accepted_leave_nothing(
    server: JobServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The peers connect and disconnect while the server's loop is blocked."""
    for number in range(100):
        with socket.create_connection(server.address) as sock:
            if number % 3:
                sock.sendall(b"version\n")
            if number % 2:
                linger_not(sock)
    await submits(server)
    await until(lambda: not links(server), "the end of all connections")
    assert not [record for record in caplog.records if record.exc_info]
