"""The client for trio and asyncio: python-gearman's surface, awaited, on the client engine."""

# ruff: noqa: D102 - the documentation of methods is inherited

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any, Generic, Never, overload

import anyio.lowlevel

from gearman_proto import ClientEngine, Server, constants
from gearman_proto.checks import to_seconds
from gearman_proto.engines.driver import T_
from gearman_proto.surface.client import Client, Requests, cancelling, make_job

from ._callbacks import awaited
from ._calls import in_steps
from ._driver import Driver, rng
from ._opening import SingleUse, SSLContext, make_opener
from ._results import Results, cancel_abandoned

if TYPE_CHECKING:
    import ssl
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        AsyncIterator,
        Callable,
        Collection,
        Iterable,
        Mapping,
    )
    from datetime import datetime
    from typing import Self

    from gearman_proto import (
        Batch,
        GearmanJobRequest,
        HostSpec,
        JobUpdate,
        ServerAddress,
        Subscription,
    )

    from ._calls import Call
    from ._streams import Connector


class GearmanClient(Client[Server, SSLContext], SingleUse[ClientEngine]):
    """Submits jobs to Gearman servers, and waits for them.

    From python-gearman (`gearman.GearmanClient`), with the same methods, which are awaited. It is
    used once, inside ``async with GearmanClient(...) as client:``, by any number of tasks.

    Any call may be cancelled, or given up by `anyio.move_on_after`. That leaves everything else as
    it is: the job goes on at the server, and the request may be waited for again.
    """

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        random_unique_bytes: int = 16,
        *,
        routing: constants.Routing = "random",
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        exceptions: bool = True,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
        heartbeat: float | None = constants.DEFAULT_HEARTBEAT,
        max_abandoned: int = constants.DEFAULT_MAX_ABANDONED,
        warn_after: float | None = constants.DEFAULT_WARN_AFTER,
        connect: Connector | None = None,
    ) -> None:
        self._gm_connect = connect
        super().__init__(
            host_list,
            random_unique_bytes,
            routing=routing,
            ssl_context=ssl_context,
            connect_timeout=connect_timeout,
            exceptions=exceptions,
            max_packet_size=max_packet_size,
            heartbeat=heartbeat,
            max_abandoned=max_abandoned,
            warn_after=warn_after,
        )

    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        opener = make_opener(addresses, self._gm_connect)
        make_engine = functools.partial(
            ClientEngine, addresses, rng=rng, wall_clock=time.time, **options
        )
        self._gm_driver = Driver(make_engine, opener)

    async def submit_job(
        self,
        task: str | bytes,
        data: Any,
        unique: str | bytes | None = None,
        priority: constants.Priority = constants.PRIORITY_NONE,
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        *,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
        cancel_if_abandoned: bool = False,
        **unknown: Never,
    ) -> GearmanJobRequest:
        requests = await self.submit_multiple_jobs(
            [make_job(task, data, unique, priority, run_at, reducer)],
            background=background,
            wait_until_complete=wait_until_complete,
            max_retries=max_retries,
            poll_timeout=poll_timeout,
            **cancelling(cancel_if_abandoned),
            **unknown,
        )
        return requests[0]

    async def submit_multiple_jobs(
        self,
        jobs_to_submit: Collection[Mapping[str, Any]],
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        *,
        cancel_if_abandoned: bool = False,
        **unknown: Never,
    ) -> Batch:
        requests = await in_steps(
            self._gm_requests_of(jobs_to_submit, background, max_retries, unknown)
        )
        submitted = await self.submit_multiple_requests(
            requests,
            wait_until_complete=wait_until_complete,
            poll_timeout=poll_timeout,
            **cancelling(cancel_if_abandoned),
        )
        return self._gm_batch_of(submitted)

    async def submit_multiple_requests(
        self,
        job_requests: Requests,
        wait_until_complete: bool = True,
        poll_timeout: float | None = None,
        *,
        cancel_if_abandoned: bool = False,
    ) -> Requests:
        timeout = await in_steps(self._gm_prepare(job_requests, poll_timeout))
        driver, has_returned = self._gm_open, False
        try:
            await driver.run(
                ClientEngine.submit,
                job_requests,
                accepted_only=not wait_until_complete,
                timeout=timeout,
            )
            has_returned = True
        finally:
            if cancel_if_abandoned:
                await cancel_abandoned(driver, job_requests, has_returned=has_returned)
        return job_requests

    async def cancel_job(
        self, job_request: GearmanJobRequest, poll_timeout: float | None = None
    ) -> str | None:
        timeout = self._gm_check_cancelled(job_request, poll_timeout)
        return (await self._gm_open.run(ClientEngine.cancel, [job_request], timeout=timeout)).value

    async def wait_until_jobs_accepted(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        return await self.submit_multiple_requests(
            job_requests, wait_until_complete=False, poll_timeout=poll_timeout
        )

    async def wait_until_jobs_completed(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        timeout = self._gm_check(job_requests, poll_timeout)
        await self._gm_open.run(ClientEngine.wait_completed, job_requests, timeout=timeout)
        return job_requests

    def as_completed(
        self, job_requests: Collection[GearmanJobRequest], poll_timeout: float | None = None
    ) -> AsyncIterator[GearmanJobRequest]:
        timeout = self._gm_check(job_requests, poll_timeout)
        return _Items(self._gm_open, ClientEngine.as_completed, job_requests, timeout)

    def results(
        self,
        jobs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        window: int = 1000,
        *,
        background: bool = False,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        cancel_if_abandoned: bool = False,
    ) -> AsyncGenerator[GearmanJobRequest, None]:
        timeout = to_seconds(poll_timeout)
        make = self._gm_maker(jobs, window, background, max_retries, can_be_async=True)
        return Results(self._gm_open, jobs, make, window, timeout, cancel_if_abandoned)

    @overload
    def updates(
        self, job_requests: GearmanJobRequest, poll_timeout: float | None = None
    ) -> AsyncIterator[JobUpdate]: ...
    @overload
    def updates(
        self, job_requests: Collection[GearmanJobRequest], poll_timeout: float | None = None
    ) -> AsyncIterator[tuple[GearmanJobRequest, JobUpdate]]: ...
    def updates(
        self,
        job_requests: GearmanJobRequest | Collection[GearmanJobRequest],
        poll_timeout: float | None = None,
    ) -> AsyncIterator[JobUpdate | tuple[GearmanJobRequest, JobUpdate]]:
        timeout = self._gm_check_followed(job_requests, poll_timeout)
        return _Items(self._gm_open, ClientEngine.updates, job_requests, timeout)

    async def get_job_status(
        self,
        current_request: GearmanJobRequest,
        poll_timeout: float | None = None,
        *,
        by_unique: bool = False,
    ) -> GearmanJobRequest:
        await self.get_job_statuses(
            [current_request], poll_timeout=poll_timeout, by_unique=by_unique
        )
        return current_request

    async def get_job_statuses(
        self,
        job_requests: Requests,
        poll_timeout: float | None = None,
        *,
        by_unique: bool = False,
    ) -> Requests:
        timeout = to_seconds(poll_timeout)
        queries = self._gm_status_queries(job_requests, by_unique)
        await self._gm_open.run(ClientEngine.statuses, job_requests, queries, timeout=timeout)
        return job_requests

    async def establish_connection(
        self, connection: Server | HostSpec, poll_timeout: float | None = None
    ) -> Server:
        server = self._gm_find(connection)
        await self._gm_open.run(ClientEngine.connect, server, timeout=to_seconds(poll_timeout))
        return server

    async def wait_for_servers(self, timeout: float | None = None) -> bool:
        seconds = to_seconds(timeout, "timeout")
        wait = await self._gm_open.run(ClientEngine.wait_for_servers, timeout=seconds)
        return not wait.timed_out

    async def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[Server],  # noqa: ARG002 - python-gearman's
        callback_fxn: Callable[[bool], object],
        timeout: float | None = None,
    ) -> bool:
        with self._gm_open.start(
            ClientEngine.watch, timeout=to_seconds(timeout, "timeout")
        ) as call:
            subscription = call.wait
            while await awaited(callback_fxn(subscription.news)):
                if subscription.done:
                    subscription.raise_error()
                    return bool(subscription.timed_out)
                subscription.news = False
                await call.block()
        return False

    async def shutdown(self) -> None:
        self._gm_open.close()
        await anyio.lowlevel.checkpoint()


class _Items(Generic[T_]):
    """The items of a Subscription, for ``async for``.

    It is no generator, because its user would have to close an unfinished generator, and a
    cancelled `__anext__` would end it.

    Args:
        driver: The driver.
        method: The method of the engine that begins the call, for the first `__anext__`.
        subject: The request or requests of the call.
        timeout: Its timeout, in seconds.
    """

    def __init__(
        self,
        driver: Driver[ClientEngine],
        method: Callable[..., Subscription],
        subject: object,
        timeout: float | None,
    ) -> None:
        self._driver = driver
        self._start = functools.partial(driver.start, method, subject, timeout=timeout)
        self._call: Call[Subscription] | None = None
        self._is_finished = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_:
        await anyio.lowlevel.checkpoint()
        if self._call is None and not self._is_finished:
            self._call = self._start()
        while not self._is_finished:
            assert self._call is not None
            subscription = self._call.wait
            done = subscription.done
            try:
                item = subscription.take()
                if item is None and done:
                    subscription.raise_error()
            except Exception:
                self._end()
                raise
            if item is not None:
                return item  # type: ignore[no-any-return] # what `begin` makes gives these
            if done:
                self._end()
            else:
                await self._call.block()
        raise StopAsyncIteration

    def _end(self) -> None:
        self._is_finished = True
        call, self._call = self._call, None
        if call is not None:
            self._driver.release(call.wait)

    def __del__(self) -> None:
        if self._call is not None:
            self._driver.release_soon(self._call.wait)
