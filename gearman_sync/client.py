"""The blocking client: python-gearman's surface on the client engine."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

from gearman_proto import constants
from gearman_proto.deadlines import to_seconds
from gearman_proto.engines.client import ClientEngine
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.submitting import check_requests, make_requests, prepare

from ._driver import Driver
from ._tls import make_contexts

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from datetime import datetime
    from types import TracebackType
    from typing import Self

    from gearman_proto import Server, Stream
    from gearman_proto.address import HostSpec
    from gearman_proto.jobs.request import GearmanJobRequest
    from gearman_proto.jobs.updates import JobUpdate

#: A list, tuple or set of requests. What is passed in is what is returned.
Requests = TypeVar("Requests", bound="Collection[GearmanJobRequest]")


class GearmanClient:
    """Submits jobs to Gearman servers, and waits for them.

    From python-gearman (`gearman.GearmanClient`). Threads may share a client. After a fork, the
    child's copy makes connections of its own, and requests that were under way are JOB_UNKNOWN in
    it. Nothing is connected before the first call.

    Args:
        host_list: The servers: ``"host"``, ``"host:port"``, ``"[::1]:4730"``, ``("host", port)``,
            or a dict with ``host``, ``port`` and, for TLS, ``keyfile``, ``certfile`` and
            ``ca_certs`` (paths), or ``ssl_context``. None is the local host.
        random_unique_bytes: Random bytes in the unique of a job that is submitted without one,
            1 to 31.
        routing: ``"random"``: requests go round the servers. ``"unique"``: the same unique goes to
            the same server as long as that lives, so that equal jobs are coalesced.
        ssl_context: An `ssl.SSLContext` for the servers whose dict has no TLS of its own.
        connect_timeout: Seconds to wait for a connection to a server.
        exceptions: Whether to ask servers for the data of exceptions (`request.exception`).
        max_packet_size: Bytes. A server that sends a larger packet is disconnected.

    Raises:
        TypeError: An argument is not of the type it must be.
        ValueError: An argument has a value that can't be.
        OSError: A file of keys or certificates can't be read.

    Attributes:
        data_encoder: How data becomes bytes and back; a DataEncoder, here or on a subclass.
    """

    data_encoder: Any = NoopEncoder

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        random_unique_bytes: int = 16,
        *,
        routing: str = "random",
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        exceptions: bool = True,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
    ) -> None:
        addresses, contexts = make_contexts(host_list, ssl_context)

        def make_engine() -> ClientEngine:
            return ClientEngine(
                addresses,
                # It has no state, which two processes would share after a fork.
                rng=random.SystemRandom(),
                wall_clock=time.time,
                routing=routing,
                unique_bytes=random_unique_bytes,
                exceptions=exceptions,
                connect_timeout=connect_timeout,
                max_packet_size=max_packet_size,
            )

        self._driver = Driver(make_engine, contexts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        servers = ", ".join(str(server.address) for server in self.connection_list)
        return f"<{type(self).__name__} [{servers}]>"

    # Submitting jobs.

    def submit_job(
        self,
        task: str | bytes,
        data: Any,
        unique: str | bytes | None = None,
        priority: str | None = constants.PRIORITY_NONE,
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        *,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
    ) -> GearmanJobRequest:
        """Submit one job (python-gearman: `submit_job`).

        Args:
            task: The function to run.
            data: What to run it with, for the `data_encoder`.
            unique: A name for the job, at most 63 bytes. Jobs of one task with the same unique
                that wait or run at the same server are one. Random if None.
            priority: PRIORITY_NONE, PRIORITY_LOW or PRIORITY_HIGH.
            background: Whether the job's end and result are of no interest.
            wait_until_complete: Whether to wait for the job's end, if it is a foreground job;
                else only until the server has acknowledged it.
            max_retries: How often to send it again, to the next server, if the connection is lost
                before the server has acknowledged it.
            poll_timeout: Seconds to wait at most; None waits for as long as it takes.
            run_at: Not to be run before this time: a `datetime` (local time if naive) or seconds
                since 1970. Only for background jobs without a priority.
            reducer: The function that reduces the results. Only for jobs without a priority.

        Returns:
            The request. Look at its `complete`, `timed_out` and `state`: a timeout raises nothing,
            and neither does a connection that is lost after the job was acknowledged (JOB_UNKNOWN).

        Raises:
            ServerUnavailable: No server could be reached.
            ExceededConnectionAttempts: The submit was lost more often than `max_retries` allows.
            TypeError: An argument is not of the type it must be, or not what the encoder takes.
            ValueError: An argument has a value that servers do not take.
        """
        job = {"task": task, "data": data, "unique": unique, "priority": priority}
        if run_at is not None:
            job["run_at"] = run_at
        if reducer is not None:
            job["reducer"] = reducer
        return self.submit_multiple_jobs(
            [job],
            background=background,
            wait_until_complete=wait_until_complete,
            max_retries=max_retries,
            poll_timeout=poll_timeout,
        )[0]

    def submit_multiple_jobs(
        self,
        jobs_to_submit: Collection[Mapping[str, Any]],
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
    ) -> list[GearmanJobRequest]:
        """Submit many jobs at once (python-gearman: `submit_multiple_jobs`).

        Args:
            jobs_to_submit: A list of dicts with `task` and `data`, and optionally `unique`,
                `priority`, `run_at` and `reducer`.
            background: As in `submit_job`, for all of them.
            wait_until_complete: As in `submit_job`.
            max_retries: As in `submit_job`.
            poll_timeout: Seconds to wait at most, for all of them together.

        Returns:
            The requests, in the order of the jobs.

        Raises:
            ServerUnavailable, ExceededConnectionAttempts: As in `submit_job`; all the requests are
                their `job_requests`.
            TypeError, ValueError: As in `submit_job`.
        """
        requests = make_requests(jobs_to_submit, background=background, max_retries=max_retries)
        return self.submit_multiple_requests(
            requests, wait_until_complete=wait_until_complete, poll_timeout=poll_timeout
        )

    def submit_multiple_requests(
        self,
        job_requests: Requests,
        wait_until_complete: bool = True,
        poll_timeout: float | None = None,
    ) -> Requests:
        """Submit requests, and wait for them (python-gearman: `submit_multiple_requests`).

        Those that are JOB_UNKNOWN, new or lost, are sent; those that are under way, after a timeout
        say, are waited for; those that have ended are left alone.

        Args:
            job_requests: A list, tuple or set of GearmanJobRequest.
            wait_until_complete: As in `submit_job`.
            poll_timeout: Seconds to wait at most, for all of them together.

        Returns:
            `job_requests`.

        Raises:
            ServerUnavailable, ExceededConnectionAttempts: As in `submit_job`; `job_requests` are
                their `job_requests`.
            TypeError, ValueError: As in `submit_job`.
            InvalidClientState: A request is under way in another client, or this one is shut down.
        """
        prepare(job_requests, self.data_encoder)
        self._driver.run(
            lambda engine, now, wake: engine.submit(
                job_requests, now, wake, accepted_only=not wait_until_complete, timeout=poll_timeout
            )
        )
        return job_requests

    def wait_until_jobs_accepted(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        """Wait until no request is JOB_PENDING (python-gearman: `wait_until_jobs_accepted`).

        As in python-gearman, requests that are JOB_UNKNOWN are sent. Arguments, result and
        exceptions are those of `submit_multiple_requests`.
        """
        return self.submit_multiple_requests(
            job_requests, wait_until_complete=False, poll_timeout=poll_timeout
        )

    def wait_until_jobs_completed(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        """Wait until requests have ended (python-gearman: `wait_until_jobs_completed`).

        Nothing is sent: a request that is JOB_UNKNOWN stays so. Arguments, result and exceptions
        are else those of `submit_multiple_requests`.
        """
        self._driver.run(
            lambda engine, now, wake: engine.wait_completed(
                job_requests, now, wake, timeout=poll_timeout
            )
        )
        return job_requests

    def as_completed(
        self,
        job_requests: Collection[GearmanJobRequest],
        poll_timeout: float | None = None,
    ) -> Iterator[GearmanJobRequest]:
        """Yield each request as it ends.

        Nothing is sent: a request that is JOB_UNKNOWN is yielded at once. One that is lost or
        fails is yielded too; see its `state` and `error`.

        Args:
            job_requests: A list, tuple or set of GearmanJobRequest.
            poll_timeout: Seconds after which to stop. The requests that have not been yielded then
                have `timed_out`.

        Raises:
            TypeError, InvalidClientState: As in `submit_multiple_requests`.
        """
        # What is wrong is raised here, not by the first `next`.
        timeout = to_seconds(poll_timeout)
        check_requests(job_requests)
        return self._iterate(
            lambda engine, now, wake: engine.as_completed(job_requests, now, wake, timeout=timeout)
        )

    def updates(
        self, job_request: GearmanJobRequest, poll_timeout: float | None = None
    ) -> Iterator[JobUpdate]:
        """Yield what comes of one job as it comes: JobData, JobWarning, JobProgress, JobEnded.

        What is yielded is taken out of the request's `data_updates`, `warning_updates` and
        `status_updates`. Nothing is sent.

        Args:
            job_request: A foreground request.
            poll_timeout: Seconds after which to stop. The request has `timed_out` then, and no
                JobEnded is yielded.

        Raises:
            TypeError, InvalidClientState: As in `submit_multiple_requests`.
            Exception: Whatever the encoder's `decode` raises.
        """
        # What is wrong is raised here, not by the first `next`.
        timeout = to_seconds(poll_timeout)
        check_requests([job_request])
        return self._iterate(
            lambda engine, now, wake: engine.updates(job_request, now, wake, timeout=timeout)
        )

    def _iterate(
        self, begin: Callable[[ClientEngine, float, Callable[[], Any]], Stream]
    ) -> Iterator[Any]:
        with self._driver.start(begin) as call:
            stream = call.wait
            while True:
                done = stream.done
                item = stream.take()
                if item is not None:
                    yield item
                elif done:
                    stream.raise_error()
                    return
                else:
                    call.block()

    # Job status.

    def get_job_status(
        self,
        current_request: GearmanJobRequest,
        poll_timeout: float | None = None,
        *,
        by_unique: bool = False,
    ) -> GearmanJobRequest:
        """Ask for the status of one job (python-gearman: `get_job_status`).

        Args:
            current_request: The request, or one that was made with `GearmanJobRequest.from_handle`
                or `from_unique`.
            poll_timeout: Seconds to wait at most.
            by_unique: Whether to ask by unique although there is a handle; the answer then has the
                number of clients that wait for the job.

        Returns:
            The request, with `status` filled, or with `timed_out`.

        Raises:
            ServerUnavailable: The server that has the job could not be reached.
            InvalidClientState: There is nothing to ask for, or the job is at a server that is not
                one of this client's.
        """
        self.get_job_statuses([current_request], poll_timeout=poll_timeout, by_unique=by_unique)
        return current_request

    def get_job_statuses(
        self,
        job_requests: Requests,
        poll_timeout: float | None = None,
        *,
        by_unique: bool = False,
    ) -> Requests:
        """Ask for the status of many jobs at once (python-gearman: `get_job_statuses`).

        Args:
            job_requests: A list, tuple or set of requests.
            poll_timeout: Seconds to wait at most, for all of them together.
            by_unique: As in `get_job_status`.

        Returns:
            `job_requests`.

        Raises:
            ServerUnavailable, InvalidClientState: As in `get_job_status`.
        """
        self._driver.run(
            lambda engine, now, wake: engine.statuses(
                job_requests, now, wake, by_unique=by_unique, timeout=poll_timeout
            )
        )
        return job_requests

    # Connections.

    @property
    def connection_list(self) -> list[Server]:
        """The servers, each with its address and whether it is `connected` (python-gearman)."""
        return list(self._driver.engine.pool.servers)

    def establish_connection(self, connection: Server, poll_timeout: float | None = None) -> Server:
        """Connect to a server now (python-gearman: `establish_connection`).

        Args:
            connection: One of `connection_list`.
            poll_timeout: Seconds to wait at most, beside `connect_timeout`.

        Returns:
            `connection`; look at its `connected`.

        Raises:
            ConnectionError: It could not be reached.
        """
        self._driver.run(
            lambda engine, now, wake: engine.connect(connection, now, wake, timeout=poll_timeout)
        )
        return connection

    def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[Server],  # noqa: ARG002 - python-gearman's
        callback_fxn: Callable[[bool], object],
        timeout: float | None = None,
    ) -> bool:
        """Wait for input until a callback has had enough.

        From python-gearman (`poll_connections_until_stopped`), for programs that wait in ways of
        their own.

        Args:
            submitted_connections: Not looked at: all connections are polled.
            callback_fxn: Called with whether anything came, at first with False; the poll ends
                when it returns something false.
            timeout: Seconds to wait at most.

        Returns:
            Whether the callback ended it, and not the timeout.
        """
        with self._driver.start(
            lambda engine, now, wake: engine.watch(now, wake, timeout=timeout)
        ) as call:
            stream = call.wait
            while callback_fxn(stream.news):
                if stream.done:
                    stream.raise_error()
                    return False
                stream.news = False
                call.block()
        return True

    def shutdown(self) -> None:
        """Close all connections (python-gearman: `shutdown`).

        Calls that wait in other threads return; requests under way are JOB_UNKNOWN. Calling it
        again does nothing.
        """
        self._driver.close()
