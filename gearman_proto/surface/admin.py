"""The public methods of the admin client."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Generic

from gearman_proto import constants
from gearman_proto.checks import to_seconds
from gearman_proto.tls import parse_servers
from gearman_proto.wire import text

from .base import Connected, ContextT, ServerT, Waited

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gearman_proto.address import HostSpec
    from gearman_proto.wire.text import FunctionStatus, JobRecord, PriorityStatus, WorkerStatus


class AdminClient(Connected[ServerT], Generic[ServerT, ContextT]):
    """A client for a server's admin commands (python-gearman: `GearmanAdminClient`)."""

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        poll_timeout: float | None = constants.DEFAULT_ADMIN_TIMEOUT,
        *,
        ssl_context: ContextT | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_reply_size: int = text.DEFAULT_MAX_REPLY_SIZE,
    ) -> None:
        """Create an admin client. It connects to the server at the first call.

        Each method can raise these exceptions:

        * ServerUnavailable: The server can't be reached, or closed the connection.
        * ServerError: The server rejected the command with an ``ERR`` line.
        * InvalidAdminClientState: The server did not answer within `poll_timeout` (as in
          python-gearman), or this client was shut down.
        * RemoteProtocolError: The server sent an invalid reply.

        Args:
            host_list: A list of one server, in any form that GearmanClient accepts. None means the
                local host.
            poll_timeout: Maximum time to wait for each reply, in seconds, including the time to
                connect. None means no limit.
            ssl_context: An `ssl.SSLContext` for the server, if its dict has no TLS of its own.
            connect_timeout: Seconds to wait for the connection.
            max_reply_size: Size limit of a reply, in bytes. The client disconnects a server that
                sends a larger reply.
            connect: (awaited) As for GearmanClient.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument has an invalid value, such as more than one server.
            OSError: A file of keys or certificates can't be read.

        Attributes:
            poll_timeout: Maximum time to wait for each reply, in seconds, or None.
        """
        to_seconds(poll_timeout)
        self.poll_timeout: float | None = poll_timeout
        options = {"connect_timeout": connect_timeout, "max_reply_size": max_reply_size}
        self._gm_make(parse_servers(host_list, ssl_context), options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._gm_servers()}>"

    @property
    def connection_list(self) -> list[ServerT]:
        """The server, with its address and `connected` flag (python-gearman)."""
        return [self._gm_driver.engine.server]

    # Queries.

    @abstractmethod
    def get_status(self) -> Waited[tuple[FunctionStatus, ...]]:
        """Return the status of all functions (python-gearman: `get_status`; ``status``).

        Returns:
            Records with `task`, `queued` (including running jobs), `running` and `workers`, as
            attributes or, as in python-gearman's dicts, as keys.
        """

    @abstractmethod
    def get_priority_status(self) -> Waited[tuple[PriorityStatus, ...]]:
        """Return the queue lengths of all functions, by priority (``prioritystatus``).

        Returns:
            Records with `task`, `high`, `normal`, `low` and `workers`.
        """

    @abstractmethod
    def get_workers(self) -> Waited[tuple[WorkerStatus, ...]]:
        """Return all connections of the server (python-gearman: `get_workers`; ``workers``).

        Returns:
            Records with `file_descriptor`, `ip`, `client_id` and `tasks`, of clients as well as
            workers. See `gearman_proto.text` for the ambiguities of this list.
        """

    @abstractmethod
    def get_jobs(self) -> Waited[tuple[JobRecord, ...]]:
        """Return all jobs of the server (``show jobs``).

        Returns:
            Records with `handle`, `retries`, `ignored` and `queued`.
        """

    @abstractmethod
    def get_unique_jobs(self) -> Waited[tuple[str, ...]]:
        """Return the uniques of all jobs (``show unique jobs``).

        Returns:
            The unique of each job.
        """

    @abstractmethod
    def get_version(self) -> Waited[str]:
        """Return the server's version (python-gearman: `get_version`; ``version``).

        Returns:
            The server's reply, such as ``OK 1.1.21`` from gearmand or ``v1.130.1`` from Perl's
            server.
        """

    @abstractmethod
    def get_pid(self) -> Waited[int]:
        """Return the server's process id (``getpid``).

        Returns:
            The process id.
        """

    @abstractmethod
    def get_verbosity(self) -> Waited[str]:
        """Return the server's log level (``verbose``).

        Returns:
            The level, such as ERROR or DEBUG.
        """

    @abstractmethod
    def ping_server(self) -> Waited[float]:
        """Check that the server answers (python-gearman: `ping_server`; ECHO_REQ).

        Returns:
            The round-trip time in seconds, not including the time to connect.
        """

    # Commands.

    @abstractmethod
    def send_maxqueue(
        self, task: str | bytes, max_size: int | Iterable[int | None] | None
    ) -> Waited[str]:
        """Limit the queue of a function (python-gearman: `send_maxqueue`; ``maxqueue``).

        If the server does not know the function, it answers ``OK`` but ignores the limit.

        Args:
            task: The function's name, without blanks.
            max_size: Maximum number of jobs, or three such numbers, for jobs of high, normal and
                low priority. 0 or None means no limit.

        Returns:
            ``OK``.

        Raises:
            TypeError, ValueError: The name or the limit is invalid.
        """

    @abstractmethod
    def cancel_job(self, handle: str | bytes) -> Waited[str]:
        """Remove a job from the queue (``cancel job``). Its clients get WORK_FAIL.

        With gearmand, a running job continues, and its clients receive its later packets as well.

        Args:
            handle: The job's handle.

        Returns:
            ``OK``. If the server does not know the job, the call raises ServerError with the code
            UNKNOWN_JOB.

        Raises:
            ValueError: `handle` is not a valid handle.
        """

    @abstractmethod
    def create_function(self, task: str | bytes) -> Waited[str]:
        """Add a function to the server's lists before it has any jobs (``create function``).

        Args:
            task: The function's name, without blanks.

        Returns:
            ``OK``.

        Raises:
            ValueError: `task` is not a valid name in a command, for example because it contains a
                blank.
        """

    @abstractmethod
    def drop_function(self, task: str | bytes) -> Waited[str]:
        """Remove a function from the server's lists (``drop function``).

        gearmand also drops functions with queued jobs. Those jobs never run.

        Args:
            task: The function's name.

        Returns:
            ``OK``.

        Raises:
            ValueError: As in `create_function`.
        """

    @abstractmethod
    def send_shutdown(self, graceful: bool = True) -> Waited[str]:
        """Shut down the server (python-gearman: `send_shutdown`; ``shutdown``).

        gearmand does not have this command and answers with an error. JobServer and Perl's
        server have it.

        Args:
            graceful: If true, the server finishes its jobs first.

        Returns:
            ``OK``.
        """

    # The connection.

    @abstractmethod
    def shutdown(self) -> Waited[None]:
        """Close the connection (python-gearman: `shutdown`). Leaving the ``with`` does the same.

        Pending calls in other threads or tasks raise InvalidAdminClientState. The server keeps
        running. Another call does nothing.
        """
