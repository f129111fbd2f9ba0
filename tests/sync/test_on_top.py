"""Calls nested in another call, made by a signal handler or a finalizer."""

from __future__ import annotations

import _thread
import gc
import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidClientState
from gearman_proto.wire.packets import JobCreated
from gearman_sync import GearmanClient, GearmanWorker, JobServer, WorkerJob
from gearman_sync.testing import Gate
from tests.support import PATIENCE, Gearmand, deadlines_of, eventually, spawn
from tests.support.injecting import every_place

from .support import signal_handler, signalled, wait_for_followers, wait_for_leader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .support import MakeClient, MakeWorker, StartWorker, Work


def submit_slow(client: GearmanClient, task: str, *handle: Callable[[], object]) -> None:
    """Submit a job that ends when the gate opens, and call `handle` while its call leads."""
    with signalled(lambda: [each() for each in handle], lambda: wait_for_leader(client)):
        assert client.submit_job(f"{task}-slow", b"slow").result == b"slow"


# The thread is the leader.


def test_calls_on_top_of_the_leader(
    client: GearmanClient, make_client: MakeClient, gearmand: Gearmand, task: str, gate: Gate
) -> None:
    other = make_client(gearmand.address)
    seen: list[Any] = []

    def handle() -> None:
        seen.append(other.submit_job(task, b"other").result)
        seen.append(client.submit_job(task, b"in between").result)
        jobs = [{"task": task, "data": b"a"}, {"task": task, "data": b"b"}]
        requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
        seen.append({request.result for request in client.as_completed(requests)})
        seen.append(client.get_job_status(requests[0]).status["known"])

    submit_slow(client, task, handle, gate.open.set)
    assert seen == [b"other", b"in between", {b"a", b"b"}, False]
    assert not client._gm_driver.engine._waits


def test_data_for_the_leader_received_by_a_nested_call_ends_its_sleep(
    client: GearmanClient, task: str, gate: Gate
) -> None:
    """The nested call reads the leader's data, and no later data would end the leader's sleep."""

    def handle() -> None:
        waiting: Any = client._gm_driver._leadership._leading
        client.poll_connections_until_stopped([], lambda activity: not waiting.ready)

    submit_slow(client, task, gate.open.set, handle)


@pytest.mark.slow
@pytest.mark.parametrize(("outer", "inner"), [(1.0, 0.5), (0.5, 1.0)])
def test_nested_calls_have_independent_deadlines(
    client: GearmanClient, task: str, outer: float, inner: float
) -> None:
    """Each call has its own deadline. The outer call ends after the inner one."""
    seen: list[bool] = []

    def handle() -> None:
        seen.append(client.submit_job(task, b"", poll_timeout=inner).timed_out)

    begun = time.monotonic()
    with signalled(handle, lambda: wait_for_leader(client)):
        assert client.submit_job(task, b"", poll_timeout=outer).timed_out
    assert seen == [True]
    assert max(outer, inner) <= time.monotonic() - begun < PATIENCE / 2


@pytest.mark.parametrize("leads", [True, False])
def test_signal_just_before_the_sleep_is_handled_promptly(
    client: GearmanClient, task: str, gate: Gate, leads: bool
) -> None:
    """Such a signal does not interrupt the system call, nor does a simulated signal."""
    told: list[float] = []
    if not leads:
        spawn(client.submit_job, f"{task}-slow", b"first")
        wait_for_leader(client)

    def tell() -> None:
        wait_for_leader(client)
        if not leads:
            wait_for_followers(client, 1)
        told.append(time.monotonic())
        _thread.interrupt_main(signal.SIGUSR1)

    def go_on() -> None:
        told.append(time.monotonic())
        gate.open.set()

    with signal_handler(go_on):
        call = spawn(tell)
        assert client.submit_job(f"{task}-slow", b"slow").result == b"slow"
        call.result(PATIENCE)
    assert told[1] - told[0] < PATIENCE / 2


def test_shutdown_on_top_of_the_leader(client: GearmanClient, task: str) -> None:
    def handle() -> None:
        client.shutdown()
        with pytest.raises(InvalidClientState, match="shut down"):
            client.submit_job(task, b"")

    request = client.submit_job(task, b"", wait_until_complete=False)
    with signalled(handle, lambda: wait_for_leader(client)):
        client.wait_until_jobs_completed([request])
    assert request.state == gearman.JOB_UNKNOWN
    assert not client._gm_driver._poller.is_open


