"""The application's own worker, run in a test: the common part of both adapters and its docs.

A `WorkerUnderTest` wraps the hooks of a worker, blocking or async, and delegates every call to the
original hook. The worker does its jobs as usual, on its usual engine. If a hook returns an
awaitable, a coroutine of the WorkerUnderTest awaits it.

When a queue is empty
    A worker's link is asleep when the server has replied to its GRAB_JOB with NO_JOB. Other jobs of
    the worker might still run then, and submit more jobs. So an adapter calls `work` in rounds. A
    round ends when the server has no job and all running jobs are done. The queue is empty when a
    whole round has done no job. This test is exact, whichever client has submitted the jobs: each
    round opens a new connection, and sends its first grab after all earlier packets.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from gearman_proto.address import parse_address
from gearman_proto.checks import FOR_EVER, check_seconds
from gearman_proto.constants import DEFAULT_MAX_OUTAGE
from gearman_proto.engines.worker.link import Phase
from gearman_proto.errors import ArgumentTypeError
from gearman_proto.records import record
from gearman_proto.tls import parse_servers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from gearman_proto.address import HostSpec
    from gearman_proto.jobs.job import WorkerJob
    from gearman_proto.jobs.results import ExcInfo
    from gearman_proto.surface.base import Waited
    from gearman_proto.surface.callbacks import Callback

WorkerT = TypeVar("WorkerT")
ServerT = TypeVar("ServerT")

# Minimum timeout in seconds.
_SHORTEST: Final = 0.001
_HOOKS: Final = ("on_job_execute", "on_job_exception", "on_job_complete", "after_poll")
# The WorkerUnderTest of the callback that runs in this context, or None.
_CALLING: Final[ContextVar[object]] = ContextVar("_CALLING", default=None)
# Maximum number of other failures that are noted on the raised exception.
_MOST_NAMED: Final = 10


@record(frozen=True)
class JobRun:
    """A job that a worker has done.

    Attributes:
        job: The job, as its callback got it: `task`, `unique`, `handle`, `data`.
        result: The return value of the callback; None if it has raised.
        error: The exception raised by the callback, a hook, or the encoder; None without one.
    """

    job: WorkerJob
    result: Any = None
    error: BaseException | None = None


class WorkerUnderTest(ABC, Generic[WorkerT, ServerT]):
    """A worker under test, which does the jobs of a server in this process."""

    _worker_class: type[WorkerT]
    # The class of servers that are used without an address.
    _server_class: type | tuple[()] = ()

    def __init__(
        self,
        worker: WorkerT | Mapping[str, Callback],
        server: ServerT,
        *,
        timeout: float = 10.0,
        raise_errors: bool = True,
    ) -> None:
        """Prepare a worker. It connects only in `drain`, or inside ``with``.

        Args:
            worker: Callbacks by task, or a GearmanWorker. While it runs here, `server` replaces its
                own servers. It must not be connected.
            server: The address of the server, in any form that GearmanWorker accepts. (awaited) Or
                a JobServer of this event loop, which needs no sockets.
            timeout: Maximum duration of a `drain`, and of the end of ``with``, in seconds.
            raise_errors: True to raise the exceptions of callbacks in the test. Otherwise, they are
                only recorded in `runs`.

        Raises:
            TypeError: An argument has an invalid type.
            ValueError: The worker has no callbacks, or an argument has an invalid value.

        Attributes:
            worker: The worker.
        """
        check_seconds("timeout", timeout, _SHORTEST, FOR_EVER)
        if not isinstance(server, self._server_class):
            parse_address(cast("HostSpec", server))
        made: Any = worker
        if not isinstance(worker, self._worker_class):
            if not isinstance(worker, Mapping):
                name = f"{self._worker_class.__module__}.{self._worker_class.__name__}"
                raise ArgumentTypeError(
                    f"a worker is callbacks by task (a dict), or a {name}, not {worker!r}"
                )
            made = self._worker_class()
            for task, callback in worker.items():
                made.register_task(task, callback)
        if not made.worker_abilities:
            raise ValueError(f"{made!r} has no callbacks: nothing was registered")
        self.worker: WorkerT = made
        self._server = server
        self._timeout = timeout
        self._raise_errors = raise_errors
        self._runs: list[JobRun] = []
        # The number of jobs that `drain` has returned.
        self._told = 0
        self._running: list[WorkerJob] = []
        self._results: dict[WorkerJob, Any] = {}
        self._errors: dict[WorkerJob, BaseException] = {}
        # Jobs that were returned to their server when `work` was aborted.
        self._given_up: list[WorkerJob] = []
        # True while `work` ends at once if the server has no job.
        self._until_empty = False
        self._serves = False
        # True if the server has replied NO_JOB in this round.
        self._is_empty = False
        self._is_late: Callable[[], bool] = lambda: False
        # The original hooks, and the original values of the worker's replaced attributes.
        self._hooks: dict[str, Any] = {}
        self._before: dict[str, Any] = {}

    @property
    def runs(self) -> list[JobRun]:
        """The finished jobs (`job`, `result`, `error`), in the order of completion."""
        return list(self._runs)

    @abstractmethod
    def drain(self) -> Waited[list[JobRun]]:
        """Wait until the server has no job for the worker, neither queued nor running.

        This includes jobs that were queued earlier, and jobs that the jobs submit. A delayed job
        (`run_at=`) counts only once it is due.

        Returns:
            The jobs that were done since the last `drain`, or since the beginning.

        Raises:
            Exception: The exception of the first failed job, raised by its callback during this
                call or earlier in the ``with``. Its notes name the other failed jobs.
            TimeoutError: The jobs took longer than `timeout`. (awaited) The callbacks are
                cancelled. (blocking) A callback that still runs is interrupted by an exception, if
                this is the main thread and the system has SIGALRM. A callback in another thread can
                continue to run.
            ServerUnavailable: The server can't be reached.
            RuntimeError: The worker is connected or already under test; or one of its own callbacks
                calls this method.
        """

    def _drained(self) -> list[JobRun]:
        """Return the jobs that were done since the last call, or raise the first failure.

        The notes of the exception name that job, and the other failed jobs.
        """
        runs = self._runs[self._told :]
        self._told += len(runs)
        failed = [(run.job, run.error) for run in runs if run.error is not None]
        if failed and self._raise_errors:
            (job, first), *others = failed
            first.add_note(f"It was raised for {job!r}.")
            for job, error in others[:_MOST_NAMED]:
                first.add_note(f"{job!r} has failed, too: {error!r}")
            if len(others) > _MOST_NAMED:
                first.add_note(f"So have {len(others) - _MOST_NAMED} others.")
            raise first
        return runs

    # The worker.

    def _attach(
        self, server: HostSpec, poll_interval: float | None = None, **attributes: Any
    ) -> None:
        """Replace the worker's servers by `server`, and wrap its hooks.

        Args:
            server: The address.
            poll_interval: The worker's poll interval in seconds, or None to keep its own.
            attributes: More attributes to set on the worker.

        Raises:
            RuntimeError: The worker is connected, or already under test.
        """
        worker: Any = self.worker
        if isinstance(getattr(worker.on_job_execute, "__self__", None), WorkerUnderTest):
            raise RuntimeError(  # noqa: TRY004 - it is no argument
                f"{worker!r} is under test already: end its `with` or `drain` first, or make "
                f"another worker"
            )
        try:
            options = worker.__getstate__()["_gm_made_of"][1]
        except TypeError:
            raise RuntimeError(
                f"{worker!r} is connected, or was shut down: it can't be run here"
            ) from None
        if poll_interval is not None:
            options = {**options, "poll_interval": poll_interval}
        if options["max_outage"] is None:  # An unreachable server is an error here.
            options = {**options, "max_outage": DEFAULT_MAX_OUTAGE}
        changed = {**attributes, "_gm_made_of": (parse_servers([server], None), options)}
        self._hooks = {name: getattr(worker, name) for name in _HOOKS}
        own = vars(worker)
        self._before = {name: own[name] for name in (*_HOOKS, *changed) if name in own}
        worker.__setstate__({**changed, **{name: getattr(self, f"_{name}") for name in _HOOKS}})

    def _detach(self) -> None:
        """Restore the worker's own servers and hooks."""
        worker: Any = self.worker
        for name in _HOOKS:
            delattr(worker, name)
        worker.__setstate__(self._before)

    def _check_outside(self) -> None:
        """Check that the caller is not a callback of this worker.

        Raises:
            RuntimeError: The caller is a callback of this worker.
        """
        if _CALLING.get() is self:
            raise RuntimeError(
                f"a callback of {self.worker!r} can't drain it, as that waits for the callback's "
                f"own job: drain it in the test"
            )

    # Rounds.

    def _serve(self) -> Iterator[object]:
        """Let `work` continue when the server has no job.

        Returns:
            An iterator that yields before each call of `work`, until `_stop_serving`. A `work` that
            returns earlier is called again, like a worker under a supervisor.
        """
        self._until_empty = False
        self._given_up.clear()
        self._serves = True
        return iter(lambda: self._serves, False)

    def _stop_serving(self) -> None:
        """Stop the worker that `_serve` has started, once its running jobs are done."""
        self._serves = False
        worker: Any = self.worker
        worker.stop()

    def _rounds(self, is_late: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Yield before each call of `work` that is needed to empty the queue.

        Raises:
            TimeoutError: The timeout has passed.
        """
        self._until_empty = True
        self._is_late = is_late
        is_finished = False
        while not is_finished:
            if is_late():
                raise self._too_late()
            self._given_up.clear()
            self._is_empty = False
            before = len(self._runs)
            yield
            is_finished = self._is_empty and len(self._runs) == before

    def _too_late(self) -> TimeoutError:
        """Return the error for a worker that has timed out."""
        jobs = ", ".join(map(repr, (*self._running, *self._given_up)))
        what = f"this was still being done: {jobs}" if jobs else "there were still jobs"
        done = f"{len(self._runs)} were done before"
        return TimeoutError(f"after {self._timeout:g} seconds {what}; {done}")

    # The hooks.

    def _on_job_execute(self, job: WorkerJob) -> Any:
        self._running.append(job)
        returned: Any = None
        token = _CALLING.set(self)
        try:
            returned = self._hooks["on_job_execute"](job)
        except BaseException as error:
            self._has_raised(job, error)
            raise
        finally:
            _CALLING.reset(token)
            if not inspect.isawaitable(returned):
                self._has_ended(job)
        return self._awaited(job, returned) if inspect.isawaitable(returned) else returned

    async def _awaited(self, job: WorkerJob, returned: Awaitable[Any]) -> Any:
        # This runs in the job's own task, so its context ends with the job.
        _CALLING.set(self)
        try:
            return await returned
        except BaseException as error:
            self._has_raised(job, error)
            raise
        finally:
            self._has_ended(job)

    def _has_raised(self, job: WorkerJob, error: BaseException) -> None:
        """Record that a hook has raised, or that `work` is being aborted."""
        if isinstance(error, Exception):
            self._errors[job] = error
        else:
            self._given_up.append(job)

    def _has_ended(self, job: WorkerJob) -> None:
        self._running.remove(job)
        error = self._errors.pop(job, None)
        result = self._results.pop(job, None)
        if job not in self._given_up:
            self._runs.append(JobRun(job, result if error is None else None, error))

    def _on_job_exception(self, job: WorkerJob, exc_info: ExcInfo) -> Any:
        self._errors[job] = exc_info[1]
        return self._hooks["on_job_exception"](job, exc_info)

    def _on_job_complete(self, job: WorkerJob, result: Any) -> Any:
        self._results[job] = result
        return self._hooks["on_job_complete"](job, result)

    def _after_poll(self, any_activity: bool) -> Any:
        engine = cast("Any", self.worker)._gm_driver.engine  # noqa: SLF001 - the only use outside
        links = list(engine.pool.links())
        self._is_empty |= bool(links) and all(link.phase is Phase.ASLEEP for link in links)
        ends = self._until_empty and (self._is_empty or self._is_late())
        go_on = self._hooks["after_poll"](any_activity)
        return self._both(go_on, ends) if inspect.isawaitable(go_on) else go_on and not ends

    @staticmethod
    async def _both(go_on: Awaitable[bool], ends: bool) -> bool:
        return await go_on and not ends
