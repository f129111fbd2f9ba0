"""The blocking worker: python-gearman's surface on the worker engine.

The thread that calls `work` polls the servers and, with one slot, runs the callbacks as well. With
several slots the callbacks run in a pool of threads, and what they send is written by themselves.
Either way `_execute` is what happens to a job.
"""

from __future__ import annotations

import concurrent.futures
import logging
import random
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gearman_proto import constants, events
from gearman_proto.deadlines import to_seconds
from gearman_proto.engines.outcomes import (
    check_client_id,
    check_task,
    check_timeout,
    failure_events,
    result_event,
    status_event,
)
from gearman_proto.engines.worker import (
    DEFAULT_LOOK_AGAIN,
    DEFAULT_MAX_OUTAGE,
    WorkerEngine,
)
from gearman_proto.errors import ConnectionError, InvalidWorkerState
from gearman_proto.jobs.assigned import WorkerJob
from gearman_proto.jobs.encoder import NoopEncoder, encode_data
from gearman_proto.names import to_text

from ._driver import Driver
from ._tls import make_contexts

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

    from gearman_proto import Server
    from gearman_proto.address import HostSpec
    from gearman_proto.wire.events import PacketEvent

logger: Final = logging.getLogger("gearman")

#: Seconds after which `work` calls `after_poll` although nothing has come (python-gearman).
POLL_TIMEOUT_IN_SECONDS: Final = 60.0

#: Gets the worker and the job, and returns the result.
Callback: TypeAlias = "Callable[[Any, WorkerJob], Any]"
_ExcInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None]"


