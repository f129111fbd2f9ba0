"""JobServer over real sockets: start and stop, forks, exhausted descriptors, and its cost."""

from __future__ import annotations

import contextlib
import os
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
from gearman_proto import Connection, Role
from gearman_proto.engines.server.jobqueue import FUNCTION_SIZE
from gearman_proto.errors import (
    ExceededConnectionAttempts,
    ServerUnavailable,
)
from gearman_proto.wire.packets import (
    MAGIC_REQUEST,
    CanDo,
    EchoReq,
    EchoRes,
    PreSleep,
    SubmitJobBg,
)
from gearman_sync import GearmanClient, JobServer
from gearman_sync.testing import Gate, ScriptedClient, ScriptedWorker, echo
from tests.support import PATIENCE, ServerAt, spawn, wait_for

from .test_fork import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gearman_proto.address import HostAndPort

    StartWorker = Callable[..., ScriptedWorker]
    MakeClient = Callable[..., GearmanClient]
    StartJobServer = Callable[..., JobServer]
    Connect = Callable[..., "ScriptedClient"]

ROOT = Path(__file__).resolve().parents[2]
MB = 1_000_000

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
needs_rlimit = pytest.mark.skipif(sys.platform == "win32", reason="the system has no setrlimit")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A function that opens connections, which are closed after the test."""
    with contextlib.ExitStack() as stack:

        def connect(*args: Any, **kwargs: Any) -> ScriptedClient:
            link = ScriptedClient(*args, **kwargs)
            stack.callback(link.close)
            return link

        yield connect


@pytest.fixture
def start_job_server() -> Iterator[StartJobServer]:
    """A function that starts a job server for one test."""
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
    """Send an admin command on a new connection, and return the reply."""
    return ServerAt(address).admin(command)


def counts(server: JobServer, task: str) -> tuple[int, int, int]:
    """Return the numbers of jobs of `task`, of running jobs, and of workers."""
    return ServerAt(server.address).counts(task)


def links(server: JobServer) -> int:
    """Return the number of connections, except the one of this command."""
    return admin(server.address, "workers").count("\n") - 2


def memory(server: JobServer) -> int:
    """Return the server's memory count, without the functions that it remembers."""
    assert server._gm_driver is not None
    with server._gm_driver._lock:
        engine = server._gm_driver.engine
        return engine.queue.memory - sum(
            len(name) + FUNCTION_SIZE for name in engine.queue.functions
        )


def sockets(driver: Any) -> list[socket.socket]:
    """Return all sockets that a driver has opened."""
    return [
        *(listener.sock for listener in driver._poller._listeners),
        *(transport.sock for transport in driver._poller.transports.values()),
    ]


def open_files() -> int:
    """Return the number of open file descriptors of this process."""
    if not os.path.isdir("/dev/fd"):
        pytest.skip("the system does not tell what files are open")
    return len(os.listdir("/dev/fd"))


def refuses(address: tuple[str, int]) -> bool:
    """Return whether a connection to the address is refused."""
    try:
        ScriptedClient(address).close()
    except ConnectionRefusedError:
        return True
    return False


def header(size: int, packet: int = SubmitJobBg.packet.number) -> bytes:
    """Return the header of a packet of `size` bytes."""
    return MAGIC_REQUEST + struct.pack(">II", packet, size)


