"""An in-memory server that follows a script."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

from gearman_anyio._streams import pipe
from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.wire.packets import (
    ConnectionClosed,
    EchoReq,
    EchoRes,
    Event,
    GrabJobUniq,
    JobAssignUniq,
    NoJob,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from anyio.abc import ByteStream, TaskGroup

WORK = (WorkComplete, WorkFail, WorkException, WorkData, WorkStatus, WorkWarning)


class Disconnected(Exception):
    """The worker has closed the connection."""


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        #: All events received from the worker.
        self.events: list[Event] = []
        self._connection = Connection(Role.SERVER)

    async def receive(self) -> Event:
        """Return the next packet."""
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
        """Receive a packet and check that it is a `kind`."""
        event = await self.receive()
        assert isinstance(event, kind), event

    async def send(self, *events: Event) -> None:
        await self.stream.send(b"".join([self._connection.send(event) for event in events]))

    async def hold(self) -> None:
        """Read and discard all packets without replying."""
        while True:
            await self.receive()


class Scripted:
    """An in-memory server that runs `script` for each connection and closes it afterwards."""

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
        """The packets about jobs that the worker has sent."""
        return [event for peer in self.peers for event in peer.events if isinstance(event, WORK)]


def give(*jobs: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Return a script that assigns these jobs in order and then replies NO_JOB."""

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
    """Run an in-memory server during the block."""
    async with anyio.create_task_group() as tasks:
        try:
            yield Scripted(tasks, script)
        finally:
            tasks.cancel_scope.cancel()
