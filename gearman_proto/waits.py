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

import heapq
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from .constants import JOB_PENDING
from .errors import GearmanError, SubmitError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .job import GearmanJobRequest


# Seconds; thirty years.
_FOR_EVER: Final = 1e9


def to_seconds(poll_timeout: float | None) -> float | None:
    """Return a `poll_timeout` as seconds from 0 on, or None for no limit.

    What has passed already, as in ``deadline - time.time()``, is 0; what is beyond any clock is
    None.

    Raises:
        TypeError: It is no number.
        ValueError: It is not a number (NaN).
    """
    if poll_timeout is None:
        return None
    if isinstance(poll_timeout, bool) or not isinstance(poll_timeout, (int, float)):
        raise TypeError(f"poll_timeout is a number of seconds or None, not {poll_timeout!r}")
    if poll_timeout != poll_timeout:
        raise ValueError("poll_timeout is not a number of seconds: nan")
    return None if poll_timeout > _FOR_EVER else float(max(poll_timeout, 0))


def deadline_of(now: float, poll_timeout: float | None) -> float | None:
    """Return when a call that begins `now` times out, or None. Raises what `to_seconds` does."""
    if poll_timeout is None:
        return None
    seconds = to_seconds(poll_timeout)
    return None if seconds is None else now + seconds


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


# Fewer than this are not worth sweeping up.
_FEW: Final = 64


class Timers:
    """Things with a deadline, the next one first. Each thing has at most one."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Any]] = []
        # Thing -> the number of its entry; what is in the heap under another number is dead.
        self._current: dict[Any, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, thing: Any) -> bool:
        return thing in self._current

    def set(self, thing: Any, deadline: float) -> None:
        """Give `thing` a deadline."""
        self._count += 1
        self._current[thing] = self._count
        heapq.heappush(self._heap, (deadline, self._count, thing))

    def cancel(self, thing: Any) -> None:
        """Take the deadline of `thing` away, if it has one."""
        if self._current.pop(thing, None) is None:
            return
        if len(self._heap) > _FEW and len(self._heap) > 2 * len(self._current):
            self._heap = [entry for entry in self._heap if self._is_live(entry)]
            heapq.heapify(self._heap)

    def next_deadline(self) -> float | None:
        """The earliest deadline, or None."""
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_expired(self, now: float) -> Any:
        """Remove and return a thing whose deadline has come, or return None."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return None
        thing = heapq.heappop(self._heap)[2]
        del self._current[thing]
        return thing

    def _is_live(self, entry: tuple[float, int, Any]) -> bool:
        return self._current.get(entry[2]) == entry[1]
