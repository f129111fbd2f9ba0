"""Jobs and requests as applications see them: text is `str`, data is what the encoder makes of it.

Text and bytes
    Names (task, unique, handle) are `str` here and bytes on the wire, UTF-8 with surrogateescape,
    so that any bytes survive the round trip. Wherever a name is given, `str` and `bytes` will do.

Encoding and decoding
    Encoders are the application's code, so they run in the application's calls and never in an
    engine: `prepare` encodes before anything is sent; what comes back is kept as bytes and decoded
    when it is first read, so that an undecodable result is an error where it is used, and nowhere
    else.

Size
    There may be a hundred thousand requests at once. They have slots, and what most of them never
    need (updates, a status) is made when it is first needed.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypedDict, TypeVar, overload

from . import constants, events
from .address import HostSpec, ServerAddress, parse_address
from .constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
)
from .encoder import NoopEncoder, encode_data
from .errors import InvalidClientState

if TYPE_CHECKING:
    from typing_extensions import Self

    from .waits import Wait


__all__ = [
    "GearmanJob",
    "GearmanJobRequest",
    "JobData",
    "JobEnded",
    "JobProgress",
    "JobStatus",
    "JobUpdate",
    "JobWarning",
    "UpdateQueue",
    "ended",
    "make_requests",
    "next_update",
    "prepare",
]


class JobStatus(TypedDict, total=False):
    """What `GearmanJobRequest.status` holds. Empty until a status or WORK_STATUS has come."""

    #: The job's handle, if that is known (it is not part of an answer to a query by unique).
    handle: str | None
    #: Whether the server knows the job. It forgets a job when that ends.
    known: bool
    #: Whether a worker has it.
    running: bool
    #: The worker's progress, 0 if it reported none.
    numerator: int
    denominator: int
    #: When this came, in seconds since 1970.
    time_received: float
    #: How many foreground submits wait for the job. Only in answers to a query by unique.
    client_count: int


def to_text(name: str | bytes) -> str:
    """Return a name as the job layer has it."""
    if type(name) is str:
        return name
    if isinstance(name, (bytes, bytearray)):
        return name.decode("utf-8", "surrogateescape")
    if isinstance(name, str):
        return str(name)
    raise TypeError(f"a name is a str or bytes, not {name!r}")


def to_wire(name: str) -> bytes:
    """Return a name as the wire has it."""
    return name.encode("utf-8", "surrogateescape")


def check_name(what: str, name: str, limit: int) -> bytes:
    """Return a name as the wire has it.

    Raises:
        ValueError: It has a NUL in it, or more than `limit` bytes.
    """
    try:
        wire = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"the {what} {name!r} can't be sent as UTF-8: {error.reason}") from None
    if 0 in wire:
        raise ValueError(f"the {what} {name[:80]!r} has a NUL in it")
    if len(wire) > limit:
        raise ValueError(
            f"the {what} {name[:80]!r} has {len(wire)} bytes, more than the {limit} servers take"
        )
    return wire


class _Fields:
    """What a job is made of, in the one place where it is kept."""

    __slots__ = ("connection", "data", "handle", "task", "unique")

    connection: ServerAddress | None
    handle: str | None
    task: str
    unique: str | None
    data: Any

    def _fill(
        self,
        connection: ServerAddress | None,
        handle: str | None,
        task: str,
        unique: str | None,
        data: Any,
    ) -> None:
        self.connection = connection
        self.handle = handle
        self.task = task
        self.unique = unique
        self.data = data

    def _leave_server(self) -> None:
        self.connection = None
        self.handle = None

    def _drop_unique(self) -> None:
        self.unique = None


_T = TypeVar("_T")


class _Forwarded(Generic[_T]):
    """An attribute of a job that is kept in its fields."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, job: None, owner: type) -> Self: ...
    @overload
    def __get__(self, job: GearmanJob, owner: type) -> _T: ...
    def __get__(self, job: GearmanJob | None, owner: type) -> Any:
        return self if job is None else getattr(job._fields, self._name)

    def __set__(self, job: GearmanJob, value: _T) -> None:
        setattr(job._fields, self._name, value)


