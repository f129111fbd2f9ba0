"""What a case for workers or clients gets: the program that is judged, and the server's side.

The suite is the server: it listens on a port of its own, starts the program with its address, and
each connection that the program makes is a `Session` of the case.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.wire.events import PreSleep
from gearman_sync.testing.matching import shortened

from .case import Closed, Failed, Suite, Unsupported, demand
from .exchange import Exchange, Tap
from .program import wait_for
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from .program import Launch, Running
    from .session import Submit

WORKER: Final = Suite("worker")
CLIENT: Final = Suite("client")
worker_case: Final = WORKER.case
client_case: Final = CLIENT.case

#: Seconds within which a worker has to be back whose server was not there for a moment.
RECONNECT: Final = 10.0

# Connections of a program that are not accepted yet.
_BACKLOG: Final = 16
# Seconds between two looks at whether the program still runs.
_LOOK: Final = 0.05


class ProgramKit:
    """What both sides have.

    Args:
        launch: Starts the program.
        name: The name of the function that is meant where the program can be told one.
        timeout: Seconds that something is waited for.

    Attributes:
        side: "worker" or "client".
        function: As `name`.
        address: Where the suite listens.
        told: What the program is told: the same, unless something stands between.
        exchange: What passes.
    """

    side: str

    def __init__(self, launch: Launch, name: str, timeout: float) -> None:
        self.function: bytes = name.encode()
        self.timeout: float = timeout
        self.exchange: Exchange = Exchange()
        self._launch = launch
        self._stack = contextlib.ExitStack()
        self._listener = self._listen(0)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.told: tuple[str, int] = self.address
        self._program: Running | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        self._listener.close()

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        listener.settimeout(_LOOK)
        return listener

    # The program.

    @property
    def program(self) -> Running:
        """The program, once it was started."""
        assert self._program is not None
        return self._program

    @property
    def errors(self) -> bytes:
        """What the program has written to standard error, as far as it was started."""
        return self._program.errors if self._program is not None else b""

    def _start(self, payloads: Sequence[bytes] = (b"",)) -> None:
        host, port = self.told
        texts = [os.fsdecode(payload) for payload in payloads]
        values = {
            "address": f"{host}:{port}",
            "host": host,
            "port": str(port),
            "function": self.function.decode(),
            "payload": texts[0],
        }
        self._program = self._launch(values, texts)
        self._stack.callback(self._program.end)

    # The server.

    def accept(self, seconds: float | None = None) -> Session:
        """Wait for the program's next connection.

        Args:
            seconds: How long, in place of the usual time.

        Raises:
            Failed: There is none in time.
        """
        seconds = self.timeout if seconds is None else seconds
        deadline = time.monotonic() + seconds
        while True:
            status = self.program.status
            try:
                sock, _ = self._listener.accept()
                break
            except TimeoutError:
                # It may have connected before its end.
                if status is not None:
                    got = f"the end of the program, with status {status}"
                    raise Failed("a connection", got) from None
                if time.monotonic() >= deadline:
                    raise Failed("a connection", f"nothing in {seconds:g} s") from None
        sock.settimeout(self.timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tap: Any = Tap(sock, self.exchange, self.exchange.name(self.side), "server")
        session = Session(tap, 0)
        session.functions = {}
        self._stack.callback(session.close)
        return session

    def stop_listening(self) -> None:
        """Refuse connections, as a server does that is down."""
        self._listener.close()

    def listen_again(self) -> None:
        """Listen at the same address again."""
        self._listener = self._listen(self.address[1])


class WorkerKit(ProgramKit):
    """What a case for workers gets."""

    side = "worker"
    # For what the connection has registered that `ready` has returned.
    _functions: frozenset[bytes] = frozenset()

    def start(self) -> None:
        """Start the worker."""
        self._start()

    def connected(self) -> Session:
        """Start the worker, and accept its connection, before anything of it is looked at."""
        self.start()
        return self.accept()

    def ready(self) -> Session:
        """Start the worker, and let it go to sleep; so it has registered for its functions.

        Raises:
            Failed: It does not, or it has registered for none.
        """
        self.start()
        session = self.next_ready()
        self._functions = frozenset(session.functions)
        return session

    def next_ready(self, seconds: float | None = None) -> Session:
        """Accept the worker's next connection, and let it go to sleep there."""
        session = self.accept(seconds)
        session.refuse()
        demand(session.functions, "a CAN_DO", PreSleep())
        return session

    def again(self, *, may_end: bool = True) -> Session:
        """Wait until the worker, whose connection is lost, has made another and is ready there.

        A worker may be several processes, each with a connection and functions of its own. It is
        the one that `ready` has returned that is waited for.

        Args:
            may_end: Whether the worker may end in place of that: `life/back/1` is about it.

        Raises:
            Unsupported: It has ended, and may.
            Failed: There is no connection in time that registers for the same functions.
        """
        seconds = max(self.timeout, RECONNECT)
        deadline = time.monotonic() + seconds
        while True:
            try:
                session = self.next_ready(seconds)
            except Closed:
                # It may be slow to notice, and connect once more.
                if time.monotonic() >= deadline:
                    raise
            except Failed:
                if may_end and self.program.status is not None:
                    raise Unsupported("the worker ends when its connection is lost") from None
                raise
            else:
                if session.functions.keys() == self._functions:
                    return session
                wanted = f"CAN_DO for {sorted(self._functions)!r}"
                if time.monotonic() >= deadline:
                    raise Failed(wanted, shortened(sorted(session.functions)))
            seconds = self.timeout

    def goes_on(self, session: Session, despite: bytes = b"") -> str | None:
        """Demand that the worker does another job.

        Args:
            session: Its connection.
            despite: The handle of a job about which it may say what it likes before.

        Returns:
            None if it does that over the same connection, else that it "connects again".
        """
        try:
            session.end_of(session.assign(session.asks_despite(despite), b"data"))
        except Closed:
            self.again(may_end=False).serve()
            return "connects again"
        return None


class ClientKit(ProgramKit):
    """What a case for clients gets."""

    side = "client"

    def start(self, *payloads: bytes) -> None:
        """Start the client with a payload, or with several."""
        self._start(payloads or (b"payload",))

    def submitted(self, *payloads: bytes) -> tuple[Session, Submit]:
        """Start the client, and return its connection and its first submit, to be answered."""
        self.start(*payloads)
        session = self.accept()
        return session, session.submitted()

    def prints(self, *results: bytes) -> None:
        """Demand that the client ends well, and has printed a result, or several, a line each."""
        status = wait_for(self.program, self.timeout)
        demand(status == 0, "the exit status 0", f"{status}, with {self.errors[-200:]!r}")
        printed = self.program.output
        wanted = b"\n".join(results)
        if printed not in (wanted, wanted + b"\n"):
            raise Failed(f"the output {_shown(wanted)}", _shown(printed))

    def fails(self) -> None:
        """Demand that the client says by its exit status that the job has failed."""
        status = wait_for(self.program, self.timeout)
        demand(status != 0, "an exit status other than 0", f"0, with {_shown(self.program.output)}")


def _shown(data: bytes) -> str:
    return repr(data) if len(data) <= 100 else f"{data[:100]!r}... ({len(data)} bytes)"
