"""Shared helpers: waiting, workers in tasks, and job counts of a server."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

from gearman_anyio import GearmanWorker, WorkerJob
from gearman_anyio.testing import virtual_clock
from gearman_sync.testing.recording import is_whole_reply
from tests.support import PATIENCE, counts_of, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

#: The kinds of callbacks, and of hooks.
KINDS = ["async", "plain"]

#: A virtual clock for tests within one process: time advances when all tasks wait.
on_a_test_clock = pytest.mark.parametrize(
    "anyio_backend",
    [virtual_clock("asyncio"), virtual_clock("trio")],
    ids=["asyncio", "trio"],
)


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


async def happened(event: threading.Event, what: str = "event") -> None:
    """Wait for an event that another thread sets."""
    await anyio.to_thread.run_sync(wait_for, event, what)


async def admin(server: Any, command: str) -> str:
    """Return the reply to an admin command. The server may run in this event loop."""
    async with await anyio.connect_tcp(*server.address) as stream:
        await stream.send(command.encode() + b"\r\n")
        reply = b""
        while not is_whole_reply(command.encode(), reply):
            reply += await stream.receive()
    return reply.decode()


async def counts(server: Any, task: str) -> tuple[int, int, int]:
    """Return the numbers of jobs of `task`, of running jobs, and of workers."""
    return counts_of(task, await admin(server, "status"))


async def counted(server: Any, task: str, expected: tuple[int, int, int]) -> None:
    """Wait until the server reports these counts."""
    with anyio.move_on_after(PATIENCE):
        while (found := await counts(server, task)) != expected:  # noqa: ASYNC110 - no event
            await anyio.sleep(0.002)
    assert found == expected


class Working:
    """A worker whose `work` runs in a task."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self.ended = anyio.Event()
        self.error: Exception | None = None

    async def run(self, poll_timeout: float | None) -> None:
        try:
            await self.worker.work(poll_timeout)
        except Exception as error:  # noqa: BLE001 - raised by `end`
            self.error = error
        finally:
            self.ended.set()

    async def end(self) -> None:
        """Wait for the end of `work`, and raise its exception, if any."""
        with anyio.fail_after(PATIENCE):
            await self.ended.wait()
        error, self.error = self.error, None
        if error is not None:
            raise error


@contextlib.asynccontextmanager
async def working(worker: GearmanWorker, poll_timeout: float | None = 60) -> AsyncIterator[Working]:
    """Run a worker during the block, and cancel its remaining jobs at the end."""
    it = Working(worker)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.run, poll_timeout)
        try:
            yield it
        finally:
            tasks.cancel_scope.cancel()
    await it.end()


def make_worker(
    *hosts: Any,
    tasks: dict[str, Any] | None = None,
    kind: type[GearmanWorker] = GearmanWorker,
    **options: Any,
) -> Any:
    """Return a worker with the callbacks in `tasks` registered."""
    worker = kind(list(hosts), **options)
    for task, callback in (tasks or {}).items():
        worker.register_task(task, callback)
    return worker


async def reverse(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data[::-1]


def plain_reverse(worker: Any, job: WorkerJob) -> Any:
    return job.data[::-1]


class Held:
    """A callback, async or in a thread, that holds its jobs until they are released."""

    def __init__(self, kind: str, jobs: int = 1) -> None:
        self.kind = kind
        self.jobs = jobs
        self.begun = 0
        self.done: list[bytes] = []
        self.gone: list[bytes] = []
        self._go_on = threading.Event()
        self._let_go = anyio.Event()

    @property
    def callback(self) -> Callable[..., Any]:
        return self._async if self.kind == "async" else self._plain

    async def wait(self) -> None:
        """Wait until all jobs have started."""
        await until(lambda: self.begun == self.jobs, "the beginning of the jobs")

    def let_go(self) -> None:
        self._go_on.set()
        self._let_go.set()

    async def _async(self, worker: Any, job: WorkerJob) -> Any:
        self.begun += 1
        try:
            await self._let_go.wait()
        except BaseException:
            self.gone.append(job.data)
            raise
        self.done.append(job.data)
        return job.data

    def _plain(self, worker: Any, job: WorkerJob) -> Any:
        self.begun += 1
        wait_for(self._go_on)
        self.done.append(job.data)
        return job.data
