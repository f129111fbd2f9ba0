"""What a blocked call waits for.

A Wait is done once. A RequestsWait counts down as the requests it is about change. It has two
phases: first each request has to be accepted (answered with JOB_CREATED, or failed), then, unless
only that was asked for, each has to end. A failure in the first phase ends the wait after it, since
the call is going to raise. Each request holds the waits that it has to tell (`_gm_waits`), so
nothing ever scans all requests; only what cuts a wait short (its deadline, a failure, a cancelled
caller) goes through them, once. A Stream is a RequestsWait that returns each time there is news.

The engine calls; an adapter only reads, and passes `wake`, which is called while the engine is
being used (under the adapter's lock, if it has one) and so must do nothing but wake somebody.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from gearman_proto.constants import JOB_PENDING
from gearman_proto.errors import GearmanError, SubmitError
from gearman_proto.jobs.request import ended, next_update

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Self

    from gearman_proto.errors import ConnectionError, LocalProtocolError
    from gearman_proto.jobs.request import GearmanJobRequest
    from gearman_proto.jobs.updates import JobUpdate


class Wait:
    """One blocked call, which is done once: when what it waits for is there, or by its deadline.

    Args:
        deadline: When it times out, in the engine's time, or None.
        wake: Called once, when it is done.
    """

    __slots__ = ("deadline", "done", "error", "timed_out", "wake")

    def __init__(self, deadline: float | None, wake: Callable[[], Any]) -> None:
        self.deadline: float | None = deadline
        self.wake: Callable[[], Any] = wake
        #: True once the call can return.
        self.done: bool = False
        #: True if it is done because of its deadline.
        self.timed_out: bool = False
        #: What the call has to raise, if anything.
        self.error: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether a blocked caller has something to do."""
        return self.done

    def finish(self) -> None:
        """Be done, and wake the caller, if that has not happened yet."""
        if not self.done:
            self.done = True
            self.wake()

    def note(self, error: Exception) -> None:
        """The call has to raise `error` when it is done, or what was noted before it."""
        self.error = self.error or error

    def fail(self, error: Exception) -> None:
        """Be done; the call has to raise `error`, or what was noted before it."""
        self.note(error)
        self.finish()

    def refuse(self, error: LocalProtocolError | ConnectionError) -> Self:
        """End the call before it has begun: it has changed nothing, and raises `error`."""
        self.fail(error)
        return self

    def expire(self, now: float) -> None:  # noqa: ARG002 - it is what Timers call
        """The deadline has come."""
        self.timed_out = True
        self.finish()

    def raise_error(self) -> None:
        """Raise what the call has to raise, if anything.

        Raises:
            ServerUnavailable: No server could be reached.
            ExceededConnectionAttempts: Some request was lost too often.
            LocalProtocolError: The call was refused: its client is closed, for example.
            GearmanError: There is a bug in this library.
        """
        error = self.error
        if isinstance(error, GearmanError):
            raise error
        if error is not None:
            raise GearmanError(f"internal error: {error!r}") from error


class RequestsWait(Wait):
    """A call that waits for requests: it counts down as they change.

    Args:
        requests: The requests of the call, as they were passed in.
        deadline: As in Wait.
        wake: As in Wait.
        accepted_only: Whether the call is done when no request is JOB_PENDING any more.
    """

    __slots__ = ("accepted_only", "members", "open", "requests", "unaccepted")

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
        #: What was in that; the application may do with it what it likes meanwhile.
        self.members: Sequence[GearmanJobRequest] = tuple(requests)
        self.accepted_only: bool = accepted_only
        #: How many requests are neither accepted nor failed.
        self.unaccepted: int = 0
        #: How many requests have not ended.
        self.open: int = 0

    def request_accepted(self) -> None:
        """A request has left the first phase."""
        self.unaccepted -= 1
        if not self.unaccepted:
            self.check()

    def request_failed(self, error: Exception) -> None:
        """A request will not be accepted, and the call has to raise `error`."""
        self.note(error)

    def request_updated(self) -> None:
        """Something has come of a request's job, and it goes on."""

    def request_ended(self, request: GearmanJobRequest) -> None:  # noqa: ARG002 - for Stream
        """A request has left the second phase."""
        self.open -= 1
        if not self.open:
            self.check()

    def requests_over(self, requests: Sequence[GearmanJobRequest]) -> None:
        """Requests have left both phases at once."""
        self.open -= len(requests)
        self.unaccepted -= len(requests)
        if not self.unaccepted:
            self.check()

    def request_was_over(self, request: GearmanJobRequest) -> None:
        """A request was not under way when this began."""

    def check(self) -> None:
        """Be done if nothing is left to wait for."""
        if not self.unaccepted and (self.accepted_only or self.error or not self.open):
            self.finish()

    def expire(self, now: float) -> None:
        """The deadline has come: mark what has not got as far as was asked, and be done."""
        for request in self.members:
            if self in request._gm_waits and not (
                self.accepted_only and request.state != JOB_PENDING
            ):
                request.timed_out = True
        super().expire(now)

    def raise_error(self) -> None:
        """Raise what the call has to raise, if anything: with its requests, if it is about them."""
        if self.error is None:
            return
        if isinstance(self.error, SubmitError):
            raise type(self.error)(str(self.error), self.requests)
        super().raise_error()


class Stream(RequestsWait):
    """A call that returns several times: it is woken for each piece of news.

    `finished` holds the requests that have ended and were not yet taken. The caller looks whether
    the stream is `done`, then takes something; when there is nothing, it is over if it was done,
    and else blocks until the stream is `ready`.
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
        #: True if there is something new. The caller resets it before it looks.
        self.news: bool = False

    @property
    def ready(self) -> bool:
        """Whether a blocked caller has something to do."""
        return self.done or self.news

    def take(self) -> Any:
        """What the caller is to have next, or None: here, a request that has ended."""
        self.news = False  # Before looking: another thread may be telling news.
        return self.finished.popleft() if self.finished else None

    def tell(self) -> None:
        """There is something new."""
        if not self.news:
            self.news = True
            self.wake()

    def request_failed(self, error: Exception) -> None:
        """A request will not be accepted: `requests_over` follows, which is all that matters."""

    def request_updated(self) -> None:
        """Something has come of a request's job."""
        self.tell()

    def request_ended(self, request: GearmanJobRequest) -> None:
        """A request has left the second phase."""
        self.finished.append(request)
        self.tell()
        super().request_ended(request)

    def requests_over(self, requests: Sequence[GearmanJobRequest]) -> None:
        """Requests have left both phases at once."""
        self.finished.extend(requests)
        self.tell()
        super().requests_over(requests)

    def request_was_over(self, request: GearmanJobRequest) -> None:
        """A request was not under way: the caller is to have it at once."""
        self.finished.append(request)
        self.news = True


class UpdateStream(Stream):
    """A call that wants what comes of one job, and at last how it ended."""

    __slots__ = ()

    def __init__(
        self, request: GearmanJobRequest, deadline: float | None, wake: Callable[[], Any]
    ) -> None:
        super().__init__((request,), deadline, wake)

    def take(self) -> JobUpdate | None:
        """The next update, or None.

        Raises:
            Exception: Whatever the encoder's `decode` raises. The update is taken all the same.
        """
        self.news = False
        # Looked at before the updates are: none can come after the end.
        done = self.done
        (request,) = self.members
        update = next_update(request)
        if update is None and done and self.finished and not (self.timed_out or self.error):
            self.finished.clear()
            return ended(request)
        return update
