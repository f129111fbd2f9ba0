"""The core in Twisted's reactor: a client and a worker, whose calls return Deferreds.

    python examples/twisted_client.py [--server HOST:PORT] [--jobs N] [--size BYTES]
        [--timeout S] [--no-worker]

`Adapter` runs any engine that makes connections, and imports nothing but `gearman_proto` and
Twisted. `GearmanClient` and `GearmanWorker` add the methods that an application calls. The adapter
does not support TLS.

The rest of the program uses both. It submits jobs for the function `reverse`, and prints each when
it ends. The worker does two jobs at a time. Without --server, the program runs its own job server
in a thread.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

try:
    from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
    from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
    from twisted.internet.error import ConnectionDone
    from twisted.internet.protocol import Protocol
    from twisted.internet.task import deferLater, react
    from twisted.logger import Logger
except ModuleNotFoundError:
    raise SystemExit("this example needs Twisted: pip install twisted") from None

import gearman_sync  # for its JobServer only
from gearman_proto import (
    JOB_COMPLETE,
    ClientEngine,
    Close,
    Connect,
    GearmanError,
    NoopEncoder,
    ServerUnavailable,
    WorkerEngine,
    events,
    make_requests,
    parse_address,
    parse_host_list,
    prepare,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.python.failure import Failure

    from gearman_proto import GearmanJobRequest, HostSpec, WorkerJob

# Don't use the reactor's clock, which jumps when the system time is set.
clock = time.monotonic
rng = random.SystemRandom()
log = Logger()

# The adapter begins here.


class Wire(Protocol):  # type: ignore[misc]
    """The transport of a link, which reports back-pressure to the engine."""

    def __init__(self, adapter: Adapter, link: Any) -> None:
        self.adapter = adapter
        self.link = link
        self.is_full = False
        self.attempt: Any = None
        self.last_call: Any = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self.adapter.tell(self.adapter.engine.connected, self.link)

    def dataReceived(self, data: bytes) -> None:
        if self.link in self.adapter.wires:  # Twisted still reads while it closes.
            self.adapter.tell(self.adapter.engine.receive_data, self.link, data)

    def pauseProducing(self) -> None:
        self.is_full = True

    def resumeProducing(self) -> None:
        self.is_full = False
        self.adapter.pump()

    def stopProducing(self) -> None:
        """Do nothing: the connection was lost, and `connectionLost` follows."""

    def connectionLost(self, reason: Failure) -> None:
        if self.last_call is not None and self.last_call.active():
            self.last_call.cancel()
        self.adapter.wires.pop(self.link, None)
        if reason.check(ConnectionDone):
            self.adapter.tell(self.adapter.engine.receive_eof, self.link)
        else:
            self.adapter.tell(self.adapter.engine.connection_lost, self.link, reason.value)

    def connectionFailed(self, reason: Failure) -> None:
        self.adapter.wires.pop(self.link, None)
        self.adapter.tell(self.adapter.engine.connect_failed, self.link, reason.value)

    def close(self) -> None:
        """Stop connecting, or close after all data is written, or after five seconds."""
        if self.transport is None:
            self.attempt.cancel()
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            self.last_call = self.adapter.reactor.callLater(5, self.transport.abortConnection)


class Adapter:
    """Runs an engine in a reactor. `make_engine` also makes the successor of a broken engine."""

    def __init__(self, reactor: Any, make_engine: Callable[[], Any]) -> None:
        self.reactor = reactor
        self.make_engine = make_engine
        self.engine = make_engine()
        self.wires: dict[Any, Wire] = {}
        self.timer: Any = None

    def tell(self, call: Callable[..., object], *args: Any) -> None:
        """Report an event to the engine, and do the work that it then requests."""
        self.ask(call, *args)
        self.pump()

    def ask(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call the engine. If that fails, which is a bug, end all calls and make a new engine."""
        try:
            return call(*args, clock())
        except Exception as error:  # noqa: BLE001 - a bug, but no call must hang
            log.failure("internal error")
            for wait in self.engine.abandon(error):
                wait.wake()
            while self.wires:
                self.wires.popitem()[1].close()
            self.engine = self.make_engine()
            return None

    def pump(self) -> None:
        """Do the work that the engine has requested. Each call of the engine can request more."""
        while True:
            for link in self.engine.links_to_write():
                wire = self.wires.get(link)
                while wire and not wire.is_full:
                    data = self.ask(self.engine.data_to_send, link)
                    if not data:
                        break
                    wire.transport.write(data)
            action = self.engine.next_action()
            if isinstance(action, Connect):
                self.connect(action.link, action.timeout)
            elif isinstance(action, Close):
                if action.link in self.wires:
                    self.wires.pop(action.link).close()
            else:
                break
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        deadline = self.engine.next_deadline()
        if deadline is not None:
            delay = max(deadline - clock(), 0.0)
            self.timer = self.reactor.callLater(delay, self.tell, self.engine.handle_timeout)

    def connect(self, link: Any, timeout: float) -> None:
        host, port = link.address.host, link.address.port
        endpoint = HostnameEndpoint(self.reactor, host, port, timeout)
        wire = self.wires[link] = Wire(self, link)
        wire.attempt = connectProtocol(endpoint, wire)
        wire.attempt.addErrback(wire.connectionFailed)

    def run(self, method: Callable[..., Any], *args: Any, **options: Any) -> Deferred[None]:
        """Begin a call that waits, and return its Deferred, which can be cancelled."""
        wait: Any = None

        def finish() -> None:
            if not done.called:
                self.tell(self.engine.release, wait)
                try:
                    wait.raise_error()
                except GearmanError:
                    done.errback()
                else:
                    done.callback(None)

        done: Deferred[None] = Deferred(lambda _: self.tell(self.engine.release, wait))
        # `wake` must not call the engine, but the Deferred's callbacks might.
        wait = method(clock(), lambda: self.reactor.callLater(0, finish), *args, **options)
        self.pump()
        return done

    def close(self) -> None:
        self.tell(self.engine.close)


