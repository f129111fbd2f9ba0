"""A client used before a fork works in both processes, and neither affects the other."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidClientState
from gearman_sync import GearmanClient
from tests.support import PATIENCE, spawn

from .support import wait_for_followers

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync.testing import Gate
    from tests.support import Gearmand

    from .support import MakeClient


class Child:
    """A forked process that calls a function."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._reader, writer = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 and later warn of forks where there are threads, which is the point here.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid:
            os.close(writer)
            return
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            try:
                outcome = (True, function())
            except BaseException:  # noqa: BLE001 - it is raised in the parent
                outcome = (False, traceback.format_exc())
            with open(writer, "wb") as file:
                pickle.dump(outcome, file)
        finally:
            os._exit(0)

    def result(self) -> Any:
        with open(self._reader, "rb") as file:
            data = file.read()
        os.waitpid(self._pid, 0)
        assert data, "the child hung"
        good, value = pickle.loads(data)
        assert good, value
        return value


def test_both_processes_submit(client: GearmanClient, task: str, gate: Gate) -> None:
    assert client.submit_job(task, b"before").result == b"before"
    (server,) = client.connection_list

    def in_child() -> list[bytes]:
        results = [client.submit_job(task, b"child %d" % number).result for number in range(50)]
        client.shutdown()
        return results

    child = Child(in_child)
    mine = [client.submit_job(task, b"parent %d" % number).result for number in range(50)]
    assert mine == [b"parent %d" % number for number in range(50)]
    assert child.result() == [b"child %d" % number for number in range(50)]
    # The parent still uses the connection from before the fork.
    assert client.connection_list == [server]
    assert server.connected
    assert client.submit_job(task, b"after").result == b"after"


def test_child_closes_the_inherited_sockets(client: GearmanClient, task: str) -> None:
    client.submit_job(task, b"", background=True)
    poller: Any = client._gm_driver._poller
    (transport,) = poller.transports.values()
    numbers = [sock.fileno() for sock in (transport.sock, poller.waker._near, poller.waker._far)]

    def in_child() -> bool:
        for number in numbers:
            with pytest.raises(OSError):
                os.fstat(number)
        return True

    assert Child(in_child).result()


def test_job_under_way_is_lost_to_the_child(client: GearmanClient, task: str, gate: Gate) -> None:
    request = client.submit_job(f"{task}-slow", b"parent", wait_until_complete=False)
    handle, unique = request.job.handle, request.unique

    def in_child() -> list[object]:
        client.wait_until_jobs_completed([request])
        lost = [request.state, request.timed_out]
        client.submit_multiple_requests([request], wait_until_complete=False)
        return [*lost, request.job.handle != handle, request.unique != unique]

    assert Child(in_child).result() == [gearman.JOB_UNKNOWN, False, True, True]
    assert (request.job.handle, request.unique) == (handle, unique)
    gate.open.set()
    client.wait_until_jobs_completed([request])
    assert request.result == b"parent"


def test_fork_while_threads_wait(client: GearmanClient, task: str, gate: Gate) -> None:
    waiting = [spawn(client.submit_job, f"{task}-slow", b"%d" % number) for number in range(3)]
    wait_for_followers(client, 2)
    assert Child(lambda: client.submit_job(task, b"child").result).result() == b"child"
    assert not any(call.done() for call in waiting)
    gate.open.set()
    assert [call.result(PATIENCE).result for call in waiting] == [b"0", b"1", b"2"]


def test_fork_in_the_middle_of_another_threads_work(
    gearmand: Gearmand, make_client: MakeClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child can't finish the other thread's work, but its clients are reset nevertheless."""
    clients = [make_client(gearmand.address) for _ in range(3)]
    for client in clients:
        client.submit_job(task, b"", background=True)

    def abandon(error: Exception) -> None:
        raise KeyError("half done")

    for client in clients:
        monkeypatch.setattr(client._gm_driver.engine, "abandon", abandon)

    def in_child() -> list[bool]:
        connected = [client.connection_list[0].connected for client in clients]
        return [
            *connected,
            *(client.submit_job(task, b"", background=True).complete for client in clients),
        ]

    assert Child(in_child).result() == [False] * 3 + [True] * 3
    assert all(client.connection_list[0].connected for client in clients)


@pytest.mark.slow
def test_fork_while_threads_submit(client: GearmanClient, task: str, gate: Gate) -> None:
    """At the fork, a thread that does not exist in the child may hold the lock."""
    stopping = threading.Event()

    def run(name: bytes) -> int:
        count = 0
        while not stopping.is_set():
            assert client.submit_job(task, name).result == name
            count += 1
        return count

    threads = [spawn(run, b"%d" % number) for number in range(3)]
    try:
        for _ in range(10):
            assert Child(lambda: client.submit_job(task, b"child").result).result() == b"child"
    finally:
        stopping.set()
    assert all(thread.result(PATIENCE) for thread in threads)


def test_child_of_a_child_has_its_own_uniques(client: GearmanClient, task: str) -> None:
    def unique() -> str | None:
        return client.submit_job(task, b"", background=True).unique

    def in_child() -> list[str | None]:
        return [unique(), Child(unique).result(), unique()]

    assert len({unique(), *Child(in_child).result(), *Child(in_child).result(), unique()}) == 8


def test_client_shut_down_before_the_fork_stays_so(client: GearmanClient, task: str) -> None:
    client.submit_job(task, b"", background=True)
    client.shutdown()

    def in_child() -> bool:
        with pytest.raises(InvalidClientState):
            client.submit_job(task, b"", background=True)
        return True

    assert Child(in_child).result()
