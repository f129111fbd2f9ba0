"""The blocking admin client: threads, forks, signals, subclasses."""

from __future__ import annotations

import gc
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidAdminClientState, ServerUnavailable
from gearman_proto.wire.packets import TextLine
from gearman_sync import GearmanAdminClient, GearmanClient
from gearman_sync.testing import Peer, ScriptedServer, ScriptedWorker, echo
from tests.support import PATIENCE, Gearmand, eventually, spawn, wait_for

from .support import wait_for_followers, wait_for_leader
from .test_fork import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from tests.support import Administered

    StartServer = Callable[..., ScriptedServer]
    StartWorker = Callable[..., ScriptedWorker]


@pytest.fixture
def admin(server: Administered) -> Iterator[GearmanAdminClient]:
    """An admin client for each kind of server."""
    with GearmanAdminClient([server.address]) as client:
        yield client


def silent_then_good(answer: bytes = b"OK 1") -> Callable[[Peer], None]:
    """A script that never replies on the first connection, but on all others."""
    first = [True]

    def script(peer: Peer) -> None:
        if first and first.pop():
            peer.hold()
        while True:
            peer.expect(TextLine)
            peer.send(TextLine(answer, b"\n"))

    return script


# Threads.


@pytest.mark.slow
def test_threads_share_a_client(
    server: Administered,
    admin: GearmanAdminClient,
    task: str,
    start_worker: StartWorker,
) -> None:
    """Each thread gets the reply to its own command while jobs are submitted and done."""
    start_worker(server.address, {task: echo})
    stopping = threading.Event()
    pid = admin.get_pid()

    def submit() -> int:
        count = 0
        with GearmanClient([server.address]) as client:
            while not stopping.is_set():
                assert client.submit_job(task, b"%d" % count).result == b"%d" % count
                count += 1
        return count

    def ask(number: int) -> None:
        name = f"{task}-{number}"
        assert admin.create_function(name) == "OK"
        for _ in range(10):
            assert admin.get_pid() == pid
            assert admin.get_version().startswith("OK ")
            records = {record.task: record for record in admin.get_status()}
            assert records[name] == gearman.FunctionStatus(name, 0, 0, 0)
            assert records[task].workers == 1
            assert admin.ping_server() >= 0
            with pytest.raises(gearman.errors.ServerError, match=r"^UNKNOWN_JOB$"):
                admin.cancel_job(f"H:nowhere:{number}")
            workers = admin.get_workers()
            assert [record.tasks for record in workers if record.tasks] == [(task,)]
        assert admin.drop_function(name) == "OK"

    submitting = spawn(submit)
    try:
        for call in [spawn(ask, number) for number in range(20)]:
            call.result(PATIENCE)
    finally:
        stopping.set()
    assert submitting.result(PATIENCE)
    # All threads used one connection. (The other client's connection has ended or is ending.)
    eventually(
        lambda: [record.tasks for record in admin.get_workers() if not record.tasks] == [()],
        "a single connection",
    )


def test_unreferenced_admin_client_is_collected(start_server: StartServer) -> None:
    server = start_server(Peer.hold)
    admin = GearmanAdminClient([server.address], poll_timeout=0.01)
    with pytest.raises(gearman.errors.GearmanError):
        admin.get_version()
    del admin
    gc.collect()  # An open socket would warn, and warnings are errors.


# Forks.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_fork(server: Administered, admin: GearmanAdminClient, task: str) -> None:
    admin.create_function(task)
    (connection,) = admin.connection_list

    def in_child() -> tuple[list[str], bool]:
        tasks = [record.task for _ in range(20) for record in admin.get_status()]
        return tasks, admin.connection_list[0] is connection

    child = Child(in_child)
    mine = [record.task for _ in range(20) for record in admin.get_status()]
    theirs, is_the_same = child.result()
    assert mine.count(task) == theirs.count(task) == 20
    # The child has connected anew, and the parent keeps the old connection.
    assert not is_the_same
    assert admin.connection_list == [connection]
    assert connection.connected
    admin.drop_function(task)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_fork_during_a_call_leaves_it_to_the_parent(start_server: StartServer) -> None:
    """The pending call gets its reply in the parent."""
    go_on = threading.Event()
    first = [True]

    def script(peer: Peer) -> None:
        peer.expect(TextLine)
        if first and first.pop():
            wait_for(go_on)
            peer.send(TextLine(b"OK parent", b"\n"))
        else:
            peer.send(TextLine(b"OK child", b"\n"))
        peer.hold()

    server = start_server(script)
    with GearmanAdminClient([server.address]) as client:
        call = spawn(client.get_version)
        eventually(lambda: server.events, "the parent's question")
        assert Child(client.get_version).result() == "OK child"
        assert not call.done()
        go_on.set()
        assert call.result(PATIENCE) == "OK parent"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_fork_of_a_client_that_was_shut_down(gearmand: Gearmand) -> None:
    admin = GearmanAdminClient([gearmand.address])
    admin.get_version()
    admin.shutdown()

    def in_child() -> bool:
        with pytest.raises(InvalidAdminClientState):
            admin.get_version()
        return True

    assert Child(in_child).result()


