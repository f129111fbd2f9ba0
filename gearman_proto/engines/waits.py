"""What a blocked call waits for.

A Wait counts down as the requests it is about change, and is done once. It has two phases: first
each request has to be accepted (answered with JOB_CREATED, or failed), then, unless only that was
asked for, each has to end. A failure in the first phase ends the wait after it, since the call is
going to raise. Each request holds the waits that it has to tell (`request._waits`), so nothing ever
scans all requests; only what cuts a wait short (its deadline, a failure, a cancelled caller) goes
through them, once.

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
    from collections.abc import Callable, Collection

    from gearman_proto.jobs.request import GearmanJobRequest
    from gearman_proto.jobs.updates import JobUpdate


class Wait:
    """One blocked call."""

    __slots__ = (
        "accepted_only",
        "alone",
        "deadline",
        "done",
        "error",
        "open",
        "requests",
        "timed_out",
        "unaccepted",
        "wake",
    )

    def __init__(
        self,
        requests: Collection[GearmanJobRequest],
        deadline: float | None,
        wake: Callable[[], Any],
        *,
        accepted_only: bool = False,
    ) -> None:
        self.requests: Collection[GearmanJobRequest] = requests
        #: When it times out, in the engine's time, or None.
        self.deadline: float | None = deadline
        self.wake: Callable[[], Any] = wake
        self.accepted_only: bool = accepted_only
        #: Whether the call can return.
        self.done: bool = False
        #: Whether it is done because of its deadline.
        self.timed_out: bool = False
        #: What the call has to raise, if anything.
        self.error: Exception | None = None
        #: How many requests are neither accepted nor failed.
        self.unaccepted: int = 0
        #: How many requests have not ended.
        self.open: int = 0
        # One tuple, shared by all requests that have no other wait.
        self.alone: tuple[Wait, ...] = (self,)

    @property
    def ready(self) -> bool:
        """Whether a blocked caller has something to do."""
        return self.done

    def request_accepted(self) -> None:
        """A request has left the first phase."""
        self.unaccepted -= 1
        if not self.unaccepted:
            self.check()

    def request_failed(self, error: Exception) -> None:
        """A request will not be accepted, and the call has to raise `error`."""
        self.error = self.error or error

    def request_ended(self, request: GearmanJobRequest) -> None:  # noqa: ARG002 - for Stream
        """A request has left the second phase."""
        self.open -= 1
        if not self.open:
            self.check()

    def request_over(self, request: GearmanJobRequest) -> None:  # noqa: ARG002 - for Stream
        """A request has left both phases at once."""
        self.open -= 1
        self.unaccepted -= 1
        if not self.unaccepted:
            self.check()

    def check(self) -> None:
        """Be done if nothing is left to wait for."""
        if not self.unaccepted and (self.accepted_only or self.error or not self.open):
            self.finish()

    def expire(self) -> None:
        """The deadline has come: mark what has not got as far as was asked, and be done."""
        self.timed_out = True
        for request in self.requests:
            if self in request._waits and not (self.accepted_only and request.state != JOB_PENDING):
                request.timed_out = True
        self.finish()

    def raise_error(self) -> None:
        """Raise what the call has to raise, if anything.

        Raises:
            ServerUnavailable: No server could be reached for some request.
            ExceededConnectionAttempts: Some request was lost too often.
            GearmanError: There is a bug in this library.
        """
        error = self.error
        if isinstance(error, SubmitError):
            raise type(error)(str(error), self.requests)
        if isinstance(error, GearmanError):
            raise error
        if error is not None:
            raise GearmanError(f"internal error: {error!r}") from error

    def finish(self) -> None:
        """Be done, and wake the caller, if that has not happened yet."""
        if not self.done:
            self.done = True
            self.wake()


class Stream(Wait):
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
        #: Whether there is something new. The caller resets it before it looks.
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
        """A request will not be accepted: `request_ended` follows, which is all that matters."""

    def request_ended(self, request: GearmanJobRequest) -> None:
        """A request has left the second phase."""
        self.finished.append(request)
        self.tell()
        super().request_ended(request)

    def request_over(self, request: GearmanJobRequest) -> None:
        """A request has left both phases at once."""
        self.finished.append(request)
        self.tell()
        super().request_over(request)


class UpdateStream(Stream):
    """A call that wants what comes of one job, and at last how it ended."""

    __slots__ = ("_told_end",)

    def __init__(
        self, request: GearmanJobRequest, deadline: float | None, wake: Callable[[], Any]
    ) -> None:
        super().__init__((request,), deadline, wake)
        self._told_end = False

    def take(self) -> JobUpdate | None:
        """The next update, or None.

        Raises:
            Exception: Whatever the encoder's `decode` raises. The update is taken all the same.
        """
        self.news = False
        # Looked at before the updates are: none can come after the end.
        done = self.done
        (request,) = self.requests
        update = next_update(request)
        if update is None and done and not (self._told_end or self.timed_out or self.error):
            self._told_end = True
            return ended(request)
        return update
