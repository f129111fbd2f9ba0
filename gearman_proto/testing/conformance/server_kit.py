"""The kit of server cases: clients, workers and admins of the judged server.

Barriers
    A server can process the packets of two connections in any order. A case that needs an order
    calls `Line.settle` in between: a round trip of ECHO_REQ, or of GET_STATUS if the server does
    not support ECHO_REQ. Afterwards, the server has sent all its replies.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Final, Protocol

from gearman_proto.testing.matching import shortened
from gearman_proto.testing.units import Cutter, packet_of
from gearman_proto.wire.packets import (
    CanDo,
    EchoReq,
    EchoRes,
    Event,
    GetStatus,
    GetStatusUnique,
    GrabJob,
    GrabJobUniq,
    JobAssign,
    JobAssignUniq,
    JobCreated,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PreSleep,
    Role,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    TextLine,
    WorkComplete,
    number,
)

from .case import Closed, Failed, Suite, Unsupported, demand
from .kit import Kit, Place, ResettableStream
from .talk import Talk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

SERVER: Final = Suite("server")
#: Decorates a server case. See `Suite.case`.
case: Final = SERVER.case

# A handle that no server uses.
_UNUSED: Final = b"H:conformance:nobody"
# Minimum size of data whose differences are described in messages.
_SHOWN: Final = 64


def _difference(wanted: Event, got: Event) -> str:
    """Describe an event, and where its data differs from the expected data."""
    sizes = [len(getattr(event, "data", b"")) for event in (wanted, got)]
    if type(wanted) is not type(got) or max(sizes) < _SHOWN:
        return shortened(got)
    pairs = zip(getattr(wanted, "data", b""), getattr(got, "data", b""), strict=False)
    same = next((place for place, (one, other) in enumerate(pairs) if one != other), min(sizes))
    return f"{shortened(got)} with {sizes[1]} bytes of data, not {sizes[0]}; {same} bytes are right"


class ServerPlace(Place, Protocol):
    """A server that kits can connect to."""

    def connect(self, side: str, /) -> ResettableStream:
        """Connect to the server.

        Args:
            side: "client", "worker" or "admin", for recordings.

        Raises:
            OSError: The server can't be reached.
        """

    def restart(self) -> None:
        """Kill the server and restart it."""


class Line(Talk):
    """A connection to the judged server, as a client, a worker, or both.

    Args:
        stream: The connection.
        kit: The kit of the case.

    Attributes:
        function: The default function for `submit`.
        has_echo: True if the server answers ECHO_REQ.
        has_uniq: True if the server answers GRAB_JOB_UNIQ. Otherwise, `grab` sends GRAB_JOB.
    """

    _tokens = itertools.count(1)

    def __init__(self, stream: ResettableStream, kit: ServerKit) -> None:
        super().__init__(stream, Role.CLIENT | Role.WORKER)
        self.function: bytes = kit.function
        self.has_echo: bool = "echo" in kit.has
        self.has_uniq: bool = "grab-uniq" in kit.has
        self._kit = kit

    # Barriers.

    def settle(self) -> list[Event]:
        """Wait until the server has processed all packets. Return the events received meanwhile."""
        token = b"settled %d" % next(self._tokens)
        self.send(EchoReq(token) if self.has_echo else GetStatus(_UNUSED))
        got: list[Event] = []
        while True:
            event = self.next("the answer to an ECHO_REQ" if self.has_echo else "a STATUS_RES")
            if event == EchoRes(token) or (
                isinstance(event, StatusRes) and event.handle == _UNUSED
            ):
                return got
            got.append(event)

    def nothing(self) -> None:
        """Check that the server has sent nothing."""
        got = self.settle()
        demand(not got, "nothing", ", ".join(map(shortened, got)))

    def tell(self, *events: Event) -> None:
        """Send packets, and check that the server processes them without a reply."""
        self.send(*events)
        self.nothing()

    def gets(self, *events: Event) -> None:
        """Check that the next packets equal `events`."""
        for event in events:
            got = self.next(shortened(event))
            if got != event:
                raise Failed(shortened(event), _difference(event, got))

    # As a client.

    def submit(
        self,
        data: bytes = b"data",
        *,
        unique: bytes = b"",
        kind: Callable[..., Event] = SubmitJob,
        function: bytes | None = None,
    ) -> bytes:
        """Submit a job with one of the plain SUBMIT_JOB packets, and return its handle."""
        return self.created(kind(self.function if function is None else function, unique, data))

    def created(self, event: Event) -> bytes:
        """Submit a job with the packet `event`, and return its handle."""
        self.send(event)
        return self.expect(JobCreated).handle

    def status(self, handle: bytes) -> StatusRes:
        """Request the status of a job."""
        self.send(GetStatus(handle))
        return self.expect(StatusRes, handle=handle)

    def status_unique(self, unique: bytes) -> StatusResUnique:
        """Request the status of the job with this unique."""
        self.send(GetStatusUnique(unique))
        return self.expect(StatusResUnique)

    # As a worker.

    def grab(self, **fields: object) -> JobAssignUniq:
        """Request a job, and check that it has these fields.

        The unique is empty if the server does not support GRAB_JOB_UNIQ.
        """
        self.ask()
        return self.assigned(**fields)

    def grab_nothing(self) -> None:
        """Request a job, and check that the reply is NO_JOB."""
        self.ask()
        self.expect(NoJob)

    def sleep(self) -> None:
        """Send PRE_SLEEP, and check that no NOOP follows."""
        self.send(PreSleep())
        self.nothing()

    def complete(self, handle: bytes, data: bytes = b"result") -> None:
        """Complete a job, and wait until the server has processed the result."""
        self.tell(WorkComplete(handle, data))

    def complete_all(self, handles: Iterable[bytes]) -> None:
        """Complete several jobs."""
        for handle in handles:
            self.complete(handle)

    def ask(self, times: int = 1) -> None:
        """Request a job `times` times, without waiting for the replies."""
        self.send(*[GrabJobUniq() if self.has_uniq else GrabJob()] * times)

    def assigned(self, **fields: object) -> JobAssignUniq:
        """Receive a job that `ask` has requested, and check that it has these fields."""
        if self.has_uniq:
            return self.expect(JobAssignUniq, **fields)
        job = self.expect(JobAssign, **fields)
        return JobAssignUniq(job.handle, job.function, b"", job.data)

    # As an admin.

    def text(self, command: bytes, begins: bytes = b"") -> bytes:
        """Send a text command, and return its one-line reply with the line ending.

        Raises:
            Failed: The reply does not start with `begins`.
        """
        self.send(TextLine(command))
        line = self.expect(TextLine)
        demand(line.line.startswith(begins), f"a line that starts with {begins!r}", line)
        return line.line + line.ending

    def list(self, command: bytes) -> list[bytes]:
        """Send a text command, and return the lines of its reply, up to the dot."""
        self.send(TextLine(command))
        lines: list[bytes] = []
        while (line := self.expect(TextLine).line) != b".":
            lines.append(line)
        return lines

    # Raw packets.

    def send_raw(self, data: bytes) -> None:
        """Send any bytes.

        Raises:
            Failed: The server has not read them in time, or has closed the connection.
        """
        try:
            super().send_raw(data)
        except TimeoutError:
            seconds = self.sock.gettimeout()
            raise Failed(
                "a server that reads", f"{len(data)} bytes unread in {seconds:g} s"
            ) from None
        except OSError as error:
            raise Closed("a server that reads", str(error)) from None

    def packet(self) -> bytes:
        """Return the bytes of the next packet or line, even if no request matches it.

        All earlier packets must have been received. The result is empty if the server has closed
        the connection.

        Raises:
            TimeoutError: The server has sent nothing in time.
        """
        cutter = Cutter()
        with contextlib.suppress(ConnectionError):
            # Read one byte at a time, so that the next packet stays unread.
            while byte := self.sock.recv(1):
                for unit in cutter.cut(byte):
                    return unit
        return b""

    def reaction(self) -> str:
        """Return the name of the next packet, or "TEXT", "closed" or "silence"."""
        try:
            packet = self.packet()
        except TimeoutError:
            return "silence"
        if not packet:
            return "closed"
        kind = packet_of(packet)
        return kind.name if kind else "TEXT"

    def behaviour(self, **names: str) -> str:
        """Return the server's reaction as the name of a known behaviour.

        Args:
            names: The behaviours by packet name. Any other packet counts as "not answered".
        """
        refusals = {"ERROR": "refused with ERROR", "closed": "the connection is closed"}
        return {**refusals, **names}.get(self.reaction(), "not answered")

    def heard(self) -> Sequence[str]:
        """Wait like `settle`, but accept an ERROR that no request matches.

        Returns:
            The names of the packets, as `reaction` returns them.
        """
        token = b"heard %d" % next(self._tokens)
        # Bypass the Connection, which would match an ERROR with this packet.
        self.send_anyway(EchoReq(token) if self.has_echo else GetStatus(_UNUSED))
        names: list[str] = []
        while True:
            try:
                packet = self.packet()
            except TimeoutError:
                packet = b""
            demand(packet, "the answer to an ECHO_REQ or GET_STATUS", "no packet")
            kind = packet_of(packet)
            name = kind.name if kind else "TEXT"
            if name in ("ECHO_RES", "STATUS_RES") and (token in packet or _UNUSED in packet):
                return names
            names.append(name)

    # As a worker that polls.

    def soon(self) -> JobAssignUniq:
        """Request a job until the server assigns one, as its submit might still be in flight.

        Raises:
            Failed: The server has assigned no job in time.
        """
        deadline = self._kit.now + self._kit.timeout
        while self._kit.now < deadline:
            self.ask()
            match self.next("a job, or NO_JOB"):
                case JobAssignUniq() as job:
                    return job
                case JobAssign(handle, function, data):
                    return JobAssignUniq(handle, function, b"", data)
        raise Failed("a job", "only NO_JOB")

    def runs(self) -> bool:
        """Request a job. If the server assigns one, complete it and return True."""
        self.ask()
        event = self.next("a job, or NO_JOB")
        if isinstance(event, (JobAssign, JobAssignUniq)):
            self.complete(event.handle)
            return True
        demand(isinstance(event, NoJob), "a job, or NO_JOB", event)
        return False

    def run(self, result: bytes = b"result", **fields: object) -> JobAssignUniq:
        """Request a job, check that it has these fields, and complete it."""
        job = self.grab(**fields)
        self.complete(job.handle, result)
        return job

    def run_all(self, count: int) -> Sequence[JobAssignUniq]:
        """Run `count` jobs, one after another."""
        return [self.run() for _ in range(count)]

    def woken(self, **fields: object) -> JobAssignUniq:
        """Wait for a NOOP, and run a job with these fields."""
        self.expect(Noop)
        return self.run(b"result", **fields)


class ServerKit(Kit):
    """The kit of a server case.

    Args:
        place: The server.
        name: The name of a function that no other case uses.
        timeout: Seconds to wait for an answer.
        has: The capabilities of the server.

    Attributes:
        has: As given.
    """

    def __init__(self, place: ServerPlace, name: str, timeout: float, has: Collection[str]) -> None:
        super().__init__(place, name, timeout)
        self.has: Collection[str] = has

    def another(self, name: str) -> bytes:
        """Return another name that no other case uses, as a function or a unique."""
        return self.function + b"-" + name.encode()

    def _connect(self, side: str) -> Line:
        try:
            stream: ResettableStream = self.place.connect(side)
        except OSError as error:
            raise Failed("a connection", str(error)) from None
        stream.settimeout(self.timeout)
        line = Line(stream, self)
        self._stack.callback(line.close)
        return line

    def client(self, *, exceptions: bool = False) -> Line:
        """Connect as a client, and return the connection.

        Args:
            exceptions: True to request the option `exceptions`.
        """
        line = self._connect("client")
        if exceptions:
            line.send(OptionReq(b"exceptions"))
            line.expect(OptionRes)
        return line

    def worker(self, *functions: bytes) -> Line:
        """Connect as a worker, register functions, and return the connection.

        Args:
            functions: The names, in order of registration. The default is the function of the case.
        """
        line = self._connect("worker")
        line.send(*[CanDo(name) for name in functions or [self.function]])
        line.nothing()
        return line

    def queued(
        self, kind: Callable[..., Event] = SubmitJob, *, unique: bytes = b""
    ) -> tuple[Line, Line, bytes]:
        """Return a client, a worker, and the handle of the client's queued job."""
        client, worker = self.client(), self.worker()
        return client, worker, client.submit(kind=kind, unique=unique)

    def running(
        self, kind: Callable[..., Event] = SubmitJob, *, unique: bytes = b""
    ) -> tuple[Line, Line, bytes]:
        """Return a client, a worker, and the handle of the client's job, run by the worker."""
        client, worker, handle = self.queued(kind, unique=unique)
        worker.grab()
        return client, worker, handle

    def admin(self) -> Line:
        """Connect as an admin, and return the connection."""
        return self._connect("admin")

    def restart(self) -> None:
        """Kill the server and restart it.

        Raises:
            Unsupported: The suite did not start the server.
        """
        if "restart" not in self.has:
            raise Unsupported("the server was not started by the suite")
        self.place.restart()

    def until(self, question: Callable[[], object], wanted: str) -> None:
        """Call `question` until it returns a true value.

        Use this to wait for a change that the server reports in no packet, such as the removal of a
        disconnected client.

        Args:
            question: Queries the server, with a round trip.
            wanted: The expected state, for the message of the failure.

        Raises:
            Failed: `question` has not returned a true value in time.
        """
        deadline = self.now + self.timeout
        while not question():
            if self.now > deadline:
                raise Failed(wanted, f"no change in {self.timeout:g} s")

    def gone(self, line: Line, unique: bytes) -> None:
        """Disconnect a client, and wait until the server has noticed.

        The client must be the last one that waits for the job with this unique. The server needs
        the capability `unique-status`.
        """
        line.close()
        asking = self.client()
        self.until(lambda: number(asking.status_unique(unique).clients) == 0, "no waiting client")
        asking.close()
