"""The public methods of the worker."""

from __future__ import annotations

import logging
import weakref
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeAlias

from gearman_proto import constants
from gearman_proto.checks import check_timeout, to_seconds
from gearman_proto.engines.worker.outcomes import CallbackResult, to_send
from gearman_proto.errors import ArgumentTypeError
from gearman_proto.handlers import is_main_thread
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.results import data_event, result_event, status_event
from gearman_proto.names import check_client_id, check_task, to_text
from gearman_proto.tls import parse_servers
from gearman_proto.wire.packets import WorkFail

from .base import Connected, ContextT, ServerT, Waited
from .callbacks import check_callback, is_async
from .tasks import Tasks, is_async_context, refuse_async_contexts, with_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Self

    from gearman_proto.address import HostSpec
    from gearman_proto.engines.worker.engine import WorkerEngine
    from gearman_proto.jobs.job import WorkerJob
    from gearman_proto.jobs.results import ExcInfo
    from gearman_proto.wire.packets import (
        PacketEvent,
        WorkComplete,
        WorkData,
        WorkException,
        WorkStatus,
        WorkWarning,
    )

    from .callbacks import Callback
    from .tasks import Around

#: The results of callbacks that the default encoder accepts.
Result: TypeAlias = "bytes | bytearray | memoryview | str | None"

#: Logs the tracebacks of callbacks, and connection failures.
logger: Final = logging.getLogger("gearman")

#: Seconds without any event after which `work` calls `after_poll` (python-gearman).
POLL_TIMEOUT_IN_SECONDS: Final = 60.0

# Hooks that can still act on a job after its result was sent. The packages' own versions don't.
_PACKAGES: Final = ("gearman_proto", "gearman_sync", "gearman_anyio")
_HOOKS: Final = ("on_job_execute", "on_job_exception", "on_job_complete", "after_job")


class Ability(NamedTuple):
    """A registered task."""

    #: Called with the worker and the job.
    callback: Callable[[Any, WorkerJob], Any]
    timeout: float | None
    #: True if the callback is known to be async.
    is_async: bool
    #: (awaited) Makes the context managers to enter in the job's task. None: not from `register`.
    around: tuple[Around, ...] | None = None


