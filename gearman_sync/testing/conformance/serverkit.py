"""What a case for servers gets: clients, workers and admins of the server that is judged.

Barriers
    A server may carry out what two connections ask for in any order. So a case that needs an order
    has `Line.settle` between: an ECHO round trip, or one of GET_STATUS where the server has no
    ECHO. What has come by then is all that the server had to say. Nothing here sleeps.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Any, Final

from gearman_proto import Role
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
    OptionReq,
    OptionRes,
    PreSleep,
    StatusRes,
    StatusResUnique,
    SubmitJob,
    SubmitJobBg,
    TextLine,
    WorkComplete,
    number,
)
from gearman_sync.testing import ScriptedClient
from gearman_sync.testing.matching import shortened
from gearman_sync.testing.recording import Cutter, packet_of

from .case import Failed, Suite, Unsupported, demand
from .exchange import Tap
from .kit import Kit
from .talk import Talk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

SERVER: Final = Suite("server")
#: Decorates a case for servers: `Suite.case`.
case: Final = SERVER.case

# A handle that no server gives out.
_NOBODY: Final = b"H:conformance:nobody"


class Line(Talk, ScriptedClient):
    """A connection to the server that is judged. It may be a client's, a worker's, or both.

    Attributes:
        function: The function that is meant where none is given.
        has_echo: Whether the server answers ECHO_REQ.
        has_uniq: Whether it answers GRAB_JOB_UNIQ; else `grab` sends GRAB_JOB.
    """

    function: bytes = b""
    has_echo: bool = True
    has_uniq: bool = True
    _tokens = itertools.count(1)

    # Barriers.

    def settle(self) -> list[Event]:
        """Let the server take all that was sent here. Returns what came before it has said so."""
        token = b"settled %d" % next(self._tokens)
        question: Event = EchoReq(token) if self.has_echo else GetStatus(_NOBODY)
        self.send(question)
        came: list[Event] = []
        while True:
            event = self.next("the answer to an ECHO_REQ" if self.has_echo else "a STATUS_RES")
            if event == EchoRes(token) or (
                isinstance(event, StatusRes) and event.handle == _NOBODY
            ):
                return came
            came.append(event)

    def nothing(self) -> None:
        """Demand that nothing has come."""
        came = self.settle()
        demand(not came, "nothing", ", ".join(map(shortened, came)))

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
        self.send(kind(self.function if function is None else function, unique, data))
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

    def grab(self) -> JobAssignUniq:
        """Ask for a job, and get one. Its unique is empty if the server has no GRAB_JOB_UNIQ."""
        self.ask()
        return self.assigned()

    def grab_nothing(self) -> None:
        """Ask for a job, and get none."""
        self.ask()
        self.expect(NoJob)

    def sleep(self) -> None:
        """Go to sleep. There has to be no job, else there would be a NOOP."""
        self.send(PreSleep())
        self.nothing()

    def complete(self, handle: bytes, data: bytes = b"result") -> None:
        """End a job, and let the server take that."""
        self.send(WorkComplete(handle, data))
        self.nothing()

    def ask(self, times: int = 1) -> None:
        """Ask for jobs, so many times, without waiting for them."""
        self.send(*[GrabJobUniq() if self.has_uniq else GrabJob()] * times)

    def assigned(self) -> JobAssignUniq:
        """Get a job that was asked for by `ask`."""
        if self.has_uniq:
            return self.expect(JobAssignUniq)
        job = self.expect(JobAssign)
        return JobAssignUniq(job.handle, job.function, b"", job.data)

    # As an admin.

    def text(self, command: bytes) -> bytes:
        """Send a text command, and return its reply of one line, with its end."""
        self.send(TextLine(command))
        line = self.expect(TextLine)
        return line.line + line.ending

    def list(self, command: bytes) -> list[bytes]:
        """Send a text command, and return the lines of its reply, which ends with a dot."""
        self.send(TextLine(command))
        lines: list[bytes] = []
        while (line := self.expect(TextLine).line) != b".":
            lines.append(line)
        return lines

    # Whatever was asked for.

    def packet(self) -> bytes:
        """Return the next packet or line as it came, whether it answers anything or not.

        All that came before has to be taken. No bytes: the server has closed the connection.

        Raises:
            TimeoutError: Nothing has come in time.
        """
        cutter = Cutter()
        with contextlib.suppress(ConnectionError):
            # No byte of the packet behind is taken.
            while byte := self.sock.recv(1):
                for unit in cutter.cut(byte):
                    return unit
        return b""

    def reaction(self) -> str:
        """Return the name of the packet that comes next, "TEXT", "closed", or "silence"."""
        try:
            packet = self.packet()
        except TimeoutError:
            return "silence"
        if not packet:
            return "closed"
        kind = packet_of(packet)
        return kind.name if kind else "TEXT"

    def heard(self) -> Sequence[str]:
        """Do as `settle`, where an ERROR may come that answers nothing, whatever its code is.

        Returns:
            The names of the packets that came, as `reaction` tells them.
        """
        token = b"heard %d" % next(self._tokens)
        question: Event = EchoReq(token) if self.has_echo else GetStatus(_NOBODY)
        # What the connection is not told of it does not take an ERROR for the answer to.
        self.send_anyway(question)
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

    # As a worker, once more.

    def soon(self) -> JobAssignUniq:
        """Ask for a job until there is one, since its submit may still be on its way.

        Raises:
            Failed: There is none in time.
        """
        deadline = time.monotonic() + (self.sock.gettimeout() or 0.0)
        while time.monotonic() < deadline:
            self.ask()
            match self.next("a job, or NO_JOB"):
                case JobAssignUniq() as job:
                    return job
                case JobAssign(handle, function, data):
                    return JobAssignUniq(handle, function, b"", data)
        raise Failed("a job", "NO_JOB again and again")

    def runs(self) -> bool:
        """Ask for a job, and return whether there was one, which is ended."""
        self.ask()
        event = self.next("a job, or NO_JOB")
        if isinstance(event, (JobAssign, JobAssignUniq)):
            self.complete(event.handle)
            return True
        demand(isinstance(event, NoJob), "a job, or NO_JOB", event)
        return False

    def run(self, data: bytes = b"result") -> JobAssignUniq:
        """Ask for a job, get one, and end it."""
        job = self.grab()
        self.complete(job.handle, data)
        return job


class ServerKit(Kit):
    """What a case for servers gets.

    Attributes:
        address: Where the server listens.
        has: The capabilities of the server.
    """

    def __init__(
        self,
        address: tuple[str, int],
        name: str,
        has: Collection[str],
        timeout: float,
        restart: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(name, timeout)
        self.address: tuple[str, int] = address
        self.has: Collection[str] = has
        self._restart = restart

    def another(self, name: str) -> bytes:
        """Return a name of one's own, for one more function or for a unique."""
        return self.function + b"-" + name.encode()

    def _connect(self, side: str) -> Line:
        try:
            line = Line(self.address, role=Role.CLIENT | Role.WORKER, timeout=self.timeout)
        except OSError as error:
            raise Failed("a connection", str(error)) from None
        tap: Any = Tap(line.sock, self.exchange, self.exchange.name(side), side)
        line.sock = tap
        line.function = self.function
        line.has_echo = "echo" in self.has
        line.has_uniq = "grab-uniq" in self.has
        self._stack.callback(line.close)
        return line

    def client(self, *, exceptions: bool = False) -> Line:
        """Return a new connection of a client.

        Args:
            exceptions: Whether it is to get WORK_EXCEPTION.
        """
        line = self._connect("client")
        if exceptions:
            line.send(OptionReq(b"exceptions"))
            line.expect(OptionRes)
        return line

    def worker(self, *functions: bytes) -> Line:
        """Return a new connection of a worker that has registered for functions.

        Args:
            functions: Their names, in this order; by default it is the one of this case.
        """
        line = self._connect("worker")
        line.send(*[CanDo(name) for name in functions or [self.function]])
        line.nothing()
        return line

    def running(self, *, background: bool = False) -> tuple[Line, Line, bytes]:
        """Return a client, a worker, and the handle of the job of the one that the other does."""
        client, worker = self.client(), self.worker()
        handle = client.submit(kind=SubmitJobBg if background else SubmitJob)
        worker.grab()
        return client, worker, handle

    def admin(self) -> Line:
        """Return a new connection for text commands."""
        return self._connect("admin")

    def restart(self) -> None:
        """Kill the server, and start it again.

        Raises:
            Unsupported: It was not started by this.
        """
        if self._restart is None:
            raise Unsupported("the server was not started by the suite")
        self._restart()

    def until(self, question: Callable[[], object], wanted: str) -> None:
        """Ask something, which takes a round trip, until the answer is yes.

        It is for what a server does without being asked, such as to notice that somebody has left.

        Args:
            question: Asks it.
            wanted: What is waited for, for the failure's text.

        Raises:
            Failed: It has not happened in time.
        """
        deadline = time.monotonic() + self.timeout
        while not question():
            if time.monotonic() > deadline:
                raise Failed(wanted, f"nothing of that in {self.timeout:g} s")

    def gone(self, line: Line, unique: bytes) -> None:
        """Let a client leave that waits for the job of a unique, and let the server notice that.

        It has to be the last one that waits for it. The server needs `unique-status`.
        """
        line.close()
        asking = self.client()
        self.until(
            lambda: number(asking.status_unique(unique).clients) == 0, "nobody who waits for it"
        )
        asking.close()
