"""The other sides of a conversation: gearmand, stunnel, a scripted worker, a scripted server.

The worker and the server are threads with a plain socket and a `Connection`; a test tells them
what to do by a function. Nothing in here outlives its `stop`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest

from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.wire.events import (
    CanDo,
    ConnectionClosed,
    Event,
    GrabJobAll,
    JobAssignAll,
    JobAssignUniq,
    NoJob,
    Noop,
    OptionReq,
    OptionRes,
    PacketEvent,
    PreSleep,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from gearman_proto.wire.packets import MAGIC_RESPONSE
from tests.wire.packing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
E = TypeVar("E", bound=Event)

#: Seconds after which something that should have happened has not. Nothing waits this long in a
#: test that passes.
PATIENCE = 20.0


def require(program: str) -> str:
    """The path of `program`. Without it the test is skipped, but never where CI runs."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        _missing(program)
    return path


def require_module(module: str) -> None:
    """Look for `module`, which is not imported. Without it: as with `require`."""
    if importlib.util.find_spec(module) is None:
        _missing(f"the module {module}")


def _missing(what: str) -> NoReturn:
    reason = f"{what} is not installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens at."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def eventually(condition: Callable[[], object], what: str = "condition") -> None:
    """Wait until `condition` is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true")
        time.sleep(0.002)


def spawn(function: Callable[..., T], *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
    """Call `function` in a thread of its own."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=f"spawned {function!r}", daemon=True).start()
    return future


def wait_for(event: threading.Event, what: str = "event") -> None:
    """Wait until `event` is set."""
    assert event.wait(PATIENCE), f"{what} did not happen"


# Programs.


class Program:
    """A program in a process group of its own."""

    def __init__(self, *command: str) -> None:
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self.process

    def kill(self) -> None:
        """End it at once, and all that it started."""
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class PortProgram(Program):
    """A program that listens at a port."""

    def __init__(self, host: str, port: int, *command: str) -> None:
        super().__init__(*command)
        self.host = host
        self.port = port

    def start(self) -> None:
        """Start it, and return when it listens."""
        process = self.spawn()

        def listens() -> bool:
            assert process.poll() is None, f"{self.command[0]} ended with {process.returncode}"
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port)):
                return True
            return False

        eventually(listens, f"{self.command[0]} listening")


class Administered:
    """A job server that is asked in lines of text."""

    @property
    def address(self) -> tuple[str, int]:
        raise NotImplementedError

    def admin(self, command: str) -> str:
        """The reply to a line of the admin protocol."""
        with socket.create_connection(self.address, PATIENCE) as sock:
            sock.sendall(command.encode() + b"\r\n")
            is_list = command.startswith(("status", "prioritystatus", "workers", "show"))
            reply = b""
            while not (reply == b".\n" or reply.endswith(b"\n.\n" if is_list else b"\n")):
                data = sock.recv(65536)
                assert data, f"{command}: the server closed after {reply!r}"
                reply += data
        return reply.decode()

    def counts(self, task: str) -> tuple[int, int, int]:
        """How many jobs of `task` there are, how many of them run, and how many workers."""
        for line in self.admin("status").splitlines():
            name, *numbers = line.split("\t")
            if name == task:
                total, running, workers = map(int, numbers)
                return total, running, workers
        return 0, 0, 0

    def wait_for_jobs(self, task: str, count: int) -> None:
        """Wait until there are `count` jobs of `task`."""
        eventually(lambda: self.counts(task)[0] == count, f"{count} jobs of {task}")


class Gearmand(PortProgram, Administered):
    """A job server of its own."""

    def __init__(self, *options: str, host: str = "127.0.0.1", port: int | None = None) -> None:
        port = port or free_port(host)
        super().__init__(
            host,
            port,
            require("gearmand"),
            *("-p", str(port), "-L", host, "-t", "1", "-l", "/dev/null", *options),
        )
        self.start()

    def start(self) -> None:
        super().start()
        assert self.process is not None
        # Somebody else may have taken the port since it was chosen.
        assert self.admin("getpid") == f"OK {self.process.pid}\n", "another server has the port"

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port


