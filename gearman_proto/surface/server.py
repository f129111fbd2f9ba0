"""The job server's surface."""

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
        """Make a server, which does not listen yet.

        It keeps nothing on disk: what is queued ends with the process. In production use gearmand,
        for clients and workers another host name; keep what must not be lost in a database of your
        own (docs/explanation/reliability.md).

        Args:
            host: The address to listen on; a name is resolved.
            port: The port to listen on; 0 for any that is free.
            job_retries: How often a job is run again because its worker was lost or took too long;
                None for any number. Then it fails.
            max_packet_size: Bytes. A peer that sends a larger packet is cut off.
            max_unread: Bytes. A peer is cut off that leaves more unread of what was sent to it.
            max_memory: Bytes, for all jobs and packets together. Jobs may take three quarters of
                it, one job a quarter; submits beyond that are refused.
            max_queue_size: How many jobs a function may have, unless the admin command ``maxqueue``
                says otherwise; 0 for any number.
            max_abilities: How many functions a connection may register for. A worker that registers
                for more gets an ERROR and is cut off.
            exceptions: Whether all clients get the data of exceptions, and not only those that
                asked.
            ssl_context: An `ssl.SSLContext` for servers, with a certificate. Then everybody who
                connects has to speak TLS, and to be done with its handshake within ten seconds. If
                its `verify_mode` is `ssl.CERT_REQUIRED`, only those are let in who show a
                certificate that it trusts.
            wall_clock: For tests: returns seconds since 1970, by which jobs for later (`run_at=`)
                are due. If it is set, that is noticed within a minute. None for `time.time`.

        Raises:
            TypeError: An argument is not of the type it must be.
            ValueError: An argument has a value that can't be.
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
        """Make what makes an engine with these `options`.

        Raises:
            TypeError, ValueError: They are wrong, or the context is.
        """

    def __repr__(self) -> str:
        return f"<JobServer {self._gm_address or 'not started'}>"

    @property
    def address(self) -> HostAndPort:
        """Its host and port, as GearmanClient and GearmanWorker take them in their `host_list`.

        Raises:
            RuntimeError: It was not started.
        """
        if self._gm_address is None:
            raise RuntimeError("this server was not started")
        return self._gm_address

    @abstractmethod
    def stop(self) -> Waited[None]:
        """Close all connections and end. Calling it again does nothing.

        Leaving the ``with`` does it, too.
        """

    @abstractmethod
    def wait(self) -> Waited[object]:
        """Wait until it has ended, by `stop` or the admin command ``shutdown``.

        Args:
            timeout: (blocking) Seconds to wait at most; None for as long as it takes.

        Returns:
            (blocking) Whether it has.

        Raises:
            RuntimeError: (awaited) It was not started.
        """
