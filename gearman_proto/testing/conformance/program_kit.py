"""Kits for workers and clients: start the judged program and act as its server.

The program is started with the address of the suite. Each of its connections is a `Session`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from gearman_proto.testing.matching import shortened
from gearman_proto.wire.packets import JobCreated, PreSleep, WorkComplete

from .case import Closed, Failed, Suite, Unsupported, demand
from .kit import Kit, Place, ResettableStream, noise
from .session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gearman_proto.wire.packets import Event

    from .session import Submit

WORKER: Final = Suite("worker")
CLIENT: Final = Suite("client")
worker_case: Final = WORKER.case
client_case: Final = CLIENT.case

#: The handle in cases for clients with a single job.
HANDLE: Final = b"H:conformance:1"
# Maximum number of seconds between the end of a job and the exit of its client.
_SOON: Final = 6.0
#: Maximum number of seconds until a worker reconnects after a short outage.
RECONNECT: Final = 10.0

# While waiting for a connection, seconds between two checks that the program is running.
_ACCEPT: Final = 0.05
# While waiting for the program's exit, seconds between two checks.
_LOOK: Final = 0.005


def content(size: int, name: object = "") -> bytes:
    """Return text of this length that differs at each position and for each name."""
    return noise((name, size), size // 2 + 1).hex().encode()[:size]


class Running(Protocol):
    """The judged program after its start."""

    @property
    def status(self) -> int | None:
        """The exit status, or None while the program is running."""

    @property
    def output(self) -> bytes:
        """The program's standard output."""

    @property
    def errors(self) -> bytes:
        """The program's standard error."""

    def signal(self, number: int = 15) -> None:
        """Send a signal to the program."""

    def end(self) -> None:
        """Kill the program and its child processes."""


class ProgramPlace(Place, Protocol):
    """A place that starts a program and accepts its connections."""

    def start(self, function: str, payloads: Sequence[str]) -> Running:
        """Start the program.

        Args:
            function: The function of the case.
            payloads: The payloads of a client's jobs.
        """

    def accept(self, seconds: float, side: str) -> ResettableStream:
        """Return the program's next connection.

        Args:
            seconds: Seconds to wait.
            side: "worker" or "client", for recordings.

        Raises:
            TimeoutError: The program has not connected in time.
        """

    def sleep(self, seconds: float) -> None:
        """Sleep for this number of seconds."""

    def stop_listening(self) -> None:
        """Refuse connections, as if the server were down."""

    def listen_again(self) -> None:
        """Accept connections again, at the same address."""

    def close(self) -> None:
        """Stop listening permanently."""


def wait_for(place: Any, running: Running, seconds: float) -> int:
    """Wait for a program to exit, and return its status.

    Args:
        place: The place that provides the clock.
        running: The program.
        seconds: Seconds to wait.

    Raises:
        Failed: The program does not exit in time.
    """
    deadline = place.now + seconds
    while (status := running.status) is None:
        if place.now >= deadline:
            raise Failed("the program's exit", f"nothing in {seconds:g} s")
        place.sleep(_LOOK)
    return status


