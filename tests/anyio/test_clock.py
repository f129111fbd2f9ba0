"""Exact tests of time limits: client, worker and job server in one loop with a virtual clock.

All connections are in memory, so the clock jumps to the next deadline as soon as all tasks wait. A
day without events takes no real time, and no test depends on the speed of the machine.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import gearman_anyio as gearman
from gearman_anyio import GearmanClient, GearmanJobRequest, GearmanWorker, JobServer, WorkerJob
from gearman_anyio.testing import virtual_clock
from gearman_proto.engines.server.jobqueue import FUNCTION_SIZE
from gearman_proto.errors import ConnectionError, ServerUnavailable
from gearman_proto.wire.packets import (
    CanDo,
    GrabJobUniq,
    JobAssignUniq,
)
from tests.profiles import examples, seeds

from .scripted import Peer, give, scripted
from .support import make_worker, reverse, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from anyio.abc import ByteStream

pytestmark = pytest.mark.anyio

HOUR = 3600.0
DAY = 24 * HOUR
# Long enough for periodic events to repeat many times.
AWAY = 6 * HOUR
# A test that takes this long on the virtual clock hangs.
EVER = 30 * DAY


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop, with a virtual clock."""
    return virtual_clock(request.param)


@pytest.fixture(autouse=True)
def _no_waiting_for_ever(request: pytest.FixtureRequest) -> None:
    """A time limit on the virtual clock, so that a test that hangs fails at once."""
    function = request.node.obj
    if hasattr(function, "hypothesis"):
        return

    @functools.wraps(function)
    async def limited(**arguments: Any) -> None:
        # The scope is inside the test, because a scope around it would also cancel pytest's runner.
        with anyio.fail_after(EVER):
            await function(**arguments)

    request.node.obj = limited


@pytest.fixture
async def server(anyio_backend: Any) -> AsyncIterator[JobServer]:
    async with JobServer() as server:
        yield server


@contextlib.contextmanager
def takes(seconds: float, *, abs: float = 1e-6) -> Iterator[None]:  # noqa: A002 - as in approx
    """Check how long the block takes on the loop's clock."""
    before = anyio.current_time()
    yield
    assert anyio.current_time() - before == pytest.approx(seconds, abs=abs)


def client_of(*servers: JobServer, **options: Any) -> GearmanClient:
    """Return a client of in-memory servers."""
    connectors = {f"s{number}": server.connect for number, server in enumerate(servers)}

    async def connect(address: Any) -> ByteStream:
        return await connectors[address.host](address)

    return GearmanClient([f"{name}:1" for name in connectors], connect=connect, **options)


def worker_of(server: JobServer, *args: Any, **options: Any) -> Any:
    return make_worker("any:1", *args, connect=server.connect, **options)


async def never(address: object) -> ByteStream:
    """Connect to a server that never answers."""
    await anyio.sleep_forever()
    raise AssertionError


async def hold(peer: Peer) -> None:
    await peer.hold()


def sleeper(seconds: float) -> Callable[..., Any]:
    """Return a callback that sleeps for `seconds`."""

    async def function(worker: Any, job: WorkerJob) -> Any:
        await anyio.sleep(seconds)
        return job.data[::-1]

    return function


# The client.


