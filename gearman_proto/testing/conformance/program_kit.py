"""The kits of cases for workers and clients: the judged program, and the server's side.

The suite is the server. It starts the program with its address, and each connection of the program
is a `Session` of the case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from gearman_proto.testing.matching import shortened
from gearman_proto.wire.packets import JobCreated, PreSleep, WorkComplete

from .case import Closed, Failed, Suite, Unsupported, demand
from .kit import Kit, Place, ResettableStream
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .session import Submit

WORKER: Final = Suite("worker")
CLIENT: Final = Suite("client")
worker_case: Final = WORKER.case
client_case: Final = CLIENT.case

#: The handle of the job in cases for clients that have only one.
HANDLE: Final = b"H:conformance:1"
# Maximum number of seconds between the end of a job and the end of its client.
_SOON: Final = 6.0
#: Maximum number of seconds until a worker reconnects after a short outage.
RECONNECT: Final = 10.0

# Seconds between two checks whether the program still runs, while a connection is awaited.
_ACCEPT: Final = 0.05
# Seconds between two checks whether the program has ended.
_LOOK: Final = 0.005


class Running(Protocol):
    """The judged program, once it was started."""

    @property
    def status(self) -> int | None:
        """The exit status, or None while it runs."""

    @property
    def output(self) -> bytes:
        """The program's standard output."""

    @property
    def errors(self) -> bytes:
        """The program's standard error."""

    def signal(self, number: int = 15) -> None:
        """Send it a signal, by default SIGTERM."""

    def end(self) -> None:
        """Kill it, and all processes that it has started."""


class ProgramPlace(Place, Protocol):
    """A place that starts programs, and is the server of their connections."""

    def start(self, function: str, payloads: Sequence[str]) -> Running:
        """Start the program.

        Args:
            function: The function of the case.
            payloads: The payloads of a client's jobs.
        """

    def accept(self, seconds: float, side: str) -> ResettableStream:
        """Return the program's next connection.

        Args:
            seconds: Seconds to wait for it.
            side: "worker" or "client", for recordings.

        Raises:
            TimeoutError: The program has not connected in time.
        """

    def sleep(self, seconds: float) -> None:
        """Let so many seconds pass."""

    def stop_listening(self) -> None:
        """Refuse connections, as a host does whose server is down."""

    def listen_again(self) -> None:
        """Accept connections again, at the same address."""

    def close(self) -> None:
        """Stop listening for good."""


def wait_for(place: Any, running: Running, seconds: float) -> int:
    """Wait for the end of a program, and return its exit status.

    Args:
        place: The place, for its clock.
        running: The program.
        seconds: Seconds to wait.

    Raises:
        Failed: It does not end in time.
    """
    deadline = place.now + seconds
    while (status := running.status) is None:
        if place.now >= deadline:
            raise Failed("the end of the program", f"nothing in {seconds:g} s")
        place.sleep(_LOOK)
    return status


class ProgramKit(Kit):
    """The kit of a case for workers or clients.

    Args:
        place: The place that starts the program.
        name: The name of a function that no other case uses, for programs that take one.
        timeout: Seconds to wait for an answer.

    Attributes:
        side: "worker" or "client".
    """

    side: str

    def __init__(self, place: ProgramPlace, name: str, timeout: float) -> None:
        super().__init__(place, name, timeout)
        self._program: Running | None = None
        self._stack.callback(place.close)

    # The program.

    @property
    def program(self) -> Running:
        """The program, once it was started."""
        assert self._program is not None
        return self._program

    @property
    def errors(self) -> bytes:
        """The standard error of the program, if it was started."""
        return self._program.errors if self._program is not None else b""

    def _start(self, payloads: Sequence[bytes] = (b"",)) -> None:
        texts = [payload.decode(errors="surrogateescape") for payload in payloads]
        self._program = self.place.start(self.function.decode(), texts)
        self._stack.callback(self._program.end)

    def wait(self, seconds: float) -> int:
        """Wait for the end of the program, and return its exit status.

        Raises:
            Failed: It does not end in time.
        """
        return wait_for(self.place, self.program, seconds)

    # The server.

    def accept(self, seconds: float | None = None) -> Session:
        """Wait for the program's next connection.

        Args:
            seconds: Seconds to wait, in place of the usual time.

        Raises:
            Failed: The program has not connected in time.
        """
        seconds = self.timeout if seconds is None else seconds
        deadline = self.now + seconds
        while True:
            status = self.program.status
            try:
                stream = self.place.accept(_ACCEPT, self.side)
                break
            except TimeoutError:
                # A program can connect just before it ends, so `status` is older.
                if status is not None:
                    got = f"the end of the program, with status {status}"
                    raise Failed("a connection", got) from None
                if self.now >= deadline:
                    raise Failed("a connection", f"nothing in {seconds:g} s") from None
        stream.settimeout(self.timeout)
        session = Session(stream, self.place)
        self._stack.callback(session.close)
        return session

    def stop_listening(self) -> None:
        """Refuse connections, as a host does whose server is down."""
        self.place.stop_listening()

    def listen_again(self) -> None:
        """Accept connections again, at the same address."""
        self.place.listen_again()


