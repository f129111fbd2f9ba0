"""A job server of a simulated network, whose engine has a witness beside it.

The witness is told of each job that is put in the queue, given out, or taken away, and has its own
idea of which is next, of what submits are joined, and of when a worker has had its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from gearman_proto.constants import DEFAULT_JOB_RETRIES, PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE
from gearman_proto.engines.jobqueue import JobState, QueuedJob
from gearman_proto.engines.server import ServerEngine
from gearman_proto.wire.events import SUBMITS

from .nodes import Node

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_proto.engines.accepted import ServerLink

    from .network import Network

_PRIORITIES = [PRIORITY_HIGH, PRIORITY_NONE, PRIORITY_LOW]
_RANKS = {kind: _PRIORITIES.index(priority) for (priority, _), kind in SUBMITS.items()}
_NORMAL = _PRIORITIES.index(PRIORITY_NONE)
# More jobs than these are not looked through each time that one is given out.
_MANY = 200
# Seconds by which sums of floats may differ.
_EPSILON = 1e-6


class Witness(ServerEngine):
    """A ServerEngine that is watched.

    Args:
        fail: Gets what is wrong, and raises.
        frozen: Whether the node has just been stopped, so that all may be late.
        options: As for ServerEngine.
    """

    def __init__(self, *, fail: Callable[[str], NoReturn], is_late: Callable[[], bool], **options: Any) -> None:
        super().__init__(**options)
        self._fail = fail
        self._is_late = is_late
        self._retries: int | None = options.get("job_retries", DEFAULT_JOB_RETRIES)
        # Of each job that waits: its priority, and which it is in order.
        self._places: dict[QueuedJob, tuple[int, int]] = {}
        self._priorities: dict[bytes, int] = {}
        self._puts = 0
        self._priority = _NORMAL
        # Of each job that is with a worker: since when, and how long it may be; how often it was.
        self._begun: dict[QueuedJob, tuple[float, float]] = {}
        self._losses: dict[QueuedJob, int] = {}

    def _on_submit(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        function, unique, data = args
        same = self._find_same(function, unique, data)
        before = self.queue.jobs.keys() - {b""} if len(self.queue.jobs) < _MANY else None
        self._priority = _RANKS[kind]
        super()._on_submit(link, kind, args, now)
        self._priority = _NORMAL
        if before is None:
            return
        new = self.queue.jobs.keys() - before
        if same is not None and new:
            self._fail(f"a submit of {unique!r} was not joined to job {same.handle!r}")
        if same is not None and same.priority != self._priority_of(same):
            self._fail(f"{same.handle!r} has changed its priority")

    def _find_same(self, function: bytes, unique: bytes, data: bytes) -> QueuedJob | None:
        if not unique or len(self.queue.jobs) >= _MANY or (unique == b"-" and not data):
            return None
        for job in self.queue.jobs.values():
            if job.function.name == function and job.unique == unique:
                if unique != b"-" or job.data == data:
                    return job
        return None

    def _priority_of(self, job: QueuedJob) -> int:
        return self._priorities[job.handle]

    def _put(self, job: QueuedJob, now: float) -> None:
        self._priorities.setdefault(job.handle, self._priority)
        if not job.epoch:
            self._puts += 1
            self._places[job] = (self._priorities[job.handle], self._puts)
        super()._put(job, now)
        self._check_awake(job)

    def _check_awake(self, job: QueuedJob) -> None:
        if job.state is JobState.QUEUED:
            for link in self.links:
                if link.asleep and job.function in link.abilities:
                    self._fail(f"{link!r} sleeps on although there is {job.handle!r} to do")

    def _on_pre_sleep(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        super()._on_pre_sleep(link, kind, args, now)
        if link.asleep and self._best_for(link) is not None:
            self._fail(f"{link!r} was let sleep although there is something to do for it")

    def _best_for(self, link: ServerLink) -> QueuedJob | None:
        waiting = [
            job
            for job in self._places
            if job.function in link.abilities and job.state is not JobState.ENDED
        ]
        return min(waiting, key=self._places.__getitem__, default=None)

    def _on_grab(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        if len(self._places) >= _MANY:
            best = None
        else:
            best = self._best_for(link)
        before = set(link.jobs)
        super()._on_grab(link, kind, args, now)
        new = [job for handle, job in link.jobs.items() if handle not in before]
        if len(self._places) < _MANY and new != ([] if best is None else [best]):
            self._fail(f"{link!r} was given {new!r}; what is next is {best and best.handle!r}")
        for job in new:
            self._places.pop(job, None)
            self._begun[job] = now, link.abilities[job.function]

    def _leave_worker(self, job: QueuedJob) -> None:
        super()._leave_worker(job)
        if job.listeners and not all(job in link.listening for link in job.listeners):
            self._fail(f"a client that waits for {job.handle!r} does not know it")

    def _take_away(self, job: QueuedJob, now: float) -> None:
        since, limit = self._begun.pop(job)
        if job.worker.is_up and not (limit and since + limit <= now + _EPSILON):
            self._fail(f"{job.handle!r} was taken away from its worker after {now - since} seconds")
        if job.worker.is_up and now > since + limit + _EPSILON and not self._is_late():
            self._fail(f"{job.handle!r} was taken away {now - since - limit} seconds too late")
        losses = self._losses[job] = self._losses.get(job, 0) + 1
        goes_on = job.wanted and (self._retries is None or losses <= self._retries)
        super()._take_away(job, now)
        if goes_on != (job.handle in self.queue.jobs):
            self._fail(f"{job.handle!r} was lost {losses} times, and is {job.state.name}")

    def check(self) -> None:
        """Compare what is kept with what the witness knows."""
        queue = self.queue
        for job in list(self._places):
            if job.state is not JobState.QUEUED:
                del self._places[job]
        for job in list(self._begun):
            if job.state is not JobState.RUNNING:
                del self._begun[job]
                self._losses.pop(job, None)
                self._priorities.pop(job.handle, None)
        for job in queue.jobs.values():
            if (job in self._places) != (job.state is JobState.QUEUED):
                self._fail(f"{job.handle!r} is {job.state.name}, which nobody was told")


class ServerNode(Node):
    """A job server.

    Args:
        net: The network.
        name: Its name, and the host of its address.
        options: For ServerEngine, but for its clocks, its chance and its host.
    """

    engine: Witness

    def __init__(self, net: Network, name: str, **options: Any) -> None:
        def make(node: ServerNode) -> Witness:
            return Witness(
                fail=net.fail,
                is_late=lambda: node.was_frozen(net.now),
                rng=node.rng,
                wall_clock=node.wall_clock,
                # So that no other server, and no other life of this one, has the same handles.
                host=f"{name}-{node.life}",
                **options,
            )

        super().__init__(net, name, make)
        self.is_listening = True
        #: Whether it gives up a job whose worker was lost too often.
        self.may_give_up = options.get("job_retries", DEFAULT_JOB_RETRIES) is not None
        #: When its queue was lost.
        self.deaths: list[float] = []

    def begin(self) -> None:
        """Listen."""
        self.is_listening = True

    def died(self) -> None:
        """Its queue is lost."""
        self.deaths.append(self.net.now)

    def has_jobs(self) -> bool:
        """Whether there is a job that has not ended."""
        return bool(self.engine.queue.jobs)
