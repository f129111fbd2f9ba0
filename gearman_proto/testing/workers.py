"""A worker of a simulated network, which executes its jobs in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gearman_proto.checks import FOR_EVER, check_callable, check_seconds, check_timeout, check_type
from gearman_proto.constants import DEFAULT_MAX_OUTAGE, DEFAULT_POLL_INTERVAL
from gearman_proto.engines.worker.engine import WorkerEngine
from gearman_proto.engines.worker.outcomes import CallbackResult, to_send
from gearman_proto.errors import ServerUnavailable
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.updates import JobData, JobProgress, JobWarning
from gearman_proto.records import record
from gearman_proto.wire import packets as events

from .nodes import Node
from .servers import ServerNode
from .simulation import SimulationError

if TYPE_CHECKING:
    from gearman_proto.engines.waits import Wait
    from gearman_proto.jobs.job import DeferredJob, WorkerJob

    from .books import Execution
    from .simulation import Simulation
    from .wires import End

Update: TypeAlias = JobData | JobWarning | JobProgress
#: A value that a callback can yield: seconds of virtual time to sleep, or an update to send.
Step: TypeAlias = float | Update
#: A function that does a job. It returns the result, or it is a generator that yields Steps first.
Callback: TypeAlias = "Callable[[WorkerJob], Any | Generator[Step, None, Any]]"

# Seconds within which an idle worker stops.
_AT_ONCE: Final = 0.9
# Seconds after which a stopping worker abandons a job that was received only in part.
_SLOWEST: Final = 60.0
_ENDS: Final[dict[type[events.PacketEvent], str]] = {
    events.WorkComplete: "complete",
    events.WorkFail: "fail",
    events.WorkException: "exception",
}


@record(eq=False)
class Run:
    """A job in progress."""

    job: WorkerJob
    execution: Execution
    steps: Generator[Step, None, Any] | None = None
    deferred: DeferredJob | None = None


class WorkerNode(Node):
    """A worker, which starts to work at once.

    Args:
        net: The network.
        name: Its name.
        servers: Its servers.
        callbacks: The callbacks by function. A callback gets the job and returns the result, bytes
            or str. It can be a generator, which yields seconds of virtual time to sleep, or
            JobData, JobWarning and JobProgress to send, and returns the result. If it raises, the
            job fails.
        limit: Time limit of a job in seconds, or None.
        exceptions: True to send failures as WORK_EXCEPTION.
        hook_time: Seconds between the end of a job and the release of its slot, as if hooks took
            the time.
        defer_time: Seconds from the return of a callback to the end of its job (`defer`), or
            None. A job whose callback raises fails at once.
        options: Passed to WorkerEngine. Its random numbers are set by the node.
    """

    engine: WorkerEngine

    def __init__(
        self,
        net: Simulation,
        name: str,
        servers: Sequence[Node],
        callbacks: Mapping[str, Callback],
        *,
        limit: float | None = None,
        exceptions: bool = False,
        hook_time: float = 0.0,
        defer_time: float | None = None,
        **options: Any,
    ) -> None:
        check_type("callbacks", callbacks, Mapping, "a dict of callbacks by function")
        for function, callback in callbacks.items():
            check_callable(f"the callback of {function!r}", callback, "of a job")
        check_timeout(limit)
        check_seconds("hook_time", hook_time, 0, FOR_EVER)

        def make(node: WorkerNode) -> WorkerEngine:
            return WorkerEngine(node.addresses, rng=node.rng, **options)

        super().__init__(net, name, make, servers)
        self.callbacks: dict[str, Callback] = dict(callbacks)
        self.limit = limit
        net.books.is_limited |= limit is not None
        self.exceptions = exceptions
        self.hook_time = hook_time
        self.defer_time: float | None = (
            None if defer_time is None else check_seconds("defer_time", defer_time, 0)
        )
        self.poll_interval: float = options.get("poll_interval", DEFAULT_POLL_INTERVAL)
        self.max_jobs: int = options.get("max_jobs", 1)
        self.max_outage: float | None = options.get("max_outage", DEFAULT_MAX_OUTAGE)
        self.begin()
        self.pump()

    def begin(self) -> None:
        """Register all callbacks, and work."""
        #: The Wait of the running `work`, or None.
        self.subscription: Wait | None = None
        self.runs: dict[Run, None] = {}
        # The deferred jobs, until `next_job` returns them again.
        self._deferred: dict[WorkerJob, Run] = {}
        # The executions whose final packets were sent on each connection. Some have arrived.
        self._results: dict[End, list[Execution]] = {}
        #: The registered functions, and the paused ones. None stands for the whole worker.
        self.registered: dict[str, None] = {}
        self.paused: set[str | None] = set()
        # The servers that have failed since the start of `work`; None once a server has replied.
        self._failed: set[str] | None = None
        for function in self.callbacks:
            self.register(function)
        self.work()

    def died(self) -> None:
        """Drop the jobs in progress, as their process has died."""
        self.net.books.counts["workers' losses"] += 1
        self.subscription = None
        self.runs = {}
        self._deferred = {}

    def register(self, function: str) -> None:
        """Register for jobs of `function`. Without a callback, its jobs fail."""
        self._look_for_reached()
        self.registered[function] = None
        self.call(self.engine.register, self.net.now, function.encode(), self.limit)

    def unregister(self, function: str) -> None:
        """Accept no further jobs of `function`."""
        self.registered.pop(function, None)
        self.call(self.engine.unregister, self.net.now, function.encode())

    def pause(self, function: str | None = None) -> None:
        """Accept no jobs of `function`, or none at all, until `resume`."""
        self._look_for_reached()
        self.paused.add(function)
        self.call(self.engine.pause, self.net.now, function and function.encode())

    def resume(self, function: str | None = None) -> None:
        """Undo `pause` with the same `function`."""
        self._look_for_reached()
        self.paused.discard(function)
        self.call(self.engine.resume, self.net.now, function and function.encode())

    def _wanted(self) -> list[str]:
        """Return the functions whose jobs the worker asks for."""
        return [name for name in self.registered if not {name, None} & self.paused]

    def work(self) -> None:
        """Start to work. If the worker is stopping, restart it afterwards."""
        self._is_to_work = True
        if self.subscription is None and self.is_up:
            self.net.leaving.discard(self.name)
            self.note("works")

            def begin() -> None:
                self._failed = None if self.max_outage is None else set()
                self.subscription = self._begin_work()

            self.call(begin)

    def _begin_work(self) -> Wait:
        return self.engine.work(self.net.now, _nothing)

    def stop(self) -> None:
        """Finish the jobs in progress, and accept no others."""
        self._is_to_work = False
        if self.subscription is not None:
            self.note("is to stop")
            self.net.leaving.add(self.name)
            self.call(self.engine.stop, self.net.now)
            if self.subscription is not None and not self.runs and self.net.is_prompt():
                self.net.schedule(self.net.now + _AT_ONCE, self._check_stopped, self.subscription)

    def _check_stopped(self, subscription: Wait) -> None:
        """Check that the worker, which was idle, has stopped by now."""
        if self.subscription is subscription and not self.runs and self.net.is_prompt():
            self.net.fail(f"{self.name} does not stop, and has nothing to do")

    def check_abilities(self, since: float) -> None:
        """Check that servers connected since before `since` know the worker's functions."""
        told = {name.encode() for name in self.registered if name not in self.paused}
        for end in self.ends.values():
            link = end.peer.link
            if link is None or end.silent or end.peer.gone or end.link.opened_at > since:
                continue
            if {function.name for function in link.abilities} != told:
                self.net.fail(
                    f"{self.name} does {sorted(told)}, which {end.peer.node.name} does not know"
                )

    def check_looks(self) -> None:
        """Check that an idle worker polls its servers for jobs."""
        net = self.net
        if self.subscription is None or self.runs or not self._wanted() or not net.is_prompt():
            return
        for end in self.ends.values():
            if net.now - end.wrote_at > self.poll_interval * 1.2 + _AT_ONCE:
                net.fail(f"{self.name} has not looked for jobs since {end.wrote_at:.6f}")

    def receive(self, end: Any, data: bytes) -> None:
        """Process received bytes, which show that a server works."""
        self._failed = None
        super().receive(end, data)

    def _forget(self, end: Any, *, closes: bool = False) -> None:
        results = self._results.pop(end, [])
        is_judged = closes and self._may_leave(end) and isinstance(end.peer.node, ServerNode)
        if is_judged and end.is_healthy():
            self.net.books.check_arrived(self, results)
        # A stopping worker waits for a partly received job, but not forever.
        if closes and end.link.connection.buffered and self.net.now - end.link.since >= _SLOWEST:
            self.net.books.counts["workers' losses"] += 1
        self._look_for_reached()
        super()._forget(end, closes=closes)
        if self._failed is not None and self._wanted():
            self._failed.add(end.peer.node.name)
            if len(self._failed) == len(self.servers):
                self._failed = None
                self.net.schedule(self.net.now, self._check_given_up, self.subscription)

    def _look_for_reached(self) -> None:
        """Forget the failed servers if the worker is connected but has nothing to ask."""
        if not self._wanted() and any(end.is_connected for end in self.ends.values()):
            self._failed = None

    def _may_leave(self, end: End) -> bool:  # noqa: ARG002
        return self.name in self.net.leaving

    def _check_given_up(self, subscription: Wait | None) -> None:
        if (
            self.subscription is subscription
            and subscription is not None
            and self.name not in self.net.leaving
        ):
            self.net.fail(f"{self.name} has tried each server in vain, and does not say so")

    def ended(self, end: Any, mark: str) -> None:
        """Process a lost connection. Its jobs are lost with it."""
        self.net.books.counts["workers' losses"] += 1
        super().ended(end, mark)

    # Jobs.

    def _wake(self) -> bool:
        subscription = self.subscription
        if subscription is None or not subscription.ready:
            return False
        net = self.net
        done = subscription.done
        while True:
            net.steps += 1
            job = self.engine.next_job(net.now)
            if job is None:
                break
            self._start(job)
        # In a slow network, several servers can assign a job for the same free slot.
        most = self.max_jobs * (1 if net.is_prompt() else len(self.servers))
        if len(self.runs) > most:
            net.fail(f"{self.name} has {len(self.runs)} jobs; it wants {self.max_jobs}")
        if done and self.subscription is not None:
            self._end_work()
        return True

    def _end_work(self) -> None:
        subscription, self.subscription = self.subscription, None
        assert subscription is not None
        net = self.net
        net.steps += 2
        self.engine.end_work(net.now)
        self.engine.release(subscription, net.now)
        self.note("ends its work", repr(subscription.error))
        if subscription.error is None:
            if self.name not in self.net.leaving:
                net.fail(f"{self.name} has ended its work, and was not told to")
            if self.runs:
                net.fail(f"{self.name} has ended its work, and has {len(self.runs)} jobs")
        elif self.max_outage is None or not isinstance(subscription.error, ServerUnavailable):
            net.fail(f"{self.name} has ended its work with {subscription.error!r}")
        if self._is_to_work:
            net.schedule(net.now + 1.0, self._work_again)

    def _work_again(self) -> None:
        if self._is_to_work:
            self.work()

    def _start(self, job: WorkerJob) -> None:
        if job in self._deferred:
            self._done(self._deferred.pop(job))
            return
        net = self.net
        handle = (job.handle or "", job.task, job.unique, job.data)
        end = self.ends.get(job._gm_link)
        if end is None:
            net.fail(f"{self.name} was given {handle} of a connection that is no more")
        server = self.servers[end.peer.node.name]
        # If a worker disconnects while its server has bytes left to send, the server keeps the
        # connection. It assigns the worker's jobs to others at once.
        execution = net.books.started(
            self, server, lambda: end.peer.gone or end.peer.has_ended, handle, net.now, self.limit
        )
        run = Run(job, execution)
        self.runs[run] = None
        self.note("begins", f"{handle[0]} {job.task}")
        net.schedule(net.now, self._begin, run)

    def _begin(self, run: Run) -> None:
        self._do(run, lambda: self.callbacks[run.job.task](run.job))

    def _run_step(self, run: Run) -> None:
        assert run.steps is not None
        self._do(run, lambda: next(run.steps))  # type: ignore[arg-type]

    def _is_stopped(self, run: Run, function: Callable[..., None], *args: Any) -> bool:
        """Return True if the worker has died, or is frozen. It then calls `function` later."""
        is_frozen = self.frozen_until > self.net.now
        if run in self.runs and is_frozen:
            self.net.schedule(self.frozen_until, function, run, *args)
        return is_frozen or run not in self.runs

    def _do(self, run: Run, step: Callable[[], Any]) -> None:
        """Run a step of the callback, and process its outcome."""
        if self._is_stopped(run, self._do, step):
            return
        try:
            value = step()
        except StopIteration as stop:
            self._returned(run, stop.value)
        except SimulationError:
            raise  # For example, the callback has called run().
        except Exception as error:  # noqa: BLE001 - it fails the job
            self._finish(run, CallbackResult.RAISED, error)
        else:
            if isinstance(value, Generator):
                run.steps = value
                self._run_step(run)
            elif run.steps is None:
                self._returned(run, value)
            elif isinstance(value, Update):
                self._send(run, _event(run.job, value), value, goes_on=True)
            else:
                check_seconds("what a callback yields", value, 0, FOR_EVER)
                self.net.schedule(self.net.now + value, self._run_step, run)

    def _send(self, run: Run, event: Any, update: Update | None, *, goes_on: bool = False) -> None:
        """Send a packet about the job. If `goes_on`, resume the callback once there is room.

        Args:
            run: The job.
            event: The packet.
            update: The update that the packet carries; None if the packet ends the job.
            goes_on: True if the callback yielded the update.
        """
        net = self.net

        def woken() -> None:
            if goes_on:
                net.schedule(net.now, self._run_step, run)

        def send() -> bool:
            wait = self.engine.send(net.now, woken, run.job, event)
            if wait.error is not None:
                if run.job._gm_link.alive:
                    net.fail(f"{self.name} could not send, although it is connected")
                return False
            if update is not None:
                run.execution.sent.append(update)
            else:
                run.execution.end = _ENDS[type(event)]
                run.execution.value = getattr(event, "data", None)
            if not wait.done:
                net.books.counts["waits for room"] += 1
            return True

        end = self.ends.get(run.job._gm_link)
        if not self.call(send) and goes_on:
            self._done(run)
        elif end is not None and run.execution.end is not None:
            self._results[end] = [
                *self.net.books.not_arrived(self._results.get(end, [])),
                run.execution,
            ]

    def _returned(self, run: Run, value: Any) -> None:
        if self.defer_time is None or not isinstance(value, (bytes, str)):
            self._finish(run, CallbackResult.RETURNED, value)
            return
        (end,) = to_send(CallbackResult.RETURNED, run.job, NoopEncoder, value)
        run.deferred = run.job.defer()
        if self.call(self.engine.leave, self.net.now, run.job):
            self._deferred[run.job] = run
            self.net.schedule(self.net.now + self.defer_time, self._end_deferred, run, end)
        else:
            self._done(run)

    def _end_deferred(self, run: Run, end: events.PacketEvent) -> None:
        if not self._is_stopped(run, self._end_deferred, end) and run.job in self._deferred:
            self._send(run, end, None)

    def _finish(self, run: Run, result: CallbackResult, value: Any) -> None:
        try:
            packets = to_send(result, run.job, NoopEncoder, value, self.exceptions)
        except TypeError as error:  # The result is neither bytes nor str.
            result = CallbackResult.UNENCODABLE
            packets = to_send(result, run.job, NoopEncoder, error, self.exceptions)
        for event in packets:
            warning = JobWarning(event.data) if isinstance(event, events.WorkWarning) else None
            self._send(run, event, warning)
        self.net.schedule(self.net.now + self.hook_time, self._done, run)

    def _done(self, run: Run) -> None:
        if self._is_stopped(run, self._done):
            return
        del self.runs[run]
        if run.steps is not None:
            run.steps.close()
        self.note("is done with", str(run.job.handle))
        self._release(run)

    def _release(self, run: Run) -> None:
        """Release the slot of a job."""
        self.call(self.engine.job_done, self.net.now, run.job)


def _event(job: WorkerJob, update: Update) -> events.PacketEvent:
    handle = job.wire_handle
    if isinstance(update, JobData):
        return events.WorkData(handle, update.data)
    if isinstance(update, JobWarning):
        return events.WorkWarning(handle, update.data)
    return events.WorkStatus(handle, b"%d" % update.numerator, b"%d" % update.denominator)


def _nothing() -> None:
    """Do nothing: the node polls the subscription after each call."""