class GearmanClient(Adapter):
    """Submits jobs."""

    def __init__(self, reactor: Any, hosts: Iterable[HostSpec]) -> None:
        addresses = parse_host_list(hosts)
        super().__init__(reactor, partial(ClientEngine, addresses, rng=rng, wall_clock=time.time))

    def submit(
        self, task: str, data: bytes, timeout: float | None = None
    ) -> Deferred[GearmanJobRequest]:
        """Submit a job. The Deferred fires with its request at the job's end or after `timeout`."""
        (request,) = requests = make_requests([{"task": task, "data": data}])
        prepare(requests, NoopEncoder)
        done = self.run(self.engine.submit, requests, timeout=timeout)
        return done.addCallback(lambda _: request)


class GearmanWorker(Adapter):
    """Does jobs."""

    def __init__(self, reactor: Any, hosts: Iterable[HostSpec], max_jobs: int = 1) -> None:
        addresses = parse_host_list(hosts)
        self.callbacks: dict[str, Callable[[WorkerJob], Any]] = {}

        def make_engine() -> WorkerEngine:
            engine = WorkerEngine(addresses, rng=rng, max_jobs=max_jobs)
            for task in self.callbacks:
                engine.register(clock(), task.encode(), None)
            return engine

        super().__init__(reactor, make_engine)

    def register(self, task: str, callback: Callable[[WorkerJob], Any]) -> None:
        """Register a callback, which takes a job and returns bytes or a Deferred of bytes."""
        self.callbacks[task] = callback
        self.engine.register(clock(), task.encode(), None)
        self.pump()

    def work(self) -> Deferred[None]:
        """Work until `stop` is called and the current jobs are done."""
        self.over: Deferred[None] = Deferred()
        self.subscription = self.engine.work(clock(), lambda: self.reactor.callLater(0, self.look))
        self.pump()
        return self.over

    def stop(self) -> None:
        self.tell(self.engine.stop)

    def look(self) -> None:
        """Process new jobs, or the end of the work."""
        while (job := self.ask(self.engine.next_job)) is not None:
            self.do(job)
        if self.subscription.done and not self.over.called:
            self.tell(self.engine.release, self.subscription)
            try:
                self.subscription.raise_error()
            except GearmanError:
                self.over.errback()
            else:
                self.over.callback(None)
        self.pump()

    def do(self, job: WorkerJob) -> None:
        def complete(result: bytes) -> Deferred[None]:
            event = events.WorkComplete(job.wire_handle, result)
            return self.run(self.engine.send, job, event)

        done = maybeDeferred(self.callbacks[job.task], job).addCallback(complete)
        done.addErrback(lambda failure: log.failure("{job} failed", failure, job=job))
        # Fail a job that has not ended.
        done.addBoth(lambda _: self.tell(partial(self.engine.job_done, job=job)))


# The adapter ends here.


def main() -> None:
    parser = argparse.ArgumentParser(description="Reverse some bytes in Gearman jobs.")
    parser.add_argument(
        "--server", type=parse_address, metavar="HOST:PORT", help="in place of our own"
    )
    parser.add_argument("--jobs", type=int, default=8, metavar="N", help="how many; 8")
    parser.add_argument("--size", type=int, default=1_000_000, help="bytes of each; 1000000")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait; 30")
    parser.add_argument("--no-worker", action="store_true", help="others do the jobs")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if arguments.server is None:
            server = stack.enter_context(gearman_sync.JobServer())
            arguments.server = server.address
            print(f"server: listening at {arguments.server}, for this program only", flush=True)
        react(lambda reactor: ensureDeferred(run(reactor, arguments)))


async def run(reactor: Any, arguments: argparse.Namespace) -> None:
    worker = GearmanWorker(reactor, [arguments.server], max_jobs=2)
    worker.register("reverse", partial(reverse, reactor))
    if arguments.no_worker:
        worker.stop()
    work = worker.work()
    client = GearmanClient(reactor, [arguments.server])
    numbers = range(1, arguments.jobs + 1)
    started = clock()
    done = await gatherResults([ensureDeferred(one(client, n, arguments)) for n in numbers])
    print(f"{sum(done)} of {len(numbers)} jobs done in {clock() - started:.3f} s")
    client.close()
    worker.stop()
    with contextlib.suppress(ServerUnavailable):
        await work
    if not all(done):
        sys.exit(1)


def reverse(reactor: Any, job: WorkerJob) -> Deferred[bytes]:
    """Return the job's data in reverse order, without blocking the reactor."""
    return deferLater(reactor, 0.01, lambda: job.data[::-1])


async def one(client: GearmanClient, number: int, arguments: argparse.Namespace) -> bool:
    """Submit a job and report its end. Return True if it succeeded."""
    data = f"job {number} ".encode().ljust(arguments.size)
    try:
        request = await client.submit("reverse", data, arguments.timeout)
    except GearmanError as error:
        print(f"job {number}: {error}", flush=True)
        return False
    good: bool = request.state == JOB_COMPLETE and request.result == data[::-1]
    if good:
        print(f"job {number}: {len(data)} bytes reversed", flush=True)
    else:
        print(f"job {number}: {'timed out' if request.timed_out else request.error}", flush=True)
    return good


if __name__ == "__main__":
    main()
