"""Recorder and the base class of WorkerUnderTest, with a fake worker.

Tests of real workers are in tests/doubles and tests/anyio.
"""

from __future__ import annotations

import contextvars
import types
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from gearman_proto.engines.worker.phases import Phase
from gearman_proto.testing.running import WorkerUnderTest
from gearman_proto.testing.runs import JobRun, Recorder, raise_error


class Worker:
    """A worker whose hooks are called by the test."""

    def __init__(self) -> None:
        self.worker_abilities: dict[str, Any] = {}
        self.links: list[Any] = []
        self.is_connected = False
        self.stops = 0
        self._gm_made_of: Any = "its servers", {"max_jobs": 1}
        self._gm_driver = types.SimpleNamespace(
            engine=types.SimpleNamespace(pool=types.SimpleNamespace(links=lambda: self.links))
        )

    def register_task(self, task: str, callback: Any) -> None:
        self.worker_abilities[task] = callback

    def __getstate__(self) -> dict[str, Any]:
        if self.is_connected:
            raise TypeError("connected")
        return vars(self).copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def stop(self) -> None:
        self.stops += 1

    # Hooks. `job.did` is the outcome of the callback.

    def on_job_execute(self, job: Any) -> Any:
        if isinstance(job.did, list):
            return self.on_job_complete(job, job.did[0])
        if isinstance(job.did, Exception):
            return self.on_job_exception(job, (type(job.did), job.did, None))
        raise job.did

    def on_job_exception(self, job: Any, exc_info: Any) -> Any:
        return "failed"

    def on_job_complete(self, job: Any, result: Any) -> Any:
        if result == "unencodable":
            error = TypeError(result)
            return self.on_job_exception(job, (TypeError, error, None))
        return "complete"

    def after_poll(self, any_activity: bool) -> Any:
        return any_activity


class AsyncWorker(Worker):
    """A worker with async hooks."""

    async def on_job_execute(self, job: Any) -> Any:
        return super().on_job_execute(job)

    async def after_poll(self, any_activity: bool) -> Any:
        return super().after_poll(any_activity)


class Job:
    def __init__(self, did: Any) -> None:
        self.did = did

    def __repr__(self) -> str:
        return f"<Job {self.did!r}>"


def make(kind: type[Worker]) -> tuple[Worker, Recorder]:
    worker = kind()
    worker.register_task("task", print)
    recorder = Recorder(worker, 2.5)
    recorder.attach("localhost")
    return worker, recorder


def run(value: Any) -> Any:
    """Return the result of a hook, async or not."""
    if not isinstance(value, Coroutine):
        return value
    try:
        value.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


both = pytest.mark.parametrize("kind", [Worker, AsyncWorker])


@both
def test_recorder_records_results_and_errors(kind: type[Worker]) -> None:
    worker, recorder = make(kind)
    wrong = LookupError("wrong")
    good, bad, odd = Job(["result"]), Job(wrong), Job(["unencodable"])
    assert run(worker.on_job_execute(good)) == "complete"
    assert run(worker.on_job_execute(bad)) == "failed"
    assert run(worker.on_job_execute(odd)) == "failed"
    assert recorder.running == []
    first, second, third = recorder.runs
    assert first == JobRun(good, "result")  # type: ignore[arg-type]
    assert second == JobRun(bad, None, wrong)  # type: ignore[arg-type]
    assert third.result is None
    assert isinstance(third.error, TypeError)


@both
def test_hook_that_raises_fails_or_abandons_its_job(kind: type[Worker]) -> None:
    """Fail the job if a hook raises an Exception; abandon it for other exceptions."""
    worker, recorder = make(kind)
    wrong = LookupError("hook")

    def complete(job: Any, result: Any) -> None:
        raise wrong

    recorder._hooks["on_job_complete"] = complete
    with pytest.raises(LookupError):
        run(worker.on_job_execute(Job([1])))
    assert [run.error for run in recorder.runs] == [wrong]
    with pytest.raises(KeyboardInterrupt):
        run(worker.on_job_execute(Job(KeyboardInterrupt())))
    assert len(recorder.runs) == 1
    text = str(recorder.too_late())
    assert text == (
        "after 2.5 seconds this was still being done: <Job KeyboardInterrupt()>; 1 were done before"
    )
    next(recorder.rounds())
    text = str(recorder.too_late())
    assert text == "after 2.5 seconds there were still jobs; 1 were done before"


def test_timeout_message_names_the_running_job() -> None:
    worker, recorder = make(AsyncWorker)
    waiting = worker.on_job_execute(Job([1]))
    assert str(recorder.too_late()).startswith(
        "after 2.5 seconds this was still being done: <Job ["
    )
    run(waiting)
    assert recorder.running == []


def test_closed_coroutine_abandons_its_job() -> None:
    """Abandon the job if its coroutine is closed: closing reports no error."""
    worker, recorder = make(AsyncWorker)

    class Pause:
        def __await__(self) -> Any:
            yield

    async def execute(job: Any) -> None:
        await Pause()

    recorder._hooks["on_job_execute"] = execute
    waiting = worker.on_job_execute(Job([1]))
    waiting.send(None)
    waiting.close()
    assert recorder.running == []
    assert recorder.runs == []


