"""Exact tests of time limits: client, worker and job server in one loop with a virtual clock.

All connections are in memory, so the clock jumps to the next deadline as soon as all tasks wait. A
day without events takes no real time, and no test depends on the speed of the machine.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

import gearman_anyio as gearman
from gearman_anyio import GearmanClient, GearmanJobRequest, GearmanWorker, JobServer, WorkerJob
from gearman_anyio._streams import pipe
from gearman_anyio.testing import virtual_clock
from gearman_proto import Role
from gearman_proto.engines.server.jobqueue import FUNCTION_SIZE
from gearman_proto.errors import ConnectionError, ServerUnavailable
from gearman_proto.wire.packets import CanDo, GrabJobUniq, JobAssignUniq
from tests.profiles import seeds

from .peer import Peer
from .support import make_worker, reverse, working

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from anyio.abc import ByteStream

pytestmark = pytest.mark.anyio

HOUR = 3600.0
DAY = 24 * HOUR
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
def takes(seconds: float) -> Iterator[None]:
    """Check how long the block takes on the loop's clock."""
    before = anyio.current_time()
    yield
    assert anyio.current_time() - before == pytest.approx(seconds, abs=1e-6)


def client_of(server: JobServer, **options: Any) -> GearmanClient:
    return GearmanClient(connect=server.connect, **options)


def worker_of(server: JobServer, *args: Any, **options: Any) -> Any:
    return make_worker("any:1", *args, connect=server.connect, **options)


async def never(address: object) -> ByteStream:
    """Connect to a server that never answers."""
    await anyio.sleep_forever()
    raise AssertionError


# Time limits.


async def test_each_call_ends_at_its_time_limit(server: JobServer) -> None:
    """The job goes on."""
    async with client_of(server, heartbeat=None) as client:
        jobs = [{"task": "task", "data": b"ab"}] * 3
        requests = await client.submit_multiple_jobs(jobs, wait_until_complete=False)

        async def as_completed() -> None:
            assert [r async for r in client.as_completed(requests, poll_timeout=HOUR)] == []

        async def updates() -> None:
            assert [u async for u in client.updates(requests[0], poll_timeout=HOUR)] == []

        async def poll() -> None:
            assert await client.poll_connections_until_stopped([], lambda _: True, timeout=HOUR)

        for call in (
            lambda: client.submit_multiple_jobs(jobs, poll_timeout=HOUR),
            lambda: client.wait_until_jobs_completed(requests, poll_timeout=HOUR),
            *(as_completed, updates, poll),
        ):
            with takes(HOUR):
                await call()
        assert all(request.timed_out for request in requests)
        # Accepting and the status need no worker, so these calls return at once.
        with takes(0):
            await client.wait_until_jobs_accepted(requests, poll_timeout=HOUR)
            await client.get_job_status(requests[0], poll_timeout=HOUR)
        async with working(worker_of(server, tasks={"task": reverse})):
            await client.wait_until_jobs_completed(requests)
        assert [request.result for request in requests] == [b"ba"] * 3


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


async def test_connect_timeout_ends_each_attempt() -> None:
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


async def test_poll_timeout_limits_sends_of_callbacks() -> None:
    """The server reads nothing after it has assigned the job."""
    near, far = pipe()
    waited: list[float] = []

    async def connect(address: object) -> ByteStream:
        return near

    async def function(worker: GearmanWorker, job: WorkerJob) -> None:
        for _ in range(10):
            before = anyio.current_time()
            await worker.send_job_data(job, bytes(1_000_000), poll_timeout=2.5)
            waited.append(anyio.current_time() - before)
        worker.stop(0)

    async with far, anyio.create_task_group() as tasks:
        tasks.start_soon(make_worker("any:1", tasks={"task": function}, connect=connect).work)
        peer = Peer(far, Role.SERVER)
        assert [await peer.receive(), await peer.receive()] == [CanDo(b"task"), GrabJobUniq()]
        await peer.send(JobAssignUniq(b"H:1", b"task", b"u", b""))
    assert set(waited) == {0, 2.5}
    assert waited == sorted(waited)
    assert waited.count(2.5) >= 4


