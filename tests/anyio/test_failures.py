"""Failures: refused connections, disconnects at any moment, and many of both."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import ByteStream, SocketAttribute

import gearman_anyio as gearman
from gearman_anyio import _plain
from gearman_anyio._streams import pipe
from gearman_proto.engines.servers import FIRST_COOL_DOWN
from gearman_proto.errors import ExceededConnectionAttempts, ServerUnavailable
from gearman_proto.wire.packets import (
    JobCreated,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
)
from gearman_sync.testing import Disconnected, Peer, ScriptedServer, ScriptedWorker, echo
from tests.support import PATIENCE, Gearmand, free_port, spawn, wait_for

from .conftest import open_sockets
from .support import happened, on_a_test_clock, until
from .test_streams import Tunnels, tcp

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., ScriptedWorker]
    StartServer = Callable[..., ScriptedServer]

pytestmark = [pytest.mark.anyio, pytest.mark.both_streams]


@on_a_test_clock
async def test_cooling_down() -> None:
    """After a failure, the client avoids the server for the cooldown only."""
    calls = []

    async def connect(address: Any) -> Any:
        calls.append(address.host)
        if address.host == "bad" and is_bad:
            raise OSError("it is down")
        return await server.connect()

    async def submit() -> int:
        """Return the number of connection attempts to the bad server."""
        calls.clear()
        jobs = [{"task": "t", "data": b""}] * 10
        requests = await client.submit_multiple_jobs(jobs, background=True)
        assert all(request.complete for request in requests)
        return calls.count("bad")

    is_bad = True
    async with (
        gearman.JobServer() as server,
        gearman.GearmanClient(["bad", "good"], connect=connect) as client,
    ):
        bad, good = client.connection_list
        before = anyio.current_time()
        assert await submit() == 1
        cool_until = bad.cool_until
        assert cool_until >= before + FIRST_COOL_DOWN / 2
        for _ in range(3):
            assert await submit() == 0
        await anyio.sleep_until(bad.cool_until)
        is_bad = False
        assert await submit() == 1
        assert bad.connected
        assert good.connected


# Misbehaving servers.


@pytest.mark.parametrize("when", ["before the answer", "after it"])
async def test_reset(start_server: StartServer, when: str) -> None:
    def script(peer: Peer) -> None:
        peer.expect(SubmitJob)
        if when == "after it":
            peer.send(JobCreated(b"H:1"))
            wait_for(created)
        peer.reset()

    created = threading.Event()
    async with gearman.GearmanClient([start_server(script).address]) as client:
        if when == "after it":
            request = await client.submit_job("task", b"", wait_until_complete=False)
            created.set()
            await client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
            assert request.state == gearman.JOB_UNKNOWN
            assert "reset" in str(client.connection_list[0].error)
        else:
            with pytest.raises(ExceededConnectionAttempts, match="reset"):
                await client.submit_job("task", b"")


async def test_half_open(start_server: StartServer) -> None:
    """The client closes a connection whose server has shut down its sending side."""

    def script(peer: Peer) -> None:
        peer.expect(SubmitJob)
        peer.send(JobCreated(b"H:1"))
        peer.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(Disconnected):
            peer.hold()
        closed.set()

    closed = threading.Event()
    async with gearman.GearmanClient([start_server(script).address]) as client:
        request = await client.submit_job("task", b"", poll_timeout=PATIENCE)
        assert request.state == gearman.JOB_UNKNOWN
        assert not request.timed_out
        await happened(closed, "the client's closing")


# Connections that end between two calls.


class Ender:
    """A script that accepts background jobs and ends each connection on request."""

    def __init__(self, how: str, jobs: int = 1) -> None:
        self.go = threading.Event()
        self.ended = threading.Event()
        self._how = how
        self._jobs = jobs

    def __call__(self, peer: Peer) -> None:
        for number in range(self._jobs):
            peer.expect(SubmitJobBg)
            peer.send(JobCreated(b"H:%d" % number))
        wait_for(self.go)
        self.go.clear()
        if self._how == "reset":
            peer.reset()
        elif self._how == "half closed":
            peer.sock.shutdown(socket.SHUT_WR)
        else:
            peer.sock.close()
        self.ended.set()
        if self._how == "half closed":
            peer.sock.recv(1)  # Keep the socket open until the client has closed it.

    def end(self, stream: ByteStream) -> None:
        """End the connection of the client's `stream` without running the event loop."""
        self.go.set()
        wait_for(self.ended)
        self.ended.clear()
        # The kernel may deliver the end later.
        sock = stream.extra(SocketAttribute.raw_socket)
        assert select.select([sock], [], [], PATIENCE)[0], "the end did not come"


def remember_streams(monkeypatch: pytest.MonkeyPatch) -> list[ByteStream]:
    """Return a growing list of the streams that clients open."""
    streams: list[ByteStream] = []
    make = _plain.plain_stream

    async def remember(sock: socket.socket) -> ByteStream:
        streams.append(await make(sock))
        return streams[-1]

    monkeypatch.setattr(_plain, "plain_stream", remember)
    return streams