class GearmanJob:
    """What is to be done (python-gearman: `gearman.job.GearmanJob`).

    A request keeps all this itself, so that a hundred thousand requests are not two hundred
    thousand objects; its `job` is a view of it, made when somebody looks. A job that a request is
    made of becomes such a view.

    Attributes:
        connection: The address of the server that has the job, or None.
        handle: The server's name for it, or None.
        task: The function that it is for.
        unique: The submitter's name for it, or None.
        data: What to do it with, before encoding.
    """

    __slots__ = ("__dict__", "__weakref__", "_fields")

    connection: _Forwarded[ServerAddress | None] = _Forwarded()
    handle: _Forwarded[str | None] = _Forwarded()
    task: _Forwarded[str] = _Forwarded()
    unique: _Forwarded[str | None] = _Forwarded()
    data: _Forwarded[Any] = _Forwarded()

    def __init__(
        self,
        connection: ServerAddress | None,
        handle: str | bytes | None,
        task: str | bytes,
        unique: str | bytes | None,
        data: Any,
    ) -> None:
        self._fields = _Fields()
        self._fields._fill(
            connection,
            None if handle is None else to_text(handle),
            to_text(task),
            None if unique is None else to_text(unique),
            data,
        )

    @classmethod
    def _view(cls, fields: _Fields) -> GearmanJob:
        job = cls.__new__(cls)
        job._fields = fields
        return job

    def __repr__(self) -> str:
        return f"<GearmanJob task={self.task!r} unique={self.unique!r} handle={self.handle!r}>"


@dataclass(frozen=True)
class JobData:
    """A part of the result has come (WORK_DATA), decoded."""

    data: Any


@dataclass(frozen=True)
class JobWarning:
    """A warning has come (WORK_WARNING), decoded."""

    data: Any


@dataclass(frozen=True)
class JobProgress:
    """The job's progress has come (WORK_STATUS)."""

    numerator: int
    denominator: int


@dataclass(frozen=True)
class JobEnded:
    """The job has ended, or its connection was lost (then `state` is JOB_UNKNOWN).

    `result` and `exception` are as in the request.
    """

    state: str
    result: Any = None
    exception: Any = None


#: What `updates` yields.
JobUpdate = JobData | JobWarning | JobProgress | JobEnded

#: Bytes of updates of one job that may lie unread. A job that sends more fails.
MAX_UNREAD_UPDATES: Final = constants.DEFAULT_MAX_PACKET_SIZE
#: Status updates of one job that may lie unread. Older ones are dropped.
MAX_UNREAD_PROGRESS: Final = 1000
#: Bytes of a job's data, encoded: a packet's size is a number of 32 bits, for the names, too.
MAX_PAYLOAD_SIZE: Final = constants.MAX_BODY_SIZE - 16384
# What an update costs beside its bytes, roughly.
_UPDATE_COST: Final = 200


class _Update:
    __slots__ = ("is_raw", "number", "size", "value")

    def __init__(self, number: int, value: Any, size: int, is_raw: bool) -> None:
        self.number = number
        self.value = value
        self.size = size
        self.is_raw = is_raw


class UpdateQueue(Sequence[Any]):
    """The unread updates of one kind, oldest first; `popleft` takes one out.

    Reading one decodes it, once.
    """

    __slots__ = ("_added", "_encoder", "_entries", "_taken")

    def __init__(self, encoder: Any, maxlen: int | None = None) -> None:
        self._encoder = encoder
        self._entries: deque[_Update] = deque(maxlen=maxlen)
        # Bytes. Two counters, as two threads count: the engine's, and the one that reads.
        self._added = 0
        self._taken = 0

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._read(entry) for entry in list(self._entries)[index]]
        return self._read(self._entries[index])

    def __repr__(self) -> str:
        return f"<UpdateQueue of {len(self)}>"

    def popleft(self) -> Any:
        """Remove and return the oldest update. IndexError if there is none."""
        return self._read(self._pop())

    @property
    def unread(self) -> int:
        """Bytes that lie in it."""
        return self._added - self._taken

    @property
    def first(self) -> int:
        """The number of the oldest update; beyond all numbers if there is none."""
        return self._entries[0].number if self._entries else sys.maxsize

    def add(self, number: int, value: Any, size: int, *, is_raw: bool) -> None:
        """Append an update; for engines."""
        self._added += size
        self._entries.append(_Update(number, value, size, is_raw))

    def _pop(self) -> _Update:
        entry = self._entries.popleft()
        self._taken += entry.size
        return entry

    def _read(self, entry: _Update) -> Any:
        if entry.is_raw:
            entry.value = self._encoder.decode(entry.value)
            entry.is_raw = False
        return entry.value


