"""Calls nested in another call, made by a signal handler or a finalizer."""

from __future__ import annotations

import _thread
import contextlib
import gc
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import gearman_sync as gearman
from gearman_proto.errors import InvalidClientState, InvalidWorkerState
from gearman_proto.wire.packets import JobCreated, NoJob
from gearman_sync import GearmanClient, GearmanWorker, JobServer, WorkerJob
from gearman_sync.testing import Gate, ScriptedWorker, echo
from tests.support import PATIENCE, Gearmand, deadlines_of, eventually, spawn
from tests.support.injecting import every_place

from .support import Working, wait_for_followers, wait_for_leader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    StartWorker = Callable[..., ScriptedWorker]
    MakeClient = Callable[..., GearmanClient]
    MakeWorker = Callable[..., GearmanWorker]
    Work = Callable[..., Working]

needs_signals = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="the system has no pthread_kill"
)


@contextlib.contextmanager
def handler(function: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Install `function` as a signal handler. Yield a function that triggers it in this thread."""
    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: function())
    try:
        yield lambda: signal.pthread_kill(main, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def gate(gearmand: Gearmand, start_worker: StartWorker, task: str) -> Gate:
    """A worker that holds the jobs of `task`-slow, and runs those of `task` at once."""
    held = Gate()
    start_worker(gearmand.address, {f"{task}-slow": held})
    start_worker(gearmand.address, {task: echo})
    return held


# The thread is the leader.


@needs_signals
def test_on_top_of_the_leader(client: GearmanClient, task: str, gate: Gate) -> None:
    seen: list[Any] = []

    def handle() -> None:
        seen.append(client.submit_job(task, b"in between").result)
        requests = client.submit_multiple_jobs(
            [{"task": task, "data": b"a"}, {"task": task, "data": b"b"}], wait_until_complete=False
        )
        seen.append({request.result for request in client.as_completed(requests)})
        seen.append(client.get_job_status(requests[0]).status["known"])
        gate.open.set()

    def interrupt() -> None:
        wait_for_leader(client)
        kill()

    with handler(handle) as kill:
        call = spawn(interrupt)
        assert client.submit_job(f"{task}-slow", b"slow").result == b"slow"
        call.result(PATIENCE)
    assert seen == [b"in between", {b"a", b"b"}, False]
    assert not client._gm_driver.engine._waits


@needs_signals
def test_data_for_the_leader_received_by_a_nested_call_ends_its_sleep(
    client: GearmanClient, task: str, gate: Gate
) -> None:
    """The nested call reads the leader's data, and no later data would end the leader's sleep."""

    def handle() -> None:
        gate.open.set()
        waiting = client._gm_driver._turns._leading
        client.poll_connections_until_stopped([], lambda activity: not waiting.ready)  # type: ignore[union-attr]

    def interrupt() -> None:
        wait_for_leader(client)
        kill()

    with handler(handle) as kill:
        call = spawn(interrupt)
        assert client.submit_job(f"{task}-slow", b"slow").result == b"slow"
        call.result(PATIENCE)


@pytest.mark.slow
@needs_signals
@pytest.mark.parametrize(("outer", "inner"), [(2.0, 1.0), (1.0, 2.0)])
def test_nested_calls_have_independent_deadlines(
    client: GearmanClient, task: str, outer: float, inner: float
) -> None:
    """Each call has its own deadline. The outer call ends after the inner one."""
    seen: list[bool] = []

    def interrupt() -> None:
        wait_for_leader(client)
        kill()

    with handler(
        lambda: seen.append(client.submit_job(task, b"", poll_timeout=inner).timed_out)
    ) as kill:
        call = spawn(interrupt)
        begun = time.monotonic()
        assert client.submit_job(task, b"", poll_timeout=outer).timed_out
        took = time.monotonic() - begun
        call.result(PATIENCE)
    assert seen == [True]
    assert max(outer, inner) <= took < PATIENCE / 2


@needs_signals
@pytest.mark.parametrize("leads", [True, False])
def test_signal_just_before_the_sleep_is_handled_promptly(
    client: GearmanClient, task: str, gate: Gate, leads: bool
) -> None:
    """Such a signal does not interrupt the system call, nor does a simulated signal."""
    told: list[float] = []
    first = None
    if not leads:
        first = spawn(client.submit_job, f"{task}-slow", b"first")
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

    with handler(go_on):
        call = spawn(tell)
        assert client.submit_job(f"{task}-slow", b"slow").result == b"slow"
        call.result(PATIENCE)
    if first is not None:
        assert first.result(PATIENCE).result == b"first"
    assert told[1] - told[0] < PATIENCE / 2


@needs_signals
def test_leaders_on_top_of_leaders(client: GearmanClient, task: str, gate: Gate) -> None:
    depth: list[int] = []

    def handle() -> None:
        depth.append(client._gm_driver._turns.depth)
        if len(depth) == 3:
            gate.open.set()
        else:
            call_on_top()
        assert client.submit_job(task, b"%d" % len(depth)).result is not None

    def call_on_top() -> None:
        before = client._gm_driver._turns.depth

        def interrupt() -> None:
            turns = client._gm_driver._turns
            eventually(lambda: turns.depth > before and turns.sleeping_until is not None)
            kill()

        call = spawn(interrupt)
        assert client.submit_job(f"{task}-slow", b"slow").result == b"slow"
        call.result(PATIENCE)

    with handler(handle) as kill:
        call_on_top()
    assert depth == [1, 2, 3]
    assert client._gm_driver._turns.depth == 0
    assert client.submit_job(task, b"after").result == b"after"


@needs_signals
def test_shutdown_on_top_of_the_leader(make_client: MakeClient, gearmand: Gearmand) -> None:
    client = make_client(gearmand.address)

    def handle() -> None:
        client.shutdown()
        with pytest.raises(InvalidClientState, match="shut down"):
            client.submit_job("task", b"")

    def interrupt() -> None:
        wait_for_leader(client)
        kill()

    with handler(handle) as kill:
        request = client.submit_job("nobody", b"", wait_until_complete=False)
        call = spawn(interrupt)
        client.wait_until_jobs_completed([request])
        call.result(PATIENCE)
    assert request.state == gearman.JOB_UNKNOWN
    assert not client._gm_driver._poller.is_open


@needs_signals
def test_shutdown_in_another_thread_ends_both(make_client: MakeClient, gearmand: Gearmand) -> None:
    client = make_client(gearmand.address)
    requests = [client.submit_job("nobody", b"", wait_until_complete=False) for _ in range(2)]
    turns = client._gm_driver._turns

    def interrupt() -> None:
        wait_for_leader(client)
        kill()
        eventually(lambda: turns.depth == 2 and turns.sleeping_until is not None)
        client.shutdown()

    with handler(lambda: client.wait_until_jobs_completed(requests[:1])) as kill:
        call = spawn(interrupt)
        client.wait_until_jobs_completed(requests[1:])
        call.result(PATIENCE)
    assert [request.state for request in requests] == [gearman.JOB_UNKNOWN] * 2
    assert not client._gm_driver._poller.is_open


@needs_signals
def test_another_client(
    client: GearmanClient, make_client: MakeClient, gearmand: Gearmand, task: str, gate: Gate
) -> None:
    other = make_client(gearmand.address)
    seen: list[Any] = []

    def handle() -> None:
        seen.append(other.submit_job(task, b"other").result)
        gate.open.set()

    def interrupt() -> None:
        wait_for_leader(client)
        kill()

    with handler(handle) as kill:
        call = spawn(interrupt)
        assert client.submit_job(f"{task}-slow", b"slow").result == b"slow"
        call.result(PATIENCE)
    assert seen == [b"other"]


# The thread is a follower.


@needs_signals
def test_on_top_of_a_follower(
    client: GearmanClient, start_worker: StartWorker, gearmand: Gearmand, task: str
) -> None:
    gates = {name: Gate() for name in (b"leader", b"follower", b"on top")}
    for _ in gates:
        start_worker(gearmand.address, {task: lambda job: gates[job.data](job)})
    seen: list[Any] = []
    leader = spawn(client.submit_job, task, b"leader")
    wait_for_leader(client)

    def interrupt() -> None:
        wait_for_followers(client, 1)
        kill()
        wait_for_followers(client, 2)
        # The leadership has to pass to the nested call.
        gates[b"leader"].open.set()
        assert leader.result(PATIENCE).result == b"leader"
        wait_for_followers(client, 1)
        gates[b"on top"].open.set()
        eventually(lambda: seen)
        gates[b"follower"].open.set()

    with handler(lambda: seen.append(client.submit_job(task, b"on top").result)) as kill:
        call = spawn(interrupt)
        assert client.submit_job(task, b"follower").result == b"follower"
        call.result(PATIENCE)
    assert seen == [b"on top"]


# The thread runs the engine.


def test_a_call_inside_is_refused(
    client: GearmanClient,
    make_client: MakeClient,
    gearmand: Gearmand,
    task: str,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = make_client(gearmand.address)
    engine = client._gm_driver.engine
    seen: list[Any] = []
    real = engine._answers._handlers[JobCreated]

    def handle(link: Any, event: Any) -> None:
        real(link, event)
        if not seen:
            seen.append(other.submit_job(task, b"other").result)
            request = gearman.GearmanJobRequest.from_handle("H:host:1")
            for call in (
                lambda: client.submit_job(task, b""),
                lambda: client.get_job_status(request),
                lambda: list(client.as_completed([request])),
                lambda: client.poll_connections_until_stopped([], lambda activity: True),
            ):
                with pytest.raises(InvalidClientState, match="in the middle of another call"):
                    call()

    monkeypatch.setitem(engine._answers._handlers, JobCreated, handle)
    assert client.submit_job(task, b"outer").result == b"outer"
    assert seen == [b"other"]
    assert not engine._waits


def test_a_finalizer_inside(
    client: GearmanClient, task: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    class Cycle:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            try:
                seen.append(client.submit_job(task, b"finalizer", poll_timeout=PATIENCE).result)
            except InvalidClientState as error:
                seen.append(error)

    engine = client._gm_driver.engine
    real = engine._answers._handlers[JobCreated]

    def collect(link: Any, event: Any) -> None:
        real(link, event)
        Cycle()
        gc.collect()

    monkeypatch.setitem(engine._answers._handlers, JobCreated, collect)
    assert client.submit_job(task, b"outer").result == b"outer"
    assert len(seen) == 1
    assert isinstance(seen[0], InvalidClientState)
    # The thread is the leader as well.
    monkeypatch.setitem(engine._answers._handlers, JobCreated, real)
    selector: Any = client._gm_driver._poller.selector
    select = selector.select

    def collect_and_select(timeout: float | None = None) -> Any:
        if timeout != 0 and len(seen) == 1:
            Cycle()
            gc.collect()
        return select(timeout)

    monkeypatch.setattr(selector, "select", collect_and_select)
    assert client.submit_job(task, b"outer").result == b"outer"
    assert seen[1:] == [b"finalizer"]


def test_worker_defers_calls_made_inside_the_engine(
    gearmand: Gearmand, make_client: MakeClient, make_worker: MakeWorker, task: str, work: Work
) -> None:
    """The worker defers commands until the engine returns, and refuses calls that would wait."""
    worker = make_worker(gearmand.address, tasks={f"{task}-old": lambda worker, job: None})
    engine = worker._gm_driver.engine
    real = engine._handlers[NoJob]
    told = threading.Event()

    def handle(link: Any, event: Any, now: float) -> None:
        if not told.is_set():
            told.set()
            worker.register_task(task, lambda worker, job: job.data)
            worker.unregister_task(f"{task}-old")
            worker.set_client_id(task)
            assert not engine._abilities.keys() - {f"{task}-old".encode()}
            with pytest.raises(InvalidWorkerState, match="in the middle of another call"):
                worker.work()
        real(link, event, now)

    engine._handlers[NoJob] = handle
    work(worker)
    client = make_client(gearmand.address)
    assert client.submit_job(task, b"new", poll_timeout=PATIENCE).result == b"new"
    assert told.is_set()
    assert list(engine._abilities) == [task.encode()]
    assert list(worker.worker_abilities) == [task]
    assert engine._client_id == task.encode()


def test_shutdown_inside_closes_everything(
    client: GearmanClient, task: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = client._gm_driver.engine
    real = engine._answers._handlers[JobCreated]

    def handle(link: Any, event: Any) -> None:
        real(link, event)
        client.shutdown()

    monkeypatch.setitem(engine._answers._handlers, JobCreated, handle)
    assert client.submit_job(f"{task}-slow", b"").state == gearman.JOB_UNKNOWN
    assert not client._gm_driver._poller.is_open
    gate.open.set()


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
        while not over.is_set():
            assert client.submit_job("echo", b"beside").result == b"beside"

    partner = spawn(go_on) if beside_another else None
    for at in every_place(call):
        with at:
            request = client.submit_job("echo", b"beneath", poll_timeout=PATIENCE)
        assert request.result == b"beneath", at.where
    over.set()
    if partner is not None:
        partner.result(PATIENCE)
    assert seen["made"] > 20
    assert seen["refused"] > 20
    assert not client._gm_driver.engine._waits
    assert not deadlines_of(client._gm_driver.engine)


@pytest.mark.slow
@pytest.mark.parametrize(("max_jobs", "step"), [(1, 1), (3, 3)])
def test_a_worker_is_told_at_every_place(
    address: tuple[str, int],
    make_client: MakeClient,
    make_worker: MakeWorker,
    max_jobs: int,
    step: int,
) -> None:
    class Once(GearmanWorker):
        def after_job(self) -> bool:
            return False

    client = make_client(address)
    worker = make_worker(address, kind=Once, tasks={"echo": reply}, max_jobs=max_jobs)
    engine = worker._gm_driver.engine
    worker.register_task("0", reply)
    count = 0

    def tell() -> None:
        nonlocal count
        count += 1
        worker.register_task(f"{count % 2}", reply)
        worker.unregister_task(f"{1 - count % 2}")
        worker.set_client_id(f"{count}")

    for at in every_place(tell, step):
        (request,) = client.submit_multiple_jobs(
            [{"task": "echo", "data": b"job"}], wait_until_complete=False
        )
        with at:
            worker.work()
        client.wait_until_jobs_completed([request], poll_timeout=PATIENCE)
        assert request.result == b"job", at.where
        worker._gm_driver.call(lambda _engine, _now: None)
        assert set(engine._abilities) == {b"echo", b"%d" % (count % 2)}, at.where
        assert engine._client_id == (b"%d" % count if count else None), at.where
    assert count > 500 / step
