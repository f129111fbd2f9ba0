"""Audits of this library's own engines, at any time and in the idle state.

Unlike the rest of the kit, this module inspects the private state of the engines: it recounts their
counters, and looks for leftovers. It knows no other engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto.constants import JOB_CREATED, JOB_PENDING
from gearman_proto.engines.admin import AdminEngine
from gearman_proto.engines.base import BaseEngine
from gearman_proto.engines.client.engine import ClientEngine
from gearman_proto.engines.client.link import ClientLink, requests_of
from gearman_proto.engines.client.queries import StatusWait
from gearman_proto.engines.client.results import ResultsWait
from gearman_proto.engines.server.engine import ServerEngine
from gearman_proto.engines.server.jobqueue import (
    ABILITY_SIZE,
    FUNCTION_SIZE,
    JOB_SIZE,
    LISTENER_SIZE,
    Function,
    JobState,
    QueuedJob,
)
from gearman_proto.engines.waits import RequestsWait, Subscription, Wait
from gearman_proto.engines.worker.engine import MOST_GRABS, WorkerEngine
from gearman_proto.engines.worker.link import Phase
from gearman_proto.jobs.batch import made

from .servers import Witness

if TYPE_CHECKING:
    from collections.abc import Collection

    from gearman_proto.jobs.request import GearmanJobRequest

    from .nodes import Node


def audit(node: Node) -> int:
    """Audit the engine of `node`, and return the number of jobs that were checked.

    Raises:
        AssertionError: The engine's state is inconsistent.
    """
    engine = node.engine
    if isinstance(engine, Witness):
        engine.check()
    if isinstance(engine, ServerEngine):
        check_server(engine)
    elif isinstance(engine, ClientEngine):
        check_client(engine)
    if isinstance(engine, BaseEngine):
        # The number of stale entries in the heap of deadlines is bounded.
        assert len(engine._timers._heap) <= 2 * len(engine._timers) + 65
    if isinstance(engine, WorkerEngine):
        check_worker(engine)
    return len(engine.queue.jobs) if isinstance(engine, ServerEngine) else 0


def audit_idle(node: Node) -> None:
    """Audit the engine of `node`, which is closed or idle.

    Raises:
        AssertionError: The engine still holds some state.
    """
    engine = node.engine
    audit(node)
    if isinstance(engine, ServerEngine):
        assert not engine.queue.jobs
        assert not engine.links, engine.links
        assert not engine._to_write
        assert not engine._backlogged
        assert engine.next_deadline() is None
        engine.queue.drop_idle_functions()
        limited = [f for f in engine.queue.functions.values() if f.limits is not None]
        assert len(engine.queue.functions) == len(limited)
        assert not engine.queue.by_key
        assert not engine.queue._namesakes
        assert engine.queue.memory == sum(len(f.name) + FUNCTION_SIZE for f in limited)
    elif isinstance(engine, ClientEngine):
        assert not engine._waits
        assert not engine._watchers
        assert not engine.pool.links()
        assert engine.next_deadline() is None
    elif isinstance(engine, WorkerEngine):
        assert not engine.has_jobs()
        assert not engine.pool.links()
        assert engine._grabs == 0
        assert engine.next_deadline() is None
    elif isinstance(engine, AdminEngine):
        assert not engine._waits
        assert not engine._queue
        assert engine.next_deadline() is None
    assert not node.ends


def audit_quiet(node: Node) -> None:
    """Audit a client without pending calls or requests.

    Raises:
        AssertionError: The engine still holds some state.
    """
    engine = node.engine
    if isinstance(engine, ClientEngine):
        assert not engine._waits
        engine._sweep()
        for link in engine.pool.links():
            assert not link.outbox, link.outbox
            assert not link.batches
            assert not link.ahead
            assert not link.jobs, dict(link.jobs)
            assert not link.jobs.shared
            assert not link.connection.unanswered


# Clients.


def check_client(engine: ClientEngine) -> None:
    """Check a client's links and waits."""
    for link in engine.pool.links():
        assert link.alive
        check_places(link)
    for wait in engine._waits:
        assert not wait.done or isinstance(wait, Subscription)
        check_wait(wait)


