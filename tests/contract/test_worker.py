"""The worker: what it can do, what its callbacks send, and how a job ends."""

from __future__ import annotations

import functools
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import InvalidWorkerState, LocalProtocolError
from gearman_proto.jobs.updates import JobData, JobEnded, JobProgress, JobWarning
from gearman_proto.wire.events import (
    CanDo,
    CanDoTimeout,
    EchoReq,
    EchoRes,
    GrabJobUniq,
    JobAssignUniq,
    NoJob,
    SetClientId,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.support import PATIENCE, FakeServer, Peer

from .encoders import JsonEncoder, PickleEncoder, WordEncoder
from .kit import Kit, Server, collect, echo, reverse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gearman_proto import WorkerJob
    from gearman_proto.wire.events import Event

    Launch = Callable[[], Awaitable[Server]]
    StartServer = Callable[..., FakeServer]

WORK = (WorkComplete, WorkFail, WorkException, WorkData, WorkStatus, WorkWarning)


def give(*jobs: bytes) -> Callable[[Peer], None]:
    """A scripted server's script: give these jobs of "task", one by one, and then none."""

    def script(peer: Peer) -> None:
        left = list(jobs)
        while True:
            event = peer.receive()
            if isinstance(event, EchoReq):
                peer.send(EchoRes(event.data))
            elif isinstance(event, GrabJobUniq):
                if left:
                    handle = b"H:%d" % (len(jobs) - len(left) + 1)
                    peer.send(JobAssignUniq(handle, b"task", b"unique", left.pop(0)))
                else:
                    peer.send(NoJob())

    return script


def about_jobs(server: FakeServer) -> list[Event]:
    """What a worker has sent about its jobs."""
    return [event for event in server.events if isinstance(event, WORK)]


# What it can do.


async def test_register_and_unregister(kit: Kit, task: str) -> None:
    worker = await kit.make_worker("one:1", ("::1", 2))
    assert repr(worker) == "<GearmanWorker [one:1, [::1]:2] >"
    assert worker.register_task(task, reverse) == task
    assert worker.register_task(f"{task}-b".encode(), echo, timeout=1.5) == f"{task}-b"
    assert worker.register_task("c", echo, None) == "c"
    assert worker.worker_abilities == {task: reverse, f"{task}-b": echo, "c": echo}
    assert worker.unregister_task(task.encode()) == task
    assert worker.worker_abilities == {f"{task}-b": echo, "c": echo}
    with pytest.raises(InvalidWorkerState, match=f"'{task}' is not registered"):
        worker.unregister_task(task)
    assert repr(worker) == f"<GearmanWorker [one:1, [::1]:2] {task}-b, c>"
    assert [(c.gearman_host, c.connected) for c in worker.connection_list] == [
        ("one", False),
        ("::1", False),
    ]
    assert worker.has_job_lock() is False


async def test_what_a_server_is_told(kit: Kit, start_server: StartServer) -> None:
    server = start_server(give())
    worker = await kit.make_worker(server.address, tasks={"a": echo, "b": echo})
    worker.register_task("c", echo, timeout=1.5)
    worker.register_task("d", echo, timeout=2)
    worker.unregister_task("a")
    assert worker.set_client_id("mé") == "mé"
    await kit.work(worker)
    await kit.eventually(lambda: GrabJobUniq() in server.events)
    events = server.events[: server.events.index(GrabJobUniq())]
    assert SetClientId("mé".encode()) in events
    functions = [event for event in events if isinstance(event, (CanDo, CanDoTimeout))]
    assert functions == [CanDo(b"b"), CanDoTimeout(b"c", b"1500"), CanDoTimeout(b"d", b"2000")]


async def test_client_id(kit: Kit, server: Server, task: str) -> None:
    worker = await kit.make_worker(server.address, tasks={task: reverse})
    assert worker.set_client_id(f"{task}-before") == f"{task}-before"
    assert worker.worker_client_id == f"{task}-before"
    await kit.work(worker)

    async def is_known_by(name: str) -> bool:
        return name in await server.client_ids()

    await kit.eventually(lambda: is_known_by(f"{task}-before"))
    assert worker.set_client_id(f"{task}-after".encode()) == f"{task}-after"
    await kit.eventually(lambda: is_known_by(f"{task}-after"))
    assert worker.worker_client_id == f"{task}-after"
    assert not await is_known_by(f"{task}-before")


async def test_tasks_come_and_go_while_it_works(kit: Kit, server: Server, task: str) -> None:
    def function(worker: Any, job: WorkerJob) -> Any:
        worker.register_task(f"{task}-2", reverse)
        worker.unregister_task(f"{task}-1")
        worker.set_client_id(task)
        return " ".join(sorted(worker.worker_abilities))

    client = await kit.client(server.address)
    jobs = [{"task": f"{task}-{n}", "data": b"ab"} for n in (0, 1, 2, 1)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    worker = await kit.start_worker(server.address)
    await kit.eventually(lambda: worker.connection_list[0].connected)
    worker.register_task(f"{task}-0", reverse)
    await client.wait_until_jobs_completed(requests[:1])
    worker.register_task(f"{task}-1", function)
    await client.wait_until_jobs_completed(requests[:3])
    abilities = f"{task}-0 {task}-2".encode()
    assert [request.result for request in requests] == [b"ba", abilities, b"ba", None]
    await server.wait_for_counts(f"{task}-1", 1, 0, 0)
    assert worker.worker_client_id == task
    worker.register_task(f"{task}-0", lambda worker, job: b"new")
    assert (await client.submit_job(f"{task}-0", b"ab")).result == b"new"


# Jobs.


async def test_attributes_of_a_job(kit: Kit, server: Server, task: str) -> None:
    seen: dict[str, Any] = {}

    def function(worker: Any, job: WorkerJob) -> Any:
        connection = job.connection
        assert connection is not None
        seen.update(
            task=job.task,
            unique=job.unique,
            handle=job.handle,
            data=job.data,
            connection=(connection.host, connection.port),
            ended=job.ended,
            is_lost=job.is_lost,
            lock=worker.has_job_lock(),
            worker=repr(worker),
        )
        jobs.append(job)
        return None

    jobs: list[WorkerJob] = []
    client = await kit.client(server.address)
    worker = await kit.start_worker(server.address, tasks={task: function})
    request = await client.submit_job(task, b"a\0b", unique="münchen")
    assert seen == {
        "task": task,
        "unique": "münchen",
        "handle": request.handle,
        "data": b"a\0b",
        "connection": server.address,
        "ended": False,
        "is_lost": False,
        "lock": True,
        "worker": f"<GearmanWorker [127.0.0.1:{server.address[1]}] {task}>",
    }
    assert (jobs[0].ended, jobs[0].is_lost) == (True, False)
    await kit.eventually(lambda: not worker.has_job_lock())


async def test_several_jobs_at_once(kit: Kit, server: Server, task: str) -> None:
    barrier = threading.Barrier(3)

    def function(worker: Any, job: WorkerJob) -> Any:
        barrier.wait(PATIENCE)
        return job.data

    client = await kit.client(server.address)
    await kit.start_worker(server.address, tasks={task: function}, max_jobs=3)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(9)]
    requests = await client.submit_multiple_jobs(jobs)
    assert [request.result for request in requests] == [job["data"] for job in jobs]


async def test_one_job_at_a_time(kit: Kit, server: Server, task: str) -> None:
    gate = kit.gate()
    client = await kit.client(server.address)
    await kit.start_worker(server.address, tasks={task: gate})
    jobs = [{"task": task, "data": b"%d" % number} for number in range(3)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    await kit.wait_for(gate.begun)
    assert await server.counts(task) == (3, 1, 1)
    assert gate.order == [b"0"]
    gate.open.set()
    await client.wait_until_jobs_completed(requests)
    assert gate.order == [b"0", b"1", b"2"]


async def test_callback_that_submits(kit: Kit, server: Server, task: str) -> None:
    """A job that waits for another, which the same worker does."""
    client = await kit.client(server.address)

    async def outer(worker: Any, job: WorkerJob) -> Any:
        return (await client.submit_job(f"{task}-inner", job.data)).result

    tasks = {task: kit.callback(outer), f"{task}-inner": reverse}
    await kit.start_worker(server.address, tasks=tasks, max_jobs=2)
    other = await kit.client(server.address)
    assert (await other.submit_job(task, b"ab")).result == b"ba"


async def test_two_servers(kit: Kit, server: Server, launch: Launch, task: str) -> None:
    other = await launch()
    client = await kit.client(server.address, other.address)
    worker = await kit.start_worker(server.address, other.address, tasks={task: echo})
    jobs = [{"task": task, "data": b"%d" % number} for number in range(10)]
    requests = await client.submit_multiple_jobs(jobs)
    assert [request.result for request in requests] == [job["data"] for job in jobs]
    ports = [request.connection.port for request in requests]
    assert sorted(map(ports.count, set(ports))) == [5, 5]
    await other.kill()
    # The other one goes on, and the one that was lost is come back to.
    requests = await client.submit_multiple_jobs(jobs)
    assert [request.result for request in requests] == [job["data"] for job in jobs]
    await kit.eventually(lambda: [c.connected for c in worker.connection_list] == [True, False])
    await other.start()
    await kit.eventually(lambda: all(c.connected for c in worker.connection_list))
    only = await kit.client(other.address)
    assert (await only.submit_job(task, b"back")).result == b"back"


# What callbacks send.


async def test_all_that_is_sent(kit: Kit, server: Server, task: str) -> None:
    """By a plain callback, and by what is an async one where there are such."""

    def plain(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_data(job, b"one")
        worker.send_job_warning(job, "careful")
        worker.send_job_status(job, 1, 4)
        worker.send_job_status(job, "2", b"4", 20.0)
        worker.send_job_data(job, bytearray(b"t\0wo"), poll_timeout=20)
        worker.send_job_warning(job, b"", poll_timeout=20)
        worker.send_job_complete(job, b"done", poll_timeout=20)

    async def awaiting(worker: Any, job: WorkerJob) -> Any:
        await worker.send_job_data(job, b"one")
        await worker.send_job_warning(job, "careful")
        await worker.send_job_status(job, 1, 4)
        await worker.send_job_status(job, "2", b"4", 20.0)
        await worker.send_job_data(job, bytearray(b"t\0wo"), poll_timeout=20)
        await worker.send_job_warning(job, b"", poll_timeout=20)
        await worker.send_job_complete(job, b"done", poll_timeout=20)

    client = await kit.client(server.address)
    tasks = {f"{task}-plain": plain, f"{task}-awaiting": kit.callback(awaiting)}
    await kit.start_worker(server.address, tasks=tasks)
    for name in tasks:
        request = await client.submit_job(name, b"", wait_until_complete=False)
        assert await collect(client.updates(request)) == [
            JobData(b"one"),
            JobWarning(b"careful"),
            JobProgress(1, 4),
            JobProgress(2, 4),
            JobData(b"t\0wo"),
            JobWarning(b""),
            JobEnded("COMPLETE", b"done"),
        ]


async def test_updates_that_servers_do_not_take(kit: Kit, server: Server, task: str) -> None:
    refused: list[type[Exception]] = []

    def function(worker: Any, job: WorkerJob) -> Any:
        for send in (
            functools.partial(worker.send_job_status, job, "1\0", "2"),
            functools.partial(worker.send_job_status, job, "1", "1" * 12),
            functools.partial(worker.send_job_data, job, 5),
            functools.partial(worker.send_job_warning, job, None),
            functools.partial(worker.send_job_exception, job, 5),
            functools.partial(worker.send_job_complete, job, 5),
        ):
            with pytest.raises((LocalProtocolError, TypeError)) as caught:
                send()
            refused.append(caught.type)
        return b"alive"

    client = await kit.client(server.address)
    await kit.start_worker(server.address, tasks={task: function})
    request = await client.submit_job(task, b"")
    assert (request.result, request.status) == (b"alive", {})
    assert [len(request.data_updates), len(request.warning_updates)] == [0, 0]
    assert refused == [LocalProtocolError] * 2 + [TypeError] * 4


async def test_nothing_is_sent_after_the_end(kit: Kit, server: Server, task: str) -> None:
    refused: list[str] = []

    def function(worker: Any, job: WorkerJob) -> None:
        worker.send_job_complete(job, b"done")
        for send in (
            functools.partial(worker.send_job_status, job, 1, 2),
            functools.partial(worker.send_job_data, job, b""),
            functools.partial(worker.send_job_warning, job, b""),
            functools.partial(worker.send_job_complete, job, b""),
            functools.partial(worker.send_job_failure, job),
            functools.partial(worker.send_job_exception, job, b""),
        ):
            with pytest.raises(InvalidWorkerState) as caught:
                send()
            refused.append(str(caught.value).partition(" has ")[2])
        finished.set()

    finished = threading.Event()
    client = await kit.client(server.address)
    await kit.start_worker(server.address, tasks={task: function})
    request = await client.submit_job(task, b"")
    assert request.result == b"done"
    await kit.wait_for(finished)
    assert refused == ["ended"] * 6
    # The connection is in step.
    finished.clear()
    assert (await client.submit_job(task, b"")).result == b"done"
    await kit.wait_for(finished)
    assert refused == ["ended"] * 12


# How a job ends.


def raise_error(worker: Any, job: WorkerJob) -> Any:
    raise ZeroDivisionError("too\nbad")


def read_data(worker: Any, job: WorkerJob) -> Any:
    return job.data


def complete_and_raise(worker: Any, job: WorkerJob) -> Any:
    worker.send_job_complete(job, "done")
    raise ZeroDivisionError("afterwards")


def complete_twice(worker: Any, job: WorkerJob) -> Any:
    worker.send_job_complete(job, "done")
    worker.send_job_complete(job, "again")


def fail_and_return(worker: Any, job: WorkerJob) -> Any:
    worker.send_job_failure(job)
    return "well"


def exception_and_fail(worker: Any, job: WorkerJob) -> Any:
    worker.send_job_exception(job, "why")
    worker.send_job_failure(job)


def data_and_raise(worker: Any, job: WorkerJob) -> Any:
    worker.send_job_data(job, "part")
    raise KeyError("x")


UNDECODABLE = b"'ascii' codec can't decode byte 0xff in position 0: ordinal not in range(128)"
UNENCODABLE = (
    b"'ascii' codec can't encode character '\\xfc' in position 0: ordinal not in range(128)"
)

# The callback, the job's data, and what is sent. A bytes object is the text of what was raised.
ENDS: dict[str, tuple[Any, bytes, list[Event | bytes]]] = {
    "value": (lambda worker, job: "ok", b"in", [WorkComplete(b"H:1", b"ok")]),
    "None": (lambda worker, job: None, b"in", [WorkComplete(b"H:1", b"")]),
    "raises": (raise_error, b"in", [b"ZeroDivisionError: too\nbad"]),
    "no value for the encoder": (lambda worker, job: 5, b"in", [b"LookupError: no word: 5"]),
    "unencodable value": (
        *(lambda worker, job: "ü", b"in"),
        [b"UnicodeEncodeError: " + UNENCODABLE],
    ),
    "undecodable data": (read_data, b"\xff", [b"UnicodeDecodeError: " + UNDECODABLE]),
    "undecodable data unread": (lambda worker, job: "ok", b"\xff", [WorkComplete(b"H:1", b"ok")]),
    "completes and raises": (complete_and_raise, b"in", [WorkComplete(b"H:1", b"done")]),
    "completes twice": (complete_twice, b"in", [WorkComplete(b"H:1", b"done")]),
    "fails and returns": (fail_and_return, b"in", [WorkFail(b"H:1")]),
    "exception and failure": (exception_and_fail, b"in", [WorkException(b"H:1", b"why")]),
    "raises after data": (data_and_raise, b"in", [WorkData(b"H:1", b"part"), b"KeyError: 'x'"]),
}


@pytest.mark.parametrize("exceptions", [False, True], ids=["plain", "exceptions"])
@pytest.mark.parametrize("how", ENDS)
async def test_every_job_ends_once(
    kit: Kit, start_server: StartServer, how: str, exceptions: bool
) -> None:
    callback, data, ends = ENDS[how]
    server = start_server(give(data, b"second"))
    tasks = {"task": lambda worker, job: (echo, callback)[job.handle == "H:1"](worker, job)}
    worker = await kit.make_worker(server.address, tasks=tasks, exceptions=exceptions)
    worker.data_encoder = WordEncoder
    await kit.work(worker)
    last = WorkComplete(b"H:2", b"second")
    await kit.eventually(lambda: last in server.events)
    expected: list[Event] = []
    for end in ends:
        if not isinstance(end, bytes):
            expected.append(end)
        elif exceptions:
            expected.append(WorkException(b"H:1", end))
        else:
            expected += [WorkWarning(b"H:1", end), WorkFail(b"H:1")]
    assert about_jobs(server) == [*expected, last]


@pytest.mark.parametrize("exceptions", [False, True], ids=["plain", "exceptions"])
async def test_what_a_client_sees_of_an_exception(
    kit: Kit,
    server: Server,
    task: str,
    exceptions: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = await kit.client(server.address)
    await kit.start_worker(server.address, tasks={task: raise_error}, exceptions=exceptions)
    request = await client.submit_job(task, b"")
    text = b"ZeroDivisionError: too\nbad"
    assert (request.state, request.result, request.error) == ("FAILED", None, None)
    assert request.exception == (text if exceptions else None)
    assert list(request.warning_updates) == ([] if exceptions else [text])
    (record,) = [record for record in caplog.records if record.name == "gearman"]
    assert (record.levelno, record.getMessage().endswith(" failed")) == (logging.ERROR, True)
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("encoder", [PickleEncoder, JsonEncoder])
async def test_encoder(kit: Kit, server: Server, task: str, encoder: Any) -> None:
    def function(worker: Any, job: WorkerJob) -> Any:
        if job.data is None:
            return None
        worker.send_job_data(job, ["data", 1])
        worker.send_job_warning(job, {"warning": 2})
        if job.data == "raise":
            raise ZeroDivisionError("text")
        if job.data == "fail":
            worker.send_job_exception(job, ["why"])
        return {"result": job.data}

    client = await kit.client(server.address)
    client.data_encoder = encoder
    worker = await kit.make_worker(server.address, tasks={task: function})
    worker.data_encoder = encoder
    await kit.work(worker)
    thing = {"ümlaut": ["ß", None, 1.5]}
    request = await client.submit_job(task, thing)
    assert request.result == {"result": thing}
    assert list(request.data_updates) == [["data", 1]]
    assert list(request.warning_updates) == [{"warning": 2}]
    assert (await client.submit_job(task, "fail")).exception == ["why"]
    raised = await client.submit_job(task, "raise")
    assert list(raised.warning_updates) == [{"warning": 2}, "ZeroDivisionError: text"]
    # It has a form for None.
    none = await client.submit_job(task, None)
    assert (none.state, none.result) == ("COMPLETE", None)
    assert kit.gearman.GearmanWorker.data_encoder is not encoder
