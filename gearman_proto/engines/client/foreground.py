"""Foreground jobs at one server, and the requests that wait for them.

Who holds a request
    After JOB_CREATED only those who may still look at it: there are weak references here, so that a
    caller who gave up on a job that never ends (no worker, say) does not pay for it for ever. What
    a reference's end leaves to do is queued, since it may happen anywhere, and done at the engine's
    next call.

One job, several requests
    A server coalesces a submit whose unique is in use: it answers with the handle that is there.
    gearmand attaches a connection once for each submit, and sends everything as many times
    (recording 12_coalesce_same_connection); other servers attach it once, and nothing on the wire
    tells one kind from the other. So a unique that the application chose is submitted once at a
    time on one connection. A request for it that comes while its `Submit` is on its way, or before
    its job has ended, is attached here, and nothing is sent. It is what the server would have made
    of it, had it come there a moment before the job's end.

    A job of such a unique is remembered until it ends, also when nobody holds its requests any
    more: the server has this connection attached, and goes on sending. A unique that was made here
    is nobody else's.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final, TypeAlias

from gearman_proto.constants import JOB_CREATED
from gearman_proto.jobs import tracking
from gearman_proto.jobs.request import GearmanJobRequest

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

#: A task, and what servers tell its jobs apart by: the unique, or the data where that is "-".
Key: TypeAlias = tuple[str, "str | bytes"]


def key_of(request: GearmanJobRequest) -> Key | None:
    """Return what `request`, whose unique the application chose, shares a job by, if anything."""
    assert request.unique is not None
    if request.unique != "-":
        return request.task, request.unique
    # Without data, jobs of this unique are not coalesced (recording 13_unique_dash).
    return (request.task, request._gm_payload) if request._gm_payload else None


class Submit:
    """One submit of a unique that the application chose, until the server has answered it.

    Attributes:
        key: What its requests share a job by.
        requests: The requests, the first of which is what is sent.
        was_sent: Whether it was.
    """

    __slots__ = ("key", "requests", "was_sent")

    #: Background jobs are never shared: nobody waits for them.
    background: Final = False

    def __init__(self, key: Key, request: GearmanJobRequest) -> None:
        self.key: Key = key
        self.requests: list[GearmanJobRequest] = [request]
        self.was_sent: bool = False

    def join(self, request: GearmanJobRequest) -> None:
        """It is for `request`, too."""
        self.requests.append(request)
        request.connection_attempts += self.was_sent

    def sent(self) -> None:
        """It has been sent, which is an attempt of each request."""
        self.was_sent = True
        for request in self.requests:
            request.connection_attempts += 1


class Job:
    """A foreground job that the server has acknowledged.

    Attributes:
        handle: Its handle.
        since: When it was acknowledged, in the engine's time.
        key: What requests share it by, or None.
        requests: The requests that wait for it.
    """

    __slots__ = ("_gone", "handle", "key", "requests", "since")

    def __init__(self, handle: str, since: float) -> None:
        self.handle: str = handle
        self.since: float = since
        self.key: Key | None = None
        self.requests: list[RequestRef] = []
        # How many of them nobody holds any more.
        self._gone = 0

    def live(self) -> list[GearmanJobRequest]:
        """Return the requests that somebody still holds."""
        return [each for reference in self.requests if (each := reference()) is not None]

    def detach(self, requests: Iterable[GearmanJobRequest]) -> None:
        """Tell `requests` no more of it."""
        leaving = {id(request) for request in requests}
        self.requests = [r for r in self.requests if id(r()) not in leaving]

    def forget_one(self) -> None:
        """Nobody holds one of the requests any more."""
        self._gone += 1
        # So that many that go one by one are not looked through each time.
        if self._gone * 2 >= len(self.requests):
            self.requests = [r for r in self.requests if r() is not None]
            self._gone = 0


class RequestRef(weakref.ref[GearmanJobRequest]):
    """A request of a job, as long as somebody holds it.

    Attributes:
        job: Its job.
        jobs: Where that is.
    """

    __slots__ = ("job", "jobs")

    job: Job
    jobs: ForegroundJobs

    def forget(self) -> None:
        """Nobody holds the request any more."""
        self.job.forget_one()
        if not self.job.requests and self.job.key is None:
            self.jobs.forget(self.job)


class LoneRef(weakref.ref[GearmanJobRequest]):
    """The only request of a job, and that job as well: most jobs have but one.

    Attributes:
        handle, since: As in Job.
        jobs: Where it is.
    """

    __slots__ = ("handle", "jobs", "since")

    handle: str
    since: float
    jobs: ForegroundJobs

    #: Nobody else can share it.
    key: Final = None

    def live(self) -> list[GearmanJobRequest]:
        """Return the request, if somebody still holds it."""
        request = self()
        return [] if request is None else [request]

    def detach(self, requests: Iterable[GearmanJobRequest]) -> None:  # noqa: ARG002 - as in Job
        """Tell the request no more of it."""
        self.forget()

    def forget(self) -> None:
        """Nobody holds the request any more."""
        self.jobs.forget(self)


class ForegroundJobs(dict[str, "Job | LoneRef"]):
    """The foreground jobs that the server of one connection has acknowledged, by handle.

    A handle is text here, since a job's request has it as that: what is kept of it is kept once.

    Args:
        dropped: Where the references end up whose requests nobody holds any more.

    Attributes:
        shared: What is under way for each unique that the application chose.
    """

    __slots__ = ("_drop", "shared")

    def __init__(self, dropped: deque[RequestRef | LoneRef]) -> None:
        super().__init__()
        self._drop = dropped.append
        self.shared: dict[Key, Submit | Job] = {}

    def accept(self, handle: str, request: GearmanJobRequest, now: float) -> None:
        """The job of `handle` is what the server has, or has already had, for `request` alone."""
        if handle in self:
            self.attach(handle, request, now)
            return
        job = self[handle] = LoneRef(request, self._drop)
        job.handle, job.since, job.jobs = handle, now, self
        _created(request, handle)

    def attach(self, handle: str, request: GearmanJobRequest, now: float) -> Job:
        """The job of `handle`, which others may share, is what the server has for `request`."""
        job = self.get(handle)
        if not isinstance(job, Job):
            alone = job
            job = self[handle] = Job(handle, now if alone is None else alone.since)
            if alone is not None:
                self._refer(job, *alone.live())
        self._refer(job, request)
        _created(request, handle)
        return job

    def _refer(self, job: Job, *requests: GearmanJobRequest) -> None:
        for request in requests:
            reference = RequestRef(request, self._drop)
            reference.job, reference.jobs = job, self
            job.requests.append(reference)

    def share(self, request: GearmanJobRequest, now: float) -> GearmanJobRequest | Submit | None:
        """Return what is to be sent for `request`, whose unique the application chose.

        None, if it has joined what is under way.
        """
        key = key_of(request)
        if key is None:
            return request
        there = self.shared.get(key)
        if there is None:
            submit = self.shared[key] = Submit(key, request)
            return submit
        if isinstance(there, Submit):
            there.join(request)
        else:
            self.attach(there.handle, request, now)
        return None

    def answered(self, submit: Submit, job: Job | None) -> None:
        """The server has answered `submit`: with `job`, or with an error."""
        self.shared.pop(submit.key, None)
        if job is not None and job.key is None:
            job.key = submit.key
            self.shared[submit.key] = job

    def receivers(self, handle: bytes) -> list[GearmanJobRequest]:
        """Return the requests that wait for the job of `handle`, which is from a packet."""
        job = self.get(handle.decode("utf-8", "surrogateescape"))
        return job.live() if job is not None else []  # None: ended or abandoned.

    def end(self, handle: bytes) -> list[GearmanJobRequest]:
        """The job of `handle`, from a packet, has ended: forget it, and return its requests."""
        job = self.pop(handle.decode("utf-8", "surrogateescape"), None)
        if job is None:
            return []
        if job.key is not None:
            self.shared.pop(job.key, None)
        return job.live()

    def forget(self, job: Job | LoneRef) -> None:
        """Nobody waits for `job` any more."""
        if self.get(job.handle) is job:
            del self[job.handle]

    def give_up(self) -> list[GearmanJobRequest]:
        """Forget all jobs and submits, and return the requests of the jobs."""
        requests = [request for job in self.values() for request in job.live()]
        self.clear()
        self.shared.clear()
        return requests


def _created(request: GearmanJobRequest, handle: str) -> None:
    """`request` has been acknowledged, and goes on."""
    request.handle = handle
    request._gm_payload = None
    tracking.clear_tried(request)
    request.state = JOB_CREATED
    for wait in request._gm_waits:
        wait.request_accepted()
