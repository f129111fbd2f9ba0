"""Cancelling jobs.

The text command ``cancel job`` removes a queued job from a server. The engine sends it on an admin
connection to the server, which it opens for the first cancellation and keeps. gearmand also accepts
text between the packets of the client's own connection. A server that does not would close that
connection, and all its jobs would be lost. The place of a request decides how it is cancelled:

=============================  ===================================================================
the request                    the engine
=============================  ===================================================================
has not been sent              removes it
was sent, not acknowledged     waits for JOB_CREATED, or for its end
has a handle                   sends GET_STATUS, and ``cancel job`` right after it
has ended without a handle     does nothing
=============================  ===================================================================

gearmand answers ``cancel job`` only with OK or UNKNOWN_JOB, for a queued job and for a running one.
The answer to GET_STATUS tells them apart. A job can start or end between the two commands.

After OK, servers send WORK_FAIL to all clients of the job. Not all servers do, and the packet is on
another connection. Therefore, the engine itself ends the requests of the job on its own link.

A call can give up before the cancellation ends. The engine continues nevertheless: each Cancel ends
with the answer of the server, or within `ANSWER_TIMEOUT` after the question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gearman_proto import constants
from gearman_proto.constants import JOB_CREATED, JOB_FAILED, JOB_UNKNOWN
from gearman_proto.engines.admin import Question
from gearman_proto.engines.waits import Wait
from gearman_proto.errors import (
    ArgumentTypeError,
    GearmanError,
    InvalidClientState,
    ServerError,
    ServerUnavailable,
)
from gearman_proto.jobs import tracking
from gearman_proto.names import to_text, to_wire
from gearman_proto.wire.packets import Error, GetStatus, StatusRes, Unanswered, number
from gearman_proto.wire.text import DEFAULT_MAX_REPLY_SIZE, cancel_job

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from gearman_proto.address import ServerAddress
    from gearman_proto.engines.servers import Server, ServerPool
    from gearman_proto.jobs.request import GearmanJobRequest
    from gearman_proto.wire.packets import Event

#: The job was queued, and will not run.
QUEUED: Final = "queued"
#: The job was running. Its worker continues.
RUNNING: Final = "running"
#: The server does not know the job. It has ended, or was never there.
UNKNOWN: Final = "unknown"

#: Seconds to wait for the answer of a server.
ANSWER_TIMEOUT: Final = constants.DEFAULT_ADMIN_TIMEOUT


class CancelQuestion(Question[str]):
    """GET_STATUS and ``cancel job``. The answer is QUEUED, RUNNING or UNKNOWN."""

    __slots__ = ("_was_running", "handle")

    def __init__(self, handle: Any, deadline: float, wake: Callable[[], Any]) -> None:
        super().__init__(cancel_job(handle), DEFAULT_MAX_REPLY_SIZE, deadline, wake)
        #: The handle of the job.
        self.handle: bytes = to_wire(to_text(handle))
        self._was_running = False

    @property
    def events(self) -> Sequence[Event]:
        """The events to send."""
        return (GetStatus(self.handle), *super().events)

    def receive(self, event: Event, address: ServerAddress, now: float) -> bool:
        """Process an event from the server. Return True if it completes the answer."""
        if isinstance(event, StatusRes):
            self._was_running = number(event.running) != 0
            return False
        if isinstance(event, (Error, Unanswered)):
            return False  # The server does not tell the status.
        try:
            is_complete = super().receive(event, address, now)
        except ServerError as error:
            if error.code != "UNKNOWN_JOB":
                raise
            self.answer(UNKNOWN)
            return True
        return is_complete

    def answer(self, value: str) -> None:
        """Store the server's answer, and finish the wait."""
        if value != UNKNOWN:
            value = RUNNING if self._was_running else QUEUED
        super().answer(value)


class CancelWait(Wait):
    """A call that waits for the cancellation of requests."""

    __slots__ = ("remaining", "value")

    def __init__(self, deadline: float | None, wake: Callable[[], Any]) -> None:
        super().__init__(deadline, wake)
        #: Number of requests whose cancellation has not ended.
        self.remaining: int = 0
        #: The answer for the last request, or None.
        self.value: str | None = None

    def cancelled(self, value: str) -> None:
        """Count down a request."""
        self.value = value
        self._count_down()

    def failed(self, error: Exception) -> None:
        """Count down a request that could not be cancelled."""
        self.note(error)
        self._count_down()

    def _count_down(self) -> None:
        self.remaining -= 1
        if not self.remaining:
            self.finish()


