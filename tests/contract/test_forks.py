"""Callbacks that fork: the child exits where the callback ends, and affects no connection."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from .kit import Hooks, Kit, Server

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
