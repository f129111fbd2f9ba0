"""A TCP proxy that simulates faulty networks.

The proxy needs only the standard library, forwards any data, and runs in its own thread::

    with FaultyProxy(("127.0.0.1", 4730)) as proxy:
        client = GearmanClient([proxy.address])
        slow = proxy.add(Latency(0.2, jitter=0.05))
        ...
        proxy.remove(slow)

Theory of operation
    One event loop (asyncio) runs in one thread, with a task for each connection (see `proxied`).
    Methods that other threads call run in that loop, and the callers wait. `plan` and `tap` run in
    that loop, so the methods that they call run at once. If `plan` or `tap` raises, the proxy
    resets the connection, so that its two ends do not hang, and `stop` raises the exception.

    A second socket, which is bound but never listens, reserves the port while connections are
    refused.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from gearman_proto.checks import check_callable, check_type

from .proxied import Proxied
from .sockets import check_buffer, host_and_port, linger_not, listening_socket, set_buffers
from .toxics import KINDS, Direction, Toxic

if TYPE_CHECKING:
    from typing import Self

    from gearman_proto.address import HostSpec

_T = TypeVar("_T", bound=Toxic)
_Plan = Callable[[int], Iterable[Toxic]]


def _check_toxic(toxic: _T, name: str = "a toxic") -> _T:
    return check_type(name, toxic, KINDS, "one of the kinds of toxics, such as Latency()")


@dataclasses.dataclass(frozen=True)
class JournalEntry:
    """An event in the journal of a proxy.

    Attributes:
        when: The time in seconds, from `time.monotonic`.
        connection: The connection's number, or -1 for all new ones.
        what: A toxic, or one of "refuse", "ignore", "accept", "end", "unreachable".
        before: The bytes, at most 16, that passed right before a changed byte.
    """

    when: float
    connection: int
    what: Toxic | str
    before: bytes = b""


class FaultyProxy:
    """A proxy that forwards connections to a server, and injects network faults (toxics).

    Use it in a ``with`` block, or between `start` and `stop`.

    `journal` lists the toxics that took effect. A toxic has no effect if the connection ends before
    enough bytes have passed.

    Args:
        upstream: The address of the server, in any form that GearmanClient takes. If no server
            listens there, the proxy resets connections.
        plan: Called in the proxy's thread with the number of each accepted connection, from 0, and
            returns a list of the connection's toxics. With the same plan, a connection has the same
            toxics in every run. None means that only added toxics take effect.
        seed: The random seed of jitter, sizes and toxicity. With the same seed, connections with
            the same number get the same values.
        tap: Called in the proxy's thread right before bytes pass, with the connection's number, the
            direction, and the bytes. The bytes are empty if the sender ends its stream or resets
            the connection. The function can call the proxy's methods, except `stop`. If it adds a
            toxic that ends the connection, the bytes do not pass.
        host: The address to listen on. The system chooses a free port.
        buffer: Limit of the kernel's send and receive buffers of the proxy's sockets, in bytes; 0
            leaves them to the system, which buffers megabytes. With `Bandwidth`, use a small one,
            such as 4096 for rates below 1 MB per second. Otherwise the proxy's side acknowledges
            bytes long before they pass, and the sender does not see that the link is slow.

    Raises:
        TypeError, ValueError: An argument has a wrong type or value.
        OSError: The proxy can't listen on this address.

    Attributes:
        address: The host and port of the proxy.
        upstream: The host and port of the server. A change affects new connections.
        plan: The plan as given. A change affects new connections.
        accepted: The number of accepted connections.
        toxics: The toxics that were added and not removed.
        journal: The events so far, oldest first. The proxy's thread appends to it.
    """

    def __init__(
        self,
        upstream: HostSpec,
        plan: _Plan | None = None,
        *,
        seed: int = 0,
        tap: Callable[[int, Direction, bytes], object] | None = None,
        host: str = "127.0.0.1",
        buffer: int = 0,
    ) -> None:
        self.upstream: tuple[str, int] = host_and_port(upstream)
        if plan is not None:
            check_callable("plan", plan, "of a connection's number that returns a list of toxics")
        self.plan: _Plan | None = plan
        self.seed: int = seed
        self.tap: Callable[[int, Direction, bytes], object] = check_callable(
            "tap",
            _ignore if tap is None else tap,
            "of a connection's number, a Direction and bytes",
        )
        self.toxics: list[Toxic] = []
        self.journal: list[JournalEntry] = []
        self.accepted: int = 0
        self._buffer = check_buffer("buffer", buffer)
        self._holder = self._bind((host, 0))
        self.address: tuple[str, int] = self._holder.getsockname()[:2]
        self._listener: socket.socket | None = None
        self._connections: dict[Proxied, asyncio.Task[None]] = {}
        #: Exceptions of `plan` and `tap`.
        self._errors: list[BaseException] = []
        #: Seconds that `stop` waits for connections to end on their own.
        self._grace = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faulty proxy", daemon=True)
        # Held by a thread that calls a method, so that no other one stops the proxy meanwhile.
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self.stop()
        except Exception as own:
            if error is None:
                raise
            # The test's exception might be a consequence of this one.
            error.add_note(f"plan or tap of the proxy has raised {own!r}")

    # Methods for all threads.

    def start(self) -> None:
        """Start the proxy's thread, and listen.

        Raises:
            RuntimeError: The proxy was started before.
        """
        if self._thread.ident is not None:
            raise RuntimeError("this proxy was started before: make a new one")
        self._thread.start()
        self.up()

    def stop(self) -> None:
        """End all connections and the proxy's thread.

        Raises:
            RuntimeError: The proxy is not running, or `plan` or `tap` has called this method.
            Exception: Any exception that `plan` or `tap` has raised.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("plan and tap can't call stop(): they run in the proxy's own thread")
        with self._lock:
            self._check_runs()
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        self._holder.close()
        if self._errors:
            raise self._errors[0]

    def _check_runs(self) -> None:
        if not self._thread.is_alive():
            raise RuntimeError(
                "this proxy does not run: use it in a `with`, or between start() and stop()"
            )

    @property
    def connections(self) -> int:
        """The number of current connections."""
        return len(self._connections)

    def add(self, toxic: _T) -> _T:
        """Apply a toxic to all current and new connections.

        For a current connection, the bytes are counted from now.

        Returns:
            The toxic, for `remove`.

        Raises:
            TypeError: `toxic` is not a toxic.
            RuntimeError: The proxy is not running. (This applies to all methods below.)
        """
        _check_toxic(toxic)

        def add() -> None:
            self.toxics.append(toxic)
            for connection in list(self._connections):
                connection.inject(toxic)

        self._call(add)
        return toxic

    def remove(self, toxic: Toxic) -> None:
        """Stop applying an added toxic.

        Past effects of the toxic remain: a connection stays cut after `HalfOpen`.

        Raises:
            ValueError: The toxic was not added, or was removed already.
        """

        def remove() -> None:
            left = [each for each in self.toxics if each is not toxic]
            if len(left) == len(self.toxics):
                raise ValueError(f"{toxic!r} was not added to this proxy")
            self.toxics[:] = left
            for connection in list(self._connections):
                connection.streams[toxic.direction].remove(toxic)

        self._call(remove)

    def inject(self, *toxics: Toxic) -> None:
        """Apply toxics to all current connections, but not to new ones.

        Raises:
            TypeError: An argument is not a toxic.
        """
        for toxic in toxics:
            _check_toxic(toxic)

        def inject() -> None:
            for connection in list(self._connections):
                for toxic in toxics:
                    connection.inject(toxic)

        self._call(inject)

    def down(self) -> None:
        """End all connections and refuse new ones, as if the server's process had ended."""

        def down() -> None:
            self._listen(None, "refuse")
            for connection in self._connections:
                connection.end(reset=False)

        self._call(down)

    def refuse(self) -> None:
        """Refuse new connections. Current connections stay open."""
        self._call(functools.partial(self._listen, None, "refuse"))

    def ignore(self) -> None:
        """Stop accepting connections. New clients can connect, but receive no data."""
        self._call(functools.partial(self._listen, False, "ignore"))

    def up(self) -> None:
        """Accept connections again, including those that were ignored."""
        self._call(functools.partial(self._listen, True, "accept"))

    def reset(self) -> None:
        """Remove all toxics and the plan, and accept new connections."""
        self.plan = None
        for toxic in list(self.toxics):
            self.remove(toxic)
        self.up()

    # Methods that run in the proxy's thread.

    def _note(self, connection: int, what: Toxic | str, before: bytes = b"") -> None:
        self.journal.append(JournalEntry(time.monotonic(), connection, what, before))

    def _call(self, function: Callable[[], None]) -> None:
        """Call `function` in the proxy's thread, and wait until it returns."""
        if threading.current_thread() is self._thread:
            function()
            return

        async def call() -> None:
            function()

        with self._lock:
            self._check_runs()
            asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    @staticmethod
    def _bind(address: tuple[str, int]) -> socket.socket:
        sock = listening_socket(address[0])
        # Two sockets can have one port as long as at most one of them listens.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock

    def _listen(self, accepting: bool | None, name: str) -> None:
        """Accept new connections, or ignore them (False), or refuse them (None)."""
        self._note(-1, name)
        # Don't use a task that waits for `sock_accept`: cancelling it can lose a connection, and in
        # Python 3.11 it can raise in the loop.
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
        if accepting is None:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
            return
        if self._listener is None:
            self._listener = self._bind(self.address)
            # Accepted sockets inherit the buffer sizes. Setting them later would not limit the
            # window.
            set_buffers(self._listener, self._buffer)
            self._listener.listen(128)
            self._listener.setblocking(False)
        if accepting:
            self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            near, _ = listener.accept()
        except OSError:
            return  # The peer disconnected before the connection was accepted.
        near.setblocking(False)
        number = self.accepted
        self.accepted += 1
        try:
            toxics = self._planned(number)
            connection = Proxied(
                near,
                self.upstream,
                f"{self.seed} {number}",
                toxics,
                functools.partial(self._note, number),
                functools.partial(self.tap, number),
                self._buffer,
            )
        except Exception as error:  # noqa: BLE001 - raised by `stop`
            self._errors.append(error)
            linger_not(near)
            near.close()
            return
        task = self._loop.create_task(connection.run())
        self._connections[connection] = task
        task.add_done_callback(functools.partial(self._forget, connection))

    def _planned(self, number: int) -> list[Toxic]:
        planned = self.plan(number) if self.plan else ()
        toxics = check_type("what plan returns", planned, Iterable, "a list of toxics")
        return [_check_toxic(toxic, "a toxic of the plan") for toxic in (*toxics, *self.toxics)]

    def _forget(self, connection: Proxied, task: asyncio.Task[None]) -> None:
        connection.close()
        del self._connections[connection]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)

    async def _end(self) -> None:
        self._listen(None, "end")
        tasks = list(self._connections.values())
        if self._grace and tasks:
            await asyncio.wait(tasks, timeout=self._grace)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _ignore(_number: int, _direction: Direction, _data: bytes) -> None:
    pass