def check_places(link: ClientLink) -> None:
    """Check that each request on `link` is in exactly one place, and refers to it."""
    sent = [r for token in link.connection.unanswered_tokens() for r in requests_of(token)]
    unsent = [r for item in link.outbox for r in requests_of(item)]
    made = [request for job in link.jobs.values() for request in job.live()]
    assert len({id(request) for request in sent + unsent + made}) == len(sent + unsent + made)
    for request in sent + unsent + made:
        assert request._gm_link is link
        assert request.connection_attempts <= request.max_connection_attempts
    assert {request.state for request in sent + unsent} <= {JOB_PENDING}
    assert {request.state for request in made} <= {JOB_CREATED}
    for request in sent:
        assert request.connection_attempts > 0
    for request in unsent:
        assert request.connection_attempts < request.max_connection_attempts
    for key, shared in link.jobs.shared.items():
        assert shared.key == key
        assert shared in (*link.items(), *link.jobs.values())
    for handle, job in link.jobs.items():
        assert job.handle == handle
        assert job.key is None or link.jobs.shared[job.key] is job
        for request in job.live():
            assert request.job.handle == handle


def check_wait(wait: Wait, to_be_made: int = 0) -> None:
    """Check that a Wait that was not released agrees with its requests.

    Args:
        wait: The Wait.
        to_be_made: The number of its jobs that have no request yet.
    """
    if isinstance(wait, StatusWait):
        assert wait.remaining == sum(not query.answered for query in wait.queries)
    elif isinstance(wait, ResultsWait):
        mine = [request for request in wait.in_flight if wait in request._gm_waits]
        assert wait.remaining == len(mine) == len(wait.in_flight)
    elif isinstance(wait, RequestsWait):
        check_counts(wait, [*made(wait.requests)], to_be_made)


def check_counts(
    wait: RequestsWait, requests: Collection[GearmanJobRequest], to_be_made: int
) -> None:
    """Check that the counters of a Wait are right, and that `done` agrees with them."""
    if not requests and not to_be_made:
        return  # The Wait is about connections, or its jobs have no requests.
    # A request that is listed twice counts once.
    mine = {request for request in requests if wait in request._gm_waits}
    if not mine and not to_be_made and wait.remaining:
        # crash() detaches the requests of a Wait that it ends.
        assert wait.done
        return
    assert wait.remaining == len(mine) + to_be_made
    assert wait.unaccepted == sum(r.state == JOB_PENDING for r in mine) + to_be_made
    if not wait.timed_out:
        enough = bool(wait.accepted_only or wait.error or not wait.remaining)
        assert wait.done == (enough and not wait.unaccepted)


# Workers.


def check_worker(engine: WorkerEngine) -> None:
    """Check a worker's links, slots and jobs."""
    links = engine.pool.links()
    assert engine._grabs == sum(link.grabs for link in links if link.phase is Phase.GRABBING)
    # Late replies to grabs can be jobs without a free slot.
    late = (len(engine.pool.servers) - 1) * min(engine._max_jobs, MOST_GRABS)
    assert len(engine._jobs) + engine._grabs <= engine._max_jobs + late
    assert set(engine._ready) <= engine._jobs
    for link in links:
        assert link.alive
        assert set(link.jobs) <= engine._jobs
        assert not any(job.ended for job in link.jobs)
        assert link.unsent_size == sum(map(len, link.unsent))
        assert sum(other is link for other in engine._grab_queue) == (link.phase is Phase.QUEUED)


# Servers.


