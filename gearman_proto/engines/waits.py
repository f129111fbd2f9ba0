"""The waits of blocked calls.

A Wait is done once. A RequestsWait counts down as its requests change, in two phases. In the first
phase, the server accepts each request with JOB_CREATED, or the request fails. In the second phase,
each request ends. A call with `accepted_only` skips the second phase. If a request fails in the
first phase, the wait is done after that phase, since the call is going to raise an error.

Each request holds the waits to notify, so the engine never scans all requests. Only a deadline, a
failure or a cancelled caller makes it iterate over the requests of a wait, once.

A Subscription is a RequestsWait that wakes its caller for each request that ends, or for each
update.

The engine calls the methods. An adapter only reads the attributes and provides `wake`. The engine
calls `wake` while it is in use (under the adapter's lock, if there is one), so `wake` must only
wake the caller.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from gearman_proto.constants import JOB_PENDING
from gearman_proto.errors import GearmanError, SubmitError
from gearman_proto.jobs.request import ended, next_update
from gearman_proto.jobs.updates import MAX_UNREAD_UPDATES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Self

    from gearman_proto.errors import ConnectionError, LocalProtocolError
    from gearman_proto.jobs.request import GearmanJobRequest
    from gearman_proto.jobs.updates import JobUpdate


def wake_nobody() -> None:
    """Do nothing: the `wake` of a Wait that no caller waits for."""


class Wait:
    """One blocked call, which is done once: with its result, or at its deadline.

    Args:
        deadline: Time when the call times out, in the engine's time, or None.
        wake: Called once, when the call is done.
    """

    __slots__ = ("deadline", "done", "error", "timed_out", "wake")

    def __init__(self, deadline: float | None, wake: Callable[[], Any]) -> None:
        self.deadline: float | None = deadline
        self.wake: Callable[[], Any] = wake
        #: True once the call can return.
        self.done: bool = False
        #: True if the deadline ended the call.
        self.timed_out: bool = False
        #: The error for the call to raise, or None.
        self.error: Exception | None = None

    @property
    def ready(self) -> bool:
        """True if the blocked caller has something to process."""
        return self.done

    def finish(self) -> None:
        """Mark the call as done and wake the caller, unless the call is done already."""
        if not self.done:
            self.done = True
            self.wake()

    def note(self, error: Exception) -> None:
        """Make the call raise `error` when it is done, unless an earlier error was noted."""
        self.error = self.error or error

    def fail(self, error: Exception) -> None:
        """Finish the call with `error`, or with an error that was noted earlier."""
        self.note(error)
        self.finish()

    def refuse(self, error: LocalProtocolError | ConnectionError) -> Self:
        """Fail with `error` before the call has changed anything."""
        self.fail(error)
        return self

    def expire(self, now: float) -> None:  # noqa: ARG002 - it is what Timers call
        """Finish the call because its deadline has passed."""
        self.timed_out = True
        self.finish()

    def raise_error(self) -> None:
        """Raise the error of the call, if there is one.

        Raises:
            ServerUnavailable: No server could be reached.
            ExceededConnectionAttempts: A request was lost too often.
            LocalProtocolError: The engine refused the call, for example because it is closed.
            GearmanError: There is a bug in this library.
        """
        error = self.error
        if isinstance(error, GearmanError):
            raise error
        if error is not None:
            raise GearmanError(f"internal error: {error!r}") from error


class RequestsWait(Wait):
    """A call that waits for requests and counts down as they change.

    Args:
        requests: The requests of the call, in the collection that the application passed.
        deadline: As in Wait.
        wake: As in Wait.
        accepted_only: True if the call is done as soon as no request is JOB_PENDING.
    """

    __slots__ = ("accepted_only", "members", "remaining", "requests", "unaccepted")

    def __init__(
        self,
        requests: Collection[GearmanJobRequest],
        deadline: float | None,
        wake: Callable[[], Any],
        *,
        accepted_only: bool = False,
    ) -> None:
        super().__init__(deadline, wake)
        self.requests: Collection[GearmanJobRequest] = requests
        #: A copy of `requests`, since the application can change its collection meanwhile. Empty
        #: while the jobs of the call are in columns.
        self.members: Sequence[GearmanJobRequest] = tuple(requests)
        self.accepted_only: bool = accepted_only
        #: Number of requests that are neither accepted nor failed.
        self.unaccepted: int = 0
        #: Number of requests that have not ended.
        self.remaining: int = 0

    def request_accepted(self) -> None:
        """Count down a request that has left the first phase."""
        self.unaccepted -= 1
        if not self.unaccepted:
            self.check()

    def request_failed(self, error: Exception) -> None:
        """Make the call raise `error`, since the server will not accept one of its requests."""
        self.note(error)

    def make_room(self, size: int) -> bool:  # noqa: ARG002 - for UpdateSubscription
        """Return True, since the limit of a request's own updates is enough for this call."""
        return True

    def request_updated(self, request: GearmanJobRequest) -> None:
        """Ignore an update of a job that has not ended. UpdateSubscription overrides this."""

    def request_ended(self, request: GearmanJobRequest) -> None:  # noqa: ARG002 - for Subscription
        """Count down a request that has left the second phase."""
        self.remaining -= 1
        if not self.remaining:
            self.check()

    def requests_ended(self, requests: Sequence[GearmanJobRequest]) -> None:
        """Count down requests that have left both phases at once."""
        self.jobs_ended(len(requests))

    def jobs_ended(self, count: int) -> None:
        """Count down jobs that have left both phases at once, perhaps without a request."""
        self.remaining -= count
        self.unaccepted -= count
        if not self.unaccepted:
            self.check()

    def request_already_ended(self, request: GearmanJobRequest) -> None:
        """Ignore a request that had ended before the call. Subscription overrides this."""

    def check(self) -> None:
        """Finish the call if no request is left to wait for."""
        if not self.unaccepted and (self.accepted_only or self.error or not self.remaining):
            self.finish()

    def expire(self, now: float) -> None:
        """Mark the requests that the call still waits for as timed out, and finish the call."""
        for request in self.members:
            if self in request._gm_waits and not (
                self.accepted_only and request.state != JOB_PENDING
            ):
                request.timed_out = True
        super().expire(now)

    def raise_error(self) -> None:
        """Raise the error of the call, if there is one. A SubmitError gets all the requests."""
        if self.error is None:
            return
        if isinstance(self.error, SubmitError):
            raise type(self.error)(str(self.error), self.requests)
        super().raise_error()