def test_shutdown_in_another_thread_ends_both(client: GearmanClient, task: str) -> None:
    requests = [client.submit_job(task, b"", wait_until_complete=False) for _ in range(2)]
    leadership = client._gm_driver._leadership

    def end() -> None:
        eventually(lambda: leadership.depth == 2 and leadership.sleeping_until is not None)
        client.shutdown()

    def handle() -> None:
        ending = spawn(end)
        client.wait_until_jobs_completed(requests[:1])
        ending.result(PATIENCE)

    with signalled(handle, lambda: wait_for_leader(client)):
        client.wait_until_jobs_completed(requests[1:])
    assert [request.state for request in requests] == [gearman.JOB_UNKNOWN] * 2
    assert not client._gm_driver._poller.is_open


# The thread is a follower.


def test_leadership_passes_to_a_call_on_top_of_a_follower(
    client: GearmanClient, start_worker: StartWorker, gearmand: Gearmand, task: str
) -> None:
    gates = {name: Gate() for name in (b"leader", b"follower", b"on top")}
    for _ in gates:
        start_worker(gearmand.address, {task: lambda job: gates[job.data](job)})
    seen: list[Any] = []
    leader = spawn(client.submit_job, task, b"leader")
    wait_for_leader(client)

    def open_gates() -> None:
        wait_for_followers(client, 2)
        gates[b"leader"].open.set()
        assert leader.result(PATIENCE).result == b"leader"
        wait_for_followers(client, 1)
        gates[b"on top"].open.set()

    def handle() -> None:
        opening = spawn(open_gates)
        seen.append(client.submit_job(task, b"on top").result)
        opening.result(PATIENCE)
        gates[b"follower"].open.set()

    with signalled(handle, lambda: wait_for_followers(client, 1)):
        assert client.submit_job(task, b"follower").result == b"follower"
    assert seen == [b"on top"]


# The thread runs the engine.


@pytest.fixture
def on_job_created(
    client: GearmanClient, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], object]], None]:
    """A function that has a function called once, where the engine handles JOB_CREATED."""
    handlers = client._gm_driver.engine._reply_handler._handlers

    def prepare(function: Callable[[], object]) -> None:
        real = handlers[JobCreated]

        def handle(link: Any, event: Any) -> None:
            monkeypatch.setitem(handlers, JobCreated, real)
            real(link, event)
            function()

        monkeypatch.setitem(handlers, JobCreated, handle)

    return prepare


def test_a_call_inside_is_refused(
    client: GearmanClient,
    make_client: MakeClient,
    gearmand: Gearmand,
    task: str,
    gate: Gate,
    on_job_created: Any,
) -> None:
    other = make_client(gearmand.address)
    seen: list[Any] = []

    def handle() -> None:
        seen.append(other.submit_job(task, b"other").result)
        request = gearman.GearmanJobRequest.from_handle("H:host:1")
        calls = (
            lambda: client.submit_job(task, b""),
            lambda: client.get_job_status(request),
            lambda: list(client.as_completed([request])),
            lambda: client.poll_connections_until_stopped([], lambda activity: True),
        )
        for call in calls:
            with pytest.raises(InvalidClientState, match="in the middle of another call"):
                call()

    on_job_created(handle)
    assert client.submit_job(task, b"outer").result == b"outer"
    assert seen == [b"other"]
    assert not client._gm_driver.engine._waits


