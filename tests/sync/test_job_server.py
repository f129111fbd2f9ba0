"""JobServer over real sockets: its life, work, peers that misbehave, and what it costs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.address import HostAndPort
from gearman_proto.engines.server import _FUNCTION_SIZE
from gearman_proto.errors import (
    ExceededConnectionAttempts,
    GearmanError,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.wire.events import (
    CanDo,
    CanDoTimeout,
    EchoReq,
    EchoRes,
    Event,
    GetStatus,
    GrabJobAll,
    GrabJobUniq,
    JobAssignUniq,
    JobCreated,
    PreSleep,
    SubmitJob,
    SubmitJobBg,
    WorkComplete,
    WorkData,
)
from gearman_proto.wire.packets import MAGIC_REQUEST, MAGIC_RESPONSE
from gearman_sync import GearmanClient, JobServer
from tests.support import (
    PATIENCE,
    Failed,
    Gate,
    Job,
    Program,
    Raised,
    Worker,
    echo,
    eventually,
    require,
    reverse,
    spawn,
    wait_for,
)

from .test_fork import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    StartWorker = Callable[..., Worker]
    MakeClient = Callable[..., GearmanClient]
    StartJobServer = Callable[..., JobServer]
    Connect = Callable[..., "Link"]

ROOT = Path(__file__).resolve().parents[2]
MB = 1_000_000

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
needs_rlimit = pytest.mark.skipif(sys.platform == "win32", reason="the system has no setrlimit")


class Link:
    """A connection of a peer that does as the test says."""

    def __init__(self, address: tuple[str, int], *, receive_buffer: int = 0) -> None:
        self.connection = Connection(Role.CLIENT | Role.WORKER)
        self.sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise

    def send(self, *events: Event) -> None:
        self.sock.sendall(b"".join([self.connection.send(event) for event in events]))

    def receive(self) -> Event:
        while (event := self.connection.next_event()) is NEED_DATA:
            data = self.sock.recv(1 << 18)
            assert data, "the server has closed"
            self.connection.receive_data(data)
        assert isinstance(event, Event)
        return event

    def echo(self, data: bytes = b"ping") -> None:
        """There and back again."""
        self.send(EchoReq(data))
        event = self.receive()
        assert isinstance(event, EchoRes)
        assert event.data == data

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        data = bytearray()
        with contextlib.suppress(ConnectionError):
            while piece := self.sock.recv(1 << 18):
                data += piece
        return bytes(data)

    def reset(self) -> None:
        """Close with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes connections that are closed with the test."""
    with contextlib.ExitStack() as stack:

        def connect(*args: Any, **kwargs: Any) -> Link:
            link = Link(*args, **kwargs)
            stack.callback(link.close)
            return link

        yield connect


@pytest.fixture
def start_job_server() -> Iterator[StartJobServer]:
    """Starts a job server for one test."""
    with contextlib.ExitStack() as stack:

        def start(**kwargs: Any) -> JobServer:
            return stack.enter_context(JobServer(**kwargs))

        yield start


@pytest.fixture
def server(start_job_server: StartJobServer) -> JobServer:
    return start_job_server()


@pytest.fixture
def client(server: JobServer, make_client: MakeClient) -> GearmanClient:
    return make_client(server.address)


def admin(address: tuple[str, int], command: str) -> str:
    """The reply to a line of the admin protocol, over a connection of its own."""
    link = Link(address)
    try:
        link.sock.sendall(command.encode() + b"\n")
        is_list = command.startswith(("status", "workers", "show"))
        reply = b""
        while not (reply == b".\n" or reply.endswith(b"\n.\n" if is_list else b"\n")):
            data = link.sock.recv(65536)
            assert data, f"{command}: the server closed after {reply!r}"
            reply += data
        return reply.decode()
    finally:
        link.close()


def counts(server: JobServer, task: str) -> tuple[int, int, int]:
    """How many jobs of `task` there are, how many of them run, and how many workers."""
    for line in admin(server.address, "status").splitlines():
        name, *numbers = line.split("\t")
        if name == task:
            total, running, workers = map(int, numbers)
            return total, running, workers
    return 0, 0, 0


def links(server: JobServer) -> int:
    """How many others are connected."""
    return admin(server.address, "workers").count("\n") - 2


def memory(server: JobServer) -> int:
    """Bytes that the server counts, but for the functions that it remembers."""
    assert server._driver is not None
    with server._driver._lock:
        engine = server._driver.engine
        return engine.memory - sum(len(name) + _FUNCTION_SIZE for name in engine.functions)


def sockets(driver: Any) -> list[socket.socket]:
    """All that a driver has opened."""
    return [
        *(listener.sock for listener in driver._listeners),
        *(transport.sock for transport in driver._transports.values()),
        *(driver._wakeup, driver._waker),
    ]


def open_files() -> int:
    """How many file descriptors this process has."""
    if not os.path.isdir("/dev/fd"):
        pytest.skip("the system does not tell what files are open")
    return len(os.listdir("/dev/fd"))


def refuses(address: tuple[str, int]) -> bool:
    """Whether nobody listens there."""
    try:
        Link(address).close()
    except ConnectionRefusedError:
        return True
    return False


def header(size: int, packet: int = SubmitJobBg.packet.number) -> bytes:
    """The header of a packet of `size` bytes."""
    return MAGIC_REQUEST + struct.pack(">II", packet, size)


class ServerProcess:
    """A job server in a process of its own, that answers questions."""

    def __init__(self, setup: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _PROGRAM.format(setup=setup)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        host, _, port = self._process.stdout.readline().strip().rpartition(":")
        self.address = (host, int(port))

    def cpu_time(self) -> float:
        """Seconds of CPU time that it has used."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def stop(self) -> str:
        """End it. Returns what it has written to stderr."""
        _, stderr = self._process.communicate(timeout=PATIENCE)
        assert self._process.returncode == 0, stderr
        return stderr

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


