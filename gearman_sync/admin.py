"""The blocking admin client: python-gearman's surface on the admin engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gearman_proto import constants, text
from gearman_proto.deadlines import to_seconds
from gearman_proto.engines.admin import DEFAULT_POLL_TIMEOUT, AdminEngine

from ._driver import Driver
from ._tls import make_contexts

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from gearman_proto import (
        FunctionStatus,
        JobRecord,
        PriorityStatus,
        Server,
        WorkerStatus,
    )
    from gearman_proto.address import HostSpec

T = TypeVar("T")


class GearmanAdminClient:
    """Asks one Gearman server about itself, and tells it what to do.

    From python-gearman (`gearman.GearmanAdminClient`). Nothing is connected before the first call;
    the connection is kept. Threads may share a client: they are served one after the other.

    Each method raises:

    * ServerUnavailable: the server can't be reached, or closed the connection;
    * ServerError: it refused the command, with an ``ERR`` line;
    * InvalidAdminClientState: it did not answer within `poll_timeout` (as in python-gearman), or
      this client was shut down;
    * RemoteProtocolError: it answered something that is no answer.

    Args:
        host_list: The server, in a list; its forms are those of GearmanClient. None is the local
            host.
        poll_timeout: Seconds to wait for each answer, connecting included; None waits for as long
            as it takes.
        ssl_context: An `ssl.SSLContext` for the server, if its dict has no TLS of its own.
        connect_timeout: Seconds to wait for the connection.
        max_reply_size: Bytes. A server that sends a larger reply is disconnected.

    Raises:
        TypeError: An argument is not of the type it must be.
        ValueError: An argument has a value that can't be; there is more than one server, say.
        OSError: A file of keys or certificates can't be read.

    Attributes:
        poll_timeout: Seconds to wait for each answer, or None.
    """

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        poll_timeout: float | None = DEFAULT_POLL_TIMEOUT,
        *,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_reply_size: int = text.DEFAULT_MAX_REPLY_SIZE,
    ) -> None:
        to_seconds(poll_timeout)
        addresses, contexts = make_contexts(host_list, ssl_context)
        self.poll_timeout: float | None = poll_timeout

        def make_engine() -> AdminEngine:
            return AdminEngine(
                addresses, connect_timeout=connect_timeout, max_reply_size=max_reply_size
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
        return f"<{type(self).__name__} {self._driver.engine.server.address}>"

    def _ask(self, command: text.Command[T]) -> T:
        return self._driver.finish(
            lambda engine, now, wake: engine.ask(command, now, wake, timeout=self.poll_timeout)
        ).value

    # What there is.

    def get_status(self) -> tuple[FunctionStatus, ...]:
        """Ask for all functions (python-gearman: `get_status`; ``status``).

        Returns:
            Records with `task`, `queued` (all jobs of it, those that run included), `running` and
            `workers`: attributes, and keys as in python-gearman's dicts.
        """
        return self._ask(text.status())

    def get_priority_status(self) -> tuple[PriorityStatus, ...]:
        """Ask for all functions, and what waits for them by priority (``prioritystatus``).

        Returns:
            Records with `task`, `high`, `normal`, `low` and `workers`.
        """
        return self._ask(text.prioritystatus())

    def get_workers(self) -> tuple[WorkerStatus, ...]:
        """Ask for all connections (python-gearman: `get_workers`; ``workers``).

        Returns:
            Records with `file_descriptor`, `ip`, `client_id` and `tasks`, of clients as well. What
            servers' lists do not tell apart is in `gearman_proto.text`.
        """
        return self._ask(text.workers())

    def get_jobs(self) -> tuple[JobRecord, ...]:
        """Ask for all jobs (``show jobs``).

        Returns:
            Records with `handle`, `retries`, `ignored` and `queued`.
        """
        return self._ask(text.show_jobs())

    def get_unique_jobs(self) -> tuple[str, ...]:
        """Ask for the uniques of all jobs (``show unique jobs``)."""
        return self._ask(text.show_unique_jobs())

    def get_version(self) -> str:
        """Ask for the server's version (python-gearman: `get_version`; ``version``).

        Returns:
            The line that it sends: ``OK 1.1.21`` from gearmand, ``v1.130.1`` from Perl's.
        """
        return self._ask(text.version())

    def get_pid(self) -> int:
        """Ask for the number of the server's process (``getpid``)."""
        return self._ask(text.getpid())

    def get_verbosity(self) -> str:
        """Ask how much the server logs (``verbose``): FATAL, ERROR, … DEBUG."""
        return self._ask(text.verbose())

    def ping_server(self) -> float:
        """See whether the server answers (python-gearman: `ping_server`; ECHO_REQ).

        Returns:
            Seconds that it took, connecting not included.
        """
        return self._driver.finish(
            lambda engine, now, wake: engine.ping(now, wake, timeout=self.poll_timeout)
        ).value

    # What there is to be.

    def send_maxqueue(self, task: str | bytes, max_size: int | Iterable[int | None] | None) -> str:
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
        return self._ask(text.maxqueue(task, max_size))

    def cancel_job(self, handle: str | bytes) -> str:
        """Take a job out of the queue (``cancel job``); its clients get WORK_FAIL.

        On gearmand a job that runs goes on, and its clients hear of that, too.

        Returns:
            ``OK``. For a job that the server does not know, ServerError has the code UNKNOWN_JOB.

        Raises:
            ValueError: It can't be a handle.
        """
        return self._ask(text.cancel_job(handle))

    def create_function(self, task: str | bytes) -> str:
        """Have a function in the server's lists before there are jobs (``create function``).

        Returns:
            ``OK``.

        Raises:
            ValueError: It can't be a name in a command: it has a blank, say.
        """
        return self._ask(text.create_function(task))

    def drop_function(self, task: str | bytes) -> str:
        """Take a function out of the server's lists (``drop function``).

        gearmand drops functions that have queued jobs, too, which then never run.

        Returns:
            ``OK``.

        Raises:
            ValueError: As in `create_function`.
        """
        return self._ask(text.drop_function(task))

    def send_shutdown(self, graceful: bool = True) -> str:
        """End the server (python-gearman: `send_shutdown`; ``shutdown``).

        gearmand 1.1 has no such command, and answers with an error that says so; JobServer and
        Perl's server have it.

        Args:
            graceful: Whether to let it finish its jobs first.

        Returns:
            ``OK``.
        """
        return self._ask(text.shutdown(graceful=graceful))

    # The connection.

    @property
    def connection_list(self) -> list[Server]:
        """The server, with its address and whether it is `connected` (python-gearman)."""
        return [self._driver.engine.server]

    def shutdown(self) -> None:
        """Close the connection (python-gearman: `shutdown`).

        Calls that wait in other threads raise InvalidAdminClientState. It does nothing to the
        server, and nothing when called again.
        """
        self._driver.close()
