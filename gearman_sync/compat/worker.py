"""The worker (`gearman.worker`).

python-gearman's `work` is a loop over three methods: `establish_worker_connections`,
`poll_connections_until_stopped`, and `close` of each connection. Some programs contain copies of
that loop. For them, a worker works from the first method until the last connection is closed
(`_gm_call`, as in `work`), but only makes progress while the program polls. A received job is held,
with `has_job_lock` true, until the callback has returned once. After the job is done, the callback
is called again. So copies of `work` see that the job has ended and call `after_job`. Only then does
the worker request the next job.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

import gearman_sync.worker
from gearman_proto import WorkerEngine
from gearman_proto.checks import deadline_of
from gearman_proto.errors import ConnectionError, ServerUnavailable
from gearman_proto.surface.worker import POLL_TIMEOUT_IN_SECONDS
from gearman_sync._driver import Call

from .connection_manager import GearmanConnectionManager, specified
from .job import WorkerJob

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from gearman_proto import HostSpec, Server
    from gearman_proto.engines.worker.engine import WorkSubscription
    from gearman_proto.surface.callbacks import Callback

    from .connection import GearmanConnection

# The names of python-gearman's module, for `gearman_sync.compat.text.worker`.
__all__ = [
    "POLL_TIMEOUT_IN_SECONDS",
    "ConnectionError",
    "GearmanConnectionManager",
    "GearmanWorker",
    "ServerUnavailable",
]

# Seconds between checks for connected servers while `establish_worker_connections` waits.
_POLL_INTERVAL: Final = 0.05


class GearmanWorker(GearmanConnectionManager, gearman_sync.worker.GearmanWorker):
    """Does jobs of Gearman servers (python-gearman: `GearmanWorker`)."""

    _gm_engine_options: ClassVar[dict[str, Any]] = {"job_class": WorkerJob}

    _gm_transient = ("_gm_call", "_gm_held_job", "_gm_finished_job", "_gm_polled")
    # The call that runs while the program polls, the received job, the finished job, and the
    # connections polled last.
    _gm_call: Call[WorkSubscription] | None = None
    _gm_held_job: WorkerJob | None = None
    _gm_finished_job: WorkerJob | None = None
    _gm_polled: Collection[GearmanConnection] = ()

    def register_task(
        self,
        task: str | bytes,
        callback_function: Callback,
        timeout: float | None = None,
    ) -> str:
        """Register a function, as in gearman_sync."""
        return super().register_task(task, callback_function, timeout)

    def work(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> None:
        """Do jobs until a hook or `shutdown` ends the work, as in gearman_sync."""
        self._gm_stop_working()
        super().work(poll_timeout)

    def shutdown(self) -> None:
        """Close all connections at once and permanently."""
        super().shutdown()
        self._gm_stop_working(at_once=True)

    def has_job_lock(self) -> bool:
        """Return True if a job is running or about to run."""
        return super().has_job_lock() if self._gm_call is None else self._gm_held_job is not None

    # The methods that python-gearman's `work` consists of.

    def establish_worker_connections(self) -> list[GearmanConnection]:
        """Connect to all servers (python-gearman: `establish_worker_connections`).

        If a job has been received, the method does not wait for slow servers.

        Returns:
            The current connections, in any order.
        """
        call = self._gm_call
        # The call has no Wait if a signal's exception interrupted it before it began.
        if call is not None and (call.wait is None or call.wait.done):
            self._gm_stop_working()
            call = None
        if call is None:
            call = Call(self._gm_driver)
            self._gm_call = call
            call.begin(WorkerEngine.work)
            self._gm_ends_at_once = False  # Let the program's callback run between jobs.
        while not call.wait.done and any(map(_is_connecting, self.connection_list)):
            self._gm_wait_for_activity(_POLL_INTERVAL)
            if self._gm_held_job is not None:
                break
        return [connection for connection in self.connection_list if connection.connected]

    def establish_connection(
        self, current_connection: GearmanConnection | Server | HostSpec
    ) -> GearmanConnection:
        """Connect to all servers, and return the connection to one of them.

        python-gearman: `establish_connection`.

        Returns:
            The connection to `current_connection`.

        Raises:
            ConnectionError: The server could not be reached.
            InvalidWorkerState: The server is not one of this worker's.
        """
        server = self._gm_driver.engine.pool.find(specified(current_connection))
        self.establish_worker_connections()
        if not server.connected:
            raise ConnectionError(f"no connection to {server.address}: {server.error}")
        return self.connection_of(server)

    def poll_connections_until_stopped(
        self,
        submitted_connections: Iterable[GearmanConnection],
        callback_fxn: Callable[[bool], object],
        timeout: float | None = None,
    ) -> bool:
        """Do jobs until a callback returns False (python-gearman).

        Args:
            submitted_connections: The result of `establish_worker_connections`.
            callback_fxn: Called at the start with False, then after each received job and each
                finished job. Its argument is True if data was received.
            timeout: Seconds after which to return even if the work continues.

        Returns:
            True if the timeout has passed, False if the callback has ended the work.

        Raises:
            ServerUnavailable: None of the connections is left.
        """
        connections = self._gm_polled = list(submitted_connections)
        deadline = deadline_of(time.monotonic(), timeout)
        active = False
        while callback_fxn(active):
            if self._gm_call is None or not any(each.connected for each in connections):
                self._gm_stop_working()
                raise ServerUnavailable(
                    f"found no valid connections in list: {self.connection_list}"
                )
            if self._gm_held_job is not None:
                self._gm_do_held_job(self._gm_held_job)
                active = True
                continue
            now = time.monotonic()
            if deadline is not None and deadline <= now:
                return True
            active = self._gm_wait_for_activity(None if deadline is None else deadline - now)
        return False

    def _gm_wait_for_activity(self, seconds: float | None) -> bool:
        """Wait up to `seconds` seconds for activity. Return True if there was any."""
        call = self._gm_call
        if call is None:
            return True  # Another thread has shut the worker down.
        subscription = call.wait
        subscription.timeout = seconds
        self._gm_next_job()
        if self._gm_held_job is None:
            call.block()
            self._gm_next_job()
        self._gm_driver.log_notices()
        active, subscription.active = subscription.active, False
        return active

    def _gm_next_job(self) -> None:
        """Finish the job that is done, and hold the next one if there is one."""

        # All of this runs while the driver is busy. A signal's exception between the engine's step
        # and the assignment here would leave a job neither held nor finished, so it would never
        # end.
        def take(engine: WorkerEngine, now: float) -> None:
            if self._gm_finished_job is not None:
                engine.job_done(now, self._gm_finished_job)
                self._gm_finished_job = None
            if self._gm_held_job is None:
                held: Any = engine.next_job(now)
                self._gm_held_job = held

        self._gm_driver.apply(take)

    def _gm_do_held_job(self, job: WorkerJob) -> None:
        try:
            if not job.is_lost:  # Otherwise, the server has given the job to another worker.
                self._gm_do(job)
        except BaseException:
            self._gm_stop_working(at_once=True)
            raise
        self._gm_held_job, self._gm_finished_job = None, job

    def _gm_stop_working(self, *, at_once: bool = False) -> None:
        """Close all connections. Servers give a held job to another worker."""
        if self._gm_call is None:
            return
        driver = self._gm_current_driver
        # Nothing is called between here and the `try`, so no signal handler can raise.
        call, self._gm_call = self._gm_call, None
        held, self._gm_held_job = self._gm_held_job, None
        finished, self._gm_finished_job = self._gm_finished_job, None
        if call is None:
            return  # Another thread was faster.
        wait = call.wait
        try:
            # If the call ended on its own, the engine might have been replaced, after a fork for
            # example.
            if held is None and not at_once and wait is not None and not wait.done:
                driver.call(WorkerEngine.stop)
                if finished is not None:
                    driver.call(WorkerEngine.job_done, finished)
                # Leave newly received jobs to other workers.
                while driver.call(WorkerEngine.next_job) is None:
                    if call.block().done:
                        break
        finally:
            driver.over(wait)
            driver.flush()
            self._gm_driver.log_notices()

    def close_connection(self, connection: GearmanConnection) -> None:
        """Close a connection; see `GearmanConnection.close`."""
        # The program does not know connections made since it last polled, and would never close
        # them.
        known = self._gm_polled or self.connection_list
        if any(other.connected for other in known if other is not connection):
            super().close_connection(connection)
        else:
            self._gm_stop_working()


def _is_connecting(connection: GearmanConnection) -> bool:
    return connection.link is not None and not connection.connected
