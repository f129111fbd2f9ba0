"""The blocking client: python-gearman's interface, based on `ClientEngine`."""

# ruff: noqa: D102 - methods inherit their documentation

from __future__ import annotations

import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any, Final, Never, overload

from gearman_proto import ClientEngine, GearmanError, InvalidClientState, Server, constants
from gearman_proto.checks import to_seconds
from gearman_proto.handlers import reraise_from_handler
from gearman_proto.jobs.submitting import finish
from gearman_proto.surface.client import CANCEL_TIMEOUT, Client, Requests, cancelling, make_job
from gearman_proto.tls import make_contexts

from ._closing import ClosesOnExit, SSLContext, load_ssl
from ._driver import Call, Driver, rng

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
    from datetime import datetime

    from gearman_proto import (
        Batch,
        GearmanJobRequest,
        HostSpec,
        JobUpdate,
        ServerAddress,
        Subscription,
    )
    from gearman_proto.engines.client.results import ResultsWait
    from gearman_proto.engines.driver import P_, Method

# The end of a stream of jobs.
_END: Final[Any] = object()


class GearmanClient(Client[Server, SSLContext], ClosesOnExit):
    """A client that submits jobs to Gearman servers and waits for them.

    From python-gearman (`gearman.GearmanClient`). Threads can share a client. After a fork, the
    child's copy opens its own connections, and requests that were in flight are JOB_UNKNOWN there.
    """

    _gm_driver: Driver[ClientEngine]

    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        make_engine = functools.partial(
            ClientEngine, addresses, rng=rng, wall_clock=time.time, **options
        )
        self._gm_driver = Driver(
            make_engine, make_contexts(addresses, load_ssl), InvalidClientState
        )

    def submit_job(
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
        return self.submit_multiple_jobs(
            [make_job(task, data, unique, priority, run_at, reducer)],
            background=background,
            wait_until_complete=wait_until_complete,
            max_retries=max_retries,
            poll_timeout=poll_timeout,
            **cancelling(cancel_if_abandoned),
            **unknown,
        )[0]

    def submit_multiple_jobs(
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
        requests = finish(self._gm_requests_of(jobs_to_submit, background, max_retries, unknown))
        submitted = self.submit_multiple_requests(
            requests,
            wait_until_complete=wait_until_complete,
            poll_timeout=poll_timeout,
            **cancelling(cancel_if_abandoned),
        )
        return self._gm_batch_of(submitted)

    def submit_multiple_requests(
        self,
        job_requests: Requests,
        wait_until_complete: bool = True,
        poll_timeout: float | None = None,
        *,
        cancel_if_abandoned: bool = False,
    ) -> Requests:
        timeout = finish(self._gm_prepare(job_requests, poll_timeout))
        has_returned = False
        try:
            self._gm_driver.run(
                ClientEngine.submit,
                job_requests,
                accepted_only=not wait_until_complete,
                timeout=timeout,
            )
            has_returned = True
        finally:
            if cancel_if_abandoned:
                self._gm_cancel(job_requests, has_returned=has_returned)
        return job_requests

    def _gm_cancel(
        self, requests: Collection[GearmanJobRequest], *, has_returned: bool = False
    ) -> None:
        """Cancel the requests that a call has abandoned, as far as that is possible."""
        with contextlib.suppress(GearmanError):
            self._gm_driver.run(
                ClientEngine.cancel_abandoned,
                requests,
                has_returned=has_returned,
                timeout=CANCEL_TIMEOUT,
            )

    def cancel_job(
        self, job_request: GearmanJobRequest, poll_timeout: float | None = None
    ) -> str | None:
        timeout = self._gm_check_cancelled(job_request, poll_timeout)
        return self._gm_driver.run(ClientEngine.cancel, [job_request], timeout=timeout).value

    def wait_until_jobs_accepted(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        return self.submit_multiple_requests(
            job_requests, wait_until_complete=False, poll_timeout=poll_timeout
        )

    def wait_until_jobs_completed(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        timeout = self._gm_check(job_requests, poll_timeout)
        self._gm_driver.run(ClientEngine.wait_completed, job_requests, timeout=timeout)
        return job_requests

    def as_completed(
        self, job_requests: Collection[GearmanJobRequest], poll_timeout: float | None = None
    ) -> Iterator[GearmanJobRequest]:
        timeout = self._gm_check(job_requests, poll_timeout)
        return self._gm_iterate(ClientEngine.as_completed, job_requests, timeout=timeout)

    def results(  # type: ignore[override] # no async streams
        self,
        jobs: Iterable[Mapping[str, Any]],
        window: int = 1000,
        *,
        background: bool = False,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        cancel_if_abandoned: bool = False,
    ) -> Generator[GearmanJobRequest, None, None]:
        timeout = to_seconds(poll_timeout)
        make = self._gm_maker(jobs, window, background, max_retries)
        return self._gm_stream(iter(jobs), make, window, timeout, cancel_if_abandoned)

    def _gm_stream(
        self,
        jobs: Iterator[Mapping[str, Any]],
        make: Callable[[Any], GearmanJobRequest],
        window: int,
        timeout: float | None,
        cancel_if_abandoned: bool,
    ) -> Generator[GearmanJobRequest, None, None]:
        driver = self._gm_driver
        call: Call[ResultsWait] = Call(driver)
        try:
            call.begin(ClientEngine.results, window, timeout=timeout)
            wait = call.wait
            while True:
                while wait.wants_job:
                    request = reason = None
                    try:
                        job = next(jobs, _END)
                        request = None if job is _END else make(job)
                    except Exception as error:  # noqa: BLE001 - the Wait raises it
                        reraise_from_handler(error)
                        reason = error
                    if request is None:
                        driver.begin(call, ClientEngine.end_of_jobs, wait, reason)
                    else:
                        driver.begin(call, ClientEngine.add, wait, request)
                done = wait.done
                item = wait.take()
                if item is not None:
                    yield item
                elif done:
                    break
                else:
                    call.block()
            wait.raise_error()
        finally:
            driver.over(call.wait)
            driver.flush()
            if cancel_if_abandoned and call.wait is not None:
                self._gm_cancel(call.wait.in_flight)

    @overload
    def updates(
        self, job_requests: GearmanJobRequest, poll_timeout: float | None = None
    ) -> Iterator[JobUpdate]: ...
    @overload
    def updates(
        self, job_requests: Collection[GearmanJobRequest], poll_timeout: float | None = None
    ) -> Iterator[tuple[GearmanJobRequest, JobUpdate]]: ...
    def updates(
        self,
        job_requests: GearmanJobRequest | Collection[GearmanJobRequest],
        poll_timeout: float | None = None,
    ) -> Iterator[JobUpdate | tuple[GearmanJobRequest, JobUpdate]]:
        timeout = self._gm_check_followed(job_requests, poll_timeout)
        return self._gm_iterate(ClientEngine.updates, job_requests, timeout=timeout)

    def _gm_iterate(
        self,
        method: Method[ClientEngine, P_, Subscription],
        *args: P_.args,
        **options: P_.kwargs,
    ) -> Iterator[Any]:
        """Start a call at the first `next`, and yield the items of its Subscription.

        Takes the same arguments as `Driver.run`.
        """
        call: Call[Subscription] = Call(self._gm_driver)
        try:
            call.begin(method, *args, **options)
            subscription = call.wait
            while True:
                done = subscription.done
                item = subscription.take()
                if item is not None:
                    yield item
                elif done:
                    subscription.raise_error()
                    return
                else:
                    call.block()
        finally:
            self._gm_driver.over(call.wait)
            self._gm_driver.flush()

    def get_job_status(
        self,
        current_request: GearmanJobRequest,
        poll_timeout: float | None = None,
        *,
        by_unique: bool = False,
    ) -> GearmanJobRequest:
        self.get_job_statuses([current_request], poll_timeout=poll_timeout, by_unique=by_unique)
        return current_request

    def get_job_statuses(
        self,
        job_requests: Requests,
        poll_timeout: float | None = None,
        *,
        by_unique: bool = False,
    ) -> Requests:
        timeout = to_seconds(poll_timeout)
        queries = self._gm_status_queries(job_requests, by_unique)
        self._gm_driver.run(ClientEngine.statuses, job_requests, queries, timeout=timeout)
        return job_requests

    def establish_connection(
        self, connection: Server | HostSpec, poll_timeout: float | None = None
    ) -> Server:
        server = self._gm_find(connection)
        self._gm_driver.run(ClientEngine.connect, server, timeout=to_seconds(poll_timeout))
        return server

    def wait_for_servers(self, timeout: float | None = None) -> bool:
        seconds = to_seconds(timeout, "timeout")
        return not self._gm_driver.run(ClientEngine.wait_for_servers, timeout=seconds).timed_out

    def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[Server],  # noqa: ARG002 - from python-gearman
        callback_fxn: Callable[[bool], object],
        timeout: float | None = None,
    ) -> bool:
        def watch(call: Call[Subscription]) -> bool:
            subscription = call.wait
            while callback_fxn(subscription.news):
                if subscription.done:
                    subscription.raise_error()
                    return subscription.timed_out
                subscription.news = False
                call.block()
            return False

        return self._gm_driver.during(
            watch, ClientEngine.watch, timeout=to_seconds(timeout, "timeout")
        )

    def shutdown(self) -> None:
        self._gm_driver.close()
