"""A worker under test in the test's event loop: a real worker on a real server."""

# ruff: noqa: D102 - the documentation of methods is inherited

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio

from gearman_anyio._tasks import Tasks, hosted_tasks
from gearman_anyio.server import JobServer
from gearman_anyio.worker import GearmanWorker
from gearman_proto.surface.worker import logger
from gearman_proto.testing import runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from gearman_proto.address import HostSpec
    from gearman_proto.testing.runs import JobRun

# Poll interval in seconds. A server in this process notifies its workers of all jobs. On a virtual
# clock, days can pass, and polling every five seconds would take too long.
_IN_PROCESS: Final = 86400.0

#: A server of this event loop, or the address of one.
AnyServer: TypeAlias = "JobServer | HostSpec"


class WorkerUnderTest(runs.WorkerUnderTest[GearmanWorker, AnyServer]):
    """A worker that does a server's jobs in this event loop.

    Outside of ``async with``, `drain` does all queued jobs::

        worker = WorkerUnderTest({"resize": resize}, server)
        await upload("cat.png")  # submits a background job
        await worker.drain()
        assert thumbnail_of("cat.png")

    Inside, the worker runs in a task, so that the test can wait for results. The end of
    ``async with`` drains the queue too, unless the test has failed::

        async with WorkerUnderTest({"resize": resize}, server):
            assert (await client.submit_job("resize", "cat.png")).result == b"cat-small.png"

    As always, a callback's exception fails its job. `drain`, or the end of ``async with``, then
    raises it in the test.
    """

    _worker_class = GearmanWorker
    _server_class = JobServer
    # The tasks inside ``async with``, otherwise None.
    _tasks: Tasks | None = None
    # Set when the task that serves has ended, and the exception that ended it.
    _ended: anyio.Event
    _error: Exception | None

    async def drain(self) -> list[JobRun]:
        self._check_outside()
        if self._tasks is not None:
            await self._end_serving()
            self._begin_serving(self._tasks)
        else:
            self._begin()
            try:
                await self._empty()
            finally:
                self._detach()
        return self._drained()

    async def __aenter__(self) -> Self:
        self._begin()
        self._tasks = hosted_tasks()
        await self._tasks.__aenter__()
        self._begin_serving(self._tasks)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks, self._tasks = self._tasks, None
        assert tasks is not None
        try:
            if error is None:
                await self._end_serving()
        finally:
            try:
                await tasks.__aexit__(kind, error, traceback)
            finally:
                self._detach()
        if error is None:
            self._drained()

    def _begin(self) -> None:
        server = self._server
        if isinstance(server, JobServer):
            self._attach("localhost", _IN_PROCESS, _gm_connect=server.connect)
        else:
            self._attach(server, _gm_connect=None)

    async def _empty(self) -> None:
        with self._limit():
            for _ in self._rounds():
                await self.worker.work(None)

    @contextlib.contextmanager
    def _limit(self) -> Iterator[None]:
        with anyio.move_on_after(self._timeout) as scope:
            yield
        if scope.cancelled_caught:
            raise self._too_late()

    # The task that serves.

    def _begin_serving(self, tasks: Tasks) -> None:
        self._ended = anyio.Event()
        self._error = None
        tasks.start_soon(self._work, self._serve())

    async def _work(self, rounds: Iterator[object]) -> None:
        try:
            for _ in rounds:
                await self.worker.work(None)
        except Exception as error:  # noqa: BLE001 - see below
            # The test gets the exception, but it might be waiting for a result forever.
            logger.exception("the worker under test has ended")
            self._error = error
        finally:
            self._ended.set()

    async def _end_serving(self) -> None:
        """End the task that serves, and empty the queue."""
        self._stop_serving()
        with self._limit():
            await self._ended.wait()
        if self._error is not None:
            raise self._error
        await self._empty()
