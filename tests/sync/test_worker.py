"""The worker's surface, and what jobs come to when all goes well: gearmand and JobServer."""

from __future__ import annotations

import functools
import json
import os
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidWorkerState, LocalProtocolError
from gearman_sync import (
    GearmanClient,
    GearmanWorker,
    JobData,
    JobEnded,
    JobProgress,
    JobWarning,
    WorkerJob,
)
from tests.support import PATIENCE, Gearmand, eventually, spawn, wait_for

from .support import EmbeddedServer, Script, Working, wait_for_leader
from .test_fork import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeClient = Callable[..., GearmanClient]
    MakeWorker = Callable[..., GearmanWorker]
    Work = Callable[..., Working]
    StartScript = Callable[..., Script]
    Server = Gearmand | EmbeddedServer


def reverse(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data[::-1]


def client_ids(server: Server) -> list[str]:
    """What the server's connections are known by."""
    return [line.split(" ")[2] for line in server.admin("workers").splitlines()[:-1]]


# Jobs.


@pytest.mark.parametrize("form", ["str", "bytes"])
def test_job(server: Server, make_client: MakeClient, work: Work, task: str, form: str) -> None:
    jobs: list[WorkerJob] = []

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        assert worker is working.worker
        assert worker.has_job_lock()
        jobs.append(job)
        return b"<" + job.data + b">"

    name = f"{task}-ü"
    given = name if form == "str" else name.encode()
    working = work(server.address, tasks={given: function})
    assert not working.worker.has_job_lock()
    request = make_client(server.address).submit_job(given, b"a\0b", unique="münchen")
    assert request.result == b"<a\0b>"
    (job,) = jobs
    assert (job.task, job.unique, job.data) == (name, "münchen", b"a\0b")
    assert job.handle == request.job.handle
    assert job.ended
    assert not job.is_lost
    eventually(lambda: not working.worker.has_job_lock())


def test_register_and_unregister(server: Server, make_worker: MakeWorker, task: str) -> None:
    worker = make_worker(server.address)
    assert worker.register_task(task, reverse) == task
    assert worker.register_task(f"{task}-b".encode(), reverse, timeout=1.5) == f"{task}-b"
    assert worker.worker_abilities == {task: reverse, f"{task}-b": reverse}
    assert worker.unregister_task(task.encode()) == task
    assert worker.worker_abilities == {f"{task}-b": reverse}
    with pytest.raises(InvalidWorkerState, match=task):
        worker.unregister_task(task)


def test_wrong_arguments(make_worker: MakeWorker) -> None:
    worker = make_worker()
    for name in ("a\0b", b"\xff\0", "x" * 8200):
        with pytest.raises(ValueError):
            worker.register_task(name, reverse)
    not_a_name: Any = 5
    not_callable: Any = b"reverse"
    not_a_number: Any = "1"
    for wrong in (
        lambda: worker.register_task(not_a_name, reverse),
        lambda: worker.register_task("task", not_callable),
        lambda: worker.register_task("task", reverse, timeout=not_a_number),
        lambda: worker.register_task("task", reverse, timeout=True),
        lambda: worker.set_client_id(not_a_name),
        lambda: worker.work(not_a_number),
        lambda: worker.stop(not_a_number),
        lambda: GearmanWorker([], max_jobs=not_a_number),
    ):
        with pytest.raises(TypeError):
            wrong()
    for timeout in (0, -1, float("nan"), float("inf"), 1e7):
        with pytest.raises(ValueError, match="timeout"):
            worker.register_task("task", reverse, timeout=timeout)
    for client_id in ("a\0b", "x" * 128):
        with pytest.raises(ValueError):
            worker.set_client_id(client_id)
    with pytest.raises(ValueError, match="nan"):
        worker.work(float("nan"))
    assert worker.worker_abilities == {}
    assert worker.worker_client_id is None
    for options in (
        {"max_jobs": 0},
        {"connect_timeout": 0},
        {"look_again": 0},
        {"max_outage": -1},
        {"look_again": float("nan")},
    ):
        wrong_options: Any = options
        with pytest.raises(ValueError):
            GearmanWorker([], **wrong_options)


def test_registration_that_is_refused_changes_nothing(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    working = work(server.address, tasks={task: reverse})
    with pytest.raises(ValueError, match="timeout"):
        working.worker.register_task(task, lambda worker, job: b"wrong", timeout=-1)
    assert make_client(server.address).submit_job(task, b"ab").result == b"ba"


def test_repr(make_worker: MakeWorker) -> None:
    class Mine(GearmanWorker):
        pass

    worker = make_worker("one:1", ("::1", 2), kind=Mine, tasks={"a": reverse, "b": reverse})
    assert repr(worker) == "<Mine [one:1, [::1]:2] a, b>"


def test_connection_list(server: Server, work: Work, task: str) -> None:
    working = work(server.address, tasks={task: reverse})
    (connection,) = working.worker.connection_list
    assert (connection.gearman_host, connection.gearman_port) == server.address
    eventually(lambda: connection.connected)
    working.worker.stop()
    working.end()
    assert not connection.connected


def test_client_id(server: Server, make_worker: MakeWorker, work: Work, task: str) -> None:
    worker = make_worker(server.address, tasks={task: reverse})
    assert worker.set_client_id(f"{task}-before") == f"{task}-before"
    assert worker.worker_client_id == f"{task}-before"
    work(worker)
    eventually(lambda: f"{task}-before" in client_ids(server))
    assert worker.set_client_id(f"{task}-after".encode()) == f"{task}-after"
    eventually(lambda: f"{task}-after" in client_ids(server))
    assert f"{task}-before" not in client_ids(server)


def test_context_manager_and_shutdown(server: Server, task: str) -> None:
    with GearmanWorker([server.address]) as worker:
        worker.register_task(task, reverse)
        call = spawn(worker.work)
        eventually(lambda: server.counts(task) == (0, 0, 1))
    call.result(PATIENCE)
    eventually(lambda: server.counts(task) == (0, 0, 0))
    worker.shutdown()
    worker.stop()
    with pytest.raises(InvalidWorkerState, match="shut down"):
        worker.work()
    # It is of no use any more, and of no harm.
    worker.register_task(task, reverse)
    worker.unregister_task(task)
    worker.set_client_id("me")


def test_shutdown_gives_the_job_to_another(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        begun.set()
        wait_for(go_on)
        assert job.is_lost
        return b"lost"

    client = make_client(server.address)
    request = client.submit_job(task, b"ab", wait_until_complete=False)
    working = work(server.address, tasks={task: function})
    wait_for(begun)
    working.worker.shutdown()
    work(server.address, tasks={task: reverse})
    client.wait_until_jobs_completed([request])
    assert request.result == b"ba"
    go_on.set()
    working.end()


def test_work_in_two_threads(server: Server, work: Work, task: str) -> None:
    working = work(server.address, tasks={task: reverse})
    wait_for_leader(working.worker)
    with pytest.raises(InvalidWorkerState, match="works already"):
        working.worker.work()
    assert not working.call.done()
    working.worker.stop()
    working.end()


def test_work_again(server: Server, make_client: MakeClient, work: Work, task: str) -> None:
    client = make_client(server.address)
    working = work(server.address, tasks={task: reverse})
    for _ in range(3):
        assert client.submit_job(task, b"ab").result == b"ba"
        working.worker.stop()
        working.end()
        eventually(lambda: server.counts(task)[2] == 0)
        working = work(working.worker)


# What callbacks send.


def test_updates(server: Server, make_client: MakeClient, work: Work, task: str) -> None:
    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        worker.send_job_data(job, b"one")
        worker.send_job_warning(job, "careful")
        worker.send_job_status(job, 1, 4)
        worker.send_job_status(job, "2", b"4")
        worker.send_job_data(job, b"t\0wo", poll_timeout=20)
        return b"done"

    client = make_client(server.address)
    request = client.submit_job(task, b"", wait_until_complete=False)
    work(server.address, tasks={task: function})
    assert list(client.updates(request)) == [
        JobData(b"one"),
        JobWarning(b"careful"),
        JobProgress(1, 4),
        JobProgress(2, 4),
        JobData(b"t\0wo"),
        JobEnded(gearman.JOB_COMPLETE, b"done"),
    ]


def test_status_of_a_running_job(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    sent, go_on = threading.Event(), threading.Event()

    def function(worker: GearmanWorker, job: WorkerJob) -> None:
        worker.send_job_status(job, 3, 10)
        sent.set()
        wait_for(go_on)

    client = make_client(server.address)
    work(server.address, tasks={task: function})
    request = client.submit_job(task, b"", background=True)
    wait_for(sent)

    def status() -> tuple[int, int]:
        current = client.get_job_status(request).status
        return current["numerator"], current["denominator"]

    eventually(lambda: status() == (3, 10))
    go_on.set()


def test_ends_that_are_sent(server: Server, make_client: MakeClient, work: Work, task: str) -> None:
    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        if job.data == b"complete":
            worker.send_job_complete(job, b"sent")
        elif job.data == b"nothing":
            worker.send_job_complete(job, None)
        elif job.data == b"failure":
            worker.send_job_failure(job)
        else:
            worker.send_job_exception(job, b"because")
        assert job.ended
        return b"what is returned then does not count"

    client = make_client(server.address)
    work(server.address, tasks={task: function})
    outcomes = {
        data: client.submit_job(task, data)
        for data in (b"complete", b"nothing", b"failure", b"exception")
    }
    assert {data: request.state for data, request in outcomes.items()} == {
        b"complete": gearman.JOB_COMPLETE,
        b"nothing": gearman.JOB_COMPLETE,
        b"failure": gearman.JOB_FAILED,
        b"exception": gearman.JOB_FAILED,
    }
    assert [request.result for request in outcomes.values()] == [b"sent", b"", None, None]
    assert [request.exception for request in outcomes.values()] == [None] * 3 + [b"because"]


def test_nothing_can_be_sent_after_the_end(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    refused: list[str] = []

    def function(worker: GearmanWorker, job: WorkerJob) -> None:
        worker.send_job_complete(job, b"done")
        for send in (
            functools.partial(worker.send_job_status, job, 1, 2),
            functools.partial(worker.send_job_data, job, b""),
            functools.partial(worker.send_job_warning, job, b""),
            functools.partial(worker.send_job_complete, job, b""),
            functools.partial(worker.send_job_failure, job),
            functools.partial(worker.send_job_exception, job, b""),
        ):
            with pytest.raises(InvalidWorkerState, match="has ended") as caught:
                send()
            refused.append(str(caught.value))

    work(server.address, tasks={task: function})
    request = make_client(server.address).submit_job(task, b"")
    assert request.result == b"done"
    assert not request.data_updates
    eventually(lambda: len(refused) == 6)


def test_updates_that_servers_do_not_take(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    refused: list[Exception] = []

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        for numerator, denominator in (("1\0", "2"), ("1", "1" * 12)):
            with pytest.raises(LocalProtocolError) as caught:
                worker.send_job_status(job, numerator, denominator)
            refused.append(caught.value)
        with pytest.raises(TypeError):
            worker.send_job_data(job, 5)
        return b"alive"

    work(server.address, tasks={task: function})
    request = make_client(server.address).submit_job(task, b"")
    assert request.result == b"alive"
    assert not request.status_updates
    assert len(refused) == 2


# Encoders.


class PickleEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        return pickle.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return pickle.loads(decodable_string)


class JsonEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> str:
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return json.loads(decodable_string)


@pytest.mark.parametrize("encoder", [PickleEncoder, JsonEncoder])
def test_encoder(
    server: Server, make_client: MakeClient, work: Work, task: str, encoder: Any
) -> None:
    class Worker(GearmanWorker):
        data_encoder = encoder

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        if job.data is None:
            return None
        worker.send_job_data(job, ["data", 1])
        worker.send_job_warning(job, {"warning": 2})
        if job.data == "fail":
            worker.send_job_exception(job, ["why"])
        return {"result": job.data}

    client = make_client(server.address)
    client.data_encoder = encoder
    work(server.address, kind=Worker, tasks={task: function})
    thing = {"ümlaut": ["ß", None, 1.5]}
    request = client.submit_job(task, thing)
    assert request.result == {"result": thing}
    assert list(request.data_updates) == [["data", 1]]
    assert list(request.warning_updates) == [{"warning": 2}]
    assert client.submit_job(task, "fail").exception == ["why"]
    # It has a form for None.
    assert client.submit_job(task, None).result is None
    assert GearmanWorker.data_encoder is not encoder


def test_encoder_of_an_instance(
    server: Server, make_client: MakeClient, make_worker: MakeWorker, work: Work, task: str
) -> None:
    worker = make_worker(server.address, tasks={task: lambda worker, job: [job.data]})
    worker.data_encoder = JsonEncoder()
    work(worker)
    client = make_client(server.address)
    client.data_encoder = JsonEncoder()
    assert client.submit_job(task, 1).result == [1]


# Hooks.


class Hooked(GearmanWorker):
    """Writes down which hooks are called."""

    calls: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls = []

    def on_job_execute(self, current_job: WorkerJob) -> bool:
        self.calls.append("execute")
        done = super().on_job_execute(current_job)
        self.calls.append(done)
        return done

    def on_job_exception(self, current_job: WorkerJob, exc_info: Any) -> bool:
        self.calls.append(exc_info[0])
        return super().on_job_exception(current_job, exc_info)

    def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
        self.calls.append(job_result)
        return super().on_job_complete(current_job, job_result)

    def after_job(self) -> bool:
        self.calls.append("after")
        return super().after_job()


@pytest.mark.parametrize("max_jobs", [1, 2])
def test_hooks(
    server: Server, make_client: MakeClient, work: Work, task: str, max_jobs: int
) -> None:
    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        return {b"good": b"result", b"bad": 5}[job.data]

    working = work(server.address, kind=Hooked, tasks={task: function}, max_jobs=max_jobs)
    client = make_client(server.address)
    expected: list[Any] = []
    assert isinstance(working.worker, Hooked)
    calls = working.worker.calls
    for data, state, hooks in (
        (b"good", gearman.JOB_COMPLETE, ["execute", b"result", True, "after"]),
        (b"ugly", gearman.JOB_FAILED, ["execute", KeyError, False, "after"]),
        (b"bad", gearman.JOB_FAILED, ["execute", 5, TypeError, False, "after"]),
    ):
        assert client.submit_job(task, data).state == state
        expected += hooks
        eventually(lambda: calls == expected)  # noqa: B023 - it is called at once


def test_hooks_that_end_the_job_themselves(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    class Worker(GearmanWorker):
        def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
            self.send_job_complete(current_job, b"by the hook")
            return super().on_job_complete(current_job, job_result)

        def on_job_exception(self, current_job: WorkerJob, exc_info: Any) -> bool:
            self.send_job_failure(current_job)
            return super().on_job_exception(current_job, exc_info)

    working = work(
        server.address, kind=Worker, tasks={task: lambda worker, job: 1 // len(job.data)}
    )
    client = make_client(server.address)
    assert client.submit_job(task, b"x").result == b"by the hook"
    request = client.submit_job(task, b"")
    assert request.state == gearman.JOB_FAILED
    assert not request.warning_updates
    assert not working.call.done()


def test_callback_is_replaced_by_the_hook(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    class Worker(GearmanWorker):
        def on_job_execute(self, current_job: WorkerJob) -> bool:
            return self.on_job_complete(current_job, current_job.task.encode())

    work(server.address, kind=Worker, tasks={task: reverse})
    assert make_client(server.address).submit_job(task, b"").result == task.encode()


@pytest.mark.parametrize("max_jobs", [1, 3])
def test_no_job_after_a_false_after_job(
    server: Server, make_client: MakeClient, work: Work, task: str, max_jobs: int
) -> None:
    """Jobs that run at the same time are finished; none is begun."""
    barrier = threading.Barrier(max_jobs)
    done: list[bytes] = []

    class Worker(GearmanWorker):
        def after_job(self) -> bool:
            return len(done) < 2 * max_jobs

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        barrier.wait(PATIENCE)
        done.append(job.data)
        barrier.wait(PATIENCE)
        return job.data

    client = make_client(server.address)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(4 * max_jobs)]
    client.submit_multiple_jobs(jobs, background=True)
    work(server.address, kind=Worker, tasks={task: function}, max_jobs=max_jobs).end()
    eventually(lambda: server.counts(task) == (2 * max_jobs, 0, 0))
    assert len(done) == 2 * max_jobs


def test_after_poll(server: Server, make_client: MakeClient, work: Work, task: str) -> None:
    activity: list[bool] = []
    done: list[bytes] = []
    ending = threading.Event()

    class Worker(GearmanWorker):
        def after_poll(self, any_activity: bool) -> bool:
            activity.append(any_activity)
            return not ending.is_set()

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        done.append(job.data)
        return job.data

    working = work(server.address, kind=Worker, tasks={task: function}, poll_timeout=0.02)
    eventually(lambda: activity.count(False) > 3)
    before = activity.count(True)
    make_client(server.address).submit_job(task, b"")
    eventually(lambda: activity.count(True) > before)
    ending.set()
    working.end()
    assert done == [b""]


def test_after_poll_ends_a_busy_worker(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    class Worker(GearmanWorker):
        polls = 0

        def after_poll(self, any_activity: bool) -> bool:
            self.polls += 1
            return self.polls < 20

    client = make_client(server.address)
    client.submit_multiple_jobs([{"task": task, "data": b""}] * 500, background=True)
    work(server.address, kind=Worker, tasks={task: reverse}).end()
    assert server.counts(task)[0] > 400


# With one slot, no job is being done when after_poll is called.
@pytest.mark.parametrize(
    ("hook", "max_jobs"), [("after_job", 1), ("after_job", 2), ("after_poll", 2)]
)
def test_hook_that_raises_ends_work(
    server: Server, make_client: MakeClient, work: Work, task: str, hook: str, max_jobs: int
) -> None:
    class Worker(GearmanWorker):
        def raise_error(self, *args: Any) -> bool:
            if not self.has_job_lock():
                return True
            raise ZeroDivisionError("in the hook")

    setattr(Worker, hook, Worker.raise_error)
    released = threading.Event()

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        if hook == "after_poll":
            wait_for(released)
        return b"done"

    client = make_client(server.address)
    request = client.submit_job(task, b"", wait_until_complete=False)
    working = work(
        server.address,
        kind=Worker,
        tasks={task: function},
        max_jobs=max_jobs,
        poll_timeout=0.02,
    )
    with pytest.raises(ZeroDivisionError, match="in the hook"):
        working.end()
    released.set()
    if hook == "after_job":
        client.wait_until_jobs_completed([request])
        assert request.result == b"done"
    eventually(lambda: server.counts(task)[2] == 0)


# Tasks that come and go.


def test_register_while_it_works(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    client = make_client(server.address)
    requests = client.submit_multiple_jobs(
        [{"task": f"{task}-{n}", "data": b"ab"} for n in range(3)], wait_until_complete=False
    )
    working = work(server.address)
    wait_for_leader(working.worker)
    # From another thread, and, at the end, from a callback.
    working.worker.register_task(f"{task}-0", reverse)
    client.wait_until_jobs_completed(requests[:1])

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        worker.register_task(f"{task}-2", reverse)
        return b"registered"

    working.worker.register_task(f"{task}-1", function)
    client.wait_until_jobs_completed(requests)
    assert [request.result for request in requests] == [b"ba", b"registered", b"ba"]


def test_registered_again(server: Server, make_client: MakeClient, work: Work, task: str) -> None:
    client = make_client(server.address)
    working = work(server.address, tasks={task: reverse})
    assert client.submit_job(task, b"ab").result == b"ba"
    working.worker.register_task(task, lambda worker, job: b"new", timeout=10)
    assert client.submit_job(task, b"ab").result == b"new"
    assert server.counts(task) == (0, 0, 1)


def test_unregister_while_jobs_are_queued(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        worker.unregister_task(task)
        return b"last"

    client = make_client(server.address)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(5)]
    requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
    working = work(server.address, tasks={task: function, f"{task}-other": reverse})
    client.wait_until_jobs_completed(requests[:1])
    assert client.submit_job(f"{task}-other", b"ab").result == b"ba"
    assert server.counts(task) == (4, 0, 0)
    working.worker.register_task(task, reverse)
    client.wait_until_jobs_completed(requests)
    assert [request.result for request in requests] == [b"last", b"1", b"2", b"3", b"4"]


def test_unregister_while_jobs_are_held(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    """They are not taken away by it, and no more are begun."""
    begun = threading.Barrier(4)
    go_on = [threading.Event() for _ in range(3)]
    runs: list[bytes] = []

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        runs.append(job.data)
        number = len(runs) - 1
        begun.wait(PATIENCE)
        wait_for(go_on[number])
        return job.data

    client = make_client(server.address)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(6)]
    requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
    working = work(server.address, tasks={task: function, f"{task}-other": reverse}, max_jobs=3)
    begun.wait(PATIENCE)
    working.worker.unregister_task(task)
    for number in range(3):
        eventually(lambda: server.counts(task)[1] == 3 - number)  # noqa: B023 - called at once
        go_on[number].set()
        client.wait_until_jobs_completed([r for r in requests if r.job.data == runs[number]])
    assert client.submit_job(f"{task}-other", b"ab").result == b"ba"
    assert len(runs) == 3
    eventually(lambda: server.counts(task) == (3, 0, 0))
    assert [request.complete for request in requests] == [True] * 3 + [False] * 3


# Other things that callbacks do.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_fork_in_a_callback(server: Server, make_client: MakeClient, work: Work, task: str) -> None:
    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        worker.send_job_status(job, 1, 1)
        return job.data

    working = work(server.address, tasks={task: function})
    client = make_client(server.address)
    for number in range(3):
        assert client.submit_job(task, b"%d" % number).result == b"%d" % number
    assert server.counts(task) == (0, 0, 1)
    working.worker.stop()
    working.end()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_work_in_a_fork(
    server: Server, make_client: MakeClient, make_worker: MakeWorker, work: Work, task: str
) -> None:
    """What was registered before is the child's, too, and so is the name."""
    client = make_client(server.address)
    requests = client.submit_multiple_jobs(
        [{"task": task, "data": b""}] * 2, wait_until_complete=False
    )
    worker = make_worker(server.address)

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        worker.stop()
        return f"{worker.worker_client_id} {os.getpid()}".encode()

    worker.register_task(task, function, timeout=20)
    worker.set_client_id(task)

    def in_child() -> int:
        worker.work()
        worker.shutdown()
        return os.getpid()

    child = Child(in_child).result()
    worker.work()
    client.wait_until_jobs_completed(requests)
    results = [request.result.decode() for request in requests]
    assert results == [f"{task} {child}", f"{task} {os.getpid()}"]


def test_callback_that_submits(
    server: Server, make_client: MakeClient, work: Work, task: str
) -> None:
    """A job that waits for another, which the same worker does."""
    client = make_client(server.address)

    def outer(worker: GearmanWorker, job: WorkerJob) -> Any:
        return client.submit_job(f"{task}-inner", job.data).result

    work(server.address, tasks={task: outer, f"{task}-inner": reverse}, max_jobs=2)
    other = make_client(server.address)
    assert other.submit_job(task, b"ab").result == b"ba"


@pytest.mark.parametrize("max_jobs", [1, 2])
def test_run_at(
    server: Server, make_client: MakeClient, work: Work, task: str, max_jobs: int
) -> None:
    times: list[float] = []

    def function(worker: GearmanWorker, job: WorkerJob) -> None:
        times.append(time.time())

    work(server.address, tasks={task: function}, look_again=0.05, max_jobs=max_jobs)
    client = make_client(server.address)
    when = time.time() + 0.2
    client.submit_job(task, b"", background=True, run_at=when)
    eventually(lambda: times)
    assert times[0] >= when
    assert server.counts(task)[2] == 1


def test_woken_at_once(server: Server, make_client: MakeClient, work: Work, task: str) -> None:
    """By the server, and not by looking again."""
    working = work(server.address, tasks={task: reverse}, look_again=1000, poll_timeout=None)
    client = make_client(server.address)
    for number in range(20):
        wait_for_leader(working.worker)
        assert client.submit_job(task, b"%d" % number, poll_timeout=PATIENCE).complete


# As python-gearman's documentation has it.


_PROGRAM = """
import json, pickle, sys
import gearman_sync as gearman

host, task = sys.argv[1:]


class JSONDataEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object):
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string):
        return json.loads(decodable_string)


class PickleDataEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object):
        return pickle.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string):
        return pickle.loads(decodable_string)


class CustomGearmanWorker(gearman.GearmanWorker):
    data_encoder = JSONDataEncoder
    jobs = 0

    def on_job_execute(self, current_job):
        print("Job started", flush=True)
        return super(CustomGearmanWorker, self).on_job_execute(current_job)

    def on_job_exception(self, current_job, exc_info):
        print("Job failed, CAN stop last gasp GEARMAN_COMMAND_WORK_FAIL", flush=True)
        return super(CustomGearmanWorker, self).on_job_exception(current_job, exc_info)

    def on_job_complete(self, current_job, job_result):
        print("Job completed, CAN stop last gasp GEARMAN_COMMAND_WORK_COMPLETE", flush=True)
        self.jobs += 1
        return super(CustomGearmanWorker, self).send_job_complete(current_job, job_result)

    def after_poll(self, any_activity):
        # Return True if you want to continue polling, replaces callback_fxn
        return self.jobs < 2


def task_listener_reverse(gearman_worker, gearman_job):
    return gearman_job.data[::-1]


def task_listener_reverse_inflight(gearman_worker, gearman_job):
    reversed_data = reversed(gearman_job.data)
    total_chars = len(gearman_job.data)
    for idx, character in enumerate(reversed_data):
        gearman_worker.send_job_data(gearman_job, str(character))
        gearman_worker.send_job_status(gearman_job, idx + 1, total_chars)
    return None


def task_listener_raises(gearman_worker, gearman_job):
    raise ValueError(gearman_job.data)


gm_worker = CustomGearmanWorker([host])
# gm_worker.set_client_id is optional
gm_worker.set_client_id("python-worker")
gm_worker.register_task(task, task_listener_reverse)
gm_worker.register_task(task + "-inflight", task_listener_reverse_inflight)
gm_worker.register_task(task + "-raises", task_listener_raises)
gm_worker.work()
gm_worker.shutdown()
print("ended")
"""


def test_program_for_python_gearman(
    server: Server, make_client: MakeClient, start_script: StartScript, task: str
) -> None:
    script = start_script(_PROGRAM, "{}:{}".format(*server.address), task)
    client = make_client(server.address)
    client.data_encoder = JsonEncoder
    assert client.submit_job(task, "Hello World!").result == "!dlroW olleH"
    assert "python-worker" in client_ids(server)
    failed = client.submit_job(f"{task}-raises", "why")
    assert failed.state == gearman.JOB_FAILED
    assert list(failed.warning_updates) == ["ValueError: why"]
    request = client.submit_job(f"{task}-inflight", "abc")
    assert list(request.data_updates) == ["c", "b", "a"]
    assert list(request.status_updates) == [(1, 3), (2, 3), (3, 3)]
    out, _, status = script.end()
    started = "Job started\n"
    completed = "Job completed, CAN stop last gasp GEARMAN_COMMAND_WORK_COMPLETE\n"
    raised = "Job failed, CAN stop last gasp GEARMAN_COMMAND_WORK_FAIL\n"
    assert out == started + completed + started + raised + started + completed + "ended\n"
    assert status == 0