def check_server(engine: ServerEngine) -> None:
    """Check a server's functions, jobs, links and memory."""
    queue = engine.queue
    jobs: dict[Function, list[QueuedJob]] = {each: [] for each in queue.functions.values()}
    for handle, job in queue.jobs.items():
        assert job.handle == handle
        jobs[job.function].append(job)
        check_job(engine, job)
    for function, its in jobs.items():
        check_function(engine, function, its)
    assert queue.memory == count_memory(engine), (queue.memory, count_memory(engine))
    for link in engine.links:
        assert link.alive
        assert link.unsent_size == sum(map(len, link.unsent))
        assert link.buffered == link.connection.buffered
        assert link.registered == sum(ABILITY_SIZE + len(f.name) for f in link.abilities)
        assert not link.asleep or not any(link.ready)
        for handle, job in link.jobs.items():
            assert queue.jobs[handle] is job
            assert job.worker is link
        for job in link.listening:
            assert queue.jobs[job.handle] is job
            assert link in job.listeners


def check_function(engine: ServerEngine, function: Function, jobs: list[QueuedJob]) -> None:
    """Check a function against `jobs`, all of its jobs."""
    assert function.total == len(jobs)
    assert function.running == sum(job.state is JobState.RUNNING for job in jobs)
    assert function.delayed == sum(job.state is JobState.DELAYED for job in jobs)
    queued = [job for job in jobs if job.state is JobState.QUEUED]
    assert sum(len(queue) for queue in function.queues) == len(queued)
    for priority, queue in enumerate(function.queues):
        orders = [job.order for job in queue]
        assert orders == sorted(set(orders))
        for job in queue:
            assert job.priority == priority
            assert job.state is JobState.QUEUED
            assert engine.queue.jobs[job.handle] is job
    by_unique = [job for job in jobs if job.unique not in (b"", b"-")]
    by_data = [job for job in jobs if job.unique == b"-" and job.data]
    keyed = {job.key: job for job in by_unique + by_data}
    for key, job in keyed.items():
        assert engine.queue.find(function.name, key) is job
        assert engine.queue.by_key[key].key == key
    assert len(keyed) == len(by_unique + by_data)
    links = {*engine.links, *engine._backlogged}
    workers = {link for link in links if function in link.abilities}
    assert function.workers == len(workers)
    for priority, watchers in enumerate(function.watchers):
        told = {link for link in workers if function in link.ready[priority]}
        assert told | watchers.keys() == workers
        assert not told & watchers.keys()
        assert not watchers or not function.queues[priority]
    assert not function.idle or function in engine.queue._idle


def check_job(engine: ServerEngine, job: QueuedJob) -> None:
    """Check a job that has not ended."""
    running = job.state is JobState.RUNNING
    assert job.state is not JobState.ENDED
    links = {*engine.links, *engine._backlogged}
    assert (job in job.function.queues[job.priority]) == (job.state is JobState.QUEUED)
    assert job.attached == sum(job.listeners.values())
    assert (job in engine.queue._delayed._current) == (job.state is JobState.DELAYED)
    assert (job.worker is not None) == running
    if running:
        assert job.worker in links
        assert job.worker.jobs[job.handle] is job
    else:
        assert job.wanted
        assert (job.numerator, job.denominator) == (0, 0)
    assert (job.epoch > 0) == (job.state is JobState.DELAYED)
    for link in job.listeners:
        assert link in links
        assert job in link.listening


def count_memory(engine: ServerEngine) -> int:
    """Return the expected value of `engine.queue.memory`."""
    jobs = sum(
        JOB_SIZE
        + LISTENER_SIZE * len(job.listeners)
        + len(job.function.name)
        + len(job.unique)
        + len(job.data)
        for job in engine.queue.jobs.values()
    )
    functions = sum(len(name) + FUNCTION_SIZE for name in engine.queue.functions)
    links = sum(
        link.connection.buffered
        + sum(len(packet) for packet in link.unsent)
        + link.writing
        + link.listed
        for link in engine.links
    )
    # Include the links that are about to be removed.
    links += sum(link.registered for link in {*engine.links, *engine._backlogged})
    return jobs + functions + links