class Worker(Connected[ServerT], Generic[ServerT, ContextT]):
    """A worker that runs jobs from Gearman servers (python-gearman: `GearmanWorker`).

    The worker treats all servers alike. If it loses a connection, it reconnects while it continues
    to serve the other servers. For each job, it sends exactly one final packet, with the result or
    a failure. The server gives the job to another worker only if this worker disconnects, or if
    `work` exits early.
    """

    data_encoder: Any = NoopEncoder
    # True if callbacks can be async.
    _gm_is_awaited: bool = False
    # True if a job is finished once its final packet is sent, because no hook acts on it later.
    _gm_ends_at_once: bool = False

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        *,
        max_jobs: int = 1,
        exceptions: bool = False,
        ssl_context: ContextT | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_outage: float | None = constants.DEFAULT_MAX_OUTAGE,
        poll_interval: float = constants.DEFAULT_POLL_INTERVAL,
        max_packet_size: int = constants.DEFAULT_MAX_PACKET_SIZE,
    ) -> None:
        """Create a worker. It connects to no server before `work`.

        Args:
            host_list: The servers, as for GearmanClient. None means the local host.
            max_jobs: Number of concurrent jobs. (blocking) With 1, callbacks run in the thread that
                calls `work`, otherwise in a pool of `max_jobs` threads. (awaited) Each job has its
                own task, and a plain callback its own thread.
            exceptions: Packets to send when a callback raises. If false, WORK_WARNING with the
                exception's text and then WORK_FAIL, which all clients understand. If true,
                WORK_EXCEPTION with that text, which only clients that ask for exceptions get. With
                gearmand, libgearman's clients hang if they have not asked for exceptions.
            ssl_context: An `ssl.SSLContext` for the servers whose dict has no TLS of its own.
            connect_timeout: Seconds to wait for a connection to a server.
            max_outage: Seconds without any server after which `work` raises. When it starts, it
                raises as soon as every server has failed once. With None, it waits for servers in
                both cases, and logs that.
            poll_interval: Seconds after which an idle worker asks servers for jobs on its own.
                gearmand does not wake workers when a scheduled job becomes due.
            max_packet_size: Size limit of a packet, in bytes. The worker disconnects a server that
                sends a larger packet. A result that needs a larger packet fails its job, without
                another attempt. The methods that send data about a job raise ValueError for it.
            connect: (awaited) Opens streams, as for GearmanClient.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument has an invalid value.
            OSError: A file of keys or certificates can't be read.

        Attributes:
            data_encoder: The encoder of all data; a DataEncoder, set here or on a subclass.
            worker_abilities: The callback of each task. Use `register_task` to change it.
            worker_client_id: The argument of the last `set_client_id`, or None.
        """
        self.worker_abilities: dict[str, Callback] = {}
        self.worker_client_id: str | None = None
        self._gm_max_jobs = max_jobs
        # The last arguments of `to_send`: `exceptions` and the size limit of a packet.
        self._gm_how = exceptions, max_packet_size
        # The paused tasks. None stands for the whole worker.
        self._gm_paused: set[str | None] = set()
        # All tasks ever registered, because a job can arrive after its task was unregistered.
        self._gm_registered: dict[str, Ability] = {}
        options = {
            "max_jobs": max_jobs,
            "connect_timeout": connect_timeout,
            "max_outage": max_outage,
            "poll_interval": poll_interval,
            "max_packet_size": max_packet_size,
        }
        self._gm_make(parse_servers(host_list, ssl_context), options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self._gm_servers()}] {', '.join(self.worker_abilities)}>"

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        for name in ("worker_abilities", "_gm_paused", "_gm_registered"):
            state[name] = state[name].copy()
        return state

    # Abilities. You can call these methods during `work`, and from a signal handler. (blocking) You
    # can call them from any thread.

    def register_task(
        self,
        task: str | bytes,
        callback: Callable[[Self, WorkerJob], Result] | Callable[[WorkerJob], Result],
        timeout: float | None = None,
    ) -> str:
        """Accept jobs of a task (python-gearman: `register_task`; CAN_DO, CAN_DO_TIMEOUT).

        Args:
            task: The name of the function.
            callback: Called with the worker and the job (`task`, `unique`, `handle`, `data`), or
                with the job alone if it takes one argument. Its return value is the result. None
                completes the job without data. With a `data_encoder`, it can be any object that the
                encoder accepts; for type checkers, annotate it as Any. (awaited) An async function
                runs in a task, a plain one in a thread.
            timeout: Seconds after which the server gives the job to another worker. The worker
                does not interrupt the callback. gearmand raises a timeout below 1 to 1. If
                `max_jobs` is more than 1 and no other job is queued, gearmand stops its timer.

        Returns:
            `task`.

        Raises:
            TypeError: `task` is not a name, or `callback` accepts neither two arguments nor one,
                or (blocking) it is async. A callback without a signature is accepted.
            ValueError: Servers do not accept this name or timeout, or the name is empty.
        """
        name = to_text(task, "task")
        check_task(name)
        called = check_callback(name, callback, is_awaited=self._gm_is_awaited)
        seconds = check_timeout(timeout)
        self._gm_register(name, callback, Ability(called, seconds, is_async(callback)))
        return name

    def register(self, tasks: Tasks | Mapping[str, Callback]) -> None:
        """Accept jobs of all tasks of a registry (CAN_DO, CAN_DO_TIMEOUT).

        Unlike with `register_task`, callbacks run in the context managers of the registry's
        `around`, `current_job` returns their job, and a callback with one required parameter is
        always called with the job alone.

        Args:
            tasks: The registry, or a dict of names and callbacks. Tasks that are added to it later
                are not registered.

        Raises:
            TypeError: `tasks` is neither, or (blocking) a callback or a context manager is async.
                No task is registered then.
            ValueError: Servers do not accept a name.
        """
        found = Tasks._gm_of(tasks)  # noqa: SLF001 - a method for this class
        abilities = [
            (name, task.callback, self._gm_ability(name, task.callback, task.timeout, found.around))
            for name, task in found._gm_tasks.items()  # noqa: SLF001
        ]
        for name, callback, ability in abilities:
            self._gm_register(name, callback, ability)

    def _gm_ability(
        self, name: str, callback: Callback, timeout: float | None, around: tuple[Around, ...]
    ) -> Ability:
        called = check_callback(name, callback, is_awaited=self._gm_is_awaited, prefers_job=True)
        if not self._gm_is_awaited:
            refuse_async_contexts(around)
            return Ability(with_context(called, around), timeout, is_async=False)
        if is_async(callback):
            return Ability(called, timeout, is_async=True, around=around)
        plain = [each for each in around if not is_async_context(each)]
        awaited = tuple(each for each in around if is_async_context(each))
        return Ability(with_context(called, plain), timeout, is_async=False, around=awaited)

    def _gm_register(self, name: str, callback: Callback, ability: Ability) -> None:
        wire = check_task(name)

        def register(engine: Any, now: float) -> None:
            engine.register(now, wire, ability.timeout)
            # No job of this task can start before this function returns.
            self._gm_registered[name] = ability
            self.worker_abilities[name] = callback

        self._gm_driver.call_or_post(register)

    def unregister_task(self, task: str | bytes) -> str:
        """Stop accepting jobs of a task (python-gearman: `unregister_task`; CANT_DO).

        The worker still finishes the jobs that it already has. If the task is not registered, this
        method does nothing (python-gearman).

        Args:
            task: The name of the function.

        Returns:
            `task`.

        Raises:
            TypeError, ValueError: `task` is not a valid name of a task.
        """
        name = to_text(task, "task")
        wire = check_task(name)

        def unregister(engine: Any, now: float) -> None:
            if self.worker_abilities.pop(name, None) is not None:
                engine.unregister(now, wire)

        self._gm_driver.call_or_post(unregister)
        return name

    def pause(self, task: str | bytes | None = None) -> None:
        """Stop asking servers for jobs, or for those of one task, until `resume`.

        The worker finishes its current jobs, and stays connected.

        If you pause a task (CANT_DO), the worker keeps serving its other tasks. While it still
        holds a job of the task, it does not send CANT_DO, because gearmand would give that job to
        another worker as well. Until then, it can receive further jobs of the task, and runs them.

        Args:
            task: The name of the function, registered or not. None pauses the whole worker.

        Raises:
            TypeError, ValueError: `task` is not a valid name of a task.
        """
        self._gm_set_paused(task, True)

    def resume(self, task: str | bytes | None = None) -> None:
        """Undo `pause` with the same argument.

        A task that was paused itself stays paused after `resume()`.

        Args:
            task: The name of the function. None resumes the whole worker.

        Raises:
            TypeError, ValueError: `task` is not a valid name of a task.
        """
        self._gm_set_paused(task, False)

    def _gm_set_paused(self, task: str | bytes | None, is_paused: bool) -> None:
        name = None if task is None else to_text(task, "task")
        wire = None if name is None else check_task(name)

        def change(engine: Any, now: float) -> None:
            if is_paused:
                self._gm_paused.add(name)
                engine.pause(now, wire)
            else:
                self._gm_paused.discard(name)
                engine.resume(now, wire)

        self._gm_driver.call_or_post(change)

    def set_client_id(self, client_id: str | bytes) -> str:
        """Set the worker's name in servers' lists (python-gearman: `set_client_id`; SET_CLIENT_ID).

        Args:
            client_id: The name, at most 127 bytes.

        Returns:
            `client_id`.

        Raises:
            TypeError: `client_id` is not a name.
            ValueError: Servers do not accept it, because it contains a NUL or is too long.
        """
        name = to_text(client_id, "client id")
        wire = check_client_id(name)
        self.worker_client_id = name
        self._gm_driver.call_or_post(lambda engine, _: engine.set_client_id(wire))
        return name

    def _gm_engines(self, make_engine: Callable[[], WorkerEngine]) -> Callable[[], WorkerEngine]:
        """Return a function that makes engines with the tasks and the client id of this worker.

        Args:
            make_engine: Makes an engine without them.
        """
        # Weak: the sockets of a worker that is not shut down end with its last reference.
        introduction = weakref.WeakMethod(self._gm_introduce)

        def make() -> WorkerEngine:
            engine = make_engine()
            if (introduce := introduction()) is not None:
                introduce(engine)
            return engine

        return make

    def _gm_introduce(self, engine: WorkerEngine) -> None:
        """Pass the registered and paused tasks and the client id to a new engine."""
        for paused in self._gm_paused:
            engine.pause(0.0, paused)
        for task in self.worker_abilities:
            engine.register(0.0, task, self._gm_registered[task].timeout)
        if self.worker_client_id is not None:
            engine.set_client_id(self.worker_client_id)

    # Working.

    @abstractmethod
    def work(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> Waited[None]:
        """Run jobs until `stop`, `shutdown` or a hook ends it (python-gearman: `work`).

        When this method returns, all its jobs are done and its connections are closed. You can call
        it again. (awaited) Cancelling it closes the connections and cancels the callbacks, so that
        servers give the unfinished jobs to other workers. Plain callbacks can't be cancelled, so
        their results are discarded.

        Args:
            poll_timeout: Seconds without any event after which `after_poll` is called.

        Raises:
            ServerUnavailable: No server could be reached at the start, or for `max_outage` seconds
                later on. With `max_outage=None`, only if the worker has no servers.
            InvalidWorkerState: `work` is already running in another thread or task, or the worker
                was shut down.
            Exception: Any exception from `after_poll`, immediately, or from `after_job`, after the
                current jobs.
        """

    @abstractmethod
    def run(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> Waited[None]:
        """Run jobs as `work` does, until SIGTERM or SIGINT (Ctrl-C).

        The first of these signals stops the worker as `stop` does. Another one ends the process at
        once, without cleanup and with the exit status 128 plus its number; servers give the jobs to
        other workers. A signal that the process ignores stays ignored. When this method returns or
        raises, the previous handlers are restored. (asyncio) Those of `loop.add_signal_handler` are
        called as well.

        Args:
            poll_timeout: As for `work`.

        Raises:
            RuntimeError: This is not the main thread, so it can't handle signals.
            ServerUnavailable, InvalidWorkerState, Exception: As for `work`.
        """

    @abstractmethod
    def grab(self, timeout: float | None = None) -> Waited[WorkerJob | None]:
        """Ask the servers for one job, and return it (GRAB_JOB_UNIQ).

        This is for programs with a loop of their own, instead of `work`. End each job with
        `send_job_complete`, `send_job_failure` or `send_job_exception`, or with the result of its
        `defer`. No job is requested while no call waits. The number of jobs that you hold is not
        limited by `max_jobs`, callbacks and hooks are not called, and the connections stay open
        until `stop` or `shutdown`. (blocking) Several threads can call this method at the same
        time. Servers are heard only during calls. (awaited) Call it inside ``async with``.

        Args:
            timeout: Seconds to wait for a job; None waits forever. If a server has not answered by
                then, the call takes up to a second more.

        Returns:
            The job, or None if there was none in time or the worker was stopped. After `stop`, all
            calls return None.

        Raises:
            InvalidWorkerState: `work` is running, or the worker was shut down.
            ServerUnavailable: No server could be reached, as in `work`. The next call tries again.
            RuntimeError: (awaited) The worker is not used with ``async with``.
        """

    @abstractmethod
    def stop(self, timeout: float | None = None) -> None:
        """Make `work` return as soon as the current jobs are done and servers have their results.

        On a slow link, this can take minutes. If no byte moves for 30 seconds, the worker closes
        the link. The method itself does not wait. If `work` is not running, its next call returns
        immediately. (blocking) You can call this method from any thread, and from a signal handler.

        Args:
            timeout: Seconds to wait for the jobs, after which servers give them to other workers.
                (blocking) This applies to jobs in the pool. When the program ends, Python waits for
                their threads. (awaited) Their callbacks are cancelled. None means no limit.

        Raises:
            RuntimeError: (awaited) The calling thread is not that of the event loop. Use
                `anyio.from_thread.run_sync`.
        """

    @abstractmethod
    def shutdown(self) -> Waited[None]:
        """Close all connections immediately and permanently (python-gearman: `shutdown`).

        Servers give the unfinished jobs to other workers. (awaited) The callbacks are cancelled.
        Another call does nothing.
        """

    def has_job_lock(self) -> bool:
        """Return True if a job is running (python-gearman: `has_job_lock`)."""
        return bool(self._gm_driver.engine.has_jobs())

    def _gm_look_at_hooks(self) -> None:
        """Set `_gm_ends_at_once`. It is true if no hook in `_HOOKS` is overridden."""
        self._gm_ends_at_once = not any(map(self._gm_has_own, _HOOKS))

    def _gm_has_own(self, hook: str) -> bool:
        """Return True if this worker or its class overrides `hook`."""
        module = getattr(getattr(type(self), hook), "__module__", None) or ""
        return hook in vars(self) or module.partition(".")[0] not in _PACKAGES

    def _gm_make_stop(self, timeout: float | None) -> Callable[[Any, float], None]:
        seconds = to_seconds(timeout, "timeout")

        def stop(engine: Any, now: float) -> None:
            engine.stop(now, timeout=seconds)

        return stop

    # Hooks for subclasses. (blocking) If `max_jobs` is more than 1, the hooks of a job run in the
    # pool. (awaited) A hook can be async or plain. A plain hook returns the value of `super`.

    @abstractmethod
    def on_job_execute(self, current_job: WorkerJob) -> Waited[bool]:
        """Run a job: call its callback, then one of the next two hooks (python-gearman).

        Args:
            current_job: The job.

        Returns:
            The return value of that hook.
        """

    @abstractmethod
    def on_job_exception(self, current_job: WorkerJob, exc_info: ExcInfo) -> Waited[bool]:
        """End a job whose callback has raised an exception (python-gearman).

        Log the traceback. Unless the job has already ended, also send the packets that the
        `exceptions` argument selects.

        Args:
            current_job: The job.
            exc_info: The exception that the callback raised, as from `sys.exc_info`.

        Returns:
            False.
        """

    @abstractmethod
    def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> Waited[bool]:
        """End a job whose callback has returned (python-gearman).

        Send the result, unless the job has already ended. If the encoder rejects the result, the
        job fails as if its callback had raised the encoder's exception.

        Args:
            current_job: The job.
            job_result: The return value of the callback.

        Returns:
            True if the job is complete.
        """

    def after_poll(self, any_activity: bool) -> Waited[bool]:  # noqa: ARG002 - for subclasses
        """Handle received data, or the end of `poll_timeout` (python-gearman).

        `work` calls this hook whenever it has received something, and after `poll_timeout` seconds
        without any event.

        Args:
            any_activity: True if a server has sent something.

        Returns:
            True to continue. Otherwise, `work` returns as soon as its current jobs are done.
        """
        return True

    def after_job(self) -> Waited[bool]:
        """Handle the end of a job (python-gearman).

        `work` calls this hook after each job. The worker does not request another job before the
        hook returns.

        Returns:
            True to continue, as in `after_poll`.
        """
        return True

    # Methods for callbacks, to send data about a job.

    @abstractmethod
    def send_job_status(
        self,
        current_job: WorkerJob,
        numerator: int | str | bytes,
        denominator: int | str | bytes,
        poll_timeout: float | None = None,
    ) -> Waited[None]:
        """Report progress (python-gearman: `send_job_status`; WORK_STATUS).

        Args:
            current_job: The job.
            numerator: Amount of work done.
            denominator: Total amount of work.
            poll_timeout: Maximum time to wait for a server that reads slowly, in seconds.

        Raises:
            InvalidWorkerState: The job has ended, or belongs to another worker.
            ConnectionError: The connection to the job's server was lost, so another worker will
                get the job.
            LocalProtocolError: Servers do not accept these numbers.
        """

    @abstractmethod
    def send_job_data(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> Waited[None]:
        """Send a part of the result (python-gearman: `send_job_data`; WORK_DATA).

        Args:
            current_job: The job.
            data: A part of the result, for the `data_encoder`.
            poll_timeout: Maximum time to wait for a server that reads slowly, in seconds.

        Raises:
            InvalidWorkerState, ConnectionError: As in `send_job_status`.
            TypeError: The encoder does not accept `data`.
        """

    @abstractmethod
    def send_job_warning(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> Waited[None]:
        """Send a warning (python-gearman: `send_job_warning`; WORK_WARNING).

        Args:
            current_job: The job.
            data: The warning, for the `data_encoder`.
            poll_timeout: Maximum time to wait for a server that reads slowly, in seconds.

        Raises:
            InvalidWorkerState, ConnectionError: As in `send_job_status`.
            TypeError: The encoder does not accept `data`.
        """

    @abstractmethod
    def send_job_complete(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> Waited[None]:
        """Complete a job (python-gearman: `send_job_complete`; WORK_COMPLETE).

        Args:
            current_job: The job.
            data: The result, for the `data_encoder`. None means no data.
            poll_timeout: Maximum time to wait for a server that reads slowly, in seconds.

        Raises:
            InvalidWorkerState, ConnectionError: As in `send_job_status`.
            TypeError: The encoder does not accept `data`.
        """

    @abstractmethod
    def send_job_failure(
        self, current_job: WorkerJob, poll_timeout: float | None = None
    ) -> Waited[None]:
        """Fail a job (python-gearman: `send_job_failure`; WORK_FAIL).

        Args:
            current_job: The job.
            poll_timeout: Maximum time to wait for a server that reads slowly, in seconds.

        Raises:
            InvalidWorkerState, ConnectionError: As in `send_job_status`.
        """

    @abstractmethod
    def send_job_exception(
        self, current_job: WorkerJob, data: Any, poll_timeout: float | None = None
    ) -> Waited[None]:
        """Fail a job with an exception (python-gearman: `send_job_exception`; WORK_EXCEPTION).

        WORK_EXCEPTION ends the job. python-gearman sent WORK_FAIL as well, and gearmand answers
        that with an ERROR.

        Args:
            current_job: The job.
            data: The value of the client's `exception`, for the `data_encoder`.
            poll_timeout: Maximum time to wait for a server that reads slowly, in seconds.

        Raises:
            InvalidWorkerState, ConnectionError: As in `send_job_status`.
            TypeError: The encoder does not accept `data`.
        """

    # The packets of the hooks and methods above. The adapters only send them.

    def _gm_returned(self, job: WorkerJob, result: Any) -> list[PacketEvent]:
        """Return the packets that end `job` after its callback has returned `result`."""
        return to_send(CallbackResult.RETURNED, job, self.data_encoder, result, *self._gm_how)

    def _gm_raised(self, job: WorkerJob, exc_info: ExcInfo) -> list[PacketEvent]:
        """Log an exception of a callback, and return the packets that end its job."""
        logger.error("%r failed", job, exc_info=exc_info)
        return to_send(CallbackResult.RAISED, job, self.data_encoder, exc_info[1], *self._gm_how)

    def _gm_status(
        self, job: WorkerJob, numerator: int | str | bytes, denominator: int | str | bytes
    ) -> WorkStatus:
        return status_event(_handle_of(job), numerator, denominator)

    def _gm_data(
        self, kind: type[WorkData | WorkWarning | WorkException], job: WorkerJob, data: Any
    ) -> PacketEvent:
        handle = _handle_of(job)
        return data_event(kind, handle, self.data_encoder, data, job.wire_task, self._gm_how[1])

    def _gm_result(self, job: WorkerJob, data: Any) -> WorkComplete:
        handle = _handle_of(job)
        return result_event(handle, self.data_encoder, data, job.wire_task, self._gm_how[1])

    def _gm_failure(self, job: WorkerJob) -> WorkFail:
        return WorkFail(_handle_of(job))


def check_main_thread() -> None:
    """Check that this thread can handle signals.

    Raises:
        RuntimeError: It can't.
    """
    if not is_main_thread():
        raise RuntimeError(
            "run() handles signals, which only the main thread can do: call work() in this thread, "
            "and stop() in a signal handler of the main thread"
        )


def _handle_of(job: WorkerJob) -> bytes:
    """Return the handle of a job in its wire form.

    Raises:
        TypeError: `job` is not a WorkerJob.
    """
    handle = getattr(job, "wire_handle", None)
    if not isinstance(handle, bytes):
        raise ArgumentTypeError(f"a job is what a callback gets (a WorkerJob), not {job!r}")
    return handle