async def test_poll_timeouts_of_jobs(server: JobServer) -> None:
    """Without a worker, each call ends at its time limit and marks its requests."""
    limit = HOUR
    job = {"task": "task", "data": b"ab"}
    async with client_of(server, heartbeat=None) as client:
        with takes(limit):
            request = await client.submit_job("task", b"ab", poll_timeout=limit)
        assert request.timed_out
        assert request.state == gearman.JOB_CREATED
        with takes(limit):
            requests = await client.submit_multiple_jobs([job] * 3, poll_timeout=limit)
        assert all(request.timed_out for request in requests)
        with takes(limit):
            await client.submit_multiple_requests(requests, poll_timeout=limit)
        with takes(limit):
            await client.wait_until_jobs_completed(requests, poll_timeout=limit)
        with takes(limit):
            assert [r async for r in client.as_completed(requests, poll_timeout=limit)] == []
        with takes(limit):
            assert [u async for u in client.updates(request, poll_timeout=limit)] == []
        assert all(request.timed_out for request in requests)
        # Accepting and the status need no worker, so these calls return at once.
        with takes(0):
            await client.wait_until_jobs_accepted(requests, poll_timeout=limit)
            await client.get_job_status(request, poll_timeout=limit)
        assert request.status["known"]
        polls: list[bool] = []

        def go_on(news: bool) -> bool:
            polls.append(news)
            return True

        with takes(limit):
            assert await client.poll_connections_until_stopped(
                client.connection_list, go_on, timeout=limit
            )
        assert polls == [False, False]
        # A timeout does not cancel the jobs.
        async with working(worker_of(server, tasks={"task": reverse})):
            with takes(0):
                await client.wait_until_jobs_completed([request, *requests], poll_timeout=limit)
        assert [r.result for r in [request, *requests]] == [b"ba"] * 4


async def test_concurrent_calls_end_at_their_own_time_limits(server: JobServer) -> None:
    """A hundred concurrent calls have different time limits."""
    ended: list[tuple[float, float]] = []

    async def wait(limit: float) -> None:
        with takes(limit):
            request = await client.submit_job("task", b"", poll_timeout=limit)
        assert request.timed_out
        ended.append((limit, anyio.current_time()))

    async with client_of(server) as client:
        limits = [random.Random(number).uniform(0, HOUR) for number in range(100)]
        async with anyio.create_task_group() as tasks:
            for limit in limits:
                tasks.start_soon(wait, limit)
    assert [limit for limit, _ in ended] == sorted(limits)


async def test_connect_timeout() -> None:
    limit = 10.0
    async with GearmanClient(["one:1"], connect=never, connect_timeout=limit) as client:
        for _ in range(2):
            with takes(limit), pytest.raises(ServerUnavailable, match="no connection within"):
                await client.submit_job("task", b"")
        (connection,) = client.connection_list
        with takes(limit), pytest.raises(ConnectionError, match="no connection"):
            await client.establish_connection(connection)
        # The call's time limit ends the call, but not the connection attempt.
        with takes(limit / 2):
            await client.establish_connection(connection, poll_timeout=limit / 2)
        assert not connection.connected
        with takes(limit / 2), pytest.raises(ServerUnavailable):
            await client.submit_job("task", b"")
    worker = make_worker("one:1", tasks={"task": reverse}, connect=never, connect_timeout=limit)
    with takes(limit), pytest.raises(ServerUnavailable, match="no connection within"):
        await worker.work()


# The worker.


async def test_stop_with_a_timeout(server: JobServer) -> None:
    """The callback is cancelled at exactly that time, and another worker gets the job."""
    cancelled: list[float] = []

    async def function(worker: Any, job: WorkerJob) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(anyio.current_time())

    first = worker_of(server, tasks={"task": function})
    async with client_of(server) as client, anyio.create_task_group() as tasks:
        request = await client.submit_job("task", b"ab", wait_until_complete=False)
        tasks.start_soon(first.work)
        await anyio.sleep(1000)
        async with working(worker_of(server, tasks={"task": reverse})):
            await anyio.sleep(1000)
            first.stop(timeout=60)
            begun = anyio.current_time()
            with takes(60):
                await client.wait_until_jobs_completed([request])
        assert request.result == b"ba"
    assert cancelled == [pytest.approx(begun + 60, abs=1e-6)]


async def test_server_that_does_not_answer_is_given_up() -> None:
    """Each attempt ends after half a minute."""
    times: list[float] = []

    async def script(peer: Peer) -> None:
        begun = anyio.current_time()
        try:
            if not times:
                with anyio.move_on_after(10):
                    await give()(peer)
            else:
                await peer.hold()
        finally:
            times.append(anyio.current_time() - begun)

    async with scripted(script) as silent:
        worker = make_worker(
            "any:1", tasks={"task": reverse}, max_outage=None, connect=silent.connect
        )
        async with working(worker):
            await anyio.sleep(HOUR)
    assert times[0] == pytest.approx(10)
    assert len(times) > HOUR / 60.1
    assert times[1:-1] == [pytest.approx(30, abs=0.01)] * (len(times) - 2)