class Subscription(RequestsWait):
    """A call that returns several times, and whose caller is woken each time.

    `finished` holds the ended requests that the caller has not taken yet. The caller first reads
    `done`, then calls `take`. If `take` returns None and `done` was true, the subscription has
    ended. If `done` was false, the caller blocks until the subscription is `ready`.
    """

    __slots__ = ("finished", "news")

    def __init__(
        self,
        requests: Collection[GearmanJobRequest],
        deadline: float | None,
        wake: Callable[[], Any],
    ) -> None:
        super().__init__(requests, deadline, wake)
        self.finished: deque[GearmanJobRequest] = deque()
        #: True if the caller has something to take. `take` resets it.
        self.news: bool = False

    @property
    def ready(self) -> bool:
        """True if the blocked caller has something to process."""
        return self.done or self.news

    def take(self) -> Any:
        """Remove and return the next request that has ended, or return None."""
        self.news = False  # Reset this first, since another thread might call `notify` meanwhile.
        return self.finished.popleft() if self.finished else None

    def notify(self) -> None:
        """Wake the caller for an update, unless it has been woken already."""
        if not self.news:
            self.news = True
            self.wake()

    def request_failed(self, error: Exception) -> None:
        """Ignore the failure of a request, since a call of `requests_ended` follows."""

    def request_ended(self, request: GearmanJobRequest) -> None:
        """Deliver a request that has left the second phase."""
        self._deliver((request,))
        self.notify()
        super().request_ended(request)

    def requests_ended(self, requests: Sequence[GearmanJobRequest]) -> None:
        """Deliver requests that have left both phases at once."""
        self._deliver(requests)
        self.notify()
        super().requests_ended(requests)

    def request_already_ended(self, request: GearmanJobRequest) -> None:
        """Deliver a request that had ended before the call."""
        self._deliver((request,))
        self.news = True

    def _deliver(self, requests: Sequence[GearmanJobRequest]) -> None:
        self.finished.extend(requests)


