"""Our own streams: when they are used, immediate writes, and events outside of tasks."""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio

import gearman_anyio as gearman
from gearman_anyio import _sockets
from gearman_anyio._raw import RawStream, RawStreamOnAsyncio, raw_stream
from gearman_proto import ClientEngine
from gearman_proto.engines.driver import YIELD_SIZE
from gearman_proto.wire.packets import JobCreated, SubmitJobBg
from tests.support import PATIENCE, server_context

from .stepping import nothing_left
from .support import echo, only_asyncio, until, working
from .test_streams import tcp

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from gearman_sync.testing import Peer, ScriptedServer

    StartServer = Callable[..., ScriptedServer]

pytestmark = pytest.mark.anyio


# Choice of the stream.


def plains(client: gearman.GearmanClient) -> list[bool]:
    """Return for each connection whether its stream is our own."""
    return [wire.raw is not None for wire in client._gm_driver._wires.values()]


async def test_own_streams_are_used_for_plain_tcp_only(
    server: Any, tls_certificates: Any, tls_context: ssl.SSLContext
) -> None:
    """Streams of the application and streams with TLS are anyio's."""
    async with gearman.GearmanClient([server.address]) as client:
        await client.submit_job("t", b"", background=True)
        assert plains(client) == [True]
    async with gearman.GearmanClient([server.address], connect=tcp) as client:
        await client.submit_job("t", b"", background=True)
        assert plains(client) == [False]
    async with gearman.JobServer(ssl_context=server_context(tls_certificates)) as secure:
        hosts = [("localhost", secure.address.port)]
        async with gearman.GearmanClient(hosts, ssl_context=tls_context) as client:
            await client.submit_job("t", b"", background=True)
            assert plains(client) == [False]


@only_asyncio
async def test_own_streams_are_not_used_with_other_asyncio_loops(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loops other than asyncio's selector loop use anyio's streams."""
    monkeypatch.setattr(asyncio, "SelectorEventLoop", type("Selector", (), {}))
    async with gearman.GearmanClient([server.address]) as client:
        await client.submit_job("t", b"", background=True)
        assert plains(client) == [False]


# Writing.


async def test_lost_connection_is_reported_by_the_send_that_waits(
    start_server: StartServer,
) -> None:
    """`send_now` returns all data."""
    host, port = start_server(lambda peer: peer.sock.recv(1)).address
    (found,) = await anyio.getaddrinfo(host, port, type=1)
    stream: Any = await raw_stream(await _sockets.connect(found))
    await until(lambda: stream.send_now(b"data") == b"data", "a failure")
    with pytest.raises(OSError, match=r"[Pp]ipe|reset"):
        await stream.send(b"data")
    await stream.aclose()
    await stream.aclose()


class Counted:
    """Counters of the immediate and the deferred writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at_once = self.later = 0
        send_now = RawStream.send_now

        def count_now(stream: RawStream, data: bytes) -> Any:
            self.at_once += 1
            return send_now(stream, data)

        monkeypatch.setattr(RawStream, "send_now", count_now)
        for kind in RawStream.__subclasses__():
            monkeypatch.setattr(kind, "send", self._counting(kind.send))

    def _counting(self, send: Callable[..., Any]) -> Callable[..., Any]:
        async def count(stream: RawStream, data: bytes) -> None:
            self.later += 1
            await send(stream, data)

        return count

    def take(self) -> tuple[int, int]:
        """Return and reset both counts."""
        counts = self.at_once, self.later
        self.at_once = self.later = 0
        return counts


async def test_first_submit_is_written_at_once_and_the_concurrent_rest_together(
    server: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gearman.GearmanClient([server.address]) as client:
        await client.submit_job(task, b"first", background=True)
        counted = Counted(monkeypatch)
        for number in range(10):
            await client.submit_job(task, b"%d" % number, background=True)
        assert counted.take() == (10, 0)
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                call = functools.partial(client.submit_job, task, b"%d" % number, background=True)
                tasks.start_soon(call)
        assert counted.take() == (1, 1)


async def test_rest_of_a_small_partial_write_is_sent_before_the_next(
    server: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No packet is sent before the rest, even if data was received meanwhile."""
    send_now = RawStream.send_now

    def send_some(stream: RawStream, data: bytes) -> bytes:
        assert send_now(stream, data[:7]) == b""
        (wire,) = client._gm_driver._wires.values()
        wire.is_answered = True
        return data[7:]

    async def submit(client: gearman.GearmanClient, word: bytes) -> None:
        assert (await client.submit_job(task, word)).result == word

    async with (
        working(server.address, tasks={task: echo}),
        gearman.GearmanClient([server.address]) as client,
    ):
        await client.submit_job(task, b"first")
        monkeypatch.setattr(RawStream, "send_now", send_some)
        words = [b"%d" % number for number in range(20)]
        with anyio.fail_after(PATIENCE):
            for word in words[:5]:
                await submit(client, word)
            async with anyio.create_task_group() as tasks:
                for word in words[5:]:
                    tasks.start_soon(submit, client, word)
        monkeypatch.undo()


# Events outside of tasks.


def test_lost_connection_is_reopened_in_a_loop_not_run_by_anyio(
    start_server: StartServer, anyio_backend: str, kind_of_stream: str
) -> None:
    """The client reconnects at once, although anyio has not started the event loop."""

    def script(peer: Peer) -> None:
        peer.expect(SubmitJobBg)
        if len(server.peers) > 1:
            peer.send(JobCreated(b"H:1"))
            peer.hold()

    async def main() -> None:
        with anyio.fail_after(PATIENCE):
            async with gearman.GearmanClient([server.address]) as client:
                request = await client.submit_job("t", b"", background=True, max_retries=2)
                assert request.state == gearman.JOB_CREATED
                assert request.connection_attempts == 2

    server = start_server(script)
    if anyio_backend == "trio":
        trio.run(main)
    else:
        asyncio.run(main())


@only_asyncio
async def test_end_of_connection_is_reported_once(start_server: StartServer) -> None:
    """The engine keeps the connection open after the end."""

    def script(peer: Peer) -> None:
        peer.expect(SubmitJobBg)
        peer.send(JobCreated(b"H:1"))

    ends: list[Any] = []
    server = start_server(script)
    async with gearman.GearmanClient([server.address]) as client:
        client._gm_driver.engine.receive_eof = lambda link, now: ends.append(link)
        await client.submit_job("t", b"", background=True)
        await until(lambda: ends, "the end")
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert len(ends) == 1
        (wire,) = client._gm_driver._wires.values()
        assert wire.raw is not None


async def test_driver_closed_in_the_step_that_connects_opens_nothing(server: Any) -> None:
    """The connection is requested and cancelled in the same step."""
    async with nothing_left(), gearman.GearmanClient([server.address]) as client:
        driver = client._gm_driver
        (it,) = client.connection_list
        async with nothing_left():
            with driver.start(ClientEngine.connect, it):
                driver.close()
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert not driver._wires


@only_asyncio
async def test_large_piece_lets_other_tasks_run() -> None:
    """Even if the system accepts all bytes at once."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * YIELD_SIZE)
        turns: list[int] = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        await RawStreamOnAsyncio(near).send(bytes(YIELD_SIZE))
        assert turns == [1]
