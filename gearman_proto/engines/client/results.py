"""The results of a stream of jobs, with a limit for the jobs in flight.

The adapter has the stream, the engine has the requests, and a ResultsWait connects both:

1. While the consumer waits and `wants_job` is true, the adapter pulls a job from the stream, and
   the surface makes a request of it. `ClientEngine.add` submits that. It takes one of the slots.
2. When a request ends, the engine delivers it. It keeps its slot until the consumer takes it, so a
   slow consumer stops the stream.
3. `ClientEngine.end_of_jobs` follows the last job of the stream, or an error of the stream. The
   wait is done when all requests have ended. Then the call raises that error.

If a request can't be submitted, because no server is available, the stream stops. All requests are
delivered, that one too. Then the call raises the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gearman_proto.engines.waits import Subscription
from gearman_proto.errors import InvalidClientState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gearman_proto.jobs.request import GearmanJobRequest


class ResultsWait(Subscription):
    """A call that yields the requests of a stream of jobs as they end.

    Args:
        window: The number of slots.
        deadline: As in Wait.
        wake: As in Wait.
    """

    __slots__ = ("_free", "_in_flight", "_is_failing", "_is_open", "_reason")

    #: The requests that could not be submitted.
    requests: list[GearmanJobRequest]

    def __init__(self, window: int, deadline: float | None, wake: Callable[[], Any]) -> None:
        super().__init__((), deadline, wake)
        # Only the consumer's thread counts the free slots.
        self._free = window
        self._in_flight: dict[int, GearmanJobRequest] = {}
        # A view, so that the engine sees the current requests. It only iterates over them.
        self.members: Any = self._in_flight.values()
        self._is_open = True
        self._is_failing = False
        # The error of the stream, or None.
        self._reason: Exception | None = None
        self.requests = []

    @property
    def wants_job(self) -> bool:
        """True if a slot is free for another job of the stream."""
        return self._is_open and self._free > 0 and not self.done

    @property
    def in_flight(self) -> list[GearmanJobRequest]:
        """The requests that have not ended."""
        return list(self._in_flight.values())

    def add(self, request: GearmanJobRequest) -> None:
        """Give one of the free slots to `request`."""
        self._free -= 1
        self._in_flight[id(request)] = request

    def end_of_jobs(self, error: Exception | None = None) -> None:
        """Finish the call when the requests in flight have ended. Then raise `error`, if any."""
        self._is_open = False
        self._reason = error
        self.check()

    def take(self) -> Any:
        """Remove and return the next request that has ended, or return None. Free its slot."""
        request = super().take()
        self._free += request is not None
        return request

    def check(self) -> None:
        """Finish the call if the stream has ended and no request is in flight."""
        if not self._is_open and not self.remaining:
            self.finish()

    def request_failed(self, error: Exception) -> None:
        """Stop the stream. A call of `requests_ended` with the request follows."""
        self.note(error)
        self._is_open = False
        self._is_failing = True

    def shut_down(self) -> None:
        """Finish the call, because its client was closed."""
        if self._is_open:
            self.note(InvalidClientState("this client was shut down before the last job"))
        self.finish()

    def raise_error(self) -> None:
        """Raise the error of the stream, or else of the call, if there is one."""
        if self._reason is not None:
            raise self._reason
        super().raise_error()

    def _deliver(self, requests: Sequence[GearmanJobRequest]) -> None:
        for request in requests:
            self._in_flight.pop(id(request), None)
        if self._is_failing:
            self._is_failing = False
            self.requests.extend(requests)
        super()._deliver(requests)