def test_a_finalizer_inside_is_refused_and_one_in_the_sleep_is_not(
    client: GearmanClient,
    task: str,
    gate: Gate,
    on_job_created: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    class Cycle:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            try:
                seen.append(client.submit_job(task, b"finalizer", poll_timeout=PATIENCE).result)
            except InvalidClientState:
                seen.append("refused")

    def collect() -> None:
        Cycle()
        gc.collect()

    on_job_created(collect)
    assert client.submit_job(task, b"outer").result == b"outer"
    assert seen == ["refused"]
    selector: Any = client._gm_driver._poller.selector
    select = selector.select

    def collect_and_select(timeout: float | None = None) -> Any:
        if timeout != 0 and len(seen) == 1:
            collect()
        return select(timeout)

    monkeypatch.setattr(selector, "select", collect_and_select)
    assert client.submit_job(task, b"outer").result == b"outer"
    assert seen[1:] == [b"finalizer"]


def test_stream_collected_inside_is_ended(
    client: GearmanClient, task: str, gate: Gate, on_job_created: Any
) -> None:
    """Its finalizer runs in the thread that holds the lock."""
    jobs = [{"task": task, "data": b"data"}] * 2
    requests = client.submit_multiple_jobs(jobs, wait_until_complete=False)
    gc.disable()
    try:
        stream = client.as_completed(requests)
        assert next(stream).result == b"data"
        cycle: list[object] = [stream]
        cycle.append(cycle)
        del stream, cycle
        on_job_created(gc.collect)
        assert client.submit_job(task, b"after").result == b"after"
    finally:
        gc.enable()
    client.wait_until_jobs_completed(requests)
    assert not client._gm_driver.engine._waits


def test_shutdown_inside_closes_everything(
    client: GearmanClient, task: str, on_job_created: Any
) -> None:
    on_job_created(client.shutdown)
    assert client.submit_job(task, b"").state == gearman.JOB_UNKNOWN
    assert not client._gm_driver._poller.is_open


# Every place where CPython checks for signals.


def reply(worker: GearmanWorker, job: WorkerJob) -> Any:
    return job.data


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    with JobServer() as server:
        yield server.address


@pytest.mark.slow
@pytest.mark.parametrize("beside_another", [False, True])
def test_nested_call_at_every_place_succeeds_or_is_refused(
    address: tuple[str, int], make_client: MakeClient, work: Work, beside_another: bool
) -> None:
    """The nested call succeeds or is refused. It never hangs or affects the outer call."""
    work(address, tasks={"echo": reply})
    client = make_client(address)
    client.submit_job("echo", b"")
    seen = {"made": 0, "refused": 0}
    over = threading.Event()

    def call() -> None:
        try:
            request = client.submit_job("echo", b"on top", poll_timeout=PATIENCE)
        except InvalidClientState:
            seen["refused"] += 1
        else:
            assert request.result == b"on top"
            seen["made"] += 1

    def go_on() -> None:
        while beside_another and not over.is_set():
            assert client.submit_job("echo", b"beside").result == b"beside"

    partner = spawn(go_on)
    for at in every_place(call):
        with at:
            request = client.submit_job("echo", b"beneath", poll_timeout=PATIENCE)
        assert request.result == b"beneath", at.where
    over.set()
    partner.result(PATIENCE)
    assert min(seen.values()) > 20
    assert not client._gm_driver.engine._waits
    assert not deadlines_of(client._gm_driver.engine)


@pytest.mark.slow
@pytest.mark.parametrize(("max_jobs", "step"), [(1, 2), (3, 4)])
def test_a_worker_is_told_at_every_place(
    address: tuple[str, int],
    make_client: MakeClient,
    make_worker: MakeWorker,
    max_jobs: int,
    step: int,
) -> None:
    client = make_client(address)
    worker = make_worker(address, tasks={"echo": reply, "0": reply}, max_jobs=max_jobs)
    worker.after_job = lambda: False  # type: ignore[method-assign]
    engine = worker._gm_driver.engine
    count = 0

    def tell() -> None:
        nonlocal count
        count += 1
        worker.register_task(f"{count % 2}", reply)
        worker.unregister_task(f"{1 - count % 2}")
        worker.set_client_id(f"{count}")

    for at in every_place(tell, step):
        request = client.submit_job("echo", b"job", wait_until_complete=False)
        with at:
            worker.work()
        client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert request.result == b"job", at.where
        worker._gm_driver.apply(lambda _engine, _now: None)
        assert set(engine._abilities) == {b"echo", b"%d" % (count % 2)}, at.where
        assert engine._client_id == (b"%d" % count if count else None), at.where
    assert count > 500 / step


class Submitting(logging.Handler):
    """A log handler that submits each record as a job, as a nested call of `client`."""

    def __init__(self, client: GearmanClient, task: str) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self._client = client
        self._task = task

    def emit(self, record: logging.LogRecord) -> None:
        self.requests.append(self._client.submit_job(self._task, record.getMessage()))


def test_log_handler_can_use_the_waiting_client(
    make_client: MakeClient,
    start_worker: StartWorker,
    gearmand: Gearmand,
    task: str,
    gate: Gate,
) -> None:
    client = make_client(gearmand.address, warn_after=1.0)
    handler = Submitting(client, task)
    logger = logging.getLogger("gearman")
    logger.addHandler(handler)
    try:
        late = spawn(client.submit_job, f"{task}-late", b"late")
        eventually(lambda: handler.requests, "the warning")
        start_worker(gearmand.address, {f"{task}-late": gate})
        gate.open.set()
        assert late.result(PATIENCE).result == b"late"
    finally:
        logger.removeHandler(handler)
    (request,) = handler.requests
    assert b"no worker of" in request.result
