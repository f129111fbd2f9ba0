"""The engine's side of a request: its attributes, and the functions that engines call on it.

Applications see requests as `GearmanJobRequest`. An engine keeps its own notes about a request in
the same object, because a second object would cost 72 bytes per request. The names of these
attributes begin with `_gm_`, so subclasses of `GearmanJobRequest` can use any ordinary name.

Adapters call only `attach` and the functions after it, for the jobs of a worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
)
from gearman_proto.errors import ConnectionError, InvalidClientState

from .encoder import NoopEncoder
from .job import Fields, Missing
from .updates import Updates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from gearman_proto.constants import Priority, State

    from .job import WorkerJob
    from .updates import JobStatus

#: The state machine of a request: for each state, the next states and their causes. In any state,
#: `reset` or another submit returns the request to JOB_UNKNOWN.
REQUEST_STATES: Final[dict[str, dict[str, str]]] = {
    JOB_UNKNOWN: {JOB_PENDING: "submit"},
    JOB_PENDING: {
        JOB_CREATED: "JOB_CREATED",
        JOB_FAILED: "ERROR, cancelled",
        JOB_UNKNOWN: "no server, or lost too often",
    },
    JOB_CREATED: {
        JOB_COMPLETE: "WORK_COMPLETE",
        JOB_FAILED: "WORK_FAIL, WORK_EXCEPTION, cancelled, too many unread updates",
        JOB_UNKNOWN: "the connection was lost, or the server has lost the job",
    },
    JOB_COMPLETE: {},
    JOB_FAILED: {},
}

_NO_SERVERS: Final[tuple[Any, ...]] = ()
# Attributes that `reset` deletes, so that the defaults of the class apply again.
_OPTIONAL: Final = (
    *("error", "timed_out"),
    *("_gm_exception", "_gm_raw_exception", "_gm_status", "_gm_tried", "_gm_updates"),
)
_ORPHANED: Final = "the request's client was closed, or the request is a copy"


class Waiter(Protocol):
    """A blocked call that requests notify."""

    def request_accepted(self) -> None:
        """Process that a server acknowledged a foreground request."""

    def request_failed(self, error: Exception) -> None:
        """Keep the error of a submit that failed; a call of `requests_ended` follows."""

    def request_ended(self, request: Any) -> None:
        """Process the end of a request that a server had acknowledged."""

    def requests_ended(self, requests: Sequence[Any]) -> None:
        """Process the end of requests without an acknowledgement, or of background requests."""

    def make_room(self, size: int) -> bool:
        """Return whether the call accepts an update of `size` bytes."""

    def request_updated(self, request: Any) -> None:
        """Process an update of a running job."""


class Orphaned:
    """The link of a request whose client was closed, and of a copy of a request in flight.

    As with `Missing`, the class itself is the value; it is never instantiated.
    """

    #: As an engine's: requests of abandoned engines are orphaned too.
    is_abandoned: Final = True
    engine: ClassVar[type[Orphaned]]


Orphaned.engine = Orphaned


class TrackedRequest(Fields):
    """The attributes of a request: the documented ones, and those of engines (`_gm_...`)."""

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_gm_encoder",
        "_gm_generated_unique",
        "_gm_link",
        "_gm_payload",
        "_gm_raw_result",
        "_gm_result",
        "_gm_unclaimed",
        "_gm_waits",
        "background",
        "connection_attempts",
        "max_connection_attempts",
        "priority",
        "state",
    )

    background: bool
    connection_attempts: int
    max_connection_attempts: int
    priority: Priority
    state: State
    # The encoder for the data, the result and the updates.
    _gm_encoder: Any
    # The unique, if the library generated it and can therefore replace it.
    _gm_generated_unique: str | None
    # The connection that submits the request or waits for its job. None if it is not in flight.
    _gm_link: Any
    # The encoded data, from `prepare` until the submit is acknowledged or has failed.
    _gm_payload: bytes | None
    _gm_raw_result: bytes | None
    _gm_result: Any
    # Deleted while an engine claims the request, so that no other engine can do so.
    _gm_unclaimed: bool
    # The calls to notify.
    _gm_waits: tuple[Waiter, ...]

    # Most requests never need the following attributes, so their defaults are in the class.
    # Setting one, even to its default, makes the request's `__dict__`.
    run_at: datetime | float | None = None
    reducer: str | bytes | None = None
    error: Exception | None = None
    timed_out: bool = False
    # The servers that failed in the current attempt.
    _gm_tried: tuple[Any, ...] = _NO_SERVERS
    _gm_raw_exception: bytes | None = None
    _gm_exception: Any = Missing
    _gm_status: JobStatus | None = None
    _gm_updates: Updates | None = None


def set_up(
    request: TrackedRequest,
    task: str,
    data: Any,
    priority: Priority,
    background: bool,
    max_attempts: int,
) -> None:
    """Set all attributes of the new `request` that have no default."""
    request.connection = None
    request.handle = None
    request.task = task
    request.unique = None
    request.data = data
    request.priority = priority
    request.background = background
    request.max_connection_attempts = max_attempts
    request._gm_generated_unique = None
    request._gm_encoder = NoopEncoder
    request._gm_unclaimed = True
    request._gm_payload = None
    _set_unsent(request)


def _set_unsent(request: TrackedRequest) -> None:
    request.state = JOB_UNKNOWN
    request.connection_attempts = 0
    request._gm_raw_result = None
    request._gm_result = Missing
    request._gm_link = None
    request._gm_waits = ()


def set_options(
    request: TrackedRequest, run_at: datetime | float | None, reducer: str | bytes | None
) -> None:
    """Set the attributes that few jobs use."""
    if run_at is not None:
        request.run_at = run_at
    if reducer is not None:
        request.reducer = reducer


def reset(request: TrackedRequest) -> None:
    """Discard everything that earlier submits of `request` left, but keep the encoded data.

    The handle and a generated unique are discarded too.
    """
    for name in _OPTIONAL:
        request.__dict__.pop(name, None)
    _set_unsent(request)
    request.handle = None
    discard_unique(request)


def check_idle(request: TrackedRequest) -> None:
    """Raise InvalidClientState if `request` is in flight."""
    if request._gm_link is not None and not is_orphaned(request):
        raise InvalidClientState(f"{request!r} is under way")


def finish(request: TrackedRequest, state: State, error: Exception | None = None) -> None:
    """End `request` and notify the waiting calls.

    Only this function and `finish_background` end a request in flight.

    Args:
        request: The request.
        state: The final state.
        error: The reason, unless the worker ended the job.
    """
    was_pending = request.state == JOB_PENDING
    if error is not None:
        request.error = error
    waits, request._gm_waits = request._gm_waits, ()
    detach(request, state)
    for wait in waits:
        if was_pending:
            wait.requests_ended((request,))
        else:
            wait.request_ended(request)


def finish_background(requests: Iterable[TrackedRequest]) -> None:
    """End acknowledged background requests, notifying their waits in as few calls as possible."""
    waits: tuple[Waiter, ...] = ()
    alike: list[TrackedRequest] = []
    for request in requests:
        if request._gm_waits is not waits:
            for wait in waits:
                wait.requests_ended(alike)
            waits, alike = request._gm_waits, []
        request._gm_waits = ()
        detach(request, JOB_CREATED)
        alike.append(request)
    for wait in waits:
        wait.requests_ended(alike)


def detach(request: TrackedRequest, state: State) -> None:
    """Set the final state of `request`, and remove it from its place in the engine."""
    request.state = state
    request._gm_payload = None
    # Few requests have either, and each of the calls costs as much as the rest of this function.
    if request.timed_out is not False or request._gm_tried is not _NO_SERVERS:
        clear_timed_out(request)
        clear_tried(request)
    # This has to be last: from now on, another thread's engine can claim the request.
    request._gm_link = None


def clear_timed_out(request: TrackedRequest) -> None:
    """Reset `timed_out`, even if the application has set it."""
    if request.timed_out is not False:
        request.timed_out = False


def clear_tried(request: TrackedRequest) -> None:
    """Clear the list of servers already tried."""
    if request._gm_tried is not _NO_SERVERS:
        request._gm_tried = _NO_SERVERS


def discard_unique(request: TrackedRequest) -> None:
    """Discard a generated unique that a resubmit must not use again."""
    # A lost server might still have the job of a foreground request and drop it later, because its
    # client has gone. A submit with the same unique would join that job and never be answered.
    # Servers keep background jobs, so there the same unique prevents a second run.
    if not request.background and request.unique == request._gm_generated_unique:
        request.unique = None


def orphan(request: TrackedRequest) -> None:
    """Detach `request` from its closed client, but keep its state."""
    request._gm_payload = None
    clear_tried(request)
    request._gm_link = Orphaned


def is_orphaned(request: TrackedRequest) -> bool:
    """Return True if the engine of `request` has ended while the request was in flight."""
    link = request._gm_link
    return link is not None and bool(link.engine.is_abandoned)


def mark_lost(request: TrackedRequest) -> None:
    """Set `request` to JOB_UNKNOWN if it is orphaned."""
    if is_orphaned(request):
        payload = request._gm_payload  # `prepare` might have set it meanwhile.
        lose(request, ConnectionError(_ORPHANED))
        request._gm_payload = payload


def lose(request: TrackedRequest, error: Exception) -> None:
    """End `request`, from any state, because its engine has ended."""
    request._gm_waits = ()
    is_complete = request.background and request.state == JOB_CREATED
    if is_complete or request.state in (JOB_COMPLETE, JOB_FAILED):
        detach(request, request.state)
    else:
        finish(request, JOB_UNKNOWN, error)


def updates_of(request: TrackedRequest) -> Updates:
    """Return the queues for the updates of `request`."""
    if request._gm_updates is None:
        request._gm_updates = Updates(request._gm_encoder)
    return request._gm_updates


def attach(job: WorkerJob, worker: Any) -> None:
    """Attach a `job` to its GearmanWorker: its encoder decodes the data, and it sends the updates.

    In a thread of an awaited worker, `worker` is a proxy whose methods block.
    """
    job._gm_encoder = worker.data_encoder
    job._gm_worker = worker


def is_finished(job: WorkerJob) -> bool:
    """Return whether the engine was told that the callback of `job` has finished."""
    return job._gm_is_finished


def is_deferred(job: WorkerJob) -> bool:
    """Return whether the callback of `job` has called `defer`."""
    return job._gm_deferred is not None


def is_left(job: WorkerJob) -> bool:
    """Return whether the callback of `job` has returned and left the job open."""
    return job._gm_is_left
