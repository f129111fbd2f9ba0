"""Foreground jobs at one server, and the requests that wait for them.

Who holds a request
    After JOB_CREATED only those who may still look at it: there are weak references here, so that a
    caller who gave up on a job that never ends (no worker, say) does not pay for it for ever. What
    a reference's end leaves to do is queued, since it may happen anywhere, and done at the engine's
    next call.

One handle, several requests
    A submit whose unique is already in use is coalesced: it gets the handle that is there, and all
    of its requests end together. gearmand attaches a connection once for each submit and then
    sends everything as many times, the copies of a packet adjacent (recording
    12_coalesce_same_connection); other servers attach it once. So a packet that is the same as the
    one before counts as its copy, up to the number of submits, until a different packet comes too
    early: then this server attaches once, and nothing is a copy.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from gearman_proto.jobs.request import GearmanJobRequest

if TYPE_CHECKING:
    from collections import deque

    from gearman_proto.wire.events import Event


class _Job:
    """A foreground job at a server."""

    __slots__ = ("copies", "handle", "last", "requests", "submits")

    def __init__(self, handle: bytes) -> None:
        self.handle: bytes = handle
        self.requests: list[RequestRef] = []
        #: How many submits of this connection the server has for it.
        self.submits: int = 0
        #: The last packet about it, while copies of that are expected, and how many.
        self.last: Event | None = None
        self.copies: int = 0

    def live(self) -> list[GearmanJobRequest]:
        """Return the requests that somebody still holds."""
        return [each for reference in self.requests if (each := reference()) is not None]


class RequestRef(weakref.ref[GearmanJobRequest]):
    """A request of a job, as long as somebody holds it.

    Attributes:
        jobs: Where its job is.
        job: Its job.
        generated: Whether the job's unique was made by this library.
    """

    __slots__ = ("generated", "job", "jobs")

    jobs: ForegroundJobs
    job: _Job
    generated: bool

    def forget(self) -> None:
        """Nobody holds the request any more."""
        self.jobs.forget(self)


class ForegroundJobs(dict[bytes, _Job]):
    """The foreground jobs that the server of one connection has acknowledged, by handle.

    Args:
        dropped: Where the references end up whose requests nobody holds any more.
    """

    __slots__ = ("_attaches_once", "_drop")

    def __init__(self, dropped: deque[RequestRef]) -> None:
        super().__init__()
        self._drop = dropped.append
        #: True once the server is known to attach a connection once per job, not once per submit.
        self._attaches_once: bool = False

    def add(self, handle: bytes, request: GearmanJobRequest) -> None:
        """The server has acknowledged `request` with `handle`."""
        job = self.get(handle)
        if job is None:
            job = self[handle] = _Job(handle)
        job.submits += 1
        reference = RequestRef(request, self._drop)
        reference.job = job
        reference.jobs = self
        reference.generated = request.unique == request.generated_unique
        job.requests.append(reference)

    def receivers(self, event: Any) -> list[GearmanJobRequest]:
        """Return the requests that `event`, which has a handle, is news for."""
        job = self.get(event.handle)
        if job is None:
            return []  # Ended or abandoned.
        if job.submits > 1 and not self._attaches_once:
            if job.copies and event == job.last:
                job.copies -= 1
                return []
            if job.copies:
                self._attaches_once = True
            job.last = event
            job.copies = job.submits - 1
        return job.live()

    def end(self, handle: bytes) -> list[GearmanJobRequest]:
        """The job of `handle` has ended: forget it, and return its requests."""
        job = self.pop(handle, None)
        return job.live() if job is not None else []

    def remove(self, handle: bytes, request: GearmanJobRequest) -> None:
        """Tell `request` no more of its job."""
        job = self[handle]
        job.requests = [reference for reference in job.requests if reference() is not request]

    def give_up(self) -> list[GearmanJobRequest]:
        """Forget all jobs, and return their requests."""
        requests = [request for job in self.values() for request in job.live()]
        self.clear()
        return requests

    def forget(self, reference: RequestRef) -> None:
        """Nobody holds the request of `reference` any more."""
        job = reference.job
        job.requests = [other for other in job.requests if other is not reference]
        # Where the application chose the unique, it may submit it again, which the server then
        # coalesces with the first submit: that has to be remembered.
        if reference.generated and not job.requests and self.get(job.handle) is job:
            del self[job.handle]
