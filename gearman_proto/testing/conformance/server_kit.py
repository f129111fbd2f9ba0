"""The kit of cases for servers: clients, workers and admins of the judged server.

Barriers
    A server can process the packets of two connections in any order. A case that needs an order
    calls `Line.settle` in between. That is a round trip of ECHO_REQ, or of GET_STATUS if the server
    does not support ECHO_REQ. Afterwards, the server has sent all its answers. Nothing here sleeps.
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

from .case import Failed, Suite, Unsupported, demand
from .kit import Kit, Place, ResettableStream
from .talk import Talk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

SERVER: Final = Suite("server")
#: Decorates a case for servers. See `Suite.case`.
case: Final = SERVER.case

# A handle that no server uses.
_NOBODY: Final = b"H:conformance:nobody"


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
        """Kill the server, and start it again."""


class Line(Talk):
    """A connection to the judged server. It is a client's, a worker's, or both.

    Args:
        stream: The connection.
        kit: The kit of the case.

    Attributes:
        function: The default function for `submit`.
        has_echo: True if the server answers ECHO_REQ.
        has_uniq: True if it answers GRAB_JOB_UNIQ. Otherwise, `grab` sends GRAB_JOB.
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
        """Wait until the server has processed all packets. Return the events received by then."""
        token = b"settled %d" % next(self._tokens)
        self.send(EchoReq(token) if self.has_echo else GetStatus(_NOBODY))
        came: list[Event] = []
        while True:
            event = self.next("the answer to an ECHO_REQ" if self.has_echo else "a STATUS_RES")
            if event == EchoRes(token) or (
                isinstance(event, StatusRes) and event.handle == _NOBODY
            ):
                return came
            came.append(event)

    def nothing(self) -> None:
        """Check that the server has sent nothing."""
        came = self.settle()
        demand(not came, "nothing", ", ".join(map(shortened, came)))

    def tell(self, *events: Event) -> None:
        """Send packets, and wait until the server has processed them without an answer."""
        self.send(*events)
        self.nothing()

    def gets(self, *events: Event) -> None:
        """Check that the next packets equal `events`."""
        for event in events:
            came = self.next(f"{event}")
            demand(came == event, f"{event}", came)

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
        """Submit a job with any packet, and return its handle."""
        self.send(event)
        return self.expect(JobCreated).handle

    def status(self, handle: bytes) -> StatusRes:
        """Ask for a job's status."""
        self.send(GetStatus(handle))
        return self.expect(StatusRes, handle=handle)

    def status_unique(self, unique: bytes) -> StatusResUnique:
        """Ask for the status of the job of a unique."""
        self.send(GetStatusUnique(unique))
        return self.expect(StatusResUnique)

    # As a worker.

    def grab(self, **fields: object) -> JobAssignUniq:
        """Ask for a job, and get one with these fields.

        Its unique is empty if GRAB_JOB_UNIQ is not supported.
        """
        self.ask()
        return self.assigned(**fields)

    def grab_nothing(self) -> None:
        """Ask for a job, and get none."""
        self.ask()
        self.expect(NoJob)

    def sleep(self) -> None:
        """Go to sleep, and check that no NOOP follows."""
        self.send(PreSleep())
        self.nothing()

    def complete(self, handle: bytes, data: bytes = b"result") -> None:
        """Complete a job, and wait until the server has processed that."""
        self.tell(WorkComplete(handle, data))

    def complete_all(self, handles: Iterable[bytes]) -> None:
        """Complete several jobs."""
        for handle in handles:
            self.complete(handle)

    def ask(self, times: int = 1) -> None:
        """Ask for a job `times` times, without waiting for the answers."""
        self.send(*[GrabJobUniq() if self.has_uniq else GrabJob()] * times)

    def assigned(self, **fields: object) -> JobAssignUniq:
        """Get a job with these fields that `ask` has asked for."""
        if self.has_uniq:
            return self.expect(JobAssignUniq, **fields)
        job = self.expect(JobAssign, **fields)
        return JobAssignUniq(job.handle, job.function, b"", job.data)

    # As an admin.

    def text(self, command: bytes, begins: bytes = b"") -> bytes:
        """Send a text command, and return its reply of one line, with its end.

        Raises:
            Failed: The reply does not begin like that.
        """
        self.send(TextLine(command))
        line = self.expect(TextLine)
        demand(line.line.startswith(begins), f"a line that begins with {begins!r}", line)
        return line.line + line.ending

    def list(self, command: bytes) -> list[bytes]:
        """Send a text command, and return the lines of its reply, which ends with a dot."""
        self.send(TextLine(command))
        lines: list[bytes] = []
        while (line := self.expect(TextLine).line) != b".":
            lines.append(line)
        return lines

    # Raw packets.

    def packet(self) -> bytes:
        """Return the bytes of the next packet or line, even if it answers nothing.

        All earlier packets must have been received. No bytes mean that the server has closed the
        connection.

        Raises:
            TimeoutError: The server has sent nothing in time.
        """
        cutter = Cutter()
        with contextlib.suppress(ConnectionError):
            # One byte at a time, so that the next packet stays unread.
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
        """Return the name of the server's reaction, as known behaviours call it.

        Args:
            names: Names of behaviours, by packet. Each other packet counts as no answer.
        """
        refusals = {"ERROR": "refused with ERROR", "closed": "the connection is closed"}
        return {**refusals, **names}.get(self.reaction(), "not answered")

    def heard(self) -> Sequence[str]:
        """Do the same as `settle`, and accept an ERROR that answers nothing.

        Returns:
            The names of the packets, as `reaction` returns them.
        """
        token = b"heard %d" % next(self._tokens)
        # Without the Connection, which would match an ERROR with this packet.
        self.send_anyway(EchoReq(token) if self.has_echo else GetStatus(_NOBODY))
        names: list[str] = []
        while True:
            try:
                packet = self.packet()
            except TimeoutError:
                packet = b""
            demand(packet, "the answer to an ECHO_REQ or GET_STATUS", "nothing, or the end")
            kind = packet_of(packet)
            name = kind.name if kind else "TEXT"
            if name in ("ECHO_RES", "STATUS_RES") and (token in packet or _NOBODY in packet):
                return names
            names.append(name)

    # As a worker that polls.

    def soon(self) -> JobAssignUniq:
        """Ask for a job until there is one, because its submit might still be in flight.

        Raises:
            Failed: The server has assigned none in time.
        """
        deadline = self._kit.now + self._kit.timeout
        while self._kit.now < deadline:
            self.ask()
            match self.next("a job, or NO_JOB"):
                case JobAssignUniq() as job:
                    return job
                case JobAssign(handle, function, data):
                    return JobAssignUniq(handle, function, b"", data)
        raise Failed("a job", "NO_JOB again and again")

    def runs(self) -> bool:
        """Ask for a job. If there is one, complete it and return True."""
        self.ask()
        event = self.next("a job, or NO_JOB")
        if isinstance(event, (JobAssign, JobAssignUniq)):
            self.complete(event.handle)
            return True
        demand(isinstance(event, NoJob), "a job, or NO_JOB", event)
        return False

    def run(self, result: bytes = b"result", **fields: object) -> JobAssignUniq:
        """Ask for a job, get one with these fields, and complete it."""
        job = self.grab(**fields)
        self.complete(job.handle, result)
        return job

    def run_all(self, count: int) -> Sequence[JobAssignUniq]:
        """Run so many jobs, one after another."""
        return [self.run() for _ in range(count)]

    def woken(self, **fields: object) -> JobAssignUniq:
        """Be woken with a NOOP, and run a job with these fields."""
        self.expect(Noop)
        return self.run(b"result", **fields)


