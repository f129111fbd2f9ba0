"""Callbacks, servers and worker processes that fail: each job ends once, and the work goes on."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import ServerUnavailable
from gearman_proto.wire.events import (
    CanDo,
    EchoReq,
    EchoRes,
    Event,
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
from gearman_sync import GearmanClient, GearmanWorker, WorkerJob
from tests.support import (
    PATIENCE,
    FakeServer,
    Gearmand,
    Peer,
    eventually,
    free_port,
    wait_for,
)

from .support import EmbeddedServer, Script, Working, wait_for_leader

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeClient = Callable[..., GearmanClient]
    MakeWorker = Callable[..., GearmanWorker]
    StartServer = Callable[..., FakeServer]
    StartScript = Callable[..., Script]
    Server = Gearmand | EmbeddedServer
    Launch = Callable[[], Server]
    Work = Callable[..., Working]

WORK = (WorkComplete, WorkFail, WorkException, WorkData, WorkStatus, WorkWarning)


def reverse(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data[::-1]


def give(*jobs: bytes) -> Callable[[Peer], None]:
    """A scripted server's script: give these jobs, one after the other, and then none."""

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


def send_for_ever(worker: GearmanWorker, job: WorkerJob) -> None:
    """Send until it raises: what is sent just after a server's death may be gone unseen."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        worker.send_job_data(job, b"x")


def about_jobs(server: FakeServer) -> list[Event]:
    """What a worker has sent about its jobs."""
    return [event for event in server.events if isinstance(event, WORK)]


# Callbacks that fail.


class NoNone(gearman.DataEncoder):
    """An encoder that has no form for None, and can't read everything."""

    @classmethod
    def encode(cls, encodable_object: str) -> bytes:
        return encodable_object.encode("ascii")

    @classmethod
    def decode(cls, decodable_string: bytes) -> str:
        return decodable_string.decode("ascii")


def raise_error(worker: GearmanWorker, job: WorkerJob) -> Any:
    raise ZeroDivisionError("too\nbad")


def complete_and_raise(worker: GearmanWorker, job: WorkerJob) -> Any:
    worker.send_job_complete(job, "done")
    raise ZeroDivisionError("afterwards")


def complete_twice(worker: GearmanWorker, job: WorkerJob) -> Any:
    worker.send_job_complete(job, "done")
    worker.send_job_complete(job, "again")


def fail_and_return(worker: GearmanWorker, job: WorkerJob) -> Any:
    worker.send_job_failure(job)
    return "well"


def exception_and_fail(worker: GearmanWorker, job: WorkerJob) -> Any:
    worker.send_job_exception(job, "why")
    worker.send_job_failure(job)


def data_and_raise(worker: GearmanWorker, job: WorkerJob) -> Any:
    worker.send_job_data(job, "part")
    raise KeyError("x")


def failure(text: bytes) -> list[Event]:
    return [WorkWarning(b"H:1", text), WorkFail(b"H:1")]


UNENCODABLE = (
    b"'ascii' codec can't encode character '\\xfc' in position 0: ordinal not in range(128)"
)
UNDECODABLE = b"'ascii' codec can't decode byte 0xff in position 0: ordinal not in range(128)"

# What a callback does: its payload, what is on the wire, and the error in the log.
CALLBACKS: dict[str, tuple[Callable[..., Any], bytes, list[Event], str | None]] = {
    "none": (lambda worker, job: None, b"", [WorkComplete(b"H:1", b"")], None),
    "raises": (raise_error, b"", failure(b"ZeroDivisionError: too\nbad"), "ZeroDivisionError"),
    "not encodable": (
        lambda worker, job: "ü",
        b"",
        failure(b"UnicodeEncodeError: " + UNENCODABLE),
        "UnicodeEncodeError",
    ),
    "of a wrong type": (
        lambda worker, job: 5,
        b"",
        failure(b"AttributeError: 'int' object has no attribute 'encode'"),
        "AttributeError",
    ),
    "not decodable": (
        reverse,
        b"\xff",
        failure(b"UnicodeDecodeError: " + UNDECODABLE),
        "UnicodeDecodeError",
    ),
    "not decodable, and not read": (
        lambda worker, job: "fine",
        b"\xff",
        [WorkComplete(b"H:1", b"fine")],
        None,
    ),
    "completes and raises": (
        complete_and_raise,
        b"",
        [WorkComplete(b"H:1", b"done")],
        "ZeroDivisionError",
    ),
    "completes twice": (
        complete_twice,
        b"",
        [WorkComplete(b"H:1", b"done")],
        "InvalidWorkerState",
    ),
    "fails and returns": (fail_and_return, b"", [WorkFail(b"H:1")], None),
    "exception and failure": (
        exception_and_fail,
        b"",
        [WorkException(b"H:1", b"why")],
        "InvalidWorkerState",
    ),
    "data and raises": (
        data_and_raise,
        b"",
        [WorkData(b"H:1", b"part"), *failure(b"KeyError: 'x'")],
        "KeyError",
    ),
    "exits": (
        lambda worker, job: sys.exit(3),
        b"",
        failure(b"SystemExit: 3"),
        "SystemExit",
    ),
}


