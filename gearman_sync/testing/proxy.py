"""A TCP proxy that does to connections what networks do.

It needs nothing but the standard library, knows nothing of what passes through it, and runs in a
thread of its own::

    with FaultyProxy(("127.0.0.1", 4730)) as proxy:
        client = GearmanClient([proxy.address])
        slow = proxy.add(Latency(0.2, jitter=0.05))
        ...
        proxy.remove(slow)

Theory of operation
    One event loop (asyncio) in one thread, with a task for each connection (see `proxied`). Calls
    from other threads are run in that loop, and waited for.

    The port is kept by a second socket, which is bound and never listens, so that nobody else gets
    it while connections are refused.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from .proxied import Proxied
from .sockets import socket_for
from .toxics import Direction, Toxic

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Self

_T = TypeVar("_T", bound=Toxic)


@dataclasses.dataclass(frozen=True)
class Happened:
    """A toxic, when and to which connection it happened.

    Attributes:
        when: Seconds, of `time.monotonic`.
        connection: The connection's number, or -1 for all new ones.
        what: A toxic, or "refuse", "ignore", "accept", "end", "unreachable".
        before: The bytes that passed right before, at most 16, where one was changed.
    """

    when: float
    connection: int
    what: Toxic | str
    before: bytes = b""


class FaultyProxy:
    """Passes connections on to a server, and does to them what networks do.

    It is to be used in a ``with``, or between `start` and `stop`.

    `journal` is what has really happened: a toxic that lies behind more bytes than ever passed does
    not happen.

    Args:
        upstream: The host and port of the server. Nothing needs to listen there: then connections
            are reset.
        plan: Called with the number of each connection, from 0, when it is accepted, in the
            proxy's thread; returns its toxics. So the same plan gives the same toxics to the same
            connection, whatever the time. None: there are none but those that were added.
        seed: Decides jitter, sizes and toxicity: the same seed, the same ones for the connection
            of the same number.
        tap: Called in the proxy's thread with what passes, right before it does: the connection's
            number, the direction, and the bytes, which are empty at the end of that stream, or at
            a reset from there. It raises nothing.
        host: The address to listen on. The port is a free one.

    Attributes:
        address: Where it listens: host and port.
        upstream: As given. It may be changed: for new connections.
        plan: As given. It may be changed: for new connections.
        accepted: How many connections were accepted.
        toxics: What was added and not removed.
        journal: What has happened, oldest first. Appended to by the proxy's thread.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        plan: Callable[[int], Iterable[Toxic]] | None = None,
        *,
        seed: int = 0,
        tap: Callable[[int, Direction, bytes], object] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.upstream: tuple[str, int] = upstream
        self.plan: Callable[[int], Iterable[Toxic]] = plan or _no_toxics
        self.seed: int = seed
        self.tap: Callable[[int, Direction, bytes], object] = tap or _ignore
        self.toxics: list[Toxic] = []
        self.journal: list[Happened] = []
        self.accepted: int = 0
        self._holder = self._bind((host, 0))
        self.address: tuple[str, int] = self._holder.getsockname()[:2]
        self._listener: socket.socket | None = None
        self._connections: dict[Proxied, asyncio.Task[None]] = {}
        #: Seconds that `stop` waits for connections to end by themselves.
        self._patience = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faulty proxy", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # For all threads.

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self.up()

    def stop(self) -> None:
        """End all connections, and the proxy's thread.

        Raises:
            RuntimeError: It does not run.
        """
        if not self._thread.is_alive():
            raise RuntimeError("this proxy does not run")
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def add(self, toxic: _T) -> _T:
        """Let a toxic happen to all connections, those that there are and new ones.

        Where there is a connection already, its bytes are counted from now.

        Returns:
            The toxic, for `remove`.
        """

        async def add() -> None:
            self.toxics.append(toxic)
            for connection in list(self._connections):
                connection.inject(toxic)

        self._call(add())
        return toxic

    def remove(self, toxic: Toxic) -> None:
        """Let a toxic that was added happen no more.

        What one has done is not undone: what `HalfOpen` has cut stays so.

        Raises:
            ValueError: It was not added, or is removed already.
        """

        async def remove() -> None:
            left = [each for each in self.toxics if each is not toxic]
            if len(left) == len(self.toxics):
                raise ValueError(f"{toxic!r} was not added to this proxy")
            self.toxics[:] = left
            for connection in list(self._connections):
                connection.remove(toxic)

        self._call(remove())

    def inject(self, *toxics: Toxic) -> None:
        """Let toxics happen to all connections that there are, and to no new ones."""

        async def inject() -> None:
            for connection in list(self._connections):
                for toxic in toxics:
                    connection.inject(toxic)

        self._call(inject())

    def down(self) -> None:
        """End all connections, and refuse new ones: as if the server's process had ended."""

        async def down() -> None:
            await self._listen(None, "refuse")
            for connection in self._connections:
                connection.end(reset=False)

        self._call(down())

    def refuse(self) -> None:
        """Refuse new connections; those that there are stay."""
        self._call(self._listen(None, "refuse"))

    def ignore(self) -> None:
        """Take new connections no more: those who connect are connected, and hear nothing."""
        self._call(self._listen(False, "ignore"))

    def up(self) -> None:
        """Take new connections again, and those that were ignored."""
        self._call(self._listen(True, "accept"))

    def reset(self) -> None:
        """Remove all toxics, have no plan for new connections any more, and take them."""
        self.plan = _no_toxics
        for toxic in list(self.toxics):
            self.remove(toxic)
        self.up()

    # In the proxy's thread.

    def _note(self, connection: int, what: Toxic | str, before: bytes = b"") -> None:
        self.journal.append(Happened(time.monotonic(), connection, what, before))

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    @staticmethod
    def _bind(address: tuple[str, int]) -> socket.socket:
        sock = socket_for(address[0])
        # Two sockets can have one port as long as at most one of them listens.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock

    async def _listen(self, taking: bool | None, name: str) -> None:
        """Take new connections, or ignore them, or (None) refuse them."""
        self._note(-1, name)
        # Not a task that waits for `sock_accept`: to cancel that may lose a connection, and in
        # Python 3.11 it may raise in the loop.
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
        if taking is None:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
            return
        if self._listener is None:
            self._listener = self._bind(self.address)
            self._listener.listen(128)
            self._listener.setblocking(False)
        if taking:
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            near, _ = listener.accept()
        except OSError:
            return  # It has gone, before it was taken.
        near.setblocking(False)
        number = self.accepted
        connection = Proxied(
            near,
            self.upstream,
            f"{self.seed} {number}",
            (*self.plan(number), *self.toxics),
            functools.partial(self._note, number),
            functools.partial(self.tap, number),
        )
        self.accepted += 1
        task = self._loop.create_task(connection.run())
        self._connections[connection] = task
        task.add_done_callback(functools.partial(self._forget, connection))

    def _forget(self, connection: Proxied, _: asyncio.Task[None]) -> None:
        connection.close()
        del self._connections[connection]

    async def _end(self) -> None:
        await self._listen(None, "end")
        tasks = list(self._connections.values())
        if self._patience and tasks:
            await asyncio.wait(tasks, timeout=self._patience)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _no_toxics(_number: int) -> Iterable[Toxic]:
    return ()


def _ignore(_number: int, _direction: Direction, _data: bytes) -> None:
    pass
