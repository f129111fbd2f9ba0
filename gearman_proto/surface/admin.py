"""The admin client's surface."""

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
    """Asks one Gearman server about itself (python-gearman: `GearmanAdminClient`)."""

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        poll_timeout: float | None = constants.DEFAULT_ADMIN_TIMEOUT,
        *,
        ssl_context: ContextT | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_reply_size: int = text.DEFAULT_MAX_REPLY_SIZE,
    ) -> None:
        """Make an admin client. Nothing is connected before the first call.

        Each method raises:

        * ServerUnavailable: the server can't be reached, or closed the connection;
        * ServerError: it refused the command, with an ``ERR`` line;
        * InvalidAdminClientState: it did not answer within `poll_timeout` (as in python-gearman),
          or this client was shut down;
        * RemoteProtocolError: it answered something that is no answer.

        Args:
            host_list: The server, in a list; its forms are those of GearmanClient. None is the
                local host.
            poll_timeout: Seconds to wait for each answer, connecting included; None waits for as
                long as it takes.
            ssl_context: An `ssl.SSLContext` for the server, if its dict has no TLS of its own.
            connect_timeout: Seconds to wait for the connection.
            max_reply_size: Bytes. A server that sends a larger reply is disconnected.
            connect: (awaited) As for GearmanClient.

        Raises:
            TypeError: An argument is not of the type it must be.
            ValueError: An argument has a value that can't be; there is more than one server, say.
            OSError: A file of keys or certificates can't be read.

        Attributes:
            poll_timeout: Seconds to wait for each answer, or None.
        """
        to_seconds(poll_timeout)
        self.poll_timeout: float | None = poll_timeout
        options = {"connect_timeout": connect_timeout, "max_reply_size": max_reply_size}
        self._gm_make(parse_servers(host_list, ssl_context), options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._gm_servers()}>"

    @property
    def connection_list(self) -> list[ServerT]:
        """The server, with its address and whether it is `connected` (python-gearman)."""
        return [self._gm_driver.engine.server]

    # What there is.

    @abstractmethod
    def get_status(self) -> Waited[tuple[FunctionStatus, ...]]:
        """Ask for all functions (python-gearman: `get_status`; ``status``).

        Returns:
            Records with `task`, `queued` (all jobs of it, those that run included), `running` and
            `workers`: attributes, and keys as in python-gearman's dicts.
        """

    @abstractmethod
    def get_priority_status(self) -> Waited[tuple[PriorityStatus, ...]]:
        """Ask for all functions, and what waits for them by priority (``prioritystatus``).

        Returns:
            Records with `task`, `high`, `normal`, `low` and `workers`.
        """

    @abstractmethod
    def get_workers(self) -> Waited[tuple[WorkerStatus, ...]]:
        """Ask for all connections (python-gearman: `get_workers`; ``workers``).

        Returns:
            Records with `file_descriptor`, `ip`, `client_id` and `tasks`, of clients as well. What
            servers' lists do not tell apart is in `gearman_proto.text`.
        """

    @abstractmethod
    def get_jobs(self) -> Waited[tuple[JobRecord, ...]]:
        """Ask for all jobs (``show jobs``).

        Returns:
            Records with `handle`, `retries`, `ignored` and `queued`.
        """

    @abstractmethod
    def get_unique_jobs(self) -> Waited[tuple[str, ...]]:
        """Ask for the uniques of all jobs (``show unique jobs``).

        Returns:
            The unique of each.
        """

    @abstractmethod
    def get_version(self) -> Waited[str]:
        """Ask for the server's version (python-gearman: `get_version`; ``version``).

        Returns:
            The line that it sends, ``OK 1.1.21`` from gearmand, ``v1.130.1`` from Perl's.
        """

    @abstractmethod
    def get_pid(self) -> Waited[int]:
        """Ask for the server's process (``getpid``).

        Returns:
            Its number.
        """

    @abstractmethod
    def get_verbosity(self) -> Waited[str]:
        """Ask how much the server logs (``verbose``).

        Returns:
            Its level, such as ERROR or DEBUG.
        """

    @abstractmethod
    def ping_server(self) -> Waited[float]:
        """See whether the server answers (python-gearman: `ping_server`; ECHO_REQ).

        Returns:
            Seconds that it took, connecting not included.
        """

    # What there is to be.

    @abstractmethod
    def send_maxqueue(
        self, task: str | bytes, max_size: int | Iterable[int | None] | None
    ) -> Waited[str]:
        """Limit the queue of a function (python-gearman: `send_maxqueue`; ``maxqueue``).

        Servers say OK to a function that they do not have, and forget the limit.

        Args:
            task: Its name, without blanks.
            max_size: How many jobs it may have; or three such numbers, for those of high, normal
                and low priority. 0 and None are no limit.

        Returns:
            ``OK``.

        Raises:
            TypeError, ValueError: This can't be asked for.
        """

    @abstractmethod
    def cancel_job(self, handle: str | bytes) -> Waited[str]:
        """Take a job out of the queue (``cancel job``); its clients get WORK_FAIL.

        On gearmand a job that runs goes on, and its clients hear of that, too.

        Args:
            handle: The job's handle.

        Returns:
            ``OK``. For a job that the server does not know, ServerError has the code UNKNOWN_JOB.

        Raises:
            ValueError: It can't be a handle.
        """

    @abstractmethod
    def create_function(self, task: str | bytes) -> Waited[str]:
        """Have a function in the server's lists before there are jobs (``create function``).

        Args:
            task: Its name, without blanks.

        Returns:
            ``OK``.

        Raises:
            ValueError: It can't be a name in a command: it has a blank, say.
        """

    @abstractmethod
    def drop_function(self, task: str | bytes) -> Waited[str]:
        """Take a function out of the server's lists (``drop function``).

        gearmand drops functions that have queued jobs, too, which then never run.

        Args:
            task: Its name.

        Returns:
            ``OK``.

        Raises:
            ValueError: As in `create_function`.
        """

    @abstractmethod
    def send_shutdown(self, graceful: bool = True) -> Waited[str]:
        """End the server (python-gearman: `send_shutdown`; ``shutdown``).

        gearmand 1.1 has no such command, and answers with an error that says so; JobServer and
        Perl's server have it.

        Args:
            graceful: Whether to let it finish its jobs first.

        Returns:
            ``OK``.
        """

    # The connection.

    @abstractmethod
    def shutdown(self) -> Waited[None]:
        """Close the connection (python-gearman: `shutdown`). Leaving the ``with`` does it, too.

        Calls that wait, in other threads or tasks, raise InvalidAdminClientState. It does nothing
        to the server, and nothing when called again.
        """
