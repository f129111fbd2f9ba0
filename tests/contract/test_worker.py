"""The worker: its tasks, the messages of its callbacks, and the ends of jobs."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from gearman_proto import DataEncoder, JSONEncoder
from gearman_proto.jobs.updates import JobData, JobEnded, JobProgress, JobWarning
from gearman_proto.wire.packets import (
    EchoReq,
    EchoRes,
    GrabJobUniq,
    JobAssignUniq,
    NoJob,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.support import PATIENCE

from .kit import Kit, Launch, Server, StartServer, collect, echo, reverse

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto import WorkerJob
    from gearman_proto.wire.packets import Event
    from gearman_sync.testing import Peer, ScriptedServer


WORK = (WorkComplete, WorkFail, WorkException, WorkData, WorkStatus, WorkWarning)


class WordEncoder(DataEncoder):
    """An application's encoder for ASCII text only."""

    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        if not isinstance(encodable_object, str):
            raise LookupError(f"no word: {encodable_object!r}")  # noqa: TRY004 - any will do
        return encodable_object.encode("ascii")

    @classmethod
    def decode(cls, decodable_string: bytes) -> str:
        return decodable_string.decode("ascii")


def give(*jobs: bytes) -> Callable[[Peer], None]:
    """Return a server script that assigns these jobs of "task" in order, then sends NO_JOB."""

    def script(peer: Peer) -> None:
        left = list(enumerate(jobs, 1))
        while True:
            event = peer.receive()
            if isinstance(event, EchoReq):
                peer.send(EchoRes(event.data))
            elif isinstance(event, GrabJobUniq) and left:
                number, data = left.pop(0)
                peer.send(JobAssignUniq(b"H:%d" % number, b"task", b"unique", data))
            elif isinstance(event, GrabJobUniq):
                peer.send(NoJob())

    return script


def about_jobs(server: ScriptedServer) -> list[Event]:
    """Return the events that a worker sent about its jobs."""
    return [event for event in server.events if isinstance(event, WORK)]


# Tasks and client ids.


@pytest.mark.both_servers
async def test_tasks_change_during_work(kit: Kit, server: Server, task: str) -> None:
    def function(worker: Any, job: WorkerJob) -> Any:
        worker.register_task(f"{task}-2", reverse)
        worker.unregister_task(f"{task}-1")
        worker.set_client_id(task)
        return " ".join(sorted(worker.worker_abilities))

    client = await kit.client(server.address)
    jobs = [{"task": f"{task}-{n}", "data": b"ab"} for n in (0, 1, 2, 1)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    worker = await kit.make_worker(server.address)
    worker.set_client_id(f"{task}-before")
    await kit.work(worker)
    await kit.eventually(lambda: worker.connection_list[0].connected)
    worker.register_task(f"{task}-0", reverse)
    await client.wait_until_jobs_completed(requests[:1])
    worker.register_task(f"{task}-1", function)
    await client.wait_until_jobs_completed(requests[:3])
    abilities = f"{task}-0 {task}-2".encode()
    assert [request.result for request in requests] == [b"ba", abilities, b"ba", None]
    await server.wait_for_counts(f"{task}-1", 1, 0, 0)
    assert worker.worker_client_id == task
    assert {task, f"{task}-before"} & {*await server.client_ids()} == {task}
    # The queued job runs once a task can handle it.
    worker.register_task(f"{task}-1", echo, timeout=100)
    await client.wait_until_jobs_completed(requests)
    assert requests[3].result == b"ab"


@pytest.mark.both_servers
@pytest.mark.parametrize("how", ["pause", "unregister_task"])
async def test_long_job_of_a_paused_task_does_not_delay_others(
    kit: Kit, server: Server, task: str, how: str
) -> None:
    gate = kit.gate()
    long, short = f"{task}-long", f"{task}-short"
    client = await kit.client(server.address)
    # The worker must not need its next poll to serve the other task.
    worker = await kit.start_worker(
        server.address, tasks={long: gate, short: reverse}, max_jobs=2, poll_interval=1000
    )
    request = await client.submit_job(long, b"data", wait_until_complete=False)
    await kit.wait_for(gate.begun)
    getattr(worker, how)(long)
    for _ in range(3):
        assert (await client.submit_job(short, b"ab")).result == b"ba"
    # gearmand would give the job to another worker after CANT_DO.
    assert await server.counts(long) == (1, 1, 1)
    gate.open.set()
    await client.wait_until_jobs_completed([request])
    assert request.result == b"data"
    await server.wait_for_counts(long, 0, 0, 0)


@pytest.mark.both_servers
async def test_pause_outlasts_a_lost_server(kit: Kit, launch: Launch, task: str) -> None:
    server = await launch()
    one, other = f"{task}-one", f"{task}-other"
    worker = await kit.make_worker(server.address, tasks={one: reverse, other: reverse})
    worker.pause()
    worker.pause(one)
    await kit.work(worker)
    await server.wait_for_counts(other, 0, 0, 1)
    await server.kill()
    await server.start()
    await server.wait_for_counts(other, 0, 0, 1)
    client = await kit.client(server.address)
    jobs = [{"task": each, "data": b"ab"} for each in (one, other)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    assert await server.counts(other) == (1, 0, 1)
    worker.resume()
    await client.wait_until_jobs_completed(requests[1:])
    assert await server.counts(one) == (1, 0, 0)
    worker.resume(one)
    await client.wait_until_jobs_completed(requests)
    assert [request.result for request in requests] == [b"ba", b"ba"]


# Jobs.


async def test_callback_of_the_job_alone_sends_updates(
    kit: Kit, adapter: str, server: Server, task: str
) -> None:
    def plain(job: WorkerJob) -> Any:
        job.send_status(1, 2)
        job.send_data(b"part")
        job.send_warning(b"careful")
        return job.data

    async def awaiting(job: WorkerJob) -> Any:
        await job.send_status(1, 2)
        await job.send_data(b"part")
        await job.send_warning(b"careful")
        return job.data

    tasks: dict[str, Any] = {task: plain}
    if adapter != "sync":
        tasks[f"{task}-awaiting"] = awaiting
    client = await kit.client_and_worker(server.address, tasks=tasks)
    for each in tasks:
        request = await client.submit_job(each, b"ab", wait_until_complete=False)
        assert await collect(client.updates(request)) == [
            JobProgress(1, 2),
            JobData(b"part"),
            JobWarning(b"careful"),
            JobEnded("COMPLETE", b"ab"),
        ]


@pytest.mark.parametrize(("max_jobs", "count"), [(1, 1), (2, 1), (4, 2)])
async def test_all_slots_run_callbacks_at_once(
    kit: Kit, launch: Launch, server: Server, task: str, max_jobs: int, count: int
) -> None:
    """Run exactly as many callbacks at once as there are slots."""
    barrier = threading.Barrier(max_jobs)
    lock = threading.Lock()
    inside: list[Any] = []
    most: list[int] = []

    def function(worker: Any, job: WorkerJob) -> Any:
        with lock:
            inside.append(job.handle)
        # The two barriers let every callback count while all of them are running.
        barrier.wait(PATIENCE)
        most.append(len(inside))
        barrier.wait(PATIENCE)
        with lock:
            inside.remove(job.handle)
        worker.send_job_status(job, 1, 1)
        return job.data

    servers = [server.address] if count == 1 else [server.address, (await launch()).address]
    client = await kit.client(*servers)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(max_jobs * 10)]
    requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)
    await kit.start_worker(*servers, tasks={task: function}, max_jobs=max_jobs)
    await client.wait_until_jobs_completed(requests, poll_timeout=PATIENCE)
    assert [request.result for request in requests] == [job["data"] for job in jobs]
    assert set(most) == {max_jobs}