async def test_poll_timeout_of_work(server: JobServer) -> None:
    """`after_poll` is called whenever no data was received for the poll timeout."""
    calls: list[tuple[float, bool]] = []

    class Worker(GearmanWorker):
        def after_poll(self, any_activity: bool) -> bool:
            calls.append((anyio.current_time(), any_activity))
            return len(calls) < 20

    worker = worker_of(server, kind=Worker, tasks={"task": reverse}, look_again=EVER)
    await worker.work(HOUR)
    idle = [when for when, active in calls if not active]
    assert len(idle) > 15
    for before, after in itertools.pairwise(idle):
        assert after - before == pytest.approx(HOUR, abs=1e-6)


async def test_poll_timeout_limits_sends_of_callbacks() -> None:
    waited: list[float] = []

    async def script(peer: Peer) -> None:
        await peer.expect(CanDo)
        await peer.expect(GrabJobUniq)
        await peer.send(JobAssignUniq(b"H:1", b"task", b"u", b""))
        await anyio.sleep_forever()

    async def function(worker: GearmanWorker, job: WorkerJob) -> None:
        for _ in range(10):
            before = anyio.current_time()
            await worker.send_job_data(job, bytes(1_000_000), poll_timeout=2.5)
            waited.append(anyio.current_time() - before)
        worker.stop(0)

    async with scripted(script) as server:
        worker = make_worker("any:1", tasks={"task": function}, connect=server.connect)
        await worker.work()
    assert set(waited) == {0, 2.5}
    assert waited == sorted(waited)
    assert waited.count(2.5) >= 4


# The job server.


class Wall:
    """A wall clock for servers: the loop's clock plus an offset."""

    ahead = 1_000_000_000.0

    def time(self) -> float:
        return anyio.current_time() + self.ahead


async def test_run_at() -> None:
    """A sleeping worker wakes exactly when a job is due. Jobs submitted earlier run at once."""
    wall, later = Wall(), 5000
    ran: dict[bytes, float] = {}

    async def function(worker: Any, job: WorkerJob) -> None:
        ran[job.data] = wall.time()

    async with (
        JobServer(wall_clock=wall.time) as server,
        client_of(server) as client,
        working(worker_of(server, tasks={"task": function}, look_again=EVER)),
    ):
        await anyio.sleep(10)
        now = wall.time()
        request = await client.submit_job("task", b"later", background=True, run_at=now + later)
        await client.submit_job("task", b"now")
        assert set(ran) == {b"now"}
        await anyio.sleep(later - 0.001)
        assert set(ran) == {b"now"}
        assert (await client.get_job_status(request)).status["known"]
        await anyio.sleep(0.002)
        assert ran[b"later"] == pytest.approx(now + later, abs=1e-6)
        assert not (await client.get_job_status(request)).status["known"]


async def test_stopping_server_waits_briefly_for_a_peer_that_does_not_read(
    server: JobServer,
) -> None:
    """A peer that does not read delays the server's end by a few seconds at most."""
    near = await server.connect()
    far = await server.connect()
    for _ in range(50):
        await near.send(b"\0REQ\0\0\0\x10\0\x01\x86\xa0" + bytes(100_000))
    # The server waits five seconds, and the time that the last chunk might need in a slow tunnel.
    chunk = 256 * 1024 / 20_000
    with takes(5 + chunk, abs=chunk):
        await far.send(b"shutdown\n")
        assert await far.receive() == b"OK\r\n"
        await server.wait()
    await near.aclose()
    await far.aclose()


