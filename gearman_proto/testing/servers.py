"""A job server of a simulated network, with a witness that checks its engine.

The witness observes each job that is queued, assigned or taken away. It determines independently
which job is next, which submits are joined, and when a worker's time limit has passed.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

from gearman_proto.constants import DEFAULT_JOB_RETRIES, PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE
from gearman_proto.engines.server.commands import Listing, reply
from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.engines.server.jobqueue import MOST_CANDIDATES, Function, JobState, QueuedJob
from gearman_proto.wire.packets import SUBMITS

from .books import EPSILON
from .nodes import Node

if TYPE_CHECKING:
    from gearman_proto.engines.server.links import ServerLink

    from .simulation import Simulation
    from .wires import End

_PRIORITIES: Final = [PRIORITY_HIGH, PRIORITY_NONE, PRIORITY_LOW]
_RANKS: Final = {
    kind: (_PRIORITIES.index(priority), is_background)
    for (priority, is_background), kind in SUBMITS.items()
}
# Seconds within which a worker sends PRE_SLEEP, or asks again, after NO_JOB.
_SAID_BY_THEN: Final = 1.0
_NORMAL: Final = _PRIORITIES.index(PRIORITY_NONE)


class Witness(ServerEngine):
    """A ServerEngine that checks itself.

    Args:
        node: The node that runs it, for the books.
        options: Passed to ServerEngine.
    """

    def __init__(self, node: ServerNode, **options: Any) -> None:
        super().__init__(rng=node.rng, wall_clock=node.wall_clock, **options)
        self._node = node
        self._net = node.net
        self._fail = node.net.fail
        # Times at which links were sent NO_JOB, until they send PRE_SLEEP or ask again.
        self._silent: dict[ServerLink, float] = {}
        self._most: int = options.get("max_queue_size", 0)
        self._refused = False
        self._retries: int | None = options.get("job_retries", DEFAULT_JOB_RETRIES)
        # The priority and the sequence number of each queued job.
        self._places: dict[QueuedJob, tuple[int, int]] = {}
        # A heap of these for each function. Entries that differ from the job's place are stale.
        self._waiting: dict[Function, list[tuple[int, int, QueuedJob]]] = defaultdict(list)
        self._priorities: dict[QueuedJob, int] = {}
        self._priority = _NORMAL
        self._puts = 0
        # The jobs that later submits are joined to, by function and by unique or data.
        self._joined: dict[tuple[bytes, bytes, bytes], QueuedJob] = {}
        # The start time and the time limit of each running job.
        self._begun: dict[QueuedJob, tuple[float, float]] = {}
        # The number of times that each job's worker was lost.
        self._losses: dict[QueuedJob, int] = {}

    def _on_submit(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        function, unique, data = args
        key = function, unique, data if unique == b"-" else b""
        same = self._joined.get(key)
        count = len(self.queue.jobs)
        self._priority, is_background = _RANKS[kind]
        self._refused = False
        if not is_background:
            self._net.books.seen(self._node, function, unique, data)
        super()._on_submit(link, kind, args, now)
        self._priority = _NORMAL
        if same is not None and same.state is not JobState.ENDED:
            if len(self.queue.jobs) != count:
                self._fail(f"a submit of {unique!r} was not joined to job {same.handle!r}")
        elif len(self.queue.jobs) == count:
            if not self._refused:
                self._fail(f"a submit of {unique!r} was joined to another job")
        else:
            job = next(reversed(self.queue.jobs.values()))
            if self._most and job.function.total > self._most:
                self._fail(f"{function!r} has {job.function.total} jobs, more than {self._most}")
            if unique and (unique != b"-" or data):
                self._joined[key] = job

    def _refuse(self, link: ServerLink, code: bytes, text: bytes) -> None:
        self._refused = True
        super()._refuse(link, code, text)

    def _add_ability(self, link: ServerLink, name: bytes, seconds: float) -> None:
        super()._add_ability(link, name, seconds)
        if link.asleep and self._next_for(link):
            self._fail(f"{link!r} sleeps on although there is something to do for it now")

    def _on_cant_do(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        if any(job.function.name == args[0] for job in link.jobs.values()):
            self._fail(
                f"{link!r} can't do {args[0]!r}, of which it has a job: gearmand takes it away"
            )
        super()._on_cant_do(link, kind, args, now)

    def _put(self, job: QueuedJob, now: float) -> None:
        priority = self._priorities.setdefault(job, self._priority)
        if not job.epoch:
            self._puts += 1
            self._places[job] = priority, self._puts
            heapq.heappush(self._waiting[job.function], (priority, self._puts, job))
        super()._put(job, now)
        for link in self.links:
            if link.asleep and job.function in link.abilities and not job.epoch:
                self._fail(f"{link!r} sleeps on although there is {job.handle!r} to do")
            is_late = now > self._silent.get(link, now) + _SAID_BY_THEN
            if is_late and self._net.is_prompt() and link.peer not in self._net.leaving:
                self._fail(f"{link!r} was told NO_JOB, and neither sleeps nor asks again")

    def _on_pre_sleep(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        self._silent.pop(link, None)
        super()._on_pre_sleep(link, kind, args, now)
        if link.asleep and self._next_for(link):
            self._fail(f"{link!r} was let sleep although there is something to do for it")

    def _next_for(self, link: ServerLink) -> list[QueuedJob]:
        """Return the jobs that may be assigned to the next grab of `link`."""
        heads = []
        for function in link.abilities:
            waiting = self._waiting[function]
            while waiting and (
                self._places.get(waiting[0][2]) != waiting[0][:2]
                or waiting[0][2].state is JobState.ENDED
            ):
                heapq.heappop(waiting)
            heads += waiting[:1]
        heads.sort()
        best = [job for priority, _, job in heads if priority == heads[0][0]]
        return best if len(best) > MOST_CANDIDATES else best[:1]

    def _on_grab(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        right = self._next_for(link)
        before = set(link.jobs)
        super()._on_grab(link, kind, args, now)
        new = [job for handle, job in link.jobs.items() if handle not in before]
        if len(new) != bool(right) or not {*new} <= {*right}:
            given, due = ([job.handle for job in jobs] for jobs in (new, right[:1]))
            self._fail(f"{link!r} was given {given}, not {due}, which is next")
        self._silent.pop(link, None)
        if not new:
            self._silent[link] = now
        for job in new:
            del self._places[job]
            self._begun[job] = now, link.abilities[job.function]

    def _on_work_end(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        self._net.books.ended(self._node, args[0])
        super()._on_work_end(link, kind, args, now)

    def _on_work_exception(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        self._net.books.ended(self._node, args[0])
        super()._on_work_exception(link, kind, args, now)

    def _on_line(self, link: ServerLink, kind: Any, args: Any, now: float) -> None:
        line = args[0].line
        job = self.queue.jobs.get(line.removeprefix(b"cancel job "))
        if job is not None:
            function, unique = job.function.name.decode(), job.unique.decode()
            what = job.handle.decode(), function, unique, job.data
            self._net.books.cancels(link.peer, self._node, what)
        answer = reply(self, line) if line == b"prioritystatus" else b""
        if isinstance(answer, Listing):
            rows = b"".join(piece for piece, _ in answer).splitlines()
            waiting = Counter(
                (job.function.name, _PRIORITIES[self._priorities[job]])
                for job in self.queue.jobs.values()
                if job.state is not JobState.RUNNING
            )
            for name, *counts, _ in (row.split(b"\t") for row in rows[:-1]):
                right = [waiting[name, each] for each in _PRIORITIES]
                if [int(count) for count in counts] != right:
                    self._fail(f"of {name!r} there wait {right}, and it says {counts}")
        super()._on_line(link, kind, args, now)

    def _take_away(self, job: QueuedJob, now: float) -> None:
        since, limit = self._begun.pop(job)
        seconds = now - since
        if job.worker.is_up:
            if not limit or seconds < limit - EPSILON:
                self._fail(f"{job.handle!r} was taken away from its worker after {seconds} seconds")
            if seconds > limit + EPSILON and not self._node.was_frozen(now):
                self._fail(f"{job.handle!r} was taken away {seconds - limit} seconds too late")
        losses = self._losses[job] = self._losses.get(job, 0) + 1
        goes_on = job.wanted and (self._retries is None or losses <= self._retries)
        link = job.worker
        super()._take_away(job, now)
        if link.is_up and job.handle not in link.former:
            self._fail(f"{link!r} would get an error for what it still sends about {job.handle!r}")
        if goes_on != (job.handle in self.queue.jobs):
            self._fail(f"{job.handle!r} was lost {losses} times, and is {job.state.name}")

    def check(self) -> None:
        """Compare the engine's state with the witness's, and forget the jobs that have ended."""
        for link in [link for link in self._silent if not link.is_up]:
            del self._silent[link]
        for known in (self._places, self._begun, self._losses, self._priorities):
            for job in [job for job in known if job.state is JobState.ENDED]:
                del known[job]
        for key in [key for key, job in self._joined.items() if job.state is JobState.ENDED]:
            del self._joined[key]
        for job in self.queue.jobs.values():
            if (job in self._places) != (job.state is JobState.QUEUED):
                self._fail(f"{job.handle!r} is {job.state.name} without notice")
            since, limit = self._begun.get(job, (0.0, 0.0))
            if (job in self._begun) != (job.state is JobState.RUNNING):
                self._fail(f"{job.handle!r} is {job.state.name} since {since}, for {limit}")


class ServerNode(Node):
    """A job server.

    Args:
        net: The network.
        name: Its name, which is also the host of its address.
        options: Passed to ServerEngine. Its clocks, its random numbers and its host are set by the
            node.
    """

    engine: Witness

    def __init__(self, net: Simulation, name: str, **options: Any) -> None:
        def make(node: ServerNode) -> Witness:
            # Handles contain the host. It must differ between servers and between restarts.
            return Witness(node, host=f"{name}-{node.life}", **options)

        super().__init__(net, name, make)
        self.is_listening: bool = True
        self.may_give_up: bool = options.get("job_retries", DEFAULT_JOB_RETRIES) is not None

    def _may_leave(self, end: End) -> bool:  # noqa: ARG002
        return self.engine.closed or not self.is_listening

    def begin(self) -> None:
        """Listen for connections."""
        self.is_listening = True

    def has_jobs(self) -> bool:
        """Return whether any job has not ended."""
        return bool(self.engine.queue.jobs)
