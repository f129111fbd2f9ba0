"""Systems without free threads or memory: only the operation that needs them fails."""

from __future__ import annotations

import _thread
import importlib.util
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import pytest

import gearman_sync as gearman
from gearman_proto.errors import ConnectionError
from gearman_sync import GearmanClient, GearmanWorker, JobServer, WorkerJob, _transport
from gearman_sync._transport import Transport
from gearman_sync.testing import Gate
from tests.support import PATIENCE, Gearmand, resolve_to, spawn

from .support import signal_handler, wait_for_leader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .support import MakeClient, MakeWorker, StartScript, StartWorker

#: The function of `_thread` that starts a thread for gearman_sync.
STARTS: Final = "start_joinable_thread" if sys.version_info >= (3, 13) else "start_new_thread"


def no_thread(*args: object, **options: object) -> None:
    raise RuntimeError("can't start new thread")


def no_resolver(*args: object, **options: object) -> None:
    if options.get("flags"):
        raise socket.gaierror(socket.EAI_NONAME, "not a number")
    raise KeyError("out of order")


def no_memory(*args: object, **options: object) -> None:
    raise MemoryError


@pytest.fixture
def job(
    gearmand: Gearmand, make_client: MakeClient, start_worker: StartWorker, task: str
) -> Iterator[Callable[[GearmanClient], None]]:
    """A function that begins a job at the first server of a client. It completes after the test.

    Another thread, the leader, waits for it.
    """
    gate = Gate()
    start_worker(gearmand.address, {task: gate})
    calls: list[Any] = []

    def begin(client: GearmanClient) -> None:
        first, _ = client.connection_list
        client.establish_connection(first)
        with mock.patch.object(client._gm_driver.engine.pool, "choose", return_value=first):
            request = client.submit_job(task, b"data", wait_until_complete=False)
        calls.append(spawn(client.wait_until_jobs_completed, [request]))
        wait_for_leader(client)

    yield begin
    gate.open.set()
    (request,) = calls[0].result(PATIENCE)
    assert (request.state, request.error) == (gearman.JOB_COMPLETE, None)


@pytest.mark.parametrize(
    ("where", "name", "broken", "host", "why"),
    [
        (_thread, STARTS, no_thread, "gearman.test", "can't start new thread"),
        (_transport, "QuietSocket", no_memory, "127.0.0.1", "MemoryError"),
        (socket, "getaddrinfo", no_memory, "127.0.0.1", "MemoryError"),
        (socket, "getaddrinfo", no_resolver, "gearman.test", "out of order"),
    ],
)
def test_connection_without_thread_memory_or_resolver_fails_alone(
    gearmand: Gearmand,
    make_client: MakeClient,
    job: Callable[[GearmanClient], None],
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    name: str,
    broken: object,
    host: str,
    why: str,
) -> None:
    resolve_to(monkeypatch, "gearman.test", "127.0.0.1")
    # The client treats a second name of the same server as another server.
    client = make_client(gearmand.address, (host, gearmand.port + (host[0] == "1")))
    job(client)
    with monkeypatch.context() as context:
        context.setattr(where, name, broken)
        with pytest.raises(ConnectionError, match=why):
            client.establish_connection(client.connection_list[1], poll_timeout=PATIENCE)