_PROGRAM = """
import sys, time
from gearman_sync import JobServer
{setup}
with JobServer() as server:
    print(server.address, flush=True)
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
"""


@pytest.fixture
def start_process() -> Iterator[Callable[..., ServerProcess]]:
    """Starts a job server in a process of its own."""
    with contextlib.ExitStack() as stack:

        def start(*args: Any) -> ServerProcess:
            process = ServerProcess(*args)
            stack.callback(process.kill)
            return process

        yield start


# Its life.


def test_before_it_is_started() -> None:
    server = JobServer()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.address
    assert repr(server) == "<JobServer not started>"
    assert server.wait()
    server.stop()
    with server:
        assert not refuses(server.address)


def test_start_twice(server: JobServer, client: GearmanClient, task: str) -> None:
    with pytest.raises(RuntimeError, match="started before"):
        server.start()
    assert client.submit_job(task, b"", background=True).state == gearman.JOB_CREATED


def test_stop_twice() -> None:
    server = JobServer()
    server.start()
    threads = [spawn(server.stop) for _ in range(3)]
    for thread in threads:
        thread.result(PATIENCE)
    server.stop()
    assert server.wait()
    assert refuses(server.address)
    with pytest.raises(RuntimeError, match="started before"):
        server.start()


def test_address_and_repr() -> None:
    server = JobServer()
    server.start()
    host, port = server.address
    try:
        assert host == "127.0.0.1"
        assert port > 0
        assert server.address == (host, port)
        assert f"{server.address}" == f"127.0.0.1:{port}"
        assert repr(server) == f"<JobServer 127.0.0.1:{port}>"
        with GearmanClient([str(server.address)]) as client:
            assert client.submit_job("task", b"", background=True).state == gearman.JOB_CREATED
    finally:
        server.stop()
    assert str(HostAndPort("::1", 4730)) == "[::1]:4730"


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_that_can_not_be(port: int) -> None:
    with pytest.raises(ValueError, match=f"port {port}"):
        JobServer(port=port)


@pytest.mark.parametrize(
    "kwargs",
    [{"max_memory": 0}, {"max_unread": 0}, {"max_packet_size": 0}, {"job_retries": -1}],
    ids=str,
)
def test_arguments_that_can_not_be(kwargs: dict[str, int]) -> None:
    (name,) = kwargs
    with pytest.raises(ValueError, match=name):
        JobServer(**kwargs)  # type: ignore[arg-type]


def test_port_in_use(server: JobServer) -> None:
    files = open_files()
    second = JobServer(port=server.address.port)
    with pytest.raises(OSError, match="in use"), second:
        pass
    assert open_files() == files
    assert repr(second) == "<JobServer not started>"
    with pytest.raises(RuntimeError):
        _ = second.address
    second.stop()
    server.stop()
    # It can be tried again.
    with second:
        assert second.address == server.address


def test_unknown_host() -> None:
    files = open_files()
    server = JobServer("192.0.2.1")
    with pytest.raises(OSError, match="assign"):
        server.start()
    assert open_files() == files
    with pytest.raises(socket.gaierror):
        JobServer("host.invalid").start()


def test_port_is_free_after_stop(connect: Connect, make_client: MakeClient) -> None:
    """Although there were connections, whose ends the system remembers."""
    port = 0
    for _ in range(3):
        with JobServer(port=port) as server:
            port = server.address.port
            link = connect(server.address)
            link.echo()
        assert link.rest() == b""
    with JobServer(port=port) as server:
        assert (
            make_client(server.address).submit_job("task", b"", background=True).state
            == gearman.JOB_CREATED
        )


def test_ipv6(start_job_server: StartJobServer, make_client: MakeClient) -> None:
    try:
        server = start_job_server(host="::1")
    except OSError as error:
        pytest.skip(f"the system has no IPv6: {error}")
    assert server.address.host == "::1"
    assert str(server.address) == f"[::1]:{server.address.port}"
    for address in (server.address, str(server.address)):
        assert (
            make_client(address).submit_job("task", b"", background=True).state
            == gearman.JOB_CREATED
        )
    link = Link(server.address)
    link.sock.sendall(b"workers\n")
    assert b" ::1 " in link.sock.recv(65536)
    link.close()


def test_host_name(start_job_server: StartJobServer, make_client: MakeClient) -> None:
    server = start_job_server(host="localhost")
    assert server.address.host in ("127.0.0.1", "::1")
    client = make_client(("localhost", server.address.port))
    assert client.submit_job("task", b"", background=True).state == gearman.JOB_CREATED


def test_wait(server: JobServer) -> None:
    assert not server.wait(0)
    waiting = [spawn(server.wait), spawn(server.wait, PATIENCE)]
    assert not server.wait(0.02)
    assert not any(call.done() for call in waiting)
    server.stop()
    assert all(call.result(PATIENCE) for call in waiting)
    assert server.wait(0)


