"""Requests: jobs as their submitter sees them. Text is `str`; the encoder converts data.

Encoding and decoding
    Encoders are the application's code, so they run in the application's calls and never in an
    engine. `prepare` encodes all data before the engine sends any. Received data is stored as
    bytes and decoded when it is first read, so that only reading an undecodable result raises.

Size
    An application can have a hundred thousand requests at once. Requests therefore have slots, and
    the parts that few requests need (updates, a status) are made on first use.
"""

from __future__ import annotations

import copy
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypedDict

from gearman_proto.address import HostSpec, ServerAddress, parse_address
from gearman_proto.arguments import check_count
from gearman_proto.constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_NONE,
)
from gearman_proto.errors import ArgumentTypeError, ConnectionError, InvalidClientState
from gearman_proto.names import to_text

from .encoder import NoopEncoder
from .job import Fields, GearmanJob, Missing
from .updates import (
    MAX_REASON,
    JobData,
    JobEnded,
    JobProgress,
    JobUpdate,
    JobWarning,
    UpdateQueue,
    Updates,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime


# Characters of the reason in a repr.
_SHORT: Final = 200

#: The states of a request: which may follow which, and what leads there. From any of them,
#: submitting it again, or `reset`, begins anew.
REQUEST_STATES: Final[dict[str, dict[str, str]]] = {
    JOB_UNKNOWN: {JOB_PENDING: "submit"},
    JOB_PENDING: {
        JOB_CREATED: "JOB_CREATED",
        JOB_FAILED: "ERROR",
        JOB_UNKNOWN: "no server, or lost too often",
    },
    JOB_CREATED: {
        JOB_COMPLETE: "WORK_COMPLETE",
        JOB_FAILED: "WORK_FAIL, WORK_EXCEPTION, updates that nobody read",
        JOB_UNKNOWN: "the connection was lost, or the server has lost the job",
    },
    JOB_COMPLETE: {},
    JOB_FAILED: {},
}


class JobStatus(TypedDict, total=False):
    """What `GearmanJobRequest.status` holds. Empty until a status or WORK_STATUS has come."""

    #: The job's handle, if that is known (it is not part of an answer to a query by unique).
    handle: str | None
    #: True if the server knows the job. It forgets a job when that ends.
    known: bool
    #: True if a worker has it.
    running: bool
    #: How much the worker has done, 0 if it has not said.
    numerator: int
    #: Of how much.
    denominator: int
    #: When this came, in seconds since 1970.
    time_received: float
    #: How many foreground submits wait for the job. Only in answers to a query by unique.
    client_count: int


class Waiter(Protocol):
    """Whom a request tells what becomes of it: a blocked call."""

    def request_accepted(self) -> None:
        """It was acknowledged, and goes on."""

    def request_failed(self, error: Exception) -> None:
        """It will not be acknowledged, because of `error`; `requests_over` follows."""

    def request_ended(self, request: GearmanJobRequest) -> None:
        """It has ended, after it was acknowledged."""

    def requests_over(self, requests: Sequence[GearmanJobRequest]) -> None:
        """They have ended without being acknowledged, or with that, as background requests do."""

    def request_updated(self) -> None:
        """Something has come of its job, and it goes on."""


_NOWHERE: Final[tuple[Any, ...]] = ()
# What a request has no more when it begins anew.
_UNTIL_ANEW: Final = (
    *("error", "timed_out", "tried"),
    *("raw_exception", "_exception", "_status", "_updates"),
)


# The error text of a request that no client has.
_STRANDED: Final = "the client that it was submitted with ended, or it is a copy"


class _Stranded:
    """The `link` of a request whose client has ended, and of a copy of a request in flight.

    Never instantiated: as with `Missing`, the class itself is the value.
    """

    is_abandoned: Final = True
    engine: ClassVar[type[_Stranded]]


_Stranded.engine = _Stranded


class GearmanJobRequest(Fields):
    """A job as its submitter sees it (python-gearman: `gearman.job.GearmanJobRequest`).

    Args:
        gearman_job: The job.
        initial_priority: PRIORITY_NONE, PRIORITY_LOW or PRIORITY_HIGH.
        background: Whether nobody waits for the job's end.
        max_attempts: How often the submit may be sent, if connections are lost before it is
            acknowledged.
        run_at: Not to be run before this time: a `datetime` (local time if it is naive), or
            seconds since 1970. Background jobs of no priority only.
        reducer: The function that is to reduce the results. Jobs of no priority only.

    Raises:
        TypeError: `gearman_job` is none, or `max_attempts` no number.
        ValueError: `max_attempts` is less than 1.

    Attributes:
        task, data, unique, handle, connection: As in GearmanJob.
        state: JOB_UNKNOWN, JOB_PENDING, JOB_CREATED, JOB_FAILED or JOB_COMPLETE.
        timed_out: Whether the last call that waited for this request gave up before it ended.
        error: Why it failed, or is JOB_UNKNOWN, if that was not the worker's doing: the ServerError
            with which the server refused it, why it could not be sent, how its connection was lost,
            or that the server has lost it. None otherwise.
        connection_attempts: How often sending it was tried, since it was last submitted.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_result",
        "background",
        "connection_attempts",
        "encoder",
        "generated_unique",
        "link",
        "max_connection_attempts",
        "payload",
        "priority",
        "raw_result",
        "state",
        "unclaimed",
        "waits",
    )

    # Of what class its `job` is, where it was not made of one.
    _job_class: ClassVar[type[GearmanJob]] = GearmanJob
    # What most requests never have is an attribute of the class, until it is set. To set it to what
    # it is anyway would cost each of them a dict.
    run_at: datetime | float | None = None
    reducer: str | bytes | None = None
    error: Exception | None = None
    timed_out: bool = False
    #: The servers that were tried in vain for the current attempt; the engine's.
    tried: tuple[Any, ...] = _NOWHERE
    raw_exception: bytes | None = None
    _exception: Any = Missing
    _status: JobStatus | None = None
    _updates: Updates | None = None
    # The view that the application has, weakly; or the job that it gave.
    _job: weakref.ref[GearmanJob] | GearmanJob | None = None

    def __init__(
        self,
        gearman_job: GearmanJob,
        initial_priority: str | None = PRIORITY_NONE,
        background: bool = False,
        max_attempts: int = 1,
        *,
        run_at: datetime | float | None = None,
        reducer: str | bytes | None = None,
    ) -> None:
        job = gearman_job
        if not isinstance(job, GearmanJob):
            raise ArgumentTypeError(f"a request is made of a GearmanJob, not {job!r}")
        check_count("max_attempts", max_attempts, 1)
        self.set_up(job.task, job.data, initial_priority, bool(background), max_attempts)
        self.connection, self.handle, self.unique = job.connection, job.handle, job.unique
        self.set_special(run_at, reducer)
        self._job = gearman_job
        gearman_job.keep_in(self)

    @classmethod
    def make(
        cls, task: str | bytes, data: Any, background: bool, max_attempts: int
    ) -> GearmanJobRequest:
        """What the constructor does, without a GearmanJob."""
        request = cls.__new__(cls)
        text = task if type(task) is str else to_text(task)
        request.set_up(text, data, PRIORITY_NONE, background, max_attempts)
        return request

    def set_up(
        self, task: str, data: Any, priority: str | None, background: bool, max_attempts: int
    ) -> None:
        """Have all that a request has; for those who make some."""
        self.connection: ServerAddress | None = None
        self.handle: str | None = None
        self.task: str = task
        self.unique: str | None = None
        self.data: Any = data
        self.priority: str | None = priority
        self.background: bool = background
        self.max_connection_attempts: int = max_attempts
        # The following attributes are internal to engines, except `state` and
        # `connection_attempts`.
        #: The unique, if the library has generated it and can therefore replace it.
        self.generated_unique: str | None = None
        self.encoder: Any = NoopEncoder
        #: Deleted while an engine claims the request, so that no other engine can do so.
        self.unclaimed: bool = True
        self._initialize()

    def _initialize(self) -> None:
        self.state: str = JOB_UNKNOWN
        self.connection_attempts: int = 0
        self.raw_result: bytes | None = None
        self._result: Any = Missing
        #: The encoded data, from `prepare` until the submit is acknowledged or has failed.
        self.payload: bytes | None = None
        #: The connection that it is on its way over, or waited for on; None if it is not under way.
        self.link: Any = None
        #: Whom to tell when its state changes.
        self.waits: tuple[Waiter, ...] = ()

    def set_special(self, run_at: datetime | float | None, reducer: str | bytes | None) -> None:
        """Have what few jobs have: the time not to be run before, and a reducer."""
        if run_at is not None:
            self.run_at = run_at
        if reducer is not None:
            self.reducer = reducer

    def renew(self) -> None:
        """Make it as good as new but for what it is to be sent with; for engines, before they do.

        It has no handle then, and no unique that was made for it.
        """
        payload = self.payload
        for name in _UNTIL_ANEW:
            self.__dict__.pop(name, None)
        self._initialize()
        self.payload = payload
        self.handle = None
        self.forget_unique()

    def leave(self, state: str, error: Exception | None = None) -> None:
        """End the request, and notify the waiting calls; for engines.

        Only this method and `leave_together` end a request in flight.

        Args:
            state: The final state.
            error: The reason, unless the worker ended the job.
        """
        was_pending = self.state == JOB_PENDING
        if error is not None:
            self.error = error
        waits, self.waits = self.waits, ()
        self.let_go(state)
        for wait in waits:
            if was_pending:
                wait.requests_over((self,))
            else:
                wait.request_ended(self)

    def let_go(self, state: str) -> None:
        """Set the final state, and remove the request from its place in the engine."""
        self.state = state
        self.payload = None
        # Few requests have either, and each of the calls costs as much as the rest of this method.
        if self.timed_out is not False or self.tried is not _NOWHERE:
            self.was_in_time()
            self.forget_tried()
        # This has to be last: from now on, another thread's engine can claim the request.
        self.link = None

    def was_in_time(self) -> None:
        """Reset `timed_out`, even if the application has set it."""
        if self.timed_out is not False:
            self.timed_out = False

    def forget_tried(self) -> None:
        """Clear the servers already `tried`; for engines."""
        if self.tried is not _NOWHERE:
            self.tried = _NOWHERE

    def strand(self) -> None:
        """Detach the request from its closed client but keep its state; for engines."""
        self.payload = None
        self.forget_tried()
        self.link = _Stranded

    @property
    def is_stranded(self) -> bool:
        """True if the request's engine ended while the request was in flight."""
        return self.link is not None and self.link.engine.is_abandoned

    def settle(self) -> None:
        """Set a stranded request to JOB_UNKNOWN; for engines, before they use it."""
        if self.is_stranded:
            payload = self.payload  # `prepare` might have set it meanwhile.
            self.lose(ConnectionError(_STRANDED))
            self.payload = payload

    def lose(self, error: Exception) -> None:
        """End a request whose engine has ended, from any state; for engines."""
        self.waits = ()
        if self.complete:
            self.let_go(self.state)
        else:
            self.leave(JOB_UNKNOWN, error)

    @classmethod
    def from_handle(cls, handle: str | bytes, server: HostSpec | None = None) -> GearmanJobRequest:
        """Return a request for a job that was submitted before, to ask for its status.

        Args:
            handle: The job's handle, as `request.job.handle` had it.
            server: The server that gave it, in any form that a host list takes; if None, all
                servers of the client are asked.
        """
        return cls._from(GearmanJob(_address(server), to_text(handle), "", None, b""))

    @classmethod
    def from_unique(cls, unique: str | bytes, server: HostSpec | None = None) -> GearmanJobRequest:
        """Return a request for a job that was submitted before, to ask for its status by unique.

        Args:
            unique: The job's unique.
            server: The server that has the job, in any form that a host list takes; if None, all
                servers of the client are asked.
        """
        return cls._from(GearmanJob(_address(server), None, "", to_text(unique), b""))

    @classmethod
    def _from(cls, job: GearmanJob) -> GearmanJobRequest:
        request = cls(job, background=True)
        request.state = JOB_CREATED
        return request

    def __repr__(self) -> str:
        timed_out = ", timed out" if self.timed_out else ""
        reason = self.reason
        because = "" if reason is None else f" reason={reason[:_SHORT]!r}"
        return (
            f"<GearmanJobRequest {self.state}{timed_out} task={self.task!r} "
            f"unique={self.unique!r} handle={self.handle!r}{because}>"
        )

    @property
    def reason(self) -> str | None:
        """Why it failed or was lost, as text for people; None if it was not, or nobody said why.

        What was wrong with the submit or the connection (`error`); or what the worker said: the
        data of its exception (`exception`), or else its last warning, which is how a worker that
        sends no exceptions says it.
        """
        if self.error is not None:
            return str(self.error)
        if self.state != JOB_FAILED:
            return None
        said = self.raw_exception
        if said is None and self._exception is not Missing:
            said = self._exception
        if said is None and self._updates is not None:
            said = self._updates.last_warning
        if isinstance(said, bytes):
            return said[:MAX_REASON].decode("utf-8", "replace")
        return None if said is None else str(said)

    @property
    def job(self) -> GearmanJob:
        """The job, whose attributes are those of this request."""
        job = self._job() if isinstance(self._job, weakref.ref) else self._job
        if job is None:
            job = self._job_class.view_of(self)
            # Were it not weak, requests and their results would wait for the cycle collector.
            self._job = weakref.ref(job)
        return job

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the state for a copy: everything except the request's place in a client.

        A copy of a request in flight keeps the request's state, but belongs to no client.
        """
        state: Any = super().__getstate__()
        slots: dict[str, Any] = state[1]
        # Other threads might end the request or read its result meanwhile. They write the exception
        # and the raw result before the state, and the decoded result before they drop the raw one.
        attributes = dict(self.__dict__)
        slots["raw_result"] = self.raw_result
        slots["_result"] = self._result
        slots["payload"], slots["waits"], slots["unclaimed"] = None, (), True
        is_created = slots["state"] == JOB_CREATED and slots["link"] is not None
        slots["link"] = _Stranded if is_created or slots["state"] == JOB_PENDING else None
        for name in ("tried", "_job", "_updates"):
            attributes.pop(name, None)
        if isinstance(self._job, GearmanJob):
            attributes["_job"] = copy.copy(self._job)
        if self._updates is not None:
            attributes["_updates"] = copy.copy(self._updates)
        return attributes, slots

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        for part in state:
            for name, value in part.items():
                setattr(self, name, value)
        if isinstance(self._job, GearmanJob):
            self._job.keep_in(self)

    @property
    def gearman_job(self) -> GearmanJob:
        """The same as `job` (python-gearman's `gearman_job`)."""
        return self.job

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to wait for.

        A background request is complete once it is JOB_CREATED, a foreground one once it is
        JOB_FAILED or JOB_COMPLETE. A request that the server refused is JOB_FAILED.
        """
        if self.background and self.state == JOB_CREATED:
            return True
        return self.state in (JOB_FAILED, JOB_COMPLETE)

    @property
    def result(self) -> Any:
        """The decoded result of the job; None until it has one.

        Raises:
            Exception: Any exception that the encoder's `decode` raises.
        """
        if self._result is Missing:
            if self.raw_result is None:
                return None
            self._result = self.encoder.decode(self.raw_result)
            self.raw_result = None
        return self._result

    @property
    def exception(self) -> Any:
        """The decoded data of the exception that the job failed with; None without an exception.

        Raises:
            Exception: Any exception that the encoder's `decode` raises.
        """
        if self._exception is Missing:
            if self.raw_exception is None:
                return None
            self._exception = self.encoder.decode(self.raw_exception)
            self.raw_exception = None
        return self._exception

    def set_status(self, status: JobStatus) -> None:
        """A status or WORK_STATUS has come; for engines."""
        self._status = status

    @property
    def status(self) -> JobStatus:
        """What is known of its progress; see JobStatus. Empty until something is."""
        return self._status if self._status is not None else {}

    @property
    def data_updates(self) -> UpdateQueue:
        """The unread data of WORK_DATA, decoded."""
        return self.all_updates().data

    @property
    def warning_updates(self) -> UpdateQueue:
        """The unread data of WORK_WARNING, decoded."""
        return self.all_updates().warnings

    @property
    def status_updates(self) -> UpdateQueue:
        """The unread (numerator, denominator) pairs of WORK_STATUS; the last 1,000 at most."""
        return self.all_updates().progress

    @property
    def has_updates(self) -> bool:
        """Whether anything has come of the job that could be unread."""
        return self._updates is not None

    def all_updates(self) -> Updates:
        """What has come of the job and was not read; engines add to it."""
        if self._updates is None:
            self._updates = Updates(self.encoder)
        return self._updates

    def reset(self) -> None:
        """Make it as if it had never been submitted (python-gearman: `reset`).

        Raises:
            InvalidClientState: It is being submitted, or waited for.
        """
        self._check_idle()
        self.renew()
        self.connection = self.payload = None

    def _check_idle(self) -> None:
        if self.link is not None and not self.is_stranded:
            raise InvalidClientState(f"{self!r} is under way")

    def forget_unique(self) -> None:
        """Have no unique, if it was made here and must not be sent again; for engines."""
        # The server may still have the job of a foreground request, doomed because its client has
        # gone: a submit with the same unique would be attached to it and never hear of it again.
        # A background job can't be doomed so; there the same unique saves running it twice.
        if not self.background and self.unique == self.generated_unique:
            self.unique = None


def leave_together(requests: Iterable[GearmanJobRequest]) -> None:
    """End acknowledged background requests, notifying their waits in as few calls as possible."""
    waits: tuple[Waiter, ...] = ()
    alike: list[GearmanJobRequest] = []
    for request in requests:
        if request.waits is not waits:
            for wait in waits:
                wait.requests_over(alike)
            waits, alike = request.waits, []
        request.waits = ()
        request.let_go(JOB_CREATED)
        alike.append(request)
    for wait in waits:
        wait.requests_over(alike)


def _address(server: HostSpec | None) -> ServerAddress | None:
    return None if server is None else parse_address(server)


def next_update(request: GearmanJobRequest) -> JobUpdate | None:
    """Take the oldest unread update of `request`, of whatever kind, or return None.

    Raises:
        Exception: Whatever the encoder's `decode` raises. The update is taken all the same.
    """
    if not request.has_updates:
        return None
    updates = request.all_updates()
    queue = min(updates.data, updates.warnings, updates.progress, key=lambda queue: queue.first)
    if not queue:
        return None
    value = queue.popleft()
    if queue is updates.progress:
        return JobProgress(*value)
    return JobData(value) if queue is updates.data else JobWarning(value)


def ended(request: GearmanJobRequest) -> JobEnded:
    """Return how `request` ended.

    Raises:
        Exception: Whatever the encoder's `decode` raises.
    """
    return JobEnded(request.state, request.result, request.exception)