@pytest.mark.parametrize("name", ["read", "write"])
def test_connection_that_gets_no_memory_for_bytes_fails_alone(
    gearmand: Gearmand,
    make_client: MakeClient,
    job: Callable[[GearmanClient], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    with JobServer() as other:
        client = make_client(gearmand.address, other.address)
        bad = client.connection_list[1]
        client.establish_connection(bad)
        job(client)
        transport = client._gm_driver._poller.transports[bad.link]
        real = getattr(Transport, name)

        def broken(self: Transport, *args: Any) -> Any:
            return no_memory() if self is transport else real(self, *args)

        monkeypatch.setattr(Transport, name, broken)
        status = gearman.GearmanJobRequest.from_handle("H:host:1", bad.address)
        client.get_job_status(status, poll_timeout=PATIENCE)
        assert not status.timed_out
        assert transport.sock is None


class HandlerError(OSError):
    """Raised by signal handlers. The library handles exceptions of this kind itself."""


@pytest.mark.parametrize(("where", "name"), [(socket, "getaddrinfo"), (_transport, "QuietSocket")])
def test_exception_of_a_signal_handler_in_a_connection_step_is_raised(
    client: GearmanClient, task: str, monkeypatch: pytest.MonkeyPatch, where: object, name: str
) -> None:
    def handle() -> None:
        raise HandlerError

    with signal_handler(handle), monkeypatch.context() as context:
        context.setattr(where, name, lambda *_, **__: signal.raise_signal(signal.SIGUSR1))
        with pytest.raises(HandlerError):
            client.submit_job(task, b"", background=True)
    assert client.submit_job(task, b"", background=True).state == gearman.JOB_CREATED


def test_jobs_that_get_no_thread_wait_for_one(
    gearmand: Gearmand,
    client: GearmanClient,
    make_worker: MakeWorker,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: list[str] = []

    def function(worker: GearmanWorker, job: WorkerJob) -> bytes:
        names.append(threading.current_thread().name)
        return b"done"

    worker = make_worker(gearmand.address, tasks={task: function}, max_jobs=4)
    jobs = [{"task": task, "data": b"%d" % number} for number in range(20)]
    requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
    real = getattr(_thread, STARTS)

    def first_only(*args: Any, **options: Any) -> Any:
        context.setattr(_thread, STARTS, no_thread)
        return real(*args, **options)

    with monkeypatch.context() as context:
        # Threads of this test start in another way.
        context.setattr(_thread, STARTS, first_only)
        call = spawn(worker.work)
        client.wait_until_jobs_completed(requests)
    worker.stop()
    call.result(PATIENCE)
    assert {request.result for request in requests} == {b"done"}
    assert set(names) == {"gearman-job_1"}


def test_worker_with_several_slots_and_no_thread_takes_no_job(
    gearmand: Gearmand,
    client: GearmanClient,
    make_worker: MakeWorker,
    task: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = make_worker(gearmand.address, tasks={task: lambda worker, job: b""}, max_jobs=4)
    request = client.submit_job(task, b"", wait_until_complete=False)
    with monkeypatch.context() as context:
        context.setattr(_thread, STARTS, no_thread)
        with pytest.raises(RuntimeError, match=r"can't start new thread.*max_jobs=1"):
            worker.work()
    assert not worker.has_job_lock()
    call = spawn(worker.work)
    client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
    assert request.complete
    worker.stop()
    call.result(PATIENCE)


def test_job_server_without_a_thread_leaves_nothing_and_can_be_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = JobServer()
    with monkeypatch.context() as context:
        context.setattr(threading, "_start_new_thread", no_thread, raising=False)
        context.setattr(threading, "_start_joinable_thread", no_thread, raising=False)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            server.start()
    server.start()
    with GearmanClient([server.address]) as client:
        assert client.submit_job("task", b"", background=True).complete
    server.stop()


@pytest.mark.skipif(
    importlib.util.find_spec("_interpreters") is None
    and importlib.util.find_spec("_xxsubinterpreters") is None,
    reason="this Python has no sub-interpreters to try",
)
def test_isolated_sub_interpreter(gearmand: Gearmand, start_script: StartScript, task: str) -> None:
    """An isolated sub-interpreter has no daemon threads, and before Python 3.12 no threads at all.

    Without threads, the error says so. The program destroys the sub-interpreter before its own end,
    because Python waits for a sub-interpreter's threads only then
    (https://github.com/python/cpython/issues/128639). Otherwise, a sub-interpreter that has used
    threads crashes the process or prevents its end.
    """
    program = start_script(
        """
import sys
program = f'''
import sys
sys.path[:] = {sys.path!r}
import threading, time
import gearman_sync as gearman
threads = sys.version_info >= (3, 12)
start = threading.Thread.start

def linger(thread):
    start(thread)
    time.sleep(1)

if sys.version_info >= (3, 13):
    threading.Thread.start = linger  # The thread that starts another one ends after the program.

def submit(host):
    with gearman.GearmanClient([(host, {sys.argv[1]})]) as client:
        assert client.submit_job({sys.argv[2]!r}, b"", background=True).complete

def work(max_jobs):
    with gearman.GearmanWorker([("127.0.0.1", {sys.argv[1]})], max_jobs=max_jobs) as worker:
        worker.register_task({sys.argv[2]!r}, lambda worker, job: worker.stop())
        worker.work()

submit("127.0.0.1")
work(1)
for use, argument in ((submit, "localhost"), (work, 2)):
    try:
        submit("127.0.0.1")
        use(argument)
    except (RuntimeError, gearman.errors.ServerUnavailable) as error:
        assert not threads and "isolated subinterpreters" in str(error), error
'''
try:
    import _interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
    interpreter = interpreters.create(isolated=True)
    interpreters.run_string(interpreter, program)
    interpreters.destroy(interpreter)
else:
    interpreter = _interpreters.create("isolated")
    assert _interpreters.exec(interpreter, program) is None
    _interpreters.destroy(interpreter)
""",
        gearmand.port,
        task,
    )
    out, errors, status = program.end()
    assert (out, status) == ("", 0), errors