class ServerProcess:
    """A job server in a process of its own, controlled by commands."""

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
        """Return the process's CPU time in seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def stop(self) -> str:
        """Stop the process, and return its stderr."""
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
    """A function that starts a job server in a process of its own."""
    with contextlib.ExitStack() as stack:

        def start(*args: Any) -> ServerProcess:
            process = ServerProcess(*args)
            stack.callback(process.kill)
            return process

        yield start


# Start and stop.


def test_before_it_is_started() -> None:
    server = JobServer()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.address
    assert repr(server) == "<JobServer not started>"
    assert server.wait()
    server.stop()
    with server:
        assert not refuses(server.address)


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


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="the system has no pthread_kill")
@pytest.mark.usefixtures("interruptible")
def test_signal_that_does_not_interrupt_the_sleep_is_handled(server: JobServer) -> None:
    """Like a signal just before the sleep, it interrupts nothing. Its handler runs soon after."""

    def interrupt() -> None:
        time.sleep(1.0)
        # This thread is not the sleeping one.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    interrupted = spawn(interrupt)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        server.wait(PATIENCE)
    assert time.monotonic() - begun < PATIENCE / 2
    interrupted.result(PATIENCE)
    assert not server.wait(0.01)


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
    # The start can be repeated.
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
    """The port is free although the kernel keeps closed connections in TIME_WAIT."""
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


def test_wait(server: JobServer) -> None:
    assert not server.wait(0)
    waiting = [spawn(server.wait), spawn(server.wait, PATIENCE)]
    assert not server.wait(0.02)
    assert not any(call.done() for call in waiting)
    server.stop()
    assert all(call.result(PATIENCE) for call in waiting)
    assert server.wait(0)


def test_wait_timeout(server: JobServer) -> None:
    bad: list[Any] = ["1", True, [], float("nan")]
    for timeout in bad:
        with pytest.raises((TypeError, ValueError), match="timeout is "):
            server.wait(timeout)
    assert not server.wait(-1)
    waiting = spawn(server.wait, float("inf"))
    server.stop()
    assert waiting.result(PATIENCE)


@pytest.mark.parametrize("command", ["shutdown", "shutdown graceful"])
def test_shutdown_commands_leave_nothing(command: str, server: JobServer, connect: Connect) -> None:
    connect(server.address).echo()
    assert server._gm_driver is not None
    opened = sockets(server._gm_driver)
    assert admin(server.address, command) == "OK\r\n"
    assert server.wait(PATIENCE)
    assert {sock.fileno() for sock in opened} == {-1}
    assert server._gm_driver._poller.waker.closed


def test_stop_while_clients_submit(task: str) -> None:
    """Each submit is acknowledged or raises, and no client hangs."""

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
    """Starting and stopping 50 times leaks no thread and no file."""
    files = open_files()
    threads = threading.active_count()
    for _ in range(50):
        with JobServer() as server, GearmanClient([server.address]) as client:
            client.submit_job(task, b"", background=True)
            assert server._gm_driver is not None
            opened = sockets(server._gm_driver)
            assert len(opened) >= 2
            server.stop()
            assert {sock.fileno() for sock in opened} == {-1}
            assert server._gm_driver._poller.waker.closed
            assert threading.active_count() == threads
    assert open_files() == files


def test_stop_at_once() -> None:
    """The server stops before its thread has run."""
    for _ in range(50):
        with JobServer():
            pass


def test_engine_bug_ends_the_server(
    server: JobServer,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The bug is logged, and the server ends instead of hanging its clients."""
    link = connect(server.address)
    link.echo()
    assert server._gm_driver is not None

    def broken(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server._gm_driver.engine, "receive_data", broken)
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
    """Ctrl-C ends only the wait."""
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
            link = ScriptedClient((host, int(port)))
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
    """The server's connections end with the server, although a child is alive."""
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
        # The parent's server continues.
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


@pytest.mark.slow
@needs_fork
def test_forks_while_it_works(
    server: JobServer, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    """At the fork, the server's thread may hold the lock. The child has no such thread."""
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


# Out of file descriptors.


@pytest.mark.slow
@needs_rlimit
def test_out_of_file_descriptors(start_process: Callable[..., ServerProcess]) -> None:
    """The server stops accepting without spinning, and accepts again later."""
    server = start_process(
        "import logging, resource; logging.disable()\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (30, hard))\n"
    )
    peers = [ScriptedClient(server.address) for _ in range(60)]
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
        late = ScriptedClient(server.address)
        late.echo()
        late.close()
    finally:
        for peer in peers:
            peer.close()
    assert server.stop() == ""
    assert used < 0.2


@pytest.mark.slow
@needs_rlimit
def test_stop_while_out_of_file_descriptors(start_process: Callable[..., ServerProcess]) -> None:
    server = start_process(
        "import resource\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, hard))\n"
    )
    peers = [ScriptedClient(server.address) for _ in range(30)]
    peers[0].echo()
    stderr = server.stop()
    assert "no connection can be accepted" in stderr
    assert "Traceback" not in stderr
    for peer in peers:
        peer.rest()
        peer.close()


# Cost.


@pytest.mark.slow
def test_idle_server_uses_no_cpu(start_process: Callable[..., ServerProcess]) -> None:
    server = start_process()
    peers = [ScriptedClient(server.address) for _ in range(50)]
    for number, peer in enumerate(peers):
        peer.send(CanDo(b"task-%d" % number), PreSleep())
        peer.echo()
    # The queue holds a delayed job as well.
    with GearmanClient([server.address]) as client:
        client.submit_job("later", b"", background=True, run_at=time.time() + 1000)
    before = server.cpu_time()
    threading.Event().wait(0.7)
    used = server.cpu_time() - before
    for peer in peers:
        peer.close()
    assert server.stop() == ""
    assert used < 0.1


@pytest.mark.slow
def test_memory_of_unread_packets(start_job_server: StartJobServer, connect: Connect) -> None:
    """The memory of a packet is counted until the packet is completely written."""
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


@pytest.mark.slow
def test_memory_of_idle_connections(start_job_server: StartJobServer, connect: Connect) -> None:
    """Handled packets are released."""
    server = start_job_server(max_memory=8 * MB)
    peers = [connect(server.address) for _ in range(16)]
    request = Connection(Role.CLIENT).send(EchoReq(bytes(2 * MB)))
    buffer = bytearray(len(request))
    tracemalloc.start()
    try:
        for peer in peers:
            peer.sock.sendall(request)
            rest = memoryview(buffer)
            while rest:  # MSG_WAITALL does not wait on a socket with a timeout.
                rest = rest[peer.sock.recv_into(rest) :]
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert links(server) == 16
    assert held < 8 * MB
