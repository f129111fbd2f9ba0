"""The worker: its tasks, the messages of its callbacks, and the ends of jobs."""

from __future__ import annotations

import functools
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import GearmanError, InvalidWorkerState, LocalProtocolError
from gearman_proto.jobs.encoder import DataEncoder
from gearman_proto.jobs.updates import JobData, JobEnded, JobProgress, JobWarning
from gearman_proto.wire.packets import (
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
from tests.support import PATIENCE

from .encoders import JsonEncoder, PickleEncoder, WordEncoder
from .kit import Hooks, Kit, Server, collect, echo, reverse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gearman_proto import WorkerJob
    from gearman_proto.wire.packets import Event
    from gearman_sync.testing import Peer, ScriptedServer

    Launch = Callable[[], Awaitable[Server]]
    StartServer = Callable[..., ScriptedServer]

WORK = (WorkComplete, WorkFail, WorkException, WorkData, WorkStatus, WorkWarning)


def give(*jobs: bytes) -> Callable[[Peer], None]:
    """Return a server script that assigns these jobs of "task" in order, then sends NO_JOB."""

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


def about_jobs(server: ScriptedServer) -> list[Event]:
    """Return the events that a worker sent about its jobs."""
    return [event for event in server.events if isinstance(event, WORK)]


# Tasks and client ids.


async def test_register_and_unregister(kit: Kit, task: str) -> None:
    worker = await kit.make_worker("one:1", ("::1", 2))
    assert repr(worker) == "<GearmanWorker [one:1, [::1]:2] >"
    assert worker.register_task(task, reverse) == task
    assert worker.register_task(f"{task}-b".encode(), echo, timeout=1.5) == f"{task}-b"
    assert worker.register_task("c", echo, None) == "c"
    assert worker.worker_abilities == {task: reverse, f"{task}-b": echo, "c": echo}
    assert worker.unregister_task(task.encode()) == task
    assert worker.worker_abilities == {f"{task}-b": echo, "c": echo}
    assert worker.unregister_task(task) == task  # This does nothing, as in python-gearman.
    assert repr(worker) == f"<GearmanWorker [one:1, [::1]:2] {task}-b, c>"
    assert [(c.gearman_host, c.connected) for c in worker.connection_list] == [
        ("one", False),
        ("::1", False),
    ]
    assert worker.has_job_lock() is False
    mine = await kit.make_worker("one:1", kind=type("Mine", (Hooks,), {}), tasks={task: echo})
    assert repr(mine) == f"<Mine [one:1] {task}>"


async def test_worker_registers_its_client_id_and_tasks(
    kit: Kit, start_server: StartServer
) -> None:
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


async def test_worker_keeps_its_abilities_and_client_id_after_a_bug(
    kit: Kit, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(give())
    worker = await kit.make_worker(server.address, tasks={"a": echo})
    worker.set_client_id("me")

    def broken(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(worker._gm_driver.engine, "connected", broken)
    with pytest.raises(GearmanError, match="internal error: ZeroDivisionError"):
        await worker.work()
    await kit.work(worker)
    await kit.eventually(lambda: GrabJobUniq() in server.events)
    assert server.events[: server.events.index(GrabJobUniq())] == [SetClientId(b"me"), CanDo(b"a")]


@pytest.mark.both_servers
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
    # A refused registration changes nothing.
    with pytest.raises(ValueError, match="timeout"):
        worker.register_task(f"{task}-0", lambda worker, job: b"wrong", timeout=-1)
    assert (await client.submit_job(f"{task}-0", b"ab")).result == b"new"
    assert await server.counts(f"{task}-0") == (0, 0, 1)
    # The queued job runs once a task can handle it.
    worker.register_task(f"{task}-1", echo, timeout=100)
    await client.wait_until_jobs_completed(requests)
    assert requests[3].result == b"ab"


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


@pytest.mark.parametrize(("max_jobs", "count"), [(2, 1), (7, 1), (4, 2)])
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


async def test_two_servers_share_the_slots(kit: Kit, launch: Launch, task: str) -> None:
    """Serve both servers, although each has enough jobs for all slots."""
    gate = kit.gate()
    servers = [await launch(), await launch()]
    requests = []
    for server in servers:
        client = await kit.client(server.address)
        jobs = [{"task": task, "data": b""}] * 5
        requests.append((client, await client.submit_multiple_jobs(jobs, False, False)))
    hosts = [server.address for server in servers]
    await kit.start_worker(*hosts, tasks={task: gate}, max_jobs=3)
    await kit.eventually(lambda: len(gate.order) == 3)
    running = [(await server.counts(task))[1] for server in servers]
    assert sorted(running) == [1, 2]
    gate.open.set()
    for client, some in requests:
        await client.wait_until_jobs_completed(some, poll_timeout=PATIENCE)
        assert all(request.complete for request in some)


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


async def test_callback_that_submits_a_job(kit: Kit, server: Server, task: str) -> None:
    """Run a job that waits for another job of the same worker."""
    client = await kit.client(server.address)

    async def outer(worker: Any, job: WorkerJob) -> Any:
        return (await client.submit_job(f"{task}-inner", job.data)).result

    tasks = {task: kit.callback(outer), f"{task}-inner": reverse}
    await kit.start_worker(server.address, tasks=tasks, max_jobs=2)
    other = await kit.client(server.address)
    assert (await other.submit_job(task, b"ab")).result == b"ba"


@pytest.mark.both_servers
async def test_two_servers_and_a_restart(
    kit: Kit, server: Server, launch: Launch, task: str
) -> None:
    other = await launch()
    client = await kit.client(server.address, other.address)
    worker = await kit.start_worker(server.address, other.address, tasks={task: echo})
    jobs = [{"task": task, "data": b"%d" % number} for number in range(10)]
    requests = await client.submit_multiple_jobs(jobs)
    assert [request.result for request in requests] == [job["data"] for job in jobs]
    ports = [request.connection.port for request in requests]
    assert sorted(map(ports.count, set(ports))) == [5, 5]
    await other.kill()
    # The remaining server takes all jobs, and the worker reconnects to the lost one.
    requests = await client.submit_multiple_jobs(jobs)
    assert [request.result for request in requests] == [job["data"] for job in jobs]
    await kit.eventually(lambda: [c.connected for c in worker.connection_list] == [True, False])
    await other.start()
    await kit.eventually(lambda: all(c.connected for c in worker.connection_list))
    only = await kit.client(other.address)
    assert (await only.submit_job(task, b"back")).result == b"back"


# Messages of callbacks.


@pytest.mark.both_servers
async def test_messages_of_callbacks_reach_the_client(kit: Kit, server: Server, task: str) -> None:
    """Send messages from a plain callback and, if the adapter has them, from an async one."""

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


def not_taken(worker: Any, job: WorkerJob) -> list[Callable[[], Any]]:
    """Return calls whose packets no server would accept."""
    return [
        functools.partial(worker.send_job_status, job, "1\0", "2"),
        functools.partial(worker.send_job_status, job, "1", "1" * 12),
        functools.partial(worker.send_job_data, job, 5),
        functools.partial(worker.send_job_warning, job, None),
        functools.partial(worker.send_job_exception, job, 5),
        functools.partial(worker.send_job_complete, job, 5),
    ]


async def test_invalid_updates_are_refused(kit: Kit, server: Server, task: str) -> None:
    refused: list[type[Exception]] = []

    def plain(worker: Any, job: WorkerJob) -> Any:
        for send in not_taken(worker, job):
            with pytest.raises((LocalProtocolError, TypeError)) as caught:
                send()
            refused.append(caught.type)
        return b"alive"

    async def awaiting(worker: Any, job: WorkerJob) -> Any:
        for send in not_taken(worker, job):
            with pytest.raises((LocalProtocolError, TypeError)) as caught:
                await send()
            refused.append(caught.type)
        return b"alive"

    client = await kit.client(server.address)
    tasks = {f"{task}-plain": plain, f"{task}-awaiting": kit.callback(awaiting)}
    await kit.start_worker(server.address, tasks=tasks)
    for name in tasks:
        request = await client.submit_job(name, b"")
        assert (request.result, request.status) == (b"alive", {})
        assert [len(request.data_updates), len(request.warning_updates)] == [0, 0]
        assert refused == [LocalProtocolError] * 2 + [TypeError] * 4
        refused.clear()


def all_sends(worker: Any, job: WorkerJob) -> list[Callable[[], Any]]:
    """Return one call of each method that sends something about a job."""
    return [
        functools.partial(worker.send_job_status, job, 1, 2),
        functools.partial(worker.send_job_data, job, b""),
        functools.partial(worker.send_job_warning, job, b""),
        functools.partial(worker.send_job_complete, job, b""),
        functools.partial(worker.send_job_failure, job),
        functools.partial(worker.send_job_exception, job, b""),
    ]


async def test_nothing_is_sent_after_the_end(kit: Kit, server: Server, task: str) -> None:
    refused: list[str] = []
    finished = threading.Event()

    def plain(worker: Any, job: WorkerJob) -> None:
        worker.send_job_complete(job, b"done")
        for send in all_sends(worker, job):
            with pytest.raises(InvalidWorkerState) as caught:
                send()
            refused.append(str(caught.value).partition(" has ")[2])
        finished.set()

    async def awaiting(worker: Any, job: WorkerJob) -> None:
        await worker.send_job_complete(job, b"done")
        for send in all_sends(worker, job):
            with pytest.raises(InvalidWorkerState) as caught:
                await send()
            refused.append(str(caught.value).partition(" has ")[2])
        finished.set()

    client = await kit.client(server.address)
    tasks = {f"{task}-plain": plain, f"{task}-awaiting": kit.callback(awaiting)}
    await kit.start_worker(server.address, tasks=tasks)
    for name in (*tasks, *tasks):
        request = await client.submit_job(name, b"")
        assert (request.result, len(request.data_updates)) == (b"done", 0)
        await kit.wait_for(finished)
        assert refused == ["ended"] * 6
        # The connection still works.
        finished.clear()
        refused.clear()


# Ends of jobs.


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

# Logged exception types of callbacks that raise after their job has ended.
LATE = {
    "completes and raises": "ZeroDivisionError",
    "completes twice": "InvalidWorkerState",
    "exception and failure": "InvalidWorkerState",
}
# Callback, data of the job, and expected messages. Bytes are the text of the raised exception.
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
    "completes with None": (
        *(lambda worker, job: worker.send_job_complete(job, None), b"in"),
        [WorkComplete(b"H:1", b"")],
    ),
    "completes and raises": (complete_and_raise, b"in", [WorkComplete(b"H:1", b"done")]),
    "completes twice": (complete_twice, b"in", [WorkComplete(b"H:1", b"done")]),
    "fails and returns": (fail_and_return, b"in", [WorkFail(b"H:1")]),
    "exception and failure": (exception_and_fail, b"in", [WorkException(b"H:1", b"why")]),
    "raises after data": (data_and_raise, b"in", [WorkData(b"H:1", b"part"), b"KeyError: 'x'"]),
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
    callback, data, ends = ENDS[how]
    server = start_server(give(data, b"second"))
    tasks = {"task": lambda worker, job: (echo, callback)[job.handle == "H:1"](worker, job)}
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
    for end in ends:
        if not isinstance(end, bytes):
            expected.append(end)
        elif exceptions:
            expected.append(WorkException(b"H:1", end))
        else:
            expected += [WorkWarning(b"H:1", end), WorkFail(b"H:1")]
    events = about_jobs(server)
    # With two slots, the jobs can end in any order.
    events.remove(last)
    assert events == expected
    raised = {end.partition(b":")[0].decode() for end in ends if isinstance(end, bytes)}
    logged = {
        record.exc_info[0].__name__
        for record in caplog.records
        if record.exc_info and record.exc_info[0] and record.exc_info[2]
    }
    assert logged == raised | ({LATE[how]} if how in LATE else set())


async def test_exception_text_refused_by_the_encoder_is_sent_raw(
    kit: Kit, start_server: StartServer
) -> None:
    """Send the exception's text unencoded."""

    class Numbers(DataEncoder):
        @classmethod
        def encode(cls, encodable_object: int) -> bytes:
            return b"%d" % encodable_object

        @classmethod
        def decode(cls, decodable_string: bytes) -> int:
            return int(decodable_string)

    server = start_server(give(b"0", b"2"))
    worker = await kit.make_worker(
        server.address, tasks={"task": lambda worker, job: 10 // job.data}
    )
    worker.data_encoder = Numbers
    await kit.work(worker)
    await kit.eventually(lambda: WorkComplete(b"H:2", b"5") in server.events)
    warning, *others = about_jobs(server)
    assert others == [WorkFail(b"H:1"), WorkComplete(b"H:2", b"5")]
    assert isinstance(warning, WorkWarning)
    assert warning.data.startswith(b"ZeroDivisionError: ")


async def test_job_of_an_unknown_task_fails(kit: Kit, start_server: StartServer) -> None:
    server = start_server(give(b"1"))
    await kit.start_worker(server.address, tasks={"another": reverse})
    expected = [WorkWarning(b"H:1", b"KeyError: 'task'"), WorkFail(b"H:1")]
    await kit.eventually(lambda: about_jobs(server) == expected)


async def test_garbage_from_a_server_causes_a_reconnect(
    kit: Kit, start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Drop the connection, then reconnect."""

    def script(peer: Peer) -> None:
        if len(server.peers) > 1:
            give(b"ab")(peer)
        peer.expect(CanDo)
        peer.expect(GrabJobUniq)
        peer.send(NoJob())
        peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        peer.hold()

    server = start_server(script)
    await kit.start_worker(server.address, tasks={"task": reverse})
    await kit.eventually(lambda: about_jobs(server) == [WorkComplete(b"H:1", b"ba")])
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "no connection to 127.0.0.1:" in warning.getMessage()


@pytest.mark.both_servers
async def test_sleeping_worker_is_woken_at_once(kit: Kit, server: Server, task: str) -> None:
    """Wake the worker by the server's NOOP, not by polling the queue."""
    client = await kit.client(server.address)
    worker = await kit.make_worker(server.address, tasks={task: reverse}, look_again=1000)
    await kit.work(worker, poll_timeout=None)
    for number in range(20):
        request = await client.submit_job(task, b"%d" % number, poll_timeout=PATIENCE)
        assert request.complete


async def test_big_job(kit: Kit, server: Server, task: str) -> None:
    def function(worker: Any, job: WorkerJob) -> Any:
        worker.send_job_data(job, job.data)
        return job.data[::-1]

    client = await kit.client(server.address)
    await kit.start_worker(server.address, tasks={task: function})
    data = b"a" * 2_000_000 + b"b" * 2_000_000
    request = await client.submit_job(task, data)
    assert request.result == data[::-1]
    assert list(request.data_updates) == [data]


@pytest.mark.parametrize("exceptions", [False, True], ids=["plain", "exceptions"])
async def test_exception_reaches_the_client_and_the_log(
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
    # This encoder can encode None.
    none = await client.submit_job(task, None)
    assert (none.state, none.result) == ("COMPLETE", None)
    assert kit.gearman.GearmanWorker.data_encoder is not encoder