async def test_delayed_job_runs_exactly_when_it_is_due() -> None:
    """A sleeping worker wakes exactly when a job is due. Jobs submitted earlier run at once."""
    later = 5000
    ran: dict[bytes, float] = {}

    def wall_clock() -> float:
        return 1e9 + anyio.current_time()

    async def function(worker: Any, job: WorkerJob) -> None:
        ran[job.data] = wall_clock()

    async with (
        JobServer(wall_clock=wall_clock) as server,
        client_of(server) as client,
        working(worker_of(server, tasks={"task": function}, poll_interval=EVER)),
    ):
        await anyio.sleep(10)
        now = wall_clock()
        request = await client.submit_job("task", b"later", background=True, run_at=now + later)
        await client.submit_job("task", b"now")
        assert set(ran) == {b"now"}
        await anyio.sleep(later - 0.001)
        assert set(ran) == {b"now"}
        assert (await client.get_job_status(request)).status["known"]
        await anyio.sleep(0.002)
        assert ran[b"later"] == pytest.approx(now + later, abs=1e-6)
        assert not (await client.get_job_status(request)).status["known"]


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


@trio_counts
async def test_idle_workers_and_clients_wake_no_task(server: JobServer) -> None:
    """A deadline of one of the calls that have ended may wake each of them once more."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            worker = worker_of(server, tasks={"task": reverse}, poll_interval=EVER)
            await stack.enter_async_context(working(worker, poll_timeout=None))
        client = await stack.enter_async_context(client_of(server))
        for _ in range(200):
            await client.submit_job("task", b"ab", poll_timeout=HOUR)
        with steps() as counter:
            await anyio.sleep(DAY)
    assert counter.count < 150


@trio_counts
async def test_steps_of_an_idle_day_are_proportional_to_its_polls(server: JobServer) -> None:
    """A worker looks for jobs every ten minutes, and another one calls `after_poll` as often."""
    polls = 0

    class Polled(GearmanWorker):
        def after_poll(self, any_activity: bool) -> bool:
            nonlocal polls
            polls += not any_activity
            return True

    looking = worker_of(server, tasks={"task": reverse}, poll_interval=600)
    polled = worker_of(server, kind=Polled, tasks={"task": reverse}, poll_interval=EVER)
    async with (
        working(looking, poll_timeout=None),
        working(polled, poll_timeout=600),
        client_of(server, heartbeat=600) as client,
    ):
        other = await client.submit_job("other", b"", wait_until_complete=False)
        with steps() as counter, takes(DAY):
            await client.wait_until_jobs_completed([other], poll_timeout=DAY)
    assert polls == pytest.approx(DAY / 600, abs=1)
    assert DAY / 600 < counter.count < 100 * DAY / 600


# Random schedules.


async def schedule(chance: random.Random) -> None:
    """Run clients, each with several tasks, and workers that start and end at random times."""
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
            worker = worker_of(server, max_jobs=chance.randrange(1, 4), poll_interval=30)
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

    async def submit(client: GearmanClient, name: str) -> None:
        for job in range(chance.randrange(1, 6)):
            request = GearmanJobRequest(
                gearman.GearmanJob(None, None, "task", None, f"{name}-{job}".encode()),
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

    async def run_client(number: int) -> None:
        for life in range(chance.randrange(1, 4)):
            async with client_of(server) as client, anyio.create_task_group() as calls:
                for call in range(chance.randrange(1, 4)):
                    calls.start_soon(submit, client, f"{number}-{life}-{call}")

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
async def test_random_schedules_lose_no_job(seed: int) -> None:
    await schedule(random.Random(seed))
