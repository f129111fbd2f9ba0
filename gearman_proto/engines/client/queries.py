"""Questions to servers, mainly for the status of jobs (GET_STATUS, GET_STATUS_UNIQUE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from gearman_proto import constants
from gearman_proto.engines.waits import RequestsWait
from gearman_proto.errors import InvalidClientState, ServerError, ServerUnavailable
from gearman_proto.jobs.submitting import check_requests
from gearman_proto.names import check_name
from gearman_proto.wire.packets import GetStatus, GetStatusUnique, StatusResUnique, number

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from gearman_proto.engines.servers import Server, ServerPool
    from gearman_proto.engines.waits import Wait
    from gearman_proto.jobs.request import GearmanJobRequest
    from gearman_proto.jobs.updates import JobStatus
    from gearman_proto.wire.packets import PacketEvent, StatusRes

#: A question that every server answers.
TRIAL_EVENT: Final = GetStatus(b"H:trial:0")
# Maximum number of seconds between two attempts to reach a server that a call waits for. Without a
# waiting call, the cool-down grows up to 30 seconds.
_ARRIVAL_INTERVAL: Final = 1.0


class Probe:
    """A question that the engine asks for itself, so no call waits for the answer.

    Args:
        event: The packet.
        is_awaited: True if the server is dead unless it answers.
    """

    __slots__ = ("event", "is_awaited")

    def __init__(self, event: PacketEvent, *, is_awaited: bool = False) -> None:
        self.event: PacketEvent = event
        self.is_awaited: bool = is_awaited

    @property
    def is_abandoned(self) -> bool:
        """True if a call has asked the question and given up."""
        return False

    def answer(self, event: StatusRes | StatusResUnique, now: float) -> None:
        """Process an answer to GET_STATUS or GET_STATUS_UNIQUE.

        Args:
            event: The answer.
            now: Seconds since 1970.
        """

    def fail(self, error: Exception) -> None:
        """Process the failure of the question at one server."""

    def lost(
        self,
        server: Server,  # noqa: ARG002
        error: Exception,  # noqa: ARG002
        now: float,  # noqa: ARG002
        *,
        was_up: bool,  # noqa: ARG002
    ) -> float | None:
        """Process the loss of a connection.

        Args:
            server: The server.
            error: The reason.
            now: The time.
            was_up: True if the connection had been open.

        Returns:
            The time from which the engine asks again, or None if it does not.
        """
        return None


class Query(Probe):
    """A call's question for the status of one request, to one server or to several."""

    __slots__ = ("answered", "error", "remaining", "request", "retried", "wait")

    def __init__(self, request: GearmanJobRequest, wait: StatusWait, event: PacketEvent) -> None:
        super().__init__(event, is_awaited=True)
        self.request: GearmanJobRequest = request
        self.wait: StatusWait = wait
        #: Number of servers that have not answered.
        self.remaining: int = 0
        #: True once `request` has its status or the query has failed.
        self.answered: bool = False
        #: The error of the first server that did not answer, or None.
        self.error: Exception | None = None
        #: The servers that the engine has asked again after a lost connection.
        self.retried: set[Server] = set()

    @property
    def is_abandoned(self) -> bool:
        """True if the call has given up."""
        return self.wait.done

    def answer(self, event: StatusRes | StatusResUnique, now: float) -> None:
        """Process a server's answer.

        The status is that of the first server that knows the job. If no server knows it and all
        have answered, the last answer is the status.
        """
        self.remaining -= 1
        if self.answered:
            return
        status: JobStatus = {
            "handle": self.request.handle,
            "known": number(event.known) != 0,
            "running": number(event.running) != 0,
            "numerator": number(event.numerator),
            "denominator": number(event.denominator),
            "time_received": now,
        }
        if isinstance(event, StatusResUnique):
            status["client_count"] = number(event.clients)
        if status["known"] or (not self.remaining and self.error is None):
            self.request._gm_status = status
            self._finish()
        else:
            self._check()

    def fail(self, error: Exception) -> None:
        """Record that a server, which might know the job, will not answer."""
        self.remaining -= 1
        self.error = self.error or error
        self._check()

    def lost(self, server: Server, error: Exception, now: float, *, was_up: bool) -> float | None:
        """Ask `server` once more at once if its connection was open.

        The connection might have been dead for a long time before its loss was noticed.
        """
        if was_up and not self.answered and server not in self.retried:
            self.retried.add(server)
            return now
        self.fail(ServerUnavailable(f"{server.address} did not answer: {error}"))
        return None

    def _check(self) -> None:
        if not self.remaining and not self.answered and self.error is not None:
            self.wait.request_failed(self.error)
            self._finish()

    def _finish(self) -> None:
        self.answered = True
        self.wait.request_ended(self.request)