class _Updates:
    """All updates of one request, numbered as they came."""

    __slots__ = ("count", "data", "progress", "warnings")

    def __init__(self, encoder: Any) -> None:
        self.count = 0
        self.data = UpdateQueue(encoder)
        self.warnings = UpdateQueue(encoder)
        self.progress = UpdateQueue(encoder, MAX_UNREAD_PROGRESS)

    def add(self, queue: UpdateQueue, raw: bytes) -> bool:
        """Append an update. Returns whether the unread ones are still few enough."""
        self.count += 1
        queue.add(self.count, raw, len(raw) + _UPDATE_COST, is_raw=True)
        return self.data.unread + self.warnings.unread <= MAX_UNREAD_UPDATES

    def add_progress(self, numerator: int, denominator: int) -> None:
        self.count += 1
        self.progress.add(self.count, (numerator, denominator), 0, is_raw=False)


_MISSING: Final = object()


class GearmanJobRequest(_Fields):
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

    Attributes:
        task, data, unique, handle, connection: As in GearmanJob.
        state: JOB_UNKNOWN, JOB_PENDING, JOB_CREATED, JOB_FAILED or JOB_COMPLETE.
        timed_out: Whether the last call that waited for this request gave up before it ended.
        error: Why it failed, if that was not the worker's doing: the ServerError with which the
            server refused it, or why it could not be sent. None otherwise.
        connection_attempts: How often sending it was tried, since it was last submitted.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_encoder",
        "_generated",
        "_link",
        "_payload",
        "_raw_result",
        "_result",
        "_tried",
        "_waits",
        "background",
        "connection_attempts",
        "error",
        "max_connection_attempts",
        "priority",
        "reducer",
        "run_at",
        "state",
        "timed_out",
    )

    # What most requests never have is an attribute of the class, until it is set.
    _raw_exception: bytes | None = None
    _exception: Any = _MISSING
    _status: JobStatus | None = None
    _updates: _Updates | None = None
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
        self._setup(job.task, job.data, initial_priority, background, max_attempts)
        self._fill(job.connection, job.handle, job.task, job.unique, job.data)
        self.run_at: datetime | float | None = run_at
        self.reducer: str | bytes | None = reducer
        self._job = gearman_job
        gearman_job._fields = self

    @classmethod
    def _make(
        cls, task: str | bytes, data: Any, background: bool, max_attempts: int
    ) -> GearmanJobRequest:
        """What the constructor does, without a GearmanJob."""
        request = cls.__new__(cls)
        request._setup(
            task if type(task) is str else to_text(task),
            data,
            PRIORITY_NONE,
            background,
            max_attempts,
        )
        return request

    def _setup(
        self, task: str, data: Any, priority: str | None, background: bool, max_attempts: int
    ) -> None:
        self.connection: ServerAddress | None = None
        self.handle: str | None = None
        self.task: str = task
        self.unique: str | None = None
        self.data: Any = data
        self.priority: str | None = priority
        self.background: bool = background
        self.max_connection_attempts: int = max_attempts
        self.run_at = None
        self.reducer = None
        # The unique if it was made here, and so may be made anew.
        self._generated: str | None = None
        self._encoder: Any = NoopEncoder
        self._initialize()

    def _initialize(self) -> None:
        self.state: str = JOB_UNKNOWN
        self.timed_out: bool = False
        self.error: Exception | None = None
        self.connection_attempts: int = 0
        self._raw_result: bytes | None = None
        self._result: Any = _MISSING
        # The encoded data, from `prepare` until the submit is acknowledged or has failed.
        self._payload: bytes | None = None
        # The connection that it is on its way over, or waited for on.
        self._link: Any = None
        # The servers that were tried in vain for the current attempt.
        self._tried: tuple[Any, ...] = ()
        # Whom to tell when its state changes.
        self._waits: tuple[Wait, ...] = ()

    def _initialize_again(self) -> None:
        for name in ("_raw_exception", "_exception", "_status", "_updates"):
            self.__dict__.pop(name, None)
        self._initialize()

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
        return (
            f"<GearmanJobRequest {self.state}{timed_out} task={self.task!r} "
            f"unique={self.unique!r} handle={self.handle!r}>"
        )

    @property
    def job(self) -> GearmanJob:
        """The job."""
        job = self._job() if isinstance(self._job, weakref.ref) else self._job
        if job is None:
            job = GearmanJob._view(self)
            # Were it not weak, requests and their results would wait for the cycle collector.
            self._job = weakref.ref(job)
        return job

    @property
    def gearman_job(self) -> GearmanJob:
        """The same."""
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
        """What the job returned, decoded; None until then.

        Raises:
            Exception: Whatever the encoder's `decode` raises.
        """
        if self._result is _MISSING:
            if self._raw_result is None:
                return None
            self._result = self._encoder.decode(self._raw_result)
            self._raw_result = None
        return self._result

    @property
    def exception(self) -> Any:
        """The data of the exception that the job failed with, decoded; None if there was none.

        Raises:
            Exception: Whatever the encoder's `decode` raises.
        """
        if self._exception is _MISSING:
            if self._raw_exception is None:
                return None
            self._exception = self._encoder.decode(self._raw_exception)
            self._raw_exception = None
        return self._exception

    @property
    def status(self) -> JobStatus:
        """What is known of its progress; see JobStatus. Empty until something is."""
        return self._status if self._status is not None else {}

    @property
    def data_updates(self) -> UpdateQueue:
        """The unread data of WORK_DATA, decoded."""
        return self._all_updates().data

    @property
    def warning_updates(self) -> UpdateQueue:
        """The unread data of WORK_WARNING, decoded."""
        return self._all_updates().warnings

    @property
    def status_updates(self) -> UpdateQueue:
        """The unread (numerator, denominator) pairs of WORK_STATUS; the last 1,000 at most."""
        return self._all_updates().progress

    def _all_updates(self) -> _Updates:
        if self._updates is None:
            self._updates = _Updates(self._encoder)
        return self._updates

    def reset(self) -> None:
        """Make it as if it had never been submitted (python-gearman: `reset`).

        Raises:
            InvalidClientState: It is being submitted, or waited for.
        """
        if self._link is not None and not self._link.engine.closed:
            raise InvalidClientState(f"{self!r} is under way")
        self._leave_server()
        self._forget_unique()
        self._initialize_again()

    def _forget_unique(self) -> None:
        # The server may still have the job of a foreground request, doomed because its client has
        # gone: a submit with the same unique would be attached to it and never hear of it again.
        # A background job can't be doomed so; there the same unique saves running it twice.
        if not self.background and self.unique == self._generated:
            self._drop_unique()