@pytest.mark.parametrize("reads", [True, False])
async def test_half_closed_peer_can_read_replies_while_its_job_moves_on(
    server: JobServer, reads: bool
) -> None:
    """A half-closed peer has some seconds to read its replies. Its job is requeued at once."""
    async with client_of(server) as client:
        request = await client.submit_job("task", b"ab", wait_until_complete=False)
        async with await server.connect() as peer:
            await peer.send(b"\0REQ\0\0\0\x01\0\0\0\x04task" + b"\0REQ\0\0\0\x1e\0\0\0\0")
            for _ in range(50):
                await peer.send(b"\0REQ\0\0\0\x10\0\x01\x86\xa0" + bytes(100_000))
            await peer.send_eof()
            await anyio.wait_all_tasks_blocked()
            assert len(server._gm_driver.engine.links) == 2
            async with working(worker_of(server, tasks={"task": reverse})):
                if reads:
                    size = 0
                    with takes(0), contextlib.suppress(anyio.EndOfStream):
                        while True:
                            size += len(await peer.receive())
                    assert size > 50 * 100_000
                with takes(0):
                    await client.wait_until_jobs_completed([request])
                assert request.result == b"ba"


# Long idle times.

#: Only trio reports how often its tasks wake.
trio_counts = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)


class Steps(trio.abc.Instrument):
    """A counter of task steps."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@contextlib.contextmanager
def steps() -> Iterator[Steps]:
    """Count how often the tasks of this loop wake during the block."""
    counter = Steps()
    trio.lowlevel.add_instrument(counter)
    try:
        yield counter
    finally:
        trio.lowlevel.remove_instrument(counter)


def count_calls(monkeypatch: pytest.MonkeyPatch, *peers: Any) -> Counter[str]:
    """Count the calls of engine methods."""
    calls: Counter[str] = Counter()

    def count(key: str, real: Any, *args: Any) -> Any:
        calls[key] += 1
        return real(*args)

    for peer in peers:
        engine = peer._gm_driver.engine
        for name in ("next_deadline", "handle_timeout", "receive_data", "data_to_send"):
            counted = functools.partial(
                count, f"{type(peer).__name__} {name}", getattr(engine, name)
            )
            monkeypatch.setattr(engine, name, counted)
    return calls


@trio_counts
@pytest.mark.slow
async def test_a_day_with_a_job_each_minute(
    server: JobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of steps is proportional to the number of jobs."""
    worker = worker_of(server, tasks={"task": sleeper(10)}, look_again=DAY)
    jobs = int(DAY / 60)
    async with working(worker, poll_timeout=None), client_of(server) as client:
        assert (await client.submit_job("task", b"ab")).complete
        await anyio.sleep(HOUR)
        calls = count_calls(monkeypatch, server, worker, client)
        with steps() as counter, takes(DAY):
            for number in range(jobs):
                request = await client.submit_job("task", b"%d" % number, poll_timeout=30)
                assert request.result == (b"%d" % number)[::-1]
                await anyio.sleep(50)
    # Packets: NOOP, grab, job, result, grab, NO_JOB, PRE_SLEEP; submit, created, result.
    assert counter.count < 150 * jobs
    for key, count in calls.items():
        most = 3 if key.endswith("handle_timeout") else 40
        assert count < most * jobs, key
    # The lower bounds show that the counters work.
    assert calls["GearmanWorker receive_data"] >= 3 * jobs
    assert counter.count > 10 * jobs