async def test_callback_that_submits_a_job(kit: Kit, server: Server, task: str) -> None:
    """Run a job that waits for another job of the same worker."""
    client = await kit.client(server.address)

    async def outer(worker: Any, job: WorkerJob) -> Any:
        return (await client.submit_job(f"{task}-inner", job.data)).result

    tasks = {task: kit.callback(outer), f"{task}-inner": reverse}
    await kit.start_worker(server.address, tasks=tasks, max_jobs=2)
    other = await kit.client(server.address)
    assert (await other.submit_job(task, b"ab")).result == b"ba"


# Messages of callbacks.


@pytest.mark.both_servers
async def test_messages_of_callbacks_reach_the_client(kit: Kit, server: Server, task: str) -> None:
    """Send messages from a plain callback and, if the adapter has them, from an async one."""

    async def awaiting(worker: Any, job: WorkerJob) -> Any:
        await worker.send_job_data(job, b"one")
        await worker.send_job_warning(job, "careful")
        await worker.send_job_status(job, 1, 4)
        await worker.send_job_status(job, "2", b"4", 20.0)
        await worker.send_job_data(job, bytearray(b"t\0wo"), poll_timeout=20)
        await worker.send_job_warning(job, b"", poll_timeout=20)
        await worker.send_job_complete(job, b"done", poll_timeout=20)

    tasks = kit.both_forms(task, awaiting)
    client = await kit.client_and_worker(server.address, tasks=tasks)
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
        assert not any((request.data_updates, request.warning_updates, request.status_updates))
        assert await collect(client.updates(request)) == [JobEnded("COMPLETE", b"done")]


# Ends of jobs.


def raise_error(worker: Any, job: WorkerJob) -> Any:
    raise ZeroDivisionError("too\nbad")


def complete_and_raise(worker: Any, job: WorkerJob) -> Any:
    worker.send_job_complete(job, "done")
    raise ZeroDivisionError("afterwards")


def complete_twice(worker: Any, job: WorkerJob) -> Any:
    worker.send_job_complete(job, "done")
    worker.send_job_complete(job, "again")