@pytest.mark.parametrize(
    ("what", "max_jobs"),
    # In the thread that calls `work`, it is the program that exits.
    [
        (what, max_jobs)
        for what in CALLBACKS
        for max_jobs in (1, 2)
        if (what, max_jobs) != ("exits", 1)
    ],
)
def test_one_end_per_job(
    start_server: StartServer,
    make_worker: MakeWorker,
    work: Work,
    caplog: pytest.LogCaptureFixture,
    what: str,
    max_jobs: int,
) -> None:
    """And the next job is done, too."""
    callback, payload, sent, error = CALLBACKS[what]

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        return callback(worker, job) if job.handle == "H:1" else "next"

    server = start_server(give(payload, b"next"))
    worker = make_worker(server.address, tasks={"task": function}, max_jobs=max_jobs)
    worker.data_encoder = NoNone
    working = work(worker)
    eventually(lambda: WorkComplete(b"H:2", b"next") in server.events)
    worker.stop()
    working.end()
    events = about_jobs(server)
    events.remove(WorkComplete(b"H:2", b"next"))
    assert events == sent
    tracebacks = [record.exc_info for record in caplog.records if record.exc_info]
    if error is None:
        assert not tracebacks
    else:
        ((kind, _, traceback),) = tracebacks
        assert kind is not None
        assert kind.__name__ == error
        assert traceback is not None


@pytest.mark.parametrize("max_jobs", [1, 2])
def test_exceptions(
    start_server: StartServer, make_worker: MakeWorker, work: Work, max_jobs: int
) -> None:
    """WORK_EXCEPTION alone."""
    server = start_server(give(b"1", b"2"))
    worker = make_worker(
        server.address, tasks={"task": raise_error}, max_jobs=max_jobs, exceptions=True
    )
    work(worker)
    text = b"ZeroDivisionError: too\nbad"
    eventually(lambda: len(about_jobs(server)) == 2)
    for handle in (b"H:1", b"H:2"):
        assert WorkException(handle, text) in about_jobs(server)


