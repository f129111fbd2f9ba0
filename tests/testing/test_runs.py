"""Recorder and the base class of WorkerUnderTest, with a fake worker.

Tests of real workers are in tests/doubles and tests/anyio.
"""

from __future__ import annotations

import contextvars
import types
from collections.abc import Coroutine
from typing import Any

import pytest

from gearman_proto.engines.worker.phases import Phase
from gearman_proto.testing.running import WorkerUnderTest
from gearman_proto.testing.runs import JobRun, Recorder


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

    # Hooks. The "job" is the work of its callback.

    def on_job_execute(self, job: Any) -> Any:
        try:
            result = job()
        except Exception as error:  # noqa: BLE001 - as the surface does
            return self.on_job_exception(job, (type(error), error, None))
        return self.on_job_complete(job, result)

    def on_job_exception(self, job: Any, exc_info: Any) -> Any:
        return "failed"

    def on_job_complete(self, job: Any, result: Any) -> Any:
        if isinstance(result, set):
            return self.on_job_exception(job, (TypeError, TypeError("set"), None))
        if result == "hook":
            raise LookupError("hook")
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
    """A job that returns or raises a value."""

    def __init__(self, did: Any) -> None:
        self.did = did

    def __call__(self) -> Any:
        if isinstance(self.did, BaseException):
            raise self.did
        return self.did() if callable(self.did) else self.did

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
    """Record a failed job for an exception. For others, such as KeyboardInterrupt, record none."""
    worker, recorder = make(kind)
    wrong = LookupError("wrong")
    good, bad = Job("result"), Job(wrong)
    assert run(worker.on_job_execute(good)) == "complete"
    assert run(worker.on_job_execute(bad)) == "failed"
    assert run(worker.on_job_execute(Job({1}))) == "failed"
    for job, error in (Job("hook"), LookupError), (Job(KeyboardInterrupt()), KeyboardInterrupt):
        with pytest.raises(error):
            run(worker.on_job_execute(job))
    assert recorder.running == []
    assert recorder.runs[:2] == [JobRun(good, "result"), JobRun(bad, None, wrong)]  # type: ignore[arg-type]
    assert [(each.result, repr(each.error)) for each in recorder.runs[2:]] == [
        (None, "TypeError('set')"),
        (None, "LookupError('hook')"),
    ]
    assert str(recorder.too_late()) == (
        "after 2.5 seconds this was still being done: <Job KeyboardInterrupt()>; 4 were done before"
    )
    next(recorder.rounds())
    assert str(recorder.too_late()).endswith("there were still jobs; 4 were done before")


class Pause:
    def __await__(self) -> Any:
        yield


def test_timeout_names_the_running_job_until_its_coroutine_is_closed() -> None:
    worker, recorder = make(AsyncWorker)
    running = worker.on_job_execute(Job(1))
    assert "this was still being done: <Job 1>; 0 were" in str(recorder.too_late())
    # Start it, so that closing it raises inside.
    recorder._hooks["on_job_execute"] = lambda job: Pause()
    waiting = worker.on_job_execute(Job(2))
    waiting.send(None)
    waiting.close()
    run(running)
    assert recorder.running == []
    assert len(recorder.runs) == 1


@both
def test_rounds_end_when_the_queue_is_empty(kind: type[Worker]) -> None:
    """End the rounds when a server has no jobs left and the last round did none."""
    worker, recorder = make(kind)
    asleep = types.SimpleNamespace(phase=Phase.ASLEEP)
    asking = types.SimpleNamespace(phase=Phase.GRABBING)

    def goes_on(*links: Any) -> Any:
        worker.links = list(links)
        return run(worker.after_poll(True))

    assert goes_on(asleep)  # The worker serves.
    rounds = recorder.rounds()
    next(rounds)
    assert goes_on()
    assert goes_on(asking)
    assert goes_on(asleep, asking)
    assert not run(worker.after_poll(False))
    next(rounds)  # A worker may end by itself.
    run(worker.on_job_execute(Job(1)))
    assert not goes_on(asleep)
    next(rounds)
    assert not goes_on(asleep)
    assert next(rounds, "empty") == "empty"
    late = [False, False, True, True]
    rounds = recorder.rounds(lambda: late.pop(0))
    next(rounds)
    assert goes_on(asking)
    assert not goes_on(asking)
    with pytest.raises(TimeoutError, match=r"there were still jobs; 1 were done"):
        next(rounds)


def test_worker_that_serves_goes_on_until_it_is_stopped() -> None:
    worker, recorder = make(Worker)
    rounds = recorder.serve()
    next(rounds)
    next(rounds)
    assert worker.after_poll(True)
    recorder.end_serving()
    assert list(rounds) == []
    assert worker.stops == 1


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
    for other in (recorder, Recorder(worker, 1)):
        with pytest.raises(RuntimeError, match="is under test already: end its `with`"):
            other.attach("localhost")
    recorder.detach()
    assert vars(worker) == before
    assert worker.worker_abilities.keys() == {"task", "another"}
    worker.is_connected = True
    with pytest.raises(RuntimeError, match="is connected"):
        recorder.attach("other:1")


class UnderTest(WorkerUnderTest[Worker, str]):
    _worker_class = Worker
    jobs = 1

    def drain(self) -> list[JobRun]:
        self._recorder.attach(self._server)
        for number in range(self.jobs):
            self.worker.on_job_execute(Job(LookupError(number) if number else "result"))
        self._recorder.detach()
        return self._drained()


def test_worker_under_test_raises_each_error_once() -> None:
    under_test = UnderTest({"task": print}, "localhost")
    assert under_test.worker.worker_abilities == {"task": print}
    assert [each.result for each in under_test.drain()] == ["result"]
    for under_test.jobs in (2, 14):
        with pytest.raises(LookupError, match=r"^1\n") as caught:
            under_test.drain()
        assert len(caught.value.__notes__) == min(under_test.jobs - 1, 12)
    first, second, *_, last = caught.value.__notes__
    assert first == "It was raised for <Job LookupError(1)>."
    assert second == "<Job LookupError(2)> has failed, too: LookupError(2)"
    assert last == "So have 2 others."
    under_test = UnderTest(under_test.worker, "localhost", timeout=1, raise_errors=False)
    under_test.jobs = 3
    assert len(under_test.drain()) == len(under_test.drain()) == 3
    assert len(under_test.runs) == 6


@pytest.mark.parametrize(
    ("worker", "options", "error", "text"),
    [
        (print, {}, TypeError, "callbacks by task .a dict., or a .*Worker, not <built-in"),
        ({}, {}, ValueError, "no callbacks"),
        ({"task": print}, {"timeout": -1}, ValueError, "timeout"),
        ({"task": print}, {"server": "localhost:0"}, ValueError, "port 0"),
    ],
)
def test_worker_under_test_with_a_wrong_argument_raises(
    worker: Any, options: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        UnderTest(worker, **{"server": "localhost", **options})


@both
def test_drain_in_a_callback_of_the_worker_is_refused(kind: type[Worker]) -> None:
    worker, recorder = make(kind)
    _, other = make(kind)
    context = contextvars.copy_context()
    for each in (other, recorder):
        job = Job(each.check_outside)
        context.run(lambda job: run(worker.on_job_execute(job)), job)
    recorder.check_outside()
    first, second = recorder.runs
    assert first.error is None
    assert "can't drain it" in str(second.error)