def _address(server: HostSpec | None) -> ServerAddress | None:
    return None if server is None else parse_address(server)


def next_update(request: GearmanJobRequest) -> JobUpdate | None:
    """Take the oldest unread update of `request`, of whatever kind, or return None.

    Raises:
        Exception: Whatever the encoder's `decode` raises. The update is taken all the same.
    """
    updates = request._updates
    if updates is None:
        return None
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


# Making requests, and making them ready.

#: The submit packet for each (priority, background).
SUBMITS: Final[dict[tuple[str | None, bool], type[events.SubmitJob]]] = {
    (PRIORITY_NONE, False): events.SubmitJob,
    (PRIORITY_LOW, False): events.SubmitJobLow,  # type: ignore[dict-item] # the same fields
    (PRIORITY_HIGH, False): events.SubmitJobHigh,  # type: ignore[dict-item]
    (PRIORITY_NONE, True): events.SubmitJobBg,  # type: ignore[dict-item]
    (PRIORITY_LOW, True): events.SubmitJobLowBg,  # type: ignore[dict-item]
    (PRIORITY_HIGH, True): events.SubmitJobHighBg,  # type: ignore[dict-item]
}

_JOB_KEYS: Final = frozenset({"task", "data", "unique", "priority", "run_at", "reducer"})


def make_requests(
    jobs: Iterable[Mapping[str, Any]], *, background: bool = False, max_retries: int = 0
) -> list[GearmanJobRequest]:
    """Return requests for the dicts that `submit_multiple_jobs` takes.

    Args:
        jobs: Dicts with `task` and `data`, and optionally `unique`, `priority`, `run_at` and
            `reducer`.
        background: As in GearmanJobRequest.
        max_retries: How often a submit that was lost may be sent again.

    Raises:
        TypeError: Something is not of the type it must be.
        ValueError: A key is missing or unknown, or `max_retries` is negative.
    """
    check_collection("jobs_to_submit", jobs)
    if not isinstance(max_retries, int):
        raise TypeError(f"max_retries is a number, not {max_retries!r}")
    if max_retries < 0:
        raise ValueError(f"max_retries is {max_retries}: it can't be negative")
    attempts = max_retries + 1
    background = bool(background)
    requests = []
    for job in jobs:
        try:
            task, data = job["task"], job["data"]
            keys = len(job)
        except (TypeError, KeyError, IndexError):
            raise _bad_job(job) from None
        request = GearmanJobRequest._make(task, data, background, attempts)
        if keys > 2:
            _add_options(request, job)
        requests.append(request)
    return requests


def _add_options(request: GearmanJobRequest, job: Mapping[str, Any]) -> None:
    if not _JOB_KEYS.issuperset(job):
        raise _bad_job(job)
    unique = job.get("unique")
    request.unique = None if unique is None else to_text(unique)
    request.priority = job.get("priority")
    request.run_at = job.get("run_at")
    request.reducer = job.get("reducer")


