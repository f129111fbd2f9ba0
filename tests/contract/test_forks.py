"""Forks: the child of a callback exits where that ends, and no child keeps a connection open."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from gearman_sync.testing import ScriptedClient

from .kit import Connect, Hooks, Kit, Server, echo

if TYPE_CHECKING:
    from gearman_proto import WorkerJob

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
    # Warnings about forking with threads, and about event loops collected in the child.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.mark.parametrize(
    ("place", "how", "status", "max_jobs"),
    [
        ("plain", "returns", 1, 1),
        ("plain", "raises", 1, 2),
        ("awaiting", "raises", 1, 1),
        ("forwarding", "exits", 7, 1),
        ("hook", "exits", 7, 1),
    ],
)
async def test_child_ends_where_its_callback_does(
    kit: Kit, server: Server, task: str, place: str, how: str, status: int, max_jobs: int
) -> None:
    children: list[int] = []

    def fork() -> None:
        """Fork. The child leaves the callback before its end, or does not return."""
        if (child := os.fork()) != 0:
            children.append(child)
            return
        # The alarm ends a child that does not exit.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        if how == "raises":
            raise ZeroDivisionError("in the child")
        if how == "exits":
            sys.exit(7)

    class Hooked(Hooks):
        def on_job_execute(self, current_job: WorkerJob) -> Any:
            if place == "hook":
                fork()
            return super().on_job_execute(current_job)

    def plain(worker: Any, job: WorkerJob) -> Any:
        if place != "hook":
            fork()
        return job.data

    async def awaiting(worker: Any, job: WorkerJob) -> Any:
        return plain(worker, job)

    awaited = kit.callback(awaiting)

    def forwarding(worker: Any, job: WorkerJob) -> Any:
        return awaited(worker, job)

    callback = {"awaiting": awaited, "forwarding": forwarding}.get(place, plain)
    client = await kit.client(server.address)
    await kit.start_worker(server.address, kind=Hooked, tasks={task: callback}, max_jobs=max_jobs)
    for number in range(2):
        data = b"%d" % number
        assert (await client.submit_job(task, data)).result == data
    assert len(children) == 2
    for child in children:
        _, ended = await kit.blocking(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(ended) == status


async def test_process_of_multiprocessing_runs_to_its_end(
    kit: Kit, server: Server, task: str
) -> None:
    def function(worker: Any, job: WorkerJob) -> bytes:
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        process = context.Process(target=lambda: results.put(int(job.data) ** 2))
        process.start()
        result = results.get()
        process.join()
        assert process.exitcode == 0
        return b"%d" % result

    client = await kit.client(server.address)
    await kit.start_worker(server.address, tasks={task: function})
    for number in range(3):
        request = await client.submit_job(task, b"%d" % number)
        assert request.result == b"%d" % (number * number)


# Children that Python's hooks for forks do not reach, because C code has made them.


def sockets() -> dict[str, int]:
    """Return the names and descriptors of this process's sockets."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[os.readlink(f"/proc/self/fd/{number}")] = int(number)
    return {name: number for name, number in found.items() if name.startswith("socket:")}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system has no /proc")
@pytest.mark.parametrize("kind", ["client", "worker", "server"])
async def test_orderly_end_ends_all_copies_of_a_connection(
    kit: Kit, task: str, connect: Connect, kind: str
) -> None:
    before = sockets().keys()
    server = await kit.start_job_server()
    address, links = tuple(server.address), server._gm_driver.engine.links
    if kind == "worker":
        owner = await kit.start_worker(server.address, tasks={task: echo})
        await kit.eventually(lambda: owner.connection_list[0].connected)
    else:
        owner = await kit.client(server.address)
        await owner.submit_job(task, b"", background=True)
    peer = connect(server)
    await kit.blocking(peer.echo)
    copies = [os.dup(number) for name, number in sockets().items() if name not in before]
    try:
        if kind == "server":
            await server.stop()
            assert await kit.blocking(peer.rest) == b""
            with pytest.raises(ConnectionRefusedError):
                await kit.blocking(ScriptedClient, address)
        else:
            await owner.shutdown()
            await kit.eventually(lambda: len(links) == 1, "the end of the connection")
    finally:
        for copy in copies:
            os.close(copy)
