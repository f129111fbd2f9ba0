"""The client (`gearman.client`)."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import gearman_sync.client
from gearman_proto import make_requests
from gearman_proto.constants import *  # noqa: F403 - python-gearman's module has them
from gearman_proto.errors import *  # noqa: F403
from gearman_proto.errors import ServerUnavailable
from gearman_proto.jobs.submitting import JOB_KEYS

from .connection_manager import GearmanConnectionManager, specified

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, MutableMapping

    from gearman_proto import HostSpec, Server
    from gearman_proto.surface.client import Requests

    from .connection import GearmanConnection
    from .job import GearmanJobRequest


RANDOM_UNIQUE_BYTES: Final = 16


class GearmanClient(GearmanConnectionManager, gearman_sync.client.GearmanClient):
    """Submits jobs to Gearman servers and waits for them (python-gearman: `GearmanClient`)."""

    _gm_transient: ClassVar[tuple[str, ...]] = ("_gm_queues",)
    # Copies of `wait_until_jobs_completed` remove requests from this mapping.
    _gm_queues: MutableMapping[Any, Any] | None = None

    @property
    def request_to_rotating_connection_queue(self) -> MutableMapping[Any, Any]:
        """An empty mapping. The engine keeps each request's servers (python-gearman)."""
        if self._gm_queues is None:
            self._gm_queues = weakref.WeakKeyDictionary()
        return self._gm_queues

    def submit_multiple_jobs(  # type: ignore[override]
        self,
        jobs_to_submit: Collection[Mapping[str, Any]],
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
    ) -> list[GearmanJobRequest]:
        """Submit many jobs at once, as in gearman_sync.

        As in python-gearman, a unique that is False or empty means no unique, and unknown keys are
        ignored.
        """
        if isinstance(jobs_to_submit, (list, tuple, set)):
            jobs_to_submit = [_known(job) for job in jobs_to_submit]
        requests = make_requests(
            jobs_to_submit,
            background=background,
            max_retries=max_retries,
            kind=self.job_request_class,
        )
        return self.submit_multiple_requests(
            requests,  # type: ignore[arg-type]
            wait_until_complete=wait_until_complete,
            poll_timeout=poll_timeout,
        )

    def wait_until_any_job_completed(
        self, job_requests: Requests, poll_timeout: float | None = None
    ) -> Requests:
        """Wait until one of the requests has ended or is lost.

        Args:
            job_requests: A list, tuple or set of requests.
            poll_timeout: Maximum seconds to wait.

        Returns:
            `job_requests`.
        """
        for _ in self.as_completed(job_requests, poll_timeout=poll_timeout):
            break
        return job_requests

    def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[Any],
        callback_fxn: Callable[[bool], object],
        timeout: float | None = None,
    ) -> bool:
        """Wait for input until a callback returns False, as in gearman_sync.

        Raises:
            ServerUnavailable: None of `submitted_connections` is connected.
        """
        connections = list(submitted_connections)
        connected = True

        def callback(any_activity: bool) -> bool:
            nonlocal connected
            wanted = bool(callback_fxn(any_activity))
            connected = any(connection.connected for connection in connections)
            return wanted and connected

        wants_more = super().poll_connections_until_stopped((), callback, timeout)
        if not connected:
            raise ServerUnavailable(f"found no valid connections in list: {self.connection_list}")
        return wants_more

    def _gm_find(self, connection: GearmanConnection | Server | HostSpec) -> Server:
        return super()._gm_find(specified(connection))

    def establish_connection(  # type: ignore[override]
        self, connection: GearmanConnection | Server | HostSpec, poll_timeout: float | None = None
    ) -> GearmanConnection:
        """Connect to a server now, as in gearman_sync.

        Returns:
            The connection.
        """
        server = super().establish_connection(connection, poll_timeout)  # type: ignore[arg-type]
        return self.connection_of(server)


def _known(job: Any) -> Any:
    """Return the dict of a job without the keys that python-gearman ignores."""
    if not isinstance(job, Mapping):
        return job
    known = {key: job[key] for key in JOB_KEYS if key in job}
    known["unique"] = known.get("unique") or None
    return known
