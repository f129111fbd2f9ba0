"""The public methods of the client."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Never, TypeVar, overload

from gearman_proto import constants
from gearman_proto.checks import check_count, refuse_arguments, to_seconds
from gearman_proto.engines.client.cancelling import check_cancelled
from gearman_proto.engines.client.queries import status_queries
from gearman_proto.errors import ArgumentTypeError
from gearman_proto.jobs.batch import Batch
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import (
    Steps,
    check_followed,
    check_requests,
    make_requests,
    making_batch,
    prepare,
    preparing,
)
from gearman_proto.tls import parse_servers

from .base import Connected, ContextT, Generated, Iterated, ServerT, Streamed, Waited

if TYPE_CHECKING:
    from datetime import datetime

    from gearman_proto.address import HostSpec
    from gearman_proto.engines.client.queries import Asked
    from gearman_proto.engines.servers import ServerPool
    from gearman_proto.jobs.updates import JobUpdate

#: A list, tuple or set of requests. Methods return the same object that was passed in.
Requests = TypeVar("Requests", bound=Collection[GearmanJobRequest])


class Client(Connected[ServerT], Generic[ServerT, ContextT]):
    """A client that submits jobs and waits for them (python-gearman: `GearmanClient`)."""

    data_encoder: Any = NoopEncoder

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        random_unique_bytes: int = 16,
        *,
        routing: constants.Routing = "random",
        ssl_context: ContextT | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        exceptions: bool = True,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
        heartbeat: float | None = constants.DEFAULT_HEARTBEAT,
        max_abandoned: int = constants.DEFAULT_MAX_ABANDONED,
        warn_after: float | None = constants.DEFAULT_WARN_AFTER,
    ) -> None:
        """Create a client. It connects to no server before the first call.

        Args:
            host_list: One or more servers: ``"host"``, ``"host:port"``, ``"[::1]:4730"``,
                ``("host", port)``, or a dict with ``host``, ``port`` and, for TLS, ``keyfile``,
                ``certfile`` and ``ca_certs`` (paths), or ``ssl_context``. ``keepalive`` and its
                times ``keepidle``, ``keepintvl`` and ``keepcnt`` control how soon the system
                detects a vanished server; see ServerAddress. None means the local host.
            random_unique_bytes: Number of random bytes in a generated unique, 1 to 31.
            routing: ``"random"`` distributes requests over the servers. ``"unique"`` sends the same
                unique to the same server while that is alive, so that equal jobs are coalesced.
            ssl_context: An `ssl.SSLContext` for the servers whose dict has no TLS of its own.
            connect_timeout: Seconds to wait for a connection to a server.
            exceptions: If true, ask servers for the data of exceptions (`request.exception`).
            max_packet_size: Size limit of a packet, in bytes. The client disconnects a server that
                sends a larger packet. Submitting a job that workers would receive in a larger
                packet raises ValueError.
            heartbeat: Seconds without data after which the client asks a server about the pending
                jobs. If nothing arrives for the same time again, the client closes the connection,
                as if it had been lost. None disables the heartbeat.
            max_abandoned: Limit, in bytes, for the buffered submits of abandoned calls to a server
                that does not answer. Beyond it, jobs go to another server, or the call raises
                ServerUnavailable.
            warn_after: Seconds after which the client asks the server of a waiting job, once for
                each function, whether a worker has registered the function. If none has, the client
                logs a warning. None disables this.
            connect: (awaited) Gets a server's address (`host`, `port`) and returns an
                `anyio.abc.ByteStream` to it, such as a Unix socket, a tunnel, or a stream in
                memory. The client adds TLS if the server has TLS. None means TCP.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument has an invalid value.
            OSError: A file of keys or certificates can't be read.

        Attributes:
            data_encoder: The encoder of all data; a DataEncoder, set here or on a subclass.
        """
        options = {
            "routing": routing,
            "unique_bytes": random_unique_bytes,
            "connect_timeout": connect_timeout,
            "exceptions": exceptions,
            "max_packet_size": max_packet_size,
            "heartbeat": heartbeat,
            "max_abandoned": max_abandoned,
            "warn_after": warn_after,
        }
        self._gm_max_packet_size = max_packet_size
        self._gm_make(parse_servers(host_list, ssl_context), options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self._gm_servers()}]>"

    # Submitting jobs.

    @abstractmethod
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
    ) -> Waited[GearmanJobRequest]:
        """Submit one job (python-gearman: `submit_job`).

        Args:
            task: The function to run.
            data: The payload, for the `data_encoder`.
            unique: A name for the job, at most 63 bytes. A server coalesces queued and running
                jobs of one task that have the same unique. None means a random unique.
            priority: PRIORITY_NONE, PRIORITY_LOW or PRIORITY_HIGH.
            background: If true, the client does not receive the job's result or end.
            wait_until_complete: If true, wait for the end of a foreground job. Otherwise, wait
                only until the server has acknowledged it.
            max_retries: Maximum number of retries, each on the next server, if the connection is
                lost before the server has acknowledged the job. If no other server is available,
                the first retry is immediate, the second after at most a second, the third after at
                most two, and so on, up to 30.
            poll_timeout: Maximum time to wait, in seconds. A negative number counts as 0. None
                means no limit.
            run_at: Earliest time to run the job, as a `datetime` (local time if naive) or seconds
                since 1970. Only for background jobs without a priority.
            reducer: The function that reduces the results. Only for jobs without a priority.
            cancel_if_abandoned: If true, and the call ends by an exception, by `poll_timeout`, or
                (awaited) by cancellation, cancel the job as `cancel_job` does. This takes up to
                five more seconds. A job whose `unique` you have chosen is not cancelled, because
                others might have submitted it, too.
            unknown: Nothing. Any other argument raises TypeError, which says for `timeout` that the
                argument is `poll_timeout`.

        Returns:
            The request. Check its `complete`, `timed_out` and `state`. A timeout raises no
            exception. If the connection or the job is lost after the acknowledgement, the request
            is JOB_UNKNOWN, and its `error` is the reason.

        Raises:
            ServerUnavailable: No server could be reached.
            ExceededConnectionAttempts: The submit was lost more often than `max_retries` allows.
            TypeError: An argument has the wrong type, or the encoder does not accept the data.
            ValueError: An argument has a value that servers do not accept.
            RuntimeError: (awaited) The call is outside ``async with``. All methods raise this.
        """

    @abstractmethod
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
    ) -> Waited[Batch]:
        """Submit many jobs at once (python-gearman: `submit_multiple_jobs`).

        Args:
            jobs_to_submit: A list of dicts with `task` and `data`, and optionally `unique`,
                `priority`, `run_at` and `reducer`.
            background: As in `submit_job`, for all of them.
            wait_until_complete: As in `submit_job`.
            max_retries: As in `submit_job`.
            poll_timeout: Maximum time to wait for all of them together, in seconds.
            cancel_if_abandoned: As in `submit_job`, for the jobs that have not ended.
            unknown: As in `submit_job`.

        Returns:
            The requests, in the order of the jobs. A Batch has the operations of a list. With more
            than 32 plain jobs in a list or tuple, it makes each request when the application looks
            at it.

        Raises:
            ServerUnavailable, ExceededConnectionAttempts: As in `submit_job`. The exception's
                `job_requests` are all the requests.
            TypeError, ValueError: As in `submit_job`.
        """

    @abstractmethod
    def submit_multiple_requests(
        self,
        job_requests: Requests,
        wait_until_complete: bool = True,
        poll_timeout: float | None = None,
        *,
        cancel_if_abandoned: bool = False,
    ) -> Waited[Requests]:
        """Submit requests, and wait for them (python-gearman: `submit_multiple_requests`).

        The client sends requests that are JOB_UNKNOWN, because they are new or were lost. It only
        waits for requests that are in flight, for example after a timeout. It ignores requests
        that have ended.

        Args:
            job_requests: A list, tuple or set of GearmanJobRequest.
            wait_until_complete: As in `submit_job`.
            poll_timeout: Maximum time to wait for all of them together, in seconds.
            cancel_if_abandoned: As in `submit_job`, for the requests that have not ended and that
                no other call waits for.

        Returns:
            `job_requests`.

        Raises:
            ServerUnavailable, ExceededConnectionAttempts: As in `submit_job`. The exception's
                `job_requests` are the argument.
            TypeError, ValueError: As in `submit_job`.
            InvalidClientState: Another client is processing a request, or this client was shut
                down.
        """

    @abstractmethod
    def wait_until_jobs_accepted(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Waited[Requests]:
        """Wait until no request is JOB_PENDING (python-gearman: `wait_until_jobs_accepted`).

        As in python-gearman, the client sends requests that are JOB_UNKNOWN.

        Args:
            job_requests: A list, tuple or set of GearmanJobRequest.
            poll_timeout: Maximum time to wait for all of them together, in seconds.

        Returns:
            `job_requests`.

        Raises:
            Exception: As in `submit_multiple_requests`.
        """

    @abstractmethod
    def wait_until_jobs_completed(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Waited[Requests]:
        """Wait until all requests have ended (python-gearman: `wait_until_jobs_completed`).

        The client sends nothing. A request that is JOB_UNKNOWN remains JOB_UNKNOWN.

        Args:
            job_requests: A list, tuple or set of GearmanJobRequest.
            poll_timeout: Maximum time to wait for all of them together, in seconds.

        Returns:
            `job_requests`.

        Raises:
            TypeError, ValueError, InvalidClientState: As in `submit_multiple_requests`.
        """

    @abstractmethod
    def as_completed(
        self, job_requests: Collection[GearmanJobRequest], poll_timeout: float | None = None
    ) -> Iterated[GearmanJobRequest]:
        """Yield each request as it ends.

        The client sends nothing, and yields a request that is JOB_UNKNOWN immediately. It also
        yields lost and failed requests. See their `state` and `error`.

        Args:
            job_requests: A list, tuple or set of GearmanJobRequest.
            poll_timeout: Seconds after which to stop. Then `timed_out` is true for the remaining
                requests.

        Raises:
            TypeError, InvalidClientState: As in `submit_multiple_requests`.
        """

    @abstractmethod
    def results(
        self,
        jobs: Streamed[Mapping[str, Any]],
        window: int = 1000,
        *,
        background: bool = False,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        cancel_if_abandoned: bool = False,
    ) -> Generated[GearmanJobRequest]:
        """Submit a stream of jobs of any length, and yield each request as it ends.

        At most `window` requests are in flight or wait to be yielded. While the caller waits for
        the next request and there are fewer, the client takes the next job and submits it. So it
        stops taking jobs while all workers are busy, or while the caller processes a request.

        The client yields one request for each job that it has taken. As with `as_completed`, see
        the `state` and `error` of each. If the caller stops early, the jobs in flight go on, unless
        `cancel_if_abandoned` is true.

        Args:
            jobs: Dicts as in `submit_multiple_jobs`, from an iterable. (awaited) It can be async.
                (blocking) While it waits for its next job, no request is yielded.
            window: Maximum number of requests in flight, at least 1.
            background: If true, yield each request once the server has acknowledged it.
            max_retries: As in `submit_job`, for each job.
            poll_timeout: Seconds after which to stop. Then `timed_out` is true for the remaining
                requests.
            cancel_if_abandoned: If true, cancel the jobs in flight at the timeout, after an
                exception, or when the iterator is closed. As in `submit_job`.

        Raises:
            ServerUnavailable, ExceededConnectionAttempts: A job could not be submitted. The client
                stops taking jobs, and raises this after it has yielded all requests. The
                exception's `job_requests` are the ones that could not be submitted.
            InvalidClientState: The client was shut down before the last job.
            TypeError, ValueError: An argument is invalid. If a job is invalid, the client raises
                this after it has yielded the requests of the jobs before.
            Exception: Any exception of `jobs` or of the encoder, after all requests.
        """

    @overload
    @abstractmethod
    def updates(
        self, job_requests: GearmanJobRequest, poll_timeout: float | None = None
    ) -> Iterated[JobUpdate]: ...
    @overload
    @abstractmethod
    def updates(
        self, job_requests: Collection[GearmanJobRequest], poll_timeout: float | None = None
    ) -> Iterated[tuple[GearmanJobRequest, JobUpdate]]: ...
    @abstractmethod
    def updates(
        self,
        job_requests: GearmanJobRequest | Collection[GearmanJobRequest],
        poll_timeout: float | None = None,
    ) -> Iterated[JobUpdate | tuple[GearmanJobRequest, JobUpdate]]:
        """Yield each update of jobs: JobData, JobWarning, JobProgress, and finally JobEnded.

        Yielded updates are removed from the request's `data_updates`, `warning_updates` and
        `status_updates`. The client sends nothing.

        If the consumer is too slow and the unread updates of the call exceed 256 MiB, the client
        first drops old progress. If that is not enough, it fails the request whose job has sent the
        next update.

        Args:
            job_requests: A foreground request, or a list, tuple or set of foreground requests. For
                a collection, the iterator yields pairs of a request and its update. It ends when
                all jobs have ended.
            poll_timeout: Seconds after which to stop. Then `timed_out` is true for the remaining
                requests, and the iterator yields no JobEnded for them.

        Raises:
            TypeError, InvalidClientState: As in `submit_multiple_requests`.
            ValueError: A request is a background request.
            Exception: Any exception from the encoder's `decode`. The update is lost, and another
                call continues after it.
        """

    @abstractmethod
    def cancel_job(
        self, job_request: GearmanJobRequest, poll_timeout: float | None = None
    ) -> Waited[str | None]:
        """Cancel a job (the text command ``cancel job``).

        If the job was queued or running, a foreground request becomes JOB_FAILED with an `error`,
        and so do all requests for the same job. A background request, which is complete, stays
        JOB_CREATED. No server stops a running job: its worker continues, and its result is lost.

        gearmand keeps a cancelled job in its queue until a worker asks for a job. If you submit its
        `unique` again before that, the new request joins the cancelled job and waits forever.

        Args:
            job_request: A request of this client, or one from `GearmanJobRequest.from_handle`, with
                the server if the client has several.
            poll_timeout: Maximum time to wait, in seconds. If the server has not answered, the job
                might still be cancelled later.

        Returns:
            ``"queued"``, ``"running"`` or ``"unknown"``: the last state of the job. It might have
            started or ended meanwhile, so ``"queued"`` does not prove that it never ran.
            ``"unknown"``: the server does not know the job, for example because it has ended. Then
            the request does not change. None after the timeout.

        Raises:
            ServerUnavailable: The server could not be reached, or has not answered for ten seconds.
            ServerError: The server does not know the command.
            InvalidClientState: The request was never submitted, or its server is not one of this
                client's.
            TypeError, ValueError: The request has an invalid handle.
        """

    # Job status.

    @abstractmethod
    def get_job_status(
        self,
        current_request: GearmanJobRequest,
        poll_timeout: float | None = None,
        *,
        by_unique: bool = False,
    ) -> Waited[GearmanJobRequest]:
        """Request the status of one job (python-gearman: `get_job_status`).

        Args:
            current_request: The request of the job, or one from `GearmanJobRequest.from_handle` or
                `GearmanJobRequest.from_unique`.
            poll_timeout: Maximum time to wait, in seconds.
            by_unique: If true, ask by unique even if the request has a handle. The status then
                includes the number of waiting clients.

        Returns:
            The request. Either its `status` is updated, or its `timed_out` is true.

        Raises:
            ServerUnavailable: The job's server could not be reached.
            InvalidClientState: The request has neither a handle nor a unique to ask for, or its
                server is not one of this client's.
        """

    @abstractmethod
    def get_job_statuses(
        self,
        job_requests: Requests,
        poll_timeout: float | None = None,
        *,
        by_unique: bool = False,
    ) -> Waited[Requests]:
        """Request the status of many jobs at once (python-gearman: `get_job_statuses`).

        Args:
            job_requests: A list, tuple or set of requests.
            poll_timeout: Maximum time to wait for all of them together, in seconds.
            by_unique: As in `get_job_status`.

        Returns:
            `job_requests`.

        Raises:
            ServerUnavailable, InvalidClientState: As in `get_job_status`.
        """

    # Connections.

    @abstractmethod
    def establish_connection(
        self, connection: ServerT | HostSpec, poll_timeout: float | None = None
    ) -> Waited[ServerT]:
        """Connect to a server now (python-gearman: `establish_connection`).

        Args:
            connection: A server from `connection_list`, or its address, in any form that
                `host_list` accepts.
            poll_timeout: Maximum time to wait, in seconds. `connect_timeout` applies as well.

        Returns:
            The server, from `connection_list`. Check its `connected`.

        Raises:
            ConnectionError: The server could not be reached.
            InvalidClientState: The server is not one of this client's.
            TypeError, ValueError: `connection` is neither a server nor a valid address.
        """

    @abstractmethod
    def wait_for_servers(self, timeout: float | None = None) -> Waited[bool]:
        """Wait until a server answers, for a program that might start before its servers.

        The client tries to connect to each server about once per second. A connection alone does
        not count, because a proxy accepts connections before its server runs.

        Args:
            timeout: Maximum time to wait, in seconds. None means no limit.

        Returns:
            True if a server has answered, False after the timeout.

        Raises:
            ServerUnavailable: The client has no servers, or was shut down meanwhile.
            InvalidClientState: The client was shut down before.
        """

    @abstractmethod
    def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[ServerT],
        callback_fxn: Callable[[bool], object],
        timeout: float | None = None,
    ) -> Waited[bool]:
        """Wait for input until a callback returns something false.

        From python-gearman (`poll_connections_until_stopped`), for programs with their own wait
        conditions.

        Args:
            submitted_connections: Ignored. The method polls all connections.
            callback_fxn: Called with True if data was received, and first with False. If it
                returns something false, the poll ends. (awaited) It can be async.
            timeout: Maximum time to wait, in seconds.

        Returns:
            True if the timeout ended the poll, False if the callback or `shutdown` did.
        """

    @abstractmethod
    def shutdown(self) -> Waited[None]:
        """Close all connections (python-gearman: `shutdown`). Leaving the ``with`` does the same.

        Pending calls in other threads or tasks return, and their requests become JOB_UNKNOWN. All
        other requests remain unchanged. Another client treats them as requests whose connection
        was lost. Another call does nothing.
        """

    # Checks for adapters. Arguments can be objects of the application that raise their own
    # exceptions. Therefore they are checked here, before an engine changes its state.

    @staticmethod
    def _gm_requests_of(
        jobs: Collection[Mapping[str, Any]],
        background: bool,
        max_retries: int,
        unknown: Mapping[str, object],
    ) -> Steps[list[GearmanJobRequest] | Batch]:
        """Return the steps that make the requests of `submit_multiple_jobs`."""
        refuse_arguments(unknown)
        return making_batch(jobs, background=background, max_retries=max_retries)

    @staticmethod
    def _gm_batch_of(requests: list[GearmanJobRequest] | Batch) -> Batch:
        """Return the requests of `submit_multiple_jobs` in a batch."""
        return Batch(requests) if isinstance(requests, list) else requests

    # Check arguments before the call, so that `as_completed` and `updates` raise errors themselves
    # and not at the first `next`.

    @staticmethod
    def _gm_check(
        requests: Collection[GearmanJobRequest], poll_timeout: float | None
    ) -> float | None:
        """Check the arguments of a call. Return the timeout in seconds."""
        timeout = to_seconds(poll_timeout)
        check_requests(requests)
        return timeout

    def _gm_maker(
        self,
        jobs: object,
        window: int,
        background: bool,
        max_retries: int,
        *,
        can_be_async: bool = False,
    ) -> Callable[[Any], GearmanJobRequest]:
        """Check the arguments of `results`. Return the function that makes a request of a job."""
        if not (isinstance(jobs, Iterable) or (can_be_async and isinstance(jobs, AsyncIterable))):
            raise ArgumentTypeError(f"jobs is an iterable of jobs, not {type(jobs).__name__}")
        check_count("window", window, 1)
        check_count("max_retries", max_retries, 0)

        def make(job: Any) -> GearmanJobRequest:
            requests = make_requests([job], background=background, max_retries=max_retries)
            prepare(requests, self.data_encoder, self._gm_max_packet_size)
            return requests[0]

        return make

    @staticmethod
    def _gm_check_followed(
        requests: GearmanJobRequest | Collection[GearmanJobRequest], poll_timeout: float | None
    ) -> float | None:
        """Check the arguments of `updates`. Return the timeout in seconds."""
        timeout = to_seconds(poll_timeout)
        check_followed([requests] if isinstance(requests, GearmanJobRequest) else requests)
        return timeout

    def _gm_prepare(
        self, requests: Collection[GearmanJobRequest], poll_timeout: float | None
    ) -> Steps[float | None]:
        """Check the arguments of a submit, and encode the data. Return the timeout in seconds."""
        timeout = to_seconds(poll_timeout)
        yield from preparing(requests, self.data_encoder, self._gm_max_packet_size)
        return timeout

    def _gm_check_cancelled(
        self, request: GearmanJobRequest, poll_timeout: float | None
    ) -> float | None:
        """Check the arguments of `cancel_job`. Return the timeout in seconds."""
        timeout = to_seconds(poll_timeout)
        check_cancelled([request], self._gm_driver.engine.pool)
        return timeout

    def _gm_status_queries(
        self, requests: Collection[GearmanJobRequest], by_unique: bool
    ) -> list[Asked]:
        pool: ServerPool = self._gm_driver.engine.pool
        return status_queries(pool, requests, by_unique=bool(by_unique))

    def _gm_find(self, connection: ServerT | HostSpec) -> ServerT:
        """Return this client's server for `connection`."""
        server: ServerT = self._gm_driver.engine.pool.find(connection)
        return server


#: Maximum time to wait for the cancellation of abandoned jobs, in seconds.
CANCEL_TIMEOUT: Final = 5.0


def cancelling(cancel_if_abandoned: bool) -> dict[str, Any]:
    """Return the option for the next method, if it is true: programs override these methods."""
    return {"cancel_if_abandoned": True} if cancel_if_abandoned else {}


def make_job(
    task: str | bytes,
    data: Any,
    unique: str | bytes | None,
    priority: constants.Priority,
    run_at: datetime | float | None,
    reducer: str | bytes | None,
) -> dict[str, Any]:
    """Return the dict of one job, for `submit_multiple_jobs`."""
    job: dict[str, Any] = {"task": task, "data": data}
    if unique is not None:
        job["unique"] = unique
    if priority is not None:
        job["priority"] = priority
    if run_at is not None:
        job["run_at"] = run_at
    if reducer is not None:
        job["reducer"] = reducer
    return job
