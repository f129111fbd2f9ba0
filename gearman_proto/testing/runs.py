"""What a worker that is being tested has done.

A `Recorder` stands in front of the hooks of a worker, which may be a blocking one or one of trio
and asyncio, and passes everything on. So the worker does its jobs as it always does, on the engine
that it always has. Where the worker awaits its hooks, what they return is awaited by a coroutine of
the recorder's.

When a queue is empty
    A worker's link is asleep when the server has answered its GRAB_JOB with NO_JOB. By then other
    jobs of the worker may still run, and may submit more. So `work` is called in rounds: each ends
    when there was no job, and when the jobs that had begun are done; the queue is empty when a
    whole round has done none. The first grab of a round is sent after all that came before it, on a
    connection of its own, so this is no guess, whoever has submitted the jobs.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.engines.phases import Phase
from gearman_proto.records import record
from gearman_proto.tls import parse_servers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from gearman_proto.address import HostSpec
    from gearman_proto.jobs.assigned import WorkerJob
    from gearman_proto.jobs.results import ExcInfo

_HOOKS: Final = ("on_job_execute", "on_job_exception", "on_job_complete", "after_poll")
# The recorder of the callback that runs in this context, if any.
_CALLING: Final[ContextVar[Recorder | None]] = ContextVar("_CALLING", default=None)
# Exceptions that are named beside the one that is raised.
_MOST_NAMED: Final = 10


@record(frozen=True)
class JobRun:
    """A job that a worker has done.

    Attributes:
        job: The job, as its callback got it: `task`, `unique`, `handle`, `data`.
        result: What its callback has returned; None if it has raised.
        error: What its callback has raised, or a hook, or the encoder for the result; or None.
    """

    job: WorkerJob
    result: Any = None
    error: BaseException | None = None


class Recorder:
    """Takes down what a worker does, from `attach` to `detach`.

    Args:
        worker: The worker. It must not be connected.
        timeout: Seconds that its rounds may take.

    Raises:
        ValueError: It has no callbacks, so it would do nothing, for ever.

    Attributes:
        runs: The jobs that it has done, in the order of their ends.
        running: The jobs that it is doing.
    """

    def __init__(self, worker: Any, timeout: float) -> None:
        if not worker.worker_abilities:
            raise ValueError(f"{worker!r} has no callbacks: nothing was registered")
        self.runs: list[JobRun] = []
        self.running: list[WorkerJob] = []
        self._worker = worker
        self._timeout = timeout
        self._until_empty = False
        self._serves = False
        # Whether a server has said in this round that there is no job.
        self._is_empty = False
        self._is_late: Callable[[], bool] = lambda: False
        self._results: dict[WorkerJob, Any] = {}
        self._errors: dict[WorkerJob, BaseException] = {}
        # Jobs that are their server's again, as `work` was left.
        self._given_up: list[WorkerJob] = []
        # The hooks that are called, and the worker's attributes that are not what they were.
        self._hooks: dict[str, Any] = {}
        self._before: dict[str, Any] = {}

    # The worker.

    def attach(self, server: HostSpec, look_again: float | None = None, **attributes: Any) -> None:
        """Have the worker use `server` in place of its own, and stand in front of its hooks.

        Args:
            server: The address.
            look_again: Seconds, in place of the worker's; None to leave that.
            attributes: What else the worker has to have for that.

        Raises:
            RuntimeError: It is connected, or another recorder is attached.
        """
        worker = self._worker
        if isinstance(getattr(worker.on_job_execute, "__self__", None), Recorder):
            raise RuntimeError(  # noqa: TRY004 - it is no argument
                f"{worker!r} is under test already: end its `with` or `drain` first, or make "
                f"another worker"
            )
        try:
            options = worker.__getstate__()["_made_of"][1]
        except TypeError:
            raise RuntimeError(
                f"{worker!r} is connected, or was shut down: it can't be run here"
            ) from None
        if look_again is not None:
            options = {**options, "look_again": look_again}
        changed = {**attributes, "_made_of": (parse_servers([server], None), options)}
        self._hooks = {name: getattr(worker, name) for name in _HOOKS}
        own = vars(worker)
        self._before = {name: own[name] for name in (*_HOOKS, *changed) if name in own}
        worker.__setstate__({**changed, **{name: getattr(self, f"_{name}") for name in _HOOKS}})

    def detach(self) -> None:
        """Leave the worker as it was, with its own servers and hooks."""
        for name in _HOOKS:
            delattr(self._worker, name)
        self._worker.__setstate__(self._before)

    def check_outside(self) -> None:
        """Check that no callback of this worker calls this.

        Raises:
            RuntimeError: One does.
        """
        if _CALLING.get() is self:
            raise RuntimeError(
                f"a callback of {self._worker!r} can't drain it, as that waits for the callback's "
                f"own job: drain it in the test"
            )

    # Rounds.

    def serve(self) -> Iterator[object]:
        """Let `work` go on when there is no job.

        Returns:
            What yields before each `work` that is to be called until `end_serving`. One that ends
            by itself is started again, as whatever watches over workers does.
        """
        self._until_empty = False
        self._given_up.clear()
        self._serves = True
        return iter(lambda: self._serves, False)

    def end_serving(self) -> None:
        """End what `serve` has begun, when the jobs that are being done are."""
        self._serves = False
        self._worker.stop()

    def rounds(self, is_late: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Yield before each `work` that is to be called until the queue is empty.

        Raises:
            TimeoutError: It is late.
        """
        self._until_empty = True
        self._is_late = is_late
        is_over = False
        while not is_over:
            if is_late():
                raise self.too_late()
            self._given_up.clear()
            self._is_empty = False
            before = len(self.runs)
            yield
            is_over = self._is_empty and len(self.runs) == before

    def too_late(self) -> TimeoutError:
        """The error of a worker that was not done in time."""
        jobs = ", ".join(map(repr, (*self.running, *self._given_up)))
        what = f"this was still being done: {jobs}" if jobs else "there were still jobs"
        done = f"{len(self.runs)} were done before"
        return TimeoutError(f"after {self._timeout:g} seconds {what}; {done}")

    # The hooks.

    def _on_job_execute(self, job: WorkerJob) -> Any:
        self.running.append(job)
        return self._watched(job, lambda: self._hooks["on_job_execute"](job))

    def _watched(self, job: WorkerJob, execute: Callable[[], Any]) -> Any:
        returned: Any = None
        token = _CALLING.set(self)
        try:
            returned = execute()
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
        """A hook has raised, or `work` is being left."""
        if isinstance(error, Exception):
            self._errors[job] = error
        else:
            self._given_up.append(job)

    def _has_ended(self, job: WorkerJob) -> None:
        self.running.remove(job)
        error = self._errors.pop(job, None)
        result = self._results.pop(job, None)
        if job not in self._given_up:
            self.runs.append(JobRun(job, result if error is None else None, error))

    def _on_job_exception(self, job: WorkerJob, exc_info: ExcInfo) -> Any:
        self._errors[job] = exc_info[1]
        return self._hooks["on_job_exception"](job, exc_info)

    def _on_job_complete(self, job: WorkerJob, result: Any) -> Any:
        self._results[job] = result
        return self._hooks["on_job_complete"](job, result)

    def _after_poll(self, any_activity: bool) -> Any:
        engine = self._worker._driver.engine  # noqa: SLF001 - nobody else asks for this
        links = list(engine.pool.links())
        self._is_empty |= bool(links) and all(link.phase is Phase.ASLEEP for link in links)
        ends = self._until_empty and (self._is_empty or self._is_late())
        go_on = self._hooks["after_poll"](any_activity)
        return self._both(go_on, ends) if inspect.isawaitable(go_on) else go_on and not ends

    @staticmethod
    async def _both(go_on: Awaitable[bool], ends: bool) -> bool:
        return await go_on and not ends


def raise_error(runs: list[JobRun]) -> None:
    """Raise what the first of these jobs that has failed has raised, if there is one.

    Its notes say which job that was, and which others have failed.
    """
    failed = [(run.job, run.error) for run in runs if run.error is not None]
    if not failed:
        return
    (job, first), *others = failed
    first.add_note(f"It was raised for {job!r}.")
    for job, error in others[:_MOST_NAMED]:
        first.add_note(f"{job!r} has failed, too: {error!r}")
    if len(others) > _MOST_NAMED:
        first.add_note(f"So have {len(others) - _MOST_NAMED} others.")
    raise first
