"""What a case for workers or clients gets: the program that is judged, and the server's side.

The suite is the server: it listens on a port of its own, starts the program with its address, and
each connection that the program makes is a `Session` of the case.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.wire.packets import JobCreated, PreSleep, WorkComplete
from gearman_sync.testing.matching import shortened

from .case import Closed, Failed, Suite, Unsupported, demand
from .exchange import Tap
from .kit import Kit
from .program import values_for, wait_for
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .program import Launch, Running
    from .session import Submit

WORKER: Final = Suite("worker")
CLIENT: Final = Suite("client")
worker_case: Final = WORKER.case
client_case: Final = CLIENT.case

#: The handle of the only job of a case for clients.
HANDLE: Final = b"H:conformance:1"
# Seconds in which a client has to end that was told the end of its job.
_SOON: Final = 6.0
#: Seconds within which a worker has to be back whose server was not there for a moment.
RECONNECT: Final = 10.0

# Connections of a program that are not accepted yet.
_BACKLOG: Final = 16
# Seconds between two looks at whether the program still runs.
_LOOK: Final = 0.05


class ProgramKit(Kit):
    """What a case for workers or clients gets.

    Args:
        launch: Starts the program.
        name: The name of the function that is meant where the program can be told one.
        timeout: Seconds that something is waited for.

    Attributes:
        side: "worker" or "client".
        address: Where the suite listens.
        told: What the program is told: the same, unless something stands between.
    """

    side: str

    def __init__(self, launch: Launch, name: str, timeout: float) -> None:
        super().__init__(name, timeout)
        self._launch = launch
        self._listener = self._listen(0)
        self.address: tuple[str, int] = self._listener.getsockname()
        self.told: tuple[str, int] = self.address
        self._program: Running | None = None

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        listener.settimeout(_LOOK)
        self._stack.callback(listener.close)
        return listener

    # The program.

    @property
    def program(self) -> Running:
        """The program, once it was started."""
        assert self._program is not None
        return self._program

    @property
    def errors(self) -> bytes:
        """What the program, if it was started, has written to standard error."""
        return self._program.errors if self._program is not None else b""

    def _start(self, payloads: Sequence[bytes] = (b"",)) -> None:
        texts = [os.fsdecode(payload) for payload in payloads]
        values = values_for(self.told, function=self.function.decode(), payload=texts[0])
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

    @property
    def _soon(self) -> float:
        """Seconds in which a client ends that was told the end of its job."""
        # Some give up by themselves after ten, and so would seem to have understood.
        return min(self.timeout, _SOON)

    def start(self, *payloads: bytes) -> None:
        """Start the client with a payload, or with several."""
        self._start(payloads or (b"payload",))

    def submitted(self, *payloads: bytes) -> tuple[Session, Submit]:
        """Start the client, and return its connection and its first submit, to be answered."""
        self.start(*payloads)
        session = self.accept()
        return session, session.submitted()

    def _ended_well(self) -> bytes:
        """Demand that the client ends well, and return what it has printed."""
        status = wait_for(self.program, self._soon)
        demand(status == 0, "the exit status 0", f"{status}, with {self.errors[-200:]!r}")
        return self.program.output

    def prints(self, *results: bytes) -> None:
        """Demand that the client ends well, and has printed a result, or several, a line each."""
        printed = self._ended_well()
        wanted = b"\n".join(results)
        if printed not in (wanted, wanted + b"\n"):
            raise Failed(f"the output {_shown(wanted)}", _shown(printed))

    def fails(self, seconds: float | None = None) -> None:
        """Demand that the client says by its exit status that the job has failed.

        Args:
            seconds: How long it may take, where it was not told; else it is to end soon.
        """
        status = wait_for(self.program, self._soon if seconds is None else seconds)
        demand(status != 0, "an exit status other than 0", f"0, with {_shown(self.program.output)}")

    def accepted(self, payload: bytes = b"payload") -> Session:
        """Start the client, and acknowledge its job, whose handle is `HANDLE`."""
        session, _ = self.submitted(payload)
        session.send(JobCreated(HANDLE))
        return session

    def several(
        self, *payloads: bytes, handle: Callable[[bytes], bytes] | None = None
    ) -> tuple[Session, list[bytes]]:
        """Start the client with several payloads, and take their submits.

        Each is acknowledged before the next is waited for, as some clients wait for that.

        Args:
            payloads: The payloads.
            handle: Gets the payload of each, and returns its handle; by default that ends with it.

        Returns:
            The connection, and the payloads in the order in which they have come.
        """
        self.start(*payloads)
        session = self.accept()
        came: list[bytes] = []
        for _ in payloads:
            came.append(session.submitted().data)
            made = handle(came[-1]) if handle is not None else b"H:conformance:" + came[-1]
            session.send(JobCreated(made))
        demand(sorted(came) == sorted(payloads), f"the payloads {payloads!r}", came)
        return session, came

    def ended(self, seconds: float | None = None) -> int | None:
        """Return the client's exit status when it has ended; None: it does not, in time."""
        try:
            return wait_for(self.program, self.timeout if seconds is None else seconds)
        except Failed:
            return None

    def again(self) -> Session | None:
        """Return the client's next connection; None: it has ended, and made no other."""
        deadline = time.monotonic() + self.timeout
        while True:
            has_ended = self.program.status is not None
            try:
                return self.accept(_LOOK)
            except Failed:
                if has_ended:
                    return None
                if time.monotonic() >= deadline:
                    wanted = "an exit status, or another connection"
                    raise Failed(wanted, f"nothing in {self.timeout:g} s") from None

    def gives_up(self) -> str | None:
        """Demand that the client, whose connection is lost, fails; or submits its job again.

        Returns:
            None if it fails, or that it "tries again", which has to end well.
        """
        deadline = time.monotonic() + self.timeout
        while (session := self.again()) is not None:
            try:
                session.submitted()
            except Failed:
                # There are clients that connect again, and do not submit again.
                if time.monotonic() < deadline:
                    continue
                wanted = "an exit status, or another submit"
                raise Failed(wanted, f"nothing in {self.timeout:g} s") from None
            session.send(JobCreated(HANDLE), WorkComplete(HANDLE, b"result"))
            self.prints(b"result")
            return "tries again"
        self.fails(self.timeout)
        return None

    def prints_also(self, *results: bytes) -> None:
        """Demand that the client ends well, and has printed results in order, beside what it likes.

        So it is after WORK_STATUS, say, as programs may print how far a job has come.
        """
        printed = self._ended_well()
        at = 0
        for result in results:
            at = printed.find(result, at)
            demand(at >= 0, f"the output {_shown(result)}", _shown(printed))
            at += len(result)

    def does(self, seconds: float | None = None) -> str:
        """Return what the client makes of its job, which has ended well with "result".

        It "goes on" and prints that, it "gives up" without, or it "waits".

        Args:
            seconds: How long at most, in place of the usual time.
        """
        status = self.ended(seconds)
        if status is None:
            return "waits"
        return "goes on" if status == 0 and b"result" in self.program.output else "gives up"


def _shown(data: bytes) -> str:
    return repr(data) if len(data) <= 100 else f"{data[:100]!r}... ({len(data)} bytes)"
