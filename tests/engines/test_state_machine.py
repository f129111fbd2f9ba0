"""A random walk of the client's engine, compared with a model of its requests' outcomes.

Scripted servers acknowledge, refuse, work, lose jobs and break connections at random. The model
knows only what the servers have sent. `test_games` walks at random with servers that break the
protocol, and `test_three_engines` with real ones.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from gearman_proto.errors import ConnectionError, ExceededConnectionAttempts, ServerUnavailable
from gearman_proto.jobs.encoder import NoopEncoder
from gearman_proto.jobs.request import next_update
from gearman_proto.jobs.submitting import prepare
from gearman_proto.jobs.updates import JobData, JobProgress, JobWarning
from gearman_proto.wire.packets import (
    EchoReq,
    EchoRes,
    Error,
    Event,
    GetStatus,
    JobCreated,
    StatusRes,
    SubmitJobBg,
    WorkComplete,
    WorkData,
    WorkException,
    WorkFail,
    WorkStatus,
    WorkWarning,
)
from tests.profiles import seeds

from .harness import Peer, World, raw

if TYPE_CHECKING:
    from gearman_proto.jobs.request import GearmanJobRequest

#: Errors of a request that no server has acknowledged, or whose connection was lost afterwards.
LOST = (ConnectionError, ExceededConnectionAttempts, ServerUnavailable)


class Model:
    """A request and its expected state."""

    def __init__(self, request: GearmanJobRequest, unique: str | None) -> None:
        self.request = request
        self.unique = None if request.background else unique
        self.expect(JOB_UNKNOWN)

    def expect(self, state: str, handle: str | None = None) -> None:
        self.state, self.handle = state, handle
        self.result: bytes | None = None
        self.exception: bytes | None = None
        self.updates: list[Any] = []
        self.read: list[Any] = []

    def check(self) -> None:
        request = self.request
        while (update := next_update(request)) is not None:
            self.read.append(update)
        assert (request.state, request.handle) == (self.state, self.handle)
        assert (request.result, request.exception) == (self.result, self.exception)
        assert self.read == self.updates
        in_flight = self.state == JOB_PENDING or (
            self.state == JOB_CREATED and not request.background
        )
        assert (request._gm_link is not None) == in_flight
        assert in_flight or not request._gm_waits


class Job:
    """A job at the server of one connection."""

    def __init__(self, peer: Peer, handle: bytes, unique: str | None) -> None:
        self.peer = peer
        self.handle = handle
        self.unique = unique
        #: True until the server has lost the job.
        self.known = True
        #: The requests that wait for the job.
        self.models: list[Model] = []

    def accept(self, model: Model) -> None:
        model.expect(JOB_CREATED, self.handle.decode())
        if not model.request.background:
            self.models.append(model)


class Walk:
    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.world = World(
            rng.choice([1, 1, 2, 3]),
            seed=seed,
            routing=rng.choice(["random", "unique"]),
            heartbeat=rng.choice([None, 4.0]),
            connect_timeout=3.0,
        )
        self.models: list[Model] = []
        self.jobs: list[Job] = []
        self.questions: dict[Peer, deque[Event]] = {}
        self.handles: Counter[Peer] = Counter()
        self.values = 0
        steps = [self.submit, self.answer, self.answer, self.work, self.work, self.sleep]
        self.steps = steps * 3 + [self.lose_job] + [self.break_link] * rng.choice([0, 1, 4])

    def go(self) -> None:
        for _ in range(60):
            self.rng.choice(self.steps)()
            self.settle()
        for _ in range(100):
            for peer in self.world.alive():
                peer.lose() if peer.link.is_up or self.rng.random() < 0.5 else peer.up()
            if not self.world.engine.pool.links():
                break
            self.world.sleep(40.0)
        self.settle()
        assert not self.world.engine.pool.links()
        assert all(wait.done for wait in self.world.waits)
        assert all(m.request.complete or m.state == JOB_UNKNOWN for m in self.models)

    def submit(self) -> None:
        rng = self.rng
        chosen = rng.choices(self.models, k=2) if self.models and rng.random() < 0.5 else []
        for _ in range(rng.randrange(1, 4)):
            unique = rng.choice([None, "a", "b"])
            request = self.world.request(
                data=b"%d" % len(self.models),
                background=rng.random() < 0.3,
                retries=rng.randrange(3),
                unique=unique,
            )
            self.models.append(Model(request, unique))
            chosen.append(self.models[-1])
        prepare([model.request for model in chosen], NoopEncoder)
        for model in chosen:
            if model.state == JOB_UNKNOWN:
                model.expect(JOB_PENDING)
        self.world.submit(*[model.request for model in chosen])

    def answer(self) -> None:
        for peer in self.world.alive():
            if not peer.link.is_up:
                peer.up()
            questions = self.questions.setdefault(peer, deque())
            questions += peer.take()
            count = min(self.rng.randrange(6), len(questions))
            peer.send(*[self.answer_to(questions.popleft(), peer) for _ in range(count)])

    def answer_to(self, question: Any, peer: Peer) -> Event:
        """Return the answer to a packet, and update the models."""
        if isinstance(question, EchoReq):
            return EchoRes(question.data)
        if isinstance(question, GetStatus):
            there = [job for job in self.jobs if job.peer is peer]
            jobs = [job for job in there if job.handle == question.handle]
            is_known = any(job.known for job in jobs)
            for job in jobs:
                if not is_known:
                    self.end(job, JOB_UNKNOWN)
            return StatusRes(question.handle, b"%d" % is_known, b"0", b"0", b"0")
        model = self.models[int(question.data)]
        assert isinstance(question, SubmitJobBg) == model.request.background
        models = [
            other
            for other in self.models
            if other.state == JOB_PENDING
            and other.request._gm_link is peer.link
            and (other is model or (model.unique and other.unique == model.unique))
        ]
        if self.rng.random() < 0.1:
            for each in models:
                each.expect(JOB_FAILED)
            return Error(b"QUEUE_ERROR", b"full")
        here = [job for job in self.jobs if job.peer is peer]
        # After a second submit of a unique, gearmand would send each update twice.
        assert not any(job.unique == model.unique and job.models for job in here if job.unique)
        if here and model.unique is None and self.rng.random() < 0.2:
            job = self.rng.choice(here)  # The server has coalesced the submits.
        else:
            # Handles are local to a server.
            self.handles[peer] += 1
            job = Job(peer, b"H:%d" % self.handles[peer], model.unique)
            self.jobs.append(job)
        for each in models:
            job.accept(each)
        return JobCreated(job.handle)

    def work(self) -> None:
        """Send packets about a job, which might be unknown to the client."""
        jobs = [job for job in self.jobs if job.known]
        if not jobs:
            return
        job = self.rng.choice(jobs)
        for _ in range(self.rng.randrange(3)):
            self.values += 1
            value = b"%d" % self.rng.choice([0, self.values])
            event, update = self.rng.choice(
                [
                    (WorkData(job.handle, value), JobData(value)),
                    (WorkWarning(job.handle, value), JobWarning(value)),
                    (WorkStatus(job.handle, value, b"9"), JobProgress(int(value), 9)),
                ]
            )
            job.peer.send_raw(raw(event))
            for model in job.models:
                model.updates.append(update)
        end = self.rng.choice([None, WorkComplete, WorkFail, WorkException])
        if end is not None:
            job.peer.send_raw(raw(end(job.handle, b"the end")))
            for model in job.models:
                model.result = b"the end" if end is WorkComplete else None
                model.exception = b"the end" if end is WorkException else None
            self.end(job, JOB_COMPLETE if end is WorkComplete else JOB_FAILED)
            job.peer.send_raw(raw(WorkData(job.handle, b"late")))

    def end(self, job: Job, state: str) -> None:
        self.jobs.remove(job)
        for model in job.models:
            model.state = state

    def lose_job(self) -> None:
        """Let a server lose a job silently. Only a status query reveals it."""
        if self.jobs:
            self.rng.choice(self.jobs).known = False

    def break_link(self) -> None:
        peers = self.world.alive()
        if peers:
            peer = self.rng.choice(peers)
            if not peer.link.is_up:
                peer.refuse()
            elif self.rng.random() < 0.3:
                peer.send_raw(b"HTTP/1.1")
            else:
                peer.lose(self.rng.choice([None, OSError("reset")]))

    def sleep(self) -> None:
        self.world.sleep(self.rng.choice([0.1, 0.5, 5.0]))

    def settle(self) -> None:
        """Learn of lost connections, and compare all requests with their models."""
        for job in [job for job in self.jobs if not job.peer.link.alive]:
            self.end(job, JOB_UNKNOWN)
        for model in self.models:
            if model.state == JOB_PENDING and model.request.state == JOB_CREATED:
                # The request has joined a job without a submit.
                assert model.unique is not None
                link = model.request._gm_link
                (job,) = (
                    job
                    for job in self.jobs
                    if job.peer.link is link and job.unique == model.unique and job.models
                )
                job.accept(model)
            elif model.state == JOB_PENDING and model.request.state == JOB_UNKNOWN:
                request = model.request
                assert isinstance(request.error, LOST)
                if isinstance(request.error, ExceededConnectionAttempts):
                    assert request.connection_attempts == request.max_connection_attempts
                model.expect(JOB_UNKNOWN, request.handle)
            model.check()


@pytest.mark.parametrize("seed", seeds(180))
def test_outcomes_are_those_that_the_servers_have_sent(seed: int) -> None:
    Walk(seed).go()