@trio_counts
async def test_hours_of_nothing(server: JobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five workers poll for jobs, five sleep, and a client waits for its job."""
    lookers = [worker_of(server, tasks={"task": reverse}, look_again=600) for _ in range(5)]
    sleepers = [worker_of(server, tasks={"task": reverse}, look_again=EVER) for _ in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        for worker in (*lookers, *sleepers):
            await stack.enter_async_context(working(worker, poll_timeout=None))
        client = await stack.enter_async_context(client_of(server))
        other = await client.submit_job("other", b"", wait_until_complete=False)
        await anyio.sleep(1)
        calls = count_calls(monkeypatch, server, client, *lookers)
        idle = count_calls(monkeypatch, *sleepers)
        with steps() as counter, takes(AWAY):
            await client.wait_until_jobs_completed([other], poll_timeout=AWAY)
    looks = 5 * AWAY / 600
    beats = AWAY / 30
    # Each poll sets a deadline, and a stale deadline may wake the worker once more.
    assert looks < calls["GearmanWorker handle_timeout"] < 2.5 * looks
    assert sum(calls.values()) < 60 * looks + 10 * beats
    assert counter.count < 60 * looks + 10 * beats
    # A deadline set earlier may still wake each worker once.
    assert idle["GearmanWorker handle_timeout"] <= len(sleepers)
    assert sum(idle.values()) < 20 * len(sleepers)


@trio_counts
async def test_a_day_of_work_with_a_short_poll_timeout(server: JobServer) -> None:
    """Calling `after_poll` every second takes a few steps per second."""
    polls = 0

    class Worker(GearmanWorker):
        def after_poll(self, any_activity: bool) -> bool:
            nonlocal polls
            polls += 1
            return True

    worker = worker_of(server, kind=Worker, tasks={"task": reverse}, look_again=EVER)
    async with working(worker, poll_timeout=1):
        await anyio.sleep(1)
        polls = 0
        with steps() as counter:
            await anyio.sleep(HOUR)
    assert polls == pytest.approx(HOUR, abs=2)
    assert counter.count < 10 * HOUR


async def test_deadlines_of_finished_calls_wake_no_task(
    server: JobServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many calls with a long timeout have ended before."""
    async with (
        working(worker_of(server, tasks={"task": reverse}, look_again=EVER), poll_timeout=None),
        client_of(server) as client,
    ):
        for _ in range(200):
            await client.submit_job("task", b"ab", poll_timeout=HOUR)
        calls = count_calls(monkeypatch, client)
        with takes(DAY):
            await anyio.sleep(DAY)
        assert calls["GearmanClient handle_timeout"] <= 2


# Random schedules.


async def schedule(chance: random.Random) -> None:
    """Run clients and workers that start, stop and are cancelled at random times."""
    done: list[GearmanJobRequest] = []
    ran: Counter[bytes] = Counter()

    async def function(worker: GearmanWorker, job: WorkerJob) -> Any:
        ran[job.data] += 1
        for _ in range(chance.randrange(3)):
            await worker.send_job_status(job, 1, 2)
            await anyio.sleep(chance.choice([0, 0.001, chance.uniform(0, 20)]))
        if chance.random() < 0.2:
            with anyio.move_on_after(chance.uniform(0, 3)):
                await worker.send_job_data(job, b"part")
        return job.data[::-1]

    async def run_worker() -> None:
        while not over:
            worker = worker_of(server, max_jobs=chance.randrange(1, 4), look_again=30)
            limit = chance.choice([None, None, 15.0])
            worker.register_task("task", function, timeout=limit)
            way = chance.choice(["stop", "stop with timeout", "cancel", "shutdown", "stay"])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.work)
                with anyio.move_on_after(chance.uniform(0, 200)):
                    await ended.wait()
                if way == "stop":
                    worker.stop()
                elif way == "stop with timeout":
                    worker.stop(chance.uniform(0, 20))
                elif way == "cancel":
                    tasks.cancel_scope.cancel()
                elif way == "shutdown":
                    await worker.shutdown()
                else:
                    await ended.wait()
                    worker.stop()
            assert not worker.has_job_lock()

    async def run_client(number: int) -> None:
        for life in range(chance.randrange(1, 4)):
            async with client_of(server) as client:
                for job in range(chance.randrange(1, 6)):
                    data = b"%d-%d-%d" % (number, life, job)
                    request = GearmanJobRequest(
                        gearman.GearmanJob(None, None, "task", None, data),
                        background=chance.random() < 0.1,
                    )
                    # Cancel or time out the call, and wait again, until the job has ended.
                    while request.state in (gearman.JOB_UNKNOWN, gearman.JOB_PENDING) or (
                        request.state == gearman.JOB_CREATED and not request.background
                    ):
                        with anyio.move_on_after(chance.choice([0, 0.001, 5, 100])):
                            await client.submit_multiple_requests(
                                [request], poll_timeout=chance.choice([None, 0, 1, 50])
                            )
                        await anyio.sleep(chance.choice([0, chance.uniform(0, 10)]))
                    done.append(request)
                if chance.random() < 0.3:
                    await client.submit_job("task", b"gone", wait_until_complete=False)

    over = False
    ended = anyio.Event()
    async with JobServer(job_retries=None) as server:
        async with anyio.create_task_group() as workers:
            for _ in range(chance.randrange(1, 4)):
                workers.start_soon(run_worker)
            async with anyio.create_task_group() as clients:
                for number in range(chance.randrange(1, 5)):
                    clients.start_soon(run_client, number)
            engine = server._gm_driver.engine
            # Background jobs and abandoned jobs may still be queued or running.
            while engine.queue.jobs:  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(1)
            over = True
            ended.set()
        await anyio.sleep(1)
        assert not engine.links
        assert not server._gm_driver._wires
        assert engine.queue.memory == sum(
            len(name) + FUNCTION_SIZE for name in engine.queue.functions
        )
        assert engine.next_deadline() is None
    for request in done:
        assert request.state == (
            gearman.JOB_CREATED if request.background else gearman.JOB_COMPLETE
        ), request
        assert ran[request.job.data] >= 1
        if not request.background:
            assert request.result == request.job.data[::-1]