class Stunnel(PortProgram):
    """TLS in front of a server, for clients with a certificate of `ca` only."""

    def __init__(self, directory: Path, server: Gearmand) -> None:
        port = free_port()
        config = directory / f"stunnel-{port}.conf"
        config.write_text(
            "foreground = yes\npid =\n[gearman]\n"
            f"accept = 127.0.0.1:{port}\nconnect = {server.host}:{server.port}\n"
            f"cert = {directory / 'server.pem'}\nkey = {directory / 'server.key'}\n"
            f"CAfile = {directory / 'ca.pem'}\nverifyChain = yes\nrequireCert = yes\n"
        )
        super().__init__("127.0.0.1", port, require("stunnel4"), str(config))
        self.start()


# A worker.


class Failed(Exception):
    """Raised by a worker's function: WORK_FAIL."""


class Raised(Exception):
    """Raised by a worker's function: WORK_EXCEPTION, with these bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


@dataclass
class Job:
    """What a worker's function gets."""

    worker: Worker
    handle: bytes
    function: str
    unique: bytes
    data: bytes
    reducer: bytes = b""

    def send_data(self, data: bytes) -> None:
        self.worker.send(WorkData(self.handle, data))

    def send_warning(self, data: bytes) -> None:
        self.worker.send(WorkWarning(self.handle, data))

    def send_status(self, numerator: int, denominator: int) -> None:
        self.worker.send(WorkStatus(self.handle, b"%d" % numerator, b"%d" % denominator))


class Worker:
    """A worker in a thread: runs `functions` (name -> function of a Job that returns bytes).

    With `look_again`, it asks for jobs every so many seconds, as one has to for those with a time.
    """

    def __init__(
        self,
        address: tuple[str, int],
        functions: dict[str, Callable[[Job], bytes]],
        *,
        look_again: float | None = None,
    ) -> None:
        #: The jobs that were begun.
        self.jobs: list[Job] = []
        self._functions = functions
        self._connection = Connection(Role.WORKER)
        self._sock = socket.create_connection(address, PATIENCE)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.settimeout(look_again)
        self._stopped = False
        self._ready = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()
        wait_for(self._ready, "worker's registration")

    @property
    def order(self) -> list[bytes]:
        """The data of the jobs, in the order in which they were begun."""
        return [job.data for job in self.jobs]

    def send(self, *events: Event) -> None:
        self._sock.sendall(b"".join([self._connection.send(event) for event in events]))

    def stop(self) -> None:
        self._stopped = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._sock.close()
        assert not self._thread.is_alive(), "a worker's function does not end"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except OSError:
            pass  # The server was killed, or this was stopped.
        except Exception as error:  # noqa: BLE001 - raised by stop
            self._error = error
        finally:
            self._ready.set()

    def _work(self) -> None:
        self.send(*[CanDo(name.encode()) for name in self._functions], GrabJobAll())
        while not self._stopped:
            event = self._connection.next_event()
            if event is NEED_DATA:
                try:
                    data = self._sock.recv(1 << 18)
                except TimeoutError:
                    self.send(PreSleep())
                    continue
                if not data:
                    return
                self._connection.receive_data(data)
                continue
            self._ready.set()
            if isinstance(event, NoJob):
                self.send(PreSleep())
            elif isinstance(event, Noop):
                self.send(GrabJobAll())
            else:
                assert isinstance(event, (JobAssignAll, JobAssignUniq)), event
                self.send(self._done(event), GrabJobAll())

    def _done(self, event: JobAssignAll | JobAssignUniq) -> Event:
        job = Job(self, event.handle, event.function.decode(), event.unique, event.data)
        if isinstance(event, JobAssignAll):
            job.reducer = event.reducer
        self.jobs.append(job)
        try:
            return WorkComplete(job.handle, self._functions[job.function](job))
        except Failed:
            return WorkFail(job.handle)
        except Raised as error:
            return WorkException(job.handle, error.data)