class ProgramKit(Kit):
    """The kit of a case for programs.

    Args:
        place: The place that starts the program.
        name: The name of a function that no other case uses.
        timeout: Seconds to wait for an answer.

    Attributes:
        side: "worker" or "client".
    """

    side: str

    def __init__(self, place: ProgramPlace, name: str, timeout: float) -> None:
        super().__init__(place, name, timeout)
        self._program: Running | None = None
        self._stack.callback(place.close)

    # The program

    @property
    def program(self) -> Running:
        """The program after its start."""
        assert self._program is not None
        return self._program

    @property
    def errors(self) -> bytes:
        """The standard error of the program, empty before its start."""
        return self._program.errors if self._program is not None else b""

    def _start(self, payloads: Sequence[bytes] = (b"",)) -> None:
        texts = [payload.decode(errors="surrogateescape") for payload in payloads]
        self._program = self.place.start(self.function.decode(), texts)
        self._stack.callback(self._program.end)

    def wait(self, seconds: float) -> int:
        """Wait for the program to exit, and return its status.

        Raises:
            Failed: The program does not exit in time.
        """
        return wait_for(self.place, self.program, seconds)

    # The server

    def accept(self, seconds: float | None = None) -> Session:
        """Wait for the program's next connection.

        Args:
            seconds: Seconds to wait, `timeout` by default.

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
                # Read `status` first, because a program can connect just before it exits.
                if status is not None:
                    got = f"the program's exit with status {status}"
                    raise Failed("a connection", got) from None
                if self.now >= deadline:
                    raise Failed("a connection", f"nothing in {seconds:g} s") from None
        stream.settimeout(self.timeout)
        session = Session(stream, self.place)
        self._stack.callback(session.close)
        return session

    def stop_listening(self) -> None:
        """Refuse connections, as if the server were down."""
        self.place.stop_listening()

    def listen_again(self) -> None:
        """Accept connections again, at the same address."""
        self.place.listen_again()


class WorkerKit(ProgramKit):
    """The kit of a case for workers."""

    side = "worker"
    # The functions that the worker has registered on the connection from `ready`.
    _functions: frozenset[bytes] = frozenset()

    def start(self) -> None:
        """Start the worker."""
        self._start()

    def connected(self) -> Session:
        """Start the worker, and accept its connection without receiving anything."""
        self.start()
        return self.accept()

    def ready(self) -> Session:
        """Start the worker, and answer its grabs until it sleeps.

        Raises:
            Failed: The worker does not sleep, or has not registered for a function by then.
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

    def returning(self) -> Session:
        """Start the worker, disconnect once, and return its next connection.

        A worker that exits on each loss already fails `life/back/1` to `/3`. Further cases about
        losses call this method first. They judge only workers that reconnect after a close.

        Raises:
            Unsupported: The worker has exited.
            Failed: The worker has not registered for the same functions in time.
        """
        self.ready().close()
        return self.again(may_end=True)

    def again(self, *, may_end: bool = False) -> Session:
        """Wait until the worker has reconnected and sleeps.

        A worker can consist of several processes, each with its own connection and functions.
        Skip connections whose functions differ from those of the connection from `ready`.

        Args:
            may_end: True if the case judges only the behaviour after the worker has reconnected.
                `life/back/1` already reports a worker that exits.

        Raises:
            Unsupported: The worker has exited, and `may_end` is true.
            Failed: The worker has exited, or has not registered for the same functions in time.
        """
        seconds = max(self.timeout, RECONNECT)
        deadline = self.now + seconds
        while True:
            try:
                session = self.next_ready(seconds)
            except Closed:
                # A worker that was slow to notice the loss reconnects once more.
                if self.now >= deadline:
                    raise
            except Failed:
                if may_end and self.program.status is not None:
                    raise Unsupported("the worker exits when its connection is lost") from None
                raise
            else:
                if session.functions.keys() == self._functions:
                    return session
                wanted = f"CAN_DO for {sorted(self._functions)!r}"
                if self.now >= deadline:
                    raise Failed(wanted, shortened(sorted(session.functions)))
            seconds = self.timeout

    def goes_on(self, session: Session, despite: bytes = b"") -> str | None:
        """Check that the worker runs another job.

        Args:
            session: The connection of the worker.
            despite: The handle of an earlier job. Packets about it are ignored.

        Returns:
            None if the worker keeps its connection, otherwise "connects again".
        """
        try:
            session.end_of(session.assign(session.asks_despite(despite), b"data"))
        except Closed:
            self.again().serve()
            return "connects again"
        return None

    def learn(self, session: Session) -> Callable[[bytes], bytes] | None:
        """Return the worker's function if it returns its payload, unchanged or reversed."""
        payload = content(30, "learn")
        end = session.serve(payload)
        result = end.data if isinstance(end, WorkComplete) else b""
        functions: dict[bytes, Callable[[bytes], bytes]] = {
            payload: bytes,
            payload[::-1]: _reversed,
        }
        return functions.get(result)

    def learned(self, session: Session) -> Callable[[bytes], bytes]:
        """Return the worker's function, as `learn` does.

        Raises:
            Unsupported: The worker's results do not show its payloads.
        """
        make = self.learn(session)
        if make is None:
            raise Unsupported("the worker returns neither its payload nor the reversed payload")
        return make

    def run_all(self, session: Session, payloads: Iterable[bytes], *, piece: int = 0) -> None:
        """Run a job for each payload, and check its result if the function is known.

        Args:
            session: The connection of the worker.
            payloads: The payloads.
            piece: Maximum number of bytes per write (0 means unlimited).
        """
        make = self.learn(session)
        session.piece = piece
        for payload in payloads:
            end = session.serve(payload)
            if make is not None:
                check_result(end, make(payload))


def _reversed(payload: bytes) -> bytes:
    return payload[::-1]


def check_result(end: Event, wanted: bytes) -> None:
    """Check that a job has ended with this result."""
    got = end.data if isinstance(end, WorkComplete) else None
    about = shortened(end) if got is None else f"another one: {_shown(got)}"
    demand(got == wanted, f"the result {_shown(wanted)}", about)


