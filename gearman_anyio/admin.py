"""The admin client for trio and asyncio: python-gearman's surface, awaited, on the admin engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio.lowlevel

from gearman_proto import constants, text
from gearman_proto.deadlines import to_seconds
from gearman_proto.engines.admin import DEFAULT_POLL_TIMEOUT, AdminEngine
from gearman_sync._tls import make_contexts

from ._driver import Driver
from ._opened import Opened
from ._streams import connect_tcp, open_stream

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Iterable

    from anyio.abc import ByteStream

    from gearman_proto import (
        AdminLink,
        FunctionStatus,
        JobRecord,
        PriorityStatus,
        Server,
        WorkerStatus,
    )
    from gearman_proto.address import HostSpec

    from ._streams import Connector

T = TypeVar("T")


class GearmanAdminClient(Opened[AdminEngine]):
    """Asks one Gearman server about itself, and tells it what to do.

    From python-gearman (`gearman.GearmanAdminClient`), with the same methods, which are awaited. It
    is used once, inside ``async with GearmanAdminClient(...) as client:``, by any number of tasks,
    which are served one after the other. Nothing is connected before the first call; the connection
    is kept. Any call may be cancelled.

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
        connect: As for GearmanClient.

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
        connect: Connector | None = None,
    ) -> None:
        to_seconds(poll_timeout)
        addresses, contexts = make_contexts(host_list, ssl_context)
        connector = connect or connect_tcp
        self.poll_timeout: float | None = poll_timeout
        engine = AdminEngine(
            addresses, connect_timeout=connect_timeout, max_reply_size=max_reply_size
        )

        def open_link(link: AdminLink) -> Awaitable[ByteStream]:
            return open_stream(link.address, contexts.get(link.address), connector)

        self._driver = Driver(engine, open_link)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._driver.engine.server.address}>"

    async def _ask(self, command: text.Command[T]) -> T:
        question = await self._open.finish(
            lambda engine, now, wake: engine.ask(command, now, wake, timeout=self.poll_timeout)
        )
        return question.value

    # What there is.

    async def get_status(self) -> tuple[FunctionStatus, ...]:
        """Ask for all functions (python-gearman: `get_status`; ``status``).

        Returns:
            Records with `task`, `queued` (all jobs of it, those that run included), `running` and
            `workers`: attributes, and keys as in python-gearman's dicts.
        """
        return await self._ask(text.status())

    async def get_priority_status(self) -> tuple[PriorityStatus, ...]:
        """Ask for all functions, and what waits for them by priority (``prioritystatus``).

        Returns:
            Records with `task`, `high`, `normal`, `low` and `workers`.
        """
        return await self._ask(text.prioritystatus())

    async def get_workers(self) -> tuple[WorkerStatus, ...]:
        """Ask for all connections (python-gearman: `get_workers`; ``workers``).

        Returns:
            Records with `file_descriptor`, `ip`, `client_id` and `tasks`, of clients as well. What
            servers' lists do not tell apart is in `gearman_proto.text`.
        """
        return await self._ask(text.workers())

    async def get_jobs(self) -> tuple[JobRecord, ...]:
        """Ask for all jobs (``show jobs``).

        Returns:
            Records with `handle`, `retries`, `ignored` and `queued`.
        """
        return await self._ask(text.show_jobs())

    async def get_unique_jobs(self) -> tuple[str, ...]:
        """Ask for the uniques of all jobs (``show unique jobs``)."""
        return await self._ask(text.show_unique_jobs())

    async def get_version(self) -> str:
        """Ask for the server's version (python-gearman: `get_version`; ``version``).

        Returns:
            The line that it sends: ``OK 1.1.21`` from gearmand, ``v1.130.1`` from Perl's.
        """
        return await self._ask(text.version())

    async def get_pid(self) -> int:
        """Ask for the number of the server's process (``getpid``)."""
        return await self._ask(text.getpid())

    async def get_verbosity(self) -> str:
        """Ask how much the server logs (``verbose``): FATAL, ERROR, … DEBUG."""
        return await self._ask(text.verbose())

    async def ping_server(self) -> float:
        """See whether the server answers (python-gearman: `ping_server`; ECHO_REQ).

        Returns:
            Seconds that it took, connecting not included.
        """
        question = await self._open.finish(
            lambda engine, now, wake: engine.ping(now, wake, timeout=self.poll_timeout)
        )
        return question.value

    # What there is to be.

    async def send_maxqueue(
        self, task: str | bytes, max_size: int | Iterable[int | None] | None
    ) -> str:
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
        return await self._ask(text.maxqueue(task, max_size))

    async def cancel_job(self, handle: str | bytes) -> str:
        """Take a job out of the queue (``cancel job``); its clients get WORK_FAIL.

        On gearmand a job that runs goes on, and its clients hear of that, too.

        Returns:
            ``OK``. For a job that the server does not know, ServerError has the code UNKNOWN_JOB.

        Raises:
            ValueError: It can't be a handle.
        """
        return await self._ask(text.cancel_job(handle))

    async def create_function(self, task: str | bytes) -> str:
        """Have a function in the server's lists before there are jobs (``create function``).

        Returns:
            ``OK``.

        Raises:
            ValueError: It can't be a name in a command: it has a blank, say.
        """
        return await self._ask(text.create_function(task))

    async def drop_function(self, task: str | bytes) -> str:
        """Take a function out of the server's lists (``drop function``).

        gearmand drops functions that have queued jobs, too, which then never run.

        Returns:
            ``OK``.

        Raises:
            ValueError: As in `create_function`.
        """
        return await self._ask(text.drop_function(task))

    async def send_shutdown(self, graceful: bool = True) -> str:
        """End the server (python-gearman: `send_shutdown`; ``shutdown``).

        gearmand 1.1 has no such command, and answers with an error that says so; JobServer and
        Perl's server have it.

        Args:
            graceful: Whether to let it finish its jobs first.

        Returns:
            ``OK``.
        """
        return await self._ask(text.shutdown(graceful=graceful))

    # The connection.

    @property
    def connection_list(self) -> list[Server]:
        """The server, with its address and whether it is `connected` (python-gearman)."""
        return [self._driver.engine.server]

    async def shutdown(self) -> None:
        """Close the connection (python-gearman: `shutdown`). Leaving ``async with`` does it, too.

        Calls that wait in other tasks raise InvalidAdminClientState. It does nothing to the
        server, and nothing when called again.
        """
        self._open.close()
        await anyio.lowlevel.checkpoint()