class Arrival(Probe):
    """The question whether a server answers, repeated until it does or no call waits for that.

    Args:
        server: The server.
        arrivals: The unanswered questions by server, with this one.

    Attributes:
        waits: The Waits of the calls.
    """

    __slots__ = ("_arrivals", "_server", "waits")

    def __init__(self, server: Server, arrivals: dict[Server, Arrival]) -> None:
        super().__init__(TRIAL_EVENT, is_awaited=True)
        self.waits: set[Wait] = set()
        self._server = server
        self._arrivals = arrivals

    @property
    def is_abandoned(self) -> bool:
        """True if all calls have ended."""
        return all(wait.done for wait in self.waits)

    def answer(self, event: StatusRes | StatusResUnique, now: float) -> None:  # noqa: ARG002
        """End the calls, and forget the failures from before the server was there."""
        self._server.served()
        self._end(None)

    def fail(self, error: Exception) -> None:
        """End the calls: a refusal is an answer, too. Otherwise, the client was closed."""
        self._end(None if isinstance(error, ServerError) else error)

    def lost(
        self,
        server: Server,
        error: Exception,  # noqa: ARG002
        now: float,
        *,
        was_up: bool,  # noqa: ARG002
    ) -> float | None:
        """Ask again after the cool-down of `server`, or earlier if that is long."""
        if self.is_abandoned:
            del self._arrivals[server]
            return None
        return min(server.cool_until, now + _ARRIVAL_INTERVAL)

    def _end(self, error: Exception | None) -> None:
        del self._arrivals[self._server]
        for wait in self.waits:
            if error is None:
                wait.finish()
            else:
                wait.fail(error)


class StatusWait(RequestsWait):
    """A call that waits for answers to GET_STATUS."""

    __slots__ = ("queries",)

    def __init__(
        self,
        requests: Collection[GearmanJobRequest],
        deadline: float | None,
        wake: Callable[[], Any],
    ) -> None:
        super().__init__(requests, deadline, wake)
        self.queries: list[Query] = []

    def expire(self, now: float) -> None:
        """Mark the requests without an answer as timed out, and end the wait."""
        for query in self.queries:
            if not query.answered:
                query.request.timed_out = True
        super().expire(now)


#: A request, the packet that asks for its status, and the servers to ask.
Asked: TypeAlias = "tuple[GearmanJobRequest, PacketEvent, list[Server]]"


def status_queries(
    pool: ServerPool, requests: Collection[GearmanJobRequest], *, by_unique: bool = False
) -> list[Asked]:
    """Return the packets that ask servers of `pool` for the status of `requests`.

    Ask by handle (GET_STATUS) if the request has one, else by unique (GET_STATUS_UNIQUE).

    Args:
        pool: The client's servers.
        requests: The requests. Another client might have submitted them.
        by_unique: True to ask by unique even if the request has a handle.

    Raises:
        InvalidClientState: A request has neither a handle nor a unique, or its server is not in the
            pool.
        TypeError, ValueError: A request has an invalid handle, unique or connection.
    """
    check_requests(requests)
    return [
        (request, query_event(request, by_unique), _servers_of(request, pool))
        for request in requests
    ]


def _servers_of(request: GearmanJobRequest, pool: ServerPool) -> list[Server]:
    address = request.connection
    return pool.servers if address is None else [pool.find(address)]


def query_event(request: GearmanJobRequest, by_unique: bool) -> PacketEvent:
    """Return the packet that asks for the status of `request`.

    The packet asks by handle if the request has one and `by_unique` is false, else by unique.

    Raises:
        InvalidClientState: The request does not have the handle or unique to ask for.
        TypeError, ValueError: The handle or unique is invalid.
    """
    if request.handle and not by_unique:
        return GetStatus(check_name("handle", request.handle, constants.MAX_HANDLE_SIZE))
    if request.unique:
        return GetStatusUnique(check_name("unique", request.unique, constants.MAX_UNIQUE_SIZE))
    raise InvalidClientState(f"{request!r} has neither a handle nor a unique to ask for")
