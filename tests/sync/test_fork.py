"""A client used before a fork works in both processes, and neither affects the other."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidClientState
from gearman_sync import GearmanClient
from gearman_sync.testing import Gate, ScriptedWorker, echo
from tests.support import Gearmand, spawn, wait_for

from .support import wait_for_followers

if TYPE_CHECKING:
    from collections.abc import Callable

    StartWorker = Callable[..., ScriptedWorker]
    MakeClient = Callable[..., GearmanClient]

T = TypeVar("T")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


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


def test_both_submit(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: echo})
    assert client.submit_job(task, b"before").result == b"before"
    (server,) = client.connection_list

    def in_child() -> list[bytes]:
        return [client.submit_job(task, b"child %d" % number).result for number in range(50)]

    child = Child(in_child)
    mine = [client.submit_job(task, b"parent %d" % number).result for number in range(50)]
    assert mine == [b"parent %d" % number for number in range(50)]
    assert child.result() == [b"child %d" % number for number in range(50)]
    # The parent still uses the connection from before the fork.
    assert client.connection_list == [server]
    assert server.connected


def test_parents_job_is_under_way(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    worker = start_worker(gearmand.address, {f"{task}-slow": gate})
    start_worker(gearmand.address, {task: echo})
    request = client.submit_job(f"{task}-slow", b"parent", wait_until_complete=False)
    wait_for(gate.begun)

    def in_child() -> tuple[str, bool, bytes]:
        client.wait_until_jobs_completed([request])
        state, timed_out = request.state, request.timed_out
        return state, timed_out, client.submit_job(task, b"child").result

    assert Child(in_child).result() == (gearman.JOB_UNKNOWN, False, b"child")
    gate.open.set()
    client.wait_until_jobs_completed([request])
    assert request.result == b"parent"
    assert len(worker.jobs) == 1


def test_child_submits_the_parents_request_again(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    request = client.submit_job(task, b"data", wait_until_complete=False)
    handle, unique = request.job.handle, request.unique

    def in_child() -> tuple[str | None, str | None]:
        assert request.state == gearman.JOB_UNKNOWN
        client.submit_multiple_requests([request], wait_until_complete=False)
        return request.job.handle, request.unique

    theirs = Child(in_child).result()
    assert theirs[0] != handle
    assert theirs[1] != unique
    assert request.job.handle == handle
    start_worker(gearmand.address, {task: echo})
    assert client.wait_until_jobs_completed([request])[0].result == b"data"


def test_child_exits_and_parent_goes_on(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: echo})
    request = client.submit_job(task, b"1", wait_until_complete=False)

    def in_child() -> None:
        client.submit_job(task, b"2", background=True)
        client.shutdown()

    Child(in_child).result()
    Child(lambda: None).result()
    assert client.wait_until_jobs_completed([request])[0].result == b"1"
    assert client.submit_job(task, b"3").result == b"3"


def test_fork_while_threads_wait(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    gate = Gate()
    start_worker(gearmand.address, {task: gate})
    start_worker(gearmand.address, {f"{task}-child": echo})
    waiting = [spawn(client.submit_job, task, b"%d" % number) for number in range(3)]
    wait_for_followers(client, 2)
    child = Child(lambda: client.submit_job(f"{task}-child", b"child").result)
    assert child.result() == b"child"
    assert not any(call.done() for call in waiting)
    gate.open.set()
    assert [call.result(20).result for call in waiting] == [b"0", b"1", b"2"]


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
def test_fork_while_threads_submit(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    """At the fork, a thread that does not exist in the child may hold the lock."""
    start_worker(gearmand.address, {task: echo})
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
    assert all(thread.result(20) for thread in threads)


def test_uniques_differ(gearmand: Gearmand, client: GearmanClient, task: str) -> None:
    def unique() -> str | None:
        return client.submit_job(task, b"", background=True).unique

    mine = unique()
    children = [Child(unique) for _ in range(3)]
    uniques = [mine, unique(), *(child.result() for child in children)]
    assert len(set(uniques)) == 5


def test_child_of_a_child(
    gearmand: Gearmand, client: GearmanClient, task: str, start_worker: StartWorker
) -> None:
    start_worker(gearmand.address, {task: echo})
    client.submit_job(task, b"")

    def in_child() -> list[bytes]:
        first = client.submit_job(task, b"child").result
        second = Child(lambda: client.submit_job(task, b"grandchild").result).result()
        return [first, second, client.submit_job(task, b"child again").result]

    assert Child(in_child).result() == [b"child", b"grandchild", b"child again"]


def test_shut_down_before_the_fork(gearmand: Gearmand, make_client: MakeClient, task: str) -> None:
    client = make_client(gearmand.address)
    client.submit_job(task, b"", background=True)
    client.shutdown()

    def in_child() -> bool:
        with pytest.raises(InvalidClientState):
            client.submit_job(task, b"", background=True)
        return True

    assert Child(in_child).result()


def test_inherited_descriptors_are_closed(
    gearmand: Gearmand, client: GearmanClient, task: str
) -> None:
    client.submit_job(task, b"", background=True)
    mine = gearmand.admin("workers").count("127.0.0.1")
    holding, done = os.pipe(), os.pipe()

    def in_child() -> None:
        os.write(holding[1], b"x")
        os.read(done[0], 1)

    child = Child(in_child)
    try:
        os.read(holding[0], 1)
        # The server sees the connection's end although the child is alive.
        client.shutdown()
        for _ in range(1000):
            if gearmand.admin("workers").count("127.0.0.1") < mine:
                break
        else:
            pytest.fail("the child keeps the connection open")
    finally:
        os.write(done[1], b"x")
        child.result()
        for descriptor in (*holding, *done):
            os.close(descriptor)