class Cancel:
    """The cancellation of one request.

    Until the server has acknowledged the request, this is one of its Waiters.

    Args:
        request: The request.
        wait: The Wait of the call.
        put: Queues this object, so that the engine asks the server.
    """

    __slots__ = ("_job", "_link", "_put", "question", "request", "wait")

    def __init__(
        self,
        request: GearmanJobRequest,
        wait: CancelWait,
        put: Callable[[Cancel], object],
    ) -> None:
        self.request: GearmanJobRequest = request
        self.wait: CancelWait = wait
        self.question: CancelQuestion | None = None
        self._put = put
        # This engine's link with the job, or None; and the handle and the server of the job. If the
        # connection is lost, the request can get another job before the answer.
        self._link: Any = None
        self._job: tuple[Any, Any] = (None, None)

    def follow(self) -> None:
        """Wait for the acknowledgment of the request, or for its end."""
        self.request._gm_waits = (*self.request._gm_waits, self)

    def ask(self, pool: ServerPool, deadline: float) -> tuple[Server, CancelQuestion] | None:
        """Return the server, and the question whose answer ends the cancellation.

        Return None if the job has no server.

        Raises:
            Exception: The application has changed the request meanwhile.
        """
        server = server_to_ask(self.request, pool)
        if server is None:
            return None
        if self.request._gm_link in pool.links():  # It is not another client's.
            self._link = self.request._gm_link
        self._job = (self.request.handle, self.request.connection)
        self.question = CancelQuestion(self.request.handle, deadline, self._answered)
        return server, self.question

    def _answered(self) -> None:
        assert self.question is not None
        try:
            value = self.question.value
        except ServerError as error:
            self.wait.failed(error)
        except GearmanError as error:
            self.wait.failed(ServerUnavailable(str(error)))
        else:
            if value != UNKNOWN:
                self._end_job(self.question.handle, value)
            self.wait.cancelled(value)

    def _end_job(self, handle: bytes, value: str) -> None:
        """End the request, and the others with the same job on its link, after the server's OK.

        Args:
            handle: The handle of the job.
            value: QUEUED or RUNNING.
        """
        text = "the job was cancelled by this client"
        if value == RUNNING:
            text += " while it was running, and its worker continues"
        error = GearmanError(text)
        request, link = self.request, self._link
        if link is not None and request._gm_link is link:
            for each in link.jobs.end(handle):
                tracking.finish(each, JOB_FAILED, error)
        elif (
            request.state == JOB_FAILED
            and request.error is None
            and (request.handle, request.connection) == self._job
        ):
            request.error = error  # The server's WORK_FAIL was faster.

    # The calls of the request.

    def make_room(self, size: int) -> bool:  # noqa: ARG002
        """Return True."""
        return True

    def request_updated(self, request: GearmanJobRequest) -> None:
        """Ignore an update of the job."""

    def request_failed(self, error: Exception) -> None:
        """Ignore the reason, since a call of `requests_ended` follows."""

    def request_accepted(self) -> None:
        """Ask the server, which has acknowledged the request."""
        self._put(self)

    def request_ended(self, request: GearmanJobRequest) -> None:
        """Ignore the end, since the server is asked."""

    def requests_ended(self, requests: Sequence[GearmanJobRequest]) -> None:  # noqa: ARG002
        """Process the end of a request that was never acknowledged, or of a background request."""
        if self.request.state == JOB_CREATED:
            self._put(self)
        else:
            self.wait.cancelled(UNKNOWN)


def is_followed(request: GearmanJobRequest) -> bool:
    """Return whether a call waits for `request`."""
    return any(not isinstance(wait, Cancel) for wait in request._gm_waits)


def server_to_ask(request: GearmanJobRequest, pool: ServerPool) -> Server | None:
    """Return the server that has the job of `request`, or None if the job has no server.

    Raises:
        InvalidClientState: The request was never submitted, or the client does not know its server.
        TypeError, ValueError: The request has an invalid handle or connection.
    """
    if not request.handle:
        if request.state == JOB_UNKNOWN and request._gm_link is None:
            raise InvalidClientState(f"{request!r} has no handle to cancel")
        return None
    cancel_job(request.handle)  # Raises for a handle that can't be a word of a command.
    if request.connection is not None:
        return pool.find(request.connection)
    if len(pool.servers) != 1:
        raise InvalidClientState(
            f"{request!r} does not say which of the servers has the job, and handles of different "
            "servers can be equal; give the server to GearmanJobRequest.from_handle"
        )
    return pool.servers[0]


def check_cancelled(requests: Collection[GearmanJobRequest], pool: ServerPool) -> None:
    """Raise an error if one of `requests` can't be cancelled. See `server_to_ask`."""
    for request in requests:
        if not isinstance(request, tracking.TrackedRequest):
            raise ArgumentTypeError(f"a request is a GearmanJobRequest, not {request!r}")
        server_to_ask(request, pool)
