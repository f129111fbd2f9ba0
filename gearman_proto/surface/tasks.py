"""A registry of tasks, the context of a running job, and a filter that adds it to log records."""

from __future__ import annotations

import contextlib
import functools
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from gearman_proto.checks import check_callable, check_timeout, check_type
from gearman_proto.errors import ArgumentTypeError, ArgumentValueError
from gearman_proto.names import check_task, to_text

from .callbacks import check_callback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from gearman_proto.jobs.job import WorkerJob

    from .callbacks import Callback

F = TypeVar("F", bound="Callback")

_Manager: TypeAlias = "AbstractContextManager[Any] | AbstractAsyncContextManager[Any]"
#: Makes the context manager that a job runs in.
Around: TypeAlias = "Callable[[WorkerJob], _Manager]"
#: Makes the context manager of a process.
Lifespan: TypeAlias = "Callable[[], _Manager]"

_current: Final[ContextVar[WorkerJob | None]] = ContextVar("gearman_job", default=None)

#: The value of a log record's attribute outside of a job.
_NO_VALUE: Final = "-"


class Task(NamedTuple):
    """A task of a registry."""

    callback: Callback
    timeout: float | None


class Tasks:
    """A registry of tasks, for `worker.register`.

    Args:
        lifespan: A function without arguments that returns a context manager, for connection pools
            and the like. `gearmanctl run` enters it once in each process, before the first job.
        around: Functions that get a job and return a context manager. Each job runs in these
            context managers, the first being the outermost. Use them for a tracing span, a log
            context, or Django's `close_old_connections`. If one of them suppresses the callback's
            exception, the job completes without data. A plain one is entered in the callback's
            thread. (awaited) An async one is entered in the job's task, so if the callback is
            plain, the async ones are outside of the plain ones.

    Raises:
        TypeError: `lifespan` or an item of `around` can't be called.

    Attributes:
        lifespan: The argument.
        around: The argument, as a tuple.
    """

    def __init__(self, *, lifespan: Lifespan | None = None, around: Iterable[Around] = ()) -> None:
        if lifespan is not None:
            check_callable("lifespan", lifespan, "that returns a context manager")
        self.lifespan = lifespan
        self.around: tuple[Around, ...] = tuple(around)
        for factory in self.around:
            check_callable("an item of around", factory, "of the job")
        self._gm_tasks: dict[str, Task] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(self._gm_tasks)}>"

    def task(self, name: str | bytes, *, timeout: float | None = None) -> Callable[[F], F]:
        """Return a decorator that adds a function as the callback of a task.

        The function itself is not changed, so you can still call it. If it has one required
        positional parameter, it is called with the job. If it has two or `*args`, or no signature,
        it is called with the worker and the job.

        Args:
            name: The name of the task.
            timeout: As for `register_task`.

        Raises:
            TypeError: `name` is not a name. Or the decorated object is not such a function.
            ValueError: Servers do not accept this name or timeout, the name is empty, or the
                registry already has the task.
        """
        text = to_text(name, "task")
        check_task(text)
        seconds = check_timeout(timeout)

        def add(callback: F) -> F:
            check_callback(text, callback, is_awaited=True, prefers_job=True)
            if text in self._gm_tasks:
                raise ArgumentValueError(
                    f"the task {text!r} is already that of {self._gm_tasks[text].callback!r}"
                )
            self._gm_tasks[text] = Task(callback, seconds)
            return callback

        return add

    @classmethod
    def _gm_of(cls, tasks: Tasks | Mapping[str, Callback]) -> Tasks:
        """Return `tasks` itself, or a registry with the items of a dict."""
        if isinstance(tasks, Tasks):
            return tasks
        made = cls()
        what = "a Tasks or a dict of names and callbacks"
        for name, callback in check_type("tasks", tasks, dict, what).items():
            made.task(name)(callback)
        return made


def current_job() -> WorkerJob | None:
    """Return the running job; None outside of a job.

    This works in the callbacks that `register` has registered, in the context managers of `around`,
    and in the tasks and threads that they start with a copy of their context.
    """
    return _current.get()


class JobLogFilter(logging.Filter):
    """Adds the running job to log records, for formatters.

    The attributes are `gearman_function`, `gearman_handle` and `gearman_unique`, which are ``-`` if
    `current_job` returns None. Add this filter to handlers: a filter of a logger does not see the
    records of the loggers below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes to `record`, and return True."""
        job = _current.get()
        record.gearman_function = _NO_VALUE if job is None else job.task
        record.gearman_handle = _NO_VALUE if job is None else job.handle
        record.gearman_unique = _NO_VALUE if job is None else job.unique
        return True


def is_async_context(factory: Any) -> bool:
    """Return True if `factory` is known to return an async context manager."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    import inspect  # noqa: PLC0415 - only workers need it, and it is slow to import

    if isinstance(factory, type):
        return hasattr(factory, "__aenter__") and not hasattr(factory, "__enter__")
    return inspect.isasyncgenfunction(inspect.unwrap(factory))


def refuse_async_contexts(factories: Iterable[Around]) -> None:
    """Check that a blocking worker can enter these context managers.

    Raises:
        TypeError: One of them is async.
    """
    for factory in factories:
        if is_async_context(factory):
            raise ArgumentTypeError(
                f"{factory!r} makes an async context manager, which this worker does not await: "
                "gearman_anyio.GearmanWorker does"
            )


def with_context(
    callback: Callable[[Any, WorkerJob], Any], around: Iterable[Around]
) -> Callable[[Any, WorkerJob], Any]:
    """Return a plain callback that runs `callback` in the context of its job.

    Args:
        callback: A plain callback, which is called with the worker and the job.
        around: Makes the plain context managers.
    """
    factories: Any = tuple(around)

    def call(worker: Any, job: WorkerJob) -> Any:
        token = _current.set(job)
        try:
            with contextlib.ExitStack() as stack:
                for factory in factories:
                    stack.enter_context(factory(job))
                return callback(worker, job)
        finally:
            _current.reset(token)

    return call


@contextlib.asynccontextmanager
async def job_context(job: WorkerJob, around: Iterable[Around]) -> Any:
    """Enter the context managers of a job in its task, which has a context of its own."""
    _current.set(job)
    async with contextlib.AsyncExitStack() as stack:
        factories: Any = around
        for factory in factories:
            await enter(stack, factory(job))
        yield


async def enter(stack: contextlib.AsyncExitStack, manager: Any) -> None:
    """Enter a context manager, plain or async."""
    if hasattr(type(manager), "__aenter__"):
        await stack.enter_async_context(manager)
    else:
        stack.enter_context(manager)