def test_shutdown_command(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(server.address, {task: gate})
    calls = [spawn(client.submit_job, task, b"%d" % number) for number in range(3)]
    wait_for(gate.begun)
    eventually(lambda: counts(server, task)[0] == 3)
    assert admin(server.address, "shutdown") == "OK\r\n"
    # The worker still runs its job, and nobody waits for that.
    assert server.wait(PATIENCE)
    gate.open.set()
    assert refuses(server.address)
    assert {call.result(PATIENCE).state for call in calls} == {gearman.JOB_UNKNOWN}
    server.stop()


def test_shutdown_graceful_command(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker, connect: Connect
) -> None:
    gate = Gate()
    worker = start_worker(server.address, {task: gate})
    idle = connect(server.address)
    calls = [spawn(client.submit_job, task, b"%d" % number) for number in range(3)]
    client.submit_job(task, b"background", background=True)
    wait_for(gate.begun)
    eventually(lambda: counts(server, task) == (4, 1, 1))
    assert admin(server.address, "shutdown graceful") == "OK\r\n"
    assert refuses(server.address)
    with pytest.raises(ServerUnavailable), GearmanClient([server.address]) as other:
        other.submit_job(task, b"", background=True)
    idle.echo()
    assert not server.wait(0.02)
    # Who is connected still has its say.
    late = client.submit_job(task, b"late", background=True)
    assert late.state == gearman.JOB_CREATED
    gate.open.set()
    assert {call.result(PATIENCE).result for call in calls} == {b"0", b"1", b"2"}
    assert server.wait(PATIENCE)
    assert set(worker.order) == {b"0", b"1", b"2", b"background", b"late"}
    assert idle.rest() == b""


@pytest.mark.parametrize("command", ["shutdown", "shutdown graceful"])
def test_shutdown_commands_leave_nothing(command: str, server: JobServer, connect: Connect) -> None:
    connect(server.address).echo()
    assert server._driver is not None
    opened = sockets(server._driver)
    assert admin(server.address, command) == "OK\r\n"
    assert server.wait(PATIENCE)
    assert {sock.fileno() for sock in opened} == {-1}


def test_shutdown_command_and_what_is_unread(server: JobServer, connect: Connect) -> None:
    """It is still sent to those who read it."""
    link = connect(server.address, receive_buffer=4096)
    link.send(EchoReq(bytes(20 * MB)))
    assert link.sock.recv(1) == b"\0"
    assert admin(server.address, "shutdown") == "OK\r\n"
    assert not server.wait(0.02)
    assert len(link.rest()) == 20 * MB + 11
    assert server.wait(PATIENCE)


def test_shutdown_command_and_a_peer_that_never_reads(
    server: JobServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for for long."""
    monkeypatch.setattr("gearman_proto.engines.server._LAST_WORDS", 0.2)
    link = connect(server.address, receive_buffer=4096)
    link.send(EchoReq(bytes(20 * MB)))
    assert link.sock.recv(1) == b"\0"
    assert admin(server.address, "shutdown") == "OK\r\n"
    assert server.wait(PATIENCE)
    assert len(link.rest()) < 20 * MB


def test_stop_while_peers_flood_it(connect: Connect) -> None:
    def flood(link: Link) -> None:
        request = Connection(Role.CLIENT).send(EchoReq(bytes(1000))) * 100
        with contextlib.suppress(ConnectionError):
            while True:
                link.sock.sendall(request)
                begun.set()

    begun = threading.Event()
    with JobServer() as server:
        calls = [spawn(flood, connect(server.address)) for _ in range(3)]
        wait_for(begun)
        assert not any(call.done() for call in calls)
    for call in calls:
        call.result(PATIENCE)


def test_stop_while_clients_wait(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(server.address, {task: gate})
    calls = [spawn(client.submit_job, task, b"%d" % number) for number in range(5)]
    wait_for(gate.begun)
    eventually(lambda: counts(server, task)[0] == 5)
    server.stop()
    gate.open.set()
    for call in calls:
        request = call.result(PATIENCE)
        assert request.state == gearman.JOB_UNKNOWN
        assert not request.timed_out
    with pytest.raises(ServerUnavailable):
        client.submit_job(task, b"")


def test_stop_while_clients_submit(task: str) -> None:
    """Submits are acknowledged or raise, and nobody hangs."""

    def run(address: HostAndPort) -> bool:
        with GearmanClient([address]) as client:
            while True:
                try:
                    request = client.submit_job(task, b"", background=True)
                except (ServerUnavailable, ExceededConnectionAttempts):
                    return True
                assert request.state == gearman.JOB_CREATED
                begun.set()

    for _ in range(10):
        begun = threading.Event()
        with JobServer() as server:
            calls = [spawn(run, server.address) for _ in range(3)]
            wait_for(begun)
        assert all(call.result(PATIENCE) for call in calls)


def test_nothing_is_left(task: str) -> None:
    """Started and stopped 50 times: no thread, no file."""
    files = open_files()
    threads = threading.active_count()
    for _ in range(50):
        with JobServer() as server, GearmanClient([server.address]) as client:
            client.submit_job(task, b"", background=True)
            assert server._driver is not None
            opened = sockets(server._driver)
            assert len(opened) >= 4
            server.stop()
            assert {sock.fileno() for sock in opened} == {-1}
            assert threading.active_count() == threads
    assert open_files() == files


def test_stop_at_once() -> None:
    """Before its thread has done anything."""
    for _ in range(50):
        with JobServer():
            pass


def test_two_servers(
    start_job_server: StartJobServer,
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    one, two = start_job_server(), start_job_server()
    assert one.address != two.address
    client = make_client(one.address, two.address)
    for server in (one, two):
        start_worker(server.address, {task: reverse})
    requests = client.submit_multiple_jobs([{"task": task, "data": b"ab"}] * 50)
    assert {request.result for request in requests} == {b"ba"}
    handles = {(request.job.connection, request.job.handle) for request in requests}
    assert len(handles) == 50
    one.stop()
    assert client.submit_job(task, b"on", max_retries=1).result == b"no"
    assert counts(two, task)[2] == 1


def test_a_bug_ends_it(
    server: JobServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged, and nobody waits for a server that does nothing."""
    link = connect(server.address)
    link.echo()
    assert server._driver is not None

    def broken(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server._driver.engine, "receive_data", broken)
    link.send(EchoReq(b""))
    assert server.wait(PATIENCE)
    assert link.rest() == b""
    assert refuses(server.address)
    assert "ZeroDivisionError" in caplog.text
    assert "the job server has ended" in caplog.text


def test_program_that_never_stops_it() -> None:
    program = (
        "from gearman_sync import GearmanClient, JobServer\n"
        "server = JobServer()\n"
        "server.start()\n"
        "client = GearmanClient([server.address])\n"
        "print(client.submit_job('task', b'', background=True).state)\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("CREATED\n", "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no such signals")
def test_interrupted_wait() -> None:
    """Ctrl-C ends the waiting, and nothing else."""
    program = (
        "import signal\n"
        "from gearman_sync import JobServer\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with JobServer() as server:\n"
        "    try:\n"
        "        print(server.address, flush=True)\n"
        "        server.wait()\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', server.wait(0), flush=True)\n"
        "        input()\n"
        "print(server.wait(0))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            host, _, port = process.stdout.readline().strip().rpartition(":")
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted False\n"
            link = Link((host, int(port)))
            link.echo()
            assert process.communicate("\n", timeout=PATIENCE) == ("True\n", "")
            assert link.rest() == b""
            link.close()
        finally:
            process.kill()


# Forks.


@needs_fork
def test_child_holds_no_socket(
    connect: Connect, make_client: MakeClient, task: str, start_job_server: StartJobServer
) -> None:
    """The server's end is its end, although a child lives."""
    server = start_job_server()
    link = connect(server.address)
    link.echo()
    holding, done = os.pipe(), os.pipe()

    def in_child() -> list[Any]:
        os.write(holding[1], b"x")
        os.read(done[0], 1)
        return [server.wait(), server.address]

    child = Child(in_child)
    try:
        os.read(holding[0], 1)
        link.echo()
        server.stop()
        assert refuses(server.address)
        assert link.rest() == b""
        with JobServer(port=server.address.port) as second:
            client = make_client(second.address)
            assert client.submit_job(task, b"", background=True).state == gearman.JOB_CREATED
    finally:
        os.write(done[1], b"x")
        result = child.result()
        for descriptor in (*holding, *done):
            os.close(descriptor)
    assert result == [True, server.address]


@needs_fork
def test_child_stops_its_copy(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(server.address, {task: gate})
    call = spawn(client.submit_job, task, b"data")
    wait_for(gate.begun)

    def in_child() -> str:
        server.stop()
        with pytest.raises(RuntimeError, match="started before"):
            server.start()
        # The parent's goes on.
        state: str = client.submit_job(task, b"child", background=True).state
        return state

    assert Child(in_child).result() == gearman.JOB_CREATED
    gate.open.set()
    assert call.result(PATIENCE).result == b"data"
    assert not server.wait(0)


@needs_fork
def test_server_in_a_child(server: JobServer, make_client: MakeClient, task: str) -> None:
    def in_child() -> tuple[str, bool]:
        with JobServer() as other, GearmanClient([other.address]) as client:
            state: str = client.submit_job(task, b"", background=True).state
            return state, other.address != server.address

    assert Child(in_child).result() == (gearman.JOB_CREATED, True)


@needs_fork
def test_forks_while_it_works(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    """The lock may be held by its thread, which the child does not have."""
    start_worker(server.address, {task: echo})
    stopping = threading.Event()

    def run(name: bytes) -> int:
        count = 0
        while not stopping.is_set():
            assert client.submit_job(task, name).result == name
            count += 1
        return count

    calls = [spawn(run, b"%d" % number) for number in range(3)]
    try:
        for _ in range(10):
            assert Child(lambda: client.submit_job(task, b"child").result).result() == b"child"
    finally:
        stopping.set()
    assert all(call.result(PATIENCE) for call in calls)


# Work.


def test_foreground(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(server.address, {task: reverse})
    request = client.submit_job(task, b"in")
    assert (request.state, request.result) == (gearman.JOB_COMPLETE, b"ni")
    assert counts(server, task) == (0, 0, 1)


def test_background(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    requests = [
        client.submit_job(task, priority.encode(), priority=priority, background=True)
        for priority in (gearman.PRIORITY_LOW, gearman.PRIORITY_HIGH)
    ]
    assert {request.state for request in requests} == {gearman.JOB_CREATED}
    status = client.get_job_status(requests[0]).status
    assert (status["known"], status["running"]) == (True, False)
    client.shutdown()
    worker = start_worker(server.address, {task: echo})
    eventually(lambda: len(worker.order) == 2)
    assert worker.order == [b"HIGH", b"LOW"]
    eventually(lambda: counts(server, task) == (0, 0, 1))


def test_progress(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    def work(job: Job) -> bytes:
        job.send_status(1, 2)
        job.send_data(b"one\0")
        job.send_warning(b"two")
        return b"done"

    start_worker(server.address, {task: work})
    request = client.submit_job(task, b"")
    assert request.result == b"done"
    assert list(request.data_updates) == [b"one\0"]
    assert list(request.warning_updates) == [b"two"]
    assert request.status["numerator"] == 1
    assert request.status["denominator"] == 2


def test_failures(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    def work(job: Job) -> bytes:
        if job.data == b"raise":
            raise Raised(b"why\0not")
        raise Failed

    start_worker(server.address, {task: work})
    raised, failed = client.submit_multiple_jobs(
        [{"task": task, "data": b"raise"}, {"task": task, "data": b"fail"}]
    )
    assert raised.state == failed.state == gearman.JOB_FAILED
    assert raised.exception == b"why\0not"
    assert failed.exception is None


def test_worker_is_lost(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    lost = Worker(server.address, {task: gate})
    call = spawn(client.submit_job, task, b"data")
    wait_for(gate.begun)
    lost._sock.shutdown(socket.SHUT_RDWR)
    start_worker(server.address, {task: reverse})
    assert call.result(PATIENCE).result == b"atad"
    gate.open.set()
    lost.stop()


def test_libgearman(server: JobServer, client: GearmanClient, task: str) -> None:
    host, port = server.address
    command = (require("gearman"), "-h", host, "-p", str(port), "-f", task)
    worker = Program(*command, "-w", require("rev"))
    worker.spawn()
    try:
        request = client.submit_job(task, b"hello", poll_timeout=PATIENCE)
        assert request.result.strip() == b"olleh"
        requests = client.submit_multiple_jobs([{"task": task, "data": b"ab"}] * 20)
        assert {request.result.strip() for request in requests} == {b"ba"}
        result = subprocess.run(
            command, input=b"world", capture_output=True, timeout=PATIENCE, check=True
        )
        assert result.stdout.strip() == b"dlrow"
        subprocess.run((*command, "-b", "later"), timeout=PATIENCE, check=True)
        eventually(lambda: counts(server, task) == (0, 0, 1))
    finally:
        worker.kill()
    eventually(lambda: counts(server, task) == (0, 0, 0))


def test_thousands_in_flight(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate(reverse)
    workers = [start_worker(server.address, {task: gate}) for _ in range(3)]
    jobs = [{"task": task, "data": b"%d" % number} for number in range(2000)]
    call = spawn(client.submit_multiple_jobs, jobs)
    eventually(lambda: counts(server, task) == (2000, 3, 3))
    gate.open.set()
    requests = call.result(PATIENCE)
    assert [request.result for request in requests] == [job["data"][::-1] for job in jobs]
    assert sum(len(worker.jobs) for worker in workers) == 2000
    eventually(lambda: links(server) == 4)
    client.shutdown()
    for worker in workers:
        worker.stop()
    eventually(lambda: memory(server) == 0)


def test_large_payloads(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    def work(job: Job) -> bytes:
        job.send_data(job.data)
        return job.data

    start_worker(server.address, {task: work})
    payload = random.Random(1).randbytes(8 * MB)
    requests = client.submit_multiple_jobs([{"task": task, "data": payload}] * 3)
    for request in requests:
        assert request.result == payload
        assert list(request.data_updates) == [payload]


def test_fifty_connections(server: JobServer, task: str, start_worker: StartWorker) -> None:
    for _ in range(3):
        start_worker(server.address, {task: reverse})
    barrier = threading.Barrier(50)

    def run(number: int) -> None:
        with GearmanClient([server.address]) as client:
            barrier.wait(PATIENCE)
            for job in range(20):
                data = b"%d-%d" % (number, job)
                assert client.submit_job(task, data).result == data[::-1]

    for call in [spawn(run, number) for number in range(50)]:
        call.result(PATIENCE)
    eventually(lambda: links(server) == 3)


def test_twenty_threads(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    for _ in range(2):
        start_worker(server.address, {task: reverse})

    def run(thread: int) -> None:
        data_list = [b"%d-%d" % (thread, number) for number in range(50)]
        for data in data_list:
            assert client.submit_job(task, data).result == data[::-1]
        requests = client.submit_multiple_jobs([{"task": task, "data": d} for d in data_list])
        assert [request.result for request in requests] == [data[::-1] for data in data_list]

    for call in [spawn(run, thread) for thread in range(20)]:
        call.result(PATIENCE)


def test_run_at(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    """Unlike gearmand, it wakes a sleeping worker when the time has come."""
    times: dict[bytes, float] = {}

    def work(job: Job) -> bytes:
        times[job.data] = time.time()
        return b""

    start_worker(server.address, {task: work})
    client.submit_job(task, b"warm up")
    when = time.time() + 0.2
    later = client.submit_job(task, b"later", background=True, run_at=when)
    assert client.get_job_status(later).status["known"]
    client.submit_job(task, b"now")
    assert b"later" not in times
    eventually(lambda: b"later" in times)
    assert times[b"later"] >= when
    eventually(lambda: counts(server, task) == (0, 0, 1))


def test_worker_takes_too_long(
    start_job_server: StartJobServer,
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    server = start_job_server(job_retries=0)
    client = make_client(server.address)
    gate = Gate()
    worker = start_worker(server.address, {task: gate})
    worker.send(CanDoTimeout(task.encode(), b"50"))
    assert client.submit_job(task, b"slow").state == gearman.JOB_FAILED
    assert counts(server, task) == (0, 0, 1)
    # What it sends late disturbs nobody.
    gate.open.set()
    assert client.submit_job(task, b"fast").result == b"fast"


def test_job_that_takes_too_long_is_run_again(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker, connect: Connect
) -> None:
    slow = connect(server.address)
    slow.send(CanDoTimeout(task.encode(), b"50"))
    call = spawn(client.submit_job, task, b"data")
    eventually(lambda: counts(server, task)[0] == 1)
    slow.send(GrabJobUniq())
    taken = slow.receive()
    assert isinstance(taken, JobAssignUniq)
    worker = start_worker(server.address, {task: reverse})
    assert call.result(PATIENCE).result == b"atad"
    assert worker.jobs[0].handle == taken.handle
    slow.send(WorkComplete(taken.handle, b"late"))
    slow.echo()


# Peers that misbehave.


@pytest.fixture
def healthy(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> Iterator[Callable[[], None]]:
    """Makes sure that the server works; in the end also that it has forgotten everybody else."""
    worker = start_worker(server.address, {task: reverse})

    def check() -> None:
        assert client.submit_job(task, b"data", poll_timeout=PATIENCE).result == b"atad"

    check()
    yield check
    check()
    client.shutdown()
    worker.stop()
    eventually(lambda: links(server) == 0, "the end of all connections")
    eventually(lambda: memory(server) == 0, "the release of all memory")


PARTS = {
    "no header": b"\0",
    "half a magic": MAGIC_REQUEST[:3],
    "half a header": header(100)[:7],
    "header": header(100),
    "half a body": header(100) + bytes(50),
    "half a line": b"stat",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(500),
}


def test_half_a_packet(server: JobServer, healthy: Callable[[], None], connect: Connect) -> None:
    peers = [connect(server.address) for _ in PARTS]
    for peer, part in zip(peers, PARTS.values()):
        peer.sock.sendall(part)
    healthy()
    assert links(server) == len(PARTS) + 2
    # They were not cut off: the rest still counts.
    peers[0].sock.sendall(MAGIC_REQUEST[1:] + struct.pack(">II", EchoReq.packet.number, 0))
    assert peers[0].sock.recv(100) == MAGIC_RESPONSE + struct.pack(">II", EchoRes.packet.number, 0)


GARBAGE = {
    "wrong magic": b"\0REX" + bytes(8),
    "unknown packet": header(0, 1000),
    "too large": header(2**32 - 1),
    "endless line": b"x" * 10_000,
    "too many words": b"a b c d e f g h\n",
    "HTTP": b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "zeros": bytes(100_000),
    "ones": b"\xff" * 100_000,
    "random": b"\0" + random.Random(2).randbytes(100_000),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage(
    name: str, server: JobServer, healthy: Callable[[], None], connect: Connect
) -> None:
    peer = connect(server.address)
    with contextlib.suppress(ConnectionError):
        peer.sock.sendall(GARBAGE[name])
        # HTTP is so many unknown commands; all others are cut off.
        if name == "HTTP":
            peer.sock.shutdown(socket.SHUT_WR)
    assert (b"UNKNOWN_COMMAND" in peer.rest()) == (name == "HTTP")
    healthy()


def test_packets_that_nobody_may_send(
    server: JobServer, healthy: Callable[[], None], connect: Connect
) -> None:
    """They are answered with an ERROR, and the connection goes on."""
    peer = connect(server.address)
    for magic in (b"\0REQ", b"\0RES"):
        peer.sock.sendall(magic + struct.pack(">II", JobCreated.packet.number, 3) + b"H:1")
    healthy()
    reply = b""
    while reply.count(b"\0RES") < 2:
        reply += peer.sock.recv(65536)
    assert b"INVALID_COMMAND" in reply
    assert b"INVALID_MAGIC" in reply
    peer.sock.sendall(b"version\n")
    assert peer.sock.recv(65536).startswith(b"OK ")


def push(sock: socket.socket, data: bytes, limit: int) -> int:
    """Send `data` again and again until the server has cut this off. Returns the bytes sent."""
    sent = 0
    try:
        while sent < limit:
            sent += sock.send(data)
    except ConnectionError:
        return sent
    raise AssertionError(f"the server took {sent} bytes")


def test_announces_more_than_is_taken(start_job_server: StartJobServer, connect: Connect) -> None:
    server = start_job_server(max_packet_size=10 * MB)
    peer, other = connect(server.address), connect(server.address)
    peer.sock.sendall(header(200 * MB))
    assert peer.rest() == b""
    other.sock.sendall(header(10 * MB + 1))
    assert other.rest() == b""
    assert links(server) == 0
    assert memory(server) == 0


def test_endless_packet(
    start_job_server: StartJobServer, connect: Connect, make_client: MakeClient
) -> None:
    """What it is allowed to announce may still be more than there is room for."""
    server = start_job_server(max_memory=4 * MB)
    client = make_client(server.address)
    small = connect(server.address)
    small.sock.sendall(header(200 * MB) + bytes(100_000))
    eventually(lambda: memory(server) >= 100_000)
    peer = connect(server.address)
    peer.sock.sendall(header(200 * MB))
    push(peer.sock, bytes(65536), 200 * MB)
    request = client.submit_job("task", bytes(MB // 2), background=True)
    assert request.state == gearman.JOB_CREATED
    # Who held less was spared.
    assert links(server) == 2
    assert MB // 2 < memory(server) < MB


def test_many_unfinished_packets(
    start_job_server: StartJobServer, connect: Connect, make_client: MakeClient
) -> None:
    server = start_job_server(max_memory=4 * MB)
    peers = [connect(server.address) for _ in range(20)]
    for peer in peers:
        with contextlib.suppress(ConnectionError):
            peer.sock.sendall(header(2 * MB) + bytes(MB))
    eventually(lambda: 2 * MB < memory(server) <= 4 * MB)
    eventually(lambda: links(server) < 5)
    for peer in peers:
        peer.close()
    eventually(lambda: memory(server) == 0)
    request = make_client(server.address).submit_job("task", bytes(MB // 2), background=True)
    assert request.state == gearman.JOB_CREATED


def test_never_reads(start_job_server: StartJobServer, connect: Connect) -> None:
    server = start_job_server(max_unread=20 * MB)
    other = connect(server.address)
    peer = connect(server.address)
    request = Connection(Role.CLIENT).send(EchoReq(bytes(10_000)))
    pushing = spawn(push, peer.sock, request * 10, 1000 * MB)
    rounds = 0
    while not pushing.done():
        other.echo(b"%d" % rounds)
        rounds += 1
    assert pushing.result() >= 20 * MB
    assert rounds > 3
    other.echo()
    assert links(server) == 1
    eventually(lambda: memory(server) == 0)


def test_never_reads_what_workers_send(
    start_job_server: StartJobServer, connect: Connect, task: str, start_worker: StartWorker
) -> None:
    """The worker is not to blame: its job ends as it should."""
    server = start_job_server(max_unread=2 * MB)

    def work(job: Job) -> bytes:
        for _ in range(200):
            job.send_data(bytes(100_000))
        return b""

    worker = start_worker(server.address, {task: work})
    peer = connect(server.address)
    peer.send(SubmitJob(task.encode(), b"", b""))
    eventually(lambda: worker.jobs and counts(server, task) == (0, 0, 1))
    assert links(server) == 1
    assert memory(server) < MB
    assert len(peer.rest()) < 20 * MB


def test_slow_reader(
    server: JobServer,
    healthy: Callable[[], None],
    task: str,
    start_worker: StartWorker,
    connect: Connect,
) -> None:
    payload = random.Random(3).randbytes(16 * MB)
    worker = start_worker(server.address, {f"{task}-huge": lambda job: payload})
    slow = connect(server.address, receive_buffer=4096)
    slow.send(SubmitJob(f"{task}-huge".encode(), b"", b""))
    assert isinstance(slow.receive(), JobCreated)
    eventually(lambda: counts(server, f"{task}-huge") == (0, 0, 1))
    for _ in range(20):
        healthy()
    event = slow.receive()
    assert isinstance(event, WorkComplete)
    assert event.data == payload
    worker.stop()


def test_silent_connections(
    server: JobServer, healthy: Callable[[], None], connect: Connect
) -> None:
    peers = [connect(server.address) for _ in range(300)]
    healthy()
    assert links(server) == 302
    peers[-1].echo()


def test_storm_of_connections(server: JobServer, healthy: Callable[[], None]) -> None:
    def storm(thread: int) -> None:
        for number in range(50):
            peer = Link(server.address)
            if number % 3 == 1:
                peer.sock.sendall(b"status\n")
            elif number % 3 == 2:
                peer.echo()
            if number % 2:
                peer.reset()
            else:
                peer.close()

    calls = [spawn(storm, thread) for thread in range(8)]
    while not all(call.done() for call in calls):
        healthy()
    for call in calls:
        call.result()


def test_reset_at_any_moment(
    server: JobServer, healthy: Callable[[], None], task: str, client: GearmanClient
) -> None:
    """A peer that is all at once is lost after any number of bytes, of all that it was to send."""
    name = f"{task}-reset".encode()
    connection = Connection(Role.CLIENT | Role.WORKER)
    events: list[Event] = [
        CanDo(name),
        PreSleep(),
        SubmitJob(name, b"unique", b"data"),
        SubmitJob(name, b"", b"data"),
        GrabJobAll(),
        GrabJobUniq(),
        EchoReq(bytes(100)),
        GetStatus(b"H:1"),
    ]
    script = b"".join([connection.send(event) for event in events]) + b"workers\nstatus\n"
    for size in range(0, len(script) + 1, 2):
        peer = Link(server.address)
        peer.sock.sendall(script[:size])
        if size % 4:
            # By now it has been read, most likely.
            healthy()
        peer.reset()
    healthy()
    eventually(lambda: counts(server, name.decode()) == (0, 0, 0))


def test_reset_in_the_middle_of_much(server: JobServer, healthy: Callable[[], None]) -> None:
    """While the server reads, and while it writes."""
    request = Connection(Role.CLIENT).send(EchoReq(bytes(4 * MB)))
    for number in range(10):
        peer = Link(server.address)
        peer.sock.sendall(request[: (number + 1) * len(request) // 10])
        if number == 9:
            assert peer.sock.recv(1000)
        healthy()
        peer.reset()


def test_replies_after_a_reset(
    server: JobServer, healthy: Callable[[], None], task: str, start_worker: StartWorker
) -> None:
    """Jobs of a client that is no more: its connection, and those that share them, are told."""
    gate = Gate()
    name = f"{task}-slow"
    worker = start_worker(server.address, {name: gate})
    stays, leaves = Link(server.address), Link(server.address)
    for peer in (stays, leaves):
        peer.send(SubmitJob(name.encode(), b"unique", b"data"))
        assert isinstance(peer.receive(), JobCreated)
    leaves.send(SubmitJob(name.encode(), b"", b"of nobody"))
    assert isinstance(leaves.receive(), JobCreated)
    wait_for(gate.begun)
    leaves.reset()
    eventually(lambda: counts(server, name) == (1, 1, 1))
    gate.open.set()
    assert isinstance(stays.receive(), WorkComplete)
    assert worker.order == [b"data"]
    stays.close()
    worker.stop()


def test_end_of_stream_after_a_command(server: JobServer, connect: Connect) -> None:
    """As ``echo version | nc`` does."""
    link = connect(server.address)
    link.sock.sendall(b"version\n")
    link.sock.shutdown(socket.SHUT_WR)
    assert link.rest().startswith(b"OK gearman-sansio-")


@needs_rlimit
def test_out_of_file_descriptors(start_process: Callable[..., ServerProcess]) -> None:
    """It takes no more connections, does not spin over that, and takes them again later."""
    server = start_process(
        "import logging, resource; logging.disable()\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (30, hard))\n"
    )
    peers = [Link(server.address) for _ in range(60)]
    try:
        peers[0].echo()
        peers[-1].send(EchoReq(b"last"))
        before = server.cpu_time()
        threading.Event().wait(0.7)
        used = server.cpu_time() - before
        peers[0].echo()
        peers[-1].sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            peers[-1].sock.recv(1)
        peers[-1].sock.settimeout(PATIENCE)
        for peer in peers[:50]:
            peer.close()
        event = peers[-1].receive()
        assert isinstance(event, EchoRes)
        assert event.data == b"last"
        late = Link(server.address)
        late.echo()
        late.close()
    finally:
        for peer in peers:
            peer.close()
    assert server.stop() == ""
    assert used < 0.2


@needs_rlimit
def test_stop_while_out_of_file_descriptors(start_process: Callable[..., ServerProcess]) -> None:
    server = start_process(
        "import resource\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, hard))\n"
    )
    peers = [Link(server.address) for _ in range(30)]
    peers[0].echo()
    stderr = server.stop()
    assert "no connection can be accepted" in stderr
    assert "Traceback" not in stderr
    for peer in peers:
        peer.rest()
        peer.close()


# What it costs.


def test_idle_server_uses_no_cpu(start_process: Callable[..., ServerProcess]) -> None:
    server = start_process()
    peers = [Link(server.address) for _ in range(50)]
    for number, peer in enumerate(peers):
        peer.send(CanDo(b"task-%d" % number), PreSleep())
        peer.echo()
    # A job for later, too.
    with GearmanClient([server.address]) as client:
        client.submit_job("later", b"", background=True, run_at=time.time() + 1000)
    before = server.cpu_time()
    threading.Event().wait(0.7)
    used = server.cpu_time() - before
    for peer in peers:
        peer.close()
    assert server.stop() == ""
    assert used < 0.1


def test_memory_is_full(
    start_job_server: StartJobServer,
    make_client: MakeClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    server = start_job_server(max_memory=MB)
    client = make_client(server.address)
    jobs = [{"task": task, "data": b"%d" % number + bytes(100_000)} for number in range(20)]
    requests = [client.submit_job(**job, background=True) for job in jobs]  # type: ignore[arg-type]
    taken = [request for request in requests if request.state == gearman.JOB_CREATED]
    refused = [request for request in requests if request.state == gearman.JOB_FAILED]
    assert len(taken) + len(refused) == 20
    assert 5 <= len(taken) < 10
    assert requests[: len(taken)] == taken
    for request in refused:
        assert isinstance(request.error, ServerError)
        assert request.error.code == "QUEUE_ERROR"
    # A small one still fits.
    assert client.submit_job(task, b"small", background=True).state == gearman.JOB_CREATED
    worker = start_worker(server.address, {task: lambda job: b""})
    eventually(lambda: counts(server, task) == (0, 0, 1))
    assert len(worker.jobs) == len(taken) + 1
    for request in refused[:5]:
        request.reset()
    again = client.submit_multiple_requests(refused[:5])
    assert [request.state for request in again] == [gearman.JOB_CREATED] * 5
    eventually(lambda: counts(server, task) == (0, 0, 1))
    client.shutdown()
    worker.stop()
    eventually(lambda: memory(server) == 0)


def test_memory_of_unread_packets(start_job_server: StartJobServer, connect: Connect) -> None:
    """It counts until it is written, and not until writing has begun."""
    server = start_job_server(max_memory=8 * MB)
    peers = [connect(server.address) for _ in range(16)]
    request = Connection(Role.CLIENT).send(EchoReq(bytes(6 * MB)))
    tracemalloc.start()
    try:
        for peer in peers:
            with contextlib.suppress(ConnectionError):
                peer.sock.sendall(request)
                peer.sock.recv(1)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 20 * MB


def test_memory_of_idle_connections(start_job_server: StartJobServer, connect: Connect) -> None:
    """Packets that have been dealt with are forgotten."""
    server = start_job_server(max_memory=8 * MB)
    peers = [connect(server.address) for _ in range(16)]
    request = Connection(Role.CLIENT).send(EchoReq(bytes(2 * MB)))
    buffer = bytearray(len(request))
    tracemalloc.start()
    try:
        for peer in peers:
            peer.sock.sendall(request)
            peer.sock.recv_into(buffer, len(request), socket.MSG_WAITALL)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert links(server) == 16
    assert held < 8 * MB


def test_queue_is_full(
    start_job_server: StartJobServer, make_client: MakeClient, task: str
) -> None:
    client = make_client(start_job_server(max_queue_size=2).address)
    requests = [client.submit_job(task, b"%d" % n, background=True) for n in range(3)]
    assert [request.state for request in requests] == ["CREATED", "CREATED", "FAILED"]
    assert isinstance(requests[2].error, GearmanError)
    assert client.submit_job(f"{task}-other", b"", background=True).state == "CREATED"


def test_exceptions_for_all(
    start_job_server: StartJobServer, connect: Connect, task: str, start_worker: StartWorker
) -> None:
    def work(job: Job) -> bytes:
        job.send_data(b"before")
        raise Raised(b"why")

    for exceptions, last in ((False, "WorkFail"), (True, "WorkException")):
        server = start_job_server(exceptions=exceptions)
        start_worker(server.address, {task: work})
        link = connect(server.address)
        link.send(SubmitJob(task.encode(), b"", b""))
        assert isinstance(link.receive(), JobCreated)
        assert isinstance(link.receive(), WorkData)
        assert type(link.receive()).__name__ == last