@pytest.mark.parametrize("how", ["closed", "reset", "half closed"])
async def test_connection_that_ended_between_two_calls(
    start_server: StartServer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop has not run since the end, but the next submit uses a new connection."""
    ender = Ender(how)
    server = start_server(ender)
    streams = remember_streams(monkeypatch)
    async with gearman.GearmanClient([server.address]) as client:
        for number in range(10):
            request = await client.submit_job("task", b"%d" % number, background=True)
            assert request.complete
            assert request.connection_attempts == 1
            ender.end(streams[-1])
        (it,) = client.connection_list
        assert await client.establish_connection(it) is it
        assert it.connected
        await client.submit_job("task", b"last", background=True)
        ender.end(streams[-1])
    assert [event.data for event in server.events if isinstance(event, SubmitJobBg)] == [
        *[b"%d" % number for number in range(10)],
        b"last",
    ]


async def test_one_of_many_calls_finds_the_end(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Concurrent submits after the end all use the new connection, and each is sent once."""
    ender = Ender("closed")
    second = threading.Event()

    def script(peer: Peer) -> None:
        if len(server.peers) == 1:
            ender(peer)
        else:
            second.set()
            for number in range(20):
                peer.expect(SubmitJobBg)
                peer.send(JobCreated(b"H:%d" % number))
            peer.hold()

    async def submit(number: int) -> None:
        request = await client.submit_job("task", b"%d" % number, background=True)
        assert request.connection_attempts == 1

    streams = remember_streams(monkeypatch)
    server = start_server(script)
    async with gearman.GearmanClient([server.address]) as client:
        await client.submit_job("task", b"first", background=True)
        ender.end(streams[-1])
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(submit, number)
    assert second.is_set()
    data = [event.data for event in server.events if isinstance(event, SubmitJobBg)]
    assert sorted(data) == sorted([b"first", *[b"%d" % number for number in range(20)]])


async def test_connection_in_memory_that_ended_between_two_calls() -> None:
    async def connect(address: Any) -> ByteStream:
        near, far = pipe()
        fars.append(far)
        tasks.start_soon(server.handle, far)
        return near

    fars: list[Any] = []
    async with gearman.JobServer() as server, anyio.create_task_group() as tasks:
        tunnels = Tunnels(connect)
        async with gearman.GearmanClient(["memory"], connect=tunnels) as client:
            for _ in range(10):
                request = await client.submit_job("t", b"", background=True)
                assert request.complete
                assert request.connection_attempts == 1
                # The event loop does not run between this and the next call.
                fars[-1]._chunks.send_stream.close()
        tunnels.check(10)


async def test_data_received_before_the_end_is_processed(start_server: StartServer) -> None:
    """The client reads all data sent before the end, and then notices the end."""

    def script(peer: Peer) -> None:
        if len(server.peers) == 1:
            peer.expect(SubmitJob)
            peer.send(JobCreated(b"H:1"), WorkData(b"H:1", bytes(3_000_000)))
            peer.send(WorkComplete(b"H:1", b"done"))
        else:
            peer.expect(SubmitJobBg)
            peer.send(JobCreated(b"H:2"))
            peer.hold()

    server = start_server(script)
    async with gearman.GearmanClient([server.address]) as client:
        request = await client.submit_job("task", b"", wait_until_complete=False)
        await until(lambda: request.complete, "the result")
        again = await client.submit_job("task", b"", background=True, max_retries=1)
        assert again.complete
        assert request.result == b"done"
        assert request.data_updates[0] == bytes(3_000_000)


# Many failures.


@pytest.mark.slow
async def test_many_reconnects(start_server: StartServer) -> None:
    """Reconnecting leaks neither sockets nor streams."""
    server = start_server(lambda peer: (peer.expect(SubmitJobBg), peer.send(JobCreated(b"H:1"))))
    tunnels = Tunnels(tcp)
    async with gearman.GearmanClient([server.address], connect=tunnels) as client:
        await client.submit_job("task", b"", background=True)
        before = len(open_sockets())
        for _ in range(200):
            await client.submit_job("task", b"", background=True, max_retries=3)
        assert len(tunnels.made) >= 100
        assert sum(not tunnel.closings for tunnel in tunnels.made) <= 1
        await until(lambda: len(open_sockets()) <= before + 2, "the end of sockets")
    assert all(tunnel.closings == 1 for tunnel in tunnels.made)


async def test_many_refusals() -> None:
    async with gearman.GearmanClient([("127.0.0.1", free_port())]) as client:
        before = len(open_sockets())
        for _ in range(200):
            with pytest.raises(ServerUnavailable):
                await client.submit_job("task", b"")
        await until(lambda: len(open_sockets()) <= before, "the end of sockets")
        assert not client._gm_driver._wires


@pytest.mark.slow
def test_loops_in_threads(
    anyio_backend: str, gearmand: Gearmand, task: str, start_worker: StartWorker
) -> None:
    """Each of twenty threads runs its own event loop and client."""
    start_worker(gearmand.address, {task: echo})
    begin = threading.Barrier(20)

    async def use(number: int) -> list[bytes]:
        data = [b"%d:%d" % (number, job) for job in range(20)]
        async with gearman.GearmanClient([gearmand.address]) as client:
            requests = await client.submit_multiple_jobs(
                [{"task": task, "data": some} for some in data], poll_timeout=PATIENCE
            )
            results = [request.result for request in requests]
            results += [(await client.submit_job(task, some)).result for some in data[:5]]
        assert results == [*data, *data[:5]]
        return results

    def run(number: int) -> list[bytes]:
        begin.wait(PATIENCE)
        return anyio.run(use, number, backend=anyio_backend)

    calls = [spawn(run, number) for number in range(20)]
    assert len({call.result(PATIENCE)[0] for call in calls}) == 20
