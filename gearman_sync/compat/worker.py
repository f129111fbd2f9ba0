"""The worker (`gearman.worker`).

python-gearman's `work` is a loop of three functions, and there are programs with copies of it:
`establish_worker_connections`, `poll_connections_until_stopped`, and `close` of each connection. A
worker that is used so works from the first of them until the last connection is closed (`_call`,
which is what `work` has, too), but only does anything while it is polled. A job that has come is
held, with `has_job_lock` true, until the callback has been told of it; then it is done, and the
callback is told again, so that copies of `work` see that a job is over and call `after_job`. Only
then is the next one asked for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

import gearman_sync.worker
from gearman_proto import WorkerEngine
from gearman_proto.arguments import deadline_of
from gearman_proto.errors import ConnectionError, ServerUnavailable
from gearman_proto.surface.worker import POLL_TIMEOUT_IN_SECONDS
from gearman_sync._driver import Call

from .connection_manager import GearmanConnectionManager, specified
from .job import WorkerJob

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from gearman_proto import HostSpec, Server
    from gearman_proto.engines.worker import WorkStream

    from .connection import GearmanConnection

__all__ = [
    "POLL_TIMEOUT_IN_SECONDS",
    "ConnectionError",
    "GearmanConnectionManager",
    "GearmanWorker",
]

# Seconds between two looks at servers that have not answered yet, while connections are made.
_LOOK: Final = 0.05


class GearmanWorker(GearmanConnectionManager, gearman_sync.worker.GearmanWorker):
    """Does the jobs of Gearman servers (python-gearman: `GearmanWorker`)."""

    _engine_options: ClassVar[dict[str, Any]] = {"job_class": WorkerJob}

    _transient: ClassVar[tuple[str, ...]] = ("_call", "_held", "_over", "_polled")
    # The work that goes on while the program polls; the job that has come; the job that is over;
    # the connections that were polled last.
    _call: Call[WorkStream] | None = None
    _held: WorkerJob | None = None
    _over: WorkerJob | None = None
    _polled: Collection[GearmanConnection] = ()

    def register_task(
        self,
        task: str | bytes,
        callback_function: Callable[[Any, Any], Any],
        timeout: float | None = None,
    ) -> str:
        """Do jobs of a task, as in gearman_sync."""
        return super().register_task(task, callback_function, timeout)

    def work(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> None:
        """Do jobs until a hook or `shutdown` ends it, as in gearman_sync."""
        self._leave()
        super().work(poll_timeout)

    def shutdown(self) -> None:
        """Close all connections at once, for good."""
        super().shutdown()
        self._leave(at_once=True)

    def has_job_lock(self) -> bool:
        """Whether a job is being done, or is about to be."""
        return super().has_job_lock() if self._call is None else self._held is not None

    # What copies of python-gearman's `work` are made of.

    def establish_worker_connections(self) -> list[GearmanConnection]:
        """Connect to all servers (python-gearman: `establish_worker_connections`).

        It does not wait for slow servers when there is a job to do.

        Returns:
            The connections that there are then, in any order.
        """
        call = self._call
        # It has no Wait yet if a signal's exception came before it had begun.
        if call is not None and (call.wait is None or call.wait.done):
            self._leave()
            call = None
        if call is None:
            call = Call(self._driver)
            self._call = call
            call.begin(WorkerEngine.work)
            self._ends_at_once = False  # The program is told in between.
        while not call.wait.done and any(map(_is_connecting, self.connection_list)):
            self._await(_LOOK)
            if self._held is not None:
                break
        return [connection for connection in self.connection_list if connection.connected]

    def establish_connection(
        self, current_connection: GearmanConnection | Server | HostSpec
    ) -> GearmanConnection:
        """Connect to one server, and to the others (python-gearman: `establish_connection`).

        Returns:
            Its connection.

        Raises:
            ConnectionError: It could not be reached.
            InvalidWorkerState: It is not one of this worker's.
        """
        server = self._driver.engine.pool.find(specified(current_connection))
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
        """Do jobs until a callback has had enough (python-gearman).

        Args:
            submitted_connections: What `establish_worker_connections` has returned.
            callback_fxn: Called with whether anything came, at first with False, when a job has
                come, and when it is done.
            timeout: Seconds after which to return although it goes on.

        Returns:
            Whether it would go on: False if the callback ended it, True if the timeout did.

        Raises:
            ServerUnavailable: None of the connections is left.
        """
        connections = self._polled = list(submitted_connections)
        deadline = deadline_of(time.monotonic(), timeout)
        active = False
        while callback_fxn(active):
            if self._call is None or not any(each.connected for each in connections):
                self._leave()
                raise ServerUnavailable(
                    f"found no valid connections in list: {self.connection_list}"
                )
            if self._held is not None:
                self._do_held(self._held)
                active = True
                continue
            now = time.monotonic()
            if deadline is not None and deadline <= now:
                return True
            active = self._await(None if deadline is None else deadline - now)
        return False

    def _await(self, seconds: float | None) -> bool:
        """Let something come, for so many seconds at most. Returns whether anything has."""
        call = self._call
        if call is None:
            return True  # Another thread has shut this down.
        stream = call.wait
        stream.timeout = seconds
        self._take()
        if self._held is None:
            call.block()
            self._take()
        self._log()
        active, stream.active = stream.active, False
        return active

    def _take(self) -> None:
        """Be done with the job that is over, and hold the next one if there is one."""

        # All of it while the driver is busy: a signal's exception must not come between the engine
        # and what is kept here, or a job would be neither held nor over, and never end.
        def take(engine: WorkerEngine, now: float) -> None:
            if self._over is not None:
                engine.job_done(now, self._over)
                self._over = None
            if self._held is None:
                held: Any = engine.next_job(now)
                self._held = held

        self._driver.call(take)

    def _do_held(self, job: WorkerJob) -> None:
        try:
            if job.link.alive:  # Else it is somebody else's by now.
                self._do(job)
        except BaseException:
            self._leave(at_once=True)
            raise
        self._held, self._over = None, job

    def _leave(self, *, at_once: bool = False) -> None:
        """Close all connections; servers give a job that is held to other workers."""
        if self._call is None:
            return
        driver = self._old_driver
        # From here to the `try` nothing is called, so that no signal's exception comes.
        call, self._call = self._call, None
        held, self._held = self._held, None
        over, self._over = self._over, None
        if call is None:
            return  # Another thread was quicker.
        wait = call.wait
        try:
            # If it is over by itself, the engine may be another one by now, as after a fork.
            if held is None and not at_once and wait is not None and not wait.done:
                driver.call(WorkerEngine.stop)
                if over is not None:
                    driver.call(WorkerEngine.job_done, over)
                # A job that comes now is for another worker.
                while driver.call(WorkerEngine.next_job) is None:
                    if call.block().done:
                        break
        finally:
            driver.over(wait)
            driver.tidy()
            self._log()

    def close_connection(self, connection: GearmanConnection) -> None:
        """Close a connection of this; see `GearmanConnection.close`."""
        # The program does not know of one that was made since, and so would never close it.
        known = self._polled or self.connection_list
        if any(other.connected for other in known if other is not connection):
            super().close_connection(connection)
        else:
            self._leave()


def _is_connecting(connection: GearmanConnection) -> bool:
    return connection.link is not None and not connection.connected