class ClientKit(ProgramKit):
    """The kit of a case for clients."""

    side = "client"

    @property
    def _soon(self) -> float:
        """Maximum number of seconds between the end of the job and the client's exit."""
        # Some clients time out after ten seconds. Their exit must not count as a reaction.
        return min(self.timeout, _SOON)

    def start(self, *payloads: bytes) -> None:
        """Start the client with one or several payloads."""
        self._start(payloads or (b"payload",))

    def submitted(self, *payloads: bytes) -> tuple[Session, Submit]:
        """Start the client. Return its connection and its first submit, without an answer to it."""
        self.start(*payloads)
        session = self.accept()
        return session, self._checked(session.submitted())

    def _checked(self, submit: Submit) -> Submit:
        """Return a submit, and check its function."""
        demand(submit.function == self.function, f"the function {self.function!r}", submit)
        return submit

    def _ended_well(self) -> bytes:
        """Check that the client exits with status 0, and return its output."""
        status = self.wait(self._soon)
        demand(status == 0, "exit status 0", f"{status} (stderr: {self.errors[-200:]!r})")
        return self.program.output

    def prints(self, *results: bytes) -> None:
        """Check that the client exits with status 0 and has printed the results, one per line."""
        printed = self._ended_well()
        wanted = b"\n".join(results)
        if printed not in (wanted, wanted + b"\n"):
            raise Failed(f"the output {_shown(wanted)}", _shown(printed))

    def fails(self, seconds: float | None = None) -> None:
        """Check that the client exits with a status other than 0.

        Args:
            seconds: Seconds to wait if the client does not receive the end of its job.
        """
        status = self.wait(self._soon if seconds is None else seconds)
        got = f"0 (stdout: {_shown(self.program.output)})"
        demand(status != 0, "an exit status other than 0", got)

    def accepted(self, payload: bytes = b"payload") -> Session:
        """Start the client, and acknowledge its job with the handle `HANDLE`."""
        session, _ = self.submitted(payload)
        session.send(JobCreated(HANDLE))
        return session

    def several(
        self, *payloads: bytes, handle: Callable[[bytes], bytes] | None = None
    ) -> tuple[Session, list[bytes]]:
        """Start the client with several payloads, and receive their submits.

        Acknowledge each submit immediately, because some clients send the next one only then.

        Args:
            payloads: The payloads.
            handle: Called with a payload. Returns the handle, which ends with the payload by
                default.

        Returns:
            The connection, and the payloads in the order of their submits.
        """
        self.start(*payloads)
        session = self.accept()
        came: list[bytes] = []
        for _ in payloads:
            came.append(self._checked(session.submitted()).data)
            made = handle(came[-1]) if handle is not None else b"H:conformance:" + came[-1]
            session.send(JobCreated(made))
        demand(sorted(came) == sorted(payloads), f"the payloads {payloads!r}", came)
        return session, came

    def ended(self, seconds: float | None = None) -> int | None:
        """Return the client's exit status, or None if it does not exit in time."""
        try:
            return self.wait(self.timeout if seconds is None else seconds)
        except Failed:
            return None

    def again(self) -> Session | None:
        """Return the client's next connection, or None if the client exits first."""
        deadline = self.now + self.timeout
        while True:
            has_ended = self.program.status is not None
            try:
                return self.accept(_ACCEPT)
            except Failed:
                if has_ended:
                    return None
                if self.now >= deadline:
                    wanted = "the client's exit or another connection"
                    raise Failed(wanted, f"nothing in {self.timeout:g} s") from None

    def gives_up(self, *, also: bool = False) -> str | None:
        """Check that the client fails or retries its job after a lost connection.

        Args:
            also: True if a client that retries may have printed more than the result.

        Returns:
            None if the client fails, or "tries again" if the second attempt succeeds.
        """
        if (found := self.submitted_again()) is None:
            self.fails(self.timeout)
            return None
        found[0].send(JobCreated(HANDLE), WorkComplete(HANDLE, b"result"))
        if also:
            self.prints_also(b"result")
        else:
            self.prints(b"result")
        return "tries again"

    def submitted_again(self) -> tuple[Session, Submit] | None:
        """Return the client's next connection with a submit, or None if the client exits first."""
        deadline = self.now + self.timeout
        while (session := self.again()) is not None:
            try:
                return session, session.submitted()
            except Failed:
                # Some clients reconnect without a submit.
                if self.now >= deadline:
                    wanted = "the client's exit or another submit"
                    raise Failed(wanted, f"nothing in {self.timeout:g} s") from None
        return None

    def prints_also(self, *results: bytes) -> None:
        """Check that the client exits with status 0 and has printed the results in order.

        Other output is allowed, such as the progress of a job.
        """
        printed = self._ended_well()
        at = 0
        for result in results:
            at = printed.find(result, at)
            demand(at >= 0, f"the output {_shown(result)}", _shown(printed))
            at += len(result)

    def does(self, seconds: float | None = None) -> str:
        """Return the client's behaviour after the result "result".

        Args:
            seconds: Seconds to wait, `timeout` by default.

        Returns:
            "goes on" if the client prints the result, "gives up" if it exits without the result,
            or "waits".
        """
        status = self.ended(seconds)
        if status is None:
            return "waits"
        return "goes on" if status == 0 and b"result" in self.program.output else "gives up"


def _shown(data: bytes) -> str:
    return repr(data) if len(data) <= 100 else f"{data[:100]!r}... ({len(data)} bytes)"