def test_text_that_the_encoder_does_not_take(
    start_server: StartServer, make_worker: MakeWorker, work: Work
) -> None:
    class Numbers(gearman.DataEncoder):
        @classmethod
        def encode(cls, encodable_object: int) -> bytes:
            return b"%d" % encodable_object

        @classmethod
        def decode(cls, decodable_string: bytes) -> int:
            return int(decodable_string)

    server = start_server(give(b"0", b"2"))
    worker = make_worker(server.address, tasks={"task": lambda worker, job: 10 // job.data})
    worker.data_encoder = Numbers
    work(worker)
    eventually(lambda: WorkComplete(b"H:2", b"5") in server.events)
    events = about_jobs(server)
    assert events[1:] == [WorkFail(b"H:1"), WorkComplete(b"H:2", b"5")]
    assert isinstance(events[0], WorkWarning)
    assert events[0].data.startswith(b"ZeroDivisionError: ")


@pytest.mark.parametrize("exceptions", [False, True])
def test_what_the_client_sees(
    server: Server, make_client: MakeClient, work: Work, task: str, exceptions: bool
) -> None:
    work(server.address, tasks={task: raise_error}, exceptions=exceptions)
    text = b"ZeroDivisionError: too\nbad"
    for asks in (True, False):
        client = make_client(server.address, exceptions=asks)
        for _ in range(2):
            request = client.submit_job(task, b"")
            assert request.state == gearman.JOB_FAILED
            assert request.result is None
            assert request.exception == (text if exceptions and asks else None)
            assert list(request.warning_updates) == ([] if exceptions else [text])


def test_job_that_a_hook_leaves_open(
    start_server: StartServer, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    class Worker(GearmanWorker):
        def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
            return True

    server = start_server(give(b"1"))
    work(server.address, kind=Worker, tasks={"task": reverse})
    eventually(lambda: about_jobs(server) == [WorkFail(b"H:1")])
    assert "left without an end" in caplog.text


def test_hook_that_fails(
    start_server: StartServer, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    class Worker(GearmanWorker):
        def on_job_complete(self, current_job: WorkerJob, job_result: Any) -> bool:
            if current_job.handle == "H:1":
                raise LookupError("hook")
            return super().on_job_complete(current_job, job_result)

    server = start_server(give(b"1", b"2"))
    work(server.address, kind=Worker, tasks={"task": reverse})
    expected = [*failure(b"LookupError: hook"), WorkComplete(b"H:2", b"2")]
    eventually(lambda: about_jobs(server) == expected)
    assert "a hook failed" in caplog.text


def test_job_of_a_task_that_is_unknown(start_server: StartServer, work: Work) -> None:
    server = start_server(give(b"1"))
    work(server.address, tasks={"another": reverse})
    eventually(lambda: about_jobs(server) == failure(b"KeyError: 'task'"))


def test_job_that_takes_too_long(
    server: Server, make_client: MakeClient, make_worker: MakeWorker, work: Work, task: str
) -> None:
    """The server gives it to another, whose result counts; the late one does not."""
    slow, over = threading.Event(), threading.Event()

    def late(worker: GearmanWorker, job: WorkerJob) -> Any:
        slow.set()
        wait_for(over)
        return b"late"

    client = make_client(server.address)
    first = make_worker(server.address)
    first.register_task(task, late, timeout=0.1)
    request = client.submit_job(task, b"", wait_until_complete=False)
    working = work(first)
    wait_for(slow)
    second = work(server.address, tasks={task: lambda worker, job: b"in time"})
    client.wait_until_jobs_completed([request])
    assert request.result == b"in time"
    second.worker.stop()
    second.end()
    over.set()
    # It goes on.
    assert client.submit_job(task, b"").result == b"late"
    assert not working.call.done()


# Workers that die.


_WORKER = """
import sys, time
import gearman_sync as gearman

def function(worker, job):
    print("begun", flush=True)
    time.sleep(60)

host, task = sys.argv[1:]
worker = gearman.GearmanWorker([host])
worker.register_task(task, function)
worker.work()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no SIGKILL")
def test_killed_in_the_middle_of_a_job(
    server: Server, make_client: MakeClient, work: Work, start_script: StartScript, task: str
) -> None:
    client = make_client(server.address)
    request = client.submit_job(task, b"ab", wait_until_complete=False)
    script = start_script(_WORKER, "{}:{}".format(*server.address), task)
    assert script.line() == "begun"
    script.kill()
    work(server.address, tasks={task: reverse})
    client.wait_until_jobs_completed([request])
    assert request.result == b"ba"


# Servers that die.


def test_server_dies_in_the_middle_of_a_job(
    launch: Launch, make_client: MakeClient, work: Work, task: str
) -> None:
    begun, killed = threading.Event(), threading.Event()
    outcomes: list[Exception] = []

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        if job.data == b"lost":
            begun.set()
            wait_for(killed)
            with pytest.raises(ConnectionError, match="was lost") as caught:
                send_for_ever(worker, job)
            outcomes.append(caught.value)
            assert job.is_lost
        return job.data

    server = launch()
    working = work(server.address, tasks={task: function})
    lost = make_client(server.address).submit_job(task, b"lost", wait_until_complete=False)
    assert lost.state == gearman.JOB_CREATED
    wait_for(begun)
    server.kill()
    server.start()
    killed.set()
    assert make_client(server.address).submit_job(task, b"next").result == b"next"
    assert len(outcomes) == 1
    assert not working.call.done()


_TEN_WORKERS = """
import sys, threading, time
import gearman_sync as gearman

host, task = sys.argv[1:]
barrier = threading.Barrier(10)
for number in range(10):
    worker = gearman.GearmanWorker([host])
    worker.register_task(task, lambda worker, job: barrier.wait(20) and b"" or b"")
    threading.Thread(target=worker.work, daemon=True).start()
for line in sys.stdin:
    print(time.process_time(), flush=True)
"""


def test_restart_under_ten_workers(
    launch: Launch, make_client: MakeClient, start_script: StartScript, task: str
) -> None:
    """All are back within their backoff, and none spins meanwhile."""
    server = launch()
    script = start_script(_TEN_WORKERS, "{}:{}".format(*server.address), task)
    eventually(lambda: server.counts(task)[2] == 10)
    server.kill()
    before = float(script.ask())
    time.sleep(0.7)
    used = float(script.ask()) - before
    server.start()
    # Ten at once: each has to be there.
    jobs = [{"task": task, "data": b""}] * 10
    requests = make_client(server.address).submit_multiple_jobs(jobs, poll_timeout=PATIENCE)
    assert all(request.complete for request in requests)
    assert used < 0.3


def test_one_of_two_servers_dies(
    launch: Launch, make_client: MakeClient, work: Work, task: str
) -> None:
    servers = [launch(), launch()]
    begun = threading.Barrier(3)
    go_on = threading.Event()

    def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        if job.data == b"wait":
            begun.wait(PATIENCE)
            wait_for(go_on)
        return job.data

    working = work(*[server.address for server in servers], tasks={task: function}, max_jobs=2)
    clients = [make_client(server.address) for server in servers]
    held = [client.submit_job(task, b"wait", wait_until_complete=False) for client in clients]
    begun.wait(PATIENCE)
    servers[0].kill()
    clients[0].wait_until_jobs_completed(held[:1])
    assert held[0].state == gearman.JOB_UNKNOWN
    # The other's job goes on, and its next.
    go_on.set()
    clients[1].wait_until_jobs_completed(held[1:])
    assert held[1].result == b"wait"
    assert clients[1].submit_job(task, b"1").result == b"1"
    servers[0].start()
    assert clients[0].submit_job(task, b"0").result == b"0"
    assert [server.connected for server in working.worker.connection_list] == [True, True]


@pytest.mark.parametrize("max_jobs", [1, 2])
def test_no_server(
    start_gearmand: Callable[..., Gearmand],
    make_client: MakeClient,
    make_worker: MakeWorker,
    work: Work,
    task: str,
    max_jobs: int,
) -> None:
    ports = [free_port(), free_port()]
    worker = make_worker(
        *[("127.0.0.1", port) for port in ports], tasks={task: reverse}, max_jobs=max_jobs
    )
    for _ in range(2):
        with pytest.raises(ServerUnavailable, match="refused") as caught:
            worker.work()
        assert all(str(port) in str(caught.value) for port in ports)
    server = start_gearmand(port=ports[1])
    work(worker)
    assert make_client(server.address).submit_job(task, b"ab").result == b"ba"


def test_no_servers_at_all(make_worker: MakeWorker) -> None:
    with pytest.raises(ServerUnavailable, match="host list"):
        make_worker().work()


def test_server_that_only_accepts(start_server: StartServer, make_worker: MakeWorker) -> None:
    server = start_server(lambda peer: None)
    with pytest.raises(ServerUnavailable):
        make_worker(server.address, tasks={"task": reverse}).work()


@pytest.mark.parametrize("max_jobs", [1, 2])
def test_outage(
    launch: Launch,
    make_client: MakeClient,
    make_worker: MakeWorker,
    work: Work,
    task: str,
    max_jobs: int,
) -> None:
    server = launch()
    worker = make_worker(server.address, tasks={task: reverse}, max_outage=0.2, max_jobs=max_jobs)
    working = work(worker)
    client = make_client(server.address)
    assert client.submit_job(task, b"ab").result == b"ba"
    wait_for_leader(worker)
    before = time.monotonic()
    server.kill()
    with pytest.raises(ServerUnavailable, match=str(server.port)):
        working.end()
    assert time.monotonic() - before >= 0.2
    server.start()
    work(worker)
    assert client.submit_job(task, b"ab").result == b"ba"


def test_garbage(start_server: StartServer, make_client: MakeClient, work: Work) -> None:
    """It costs the connection, and the server is used again."""

    def script(peer: Peer) -> None:
        if len(server.peers) == 1:
            peer.expect(CanDo)
            peer.expect(GrabJobUniq)
            peer.send(NoJob())
            peer.send_raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.hold()
        give(b"ab")(peer)

    server = start_server(script)
    work(server.address, tasks={"task": reverse})
    eventually(lambda: about_jobs(server) == [WorkComplete(b"H:1", b"ba")])


def test_server_that_does_not_answer(
    start_server: StartServer, make_client: MakeClient, gearmand: Gearmand, work: Work, task: str
) -> None:
    """It does not keep the slot, and does not hold up stopping for long."""
    silent = start_server(Peer.hold)
    working = work(silent.address, gearmand.address, tasks={task: reverse})
    client = make_client(gearmand.address)
    for _ in range(3):
        assert client.submit_job(task, b"ab", poll_timeout=PATIENCE).result == b"ba"
    working.worker.stop()
    working.end()