class ServerKit(Kit):
    """The kit of a case for servers.

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
        """Return another name that no other case uses, for a function or a unique."""
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
        """Return a new connection of a client.

        Args:
            exceptions: True to ask for WORK_EXCEPTION.
        """
        line = self._connect("client")
        if exceptions:
            line.send(OptionReq(b"exceptions"))
            line.expect(OptionRes)
        return line

    def worker(self, *functions: bytes) -> Line:
        """Return a new connection of a worker that has registered for functions.

        Args:
            functions: Their names, in this order. The default is the function of the case.
        """
        line = self._connect("worker")
        line.send(*[CanDo(name) for name in functions or [self.function]])
        line.nothing()
        return line

    def queued(
        self, kind: Callable[..., Event] = SubmitJob, *, unique: bytes = b""
    ) -> tuple[Line, Line, bytes]:
        """Return a client, a worker, and the handle of the client's job, which waits."""
        client, worker = self.client(), self.worker()
        return client, worker, client.submit(kind=kind, unique=unique)

    def running(
        self, kind: Callable[..., Event] = SubmitJob, *, unique: bytes = b""
    ) -> tuple[Line, Line, bytes]:
        """Return a client, a worker, and the handle of the client's job, which the worker runs."""
        client, worker, handle = self.queued(kind, unique=unique)
        worker.grab()
        return client, worker, handle

    def admin(self) -> Line:
        """Return a new connection for text commands."""
        return self._connect("admin")

    def restart(self) -> None:
        """Kill the server, and start it again.

        Raises:
            Unsupported: The suite has not started it.
        """
        if "restart" not in self.has:
            raise Unsupported("the server was not started by the suite")
        self.place.restart()

    def until(self, question: Callable[[], object], wanted: str) -> None:
        """Call `question` until it returns something true.

        It waits for an action of the server that no packet reports, such as to notice a client that
        has disconnected.

        Args:
            question: Asks the server something, with a round trip.
            wanted: The expected action, for the failure's text.

        Raises:
            Failed: The answer has not become true in time.
        """
        deadline = self.now + self.timeout
        while not question():
            if self.now > deadline:
                raise Failed(wanted, f"nothing of that in {self.timeout:g} s")

    def gone(self, line: Line, unique: bytes) -> None:
        """Close the connection of a client, and wait until the server has noticed that.

        The client must be the last one that waits for the job with this unique. The server needs
        `unique-status`.
        """
        line.close()
        asking = self.client()
        self.until(
            lambda: number(asking.status_unique(unique).clients) == 0, "nobody who waits for it"
        )
        asking.close()