# Subclasses.


def test_subclass(gearmand: Gearmand, task: str) -> None:
    class Admin(GearmanAdminClient):
        """A subclass with a new method and an overridden one."""

        def get_tasks(self) -> list[str]:
            return [record["task"] for record in self.get_status()]

        def get_version(self) -> str:
            return super().get_version().removeprefix("OK ")

    with Admin([gearmand.address], 5.0) as admin:
        assert repr(admin).startswith("<Admin ")
        assert admin.poll_timeout == 5.0
        admin.create_function(task)
        assert task in admin.get_tasks()
        assert not admin.get_version().startswith("OK")
        admin.drop_function(task)


def test_leaving_the_block_shuts_it_down(gearmand: Gearmand) -> None:
    with GearmanAdminClient([gearmand.address]) as admin:
        admin.get_version()
    with pytest.raises(InvalidAdminClientState):
        admin.get_version()


# Signals.


needs_signals = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="the system has no pthread_kill"
)


@needs_signals
@pytest.mark.usefixtures("interruptible")
def test_keyboard_interrupt(start_server: StartServer) -> None:
    """The client stays usable. The reply to the interrupted call is discarded."""
    server = start_server(silent_then_good())
    main = threading.get_ident()

    def interrupt() -> None:
        eventually(lambda: server.events, "the question")
        wait_for_leader(client)
        signal.pthread_kill(main, signal.SIGINT)

    with GearmanAdminClient([server.address], None) as client:
        call = spawn(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.get_version()
        call.result(PATIENCE)
        assert client.get_version() == "OK 1"
        assert len(server.peers) == 2


@needs_signals
@pytest.mark.usefixtures("interruptible")
def test_keyboard_interrupt_does_not_delay_waiting_calls(start_server: StartServer) -> None:
    """Waiting calls don't depend on the reply to the interrupted one."""
    server = start_server(silent_then_good())
    main = threading.get_ident()

    def interrupt() -> list[str]:
        eventually(lambda: server.events, "the first question")
        wait_for_leader(client)
        others = [spawn(client.get_version) for _ in range(3)]
        wait_for_followers(client, 3)
        signal.pthread_kill(main, signal.SIGINT)
        return [other.result(PATIENCE) for other in others]

    with GearmanAdminClient([server.address], poll_timeout=None) as client:
        call = spawn(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.get_version()
        assert call.result(PATIENCE) == ["OK 1"] * 3
        assert client.get_version() == "OK 1"


@needs_signals
@pytest.mark.usefixtures("interruptible")
def test_keyboard_interrupt_of_a_waiting_call_leaves_the_active_one(
    start_server: StartServer,
) -> None:
    """The active call is not affected."""
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        peer.expect(TextLine)
        wait_for(go_on)
        peer.send(TextLine(b"OK 1", b"\n"))
        peer.expect(TextLine)
        peer.send(TextLine(b"OK 2", b"\n"))
        peer.hold()

    server = start_server(script)
    main = threading.get_ident()

    def interrupt() -> None:
        wait_for_followers(client, 1)
        signal.pthread_kill(main, signal.SIGINT)

    with GearmanAdminClient([server.address]) as client:
        first = spawn(client.get_version)
        wait_for_leader(client)
        call = spawn(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.get_pid()
        call.result(PATIENCE)
        go_on.set()
        assert first.result(PATIENCE) == "OK 1"
        assert client.get_version() == "OK 2"


@pytest.mark.slow
@needs_signals
# An interrupt may hit after a socket was created and before it was stored.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_keyboard_interrupts_anywhere(gearmand: Gearmand, task: str) -> None:
    """An interrupt inside the engine closes the connection, but never mixes up replies."""
    main = threading.get_ident()
    stop = threading.Event()
    armed: list[bool] = []

    def handler(number: int, frame: Any) -> None:
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    def interrupt() -> None:
        while not stop.wait(0.001):
            signal.pthread_kill(main, signal.SIGINT)

    def ask() -> int:
        count = 0
        while not stop.is_set():
            try:
                assert client.get_version().startswith("OK ")
                assert type(client.get_pid()) is int
            except (gearman.errors.ConnectionError, ServerUnavailable):
                continue
            count += 1
        return count

    before = signal.signal(signal.SIGINT, handler)
    try:
        with GearmanAdminClient([gearmand.address]) as client:
            pid = client.get_pid()
            calls: list[Future[Any]] = [spawn(interrupt), spawn(ask)]
            interrupted = 0
            try:
                while interrupted < 50:
                    try:
                        armed.append(True)
                        assert client.get_pid() == pid
                        assert client.get_verbosity() == "ERROR"
                        armed.clear()
                    except KeyboardInterrupt:
                        interrupted += 1
                    except (gearman.errors.ConnectionError, ServerUnavailable):
                        pass
                    finally:
                        armed.clear()
            finally:
                armed.clear()
                stop.set()
            calls[0].result(PATIENCE)
            assert calls[1].result(PATIENCE)
            assert client.get_pid() == pid
    finally:
        signal.signal(signal.SIGINT, before)