class UpdateSubscription(Subscription):
    """A call that receives the updates of jobs, and finally the end of each.

    The updates stay in the queues of their requests until the caller takes them. The call itself
    only has a queue of requests with unread updates or an unread end. A request is queued once.
    After each update it moves to the end of the queue, so no job keeps the others waiting.

    All jobs of the call share one memory limit. If a consumer is too slow, the call first drops old
    progress: of each job, it keeps only the last. If the updates still exceed the limit, the engine
    fails the request whose update has no room. The call only adds up the sizes of new updates. When
    the sum exceeds the limit, the call recounts all unread updates, because any thread can read the
    queues of a request. So a consumer that keeps up costs one recount per 256 MiB of updates.
    """

    __slots__ = ("_ended", "_queue", "_queued", "_size")

    def __init__(
        self,
        requests: Collection[GearmanJobRequest],
        deadline: float | None,
        wake: Callable[[], Any],
    ) -> None:
        super().__init__(requests, deadline, wake)
        # The requests that might have something to take, and their ids.
        self._queue: deque[GearmanJobRequest] = deque()
        self._queued: set[int] = set()
        # The ids of the ended requests that the caller has not taken.
        self._ended: set[int] = set()
        # Upper bound of the unread bytes.
        self._size = self._unread()
        for request in self.members:
            if request._gm_updates is not None:
                self._offer(request)

    def take(self) -> Any:
        """Remove and return the next request with its update, or return None.

        Raises:
            Exception: Any error of the encoder's `decode`. The update is removed nevertheless.
        """
        self.news = False
        while self._queue and self.error is None:
            request = self._queue.popleft()
            # From now on, the engine queues the request again for a new update.
            self._queued.discard(id(request))
            # Read this before the updates. No update arrives after the end, so none gets lost.
            is_ended = id(request) in self._ended
            has_update = True
            try:
                update = next_update(request)
                # Another thread might have read it.
                has_update = update is not None
            finally:
                if has_update:
                    self._offer(request)
            if has_update:
                return request, update
            if is_ended:
                self._ended.discard(id(request))
                return request, ended(request)
        return None

    def make_room(self, size: int) -> bool:
        """Drop old progress if an update of `size` bytes would exceed the limit.

        Returns:
            False if that is not enough.
        """
        self._size += size
        if self._size > MAX_UNREAD_UPDATES:
            self._size = self._unread() + size
            if self._size > MAX_UNREAD_UPDATES:
                for request in self.members:
                    if request._gm_updates is not None:
                        request._gm_updates.drop_progress()
                self._size = self._unread() + size
        return self._size <= MAX_UNREAD_UPDATES

    def request_updated(self, request: GearmanJobRequest) -> None:
        """Queue `request` for its update."""
        self._offer(request)
        self.notify()

    def _deliver(self, requests: Sequence[GearmanJobRequest]) -> None:
        for request in requests:
            self._ended.add(id(request))
            self._offer(request)

    def _offer(self, request: GearmanJobRequest) -> None:
        if id(request) not in self._queued:
            self._queued.add(id(request))
            self._queue.append(request)

    def _unread(self) -> int:
        updates = (request._gm_updates for request in self.members)
        return sum(each.unread for each in updates if each is not None)


class SingleSubscription(UpdateSubscription):
    """A call that receives the updates of one job, without the request."""

    __slots__ = ()

    def take(self) -> JobUpdate | None:
        """Remove and return the next update, or return None. See `UpdateSubscription.take`."""
        item = super().take()
        return None if item is None else item[1]
