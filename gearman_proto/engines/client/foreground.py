"""The foreground jobs of one connection, and the requests that wait for them.

Ownership of requests
    After JOB_CREATED, this module holds only weak references to requests. If the application drops
    the request of a job that never ends (without a worker, for example), its memory is freed. A
    request can be garbage-collected at any point, so the weakref callback only queues the
    reference. The engine does the cleanup at its next call.

One job, several requests
    A server coalesces submits with the same unique and answers with the handle of the existing job.
    gearmand attaches the connection once per submit and sends each event as many times (recording
    12_coalesce_same_connection). Other servers attach it once, and the protocol does not reveal the
    difference. Therefore, at most one submit or job of a unique that the application chose is
    active on a connection. Meanwhile, the client attaches further requests for that unique to it
    locally and sends nothing. The result is the same as if the server had received those requests
    just before the job ended.

    The client remembers a job of such a unique until the job ends, even if all its requests were
    garbage-collected: the server keeps this connection attached and continues to send events.
    Requests never share a unique that the client generated.
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

#: A task name, and its unique. If the unique is "-", servers coalesce by the data instead.
Key: TypeAlias = tuple[str, "str | bytes"]


def key_of(request: GearmanJobRequest) -> Key | None:
    """Return the sharing key of `request`, whose unique the application chose, or None."""
    assert request.unique is not None
    if request.unique != "-":
        return request.task, request.unique
    # Servers don't coalesce jobs of this unique that have no data (recording 13_unique_dash).
    return (request.task, request._gm_payload) if request._gm_payload else None


class Submit:
    """An unanswered submit of a unique that the application chose.

    Attributes:
        key: The sharing key of its requests.
        requests: The requests that wait for the answer. The client sends only the first one.
        was_sent: True if the submit was sent.
    """

    __slots__ = ("key", "requests", "was_sent")

    #: Background jobs are never shared, because no request waits for their end.
    background: Final = False

    def __init__(self, key: Key, request: GearmanJobRequest) -> None:
        self.key: Key = key
        self.requests: list[GearmanJobRequest] = [request]
        self.was_sent: bool = False

    def join(self, request: GearmanJobRequest) -> None:
        """Add `request` to this submit."""
        self.requests.append(request)
        request.connection_attempts += self.was_sent

    def sent(self) -> None:
        """Record that the submit was sent, and count an attempt for each request."""
        self.was_sent = True
        for request in self.requests:
            request.connection_attempts += 1


class Job:
    """A foreground job that the server has acknowledged.

    Attributes:
        handle: Its handle.
        since: Time of the acknowledgment, in the engine's time.
        key: The sharing key of its requests, or None.
        requests: Weak references to the requests that wait for the job.
    """

    __slots__ = ("_gone", "handle", "key", "requests", "since")

    def __init__(self, handle: str, since: float) -> None:
        self.handle: str = handle
        self.since: float = since
        self.key: Key | None = None
        self.requests: list[RequestRef] = []
        # Number of requests reported as garbage-collected since the last scan.
        self._gone = 0

    def live(self) -> list[GearmanJobRequest]:
        """Return the requests that still exist."""
        return [each for reference in self.requests if (each := reference()) is not None]

    def detach(self, requests: Iterable[GearmanJobRequest]) -> None:
        """Stop reporting the job's events to `requests`."""
        leaving = {id(request) for request in requests}
        self.requests = [r for r in self.requests if id(r()) not in leaving]

    def forget_one(self) -> None:
        """Record that one of the requests was garbage-collected."""
        self._gone += 1
        # Scanning only when half are dead keeps the cost linear if many requests die one by one.
        if self._gone * 2 >= len(self.requests):
            self.requests = [r for r in self.requests if r() is not None]
            self._gone = 0