def fail_and_return(worker: Any, job: WorkerJob) -> Any:
    worker.send_job_failure(job)
    return "well"


class End(NamedTuple):
    """How a callback ends its job."""

    callback: Callable[[Any, WorkerJob], Any]
    #: The packets that it causes. Bytes are the text of an exception.
    sent: list[Any]
    #: The type of the exception in the log.
    logged: str | None = None


OK, DONE = WorkComplete(b"H:1", b"ok"), WorkComplete(b"H:1", b"done")
UNDECODABLE = b"UnicodeDecodeError: 'ascii' codec can't decode byte 0xff in position 0: ordinal not"
ENDS = {
    "returns a value": End(lambda worker, job: "ok", [OK]),
    "returns what can't be encoded": End(
        lambda worker, job: 7, [b"LookupError: no word: 7"], "LookupError"
    ),
    "raises": End(raise_error, [b"ZeroDivisionError: too\nbad"], "ZeroDivisionError"),
    "reads undecodable data": End(
        lambda worker, job: job.data, [UNDECODABLE + b" in range(128)"], "UnicodeDecodeError"
    ),
    "completes and raises": End(complete_and_raise, [DONE], "ZeroDivisionError"),
    "completes twice": End(complete_twice, [DONE], "InvalidWorkerState"),
    "fails and returns": End(fail_and_return, [WorkFail(b"H:1")]),
}


@pytest.mark.parametrize(
    ("exceptions", "max_jobs"), [(False, 1), (True, 2)], ids=["plain", "exceptions"]
)
@pytest.mark.parametrize("how", ENDS)
async def test_every_job_ends_once(
    kit: Kit,
    start_server: StartServer,
    how: str,
    exceptions: bool,
    max_jobs: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    end = ENDS[how]
    server = start_server(give(b"\xff", b"second"))
    tasks = {"task": lambda worker, job: (echo, end.callback)[job.handle == "H:1"](worker, job)}
    worker = await kit.make_worker(
        server.address, tasks=tasks, exceptions=exceptions, max_jobs=max_jobs
    )
    worker.data_encoder = WordEncoder
    call = await kit.work(worker)
    last = WorkComplete(b"H:2", b"second")
    await kit.eventually(lambda: last in server.events)
    worker.stop()
    await call.result()
    expected: list[Event] = []
    for sent in end.sent:
        if not isinstance(sent, bytes):
            expected.append(sent)
        elif exceptions:
            expected.append(WorkException(b"H:1", sent))
        else:
            expected += [WorkWarning(b"H:1", sent), WorkFail(b"H:1")]
    events = about_jobs(server)
    # With two slots, the jobs can end in any order.
    events.remove(last)
    assert events == expected
    raised = [type(record.exc_info[1]).__name__ for record in caplog.records if record.exc_info]
    assert raised == ([end.logged] if end.logged else [])


async def test_job_of_an_unknown_task_fails(kit: Kit, start_server: StartServer) -> None:
    server = start_server(give(b"1"))
    await kit.start_worker(server.address, tasks={"another": reverse})
    expected = [WorkWarning(b"H:1", b"KeyError: 'task'"), WorkFail(b"H:1")]
    await kit.eventually(lambda: about_jobs(server) == expected)


@pytest.mark.both_servers
async def test_sleeping_worker_is_woken_at_once(kit: Kit, server: Server, task: str) -> None:
    """Wake the worker by the server's NOOP, not by polling the queue."""
    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks={task: reverse}, poll_interval=1000)
    await kit.work(worker, poll_timeout=None)
    for number in range(20):
        request = await client.submit_job(task, b"%d" % number, poll_timeout=PATIENCE)
        assert request.complete


async def test_encoder(kit: Kit, server: Server, task: str) -> None:
    def function(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_data(job, ["data", 1])
        if job.data == "fail":
            worker.send_job_exception(job, ["why"])
        return job.data

    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks={task: function})
    client.data_encoder, worker.data_encoder = JSONEncoder, JSONEncoder()
    await kit.work(worker)
    for thing in ({"ümlaut": ["ß", None, 1.5]}, None):
        request = await client.submit_job(task, thing)
        assert (request.state, request.result) == ("COMPLETE", thing)
        assert list(request.data_updates) == [["data", 1]]
    assert (await client.submit_job(task, "fail")).exception == ["why"]


async def test_update_that_cannot_be_decoded_ends_its_stream(
    kit: Kit, server: Server, task: str
) -> None:
    def function(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_data(job, b"[")
        return b"{"

    client = await kit.client_and_worker(server.address, tasks={task: function})
    client.data_encoder = JSONEncoder
    request = await client.submit_job(task, None)
    updates = client.updates(request)
    with pytest.raises(json.JSONDecodeError):
        await updates.__anext__()
    assert await collect(updates) == []
    with pytest.raises(json.JSONDecodeError):
        request.result  # noqa: B018 - reading it is what raises
