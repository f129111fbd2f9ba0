"""The registry of tasks."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
from typing import TYPE_CHECKING, Any

import pytest

import gearman_anyio
import gearman_sync
from gearman_proto import JobLogFilter, current_job
from gearman_proto.surface.tasks import Tasks, job_context, with_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def job_first(job: Any, retries: int = 3) -> Any:
    return job, retries


def job_only(job: Any) -> Any:
    return job, 3


def anything(*args: Any) -> Any:
    return args


def two(worker: Any, job: Any) -> Any:
    return worker, job


async def awaited(job: Any) -> Any:
    return job


class Methods:
    def one(self, job: Any, retries: int = 3) -> Any:
        return job, retries


@contextlib.contextmanager
def plain(job: Any) -> Iterator[None]:
    yield


@contextlib.asynccontextmanager
async def entered(job: Any, extra: int = 0) -> AsyncIterator[None]:
    yield


class Span:
    def __init__(self, job: Any) -> None: ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *args: object) -> None: ...


too_many: Any = lambda worker, job, more: 1  # noqa: E731
no_job: Any = lambda: 1  # noqa: E731


def registered(tasks: Any) -> Any:
    worker = gearman_sync.GearmanWorker([("localhost", 1)])
    worker.register(tasks)
    return worker._gm_registered["task"].callback


JOB: Any = object()


@pytest.mark.parametrize(
    ("callback", "result"),
    [
        (job_only, (JOB, 3)),
        (job_first, (JOB, 3)),
        (Methods().one, (JOB, 3)),
        (functools.partial(two, "bound"), ("bound", JOB)),
        (functools.partial(job_first, retries=1), (JOB, 1)),
        (two, ("worker", JOB)),
        (anything, ("worker", JOB)),
        (functools.partial(anything, 1), (1, "worker", JOB)),
        (max, None),  # It has no signature in Python 3.11.
        (lambda job=None, other=None: (job, other), ("worker", JOB)),
    ],
)
def test_required_parameters_select_the_arguments(callback: Any, result: Any) -> None:
    called = registered({"task": callback})
    if result is None:
        with pytest.raises(TypeError, match="not supported between"):
            called("worker", JOB)
    else:
        assert called("worker", JOB) == result


def test_decorated_function_stays_callable() -> None:
    tasks = gearman_sync.Tasks()
    assert tasks.task("task", timeout=5)(job_only) is job_only
    assert registered(tasks)("worker", JOB) == (JOB, 3)
    assert repr(tasks) == "<Tasks task>"


@pytest.mark.parametrize(
    ("register", "message"),
    [
        (lambda: Tasks().task("")(two), "empty"),
        (lambda: Tasks().task("a", timeout=0), "timeout is not more than 0"),
        (lambda: Tasks().task("a")(no_job), "does not take"),
        (lambda: Tasks().task("a")(too_many), "does not take"),
        (lambda: Tasks(lifespan=1), "lifespan is a function that returns a context manager, not 1"),  # type: ignore[arg-type]
        (lambda: Tasks(around=[1]), "an item of around is a function of the job, not 1"),  # type: ignore[list-item]
        (lambda: registered([("task", two)]), "tasks is a Tasks or a dict"),
        (lambda: registered({"task": awaited}), "'task' is async"),
        (
            lambda: registered(with_around(plain, entered)),
            "entered.*makes an async context manager",
        ),
        (lambda: registered(with_around(Span)), "Span.*makes an async context manager"),
        (
            lambda: registered(with_around(functools.partial(entered, extra=1))),
            "entered.*makes an async context manager",
        ),
    ],
)
def test_mistake_is_named(register: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        register()


def with_around(*around: Any) -> Tasks:
    tasks = Tasks(around=around)
    tasks.task("task")(two)
    return tasks


def test_second_callback_of_a_task_is_refused() -> None:
    tasks = with_around()
    with pytest.raises(ValueError, match=r"'task' is already that of <function two"):
        tasks.task("task")(job_only)


def test_mistake_in_one_task_registers_none() -> None:
    worker = gearman_sync.GearmanWorker([("localhost", 1)])
    with pytest.raises(TypeError):
        worker.register({"good": two, "bad": awaited})
    assert not worker.worker_abilities


def test_async_worker_splits_context_managers_by_kind() -> None:
    worker = gearman_anyio.GearmanWorker([("localhost", 1)])
    tasks = Tasks(around=[plain, entered, Span])
    tasks.task("plain")(job_only)
    tasks.task("awaited")(awaited)
    worker.register(tasks)
    assert worker._gm_registered["plain"].around == (entered, Span)
    assert worker._gm_registered["awaited"].around == (plain, entered, Span)


@pytest.mark.parametrize("fails", [False, True])
def test_context_managers_are_entered_in_order(fails: bool) -> None:
    seen: list[Any] = []
    job: Any = JOB

    @contextlib.contextmanager
    def outer(job: Any) -> Iterator[None]:
        seen.append("outer")
        try:
            yield
        finally:
            seen.append("end")

    @contextlib.asynccontextmanager
    async def inner(job: Any) -> AsyncIterator[None]:
        seen.append("inner")
        yield

    def callback(worker: Any, job: Any) -> None:
        assert current_job() is job
        seen.append("job")
        if fails:
            raise LookupError

    async def run() -> None:
        async with job_context(job, [outer, inner]):
            callback(None, job)

    with contextlib.suppress(LookupError):
        with_context(callback, [outer])(None, job)
    assert seen == ["outer", "job", "end"]
    assert current_job() is None
    seen.clear()
    with pytest.raises(LookupError if fails else StopIteration):
        contextvars.copy_context().run(run().send, None)
    assert seen == ["outer", "inner", "job", "end"]


def test_log_records_without_a_job_have_the_attributes() -> None:
    record = logging.makeLogRecord({})
    assert JobLogFilter().filter(record)
    assert (record.gearman_function, record.gearman_handle, record.gearman_unique) == ("-",) * 3  # type: ignore[attr-defined]
    assert current_job() is None
