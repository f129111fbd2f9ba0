"""The iterator of `results`, and the cancellation of abandoned jobs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

from gearman_proto import ClientEngine, GearmanError, GearmanJobRequest
from gearman_proto.engines.waits import wake_nobody
from gearman_proto.handlers import reraise_from_handler
from gearman_proto.surface.client import CANCEL_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from gearman_proto.engines.client.results import ResultsWait

    from ._calls import Call
    from ._driver import Driver

# The end of a stream of jobs.
_END: Final[Any] = object()


class _Source:
    """The stream of jobs of one call, and the task that waits for an async stream's next job.

    The task can't be the consumer's: a cancelled `__anext__` would end an async generator, and
    requests that end meanwhile would have to wait.

    Args:
        driver: The driver.
        jobs: The stream.
        make: Makes a request of a job.
        wait: The Wait of the call.
    """

    def __init__(
        self,
        driver: Driver[ClientEngine],
        jobs: Iterator[Any] | AsyncIterator[Any],
        make: Callable[[Any], GearmanJobRequest],
        wait: ResultsWait,
    ) -> None:
        self._driver = driver
        self._jobs: Any = jobs
        self._make = make
        self.wait = wait
        self._is_pulling = False
        #: Number of consumers that wait for a request.
        self.wanted = 0
        self._scope: anyio.CancelScope | None = None

    async def pull(self) -> None:
        """Submit jobs while there are free slots. For an async stream, let a task do that."""
        if self._is_pulling or not self.wait.wants_job:
            return
        if hasattr(self._jobs, "__anext__"):
            self._is_pulling = True
            self._scope = anyio.CancelScope()
            self._driver.start_soon(self._pull, self._scope)
            return
        # A cancellation after `next` would lose the job.
        await self._driver.wait_for_readers()
        while self.wait.wants_job:
            try:
                self._submit(next(self._jobs, _END))
            except Exception as error:  # noqa: BLE001 - the Wait raises it
                self._stop(error)

    async def _pull(self, scope: anyio.CancelScope) -> None:
        with scope:
            while self.wanted and self.wait.wants_job:
                try:
                    job = await anext(self._jobs, _END)
                    await self._driver.wait_for_readers()
                    self._submit(job)
                except Exception as error:  # noqa: BLE001 - the Wait raises it
                    self._stop(error)
            self._is_pulling = False

    def cancel(self) -> None:
        """Cancel the task. It is waiting for the stream."""
        if self._scope is not None:
            self._scope.cancel()

    def _submit(self, job: Any) -> None:
        if job is _END:
            self._stop(None)
        else:
            request = self._make(job)
            self._driver.call(ClientEngine.add, wake_nobody, self.wait, request)

    def _stop(self, error: Exception | None) -> None:
        if error is not None:
            reraise_from_handler(error)
        self._driver.call(ClientEngine.end_of_jobs, wake_nobody, self.wait, error)


class Results(AsyncGenerator[GearmanJobRequest, None]):
    """The requests of a stream of jobs, for ``async for``.

    It is no async generator function, because a cancelled `__anext__` would end that.

    Args:
        driver: The driver.
        jobs: The stream.
        make: Makes a request of a job.
        window: Maximum number of requests in flight.
        timeout: Seconds after which to stop.
        cancels: True to cancel the jobs in flight at the end.
    """

    def __init__(
        self,
        driver: Driver[ClientEngine],
        jobs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        make: Callable[[Any], GearmanJobRequest],
        window: int,
        timeout: float | None,
        cancels: bool,
    ) -> None:
        self._cancels = cancels
        self._call: Call[ResultsWait] | None = None
        self._driver = driver
        self._jobs = aiter(jobs) if isinstance(jobs, AsyncIterable) else iter(jobs)
        self._make = make
        self._window = window
        self._timeout = timeout
        self._source: _Source
        self._is_finished = False

    async def asend(self, value: None) -> GearmanJobRequest:  # noqa: ARG002 - as for generators
        """Return the next request that has ended."""
        await anyio.lowlevel.checkpoint()
        if self._is_finished:
            raise StopAsyncIteration
        if self._call is None:
            self._call = self._driver.start(
                ClientEngine.results, self._window, timeout=self._timeout
            )
            self._source = _Source(self._driver, self._jobs, self._make, self._call.wait)
        wait, source = self._call.wait, self._source
        source.wanted += 1
        try:
            while True:
                await source.pull()
                done = wait.done
                request: GearmanJobRequest | None = wait.take()
                if request is not None:
                    return request
                if done:
                    break
                await self._call.block()
        finally:
            source.wanted -= 1
        await self._end()
        wait.raise_error()
        raise StopAsyncIteration

    async def athrow(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        """End the iteration, and raise an exception (as for generators)."""
        await self._end()
        return await super().athrow(error, value, traceback)

    async def _end(self) -> None:
        self._is_finished = True
        call, self._call = self._call, None
        if call is not None:
            self._source.cancel()
            in_flight = call.wait.in_flight
            self._driver.release(call.wait)
            if self._cancels:
                await cancel_abandoned(self._driver, in_flight)

    def __del__(self) -> None:
        if self._call is not None:
            # The garbage collector can run in any thread and at any point.
            self._driver.release_soon(self._call.wait)
            self._driver.post(functools.partial(_leave, self._source, cancels=self._cancels))


def _leave(source: _Source, engine: ClientEngine, now: float, *, cancels: bool) -> None:
    """Continue the end of an abandoned iterator in the event loop's thread."""
    source.cancel()
    if cancels:
        in_flight = source.wait.in_flight
        engine.release(source.wait, now)
        engine.release(engine.cancel_abandoned(now, wake_nobody, in_flight), now)


async def cancel_abandoned(
    driver: Driver[ClientEngine],
    requests: Collection[GearmanJobRequest],
    *,
    has_returned: bool = False,
) -> None:
    """Cancel the requests that a call has abandoned, as far as that is possible.

    The caller's own cancellation does not interrupt this. The timeout is the scope's, because the
    same cancellation might have ended the driver's tasks.
    """
    with (
        contextlib.suppress(GearmanError),
        anyio.move_on_after(CANCEL_TIMEOUT, shield=True),
    ):
        await driver.run(ClientEngine.cancel_abandoned, requests, has_returned=has_returned)