def _bad_job(job: Any) -> Exception:
    if not isinstance(job, Mapping):
        return TypeError(f"a job to submit is a dict with task and data, not {job!r}")
    for key in ("task", "data"):
        if key not in job:
            return ValueError(f"a job to submit has no {key!r}: its keys are {[*job]}")
    unknown = sorted(set(job) - _JOB_KEYS, key=repr)
    return ValueError(f"a job to submit has no key {unknown[0]!r}; it may have {sorted(_JOB_KEYS)}")


def check_collection(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a list, a tuple or a set."""
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError(f"{name} is a list, a tuple or a set, not {type(value).__name__}")


def check_requests(requests: Iterable[GearmanJobRequest]) -> None:
    """Raise TypeError unless `requests` is a list, a tuple or a set of requests."""
    check_collection("job_requests", requests)
    for request in requests:
        if not isinstance(request, GearmanJobRequest):
            raise TypeError(f"a request is a GearmanJobRequest, not {request!r}")


def prepare(requests: Iterable[GearmanJobRequest], encoder: Any) -> None:
    """Check all of `requests`, and encode the data of those that are going to be sent.

    This runs the application's encoder, so it is not called where that could hold up others. It
    changes nothing if it raises, but for those that came before.

    Args:
        requests: The requests of one call.
        encoder: The `data_encoder` to use.

    Raises:
        TypeError: Something is not of the type it must be, or not even a request.
        ValueError: Something has a value that servers do not take.
        Exception: Whatever the encoder raises.
    """
    check_requests(requests)
    task = None
    for request in requests:
        if request.state != JOB_UNKNOWN:
            continue
        if request.task is not task:
            task = request.task
            check_name("task", task, constants.MAX_FUNCTION_SIZE)
        if request.unique and request.unique != request._generated:
            check_name("unique", request.unique, constants.MAX_UNIQUE_SIZE)
        if request.run_at is not None or request.reducer is not None:
            _check_special(request)
        elif (request.priority, request.background) not in SUBMITS:
            raise ValueError(
                f"a priority is PRIORITY_NONE, PRIORITY_LOW or PRIORITY_HIGH, "
                f"not {request.priority!r}"
            )
        payload = encode_data(encoder, request.data)
        if len(payload) > MAX_PAYLOAD_SIZE:
            raise ValueError(
                f"the data has {len(payload)} bytes, more than the {MAX_PAYLOAD_SIZE} that fit a "
                "packet"
            )
        request._encoder = encoder
        request._payload = payload


def _check_special(request: GearmanJobRequest) -> None:
    if request.run_at is not None and request.reducer is not None:
        raise ValueError("a job has a run_at or a reducer, not both")
    if request.priority is not None:
        raise ValueError("a job with a run_at or a reducer has no priority")
    if request.run_at is not None:
        if not request.background:
            raise ValueError("a job with a run_at is a background job")
        to_epoch(request.run_at)
    else:
        check_name("reducer", to_text(request.reducer or ""), constants.MAX_REDUCER_SIZE)


def to_epoch(run_at: datetime | float | None) -> int:
    """Return a time as whole seconds since 1970, never earlier than `run_at`."""
    if isinstance(run_at, datetime):
        run_at = run_at.timestamp()
    if not isinstance(run_at, (int, float)) or isinstance(run_at, bool):
        raise TypeError(f"run_at is a datetime or seconds since 1970, not {run_at!r}")
    if not 0 <= run_at <= constants.MAX_EPOCH:
        raise ValueError(f"run_at is {run_at}, before 1970 or too late")
    return math.ceil(run_at)


def submit_event(request: GearmanJobRequest) -> events.PacketEvent:
    """Return the packet that submits `request`, which has been prepared and has a unique."""
    payload = request._payload or b""
    function = request.task.encode("utf-8", "surrogateescape")
    unique = (request.unique or "").encode("utf-8", "surrogateescape")
    if request.run_at is not None:
        epoch = b"%d" % to_epoch(request.run_at)
        return events.SubmitJobEpoch(function, unique, epoch, payload)
    if request.reducer is not None:
        reducer = to_wire(to_text(request.reducer))
        if request.background:
            return events.SubmitReduceJobBackground(function, unique, reducer, b"", payload)
        return events.SubmitReduceJob(function, unique, reducer, b"", payload)
    return SUBMITS[request.priority, request.background](function, unique, payload)
