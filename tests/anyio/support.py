"""Shared helpers: waiting, workers in tasks, and job counts of a server."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest
import trio

import gearman_anyio as gearman
from gearman_anyio.testing import virtual_clock
from gearman_proto.engines.worker.link import Phase
from tests.support import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

#: The kinds of callbacks.
KINDS = ["async", "plain"]

#: A virtual clock for tests within one process: time advances when all tasks wait.
on_a_test_clock = pytest.mark.parametrize(
    "anyio_backend",
    [virtual_clock("asyncio"), virtual_clock("trio")],
    ids=["asyncio", "trio"],
)
only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@contextlib.contextmanager
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the start of each thread fail, as under a container's pids limit."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "start", start)
        # trio reuses idle threads of earlier event loops. In asyncio, threads end with their loop.
        patches.setattr(trio._core._thread_cache.THREAD_CACHE, "_idle_workers", {})
        yield


async def until(condition: Callable[[], object], what: str = "condition") -> None:
    """Let other tasks run until `condition` is true."""
    with anyio.move_on_after(PATIENCE):
        for _ in range(100):
            if condition():
                return
            await anyio.lowlevel.checkpoint()
        while not condition():  # noqa: ASYNC110 - of anything, also of what has no event
            await anyio.sleep(0.001)
    assert condition(), f"{what} did not come true"


def make_worker(
    *hosts: Any,
    tasks: dict[str, Any] | None = None,
    kind: type[gearman.GearmanWorker] = gearman.GearmanWorker,
    **options: Any,
) -> Any:
    """Return a worker with the callbacks in `tasks` registered."""
    worker = kind(list(hosts), **options)
    for task, callback in (tasks or {}).items():
        worker.register_task(task, callback)
    return worker


@contextlib.asynccontextmanager
async def working(
    *hosts: Any, poll_timeout: float | None = 60, **options: Any
) -> AsyncIterator[gearman.GearmanWorker]:
    """Run a worker during the block, and cancel it at the end.

    `hosts` are its servers, with the options of `make_worker`, or the worker itself.
    """
    is_made = isinstance(hosts[0], gearman.GearmanWorker)
    worker = hosts[0] if is_made else make_worker(*hosts, **options)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.work, poll_timeout)
        # A sleeping worker starts and ends no task until it gets a job.
        await until(lambda: is_asleep(worker) or worker.has_job_lock(), "the worker's sleep")
        yield worker
        tasks.cancel_scope.cancel()


def is_asleep(worker: gearman.GearmanWorker) -> bool:
    """Return whether the worker sleeps on all connections, waiting for a job."""
    return all(
        server.link is not None and server.link.phase is Phase.ASLEEP
        for server in worker.connection_list
    )


async def echo(worker: Any, job: gearman.WorkerJob) -> Any:
    return job.data


async def reverse(worker: Any, job: gearman.WorkerJob) -> Any:
    return job.data[::-1]


def plain_reverse(worker: Any, job: gearman.WorkerJob) -> Any:
    return job.data[::-1]