@both
def test_rounds_end_when_the_queue_is_empty(kind: type[Worker]) -> None:
    """End the rounds when a server has no jobs left and the last round did none."""
    worker, recorder = make(kind)
    asleep = types.SimpleNamespace(phase=Phase.ASLEEP)
    asking = types.SimpleNamespace(phase=Phase.GRABBING)
    # The worker serves.
    worker.links = [asleep]
    assert run(worker.after_poll(True)) is True
    rounds: Iterator[object] = recorder.rounds()
    next(rounds)
    for links in ([], [asking], [asleep, asking]):
        worker.links = links
        assert run(worker.after_poll(True)) is True
    assert run(worker.after_poll(False)) is False
    # A worker may end by itself.
    next(rounds)
    worker.links = [asleep]
    run(worker.on_job_execute(Job([1])))
    assert run(worker.after_poll(True)) is False
    next(rounds)
    assert run(worker.after_poll(True)) is False
    assert next(rounds, "empty") == "empty"
    worker.links = [asking]
    late = [False, False, True, True]
    rounds = recorder.rounds(lambda: late.pop(0))
    next(rounds)
    assert run(worker.after_poll(True)) is True
    assert run(worker.after_poll(True)) is False
    with pytest.raises(TimeoutError, match=r"there were still jobs; 1 were done"):
        next(rounds)
    for _ in range(2):
        rounds = recorder.serve()
        next(rounds)
        next(rounds)
        assert run(worker.after_poll(True)) is True
        assert run(worker.after_poll(True)) is True
        recorder.end_serving()
        assert list(rounds) == []
    assert worker.stops == 2


def test_detach_restores_the_worker() -> None:
    worker = Worker()
    worker.register_task("task", print)
    mine = worker.__dict__["after_poll"] = lambda any_activity: True
    before = vars(worker).copy()
    recorder = Recorder(worker, 1)
    recorder.attach("other:1", 2.5, links=[1])
    addresses, options = worker._gm_made_of
    assert [str(address) for address in addresses] == ["other:1"]
    assert options == {"max_jobs": 1, "look_again": 2.5}
    assert worker.links == [1]
    assert worker.after_poll is not mine
    worker.register_task("another", print)
    recorder.detach()
    assert vars(worker) == before
    assert worker.worker_abilities.keys() == {"task", "another"}
    worker.is_connected = True
    with pytest.raises(RuntimeError, match="is connected"):
        recorder.attach("other:1")
    worker.worker_abilities.clear()
    with pytest.raises(ValueError, match="no callbacks"):
        Recorder(worker, 1)


class Falsy(LookupError):
    def __bool__(self) -> bool:
        return False


def test_raise_error_raises_the_first_error_with_notes() -> None:
    worker, recorder = make(Worker)
    worker.on_job_execute(Job([1]))
    raise_error(recorder.runs)
    for number in range(13):
        worker.on_job_execute(Job(Falsy(str(number))))
    with pytest.raises(Falsy, match=r"^0\n") as caught:
        raise_error(recorder.runs)
    first, second, *_, last = caught.value.__notes__
    assert first == "It was raised for <Job Falsy('0')>."
    assert second == "<Job Falsy('1')> has failed, too: Falsy('1')"
    assert last == "So have 2 others."


class UnderTest(WorkerUnderTest[Worker, str]):
    _worker_class = Worker

    def drain(self) -> list[JobRun]:
        self._recorder.attach(self._server)
        self.worker.on_job_execute(Job([1]))
        self.worker.on_job_execute(Job(LookupError()))
        self._recorder.detach()
        return self._drained()


def test_worker_under_test_raises_each_error_once() -> None:
    under_test = UnderTest({"task": print}, "localhost")
    assert under_test.worker.worker_abilities == {"task": print}
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            under_test.drain()
        # Each error is raised once.
        assert len(caught.value.__notes__) == 1
    under_test = UnderTest(under_test.worker, "localhost", timeout=1, raise_errors=False)
    assert len(under_test.drain()) == 2
    assert len(under_test.drain()) == 2
    assert len(under_test.runs) == 4


@pytest.mark.parametrize(
    ("worker", "options", "error", "text"),
    [
        (print, {}, TypeError, "callbacks by task .a dict., or a .*Worker, not <built-in"),
        ({}, {}, ValueError, "no callbacks"),
        ({"task": print}, {"timeout": -1}, ValueError, "timeout"),
        ({"task": print}, {"timeout": "1"}, TypeError, "timeout"),
    ],
)
def test_arguments(worker: Any, options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        UnderTest(worker, "localhost", **options)


@both
def test_recorder_of_a_worker_that_is_under_test_refuses(kind: type[Worker]) -> None:
    worker, recorder = make(kind)
    with pytest.raises(RuntimeError, match="is under test already: end its `with`"):
        Recorder(worker, 2.5).attach("localhost")
    with pytest.raises(RuntimeError, match="is under test already"):
        recorder.attach("localhost")
    recorder.detach()
    recorder.attach("localhost")


class Draining(Worker):
    """A worker whose callbacks call `check_outside`, as `drain` does."""

    def on_job_execute(self, job: Any) -> Any:
        job.did()


class AsyncDraining(Draining):
    """A worker whose async callbacks call `check_outside`."""

    async def on_job_execute(self, job: Any) -> Any:
        job.did()


@pytest.mark.parametrize("kind", [Draining, AsyncDraining])
def test_drain_in_a_callback_of_the_worker_is_refused(kind: type[Worker]) -> None:
    worker, recorder = make(kind)
    _, other = make(kind)
    recorder.check_outside()
    context = contextvars.copy_context()
    context.run(lambda: run(worker.on_job_execute(Job(other.check_outside))))
    with pytest.raises(RuntimeError, match=r"a callback of .* can't drain it"):
        context.run(lambda: run(worker.on_job_execute(Job(recorder.check_outside))))
    recorder.check_outside()