@pytest.mark.parametrize("seed", seeds(9))
async def test_schedules(seed: int) -> None:
    await schedule(random.Random(seed))


@pytest.mark.slow
@examples(1, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    jobs=st.lists(
        st.tuples(
            st.floats(0, 100, width=16),  # Time of the submit.
            st.floats(0, 100, width=16),  # Duration.
            st.none() | st.floats(0, 100, width=16),  # Poll timeout of its client.
        ),
        max_size=12,
    ),
    slots=st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
async def test_jobs_end_when_a_queue_model_predicts(
    jobs: list[tuple[float, float, float | None]], slots: list[int]
) -> None:
    """Each job ends exactly when a simple queue model predicts."""

    async def function(worker: Any, job: WorkerJob) -> Any:
        await anyio.sleep(float(job.data))
        return job.data

    ends: dict[int, tuple[float, str]] = {}

    async def submit(number: int, client: GearmanClient) -> None:
        begin, length, limit = jobs[number]
        await anyio.sleep(begin)
        # The checkpoints give jobs with equal submit times a known order.
        for _ in range(50 * number):
            await anyio.lowlevel.checkpoint()
        before = anyio.current_time()
        request = await client.submit_job("task", repr(length), poll_timeout=limit)
        if request.timed_out:
            assert limit is not None
            assert anyio.current_time() == pytest.approx(before + limit)
            with anyio.fail_after(10_000):
                await client.wait_until_jobs_completed([request])
        assert request.result == repr(length).encode()
        ends[number] = (anyio.current_time(), request.state)

    start = anyio.current_time()
    async with (
        JobServer() as server,
        client_of(server) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        for each in slots:
            worker = worker_of(server, tasks={"task": function}, max_jobs=each)
            await stack.enter_async_context(working(worker))
        async with anyio.create_task_group() as tasks:
            for number in range(len(jobs)):
                tasks.start_soon(submit, number, client)
        assert not server._gm_driver.engine.queue.jobs
    # The model is a FIFO queue served by all slots of the workers.
    free = [0.0] * sum(slots)
    for number in sorted(range(len(jobs)), key=lambda number: (jobs[number][0], number)):
        begin, length, _ = jobs[number]
        hand = min(range(len(free)), key=lambda hand: free[hand])
        free[hand] = max(free[hand], begin) + length
        when, state = ends[number]
        assert state == gearman.JOB_COMPLETE
        assert when - start == pytest.approx(free[hand], abs=1e-6)