class WorkerKit(ProgramKit):
    """The kit of a case for workers."""

    side = "worker"
    # The registered functions of the connection that `ready` has returned.
    _functions: frozenset[bytes] = frozenset()

    def start(self) -> None:
        """Start the worker."""
        self._start()

    def connected(self) -> Session:
        """Start the worker, and accept its connection. Receive nothing."""
        self.start()
        return self.accept()

    def ready(self) -> Session:
        """Start the worker, and answer its grabs until it sleeps. It has registered by then.

        Raises:
            Failed: The worker does not go to sleep, or has registered for no function.
        """
        self.start()
        session = self.next_ready()
        self._functions = frozenset(session.functions)
        return session

    def next_ready(self, seconds: float | None = None) -> Session:
        """Accept the worker's next connection, and answer its grabs until it sleeps."""
        session = self.accept(seconds)
        session.refuse()
        demand(session.functions, "a CAN_DO", PreSleep())
        return session

    def again(self, *, may_end: bool = True) -> Session:
        """Wait until the worker has reconnected and sleeps.

        A worker can consist of several processes with one connection each, and with different
        functions. Skip connections with other functions than the one that `ready` has returned.

        Args:
            may_end: False to fail if the worker ends instead, as `life/back/1` does.

        Raises:
            Unsupported: The worker has ended, and `may_end` is true.
            Failed: No connection has registered for the same functions in time.
        """
        seconds = max(self.timeout, RECONNECT)
        deadline = self.now + seconds
        while True:
            try:
                session = self.next_ready(seconds)
            except Closed:
                # A worker that is slow to notice the loss connects once more.
                if self.now >= deadline:
                    raise
            except Failed:
                if may_end and self.program.status is not None:
                    raise Unsupported("the worker ends when its connection is lost") from None
                raise
            else:
                if session.functions.keys() == self._functions:
                    return session
                wanted = f"CAN_DO for {sorted(self._functions)!r}"
                if self.now >= deadline:
                    raise Failed(wanted, shortened(sorted(session.functions)))
            seconds = self.timeout

    def goes_on(self, session: Session, despite: bytes = b"") -> str | None:
        """Check that the worker does another job.

        Args:
            session: The connection of the worker.
            despite: The handle of a job. Packets about it are skipped.

        Returns:
            None if the worker uses the same connection, otherwise "connects again".
        """
        try:
            session.end_of(session.assign(session.asks_despite(despite), b"data"))
        except Closed:
            self.again(may_end=False).serve()
            return "connects again"
        return None