class RequestRef(weakref.ref[GearmanJobRequest]):
    """A weak reference to one of the requests of a `Job`.

    Attributes:
        job: The job.
        jobs: The collection that contains the job.
    """

    __slots__ = ("job", "jobs")

    job: Job
    jobs: ForegroundJobs

    def forget(self) -> None:
        """Clean up after the request was garbage-collected."""
        self.job.forget_one()
        if not self.job.requests and self.job.key is None:
            self.jobs.forget(self.job)


class LoneRef(weakref.ref[GearmanJobRequest]):
    """A job with a single request, and the weak reference to that request.

    Most jobs have only one request, so one object instead of two saves memory.

    Attributes:
        handle, since: As in Job.
        jobs: The collection that contains the job.
    """

    __slots__ = ("handle", "jobs", "since")

    handle: str
    since: float
    jobs: ForegroundJobs

    #: No other request can share the job.
    key: Final = None

    def live(self) -> list[GearmanJobRequest]:
        """Return the request in a list, or an empty list if it was garbage-collected."""
        request = self()
        return [] if request is None else [request]

    def detach(self, requests: Iterable[GearmanJobRequest]) -> None:  # noqa: ARG002 - as in Job
        """Stop reporting the job's events to the request."""
        self.forget()

    def forget(self) -> None:
        """Clean up after the request was garbage-collected."""
        self.jobs.forget(self)


class ForegroundJobs(dict[str, "Job | LoneRef"]):
    """The acknowledged foreground jobs of one connection, by handle.

    Handles are text here, because requests store them as text and both can share one object.

    Args:
        dropped: Queue for the references to garbage-collected requests.

    Attributes:
        shared: The active submit or job for each unique that the application chose.
    """

    __slots__ = ("_drop", "shared")

    def __init__(self, dropped: deque[RequestRef | LoneRef]) -> None:
        super().__init__()
        self._drop = dropped.append
        self.shared: dict[Key, Submit | Job] = {}

    def accept(self, handle: str, request: GearmanJobRequest, now: float) -> None:
        """Add the job of `handle` for `request`, or attach `request` if the job exists."""
        if handle in self:
            self.attach(handle, request, now)
            return
        job = self[handle] = LoneRef(request, self._drop)
        job.handle, job.since, job.jobs = handle, now, self
        _created(request, handle)

    def attach(self, handle: str, request: GearmanJobRequest, now: float) -> Job:
        """Attach `request` to the job of `handle`, which other requests can share."""
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
        """Return the item to send for `request`, whose unique the application chose.

        Return None if `request` has joined an active submit or job.
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
        """Process the server's answer to `submit`: `job`, or None for an error."""
        self.shared.pop(submit.key, None)
        if job is not None and job.key is None:
            job.key = submit.key
            self.shared[submit.key] = job

    def receivers(self, handle: bytes) -> list[GearmanJobRequest]:
        """Return the requests that wait for the job of `handle`, a packet's argument."""
        job = self.get(handle.decode("utf-8", "surrogateescape"))
        return job.live() if job is not None else []  # None: The job has ended or was abandoned.

    def end(self, handle: bytes) -> list[GearmanJobRequest]:
        """Remove the job of `handle`, a packet's argument, and return its requests."""
        job = self.pop(handle.decode("utf-8", "surrogateescape"), None)
        if job is None:
            return []
        if job.key is not None:
            self.shared.pop(job.key, None)
        return job.live()

    def forget(self, job: Job | LoneRef) -> None:
        """Remove `job` if it is still in the collection."""
        if self.get(job.handle) is job:
            del self[job.handle]

    def give_up(self) -> list[GearmanJobRequest]:
        """Remove all jobs and submits, and return the requests of the jobs."""
        requests = [request for job in self.values() for request in job.live()]
        self.clear()
        self.shared.clear()
        return requests


def _created(request: GearmanJobRequest, handle: str) -> None:
    """Record that the server has acknowledged `request`."""
    request.handle = handle
    request._gm_payload = None
    tracking.clear_tried(request)
    request.state = JOB_CREATED
    for wait in request._gm_waits:
        wait.request_accepted()