class GearmanWorker:
    """Does the jobs of Gearman servers.

    From python-gearman (`gearman.GearmanWorker`). All servers are served alike, and a server that
    is lost is connected to again while the others go on. Nothing is connected before `work`.

    A job is sent exactly one end, whatever its callback did: its result, or a failure. Only if the
    worker is lost, or `work` is left by an exception such as KeyboardInterrupt, the server gives it
    to another worker.

    Args:
        host_list: The servers, as for GearmanClient. None is the local host.
        max_jobs: How many jobs to do at once. With 1, callbacks run in the thread that calls
            `work`; else in a pool of so many threads.
        exceptions: What is sent when a callback raises. If false, WORK_WARNING with the exception's
            text and then WORK_FAIL, which all clients understand. If true, WORK_EXCEPTION with that
            text, which only clients that ask for exceptions get; through gearmand, it lets
            libgearman's clients hang that do not.
        ssl_context: An `ssl.SSLContext` for the servers whose dict has no TLS of its own.
        connect_timeout: Seconds to wait for a connection to a server.
        max_outage: Seconds without any server after which `work` raises; None for never.
        look_again: Seconds after which an idle worker looks for jobs that servers did not tell of:
            gearmand does not, when a job that was submitted for later is due.
        max_packet_size: Bytes. A server that sends a larger packet is disconnected.

    Raises:
        TypeError: An argument is not of the type it must be.
        ValueError: An argument has a value that can't be.
        OSError: A file of keys or certificates can't be read.

    Attributes:
        data_encoder: How data becomes bytes and back; a DataEncoder, here or on a subclass.
        worker_abilities: The callback of each task. Use `register_task` to change it.
        worker_client_id: What `set_client_id` was given.
    """

    data_encoder: Any = NoopEncoder

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        *,
        max_jobs: int = 1,
        exceptions: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_outage: float | None = DEFAULT_MAX_OUTAGE,
        look_again: float = DEFAULT_LOOK_AGAIN,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
    ) -> None:
        addresses, contexts = make_contexts(host_list, ssl_context)
        self.worker_abilities: dict[str, Callback] = {}
        self.worker_client_id: str | None = None
        self._max_jobs = max_jobs
        self._exceptions = exceptions
        # Every callback that was ever registered: a job may come after its task was unregistered.
        self._callbacks: dict[str, Callback] = {}
        self._timeouts: dict[str, float | None] = {}
        # What a job may raise without ending the worker. In the thread that calls `work`,
        # KeyboardInterrupt and SystemExit are somebody else's.
        self._contained = Exception if max_jobs == 1 else BaseException

        def make_engine() -> WorkerEngine:
            engine = WorkerEngine(
                addresses,
                rng=random.SystemRandom(),
                max_jobs=max_jobs,
                connect_timeout=connect_timeout,
                max_outage=max_outage,
                look_again=look_again,
                max_packet_size=max_packet_size,
            )
            for task in self.worker_abilities:
                engine.register(check_task(task), self._timeouts[task], 0.0)
            if self.worker_client_id is not None:
                engine.set_client_id(check_client_id(self.worker_client_id))
            return engine

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
        servers = ", ".join(str(server.address) for server in self.connection_list)
        return f"<{type(self).__name__} [{servers}] {', '.join(self.worker_abilities)}>"

    @property
    def connection_list(self) -> list[Server]:
        """The servers, each with its address and whether it is `connected` (python-gearman)."""
        return list(self._driver.engine.pool.servers)

    # What it can do. All of this may be called while it works, from any thread.

    def register_task(
        self, task: str | bytes, callback: Callback, timeout: float | None = None
    ) -> str:
        """Do jobs of a task (python-gearman: `register_task`; CAN_DO, CAN_DO_TIMEOUT).

        Args:
            task: The name of the function.
            callback: Called with the worker and the job (`task`, `unique`, `handle`, `data`); what
                it returns is the result. None completes the job with no data.
            timeout: Seconds after which the server gives the job to another worker. It counts them;
                the callback is not interrupted. gearmand makes less than 1 into 1, and stops
                counting where `max_jobs` is more than 1 and there is no other job.

        Returns:
            `task`.

        Raises:
            TypeError: `task` is no name, or `callback` can't be called.
            ValueError: Servers do not take this name or timeout.
        """
        name = to_text(task)
        wire = check_task(name)
        if not callable(callback):
            raise TypeError(f"the callback of {name!r} can't be called: {callback!r}")
        seconds = check_timeout(timeout)

        def register(engine: WorkerEngine, now: float) -> None:
            engine.register(wire, seconds, now)
            # Nobody can take a job of it before this is over.
            self._callbacks[name] = callback
            self._timeouts[name] = seconds
            self.worker_abilities[name] = callback

        self._driver.call(register)
        return name

    def unregister_task(self, task: str | bytes) -> str:
        """Do no more jobs of a task (python-gearman: `unregister_task`; CANT_DO).

        Jobs of it that the worker has are done first.

        Returns:
            `task`.

        Raises:
            InvalidWorkerState: It is not registered.
        """
        name = to_text(task)
        if name not in self.worker_abilities:
            raise InvalidWorkerState(f"{name!r} is not registered")
        del self.worker_abilities[name]
        self._driver.call(lambda engine, now: engine.unregister(check_task(name), now))
        return name

    def set_client_id(self, client_id: str | bytes) -> str:
        """Be known by this name in servers' lists (python-gearman: `set_client_id`; SET_CLIENT_ID).

        Returns:
            `client_id`.

        Raises:
            ValueError: Servers do not take it: it has a NUL, or more than 127 bytes.
        """
        name = to_text(client_id)
        wire = check_client_id(name)
        self._driver.call(lambda engine, _now: engine.set_client_id(wire))
        self.worker_client_id = name
        return name

    # Working.

    def work(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> None:
        """Do jobs until `stop` or `shutdown` is called, or a hook ends it (python-gearman: `work`).

        When it returns, all jobs that it had are done, and its connections are closed. It may be
        called again.

        Args:
            poll_timeout: Seconds after which `after_poll` is called although nothing has come.

        Raises:
            ServerUnavailable: No server could be reached; after the first was, only when there was
                none for `max_outage` seconds.
            InvalidWorkerState: It works already, in another thread, or was shut down.
            Exception: Whatever `after_poll` or `after_job` raises.
        """
        timeout = to_seconds(poll_timeout)
        # What hooks have raised in the pool.
        errors: list[BaseException] = []
        try:
            call = self._driver.start(
                lambda engine, now, wake: engine.work(now, wake, timeout=timeout)
            )
        except InvalidWorkerState:
            raise
        except BaseException:  # It may have begun, and then been interrupted.
            self._driver.call(_end_work)
            raise
        with call:
            stream = call.wait
            pool = None
            try:
                if self._max_jobs > 1:
                    pool = concurrent.futures.ThreadPoolExecutor(self._max_jobs, "gearman-job")
                while not stream.done:
                    call.block()
                    active, stream.active = stream.active, False
                    while (job := self._driver.call(_next_job, look=False)) is not None:
                        if pool is None:
                            self._execute(job)
                        else:
                            pool.submit(self._execute_in_pool, job, errors)
                    self._log()
                    if not self.after_poll(active):
                        self._driver.call(_stop)
            finally:
                self._driver.call(_end_work)
                if pool is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
                self._log()
        if errors:
            raise errors[0]
        stream.raise_error()

    def stop(self, timeout: float | None = None) -> None:
        """Let `work` return as soon as the jobs that are being done are.

        It may be called from any thread, and from a signal handler; it does not wait. If nobody
        works, the next `work` returns at once.

        Args:
            timeout: Seconds to wait for jobs that run in the pool; then `work` returns without
                them, and servers give them to others. (Python waits for their threads when the
                program ends.) None to wait for as long as it takes.
        """
        seconds = to_seconds(timeout)
        self._driver.post(lambda engine, now: engine.stop(now, timeout=seconds))

    def shutdown(self) -> None:
        """Close all connections at once, for good (python-gearman: `shutdown`).

        Servers give the jobs that were being done to others. Calling it again does nothing.
        """
        self._driver.close()

    def has_job_lock(self) -> bool:
        """Whether a job is being done (python-gearman: `has_job_lock`)."""
        return self._driver.engine.has_jobs()

    def _execute(self, job: WorkerJob) -> None:
        """Do one job, and see to it that it ends."""
        job.encoder = self.data_encoder
        try:
            self.on_job_execute(job)
        except ConnectionError as error:
            logger.warning("%r: %s", job, error)
        except self._contained as error:
            logger.exception("a hook failed for %r", job)
            self._end_somehow(job, error)
        if not job.ended and not job.is_lost:
            logger.error("%r was left without an end: it fails", job)
        go_on = False
        try:
            go_on = self.after_job()
        finally:
            self._driver.call(
                lambda engine, now: engine.job_done(job, now, go_on=bool(go_on)), look=False
            )

    def _execute_in_pool(self, job: WorkerJob, errors: list[BaseException]) -> None:
        try:
            self._execute(job)
        except BaseException as error:  # noqa: BLE001 - raised by work
            errors.append(error)

    def _end_somehow(self, job: WorkerJob, raised: BaseException) -> None:
        if not job.ended:
            try:
                self._fail(job, raised)
            except ConnectionError as error:
                logger.warning("%r: %s", job, error)

    def _log(self) -> None:
        notices = self._driver.engine.notices
        while notices:
            logger.warning("%s", notices.popleft())

    # Hooks, to be overridden. With several slots, those of a job run in the pool.

    def on_job_execute(self, current_job: WorkerJob) -> bool:
        """Do a job: call its callback, then one of the two hooks below (python-gearman)."""
        try:
            callback = self._callbacks[current_job.task]
            result = callback(self, current_job)
        except Exception as error:  # noqa: BLE001 - the hook logs it
            return self.on_job_exception(current_job, _exc_info(error))
        return self.on_job_complete(current_job, result)

    def on_job_exception(self, current_job: WorkerJob, exc_info: _ExcInfo) -> bool:
        """End a job whose callback has raised (python-gearman).

        This logs the traceback and sends what `exceptions` says, unless the job has ended.

        Returns:
            False.
        """
        logger.error("%r failed", current_job, exc_info=exc_info)
        if not current_job.ended:
            self._fail(current_job, exc_info[1])
        return False

    def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
        """End a job whose callback has returned (python-gearman).

        This sends the result, unless the job has ended. A result that the encoder does not take
        is an exception of the job.

        Returns:
            Whether the job is complete.
        """
        if not current_job.ended:
            try:
                event = result_event(current_job, self.data_encoder, job_result)
            except Exception as error:  # noqa: BLE001 - the hook logs it
                return self.on_job_exception(current_job, _exc_info(error))
            self._send(current_job, event, None)
        return True

    def after_poll(self, any_activity: bool) -> bool:  # noqa: ARG002 - for subclasses
        """Called each time that something has come, or `poll_timeout` has passed (python-gearman).

        Args:
            any_activity: Whether something has come from a server.

        Returns:
            Whether to go on. If not, `work` returns when the jobs that it has are done.
        """
        return True

    def after_job(self) -> bool:
        """Called after each job (python-gearman).

        Returns:
            Whether to go on, as in `after_poll`. No other job is asked for before this returns.
        """
        return True

    # What callbacks send.

    def send_job_status(
        self,
        current_job: WorkerJob,
        numerator: int | str | bytes,
        denominator: int | str | bytes,
        poll_timeout: float | None = None,
    ) -> None:
        """Report progress (python-gearman: `send_job_status`; WORK_STATUS).

        Args:
            current_job: The job.
            numerator: How much is done.
            denominator: Of how much.
            poll_timeout: Seconds to wait at most where the server is slow to read.

        Raises:
            InvalidWorkerState: The job has ended.
            ConnectionError: The connection to its server was lost: another worker will get it.
            LocalProtocolError: Servers do not take these numbers.
        """
        self._send(current_job, status_event(current_job, numerator, denominator), poll_timeout)

    def send_job_data(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        """Send a part of the result (python-gearman: `send_job_data`; WORK_DATA).

        Args:
            current_job: The job.
            data: What to send, for the `data_encoder`.
            poll_timeout: Seconds to wait at most where the server is slow to read.

        Raises:
            InvalidWorkerState, ConnectionError: As in `send_job_status`.
            TypeError: The encoder does not take `data`.
        """
        payload = encode_data(self.data_encoder, data)
        self._send(current_job, events.WorkData(current_job.wire_handle, payload), poll_timeout)

    def send_job_warning(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        """Send a warning (python-gearman: `send_job_warning`; WORK_WARNING). As `send_job_data`."""
        payload = encode_data(self.data_encoder, data)
        self._send(current_job, events.WorkWarning(current_job.wire_handle, payload), poll_timeout)

    def send_job_complete(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        """End a job well (python-gearman: `send_job_complete`; WORK_COMPLETE).

        Args:
            current_job: The job.
            data: The result, for the `data_encoder`; None for none.
            poll_timeout: Seconds to wait at most where the server is slow to read.

        Raises:
            InvalidWorkerState, ConnectionError: As in `send_job_status`.
            TypeError: The encoder does not take `data`.
        """
        event = result_event(current_job, self.data_encoder, data)
        self._send(current_job, event, poll_timeout)

    def send_job_failure(self, current_job: WorkerJob, poll_timeout: float | None = None) -> None:
        """End a job as failed (python-gearman: `send_job_failure`; WORK_FAIL).

        Arguments and exceptions are those of `send_job_status`.
        """
        self._send(current_job, events.WorkFail(current_job.wire_handle), poll_timeout)

    def send_job_exception(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> None:
        """End a job with an exception (python-gearman: `send_job_exception`; WORK_EXCEPTION).

        It ends the job: python-gearman sent WORK_FAIL after it, which gearmand answers with an
        ERROR. Arguments and exceptions are those of `send_job_data`.
        """
        payload = encode_data(self.data_encoder, data)
        event = events.WorkException(current_job.wire_handle, payload)
        self._send(current_job, event, poll_timeout)

    def _send(self, job: WorkerJob, event: PacketEvent, timeout: float | None) -> None:
        self._driver.run(
            lambda engine, now, wake: engine.send(job, event, now, wake, timeout=timeout)
        )

    def _fail(self, job: WorkerJob, error: BaseException) -> None:
        """End a job for which something was raised."""
        for event in failure_events(job, self.data_encoder, error, exceptions=self._exceptions):
            self._send(job, event, None)


def _next_job(engine: WorkerEngine, now: float) -> WorkerJob | None:
    return engine.next_job(now)


def _stop(engine: WorkerEngine, now: float) -> None:
    engine.stop(now)


def _end_work(engine: WorkerEngine, now: float) -> None:
    engine.end_work(now)


def _exc_info(error: BaseException) -> _ExcInfo:
    return type(error), error, error.__traceback__