class ClientKit(ProgramKit):
    """The kit of a case for clients."""

    side = "client"

    @property
    def _soon(self) -> float:
        """Maximum number of seconds between the end of the job and that of the client."""
        # Some clients give up by themselves after ten seconds. That must not count.
        return min(self.timeout, _SOON)

    def start(self, *payloads: bytes) -> None:
        """Start the client with one payload, or several."""
        self._start(payloads or (b"payload",))

    def submitted(self, *payloads: bytes) -> tuple[Session, Submit]:
        """Start the client, and return its connection and its first submit, which is unanswered."""
        self.start(*payloads)
        session = self.accept()
        return session, session.submitted()

    def _ended_well(self) -> bytes:
        """Check that the client ends with status 0, and return its output."""
        status = self.wait(self._soon)
        demand(status == 0, "the exit status 0", f"{status}, with {self.errors[-200:]!r}")
        return self.program.output

    def prints(self, *results: bytes) -> None:
        """Check that the client ends with status 0, and has printed the results, a line each."""
        printed = self._ended_well()
        wanted = b"\n".join(results)
        if printed not in (wanted, wanted + b"\n"):
            raise Failed(f"the output {_shown(wanted)}", _shown(printed))

    def fails(self, seconds: float | None = None) -> None:
        """Check that the client ends with a status other than 0.

        Args:
            seconds: Seconds to wait, if the client was not told the end of its job.
        """
        status = self.wait(self._soon if seconds is None else seconds)
        demand(status != 0, "an exit status other than 0", f"0, with {_shown(self.program.output)}")

    def accepted(self, payload: bytes = b"payload") -> Session:
        """Start the client, and acknowledge its job, whose handle is `HANDLE`."""
        session, _ = self.submitted(payload)
        session.send(JobCreated(HANDLE))
        return session

    def several(
        self, *payloads: bytes, handle: Callable[[bytes], bytes] | None = None
    ) -> tuple[Session, list[bytes]]:
        """Start the client with several payloads, and receive their submits.

        Acknowledge each submit at once, because some clients wait for that before the next one.

        Args:
            payloads: The payloads.
            handle: Called with each payload; returns the handle. The default handle ends with the
                payload.

        Returns:
            The connection, and the payloads in the order of their submits.
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
        """Return the client's exit status, or None if it does not end in time."""
        try:
            return self.wait(self.timeout if seconds is None else seconds)
        except Failed:
            return None

    def again(self) -> Session | None:
        """Return the client's next connection, or None if the client has ended without one."""
        deadline = self.now + self.timeout
        while True:
            has_ended = self.program.status is not None
            try:
                return self.accept(_ACCEPT)
            except Failed:
                if has_ended:
                    return None
                if self.now >= deadline:
                    wanted = "an exit status, or another connection"
                    raise Failed(wanted, f"nothing in {self.timeout:g} s") from None

    def gives_up(self) -> str | None:
        """Check that the client fails after a lost connection, or submits its job again.

        Returns:
            None if it fails, or "tries again" if the second attempt succeeds.
        """
        deadline = self.now + self.timeout
        while (session := self.again()) is not None:
            try:
                session.submitted()
            except Failed:
                # Some clients reconnect without submitting again.
                if self.now < deadline:
                    continue
                wanted = "an exit status, or another submit"
                raise Failed(wanted, f"nothing in {self.timeout:g} s") from None
            session.send(JobCreated(HANDLE), WorkComplete(HANDLE, b"result"))
            self.prints(b"result")
            return "tries again"
        self.fails(self.timeout)
        return None

    def prints_also(self, *results: bytes) -> None:
        """Check that the client ends with status 0, and has printed the results in order.

        Other output is allowed: programs can print the progress of a job, for example.
        """
        printed = self._ended_well()
        at = 0
        for result in results:
            at = printed.find(result, at)
            demand(at >= 0, f"the output {_shown(result)}", _shown(printed))
            at += len(result)

    def does(self, seconds: float | None = None) -> str:
        """Return the client's behaviour after the end of its job, whose result is "result".

        Args:
            seconds: Seconds to wait, in place of the usual time.

        Returns:
            "goes on" if it prints the result, "gives up" if it ends without, or else "waits".
        """
        status = self.ended(seconds)
        if status is None:
            return "waits"
        return "goes on" if status == 0 and b"result" in self.program.output else "gives up"


def _shown(data: bytes) -> str:
    return repr(data) if len(data) <= 100 else f"{data[:100]!r}... ({len(data)} bytes)"
