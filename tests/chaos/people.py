"""The users of the library: clients and workers of all surfaces, which keep records.

Each is one async function that runs on all three surfaces. `Blocking` of the contract tests gives
the blocking surface the methods of the awaited ones. It never waits for an event loop.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

import gearman_anyio
import gearman_sync
from gearman_proto import GearmanJob, GearmanJobRequest, constants
from gearman_proto.engines.servers import LONGEST_COOL_DOWN
from gearman_proto.errors import (
    ExceededConnectionAttempts,
    InvalidWorkerState,
    ServerUnavailable,
)
from tests.contract.kit import Blocking, drive, plain

from .payloads import KINDS, TASK, Job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from .books import Books, Entry

#: Tolerated excess over a call's timeout on a busy machine, in seconds.
GRACE: Final = 2.0
#: The heartbeat of clients in seconds, where they have one.
HEARTBEAT: Final = 1.0
# Seconds to wait for a connection.
_CONNECT_TIMEOUT: Final = 1.0
# Maximum number of unfinished requests of a client. Beyond that, it stops submitting.
_MANY: Final = 200
# The fraction of calls to cancel, where the surface allows it.
_CANCELLED: Final = 0.1
# Minimum and maximum size of a large job in bytes.
_LARGE: Final = (1_000, 8_000_000)
# Seconds, longer than any run.
_NEVER: Final = 1e9


class Boom(Exception):
    """Raised by callbacks."""


def _large(rng: random.Random) -> int:
    """Return a random large size. Each order of magnitude has the same probability."""
    return round(math.exp(rng.uniform(*map(math.log, _LARGE))))


def _seconds_without_cpu() -> float:
    """Return the seconds that this thread was ready to run but waited for a processor.

    Return 0 if the system does not report them.
    """
    with contextlib.suppress(OSError):
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return 0.0


class Metronome:
    """A thread that sleeps and checks the clock, which measures how late the machine is."""

    _BEAT = 0.02

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metronome", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(self._BEAT):
            now = time.monotonic()
            if now - before > 0.1 + self._BEAT:
                self._late.append((now, now - before - self._BEAT))
            before = now

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        self._thread.join()

    def lateness(self, since: float) -> float:
        """Return the total seconds that the machine was late since then."""
        return sum(late for when, late in list(self._late) if when >= since)

    @property
    def worst(self) -> float:
        """The longest delay of the machine."""
        return max((late for _, late in self._late), default=0.0)


class World:
    """The shared state of all clients and workers."""

    def __init__(self, seed: int, books: Books) -> None:
        self.seed = seed
        self.books = books
        self.metronome = Metronome()
        #: The name of the server at a port, or of the server that the proxy at that port forwards
        #: to.
        self.names: dict[int, str] = {}
        #: The addresses of the clients' and the workers' proxies.
        self.addresses: dict[str, list[tuple[str, int]]] = {"clients": [], "workers": []}
        #: Set before the test cuts connections, after which lost connections mean nothing.
        self.healing = threading.Event()
        #: Set when clients must not begin anything new.
        self.ending = threading.Event()
        #: Set when all connections have been cut, so that nothing is left to wait for.
        self.cut = threading.Event()
        #: Set when the workers have to end.
        self.finished = threading.Event()
        #: The time at which `finished` was set.
        self.finished_at = 0.0
        #: The largest delay of a call beyond its timeout, in seconds.
        self.latest = 0.0
        #: The number of clients that have finished waiting for their requests.
        self.waited = 0
        self._numbers = iter(range(10**9))
        self._lock = threading.Lock()

    def job(self, rng: random.Random) -> Job:
        """Return a new job."""
        with self._lock:
            number = next(self._numbers)
        takes = 200 if rng.random() < 0.02 else rng.choice((0, 0, 1, 5))
        padding = _large(rng) if rng.random() < 0.02 else rng.randrange(100)
        grows = _large(rng) if rng.random() < 0.02 else 0
        return Job(number, rng.choices(KINDS, (8, 1, 1))[0], takes, padding, grows)

    def shared(self) -> Job:
        """Return the job that clients currently submit under a shared unique."""
        return Job(10**9 + int(time.monotonic() * 2), "ok", 100)

    def name(self, address: Any) -> str | None:
        """Return the name of the server at an address."""
        return None if address is None else self.names[address.port]

    def has_waited(self) -> None:
        """Record that a client has finished waiting for its requests."""
        with self._lock:
            self.waited += 1

    def note_loss(self, who: str, text: str) -> None:
        """Record an error that blames a server, unless a fault explains it.

        Blaming the slow server is wrong, because that server is healthy, except if the machine
        itself was late.
        """
        blamed = [name for port, name in self.names.items() if f":{port}" in text]
        if "slow" not in blamed or self.healing.is_set():
            return
        # gearmand loses some jobs whose submitters have left (recordings 36 and 37), and some
        # workers are ended in the middle of their jobs.
        if "has lost the job" in text or text.endswith("the worker has stopped"):
            return
        if self.metronome.lateness(time.monotonic() - 2 * HEARTBEAT) > HEARTBEAT / 2:
            self.books.count("slow links given up on a late machine")
        else:
            self.books.problem("given up", f"{who}: {text}")

    @contextlib.contextmanager
    def bound(self, who: str, what: str, seconds: float) -> Iterator[None]:
        """Check that the body of the context takes at most `seconds`."""
        begun, waited = time.monotonic(), _seconds_without_cpu()
        try:
            yield
        finally:
            took = time.monotonic() - begun
            self.books.count("calls")
            self.latest = max(self.latest, took - seconds)
            excuse = self.metronome.lateness(begun) + _seconds_without_cpu() - waited
            allowed = seconds + GRACE + excuse
            if took > allowed:
                self.books.problem(
                    "late", f"{who}: {what} for {seconds:.2f} s took {took:.2f} s ({allowed:.2f})"
                )


class BlockingSurface:
    """gearman_sync, with a thread for each script.

    `within` cancels its body after some seconds, where that is possible.
    """

    name = "sync"
    gearman = gearman_sync

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - this surface has no event loop

    @contextlib.asynccontextmanager
    async def open(self, made: Any) -> AsyncIterator[Any]:
        with made:
            yield Blocking(made)

    def callback(self, function: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        return plain(function)

    def within(self, seconds: float) -> Any:
        return contextlib.nullcontext()

    def run(self, world: World, scripts: list[Callable[[], Awaitable[None]]]) -> None:
        def play(script: Any) -> None:
            try:
                drive(script())
            except BaseException as error:  # noqa: BLE001 - any exception is a problem
                world.books.problem("unexpected", f"sync: a script raised {error!r}")

        threads = [
            threading.Thread(target=play, args=(script,), name="script", daemon=True)
            for script in scripts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


class AwaitedSurface:
    """gearman_anyio, with one event loop for all scripts."""

    gearman = gearman_anyio

    def __init__(self, backend: str) -> None:
        self.name = backend

    sleep = staticmethod(anyio.sleep)
    within = staticmethod(anyio.move_on_after)

    def open(self, made: Any) -> Any:
        return made

    def callback(self, function: Callable[[Any, Any], Awaitable[Any]]) -> Any:
        async def call(worker: Any, job: Any) -> Any:
            return await function(worker, job)

        return call

    def run(self, world: World, scripts: list[Callable[[], Awaitable[None]]]) -> None:
        async def play(script: Any) -> None:
            try:
                await script()
            except Exception as error:  # noqa: BLE001 - any exception is a problem
                world.books.problem("unexpected", f"{self.name}: a script raised {error!r}")

        async def main() -> None:
            before = _tasks(self.name)
            async with anyio.create_task_group() as group:
                for script in scripts:
                    group.start_soon(play, script)
            if (after := _tasks(self.name)) > before:
                world.books.problem("leaks", f"{self.name}: {after} tasks, and {before} before")

        anyio.run(main, backend=self.name)


Surface = BlockingSurface | AwaitedSurface


def _tasks(backend: str) -> int:
    if backend == "asyncio":
        import asyncio

        return len(asyncio.all_tasks())
    import trio.lowlevel

    return trio.lowlevel.current_statistics().tasks_living


class Client:
    """Submits jobs, waits for them or abandons them, and records their states."""

    def __init__(self, world: World, surface: Surface, number: int) -> None:
        self._world = world
        self._books = world.books
        self._surface = surface
        self._name = f"{surface.name} client {number}"
        self._rng = random.Random(f"{world.seed} {self._name}")
        #: Unfinished requests and their records.
        self._open: dict[GearmanJobRequest, Entry] = {}
        self._has_waited = False

    async def play(self) -> None:
        """Use one client after the other until the world ends."""
        while not self._world.ending.is_set():
            addresses = self._world.addresses["clients"]
            hosts = self._rng.sample(addresses, self._rng.randint(1, len(addresses)))
            until = time.monotonic() + self._rng.uniform(1, 8)
            await self._one_client(hosts, until)
        if not self._has_waited:
            self._world.has_waited()

    async def _one_client(self, hosts: list[tuple[str, int]], until: float) -> None:
        routing = self._rng.choice(("random", "unique"))
        made = self._surface.gearman.GearmanClient(
            hosts, connect_timeout=_CONNECT_TIMEOUT, heartbeat=HEARTBEAT, routing=routing
        )
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(self._surface.open(made))
            while time.monotonic() < until and not self._world.ending.is_set():
                await self._do_something(client)
                await self._surface.sleep(self._rng.choice((0, 0, 0.01, 0.05)))
            if self._world.ending.is_set():
                await self._wait_for_the_end(client)
            # The end of the client ends the abandoned requests.
            self._books.count("requests left by their client", len(self._open))
            with self._world.bound(self._name, "leaving", 0):
                await stack.aclose()
            self._open.clear()

    async def _wait_for_the_end(self, client: Any) -> None:
        await self._wait(client, 3.0)
        self._has_waited = True
        self._world.has_waited()
        while not self._world.cut.is_set():
            await self._surface.sleep(0.05)
        # A retry might wait until the cool-down of its server has ended. A call that raises for
        # some of the requests does not wait for the others.
        until = time.monotonic() + LONGEST_COOL_DOWN + 5.0
        while self._open and (left := until - time.monotonic()) > 0:
            await self._wait(client, left)
        for request, entry in self._open.items():
            self._books.problem("hung", f"{self._name}: {request!r} of {entry}")

    async def _do_something(self, client: Any) -> None:
        if len(self._open) > _MANY:
            await self._wait(client, 1.0)
        acts = {
            self._some: 14,
            self._background: 4,
            self._as_completed: 3,
            self._updates: 2,
            self._statuses: 2,
            self._wait_some: 3,
            self._again: 3,
            self._share: 3,
            self._connect: 1,
        }
        (act,) = self._rng.choices(list(acts), list(acts.values()))
        await act(client)

    # Actions.

    async def _some(self, client: Any) -> None:
        await self._submit(client, self._new(self._rng.choice((1, 1, self._rng.randint(2, 30)))))

    async def _background(self, client: Any) -> None:
        await self._submit(client, self._new(self._rng.randint(1, 50), background=True))

    async def _again(self, client: Any) -> None:
        """Submit jobs, and submit lost ones again."""
        requests = self._new(self._rng.randint(1, 5))
        entries = dict(self._open)
        await self._submit(client, requests)
        lost = [r for r in requests if r.state == constants.JOB_UNKNOWN and r in entries]
        for request in lost:
            entry = entries[request]
            self._open[request] = self._books.submitted(entry.job, self._name, background=False)
        if lost:
            await self._submit(client, lost)

    async def _share(self, client: Any) -> None:
        """Submit a job that other clients submit too."""
        job = self._world.shared()
        await self._submit(client, [self._request(job, unique=f"shared {job.number}")])

    async def _as_completed(self, client: Any) -> None:
        requests = self._new(self._rng.randint(1, 20))
        await self._iterate(client, "as_completed", requests, requests)

    async def _updates(self, client: Any) -> None:
        requests = self._new(1)
        await self._iterate(client, "updates", requests[0], requests)

    async def _iterate(
        self, client: Any, method: str, argument: Any, requests: list[GearmanJobRequest]
    ) -> None:
        await self._submit(client, requests, wait_until_complete=False)
        timeout = self._timeout()

        async def iterate() -> None:
            items = getattr(client, method)(argument, poll_timeout=timeout)
            async with contextlib.AsyncExitStack() as stack:
                # Cancellation must close an async iterator.
                if hasattr(items, "aclose"):
                    stack.push_async_callback(items.aclose)
                async for _ in items:
                    pass

        self._record_states(requests, returned=await self._call(method, timeout, iterate))

    async def _statuses(self, client: Any) -> None:
        asked = [request for request in self._open if request.handle is not None][:5]
        timeout = self._timeout()
        await self._call(
            "get_job_statuses", timeout, lambda: client.get_job_statuses(asked, timeout)
        )

    async def _connect(self, client: Any) -> None:
        server = self._rng.choice(client.connection_list)
        timeout = self._timeout()
        await self._call(
            "establish_connection", timeout, lambda: client.establish_connection(server, timeout)
        )

    async def _wait_some(self, client: Any) -> None:
        await self._wait(client, self._timeout())

    async def _wait(self, client: Any, timeout: float) -> None:
        requests = list(self._open)
        returned = await self._call(
            "wait_until_jobs_completed",
            timeout,
            lambda: client.wait_until_jobs_completed(requests, timeout),
        )
        self._record_states(requests, returned=returned)

    # Helpers.

    def _timeout(self) -> float:
        return self._rng.choice((0.05, 0.3, 1.0, 2.0))

    def _new(self, number: int, *, background: bool = False) -> list[GearmanJobRequest]:
        jobs = [self._world.job(self._rng) for _ in range(number)]
        return [self._request(job, background=background) for job in jobs]

    def _request(
        self, job: Job, *, unique: str | None = None, background: bool = False
    ) -> GearmanJobRequest:
        request = GearmanJobRequest(
            GearmanJob(None, None, TASK, unique, job.pack()),
            self._rng.choice((None, constants.PRIORITY_LOW, constants.PRIORITY_HIGH)),
            background,
            1 + self._rng.choice((0, 0, 1, 3)),
        )
        self._open[request] = self._books.submitted(job, self._name, background=background)
        return request

    async def _submit(
        self, client: Any, requests: list[GearmanJobRequest], *, wait_until_complete: bool = True
    ) -> None:
        timeout = self._timeout()
        returned = await self._call(
            "submit_multiple_requests",
            timeout,
            lambda: client.submit_multiple_requests(requests, wait_until_complete, timeout),
        )
        if wait_until_complete:
            self._record_states(requests, returned=returned)

    async def _call(self, what: str, timeout: float, call: Callable[[], Awaitable[Any]]) -> bool:
        """Make a call that can be cancelled and has to return in time.

        Return True if it returned without being cancelled and without an exception.
        """
        cancelled_after = _NEVER
        # The very last call needs its full time.
        if self._rng.random() < _CANCELLED and not self._world.ending.is_set():
            cancelled_after = self._rng.uniform(0, timeout)
        with self._world.bound(self._name, what, timeout):
            try:
                with self._surface.within(cancelled_after):
                    await call()
                    return True
            except (ServerUnavailable, ExceededConnectionAttempts) as error:
                self._books.count(f"calls that raised {type(error).__name__}")
                if isinstance(error, ExceededConnectionAttempts):
                    self._world.note_loss(self._name, str(error))
            except ConnectionError as error:
                if what != "establish_connection":
                    self._books.problem("unexpected", f"{self._name}: {what} raised {error!r}")
            except Exception as error:  # noqa: BLE001 - any exception is a problem
                self._books.problem("unexpected", f"{self._name}: {what} raised {error!r}")
        return False

    def _record_states(self, requests: list[GearmanJobRequest], *, returned: bool) -> None:
        """Record the states of requests, and keep those that have not ended."""
        for request in requests:
            entry = self._open.get(request)
            if entry is None:
                continue
            server = self._world.name(request.connection)
            self._books.record_outcome(entry, request, server, returned=returned)
            if request.state == constants.JOB_UNKNOWN:
                self._world.note_loss(self._name, str(request.error))
            if request.complete or request.state == constants.JOB_UNKNOWN:
                del self._open[request]


class Worker:
    """Does jobs, and records the ones that it received."""

    def __init__(self, world: World, surface: Surface, number: int, *, plain: bool = False) -> None:
        self._world = world
        self._surface = surface
        self._name = f"{surface.name} worker {number}"
        self._rng = random.Random(f"{world.seed} {self._name}")
        self._max_jobs = self._rng.choice((1, 3))
        self._plain = plain

    async def play(self) -> None:
        """Run one worker after the other until the world ends."""
        while not self._world.finished.is_set():
            until = time.monotonic() + self._rng.choice((self._rng.uniform(2, 12), _NEVER))

            def after_poll(worker: Any, any_activity: bool, until: float = until) -> bool:
                return time.monotonic() < until and not self._world.finished.is_set()

            kind = type(
                "Worker", (self._surface.gearman.GearmanWorker,), {"after_poll": after_poll}
            )
            made = kind(
                self._world.addresses["workers"],
                max_jobs=self._max_jobs,
                connect_timeout=_CONNECT_TIMEOUT,
                max_outage=None,
                poll_interval=1.0,
                exceptions=self._rng.random() < 0.5,
            )
            callback = (plain if self._plain else self._surface.callback)(self._do)
            made.register_task(TASK, callback)
            # End some workers in the middle of their jobs.
            ended_after = self._rng.uniform(0, 8) if self._rng.random() < 0.3 else _NEVER
            async with self._surface.open(made) as worker:
                with contextlib.suppress(ServerUnavailable), self._ended(made, ended_after):
                    await worker.work(0.3)
            await self._surface.sleep(0.05)
        took = time.monotonic() - self._world.finished_at
        allowed = 1.0 + GRACE + self._world.metronome.lateness(self._world.finished_at)
        if took > allowed:
            self._world.books.problem("late", f"{self._name} ended {took:.2f} s after it should")

    @contextlib.contextmanager
    def _ended(self, worker: Any, seconds: float) -> Iterator[None]:
        """End `worker` after `seconds`, regardless of its jobs."""
        if seconds < _NEVER and isinstance(self._surface, BlockingSurface):
            timer = threading.Timer(seconds, worker.shutdown)
            timer.start()
            try:
                yield
            finally:
                timer.cancel()
                timer.join()
        else:
            with self._surface.within(seconds):
                yield

    async def _do(self, worker: Any, job: Any) -> Any:
        server = self._world.name(job.connection)
        assert server is not None
        mine = Job.unpack(job.data)
        with self._world.books.running(mine, self._name, server):
            if mine is None:
                raise Boom("this is not what was sent")
            return await self._result(worker, job, mine)

    async def _result(self, worker: Any, job: Any, mine: Job) -> bytes:
        if mine.takes:
            await (_blocking_sleep if self._plain else self._surface.sleep)(mine.takes / 1000)
        if mine.kind == "fail":
            raise Boom(str(mine.number))
        if mine.kind == "parts":
            with contextlib.suppress(ConnectionError, InvalidWorkerState):
                for index, part in enumerate(mine.parts):
                    await worker.send_job_data(job, part)
                    await worker.send_job_status(job, index, len(mine.parts))
        return mine.result


async def _blocking_sleep(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - this function runs in a thread
