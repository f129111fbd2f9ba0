"""The server's thread and sockets: start, stop, waits and forks."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.wire.packets import EchoReq
from gearman_sync import GearmanClient, JobServer
from gearman_sync.testing import Gate, ScriptedClient
from tests.support import PATIENCE, ServerAt, spawn, wait_for

from .support import interrupt, open_files, signal_handler
from .test_fork import Child

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from .support import StartScript, StartWorker


@pytest.fixture
def server() -> Iterator[JobServer]:
    with JobServer() as server:
        yield server


def sockets(server: JobServer) -> list[socket.socket]:
    """Return all sockets that a server has opened."""
    poller: Any = server._gm_driver._poller  # type: ignore[union-attr]
    return [each.sock for each in (*poller._listeners, *poller.transports.values())]


# Start and stop.


@pytest.mark.parametrize("host", ["192.0.2.1", "host.invalid", "127.0.0.1"])
def test_failed_start_leaves_nothing_open(server: JobServer, host: str) -> None:
    files = open_files()
    second = JobServer(host, server.address.port)
    with pytest.raises(OSError):
        second.start()
    assert open_files() == files
    second.stop()


def test_wait_ends_at_its_timeout_or_with_the_server(server: JobServer) -> None:
    for timeout in (0, -1, 0.02):
        assert not server.wait(timeout)
    bad: list[Any] = ["1", True, [], float("nan")]
    for timeout in bad:
        with pytest.raises((TypeError, ValueError), match="timeout is "):
            server.wait(timeout)
    waiting = [spawn(server.wait), spawn(server.wait, PATIENCE), spawn(server.wait, float("inf"))]
    stopping = [spawn(server.stop) for _ in range(3)]
    assert all(call.result(PATIENCE) for call in waiting)
    for call in stopping:
        call.result(PATIENCE)
    assert server.wait(0)


@pytest.mark.parametrize("by_command", [False, True])
def test_ended_server_leaves_no_thread_and_no_file(task: str, by_command: bool) -> None:
    files, threads = open_files(), threading.active_count()
    for _ in range(20):
        with JobServer() as server, GearmanClient([server.address]) as client:
            client.submit_job(task, b"", background=True)
            opened = sockets(server)
            assert len(opened) >= 2
            if by_command:
                assert ServerAt(server.address).admin("shutdown") == "OK\r\n"
                assert server.wait(PATIENCE)
            server.stop()
            assert {sock.fileno() for sock in opened} == {-1}
            assert threading.active_count() <= threads  # Another one may just have ended.
        with JobServer():
            pass  # It stops before its thread has run.
    assert open_files() == files


def test_bug_in_the_engine_ends_the_server(
    server: JobServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bug is logged, and the server ends instead of hanging its clients."""
    link = ScriptedClient(server.address)
    link.echo()

    def broken(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server._gm_driver.engine, "receive_data", broken)  # type: ignore[union-attr]
    link.send(EchoReq(b""))
    assert server.wait(PATIENCE)
    assert link.rest() == b""
    link.close()
    with pytest.raises(ConnectionRefusedError):
        ScriptedClient(server.address)
    assert "ZeroDivisionError" in caplog.text
    assert "the job server has ended" in caplog.text


# Waiting in the main thread.


def test_signal_that_does_not_interrupt_the_sleep_is_handled(server: JobServer) -> None:
    """Like a signal just before the sleep, it interrupts nothing. Its handler runs soon after."""

    def send() -> None:
        time.sleep(1.0)
        # This thread is not the sleeping one.
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    with signal_handler(interrupt):
        sending = spawn(send)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            server.wait(PATIENCE)
        assert time.monotonic() - begun < PATIENCE / 2
        sending.result(PATIENCE)
    assert not server.wait(0.01)


def test_ctrl_c_ends_only_the_wait(start_script: StartScript) -> None:
    program = start_script(
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
    host, _, port = program.line().rpartition(":")
    program.signal(signal.SIGINT)
    assert program.line() == "interrupted False"
    link = ScriptedClient((host, int(port)))
    link.echo()
    assert program.ask() == "True"
    assert program.end() == ("", "", 0)
    assert link.rest() == b""
    link.close()


def test_program_can_end_without_stopping_it(start_script: StartScript) -> None:
    program = start_script(
        "from gearman_sync import GearmanClient, JobServer\n"
        "server = JobServer()\n"
        "server.start()\n"
        "client = GearmanClient([server.address])\n"
        "print(client.submit_job('task', b'', background=True).state)\n"
    )
    assert program.end() == ("CREATED\n", "", 0)


# Forks.


def test_child_stops_its_copy_and_starts_another_server(
    server: JobServer, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(server.address, {task: gate})

    def in_child() -> list[str]:
        assert server.wait()
        assert {sock.fileno() for sock in opened} == {-1}
        server.stop()
        with pytest.raises(RuntimeError, match="started before"):
            server.start()
        # The parent's server continues.
        with JobServer() as other, GearmanClient([other.address]) as another:
            clients = [client, another]
            return [each.submit_job(task, b"", background=True).state for each in clients]

    with GearmanClient([server.address]) as client:
        call = spawn(client.submit_job, task, b"data")
        wait_for(gate.begun)
        opened = sockets(server)
        assert len(opened) >= 2
        assert Child(in_child).result() == [gearman.JOB_CREATED] * 2
        gate.open.set()
        assert call.result(PATIENCE).result == b"data"
