"""The public methods of the job server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic

from gearman_proto import constants
from gearman_proto._version import __version__
from gearman_proto.checks import check_count
from gearman_proto.errors import ArgumentTypeError

from .base import ContextT

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.address import HostAndPort

    from .base import Waited


class JobServer(ABC, Generic[ContextT]):
    """A Gearman job server, for development, tests, and small use on a single machine."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        job_retries: int | None = constants.DEFAULT_JOB_RETRIES,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
        max_unread: int = constants.DEFAULT_MAX_UNREAD,
        max_memory: int = constants.DEFAULT_MAX_MEMORY,
        max_queue_size: int = 0,
        max_abilities: int = constants.DEFAULT_MAX_ABILITIES,
        exceptions: bool = False,
        ssl_context: ContextT | None = None,
        wall_clock: Callable[[], float] | None = None,
    ) -> None:
        """Create a server. It does not listen yet.

        The server stores nothing on disk, so queued jobs are lost when the process exits. In
        production, use gearmand. Clients and workers only need another host name. Keep data that
        must not be lost in your own database (docs/explanation/reliability.md).

        Args:
            host: The address or host name to listen on.
            port: The port to listen on. 0 means any free port.
            job_retries: Maximum number of times to retry a job because its worker was lost or took
                too long. Then the job fails. None means no limit.
            max_packet_size: Size limit of a packet, in bytes. The server disconnects a peer that
                sends a larger packet.
            max_unread: Limit of unread output, in bytes. The server disconnects a peer that leaves
                more unread.
            max_memory: Memory limit for all jobs and packets, in bytes. Jobs can use three quarters
                of it, and a single job one quarter. The server rejects submits beyond that.
            max_queue_size: Maximum number of jobs of a function. The admin command ``maxqueue``
                overrides it. 0 means no limit.
            max_abilities: Maximum number of functions that a connection can register. A worker that
                registers more gets an ERROR and is disconnected.
            exceptions: If true, all clients get the data of exceptions. Otherwise, only clients
                that ask for exceptions get it.
            ssl_context: An `ssl.SSLContext` for servers, with a certificate. With it, all peers
                must use TLS and complete the handshake within ten seconds. If its `verify_mode` is
                `ssl.CERT_REQUIRED`, peers also need a certificate that it trusts.
            wall_clock: For tests, a function that returns seconds since 1970. It determines when
                scheduled jobs (`run_at=`) are due. If this clock jumps, the server notices within a
                minute. None means `time.time`.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument has an invalid value.
        """
        if not isinstance(host, str):
            raise ArgumentTypeError(f"host is a str, not {host!r}")
        check_count("port", port, 0, 65535)
        self._gm_host = host
        self._gm_port = port
        self._gm_address: HostAndPort | None = None
        if wall_clock is not None and not callable(wall_clock):
            raise ArgumentTypeError(f"wall_clock is a function, not {wall_clock!r}")
        self._gm_wall_clock = wall_clock
        options = {
            "version": f"gearman-sansio-{__version__}",
            "job_retries": job_retries,
            "max_packet_size": max_packet_size,
            "max_unread": max_unread,
            "max_memory": max_memory,
            "max_queue_size": max_queue_size,
            "max_abilities": max_abilities,
            "exceptions": exceptions,
        }
        self._gm_setup(options, ssl_context)

    @abstractmethod
    def _gm_setup(self, options: dict[str, Any], ssl_context: ContextT | None) -> None:
        """Prepare a factory of engines with these `options`.

        Raises:
            TypeError, ValueError: The options or the context are invalid.
        """

    def __repr__(self) -> str:
        return f"<JobServer {self._gm_address or 'not started'}>"

    @property
    def address(self) -> HostAndPort:
        """The server's host and port, for the `host_list` of GearmanClient and GearmanWorker.

        Raises:
            RuntimeError: The server was not started.
        """
        if self._gm_address is None:
            raise RuntimeError("this server was not started")
        return self._gm_address

    @property
    def port(self) -> int:
        """The server's port, also if the argument was 0.

        Raises:
            RuntimeError: The server was not started.
        """
        return self.address.port

    @abstractmethod
    def stop(self) -> Waited[None]:
        """Close all connections and stop the server. Another call does nothing.

        Leaving the ``with`` does the same.
        """

    @abstractmethod
    def wait(self) -> Waited[object]:
        """Wait until `stop` or the admin command ``shutdown`` has stopped the server.

        Args:
            timeout: (blocking) Maximum time to wait, in seconds. None means no limit.

        Returns:
            (blocking) True if the server has stopped.

        Raises:
            RuntimeError: (awaited) The server was not started.
        """
