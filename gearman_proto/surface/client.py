"""The client's surface."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gearman_proto import constants
from gearman_proto.checks import to_seconds
from gearman_proto.engines.client.queries import status_queries
from gearman_proto.jobs.batch import Supply
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import GearmanJobRequest
from gearman_proto.jobs.submitting import check_requests, prepare, supply_requests
from gearman_proto.tls import parse_servers

from .base import Connected, ContextT, Iterated, ServerT, Waited

if TYPE_CHECKING:
    from datetime import datetime

    from gearman_proto.address import HostSpec
    from gearman_proto.engines.client.queries import Asked
    from gearman_proto.engines.servers import ServerPool
    from gearman_proto.jobs.updates import JobUpdate

#: A list, tuple or set of requests. What is passed in is what is returned.
Requests = TypeVar("Requests", bound=Collection[GearmanJobRequest])


class Client(Connected[ServerT], Generic[ServerT, ContextT]):
    """Submits jobs to Gearman servers, and waits for them (python-gearman: `GearmanClient`)."""

    data_encoder: Any = NoopEncoder

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        random_unique_bytes: int = 16,
        *,
        routing: str = "random",
        ssl_context: ContextT | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        exceptions: bool = True,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
        heartbeat: float | None = constants.DEFAULT_HEARTBEAT,
        max_abandoned: int = constants.DEFAULT_MAX_ABANDONED,
    ) -> None:
        """Create a client. It connects to no server before the first call.

        Args:
            host_list: The servers: ``"host"``, ``"host:port"``, ``"[::1]:4730"``,
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
        priority: str | None = constants.PRIORITY_NONE,
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        *,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
    ) -> Waited[GearmanJobRequest]:
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
                before the server has acknowledged it. Where there is no other server, it is sent
                at once, then after a second at most, then two, and so on up to 30.
            poll_timeout: Seconds to wait at most; None waits for as long as it takes.
            run_at: Not to be run before this time: a `datetime` (local time if naive) or seconds
                since 1970. Only for background jobs without a priority.
            reducer: The function that reduces the results. Only for jobs without a priority.

        Returns:
            The request. Look at its `complete`, `timed_out` and `state`. A timeout raises nothing,
            and neither does a connection, or a job, that is lost after the job was acknowledged
            (JOB_UNKNOWN, and its `error` says why).

        Raises:
            ServerUnavailable: No server could be reached.
            ExceededConnectionAttempts: The submit was lost more often than `max_retries` allows.
            TypeError: An argument is not of the type it must be, or not what the encoder takes.
            ValueError: An argument has a value that servers do not take.
            RuntimeError: (awaited) This is not inside ``async with``, as for all methods.
        """

    @abstractmethod
    def submit_multiple_jobs(
        self,
        jobs_to_submit: Collection[Mapping[str, Any]],
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
    ) -> Waited[list[GearmanJobRequest]]:
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

    @abstractmethod
    def submit_multiple_requests(
        self,
        job_requests: Requests,
        wait_until_complete: bool = True,
        poll_timeout: float | None = None,
    ) -> Waited[Requests]:
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

    @abstractmethod
    def wait_until_jobs_accepted(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Waited[Requests]:
        """Wait until no request is JOB_PENDING (python-gearman: `wait_until_jobs_accepted`).

        As in python-gearman, requests that are JOB_UNKNOWN are sent.

        Args:
            job_requests: A list, tuple or set of GearmanJobRequest.
            poll_timeout: Seconds to wait at most, for all of them together.

        Returns:
            `job_requests`.

        Raises:
            Exception: As in `submit_multiple_requests`.
        """

    @abstractmethod
    def wait_until_jobs_completed(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Waited[Requests]:
        """Wait until requests have ended (python-gearman: `wait_until_jobs_completed`).

        Nothing is sent: a request that is JOB_UNKNOWN stays so.

        Args:
            job_requests: A list, tuple or set of GearmanJobRequest.
            poll_timeout: Seconds to wait at most, for all of them together.

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

        Nothing is sent: a request that is JOB_UNKNOWN is yielded at once. One that is lost or
        fails is yielded too; see its `state` and `error`.

        Args:
            job_requests: A list, tuple or set of GearmanJobRequest.
            poll_timeout: Seconds after which to stop. The requests that have not been yielded then
                have `timed_out`.

        Raises:
            TypeError, InvalidClientState: As in `submit_multiple_requests`.
        """

    @abstractmethod
    def updates(
        self, job_request: GearmanJobRequest, poll_timeout: float | None = None
    ) -> Iterated[JobUpdate]:
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

    # Job status.

    @abstractmethod
    def get_job_status(
        self,
        current_request: GearmanJobRequest,
        poll_timeout: float | None = None,
        *,
        by_unique: bool = False,
    ) -> Waited[GearmanJobRequest]:
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

    @abstractmethod
    def get_job_statuses(
        self,
        job_requests: Requests,
        poll_timeout: float | None = None,
        *,
        by_unique: bool = False,
    ) -> Waited[Requests]:
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

    # Connections.

    @abstractmethod
    def establish_connection(
        self, connection: ServerT | HostSpec, poll_timeout: float | None = None
    ) -> Waited[ServerT]:
        """Connect to a server now (python-gearman: `establish_connection`).

        Args:
            connection: One of `connection_list`, or the address of one, in any form that
                `host_list` takes.
            poll_timeout: Seconds to wait at most, beside `connect_timeout`.

        Returns:
            The server, one of `connection_list`; look at its `connected`.

        Raises:
            ConnectionError: It could not be reached.
            InvalidClientState: It is not one of this client's.
            TypeError, ValueError: It is no server and no address.
        """

    @abstractmethod
    def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[ServerT],
        callback_fxn: Callable[[bool], object],
        timeout: float | None = None,
    ) -> Waited[bool]:
        """Wait for input until a callback has had enough.

        From python-gearman (`poll_connections_until_stopped`), for programs that wait in ways of
        their own.

        Args:
            submitted_connections: Not looked at: all connections are polled.
            callback_fxn: Called with whether anything came, at first with False; the poll ends
                when it returns something false. (awaited) It may be async.
            timeout: Seconds to wait at most.

        Returns:
            Whether to go on. True if the timeout ended it, False if the callback or `shutdown` did.
        """

    @abstractmethod
    def shutdown(self) -> Waited[None]:
        """Close all connections (python-gearman: `shutdown`). Leaving the ``with`` does it, too.

        Calls that wait, in other threads or tasks, return, their requests being JOB_UNKNOWN. All
        other requests stay as they are; to another client they are ones whose connection was lost.
        Calling it again does nothing.
        """

    # What adapters run. All arguments are looked at here, and not in the midst of an engine: they
    # may be objects of the application's, with exceptions of their own.

    def _gm_requests_of(
        self, jobs: Collection[Mapping[str, Any]], background: bool, max_retries: int
    ) -> list[GearmanJobRequest] | Supply:
        return supply_requests(
            jobs,
            background=background,
            max_retries=max_retries,
            encoder=self.data_encoder,
            max_packet_size=self._gm_max_packet_size,
        )

    @staticmethod
    def _gm_all_of(requests: list[GearmanJobRequest] | Supply) -> list[GearmanJobRequest]:
        """What `submit_multiple_jobs` returns of what `submit_multiple_requests` did."""
        return requests.all() if type(requests) is Supply else requests

    # The checks come before the call, so `as_completed` and `updates` do not leave them to `next`.

    @staticmethod
    def _gm_check(
        requests: Collection[GearmanJobRequest], poll_timeout: float | None
    ) -> float | None:
        """Check the arguments of a call. Return the timeout in seconds."""
        timeout = to_seconds(poll_timeout)
        check_requests(requests)
        return timeout

    def _gm_prepare(
        self, requests: Collection[GearmanJobRequest], poll_timeout: float | None
    ) -> float | None:
        """Check the arguments of a submit, and encode the data. Return the timeout in seconds."""
        timeout = to_seconds(poll_timeout)
        if type(requests) is not Supply or requests.requests:
            # A Supply has requests only if the application has read them, and might have changed
            # them.
            prepare(requests, self.data_encoder, self._gm_max_packet_size)
        return timeout

    def _gm_status_queries(
        self, requests: Collection[GearmanJobRequest], by_unique: bool
    ) -> list[Asked]:
        pool: ServerPool = self._gm_driver.engine.pool
        return status_queries(pool, requests, by_unique=bool(by_unique))

    def _gm_find(self, connection: ServerT | HostSpec) -> ServerT:
        """The server of this client that is meant."""
        server: ServerT = self._gm_driver.engine.pool.find(connection)
        return server


def make_job(
    task: str | bytes,
    data: Any,
    unique: str | bytes | None,
    priority: str | None,
    run_at: datetime | float | None,
    reducer: str | bytes | None,
) -> dict[str, Any]:
    """The dict of one job, for `submit_multiple_jobs`."""
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