def echo(job: Job) -> bytes:
    """A worker's function: the data back."""
    return job.data


def reverse(job: Job) -> bytes:
    """A worker's function: the data back to front."""
    return job.data[::-1]


class Gate:
    """A worker's function that says when a job has begun, and holds it until it is opened."""

    def __init__(self, function: Callable[[Job], bytes] = echo) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self._function = function

    def __call__(self, job: Job) -> bytes:
        self.begun.set()
        wait_for(self.open, "opening of a gate")
        return self._function(job)


# A server.


class Disconnected(Exception):
    """The client has closed the connection."""


@dataclass
class Peer:
    """A scripted server's end of one connection."""

    sock: socket.socket
    #: All that the client has sent and was taken.
    events: list[Event] = field(default_factory=list)
    connection: Connection = field(default_factory=lambda: Connection(Role.SERVER))
    #: Whether OPTION_REQ is granted; else it is ignored, as Python gear's server does.
    grants_options: bool = True

    def receive(self) -> Event:
        """The next packet. OPTION_REQ is dealt with here."""
        while True:
            event = self.connection.next_event()
            if event is NEED_DATA:
                data = self.sock.recv(1 << 16)
                if data:
                    self.connection.receive_data(data)
                else:
                    self.connection.receive_eof()
                continue
            if isinstance(event, ConnectionClosed):
                raise Disconnected
            assert isinstance(event, Event)
            self.events.append(event)
            if not isinstance(event, OptionReq):
                return event
            if self.grants_options:
                self.send(OptionRes(event.option))

    def expect(self, kind: type[E]) -> E:
        """The next packet, which is a `kind`."""
        event = self.receive()
        assert isinstance(event, kind), event
        return event

    def send(self, *events: Event) -> None:
        """Answer. Out of order is an error."""
        self.sock.sendall(b"".join([self.connection.send(event) for event in events]))

    def send_anyway(self, *events: PacketEvent) -> None:
        """Send packets whether or not they are in order."""
        for event in events:
            self.send_raw(pack(event.packet, type(event).arguments(event), MAGIC_RESPONSE))

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def hold(self) -> None:
        """Take what comes and say nothing, until the client closes."""
        while True:
            self.receive()


class FakeServer:
    """A server in threads: `script` is called for each connection, which ends when it returns."""

    def __init__(self, script: Callable[[Peer], object], *, receive_buffer: int = 0) -> None:
        self.peers: list[Peer] = []
        self._script = script
        self._errors: list[Exception] = []
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self._listener = socket.socket()
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._run(self._accept)

    @property
    def events(self) -> list[Event]:
        """All that came over any connection, but for OPTION_REQ."""
        return [e for peer in self.peers for e in peer.events if not isinstance(e, OptionReq)]

    def stop(self) -> None:
        self._stopped = True
        # A blocked accept is not ended by closing its socket.
        with contextlib.suppress(OSError), socket.create_connection(self.address, PATIENCE):
            pass
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a server's script does not end"
        self._listener.close()
        if self._errors:
            raise self._errors[0]

    def _run(self, function: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=function, args=args, name="fake server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._stopped:
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock)
            self.peers.append(peer)
            self._run(self._serve, peer)

    def _serve(self, peer: Peer) -> None:
        with peer.sock:
            try:
                self._script(peer)
            except (OSError, Disconnected):
                pass
            except Exception as error:  # noqa: BLE001 - raised by stop
                self._errors.append(error)


@contextlib.contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """An address where connecting is neither refused nor ends: a full backlog."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address: tuple[str, int] = listener.getsockname()
        for _ in range(64):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.1)
            try:
                sock.connect(address)
            except TimeoutError:
                break
        else:
            pytest.skip("this system's backlogs can't be filled")
        yield address
